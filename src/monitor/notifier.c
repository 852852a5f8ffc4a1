/* The notifier's thread: events, what is due, what came of it. */
#include "base/log.h"
#include "monitor/internal.h"
#include <stdio.h>

enum { IN_FLIGHT = 16, ABSORB_TURNS = 64, EXPIRE_ROWS = 1000, DOUBLINGS = 30 };
static const usec_t EXPIRE_EVERY = USEC_PER_MIN, LEASE_MARGIN = 5 * USEC_PER_SEC;

void alerts_options_default(struct alerts_options *o) {
  *o = (struct alerts_options){.clock = &clock_system,
                               .poll = USEC_PER_SEC,
                               .timeout = 10 * USEC_PER_SEC,
                               .retry_first = 5 * USEC_PER_SEC,
                               .retry_most = 10 * USEC_PER_MIN,
                               .retry_for = USEC_PER_DAY,
                               .keep = 30 * USEC_PER_DAY,
                               .in_flight = IN_FLIGHT};
}

static usec_t mono(const struct alerts *a) { return a->o.clock->mono(a->o.clock); }

/* ------------------------------------------------------------------ what came of it */

static void on_answer(struct sending *s) {
  struct alerts *a = s->alerts;
  mutex_lock(&a->lock);
  s->next = a->done;
  a->done = s;
  cond_signal(&a->wake);
  mutex_unlock(&a->lock);
}

static usec_t pause_of(const struct alerts *a, const struct sending *s) {
  usec_t pause = a->o.retry_first;
  for (int i = 1; i < s->tries && i < DOUBLINGS && pause < a->o.retry_most; i++)
    pause *= 2;
  pause = pause < a->o.retry_most ? pause : a->o.retry_most;
  return pause > s->retry_after ? pause : s->retry_after;
}

static const char *const results[] = {"delivered", "failed", "given_up"};

void alerts_count_from_zero(struct alerts *a, struct slice ns, struct slice name) {
  char channel[260];
  (void)snprintf(channel, sizeof channel, "%.*s/%.*s", SLICE_FMT(ns), SLICE_FMT(name)); /* fits */
  for (size_t i = 0; i < sizeof results / sizeof *results; i++)
    (void)metric_series(a->sent, channel, results[i], NULL);
}

static void write_result(struct alerts *a, struct sending *s) {
  auto_arena mem = {0};
  struct err e = {0};
  struct st_alert_result_ret none;
  struct st_alert_result in = {.id = s->id,
                               .state = s->delivered ? ALERT_DELIVERED : ALERT_PENDING,
                               .next_in = s->delivered ? 0 : pause_of(a, s),
                               .attempt = {s->attempt, s->status, s->at, s->took, slice_of(s->error)}};
  if (!s->delivered && a->o.now(a->o.now_arg) + in.next_in > s->give_up_at)
    in.state = ALERT_FAILED;
  metric_add(metric_series(a->sent, s->channel,
                           results[s->delivered               ? 0
                                   : in.state == ALERT_FAILED ? 2
                                                              : 1],
                           NULL),
             1);
  if (s->delivered)
    log_info("alert delivered", LF_I("alert", s->id), LF_S("channel", s->channel),
             LF_I("attempt", s->attempt));
  else if (in.state == ALERT_FAILED)
    log_error("alert given up", LF_I("alert", s->id), LF_S("channel", s->channel),
              LF_I("attempt", s->attempt), LF_S("error", s->error));
  else
    log_warn("alert not delivered, trying again", LF_I("alert", s->id), LF_S("channel", s->channel),
             LF_I("attempt", s->attempt), LF_D("after", in.next_in), LF_S("error", s->error));
  if (store_alert_result(a->o.store, &in, &none, &mem, &e) < 0) /* its lease runs out: it is sent again */
    log_warn("what came of an alert is not written", LF_I("alert", s->id), LF_E(&e));
}

static void take_answers(struct alerts *a) {
  mutex_lock(&a->lock);
  struct sending *list = a->done;
  a->done = NULL;
  mutex_unlock(&a->lock);
  while (list) {
    struct sending *s = list;
    list = s->next;
    write_result(a, s);
    mem_free(s);
    a->flying--;
  }
}

/* ------------------------------------------------------------------ what is due */

static void send_one(struct alerts *a, const struct alert_row *row) {
  auto_arena mem = {0};
  struct err e = {0};
  struct st_alert_def_get_ret channel;
  struct sending *s = mem_zalloc(sizeof *s);
  *s = (struct sending){.alerts = a,
                        .finish = on_answer,
                        .id = row->id,
                        .attempt = row->attempts,
                        .tries = row->tries,
                        .at = a->o.now(a->o.now_arg),
                        .give_up_at = row->give_up_at};
  (void)snprintf(s->channel, sizeof s->channel, "%.*s/%.*s", SLICE_FMT(row->ns),
                 SLICE_FMT(row->channel)); /* fits */
  a->flying++;
  int r = store_alert_def_get(
      a->o.store, &(struct st_alert_def_get){ALERT_DEF_CHANNEL, row->ns, row->channel}, &channel, &mem, &e);
  if (r < 0) {
    (void)text_copy(s->error, sizeof s->error, slice_of(e.text)); /* a part of it will do */
    on_answer(s);
    return;
  }
  auto_free char *body = alert_message(row);
  alert_send(s, &channel.def, slice_of(body));
}

static int send_due(struct alerts *a, struct err *e) {
  auto_arena mem = {0};
  struct st_alert_claim_ret got;
  struct st_alert_claim in = {.limit = a->o.in_flight - a->flying, .lease = a->o.timeout + LEASE_MARGIN};
  int r = store_alert_claim(a->o.store, &in, &got, &mem, e);
  if (r < 0)
    return r;
  metric_set(a->pending, (double)got.pending);
  metric_set(a->oldest, got.oldest_at ? (double)(got.now - got.oldest_at) / USEC_PER_SEC : 0);
  for (size_t i = 0; i < got.count; i++)
    send_one(a, &got.rows[i]);
  return 0;
}

static int forget_old(struct alerts *a, struct err *e) {
  auto_arena mem = {0};
  struct st_alert_expire_ret got;
  if (mono(a) < a->expire_at)
    return 0;
  a->expire_at = mono(a) + EXPIRE_EVERY;
  return store_alert_expire(a->o.store, &(struct st_alert_expire){a->o.keep, EXPIRE_ROWS}, &got, &mem, e);
}

static int turn(struct alerts *a, struct err *e) {
  int r = 1;
  for (int i = 0; r == 1 && i < ABSORB_TURNS; i++)
    r = alerts_absorb(a, e);
  if (r == ERR_CONFLICT) /* another node was at it */
    r = 0;
  if (r >= 0)
    r = send_due(a, e);
  return r < 0 ? r : forget_old(a, e);
}

static void say(struct alerts *a, int r, const struct err *e) {
  if (r < 0 && !a->store_down)
    log_warn("alerts wait: the database does not answer", LF_E(e));
  else if (r >= 0 && a->store_down)
    log_info("alerts go on");
  a->store_down = r < 0;
}

static void count_all_from_zero(struct alerts *a) {
  auto_arena mem = {0};
  struct err e = {0};
  struct st_alert_def_list_ret got;
  if (store_alert_def_list(a->o.store, &(struct st_alert_def_list){.kind = ALERT_DEF_CHANNEL}, &got, &mem,
                           &e) < 0)
    return; /* a channel then counts from its first attempt on */
  for (size_t i = 0; i < got.count; i++)
    alerts_count_from_zero(a, got.rows[i].ns, got.rows[i].name);
}

static void notify(void *arg) {
  struct alerts *a = arg;
  usec_t turn_at = 0;
  count_all_from_zero(a);
  mutex_lock(&a->lock);
  while (!a->stop) {
    if (!a->done && turn_at > mono(a))
      (void)cond_wait(&a->wake, &a->lock, turn_at - mono(a));
    bool answers = a->done != NULL, stop = a->stop;
    mutex_unlock(&a->lock);
    struct err e = {0};
    take_answers(a);
    if (!stop && (answers || mono(a) >= turn_at)) {
      say(a, turn(a, &e), &e);
      turn_at = mono(a) + a->o.poll;
    }
    mutex_lock(&a->lock);
  }
  mutex_unlock(&a->lock);
}

/* ------------------------------------------------------------------ the test alert, again, and the life of it all */

struct test_wait {
  struct sending s; /* first */
  struct mutex lock;
  struct cond wake;
  bool done;
};

static void test_answered(struct sending *s) {
  struct test_wait *w = (struct test_wait *)s;
  mutex_lock(&w->lock);
  w->done = true;
  cond_signal(&w->wake);
  mutex_unlock(&w->lock);
}

int alerts_channel_test(struct alerts *a, struct slice ns, struct slice name, struct alert_test *ret,
                        struct arena *mem, struct err *e) {
  struct st_alert_def_get_ret channel;
  int r = store_alert_def_get(a->o.store, &(struct st_alert_def_get){ALERT_DEF_CHANNEL, ns, name}, &channel,
                              mem, e);
  if (r < 0)
    return r;
  usec_t now = a->o.now(a->o.now_arg);
  struct alert_row row = {.count = 1,
                          .first_at = now,
                          .last_at = now,
                          .ns = ns,
                          .rule = SLICE("test"),
                          .channel = name,
                          .details = SLICE("{\"event\":\"TEST\"}")};
  auto_free char *body = alert_message(&row);
  struct test_wait w = {.s = {.alerts = a, .finish = test_answered}};
  mutex_init(&w.lock);
  cond_init(&w.wake);
  alert_send(&w.s, &channel.def, slice_of(body));
  mutex_lock(&w.lock);
  while (!w.done) /* the call's own time-out ends it */
    (void)cond_wait(&w.wake, &w.lock, USEC_NEVER);
  mutex_unlock(&w.lock);
  mutex_done(&w.lock);
  cond_done(&w.wake);
  *ret = (struct alert_test){w.s.delivered, w.s.status, w.s.took, arena_slice(mem, slice_of(w.s.error))};
  return 0;
}

int alerts_redeliver(struct alerts *a, int64_t id, struct alert_row *ret, struct arena *mem, struct err *e) {
  struct st_alert_send_ret got;
  int r = store_alert_send(a->o.store, &(struct st_alert_send){id, a->o.retry_for}, &got, mem, e);
  if (r >= 0)
    *ret = got.alert;
  return r;
}

int alerts_new(const struct alerts_options *o, struct alerts **ret, struct err *e) {
  struct alerts *a = mem_zalloc(sizeof *a);
  a->o = *o;
  mutex_init(&a->lock);
  cond_init(&a->wake);
  a->sent = metric_family("kelou_alerts_sent_total", "Attempts to deliver an alert, by what came of them",
                          METRIC_COUNTER, "channel,result", NULL);
  a->pending = metric_series(
      metric_family("kelou_alerts_pending", "Alerts that are not delivered yet", METRIC_GAUGE, "", NULL),
      NULL);
  a->oldest = metric_series(metric_family("kelou_alert_oldest_due_age_seconds",
                                          "Age of the oldest alert that is due", METRIC_GAUGE, "", NULL),
                            NULL);
  struct http_client_options co;
  http_client_options_default(&co);
  co.ca_file = o->ca_file;
  co.connect_timeout = o->timeout < co.connect_timeout ? o->timeout : co.connect_timeout;
  co.max_connections_per_target = o->in_flight;
  int r = http_client_new(o->loop, &co, &a->client, e);
  if (r < 0)
    alerts_free(&a);
  else
    *ret = a;
  return r;
}

int alerts_start(struct alerts *a, struct err *e) { return thread_start(&a->thread, "alerts", notify, a, e); }

void alerts_stop(struct alerts *a) {
  mutex_lock(&a->lock);
  a->stop = true;
  cond_signal(&a->wake);
  mutex_unlock(&a->lock);
  if (a->thread.running)
    thread_join(&a->thread);
  if (a->client)
    http_client_free(&a->client);
  take_answers(a);
}

void alerts_free(struct alerts **ap) {
  struct alerts *a = *ap;
  if (!a)
    return;
  if (a->client)
    http_client_free(&a->client);
  take_answers(a);
  mutex_done(&a->lock);
  cond_done(&a->wake);
  explicit_bzero(&a->o.key, sizeof a->o.key);
  mem_freep(ap);
}
