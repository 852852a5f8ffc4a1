/* A cron expression: the first byte chooses dialect, rule for changes of offset and zone. What was parsed must agree with itself,
 * and its instants must go up. */
#include "core/schedule.h"
#include "fuzz.h"

static const char *const zones[] = {"UTC0", "CET-1CEST,M3.5.0,M10.5.0/3", "EST5EDT,M3.2.0,M11.1.0",
                                    "AAA3BBB,J60/-30,300/100"};

static void check_words(const struct cron *c, int64_t local) {
  for (int lang = CRON_EN; lang < CRON_LANG_MAX_; lang++) {
    auto_str text;
    str_init(&text, 64 * 1024);
    cron_explain(c, (enum cron_lang)lang, &text);
    assert(!str_failed(&text) && text.n && slice_utf8_valid(str_slice(&text)));
    str_clear(&text);
    cron_mismatch_words(c, local, (enum cron_lang)lang, &text);
    assert(!str_failed(&text) && slice_utf8_valid(str_slice(&text)));
    assert((text.n > 0) == (cron_mismatch(c, local) != 0));
  }
}

static void check_days(const struct cron *c, int64_t local) {
  int64_t year;
  int month, day;
  civil_from_days(local / 86400, &year, &month, &day);
  uint32_t days = cron_days(c, (int)year, month);
  assert(days >> day & 1);
  assert(!(days & ~(((UINT64_C(2) << month_length(year, month)) - 1) & ~UINT64_C(1))));
}

static void check_search(const struct cron *c, int64_t from) {
  int64_t next = cron_next(c, from), least = cron_shortest(c);
  assert(next >= from);
  for (int64_t at = from; at < from + 90 && at < next; at++)
    assert(!cron_matches(c, at) && cron_mismatch(c, at));
  if (next == CRON_NEVER)
    return;
  assert(cron_matches(c, next) && !cron_mismatch(c, next));
  check_days(c, next);
  int64_t after = cron_next(c, next + 1);
  assert(after > next && (after == CRON_NEVER || after - next >= least));
}

static void check_schedule(struct slice expr, enum cron_dialect dialect, uint8_t how) {
  struct zone *z = fuzz_posix_zone(SLICE("Fuzz/Rule"), slice_of(zones[how >> 6]), INT64_MIN);
  struct schedule_input in = {.kind = SCHEDULE_CRON,
                              .expr = expr,
                              .dialect = dialect,
                              .zone = z,
                              .dst = {how >> 2 & 3, how >> 4 & 3},
                              .jitter = how & 1 ? USEC_PER_SEC : 0};
  struct schedule *s = NULL;
  struct err e = {0};
  int r = schedule_new(&in, &s, &e);
  if (r < 0)
    fuzz_check_error(r, &e);
  usec_t at = INT64_C(1774000000) * USEC_PER_SEC;
  for (int i = 0; s && i < 20 && at != USEC_NEVER; i++) {
    usec_t next = schedule_next(s, 0, at);
    assert(next > at);
    struct schedule_note note;
    if (next != USEC_NEVER) {
      schedule_explain(s, next, &note);
      usec_t jitter = schedule_jitter(s, 4711, next);
      assert(jitter >= 0 && (jitter < in.jitter || !in.jitter));
      assert(schedule_next(s, 0, next - 1) == next && schedule_has(s, 0, next));
      assert(schedule_previous(s, 0, next + 1) == next);
      assert(i == 0 || schedule_previous(s, 0, next) == at);
    }
    at = next;
  }
  schedule_free(&s);
  zone_unref(&z);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const int64_t from[] = {0, 951782399, 1774000000, 4107542399, 7258118399};
  if (!size || size > CRON_TEXT_MAX + 8)
    return 0;
  struct slice text = fuzz_slice(data + 1, size - 1);
  enum cron_dialect dialect = (enum cron_dialect)(data[0] % CRON_DIALECT_MAX_);
  struct cron c;
  struct err e = {0};
  int r = cron_parse(text, dialect, &c, &e);
  if (r < 0) {
    fuzz_check_error(r, &e);
    assert(e.column >= 0 && (size_t)e.column <= text.n + 1);
    return 0;
  }
  assert(c.dialect == CRON_QUARTZ || c.dialect == CRON_UNIX);
  check_words(&c, 1774000000 + data[0]);
  for (size_t i = 0; i < sizeof from / sizeof *from; i++)
    check_search(&c, from[i]);
  check_schedule(text, dialect, data[0]);
  return 0;
}
