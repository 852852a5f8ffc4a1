#include "core/backfill.h"
#include "core/schedule.h"

bool backfill_possible(const struct task_spec *spec) {
  return spec->kind == SCHEDULE_CRON || spec->kind == SCHEDULE_FIXED_RATE;
}

usec_t backfill_next(const struct task_spec *spec, usec_t anchor, usec_t after) {
  if (spec->kind == SCHEDULE_FIXED_RATE && after < anchor)
    anchor -= ((anchor - after) / spec->every + 1) * spec->every;
  return schedule_next_included(spec->schedule, anchor, after);
}

int64_t backfill_count(const struct task_spec *spec, usec_t anchor, usec_t from, usec_t to, int64_t max,
                       usec_t *ret_first, usec_t *ret_last) {
  int64_t n = 0;
  for (usec_t at = backfill_next(spec, anchor, from - 1); at <= to && n < max;
       at = backfill_next(spec, anchor, at)) {
    if (n++ == 0)
      *ret_first = at;
    *ret_last = at;
  }
  return n;
}
