#include "base/metric.h"
#include "base/mem.h"
#include "base/thread.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>

static const double bounds[] = {0.001, 0.25, 1, 60, 0};

static char *rendered(void) {
  struct str out;
  str_init(&out, 10u << 20);
  metric_render(&out);
  return str_take(&out);
}

static void has(const char *text) {
  auto_free char *all = rendered();
  if (!strstr(all, text))
    fail_msg("missing:\n%s\nin:\n%s", text, all);
}

static void test_counter(void **state) {
  (void)state;
  struct metric_family *f =
      metric_family("kelou_test_total", "Things seen", METRIC_COUNTER, "group,reason", NULL);
  assert_ptr_equal(f, metric_family("kelou_test_total", "Things seen", METRIC_COUNTER, "group,reason", NULL));
  struct metric *m = metric_series(f, "g1", "overlap", NULL);
  assert_ptr_equal(m, metric_series(f, "g1", "overlap", NULL));
  assert_ptr_not_equal(m, metric_series(f, "g1", "limit", NULL));
  metric_add(m, 2);
  metric_add(m, 0);
  assert_true(metric_value(m) == 2.0);
  has("# HELP kelou_test_total Things seen\n# TYPE kelou_test_total counter\n"
      "kelou_test_total{group=\"g1\",reason=\"overlap\"} 2\nkelou_test_total{group=\"g1\",reason=\"limit\"} "
      "0\n");
  metric_add(m, INT64_C(1) << 53);
  has("kelou_test_total{group=\"g1\",reason=\"overlap\"} 9007199254740994\n");
}

static void test_gauge(void **state) {
  (void)state;
  struct metric *m =
      metric_series(metric_family("kelou_test_ratio", "A gauge", METRIC_GAUGE, "", NULL), NULL);
  static const struct {
    double v;
    const char *line;
  } rows[] = {{0, "kelou_test_ratio 0\n"},
              {-3, "kelou_test_ratio -3\n"},
              {0.1, "kelou_test_ratio 0.1\n"},
              {0.30000000000000004, "kelou_test_ratio 0.30000000000000004\n"},
              {1e300, "kelou_test_ratio 1e+300\n"},
              {HUGE_VAL, "kelou_test_ratio +Inf\n"},
              {-HUGE_VAL, "kelou_test_ratio -Inf\n"},
              {NAN, "kelou_test_ratio NaN\n"}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    metric_set(m, rows[i].v);
    has(rows[i].line);
  }
  metric_set(m, 1.5);
  metric_add(m, -3);
  assert_true(metric_value(m) == -1.5);
}

static void test_histogram(void **state) {
  (void)state;
  struct metric_family *f = metric_family("kelou_test_seconds", "Lengths", METRIC_HISTOGRAM, "op", bounds);
  struct metric *m = metric_series(f, "read", NULL);
  metric_observe_usec(m, 1000); /* a bound belongs to its bucket */
  metric_observe_usec(m, 1001);
  metric_observe_usec(m, -5);
  metric_observe_usec(m, 250000);
  metric_observe_usec(m, 90 * 1000000);
  assert_true(metric_value(m) == 5.0);
  has("# TYPE kelou_test_seconds histogram\n"
      "kelou_test_seconds_bucket{op=\"read\",le=\"0.001\"} 2\n"
      "kelou_test_seconds_bucket{op=\"read\",le=\"0.25\"} 4\n"
      "kelou_test_seconds_bucket{op=\"read\",le=\"1\"} 4\n"
      "kelou_test_seconds_bucket{op=\"read\",le=\"60\"} 4\n"
      "kelou_test_seconds_bucket{op=\"read\",le=\"+Inf\"} 5\n"
      "kelou_test_seconds_sum{op=\"read\"} 90.251996\n"
      "kelou_test_seconds_count{op=\"read\"} 5\n");
  struct metric *bare =
      metric_series(metric_family("kelou_bare_seconds", "No labels", METRIC_HISTOGRAM, "", bounds), NULL);
  metric_observe_usec(bare, 1);
  has("kelou_bare_seconds_bucket{le=\"0.001\"} 1\n");
  has("kelou_bare_seconds_sum 1e-06\nkelou_bare_seconds_count 1\n");
}

static void test_escaping(void **state) {
  (void)state;
  struct metric_family *f =
      metric_family("kelou_esc_total", "Back\\slash \"quoted\"\nline", METRIC_COUNTER, "v", NULL);
  (void)metric_series(f, "a\"b\\c\nd\xff\xe5\x88\xbb", NULL);
  has("# HELP kelou_esc_total Back\\\\slash \"quoted\"\\nline\n");
  has("kelou_esc_total{v=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\xe5\x88\xbb\"} 0\n");
  char wide[400];
  memset(wide, 'w', sizeof wide - 1);
  wide[sizeof wide - 1] = 0;
  struct metric *m = metric_series(f, wide, NULL);
  wide[300] = 'x'; /* beyond what counts */
  assert_ptr_equal(m, metric_series(f, wide, NULL));
}

static void test_empty_family(void **state) {
  (void)state;
  (void)metric_family("kelou_unused_total", "Nothing yet", METRIC_COUNTER, "a", NULL);
  auto_free char *all = rendered();
  assert_null(strstr(all, "kelou_unused_total"));
}

static void test_too_many_series(void **state) {
  (void)state;
  struct metric_family *f = metric_family("kelou_many_total", "Many", METRIC_COUNTER, "group,reason", NULL);
  char name[16];
  for (int i = 0; i < 5000; i++) {
    (void)snprintf(name, sizeof name, "g%d", i);
    metric_add(metric_series(f, name, "x", NULL), 1);
  }
  struct metric *late = metric_series(f, "late", "x", NULL);
  assert_ptr_equal(late, metric_series(f, "later", "x", NULL));
  assert_ptr_equal(late, metric_series(f, "_other", "x", NULL));
  assert_ptr_not_equal(late, metric_series(f, "g7", "x", NULL));
  metric_add(late, 3);
  has("kelou_many_total{group=\"_other\",reason=\"x\"} 3\n");
  struct metric *last = NULL; /* the second label runs away too */
  for (int i = 0; i < 5100; i++) {
    (void)snprintf(name, sizeof name, "r%d", i);
    last = metric_series(f, "late", name, NULL);
  }
  assert_ptr_equal(last, metric_series(f, "_other", "_other", NULL));
}

static struct metric *shared_counter, *shared_gauge, *shared_histogram;

static void count(void *arg) {
  (void)arg;
  for (int i = 0; i < 10000; i++) {
    metric_add(shared_counter, 1);
    metric_add(shared_gauge, i % 2 ? 1 : -1);
    metric_observe_usec(shared_histogram, 10);
  }
}

static void test_threads(void **state) {
  (void)state;
  shared_counter = metric_series(metric_family("kelou_t_total", "T", METRIC_COUNTER, "", NULL), NULL);
  shared_gauge = metric_series(metric_family("kelou_t_now", "T", METRIC_GAUGE, "", NULL), NULL);
  shared_histogram = metric_series(metric_family("kelou_t_seconds", "T", METRIC_HISTOGRAM, "", bounds), NULL);
  struct thread t[4] = {0};
  for (int i = 0; i < 4; i++)
    assert_int_equal(thread_start(&t[i], "count", count, NULL, NULL), 0);
  for (int i = 0; i < 20; i++)
    mem_free(rendered());
  for (int i = 0; i < 4; i++)
    thread_join(&t[i]);
  assert_true(metric_value(shared_counter) == 40000.0);
  assert_true(metric_value(shared_gauge) == 0.0);
  has("kelou_t_seconds_sum 0.4\nkelou_t_seconds_count 40000\n");
}

static void collect(void *arg) {
  metric_set(metric_series(metric_family("kelou_collected", "On demand", METRIC_GAUGE, "", NULL), NULL),
             *(double *)arg);
}

static void test_collector(void **state) {
  (void)state;
  static double value = 12;
  metric_collector(collect, &value);
  has("kelou_collected 12\n");
  value = 13;
  has("kelou_collected 13\n");
}

static void test_overflow_of_the_text(void **state) {
  (void)state;
  auto_str out;
  str_init(&out, 100);
  metric_render(&out);
  assert_true(str_failed(&out));
}

/* Every line is a comment or a sample, and samples of a family stand together after its TYPE. */
static void test_grammar(void **state) {
  (void)state;
  auto_free char *all = rendered();
  struct slice rest = slice_of(all);
  char family[100] = "";
  while (rest.n) {
    struct slice line = slice_cut(rest, '\n', &rest), tail;
    char text[2000];
    assert_int_equal(text_copy(text, sizeof text, line), 0);
    if (sscanf(text, "# TYPE %99s", family) == 1 || strncmp(text, "# HELP ", 7) == 0)
      continue;
    assert_int_equal(strncmp(text, family, strlen(family)), 0);
    assert_non_null(strchr("_{ ", text[strlen(family)]));
    const char *value = strrchr(text, ' ');
    assert_non_null(value);
    double d;
    assert_int_equal(sscanf(value, "%lf", &d), 1);
    (void)slice_cut(line, '}', &tail);
    assert_true(tail.p || !strchr(text, '{'));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_counter),         cmocka_unit_test(test_gauge),
      cmocka_unit_test(test_histogram),       cmocka_unit_test(test_escaping),
      cmocka_unit_test(test_empty_family),    cmocka_unit_test(test_threads),
      cmocka_unit_test(test_collector),       cmocka_unit_test(test_grammar),
      cmocka_unit_test(test_too_many_series), cmocka_unit_test(test_overflow_of_the_text),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
