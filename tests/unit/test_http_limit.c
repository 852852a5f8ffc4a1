/* Who asks how much: rates, holds, and a table that stays small. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include "net/http_limit.h"

static struct slice owner(int i) {
  static char text[32];
  return slice_n(text, (size_t)snprintf(text, sizeof text, "owner %d", i));
}

static void a_rate_and_its_burst(void **state) {
  (void)state;
  struct http_limiter l;
  usec_t now = 1000 * USEC_PER_SEC;
  http_limiter_init(&l, 10, 0);
  struct http_limit_entry *a = http_limiter_hold(&l, owner(1), now),
                          *b = http_limiter_hold(&l, owner(2), now);
  for (int i = 0; i < 10 * HTTP_LIMIT_BURST; i++)
    assert_int_equal(http_limiter_take(&l, a, now), 0);
  assert_int_equal(http_limiter_take(&l, a, now), 1);
  assert_int_equal(http_limiter_take(&l, b, now), 0); /* nobody else's affair */
  now += 100 * USEC_PER_MS;                           /* one has become due */
  assert_int_equal(http_limiter_take(&l, a, now), 0);
  assert_int_equal(http_limiter_take(&l, a, now), 1);
  int taken = 0;
  for (int ms = 0; ms < 60000; ms++, now += USEC_PER_MS)
    taken += http_limiter_take(&l, a, now) == 0;
  assert_in_range(taken, 599, 601);
  http_limiter_release(&l, a);
  http_limiter_release(&l, b);
  http_limiter_done(&l);
}

static void holds(void **state) {
  (void)state;
  struct http_limiter l;
  struct http_limit_entry *e = NULL;
  http_limiter_init(&l, 0, 3);
  for (int i = 0; i < 4; i++) {
    e = http_limiter_hold(&l, owner(1), 0);
    assert_int_equal(http_limiter_full(&l, e), i == 3);
    assert_int_equal(http_limiter_take(&l, e, 0), 0); /* any rate */
  }
  http_limiter_release(&l, e);
  assert_false(http_limiter_full(&l, e));
  for (int i = 0; i < 3; i++)
    http_limiter_release(&l, e);
  http_limiter_tidy(&l, 1);
  assert_int_equal(l.n, 0);
  http_limiter_done(&l);
}

/* However many owners come: what is held stays, the rest makes room. */
static void a_table_that_stays_small(void **state) {
  (void)state;
  struct http_limiter l;
  usec_t now = USEC_PER_SEC;
  http_limiter_init(&l, 1, 0);
  struct http_limit_entry *kept = http_limiter_hold(&l, owner(-1), now);
  while (http_limiter_take(&l, kept, now) == 0)
    continue;
  for (int i = 0; i < 3 * HTTP_LIMIT_ENTRIES; i++) {
    struct http_limit_entry *e = http_limiter_hold(&l, owner(i), now);
    assert_int_equal(http_limiter_take(&l, e, now), 0);
    http_limiter_release(&l, e);
  }
  assert_int_equal(l.n, HTTP_LIMIT_ENTRIES);
  assert_ptr_equal(http_limiter_hold(&l, owner(-1), now), kept);
  assert_int_not_equal(http_limiter_take(&l, kept, now), 0);
  http_limiter_tidy(&l, now);
  assert_int_equal(l.n, HTTP_LIMIT_ENTRIES); /* their rates have not recovered */
  http_limiter_tidy(&l, now + 3 * USEC_PER_SEC);
  assert_int_equal(l.n, 1);
  http_limiter_release(&l, kept);
  http_limiter_release(&l, kept);
  http_limiter_done(&l);
}

static void owners_of_every_length(void **state) {
  (void)state;
  struct http_limiter l;
  static const char text[64];
  http_limiter_init(&l, 0, 0);
  for (size_t n = 0; n <= sizeof text; n++) { /* the same bytes, another length: another owner */
    struct http_limit_entry *e = http_limiter_hold(&l, slice_n(text, n), 0);
    assert_int_equal(e->held, 1);
    assert_ptr_equal(e, http_limiter_hold(&l, slice_n(text, n), 0));
  }
  assert_int_equal(l.n, sizeof text + 1);
  http_limiter_done(&l);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_rate_and_its_burst),
      cmocka_unit_test(holds),
      cmocka_unit_test(a_table_that_stays_small),
      cmocka_unit_test(owners_of_every_length),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
