#include "trigger/internal.h"
#include "base/log.h"
#include "base/mem.h"

enum {
  QUEUE_MAX = 65536,
  QUEUE_KEPT = 4096 /* for owning and disowning */,
  TAKE_MAX = 1024,
  SPECS_MAX = 100000,
  COMPLETED_MAX = 4096
};

static const usec_t FAILING_AFTER = USEC_PER_SEC;
static const double LATENESS_BUCKETS[] = {.001, .0025, .005, .01, .025, .05, .1, .25,
                                          .5,   1,     2.5,  5,   10,   30,  60, 0};

void engine_options_default(struct engine_options *o) {
  *o = (struct engine_options){
      .limits = {.max_rows = 5000, .max_work = 10000, .idle_advance = 10 * USEC_PER_SEC},
      .poll = 250 * USEC_PER_MS,
      .zone_poll = 30 * USEC_PER_SEC,
      .ahead = 50 * USEC_PER_MS,
      .fire_rows = 5000};
}

/* The series of a group, when it is seen first. */
static void make_series(void *arg, int number, const char *group) {
  static const char *const missed_names[MISSED_MAX_] = {"downtime", "db", "overload"};
  struct engine *g = arg;
  struct fire_series *x = g->series[number] = mem_zalloc(sizeof *x);
  struct metric_family *fires =
      metric_family("kelou_fires_total", "Runs fired, by executor group and what asked for them",
                    METRIC_COUNTER, "group,trigger", NULL);
  for (int i = 0; i < ORIGIN_MAX_; i++)
    x->fires[i] = metric_series(fires, group, run_origin_names[i], NULL);
  struct metric_family *skipped = metric_family("kelou_fires_skipped_total", "Instants not fired on purpose",
                                                METRIC_COUNTER, "group,reason", NULL);
  for (int i = 0; i < REASON_MAX_; i++)
    if (i == REASON_OVERLAP || i == REASON_MISFIRE || i == REASON_CALENDAR || i == REASON_LIMIT)
      x->skipped[i] = metric_series(skipped, group, run_reason_names[i], NULL);
  struct metric_family *missed =
      metric_family("kelou_fires_missed_total", "Instants not fired within their misfire threshold",
                    METRIC_COUNTER, "group,reason", NULL);
  for (int i = 0; i < MISSED_MAX_; i++)
    x->missed[i] = metric_series(missed, group, missed_names[i], NULL);
}

static void make_metrics(struct engine *g) {
  metric_groups_hook(make_series, g);
  g->lateness = metric_series(metric_family("kelou_fire_lateness_seconds", "From due to the fire's commit",
                                            METRIC_HISTOGRAM, "", LATENESS_BUCKETS),
                              NULL);
  g->refusals =
      metric_series(metric_family("kelou_fire_refusals_total",
                                  "Batches refused because tasks or owner changed", METRIC_COUNTER, "", NULL),
                    NULL);
  g->tasks_gauge =
      metric_series(metric_family("kelou_timer_entries", "Tasks that the trigger of this node holds",
                                  METRIC_GAUGE, "", NULL),
                    NULL);
  g->after_age = metric_series(
      metric_family("kelou_after_tasks_oldest_seconds",
                    "How long ago the oldest run ended of whose end after-tasks have not been told",
                    METRIC_GAUGE, "", NULL),
      NULL);
  g->inbox_events = metric_series(
      metric_family("kelou_inbox_events_total",
                    "Reports and cancels that came by the inbox and were carried out by this node",
                    METRIC_COUNTER, "", NULL),
      NULL);
  g->fire_errors =
      metric_series(metric_family("kelou_fire_errors_total", "FIREs whose outcome had to be read back",
                                  METRIC_COUNTER, "", NULL),
                    NULL);
}

int engine_new(const struct engine_options *o, struct engine **ret, struct err *e) {
  (void)e;
  struct engine *g = mem_zalloc(sizeof *g);
  g->o = *o;
  g->queue = queue_new(QUEUE_MAX);
  g->completed = queue_new(COMPLETED_MAX);
  g->hints = mem_array((size_t)o->shard_count, sizeof *g->hints);
  g->zones = o->zones;
  g->specs = spec_cache_new(g->zones, SPECS_MAX);
  g->shards = mem_array((size_t)o->shard_count, sizeof *g->shards);
  mutex_init(&g->after_lock);
  cond_init(&g->after_wake);
  mutex_init(&g->pause_lock);
  cond_init(&g->pause);
  make_metrics(g);
  *ret = g;
  return 0;
}

void engine_pause(struct engine *g, usec_t length) {
  usec_t until = clock_system.mono(&clock_system) + length;
  mutex_lock(&g->pause_lock);
  while (clock_system.mono(&clock_system) < until && !atomic_load(&g->stopping))
    (void)cond_wait(&g->pause, &g->pause_lock, until - clock_system.mono(&clock_system));
  mutex_unlock(&g->pause_lock);
}

/* ---------------------------------------------------------------- messages */

static void post(struct engine *g, struct engine_msg m) {
  struct engine_msg *copy = mem_alloc(sizeof *copy);
  *copy = m;
  bool full = m.kind == MSG_DELAY_ENDED && queue_size(g->queue) >= QUEUE_MAX - QUEUE_KEPT;
  if (full || queue_push(g->queue, copy) < 0) { /* the end is in the database: it is found there */
    if (m.shard >= 0 && m.shard < g->o.shard_count)
      atomic_store(&g->hints[m.shard].reload, true);
    mem_free(copy);
  }
}

void engine_own(struct engine *g, const struct shard_row *s) {
  post(g, (struct engine_msg){.kind = MSG_OWN, .shard = s->id, .epoch = s->epoch});
}

void engine_disown(struct engine *g, int32_t shard, int64_t epoch) {
  post(g, (struct engine_msg){.kind = MSG_DISOWN, .shard = shard, .epoch = epoch});
}

void engine_hand_over(struct engine *g, int32_t shard, int64_t epoch) {
  post(g, (struct engine_msg){.kind = MSG_HAND_OVER, .shard = shard, .epoch = epoch});
}

void engine_changed(struct engine *g, int32_t shard) {
  for (int32_t i = 0; i < g->o.shard_count; i++)
    if (shard < 0 || shard == i)
      atomic_store(&g->hints[i].changed, true);
  queue_wake(g->queue);
}

void engine_delay_ended(struct engine *g, const struct progress_row *p) {
  post(g, (struct engine_msg){
              .kind = MSG_DELAY_ENDED, .shard = p->shard, .task_id = p->task_id, .end = p->base_at});
}

static void own(struct engine *g, const struct engine_msg *m) {
  struct owned_shard *w = &g->shards[m->shard];
  engine_drop(g, w);
  w->shard = shard_new(m->shard, &g->o.limits);
  w->epoch = m->epoch;
  atomic_fetch_add(&g->owned, 1);
  (void)engine_load(g, w); /* tried again from the loop */
}

static void handle(struct engine *g, const struct engine_msg *m) {
  struct owned_shard *w = m->shard >= 0 && m->shard < g->o.shard_count ? &g->shards[m->shard] : NULL;
  switch (m->kind) {
  case MSG_OWN: own(g, m); break;
  case MSG_DISOWN:
    if (w && w->shard && w->epoch == m->epoch)
      engine_drop(g, w);
    break;
  case MSG_HAND_OVER: /* not before all that a FIRE has left open is read; the order comes again */
    if (w && w->loaded && w->epoch == m->epoch) {
      engine_let_go(g, w);
      run_hand_over(g->o.runs, m->shard, m->epoch);
    }
    break;
  case MSG_DELAY_ENDED:
    if (w && w->loaded) {
      shard_delay_ended(w->shard, m->task_id, m->end);
      engine_note_completed(g, w); /* nothing may be due in this shard for a long time */
    }
    break;
  }
}

/* ---------------------------------------------------------------- the loop */

static usec_t next_due(struct engine *g) {
  usec_t due = USEC_NEVER;
  for (int32_t i = 0; i < g->o.shard_count; i++) {
    struct owned_shard *w = &g->shards[i];
    if (!w->shard)
      continue;
    usec_t at = w->loaded ? shard_next_due(w->shard) : w->retry_at, mark;
    int64_t mark_task;
    shard_watermark(w->shard, &mark, &mark_task);
    if (w->loaded && w->request_count && mark < at)
      at = mark + 1; /* nothing is decided before: the clock may have been set back */
    at = at < w->pause_until ? w->pause_until : at;
    if (w->loaded && w->look)
      at = 0;
    due = at < due ? at : due;
  }
  return due;
}

static void load_again(struct engine *g, usec_t now) {
  for (int32_t i = 0; i < g->o.shard_count; i++)
    if (g->shards[i].shard && !g->shards[i].loaded &&
        (g->shards[i].retry_at <= now ||
         g->shards[i].retry_at > now + USEC_PER_SEC)) /* the clock was set back */
      (void)engine_load(g, &g->shards[i]);
}

static void take_hints(struct engine *g) {
  for (int32_t i = 0; i < g->o.shard_count; i++) {
    if (atomic_exchange(&g->hints[i].changed, false))
      g->shards[i].look = true;
    if (atomic_exchange(&g->hints[i].reload, false) && g->shards[i].shard)
      engine_reload(g, &g->shards[i]);
  }
}

/* New tzdata: all instants beyond the watermarks are computed anew; what was decided stays decided. */
static void look_at_zones(struct engine *g, usec_t now) {
  if (now >= g->zones_at && now - g->zones_at < g->o.zone_poll)
    return;
  g->zones_at = now;
  if (!zone_set_refresh(g->zones))
    return;
  log_info("time zone data changed, tasks are read anew");
  spec_cache_clear(g->specs);
  for (int32_t i = 0; i < g->o.shard_count; i++) {
    if (g->shards[i].loaded)
      engine_reload(g, &g->shards[i]);
  }
}

static void take_messages(struct engine *g, usec_t wait) {
  void *items[TAKE_MAX];
  int n = queue_take(g->queue, items, TAKE_MAX, wait);
  for (int i = 0; i < n; i++) {
    handle(g, items[i]);
    mem_free(items[i]);
  }
}

static void trigger_main(void *arg) {
  struct engine *g = arg;
  bool more = false;
  while (!atomic_load(&g->stopping)) {
    usec_t now = g->o.now(g->o.arg), due = next_due(g), wait = g->o.poll;
    if (due - now < wait)
      wait = due <= now ? 0 : due - now;
    take_messages(g, more ? 0 : wait);
    take_hints(g);
    now = g->o.now(g->o.arg);
    look_at_zones(g, now);
    load_again(g, now);
    if (!g->o.may_fire(g->o.arg)) { /* the lease is about to end: stand still until it is renewed */
      engine_pause(g, 10 * USEC_PER_MS);
      continue;
    }
    if (engine_look(g, now) < 0) {
      engine_pause(g, 100 * USEC_PER_MS);
      continue;
    }
    more = engine_fire(g, g->o.now(g->o.arg));
    metric_set(g->tasks_gauge, (double)atomic_load(&g->tasks));
  }
}

static void listen_main(void *arg) {
  struct engine *g = arg;
  auto_arena mem = {0};
  while (!atomic_load(&g->stopping)) {
    struct err e = {0};
    struct st_wait_change_ret ret;
    int rc = store_wait_change(g->o.listen, &(struct st_wait_change){USEC_PER_SEC}, &ret, &mem, &e);
    if (rc < 0)
      engine_pause(g, 500 * USEC_PER_MS); /* the poll sees the changes meanwhile */
    for (size_t i = 0; rc >= 0 && i < ret.count; i++)
      engine_changed(g, ret.shards[i]);
    if (rc >= 0 && ret.nodes && g->o.nodes_changed)
      g->o.nodes_changed(g->o.arg);
    arena_clear(&mem);
  }
}

/* ENABLED → COMPLETED is written behind: it stops nothing and starts nothing. */
static void completer_main(void *arg) {
  struct engine *g = arg;
  auto_arena mem = {0};
  for (;;) {
    void *item;
    int n = queue_take(g->completed, &item, 1, USEC_NEVER);
    if (n < 0)
      return;
    if (n == 0)
      continue;
    struct completed_block *c = item;
    struct err e = {0};
    struct st_task_complete_ret ret;
    if (store_task_complete(g->o.api, &(struct st_task_complete){c->ids, c->versions, c->count}, &ret, &mem,
                            &e) < 0)
      log_warn("tasks not marked COMPLETED, the next load will", LF_I("tasks", c->count), LF_E(&e));
    mem_free(c);
    arena_clear(&mem);
  }
}

int engine_start(struct engine *g, struct err *e) {
  int rc = thread_start(&g->completer, "completer", completer_main, g, e);
  if (rc >= 0 && g->o.listen)
    rc = thread_start(&g->listener, "listener", listen_main, g, e);
  if (rc >= 0)
    rc = thread_start(&g->thread, "trigger", trigger_main, g, e);
  if (rc >= 0)
    rc = thread_start(&g->after, "after", engine_after_main, g, e);
  return rc;
}

void engine_stop(struct engine *g) {
  atomic_store(&g->stopping, true);
  queue_wake(g->queue);
  mutex_lock(&g->pause_lock);
  cond_broadcast(&g->pause);
  mutex_unlock(&g->pause_lock);
  if (g->thread.running)
    thread_join(&g->thread);
  if (g->listener.running)
    thread_join(&g->listener);
  engine_parents_ended(g);
  if (g->after.running)
    thread_join(&g->after);
  queue_close(g->completed);
  if (g->completer.running)
    thread_join(&g->completer);
}

void engine_free(struct engine **p) {
  struct engine *g = *p;
  if (!g)
    return;
  metric_groups_unhook(g);
  for (int i = 0; i <= METRIC_GROUPS_MAX; i++)
    mem_free(g->series[i]);
  void *item;
  while (queue_take(g->queue, &item, 1, 0) > 0)
    mem_free(item);
  while (queue_take(g->completed, &item, 1, 0) > 0)
    mem_free(item);
  for (int32_t i = 0; i < g->o.shard_count; i++)
    engine_drop(g, &g->shards[i]);
  queue_free(&g->queue);
  queue_free(&g->completed);
  mem_free(g->hints);
  spec_cache_free(&g->specs);
  zone_set_free(&g->zones);
  store_close(&g->o.fire);
  store_close(&g->o.listen);
  mem_free(g->shards);
  mem_free(g->rows);
  mem_free(g->ended);
  mem_free(g->row_items);
  arena_done(&g->mem);
  mutex_done(&g->after_lock);
  cond_done(&g->after_wake);
  mutex_done(&g->pause_lock);
  cond_done(&g->pause);
  mem_free(g);
  *p = NULL;
}

bool engine_failing(const struct engine *g) {
  usec_t since = atomic_load(&g->failing_since);
  return since && clock_system.mono(&clock_system) - since > FAILING_AFTER;
}

bool engine_ready(struct engine *g) {
  size_t owned = atomic_load(&g->owned);
  return atomic_load(&g->loaded) == owned;
}
