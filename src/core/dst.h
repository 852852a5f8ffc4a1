#pragma once
/* What a cron schedule does where the zone's offset jumps (docs/semantics.md, "Schedules"). Pure.
 *
 * L = first local time of the gap or of the repeated hour, D = size of the jump.
 * AUTO, for jumps under three hours:
 * - gap: local times of the schedule in [L, L+D) but none in [L+D, L+2D): once, at the first instant after the
 *   gap; else nothing;
 * - overlap: both copies if there is a local time in [L-D, L) and one in [L+D, L+2D); else the first only.
 * Longer jumps (Apia 2011): nothing for the gap, the first copy of an overlap.
 *
 * Overrides hold for jumps of any size. dst_gap: SKIP; ONCE_AFTER = once, at the first instant after the gap, if
 * any local time fell into it; SHIFT = each of them, later by D. dst_overlap: FIRST, LAST, BOTH copies.
 *
 * The instants are distinct and ascend: what a make-up and an ordinary local time have in common comes once. */
#include "core/cron.h"
#include "core/zone.h"

enum dst_gap { DST_GAP_AUTO, DST_GAP_SKIP, DST_GAP_ONCE_AFTER, DST_GAP_SHIFT, DST_GAP_MAX_ };
enum dst_overlap {
  DST_OVERLAP_AUTO,
  DST_OVERLAP_FIRST,
  DST_OVERLAP_LAST,
  DST_OVERLAP_BOTH,
  DST_OVERLAP_MAX_
};
extern const char *const dst_gap_names[];     /* NULL-terminated */
extern const char *const dst_overlap_names[]; /* NULL-terminated */

#define DST_LONG_JUMP_SEC (3 * 3600) /* from this size on AUTO makes nothing up */

struct dst_rule {
  enum dst_gap gap;
  enum dst_overlap overlap;
};

/* The first instant (UTC second) >= `from` at which the expression fires in the zone; CRON_NEVER when none is
 * left. */
int64_t dst_next(const struct cron *c, const struct zone *z, struct dst_rule rule, int64_t from);

enum dst_note { DST_NONE, DST_GAP_MADE_UP, DST_GAP_SHIFTED, DST_FIRST_COPY, DST_SECOND_COPY, DST_NOTE_MAX_ };
extern const char *const
    dst_note_names[]; /* "none", "gap_made_up", "gap_shifted", "overlap_first", "overlap_second", NULL */
/* Why a cron schedule fires at an instant that dst_next gave; c may be NULL (only the copies are told then).
 */
enum dst_note dst_note_at(const struct cron *c, const struct zone *z, struct dst_rule rule, int64_t utc_sec);
