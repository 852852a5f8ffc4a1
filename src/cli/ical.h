#pragma once
/* iCalendar files (RFC 5545) as calendars: the all-day events of a file, nothing else of it. What is not understood is refused with its
 * line, never guessed. Pure. */
#include "base/json.h"

#define ICAL_MAX        ((size_t)1024 * 1024) /* bytes of a file */
#define ICAL_LINE_MAX   ((size_t)8192)        /* of a line, unfolded */
#define ICAL_YEARS_MORE 10                    /* years from now that a yearly event without an end goes on */

struct ical_ask {
  struct slice holiday_if,
      workday_if; /* events whose summary has this text; n == 0: holidays are all others, workdays none */
  int last_year;  /* yearly events end with it */
};
/* *ret: {"excluded": […], "extra_days": […]}, each event an entry; a new reference. Events that are cancelled are left out. Refused: an
 * event with a time of day, a recurrence other than a plain yearly one (INTERVAL, COUNT, UNTIL), a changed single occurrence, more than
 * CALENDAR_ENTRIES_MAX entries. Errors name the line: "line 12: …". */
int ical_read(struct slice text, const struct ical_ask *ask, json_t **ret, struct err *e);
