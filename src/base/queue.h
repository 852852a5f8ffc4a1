#pragma once
/* A bounded queue of pointers between threads (many producers, one or many consumers).
 * A full queue refuses (-EAGAIN): the producer pushes back, nothing is ever dropped here. */
#include "base/time.h"
#include <stdbool.h>
#include <stddef.h>

struct queue; /* opaque, thread-safe */
struct queue *queue_new(size_t capacity);
void queue_free(struct queue **q);                                /* must be empty and unused */
int queue_push(struct queue *q, void *item);                      /* 0, -EAGAIN full, -EPIPE closed */
int queue_push_wait(struct queue *q, void *item, usec_t timeout); /* also -ETIMEDOUT */
/* Take up to `max` items in order, waiting up to `timeout` µs (0 = do not wait, USEC_NEVER) for the first.
 * Returns the count (0: time-out or woken), -EPIPE when closed and empty. */
int queue_take(struct queue *q, void **items, size_t max, usec_t timeout);
/* Make one waiting queue_take return now, even when empty; when none waits, the next one. */
void queue_wake(struct queue *q);
void queue_close(struct queue *q); /* further pushes fail; takers drain, then get -EPIPE */
size_t queue_size(struct queue *q);
