#pragma once
/* When a task is due: a pure function of the schedule, the task's anchor and an instant. Immutable after it
 * was built: any number of threads and tasks share one (about 250 bytes). Anchor and run_at differ from task
 * to task, so they are given at each call. Pure.
 *
 * An instant t is due while start_at <= t <= end_at (both inclusive, as in Quartz). Jitter is not counted in.
 */
#include "core/dst.h"
#include "core/model.h"

struct calendar;
struct schedule; /* opaque */

#define SCHEDULE_EVERY_MIN  USEC_PER_MS           /* least `every` */
#define SCHEDULE_EVERY_MAX  (3660 * USEC_PER_DAY) /* ten years */
#define SCHEDULE_JITTER_MAX (7 * USEC_PER_DAY)

struct schedule_input {
  enum schedule_kind kind;
  struct slice expr;         /* CRON */
  enum cron_dialect dialect; /* CRON */
  const struct zone *zone;   /* a reference is taken; NULL = UTC */
  struct dst_rule dst;       /* CRON */
  usec_t every;              /* FIXED_RATE, FIXED_DELAY */
  usec_t start_at;           /* USEC_NONE = not set */
  usec_t end_at;             /* USEC_NEVER or USEC_NONE = not set */
  usec_t jitter;             /* 0 = none */
};
/* Errors name the field: /expression (with column), /every, /end_at, /jitter (at least the shortest interval:
 * for CRON the least distance of two local times, exact, from the bits; for FIXED_RATE and FIXED_DELAY
 * `every`). ERR_NEVER_FIRES also when a CRON has no instant between start_at and end_at. */
int schedule_new(const struct schedule_input *in, struct schedule **ret, struct err *e);
void schedule_free(struct schedule **s);

/* Give it a calendar (copied), before anybody else knows it: extra working days get the times of day of a CRON (its month and year
 * fields hold), and instants on excluded days are still instants, which schedule_excluded tells. What schedule_new checked (never
 * fires, jitter) stands without it, so that no calendar can make a schedule wrong. */
void schedule_set_calendar(struct schedule *s, const struct calendar *c);
/* Is this instant on an excluded day, by the local date in the schedule's time zone? */
bool schedule_excluded(const struct schedule *s, usec_t nominal);
/* As schedule_next, but the first that is not excluded; excluded days are leapt over. */
usec_t schedule_next_included(const struct schedule *s, usec_t anchor, usec_t after);

enum schedule_kind schedule_kind(const struct schedule *s);
const struct zone *schedule_zone(const struct schedule *s); /* never NULL */
usec_t schedule_jitter_max(const struct schedule *s);       /* the `jitter` it was built with */

/* The first nominal instant strictly after `after`; USEC_NEVER when there is none. `anchor`: FIXED_RATE fires
 * at anchor + k * every, k >= 0; ONE_TIME at anchor = run_at; CRON ignores it. FIXED_DELAY and MANUAL:
 * USEC_NEVER (the engine computes base + every). */
usec_t schedule_next(const struct schedule *s, usec_t anchor, usec_t after);

/* The last nominal instant strictly before `before`; 0 when there is none. About 50 searches. */
usec_t schedule_previous(const struct schedule *s, usec_t anchor, usec_t before);
/* Is this a nominal instant? */
bool schedule_has(const struct schedule *s, usec_t anchor, usec_t at);
/* What of a local second a CRON's fields do not fit (core/cron.h), as bits and in words; nothing for other kinds. A change of offset may
 * leave out or repeat a local second that fits. */
unsigned schedule_mismatch(const struct schedule *s, int64_t local_sec);
void schedule_mismatch_words(const struct schedule *s, int64_t local_sec, enum cron_lang lang,
                             struct str *out);

/* How much later than nominal the task is due: [0, jitter), a hash of task and instant, the same on every
 * node and after every restart. nominal + jitter keeps the order of the instants: where a change of offset
 * brings two instants of a CRON nearer than `jitter`, it stays below their distance. */
usec_t schedule_jitter(const struct schedule *s, int64_t task_id, usec_t nominal);

/* A ONE_TIME given as local time "2026-03-29T02:30:00" without an offset: in a gap it is shifted forward by
 * the gap (*ret_note = DST_GAP_SHIFTED), in an overlap the first copy is taken (DST_FIRST_COPY). */
int schedule_local_instant(const struct zone *z, struct slice text, usec_t *ret, enum dst_note *ret_note,
                           struct err *e);

/* For previews: the local time and the reason of an instant that schedule_next gave. */
enum calendar_note { CALENDAR_NOTHING, CALENDAR_EXCLUDED, CALENDAR_EXTRA_DAY, CALENDAR_NOTE_MAX_ };
extern const char *const calendar_note_names[]; /* "none", "excluded", "extra_day", NULL */
struct schedule_note {
  int32_t offset; /* seconds east of UTC; time_format_offset prints the local time */
  enum dst_note note;
  enum calendar_note calendar;
};
void schedule_explain(const struct schedule *s, usec_t nominal, struct schedule_note *ret);
/* In words: "at 02:30 every Monday, Asia/Shanghai". Appends to `out`. */
void schedule_describe(const struct schedule *s, enum cron_lang lang, struct str *out);
