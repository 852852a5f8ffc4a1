#include "core/shard_collect.h"
#include "base/mem.h"
#include "core/misfire.h"
#include "core/schedule.h"

/* One batch: what is due, in the order (due, task id), and what becomes of it. */

struct fire_item *collect_add(struct collect *c, const struct sched_task *t, const struct sched_version *v,
                              usec_t nominal) {
  struct fire_batch *b = c->b;
  mem_reserve(b->items, b->count, b->cap);
  struct fire_item *i = &b->items[b->count++];
  *i = (struct fire_item){.key = {c->s->id, nominal, t->id, 0},
                          .version = v->version,
                          .spec = v->spec,
                          .origin = ORIGIN_SCHEDULE,
                          .due = nominal};
  return i;
}

void collect_touch(struct collect *c, struct sched_task *t) {
  if (t->touched)
    return;
  t->touched = true;
  mem_reserve(c->s->touched, c->s->touched_count, c->s->touched_cap);
  c->s->touched[c->s->touched_count++] = t;
}

bool collect_place(struct collect *c, struct fire_item *i, enum overlap_policy policy) {
  struct overlap_ask ask = {.task_id = i->key.task_id,
                            .spec = i->spec,
                            .policy = policy,
                            .caught_up = i->origin == ORIGIN_CATCHUP,
                            .now = c->now};
  i->state = RUN_PENDING;
  switch (c->overlap->decide(c->overlap->arg, &ask)) {
  case OVERLAP_DO_START:
    i->reason = REASON_DISPATCHING;
    i->attempt = 1;
    break;
  case OVERLAP_DO_QUEUE: i->reason = REASON_QUEUED; break;
  case OVERLAP_DO_SKIP:
    i->state = RUN_SKIPPED;
    i->reason = REASON_OVERLAP;
    return false;
  }
  return true;
}

/* Record an instant in the batch's SKIPPED row of those before it that have the same reason and version of the task. */
static void fold(struct collect *c, struct sched_task *t, const struct sched_version *v, usec_t nominal,
                 enum run_reason reason) {
  struct sched_extra *x = sched_extra(t);
  struct fire_item *i = x->fold_row ? &c->b->items[x->fold_row - 1] : NULL;
  if (!i || i->version != v->version || i->reason != reason) {
    i = collect_add(c, t, v, nominal);
    i->state = RUN_SKIPPED;
    i->reason = reason;
    i->missed_first = nominal;
    x->fold_row = c->b->count;
  }
  i->key.scheduled_at = i->due = nominal;
  i->version = v->version;
  i->spec = v->spec;
  i->missed_count++;
}

/* FIRE_ONCE: the run that stands for the range; it takes the place of the batch's fold of this task. */
static bool make_up(struct collect *c, struct sched_task *t, const struct sched_version *v, usec_t nominal) {
  fold(c, t, v, nominal, REASON_MISFIRE);
  struct fire_item *i = &c->b->items[t->x->fold_row - 1];
  t->x->fold_row = 0;
  i->origin = ORIGIN_CATCHUP;
  return collect_place(c, i, v->spec->overlap_policy);
}

void collect_caught_up(struct collect *c, struct sched_task *t, const struct sched_version *v,
                       usec_t nominal) {
  struct sched_extra *x = sched_extra(t);
  struct fire_item *i = collect_add(c, t, v, nominal);
  i->origin = ORIGIN_CATCHUP;
  i->state = RUN_PENDING;
  i->reason = REASON_SCHEDULED;
  i->not_before = x->release_at > c->now ? x->release_at : c->now;
  x->fold_row = 0; /* a range has no instants in it that have rows of their own */
  x->release_at = i->not_before + (usec_t)((double)USEC_PER_SEC / v->spec->catchup_rate);
  x->caught_up++;
}

struct instant {
  usec_t nominal, due;
  usec_t next_due; /* of the task's next one */
};

/* From when on it counts as late: a FIXED_DELAY from its nominal instant on; a ONE_TIME that had passed when its task was made has been missed. */
static usec_t late_since(const struct sched_task *t, const struct sched_version *v, const struct instant *a) {
  if (v->spec->kind == SCHEDULE_FIXED_DELAY)
    return a->nominal;
  if (v->version == 1 && a->nominal <= v->effective_at)
    return a->nominal + schedule_jitter(v->spec->schedule, t->id, a->nominal);
  return a->due;
}

/* True: it counts as fired. */
static bool decide(struct collect *c, struct sched_task *t, const struct sched_version *v,
                   const struct instant *a) {
  const struct task_spec *spec = v->spec;
  usec_t nominal = a->nominal, due = late_since(t, v, a);
  if (schedule_excluded(spec->schedule, nominal)) {
    fold(c, t, v, nominal, REASON_CALENDAR);
    return false;
  }
  switch (misfire_decide(spec, due, a->next_due, c->now, t->x ? t->x->caught_up : 0)) {
  case MISFIRE_DO_FOLD: fold(c, t, v, nominal, REASON_MISFIRE); return false;
  case MISFIRE_DO_MAKE_UP: return make_up(c, t, v, nominal);
  case MISFIRE_DO_CATCH_UP: collect_caught_up(c, t, v, nominal); return true;
  case MISFIRE_DO_FIRE: break;
  }
  if (t->x) {
    t->x->caught_up = 0;
    t->x->fold_row = 0; /* it stands between the missed ones before and after it */
  }
  struct fire_item *i = collect_add(c, t, v, nominal);
  i->due = due;
  return collect_place(c, i, spec->overlap_policy);
}

/* The task's one row in this batch. */
static void put_progress(struct collect *c, struct sched_extra *x, const struct fire_progress *p) {
  struct fire_batch *b = c->b;
  if (!x->progress_row) {
    mem_reserve(b->progress, b->progress_count, b->progress_cap);
    b->progress[b->progress_count++] = *p;
    x->progress_row = b->progress_count;
    return;
  }
  struct fire_progress *row = &b->progress[x->progress_row - 1];
  row->fired = p->fired >= 0 ? p->fired : row->fired;
  row->base_at = p->base_at >= 0 ? p->base_at : row->base_at;
}

void collect_progress(struct collect *c, struct sched_task *t, const struct sched_version *v, bool skipped) {
  bool delay = v->spec->kind == SCHEDULE_FIXED_DELAY;
  if (!delay && !v->spec->max_runs)
    return;
  struct sched_extra *x = sched_extra(t);
  struct fire_progress p = {.task_id = t->id, .base_at = -1, .fired = -1};
  if (delay && skipped)
    p.base_at = x->base_pending = c->now; /* a skipped one counts as ended then */
  if (delay && !skipped)
    x->open_pending = true;
  if (v->spec->max_runs && !skipped)
    p.fired = ++x->fired_pending;
  if (p.base_at >= 0 || p.fired >= 0)
    put_progress(c, x, &p);
}

/* When the next instant of the same version is due that its calendar lets run: one that is excluded makes nothing up. */
static usec_t next_included(const struct sched_task *t, const struct sched_version *v) {
  if (t->cur != v || t->due == USEC_NEVER || !schedule_excluded(v->spec->schedule, t->nominal))
    return t->cur == v ? t->due : USEC_NEVER; /* each version sees to its own */
  const struct schedule *s = v->spec->schedule;
  usec_t nominal = schedule_next_included(s, v->anchor, t->nominal);
  usec_t due = nominal == USEC_NEVER ? USEC_NEVER : sched_due(t, v, nominal);
  return v->next && due > v->next->effective_at ? USEC_NEVER : due;
}

/* Decide the armed instant of a task and arm its next one. */
static void take_instant(struct collect *c, struct sched_task *t) {
  struct sched_version *v = t->cur;
  struct instant a = {.nominal = t->nominal, .due = t->due};
  collect_touch(c, t);
  bool delay = v->spec->kind == SCHEDULE_FIXED_DELAY;
  t->due = USEC_NEVER;
  if (!delay)
    sched_next(t, a.due, t->id, false);
  a.next_due = next_included(t, v);
  bool fired = decide(c, t, v, &a);
  collect_progress(c, t, v, !fired);
  if (delay ||
      v->spec
          ->max_runs) /* its next instant waits for this run's end, or there is none: the next version's turn */
    sched_next(t, a.due, t->id, false);
  c->b->work++;
  sched_queue(c->s, t);
}

/* ---------------------------------------------------------------- requests */

static void take_trigger(struct collect *c, const struct fire_request *r, struct sched_task *t) {
  struct sched_version none = {0}, *v = &none;
  if (t)
    for (v = &t->first; v->next; v = v->next)
      continue;
  if (r->origin == ORIGIN_DEPENDENCY && (!v->spec || v->state != TASK_ENABLED))
    return; /* as an instant of its schedule would be: not due. Nobody was told of the run */
  struct sched_task unknown = {.id = r->key.task_id};
  struct fire_item *i = collect_add(c, t ? t : &unknown, v, r->key.scheduled_at);
  i->key = r->key;
  i->origin = r->origin;
  i->request = r;
  if (v->spec && v->state != TASK_DELETED && r->not_before) {
    i->state = RUN_PENDING;
    i->reason = REASON_SCHEDULED;
    i->not_before = r->not_before;
  } else if (v->spec && v->state != TASK_DELETED) {
    (void)collect_place(c, i, r->ignore_overlap ? OVERLAP_ALLOW : v->spec->overlap_policy);
  } else { /* deleted after it was asked for: the promised run id says so */
    i->spec = NULL;
    i->state = RUN_CANCELLED;
  }
}

static void take_requests(struct collect *c, const struct fire_request *requests, size_t n) {
  struct fire_batch *b = c->b;
  for (size_t i = 0; i < n && b->count < c->s->limits.max_rows / 2; i++) {
    const struct fire_request *r = &requests[i];
    struct sched_task *t = sched_find(c->s, r->key.task_id);
    if (r->limit)
      collect_backfill(c, r, t);
    else if (!r->catch_up)
      take_trigger(c, r, t);
    else if (!collect_catch_up(c, r, t))
      continue;
    mem_reserve(b->inbox_done, b->inbox_count, b->inbox_cap);
    b->inbox_done[b->inbox_count++] = r->inbox_no;
  }
}

/* ---------------------------------------------------------------- the batch */

bool shard_collect(struct shard *s, usec_t now, const struct shard_overlap *overlap,
                   const struct fire_request *requests, size_t request_count, struct fire_batch *ret) {
  struct collect c = {.s = s, .now = now, .overlap = overlap, .b = ret};
  ret->count = ret->progress_count = ret->inbox_count = ret->work = 0;
  ret->shard = s->id;
  ret->epoch = s->epoch;
  ret->tasks_version = s->tasks_version;
  ret->seen_at = ret->new_at = s->at;
  ret->seen_task = ret->new_task = s->at_task;
  if (now <= s->at) /* every batch moves the watermark: so its fate can always be read back */
    return false;
  take_requests(&c, requests, request_count);

  struct calq_entry e;
  bool cut = false, moved = false;
  while (calq_peek(s->queue, &e) && e.due <= now) {
    if (sched_pop_stale(s, &e))
      continue;
    cut = moved && (ret->count >= s->limits.max_rows || ret->work >= s->limits.max_work);
    if (cut)
      break;
    calq_pop(s->queue);
    struct sched_task *t = e.item;
    t->queued--;
    ret->new_at = e.due;
    ret->new_task = e.id;
    moved = true;
    take_instant(&c, t);
  }
  ret->work += c.walked;
  if (!cut) { /* everything up to now has been decided */
    ret->new_at = now;
    ret->new_task = INT64_MAX;
  }
  return ret->count || ret->inbox_count || ret->progress_count || now - s->at >= s->limits.idle_advance;
}

void shard_fired(struct shard *s, const struct fire_batch *b) {
  s->at = b->new_at;
  s->at_task = b->new_task;
  for (size_t i = 0; i < s->touched_count; i++) {
    struct sched_task *t = s->touched[i];
    struct sched_extra *x = t->x;
    t->touched = false;
    if (x) {
      if (x->progress_row && b->progress[x->progress_row - 1].base_at >= 0)
        x->base_at = b->progress[x->progress_row - 1].base_at;
      x->fired = x->fired_pending;
      x->open = x->open || x->open_pending;
      x->open_pending = false;
      x->base_pending = 0;
      x->caught_up_kept = x->caught_up;
      x->release_at_kept = x->release_at;
      x->fold_row = x->progress_row = 0;
      sched_walk_settle(x, true);
      sched_arm(s, t, true);
    }
    if (!t->first.next) /* else when its next version's time has come */
      sched_note_complete(s, t);
  }
  s->touched_count = 0;
  sched_settle_versions(s);
}

void shard_refused(struct shard *s, const struct fire_batch *b) {
  (void)b; /* nothing of it is kept: the same instants are computed again from the watermark */
  for (size_t i = 0; i < s->touched_count; i++) {
    struct sched_task *t = s->touched[i];
    struct sched_extra *x = t->x;
    t->touched = false;
    if (x) {
      x->fired_pending = x->fired;
      x->open_pending = false;
      x->base_pending = 0;
      x->caught_up = x->caught_up_kept;
      x->release_at = x->release_at_kept;
      x->fold_row = x->progress_row = 0;
      sched_walk_settle(x, false);
    }
    sched_next(t, s->at, s->at_task, true);
    sched_queue(s, t);
  }
  s->touched_count = 0;
}

void fire_batch_done(struct fire_batch *b) {
  mem_free(b->items);
  mem_free(b->progress);
  mem_free(b->inbox_done);
  *b = (struct fire_batch){0};
}
