#pragma once
/* Memory: allocators that never return NULL (out of memory ends the process: a peer takes over;
 * sizes from outside are checked against a limit before they get here), and an arena. */
#include "base/str.h"
#include <stddef.h>

void *mem_alloc(size_t bytes) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t bytes) __attribute__((malloc, returns_nonnull));
void *mem_array(size_t n, size_t size) __attribute__((returns_nonnull)); /* zeroed, overflow-checked */
void *mem_grow(void *p, size_t n, size_t size)
    __attribute__((returns_nonnull)); /* realloc(n*size), checked */
char *mem_strdup(const char *z) __attribute__((malloc, returns_nonnull));
char *mem_slicedup(struct slice s) __attribute__((malloc, returns_nonnull)); /* terminated copy */
void mem_free(void *p);
/* End the process: for callers whose library reports that memory ran out. */
void mem_exhausted(void) __attribute__((noreturn));
static inline void mem_freep(void *pp) {
  mem_free(*(void **)pp);
  *(void **)pp = NULL;
}
#define auto_free __attribute__((cleanup(mem_freep)))
/* Give away what an auto_free variable holds. */
#define take(p)                                                                                              \
  ({                                                                                                         \
    __typeof__(p) take_ = (p);                                                                               \
    (p) = NULL;                                                                                              \
    take_;                                                                                                   \
  })

/* Make room for one more in a vector `v` of `n` with capacity `cap` (doubling). */
#define mem_reserve(v, n, cap)                                                                               \
  do {                                                                                                       \
    if ((n) >= (cap)) {                                                                                      \
      (cap) = (cap) ? (cap)*2 : 16;                                                                          \
      (v) = mem_grow((v), (size_t)(cap), sizeof *(v));                                                       \
    }                                                                                                        \
  } while (0)

/* An arena: many small allocations, freed together. Not thread-safe. Never keep a pointer into
 * it in anything that lives longer. Zeroed struct = empty arena. */
struct arena_block;
struct arena {
  struct arena_block *head;
  size_t used_bytes;
};
void *arena_alloc(struct arena *a, size_t bytes); /* zeroed, 16-byte aligned */
void *arena_array(struct arena *a, size_t n, size_t size);
struct slice arena_slice(struct arena *a, struct slice s); /* copy, also NUL-terminated */
char *arena_strdup(struct arena *a, const char *z);
char *arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void arena_clear(struct arena *a); /* reusable: keeps one block */
void arena_done(struct arena *a);
#define auto_arena __attribute__((cleanup(arena_done))) struct arena
