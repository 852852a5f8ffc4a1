#include "sim.h"
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/* Simulated time and threads. Threads are coroutines that change places only where a real one would wait; everything happens in the order
 * (time, number) of one heap of events, so that a seed always tells the same story. Stands in for base/thread.c and clock_system. */

enum { STACK = 256 * 1024 };

struct sim_co {
  ucontext_t first;
  jmp_buf where;
  bool entered, done, blocked, forever, signalled, in_ready;
  char *stack;
  void *frames; /* the sanitizer's, while it waits */
  void (*run)(void *arg);
  void *arg;
  const char *name;
  struct sim_proc *proc;
  uint64_t wait_no; /* of the wait that it is in: older wakes are stale */
  struct cond *on;  /* waits for this */
  struct sim_co *next_waiter, *joiner, *next, *next_ready;
};
struct event {
  usec_t at;
  uint64_t no;
  struct sim_proc *proc;
  void (*fn)(void *arg);
  void *arg;
  uint64_t wait_no; /* fn NULL: wake the coroutine arg, if it still waits so */
};

usec_t sim_now;
struct sim_proc *sim_proc;
static struct event *heap;
static size_t heap_count, heap_cap;
static uint64_t event_no;
static struct sim_co *current;
static struct sim_proc *procs;
static jmp_buf scheduler;
static bool stopped;
static char **stacks; /* to be used again */
static size_t stack_count, stack_cap;

/* ------------------------------------------------------------------ events */
static bool sooner(const struct event *a, const struct event *b) {
  return a->at != b->at ? a->at < b->at : a->no < b->no;
}

static void push(struct event e) {
  mem_reserve(heap, heap_count, heap_cap);
  size_t i = heap_count++;
  for (; i && sooner(&e, &heap[(i - 1) / 2]); i = (i - 1) / 2)
    heap[i] = heap[(i - 1) / 2];
  heap[i] = e;
}

static struct event pop(void) {
  struct event top = heap[0], e = heap[--heap_count];
  size_t i = 0;
  for (size_t c; (c = 2 * i + 1) < heap_count; i = c) {
    if (c + 1 < heap_count && sooner(&heap[c + 1], &heap[c]))
      c++;
    if (!sooner(&heap[c], &e))
      break;
    heap[i] = heap[c];
  }
  heap[i] = e;
  return top;
}

void sim_at(usec_t at, struct sim_proc *proc, void (*fn)(void *arg), void *arg) {
  push((struct event){
      .at = at < sim_now ? sim_now : at, .no = ++event_no, .proc = proc, .fn = fn, .arg = arg});
}

static void wake_at(usec_t at, struct sim_co *c) {
  push((struct event){.at = at, .no = ++event_no, .proc = c->proc, .arg = c, .wait_no = c->wait_no});
}

/* ------------------------------------------------------------------ changing places */
/* AddressSanitizer keeps local variables of each stack apart and takes all of them for dead when a jump leaves the stack that it knows: it is
 * told of every change of stacks. `leaving` is called right before the jump, `arrived` first thing after it. */
static void *scheduler_frames;
#ifdef __SANITIZE_ADDRESS__
static const void *scheduler_stack;
static size_t scheduler_stack_size;

/* `frames` NULL: never to return. */
static void leaving(void **frames, const struct sim_co *to) {
  __sanitizer_start_switch_fiber(frames, to ? to->stack : scheduler_stack, to ? STACK : scheduler_stack_size);
}

static void arrived(void *frames, bool from_scheduler) {
  __sanitizer_finish_switch_fiber(frames, from_scheduler ? &scheduler_stack : NULL,
                                  from_scheduler ? &scheduler_stack_size : NULL);
}

static void clean(char *stack) { __asan_unpoison_memory_region(stack, STACK); }
#else
static void leaving(void **frames, const struct sim_co *to) { (void)frames, (void)to; }
static void arrived(void *frames, bool from_scheduler) { (void)frames, (void)from_scheduler; }
static void clean(char *stack) { (void)stack; }
#endif

static void entry(void) {
  struct sim_co *c = current;
  arrived(NULL, true);
  c->run(c->arg);
  c->done = true;
  mem_reserve(stacks, stack_count, stack_cap);
  stacks[stack_count++] = c->stack; /* still in use until the jump; nothing is started before it */
  leaving(NULL, NULL);
  longjmp(scheduler, 1);
}

/* From the scheduler into a coroutine, until it waits or ends. */
static void enter(struct sim_co *c) {
  struct sim_co *before = current;
  struct sim_proc *proc = sim_proc;
  current = c;
  sim_proc = c->proc;
  if (setjmp(scheduler) == 0) {
    leaving(&scheduler_frames, c);
    if (c->entered)
      longjmp(c->where, 1);
    c->entered = true;
    setcontext(&c->first);
  }
  arrived(scheduler_frames, false);
  current = before;
  sim_proc = proc;
}

static void ready_while_dying(struct sim_co *c) {
  if (c->in_ready)
    return;
  c->in_ready = true;
  *c->proc->ready_tail = c;
  c->proc->ready_tail = &c->next_ready;
  c->next_ready = NULL;
}

/* Wait until woken; the caller has arranged for that. */
static void wait_here(void) {
  struct sim_co *c = current;
  c->blocked = true;
  if (setjmp(c->where) == 0) {
    leaving(&c->frames, NULL);
    longjmp(scheduler, 1);
  }
  arrived(c->frames, true);
}

static void resume(struct sim_co *c) {
  c->blocked = false;
  c->wait_no++;
  enter(c);
}

static void wake_now(struct sim_co *c) {
  if (c->proc->dying)
    ready_while_dying(c);
  else
    wake_at(sim_now, c);
}

struct sim_co *sim_go(struct sim_proc *proc, const char *name, void (*run)(void *arg), void *arg) {
  struct sim_co *c = mem_zalloc(sizeof *c);
  c->run = run;
  c->arg = arg;
  c->name = name;
  c->proc = proc;
  c->stack = stack_count ? stacks[--stack_count]
                         : mmap(NULL, STACK, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  clean(c->stack);
  (void)getcontext(&c->first);
  c->first.uc_stack.ss_sp = c->stack;
  c->first.uc_stack.ss_size = STACK;
  makecontext(&c->first, entry, 0);
  c->next = proc->cos;
  proc->cos = c;
  c->blocked = true;
  wake_now(c);
  return c;
}

void sim_sleep(usec_t length) {
  struct sim_co *c = current;
  if (c->proc->dying) {
    c->proc->dying_for += length;
    ready_while_dying(c);
  } else {
    wake_at(sim_now + length, c);
  }
  wait_here();
}

/* ------------------------------------------------------------------ processes */
struct sim_proc *sim_proc_new(const char *name, void *node) {
  struct sim_proc *p = mem_zalloc(sizeof *p);
  p->name = name;
  p->node = node;
  p->ready_tail = &p->ready;
  p->next = procs;
  procs = p;
  return p;
}

void sim_pause(struct sim_proc *proc, usec_t length) {
  if (sim_now + length > proc->paused_until)
    proc->paused_until = sim_now + length;
}

static void free_cos(struct sim_proc *p) {
  for (struct sim_co *c = p->cos, *next; c; c = next) {
    next = c->next;
    if (!c->done) {
      (void)fprintf(stderr, "sim: %s of %s did not end\n", c->name, p->name);
      abort();
    }
    mem_free(c);
  }
  p->cos = NULL;
}

void sim_kill(struct sim_proc *p, void (*bury)(void *arg), void *arg) {
  p->dying = true;
  p->paused_until = 0;
  struct sim_co *b = sim_go(p, "bury", bury, arg);
  for (struct sim_co *c = p->cos; c; c = c->next)
    if (c != b && c->blocked && (!c->forever || c->signalled) && !c->done)
      ready_while_dying(c);
  while (p->ready) {
    struct sim_co *c = p->ready;
    p->ready = c->next_ready;
    if (!p->ready)
      p->ready_tail = &p->ready;
    c->in_ready = false;
    if (!c->done && c->blocked)
      resume(c);
  }
  free_cos(p);
  p->dead = true;
}

void sim_stop(void) { stopped = true; }
bool sim_stopped(void) { return stopped; }

static void happen(struct event e) {
  if (!e.fn && (e.proc->dead || e.proc->dying))
    return; /* the coroutine is gone */
  if (e.proc && e.proc->paused_until > sim_now) {
    e.at = e.proc->paused_until;
    push(e); /* in the old order among themselves */
    return;
  }
  if (!e.fn) {
    struct sim_co *c = e.arg;
    if (!c->done && c->blocked && c->wait_no == e.wait_no)
      resume(c);
    return;
  }
  sim_proc = e.proc && !e.proc->dead ? e.proc : NULL;
  e.fn(e.arg);
  sim_proc = NULL;
}

void sim_run_until(usec_t end) {
  while (heap_count && heap[0].at <= end && !stopped) {
    struct event e = pop();
    if (e.at > sim_now)
      sim_now = e.at;
    happen(e);
  }
  if (!stopped && sim_now < end)
    sim_now = end;
}

void sim_co_reset(void) {
  sim_now = 0;
  event_no = 0;
  heap_count = 0;
  stopped = false;
}

void sim_co_done(void) {
  for (struct sim_proc *p = procs, *next; p; p = next) {
    next = p->next;
    free_cos(p);
    mem_free(p);
  }
  procs = NULL;
  mem_free(heap);
  heap = NULL;
  heap_count = heap_cap = 0;
  while (stack_count) {
    clean(stacks[--stack_count]);
    (void)munmap(stacks[stack_count], STACK);
  }
  mem_free(stacks);
  stacks = NULL;
  stack_cap = 0;
}

/* ------------------------------------------------------------------ base/time.h: the clocks of whoever asks */
static usec_t mono(const struct clock *k) {
  (void)k;
  if (!sim_proc)
    return sim_now;
  return sim_now + (usec_t)((double)sim_now * sim_proc->drift) + sim_proc->mono_offset + sim_proc->dying_for;
}

static usec_t wall(const struct clock *k) {
  (void)k;
  return 1700000000 * USEC_PER_SEC + sim_now + (sim_proc ? sim_proc->wall_offset : 0);
}

const struct clock clock_system = {wall, mono};

/* ------------------------------------------------------------------ base/thread.h */
int thread_start(struct thread *t, const char *name, void (*run)(void *), void *arg, struct err *e) {
  (void)e;
  struct sim_co *c = sim_go(sim_proc, name, run, arg);
  memcpy(&t->id, &c, sizeof c);
  t->running = true;
  return 0;
}

void thread_join(struct thread *t) {
  struct sim_co *c;
  if (!t->running)
    return;
  memcpy(&c, &t->id, sizeof c);
  while (!c->done)
    sim_sleep(USEC_PER_MS);
  t->running = false;
}

static int *held(struct mutex *m) { return (int *)(void *)&m->m; }

static void must(bool so, const char *what) {
  if (so)
    return;
  (void)fprintf(stderr, "sim: %s (in %s of %s)\n", what, current ? current->name : "-",
                sim_proc ? sim_proc->name : "the world");
  abort();
}

void mutex_init(struct mutex *m) { *held(m) = 0; }
void mutex_done(struct mutex *m) { must(!*held(m), "a held mutex is thrown away"); }
void mutex_lock(struct mutex *m) {
  must(!*held(m),
       "a mutex is held while another waits"); /* nobody waits with a lock: it is never contended */
  *held(m) = 1;
  if (sim_proc)
    sim_proc->locked++;
}
void mutex_unlock(struct mutex *m) {
  must(*held(m), "a mutex is given back that is not held");
  *held(m) = 0;
  if (sim_proc)
    sim_proc->locked--;
}

static struct sim_co **waiters(struct cond *c) { return (struct sim_co **)(void *)&c->c; }

void cond_init(struct cond *c) { *waiters(c) = NULL; }
void cond_done(struct cond *c) { must(!*waiters(c), "a condition that is waited for is thrown away"); }

static void unlist(struct cond *cv, struct sim_co *c) {
  struct sim_co **p = waiters(cv);
  while (*p && *p != c)
    p = &(*p)->next_waiter;
  if (*p)
    *p = c->next_waiter;
}

void cond_signal(struct cond *cv) {
  struct sim_co *c = *waiters(cv);
  if (!c)
    return;
  *waiters(cv) = c->next_waiter;
  c->signalled = true;
  c->on = NULL;
  wake_now(c);
}

void cond_broadcast(struct cond *cv) {
  while (*waiters(cv))
    cond_signal(cv);
}

bool cond_wait(struct cond *cv, struct mutex *m, usec_t timeout) {
  struct sim_co *c = current, **last = waiters(cv);
  must(c != NULL, "the world waits for a condition");
  mutex_unlock(m);
  must(sim_proc->locked == 0, "a thread waits while it holds a mutex");
  while (*last)
    last = &(*last)->next_waiter;
  *last = c;
  c->next_waiter = NULL;
  c->on = cv;
  c->signalled = false;
  c->forever = timeout == USEC_NEVER;
  if (!c->forever) {
    timeout = timeout > 0 ? timeout : 0;
    if (c->proc->dying) {
      c->proc->dying_for += timeout;
      ready_while_dying(c);
    } else {
      wake_at(sim_now + timeout, c);
    }
  }
  wait_here();
  c->forever = false;
  if (c->on)
    unlist(cv, c);
  c->on = NULL;
  mutex_lock(m);
  return c->signalled;
}

/* The end of the world: no coroutine is left; events come with nobody there, until none is left. */
void sim_co_flush(void) {
  for (size_t n = 0; heap_count && n < 10000000; n++) {
    struct event e = pop();
    if (e.at > sim_now)
      sim_now = e.at;
    if (e.fn)
      e.fn(e.arg);
  }
}
