/* What comes in: query, headers, body, checked by the tables before a handler sees them. Errors of the query are named "?name",
 * of headers "@Name", of path parameters "{name}"; reply.c prints them so. */
#include "api/internal.h"
#include "base/parse.h"
#include "net/crypto.h"
#include <inttypes.h>
#include <stdio.h>

/* ------------------------------------------------------------------ values as text: the query */

static int text_bounds(const struct field *f, struct slice s, struct err *e) {
  if (s.n >= (size_t)f->min && s.n <= (size_t)f->max)
    return slice_utf8_valid(s) ? 0 : err_set(e, ERR_INVALID, "expected UTF-8");
  return err_set(e, ERR_INVALID, "expected a text of %" PRId64 " to %" PRId64 " bytes", f->min, f->max);
}

static int enums_from_text(const struct field *f, struct slice s, int64_t *ret, struct err *e) {
  int64_t bits = 0;
  struct slice rest = s;
  do {
    int i;
    int r = parse_enum(slice_cut(rest, ',', &rest), f->names, &i, e);
    if (r < 0)
      return r;
    bits |= INT64_C(1) << i;
  } while (rest.p);
  *ret = bits;
  return 0;
}

static int value_from_text(const struct field *f, struct slice s, struct value *v, struct err *e) {
  int r, i = 0;
  v->s = s;
  switch (f->type) {
  case VALUE_TEXT: return text_bounds(f, s, e);
  case VALUE_NAME: return parse_name(s, (size_t)f->max, e);
  case VALUE_ENUM:
    r = parse_enum(s, f->names, &i, e);
    v->i = i;
    return r;
  case VALUE_ENUMS: return enums_from_text(f, s, &v->i, e);
  case VALUE_INT: return parse_i64(s, f->min, f->max, &v->i, e);
  case VALUE_BOOL: return parse_bool(s, &v->b, e);
  case VALUE_INSTANT: return time_parse_rfc3339(s, &v->i, e);
  case VALUE_DURATION: return duration_parse(s, f->min, f->max, &v->i, e);
  case VALUE_NUMBER:
  case VALUE_JSON:
  case VALUE_MAP:
  case VALUE_NAMES:
  case VALUE_REF:
  case VALUE_LIST: break;
  }
  return err_set(e, ERR_INTERNAL, "no such query parameter");
}

static int at(struct err *e, const char *mark, const char *name, int code) {
  char field[ERR_FIELD_MAX];
  (void)snprintf(field, sizeof field, "%s%s", mark, name); /* cut names are still named */
  (void)err_at(e, field);
  return code;
}

static void query_defaults(struct call *c) {
  for (int i = 0; i < Q_MAX_; i++)
    if (api_fields[i].value && api_fields[i].type == VALUE_INT)
      (void)parse_i64(slice_of(api_fields[i].value), INT64_MIN, INT64_MAX, &c->query[i].i,
                      NULL); /* our own table */
}

static struct slice decoded(struct call *c, struct slice s, bool form, bool *ret_good) {
  auto_str out;
  str_init(&out, 16 * 1024);
  *ret_good = http_decode(s, form, &out) == 0 && !str_failed(&out);
  return *ret_good ? arena_slice(&c->mem, str_slice(&out)) : (struct slice){0};
}

static int query_unknown(struct call *c, struct slice name) {
  const char *known[Q_MAX_ + 1];
  size_t n = 0;
  for (int i = 0; i < Q_MAX_; i++)
    if (c->route->query & UINT64_C(1) << i)
      known[n++] = api_fields[i].name;
  known[n] = NULL;
  char text[ERR_FIELD_MAX];
  (void)text_copy(text, sizeof text, name);
  const char *near = n ? parse_nearest(name, known) : NULL;
  char field[ERR_FIELD_MAX];
  (void)snprintf(field, sizeof field, "?%.80s", text);
  if (near)
    return err_field(&c->e, ERR_UNKNOWN_FIELD, field, "this parameter is not known; did you mean \"%s\"?",
                     near);
  return err_field(&c->e, ERR_UNKNOWN_FIELD, field, "this parameter is not known%s",
                   n ? "" : " here; none is");
}

int params_query(struct call *c) {
  query_defaults(c);
  struct slice rest = c->req->query, raw_name, raw_value;
  while (http_query_next(&rest, &raw_name, &raw_value)) {
    bool good_name, good_value;
    struct slice name = decoded(c, raw_name, true, &good_name),
                 text = decoded(c, raw_value, true, &good_value);
    if (!good_name || !slice_utf8_valid(name))
      return err_set(&c->e, ERR_MALFORMED, "the query string cannot be decoded");
    int i = 0;
    while (i < Q_MAX_ && !((c->route->query & UINT64_C(1) << i) && slice_eqz(name, api_fields[i].name)))
      i++;
    if (i == Q_MAX_)
      return query_unknown(c, name);
    const char *shown = api_fields[i].name;
    if (c->query[i].there)
      return at(&c->e, "?", shown, err_set(&c->e, ERR_INVALID, "this parameter is given twice"));
    if (!good_value)
      return at(&c->e, "?", shown, err_set(&c->e, ERR_MALFORMED, "the value cannot be decoded"));
    int r = value_from_text(&api_fields[i], text, &c->query[i], &c->e);
    if (r < 0)
      return at(&c->e, "?", shown, r);
    c->query[i].there = true;
  }
  return 0;
}

/* ------------------------------------------------------------------ headers */

static int if_match(struct call *c) {
  struct slice h = slice_trim(http_request_header(c->req, "If-Match"));
  if (!h.n) {
    if (c->route->flags & ROUTE_MATCH_NEED)
      return err_field(&c->e, ERR_PRECONDITION, "@If-Match",
                       "expected the ETag of the version that this one replaces, or *");
    return 0;
  }
  if (!(c->route->flags & ROUTE_MATCH) || slice_eqz(h, "*"))
    return 0;
  if (h.n > 2 && h.p[0] == 'W' && h.p[1] == '/') /* a weak one never matches (RFC 9110 §13.1.1) */
    return err_field(&c->e, ERR_STALE, "@If-Match", "a weak ETag never matches");
  if (h.n >= 2 && h.p[0] == '"' && h.p[h.n - 1] == '"')
    h = slice_n(h.p + 1, h.n - 2);
  int64_t version = 0;
  if (parse_i64(h, 1, INT32_MAX, &version, NULL) < 0)
    return err_field(&c->e, ERR_INVALID, "@If-Match", "expected an ETag such as \"3\", or *");
  c->if_version = (int32_t)version;
  return 0;
}

static int idempotency(struct call *c) {
  struct slice key = http_request_header(c->req, "Idempotency-Key");
  if (!key.p)
    return 0;
  if (!(c->route->flags & ROUTE_IDEM))
    return err_field(&c->e, ERR_INVALID, "@Idempotency-Key",
                     "this call does not take one: a repeat would not be recognised");
  bool good = key.n >= 1 && key.n <= API_IDEM_KEY_MAX;
  for (size_t i = 0; good && i < key.n; i++)
    good = key.p[i] > ' ' && key.p[i] < 0x7f;
  if (!good)
    return err_field(&c->e, ERR_INVALID, "@Idempotency-Key", "expected 1 to %d visible ASCII characters",
                     API_IDEM_KEY_MAX);
  /* the path, not its pattern: a key belongs to one call on one thing by one token */
  c->idem.route = slice_of(
      arena_printf(&c->mem, "%s %.*s %" PRId64, c->route->method, SLICE_FMT(c->req->path), c->who.token_id));
  c->idem.key = key;
  c->idem.keep = c->api->o.idempotency_keep;
  crypto_sha256(c->req->body, c->idem.body_hash);
  return 0;
}

int params_headers(struct call *c) {
  int r = if_match(c);
  return r < 0 ? r : idempotency(c);
}

/* ------------------------------------------------------------------ values from JSON: the body */

static int json_names(const struct field *f, const json_t *j, struct err *e) {
  size_t n = json_array_size(j), i;
  const json_t *item;
  if (!json_is_array(j) || n < (size_t)f->min || n > (size_t)f->max)
    return err_set(e, ERR_INVALID, "expected a list of %" PRId64 " to %" PRId64 " names", f->min, f->max);
  json_array_foreach ((json_t *)(uintptr_t)j, i, item) {
    struct slice s = slice_n(json_string_value(item), json_string_length(item));
    int r = slice_eqz(s, "*") ? 0 : parse_name(s, API_NAME_MAX, e);
    if (r < 0) {
      char place[32];
      (void)snprintf(place, sizeof place, "/%zu", i);
      (void)err_at(e, place);
      return r;
    }
  }
  return 0;
}

static int json_size(const struct field *f, const json_t *j, struct value *v, struct arena *mem,
                     struct err *e) {
  auto_free char *text = json_text(j);
  if (strlen(text) > (size_t)f->max)
    return err_set(e, ERR_TOO_LARGE, "expected at most %" PRId64 " bytes of JSON", f->max);
  v->s = arena_slice(mem, slice_of(text));
  return 0;
}

static int json_text_value(const struct field *f, const json_t *j, struct value *v, struct err *e) {
  if (!json_is_string(j))
    return err_set(e, ERR_INVALID, "expected a text");
  v->s = slice_n(json_string_value(j), json_string_length(j));
  return f->type == VALUE_NAME ? parse_name(v->s, (size_t)f->max, e) : text_bounds(f, v->s, e);
}

static int value_from_json(const struct field *f, const json_t *j, struct value *v, struct arena *mem,
                           struct err *e) {
  struct slice s = slice_n(json_string_value(j), json_string_length(j));
  int r, i = 0;
  switch (f->type) {
  case VALUE_TEXT:
  case VALUE_NAME: return json_text_value(f, j, v, e);
  case VALUE_ENUM:
    r = parse_enum(s, f->names, &i, e);
    v->i = i;
    return r;
  case VALUE_INT:
    v->i = json_integer_value(j);
    if (json_is_integer(j) && v->i >= f->min && v->i <= f->max)
      return 0;
    return err_set(e, ERR_INVALID, "expected a whole number from %" PRId64 " to %" PRId64, f->min, f->max);
  case VALUE_NUMBER:
    v->d = json_number_value(j);
    if (json_is_number(j) && v->d >= (double)f->min && v->d <= (double)f->max)
      return 0;
    return err_set(e, ERR_INVALID, "expected a number from %" PRId64 " to %" PRId64, f->min, f->max);
  case VALUE_BOOL:
    v->b = json_is_true(j);
    return json_is_boolean(j) ? 0 : err_set(e, ERR_INVALID, "expected true or false");
  case VALUE_INSTANT: return time_parse_rfc3339(s, &v->i, e);
  case VALUE_DURATION: return duration_parse(s, f->min, f->max, &v->i, e);
  case VALUE_JSON: return json_size(f, j, v, mem, e);
  case VALUE_MAP:
    return json_is_object(j) ? json_size(f, j, v, mem, e) : err_set(e, ERR_INVALID, "expected an object");
  case VALUE_NAMES: return json_names(f, j, e);
  case VALUE_REF: return json_is_object(j) ? 0 : err_set(e, ERR_INVALID, "expected an object");
  case VALUE_LIST:
    if (json_is_array(j) && json_array_size(j) >= (size_t)f->min && json_array_size(j) <= (size_t)f->max)
      return 0;
    return err_set(e, ERR_INVALID, "expected a list of %" PRId64 " to %" PRId64, f->min, f->max);
  case VALUE_ENUMS: break;
  }
  return err_set(e, ERR_INTERNAL, "no such field");
}

static int keys_known(int first, int end, const json_t *object, struct err *e) {
  const char *known[API_FIELDS_MAX + 1];
  int n = 0;
  for (int i = first; i < end; i++)
    known[n++] = api_fields[i].name;
  known[n] = NULL;
  return json_check_keys(object, known, e);
}

int fields_read(enum schema_id s, const json_t *object, struct value *ret, struct arena *mem, struct err *e) {
  int first, end;
  schema_range(s, &first, &end);
  int r = json_want_object(object, "", e);
  if (r < 0 || (r = keys_known(first, end, object, e)) < 0)
    return r;
  for (int i = first; i < end; i++) {
    const struct field *f = &api_fields[i];
    struct value *v = &ret[i - first];
    *v = (struct value){.j = json_object_get(object, f->name)};
    if (f->value && f->type == VALUE_INT)
      (void)parse_i64(slice_of(f->value), INT64_MIN, INT64_MAX, &v->i, NULL); /* our own table */
    /* a payload may be null; elsewhere null is the same as nothing */
    if (!v->j || (json_is_null(v->j) && f->type != VALUE_JSON)) {
      if (f->flags & FIELD_REQ)
        return at(e, "/", f->name, err_set(e, ERR_MISSING, "this field is required"));
      continue;
    }
    if ((r = value_from_json(f, v->j, v, mem, e)) < 0)
      return at(e, "/", f->name, r);
    v->there = true;
  }
  return 0;
}

/* "application/json", perhaps with charset=utf-8. */
static bool media_type(struct slice header, bool merge) {
  struct slice rest, type = slice_trim(slice_cut(header, ';', &rest));
  rest = slice_trim(rest);
  if (rest.n && !slice_eqz_nocase(rest, "charset=utf-8") && !slice_eqz_nocase(rest, "charset=\"utf-8\""))
    return false;
  return slice_eqz_nocase(type, "application/json") ||
         (merge && slice_eqz_nocase(type, "application/merge-patch+json"));
}

/* Bodies that the task service reads. */
static bool read_elsewhere(enum schema_id s) { return s == SCHEMA_task_input || s == SCHEMA_task_patch; }

int params_body(struct call *c) {
  struct slice body = c->req->body;
  if (c->route->body == SCHEMA_none) {
    if (body.n)
      return err_set(&c->e, ERR_INVALID, "this call has no body");
    return 0;
  }
  bool merge = c->route->flags & ROUTE_MERGE;
  if (!body.n && (c->route->flags & ROUTE_BODY_OPT)) {
    c->body = json_object();
  } else {
    if (!body.n)
      return err_set(&c->e, ERR_MISSING, "expected a JSON document in the body");
    if (!media_type(http_request_header(c->req, "Content-Type"), merge))
      return err_field(&c->e, ERR_MEDIA_TYPE, "@Content-Type", "expected application/json%s",
                       merge ? " or application/merge-patch+json" : "");
    if (c->route->body == SCHEMA_report_list ||
        c->route->role == ROUTE_PEER) /* the intake reads it, or the peer link, once */
      return 0;
    int r = json_read(body, c->api->o.max_body_bytes, &c->body, &c->e);
    if (r < 0)
      return r;
  }
  if (read_elsewhere(c->route->body))
    return 0;
  return fields_read(c->route->body, c->body, c->in, &c->mem, &c->e);
}

/* ------------------------------------------------------------------ cursors */

/* Route and parameters without the cursor and the limit: a cursor is good for the list it came from. */
static void cursor_sum(struct call *c, const void *data, size_t n, uint8_t ret[8]) {
  auto_str text;
  str_init(&text, API_ANSWER_MAX);
  str_addf(&text, "%s %.*s", c->route->method, SLICE_FMT(c->req->path));
  for (int i = 0; i < Q_MAX_; i++)
    if (c->query[i].there && i != Q_cursor && i != Q_limit) {
      str_addf(&text, "\n%d %zu ", i, c->query[i].s.n);
      str_add(&text, c->query[i].s);
    }
  str_addc(&text, '\n');
  str_add(&text, slice_n(data, n));
  uint8_t hash[32];
  crypto_sha256(str_slice(&text), hash);
  memcpy(ret, hash, 8);
}

char *cursor_make(struct call *c, const void *data, size_t n) {
  uint8_t bytes[CURSOR_DATA_MAX + 8];
  memcpy(bytes, data, n);
  cursor_sum(c, data, n, bytes + n);
  char *text = arena_alloc(&c->mem, (n + 8) * 8 / 5 + 3);
  base32hex_encode(bytes, n + 8, text);
  return text;
}

int cursor_read(struct call *c, void *ret_data, size_t n) {
  const struct value *v = &c->query[Q_cursor];
  if (!v->there)
    return 0;
  uint8_t bytes[CURSOR_DATA_MAX + 8], sum[8];
  bool good = v->s.n == ((n + 8) * 8 + 4) / 5 && base32hex_decode(v->s, bytes, n + 8, NULL) == 0;
  if (good) {
    cursor_sum(c, bytes, n, sum);
    good = memcmp(sum, bytes + n, sizeof sum) == 0;
  }
  if (!good)
    return err_field(&c->e, ERR_INVALID, "?cursor",
                     "expected the next_cursor of a page of this list with the same filters");
  memcpy(ret_data, bytes, n);
  return 1;
}
