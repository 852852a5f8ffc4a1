#include "core/shard_collect.h"
#include "base/mem.h"
#include "core/schedule.h"

/* A catch-up on request: the instants of the version that the resume made, of the time of the pause. There may be millions of them: they
 * are walked through in slices, a slice with each batch, and only when all have been seen do their rows follow, in slices again. The end of
 * the request comes with the last of them: after a crash all begins anew and comes to the same, and rows that are there already are
 * left as they are. (Not with max_runs: it counts rows, so they go into one batch.) */

struct fold {
  usec_t first, last;
  int64_t count;
};
struct sched_walk {
  int64_t inbox_no;
  struct sched_version
      v; /* kept when the task has forgotten it; holds a reference to its spec, NULL: nothing is to be caught up */
  usec_t from, to;       /* the instants in (from, to], and one before that may have waited */
  usec_t at;             /* the one to be looked at next */
  usec_t *runs;          /* FIRE_ALL: those that get a run of their own */
  size_t run_count, cap; /* of them */
  size_t put, put_kept;  /* so many of them have their rows; as committed */
  bool last;             /* the last rows are in the unsettled batch */
  struct fold rest;      /* the others, in one row */
  struct fold excluded;  /* those on excluded days of the calendar, in another */
};

void sched_walk_free(struct sched_walk **w) {
  if (*w) {
    task_spec_unref(&(*w)->v.spec);
    mem_free((*w)->runs);
  }
  mem_free(*w);
  *w = NULL;
}

void sched_walk_settle(struct sched_extra *x, bool fired) {
  struct sched_walk *w = x->walk;
  if (!w)
    return;
  if (fired && w->last) {
    sched_walk_free(&x->walk);
    return;
  }
  w->last = false;
  if (fired)
    w->put_kept = w->put;
  else
    w->put = w->put_kept;
}

/* ---------------------------------------------------------------- the range */

/* How far a resumer's idea of the database's clock may be behind the commit of the resume. */
static const usec_t RESUME_SLACK = 10 * USEC_PER_SEC;

/* The version that the resume made; when the request does not name it: the first one after the pause that is ENABLED. NULL: it is
 * forgotten, another one rules by now. */
static const struct sched_version *resumed_by(const struct fire_request *r, const struct sched_task *t) {
  for (const struct sched_version *v = &t->first; v; v = v->next) {
    if (r->version && v->version == r->version)
      return v;
    if (!r->version && v->state == TASK_ENABLED && v->effective_at > r->from)
      return v->effective_at <= r->to + RESUME_SLACK ? v : NULL;
  }
  return NULL;
}

static usec_t after(const struct sched_walk *w, usec_t at) {
  const struct schedule *s = w->v.spec->schedule;
  usec_t next = schedule_next(s, w->v.anchor, at);
  return next == w->v.waiting ? schedule_next(s, w->v.anchor, next) : next; /* that one it fires itself */
}

/* `waited`: what had come, but was not due, when the pause began. */
static void set_range(struct sched_walk *w, const struct fire_request *r, const struct sched_task *t,
                      usec_t waited) {
  const struct sched_version *resumed = resumed_by(r, t), *v = resumed ? resumed : sched_last(t);
  const struct task_spec *spec = v->spec;
  if (!spec || spec->kind == SCHEDULE_FIXED_DELAY || spec->kind == SCHEDULE_MANUAL)
    return;
  w->v = *v;
  w->v.next = NULL;
  (void)task_spec_ref(w->v.spec);
  /* what is later than its beginning is the resumed version's own; r->to is what the resumer thought of that instant */
  w->to = resumed ? resumed->effective_at : r->to;
  usec_t oldest = w->to - spec->catchup_window;
  w->from = r->from > oldest ? r->from : oldest;
  w->at = after(w, w->from);
  if (waited > oldest && waited != w->v.waiting && schedule_has(spec->schedule, v->anchor, waited))
    w->at = waited;
}

static void begin(struct sched_task *t, const struct fire_request *r, usec_t waited) {
  struct sched_extra *x = sched_extra(t);
  if (x->walk) /* its own, or an earlier one that comes first */
    return;
  x->walk = mem_zalloc(sizeof *x->walk);
  x->walk->inbox_no = r->inbox_no;
  x->walk->at = USEC_NEVER;
  set_range(x->walk, r, t, waited);
}

void shard_begin_catch_up(struct shard *s, const struct fire_request *r, int32_t paused) {
  struct sched_task *t = sched_find(s, r->key.task_id);
  usec_t waited = USEC_NONE;
  for (const struct sched_version *v = t ? &t->first : NULL; v; v = v->next)
    if (v->version == paused)
      waited = v->waiting;
  if (t)
    begin(t, r, waited);
}

/* ---------------------------------------------------------------- the walk */

/* `count` instants from `first` on, the last one of them at `last`, that get no run of their own. */
static void fold_in(struct fold *f, usec_t first, usec_t last, int64_t count) {
  if (!f->count)
    f->first = first;
  f->last = last;
  f->count += count;
}

static void take_one(struct sched_walk *w, const struct task_spec *spec) {
  if (schedule_excluded(spec->schedule, w->at)) {
    fold_in(&w->excluded, w->at, w->at, 1);
    return;
  }
  if (spec->misfire_policy == MISFIRE_FIRE_ALL && (int64_t)w->run_count < spec->catchup_max_runs) {
    mem_reserve(w->runs, w->run_count, w->cap);
    w->runs[w->run_count++] = w->at;
    return;
  }
  fold_in(&w->rest, w->at, w->at, 1);
}

/* FIXED_RATE: all but the last ones are counted, not looked at. */
static bool leap(struct sched_walk *w) {
  const struct task_spec *spec = w->v.spec;
  bool all = spec->misfire_policy == MISFIRE_FIRE_ALL && (int64_t)w->run_count < spec->catchup_max_runs;
  if (spec->kind != SCHEDULE_FIXED_RATE || all || spec->calendar || w->at <= w->from)
    return false;
  usec_t sure = w->to - spec->every; /* before the one that may be waiting */
  sure = spec->end_at && spec->end_at < sure ? spec->end_at : sure;
  int64_t count = sure > w->at ? (sure - w->at) / spec->every : 0;
  if (!count)
    return false;
  fold_in(&w->rest, w->at, w->at + (count - 1) * spec->every, count);
  w->at += count * spec->every;
  return true;
}

/* A slice of the walk, true: it is over. */
static bool walk(struct collect *c, struct sched_walk *w) {
  size_t most = c->s->limits.max_work / 2 + 1;
  while (w->at <= w->to) {
    if (c->walked >= most)
      return false;
    c->walked++;
    if (leap(w))
      continue;
    take_one(w, w->v.spec);
    w->at = after(w, w->at > w->from ? w->at : w->from);
  }
  return true;
}

/* ---------------------------------------------------------------- its rows */

static struct fire_item *add_fold(struct collect *c, struct sched_task *t, const struct sched_version *v,
                                  const struct fold *f, enum run_reason reason) {
  struct fire_item *i = collect_add(c, t, v, f->last);
  i->state = RUN_SKIPPED;
  i->reason = reason;
  i->missed_first = f->first;
  i->missed_count = f->count;
  return i;
}

/* The instants that got no run of their own: SKIPPED, or with FIRE_ONCE the run that stands for all of them. */
static void add_rest(struct collect *c, const struct sched_walk *w, struct sched_task *t,
                     const struct sched_version *v) {
  struct fire_item *i = add_fold(c, t, v, &w->rest, REASON_MISFIRE);
  if (v->spec->misfire_policy != MISFIRE_FIRE_ONCE)
    return;
  i->origin = ORIGIN_CATCHUP;
  bool fired = collect_place(c, i, v->spec->overlap_policy);
  collect_progress(c, t, v, !fired);
}

/* A slice of the rows, true: these are the last ones. */
static bool add_rows(struct collect *c, struct sched_walk *w, struct sched_task *t) {
  const struct sched_version *v = &w->v;
  size_t room = c->s->limits.max_rows / 2;
  if (w->put == 0)
    t->x->caught_up = 0;
  for (; w->put < w->run_count && !sched_used_up(t, v); w->put++) {
    if (c->b->count >= room && !v->spec->max_runs)
      return false;
    collect_caught_up(c, t, v, w->runs[w->put]);
    collect_progress(c, t, v, false);
  }
  if (w->excluded.count)
    (void)add_fold(c, t, v, &w->excluded, REASON_CALENDAR);
  if (w->rest.count && !sched_used_up(t, v)) /* with max_runs reached nothing is due any more */
    add_rest(c, w, t, v);
  t->x->fold_row = 0; /* what the batch itself missed is a range of its own */
  return true;
}

bool collect_catch_up(struct collect *c, const struct fire_request *r, struct sched_task *t) {
  if (!r->to || !t)
    return true; /* nothing is asked for (any more): only the inbox row goes */
  begin(t, r, USEC_NONE);
  struct sched_walk *w = t->x->walk;
  if (w->inbox_no != r->inbox_no)
    return false;
  if (!w->v.spec || sched_used_up(t, &w->v)) { /* nor is anything due */
    sched_walk_free(&t->x->walk);
    return true;
  }
  if (!walk(c, w))
    return false;
  collect_touch(c, t);
  size_t before = c->b->count;
  w->last = add_rows(c, w, t);
  for (size_t i = before; i < c->b->count; i++)
    c->b->items[i].on_request = true;
  if (w->last && w->v.spec->max_runs)
    sched_arm(c->s, t, true); /* it may have had its last run with these */
  return w->last;
}
