#include "core/misfire.h"
#include "core/schedule.h"
#include "core/shard_task.h"
#include "base/mem.h"

/* One batch: what is due, in the order (due, task id), and what becomes of it. */

struct collect { /* what the steps of one shard_collect share */
  struct shard *s;
  usec_t now;
  const struct shard_overlap *overlap;
  struct fire_batch *b;
};

static struct fire_item *add_item(struct collect *c, struct sched_task *t, const struct sched_version *v,
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

static void touch(struct collect *c, struct sched_task *t) {
  if (t->touched)
    return;
  t->touched = true;
  mem_reserve(c->s->touched, c->s->touched_count, c->s->touched_cap);
  c->s->touched[c->s->touched_count++] = t;
}

/* Start, queue or skip (false) a run that is due, by the task's overlap policy. */
static bool place(struct collect *c, struct fire_item *i, enum overlap_policy policy) {
  bool caught_up = i->origin == ORIGIN_CATCHUP;
  i->state = RUN_PENDING;
  switch (c->overlap->decide(c->overlap->arg, i->key.task_id, policy, caught_up)) {
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

/* Record a missed instant in the batch's one SKIPPED row of this version of the task. */
static void fold(struct collect *c, struct sched_task *t, const struct sched_version *v, usec_t nominal) {
  struct sched_extra *x = sched_extra(t);
  struct fire_item *i = x->fold_row ? &c->b->items[x->fold_row - 1] : NULL;
  if (!i || i->version != v->version) {
    i = add_item(c, t, v, nominal);
    i->state = RUN_SKIPPED;
    i->reason = REASON_MISFIRE;
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
  fold(c, t, v, nominal);
  struct fire_item *i = &c->b->items[t->x->fold_row - 1];
  t->x->fold_row = 0;
  i->origin = ORIGIN_CATCHUP;
  return place(c, i, v->spec->overlap_policy);
}

/* FIRE_ALL: a run of its own that waits for its release. */
static void catch_up(struct collect *c, struct sched_task *t, const struct sched_version *v, usec_t nominal) {
  struct sched_extra *x = sched_extra(t);
  struct fire_item *i = add_item(c, t, v, nominal);
  i->origin = ORIGIN_CATCHUP;
  i->state = RUN_PENDING;
  i->reason = REASON_SCHEDULED;
  i->not_before = x->release_at > c->now ? x->release_at : c->now;
  x->fold_row = 0; /* a range has no instants in it that have rows of their own */
  x->release_at = i->not_before + (usec_t)((double)USEC_PER_SEC / v->spec->catchup_rate);
  x->caught_up++;
}

/* True: it counts as fired. */
static bool decide(struct collect *c, struct sched_task *t, const struct sched_version *v, usec_t nominal,
                   usec_t next_due) {
  const struct task_spec *spec = v->spec;
  usec_t due =
      nominal + (spec->kind == SCHEDULE_FIXED_DELAY ? 0 : schedule_jitter(spec->schedule, t->id, nominal));
  switch (misfire_decide(spec, due, next_due, c->now, t->x ? t->x->caught_up : 0)) {
  case MISFIRE_DO_FOLD: fold(c, t, v, nominal); return false;
  case MISFIRE_DO_MAKE_UP: return make_up(c, t, v, nominal);
  case MISFIRE_DO_CATCH_UP: catch_up(c, t, v, nominal); return true;
  case MISFIRE_DO_FIRE: break;
  }
  if (t->x) {
    t->x->caught_up = 0;
    t->x->fold_row = 0; /* it stands between the missed ones before and after it */
  }
  struct fire_item *i = add_item(c, t, v, nominal);
  i->due = due;
  return place(c, i, spec->overlap_policy);
}

/* FIXED_DELAY and max_runs keep a row: what this batch adds to it. */
static void keep_progress(struct collect *c, struct sched_task *t, const struct sched_version *v,
                          bool skipped) {
  const struct task_spec *spec = v->spec;
  if (spec->kind != SCHEDULE_FIXED_DELAY && !spec->max_runs)
    return;
  struct sched_extra *x = sched_extra(t);
  struct fire_progress p = {.task_id = t->id, .base_at = -1, .fired = -1};
  if (spec->kind == SCHEDULE_FIXED_DELAY && skipped)
    p.base_at = x->base_pending = c->now; /* a skipped one counts as ended then */
  if (spec->max_runs && !skipped)
    p.fired = ++x->fired_pending;
  if (spec->kind == SCHEDULE_FIXED_DELAY && !skipped)
    x->open_pending = true;
  if (p.base_at < 0 && p.fired < 0)
    return;
  struct fire_batch *b = c->b;
  if (!x->progress_row) { /* one row a task and batch */
    mem_reserve(b->progress, b->progress_count, b->progress_cap);
    b->progress[b->progress_count++] = p;
    x->progress_row = b->progress_count;
    return;
  }
  struct fire_progress *row = &b->progress[x->progress_row - 1];
  row->fired = p.fired >= 0 ? p.fired : row->fired;
  row->base_at = p.base_at >= 0 ? p.base_at : row->base_at;
}

/* Decide the armed instant of a task and arm its next one. */
static void take_instant(struct collect *c, struct sched_task *t) {
  struct sched_version *v = t->cur;
  usec_t nominal = t->nominal, due = t->due;
  touch(c, t);
  bool delay = v->spec->kind == SCHEDULE_FIXED_DELAY;
  t->due = USEC_NEVER;
  if (!delay)
    sched_next(t, due, t->id, false);
  bool fired = decide(c, t, v, nominal, t->cur == v ? t->due : USEC_NEVER); /* each version sees to its own */
  keep_progress(c, t, v, !fired);
  if (delay ||
      v->spec
          ->max_runs) /* its next instant waits for this run's end, or there is none: the next version's turn */
    sched_next(t, due, t->id, false);
  c->b->work++;
  sched_queue(c->s, t);
}

/* ---------------------------------------------------------------- requests */

/* How far a resumer's idea of the database's clock may be behind the commit of the resume. */
static const usec_t RESUME_SLACK = 10 * USEC_PER_SEC;

static void take_trigger(struct collect *c, const struct fire_request *r, struct sched_task *t) {
  struct sched_version none = {0}, *v = &none;
  if (t)
    for (v = &t->first; v->next; v = v->next)
      continue;
  struct sched_task unknown = {.id = r->key.task_id};
  struct fire_item *i = add_item(c, t ? t : &unknown, v, r->key.scheduled_at);
  i->key = r->key;
  i->origin = r->origin;
  i->request = r;
  if (v->spec && v->state != TASK_DELETED) {
    (void)place(c, i, r->ignore_overlap ? OVERLAP_ALLOW : v->spec->overlap_policy);
  } else { /* deleted after it was asked for: the promised run id says so */
    i->spec = NULL;
    i->state = RUN_CANCELLED;
  }
}

/* The version that the resume made: the first one after the pause that is ENABLED. NULL: it is forgotten, another one rules by now. */
static const struct sched_version *resumed_by(const struct fire_request *r, const struct sched_task *t) {
  for (const struct sched_version *v = &t->first; v; v = v->next)
    if (v->state == TASK_ENABLED && v->effective_at > r->from)
      return v->effective_at <= r->to + RESUME_SLACK ? v : NULL;
  return NULL;
}

/* The first instant from `nominal` on that is due later than `lo`. */
static usec_t first_due_after(const struct sched_task *t, const struct sched_version *v, usec_t nominal,
                              usec_t lo) {
  const struct schedule *s = v->spec->schedule;
  while (nominal != USEC_NEVER && nominal + schedule_jitter(s, t->id, nominal) <= lo)
    nominal = schedule_next(s, v->anchor, nominal);
  return nominal;
}

static usec_t due_of(const struct sched_task *t, const struct sched_version *v, usec_t nominal) {
  return nominal == USEC_NEVER ? USEC_NEVER : nominal + schedule_jitter(v->spec->schedule, t->id, nominal);
}

/* The instants that were due while the task was paused, at most its catch-up window of them. */
static void take_catch_up(struct collect *c, const struct fire_request *r, struct sched_task *t) {
  if (!r->to || !t) /* nothing is asked for any more: only the inbox row goes */
    return;
  const struct sched_version *resumed = resumed_by(r, t), *v = resumed ? resumed : &t->first;
  while (!resumed && v->next)
    v = v->next;
  const struct task_spec *spec = v->spec;
  if (!spec || spec->kind == SCHEDULE_FIXED_DELAY || spec->kind == SCHEDULE_MANUAL)
    return;
  touch(c, t);
  struct sched_extra *x = sched_extra(t);
  x->caught_up = 0;
  usec_t to = resumed
                  ? resumed->effective_at
                  : r->to; /* it owns what is due later; `to` is what the resumer thought of that instant */
  usec_t from = r->from > to - spec->catchup_window ? r->from : to - spec->catchup_window;
  usec_t at = schedule_next(spec->schedule, v->anchor, from - schedule_jitter_max(spec->schedule));
  for (at = first_due_after(t, v, at, from); due_of(t, v, at) <= to;) {
    usec_t next = schedule_next(spec->schedule, v->anchor, at);
    bool all = spec->misfire_policy == MISFIRE_FIRE_ALL && x->caught_up < spec->catchup_max_runs;
    if (all)
      catch_up(c, t, v, at);
    else if (spec->misfire_policy == MISFIRE_FIRE_ONCE && due_of(t, v, next) > to)
      (void)make_up(c, t, v, at);
    else
      fold(c, t, v, at);
    c->b->work++;
    at = next;
  }
  x->fold_row = 0; /* what the batch itself missed is a range of its own */
}

static void take_requests(struct collect *c, const struct fire_request *requests, size_t n) {
  struct fire_batch *b = c->b;
  for (size_t i = 0; i < n && b->count < c->s->limits.max_rows / 2; i++) {
    const struct fire_request *r = &requests[i];
    struct sched_task *t = sched_find(c->s, r->key.task_id);
    if (r->catch_up)
      take_catch_up(c, r, t);
    else
      take_trigger(c, r, t);
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
