#include "base/json.h"
#include "base/mem.h"
#include "base/parse.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

void json_use_mem(void) { json_set_alloc_funcs(mem_alloc, mem_free); }

int json_read(struct slice text, size_t max_bytes, json_t **ret, struct err *e) {
  if (text.n > max_bytes)
    return err_set(e, ERR_TOO_LARGE, "expected a JSON document of at most %zu bytes", max_bytes);
  if (text.n && memchr(text.p, 0, text.n)) /* jansson passes over them outside of texts */
    return err_set(e, ERR_MALFORMED, "the document contains a NUL byte");
  json_error_t je = {0};
  json_t *j = json_loadb(text.p ? text.p : "", text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
  if (!j) {
    if (json_error_code(&je) == json_error_out_of_memory)
      mem_exhausted();
    return err_set(e, ERR_MALFORMED, "line %d, column %d: %s", je.line, je.column, je.text);
  }
  *ret = j;
  return 0;
}

static void write_value(struct str *out, const json_t *j, bool sorted);

static void write_text(struct str *out, struct slice text) {
  str_addc(out, '"');
  str_add_json(out, text);
  str_addc(out, '"');
}

/* The shortest digits that read back as the same number, and visibly not an integer. */
static void write_real(struct str *out, double v) {
  char buf[40];
  for (int digits = 15; digits <= 17; digits++) {
    (void)snprintf(buf, sizeof buf, "%.*g", digits, v);
    if (strtod(buf, NULL) == v)
      break;
  }
  str_addz(out, buf);
  if (!strpbrk(buf, ".e"))
    str_addz(out, ".0");
}

struct member {
  struct slice key;
  const json_t *value;
};

static int member_cmp(const void *a, const void *b) {
  struct slice x = ((const struct member *)a)->key, y = ((const struct member *)b)->key;
  int c = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);
  return c ? c : (x.n > y.n) - (x.n < y.n);
}

static void write_object(struct str *out, const json_t *j, bool sorted) {
  size_t n = json_object_size(j), i = 0;
  auto_free struct member *list = mem_array(n, sizeof *list);
  json_t *it_of = (json_t *)(uintptr_t)j; /* the iterator does not write, but wants a mutable object */
  for (void *it = json_object_iter(it_of); it; it = json_object_iter_next(it_of, it)) {
    list[i].key = slice_n(json_object_iter_key(it), json_object_iter_key_len(it));
    list[i++].value = json_object_iter_value(it);
  }
  if (sorted && n)
    qsort(list, n, sizeof *list, member_cmp);
  str_addc(out, '{');
  for (i = 0; i < n; i++) {
    if (i)
      str_addc(out, ',');
    write_text(out, list[i].key);
    str_addc(out, ':');
    write_value(out, list[i].value, sorted);
  }
  str_addc(out, '}');
}

static void write_array(struct str *out, const json_t *j, bool sorted) {
  str_addc(out, '[');
  for (size_t i = 0; i < json_array_size(j); i++) {
    if (i)
      str_addc(out, ',');
    write_value(out, json_array_get(j, i), sorted);
  }
  str_addc(out, ']');
}

/* Recursion is bounded by the depth the parser accepts (2,048). */
static void write_value(struct str *out, const json_t *j, bool sorted) {
  switch (j ? json_typeof(j) : JSON_NULL) {
  case JSON_OBJECT: write_object(out, j, sorted); return;
  case JSON_ARRAY: write_array(out, j, sorted); return;
  case JSON_STRING: write_text(out, slice_n(json_string_value(j), json_string_length(j))); return;
  case JSON_INTEGER: str_addi(out, json_integer_value(j)); return;
  case JSON_REAL: write_real(out, json_real_value(j)); return;
  case JSON_TRUE: str_addz(out, "true"); return;
  case JSON_FALSE: str_addz(out, "false"); return;
  case JSON_NULL: break;
  }
  str_addz(out, "null");
}

static char *write_all(const json_t *j, bool sorted) {
  struct str out;
  str_init(&out, SIZE_MAX - 1); /* its size was limited when it was read */
  write_value(&out, j, sorted);
  return str_take(&out);
}

char *json_text(const json_t *j) { return write_all(j, false); }
char *json_canonical(const json_t *j) { return write_all(j, true); }

/* "/key" as a JSON pointer (RFC 6901 escapes). */
static void pointer(const char *key, char *buf, size_t size) {
  size_t n = 0;
  buf[n++] = '/';
  for (; *key && n + 3 < size; key++) {
    if (*key == '~' || *key == '/') {
      buf[n++] = '~';
      buf[n++] = *key == '~' ? '0' : '1';
    } else {
      buf[n++] = *key;
    }
  }
  buf[n] = 0;
}

/* Name the field in an error that a parser has written without one. */
static int at_key(struct err *e, const char *key, int code) {
  char field[ERR_FIELD_MAX];
  pointer(key, field, sizeof field);
  if (e)
    (void)err_at(e, field);
  return code;
}

/* The present and non-null field, or NULL. */
static json_t *lookup(const json_t *object, const char *key) {
  json_t *v = json_object_get(object, key);
  return v && !json_is_null(v) ? v : NULL;
}

/* A text field handed to a parser of slices. */
static struct slice text_of(const json_t *v) {
  return json_is_string(v) ? slice_n(json_string_value(v), json_string_length(v)) : slice_n(NULL, 0);
}

int json_get_i64(const json_t *object, const char *key, int64_t min, int64_t max, int64_t *ret,
                 struct err *e) {
  const json_t *v = lookup(object, key);
  if (!v)
    return 0;
  int64_t i = json_integer_value(v);
  if (!json_is_integer(v) || i < min || i > max)
    return at_key(e, key,
                  err_set(e, ERR_INVALID, "expected a whole number from %" PRId64 " to %" PRId64, min, max));
  *ret = i;
  return 1;
}

int json_get_bool(const json_t *object, const char *key, bool *ret, struct err *e) {
  const json_t *v = lookup(object, key);
  if (!v)
    return 0;
  if (!json_is_boolean(v))
    return at_key(e, key, err_set(e, ERR_INVALID, "expected true or false"));
  *ret = json_is_true(v);
  return 1;
}

int json_get_slice(const json_t *object, const char *key, size_t max_bytes, struct slice *ret,
                   struct err *e) {
  const json_t *v = lookup(object, key);
  if (!v)
    return 0;
  if (!json_is_string(v) || json_string_length(v) > max_bytes)
    return at_key(e, key, err_set(e, ERR_INVALID, "expected a text of at most %zu bytes", max_bytes));
  *ret = text_of(v);
  return 1;
}

int json_get_enum(const json_t *object, const char *key, const char *const *names, int *ret, struct err *e) {
  const json_t *v = lookup(object, key);
  if (!v)
    return 0;
  int r = parse_enum(text_of(v), names, ret, e);
  return r < 0 ? at_key(e, key, r) : 1;
}

int json_get_time(const json_t *object, const char *key, usec_t *ret, struct err *e) {
  const json_t *v = lookup(object, key);
  if (!v)
    return 0;
  int r = time_parse_rfc3339(text_of(v), ret, e);
  return r < 0 ? at_key(e, key, r) : 1;
}

int json_get_duration(const json_t *object, const char *key, usec_t min, usec_t max, usec_t *ret,
                      struct err *e) {
  const json_t *v = lookup(object, key);
  if (!v)
    return 0;
  int r = duration_parse(text_of(v), min, max, ret, e);
  return r < 0 ? at_key(e, key, r) : 1;
}

int json_get_double(const json_t *object, const char *key, double min, double max, double *ret,
                    struct err *e) {
  const json_t *v = lookup(object, key);
  if (!v)
    return 0;
  double d = json_number_value(v);
  if (!json_is_number(v) || d < min || d > max)
    return at_key(e, key, err_set(e, ERR_INVALID, "expected a number from %g to %g", min, max));
  *ret = d;
  return 1;
}

int json_check_keys(const json_t *object, const char *const *known, struct err *e) {
  const char *key;
  json_t *value;
  json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
    size_t i = 0;
    while (known[i] && strcmp(known[i], key) != 0)
      i++;
    if (known[i])
      continue;
    const char *near = parse_nearest(slice_of(key), known);
    if (near)
      (void)err_set(e, ERR_UNKNOWN_FIELD, "this field is not known; did you mean \"%s\"?", near);
    else
      (void)err_set(e, ERR_UNKNOWN_FIELD, "this field is not known");
    return at_key(e, key, ERR_UNKNOWN_FIELD);
  }
  return 0;
}

int json_want_object(const json_t *j, const char *field, struct err *e) {
  return json_is_object(j) ? 0 : err_field(e, ERR_INVALID, field, "expected an object");
}
