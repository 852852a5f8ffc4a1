#include "net/loop.h"
#include "base/mem.h"
#include "base/thread.h"
#include "net/loop_internal.h"
#include <assert.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define POST_ROUNDS_MAX 16 /* posts that post again may not starve the sockets */

struct post {
  void (*fn)(void *);
  void *arg;
};

struct loop {
  uv_loop_t uv;
  uv_poll_t
      wake; /* on wake_fd. Not uv_async_t: its receiver spins while a sender is preempted in the middle */
  int wake_fd;
  uv_prepare_t prepare;
  uv_check_t check;
  struct thread thread;
  char name[16];
  char *read_buffer;
  usec_t now;
  bool now_fresh;
  bool stopping;
  struct mutex lock; /* protects posts, post_n, post_cap, woken */
  struct post *posts;
  size_t post_n, post_cap;
  bool woken;
  struct post *batch; /* loop thread: the vector being run */
  size_t batch_cap;
};

struct loop_timer {
  uv_timer_t uv;
  struct loop *loop;
  void (*fn)(void *);
  void *arg;
};

uv_loop_t *loop_uv(struct loop *l) { return &l->uv; }
char *loop_read_buffer(struct loop *l) { return l->read_buffer; }

/* The loop of this thread. Compared only: `l` may have been freed (http_request_reply after the end). */
static _Thread_local const struct loop *current;

bool loop_is_current(const struct loop *l) { return l == current; }

usec_t loop_now(const struct loop *l) {
  if (!l->now_fresh) { /* the cache is not part of what the caller sees as the loop's state */
    struct loop *m = (struct loop *)(uintptr_t)l;
    m->now = clock_system.mono(&clock_system);
    m->now_fresh = true;
  }
  return l->now;
}

/* Swap the vectors and run one of them; true when something was run. */
static bool run_posts(struct loop *l) {
  mutex_lock(&l->lock);
  struct post *v = l->posts;
  size_t n = l->post_n, cap = l->post_cap;
  l->posts = l->batch;
  l->post_cap = l->batch_cap;
  l->post_n = 0;
  l->woken = false;
  mutex_unlock(&l->lock);
  l->batch = v;
  l->batch_cap = cap;
  for (size_t i = 0; i < n; i++)
    v[i].fn(v[i].arg);
  return n > 0;
}

static void wake(struct loop *l) {
  uint64_t one = 1;
  ssize_t n = write(l->wake_fd, &one, sizeof one);
  (void)n; /* fails only when the counter is full: then the loop is being woken anyway */
}

static void on_wake(uv_poll_t *w, int status, int events) {
  struct loop *l = w->data;
  uint64_t count;
  (void)status;
  (void)events;
  ssize_t n = read(l->wake_fd, &count, sizeof count);
  (void)n; /* nothing to read: somebody else's wake-up was already taken */
  (void)run_posts(l);
}

/* Just before the loop sleeps: run what the callbacks of this turn have posted, without a wake-up. */
static void on_prepare(uv_prepare_t *p) {
  struct loop *l = p->data;
  int rounds = 0;
  while (rounds < POST_ROUNDS_MAX && run_posts(l))
    rounds++;
  if (rounds == POST_ROUNDS_MAX)
    wake(l);
  l->now_fresh = false;
}

static void on_check(uv_check_t *c) { ((struct loop *)c->data)->now_fresh = false; }

void loop_post(struct loop *l, void (*fn)(void *), void *arg) {
  bool here = loop_is_current(l);
  mutex_lock(&l->lock);
  mem_reserve(l->posts, l->post_n, l->post_cap);
  l->posts[l->post_n++] = (struct post){fn, arg};
  bool send = !l->woken && !here;
  l->woken |= send;
  mutex_unlock(&l->lock);
  if (send)
    wake(l);
}

struct waiter {
  void (*fn)(void *);
  void *arg;
  struct mutex lock;
  struct cond done;
  bool ended;
};

static void run_waiter(void *arg) {
  struct waiter *w = arg;
  w->fn(w->arg);
  mutex_lock(&w->lock);
  w->ended = true;
  cond_signal(&w->done); /* under the lock: the waiter's stack frame goes away right after */
  mutex_unlock(&w->lock);
}

void loop_call(struct loop *l, void (*fn)(void *), void *arg) {
  if (loop_is_current(l)) {
    fn(arg);
    return;
  }
  struct waiter w = {.fn = fn, .arg = arg};
  mutex_init(&w.lock);
  cond_init(&w.done);
  loop_post(l, run_waiter, &w);
  mutex_lock(&w.lock);
  while (!w.ended)
    (void)cond_wait(&w.done, &w.lock, USEC_NEVER);
  mutex_unlock(&w.lock);
  cond_done(&w.done);
  mutex_done(&w.lock);
}

/* An eventfd watched by the loop. */
static int make_wake(struct loop *l) {
  l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (l->wake_fd < 0)
    return -errno;
  int r = uv_poll_init(&l->uv, &l->wake, l->wake_fd);
  if (r == 0)
    r = uv_poll_start(&l->wake, UV_READABLE, on_wake);
  if (r < 0)
    (void)close(l->wake_fd); /* nothing was written */
  return r;
}

int loop_new(const char *thread_name, struct loop **ret, struct err *e) {
  struct loop *l = mem_zalloc(sizeof *l);
  int r = uv_loop_init(&l->uv);
  if (r == 0) {
    r = make_wake(l);
    if (r < 0)
      (void)uv_loop_close(&l->uv); /* nothing is on it */
  }
  if (r < 0) {
    mem_free(l);
    return err_set(e, r, "cannot make an I/O loop: %s", uv_strerror(r));
  }
  (void)uv_prepare_init(&l->uv, &l->prepare); /* these four only fill in memory */
  (void)uv_prepare_start(&l->prepare, on_prepare);
  (void)uv_check_init(&l->uv, &l->check);
  (void)uv_check_start(&l->check, on_check);
  l->wake.data = l->prepare.data = l->check.data = l;
  l->read_buffer = mem_alloc(LOOP_READ_BYTES);
  mutex_init(&l->lock);
  (void)text_copy(l->name, sizeof l->name, slice_of(thread_name)); /* a cut name is good enough */
  *ret = l;
  return 0;
}

static void loop_run(void *arg) {
  struct loop *l = arg;
  current = l;
  while (!l->stopping)
    (void)uv_run(&l->uv, UV_RUN_DEFAULT);
  current = NULL;
}

int loop_start(struct loop *l, struct err *e) {
  (void)signal(SIGPIPE, SIG_IGN); /* a peer that has gone is an error code, never the end of the process */
  return thread_start(&l->thread, l->name, loop_run, l, e);
}

static void stop(void *arg) {
  struct loop *l = arg;
  l->stopping = true;
  uv_stop(&l->uv);
}

static void on_timer_closed(uv_handle_t *h) { mem_free(h); }

static void close_left(uv_handle_t *h, void *arg) {
  struct loop *l = arg;
  bool own = h == (uv_handle_t *)&l->wake || h == (uv_handle_t *)&l->prepare || h == (uv_handle_t *)&l->check;
  assert(own || h->type == UV_TIMER || uv_is_closing(h)); /* else a server or client is still on this loop */
  if (!uv_is_closing(h))
    uv_close(h, own ? NULL : on_timer_closed);
}

void loop_stop(struct loop **lp) {
  struct loop *l = *lp;
  if (!l)
    return;
  assert(!loop_is_current(l));
  if (l->thread.running) {
    loop_post(l, stop, l);
    thread_join(&l->thread);
  }
  for (int i = 0; i < POST_ROUNDS_MAX && run_posts(l); i++)
    continue;
  uv_walk(&l->uv, close_left, l);
  (void)uv_run(&l->uv, UV_RUN_DEFAULT); /* only the close callbacks are left */
  int r = uv_loop_close(&l->uv);
  assert(r == 0);
  (void)r;
  (void)close(l->wake_fd); /* nothing to lose in it */
  mutex_done(&l->lock);
  mem_free(l->posts);
  mem_free(l->batch);
  mem_free(l->read_buffer);
  mem_free(l);
  *lp = NULL;
}

struct loop_timer *loop_timer_new(struct loop *l, void (*fn)(void *), void *arg) {
  struct loop_timer *t = mem_zalloc(sizeof *t);
  (void)uv_timer_init(&l->uv, &t->uv);
  t->loop = l;
  t->fn = fn;
  t->arg = arg;
  return t;
}

static void on_timer(uv_timer_t *u) {
  struct loop_timer *t = (struct loop_timer *)u; /* first member */
  t->fn(t->arg);
}

static uint64_t to_ms(usec_t t) {
  if (t <= 0)
    return 0;
  return (uint64_t)(t / USEC_PER_MS + (t % USEC_PER_MS != 0));
}

void loop_timer_set(struct loop_timer *t, usec_t after, usec_t repeat) {
  uv_update_time(&t->loop->uv); /* libuv counts from the start of the turn, which may be a while ago */
  (void)uv_timer_start(&t->uv, on_timer, to_ms(after), to_ms(repeat));
}

void loop_timer_clear(struct loop_timer *t) { (void)uv_timer_stop(&t->uv); }

void loop_timer_free(struct loop_timer **t) {
  if (!*t)
    return;
  uv_close((uv_handle_t *)&(*t)->uv, on_timer_closed);
  *t = NULL;
}
