/* Crontabs and systemd timers as documents: what is made, and what is said to be lost. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/mem.h"
#include "cli/cron_zones.h"
#include "cli/import.h"
#include "core/cron.h"
#include <stdio.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ------------------------------------------------------------------ calendar events */

static void test_calendar(void **state) {
  (void)state;
  static const char *const rows[][3] = {
      {"minutely", "0 * * * * ?", ""},
      {"hourly", "0 0 * * * ?", ""},
      {"daily", "0 0 0 * * ?", ""},
      {"weekly", "0 0 0 ? * MON", ""},
      {"monthly", "0 0 0 1 * ?", ""},
      {"quarterly", "0 0 0 1 1,4,7,10 ?", ""},
      {"semiannually", "0 0 0 1 1,7 ?", ""},
      {"yearly", "0 0 0 1 1 ?", ""},
      {"annually UTC", "0 0 0 1 1 ?", "UTC"},
      {"*-*-* 06,18:00", "0 0 6,18 * * ?", ""},
      {"09:30", "0 30 9 * * ?", ""},
      {"*:0/15", "0 0/15 * * * ?", ""},
      {"*:*:0/10", "0/10 * * * * ?", ""},
      {"8..18/2:05:30", "30 5 8-18/2 * * ?", ""},
      {"Mon..Fri 02:30 Europe/Berlin", "0 30 2 ? * MON-FRI", "Europe/Berlin"},
      {"Mon,Wed,sat *-*-* 01:00:00", "0 0 1 ? * MON,WED,SAT", ""},
      {"Saturday..Monday 12:00", "0 0 12 ? * SUN-MON,SAT", ""},
      {"Fri", "0 0 0 ? * FRI", ""},
      {"*-*~01", "0 0 0 L * ?", ""},
      {"*-02~03 10:00", "0 0 10 L-2 2 ?", ""},
      {"*-*~1..3", "0 0 0 L-2,L-1,L * ?", ""},
      {"Mon *-*-1..7", "0 0 0 ? * 2#1", ""},
      {"Tue,Thu *-*-15..21 08:00", "0 0 8 ? * 3#3,5#3", ""},
      {"Sun *-*~07/1 03:00", "0 0 3 ? * 1L", ""},
      {"2027-12-24 18:00", "0 0 18 24 12 ? 2027", ""},
      {"27..29-*-01", "0 0 0 1 * ? 2027-2029", ""},
      {"5-1 Asia/Shanghai", "0 0 0 1 5 ?", "Asia/Shanghai"},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct slice zone;
    struct cron cron;
    struct err e = {0};
    auto_str out;
    str_init(&out, 512);
    int r = calendar_translate(slice_of(rows[i][0]), &out, &zone, &e);
    if (r < 0)
      print_error("%s: %s\n", rows[i][0], e.text);
    assert_int_equal(r, 0);
    assert_string_equal(out.p, rows[i][1]);
    assert_true(slice_eqz(zone, rows[i][2]));
    assert_int_equal(cron_parse(str_slice(&out), CRON_QUARTZ, &cron, &e), 0);
  }
}

static void test_bad_calendar(void **state) {
  (void)state;
  static const char *const rows[][2] = {
      {"", "expected weekdays"},           {"UTC", "expected weekdays"},
      {"@1395716396", "since 1970"},       {"*:*:0/0.5", "parts of a second"},
      {"Mon *-*-05", "weekdays and days"}, {"Mon *-*-2..8", "weekdays and days"},
      {"*-*-*/0", "repetition of 0"},      {"09:00 10:00", "a time stands"},
      {"*-1-1 *-2-2", "a date stands"},    {"9", "expected weekdays"},
      {"09:", "expected a time"},          {"*-*-", "expected a date"},
      {"1:2:3:4", "expected a time"},      {"*-*~40", "before the end"},
      {"*-*~5..1/2", "a range before"},    {"x:00", ""},
      {"1-2-3-4", "expected a date"}};
  for (size_t i = 0; i < COUNT(rows); i++) {
    struct slice zone;
    struct err e = {0};
    auto_str out;
    str_init(&out, 512);
    assert_int_equal(calendar_translate(slice_of(rows[i][0]), &out, &zone, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, rows[i][1]));
    assert_int_equal(out.n, 0);
  }
}

static void test_timespan(void **state) {
  (void)state;
  static const struct {
    const char *text;
    usec_t length;
  } rows[] = {{"90", 90 * USEC_PER_SEC},
              {"1h 30min", 90 * USEC_PER_MIN},
              {"1h30min", 90 * USEC_PER_MIN},
              {"2 weeks", 14 * USEC_PER_DAY},
              {"05m", 5 * USEC_PER_MIN},
              {"1d 2hr 3sec 4ms 5us", USEC_PER_DAY + 2 * USEC_PER_HOUR + 3 * USEC_PER_SEC + 4005},
              {"infinity", USEC_NEVER},
              {"0", 0}};
  static const char *const bad[] = {
      "", "h", "5 parsecs", "1.5h", "99999999999999999999", "9999999999999 years", "-1"};
  usec_t d;
  for (size_t i = 0; i < COUNT(rows); i++) {
    assert_int_equal(timespan_parse(slice_of(rows[i].text), &d, NULL), 0);
    assert_int_equal(d, rows[i].length);
  }
  for (size_t i = 0; i < COUNT(bad); i++)
    assert_int_equal(timespan_parse(slice_of(bad[i]), &d, NULL), ERR_INVALID);
}

/* ------------------------------------------------------------------ whole sources */

static void begin(struct import *im) {
  *im = (struct import){
      .group = "g", .handler = "h", .zone = "UTC", .zones = cli_zones_new(CLI_ZONEINFO_DEFAULT)};
  import_init(im);
}

/* What "a.b" in the only task, or in that of number `i`, is; "": it is not there. */
static const char *field(const struct import *im, size_t i, const char *path) {
  static char text[1024];
  const json_t *j = json_array_get(im->tasks, i);
  for (struct slice rest = slice_of(path); rest.n && j;) {
    struct slice head = slice_cut(rest, '.', &rest);
    j = json_object_getn(j, head.p, head.n);
  }
  if (json_is_string(j))
    return json_string_value(j);
  auto_free char *whole = j ? json_text(j) : mem_strdup("");
  (void)snprintf(text, sizeof text, "%s", whole);
  return text;
}

static bool says(const struct import *im, const char *what) {
  for (size_t i = 0; i < json_array_size(im->lost); i++)
    if (strstr(json_string_value(json_array_get(im->lost, i)), what))
      return true;
  return false;
}

struct crontab_row {
  const char *text;
  bool user;
  const char *name, *expression, *field, *is; /* NULL name: no task; of the last task */
  const char *lost;                           /* NULL: nothing */
};

static void test_crontab(void **state) {
  (void)state;
  static const struct crontab_row rows[] = {
      {"30 2 * * * /usr/bin/backup.sh --full\n", false, "backup.sh", "30 2 * * *", "payload.command",
       "/usr/bin/backup.sh --full", NULL},
      {"@daily run", false, "run", "@daily", "schedule.timezone", "UTC", NULL},
      {"\t*/5\t*  * * Mon-Fri\tx y \r\n", false, "x", "*/5 * * * Mon-Fri", "payload.command", "x y", NULL},
      {"CRON_TZ=Asia/Shanghai\n0 9 * * * x", false, "x", "0 9 * * *", "schedule.timezone", "Asia/Shanghai",
       NULL},
      {"A = 'b c'\n  D=\"\"\n0 9 * * * x", false, "x", "0 9 * * *", "payload.environment",
       "{\"A\":\"b c\",\"D\":\"\"}", NULL},
      {"RANDOM_DELAY=30\n0 9 * * * x", false, "x", "0 9 * * *", "schedule.jitter", "30m", NULL},
      {"RANDOM_DELAY=30\n*/5 * * * * x", false, "x", "*/5 * * * *", "schedule.jitter", "", "random delay"},
      {"# what it\n# does\n0 9 * * * x", false, "x", "0 9 * * *", "description", "what it does", NULL},
      {"# head\n\n#0 1 * * * old\n0 9 * * * x", false, "x", "0 9 * * *", "description", "", NULL},
      {"0 9 * * * a%b\\%c%d", false, "a-b--c-d", "0 9 * * *", "payload.stdin", "b%c\nd", NULL},
      {"0 9 * * * x 5\\%", false, "x", "0 9 * * *", "payload.command", "x 5%", NULL},
      {"-0 9 * * * x", false, "x", "0 9 * * *", "payload.command", "x", NULL},
      {"0 9 * * * root /sbin/x -a", true, "x", "0 9 * * *", "payload.user", "root", NULL},
      {"@hourly www cd /srv && ./poll", true, "poll", "@hourly", "payload.command", "cd /srv && ./poll",
       NULL},
      {"0 9 * * * A=/b x >/dev/null 2>&1", false, "A--b", "0 9 * * *", "overlap_policy", "ALLOW", NULL},
      {"0 9 * * * x\n0 10 * * * x", false, "x-2", "0 10 * * *", "misfire_policy", "SKIP", NULL},
      {"MAILTO=a@example.org\n0 9 * * * x", false, "x", "0 9 * * *", "payload.environment", "",
       "tab:1: MAILTO"},
      {"MAILTO=\"\"\n0 9 * * * x", false, "x", "0 9 * * *", "payload.environment", "", NULL},
      {"@reboot x", false, NULL, NULL, NULL, NULL, "tab:1: not translated: @reboot"},
      {"# c\n\n61 * * * * x", false, NULL, NULL, NULL, NULL, "tab:3: not translated: minute"},
      {"@fortnightly x", false, NULL, NULL, NULL, NULL, "not translated"},
      {"* * * *", false, NULL, NULL, NULL, NULL, "expected five fields"},
      {"0 9 * * * root", true, NULL, NULL, NULL, NULL, "expected five fields"},
      {"0 9 30 2 * x", false, NULL, NULL, NULL, NULL, "not translated"},
      {"CRON_TZ=Nowhere/Land\n0 9 * * * x", false, NULL, NULL, NULL, NULL, "Nowhere"},
      {"0 9 * * * \xff", false, NULL, NULL, NULL, NULL, "UTF-8"},
      {"# nothing\n\nA=b\n", false, NULL, NULL, NULL, NULL, NULL},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    const struct crontab_row *row = &rows[i];
    struct import im;
    begin(&im);
    import_crontab(&im, "tab", slice_of(row->text), row->user);
    size_t n = json_array_size(im.tasks);
    assert_true((n > 0) == (row->name != NULL));
    if (row->name) {
      assert_string_equal(field(&im, n - 1, "name"), row->name);
      assert_string_equal(field(&im, n - 1, "schedule.expression"), row->expression);
      assert_string_equal(field(&im, n - 1, row->field), row->is);
    }
    assert_int_equal(json_array_size(im.lost), row->lost ? 1 : 0);
    assert_true(!row->lost || says(&im, row->lost));
    import_done(&im);
  }
}

struct timer_row {
  const char *timer, *service; /* NULL: there is none */
  size_t tasks;
  const char *field, *is; /* of the first */
  const char *lost;       /* NULL: nothing */
};
#define SERVICE "[Service]\nExecStart=/bin/x\n"

static void test_timer(void **state) {
  (void)state;
  static const struct timer_row rows[] = {
      {"[Timer]\nOnCalendar=daily\n", SERVICE, 1, "schedule.expression", "0 0 0 * * ?", NULL},
      {"[Timer]\nOnCalendar=daily\n", SERVICE, 1, "misfire_policy", "SKIP", NULL},
      {"[Timer]\nOnCalendar=daily\nPersistent=yes\n", SERVICE, 1, "misfire_policy", "FIRE_ONCE", NULL},
      {"[Timer]\nOnCalendar=daily\n", SERVICE, 1, "schedule.timezone", "UTC", NULL},
      {"[Timer]\nOnCalendar=daily Asia/Tokyo\n", SERVICE, 1, "schedule.timezone", "Asia/Tokyo", NULL},
      {"[Timer]\nOnCalendar=hourly\nOnCalendar=\nOnCalendar=daily\n", SERVICE, 1, "name", "job", NULL},
      {"[Timer]\nOnCalendar=hourly\nOnCalendar=daily\n", SERVICE, 2, "overlap_policy", "SKIP",
       "one of 2 tasks"},
      {"[Timer]\nOnCalendar=daily\nRandomizedDelaySec=1h\n", SERVICE, 1, "schedule.jitter", "1h", NULL},
      {"[Timer]\nOnCalendar=daily\nRandomizedDelaySec=2d\n", SERVICE, 1, "schedule.jitter", "",
       "random delay"},
      {"[Timer]\nOnUnitActiveSec=15min\n", SERVICE, 1, "schedule",
       "{\"kind\":\"FIXED_RATE\",\"every\":\"15m\"}", NULL},
      {"[Timer]\nOnUnitInactiveSec=1d\n", SERVICE, 1, "schedule",
       "{\"kind\":\"FIXED_DELAY\",\"every\":\"1d\"}", NULL},
      {"[Timer]\nOnBootSec=5min\nOnUnitActiveSec=1h\n", SERVICE, 1, "schedule.every", "1h", "OnBootSec="},
      {"[Timer]\nOnBootSec=5min\n", SERVICE, 0, NULL, NULL, "OnBootSec="},
      {"[Timer]\nOnUnitActiveSec=soon\n", SERVICE, 0, NULL, NULL, "OnUnitActiveSec=soon"},
      {"[Timer]\nOnCalendar=Mon *-*-05\n", SERVICE, 0, NULL, NULL, "OnCalendar=Mon *-*-05"},
      {"[Timer]\n", SERVICE, 0, NULL, NULL, "nothing says when"},
      {"[Timer]\nOnCalendar=daily\nWakeSystem=true\nRemainAfterElapse=no\n", SERVICE, 1, "name", "job",
       "translated: WakeSystem="},
      {"[Unit]\nDescription=D\n[Timer]\nOnCalendar=daily\n", SERVICE, 1, "description", "D", NULL},
      {"[Timer]\nOnCalendar=daily\n", NULL, 1, "payload", "{\"unit\":\"job.service\"}",
       "job.service was not found"},
      {"[Timer]\nOnCalendar=daily\nUnit=other.service\n", NULL, 1, "payload.unit", "other.service",
       "other.service was not found"},
      {"[Timer]\nOnCalendar=daily\n", "[Service]\nType=oneshot\n", 1, "payload.command", "", "no ExecStart="},
      {"[Timer]\nOnCalendar=daily\n",
       "[Service]\nExecStart=/bin/x \\\n# note\n  y\nUser=u\nWorkingDirectory=/w\n", 1, "payload",
       "{\"unit\":\"job.service\",\"command\":\"/bin/x  y\",\"user\":\"u\",\"working_directory\":\"/w\"}",
       NULL},
      {"[Timer]\nOnCalendar=daily\n", SERVICE "Environment=A=1 \"B=2 3\"\nEnvironment='C=\"'\n", 1,
       "payload.environment", "{\"A\":\"1\",\"B\":\"2 3\",\"C\":\"\\\"\"}", NULL},
      {"[Timer]\nOnCalendar=daily\n", "[Service]\nExecStart=-@/bin/x\n", 1, "payload.command", "/bin/x",
       "\"-@\""},
      {"[Timer]\nOnCalendar=daily\n", SERVICE "ExecStart=/bin/y\n", 1, "payload.command", "/bin/x",
       "only the first"},
      {"[Timer]\nOnCalendar=daily\n", "[Service]\nExecStart=/bin/x %i\n", 1, "name", "job", "specifiers"},
      {"[Timer]\nOnCalendar=daily\n", "[Service]\nExecStart=/bin/x 5%%\n", 1, "name", "job", NULL},
      {"[Timer]\nOnCalendar=daily\n", SERVICE "Type=oneshot\nTimeoutStartSec=3h\n", 1, "attempt_timeout",
       "3h", NULL},
      {"[Timer]\nOnCalendar=daily\n", SERVICE "TimeoutStartSec=3h\nRuntimeMaxSec=2d\n", 1, "timeout", "2d",
       NULL},
      {"[Timer]\nOnCalendar=daily\n", SERVICE "Type=oneshot\nTimeoutStartSec=infinity\n", 1,
       "attempt_timeout", "24h", NULL},
      {"[Timer]\nOnCalendar=daily\n", "[Unit]\nConditionACPower=true\n" SERVICE "Nice=5\n", 1, "name", "job",
       "Nice=, ConditionACPower="},
  };
  for (size_t i = 0; i < COUNT(rows); i++) {
    const struct timer_row *row = &rows[i];
    struct import im;
    auto_json *timer = unit_read(slice_of(row->timer)),
              *service = row->service ? unit_read(slice_of(row->service)) : NULL;
    begin(&im);
    import_timer(&im, "dir/job.timer", "job.timer", timer, service);
    assert_int_equal(json_array_size(im.tasks), row->tasks);
    if (row->field)
      assert_string_equal(field(&im, 0, row->field), row->is);
    assert_int_equal(json_array_size(im.lost), row->lost ? 1 : 0);
    assert_true(!row->lost || says(&im, row->lost));
    import_done(&im);
  }
}

/* What is lost of a task stands with its document, too. */
static void test_remarks(void **state) {
  (void)state;
  struct import im;
  begin(&im);
  im.ns = "ops";
  import_crontab(&im, "tab", SLICE("RANDOM_DELAY=9\n* * * * * x\n"), false);
  const json_t *remarks = json_object_get(im.remarks, "ops/x");
  assert_int_equal(json_array_size(remarks), 1);
  assert_non_null(strstr(json_string_value(json_array_get(remarks, 0)), "random delay"));
  assert_string_equal(field(&im, 0, "namespace"), "ops");
  import_done(&im);
  auto_json *timer = unit_read(SLICE("[Timer]\nOnCalendar=daily\n"));
  begin(&im);
  import_timer(&im, "job@.timer", "job@.timer", timer, NULL);
  assert_int_equal(json_array_size(im.tasks), 0);
  assert_true(says(&im, "template"));
  import_done(&im);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_calendar), cmocka_unit_test(test_bad_calendar),
                                     cmocka_unit_test(test_timespan), cmocka_unit_test(test_crontab),
                                     cmocka_unit_test(test_timer),    cmocka_unit_test(test_remarks)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
