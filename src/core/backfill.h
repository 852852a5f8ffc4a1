#pragma once
/* The instants of a past range that a backfill makes runs of: those of the schedule as it is now, without those that its calendar
 * excludes, also from before the task was made. Pure. */
#include "core/task_spec.h"

/* Has the kind of schedule instants that a range can be filled with? (CRON, FIXED_RATE) */
bool backfill_possible(const struct task_spec *spec);
/* The first instant > after; USEC_NEVER when there is none. `anchor`: the task's; a FIXED_RATE is reckoned back beyond it. */
usec_t backfill_next(const struct task_spec *spec, usec_t anchor, usec_t after);
/* How many there are in [from, to], at most `max`; the first and the last of them (untouched when there is none). */
int64_t backfill_count(const struct task_spec *spec, usec_t anchor, usec_t from, usec_t to, int64_t max,
                       usec_t *ret_first, usec_t *ret_last);
