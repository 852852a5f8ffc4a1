#include "cli/ical.h"
#include "base/parse.h"
#include "base/time.h"
#include "core/calendar.h"
#include "core/cron.h"

#define EXDATES_MAX 366
#define DAYS_MAX    3660 /* of one event */

struct event {
  int line;           /* where it began */
  int32_t first, end; /* end: the day after; -1: not given */
  int64_t days;       /* of DURATION; 0: not given */
  bool cancelled, yearly, holiday, workday;
  int64_t interval, count;
  int32_t until; /* the last day on which an occurrence may begin; -1: none is given */
  int32_t except[EXDATES_MAX];
  int except_count;
};

struct reader {
  const struct ical_ask *ask;
  struct slice rest; /* what has not been read */
  struct str line;   /* unfolded */
  int at, next;      /* the line's number, and that of the next one */
  json_t *lists[2];  /* excluded, extra_days */
  struct err *e;
};

static int refuse(const struct reader *r, int line, const char *why) {
  return err_set(r->e, ERR_INVALID, "line %d: %s", line, why);
}

/* ------------------------------------------------------------------ lines */

static struct slice physical(struct reader *r) {
  struct slice rest, line = slice_cut(r->rest, '\n', &rest);
  r->rest = rest;
  r->next++;
  if (line.n && line.p[line.n - 1] == '\r')
    line.n--;
  return line;
}

/* One content line with those that continue it. 1; 0: the end. */
static int read_line(struct reader *r) {
  if (!r->rest.p)
    return 0;
  str_clear(&r->line);
  r->at = r->next;
  str_add(&r->line, physical(r));
  while (r->rest.n && (r->rest.p[0] == ' ' || r->rest.p[0] == '\t')) {
    struct slice more = physical(r);
    str_add(&r->line, slice_n(more.p + 1, more.n - 1));
  }
  return str_failed(&r->line) ? refuse(r, r->at, "the line is too long") : 1;
}

struct property {
  struct slice name, parameters, value;
};

/* NAME;PARAMETERS:VALUE. A colon in quotes is none. */
static struct property split(struct slice line) {
  bool quoted = false;
  size_t colon = line.n, semicolon = line.n;
  for (size_t i = 0; i < line.n && colon == line.n; i++) {
    if (line.p[i] == '"')
      quoted = !quoted;
    else if (line.p[i] == ':' && !quoted)
      colon = i;
    else if (line.p[i] == ';' && !quoted && semicolon == line.n)
      semicolon = i;
  }
  size_t name = semicolon < colon ? semicolon : colon;
  struct property p = {.name = slice_n(line.p, name), .parameters = slice_n(line.p + name, colon - name)};
  if (colon < line.n)
    p.value = slice_n(line.p + colon + 1, line.n - colon - 1);
  return p;
}

/* ------------------------------------------------------------------ values */

/* 20261001 */
static int read_day(const struct reader *r, struct slice v, int32_t *ret) {
  char text[CALENDAR_DAY_TEXT];
  struct err why = {0};
  if (v.n > 8 && v.p[8] == 'T')
    return refuse(r, r->at, "a time of day: only all-day events can be taken into a calendar");
  if (v.n != 8)
    return refuse(r, r->at, "expected a date such as 20261001");
  (void)snprintf(text, sizeof text, "%.4s-%.2s-%.2s", v.p, v.p + 4, v.p + 6);
  return calendar_day_parse(slice_of(text), ret, &why) < 0 ? refuse(r, r->at, why.text) : 0;
}

/* P3D, P2W */
static int read_duration(const struct reader *r, struct slice v, int64_t *ret) {
  int64_t n;
  bool weeks = v.n && v.p[v.n - 1] == 'W', days = v.n && v.p[v.n - 1] == 'D';
  if (v.n < 3 || v.p[0] != 'P' || (!weeks && !days) ||
      parse_i64(slice_n(v.p + 1, v.n - 2), 1, DAYS_MAX / 7, &n, NULL) < 0)
    return refuse(r, r->at, "expected a DURATION in whole days or weeks, such as P3D");
  *ret = weeks ? n * 7 : n;
  return 0;
}

static int rule_part(const struct reader *r, struct event *ev, struct slice key, struct slice v) {
  int64_t number;
  if (slice_eqz(key, "FREQ"))
    return slice_eqz(v, "YEARLY") ? 0 : refuse(r, r->at, "only events that recur yearly are understood");
  if (slice_eqz(key, "INTERVAL") && parse_i64(v, 1, 1000, &ev->interval, NULL) == 0)
    return 0;
  if (slice_eqz(key, "COUNT") && parse_i64(v, 1, 10000, &ev->count, NULL) == 0)
    return 0;
  if (slice_eqz(key, "UNTIL"))
    return read_day(r, slice_n(v.p, v.n > 8 ? 8 : v.n), &ev->until);
  /* what repeats the date of the beginning adds nothing: checked when the event is whole */
  if ((slice_eqz(key, "BYMONTH") && parse_i64(v, 1, 12, &number, NULL) == 0) ||
      (slice_eqz(key, "BYMONTHDAY") && parse_i64(v, 1, 31, &number, NULL) == 0)) {
    int64_t year;
    int month, day;
    civil_from_days(ev->first, &year, &month, &day);
    if (ev->first >= 0 && number == (key.n == 7 ? month : day))
      return 0;
  }
  return refuse(r, r->at,
                "this recurrence is not understood: a plain yearly one may have INTERVAL, COUNT and UNTIL");
}

static int read_rule(const struct reader *r, struct event *ev, struct slice v) {
  bool frequency = false;
  if (ev->yearly)
    return refuse(r, r->at, "a second RRULE");
  if (ev->first < 0)
    return refuse(r, r->at, "expected DTSTART before RRULE");
  for (struct slice rest = v; rest.p;) {
    struct slice value, key = slice_cut(slice_cut(rest, ';', &rest), '=', &value);
    int code = rule_part(r, ev, key, value);
    if (code < 0)
      return code;
    frequency = frequency || slice_eqz(key, "FREQ");
  }
  ev->yearly = true;
  return frequency ? 0 : refuse(r, r->at, "expected FREQ=YEARLY");
}

static int read_exdates(const struct reader *r, struct event *ev, struct slice v) {
  for (struct slice rest = v; rest.p;) {
    if (ev->except_count == EXDATES_MAX)
      return refuse(r, r->at, "too many EXDATEs");
    int code = read_day(r, slice_cut(rest, ',', &rest), &ev->except[ev->except_count]);
    if (code < 0)
      return code;
    ev->except_count++;
  }
  return 0;
}

static bool contains(struct slice text, struct slice part) {
  return part.n <= text.n && memmem(text.p, text.n, part.p, part.n);
}

static void read_summary(const struct reader *r, struct event *ev, struct slice text) {
  ev->workday = r->ask->workday_if.n && contains(text, r->ask->workday_if);
  ev->holiday = !ev->workday && (!r->ask->holiday_if.n || contains(text, r->ask->holiday_if));
}

static int read_property(const struct reader *r, struct event *ev, const struct property *p) {
  if (slice_eqz_nocase(p->name, "DTSTART"))
    return read_day(r, p->value, &ev->first);
  if (slice_eqz_nocase(p->name, "DTEND"))
    return read_day(r, p->value, &ev->end);
  if (slice_eqz_nocase(p->name, "DURATION"))
    return read_duration(r, p->value, &ev->days);
  if (slice_eqz_nocase(p->name, "RRULE"))
    return read_rule(r, ev, p->value);
  if (slice_eqz_nocase(p->name, "EXDATE"))
    return read_exdates(r, ev, p->value);
  if (slice_eqz_nocase(p->name, "RDATE"))
    return refuse(r, r->at, "RDATE is not understood: make it an event of its own");
  if (slice_eqz_nocase(p->name, "RECURRENCE-ID"))
    return refuse(r, r->at, "a changed single occurrence of a recurring event is not understood");
  if (slice_eqz_nocase(p->name, "STATUS"))
    ev->cancelled = slice_eqz_nocase(p->value, "CANCELLED");
  if (slice_eqz_nocase(p->name, "SUMMARY"))
    read_summary(r, ev, p->value);
  return 0;
}

/* ------------------------------------------------------------------ events */

static int add(struct reader *r, const struct event *ev, int64_t first, int64_t days) {
  char a[CALENDAR_DAY_TEXT], b[CALENDAR_DAY_TEXT], text[2 * CALENDAR_DAY_TEXT];
  json_t *list = r->lists[ev->workday ? 1 : 0];
  for (int i = 0; i < ev->except_count; i++)
    if (ev->except[i] == first)
      return 0;
  if (json_array_size(list) == CALENDAR_ENTRIES_MAX)
    return refuse(r, ev->line, "more days than a calendar takes");
  if (days > 1)
    (void)snprintf(text, sizeof text, "%s/%s", calendar_day_format(first, a),
                   calendar_day_format(first + days - 1, b));
  else
    (void)snprintf(text, sizeof text, "%s", calendar_day_format(first, a));
  (void)json_array_append_new(list, json_string(text)); /* fails only without memory */
  return 0;
}

/* A 29 February recurs in leap years only, as RFC 5545 has it. */
static int add_years(struct reader *r, const struct event *ev, int64_t days) {
  int64_t year, made = 0;
  int month, day, code = 0;
  civil_from_days(ev->first, &year, &month, &day);
  int64_t interval = ev->interval ? ev->interval : 1;
  for (; code == 0 && year <= r->ask->last_year && year < CRON_LAST_YEAR; year += interval) {
    int64_t first = days_from_civil(year, month, day);
    if (day > month_length(year, month))
      continue;
    if ((ev->until >= 0 && first > ev->until) || (ev->count && made == ev->count))
      break;
    made++;
    code = add(r, ev, first, days);
  }
  return code;
}

static int add_event(struct reader *r, const struct event *ev) {
  if (ev->first < 0)
    return refuse(r, ev->line, "an event without DTSTART");
  if (ev->cancelled || !(ev->holiday || ev->workday))
    return 0;
  int64_t days = ev->end >= 0 ? ev->end - ev->first : ev->days ? ev->days : 1;
  if (days == 0)
    days = 1; /* an end that is the beginning: many programs write so */
  if (days < 0 || days > DAYS_MAX)
    return refuse(r, ev->line, "the event ends before it begins, or years later");
  return ev->yearly ? add_years(r, ev, days) : add(r, ev, ev->first, days);
}

/* From BEGIN:VEVENT to its END; what is nested in it (alarms) is left out. */
static int read_event(struct reader *r) {
  struct event ev = {.line = r->at, .first = -1, .end = -1, .until = -1};
  read_summary(r, &ev, SLICE(""));
  int nested = 0, code;
  while ((code = read_line(r)) > 0) {
    struct property p = split(str_slice(&r->line));
    bool begins = slice_eqz_nocase(p.name, "BEGIN"), ends = slice_eqz_nocase(p.name, "END");
    if (ends && !nested)
      return slice_eqz_nocase(p.value, "VEVENT") ? add_event(r, &ev)
                                                 : refuse(r, r->at, "expected END:VEVENT");
    nested += begins - ends;
    if (nested || ends)
      continue;
    if ((code = read_property(r, &ev, &p)) < 0)
      return code;
  }
  return code < 0 ? code : refuse(r, ev.line, "this event has no END:VEVENT");
}

static int read_all(struct reader *r) {
  int code;
  bool calendar = false;
  while ((code = read_line(r)) > 0) {
    struct property p = split(str_slice(&r->line));
    bool begins = slice_eqz_nocase(p.name, "BEGIN");
    calendar = calendar || (begins && slice_eqz_nocase(p.value, "VCALENDAR"));
    if (!calendar && p.name.n)
      return refuse(r, r->at, "expected BEGIN:VCALENDAR");
    if (begins && slice_eqz_nocase(p.value, "VEVENT") && (code = read_event(r)) < 0)
      return code;
  }
  return code < 0 || calendar ? code : refuse(r, 1, "expected BEGIN:VCALENDAR");
}

int ical_read(struct slice text, const struct ical_ask *ask, json_t **ret, struct err *e) {
  if (text.n > ICAL_MAX)
    return err_set(e, ERR_TOO_LARGE, "expected at most %zu bytes", ICAL_MAX);
  if (!slice_utf8_valid(text))
    return err_set(e, ERR_INVALID, "expected UTF-8");
  if (text.n >= 3 && memcmp(text.p, "\xef\xbb\xbf", 3) == 0)
    text = slice_n(text.p + 3, text.n - 3);
  struct reader r = {.ask = ask, .rest = text, .next = 1, .lists = {json_array(), json_array()}, .e = e};
  str_init(&r.line, ICAL_LINE_MAX);
  int code = read_all(&r);
  str_done(&r.line);
  if (code < 0) {
    json_decref(r.lists[0]);
    json_decref(r.lists[1]);
    return code;
  }
  *ret = json_object();
  (void)json_object_set_new(*ret, "excluded", r.lists[0]); /* fail only without memory */
  (void)json_object_set_new(*ret, "extra_days", r.lists[1]);
  return 0;
}
