#include "core/live_run.h"

/* When something happens to a run by time alone: its timers, and the heap of the soonest one of each run. */

/* ---------------------------------------------------------------- the heap */

static void heap_put(struct live *l, size_t i, struct live_run *r) {
  l->heap[i] = r;
  r->heap_pos = i + 1;
}

static void heap_up(struct live *l, size_t i) {
  struct live_run *r = l->heap[i];
  for (; i > 0 && l->heap[(i - 1) / 2]->wake_at > r->wake_at; i = (i - 1) / 2)
    heap_put(l, i, l->heap[(i - 1) / 2]);
  heap_put(l, i, r);
}

static void heap_down(struct live *l, size_t i) {
  struct live_run *r = l->heap[i];
  for (size_t c; (c = 2 * i + 1) < l->heap_count; i = c) {
    if (c + 1 < l->heap_count && l->heap[c + 1]->wake_at < l->heap[c]->wake_at)
      c++;
    if (l->heap[c]->wake_at >= r->wake_at)
      break;
    heap_put(l, i, l->heap[c]);
  }
  heap_put(l, i, r);
}

static void heap_remove(struct live *l, struct live_run *r) {
  if (!r->heap_pos)
    return;
  size_t i = r->heap_pos - 1;
  struct live_run *last = l->heap[--l->heap_count];
  r->heap_pos = 0;
  if (last == r)
    return;
  heap_put(l, i, last);
  heap_up(l, i);
  heap_down(l, last->heap_pos - 1);
}

void live_wake(struct live *l, struct live_run *r, usec_t at) {
  if (at == USEC_NEVER) {
    heap_remove(l, r);
    return;
  }
  usec_t before = r->wake_at;
  r->wake_at = at;
  if (!r->heap_pos) {
    mem_reserve(l->heap, l->heap_count, l->heap_cap);
    heap_put(l, l->heap_count++, r);
    heap_up(l, l->heap_count - 1);
  } else if (at < before) {
    heap_up(l, r->heap_pos - 1);
  } else {
    heap_down(l, r->heap_pos - 1);
  }
}

usec_t live_next_wake(const struct live *l) { return l->heap_count ? l->heap[0]->wake_at : USEC_NEVER; }

/* ---------------------------------------------------------------- the timers of one run */

enum { TIMERS_MAX = 5 };

struct timers { /* the first one that has passed counts */
  struct timer {
    usec_t at;
    enum run_event event; /* EV_MAX_: none, only its row is written */
  } of[TIMERS_MAX];
  size_t count;
};

static void add(struct timers *t, usec_t at, enum run_event event) {
  t->of[t->count++] = (struct timer){at, event};
}

/* A limit of 0 is none. */
static void add_limit(struct timers *t, usec_t from, usec_t limit, enum run_event event) {
  if (limit)
    add(t, from + limit, event);
}

/* Delivered, or to be delivered again, at an executor that has it. */
static void add_running(struct timers *t, const struct live *l, const struct live_run *r) {
  const struct task_spec *s = r->spec;
  add_limit(t, r->attempt_at, s->attempt_timeout, EV_ATTEMPT_TIMEOUT);
  add_limit(t, r->beat_at, s->heartbeat_timeout, EV_BEAT_TIMEOUT);
  if (!r->written_at && r->db_state == RUN_PENDING)
    add(t, r->attempt_at + l->limits.write_running_after, EV_MAX_);
}

/* A caught-up run whose time has come: may it start, or must it wait with the others? */
static enum run_event release_of(const struct live *l, const struct live_run *r) {
  struct overlap_view v = {.policy = r->spec->overlap_policy,
                           .max_concurrent = r->spec->max_concurrent,
                           .active = r->task->active,
                           .queued = r->task->queued,
                           .caught_up = true,
                           .bounded = r->limit && live_bounded(l, r->limit)};
  return overlap_decide(&v) == OVERLAP_DO_START ? EV_RELEASE : EV_ENQUEUE;
}

static struct timers timers_of(const struct live *l, const struct live_run *r) {
  const struct task_spec *s = r->spec;
  struct timers t = {.count = 0};
  if (r->phase == PHASE_ENDED)
    return t;
  add_limit(&t, r->fired_at, s->timeout, EV_RUN_TIMEOUT);
  if (r->superseded)
    add(&t, 0, EV_REPLACE);
  switch (r->phase) {
  case PHASE_SCHEDULED: add(&t, r->not_before, release_of(l, r)); break;
  case PHASE_QUEUED: add(&t, live_turn_at(l, r), EV_RELEASE); break;
  case PHASE_RETRY_WAIT: add(&t, r->not_before, EV_RELEASE); break;
  case PHASE_DISPATCHING:
    add(&t, r->attempt_at + (r->promised ? s->attempt_timeout : s->dispatch_timeout), EV_DISPATCH_TIMEOUT);
    break;
  case PHASE_ACCEPTED:
  case PHASE_PROGRESS: add_running(&t, l, r); break;
  case PHASE_CANCELLING: add(&t, r->cancel_at + s->cancel_timeout, EV_CANCEL_TIMEOUT); break;
  case PHASE_ENDED:
  case PHASE_MAX_: break;
  }
  return t;
}

usec_t live_next_timer(const struct live *l, const struct live_run *r) {
  struct timers t = timers_of(l, r);
  usec_t at = USEC_NEVER;
  for (size_t i = 0; i < t.count; i++)
    at = t.of[i].at < at ? t.of[i].at : at;
  return at;
}

bool live_due(const struct live *l, const struct live_run *r, usec_t now, enum run_event *ret) {
  struct timers t = timers_of(l, r);
  for (size_t i = 0; i < t.count; i++)
    if (t.of[i].at <= now) {
      *ret = t.of[i].event;
      return true;
    }
  return false;
}
