#include "base/failpoint.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Each case in its own process: the environment is read once. Returns the wait status. */
static int run(const char *spec, void (*body)(void)) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    (void)close(STDERR_FILENO);
    if (setenv("KELOU_FAILPOINTS", spec, 1) == 0)
      body();
    exit(0); /* not _exit: the coverage is written */
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

static void third(void) {
  if (failpoint("a") || failpoint("a") || !failpoint("a") || failpoint("a") || failpoint("other"))
    exit(1);
}
static void always(void) {
  if (!failpoint("a") || !failpoint("a") || failpoint("b"))
    exit(1);
}
static void none(void) {
  if (failpoint("a"))
    exit(1);
}
static void once(void) { (void)failpoint("a"); }

static void test_actions(void **state) {
  (void)state;
  assert_int_equal(run("", none), 0);
  assert_int_equal(run("a=error:3", third), 0);
  assert_int_equal(run("b=sleep:1:1ms,a=error:0", always), 0);
  assert_int_equal(run("a=sleep:1:1ms", none), 0);
  assert_int_equal(run("a=crash:1", once), 137);
  assert_int_equal(run("a=crash:2", once), 0);
}

static void test_bad_specs(void **state) {
  (void)state;
  static const char *const bad[] = {"a",
                                    "=error:1",
                                    "a=",
                                    "a=boom:1",
                                    "a=error",
                                    "a=error:x",
                                    "a=error:-1",
                                    "a=error:1:2s",
                                    "a=sleep:1",
                                    "a=sleep:1:2",
                                    "a=error:1,,b=error:1"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(run(bad[i], once), 2);
  char many[33 * 10 + 1] = "";
  for (int i = 0; i < 33; i++)
    for (int j = 0; j < 10; j++)
      many[i * 10 + j] = "a=error:1,"[j];
  assert_int_equal(run(many, once), 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_actions),
      cmocka_unit_test(test_bad_specs),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
