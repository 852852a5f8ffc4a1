#include "base/mem.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_heap(void **state) {
  (void)state;
  char *p = mem_zalloc(10);
  for (int i = 0; i < 10; i++)
    assert_int_equal(p[i], 0);
  p = mem_grow(p, 100, 10);
  p[999] = 1;
  mem_free(p);
  mem_free(mem_alloc(0));
  mem_free(mem_array(0, 0));
  mem_free(mem_grow(NULL, 0, 8));
  mem_free(NULL);
  auto_free char *z = mem_strdup("text");
  assert_string_equal(z, "text");
  auto_free char *s = mem_slicedup(slice_n("text", 2));
  assert_string_equal(s, "te");
  auto_free char *none = mem_slicedup(slice_of(NULL));
  assert_string_equal(none, "");
}

static void test_take(void **state) {
  (void)state;
  auto_free char *from = mem_strdup("x");
  char *to = take(from);
  assert_null(from);
  assert_string_equal(to, "x");
  mem_freep(&to);
  assert_null(to);
}

static void test_reserve(void **state) {
  (void)state;
  int *v = NULL;
  size_t n = 0, cap = 0;
  for (int i = 0; i < 100; i++) {
    mem_reserve(v, n, cap);
    v[n++] = i;
  }
  assert_int_equal(cap, 128);
  assert_int_equal(v[99], 99);
  mem_free(v);
}

static void too_much_array(void) { mem_free(mem_array(SIZE_MAX / 2, 3)); }
static void too_much_grow(void) { mem_free(mem_grow(NULL, SIZE_MAX / 2, 3)); }
static void too_much_arena(void) {
  struct arena a = {0};
  (void)arena_alloc(&a, SIZE_MAX - 2);
}
static void too_much_arena_array(void) {
  struct arena a = {0};
  (void)arena_array(&a, SIZE_MAX / 2, 3);
}
static void too_much_block(void) {
  struct arena a = {0};
  (void)arena_alloc(&a, SIZE_MAX - 32);
}
static void too_long_slice(void) { mem_free(mem_slicedup(slice_n("", SIZE_MAX))); }
static void too_long_arena_slice(void) {
  struct arena a = {0};
  (void)arena_slice(&a, slice_n("", SIZE_MAX));
}

/* A size that cannot be had ends the process: by our exit, or by the sanitizer's abort. */
static void dies(void (*f)(void)) {
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    (void)close(STDERR_FILENO);
    f();
    _exit(0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_exhausted(void **state) {
  (void)state;
  dies(mem_exhausted);
  dies(too_much_array);
  dies(too_much_grow);
  dies(too_much_arena);
  dies(too_much_arena_array);
  dies(too_much_block);
  dies(too_long_slice);
  dies(too_long_arena_slice);
}

static void test_arena(void **state) {
  (void)state;
  auto_arena a = {0};
  for (size_t n = 0; n < 300; n++) {
    unsigned char *p = arena_alloc(&a, n);
    assert_int_equal((uintptr_t)p % 16, 0);
    for (size_t i = 0; i < n; i++)
      assert_int_equal(p[i], 0);
    memset(p, 0xee, n);
  }
  assert_true(a.used_bytes >= 300 * 299 / 2);
  arena_clear(&a);
  assert_int_equal(a.used_bytes, 0);
  unsigned char *again = arena_array(&a, 100, 10); /* what was used before is zero again */
  for (size_t i = 0; i < 1000; i++)
    assert_int_equal(again[i], 0);
  arena_done(&a);
  arena_clear(&a);
}

static void test_arena_big(void **state) {
  (void)state;
  auto_arena a = {0};
  char *small = arena_alloc(&a, 16);
  char *big = arena_alloc(&a, 1 << 20);
  char *next = arena_alloc(&a, 16);
  big[(1 << 20) - 1] = 1;
  assert_ptr_equal(next, small + 16); /* a big one does not waste the room of the current block */
  arena_clear(&a);
  big = arena_alloc(&a, 1 << 20);
  assert_int_equal(big[(1 << 20) - 1], 0);
}

static void test_arena_text(void **state) {
  (void)state;
  auto_arena a = {0};
  struct slice s = arena_slice(&a, slice_n("abcdef", 3));
  assert_string_equal(s.p, "abc");
  assert_int_equal(s.n, 3);
  assert_string_equal(arena_slice(&a, slice_of(NULL)).p, "");
  assert_string_equal(arena_strdup(&a, "zz"), "zz");
  assert_string_equal(arena_strdup(&a, NULL), "");
  assert_string_equal(arena_printf(&a, "%s-%d", "n", 3), "n-3");
  char *wide = arena_printf(&a, "%0400d", 5);
  assert_int_equal(strlen(wide), 400);
  assert_int_equal(wide[399], '5');
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_heap),       cmocka_unit_test(test_take),  cmocka_unit_test(test_reserve),
      cmocka_unit_test(test_exhausted),  cmocka_unit_test(test_arena), cmocka_unit_test(test_arena_big),
      cmocka_unit_test(test_arena_text),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
