#include "run/service.h"
#include "base/log.h"
#include "base/mem.h"

static const double DURATION_BUCKETS[] = {.01, .05, .1, .5, 1, 5, 10, 30, 60, 300, 600, 1800, 3600, 0};

void run_options_default(struct run_options *o) {
  *o = (struct run_options){
      .queue_max = 65536,
      .batch_max = 4096,
      .limits = {.write_running_after = 2 * USEC_PER_SEC, .write_progress_every = 2 * USEC_PER_SEC}};
}

/* See task/dead_letters.h: a family of its own, made here where they come from. */
static struct metric *made_dead(void) {
  return metric_series(metric_family("kelou_dead_letters_total", "Dead letters made, replayed, discarded",
                                     METRIC_COUNTER, "state", NULL),
                       dead_letter_state_names[DEAD_LETTER_OPEN], NULL);
}

/* The series of a group, when it is seen first. */
static void make_series(void *arg, int number, const char *group) {
  struct run_service *s = arg;
  struct run_series *x = s->series[number] = mem_zalloc(sizeof *x);
  struct metric_family *runs =
      metric_family("kelou_runs_total", "Runs that ended, by executor group, final state and reason",
                    METRIC_COUNTER, "group,state,reason", NULL);
  for (int st = RUN_SUCCESS; st < RUN_STATE_MAX_; st++)
    for (int r = 0; r < REASON_MAX_; r++) {
      bool fail = st == RUN_FAIL && r >= REASON_ERROR && r <= REASON_EXPIRED;
      bool replaced =
          (st == RUN_CANCELLED && r == REASON_REPLACED) || (st == RUN_SKIPPED && r == REASON_OVERLAP);
      if (fail || replaced || (st != RUN_FAIL && st != RUN_SKIPPED && r == REASON_NONE))
        x->ended[st][r] = metric_series(runs, group, run_state_names[st], r ? run_reason_names[r] : "", NULL);
    }
  x->duration = metric_series(metric_family("kelou_run_duration_seconds", "From started to ended",
                                            METRIC_HISTOGRAM, "group", DURATION_BUCKETS),
                              group, NULL);
  x->wait = metric_series(metric_family("kelou_run_wait_seconds", "From due to started on an executor",
                                        METRIC_HISTOGRAM, "group", DURATION_BUCKETS),
                          group, NULL);
}

static void make_metrics(struct run_service *s) {
  s->retries = metric_series(metric_family("kelou_run_attempts_failed_total",
                                           "Attempts that ended without success", METRIC_COUNTER, "", NULL),
                             NULL);
  s->dead = made_dead();
  metric_groups_hook(make_series, s);
}

int run_group_label(struct task_spec *spec) {
  int32_t label = atomic_load_explicit(&spec->label, memory_order_relaxed);
  if (!label) { /* whoever else asks now gets the same */
    label = 1 + metric_group(slice_of(spec->ns), slice_of(spec->group));
    atomic_store_explicit(&spec->label, label, memory_order_relaxed);
  }
  return label - 1;
}

int run_service_new(const struct run_options *o, struct run_service **ret, struct err *e) {
  (void)e;
  struct run_service *s = mem_zalloc(sizeof *s);
  s->o = *o;
  s->queue = queue_new(2 * o->queue_max);
  s->live = live_new(&o->limits, o->seed);
  if (o->several)
    live_share(s->live, true, 1);
  s->epochs = mem_array((size_t)o->shard_count, sizeof *s->epochs);
  s->adopting = mem_array((size_t)o->shard_count, sizeof *s->adopting);
  s->expected = mem_array((size_t)o->shard_count, sizeof *s->expected);
  s->closing = mem_array((size_t)o->shard_count, sizeof *s->closing);
  s->closed = mem_array((size_t)o->shard_count, sizeof *s->closed);
  s->lost = mem_array((size_t)o->shard_count, sizeof *s->lost);
  s->turn_epochs = mem_array((size_t)o->shard_count, sizeof *s->turn_epochs);
  s->batch = mem_array(o->batch_max, sizeof(struct run_msg *));
  mutex_init(&s->lock);
  mutex_init(&s->pause_lock);
  cond_init(&s->pause);
  make_metrics(s);
  *ret = s;
  return 0;
}

void run_wake_writer(struct run_service *s) { queue_wake(s->queue); }

void run_answer(struct run_token *t, enum run_result r) {
  struct run_ticket *k = t->ticket;
  if (!k)
    return;
  k->results[t->index] = r;
  if (--k->left)
    return;
  if (k->done)
    k->done(k->arg, k->results, k->count);
  mem_free(k);
}

/* ---------------------------------------------------------------- a turn of the writer */

/* Not ours, or a run that may be among those not read yet: to call it late would lose a result. */
static bool unknown_here(struct run_service *s, const struct run_key *key) {
  return s->epochs[key->shard] == 0 || (s->adopting[key->shard] && !live_has(s->live, key));
}

/* What went wrong with a delivery of an earlier owner: this one's may be well. What an executor did is true whoever asked for it. */
static bool is_stale(const struct run_service *s, const struct live_event *ev) {
  return ev->fence && ev->fence != s->epochs[ev->key.shard] && ev->kind != EV_ACCEPT &&
         ev->kind != EV_DONE_OK && ev->kind != EV_DONE_FAIL && ev->kind != EV_DONE_CANCELLED;
}

static void inbox_done(struct run_service *s, const struct run_msg *m) {
  mem_reserve(s->inbox_done, s->inbox_count, s->inbox_cap);
  s->inbox_done[s->inbox_count++] = (struct inbox_row){.shard = m->ev.key.shard, .no = m->inbox_no};
}

/* An event of a shard that is not ours changes nothing here; its answer waits with the others. */
static void step_events(struct run_service *s, int n, usec_t now) {
  for (int i = 0; i < n; i++) {
    struct run_msg *m = s->batch[i];
    if (m->kind == RUN_MSG_EXECUTOR_LOST) {
      live_executor_lost(s->live, &m->ev, m->sends, now, &s->out);
      continue;
    }
    if (is_stale(s, &m->ev))
      continue;
    if (unknown_here(s, &m->ev.key)) {
      if (m->ev.token)
        live_out_answer(&s->out, m->ev.token, LIVE_UNKNOWN);
      continue;
    }
    live_event(s->live, &m->ev, now, &s->out);
    if (m->inbox_no)
      inbox_done(s, m);
  }
}

static void count_done(struct run_service *s) {
  for (size_t i = 0; i < s->out.done_count; i++) {
    const struct live_done *d = &s->out.done[i];
    if (s->lost[d->key.shard])
      continue;
    const struct run_series *x = s->series[run_group_label(d->spec)];
    if (x->ended[d->state][d->reason])
      metric_add(x->ended[d->state][d->reason], 1);
    if (d->started_at && d->finished_at >= d->started_at)
      metric_observe_usec(x->duration, d->finished_at - d->started_at);
    if (d->started_at && d->started_at >= d->key.scheduled_at)
      metric_observe_usec(x->wait, d->started_at - d->key.scheduled_at);
    metric_add(s->dead, d->state == RUN_FAIL);
    if (d->state == RUN_FAIL)
      log_info("run failed", LF_I("task", d->key.task_id), LF_T("scheduled_at", d->key.scheduled_at),
               LF_S("reason", run_reason_names[d->reason]), LF_I("attempt", d->attempt));
  }
  for (size_t i = 0; i < s->out.attempts_count; i++)
    if (s->out.attempts[i].state == RUN_FAIL)
      metric_add(s->retries, 1);
}

static void answer_all(struct run_service *s) {
  static const enum run_result of[] = {
      [LIVE_RECORDED] = RUN_RESULT_RECORDED,   [LIVE_GRANTED] = RUN_RESULT_RECORDED,
      [LIVE_LATE] = RUN_RESULT_LATE,           [LIVE_CONFLICT] = RUN_RESULT_CONFLICT,
      [LIVE_FORBIDDEN] = RUN_RESULT_FORBIDDEN, [LIVE_UNKNOWN] = RUN_RESULT_NOT_OWNER};
  for (size_t i = 0; i < s->out.answers_count; i++) {
    struct run_token *t = s->out.answers[i].token;
    run_answer(t, s->lost[t->shard] ? RUN_RESULT_NOT_OWNER : of[s->out.answers[i].answer]);
  }
}

/* What must follow the commit: nothing here blocks. A shard that was lost in this turn has another owner, who sees to all this. */
static void carry_out(struct run_service *s, struct run_job *jobs) {
  const struct run_hooks *h = &s->o.hooks;
  answer_all(s);
  if (jobs)
    h->deliver(h->arg, jobs);
  for (size_t i = 0; i < s->out.cancels_count; i++)
    if (!s->lost[s->out.cancels[i].key.shard])
      h->cancel(h->arg, &s->out.cancels[i], s->turn_epochs[s->out.cancels[i].key.shard]);
  for (size_t i = 0; i < s->out.releases_count; i++)
    h->release(h->arg, s->out.releases[i].slot);
  for (size_t i = 0; i < s->out.progress_count; i++)
    if (!s->lost[s->out.progress[i].shard])
      h->delay_ended(h->arg, &s->out.progress[i]);
}

/* Rows to write, or an answer that only the owner may give: whoever stood still past its lease must not call a report late. */
static bool needs_commit(const struct run_service *s) {
  for (size_t i = 0; i < s->out.answers_count; i++)
    if (s->out.answers[i].answer != LIVE_RECORDED && s->out.answers[i].answer != LIVE_UNKNOWN)
      return true;
  return live_out_writes(&s->out) || s->inbox_count;
}

/* False: the service is stopping and the database did not answer. */
static bool turn(struct run_service *s, int n) {
  usec_t now = s->o.now(s->o.now_arg);
  live_out_clear(&s->out);
  s->inbox_count = 0;
  memset(s->lost, 0, (size_t)s->o.shard_count * sizeof *s->lost);
  mutex_lock(&s->lock);
  memcpy(s->turn_epochs, s->epochs, (size_t)s->o.shard_count * sizeof *s->epochs);
  step_events(s, n, now);
  (void)live_tick(s->live, now, s->o.batch_max, &s->out); /* the rest comes with the next turn */
  run_close_step(s, n < (int)s->o.batch_max, now);
  mutex_unlock(&s->lock);

  bool written = !needs_commit(s) || run_commit(s);
  if (written) {
    for (int32_t i = 0; i < s->o.shard_count; i++)
      if (s->lost[i])
        s->turn_epochs[i] = -1; /* nothing of it is delivered */
    mutex_lock(&s->lock);
    struct run_job *jobs = run_jobs_of(s, &s->out, s->turn_epochs);
    live_settle(s->live, &s->out);
    mutex_unlock(&s->lock);
    count_done(s);
    carry_out(s, jobs);
    run_close_finish(s);
  } else {
    memset(s->lost, 1,
           (size_t)s->o.shard_count * sizeof *s->lost); /* not durable: nobody is told that it was recorded */
    answer_all(s);
  }
  for (int i = 0; i < n; i++)
    mem_free(s->batch[i]);
  return written;
}

static usec_t wait_time(struct run_service *s) {
  mutex_lock(&s->lock);
  usec_t wake = live_next_wake(s->live), most = run_close_wait(s, USEC_PER_SEC);
  mutex_unlock(&s->lock);
  if (wake == USEC_NEVER)
    return most;
  usec_t wait = wake - s->o.now(s->o.now_arg);
  return wait < 0 ? 0 : wait > most ? most : wait;
}

static void writer_main(void *arg) {
  struct run_service *s = arg;
  for (;;) {
    int n = queue_take(s->queue, (void **)s->batch, s->o.batch_max, wait_time(s));
    if (n < 0)
      break; /* closed and empty */
    if (!turn(s, n))
      return;
  }
  live_out_clear(&s->out);
  s->inbox_count = 0;
  memset(s->lost, 0, (size_t)s->o.shard_count * sizeof *s->lost);
  mutex_lock(&s->lock);
  memcpy(s->turn_epochs, s->epochs, (size_t)s->o.shard_count * sizeof *s->epochs);
  live_write_running(s->live, -1, s->o.now(s->o.now_arg), &s->out);
  mutex_unlock(&s->lock);
  if (live_out_writes(&s->out)) /* what runs need not be delivered again after the restart */
    (void)run_commit(s);
}

int run_service_start(struct run_service *s, struct err *e) {
  return thread_start(&s->writer, "run-writer", writer_main, s, e);
}

static void drain(struct run_service *s);

void run_service_stop(struct run_service *s, usec_t grace) {
  s->stop_at = clock_system.mono(&clock_system) + grace;
  atomic_store(&s->stopping, true);
  queue_close(s->queue);
  mutex_lock(&s->pause_lock);
  cond_broadcast(&s->pause);
  mutex_unlock(&s->pause_lock);
  thread_join(&s->writer);
  drain(s);
}

/* Events that the writer did not take any more: nobody is told that they were recorded. */
static void drain(struct run_service *s) {
  int n;
  while ((n = queue_take(s->queue, (void **)s->batch, s->o.batch_max, 0)) > 0)
    for (int i = 0; i < n; i++) {
      run_answer(&s->batch[i]->token, RUN_RESULT_NOT_OWNER);
      mem_free(s->batch[i]);
    }
}

void run_service_free(struct run_service **p) {
  struct run_service *s = *p;
  if (!s)
    return;
  metric_groups_unhook(s);
  for (int i = 0; i <= METRIC_GROUPS_MAX; i++)
    mem_free(s->series[i]);
  queue_close(s->queue);
  drain(s);
  for (int32_t i = 0; i < s->o.shard_count; i++)
    if (s->epochs[i])
      run_disown(s, i);
  live_out_done(&s->out);
  live_out_done(&s->opened);
  live_free(&s->live);
  queue_free(&s->queue);
  store_close(&s->o.finish);
  arena_done(&s->mem);
  mem_free(s->epochs);
  mem_free(s->adopting);
  mem_free(s->expected);
  mem_free(s->closing);
  mem_free(s->closed);
  mem_free(s->lost);
  mem_free(s->turn_epochs);
  mem_free(s->batch);
  mem_free(s->inbox_done);
  mutex_done(&s->lock);
  mutex_done(&s->pause_lock);
  cond_done(&s->pause);
  mem_free(s);
  *p = NULL;
}
