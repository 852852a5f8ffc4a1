#include "base/thread.h"
#include "base/mem.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct start {
  void (*run)(void *);
  void *arg;
  char name[16];
};

/* A failing primitive is a bug: going on would work on unprotected data. */
static void must(int code, const char *what) {
  if (code == 0)
    return;
  (void)fprintf(stderr, "kelou: %s failed: %s\n", what, strerror(code));
  abort();
}

static void *enter(void *p) {
  struct start s = *(struct start *)p;
  mem_free(p);
  (void)pthread_setname_np(pthread_self(), s.name); /* only for people who look */
  s.run(s.arg);
  return NULL;
}

int thread_start(struct thread *t, const char *name, void (*run)(void *), void *arg, struct err *e) {
  struct start *s = mem_zalloc(sizeof *s);
  s->run = run;
  s->arg = arg;
  (void)text_copy(s->name, sizeof s->name, slice_of(name)); /* cut to what the kernel holds */
  sigset_t all, before;
  (void)sigfillset(&all);
  must(pthread_sigmask(SIG_SETMASK, &all, &before), "pthread_sigmask");
  int code = pthread_create(&t->id, NULL, enter, s);
  must(pthread_sigmask(SIG_SETMASK, &before, NULL), "pthread_sigmask");
  if (code) {
    mem_free(s);
    return err_set(e, -code, "cannot start thread %s: %s", name, strerror(code));
  }
  t->running = true;
  return 0;
}

void thread_join(struct thread *t) {
  if (!t->running)
    return;
  must(pthread_join(t->id, NULL), "pthread_join");
  t->running = false;
}

void mutex_init(struct mutex *m) {
  pthread_mutexattr_t a;
  must(pthread_mutexattr_init(&a), "pthread_mutexattr_init");
  must(pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK), "pthread_mutexattr_settype");
  must(pthread_mutex_init(&m->m, &a), "pthread_mutex_init");
  (void)pthread_mutexattr_destroy(&a);
}

void mutex_done(struct mutex *m) { must(pthread_mutex_destroy(&m->m), "pthread_mutex_destroy"); }
void mutex_lock(struct mutex *m) { must(pthread_mutex_lock(&m->m), "pthread_mutex_lock"); }
void mutex_unlock(struct mutex *m) { must(pthread_mutex_unlock(&m->m), "pthread_mutex_unlock"); }

void cond_init(struct cond *c) { must(pthread_cond_init(&c->c, NULL), "pthread_cond_init"); }
void cond_done(struct cond *c) { must(pthread_cond_destroy(&c->c), "pthread_cond_destroy"); }
void cond_signal(struct cond *c) { must(pthread_cond_signal(&c->c), "pthread_cond_signal"); }
void cond_broadcast(struct cond *c) { must(pthread_cond_broadcast(&c->c), "pthread_cond_broadcast"); }

bool cond_wait(struct cond *c, struct mutex *m, usec_t timeout) {
  if (timeout == USEC_NEVER) {
    must(pthread_cond_wait(&c->c, &m->m), "pthread_cond_wait");
    return true;
  }
  usec_t until;
  if (__builtin_add_overflow(clock_system.mono(&clock_system), timeout > 0 ? timeout : 0, &until))
    until = USEC_NEVER;
  struct timespec t = {.tv_sec = until / USEC_PER_SEC, .tv_nsec = until % USEC_PER_SEC * 1000};
  int code = pthread_cond_clockwait(&c->c, &m->m, CLOCK_MONOTONIC, &t);
  if (code != ETIMEDOUT)
    must(code, "pthread_cond_clockwait");
  return code == 0;
}
