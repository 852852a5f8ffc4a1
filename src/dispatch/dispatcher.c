#include "dispatch/internal.h"
#include "base/log.h"
#include "base/rng.h"

enum { LOOK_AGAIN_MS = 200, BATCH = 256 };
static const double DURATION_BUCKETS[] = {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 0};
static const char *const outcome_names[] = {"accepted", "done", "busy", "refused", "unreachable", "lost"};

void dispatch_options_default(struct dispatch_options *o) {
  *o = (struct dispatch_options){.text_cache_bytes = (size_t)64 << 20,
                                 .ack_timeout = 5 * USEC_PER_SEC,
                                 .retry_first = 100 * USEC_PER_MS,
                                 .retry_most = 2 * USEC_PER_SEC,
                                 .cool_busy = 200 * USEC_PER_MS};
}

static usec_t mono_now(void) { return clock_system.mono(&clock_system); }

int dispatcher_new(const struct dispatch_options *o, struct dispatcher **ret, struct err *e) {
  (void)e;
  struct dispatcher *d = mem_zalloc(sizeof *d);
  d->o = *o;
  d->jobs_tail = &d->jobs;
  d->texts.max_bytes = o->text_cache_bytes;
  mutex_init(&d->lock);
  cond_init(&d->wake);
  *ret = d;
  return 0;
}

void dispatcher_channel(struct dispatcher *d, const struct dispatch_channel *c) {
  d->channel = *c;
  struct metric_family *f = metric_family("kelou_dispatch_total", "Deliveries by what came of them",
                                          METRIC_COUNTER, "transport,result", NULL);
  for (size_t i = 0; i <= DISPATCH_LOST; i++)
    d->results[i] = metric_series(f, c->name, outcome_names[i], NULL);
  d->duration =
      metric_series(metric_family("kelou_dispatch_duration_seconds", "One delivery until its answer",
                                  METRIC_HISTOGRAM, "transport", DURATION_BUCKETS),
                    c->name, NULL);
  d->parked_gauge = metric_series(
      metric_family("kelou_dispatch_waiting", "Deliveries that wait for an executor", METRIC_GAUGE, "", NULL),
      NULL);
}

/* ---------------------------------------------------------------- orders from outside */

void dispatcher_deliver(struct dispatcher *d, struct run_job *jobs) {
  mutex_lock(&d->lock);
  *d->jobs_tail = jobs;
  while (*d->jobs_tail)
    d->jobs_tail = &(*d->jobs_tail)->next;
  cond_signal(&d->wake);
  mutex_unlock(&d->lock);
}

void dispatcher_cancel(struct dispatcher *d, const struct live_cancel *c, int64_t fence) {
  struct cancel_order *o = mem_zalloc(sizeof *o);
  o->c = *c;
  o->c.spec = task_spec_ref(c->spec);
  o->c.executor = mem_strdup(c->executor);
  o->fence = fence;
  mutex_lock(&d->lock);
  o->next = d->cancels;
  d->cancels = o;
  cond_signal(&d->wake);
  mutex_unlock(&d->lock);
}

void dispatcher_release(struct dispatcher *d, void *slot) {
  struct instance *i = slot;
  registry_release(d->o.registry, &i);
}

void dispatcher_capacity(struct dispatcher *d, struct slice ns, struct slice group) {
  mutex_lock(&d->lock);
  for (struct capacity_hint *h = d->hints; h; h = h->next)
    if (slice_eqz(ns, h->ns) && slice_eqz(group, h->group)) {
      mutex_unlock(&d->lock);
      return;
    }
  struct capacity_hint *h = mem_zalloc(sizeof *h);
  h->ns = mem_slicedup(ns);
  h->group = mem_slicedup(group);
  h->next = d->hints;
  d->hints = h;
  cond_signal(&d->wake);
  mutex_unlock(&d->lock);
}

/* ---------------------------------------------------------------- one delivery */

static void post_event(struct dispatcher *d, const struct run_job *j, enum run_event kind,
                       const struct live_event *more) {
  struct live_event ev = more ? *more : (struct live_event){.progress = -1};
  ev.kind = kind;
  ev.key = j->key;
  ev.attempt = j->attempt;
  ev.fence = j->fence;
  struct err e = {0};
  for (int i = 0; run_post(d->o.runs, &ev, 1, NULL, NULL, &e) < 0 && i < 3; i++)
    log_warn("the run writer does not take an event, its timer will", LF_I("task", j->key.task_id), LF_E(&e));
}

struct choose_ask ask_of(const struct waiting *w) {
  const struct run_job *j = w->job;
  const struct task_spec *s = j->spec;
  struct slice key = pin_key(slice_of(j->pin)), pin = pin_executor(slice_of(j->pin));
  key = key.n ? key : slice_of(s->routing_key);
  return (struct choose_ask){.ns = slice_of(s->ns),
                             .group = slice_of(s->group),
                             .handler = slice_of(s->handler),
                             .labels = slice_of(s->executor_labels),
                             .routing = s->routing,
                             .key = key.n ? slice_hash(key) : hash_u64((uint64_t)j->key.task_id),
                             .pin = pin.n ? pin : slice_of(s->executor),
                             .previous = slice_of(j->previous)};
}

/* The owner before had sent it there when it stopped: only that one can say whether it has it. */
static bool choose_holder(struct dispatcher *d, struct waiting *w, struct instance **ret) {
  const struct task_spec *s = w->job->spec;
  auto_free char *holder = take(w->job->holder);
  if (!holder ||
      registry_adopt(d->o.registry, slice_of(s->ns), slice_of(s->group), slice_of(holder), ret) < 0)
    return false;
  int64_t incarnation = w->job->holder_incarnation;
  if (incarnation && (*ret)->incarnation > incarnation) { /* another process under its name */
    registry_release(d->o.registry, ret);
    return false;
  }
  w->was_lost = true;
  return true;
}

/* The instance for this delivery: where it may be already, or a free one. */
static int choose(struct dispatcher *d, struct waiting *w, struct instance **ret, usec_t *ret_retry_at,
                  struct err *e) {
  if (w->instance) {
    *ret = take(w->instance);
    return 0;
  }
  if (choose_holder(d, w, ret))
    return 0;
  struct slice avoid = slice_of(w->avoid);
  struct choose_ask ask = ask_of(w);
  ask.exclude = &avoid;
  ask.exclude_count = w->avoid ? 1 : 0;
  return registry_choose(d->o.registry, &ask, ret, ret_retry_at, e);
}

/* Nobody can take it now: said when it is news. What the run has met itself says more than that all are busy or fail. */
static void post_none(struct dispatcher *d, struct waiting *w, const struct err *why) {
  if (w->told == why->code || (w->avoid && why->code != ERR_NOT_FOUND))
    return;
  bool busy = why->code == ERR_BUSY;
  w->told = why->code;
  post_event(d, w->job, busy ? EV_BUSY : EV_NO_EXECUTOR,
             &(struct live_event){.error_type =
                                      slice_of(run_reason_names[busy ? REASON_REJECTED : REASON_NO_EXECUTOR]),
                                  .error_message = slice_of(why->text),
                                  .progress = -1});
}

static struct delivery *new_delivery(struct dispatcher *d, struct waiting *w, struct instance *i) {
  struct run_job *j = w->job;
  struct delivery *v = mem_zalloc(sizeof *v);
  v->job = j;
  w->job = NULL;
  v->text = take(w->text);
  v->instance = i; /* the slot itself is the attempt's: it may be given back before the answer comes */
  v->instance_id = mem_strdup(i->id);
  v->ns = slice_of(v->text->ns);
  v->task_name = slice_of(v->text->name);
  v->payload = slice_of(j->payload ? j->payload : v->text->payload);
  usec_t half = j->spec->dispatch_timeout / 2;
  v->timeout = half < d->o.ack_timeout ? half : d->o.ack_timeout;
  return v;
}

enum send_result try_send(struct dispatcher *d, struct waiting *w, usec_t mono, usec_t *ret_retry_at) {
  if (!run_wanted(d->o.runs, w->job)) {
    waiting_free(d, &w);
    return SEND_GONE;
  }
  if (d->o.may_send &&
      !d->o.may_send(d->o.now_arg)) { /* if the shard is lost it is not wanted any more then */
    *ret_retry_at = mono + LOOK_AGAIN_MS * USEC_PER_MS;
    return SEND_FULL;
  }
  struct instance *i = NULL;
  usec_t retry_at = USEC_NEVER;
  struct err why = {0};
  if (choose(d, w, &i, &retry_at, &why) < 0) {
    post_none(d, w, &why);
    usec_t soon = mono + LOOK_AGAIN_MS * USEC_PER_MS;
    *ret_retry_at = retry_at < soon ? retry_at : soon;
    return SEND_FULL;
  }
  struct instance *held = instance_ref(i);
  struct live_place where = {slice_of(i->id), i->incarnation, i};
  if (!run_sending(d->o.runs, w->job, &where)) {
    registry_release(d->o.registry, &i);
    instance_unref(&held);
    waiting_free(d, &w);
    return SEND_GONE;
  }
  atomic_fetch_add(&d->in_flight, 1);
  struct delivery *v = new_delivery(d, w, held);
  v->again = w; /* what it met so far: used again if it must be delivered again */
  v->sent_at = mono;
  d->channel.send(d->channel.arg, v);
  return SEND_GONE;
}

/* ---------------------------------------------------------------- the answer */

static void end_delivery(struct dispatcher *d, struct delivery **p) {
  struct delivery *v = *p;
  waiting_free(d, &v->again);
  run_job_free(&v->job);
  task_text_unref(&v->text);
  instance_unref(&v->instance);
  mem_free(v->instance_id);
  mem_free(v);
  *p = NULL;
}

/* Back to the dispatcher's thread, to be delivered again. */
static void send_again(struct dispatcher *d, struct delivery **p, usec_t pause) {
  struct delivery *v = *p;
  struct waiting *w = take(v->again);
  w->job = take(v->job);
  w->text = take(v->text);
  w->not_before = mono_now() + pause;
  end_delivery(d, p);
  mutex_lock(&d->lock);
  w->next = d->again;
  d->again = w;
  cond_signal(&d->wake);
  mutex_unlock(&d->lock);
}

/* The slot goes back at once, unless the attempt ended meanwhile and gave it back itself. */
static void give_slot_back(struct dispatcher *d, struct delivery *v) {
  struct instance *i = run_take_slot(d->o.runs, v->job);
  if (!i)
    return;
  mem_free(v->again->avoid);
  v->again->avoid = mem_strdup(i->id);
  registry_release(d->o.registry, &i);
}

static usec_t next_pause(const struct dispatcher *d, struct waiting *w) {
  usec_t p = w->pause ? w->pause * 2 : d->o.retry_first;
  w->pause = p > d->o.retry_most ? d->o.retry_most : p;
  return w->pause;
}

/* May have been received: deliver to the same instance again, which knows the run if it got it. */
static void deliver_lost_again(struct dispatcher *d, struct delivery **p) {
  struct delivery *v = *p;
  v->again->instance = run_take_slot(d->o.runs, v->job);
  usec_t pause = next_pause(d, v->again);
  if (v->again->instance)
    send_again(d, p, pause);
  else
    end_delivery(d, p); /* the attempt ended meanwhile */
}

/* What its breaker learns from it. */
static enum breaker_event breaker_event_of(const struct dispatch_answer *a) {
  switch (a->outcome) {
  case DISPATCH_ACCEPTED:
  case DISPATCH_DONE:
  case DISPATCH_BUSY: break;
  case DISPATCH_REFUSED: return a->out_of_order ? BREAKER_FAILED : BREAKER_REFUSED;
  case DISPATCH_UNREACHABLE:
  case DISPATCH_LOST: return BREAKER_FAILED;
  }
  return BREAKER_ANSWERED;
}

void dispatch_answer(struct dispatcher *d, struct delivery *v, const struct dispatch_answer *a) {
  static const enum run_event events[] = {
      [DISPATCH_ACCEPTED] = EV_ACCEPT,         [DISPATCH_BUSY] = EV_BUSY,     [DISPATCH_REFUSED] = EV_REFUSE,
      [DISPATCH_UNREACHABLE] = EV_UNREACHABLE, [DISPATCH_LOST] = EV_ACK_LOST, [DISPATCH_DONE] = EV_MAX_};
  metric_add(d->results[a->outcome], 1);
  metric_observe_usec(d->duration, mono_now() - v->sent_at);
  struct live_event ev = a->event;
  ev.executor = slice_of(v->instance_id);
  ev.incarnation = v->instance->incarnation;
  post_event(d, v->job, a->outcome == DISPATCH_DONE ? a->event.kind : events[a->outcome], &ev);
  registry_answered(d->o.registry, v->instance, breaker_event_of(a));
  switch (a->outcome) {
  case DISPATCH_ACCEPTED:
  case DISPATCH_DONE:
  case DISPATCH_REFUSED: end_delivery(d, &v); break;
  case DISPATCH_BUSY:
    registry_cool(v->instance, mono_now() + (a->retry_after ? a->retry_after : d->o.cool_busy));
    give_slot_back(d, v);
    send_again(d, &v, 0);
    break;
  case DISPATCH_UNREACHABLE:
    if (v->again->was_lost &&
        !v->job->spec
             ->exactly_one_start) { /* an earlier delivery may be running there: only there it is known */
      deliver_lost_again(d, &v);
      break;
    }
    usec_t pause =
        v->again->avoid ? next_pause(d, v->again) : 0; /* the first time another one may have it at once */
    give_slot_back(d, v);
    send_again(d, &v, pause);
    break;
  case DISPATCH_LOST:
    v->again->was_lost = true;
    deliver_lost_again(d, &v);
    break;
  }
  atomic_fetch_sub(&d->in_flight, 1);
}

/* ---------------------------------------------------------------- the thread */

static void send_cancels(struct dispatcher *d, struct cancel_order *o) {
  while (o) {
    struct cancel_order *next = o->next;
    struct instance *i = NULL;
    const struct task_spec *s = o->c.spec;
    if (registry_adopt(d->o.registry, slice_of(s->ns), slice_of(s->group), slice_of(o->c.executor), &i) >=
        0) {
      d->channel.cancel(d->channel.arg, i, &o->c, o->fence);
      registry_release(d->o.registry, &i);
    } /* gone: nothing to stop */
    task_spec_unref(&o->c.spec);
    mem_free(o->c.executor);
    mem_free(o);
    o = next;
  }
}

static void take_hints(struct dispatcher *d, struct capacity_hint *h) {
  while (h) {
    struct capacity_hint *next = h->next;
    parking_hint(d, h->ns, h->group);
    mem_free(h->ns);
    mem_free(h->group);
    mem_free(h);
    h = next;
  }
}

static void send_or_park(struct dispatcher *d, struct waiting *w, usec_t mono) {
  usec_t retry_at = w->not_before;
  if (w->not_before > mono)
    park(d, w, w->not_before, false);
  else if (parking_full(d, w))
    park(d, w, mono + LOOK_AGAIN_MS * USEC_PER_MS, true);
  else if (try_send(d, w, mono, &retry_at) != SEND_GONE)
    park(d, w, retry_at, true);
}

/* Names and payloads for a handful of new jobs, then off they go. */
static void send_batch(struct dispatcher *d, struct run_job **jobs, size_t n) {
  struct task_text *texts[BATCH] = {NULL};
  struct err e = {0};
  int rc = text_cache_get(&d->texts, d->o.store, jobs, n, texts, &e);
  if (rc < 0)
    log_warn("payloads not read, trying again", LF_I("runs", n), LF_E(&e));
  usec_t mono = mono_now();
  for (size_t i = 0; i < n; i++) {
    if (rc < 0) { /* the run stays DISPATCHING: its own time-out bounds this */
      dispatcher_deliver(d, jobs[i]);
      continue;
    }
    if (!texts[i]) {
      post_event(d, jobs[i], EV_REFUSE,
                 &(struct live_event){.error_type = SLICE("REJECTED"),
                                      .error_message = SLICE("the task's version is gone"),
                                      .progress = -1});
      run_job_free(&jobs[i]);
      continue;
    }
    struct waiting *w = mem_zalloc(sizeof *w);
    w->job = jobs[i];
    w->text = texts[i];
    send_or_park(d, w, mono);
  }
  if (rc < 0)
    d->database_at = mono + LOOK_AGAIN_MS * USEC_PER_MS;
}

/* The higher priority first, else in their order. Most often there is only one priority: then nothing is moved. */
static struct run_job *by_priority(struct run_job *list) {
  const struct run_job *j = list;
  while (j && j->next && j->next->spec->priority <= j->spec->priority)
    j = j->next;
  if (!j || !j->next)
    return list;
  struct run_job *heads[DISPATCH_PRIORITIES] = {NULL}, **tails[DISPATCH_PRIORITIES], *sorted = NULL,
                 **tail = &sorted;
  for (int i = 0; i < DISPATCH_PRIORITIES; i++)
    tails[i] = &heads[i];
  for (struct run_job *k = list; k; k = k->next) {
    int i = k->spec->priority % DISPATCH_PRIORITIES;
    *tails[i] = k;
    tails[i] = &k->next;
  }
  for (int i = DISPATCH_PRIORITIES - 1; i >= 0; i--) {
    *tails[i] = NULL;
    if (tails[i] == &heads[i])
      continue;
    *tail = heads[i];
    tail = tails[i];
  }
  return sorted;
}

static void send_jobs(struct dispatcher *d, struct run_job *list) {
  list = by_priority(list);
  while (list) {
    struct run_job *jobs[BATCH];
    size_t n = 0;
    for (; list && n < BATCH; n++) {
      jobs[n] = list;
      list = list->next;
      jobs[n]->next = NULL;
    }
    send_batch(d, jobs, n);
  }
}

static void dispatch_main(void *arg) {
  struct dispatcher *d = arg;
  mutex_lock(&d->lock);
  while (!d->stopping) {
    usec_t mono = mono_now(), at = parking_next(d);
    bool wait_for_database = d->database_at > mono;
    if ((!d->jobs || wait_for_database) && !d->again && !d->cancels && !d->hints && at > mono) {
      at = wait_for_database && d->database_at < at ? d->database_at : at;
      (void)cond_wait(&d->wake, &d->lock, at == USEC_NEVER ? USEC_NEVER : at - mono);
      continue;
    }
    struct run_job *jobs = wait_for_database ? NULL : take(d->jobs);
    if (jobs)
      d->jobs_tail = &d->jobs;
    struct waiting *again = take(d->again);
    struct cancel_order *cancels = take(d->cancels);
    struct capacity_hint *hints = take(d->hints);
    mutex_unlock(&d->lock);
    take_hints(d, hints);
    unpark_ready(d, mono);
    while (again) {
      struct waiting *w = again;
      again = w->next;
      send_or_park(d, w, mono_now());
    }
    send_jobs(d, jobs);
    send_cancels(d, cancels);
    mutex_lock(&d->lock);
  }
  mutex_unlock(&d->lock);
}

int dispatcher_start(struct dispatcher *d, struct err *e) {
  return thread_start(&d->thread, "dispatcher", dispatch_main, d, e);
}

void dispatcher_stop(struct dispatcher *d) {
  mutex_lock(&d->lock);
  d->stopping = true;
  cond_broadcast(&d->wake);
  mutex_unlock(&d->lock);
  if (d->thread.running)
    thread_join(&d->thread);
}

void dispatcher_free(struct dispatcher **p) {
  struct dispatcher *d = *p;
  if (!d)
    return;
  for (struct run_job *j = d->jobs, *next; j; j = next) {
    next = j->next;
    run_job_free(&j);
  }
  for (struct waiting *w = d->again, *next; w; w = next) {
    next = w->next;
    waiting_free(d, &w);
  }
  for (struct cancel_order *o = d->cancels, *next; o; o = next) { /* the channel has gone */
    next = o->next;
    task_spec_unref(&o->c.spec);
    mem_free(o->c.executor);
    mem_free(o);
  }
  take_hints(d, take(d->hints));
  parking_done(d);
  text_cache_done(&d->texts);
  mutex_done(&d->lock);
  cond_done(&d->wake);
  mem_free(d);
  *p = NULL;
}
