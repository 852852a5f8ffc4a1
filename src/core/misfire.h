#pragma once
/* What becomes of an instant that passed while nobody could fire it (semantics.md §4 "Misfire"). Pure. */
#include "core/task_spec.h"

enum misfire_decision {
  MISFIRE_DO_FIRE,     /* in time, or late within the threshold */
  MISFIRE_DO_MAKE_UP,  /* FIRE_ONCE: the one run that stands for the whole missed range */
  MISFIRE_DO_CATCH_UP, /* FIRE_ALL: a run of its own, released at catchup_rate */
  MISFIRE_DO_FOLD,     /* recorded as SKIPPED/MISFIRE, folded with its neighbours */
};

/* `due`: of this instant; `next_due`: of the task's next one (USEC_NEVER: none); `caught_up`: runs already given to this catch-up. */
static inline enum misfire_decision misfire_decide(const struct task_spec *s, usec_t due, usec_t next_due,
                                                   usec_t now, int64_t caught_up) {
  if (now - due <= s->misfire_threshold)
    return MISFIRE_DO_FIRE;
  switch (s->misfire_policy) {
  case MISFIRE_FIRE_ONCE: return next_due <= now ? MISFIRE_DO_FOLD : MISFIRE_DO_MAKE_UP;
  case MISFIRE_FIRE_ALL:
    return now - due <= s->catchup_window && caught_up < s->catchup_max_runs ? MISFIRE_DO_CATCH_UP
                                                                             : MISFIRE_DO_FOLD;
  case MISFIRE_SKIP:
  case MISFIRE_MAX_: break;
  }
  return MISFIRE_DO_FOLD;
}
