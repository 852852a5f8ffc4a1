/* kelou calendar put and import. */
#include "cli/calendars.h"
#include "base/mem.h"
#include "cli/client.h"
#include "cli/input.h"
#include "cli/output.h"
#include "cli/words.h"
#include "core/calendar.h"

struct ical_ask calendar_ask_default(void) {
  int64_t year;
  int month, day;
  civil_from_days(clock_system.wall(&clock_system) / USEC_PER_DAY, &year, &month, &day);
  return (struct ical_ask){.last_year = (int)year + ICAL_YEARS_MORE};
}

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

int calendar_file(const char *path, bool ics, const struct ical_ask *ask, json_t **ret, struct err *e) {
  if (!ics && !ends_with(path, ".ics"))
    return input_document(path, ret, e);
  auto_str text;
  struct err why = {0};
  str_init(&text, ICAL_MAX);
  int r = input_bytes(path, ICAL_MAX, &text, e);
  if (r < 0)
    return r;
  r = ical_read(str_slice(&text), ask, ret, &why);
  return r < 0 ? err_set(e, r, "%s: %s", path, why.text) : 0;
}

/* Without what the server made: a document as it gave it may be sent back. */
static void strip(json_t *doc) {
  static const char *const made[] = {"name",       "namespace",  "version",   "tasks",
                                     "created_at", "updated_at", "updated_by"};
  for (size_t i = 0; i < sizeof made / sizeof *made; i++)
    (void)json_object_del(doc, made[i]); /* absent is fine */
}

static int send(const struct invocation *given, const struct request *r) {
  struct client *c = NULL;
  auto_json *answer = NULL;
  int code = client_open(given, &c);
  if (code == 0)
    code = call_once(c, given, r, &answer);
  if (code == 0)
    code = output_show(given, answer);
  client_close(&c);
  return code;
}

int calendar_put_run(const struct invocation *given) {
  auto_request r = {0};
  int code = request_build(given, &r);
  if (code)
    return code;
  strip(r.body);
  return send(given, &r);
}

/* The file's events as the one normal form of a calendar. */
static int read_events(const struct invocation *given, json_t **ret, struct err *e) {
  struct ical_ask ask = calendar_ask_default();
  auto_json *events = NULL;
  auto_calendar *calendar = NULL;
  ask.holiday_if = slice_of(given->values[OPT_holiday_if]);
  ask.workday_if = slice_of(given->values[OPT_workday_if]);
  int r = calendar_file(given->args[1], true, &ask, &events, e);
  if (r < 0 || (r = calendar_read(events, &calendar, e)) < 0)
    return r;
  *ret = calendar_json(calendar);
  return 0;
}

int calendar_import_run(const struct invocation *given) {
  auto_request r = {0};
  struct err e = {0};
  json_t *doc = NULL;
  if (read_events(given, &doc, &e) < 0) {
    words_complain(SAY_plain, e.text, NULL);
    return err_exit(e.code);
  }
  if (given->values[OPT_dry_run]) {
    int code = output_show(given, doc);
    json_decref(doc);
    return code;
  }
  int code = request_build(given, &r);
  json_decref(r.body);
  r.body = doc;
  return code ? code : send(given, &r);
}
