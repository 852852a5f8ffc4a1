/* What explain answers: a case for every code and every note of explain.def; the test fails when one has none. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "explain_util.h"

static const struct a_case cases[] = {
    /* by the record */
    {EXPLAIN_SUCCESS, 0, NOON, .run = {DONE()}, .says = {"it ran and ended in SUCCESS", "结果为 SUCCESS"}},
    {EXPLAIN_SUCCESS, N(LATE), NOON, .run = {DONE(.fired_at = NOON + 90 * SEC)}},
    {EXPLAIN_SUCCESS, N(STANDS_FOR) | N(LATE), NOON,
     .run = {DONE(.origin = ORIGIN_CATCHUP, .fired_at = NOON + HOUR, .missed_first = NOON - 3 * HOUR,
                  .missed_count = 4)}},
    {EXPLAIN_SUCCESS, N(CAUGHT_UP) | N(LATE), NOON,
     .run = {DONE(.origin = ORIGIN_CATCHUP, .fired_at = NOON + HOUR)}},
    {EXPLAIN_SUCCESS, N(TRIGGERED), NOON + 77, .run = {DONE(.origin = ORIGIN_API, .part = 0x40000001)}},
    {EXPLAIN_SUCCESS, N(RETRY_OF), NOON + 77,
     .run = {DONE(.origin = ORIGIN_RETRY, .part = 0x40000001, .origin_run = "ended")}},
    /* long after its instant on purpose: never late */
    {EXPLAIN_SUCCESS, N(BACKFILLED), NOON - 40 * DAY,
     .run = {DONE(.origin = ORIGIN_BACKFILL, .part = 9, .fired_at = NOON)},
     .says = {"a backfill made it at 2024-10-04T12:00:00Z", "由补跑于 2024-10-04T12:00:00Z 创建"}},
    {EXPLAIN_SUCCESS, N(BACKFILLED), NOON, .v = {RESUMED},
     .run = {DONE(.origin = ORIGIN_BACKFILL, .part = 9, .version = 3, .fired_at = NOON + 2 * HOUR)}},
    /* the version of the resume made them; no jitter, no lateness before it */
    {EXPLAIN_SUCCESS, N(AFTER_PAUSE), NOON, .v = {RESUMED},
     .run = {DONE(.origin = ORIGIN_CATCHUP, .version = 3, .fired_at = NOON + HOUR + 5000)},
     .says = {"v2 paused it at 2024-10-04T10:00:00Z (audit); it was resumed at 2024-10-04T13:00:00Z by v3",
              "恢复时（v3，2024-10-04T13:00:00Z）"}},
    {EXPLAIN_SUCCESS, N(AFTER_PAUSE) | N(LATE), NOON, .v = {RESUMED},
     .run = {DONE(.origin = ORIGIN_CATCHUP, .version = 3, .fired_at = NOON + HOUR + 90 * SEC)},
     .says = {"decided 90s after it was due", "90s"}},
    {EXPLAIN_SUCCESS, N(AFTER_PAUSE) | N(JITTERED), NOON,
     .v = {FIRST(HOURLY ",\"jitter\":\"50m\""),
           {HOURLY ",\"jitter\":\"50m\"", TASK_PAUSED, NOON - HOUR, "audit", 0},
           THEN(HOURLY ",\"jitter\":\"50m\"", NOON + 3 * HOUR)},
     .run = {DONE(.origin = ORIGIN_CATCHUP, .version = 3, .fired_at = NOON + 3 * HOUR + 5000)}},
    {EXPLAIN_MADE_UP, N(AFTER_PAUSE) | N(STANDS_FOR), NOON, .v = {RESUMED},
     .run = {DONE(.at = NOON + HOUR, .origin = ORIGIN_CATCHUP, .version = 3, .fired_at = NOON + HOUR + 5000,
                  .missed_first = NOON - HOUR, .missed_count = 3)}},
    {EXPLAIN_SKIPPED_MISFIRE, N(AFTER_PAUSE) | N(FOLDED), NOON, .v = {RESUMED},
     .run = {{.at = NOON + HOUR,
              .state = RUN_SKIPPED,
              .reason = REASON_MISFIRE,
              .version = 3,
              .fired_at = NOON + HOUR + 5000,
              .missed_first = NOON - HOUR,
              .missed_count = 3}},
     .says = {"it was missed, and misfire_policy", "已错过，misfire_policy"}},
    {EXPLAIN_SUCCESS, N(DEPENDENCY), NOON + 77, .run = {DONE(.origin = ORIGIN_DEPENDENCY, .part = 3)}},
    {EXPLAIN_SUCCESS, N(BROADCAST), NOON, .run = {DONE(.origin = ORIGIN_BROADCAST)}},
    {EXPLAIN_SUCCESS, N(RETRIED), NOON, .run = {{.state = RUN_SUCCESS, .attempt = 3}}},
    {EXPLAIN_SUCCESS, N(GAP_MADE_UP), GAP, .v = {{BERLIN("0 30 2 * * ?"), TASK_ENABLED, GAP - DAY, NULL, 0}},
     .run = {DONE()}},
    {EXPLAIN_SUCCESS, N(GAP_SHIFTED), GAP + 1800 * SEC,
     .v = {{BERLIN("0 30 2 * * ?") ",\"dst_gap\":\"SHIFT\"", TASK_ENABLED, GAP - DAY, NULL, 0}},
     .run = {DONE()}},
    {EXPLAIN_SUCCESS, N(FIRST_COPY), BACK - 1800 * SEC,
     .v = {{BERLIN("0 30 2 * * ?"), TASK_ENABLED, BACK - DAY, NULL, 0}}, .run = {DONE()}},
    {EXPLAIN_SUCCESS, N(SECOND_COPY), BACK + 1800 * SEC,
     .v = {{BERLIN("0 30 2 * * ?") ",\"dst_overlap\":\"LAST\"", TASK_ENABLED, BACK - DAY, NULL, 0}},
     .run = {DONE()}},
    {EXPLAIN_SUCCESS, N(EXTRA_DAY), NOON + 2 * DAY, .v = {FIRST(CRON("0 0 12 ? * MON-FRI") OCTOBER)},
     .run = {DONE()}},
    {EXPLAIN_FAIL_ERROR, 0, NOON, .run = {FAILED(ERROR, .error = "no such file")},
     .says = {"reported an error: no such file", "报告了错误：no such file"}},
    {EXPLAIN_FAIL_ERROR, 0, NOON, .run = {FAILED(ERROR)}, .says = {"reported an error", "报告了错误"}},
    {EXPLAIN_FAIL_TIMEOUT, 0, NOON, .run = {FAILED(TIMEOUT)}},
    {EXPLAIN_FAIL_LOST, 0, NOON, .run = {FAILED(LOST, .executor = "x-1")},
     .says = {"its executor x-1 was lost", "执行器 x-1 失联"}},
    {EXPLAIN_FAIL_REJECTED, 0, NOON, .run = {FAILED(REJECTED)}},
    {EXPLAIN_FAIL_NO_EXECUTOR, 0, NOON, .run = {FAILED(NO_EXECUTOR)}, .says = {"group crew", "crew"}},
    {EXPLAIN_FAIL_EXPIRED, 0, NOON, .run = {{.state = RUN_FAIL, .reason = REASON_EXPIRED}},
     .says = {"its timeout of 1d", "1d"}},
    {EXPLAIN_CANCELLED, 0, NOON, .run = {{.state = RUN_CANCELLED, .attempt = 1}}},
    {EXPLAIN_REPLACED, 0, NOON, .run = {{.state = RUN_CANCELLED, .reason = REASON_REPLACED, .attempt = 1}}},
    {EXPLAIN_RUNNING, 0, NOON,
     .run = {{.state = RUN_RUNNING,
              .reason = REASON_ACCEPTED,
              .attempt = 1,
              .attempt_at = NOON + 6000,
              .started_at = NOON + 7000,
              .executor = "x-1"}},
     .says = {"running since 2024-10-04T12:00:00.007Z, on x-1", "x-1"}},
    {EXPLAIN_RUNNING, 0, NOON, .run = {{.state = RUN_RUNNING, .reason = REASON_PROGRESS, .attempt = 1}},
     .says = {"it is running", "正在执行"}},
    {EXPLAIN_CANCELLING, 0, NOON, .run = {{.state = RUN_RUNNING, .reason = REASON_CANCELLING, .attempt = 1}}},
    {EXPLAIN_DISPATCHING, 0, NOON,
     .run = {{.reason = REASON_DISPATCHING, .attempt = 1, .attempt_at = NOON + 6000}},
     .says = {"group crew since", "crew"}},
    {EXPLAIN_DISPATCHING, 0, NOON, .run = {{.reason = REASON_DISPATCHING, .attempt = 1, .pin = "ops-9"}},
     .says = {"group crew, which can only be ops-9", "只能是 ops-9"}},
    {EXPLAIN_DISPATCHING, 0, NOON, .run = {{.reason = REASON_DISPATCHING, .attempt = 1, .pin = "#ops-9"}},
     .says = {"of the group crew", "crew"}},
    {EXPLAIN_RETRY_WAIT, N(RETRIED), NOON,
     .run = {{.reason = REASON_RETRY_WAIT, .attempt = 2, .not_before = NOON + 30 * SEC, .error = "busy"}},
     .says = {"attempt 2 failed: busy; the next one is made at 2024-10-04T12:00:30Z",
              "第 2 次尝试失败：busy"}},
    {EXPLAIN_RELEASE_WAIT, N(CAUGHT_UP), NOON,
     .run = {{.reason = REASON_SCHEDULED, .origin = ORIGIN_CATCHUP, .not_before = NOON + 9 * SEC}},
     .says = {"release at 2024-10-04T12:00:09Z", "12:00:09Z"}},
    {EXPLAIN_QUEUED, 0, NOON, .run = {{.reason = REASON_QUEUED}}},
    {EXPLAIN_QUEUED_TASK, 0, NOON, .run = {{.reason = REASON_QUEUED, .waits_for = WAIT_TASK}},
     .before = {.at = NOON - HOUR, .state = RUN_RUNNING, .reason = REASON_ACCEPTED},
     .says = {"(overlap_policy QUEUE_ONE): ", "QUEUE_ONE"}},
    {EXPLAIN_QUEUED_GROUP, 0, NOON, .run = {{.reason = REASON_QUEUED, .waits_for = WAIT_GROUP}},
     .says = {"executor group crew", "crew"}},
    {EXPLAIN_QUEUED_NAMESPACE, 0, NOON, .run = {{.reason = REASON_QUEUED, .waits_for = WAIT_NAMESPACE}},
     .says = {"namespace default", "default"}},
    {EXPLAIN_QUEUED_RATE, 0, NOON, .run = {{.reason = REASON_QUEUED, .waits_for = WAIT_RATE}}},
    {EXPLAIN_SKIPPED_OVERLAP, 0, NOON, .run = {{.state = RUN_SKIPPED, .reason = REASON_OVERLAP}},
     .before = {.at = NOON - HOUR, .state = RUN_SUCCESS, .finished_at = NOON + HOUR},
     .says = {"had not ended (", "QUEUE_ONE"}},
    {EXPLAIN_SKIPPED_OVERLAP, 0, NOON, .run = {{.state = RUN_SKIPPED, .reason = REASON_OVERLAP}},
     .before = {.at = NOON - HOUR, .state = RUN_SUCCESS, .finished_at = NOON - 1},
     .says = {"had not ended, or", "还没有结束，"}},
    {EXPLAIN_SKIPPED_CALENDAR, 0, NOON + DAY, .v = {FIRST(CRON("0 0 12 ? * *") OCTOBER)},
     .run = {{.state = RUN_SKIPPED, .reason = REASON_CALENDAR}},
     .says = {"the calendar c excludes", "日历 c "}},
    {EXPLAIN_SKIPPED_MISFIRE, N(LATE), NOON,
     .run = {{.state = RUN_SKIPPED, .reason = REASON_MISFIRE, .fired_at = NOON + 61 * SEC}},
     .says = {"within misfire_threshold (1m)", "FIRE_ONCE"}},
    {EXPLAIN_SKIPPED_MISFIRE, N(FOLDED) | N(LATE), NOON,
     .run = {{.at = NOON + 2 * HOUR,
              .state = RUN_SKIPPED,
              .reason = REASON_MISFIRE,
              .fired_at = NOON + 9 * HOUR,
              .missed_first = NOON - HOUR,
              .missed_count = 4}}},
    {EXPLAIN_SKIPPED_LIMIT, 0, NOON, .run = {{.state = RUN_SKIPPED, .reason = REASON_LIMIT}}},
    {EXPLAIN_MADE_UP, N(STANDS_FOR) | N(LATE), NOON,
     .run = {DONE(.at = NOON + 2 * HOUR, .origin = ORIGIN_CATCHUP, .fired_at = NOON + 3 * HOUR,
                  .missed_first = NOON - HOUR, .missed_count = 4)},
     .says = {"all 4 instants from 2024-10-04T11:00:00Z to 2024-10-04T14:00:00Z", "全部 4 个时刻"}},
    /* two folds of one walk: by the calendar, which one it is in */
    {EXPLAIN_SKIPPED_MISFIRE, N(FOLDED) | N(LATE), NOON, .v = {FIRST(HOURLY OCTOBER)},
     .run = {{.at = NOON + DAY,
              .state = RUN_SKIPPED,
              .reason = REASON_CALENDAR,
              .missed_first = NOON - DAY,
              .missed_count = 24,
              .fired_at = NOON + 3 * DAY},
             {.at = NOON + 2 * DAY,
              .state = RUN_SKIPPED,
              .reason = REASON_MISFIRE,
              .missed_first = NOON - DAY,
              .missed_count = 49,
              .fired_at = NOON + 3 * DAY}}},
    {EXPLAIN_SKIPPED_CALENDAR, N(FOLDED) | N(LATE), NOON + DAY - HOUR, .v = {FIRST(HOURLY OCTOBER)},
     .run = {{.at = NOON + DAY,
              .state = RUN_SKIPPED,
              .reason = REASON_CALENDAR,
              .missed_first = NOON - DAY,
              .missed_count = 24,
              .fired_at = NOON + 3 * DAY},
             {.at = NOON + 2 * DAY,
              .state = RUN_SKIPPED,
              .reason = REASON_MISFIRE,
              .missed_first = NOON - DAY,
              .missed_count = 49,
              .fired_at = NOON + 3 * DAY}}},
    /* what lies between the instants of a range is none of them */
    {EXPLAIN_NOT_IN_CRON, 0, NOON + 1800 * SEC,
     .run = {{.at = NOON + 2 * HOUR,
              .state = RUN_SKIPPED,
              .reason = REASON_MISFIRE,
              .missed_first = NOON - HOUR,
              .missed_count = 4}},
     .says = {"minute 30 is not in 0", "分 30 不在0"}},

    /* by the versions */
    {EXPLAIN_PAUSED, 0, NOON,
     .v = {FIRST(HOURLY),
           PAUSE_AT(NOON - 2 * HOUR),
           {HOURLY, TASK_PAUSED, NOON - HOUR, "edited meanwhile", 0},
           THEN(HOURLY, NOON + HOUR)},
     .says = {"v2 paused it at 2024-10-04T10:00:00Z (audit)", "v2 于 2024-10-04T10:00:00Z 暂停（audit）"}},
    {EXPLAIN_CATCH_UP_ASKED, 0, NOON,
     .v = {FIRST(HOURLY), PAUSE_AT(NOON - 2 * HOUR), THEN(HOURLY, NOON + HOUR)}, .catch_up_to = NOON + HOUR,
     .says = {"resumed by v3 at", "v3"}},
    {EXPLAIN_BEFORE_CREATION, 0, NOON - 2 * DAY, .says = {"v1 created it at 2024-10-03T00:00:00Z", "v1"}},
    {EXPLAIN_AFTER_DELETION, 0, NOON, .v = {FIRST(HOURLY), {HOURLY, TASK_DELETED, NOON - HOUR, NULL, 0}},
     .says = {"by v2 at", "v2"}},
    {EXPLAIN_BEFORE_START, 0, NOON, .v = {FIRST(HOURLY ",\"start_at\":\"2024-10-05T00:00:00Z\"")},
     .says = {"start_at of the schedule, 2024-10-05T00:00:00Z", "2024-10-05"}},
    {EXPLAIN_AFTER_END, 0, NOON,
     .v = {{HOURLY ",\"end_at\":\"2024-10-04T09:00:00Z\"", TASK_COMPLETED, T0 - DAY, NULL, 0}},
     .says = {"2024-10-04T09:00:00Z", "end_at"}},
    {EXPLAIN_MAX_RUNS, 0, NOON, .v = {{HOURLY ",\"max_runs\":3", TASK_COMPLETED, T0 - DAY, NULL, 0}},
     .says = {"max_runs (3)", "max_runs（3）"}},
    {EXPLAIN_MAX_RUNS, 0, 0, .v = {{HOURLY ",\"max_runs\":3", TASK_COMPLETED, T0 - DAY, NULL, 0}}},
    {EXPLAIN_COMPLETED, 0, 0, .v = {{ONCE, TASK_COMPLETED, T0 - DAY, NULL, NOON}}},
    {EXPLAIN_NOT_IN_CRON, 0, NOON + 30 * SEC, .says = {"second 30 is not in 0", "秒 30 不在0"}},
    {EXPLAIN_NOT_IN_CRON, 0, NOON + 1, .says = {"whole seconds", "整秒"}},
    {EXPLAIN_NOT_IN_CRON, N(WAS_PAUSED), NOON + 30 * SEC, .v = {FIRST(HOURLY), PAUSE_AT(NOON)},
     .says = {"second 30", "秒 30"}},
    {EXPLAIN_NOT_IN_RATE, 0, NOON + 1, .v = {FIRST(EVERY("1h"))},
     .says = {"2024-10-03T00:00:00Z and every 1h", "每隔 1h"}},
    {EXPLAIN_NOT_THE_ONE_TIME, 0, NOON + 1, .v = {{ONCE, TASK_COMPLETED, T0 - DAY, NULL, NOON}},
     .says = {"2024-10-04T12:00:00Z", "12:00:00Z"}},
    {EXPLAIN_NO_SCHEDULE, 0, NOON, .v = {FIRST(MANUAL)}},
    {EXPLAIN_NO_SCHEDULE, 0, 0, .v = {FIRST(MANUAL)}},
    {EXPLAIN_FIXED_DELAY, 0, NOON, .v = {FIRST(DELAY("5m"))}, .says = {"by 5m", "5m"}},
    {EXPLAIN_IN_EARLIER_VERSION, 0, NOON, .v = {FIRST(HOURLY), THEN(CRON("0 30 * * * ?"), NOON - HOUR)},
     .says = {"version 1; v2 changed that at", "版本 1"}},
    {EXPLAIN_IN_LATER_VERSION, 0, NOON + 1800 * SEC,
     .v = {FIRST(HOURLY), THEN(CRON("0 30 * * * ?"), NOON + HOUR)},
     .says = {"version 2, which v2 made only at", "版本 2"}},
    {EXPLAIN_BETWEEN_VERSIONS, 0, NOON,
     .v = {FIRST(CRON("0 0 * * * ?") ",\"jitter\":\"50m\""), THEN(CRON("0 30 * * * ?"), NOON + 1)},
     .says = {"v2 made version 2", "版本 2"}},
    {EXPLAIN_NOT_DECIDED, N(JITTERED), NOON, .decided = NOON + 1, .now = NOON + HOUR,
     .v = {FIRST(CRON("0 0 * * * ?") ",\"jitter\":\"50m\""), THEN(HOURLY, NOON + 1)}},
    {EXPLAIN_DST_OTHER_COPY, 0, BACK + 1800 * SEC,
     .v = {{BERLIN("0 30 2 * * ?"), TASK_ENABLED, BACK - DAY, NULL, 0}},
     .says = {"Europe/Berlin", "Europe/Berlin"}},
    {EXPLAIN_DST_LEFT_OUT, 0, GAP, .left_out = GAP / SEC + 3600 + 60,
     .v = {{BERLIN("0 30 2 * * ?"), TASK_ENABLED, GAP - DAY, NULL, 0}},
     .says = {"no such local time", "没有这个本地时间"}},
    {EXPLAIN_DST_SKIPPED, 0, GAP, .left_out = GAP / SEC + 3600 + 1800,
     .v = {{BERLIN("0 30 * * * ?"), TASK_ENABLED, GAP - DAY, NULL, 0}}},
    {EXPLAIN_DST_MADE_UP, 0, GAP, .left_out = GAP / SEC + 3600 + 1800,
     .v = {{BERLIN("0 30 2 * * ?"), TASK_ENABLED, GAP - DAY, NULL, 0}},
     .says = {"fires at 2024-03-31T03:00:00+02:00", "03:00:00+02:00"}},
    {EXPLAIN_FUTURE, 0, NOON + DAY, .says = {"due at 2024-10-05T12:00:00Z", "将于"}},
    {EXPLAIN_FUTURE, N(JITTERED), NOON + DAY, .v = {FIRST(HOURLY ",\"jitter\":\"10m\"")}},
    {EXPLAIN_FUTURE_CALENDAR, 0, NOON + DAY, .v = {FIRST(HOURLY OCTOBER)}, .now = NOON,
     .says = {"calendar c", "日历 c"}},
    {EXPLAIN_FUTURE_PAUSED, 0, NOON + DAY, .v = {FIRST(HOURLY), PAUSE_AT(NOON - HOUR)},
     .says = {"v2 paused it", "v2"}},
    {EXPLAIN_NOT_DECIDED, 0, NOON, .decided = NOON - 1, .now = NOON + HOUR,
     .says = {"got to 2024-10-04T11:59:59.999", "11:59:59.999"}},
    /* the watermark is a pair */
    {EXPLAIN_NOT_DECIDED, 0, NOON, .decided = NOON, .decided_task = TASK - 1, .now = NOON + HOUR},
    {EXPLAIN_NO_RECORD, 0, NOON, .decided = NOON, .decided_task = TASK, .now = NOON + HOUR},
    {EXPLAIN_RECORD_DROPPED, 0, NOON, .kept_since = NOON + 1,
     .says = {"before 2024-10-04T12:00:00.000001Z", "之前的记录"}},
    {EXPLAIN_NO_RECORD, 0, NOON, .kept_since = NOON},
    {EXPLAIN_NO_ZONE, 0, NOON, .v = {FIRST("-")}, .says = {"version 1", "版本 1"}},
    {EXPLAIN_NO_ZONE, 0, 0, .v = {FIRST("-")}},

    /* the present */
    {EXPLAIN_NEXT_AHEAD, 0, 0, .says = {"next instant is 2024-10-04T23:00:00Z", "23:00:00Z"}},
    {EXPLAIN_NEXT_AHEAD, 0, 0, .v = {FIRST(CRON("0 0 12 ? * *") OCTOBER)},
     .says = {"2024-10-06T12:00:00Z", "10-06"}},
    {EXPLAIN_NOT_DECIDED, 0, 0, .decided = NOON - 1, .now = NOON + HOUR},
    {EXPLAIN_DELAY_AHEAD, 0, 0, .v = {FIRST(DELAY("5m"))},
     .before = {.at = NOON, .state = RUN_FAIL, .finished_at = T0 + 22 * HOUR},
     .says = {"2024-10-04T22:05:00Z, 5m after", "5m"}},
    {EXPLAIN_PAUSED_NOW, 0, 0, .v = {FIRST(HOURLY), PAUSE_AT(NOON)}, .says = {"v2 paused it at", "v2"}},
    {EXPLAIN_NONE_LEFT, 0, 0, .v = {FIRST(HOURLY ",\"end_at\":\"2024-10-04T09:00:00Z\"")}},
    {EXPLAIN_AFTER_DELETION, 0, 0, .v = {FIRST(HOURLY), {HOURLY, TASK_DELETED, NOON, NULL, 0}}},
    {EXPLAIN_RUNNING, 0, 0,
     .run = {{.at = NOON - HOUR, .reason = REASON_QUEUED, .open = true},
             {.at = NOON, .state = RUN_RUNNING, .reason = REASON_ACCEPTED, .attempt = 1, .open = true}}},
};

/* ------------------------------------------------------------------ the table */

static void check_text(size_t i, const char *text, const char *says) {
  if (!*text || strpbrk(text, "{}[]"))
    fail_msg("case %zu: not all is filled in: %s", i, text);
  if (says && !strstr(text, says))
    fail_msg("case %zu: \"%s\" is not in: %s", i, says, text);
}

static void check_case(size_t i) {
  const struct a_case *c = &cases[i];
  struct world w;
  struct explain_answer a;
  answer(&w, c, &a);
  if (a.code != c->code)
    fail_msg("case %zu: %s instead of %s", i, explain_code_names[a.code], explain_code_names[c->code]);
  if (a.notes != c->notes)
    fail_msg("case %zu (%s): notes %x instead of %x", i, explain_code_names[c->code], a.notes, c->notes);
  for (int lang = 0; lang < CRON_LANG_MAX_; lang++) {
    auto_str text;
    str_init(&text, 8192);
    explain_text(&w.f, &a, (enum cron_lang)lang, &text);
    check_text(i, text.p ? text.p : "", NULL);
    auto_str all;
    str_init(&all, 65536);
    str_add(&all, str_slice(&text));
    for (int n = 0; n < EXPLAIN_NOTE_MAX_; n++) {
      if (!(a.notes >> n & 1))
        continue;
      str_clear(&text);
      explain_note_text(&w.f, &a, (enum explain_note)n, (enum cron_lang)lang, &text);
      check_text(i, text.p ? text.p : "", NULL);
      str_addc(&all, '\n');
      str_add(&all, str_slice(&text));
    }
    check_text(i, all.p, c->says[lang]);
  }
  drop(&w);
}

static void test_every_code(void **state) {
  bool seen[EXPLAIN_CODE_MAX_] = {0};
  uint32_t notes = 0;
  (void)state;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    check_case(i);
    seen[cases[i].code] = true;
    notes |= cases[i].notes;
  }
  for (int code = 0; code < EXPLAIN_CODE_MAX_; code++)
    if (!seen[code])
      fail_msg("the code %s has no case", explain_code_names[code]);
  for (int note = 0; note < EXPLAIN_NOTE_MAX_; note++)
    if (!(notes >> note & 1))
      fail_msg("the note %s has no case", explain_note_names[note]);
}

/* A state, a reason, something to wait for, an origin that nobody has thought of here. */
static void test_every_word_has_its_code(void **state) {
  bool reasons[REASON_MAX_] = {[REASON_NONE] = true}, waits[WAIT_MAX_] = {0},
       origins[ORIGIN_MAX_] = {[ORIGIN_SCHEDULE] = true};
  (void)state;
#define RUN(state, reason, code) reasons[REASON_##reason] = true;
#define WAIT(wait, code)         waits[WAIT_##wait] = true;
#define ORIGIN(origin, note)     origins[ORIGIN_##origin] = true;
#include "core/explain.def"
  for (int i = 0; i < REASON_MAX_; i++)
    if (!reasons[i])
      fail_msg("explain.def has no RUN for %s", run_reason_names[i]);
  for (int i = 0; i < WAIT_MAX_; i++)
    if (!waits[i])
      fail_msg("explain.def has no WAIT for %s", run_wait_names[i]);
  for (int i = 0; i < ORIGIN_MAX_; i++)
    if (!origins[i])
      fail_msg("explain.def has no ORIGIN for %s", run_origin_names[i]);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_code),
                                     cmocka_unit_test(test_every_word_has_its_code)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
