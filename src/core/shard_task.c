#include "core/shard_task.h"
#include "base/mem.h"
#include "core/schedule.h"

struct sched_extra *sched_extra(struct sched_task *t) {
  if (!t->x)
    t->x = mem_zalloc(sizeof *t->x);
  return t->x;
}

/* First instant of a FIXED_DELAY version whose predecessor is over; it is due no earlier than just beyond `lo`. */
static void next_delay(struct sched_task *t, const struct sched_version *v, usec_t lo, usec_t *ret_nominal,
                       usec_t *ret_due) {
  const struct task_spec *spec = v->spec;
  const struct sched_extra *x = t->x;
  if (x && (x->open || x->open_pending))
    return;
  usec_t base = !x ? 0 : x->base_pending ? x->base_pending : x->base_at;
  usec_t nominal = base ? base + spec->every : 0;
  if (nominal <= v->effective_at)
    nominal = spec->start_at > v->effective_at ? spec->start_at : v->effective_at + spec->every;
  if (nominal > spec->end_at)
    return;
  *ret_nominal = nominal;
  *ret_due = nominal > lo ? nominal : lo + 1;
}

usec_t sched_due(const struct sched_task *t, const struct sched_version *v, usec_t nominal) {
  usec_t due = nominal + schedule_jitter(v->spec->schedule, t->id, nominal), soonest = v->effective_at + 1;
  if (nominal <= v->effective_at)
    return due > soonest ? due : soonest;
  return v->waiting && due == soonest ? due + 1
                                      : due; /* no two at once: the watermark could not stand between them */
}

/* First instant of a computed schedule whose due is beyond `lo`: the one that waits, then those later than its beginning. */
static void next_computed(const struct sched_task *t, const struct sched_version *v, usec_t lo,
                          usec_t *ret_nominal, usec_t *ret_due) {
  const struct schedule *s = v->spec->schedule;
  usec_t nominal = v->waiting, due = nominal ? sched_due(t, v, nominal) : 0;
  if (due <= lo) {
    usec_t after = lo - schedule_jitter_max(s) - (v->waiting != 0);
    nominal = schedule_next(s, v->anchor, after > v->effective_at ? after : v->effective_at);
    while (nominal != USEC_NEVER && (due = sched_due(t, v, nominal)) <= lo)
      nominal = schedule_next(s, v->anchor, nominal);
  }
  if (nominal == USEC_NEVER)
    return;
  *ret_nominal = nominal;
  *ret_due = due;
}

bool sched_used_up(const struct sched_task *t, const struct sched_version *v) {
  return v->spec->max_runs && t->x && t->x->fired_pending >= v->spec->max_runs;
}

void sched_next(struct sched_task *t, usec_t at, int64_t at_task, bool from_first) {
  /* beyond the pair (at, at_task): the same instant counts for tasks with a greater id */
  usec_t beyond = t->id > at_task ? at - 1 : at;
  if (from_first || !t->cur)
    t->cur = &t->first;
  for (struct sched_version *v = t->cur; v; v = v->next) {
    usec_t lo = v->effective_at > beyond ? v->effective_at : beyond;
    usec_t limit = v->next ? v->next->effective_at : USEC_NEVER;
    usec_t nominal = USEC_NEVER, due = USEC_NEVER;
    if (v->state == TASK_ENABLED && v->spec && lo < limit && !sched_used_up(t, v)) {
      if (v->spec->kind == SCHEDULE_FIXED_DELAY)
        next_delay(t, v, lo, &nominal, &due);
      else if (v->spec->kind != SCHEDULE_MANUAL)
        next_computed(t, v, lo, &nominal, &due);
    }
    t->cur = v;
    if (due != USEC_NEVER && due <= limit) {
      t->due = due;
      t->nominal = nominal;
      return;
    }
  }
  t->due = t->nominal = USEC_NEVER;
}

static bool has_instants(const struct sched_version *v) {
  return v->spec && v->spec->kind != SCHEDULE_FIXED_DELAY && v->spec->kind != SCHEDULE_MANUAL;
}

static bool has_instant(const struct sched_version *v, usec_t at) {
  return has_instants(v) && schedule_has(v->spec->schedule, v->anchor, at);
}

/* The instant of `u` that has come by `end`, where its reign ends, and is due only later. There is at most one, the latest: jitter is
 * less than the time to the next. */
static usec_t left_waiting(const struct sched_task *t, const struct sched_version *u, usec_t end) {
  if (!has_instants(u))
    return USEC_NONE;
  const struct schedule *s = u->spec->schedule;
  usec_t last = u->waiting, room = schedule_jitter_max(s) + (u->waiting != 0), at = end - room;
  at = at > u->effective_at ? at : u->effective_at;
  while (room && (at = schedule_next(s, u->anchor, at)) <= end)
    last = at;
  return last && sched_due(t, u, last) > end ? last : USEC_NONE;
}

/* A version takes over what waits under the one before it, if its schedule has that instant, too. Whether the task is paused meanwhile does
 * not matter: that only decides whether it is fired when it is due. */
static void hand_on(struct sched_task *t, int32_t inserted) {
  for (struct sched_version *u = &t->first, *v; (v = u->next); u = v) {
    if (v->version < inserted)
      continue;
    usec_t was = v->waiting, at = left_waiting(t, u, v->effective_at);
    v->waiting = at && has_instant(v, at) ? at : USEC_NONE;
    if (v->version > inserted && v->waiting == was)
      return; /* nor does anything change for those after it */
  }
}

static void fill_version(struct sched_version *n, const struct shard_version *v) {
  n->spec = v->spec;
  n->effective_at = v->effective_at;
  n->anchor = v->anchor;
  n->version = v->version;
  n->state = (uint8_t)v->state;
  /* a ONE_TIME whose instant had passed when the task was made (allowed with a misfire policy) is due at once */
  bool late =
      v->version == 1 && v->spec && v->spec->kind == SCHEDULE_ONE_TIME && v->anchor <= v->effective_at;
  n->waiting = late ? v->anchor : USEC_NONE;
}

/* False: it was here already. */
static bool insert_version(struct sched_task *t, const struct shard_version *v) {
  if (!t->first.version) {
    fill_version(&t->first, v);
    return true;
  }
  struct sched_version **at = &t->first.next, *n;
  while (*at && (*at)->version < v->version)
    at = &(*at)->next;
  if (t->first.version == v->version || (*at && (*at)->version == v->version)) { /* seen already */
    struct task_spec *spec = v->spec;                                            /* ours to drop */
    task_spec_unref(&spec);
    return false;
  }
  n = mem_zalloc(sizeof *n);
  if (v->version < t->first.version) {
    *n = t->first;
    t->first.next = n;
    if (t->cur == &t->first)
      t->cur = n; /* what is armed stays so */
    fill_version(&t->first, v);
    return true;
  }
  n->next = *at;
  *at = n;
  fill_version(n, v);
  return true;
}

void sched_insert(struct sched_task *t, const struct shard_version *v) {
  if (insert_version(t, v))
    hand_on(t, v->version);
}

void sched_trim(struct sched_task *t, usec_t watermark) {
  while (t->first.next && t->first.next->effective_at <= watermark) {
    struct sched_version *n = t->first.next;
    task_spec_unref(&t->first.spec);
    if (t->cur == &t->first || t->cur == n)
      t->cur = &t->first;
    t->first = *n;
    mem_free(n);
  }
}

void sched_task_free(struct sched_task *t) {
  while (t->first.next) {
    struct sched_version *n = t->first.next;
    t->first.next = n->next;
    task_spec_unref(&n->spec);
    mem_free(n);
  }
  task_spec_unref(&t->first.spec);
  if (t->x)
    sched_walk_free(&t->x->walk);
  mem_free(t->x);
  mem_free(t);
}

const struct sched_version *sched_last(const struct sched_task *t) {
  const struct sched_version *v = &t->first;
  while (v->next)
    v = v->next;
  return v;
}

bool sched_is_complete(const struct sched_task *t) {
  const struct sched_version *v = sched_last(t);
  if (t->due != USEC_NEVER || v->state != TASK_ENABLED || !v->spec || v->spec->kind == SCHEDULE_MANUAL)
    return false;
  return !(v->spec->kind == SCHEDULE_FIXED_DELAY && t->x && (t->x->open || t->x->open_pending) &&
           !sched_used_up(t, v));
}
