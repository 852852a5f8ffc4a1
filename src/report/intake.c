#include "report/intake.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/metric.h"
#include "net/http_server.h"

enum { DOCUMENT_MAX = 8 * 1024 * 1024, TYPE_MAX = 256, TEXT_MAX = 1024 * 1024, ATTEMPTS_MAX = 100 };
static const double DELAY_BUCKETS[] = {.001, .0025, .005, .01, .025, .05, .1, .25,
                                       .5,   1,     2.5,  5,   10,   30,  60, 0};
static const char CUT_NOTICE[] = " …[cut]";

struct intake {
  struct intake_options o;
  struct metric *results[RUN_RESULT_NOT_OWNER + 1];
  struct metric *delay;
};

static const char *const status_names[] = {"recorded", "late", "late", "forbidden", "retry"};

void intake_options_default(struct intake_options *o) {
  *o = (struct intake_options){.max_reports = 1000, .max_result_bytes = 65536};
}

struct intake *intake_new(const struct intake_options *o) {
  struct intake *i = mem_zalloc(sizeof *i);
  i->o = *o;
  struct metric_family *f =
      metric_family("kelou_reports_total", "Reports from executors by what came of them", METRIC_COUNTER,
                    "transport,result", NULL);
  for (int k = 0; k <= RUN_RESULT_NOT_OWNER; k++)
    i->results[k] = metric_series(f, "http", status_names[k], NULL);
  i->delay =
      metric_series(metric_family("kelou_report_delay_seconds", "From the report's arrival to its commit",
                                  METRIC_HISTOGRAM, "transport", DELAY_BUCKETS),
                    "http", NULL);
  return i;
}

void intake_free(struct intake **i) {
  mem_free(*i);
  *i = NULL;
}

/* ---------------------------------------------------------------- one report */

static const char *const report_keys[] = {"run_id",     "attempt",     "fence",  "state",
                                          "started_at", "finished_at", "result", "error",
                                          "progress",   "executor",    NULL};
static const char *const error_keys[] = {"type", "message", "detail", NULL};

/* Texts longer than the limit are cut at a character's border, with a notice. */
static struct slice cut(const struct intake *in, struct slice s, struct arena *mem) {
  if (s.n <= in->o.max_result_bytes)
    return s;
  struct slice head = slice_utf8_head(s, in->o.max_result_bytes - sizeof CUT_NOTICE);
  return slice_of(arena_printf(mem, "%.*s%s", SLICE_FMT(head), CUT_NOTICE));
}

static int read_error(const struct intake *in, const json_t *doc, struct arena *mem, struct live_event *ev,
                      struct err *e) {
  const json_t *error = json_object_get(doc, "error");
  if (!error || json_is_null(error))
    return 0;
  int rc = json_want_object(error, "", e);
  if (rc >= 0)
    rc = json_check_keys(error, error_keys, e);
  if (rc >= 0)
    rc = json_get_slice(error, "type", TYPE_MAX, &ev->error_type, e);
  if (rc >= 0)
    rc = json_get_slice(error, "message", TEXT_MAX, &ev->error_message, e);
  if (rc >= 0)
    rc = json_get_slice(error, "detail", TEXT_MAX, &ev->error_detail, e);
  if (rc < 0)
    return err_at(e, "/error");
  ev->error_message = cut(in, ev->error_message, mem);
  ev->error_detail = cut(in, ev->error_detail, mem);
  return 0;
}

static int read_state(const json_t *doc, struct live_event *ev, struct err *e) {
  static const char *const states[] = {"RUNNING", "SUCCESS", "FAIL", "CANCELLED", NULL};
  static const enum run_event kinds[] = {EV_BEAT, EV_DONE_OK, EV_DONE_FAIL, EV_DONE_CANCELLED};
  int state, rc = json_get_enum(doc, "state", states, &state, e);
  if (rc == 0)
    return err_field(e, ERR_MISSING, "/state", "expected RUNNING, SUCCESS, FAIL or CANCELLED");
  if (rc > 0)
    ev->kind = kinds[state];
  return rc;
}

static int read_key(const json_t *doc, struct live_event *ev, struct err *e) {
  struct slice id = {0};
  int64_t attempt = 0, fence;
  int rc = json_get_slice(doc, "run_id", 64, &id, e);
  if (rc == 0)
    return err_field(e, ERR_MISSING, "/run_id", "expected the run's id");
  if (rc > 0 && (rc = run_id_parse(id, &ev->key, e)) < 0)
    e->code = rc = ERR_INVALID;
  if (rc >= 0 && (rc = json_get_i64(doc, "attempt", 1, ATTEMPTS_MAX, &attempt, e)) == 0)
    return err_field(e, ERR_MISSING, "/attempt", "expected the attempt that was delivered");
  if (rc >= 0)
    rc = json_get_i64(doc, "fence", 0, INT64_MAX, &fence, e); /* only executors compare fences */
  ev->attempt = (int32_t)attempt;
  return rc;
}

/* `mem` keeps what does not live in `doc`. */
static int read_report(const struct intake *in, const json_t *doc, struct arena *mem, struct live_event *ev,
                       struct err *e) {
  int rc = json_want_object(doc, "", e);
  if (rc >= 0)
    rc = json_check_keys(doc, report_keys, e);
  if (rc >= 0)
    rc = read_key(doc, ev, e);
  if (rc >= 0)
    rc = read_state(doc, ev, e);
  if (rc >= 0)
    rc = json_get_time(doc, "started_at", &ev->started_at, e);
  if (rc >= 0)
    rc = json_get_time(doc, "finished_at", &ev->finished_at, e);
  if (rc >= 0)
    rc = json_get_double(doc, "progress", 0, 1, &ev->progress, e);
  if (rc >= 0)
    rc = json_get_slice(doc, "executor", 128, &ev->executor, e);
  if (rc > 0 && !ev->executor.n)
    rc = err_field(e, ERR_INVALID, "/executor", "expected the id of an executor");
  if (rc >= 0)
    rc = read_error(in, doc, mem, ev, e);
  const json_t *result = json_object_get(doc, "result");
  if (rc >= 0 && result && !json_is_null(result)) {
    auto_free char *text = json_text(result);
    ev->result = cut(in, arena_slice(mem, slice_of(text)), mem);
  }
  return rc;
}

/* ---------------------------------------------------------------- the request */

struct pending { /* a request that waits for the commit */
  struct intake *in;
  struct http_request *request;
  struct run_key *keys;
  usec_t arrived; /* monotonic */
  struct arena mem;
};

static void reply(struct pending *p, int status, struct str *body) {
  struct http_header again = {SLICE("Retry-After"), SLICE("1")};
  struct http_reply r = {.status = status,
                         .content_type = status == 200 ? "application/json" : "application/problem+json",
                         .headers = &again,
                         .header_count = status == 503,
                         .body = str_slice(body)};
  http_request_reply(p->request, &r);
}

static void done(void *arg, const enum run_result *results, size_t n) {
  struct pending *p = arg;
  size_t forbidden = 0, retry = 0;
  auto_str body;
  str_init(&body, 256 + n * 96);
  str_addz(&body, "{\"results\":[");
  for (size_t i = 0; i < n; i++) {
    char id[RUN_ID_LEN + 1];
    run_id_format(&p->keys[i], id);
    str_addf(&body, "%s{\"run_id\":\"%s\",\"status\":\"%s\"}", i ? "," : "", id, status_names[results[i]]);
    forbidden += results[i] == RUN_RESULT_FORBIDDEN;
    retry += results[i] == RUN_RESULT_NOT_OWNER;
    metric_add(p->in->results[results[i]], 1);
  }
  str_addz(&body, "]");
  int status = retry ? 503 : forbidden == n ? 403 : 200;
  if (status != 200)
    str_addf(&body, ",\"type\":\"urn:kelou:problem:%s\",\"title\":\"%s\",\"status\":%d,\"code\":\"%s\"",
             status == 503 ? "unavailable" : "forbidden",
             status == 503 ? "Not all could be recorded now, repeat the request"
                           : "The token belongs to another executor group",
             status, status == 503 ? "unavailable" : "forbidden");
  str_addz(&body, "}");
  metric_observe_usec(p->in->delay, clock_system.mono(&clock_system) - p->arrived);
  reply(p, status, &body);
  arena_done(&p->mem);
  mem_free(p);
}

static int read_all(struct intake *in, const json_t *doc, struct pending *p,
                    const struct access_identity *who, struct live_event **ret, struct err *e) {
  const json_t *list = json_object_get(doc, "reports");
  if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > in->o.max_reports)
    return err_field(e, ERR_INVALID, "/reports", "expected a list of 1 to %zu reports", in->o.max_reports);
  size_t n = json_array_size(list);
  struct live_event *ev = arena_array(&p->mem, n, sizeof *ev);
  p->keys = arena_array(&p->mem, n, sizeof *p->keys);
  for (size_t i = 0; i < n; i++) {
    ev[i].progress = -1;
    if (who->ns[0])
      ev[i].ns = slice_of(who->ns);
    if (who->group[0])
      ev[i].group = slice_of(who->group);
    if (read_report(in, json_array_get(list, i), &p->mem, &ev[i], e) < 0) {
      char at[32];
      (void)snprintf(at, sizeof at, "/reports/%zu", i);
      return err_at(e, at);
    }
    p->keys[i] = ev[i].key;
  }
  *ret = ev;
  return (int)n;
}

int intake_http(struct intake *in, struct http_request *r, const struct access_identity *who, struct err *e) {
  static const char *const keys[] = {"reports", NULL};
  auto_json *doc = NULL;
  struct err local = {0};
  e = e ? e : &local;
  int rc = json_read(r->body, DOCUMENT_MAX, &doc, e);
  if (rc >= 0)
    rc = json_want_object(doc, "", e);
  if (rc >= 0)
    rc = json_check_keys(doc, keys, e);
  if (rc < 0)
    return rc;
  struct pending *p = mem_zalloc(sizeof *p);
  p->in = in;
  p->request = r;
  p->arrived = clock_system.mono(&clock_system);
  struct live_event *ev = NULL;
  rc = read_all(in, doc, p, who, &ev, e);
  if (rc > 0)
    rc = run_post(in->o.runs, ev, (size_t)rc, done, p, e);
  if (rc < 0) {
    arena_done(&p->mem);
    mem_free(p);
  }
  return rc;
}
