#include "base/thread.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared {
  struct mutex m;
  struct cond c;
  int turn, sum;
  char name[32];
  bool blocked;
};

static void look(void *arg) {
  struct shared *s = arg;
  sigset_t now;
  (void)pthread_sigmask(SIG_SETMASK, NULL, &now);
  s->blocked = sigismember(&now, SIGTERM) && sigismember(&now, SIGHUP) && sigismember(&now, SIGUSR1);
  (void)pthread_getname_np(pthread_self(), s->name, sizeof s->name);
}

static void test_name_and_signals(void **state) {
  (void)state;
  struct shared s = {0};
  struct thread t = {0};
  sigset_t now;
  assert_int_equal(thread_start(&t, "a name that is too long", look, &s, NULL), 0);
  assert_true(t.running);
  thread_join(&t);
  assert_false(t.running);
  thread_join(&t); /* again: nothing */
  assert_string_equal(s.name, "a name that is ");
  assert_true(s.blocked);
  (void)pthread_sigmask(SIG_SETMASK, NULL, &now);
  assert_false(sigismember(&now, SIGTERM)); /* the starter's mask is as it was */
}

static void add(void *arg) {
  struct shared *s = arg;
  for (int i = 0; i < 1000; i++) {
    mutex_lock(&s->m);
    s->sum++;
    mutex_unlock(&s->m);
  }
}

static void test_mutex(void **state) {
  (void)state;
  struct shared s = {0};
  struct thread t[4] = {0};
  mutex_init(&s.m);
  for (int i = 0; i < 4; i++)
    assert_int_equal(thread_start(&t[i], "add", add, &s, NULL), 0);
  for (int i = 0; i < 4; i++)
    thread_join(&t[i]);
  assert_int_equal(s.sum, 4000);
  mutex_done(&s.m);
}

static void pong(void *arg) {
  struct shared *s = arg;
  mutex_lock(&s->m);
  for (int i = 0; i < 100; i++) {
    while (s->turn != 1)
      (void)cond_wait(&s->c, &s->m, USEC_NEVER);
    s->turn = 0;
    i % 2 ? cond_signal(&s->c) : cond_broadcast(&s->c);
  }
  mutex_unlock(&s->m);
}

static void test_cond(void **state) {
  (void)state;
  struct shared s = {0};
  struct thread t = {0};
  mutex_init(&s.m);
  cond_init(&s.c);
  assert_int_equal(thread_start(&t, "pong", pong, &s, NULL), 0);
  mutex_lock(&s.m);
  for (int i = 0; i < 100; i++) {
    s.turn = 1;
    cond_signal(&s.c);
    while (s.turn != 0)
      (void)cond_wait(&s.c, &s.m, 60 * USEC_PER_SEC);
  }
  assert_false(cond_wait(&s.c, &s.m, 1000));
  assert_false(cond_wait(&s.c, &s.m, 0));
  assert_false(cond_wait(&s.c, &s.m, -5));
  mutex_unlock(&s.m);
  thread_join(&t);
  cond_done(&s.c);
  mutex_done(&s.m);
}

static void broadcast_later(void *arg) {
  struct shared *s = arg;
  mutex_lock(&s->m);
  s->turn = 1;
  cond_broadcast(&s->c);
  mutex_unlock(&s->m);
}

static void test_far_timeout(void **state) {
  (void)state;
  struct shared s = {0};
  struct thread t = {0};
  mutex_init(&s.m);
  cond_init(&s.c);
  mutex_lock(&s.m);
  assert_int_equal(thread_start(&t, "later", broadcast_later, &s, NULL), 0);
  while (!s.turn) /* now plus this is beyond the end of time */
    assert_true(cond_wait(&s.c, &s.m, USEC_NEVER - 1));
  mutex_unlock(&s.m);
  thread_join(&t);
  cond_done(&s.c);
  mutex_done(&s.m);
}

static void test_misuse_aborts(void **state) {
  (void)state;
  pid_t pid = fork();
  if (pid == 0) {
    struct mutex m;
    (void)close(STDERR_FILENO);
    (void)signal(SIGABRT, SIG_DFL);
    mutex_init(&m);
    mutex_lock(&m);
    mutex_lock(&m); /* would be a deadlock */
    _exit(0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void nothing(void *arg) { (void)arg; }

/* No thread can be had when the address space is used up. */
static void test_cannot_start(void **state) {
  (void)state;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  struct rlimit before, none = {1 << 20, 0};
  assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
  none.rlim_max = before.rlim_max;
  struct thread t = {0};
  struct err e = {0};
  assert_int_equal(setrlimit(RLIMIT_AS, &none), 0);
  int r = thread_start(&t, "none", nothing, NULL, &e);
  assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
  if (r == 0) { /* a cached stack was at hand */
    thread_join(&t);
    skip();
  }
  assert_int_equal(r, -EAGAIN);
  assert_false(t.running);
  assert_non_null(strstr(e.text, "cannot start thread none"));
#else
  nothing(NULL);
  skip();
#endif
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cannot_start), cmocka_unit_test(test_name_and_signals),
      cmocka_unit_test(test_mutex),        cmocka_unit_test(test_cond),
      cmocka_unit_test(test_far_timeout),  cmocka_unit_test(test_misuse_aborts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
