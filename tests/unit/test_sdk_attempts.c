/* The C SDK's parts without a network: the table of attempts, messages, texts of reports, the journal. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/file.h"
#include "internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* --- attempts --------------------------------------------------------------------------------------------- */

static struct kelou_executor executor = {.id_json = "me", .o = {.id = "me"}};

static struct kelou_run *make(const char *id, int attempt, int64_t fence) {
  char text[256];
  struct message *m = NULL;
  struct err e = {0};
  (void)snprintf(text, sizeof text, "{\"run_id\":\"%s\",\"attempt\":%d,\"fence\":%lld,\"handler\":\"h\"}", id,
                 attempt, (long long)fence);
  assert_int_equal(message_read(slice_of(text), &m, &e), 0);
  return run_new(&executor, NULL, m);
}

static void add(struct attempts *t, const char *id, int attempt, int64_t fence) {
  struct kelou_run *r = make(id, attempt, fence);
  attempts_add(t, r);
  run_unref(&r);
}

static void end(struct attempts *t, const char *id, usec_t now, size_t bytes) {
  struct kelou_run *r = attempts_find(t, id);
  assert_non_null(r);
  r->report = mem_zalloc(bytes + 1);
  r->report_n = bytes;
  attempts_ended(t, r, now);
}

static const struct attempts no_limits = {
    .max_ended = SIZE_MAX, .max_bytes = SIZE_MAX, .max_age = USEC_NEVER};

static void test_admission(void **state) {
  (void)state;
  static const struct {
    int attempt;
    int64_t fence;
    enum admission want;
  } cases[] = {{2, 5, ADMIT_REPEATED}, {2, 6, ADMIT_REPEATED}, {2, 5, ADMIT_STALE},
               {1, 6, ADMIT_STALE},    {1, 9, ADMIT_STALE},    {3, 5, ADMIT_STALE},
               {3, 6, ADMIT_NEW},      {3, 7, ADMIT_NEW},      {2, 6, ADMIT_REPEATED}};
  struct attempts t = no_limits;
  struct kelou_run *known;
  assert_int_equal(attempts_look(&t, "r", 2, 5, &known), ADMIT_NEW);
  assert_null(known);
  add(&t, "r", 2, 5);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_int_equal(attempts_look(&t, "r", cases[i].attempt, cases[i].fence, &known), cases[i].want);
    assert_ptr_equal(known, attempts_find(&t, "r"));
  }
  assert_int_equal(attempts_look(&t, "other", 1, 0, &known), ADMIT_NEW);
  assert_null(known);
  attempts_clear(&t);
}

static void test_a_later_attempt_takes_the_place(void **state) {
  (void)state;
  struct attempts t = no_limits;
  struct kelou_run *first = make("r", 1, 1), *known;
  attempts_add(&t, first);
  add(&t, "r", 2, 1);
  assert_false(first->known);
  assert_int_equal(attempts_find(&t, "r")->attempt, 2);
  attempts_ended(&t, first, 10); /* ends later than it was replaced: no entry of its own */
  assert_int_equal(t.ended_n, 0);
  assert_int_equal(attempts_look(&t, "r", 1, 1, &known), ADMIT_STALE);
  run_unref(&first);
  end(&t, "r", 20, 5);
  add(&t, "r", 3, 1); /* in place of an ended one */
  assert_int_equal(t.ended_n, 0);
  assert_int_equal(t.bytes, 0);
  attempts_clear(&t);
}

static void test_ended_ones_are_forgotten_oldest_first(void **state) {
  (void)state;
  struct attempts t = {.max_ended = 3, .max_bytes = 1000, .max_age = 100};
  char id[16];
  for (int i = 0; i < 6; i++) {
    (void)snprintf(id, sizeof id, "r%d", i);
    add(&t, id, 1, 1);
  }
  for (int i = 0; i < 5; i++) { /* by count */
    (void)snprintf(id, sizeof id, "r%d", i);
    end(&t, id, i, 10);
  }
  assert_int_equal(t.ended_n, 3);
  assert_null(attempts_find(&t, "r1"));
  assert_non_null(attempts_find(&t, "r2"));
  end(&t, "r5", 6, 985); /* by bytes: what is left and this are 1005 with r4 */
  assert_int_equal(t.ended_n, 2);
  assert_null(attempts_find(&t, "r3"));
  assert_int_equal(t.bytes, 995);
  attempts_expire(&t, 104);
  assert_int_equal(t.ended_n, 2);
  attempts_expire(&t, 105); /* by age: r4 ended at 4 */
  assert_int_equal(t.ended_n, 1);
  attempts_expire(&t, 107);
  assert_int_equal(t.ended_n, 0);
  assert_int_equal(t.bytes, 0);
  add(&t, "active", 1, 1);
  attempts_expire(&t, USEC_NEVER);
  assert_non_null(attempts_find(&t, "active"));
  attempts_clear(&t);
}

/* The centre may deliver again what it has not heard of: it must not be started again, however long that takes. */
static void test_what_is_not_acknowledged_is_not_forgotten(void **state) {
  (void)state;
  struct attempts t = {.max_ended = 1, .max_bytes = 10, .max_age = 100};
  struct kelou_run *known;
  add(&t, "told", 1, 1);
  add(&t, "owed", 1, 1);
  add(&t, "later", 1, 1);
  end(&t, "told", 1, 1);
  atomic_store(&attempts_find(&t, "owed")->unacknowledged, true);
  end(&t, "owed", 2, 50);
  assert_null(attempts_find(&t, "told"));
  end(&t, "later", 3, 1);
  attempts_expire(&t, USEC_NEVER);
  assert_int_equal(attempts_look(&t, "owed", 1, 2, &known), ADMIT_REPEATED);
  atomic_store(&known->unacknowledged, false);
  attempts_expire(&t, 50); /* two are too many, and too many bytes */
  assert_null(attempts_find(&t, "owed"));
  assert_non_null(attempts_find(&t, "later"));
  attempts_clear(&t);
}

/* --- messages --------------------------------------------------------------------------------------------- */

static void test_a_whole_message(void **state) {
  (void)state;
  struct message *m = NULL;
  struct err e = {0};
  struct slice text =
      SLICE("{\"run_id\":\"a1\",\"idempotency_key\":\"k\",\"task_id\":\"7\",\"attempt\":2,\"max_attempts\":3,"
            "\"fence\":9,\"task_name\":\"t\",\"namespace\":\"n\",\"handler\":\"h\","
            "\"scheduled_at\":\"1970-01-01T00:00:01Z\",\"fired_at\":\"1970-01-01T00:00:02Z\","
            "\"deadline\":\"1970-01-01T00:00:03Z\",\"priority\":-4,\"part_index\":1,\"part_total\":2,"
            "\"parent_run_id\":\"p\",\"traceparent\":\"00-x\",\"payload\":{\"a\":[1]},\"new\":1}");
  assert_int_equal(message_read(text, &m, &e), 0);
  assert_string_equal(m->run_id, "a1");
  assert_string_equal(m->idempotency_key, "k");
  assert_string_equal(m->payload, "{\"a\":[1]}");
  assert_int_equal(m->payload_n, 9);
  assert_int_equal(m->attempt, 2);
  assert_int_equal(m->max_attempts, 3);
  assert_int_equal(m->fence, 9);
  assert_int_equal(m->priority, -4);
  assert_int_equal(m->part_total, 2);
  assert_int_equal(m->scheduled_at, 1000000);
  assert_int_equal(m->deadline, 3000000);
  assert_string_equal(m->parent_run_id, "p");
  message_free(&m);
  assert_int_equal(
      message_read(SLICE("{\"run_id\":\"a\",\"attempt\":1,\"fence\":0,\"handler\":\"h\",\"payload\":null}"),
                   &m, &e),
      0);
  assert_string_equal(m->payload, "null");
  assert_string_equal(m->idempotency_key, "a");
  assert_string_equal(m->traceparent, "");
  assert_int_equal(m->part_total, 1);
  assert_int_equal(m->deadline, USEC_NEVER);
  message_free(&m);
}

static void test_bad_messages(void **state) {
  (void)state;
  static const struct {
    const char *text, *field;
  } cases[] = {
      {"", ""},
      {"[]", ""},
      {"{\"attempt\":1,\"fence\":0,\"handler\":\"h\"}", "/run_id"},
      {"{\"run_id\":\"a\\\"b\",\"attempt\":1,\"fence\":0,\"handler\":\"h\"}", "/run_id"},
      {"{\"run_id\":\"a\",\"fence\":0,\"handler\":\"h\"}", "/attempt"},
      {"{\"run_id\":\"a\",\"attempt\":0,\"fence\":0,\"handler\":\"h\"}", "/attempt"},
      {"{\"run_id\":\"a\",\"attempt\":1,\"handler\":\"h\"}", "/fence"},
      {"{\"run_id\":\"a\",\"attempt\":1,\"fence\":1.5,\"handler\":\"h\"}", "/fence"},
      {"{\"run_id\":\"a\",\"attempt\":1,\"fence\":0}", "/handler"},
      {"{\"run_id\":\"a\",\"attempt\":1,\"fence\":0,\"handler\":\"h\",\"deadline\":1}", "/deadline"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    struct message *m = NULL;
    struct err e = {0};
    assert_true(message_read(slice_of(cases[i].text), &m, &e) < 0);
    assert_null(m);
    assert_string_equal(e.field, cases[i].field);
  }
}

static void test_cancel_messages(void **state) {
  (void)state;
  struct cancel_message c;
  struct err e = {0};
  assert_int_equal(cancel_message_read(SLICE("{\"run_id\":\"a\",\"attempt\":3,\"fence\":4}"), &c, &e), 0);
  assert_string_equal(c.run_id, "a");
  assert_int_equal(c.attempt, 3);
  assert_int_equal(c.fence, 4);
  /* the signed message of a run is no order to cancel it */
  assert_int_equal(
      cancel_message_read(SLICE("{\"run_id\":\"a\",\"attempt\":3,\"fence\":4,\"handler\":\"h\"}"), &c, &e),
      ERR_UNKNOWN_FIELD);
}

/* --- reports ---------------------------------------------------------------------------------------------- */

static void test_texts_are_cut_at_a_character(void **state) {
  (void)state;
  char *t = report_text("plain \"text\"\n", 100);
  assert_string_equal(t, "plain \\\"text\\\"\\n");
  mem_free(t);
  char long_text[1000];
  for (size_t i = 0; i + 2 < sizeof long_text; i += 2)
    memcpy(long_text + i, "\xc3\xbc", 3); /* ü */
  for (size_t max = 60; max < 80; max++) {
    t = report_text(long_text, max);
    assert_true(strlen(t) <= max);
    assert_true(slice_utf8_valid(slice_of(t)));
    assert_non_null(strstr(t, "[cut]"));
    mem_free(t);
  }
  t = report_text("\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01", 60); /* grows when escaped */
  assert_true(strlen(t) <= 60);
  assert_non_null(strstr(t, "[cut]"));
  mem_free(t);
  t = report_text("bad \xff byte", 100);
  assert_true(slice_utf8_valid(slice_of(t)));
  mem_free(t);
}

static void test_what_a_handler_says(void **state) {
  (void)state;
  struct kelou_run *r = make("r", 1, 7);
  struct str out;
  auto_json *doc = NULL;
  assert_int_equal(kelou_succeed(r, "{\"a\":"), KELOU_EINVAL);
  assert_int_equal(r->outcome, OUTCOME_NONE);
  kelou_fail(r, NULL, "no", "why");
  assert_int_equal(kelou_succeed(r, " {\"a\": 1} "), 0); /* the last word counts */
  str_init(&out, 1 << 20);
  report_final(&out, r, "SUCCESS", 2000000);
  assert_int_equal(json_read(str_slice(&out), 1 << 20, &doc, NULL), 0);
  assert_int_equal(json_integer_value(json_object_get(json_object_get(doc, "result"), "a")), 1);
  assert_int_equal(json_integer_value(json_object_get(doc, "fence")), 7);
  assert_null(json_object_get(doc, "error"));
  /* a long result comes as the beginning of its text */
  char *big = mem_zalloc(100003);
  memset(big, '[', 1);
  memset(big + 1, ' ', 100000);
  memset(big + 100001, ']', 1);
  assert_int_equal(kelou_succeed(r, big), 0);
  assert_true(strlen(r->result) <= KELOU_RESULT_MAX && r->result[0] == '"');
  mem_free(big);
  str_done(&out);
  run_unref(&r);
}

/* --- journal ---------------------------------------------------------------------------------------------- */

static void test_journal(void **state) {
  (void)state;
  char path[] = "/tmp/kelou-journal-XXXXXX";
  int fd = mkstemp(path);
  struct journal *j = NULL;
  struct err e = {0};
  struct str text;
  assert_true(fd >= 0);
  (void)close(fd);
  for (int i = 0; i < 2; i++) { /* appended to when opened again */
    assert_int_equal(journal_open(path, i == 0, &j, &e), 0);
    struct kelou_run *r = make("r", i + 1, 3);
    assert_int_equal(journal_write(j, r, "start", "RUNNING"), 0);
    assert_int_equal(journal_write(j, r, "end", "SUCCESS"), 0);
    run_unref(&r);
    journal_close(&j);
  }
  str_init(&text, 10000);
  assert_int_equal(file_read(path, 10000, &text, &e), 0);
  int lines = 0;
  for (struct slice rest = str_slice(&text); rest.n; lines++) {
    struct slice line = slice_cut(rest, '\n', &rest);
    auto_json *doc = NULL;
    assert_int_equal(json_read(line, 10000, &doc, &e), 0);
    assert_true(json_is_integer(json_object_get(doc, "t")));
    assert_string_equal(json_string_value(json_object_get(doc, "event")), lines % 2 ? "end" : "start");
    assert_string_equal(json_string_value(json_object_get(doc, "executor")), "me");
    assert_int_equal(json_integer_value(json_object_get(doc, "attempt")), lines / 2 + 1);
  }
  assert_int_equal(lines, 4);
  str_done(&text);
  (void)unlink(path);
  assert_true(journal_open("/nonexistent/journal", true, &j, &e) < 0);
  assert_int_equal(journal_write(NULL, NULL, "start", ""), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_admission),
      cmocka_unit_test(test_a_later_attempt_takes_the_place),
      cmocka_unit_test(test_ended_ones_are_forgotten_oldest_first),
      cmocka_unit_test(test_what_is_not_acknowledged_is_not_forgotten),
      cmocka_unit_test(test_a_whole_message),
      cmocka_unit_test(test_bad_messages),
      cmocka_unit_test(test_cancel_messages),
      cmocka_unit_test(test_texts_are_cut_at_a_character),
      cmocka_unit_test(test_what_a_handler_says),
      cmocka_unit_test(test_journal),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
