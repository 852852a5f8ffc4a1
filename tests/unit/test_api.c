#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "api/internal.h"
#include <stdlib.h>

/* ------------------------------------------------------------------ tables */

static void test_every_route_is_whole(void **state) {
  (void)state;
  for (size_t i = 0; i < api_route_count; i++) {
    const struct route *r = &api_routes[i];
    assert_true(r->role >= ROUTE_PEER && r->role < ROLE_MAX_);
    assert_true(r->path[0] == '/' && r->summary[0] && r->status >= 200 && r->status < 300);
    bool under_api = strncmp(r->path, "/api/v1/", 8) == 0;
    assert_true(r->role != ROUTE_PUBLIC || !under_api || strcmp(r->name, "openapi") == 0);
    /* what changes something is never for viewers; what only computes may be */
    if (strcmp(r->method, "GET") != 0 && strcmp(r->name, "schedules_preview") != 0)
      assert_true(r->role != ROLE_VIEWER && r->role != ROUTE_PUBLIC);
    for (size_t k = 0; k < i; k++)
      assert_false(strcmp(r->path, api_routes[k].path) == 0 && strcmp(r->method, api_routes[k].method) == 0);
    int first, end;
    schema_range(r->body, &first, &end);
    assert_true(end - first <= API_FIELDS_MAX);
  }
}

static void test_fields_stand_together(void **state) {
  (void)state;
  for (int i = 0; i < FIELD_MAX_; i++) {
    int first, end;
    assert_non_null(api_fields[i].name);
    schema_range(api_fields[i].schema, &first, &end);
    assert_in_range(i, first, end - 1);
    if (api_fields[i].type == VALUE_ENUM || api_fields[i].type == VALUE_ENUMS)
      assert_non_null(api_fields[i].names);
  }
}

static const struct route *find(const char *method, const char *path, struct route_match *m, int want) {
  struct err e;
  assert_int_equal(route_find(slice_of(method), slice_of(path), m, &e), want);
  return m->route;
}

static void test_routes_are_found(void **state) {
  (void)state;
  struct route_match m;
  assert_string_equal(find("GET", "/api/v1/tasks", &m, 0)->name, "tasks_list");
  assert_string_equal(find("POST", "/api/v1/tasks/batch", &m, 0)->name, "tasks_create_many");
  assert_string_equal(find("GET", "/api/v1/tasks/batch", &m, 0)->name, "tasks_get");
  assert_true(slice_eqz(m.param[0], "batch"));
  assert_string_equal(find("POST", "/api/v1/tasks/ns%2Fa/trigger", &m, 0)->name, "tasks_trigger");
  assert_true(slice_eqz(m.param[0], "ns%2Fa"));
  assert_string_equal(find("HEAD", "/healthz", &m, 0)->name, "healthz");
  find("GET", "/api/v1/tasks/", &m, ERR_NOT_FOUND);
  find("GET", "/api/v1", &m, ERR_NOT_FOUND);
  find("GET", "/api/v1/tasks/1/2/3", &m, ERR_NOT_FOUND);
  find("GET", "/api/v1//tasks", &m, ERR_NOT_FOUND);
  find("OPTIONS", "*", &m, ERR_NOT_FOUND);
  find("DELETE", "/api/v1/tasks", &m, ERR_METHOD);
  assert_string_equal(m.allow, "GET, HEAD, POST");
  find("GET", "/api/v1/reports", &m, ERR_METHOD);
  assert_string_equal(m.allow, "POST");
  find("get", "/healthz", &m, ERR_METHOD);
}

/* ------------------------------------------------------------------ a request without a connection */

struct fixture {
  struct api api;
  struct http_request req;
  struct http_header headers[4];
  struct call c;
};

static void request(struct fixture *f, const char *method, const char *path, const char *query) {
  struct route_match m;
  *f = (struct fixture){.api.o.max_body_bytes = 4096, .api.o.clock = &clock_system, .api.boot = "00000000"};
  f->req = (struct http_request){.method = slice_of(method),
                                 .path = slice_of(path),
                                 .query = slice_of(query),
                                 .headers = f->headers,
                                 .peer = ""};
  f->c = (struct call){.api = &f->api, .req = &f->req};
  assert_int_equal(route_find(f->req.method, f->req.path, &m, NULL), 0);
  f->c.route = m.route;
}

static void header(struct fixture *f, const char *name, const char *value) {
  f->headers[f->req.header_count++] = (struct http_header){slice_of(name), slice_of(value)};
}

static void done(struct fixture *f) {
  json_decref(f->c.body);
  mem_free(f->c.text);
  arena_done(&f->c.mem);
}

static void refused(struct fixture *f, int r, int code, const char *field) {
  assert_int_equal(r, code);
  assert_int_equal(f->c.e.code, code);
  assert_string_equal(f->c.e.field, field);
  done(f);
}

static void test_query_is_checked(void **state) {
  (void)state;
  struct fixture f;
  request(&f, "GET", "/api/v1/runs",
          "state=PENDING,RUNNING&limit=7&executor=a%2Bb+c&since=2026-01-01T00%3A00%3A00Z");
  assert_int_equal(params_query(&f.c), 0);
  assert_int_equal(f.c.query[Q_run_state].i, 1 << RUN_PENDING | 1 << RUN_RUNNING);
  assert_int_equal(f.c.query[Q_limit].i, 7);
  assert_true(slice_eqz(f.c.query[Q_executor].s, "a+b c"));
  assert_true(f.c.query[Q_since].i == INT64_C(1767225600) * USEC_PER_SEC);
  assert_false(f.c.query[Q_until].there);
  done(&f);
  static const struct {
    const char *path, *query, *field;
    int code;
  } bad[] = {{"/api/v1/runs", "limt=7", "?limt", ERR_UNKNOWN_FIELD},
             {"/api/v1/runs", "limit=0", "?limit", ERR_INVALID},
             {"/api/v1/runs", "limit=1001", "?limit", ERR_INVALID},
             {"/api/v1/runs", "limit=5&limit=5", "?limit", ERR_INVALID},
             {"/api/v1/runs", "state=pending", "?state", ERR_INVALID},
             {"/api/v1/runs", "state=FAIL,", "?state", ERR_INVALID},
             {"/api/v1/runs", "since=yesterday", "?since", ERR_INVALID},
             {"/api/v1/runs", "executor=%ff", "?executor", ERR_INVALID},
             {"/api/v1/runs", "executor=%zz", "?executor", ERR_MALFORMED},
             {"/api/v1/tasks", "state=DELETED", "?state", ERR_INVALID},
             {"/healthz", "x=1", "?x", ERR_UNKNOWN_FIELD},
             {"/api/v1/runs", "executor=", "?executor", ERR_INVALID}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    request(&f, "GET", bad[i].path, bad[i].query);
    refused(&f, params_query(&f.c), bad[i].code, bad[i].field);
  }
}

static void test_limit_has_a_default(void **state) {
  (void)state;
  struct fixture f;
  request(&f, "GET", "/api/v1/tasks", "");
  assert_int_equal(params_query(&f.c), 0);
  assert_int_equal(f.c.query[Q_limit].i, API_LIMIT_DEFAULT);
  done(&f);
}

static void test_headers_are_checked(void **state) {
  (void)state;
  struct fixture f;
  request(&f, "PUT", "/api/v1/tasks/1", "");
  refused(&f, params_headers(&f.c), ERR_PRECONDITION, "@If-Match");
  request(&f, "PUT", "/api/v1/tasks/1", "");
  header(&f, "if-match", "\"12\"");
  assert_int_equal(params_headers(&f.c), 0);
  assert_int_equal(f.c.if_version, 12);
  done(&f);
  request(&f, "PUT", "/api/v1/tasks/1", "");
  header(&f, "If-Match", "*");
  assert_int_equal(params_headers(&f.c), 0);
  assert_int_equal(f.c.if_version, 0);
  done(&f);
  request(&f, "PATCH", "/api/v1/tasks/1", "");
  header(&f, "If-Match", "W/\"12\"");
  refused(&f, params_headers(&f.c), ERR_STALE, "@If-Match");
  request(&f, "PATCH", "/api/v1/tasks/1", "");
  header(&f, "If-Match", "\"twelve\"");
  refused(&f, params_headers(&f.c), ERR_INVALID, "@If-Match");
  request(&f, "POST", "/api/v1/tasks/1/pause", "");
  header(&f, "Idempotency-Key", "k");
  refused(&f, params_headers(&f.c), ERR_INVALID, "@Idempotency-Key");
  request(&f, "POST", "/api/v1/tasks", "");
  header(&f, "Idempotency-Key", "a b");
  refused(&f, params_headers(&f.c), ERR_INVALID, "@Idempotency-Key");
  request(&f, "POST", "/api/v1/tasks", "");
  header(&f, "Idempotency-Key", "k");
  f.c.who.token_id = 9;
  assert_int_equal(params_headers(&f.c), 0);
  assert_true(slice_eqz(f.c.idem.route, "POST /api/v1/tasks 9"));
  done(&f);
}

static void body(struct fixture *f, const char *method, const char *path, const char *text) {
  request(f, method, path, "");
  f->req.body = slice_of(text);
  if (*text)
    header(f, "Content-Type", "application/json");
}

static void test_bodies_are_checked(void **state) {
  (void)state;
  struct fixture f;
  body(&f, "POST", "/api/v1/tasks/1/trigger",
       "{\"payload\":{\"a\":[1,2]},\"executor\":\"e-1\",\"ignore_overlap\":true}");
  assert_int_equal(params_body(&f.c), 0);
  struct call *c = &f.c;
  assert_true(slice_eqz(IN(c, trigger, payload)->s, "{\"a\":[1,2]}"));
  assert_true(slice_eqz(IN(c, trigger, executor)->s, "e-1"));
  assert_true(IN(c, trigger, ignore_overlap)->b);
  done(&f);
  body(&f, "POST", "/api/v1/tasks/1/trigger", "");
  assert_int_equal(params_body(&f.c), 0);
  assert_null(IN(c, trigger, payload)->s.p);
  done(&f);
  body(&f, "POST", "/api/v1/tasks/1/trigger", "{\"payload\":null,\"executor\":null}");
  assert_int_equal(params_body(&f.c), 0);
  assert_true(slice_eqz(IN(c, trigger, payload)->s, "null"));
  assert_false(IN(c, trigger, executor)->there);
  done(&f);
  static const struct {
    const char *method, *path, *text, *field;
    int code;
  } bad[] = {
      {"POST", "/api/v1/tasks/1/trigger", "{\"paylod\":1}", "/paylod", ERR_UNKNOWN_FIELD},
      {"POST", "/api/v1/tasks/1/trigger", "[]", "", ERR_INVALID},
      {"POST", "/api/v1/tasks/1/trigger", "{", "", ERR_MALFORMED},
      {"POST", "/api/v1/tasks/1/trigger", "{\"payload\":1,\"payload\":2}", "", ERR_MALFORMED},
      {"POST", "/api/v1/tasks/1/trigger", "{\"ignore_overlap\":\"yes\"}", "/ignore_overlap", ERR_INVALID},
      {"POST", "/api/v1/tokens", "", "", ERR_MISSING},
      {"POST", "/api/v1/tokens", "{\"name\":\"a\"}", "/role", ERR_MISSING},
      {"POST", "/api/v1/tokens", "{\"name\":\"a\",\"role\":\"GOD\"}", "/role", ERR_INVALID},
      {"POST", "/api/v1/tokens", "{\"name\":7,\"role\":\"ADMIN\"}", "/name", ERR_INVALID},
      {"POST", "/api/v1/tokens", "{\"name\":\"a\\n\",\"role\":\"ADMIN\"}", "/name", ERR_INVALID},
      {"POST", "/api/v1/tokens", "{\"name\":\"a\",\"role\":\"ADMIN\",\"expires_at\":5}", "/expires_at",
       ERR_INVALID},
      {"POST", "/api/v1/executors/register", "{\"id\":\"a\",\"url\":\"http://x\",\"handlers\":[]}",
       "/handlers", ERR_INVALID},
      {"POST", "/api/v1/executors/register", "{\"id\":\"a\",\"url\":\"http://x\",\"handlers\":[\"a\",3]}",
       "/handlers/1", ERR_INVALID},
      {"POST", "/api/v1/executors/register",
       "{\"id\":\"a\",\"url\":\"http://x\",\"handlers\":[\"*\"],\"slots\":0}", "/slots", ERR_INVALID},
      {"POST", "/api/v1/executors/register",
       "{\"id\":\"a\",\"url\":\"http://x\",\"handlers\":[\"*\"],\"labels\":[]}", "/labels", ERR_INVALID},
      {"POST", "/api/v1/executor-groups", "{\"name\":\"g\",\"max_connections\":1.5}", "/max_connections",
       ERR_INVALID},
      {"POST", "/api/v1/schedules/preview", "{\"schedule\":[]}", "/schedule", ERR_INVALID},
      {"POST", "/api/v1/tasks/batch", "{\"tasks\":[]}", "/tasks", ERR_INVALID},
      {"GET", "/api/v1/tasks", "{}", "", ERR_INVALID},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    body(&f, bad[i].method, bad[i].path, bad[i].text);
    refused(&f, params_body(&f.c), bad[i].code, bad[i].field);
  }
}

static void test_media_types(void **state) {
  (void)state;
  static const struct {
    const char *method, *path, *type;
    int want;
  } cases[] = {{"POST", "/api/v1/tasks/1/trigger", "application/json", 0},
               {"POST", "/api/v1/tasks/1/trigger", "Application/JSON; charset=UTF-8", 0},
               {"POST", "/api/v1/tasks/1/trigger", "application/json;charset=latin1", ERR_MEDIA_TYPE},
               {"POST", "/api/v1/tasks/1/trigger", "text/plain", ERR_MEDIA_TYPE},
               {"POST", "/api/v1/tasks/1/trigger", "", ERR_MEDIA_TYPE},
               {"POST", "/api/v1/tasks/1/trigger", "application/merge-patch+json", ERR_MEDIA_TYPE},
               {"PATCH", "/api/v1/tasks/1", "application/merge-patch+json", 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct fixture f;
    request(&f, cases[i].method, cases[i].path, "");
    f.req.body = SLICE("{}");
    header(&f, "Content-Type", cases[i].type);
    assert_int_equal(params_body(&f.c), cases[i].want);
    done(&f);
  }
}

static void test_a_body_is_limited(void **state) {
  (void)state;
  struct fixture f;
  char text[5000] = "{\"payload\":\"";
  memset(text + 12, 'x', sizeof text - 12);
  memcpy(text + sizeof text - 3, "\"}", 3);
  body(&f, "POST", "/api/v1/tasks/1/trigger", text);
  refused(&f, params_body(&f.c), ERR_TOO_LARGE, "");
}

/* ------------------------------------------------------------------ cursors, ETags */

static void cursor_request(struct fixture *f, const char *path, const char *filter, const char *cursor) {
  static char query[512];
  auto_str s;
  str_init(&s, sizeof query - 1);
  str_addf(&s, "%s&cursor=%s", filter, cursor);
  assert_false(str_failed(&s));
  memcpy(query, s.p, s.n + 1);
  request(f, "GET", path, query);
  assert_int_equal(params_query(&f->c), 0);
}

static void test_cursors_belong_to_their_list(void **state) {
  (void)state;
  struct fixture f;
  int64_t data = 4711, got = 0;
  char cursor[128];
  request(&f, "GET", "/api/v1/tasks", "handler=a&limit=5");
  assert_int_equal(params_query(&f.c), 0);
  assert_int_equal(cursor_read(&f.c, &got, sizeof got), 0);
  (void)text_copy(cursor, sizeof cursor, slice_of(cursor_make(&f.c, &data, sizeof data)));
  done(&f);
  cursor_request(&f, "/api/v1/tasks", "handler=a&limit=50", cursor);
  assert_int_equal(cursor_read(&f.c, &got, sizeof got), 1);
  assert_int_equal(got, data);
  done(&f);
  cursor_request(&f, "/api/v1/tasks", "handler=b", cursor);
  refused(&f, cursor_read(&f.c, &got, sizeof got), ERR_INVALID, "?cursor");
  cursor_request(&f, "/api/v1/tokens", "", cursor);
  refused(&f, cursor_read(&f.c, &got, sizeof got), ERR_INVALID, "?cursor");
  for (size_t i = 0; cursor[i]; i++) { /* every change of one character is seen */
    char was = cursor[i];
    cursor[i] = was == '0' ? '1' : '0';
    cursor_request(&f, "/api/v1/tasks", "handler=a", cursor);
    refused(&f, cursor_read(&f.c, &got, sizeof got), ERR_INVALID, "?cursor");
    cursor[i] = was;
  }
}

static void test_if_none_match(void **state) {
  (void)state;
  static const struct {
    const char *value;
    bool want;
  } cases[] = {{"\"3\"", true}, {"W/\"3\"", true}, {"\"2\", \"3\"", true}, {"*", true}, {"\"33\"", false},
               {"3", false},    {"", false}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct fixture f;
    request(&f, "GET", "/api/v1/tasks/1", "");
    header(&f, "If-None-Match", cases[i].value);
    assert_int_equal(call_unchanged(&f.c, 3), cases[i].want);
    if (cases[i].want)
      assert_int_equal(f.c.status, 304);
    done(&f);
  }
}

/* ------------------------------------------------------------------ problems */

static json_t *problem_of(const struct err *e, int status) {
  auto_str out;
  str_init(&out, 4096);
  problem_write(&out, e, status, "id-1");
  assert_false(str_failed(&out));
  json_t *j = NULL;
  assert_int_equal(json_read(str_slice(&out), out.n, &j, NULL), 0);
  return j;
}

static const char *at(const json_t *j, const char *key) { return json_string_value(json_object_get(j, key)); }

static void test_problems_name_the_place(void **state) {
  (void)state;
  static const char *const places[][3] = {{"/schedule/expression", "pointer", "/schedule/expression"},
                                          {"?limit", "parameter", "limit"},
                                          {"@If-Match", "header", "If-Match"},
                                          {"{path}", "parameter", "path"}};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    struct err e;
    (void)err_field(&e, ERR_INVALID, places[i][0], "expected \"more\"");
    e.column = 7;
    auto_json *j = problem_of(&e, 400);
    const json_t *one = json_array_get(json_object_get(j, "errors"), 0);
    assert_string_equal(at(one, places[i][1]), places[i][2]);
    assert_int_equal(json_integer_value(json_object_get(one, "column")), 7);
    assert_string_equal(at(one, "detail"), "expected \"more\"");
    assert_string_equal(at(j, "type"), "urn:kelou:problem:invalid_field");
    assert_string_equal(at(j, "code"), "invalid_field");
    assert_string_equal(at(j, "request_id"), "id-1");
  }
}

static void test_refusals_of_the_parser(void **state) {
  (void)state;
  static const struct {
    int status;
    const char *code;
  } cases[] = {{400, "malformed"}, {408, "timeout"},     {413, "too_large"},
               {431, "too_large"}, {503, "unavailable"}, {501, "malformed"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    auto_str out;
    auto_json *j = NULL;
    const char *type = NULL;
    str_init(&out, 4096);
    api_refusal(cases[i].status, "why", &out, &type);
    assert_string_equal(type, "application/problem+json");
    assert_int_equal(json_read(str_slice(&out), out.n, &j, NULL), 0);
    assert_string_equal(at(j, "code"), cases[i].code);
    assert_int_equal(json_integer_value(json_object_get(j, "status")), cases[i].status);
  }
}

/* ------------------------------------------------------------------ documents */

static void keys_are_fields(const json_t *o, enum schema_id s) {
  int first, end;
  schema_range(s, &first, &end);
  const char *key;
  json_t *v;
  json_object_foreach ((json_t *)(uintptr_t)o, key, v) {
    bool known = false;
    for (int i = first; i < end; i++)
      known = known || strcmp(api_fields[i].name, key) == 0;
    if (!known)
      fail_msg("%s is not in fields.def for %s", key, api_schemas[s].title);
  }
}

static void every_field_is_there(const json_t *o, enum schema_id s, const char *const *later) {
  int first, end;
  keys_are_fields(o, s);
  schema_range(s, &first, &end);
  for (int i = first; i < end; i++) {
    bool expected = true;
    for (int k = 0; later && later[k]; k++)
      expected = expected && strcmp(later[k], api_fields[i].name) != 0;
    if (expected && !json_object_get(o, api_fields[i].name))
      fail_msg("%s of %s is not printed", api_fields[i].name, api_schemas[s].title);
  }
}

static void test_a_run_has_all_its_fields(void **state) {
  (void)state;
  struct run_row r = {.key = {1, 1000000, 42, 0},
                      .version = 3,
                      .state = RUN_FAIL,
                      .reason = REASON_ERROR,
                      .origin = ORIGIN_RETRY,
                      .attempt = 2,
                      .fired_at = 1001500,
                      .started_at = 2000000,
                      .finished_at = 5000000,
                      .missed_first = 500000,
                      .missed_count = 3,
                      .executor = SLICE("e"),
                      .incarnation = 2,
                      .pin = SLICE("p"),
                      .origin_run = SLICE("x"),
                      .result = SLICE("{\"a\":1}"),
                      .error_type = SLICE("T"),
                      .error_message = SLICE("m"),
                      .error_detail = SLICE("d"),
                      .progress = 0.5};
  static const char *const later[] = {"payload",   "attempts",   "parents",     "not_before",
                                      "waits_for", "origin_run", "routing_key", NULL};
  auto_json *whole = run_json(&r, SLICE("task"), SLICE("ns"), true),
            *item = run_json(&r, SLICE("task"), SLICE("ns"), false);
  every_field_is_there(whole, SCHEMA_run, later);
  keys_are_fields(json_object_get(whole, "error"), SCHEMA_run_error);
  keys_are_fields(json_object_get(whole, "missed"), SCHEMA_missed);
  assert_string_equal(at(whole, "task_id"), "42");
  assert_string_equal(at(whole, "scheduled_at"), "1970-01-01T00:00:01Z");
  assert_true(json_real_value(json_object_get(whole, "lateness_ms")) == 1.5);
  assert_true(json_real_value(json_object_get(whole, "duration_ms")) == 3000);
  assert_int_equal(json_integer_value(json_object_get(json_object_get(whole, "result"), "a")), 1);
  assert_null(json_object_get(item, "result"));
  assert_null(json_object_get(json_object_get(item, "error"), "detail"));
  assert_string_equal(at(whole, "pinned_to"), "p");
  r.pin = SLICE("#a key"); /* the other thing that a call may say of the executor */
  auto_json *keyed = run_json(&r, SLICE("task"), SLICE("ns"), false);
  assert_string_equal(at(keyed, "routing_key"), "a key");
  assert_null(json_object_get(keyed, "pinned_to"));
  r.origin = ORIGIN_BACKFILL; /* of the past on purpose */
  auto_json *filled = run_json(&r, SLICE("task"), SLICE("ns"), true);
  assert_null(json_object_get(filled, "lateness_ms"));
  r.result = SLICE("{\"a\":\"cut …[cut]");
  auto_json *cut = run_json(&r, SLICE("task"), SLICE("ns"), true);
  assert_string_equal(at(cut, "result"), "{\"a\":\"cut …[cut]");
  r.origin = ORIGIN_DEPENDENCY;
  auto_json *after = run_json(&r, SLICE("task"), SLICE("ns"), true);
  assert_string_equal(at(after, "origin_run"), "x");
  assert_null(json_object_get(after, "retry_of"));
  struct attempt_row a = {.attempt = 1,
                          .state = RUN_FAIL,
                          .reason = REASON_ERROR,
                          .dispatched_at = 1,
                          .started_at = 2,
                          .finished_at = 3,
                          .executor = SLICE("e"),
                          .error_type = SLICE("T")};
  auto_json *attempt = attempt_json(&a);
  every_field_is_there(attempt, SCHEMA_attempt, NULL);
}

static void test_other_documents(void **state) {
  (void)state;
  struct group_row g = {.id = 7,
                        .ns = SLICE("n"),
                        .name = SLICE("g"),
                        .max_connections = 16,
                        .created_at = 1,
                        .updated_at = 1,
                        .version = 1};
  auto_json *group = group_json(&g, "secret");
  every_field_is_there(group, SCHEMA_group, NULL);
  auto_json *silent = group_json(&g, NULL);
  assert_null(json_object_get(silent, "secret"));
  struct token_row t = {.id = 1,
                        .name = SLICE("t"),
                        .ns = SLICE("n"),
                        .group = SLICE("g"),
                        .role = ROLE_EXECUTOR,
                        .created_at = 1,
                        .expires_at = 2,
                        .created_by = SLICE("a")};
  auto_json *token = token_json(&t, "klt_");
  every_field_is_there(token, SCHEMA_token, NULL);
  struct preview_item item = {.at = 1, .local = "x", .note = "y", .calendar = "excluded"};
  struct preview p = {.items = &item, .count = 1, .jitter = 5, .remark = "z"};
  auto_json *preview = preview_json(&p);
  every_field_is_there(preview, SCHEMA_preview, NULL);
  every_field_is_there(json_array_get(json_object_get(preview, "items"), 0), SCHEMA_preview_item, NULL);
  struct task_stats st = {
      .counts = {.last_scheduled_at = 1, .last_started_at = 1, .last_finished_at = 1, .last_state = RUN_FAIL},
      .next_at = 5,
      .next_due = 6};
  auto_json *stats = task_stats_json(&st);
  every_field_is_there(stats, SCHEMA_task_stats, NULL);
}

/* ------------------------------------------------------------------ OpenAPI */

static const json_t *resolve(const json_t *doc, const char *path) {
  struct slice rest = slice_of(path + 2);
  const json_t *j = doc;
  assert_memory_equal(path, "#/", 2);
  do {
    char key[128];
    assert_int_equal(text_copy(key, sizeof key, slice_cut(rest, '/', &rest)), 0);
    j = json_object_get(j, key);
  } while (rest.p && j);
  return j;
}

static void check_refs(const json_t *doc, const json_t *j) {
  const char *key;
  json_t *v;
  size_t i;
  if (json_is_array(j)) {
    json_array_foreach ((json_t *)(uintptr_t)j, i, v)
      check_refs(doc, v);
    return;
  }
  json_object_foreach ((json_t *)(uintptr_t)j, key, v) {
    if (strcmp(key, "$ref") == 0 && !resolve(doc, json_string_value(v)))
      fail_msg("%s leads nowhere", json_string_value(v));
    check_refs(doc, v);
  }
}

static void check_operation(const struct route *r, const json_t *op) {
  const json_t *all = json_object_get(op, "responses"), *parameters = json_object_get(op, "parameters");
  char status[8];
  (void)snprintf(status, sizeof status, "%d", r->status);
  assert_non_null(json_object_get(all, status));
  assert_non_null(json_object_get(all, "503"));
  size_t in_path = 0, wanted = 0;
  for (size_t i = 0; i < json_array_size(parameters); i++)
    in_path += strcmp(at(json_array_get(parameters, i), "in"), "path") == 0;
  for (const char *p = r->path; *p; p++)
    wanted += *p == '{';
  assert_int_equal(in_path, wanted);
  assert_int_equal(!json_object_get(op, "requestBody"), r->body == SCHEMA_none);
  assert_int_equal(json_object_get(op, "security") != NULL, r->role == ROUTE_PUBLIC);
}

static void test_openapi_is_whole(void **state) {
  (void)state;
  auto_json *doc = api_openapi("1.2.3");
  assert_string_equal(at(doc, "openapi"), "3.1.0");
  assert_string_equal(at(json_object_get(doc, "info"), "version"), "1.2.3");
  check_refs(doc, doc);
  const json_t *paths = json_object_get(doc, "paths");
  for (size_t i = 0; i < api_route_count; i++) {
    const struct route *r = &api_routes[i];
    char method[8] = "";
    for (size_t k = 0; r->method[k] && k + 1 < sizeof method; k++)
      method[k] = (char)(r->method[k] | 0x20);
    const json_t *op = json_object_get(json_object_get(paths, r->path), method);
    assert_int_equal(op != NULL, r->role != ROUTE_PEER);
    if (op)
      check_operation(r, op);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_every_route_is_whole),   cmocka_unit_test(test_fields_stand_together),
      cmocka_unit_test(test_routes_are_found),       cmocka_unit_test(test_query_is_checked),
      cmocka_unit_test(test_limit_has_a_default),    cmocka_unit_test(test_headers_are_checked),
      cmocka_unit_test(test_bodies_are_checked),     cmocka_unit_test(test_media_types),
      cmocka_unit_test(test_a_body_is_limited),      cmocka_unit_test(test_cursors_belong_to_their_list),
      cmocka_unit_test(test_if_none_match),          cmocka_unit_test(test_problems_name_the_place),
      cmocka_unit_test(test_refusals_of_the_parser), cmocka_unit_test(test_a_run_has_all_its_fields),
      cmocka_unit_test(test_other_documents),        cmocka_unit_test(test_openapi_is_whole),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
