#include "base/queue.h"
#include "base/mem.h"
#include "base/thread.h"
#include <assert.h>

struct queue {
  struct mutex lock; /* protects all below */
  struct cond not_empty;
  struct cond not_full;
  void **items; /* a ring */
  size_t capacity;
  size_t head;
  size_t n;
  size_t takers; /* waiting in queue_take */
  size_t wakes;  /* wakes not yet seen by a taker */
  bool closed;
};

struct queue *queue_new(size_t capacity) {
  assert(capacity > 0);
  struct queue *q = mem_zalloc(sizeof *q);
  q->items = mem_array(capacity, sizeof *q->items);
  q->capacity = capacity;
  mutex_init(&q->lock);
  cond_init(&q->not_empty);
  cond_init(&q->not_full);
  return q;
}

void queue_free(struct queue **q) {
  struct queue *it = *q;
  if (!it)
    return;
  assert(it->n == 0 && it->takers == 0);
  *q = NULL;
  cond_done(&it->not_full);
  cond_done(&it->not_empty);
  mutex_done(&it->lock);
  mem_free(it->items);
  mem_free(it);
}

static usec_t now(void) { return clock_system.mono(&clock_system); }

static usec_t deadline(usec_t timeout) {
  usec_t until;
  return __builtin_add_overflow(now(), timeout, &until) ? USEC_NEVER : until;
}

/* Wait for a change until `until`; false when that has passed. */
static bool wait_until(struct queue *q, struct cond *c, usec_t until) {
  if (until == USEC_NEVER)
    return cond_wait(c, &q->lock, USEC_NEVER);
  usec_t left = until - now();
  return left > 0 && (cond_wait(c, &q->lock, left) || now() < until);
}

/* With the lock held. */
static int put(struct queue *q, void *item) {
  if (q->closed)
    return -EPIPE;
  if (q->n == q->capacity)
    return -EAGAIN;
  q->items[(q->head + q->n) % q->capacity] = item;
  q->n++;
  if (q->takers)
    cond_signal(&q->not_empty);
  return 0;
}

int queue_push(struct queue *q, void *item) {
  mutex_lock(&q->lock);
  int r = put(q, item);
  mutex_unlock(&q->lock);
  return r;
}

int queue_push_wait(struct queue *q, void *item, usec_t timeout) {
  usec_t until = deadline(timeout);
  mutex_lock(&q->lock);
  int r = put(q, item);
  while (r == -EAGAIN) {
    bool in_time = wait_until(q, &q->not_full, until);
    r = put(q, item);
    if (r == -EAGAIN && !in_time)
      r = -ETIMEDOUT;
  }
  mutex_unlock(&q->lock);
  return r;
}

/* With the lock held: up to `max` items out. */
static size_t get(struct queue *q, void **items, size_t max) {
  size_t n = q->n < max ? q->n : max;
  for (size_t i = 0; i < n; i++) {
    items[i] = q->items[q->head];
    q->head = (q->head + 1) % q->capacity;
  }
  q->n -= n;
  if (n == 1)
    cond_signal(&q->not_full);
  else if (n)
    cond_broadcast(&q->not_full);
  return n;
}

int queue_take(struct queue *q, void **items, size_t max, usec_t timeout) {
  assert(max > 0);
  usec_t until = timeout > 0 ? deadline(timeout) : 0;
  mutex_lock(&q->lock);
  q->takers++;
  bool in_time = timeout > 0;
  while (!q->n && !q->wakes && !q->closed && in_time)
    in_time = wait_until(q, &q->not_empty, until);
  q->takers--;
  if (q->wakes)
    q->wakes--;
  size_t n = get(q, items, max < INT32_MAX ? max : INT32_MAX);
  if (q->n && q->takers)
    cond_signal(&q->not_empty); /* one signal may have stood for several items */
  int r = n ? (int)n : q->closed ? -EPIPE : 0;
  mutex_unlock(&q->lock);
  return r;
}

void queue_wake(struct queue *q) {
  mutex_lock(&q->lock);
  /* Remembered for a taker that is about to wait; more than one spare would only make takers spin. */
  if (q->wakes <= q->takers)
    q->wakes++;
  cond_signal(&q->not_empty);
  mutex_unlock(&q->lock);
}

void queue_close(struct queue *q) {
  mutex_lock(&q->lock);
  q->closed = true;
  cond_broadcast(&q->not_empty);
  cond_broadcast(&q->not_full);
  mutex_unlock(&q->lock);
}

size_t queue_size(struct queue *q) {
  mutex_lock(&q->lock);
  size_t n = q->n;
  mutex_unlock(&q->lock);
  return n;
}
