#pragma once
/* What a new run does while others of its task have not ended (semantics.md §4 "Overlap", §5 "max_concurrent"). Pure. */
#include "core/model.h"

struct task_spec;

enum overlap_decision { OVERLAP_DO_START, OVERLAP_DO_QUEUE, OVERLAP_DO_SKIP };

/* A run that is due: asked of whoever knows the open runs. */
struct overlap_ask {
  int64_t task_id;
  const struct task_spec *spec;
  enum overlap_policy policy; /* ALLOW for a trigger that ignores overlap, else the spec's */
  bool caught_up;
  usec_t now;
};

struct overlap_view {
  enum overlap_policy policy;
  int64_t max_concurrent; /* of the task; 0 = not given */
  int64_t active, queued; /* runs of the task between dispatch and end; those that wait */
  bool caught_up;
  bool bounded; /* its group or namespace lets no further one start now */
};

/* How many runs of a task may be under way at once. */
static inline int64_t overlap_max(enum overlap_policy policy, int64_t max_concurrent) {
  if (policy != OVERLAP_ALLOW && policy != OVERLAP_QUEUE_ALL)
    return 1;
  return max_concurrent ? max_concurrent : policy == OVERLAP_ALLOW ? INT64_MAX : 1;
}

/* A caught-up run is never skipped for an overlap: it was promised by FIRE_ALL, so it waits. REPLACE waits, too: for the end of those that
 * it replaces (core/live). Nobody overtakes those who wait for a place in the task. */
static inline enum overlap_decision overlap_decide(const struct overlap_view *v) {
  int64_t max = overlap_max(v->policy, v->max_concurrent);
  if (v->active < max && (v->queued == 0 || max == INT64_MAX))
    return v->bounded ? OVERLAP_DO_QUEUE : OVERLAP_DO_START;
  if (v->caught_up || v->policy == OVERLAP_ALLOW || v->policy == OVERLAP_QUEUE_ALL ||
      v->policy == OVERLAP_REPLACE)
    return OVERLAP_DO_QUEUE;
  if (v->policy == OVERLAP_QUEUE_ONE && v->queued == 0)
    return OVERLAP_DO_QUEUE;
  return OVERLAP_DO_SKIP;
}
