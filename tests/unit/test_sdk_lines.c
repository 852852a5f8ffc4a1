/* The C SDK: what runs log, on its way to a centre that a test scripts. */
#include "sdk_centre.h"
#include "base/parse.h"

/* As many lines as the payload says, at once; with {"end": …} numbers of them are held up until the gate opens. */
static void do_log(struct kelou_run *r, void *user) {
  (void)user;
  int64_t n = 0;
  assert_int_equal(parse_i64(slice_of(kelou_payload(r)), 0, MANY, &n, NULL), 0);
  for (int i = 0; i < n; i++)
    kelou_run_log(r, i % 2 ? KELOU_WARN : KELOU_INFO, "line %d%s", i + 1, i == 2 ? " \"\xff\"\n" : "");
  while (!atomic_load(&gate))
    if (kelou_sleep(r, USEC_PER_MS))
      return;
}

/* More than may wait: lines of 1 KiB, three of them short at the end. */
static void do_flood(struct kelou_run *r, void *user) {
  char text[1024];
  (void)user;
  memset(text, 'x', sizeof text);
  for (int i = 0; i < 1000; i++)
    kelou_run_log_text(r, KELOU_DEBUG, text, sizeof text);
}

static void do_echo(struct kelou_run *r, void *user) {
  (void)user;
  assert_int_equal(kelou_succeed(r, kelou_payload(r)), 0);
}

static const struct kelou_handler handlers[] = {
    {"inline", do_echo, NULL, KELOU_INLINE}, {"log", do_log, NULL, 0}, {"flood", do_flood, NULL, 0}};

#include "sdk_executor.h"

static void test_lines_go_before_the_end(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("r", "log", "5"), 202);
  await(c.lines_n == 5); /* while it works */
  assert_int_equal(c.acknowledged, 0);
  assert_int_equal(c.progress, 0);
  for (int i = 0; i < 5; i++) {
    assert_int_equal(c.lines[i].seq, i + 1);
    assert_string_equal(c.lines[i].level, i % 2 ? "WARN" : "INFO");
  }
  assert_string_equal(c.lines[2].text, "line 3 \"\xef\xbf\xbd\"");
  assert_string_equal(c.lines[3].text, "line 4");
  atomic_store(&gate, 1);
  await(c.acknowledged == 1);
  assert_string_equal(c.states[0], "SUCCESS");
  assert_int_equal(c.lines_at_end, 5);
  stop(&e);
}

/* A report takes 1,000 lines: more of them go in several, the end with the last. */
static void test_many_lines(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  struct kelou_executor *e = start(&o);
  atomic_store(&gate, 1);
  assert_int_equal(send_run("r", "log", "2500"), 202);
  await(c.acknowledged == 1);
  assert_int_equal(c.lines_at_end, 2500);
  assert_true(c.largest_log <= 1000);
  for (int i = 0; i < 2500; i++)
    assert_int_equal(c.lines[i].seq, i + 1);
  stop(&e);
}

static void test_lines_are_sent_again(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  c.report_status[0] = 503;
  c.report_status[1] = 429;
  c.report_status_n = 2;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("r", "log", "3"), 202);
  await(c.lines_n == 3);
  atomic_store(&gate, 1);
  await(c.acknowledged == 1);
  assert_int_equal(c.lines_n, 3);
  stop(&e);
}

/* While lines are not taken, ends without lines go on. */
static void test_lines_keep_no_end_back(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  c.report_status[0] = 503;
  c.report_status_n = 1;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("lines", "log", "3"), 202);
  await(c.requests == 1);
  assert_int_equal(send_run("quick", "inline", "1"), 202);
  await(c.acknowledged == 1);
  assert_int_equal(c.lines_at_end, 0);
  atomic_store(&gate, 1);
  await(c.acknowledged == 2);
  assert_int_equal(c.lines_n, 3);
  stop(&e);
}

/* What does not fit is a hole in the numbers, and the last line says so when the end is reached. */
static void test_lines_are_bounded(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  o.log_bytes = 100 * 1024;
  c.hold = 1;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("first", "inline", "1"), 202);
  await(c.held);
  assert_int_equal(send_run("r", "flood", "1"), 202);
  struct kelou_counts n;
  do
    kelou_get_counts(e, &n);
  while (n.succeeded < 2);
  answer(c.held, 200, "{}");
  await(c.acknowledged == 2);
  assert_in_range(c.lines_n, 50, 101);
  for (int i = 0; i + 1 < c.lines_n; i++)
    assert_int_equal(c.lines[i].seq, i + 1);
  assert_int_equal(c.lines[c.lines_n - 1].seq, 1001);
  assert_non_null(strstr(c.lines[c.lines_n - 1].text, "lines before this one were not kept"));
  stop(&e);
}

static void test_refused_lines_keep_their_run_not_back(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  c.report_status[0] = 400;
  c.report_status[1] = 400;
  c.report_status_n = 2;
  struct kelou_executor *e = start(&o);
  atomic_store(&gate, 1);
  assert_int_equal(send_run("r", "log", "3"), 202);
  await(c.acknowledged == 1);
  stop(&e);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      T(test_lines_go_before_the_end), T(test_many_lines),
      T(test_lines_are_sent_again),    T(test_lines_keep_no_end_back),
      T(test_lines_are_bounded),       T(test_refused_lines_keep_their_run_not_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
