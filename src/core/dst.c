#include "core/dst.h"

const char *const dst_gap_names[] = {"AUTO", "SKIP", "ONCE_AFTER", "SHIFT", NULL};
const char *const dst_overlap_names[] = {"AUTO", "FIRST", "LAST", "BOTH", NULL};
const char *const dst_note_names[] = {"none",          "gap_made_up",    "gap_shifted",
                                      "overlap_first", "overlap_second", NULL};

/* Local 1970 begins, and local 2199 ends, within a day or so of UTC's. */
#define FIRST_INSTANT (-(int64_t)ZONE_OFFSET_MAX)
#define LAST_LOCAL    ((int64_t)84006 * 86400 - 1) /* 2199-12-31T23:59:59 */

/* One search: what stays the same from span to span. */
struct search {
  const struct cron *c;
  const struct zone *z;
  struct dst_rule rule;
};

static bool has_local(const struct cron *c, int64_t from, int64_t to) { return cron_next(c, from) < to; }

/* Does the gap before this span yield its one make-up? */
static bool gap_is_made_up(const struct search *q, const struct zone_span *s) {
  int64_t from = s->since + s->before, to = s->since + s->offset, jump = to - from;
  if (q->rule.gap == DST_GAP_ONCE_AFTER)
    return has_local(q->c, from, to);
  return q->rule.gap == DST_GAP_AUTO && jump < DST_LONG_JUMP_SEC && has_local(q->c, from, to) &&
         !has_local(q->c, to, to + jump);
}

/* Do the repeated local times at the begin of this span fire (again)? */
static bool second_copy_fires(const struct search *q, const struct zone_span *s) {
  int64_t from = s->since + s->offset, to = s->since + s->before, jump = to - from;
  if (q->rule.overlap != DST_OVERLAP_AUTO)
    return q->rule.overlap != DST_OVERLAP_FIRST;
  return jump < DST_LONG_JUMP_SEC && has_local(q->c, from - jump, from) && has_local(q->c, to, to + jump);
}

/* The first local time >= `from` that fell into the gap before this span, as the instant it is shifted to. */
static int64_t shifted(const struct search *q, const struct zone_span *s, int64_t from) {
  int64_t local = cron_next(q->c, from + s->before);
  return local < s->since + s->offset ? local - s->before : CRON_NEVER;
}

/* The first instant in [from, s->until), where `from` lies in the span. For the way on: no local time of the
 * schedule lies between that of the instant *ret_searched and *ret_local. */
static int64_t next_in_span(const struct search *q, const struct zone_span *s, int64_t from,
                            int64_t *ret_searched, int64_t *ret_local) {
  int64_t end = s->until, extra = CRON_NEVER;
  if (s->before < s->offset) {
    if (from == s->since && gap_is_made_up(q, s))
      return from;
    if (q->rule.gap == DST_GAP_SHIFT && from < s->since + (s->offset - s->before))
      extra = shifted(q, s, from);
  } else if (s->before > s->offset) {
    int64_t copy_end = s->since + (s->before - s->offset);
    if (from < copy_end && !second_copy_fires(q, s))
      from = copy_end;
  }
  if (s->after < s->offset && q->rule.overlap == DST_OVERLAP_LAST)
    end -= s->offset - s->after; /* what follows is the first copy: it waits for the last */
  int64_t local = cron_next(q->c, from + s->offset);
  int64_t t = local == CRON_NEVER || local - s->offset >= end ? CRON_NEVER : local - s->offset;
  *ret_searched = from;
  *ret_local = local;
  return extra < t && extra < s->until ? extra : t;
}

int64_t dst_next(const struct cron *c, const struct zone *z, struct dst_rule rule, int64_t from) {
  const struct search q = {c, z, rule};
  if (from < FIRST_INSTANT)
    from = FIRST_INSTANT;
  struct zone_span s;
  while (from <= LAST_LOCAL + ZONE_OFFSET_MAX) {
    zone_span_at(z, from, &s);
    int64_t searched, local;
    int64_t t = next_in_span(&q, &s, from, &searched, &local);
    if (t != CRON_NEVER)
      return t;
    if (s.until == INT64_MAX)
      break;
    /* A rare schedule need not look into every span on the way to its next local time. Two days off the
     * change, no offset can bring back local times from before `searched`. */
    from = s.until;
    if (searched < s.until - 2 * ZONE_OFFSET_MAX) {
      int64_t far = (local == CRON_NEVER ? LAST_LOCAL : local) - ZONE_OFFSET_MAX - 3600;
      from = far > from ? far : from;
    }
  }
  return CRON_NEVER;
}

enum dst_note dst_note_at(const struct cron *c, const struct zone *z, struct dst_rule rule, int64_t utc_sec) {
  struct zone_span s;
  zone_span_at(z, utc_sec, &s);
  if (c && !cron_matches(c, utc_sec + s.offset))
    return rule.gap == DST_GAP_SHIFT ? DST_GAP_SHIFTED : DST_GAP_MADE_UP;
  if (s.before > s.offset && utc_sec < s.since + (s.before - s.offset))
    return DST_SECOND_COPY;
  if (s.after < s.offset && utc_sec >= s.until - (s.offset - s.after))
    return DST_FIRST_COPY;
  return DST_NONE;
}
