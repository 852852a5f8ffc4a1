#include "report/intake.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/metric.h"
#include "base/thread.h"
#include "net/http_server.h"
#include "report/read.h"

enum {
  DOCUMENT_MAX = 8 * 1024 * 1024,
  TYPE_MAX = 256,
  TEXT_MAX = 1024 * 1024,
  ATTEMPTS_MAX = 100,
  LINES_MAX = 1000 /* of one report */
};
static const double DELAY_BUCKETS[] = {.001, .0025, .005, .01, .025, .05, .1, .25,
                                       .5,   1,     2.5,  5,   10,   30,  60, 0};
static const char CUT_NOTICE[] = " …[cut]";

struct intake {
  struct intake_options o;
  struct metric *results[RUN_RESULT_TAKEN + 1];
  struct metric *delay;
};

static const char *const status_names[] = {"recorded", "late", "late", "forbidden", "retry", "recorded"};

void intake_options_default(struct intake_options *o) {
  *o = (struct intake_options){.max_reports = 1000, .max_result_bytes = 65536, .max_line_bytes = 8192};
}

struct intake *intake_new(const struct intake_options *o) {
  struct intake *i = mem_zalloc(sizeof *i);
  i->o = *o;
  struct metric_family *f =
      metric_family("kelou_reports_total", "Reports from executors by what came of them", METRIC_COUNTER,
                    "transport,result", NULL);
  for (int k = 0; k <= RUN_RESULT_TAKEN; k++)
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
                                          "progress",   "executor",    "log",    NULL};
static const char *const line_keys[] = {"seq", "at", "level", "text", NULL};
/* what is said with a state only */
static const char *const state_keys[] = {"started_at", "finished_at", "result", "error", "progress", NULL};
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

/* One report as it was read: an event, lines of the log, or both. */
struct report {
  struct live_event ev;
  bool has_state;
  struct log_line *lines;
  size_t line_count;
};

static int read_state(const json_t *doc, struct report *r, struct err *e) {
  static const char *const states[] = {"RUNNING", "SUCCESS", "FAIL", "CANCELLED", NULL};
  static const enum run_event kinds[] = {EV_BEAT, EV_DONE_OK, EV_DONE_FAIL, EV_DONE_CANCELLED};
  int state, rc = json_get_enum(doc, "state", states, &state, e);
  bool need = !r->line_count;
  for (size_t i = 0; state_keys[i] && !need; i++)
    need = json_object_get(doc, state_keys[i]) && !json_is_null(json_object_get(doc, state_keys[i]));
  if (rc == 0 && need)
    return err_field(
        e, ERR_MISSING, "/state",
        "expected RUNNING, SUCCESS, FAIL or CANCELLED; only a report of log lines alone has none");
  r->has_state = rc > 0;
  if (rc > 0)
    r->ev.kind = kinds[state];
  return rc;
}

static int read_line(const struct intake *in, const json_t *doc, struct log_line *l, struct err *e) {
  int64_t seq = 0;
  int level = RUN_LOG_INFO, rc = json_want_object(doc, "", e);
  if (rc >= 0)
    rc = json_check_keys(doc, line_keys, e);
  if (rc >= 0 && (rc = json_get_i64(doc, "seq", 1, INT32_MAX, &seq, e)) == 0)
    rc = err_field(e, ERR_MISSING, "/seq", "expected the line's number in its attempt, from 1");
  if (rc >= 0)
    rc = json_get_time(doc, "at", &l->at, e);
  if (rc >= 0)
    rc = json_get_enum(doc, "level", run_log_level_names, &level, e);
  if (rc >= 0 && (rc = json_get_slice(doc, "text", TEXT_MAX, &l->text, e)) == 0)
    rc = err_field(e, ERR_MISSING, "/text", "expected the line");
  if (rc < 0)
    return rc;
  l->seq = (int32_t)seq;
  l->level = (enum run_log_level)level;
  if (l->text.n > in->o.max_line_bytes) {
    struct slice head = slice_utf8_head(l->text, in->o.max_line_bytes);
    l->cut = (int32_t)(l->text.n - head.n);
    l->text = head;
  }
  return 0;
}

static int read_log(const struct intake *in, const json_t *doc, struct arena *mem, struct report *r,
                    struct err *e) {
  const json_t *log = json_object_get(doc, "log");
  if (!log || json_is_null(log))
    return 0;
  if (!json_is_array(log) || json_array_size(log) > LINES_MAX)
    return err_field(e, ERR_INVALID, "/log", "expected a list of at most %d lines", LINES_MAX);
  r->line_count = json_array_size(log);
  r->lines = arena_array(mem, r->line_count, sizeof *r->lines);
  for (size_t i = 0; i < r->line_count; i++) {
    r->lines[i].attempt = r->ev.attempt;
    int rc = read_line(in, json_array_get(log, i), &r->lines[i], e);
    if (rc < 0) {
      char at[32];
      (void)snprintf(at, sizeof at, "/log/%zu", i);
      (void)err_at(e, at);
      return rc;
    }
  }
  return 0;
}

int report_read_key(const json_t *doc, struct live_event *ev, struct err *e) {
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
static int read_report(const struct intake *in, const json_t *doc, struct arena *mem, struct report *r,
                       struct err *e) {
  struct live_event *ev = &r->ev;
  int rc = json_want_object(doc, "", e);
  if (rc >= 0)
    rc = json_check_keys(doc, report_keys, e);
  if (rc >= 0)
    rc = report_read_key(doc, ev, e);
  if (rc >= 0)
    rc = read_log(in, doc, mem, r, e);
  if (rc >= 0)
    rc = read_state(doc, r, e);
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

struct pending { /* a request that waits for the commits */
  struct intake *in;
  struct http_request *request;
  json_t *doc; /* the texts of what is posted later are in it; NULL: nothing is */
  struct report *reports;
  enum run_result *results; /* one for each report */
  size_t count;
  size_t *now, *logged,
      *later; /* reports: with a state alone; with lines; with both, their lines being written */
  size_t now_count, logged_count, later_count;
  atomic_int parts; /* under way; who ends the last one replies */
  usec_t arrived;   /* monotonic */
  struct arena mem;
};

static void pending_free(struct pending *p) {
  json_decref(p->doc);
  arena_done(&p->mem);
  mem_free(p);
}

static void reply(struct pending *p, int status, struct str *body) {
  struct http_header again = {SLICE("Retry-After"), SLICE("1")};
  struct http_reply r = {.status = status,
                         .content_type = status == 200 ? "application/json" : "application/problem+json",
                         .headers = &again,
                         .header_count = status == 503,
                         .body = str_slice(body)};
  http_request_reply(p->request, &r);
}

static void add_results(struct pending *p, struct str *body, size_t *ret_forbidden, size_t *ret_retry) {
  str_addz(body, "{\"results\":[");
  for (size_t i = 0; i < p->count; i++) {
    char id[RUN_ID_LEN + 1];
    run_id_format(&p->reports[i].ev.key, id);
    str_addf(body, "%s{\"run_id\":\"%s\",\"status\":\"%s\"}", i ? "," : "", id, status_names[p->results[i]]);
    *ret_forbidden += p->results[i] == RUN_RESULT_FORBIDDEN;
    *ret_retry += p->results[i] == RUN_RESULT_NOT_OWNER;
    metric_add(p->in->results[p->results[i]], 1);
  }
  str_addz(body, "]");
}

/* One part of it is done; the last one answers. */
static void part_done(struct pending *p) {
  if (atomic_fetch_sub(&p->parts, 1) != 1)
    return;
  size_t forbidden = 0, retry = 0;
  auto_str body;
  str_init(&body, 256 + p->count * 96);
  add_results(p, &body, &forbidden, &retry);
  int status = retry ? 503 : forbidden == p->count ? 403 : 200;
  if (status != 200)
    str_addf(&body, ",\"type\":\"urn:kelou:problem:%s\",\"title\":\"%s\",\"status\":%d,\"code\":\"%s\"",
             status == 503 ? "unavailable" : "forbidden",
             status == 503 ? "Not all could be recorded now, repeat the request"
                           : "The token belongs to another executor group",
             status, status == 503 ? "unavailable" : "forbidden");
  str_addz(&body, "}");
  metric_observe_usec(p->in->delay, clock_system.mono(&clock_system) - p->arrived);
  reply(p, status, &body);
  pending_free(p);
}

static void now_done(void *arg, const enum run_result *results, size_t n) {
  struct pending *p = arg;
  for (size_t i = 0; i < n; i++)
    p->results[p->now[i]] = results[i];
  part_done(p);
}

static void later_done(void *arg, const enum run_result *results, size_t n) {
  struct pending *p = arg;
  for (size_t i = 0; i < n; i++)
    p->results[p->later[i]] = results[i];
  part_done(p);
}

static int post_states(struct pending *p, const size_t *which, size_t n,
                       void (*done)(void *arg, const enum run_result *results, size_t n), struct err *e) {
  struct live_event *ev = arena_array(&p->mem, n, sizeof *ev);
  for (size_t i = 0; i < n; i++)
    ev[i] = p->reports[which[i]].ev;
  return forward_post(p->in->o.forward, ev, n, done, p, e);
}

/* The lines first, then the end that stands in the same report: who reads that a run has ended can read all it has said. */
static void logs_done(void *arg, const enum log_result *results, size_t n) {
  static const enum run_result of[] = {[LOG_RESULT_RECORDED] = RUN_RESULT_RECORDED,
                                       [LOG_RESULT_UNKNOWN] = RUN_RESULT_LATE,
                                       [LOG_RESULT_FORBIDDEN] = RUN_RESULT_FORBIDDEN,
                                       [LOG_RESULT_RETRY] = RUN_RESULT_NOT_OWNER};
  struct pending *p = arg;
  for (size_t i = 0; i < n; i++) {
    p->results[p->logged[i]] = of[results[i]];
    if (p->reports[p->logged[i]].has_state && results[i] <= LOG_RESULT_UNKNOWN)
      p->later[p->later_count++] = p->logged[i];
  }
  if (!p->later_count) {
    part_done(p);
    return;
  }
  if (post_states(p, p->later, p->later_count, later_done, NULL) < 0) {
    for (size_t i = 0; i < p->later_count; i++)
      p->results[p->later[i]] = RUN_RESULT_NOT_OWNER; /* no room: all of it once more */
    part_done(p);
  }
}

static int post_logs(struct pending *p, struct err *e) {
  struct log_entry *entries = arena_array(&p->mem, p->logged_count, sizeof *entries);
  for (size_t i = 0; i < p->logged_count; i++) {
    const struct report *r = &p->reports[p->logged[i]];
    entries[i] = (struct log_entry){
        .key = r->ev.key, .ns = r->ev.ns, .group = r->ev.group, .lines = r->lines, .count = r->line_count};
  }
  return logs_post(p->in->o.logs, entries, p->logged_count, logs_done, p, e);
}

/* States of reports without lines wait for no log. Negative: nothing was taken. */
static int post(struct pending *p, struct err *e) {
  bool states = p->now_count, logs = p->logged_count;
  atomic_init(&p->parts, states + logs);
  int rc = states ? post_states(p, p->now, p->now_count, now_done, e) : 0;
  if (rc < 0 || !logs)
    return rc;
  rc = post_logs(p, e);
  if (rc >= 0 || !states)
    return rc;
  for (size_t i = 0; i < p->logged_count; i++)
    p->results[p->logged[i]] = RUN_RESULT_NOT_OWNER;
  part_done(p); /* the states have been taken: the answer says which reports are to be repeated */
  return 0;
}

static int read_all(struct pending *p, const json_t *doc, const struct access_identity *who, struct err *e) {
  const struct intake *in = p->in;
  const json_t *list = json_object_get(doc, "reports");
  if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > in->o.max_reports)
    return err_field(e, ERR_INVALID, "/reports", "expected a list of 1 to %zu reports", in->o.max_reports);
  p->count = json_array_size(list);
  p->reports = arena_array(&p->mem, p->count, sizeof *p->reports);
  p->results = arena_array(&p->mem, p->count, sizeof *p->results);
  p->now = arena_array(&p->mem, p->count, sizeof *p->now);
  struct slice ns = {0}, group = {0};
  if (who->ns[0])
    ns = arena_slice(&p->mem, slice_of(who->ns));
  if (who->group[0])
    group = arena_slice(&p->mem, slice_of(who->group));
  for (size_t i = 0; i < p->count; i++) {
    struct report *r = &p->reports[i];
    r->ev.progress = -1;
    r->ev.ns = ns;
    r->ev.group = group;
    if (read_report(in, json_array_get(list, i), &p->mem, r, e) < 0) {
      char at[32];
      (void)snprintf(at, sizeof at, "/reports/%zu", i);
      return err_at(e, at);
    }
    p->logged_count += r->line_count > 0;
  }
  return 0;
}

/* Which report goes where. */
static void sort_out(struct pending *p) {
  size_t n = 0;
  if (p->logged_count) {
    p->logged = arena_array(&p->mem, p->logged_count, sizeof *p->logged);
    p->later = arena_array(&p->mem, p->logged_count, sizeof *p->later);
  }
  for (size_t i = 0; i < p->count; i++)
    if (p->reports[i].line_count)
      p->logged[n++] = i;
    else
      p->now[p->now_count++] = i;
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
  rc = read_all(p, doc, who, e);
  if (rc >= 0) {
    sort_out(p);
    if (p->logged_count || forward_far(in->o.forward))
      p->doc = take(doc);
    rc = post(p, e);
  }
  if (rc < 0)
    pending_free(p);
  return rc;
}
