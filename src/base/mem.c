#include "base/mem.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define ARENA_BLOCK_BYTES 8192
#define ARENA_ALIGN       16
#define MEM_EXIT          71 /* EX_OSERR: an exit the service manager restarts after */

struct arena_block {
  struct arena_block *next;
  size_t size; /* of data */
  size_t used;
  _Alignas(ARENA_ALIGN) unsigned char data[];
};

void mem_exhausted(void) {
  static const char text[] = "kelou: out of memory\n";
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0)
    _exit(MEM_EXIT);
  _exit(MEM_EXIT);
}

void *mem_alloc(size_t bytes) {
  void *p = malloc(bytes ? bytes : 1);
  if (!p)
    mem_exhausted();
  return p;
}

void *mem_array(size_t n, size_t size) {
  void *p = calloc(n ? n : 1, size ? size : 1); /* calloc checks the product */
  if (!p)
    mem_exhausted();
  return p;
}

void *mem_zalloc(size_t bytes) { return mem_array(1, bytes); }

void *mem_grow(void *p, size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes))
    mem_exhausted();
  void *q = realloc(p, bytes ? bytes : 1);
  if (!q)
    mem_exhausted();
  return q;
}

char *mem_slicedup(struct slice s) {
  if (s.n == SIZE_MAX)
    mem_exhausted();
  char *p = mem_alloc(s.n + 1);
  if (s.n)
    memcpy(p, s.p, s.n);
  p[s.n] = 0;
  return p;
}

char *mem_strdup(const char *z) { return mem_slicedup(slice_of(z)); }
void mem_free(void *p) { free(p); }

static struct arena_block *block_new(size_t size) {
  size_t bytes;
  if (__builtin_add_overflow(sizeof(struct arena_block), size, &bytes))
    mem_exhausted();
  struct arena_block *b = mem_zalloc(bytes);
  b->size = size;
  return b;
}

void *arena_alloc(struct arena *a, size_t bytes) {
  size_t need;
  if (__builtin_add_overflow(bytes ? bytes : 1, (size_t)(ARENA_ALIGN - 1), &need))
    mem_exhausted();
  need &= ~(size_t)(ARENA_ALIGN - 1);
  struct arena_block *b = a->head;
  if (!b || b->size - b->used < need) {
    b = block_new(need > ARENA_BLOCK_BYTES ? need : ARENA_BLOCK_BYTES);
    if (need > ARENA_BLOCK_BYTES / 2 && a->head) { /* big ones stand behind: the head still has room */
      b->next = a->head->next;
      a->head->next = b;
    } else {
      b->next = a->head;
      a->head = b;
    }
  }
  void *p = b->data + b->used;
  b->used += need;
  a->used_bytes += need;
  return p;
}

void *arena_array(struct arena *a, size_t n, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(n, size, &bytes))
    mem_exhausted();
  return arena_alloc(a, bytes);
}

struct slice arena_slice(struct arena *a, struct slice s) {
  if (s.n == SIZE_MAX)
    mem_exhausted();
  char *p = arena_alloc(a, s.n + 1);
  if (s.n)
    memcpy(p, s.p, s.n);
  return slice_n(p, s.n);
}

char *arena_strdup(struct arena *a, const char *z) {
  size_t n = z ? strlen(z) + 1 : 1;
  char *p = arena_alloc(a, n);
  return z ? memcpy(p, z, n) : p;
}

char *arena_printf(struct arena *a, const char *fmt, ...) {
  char small[256];
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(small, sizeof small, fmt, args);
  va_end(args);
  if (n < 0)
    return arena_strdup(a, "");
  char *p = arena_alloc(a, (size_t)n + 1);
  if ((size_t)n < sizeof small) {
    memcpy(p, small, (size_t)n);
    return p;
  }
  va_start(args, fmt);
  (void)vsnprintf(p, (size_t)n + 1, fmt, args); /* measured above */
  va_end(args);
  return p;
}

void arena_clear(struct arena *a) {
  struct arena_block *keep = a->head;
  if (!keep)
    return;
  struct arena rest = {.head = keep->next};
  arena_done(&rest);
  keep->next = NULL;
  memset(keep->data, 0, keep->used);
  keep->used = 0;
  a->used_bytes = 0;
}

void arena_done(struct arena *a) {
  for (struct arena_block *b = a->head; b;) {
    struct arena_block *next = b->next;
    mem_free(b);
    b = next;
  }
  *a = (struct arena){0};
}
