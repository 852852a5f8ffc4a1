#pragma once
/* For the tests of the C SDK: a centre on loopback whose answers a test scripts. */
#include "net_util.h"
#include "base/json.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "net/target.h"
#include "kelou_executor.h"

#define MANY 3000

/* --- the centre ------------------------------------------------------------------------------------------- */

struct centre {
  struct loop *loop;
  struct http_server *server;
  struct http_client *client;
  struct mutex lock; /* protects the rest */
  struct cond changed;
  int registrations, beats, deregistrations, requests, acknowledged, progress;
  int largest;                           /* reports of one request */
  int refuse_registrations, beat_status; /* beat_status: 0 = 200 */
  int report_status[8], report_status_n; /* the first answers to reports; 0 = no answer for now */
  int refuse_word;                       /* 400 to requests that have "poison" in them */
  struct http_request *held;             /* a report request that waits for its answer */
  int hold;
  char last[4096]; /* the last report */
  char states[MANY + 16][12];
  int taken; /* states */
  int answers[600];
  int claims, claim_status[8]; /* claims so far; the first answers: 0 = granted, 1 = refused, else a status */
  char last_claim[1024];
  struct {
    char run_id[40], text[64], level[8];
    int seq;
  } lines[MANY]; /* logged, in the order in which they came */
  int lines_n;
  int largest_log;  /* lines of one report */
  int lines_at_end; /* lines that had come when the last end did, its own included */
};

static struct centre c;
static atomic_int started, gate; /* of the handlers */

static void answer(struct http_request *r, int status, const char *text) {
  struct http_reply reply = {.status = status, .content_type = "application/json", .body = slice_of(text)};
  http_request_reply(r, &reply);
}

/* With the lock. */
static void take_lines(const json_t *report) {
  const json_t *log = json_object_get(report, "log"), *one;
  size_t i;
  int n = (int)json_array_size(log);
  c.largest_log = n > c.largest_log ? n : c.largest_log;
  json_array_foreach (log, i, one) {
    assert_true(c.lines_n < MANY);
    (void)text_copy(c.lines[c.lines_n].run_id, 40,
                    slice_of(json_string_value(json_object_get(report, "run_id"))));
    (void)text_copy(c.lines[c.lines_n].text, 64, slice_of(json_string_value(json_object_get(one, "text"))));
    (void)text_copy(c.lines[c.lines_n].level, 8, slice_of(json_string_value(json_object_get(one, "level"))));
    assert_true(json_is_string(json_object_get(one, "at")));
    c.lines[c.lines_n++].seq = (int)json_integer_value(json_object_get(one, "seq"));
  }
}

/* With the lock. */
static void take_reports(const json_t *list) {
  size_t i;
  const json_t *one;
  int n = (int)json_array_size(list);
  c.largest = n > c.largest ? n : c.largest;
  json_array_foreach (list, i, one) {
    const char *state = json_string_value(json_object_get(one, "state"));
    take_lines(one);
    if (!state) { /* lines alone */
      assert_true(json_array_size(json_object_get(one, "log")) > 0);
      continue;
    }
    if (strcmp(state, "RUNNING") == 0) {
      c.progress++;
      continue;
    }
    if (c.taken < MANY + 16)
      (void)text_copy(c.states[c.taken++], sizeof c.states[0], slice_of(state));
    auto_free char *text = json_text(one);
    (void)text_copy(c.last, sizeof c.last, slice_of(text));
    c.acknowledged++;
    c.lines_at_end = c.lines_n;
  }
}

static void on_reports(struct http_request *r) {
  auto_json *doc = NULL;
  assert_int_equal(json_read(r->body, 4 * 1024 * 1024, &doc, NULL), 0);
  const json_t *list = json_object_get(doc, "reports");
  assert_true(json_array_size(list) > 0);
  int status = 200;
  bool held = false;
  mutex_lock(&c.lock);
  if (c.requests < c.report_status_n)
    status = c.report_status[c.requests];
  if (c.refuse_word && memmem(r->body.p, r->body.n, "poison", 6))
    status = 400;
  c.requests++;
  if (status == 200)
    take_reports(list);
  if (c.hold) {
    c.hold = 0;
    c.held = r;
    held = true;
  }
  cond_broadcast(&c.changed);
  mutex_unlock(&c.lock);
  if (!held)
    answer(r, status, status == 403 ? "{\"results\":[{\"status\":\"forbidden\"}]}" : "{\"results\":[]}");
}

static void on_claim(struct http_request *r) {
  mutex_lock(&c.lock);
  int status = c.claims < 8 ? c.claim_status[c.claims] : 0;
  (void)text_copy(c.last_claim, sizeof c.last_claim, r->body);
  c.claims++;
  cond_broadcast(&c.changed);
  mutex_unlock(&c.lock);
  if (status > 1)
    answer(r, status, "{}");
  else
    answer(r, 200,
           status ? "{\"results\":[{\"status\":\"refused\",\"why\":\"claimed\"}]}"
                  : "{\"results\":[{\"status\":\"granted\"}]}");
}

static bool ends(struct slice path, const char *end) {
  size_t n = strlen(end);
  return path.n >= n && memcmp(path.p + path.n - n, end, n) == 0;
}

static void on_request(struct http_request *r, void *arg) {
  (void)arg;
  assert_true(slice_eqz(http_request_header(r, "Authorization"), "Bearer t0ken"));
  if (ends(r->path, "/reports")) {
    on_reports(r);
    return;
  }
  if (ends(r->path, "/claims")) {
    on_claim(r);
    return;
  }
  int status = 200;
  mutex_lock(&c.lock);
  if (ends(r->path, "/register") && c.refuse_registrations > 0) {
    c.refuse_registrations--;
    status = 503;
  } else if (ends(r->path, "/register")) {
    c.registrations++;
  } else if (ends(r->path, "/heartbeat")) {
    c.beats++;
    status = c.beat_status ? c.beat_status : 200;
    c.beat_status = 0;
  } else {
    c.deregistrations++;
  }
  cond_broadcast(&c.changed);
  mutex_unlock(&c.lock);
  answer(r, status,
         status == 200 ? "{\"incarnation\":3,\"heartbeat_interval\":\"20ms\",\"state\":\"ONLINE\"}" : "{}");
}

static void centre_start(int port) {
  struct err e;
  struct http_server_options so;
  struct http_client_options co;
  http_server_options_default(&so);
  http_client_options_default(&co);
  so.address = "127.0.0.1";
  so.port = port;
  so.handle = on_request;
  assert_int_equal(loop_new("centre", &c.loop, &e), 0);
  assert_int_equal(loop_start(c.loop, &e), 0);
  assert_int_equal(http_server_start(c.loop, &so, &c.server, &e), 0);
  assert_int_equal(http_client_new(c.loop, &co, &c.client, &e), 0);
}

static void centre_stop(void) {
  http_client_free(&c.client);
  http_server_drain(&c.server, USEC_PER_SEC);
  loop_stop(&c.loop);
}

static int setup(void **state) {
  (void)state;
  memset(&c, 0, sizeof c);
  mutex_init(&c.lock);
  cond_init(&c.changed);
  centre_start(0);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  centre_stop();
  mutex_done(&c.lock);
  cond_done(&c.changed);
  return 0;
}

#define await(condition)                                                                                     \
  do {                                                                                                       \
    mutex_lock(&c.lock);                                                                                     \
    while (!(condition))                                                                                     \
      assert_true(cond_wait(&c.changed, &c.lock, WAIT_MAX_MS *USEC_PER_MS));                                 \
    mutex_unlock(&c.lock);                                                                                   \
  } while (0)
