#include "base/log.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/thread.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static usec_t fixed(const struct clock *c) {
  (void)c;
  return INT64_C(1795409170) * USEC_PER_SEC;
}
static const struct clock frozen = {fixed, fixed};
#define STAMP "2026-11-23T04:46:10Z"

static char path[] = "/tmp/kelou-test-log-XXXXXX";

static void use(enum log_format format, enum log_level level) {
  struct log_options o = {.level = level, .format = format, .path = path, .clock = &frozen};
  assert_int_equal(log_open(&o, NULL), 0);
}

/* What has been written since the last call; the file is emptied. */
static char *written(void) {
  static char text[200000];
  FILE *f = fopen(path, "r");
  assert_non_null(f);
  size_t n = fread(text, 1, sizeof text - 1, f);
  (void)fclose(f);
  text[n] = 0;
  assert_int_equal(truncate(path, 0), 0);
  return text;
}

static void test_before_open(void **state) {
  (void)state;
  assert_false(log_enabled(LOG_DEBUG));
  assert_true(log_enabled(LOG_INFO));
  log_debug("not seen");
}

static void test_logfmt(void **state) {
  (void)state;
  use(LOG_LOGFMT, LOG_DEBUG);
  log_info("task fired", LF_S("task", "nightly"), LF_I("run", -7), LF_D("late", 1500000), LF_T("due", 0),
           LF_L("part", slice_n("abc", 2)));
  assert_string_equal(written(),
                      "time=" STAMP " level=info msg=\"task fired\" task=nightly run=-7 late=1500ms "
                      "due=1970-01-01T00:00:00Z part=ab\n");
}

static void test_levels(void **state) {
  (void)state;
  use(LOG_LOGFMT, LOG_WARN);
  log_debug("a");
  log_info("b");
  log_warn("c");
  log_error("d");
  assert_string_equal(written(), "time=" STAMP " level=warn msg=c\ntime=" STAMP " level=error msg=d\n");
  log_level_set(LOG_DEBUG);
  log_debug("e");
  assert_string_equal(written(), "time=" STAMP " level=debug msg=e\n");
}

static void test_logfmt_injection(void **state) {
  (void)state;
  use(LOG_LOGFMT, LOG_INFO);
  struct err e = {0};
  (void)err_set(&e, ERR_INVALID, "no such thing");
  log_info("m", LF_S("a", "x\ntime=forged level=error"), LF_S("b", "\x1b[31m\r\t\x7f"), LF_S("c", "q\"\\"),
           LF_S("d", ""), LF_S("e", "k=v"),
           LF_S("f", "\xc2\x9b"
                     "1m\xe2\x80\xa8\xff"),
           LF_S("g", NULL), LF_E(&e));
  char *text = written();
  assert_string_equal(
      text,
      "time=" STAMP " level=info msg=m a=\"x\\ntime=forged level=error\" b=\"\\u001b[31m\\r\\t\\u007f\" "
      "c=\"q\\\"\\\\\" d=\"\" e=\"k=v\" f=\"\\u009b1m\\u2028\\ufffd\" g=\"\" error=\"no such thing\"\n");
  log_info("two\nlines");
  text = written();
  assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void test_json(void **state) {
  (void)state;
  use(LOG_JSON, LOG_INFO);
  log_node("n1");
  log_info("m", LF_S("a", "x\n{\"time\":\"forged\"}\x1b\xff"), LF_I("n", INT64_MAX), LF_D("d", 1000),
           LF_T("t", 1));
  log_node(NULL);
  char *text = written();
  assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
  auto_json *j = NULL;
  assert_int_equal(json_read(slice_of(text), 10000, &j, NULL), 0);
  auto_free char *back = json_text(j);
  assert_string_equal(
      back, "{\"time\":\"" STAMP "\",\"level\":\"info\",\"node\":\"n1\",\"msg\":\"m\","
            "\"a\":\"x\\n{\\\"time\\\":\\\"forged\\\"}\\u001b\xef\xbf\xbd\",\"n\":9223372036854775807,"
            "\"d\":\"1ms\",\"t\":\"1970-01-01T00:00:00.000001Z\"}");
}

static void test_long_lines(void **state) {
  (void)state;
  char big[6000];
  memset(big, '\n', sizeof big - 1); /* the worst: every byte is escaped */
  big[sizeof big - 1] = 0;
  use(LOG_JSON, LOG_INFO);
  log_info("m", LF_S("a", big), LF_S("b", big), LF_S("c", "z"));
  char *text = written();
  auto_json *j = NULL;
  assert_int_equal(json_read(slice_of(text), 100000, &j, NULL), 0);
  assert_int_equal(json_string_length(json_object_get(j, "a")), 4096 + 3);
  assert_null(json_object_get(j, "b"));
  assert_true(json_is_true(json_object_get(j, "cut")));
  use(LOG_LOGFMT, LOG_INFO);
  log_info("m", LF_S("a", big), LF_S("b", big));
  text = written();
  assert_true(strlen(text) <= 32768);
  assert_string_equal(text + strlen(text) - 10, " cut=true\n");
}

static void many(void *arg) {
  for (int i = 0; i < 200; i++)
    log_info("line", LF_S("from", arg), LF_I("i", i));
}

static void test_threads(void **state) {
  (void)state;
  use(LOG_LOGFMT, LOG_INFO);
  static char names[4][4] = {"n0", "n1", "n2", "n3"};
  struct thread t[4] = {0};
  log_node("one"); /* of all threads */
  for (int i = 0; i < 4; i++)
    assert_int_equal(thread_start(&t[i], "log", many, names[i], NULL), 0);
  for (int i = 0; i < 20; i++) /* reopening while others write loses nothing */
    use(LOG_LOGFMT, LOG_INFO);
  for (int i = 0; i < 4; i++)
    thread_join(&t[i]);
  log_node(NULL);
  struct slice rest = slice_of(written());
  int next[4] = {0}, lines = 0;
  for (; rest.n; lines++) {
    struct slice line = slice_cut(rest, '\n', &rest);
    char text[200];
    assert_int_equal(text_copy(text, sizeof text, line), 0);
    int node, i;
    assert_int_equal(sscanf(text, "time=" STAMP " level=info node=one msg=line from=n%d i=%d", &node, &i), 2);
    assert_in_range(node, 0, 3);
    assert_int_equal(next[node]++, i);
  }
  assert_int_equal(lines, 800);
}

static void test_open_errors(void **state) {
  (void)state;
  struct err e = {0};
  struct log_options o = {.path = "/nonexistent/dir/log"};
  assert_int_equal(log_open(&o, &e), -ENOENT);
  assert_non_null(strstr(e.text, "/nonexistent/dir/log"));
  use(LOG_LOGFMT, LOG_INFO);
  log_info("still there");
  assert_string_equal(written(), "time=" STAMP " level=info msg=\"still there\"\n");
}

static void test_back_to_stderr(void **state) {
  (void)state;
  int keep = dup(STDERR_FILENO), fd = open(path, O_WRONLY | O_APPEND);
  assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
  (void)close(fd);
  struct log_options o = {.level = LOG_ERROR};
  assert_int_equal(log_open(&o, NULL), 0);
  log_warn("no");
  log_error("system clock");
  assert_int_equal(dup2(keep, STDERR_FILENO), STDERR_FILENO);
  (void)close(keep);
  assert_non_null(strstr(written(), "level=error msg=\"system clock\"\n"));
}

static int make_file(void **state) {
  (void)state;
  int fd = mkstemp(path);
  return fd < 0 ? -1 : close(fd);
}

static int drop_file(void **state) {
  (void)state;
  return unlink(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_before_open),    cmocka_unit_test(test_logfmt),
      cmocka_unit_test(test_levels),         cmocka_unit_test(test_logfmt_injection),
      cmocka_unit_test(test_json),           cmocka_unit_test(test_long_lines),
      cmocka_unit_test(test_threads),        cmocka_unit_test(test_open_errors),
      cmocka_unit_test(test_back_to_stderr),
  };
  return cmocka_run_group_tests(tests, make_file, drop_file);
}
