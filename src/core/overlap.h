#pragma once
/* What a new run does while others of its task have not ended (semantics.md §4 "Overlap"). Pure. */
#include "core/model.h"

enum overlap_decision { OVERLAP_DO_START, OVERLAP_DO_QUEUE, OVERLAP_DO_SKIP };

/* `active`: runs of the task between dispatch and end; `queued`: those that wait. A caught-up run is never skipped for an overlap: it
 * was promised by FIRE_ALL, so it waits. REPLACE waits, too: for the end of those that it replaces (core/live). */
static inline enum overlap_decision overlap_decide(enum overlap_policy policy, int64_t active, int64_t queued,
                                                   bool caught_up) {
  if (policy == OVERLAP_ALLOW || (active == 0 && queued == 0))
    return OVERLAP_DO_START;
  if (caught_up || policy == OVERLAP_QUEUE_ALL || policy == OVERLAP_REPLACE)
    return OVERLAP_DO_QUEUE;
  if (policy == OVERLAP_QUEUE_ONE && queued == 0)
    return OVERLAP_DO_QUEUE;
  return OVERLAP_DO_SKIP;
}
