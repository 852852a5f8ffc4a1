#pragma once
/* A calendar: days on which schedules that use it do not run (in ranges), and extra working days, on which they do although their
 * own day fields do not say so. Days are local dates of the schedule's time zone, counted from 1970-01-01. Immutable. Pure.
 *
 * As a document: {"excluded": ["2026-10-01/2026-10-07", "2027-01-01"], "extra_days": ["2026-10-10"]}; a range has both its ends in
 * it. No day may be excluded and an extra working day. */
#include "base/json.h"

#define CALENDAR_ENTRIES_MAX 1000 /* of each list; of extra_days also the days that they make */

struct calendar;
/* Members of `doc` other than the two lists are not looked at. Errors name "/excluded/3" or "/extra_days/0". */
int calendar_read(const json_t *doc, struct calendar **ret, struct err *e);
struct calendar *calendar_copy(const struct calendar *c);
void calendar_free(struct calendar **c); /* NULL is fine */
static inline void calendar_free_p(struct calendar **c) { calendar_free(c); }
#define auto_calendar __attribute__((cleanup(calendar_free_p))) struct calendar

/* {"excluded": […], "extra_days": […]} in its one normal form: sorted, ranges that touch each other as one. A new reference. */
json_t *calendar_json(const struct calendar *c);
/* Is the day excluded? *ret_last (may be NULL): the last day of that range. */
bool calendar_excludes(const struct calendar *c, int64_t day, int64_t *ret_last);
bool calendar_is_extra(const struct calendar *c, int64_t day);
/* The extra working days, ascending; live as long as the calendar. */
const int32_t *calendar_extra_days(const struct calendar *c, size_t *ret_count);
/* "2026-10-01" as a day; also for those who read other formats. Years 1970 to 2199. */
int calendar_day_parse(struct slice text, int32_t *ret, struct err *e);
#define CALENDAR_DAY_TEXT 11
char *calendar_day_format(int64_t day, char ret_text[CALENDAR_DAY_TEXT]);
