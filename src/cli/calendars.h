#pragma once
/* Calendars from files. */
#include "cli/ical.h"

/* The document in a file: an iCalendar file when its name ends in .ics (or `ics` says so), else as input_document. Errors name the file. */
int calendar_file(const char *path, bool ics, const struct ical_ask *ask, json_t **ret, struct err *e);
/* What events of a file are taken for when nobody says anything. */
struct ical_ask calendar_ask_default(void);
