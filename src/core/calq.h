#pragma once
/* A calendar queue: entries by (due, id), vectors for the time ahead, a 4-ary heap only for the bucket that is being emptied.
 * R. Brown, "Calendar queues", CACM 31(10), 1988; vectors instead of lists, so that nothing stalls when a bucket opens. Pure. */
#include "base/time.h"

struct calq_entry {
  usec_t due;
  int64_t id;
  void *item;
};
struct calq; /* not thread-safe */
struct calq *calq_new(void);
void calq_free(struct calq **q);
void calq_push(struct calq *q, struct calq_entry e);
/* The entry with the least (due, id): false when empty. */
bool calq_peek(struct calq *q, struct calq_entry *ret);
void calq_pop(struct calq *q); /* after a successful peek */
size_t calq_size(const struct calq *q);
