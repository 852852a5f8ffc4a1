/* For LD_PRELOAD: the allocation number FAIL_MALLOC fails, and with FAIL_MALLOC_ON all after it.
 * FAIL_MALLOC_SAY: how many there were is said on standard error at the end. glibc only. */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

extern void *__libc_malloc(size_t n);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t n);

static atomic_long count, fail_at;
static atomic_bool fail_on;

__attribute__((constructor)) static void begin(void) {
  const char *at = getenv("FAIL_MALLOC");
  long n = 0;
  for (; at && *at >= '0' && *at <= '9'; at++)
    n = n * 10 + (*at - '0');
  fail_on = getenv("FAIL_MALLOC_ON") != NULL;
  count = 0;
  fail_at = n;
}

__attribute__((destructor)) static void end(void) {
  fail_at = 0;
  if (getenv("FAIL_MALLOC_SAY"))
    (void)fprintf(stderr, "allocations %ld\n", (long)count);
}

static bool fails(void) {
  long n = ++count;
  if (!fail_at)
    return false;
  if (n != fail_at && !(fail_on && n > fail_at))
    return false;
  errno = ENOMEM;
  return true;
}

void *malloc(size_t n) { return fails() ? NULL : __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return fails() ? NULL : __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return fails() ? NULL : __libc_realloc(p, n); }
