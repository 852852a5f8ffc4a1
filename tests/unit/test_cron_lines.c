#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "zoneinfo.h"
#include "base/mem.h"
#include "cli/cron_lines.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct zone_set *zones;

/* Through files, not pipes: any length goes in without a second thread. Returns what came out. */
static char *answers(struct slice input) {
  FILE *in = tmpfile(), *out = tmpfile();
  assert_true(in && out);
  assert_int_equal(fwrite(input.p, 1, input.n, in), input.n);
  assert_int_equal(fflush(in), 0);
  assert_int_equal(lseek(fileno(in), 0, SEEK_SET), 0);
  assert_int_equal(cron_lines(zones, fileno(in), fileno(out)), 0);
  off_t size = lseek(fileno(out), 0, SEEK_END);
  char *text = mem_zalloc((size_t)size + 1);
  assert_int_equal(pread(fileno(out), text, (size_t)size, 0), size);
  (void)fclose(in);
  (void)fclose(out);
  return text;
}

static void test_answers(void **state) {
  (void)state;
  auto_free char *a = answers(
      SLICE("{\"expr\":\"0 30 2 * * "
            "?\",\"tz\":\"America/New_York\",\"from_ms\":1772971200000,\"n\":2,\"dialect\":\"QUARTZ\"}\n"
            "{\"expr\":\"30 2 * * "
            "*\",\"tz\":\"America/New_York\",\"from_ms\":1772971200000,\"n\":1,\"dst_gap\":\"SKIP\"}\n"
            "{\"expr\":\"0 0 12 29 2 ? 2028\",\"from_ms\":1772971200000,\"n\":3}\n"
            "{\"expr\":\"0 0 12 29 2 ? 2028\",\"from_ms\":1900000000000}"));
  assert_string_equal(a, "{\"next_ms\":[1773037800000,1773124200000]}\n{\"next_ms\":[1773037800000]}\n"
                         "{\"next_ms\":[1835438400000]}\n{\"next_ms\":[]}\n");
}

static void test_bad_lines(void **state) {
  (void)state;
  auto_free char *a =
      answers(SLICE("\nnonsense\n[]\n{\"expr\":\"0 0 25 * * "
                    "?\",\"from_ms\":0}\n{\"expr\":\"@daily\",\"from_ms\":0,\"tz\":\"No/Where\"}\n"
                    "{\"expr\":\"@daily\"}\n{\"expr\":\"@daily\",\"from_ms\":0,\"n\":0}\n{\"expr\":\"@"
                    "daily\",\"from_ms\":0,\"x\":1}\n"
                    "{\"expr\":\"@daily\",\"from_ms\":0,\"dialect\":\"unix\"}\n{\"expr\":\"@daily\",\"from_"
                    "ms\":0,\"n\":1}\n"));
  char *rest = a;
  for (int i = 0; i < 9; i++) {
    assert_int_equal(strncmp(rest, "{\"error\":{\"column\":", 19), 0);
    if (i == 3)
      assert_int_equal(strncmp(rest, "{\"error\":{\"column\":5,\"message\":\"hour: expected 0 to 23", 54), 0);
    rest = strchr(rest, '\n') + 1;
  }
  assert_string_equal(rest, "{\"next_ms\":[86400000]}\n");
}

static void test_long_lines(void **state) {
  (void)state;
  auto_str in;
  str_init(&in, 16 * 1024 * 1024);
  static const size_t lengths[] = {CRON_LINE_MAX + 1, 3 * 1024 * 1024, 10, CRON_LINE_MAX};
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    for (size_t k = 0; k < lengths[i]; k++)
      str_addc(&in, ' ');
    str_addz(&in, "\n{\"expr\":\"@daily\",\"from_ms\":0,\"n\":1}\n");
  }
  auto_free char *a = answers(str_slice(&in));
  char *rest = a;
  for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    assert_int_equal(strncmp(rest, "{\"error\":", 9), 0);
    rest = strchr(rest, '\n') + 1;
    assert_int_equal(strncmp(rest, "{\"next_ms\":[86400000]}\n", 23), 0);
    rest += 23;
  }
  assert_string_equal(rest, "");
}

static void test_many(void **state) {
  (void)state;
  auto_str in;
  str_init(&in, 16 * 1024 * 1024);
  for (int i = 0; i < 20000; i++)
    str_addf(&in, "{\"expr\":\"0 0 0 * * ?\",\"from_ms\":%d,\"n\":1}\n", i);
  auto_free char *a = answers(str_slice(&in));
  int lines = 0;
  for (char *p = a; *p; p = strchr(p, '\n') + 1, lines++)
    assert_int_equal(strncmp(p, "{\"next_ms\":[86400000]}\n", 23), 0);
  assert_int_equal(lines, 20000);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_answers), cmocka_unit_test(test_bad_lines),
                                     cmocka_unit_test(test_long_lines), cmocka_unit_test(test_many)};
  zones = test_zones();
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  zone_set_free(&zones);
  return failed;
}
