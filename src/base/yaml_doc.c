#include "base/yaml_doc.h"
#include "base/mem.h"
#include "base/parse.h"
#include "base/yaml_features.h"
#include <math.h>
#include <stdlib.h>

struct reader {
  yaml_parser_t parser;
  yaml_event_t event; /* the current one */
  struct err *e;
};

static int refuse(struct reader *r, const char *what) {
  yaml_mark_t at = r->event.start_mark;
  return err_set(r->e, ERR_MALFORMED, "line %zu, column %zu: %s", at.line + 1, at.column + 1, what);
}

static int next(struct reader *r) {
  yaml_event_delete(&r->event);
  if (yaml_parser_parse(&r->parser, &r->event)) {
    const char *refused = yaml_refused(&r->event);
    return refused ? refuse(r, refused) : 0;
  }
  memset(&r->event, 0, sizeof r->event);
  if (r->parser.error == YAML_MEMORY_ERROR)
    mem_exhausted();
  yaml_mark_t at = r->parser.problem_mark;
  return err_set(r->e, ERR_MALFORMED, "line %zu, column %zu: not valid YAML: %s", at.line + 1, at.column + 1,
                 r->parser.problem ? r->parser.problem : "unknown");
}

/* How many digits `s` begins with; they are taken off. */
static size_t digits(struct slice *s) {
  size_t n = 0;
  while (n < s->n && s->p[n] >= '0' && s->p[n] <= '9')
    n++;
  *s = slice_n(s->p + n, s->n - n);
  return n;
}

static bool one_of(struct slice *s, const char *marks) {
  bool found = s->n && s->p[0] && strchr(marks, s->p[0]);
  if (found)
    *s = slice_n(s->p + 1, s->n - 1);
  return found;
}

/* A decimal number with a point, such as -1.5e3; the whole text must be one. */
static bool is_real(struct slice s) {
  (void)one_of(&s, "-+");
  size_t n = digits(&s);
  if (!one_of(&s, "."))
    return false;
  n += digits(&s);
  if (n && one_of(&s, "eE")) {
    (void)one_of(&s, "-+");
    n = digits(&s);
  }
  return n && !s.n;
}

static bool is_one_of(struct slice s, const char *const *words) {
  for (; *words; words++)
    if (slice_eqz(s, *words))
      return true;
  return false;
}

static json_t *plain_value(struct slice s) {
  static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
  static const char *const truths[] = {"true", "True", "TRUE", NULL};
  static const char *const lies[] = {"false", "False", "FALSE", NULL};
  int64_t i;
  if (is_one_of(s, nulls))
    return json_null();
  if (is_one_of(s, truths))
    return json_true();
  if (is_one_of(s, lies))
    return json_false();
  if (parse_i64(s, INT64_MIN, INT64_MAX, &i, NULL) == 0)
    return json_integer(i);
  if (is_real(s)) { /* integers beyond 64 bits stay texts */
    auto_free char *z = mem_slicedup(s);
    double d = strtod(z, NULL);
    if (isfinite(d))
      return json_real(d);
  }
  return NULL;
}

static int read_scalar(struct reader *r, json_t **ret) {
  struct slice s = slice_n((const char *)r->event.data.scalar.value, r->event.data.scalar.length);
  json_t *j = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain_value(s) : NULL;
  if (!j && memchr(s.p, 0, s.n))
    return refuse(r, "a text contains a NUL byte");
  if (!j)
    j = json_stringn(s.p, s.n);
  if (!j)
    return refuse(r, "expected UTF-8");
  *ret = j;
  return 0;
}

static int read_value(struct reader *r, int depth, json_t **ret);

static int read_sequence(struct reader *r, int depth, json_t **ret) {
  auto_json *list = json_array();
  int code;
  while ((code = next(r)) == 0 && r->event.type != YAML_SEQUENCE_END_EVENT) {
    json_t *item = NULL;
    code = read_value(r, depth + 1, &item);
    if (code < 0)
      return code;
    (void)json_array_append_new(list, item); /* fails only without memory */
  }
  if (code == 0)
    *ret = take(list);
  return code;
}

static int read_mapping(struct reader *r, int depth, json_t **ret) {
  auto_json *object = json_object();
  int code;
  while ((code = next(r)) == 0 && r->event.type != YAML_MAPPING_END_EVENT) {
    if (r->event.type != YAML_SCALAR_EVENT)
      return refuse(r, "expected the name of a field");
    struct slice key = slice_n((const char *)r->event.data.scalar.value, r->event.data.scalar.length);
    if (memchr(key.p, 0, key.n) || !slice_utf8_valid(key))
      return refuse(r, "the name of a field is not a text");
    auto_free char *name = mem_slicedup(key);
    if (json_object_get(object, name))
      return refuse(r, "this field stands here twice");
    json_t *value = NULL;
    if ((code = next(r)) < 0 || (code = read_value(r, depth + 1, &value)) < 0)
      return code;
    (void)json_object_set_new(object, name, value); /* fails only without memory */
  }
  if (code == 0)
    *ret = take(object);
  return code;
}

static int read_value(struct reader *r, int depth, json_t **ret) {
  if (depth > YAML_DOC_DEPTH_MAX)
    return refuse(r, "nested too deeply");
  if (r->event.type == YAML_SCALAR_EVENT)
    return read_scalar(r, ret);
  if (r->event.type == YAML_SEQUENCE_START_EVENT)
    return read_sequence(r, depth, ret);
  return r->event.type == YAML_MAPPING_START_EVENT ? read_mapping(r, depth, ret)
                                                   : refuse(r, "expected a value");
}

/* The documents up to the end; the current event is the stream's begin. */
static int read_documents(struct reader *r, json_t *list) {
  int code;
  while ((code = next(r)) == 0 && r->event.type == YAML_DOCUMENT_START_EVENT) {
    json_t *found = NULL;
    if ((code = next(r)) < 0 || (code = read_value(r, 0, &found)) < 0)
      return code;
    (void)json_array_append_new(list, found); /* fails only without memory */
    if ((code = next(r)) < 0)                 /* its end */
      return code;
  }
  return code;
}

static int read_text(struct reader *r, struct slice text, json_t *list) {
  if (!yaml_parser_initialize(&r->parser))
    mem_exhausted();
  yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
  yaml_parser_set_input_string(&r->parser, (const unsigned char *)(text.p ? text.p : ""), text.n);
  int code = next(r);
  if (code == 0)
    code = read_documents(r, list);
  if (code == 0 && !json_array_size(list))
    code = refuse(r, "the document is empty");
  yaml_event_delete(&r->event);
  yaml_parser_delete(&r->parser);
  return code;
}

int yaml_doc_read_all(struct slice text, size_t max_bytes, json_t **ret, struct err *e) {
  struct reader r = {.e = e};
  auto_json *list = json_array();
  if (text.n > max_bytes)
    return err_set(e, ERR_TOO_LARGE, "expected a YAML document of at most %zu bytes", max_bytes);
  int code = read_text(&r, text, list);
  if (code == 0)
    *ret = take(list);
  return code;
}

int yaml_doc_read(struct slice text, size_t max_bytes, json_t **ret, struct err *e) {
  auto_json *list = NULL;
  int code = yaml_doc_read_all(text, max_bytes, &list, e);
  if (code < 0)
    return code;
  if (json_array_size(list) != 1)
    return err_set(e, ERR_MALFORMED, "expected one YAML document");
  *ret = json_incref(json_array_get(list, 0));
  return 0;
}
