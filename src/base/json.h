#pragma once
/* JSON: jansson, strict (duplicate keys, trailing data, bad UTF-8, \u0000 refused), with field errors,
 * plus a direct text writer for hot paths (base/str.h: str_add_json). */
#include "base/err.h"
#include "base/str.h"
#include "base/time.h"
#include <jansson.h>

/* From now on jansson's memory comes from base/mem.h, so that its calls do not fail. A program calls it first of all; a library in
 * somebody else's program must not. */
void json_use_mem(void);

static inline void json_unref_p(json_t **j) { json_decref(*j); }
#define auto_json __attribute__((cleanup(json_unref_p))) json_t

/* Parse one document of at most `max_bytes`; the caller owns the result.
 * ERR_MALFORMED with line and column in the text, ERR_TOO_LARGE. */
int json_read(struct slice text, size_t max_bytes, json_t **ret, struct err *e);
/* Compact text; canonical (sorted keys) when asked: equal values give equal texts. Free with mem_free. */
char *json_text(const json_t *j);
char *json_canonical(const json_t *j);

/* Field readers. `object` must be an object, `key` is looked up; a missing or null field leaves *ret
 * untouched and returns 0; found and good returns 1; wrong type or range: negative, e->field = "/key". */
int json_get_i64(const json_t *object, const char *key, int64_t min, int64_t max, int64_t *ret,
                 struct err *e);
int json_get_bool(const json_t *object, const char *key, bool *ret, struct err *e);
int json_get_slice(const json_t *object, const char *key, size_t max_bytes, struct slice *ret, struct err *e);
int json_get_enum(const json_t *object, const char *key, const char *const *names, int *ret, struct err *e);
int json_get_time(const json_t *object, const char *key, usec_t *ret, struct err *e);
int json_get_duration(const json_t *object, const char *key, usec_t min, usec_t max, usec_t *ret,
                      struct err *e);
int json_get_double(const json_t *object, const char *key, double min, double max, double *ret,
                    struct err *e);
/* Refuse fields outside a NULL-terminated list (ERR_UNKNOWN_FIELD, naming the nearest known one). */
int json_check_keys(const json_t *object, const char *const *known, struct err *e);
/* Must be an object: ERR_INVALID "expected an object". */
int json_want_object(const json_t *j, const char *field, struct err *e);
