#pragma once
/* Retry and back-off (exponential, capped, with jitter from the caller's random numbers). Pure. */
#include "base/rng.h"
#include "core/task_spec.h"

/* Delay before the attempt after `attempt` (1-based) which failed for `reason`, or -1 when there is none: attempts used up, reason not
 * retried, or max_elapsed (from fired_at) would be passed. `timeout` of the whole run bounds it too. */
usec_t retry_delay(const struct task_spec *spec, int32_t attempt, enum run_reason reason, usec_t fired_at,
                   usec_t now, struct rng *rng);
