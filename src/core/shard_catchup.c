#include "core/shard_collect.h"
#include "base/mem.h"
#include "core/schedule.h"

/* A catch-up on request. Its range may hold millions of instants: they are walked through in slices, a slice with each batch, and only when
 * all have been seen do the rows go into one batch, together with the end of the request. Nothing is written before: after a crash, or
 * with another version, the walk begins anew. */

struct fold {
  usec_t first, last;
  int64_t count;
};
struct sched_walk {
  int64_t inbox_no;
  int32_t version;
  uint64_t turn;         /* the batch in which it was looked at last */
  bool taken;            /* its rows are in the unsettled batch */
  usec_t at;             /* the instant to be looked at next */
  usec_t *runs;          /* FIRE_ALL: those that get a run of their own */
  size_t run_count, cap; /* of them */
  struct fold rest;      /* the others, in one row */
  struct fold excluded;  /* those on excluded days of the calendar, in another */
};

void sched_walk_free(struct sched_walk **w) {
  if (*w)
    mem_free((*w)->runs);
  mem_free(*w);
  *w = NULL;
}

void sched_walk_settle(struct sched_extra *x, bool fired) {
  if (!x->walk || !x->walk->taken)
    return;
  if (fired)
    sched_walk_free(&x->walk);
  else
    x->walk->taken = false;
}

/* ---------------------------------------------------------------- the range */

/* How far a resumer's idea of the database's clock may be behind the commit of the resume. */
static const usec_t RESUME_SLACK = 10 * USEC_PER_SEC;

struct range { /* due in (from, to] */
  const struct sched_task *t;
  const struct sched_version *v;
  usec_t from, to;
};

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

static bool range_of(const struct fire_request *r, const struct sched_task *t, struct range *ret) {
  const struct sched_version *resumed = resumed_by(r, t), *v = resumed ? resumed : &t->first;
  while (!resumed && v->next)
    v = v->next;
  const struct task_spec *spec = v->spec;
  if (!spec || spec->kind == SCHEDULE_FIXED_DELAY || spec->kind == SCHEDULE_MANUAL)
    return false;
  /* the resumed version owns what is due after its beginning; r->to is what the resumer thought of that instant */
  usec_t to = resumed ? resumed->effective_at : r->to, oldest = to - spec->catchup_window;
  *ret = (struct range){t, v, r->from > oldest ? r->from : oldest, to};
  return true;
}

static usec_t due_of(const struct range *g, usec_t nominal) {
  return nominal == USEC_NEVER ? USEC_NEVER
                               : nominal + schedule_jitter(g->v->spec->schedule, g->t->id, nominal);
}

static usec_t next_of(const struct range *g, usec_t nominal) {
  return schedule_next(g->v->spec->schedule, g->v->anchor, nominal);
}

static usec_t first_of(const struct range *g) {
  usec_t nominal = next_of(g, g->from - schedule_jitter_max(g->v->spec->schedule));
  while (due_of(g, nominal) <= g->from || (nominal <= g->from && sched_had(g->t, g->v, nominal)))
    nominal = next_of(g, nominal);
  return nominal;
}

/* ---------------------------------------------------------------- the walk */

/* The walk of this request; NULL: an earlier request of the task has not come to its end. */
static struct sched_walk *walk_of(struct collect *c, const struct fire_request *r, struct sched_task *t,
                                  const struct range *g) {
  struct sched_extra *x = sched_extra(t);
  if (x->walk && x->walk->inbox_no != r->inbox_no && x->walk->turn == c->s->turn)
    return NULL;
  if (x->walk && (x->walk->inbox_no != r->inbox_no || x->walk->version != g->v->version))
    sched_walk_free(&x->walk);
  if (!x->walk) {
    x->walk = mem_zalloc(sizeof *x->walk);
    x->walk->inbox_no = r->inbox_no;
    x->walk->version = g->v->version;
    x->walk->at = first_of(g);
  }
  x->walk->turn = c->s->turn;
  return x->walk;
}

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
static bool leap(struct sched_walk *w, const struct range *g) {
  const struct task_spec *spec = g->v->spec;
  bool all = spec->misfire_policy == MISFIRE_FIRE_ALL && (int64_t)w->run_count < spec->catchup_max_runs;
  if (spec->kind != SCHEDULE_FIXED_RATE || all || spec->calendar)
    return false;
  usec_t sure = g->to - schedule_jitter_max(spec->schedule); /* due within the range whatever its jitter */
  sure = spec->end_at && spec->end_at < sure ? spec->end_at : sure;
  int64_t count = sure > w->at ? (sure - w->at) / spec->every : 0;
  if (!count)
    return false;
  fold_in(&w->rest, w->at, w->at + (count - 1) * spec->every, count);
  w->at += count * spec->every;
  return true;
}

/* A slice of the walk, true: it is over. */
static bool walk(struct collect *c, struct sched_walk *w, const struct range *g) {
  size_t most = c->s->limits.max_work / 2 + 1;
  while (due_of(g, w->at) <= g->to) {
    if (c->walked >= most)
      return false;
    c->walked++;
    if (leap(w, g))
      continue;
    take_one(w, g->v->spec);
    w->at = next_of(g, w->at);
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
  collect_progress(c, t, v, w->rest.last, !fired);
}

static void add_rows(struct collect *c, const struct sched_walk *w, struct sched_task *t,
                     const struct sched_version *v) {
  t->x->caught_up = 0;
  for (size_t i = 0; i < w->run_count && !sched_used_up(t, v); i++) {
    collect_caught_up(c, t, v, w->runs[i]);
    collect_progress(c, t, v, w->runs[i], false);
  }
  if (w->excluded.count)
    (void)add_fold(c, t, v, &w->excluded, REASON_CALENDAR);
  if (w->rest.count && !sched_used_up(t, v)) /* with max_runs reached nothing is due any more */
    add_rest(c, w, t, v);
  t->x->fold_row = 0; /* what the batch itself missed is a range of its own */
}

bool collect_catch_up(struct collect *c, const struct fire_request *r, struct sched_task *t) {
  struct range g;
  if (!r->to || !t || !range_of(r, t, &g) || sched_used_up(t, g.v))
    return true; /* nothing is asked for or due (any more): only the inbox row goes */
  struct sched_walk *w = walk_of(c, r, t, &g);
  if (!w || !walk(c, w, &g))
    return false;
  collect_touch(c, t);
  w->taken = true;
  add_rows(c, w, t, g.v);
  if (g.v->spec->max_runs)
    sched_arm(c->s, t, true); /* it may have had its last run with these */
  return true;
}
