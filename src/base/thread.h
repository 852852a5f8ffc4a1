#pragma once
/* Threads: thin, checked wrappers over pthreads (a failing lock is a bug and ends the process). */
#include "base/time.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct thread {
  pthread_t id;
  bool running;
};
/* `name` ≤ 15 bytes, shown by ps and gdb. All signals are blocked in the new thread. */
int thread_start(struct thread *t, const char *name, void (*run)(void *), void *arg, struct err *e);
void thread_join(struct thread *t);

struct mutex {
  pthread_mutex_t m;
};
void mutex_init(struct mutex *m);
void mutex_done(struct mutex *m);
void mutex_lock(struct mutex *m);
void mutex_unlock(struct mutex *m);
struct cond {
  pthread_cond_t c;
};
void cond_init(struct cond *c); /* on the monotonic clock */
void cond_done(struct cond *c);
void cond_signal(struct cond *c);
void cond_broadcast(struct cond *c);
/* false on time-out; `timeout` µs, USEC_NEVER waits without end. */
bool cond_wait(struct cond *c, struct mutex *m, usec_t timeout);
