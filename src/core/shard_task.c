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

/* First instant of a computed schedule whose due (nominal + jitter) is beyond `lo`. */
static void next_computed(const struct sched_task *t, const struct sched_version *v, usec_t lo,
                          usec_t *ret_nominal, usec_t *ret_due) {
  const struct schedule *s = v->spec->schedule;
  /* a ONE_TIME whose instant had passed when the task was made (allowed with a misfire policy) is due at once */
  if (v->spec->kind == SCHEDULE_ONE_TIME && v->version == 1 && v->anchor <= v->effective_at) {
    if (lo <= v->effective_at) {
      *ret_nominal = v->anchor;
      *ret_due = v->effective_at + 1;
    }
    return;
  }
  usec_t nominal = schedule_next(s, v->anchor, lo - schedule_jitter_max(s));
  while (nominal != USEC_NEVER) {
    usec_t due = nominal + schedule_jitter(s, t->id, nominal);
    if (due > lo && nominal != v->skip) {
      *ret_nominal = nominal;
      *ret_due = due;
      return;
    }
    nominal = schedule_next(s, v->anchor, nominal);
  }
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
  return v->state == TASK_ENABLED && v->spec && v->spec->kind != SCHEDULE_FIXED_DELAY &&
         v->spec->kind != SCHEDULE_MANUAL;
}

/* The one instant of `v` that is nominally not later than its beginning but due after it. */
static usec_t straddles(const struct sched_task *t, const struct sched_version *v) {
  if (!has_instants(v))
    return USEC_NONE;
  const struct schedule *s = v->spec->schedule;
  if (!schedule_jitter_max(s))
    return USEC_NONE;
  for (usec_t at = schedule_next(s, v->anchor, v->effective_at - schedule_jitter_max(s));
       at <= v->effective_at; at = schedule_next(s, v->anchor, at))
    if (at + schedule_jitter(s, t->id, at) > v->effective_at)
      return at;
  return USEC_NONE;
}

bool sched_had(const struct sched_task *t, const struct sched_version *v, usec_t at) {
  for (const struct sched_version *u = &t->first; u != v; u = u->next) {
    if (!has_instants(u) || schedule_next(u->spec->schedule, u->anchor, at - 1) != at ||
        (sched_used_up(t, u) && at > t->x->last)) /* it had had its last run by then */
      continue;
    usec_t due = at + schedule_jitter(u->spec->schedule, t->id, at);
    if (due > u->effective_at && due <= u->next->effective_at)
      return true;
  }
  return false;
}

/* With another jitter the same instant can be due under two versions; the first that had it keeps it. */
static void note_skips(struct sched_task *t) {
  for (struct sched_version *v = t->first.next; v; v = v->next) {
    usec_t at = v->skip ? USEC_NONE : straddles(t, v);
    if (at && sched_had(t, v, at))
      v->skip = at;
  }
}

static void fill_version(struct sched_version *n, const struct shard_version *v) {
  n->spec = v->spec;
  n->effective_at = v->effective_at;
  n->anchor = v->anchor;
  n->version = v->version;
  n->state = (uint8_t)v->state;
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
    t->cur = NULL; /* found again when it is armed */
    fill_version(&t->first, v);
    return true;
  }
  n->next = *at;
  *at = n;
  fill_version(n, v);
  return true;
}

void sched_insert(struct sched_task *t, const struct shard_version *v) {
  if (!insert_version(t, v))
    return;
  for (struct sched_version *n = t->first.next; n; n = n->next)
    if (n->version > v->version) /* what ruled right before it was not known: the gap may have been no gap */
      n->skip = USEC_NONE;
  if (t->first.next)
    note_skips(t);
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

bool sched_is_complete(const struct sched_task *t) {
  const struct sched_version *v = &t->first;
  if (t->due != USEC_NEVER || v->next || v->state != TASK_ENABLED || !v->spec ||
      v->spec->kind == SCHEDULE_MANUAL)
    return false;
  return !(v->spec->kind == SCHEDULE_FIXED_DELAY && t->x && (t->x->open || t->x->open_pending) &&
           !sched_used_up(t, v));
}
