#pragma once
/* Checked parsing of bounded slices; nothing here reads past `n` or accepts trailing junk. */
#include "base/err.h"
#include "base/str.h"
#include <stdint.h>

/* Decimal, optional leading '-'; no '+', no spaces, no leading zeros but "0" itself.
 * Out of [min,max] or not a number: ERR_INVALID, text says what was expected. */
int parse_i64(struct slice text, int64_t min, int64_t max, int64_t *ret, struct err *e);
int parse_bool(struct slice text, bool *ret, struct err *e); /* true|false */
/* "64KiB", "10MiB", "1GiB", "512" (bytes). */
int parse_bytes(struct slice text, int64_t min, int64_t max, int64_t *ret, struct err *e);
/* Index of `text` in a NULL-terminated table, or ERR_INVALID listing what is allowed. */
int parse_enum(struct slice text, const char *const *names, int *ret, struct err *e);
/* The entry of a NULL-terminated table that `text` was most likely meant to be; NULL when none is near. */
const char *parse_nearest(struct slice text, const char *const *names);
/* Lower-case hex both ways. hex_decode wants exactly 2*n digits. */
void hex_encode(const uint8_t *p, size_t n, char *ret_text /* 2n+1 */);
int hex_decode(struct slice text, uint8_t *ret, size_t n, struct err *e);
/* base32hex (RFC 4648 §7), lower case, no padding; sorts as the bytes do. */
void base32hex_encode(const uint8_t *p, size_t n, char *ret_text /* ceil(8n/5)+1 */);
int base32hex_decode(struct slice text, uint8_t *ret, size_t n, struct err *e);
/* A name: 1..max bytes of [A-Za-z0-9_.:-] and UTF-8 letters, no control, no space at the ends. */
int parse_name(struct slice text, size_t max_bytes, struct err *e);
