#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "monitor/internal.h"
#include "net/crypto.h"

static struct alert_event event(void) {
  return (struct alert_event){.no = 1,
                              .there = true,
                              .run = {.key = {.scheduled_at = 5 * USEC_PER_SEC, .task_id = 42},
                                      .state = RUN_FAIL,
                                      .reason = REASON_TIMEOUT,
                                      .attempt = 3,
                                      .finished_at = 7 * USEC_PER_SEC,
                                      .error_message = SLICE("a \"quoted\" text")},
                              .task_name = SLICE("billing"),
                              .ns = SLICE("default"),
                              .group = SLICE("workers"),
                              .handler = SLICE("echo")};
}

static bool wants(const char *definition, const struct alert_event *v) {
  struct rule_filter f;
  struct err e = {0};
  struct alert_def_row def = {.ns = SLICE("default"), .name = SLICE("r"), .definition = slice_of(definition)};
  if (rule_read(&def, &f, &e) < 0)
    fail_msg("%s: %s %s", definition, e.field, e.text);
  bool yes = rule_wants(&f, v);
  rule_done(&f);
  return yes;
}

static void test_rules_choose(void **state) {
  static const struct {
    const char *definition;
    bool wanted;
  } rows[] = {
      {"{\"channels\":[\"c\"]}", true},
      {"{\"channels\":[\"c\"],\"enabled\":false}", false},
      {"{\"channels\":[\"c\"],\"tasks\":[]}", true},
      {"{\"channels\":[\"c\"],\"tasks\":[\"*\"]}", true},
      {"{\"channels\":[\"c\"],\"tasks\":[\"other\",\"billing\"]}", true},
      {"{\"channels\":[\"c\"],\"tasks\":[\"bill\"]}", false},
      {"{\"channels\":[\"c\"],\"groups\":[\"workers\"]}", true},
      {"{\"channels\":[\"c\"],\"groups\":[\"others\"]}", false},
      {"{\"channels\":[\"c\"],\"tasks\":[\"billing\"],\"groups\":[\"others\"]}", false},
      {"{\"channels\":[\"c\"],\"reasons\":[\"ERROR\"]}", false},
      {"{\"channels\":[\"c\"],\"reasons\":[\"ERROR\",\"TIMEOUT\"]}", true},
      {"{\"channels\":[\"c\"],\"reasons\":[]}", true},
  };
  struct alert_event v = event();
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (wants(rows[i].definition, &v) != rows[i].wanted)
      fail_msg("%s", rows[i].definition);
  v.ns = SLICE("elsewhere");
  assert_false(wants(rows[0].definition, &v));
  v = event();
  v.there = false;
  assert_false(wants(rows[0].definition, &v));
  v = event();
  v.run.state = RUN_SUCCESS;
  assert_false(wants(rows[0].definition, &v));
}

static void test_rules_are_checked(void **state) {
  static const struct {
    const char *definition, *field;
  } rows[] = {
      {"{}", "/channels"},
      {"{\"channels\":[]}", "/channels"},
      {"{\"channels\":[1]}", "/channels"},
      {"{\"channels\":\"c\"}", "/channels"},
      {"{\"channels\":[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\"]}", "/channels"},
      {"{\"channels\":[\"c\"],\"reasons\":[\"SCHEDULED\"]}", "/reasons"},
      {"{\"channels\":[\"c\"],\"reasons\":[\"NOPE\"]}", "/reasons"},
      {"{\"channels\":[\"c\"],\"window\":\"8d\"}", "/window"},
      {"{\"channels\":[\"c\"],\"window\":5}", "/window"},
      {"{\"channels\":[\"c\"],\"enabled\":1}", "/enabled"},
      {"{\"channels\":[\"c\"],\"groups\":{}}", "/groups"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct alert_def_row def = {.definition = slice_of(rows[i].definition)};
    struct rule_filter f = {0};
    struct err e = {0};
    assert_true(rule_read(&def, &f, &e) < 0);
    assert_string_equal(e.field, rows[i].field);
    assert_null(f.doc);
  }
}

/* First at once, then one summary a window, then at once again after a quiet window. */
static void test_windows(void **state) {
  const usec_t W = 100;
  struct alert_row latest = {0};
  (void)state;
  assert_int_equal(alert_step(&latest, 1000), ALERT_ALONE);
  latest = (struct alert_row){.seq = 1, .window_until = 1000 + W};
  assert_int_equal(alert_step(&latest, 1000), ALERT_SUMMARY);
  assert_int_equal(alert_step(&latest, 1000 + W - 1), ALERT_SUMMARY);
  assert_int_equal(alert_step(&latest, 1000 + W), ALERT_ALONE);
  latest.closed = true;
  assert_int_equal(alert_step(&latest, 1000 + W - 1), ALERT_SUMMARY);
  latest = (struct alert_row){.seq = 2, .summary = true, .next_at = 1000 + W, .window_until = 1000 + 2 * W};
  assert_int_equal(alert_step(&latest, 1050), ALERT_ADD);
  assert_int_equal(alert_step(&latest, 1000 + W + 1), ALERT_ADD); /* due, but not taken yet */
  latest.closed = true;
  assert_int_equal(alert_step(&latest, 1000 + W + 1), ALERT_SUMMARY);
  assert_int_equal(alert_step(&latest, 1000 + 2 * W), ALERT_ALONE);
  latest = (struct alert_row){.seq = 9, .window_until = 1000}; /* a window of 0 */
  assert_int_equal(alert_step(&latest, 1000), ALERT_ALONE);
}

static void test_the_message(void **state) {
  struct alert_event v = event();
  auto_free char *details = alert_details(&v);
  struct alert_row row = {.id = 77,
                          .count = 2,
                          .summary = true,
                          .first_at = USEC_PER_SEC,
                          .last_at = 7 * USEC_PER_SEC,
                          .ns = SLICE("default"),
                          .rule = SLICE("r"),
                          .channel = SLICE("c"),
                          .details = slice_of(details)};
  auto_free char *text = alert_message(&row);
  auto_free char *again = alert_message(&row);
  auto_json *doc = NULL;
  (void)state;
  assert_string_equal(text, again); /* every attempt sends the same bytes */
  assert_int_equal(json_read(slice_of(text), 65536, &doc, NULL), 0);
  assert_string_equal(json_string_value(json_object_get(doc, "alert_id")), "77");
  assert_int_equal(json_integer_value(json_object_get(doc, "count")), 2);
  assert_string_equal(json_string_value(json_object_get(doc, "first_at")), "1970-01-01T00:00:01Z");
  const json_t *run = json_object_get(doc, "run");
  assert_string_equal(json_string_value(json_object_get(run, "reason")), "TIMEOUT");
  assert_string_equal(json_string_value(json_object_get(run, "error_message")), "a \"quoted\" text");
  assert_null(json_object_get(run, "started_at"));
  assert_string_equal(json_string_value(json_object_get(json_object_get(doc, "task"), "id")), "42");
}

static void test_urls_are_split(void **state) {
  static const struct {
    const char *url, *origin, *path;
  } rows[] = {
      {"https://h", "https://h", "/"},
      {"http://h:80/", "http://h:80", "/"},
      {"https://h/a/b?c=/d?e", "https://h", "/a/b?c=/d?e"},
      {"HTTPS://h/x", "HTTPS://h", "/x"},
      {"https://[::1]:8/x", "https://[::1]:8", "/x"},
      {"https://h?x", NULL, NULL},
      {"https://h/#x", NULL, NULL},
      {"https://h/a b", NULL, NULL},
      {"ftp://h/", NULL, NULL},
      {"http:/h", NULL, NULL},
      {"", NULL, NULL},
  };
  (void)state;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    struct slice origin, path;
    struct err e = {0};
    int r = url_split(slice_of(rows[i].url), &origin, &path, &e);
    if (rows[i].origin ? r < 0 || !slice_eqz(origin, rows[i].origin) || !slice_eqz(path, rows[i].path)
                       : r != ERR_INVALID)
      fail_msg("%s: %d", rows[i].url, r);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_rules_choose),   cmocka_unit_test(test_rules_are_checked),
      cmocka_unit_test(test_windows),        cmocka_unit_test(test_the_message),
      cmocka_unit_test(test_urls_are_split),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
