/* The instants of a backfill, its request in the inbox, and what the shard makes of it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "core/backfill.h"
#include "core/inbox.h"
#include "core/schedule.h"
#include "spec_util.h"

#define HOUR USEC_PER_HOUR
#define T0   (20000 * USEC_PER_DAY)

static int setup(void **state) {
  (void)state;
  specs_open();
  return 0;
}

static int teardown(void **state) {
  (void)state;
  specs_close();
  return 0;
}

static void check(const char *schedule, usec_t anchor, usec_t from, usec_t to, int64_t count, usec_t first,
                  usec_t last) {
  struct task_spec *spec = spec_of(schedule, "");
  usec_t a = 0, z = 0;
  assert_true(backfill_possible(spec));
  assert_int_equal(backfill_count(spec, anchor, from, to, 100, &a, &z), count);
  assert_true(a == first && z == last);
  task_spec_unref(&spec);
}

static void test_instants(void **state) {
  (void)state;
  check(EVERY("1h"), T0, T0 - 3 * HOUR, T0 - HOUR, 3, T0 - 3 * HOUR, T0 - HOUR); /* before the anchor */
  check(EVERY("1h"), T0 + 7, T0 - HOUR, T0 + HOUR, 2, T0 - HOUR + 7, T0 + 7);
  check(EVERY("1h"), T0, T0 + HOUR, T0 + HOUR, 1, T0 + HOUR, T0 + HOUR); /* both ends are in it */
  check(EVERY("1h"), T0, T0 + 1, T0 + HOUR - 1, 0, 0, 0);
  check(EVERY("1s"), T0, T0, T0 + HOUR, 100, T0, T0 + 99 * USEC_PER_SEC);
  check("\"kind\":\"CRON\",\"expression\":\"0 0 * * * ?\"", 0, T0, T0 + 5 * HOUR, 6, T0, T0 + 5 * HOUR);
  for (int i = 0; i < 2; i++) {
    struct task_spec *spec = spec_of(i ? MANUAL : DELAY("1h"), "");
    assert_false(backfill_possible(spec));
    task_spec_unref(&spec);
  }
}

static const struct inbox_item item = {.kind = INBOX_BACKFILL,
                                       .by = {"me", 2},
                                       .request = {.key = {.task_id = 1, .part = 0x40000007},
                                                   .from = T0 - 3 * HOUR,
                                                   .to = T0,
                                                   .limit = 3,
                                                   .interval = USEC_PER_SEC,
                                                   .payload = {"{\"a\":1}", 7}}};

static void read_back(const char *body, struct arena *mem, struct inbox_item *ret) {
  struct inbox_text row = {1, INBOX_BACKFILL, 9, slice_of(body)};
  struct err e = {0};
  if (inbox_parse(&row, mem, ret, &e) < 0)
    fail_msg("%s", e.text);
}

static void test_inbox(void **state) {
  (void)state;
  auto_arena mem = {0};
  struct inbox_item got;
  auto_free char *body = inbox_body(&item);
  read_back(body, &mem, &got);
  assert_true(got.request.from == item.request.from && got.request.to == item.request.to);
  assert_true(got.request.limit == 3 && got.request.interval == USEC_PER_SEC &&
              got.request.key.part == 0x40000007);
  assert_true(slice_eqz(got.request.payload, "{\"a\":1}") && got.request.origin == ORIGIN_BACKFILL);
  struct inbox_text bad = {
      1, INBOX_BACKFILL, 9,
      SLICE("{\"task_id\":1,\"from\":5,\"to\":4,\"part\":1,\"limit\":1,\"interval\":1}")};
  struct err e = {0};
  assert_int_equal(inbox_parse(&bad, &mem, &got, &e), ERR_INVALID);
}

static enum overlap_decision refuse(void *arg, const struct overlap_ask *ask) {
  (void)arg, (void)ask;
  fail(); /* a backfill reserves nothing when it is made */
  return OVERLAP_DO_SKIP;
}

static void test_rows(void **state) {
  (void)state;
  const struct shard_overlap overlap = {refuse, NULL};
  struct shard *s =
      shard_new(1, &(struct shard_limits){.max_rows = 100, .max_work = 100, .idle_advance = HOUR});
  struct fire_batch b = {0};
  struct fire_request r = item.request;
  r.inbox_no = 9;
  r.origin = ORIGIN_BACKFILL;
  shard_reset(s, 1, 1, T0, INT64_MAX);
  shard_put(s,
            &(struct shard_version){1, 1, TASK_ENABLED, T0, T0, spec_of(EVERY("1h") ",\"max_runs\":1", "")});
  shard_loaded(s);
  for (int pass = 0; pass < 2; pass++) {
    assert_true(shard_collect(s, T0 + 1, &overlap, &r, 1, &b));
    assert_int_equal(b.count, 3); /* the limit: a fourth lies in the range */
    assert_int_equal(b.progress_count, 0);
    assert_int_equal(b.inbox_count, 1);
    for (size_t i = 0; i < 3; i++) {
      const struct fire_item *x = &b.items[i];
      assert_true(x->key.scheduled_at == T0 - 3 * HOUR + (usec_t)i * HOUR && x->key.part == 0x40000007);
      assert_true(x->state == RUN_PENDING && x->reason == REASON_SCHEDULED && x->origin == ORIGIN_BACKFILL);
      assert_true(x->not_before == T0 + 1 + (usec_t)i * USEC_PER_SEC && x->request == &r && x->attempt == 0);
    }
    if (pass == 0)
      shard_refused(s, &b);
  }
  shard_fired(s, &b);
  assert_true(shard_next_due(s) == T0 + HOUR); /* the schedule's own instants are untouched, and its count */
  r.key.task_id = 2;                           /* gone: only the row goes */
  assert_true(shard_collect(s, T0 + 2, &overlap, &r, 1, &b));
  assert_true(b.count == 0 && b.inbox_count == 1);
  shard_fired(s, &b);
  fire_batch_done(&b);
  shard_free(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_instants, setup, teardown),
      cmocka_unit_test_setup_teardown(test_inbox, setup, teardown),
      cmocka_unit_test_setup_teardown(test_rows, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
