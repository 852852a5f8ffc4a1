/* What goes out: documents, problems (RFC 9457), headers. */
#include "api/internal.h"
#include "base/log.h"
#include <inttypes.h>
#include <stdio.h>

/* ------------------------------------------------------------------ building JSON */

void put(json_t *o, const char *key, json_t *value) {
  if (value)
    (void)json_object_set_new(o, key, value); /* fails only without memory */
}

void put_text(json_t *o, const char *key, struct slice s) {
  if (s.n)
    put(o, key, json_stringn(s.p, s.n));
}

void put_id(json_t *o, const char *key, int64_t id) {
  char text[24];
  (void)snprintf(text, sizeof text, "%" PRId64, id);
  put(o, key, json_string(text));
}

void put_time(json_t *o, const char *key, usec_t t) {
  char text[TIME_TEXT_MAX];
  if (t != USEC_NONE && t != USEC_NEVER)
    put(o, key, json_string(time_format(t, text)));
}

void put_duration(json_t *o, const char *key, usec_t d) {
  char text[TIME_TEXT_MAX];
  put(o, key, json_string(duration_format(d, text)));
}

void put_raw(json_t *o, const char *key, struct slice text) {
  json_t *j = NULL;
  if (!text.p)
    return;
  if (json_read(text, text.n, &j, NULL) == 0)
    put(o, key, j);
  else /* one that was cut at its limit */
    put_text(o, key, text);
}

/* ------------------------------------------------------------------ answers */

void call_header(struct call *c, const char *name, const char *value) {
  if (c->header_count < API_HEADERS_MAX)
    c->header[c->header_count++] = (struct http_header){slice_of(name), slice_of(value)};
}

int call_empty(struct call *c, int status) {
  c->status = status;
  return 0;
}

int call_json(struct call *c, int status, json_t *doc) {
  c->text = json_text(doc);
  c->text_n = strlen(c->text);
  json_decref(doc);
  c->content_type = "application/json";
  return call_empty(c, status);
}

int call_list(struct call *c, json_t *items, const char *cursor) {
  json_t *doc = json_object();
  put(doc, "items", items);
  put(doc, "next_cursor", cursor ? json_string(cursor) : json_null());
  return call_json(c, 200, doc);
}

static char *etag(struct call *c, int32_t version) {
  return arena_printf(&c->mem, "\"%" PRId32 "\"", version);
}

void call_etag(struct call *c, int32_t version) { call_header(c, "ETag", etag(c, version)); }

/* If-None-Match compares weakly (RFC 9110 §13.1.2). */
bool call_unchanged(struct call *c, int32_t version) {
  struct slice rest = http_request_header(c->req, "If-None-Match");
  char *mine = etag(c, version);
  while (rest.n) {
    struct slice one = slice_trim(slice_cut(rest, ',', &rest));
    if (one.n > 2 && one.p[0] == 'W' && one.p[1] == '/')
      one = slice_n(one.p + 2, one.n - 2);
    if (slice_eqz(one, mine) || slice_eqz(one, "*")) {
      call_etag(c, version);
      (void)call_empty(c, 304);
      return true;
    }
  }
  return false;
}

static void request_id(const struct call *c, char *ret, size_t size) {
  (void)snprintf(ret, size, "%s-%" PRIu64, c->api->boot, c->req->id);
}

void call_reply(struct call *c) {
  char id[48];
  request_id(c, id, sizeof id);
  struct http_header headers[API_HEADERS_MAX + 3];
  size_t n = 0;
  headers[n++] = (struct http_header){SLICE("X-Request-Id"), slice_of(id)};
  headers[n++] = (struct http_header){SLICE("Cache-Control"), SLICE("no-store")};
  headers[n++] = (struct http_header){SLICE("X-Content-Type-Options"), SLICE("nosniff")};
  for (size_t i = 0; i < c->header_count; i++)
    headers[n++] = c->header[i];
  struct http_reply r = {.status = c->status,
                         .content_type = c->content_type,
                         .headers = headers,
                         .header_count = n,
                         .body = slice_n(c->text, c->text_n)};
  http_request_reply(c->req, &r);
}

/* ------------------------------------------------------------------ problems */

static void member(struct str *out, const char *name, struct slice text) {
  str_addf(out, "\"%s\":\"", name);
  str_add_json(out, text);
  str_addc(out, '"');
}

/* "/field" → pointer, "?name" and "{name}" → parameter, "@Name" → header (params.c). */
static void error_place(struct str *out, const struct err *e) {
  struct slice f = slice_of(e->field);
  str_addz(out, ",\"errors\":[{");
  if (f.n && f.p[0] == '?')
    member(out, "parameter", slice_n(f.p + 1, f.n - 1));
  else if (f.n > 2 && f.p[0] == '{')
    member(out, "parameter", slice_n(f.p + 1, f.n - 2));
  else if (f.n && f.p[0] == '@')
    member(out, "header", slice_n(f.p + 1, f.n - 1));
  else
    member(out, "pointer", f);
  if (e->column > 0)
    str_addf(out, ",\"column\":%d", e->column);
  str_addc(out, ',');
  member(out, "detail", slice_of(e->text));
  str_addz(out, "}]");
}

void problem_write(struct str *out, const struct err *e, int status, const char *id) {
  str_addf(out, "{\"type\":\"urn:kelou:problem:%s\",", err_name(e->code));
  member(out, "title", slice_of(err_title(e->code)));
  str_addf(out, ",\"status\":%d,", status);
  member(out, "detail", slice_of(e->text[0] ? e->text : err_title(e->code)));
  str_addc(out, ',');
  member(out, "code", slice_of(err_name(e->code)));
  if (id) {
    str_addc(out, ',');
    member(out, "request_id", slice_of(id));
  }
  if (e->field[0] || e->column > 0)
    error_place(out, e);
  str_addc(out, '}');
}

/* What went wrong inside is for the log: it may name hosts, files or statements. */
static void hide_inside(struct call *c, int status) {
  char id[48];
  request_id(c, id, sizeof id);
  if (status != 500 && status != 503)
    return;
  log_warn("request failed", LF_S("request_id", id), LF_S("route", c->route ? c->route->name : ""),
           LF_S("code", err_name(c->e.code)), LF_E(&c->e));
  c->e.field[0] = 0;
  c->e.column = 0;
  (void)snprintf(c->e.text, sizeof c->e.text, "%s",
                 status == 500 ? "the server's log says more, under the request id"
                               : "the database does not answer as it should; try again");
}

static void problem_headers(struct call *c, int status) {
  if (status == 401)
    call_header(c, "WWW-Authenticate", "Bearer realm=\"kelou\"");
  if (status == 429 || status == 503)
    call_header(c, "Retry-After", "1");
}

void call_problem(struct call *c, int code) {
  char id[48];
  request_id(c, id, sizeof id);
  if (c->e.code != code) { /* a call that failed without a word */
    c->e = (struct err){.code = code};
  }
  int status = err_http(code);
  if (!c->e.field[0] || c->e.field[0] != '!')
    hide_inside(c, status);
  else
    c->e.field[0] = 0; /* "!": our own words, fit for everybody */
  auto_str out;
  str_init(&out, 8192);
  problem_write(&out, &c->e, status, id);
  mem_free(c->text);
  c->text = NULL;
  c->text_n = 0;
  if (!str_failed(&out)) {
    c->text_n = out.n;
    c->text = str_take(&out);
  }
  c->status = status;
  c->content_type = "application/problem+json";
  problem_headers(c, status);
  call_reply(c);
}

/* Answers of the HTTP parser itself, before there is a request. */
void api_refusal(int status, const char *why, struct str *body, const char **ret_content_type) {
  static const struct {
    int status, code;
  } codes[] = {{400, ERR_MALFORMED}, {408, ERR_TIMEOUT},   {413, ERR_TOO_LARGE},   {415, ERR_MEDIA_TYPE},
               {429, ERR_BUSY},      {431, ERR_TOO_LARGE}, {503, ERR_UNAVAILABLE}, {504, ERR_TIMEOUT}};
  struct err e;
  int code = ERR_MALFORMED;
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
    if (codes[i].status == status)
      code = codes[i].code;
  (void)err_set(&e, code, "%s", why);
  problem_write(body, &e, status, NULL);
  *ret_content_type = "application/problem+json";
}
