#include "report/claims.h"
#include "base/mem.h"
#include "base/metric.h"
#include "net/http_server.h"
#include "report/read.h"

enum { DOCUMENT_MAX = 1024 * 1024, EXECUTOR_MAX = 128, RESULT_MAX_BYTES = 128 };

struct claims {
  struct claims_options o;
  struct metric *results[RUN_RESULT_NOT_OWNER + 1];
};

static const struct {
  const char *status, *why;
} said[] = {[RUN_RESULT_RECORDED] = {"granted", NULL},
            [RUN_RESULT_LATE] = {"refused", "late"},
            [RUN_RESULT_CONFLICT] = {"refused", "claimed"},
            [RUN_RESULT_FORBIDDEN] = {"forbidden", NULL},
            [RUN_RESULT_NOT_OWNER] = {"retry", NULL}};

struct claims *claims_new(const struct claims_options *o) {
  struct claims *c = mem_zalloc(sizeof *c);
  c->o = *o;
  struct metric_family *f = metric_family("kelou_claims_total", "Claims of attempts by what was answered",
                                          METRIC_COUNTER, "result", NULL);
  for (int i = 0; i <= RUN_RESULT_NOT_OWNER; i++)
    c->results[i] = metric_series(f, said[i].status, NULL);
  return c;
}

void claims_free(struct claims **c) {
  mem_free(*c);
  *c = NULL;
}

/* ---------------------------------------------------------------- reading */

static int read_claim(const json_t *doc, struct live_event *ev, struct err *e) {
  static const char *const keys[] = {"run_id", "attempt", "fence", "executor", "incarnation", NULL};
  ev->kind = EV_CLAIM;
  ev->progress = -1;
  int rc = json_want_object(doc, "", e);
  if (rc >= 0)
    rc = json_check_keys(doc, keys, e);
  if (rc >= 0)
    rc = report_read_key(doc, ev, e);
  if (rc >= 0)
    rc = json_get_slice(doc, "executor", EXECUTOR_MAX, &ev->executor, e);
  if (rc >= 0 && !ev->executor.n)
    rc = err_field(e, ERR_MISSING, "/executor", "expected the id of the executor that asks");
  if (rc >= 0 && (rc = json_get_i64(doc, "incarnation", 1, INT64_MAX, &ev->incarnation, e)) == 0)
    rc = err_field(e, ERR_MISSING, "/incarnation",
                   "expected the incarnation as the executor's registration was answered");
  return rc;
}

struct asked { /* a request that waits for the commit */
  struct claims *claims;
  struct http_request *request;
  struct live_event *events;
  size_t count;
  json_t *doc; /* the texts are in it */
  struct arena mem;
};

static void asked_free(struct asked *a) {
  json_decref(a->doc);
  arena_done(&a->mem);
  mem_free(a);
}

static int read_all(struct asked *a, const json_t *doc, const struct access_identity *who, struct err *e) {
  static const char *const keys[] = {"claims", NULL};
  const json_t *list = json_object_get(doc, "claims");
  int rc = json_want_object(doc, "", e);
  if (rc >= 0)
    rc = json_check_keys(doc, keys, e);
  if (rc < 0)
    return rc;
  a->count = json_array_size(list);
  if (!json_is_array(list) || a->count == 0 || a->count > a->claims->o.max_claims)
    return err_field(e, ERR_INVALID, "/claims", "expected a list of 1 to %zu claims",
                     a->claims->o.max_claims);
  a->events = arena_array(&a->mem, a->count, sizeof *a->events);
  struct slice ns = {0}, group = {0};
  if (who->ns[0])
    ns = arena_slice(&a->mem, slice_of(who->ns));
  if (who->group[0])
    group = arena_slice(&a->mem, slice_of(who->group));
  for (size_t i = 0; i < a->count; i++) {
    struct live_event *ev = &a->events[i];
    ev->ns = ns;
    ev->group = group;
    if (read_claim(json_array_get(list, i), ev, e) < 0) {
      char at[32];
      (void)snprintf(at, sizeof at, "/claims/%zu", i);
      return err_at(e, at);
    }
  }
  return 0;
}

/* ---------------------------------------------------------------- the answer */

static void add_result(struct str *body, const struct run_key *key, enum run_result r) {
  char id[RUN_ID_LEN + 1];
  run_id_format(key, id);
  str_addf(body, "{\"run_id\":\"%s\",\"status\":\"%s\"", id, said[r].status);
  if (said[r].why)
    str_addf(body, ",\"why\":\"%s\"", said[r].why);
  str_addc(body, '}');
}

static void reply(struct asked *a, int status, struct str *body) {
  struct http_header again = {SLICE("Retry-After"), SLICE("1")};
  struct http_reply r = {.status = status,
                         .content_type = status == 200 ? "application/json" : "application/problem+json",
                         .headers = &again,
                         .header_count = status == 503,
                         .body = str_slice(body)};
  http_request_reply(a->request, &r);
}

static void decided(void *arg, const enum run_result *results, size_t n) {
  struct asked *a = arg;
  size_t forbidden = 0, retry = 0;
  auto_str body;
  str_init(&body, 512 + n * RESULT_MAX_BYTES);
  str_addz(&body, "{\"results\":[");
  for (size_t i = 0; i < n; i++) {
    if (i)
      str_addc(&body, ',');
    add_result(&body, &a->events[i].key, results[i]);
    forbidden += results[i] == RUN_RESULT_FORBIDDEN;
    retry += results[i] == RUN_RESULT_NOT_OWNER;
    metric_add(a->claims->results[results[i]], 1);
  }
  str_addc(&body, ']');
  int status = retry ? 503 : forbidden == n ? 403 : 200;
  if (status != 200)
    str_addf(&body, ",\"type\":\"urn:kelou:problem:%s\",\"title\":\"%s\",\"status\":%d,\"code\":\"%s\"",
             retry ? "unavailable" : "forbidden",
             retry ? "Not all could be decided now, repeat the request"
                   : "The token belongs to another executor group",
             status, retry ? "unavailable" : "forbidden");
  str_addc(&body, '}');
  reply(a, status, &body);
  asked_free(a);
}

int claims_http(struct claims *c, struct http_request *r, const struct access_identity *who, struct err *e) {
  auto_json *doc = NULL;
  struct err local = {0};
  e = e ? e : &local;
  int rc = json_read(r->body, DOCUMENT_MAX, &doc, e);
  if (rc < 0)
    return rc;
  struct asked *a = mem_zalloc(sizeof *a);
  a->claims = c;
  a->request = r;
  a->doc = take(doc);
  rc = read_all(a, a->doc, who, e);
  if (rc >= 0)
    rc = forward_post(c->o.forward, a->events, a->count, decided, a, e);
  if (rc < 0)
    asked_free(a);
  return rc < 0 ? rc : 0;
}
