#include "core/retry.h"

usec_t retry_delay(const struct task_spec *spec, int32_t attempt, enum run_reason reason, usec_t fired_at,
                   usec_t now, struct rng *rng) {
  const struct retry_policy *p = &spec->retry;
  if (attempt >= p->max_attempts || !(p->retry_on & 1u << reason))
    return -1;
  double delay = (double)p->initial_interval;
  for (int32_t i = 1; i < attempt && delay < (double)p->max_interval; i++)
    delay *= p->multiplier;
  if (delay > (double)p->max_interval)
    delay = (double)p->max_interval;
  if (p->jitter > 0)
    delay *= 1 + p->jitter * (2 * rng_unit(rng) - 1);
  usec_t after = (usec_t)delay;
  usec_t elapsed = now - fired_at + after;
  if ((p->max_elapsed && elapsed > p->max_elapsed) || (spec->timeout && elapsed >= spec->timeout))
    return -1;
  return after;
}
