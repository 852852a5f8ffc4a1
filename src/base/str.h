#pragma once
/* Text: a borrowed slice, and a builder with a hard cap and a sticky error. */
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Borrowed bytes, not terminated; the owner must outlive it. `p` may be NULL when n is 0. */
struct slice {
  const char *p;
  size_t n;
};
#define SLICE(literal) ((struct slice){(literal), sizeof(literal) - 1})
#define SLICE_FMT(s)   (int)(s).n, (s).p ? (s).p : "" /* for "%.*s" */

static inline struct slice slice_of(const char *z) { return (struct slice){z, z ? strlen(z) : 0}; }
static inline struct slice slice_n(const char *p, size_t n) { return (struct slice){p, n}; }
bool slice_eq(struct slice a, struct slice b);
bool slice_eqz(struct slice a, const char *z);
bool slice_eqz_nocase(struct slice a, const char *z); /* ASCII only */
struct slice slice_trim(struct slice s);              /* spaces and tabs at both ends */
/* Cut at the first `sep`: returns the head, `*rest` gets the tail (n = 0 and p = NULL: no sep). */
struct slice slice_cut(struct slice s, char sep, struct slice *rest);
/* The longest head of at most `max` bytes that does not end inside a UTF-8 character. */
struct slice slice_utf8_head(struct slice s, size_t max);
bool slice_utf8_valid(struct slice s);
/* Bytes of the well-formed UTF-8 character that `s` begins with; 0: none (empty or malformed). */
size_t slice_utf8_step(struct slice s);
uint64_t slice_hash(struct slice s); /* stable across runs and machines (64-bit FNV-1a + mix) */

/* A growing text with a maximum given at init. After an overflow every call is a no-op and
 * str_failed() stays true: check once, at the end. The content is always NUL-terminated. */
struct str {
  char *p;
  size_t n, cap, max;
  bool failed;
};
void str_init(struct str *s, size_t max_bytes);
void str_done(struct str *s);  /* frees; safe on a zeroed struct */
void str_clear(struct str *s); /* reusable, keeps the memory */
void str_add(struct str *s, struct slice text);
void str_addz(struct str *s, const char *z);
void str_addc(struct str *s, char c);
void str_addf(struct str *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void str_addi(struct str *s, int64_t v);
/* Append as the inside of a JSON string (RFC 8259 §7), without the quotes. */
void str_add_json(struct str *s, struct slice text);
bool str_failed(const struct str *s);
static inline struct slice str_slice(const struct str *s) { return (struct slice){s->p, s->n}; }
/* Hand the buffer over to the caller (free with mem_free); NULL when failed. */
char *str_take(struct str *s);
#define auto_str __attribute__((cleanup(str_done))) struct str

/* Checked copy into a fixed buffer; returns -ENOSPC when it was cut (buf is terminated then too). */
int text_copy(char *buf, size_t size, struct slice text);
