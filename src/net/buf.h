#pragma once
/* Private to net: a growing byte buffer that is reused from request to request. The caller has checked
 * sizes from outside against a limit before they get here. Zeroed struct = empty. */
#include "base/mem.h"

struct buf {
  char *p;
  size_t n, cap;
};

/* Room for `more` bytes behind the content; grow b->n yourself. */
static inline char *buf_room(struct buf *b, size_t more) {
  if (b->cap - b->n < more) {
    size_t cap = b->cap ? b->cap : 512;
    while (cap - b->n < more)
      cap *= 2;
    b->p = mem_grow(b->p, cap, 1);
    b->cap = cap;
  }
  return b->p + b->n;
}

static inline void buf_add(struct buf *b, const void *p, size_t n) {
  if (!n)
    return;
  memcpy(buf_room(b, n), p, n);
  b->n += n;
}

#define buf_lit(b, literal) buf_add((b), (literal), sizeof(literal) - 1)

static inline void buf_done(struct buf *b) {
  mem_free(b->p);
  *b = (struct buf){0};
}

/* Empty for reuse; memory beyond `keep_bytes` is given back. */
static inline void buf_clear(struct buf *b, size_t keep_bytes) {
  if (b->cap > keep_bytes)
    buf_done(b);
  b->n = 0;
}
