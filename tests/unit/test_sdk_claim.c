/* The C SDK: attempts that have to be claimed, with a centre that a test scripts. */
#include "sdk_centre.h"

static void do_work(struct kelou_run *r, void *user) {
  (void)user;
  atomic_fetch_add(&started, 1);
  assert_int_equal(kelou_succeed(r, kelou_payload(r)), 0);
}

static const struct kelou_handler handlers[] = {{"inline", do_work, NULL, KELOU_INLINE},
                                                {"work", do_work, NULL, 0}};

#include "sdk_executor.h"

static int claim_run(const char *id, const char *handler, int attempt, const char *more) {
  struct got g = {0};
  char body[512];
  (void)snprintf(body, sizeof body,
                 "{\"run_id\":\"%s\",\"attempt\":%d,\"fence\":4,\"handler\":\"%s\",\"payload\":1,\"exactly_"
                 "one_start\":true%s}",
                 id, attempt, handler, more);
  post("/kelou/v1/run", body, &g);
  await(g.done);
  return g.status;
}

static struct kelou_counts counts_of(struct kelou_executor *e) {
  struct kelou_counts n;
  kelou_get_counts(e, &n);
  return n;
}

/* Until it is answered, in the same words; then it starts, once, and reports. An inline handler does not wait on the loop. */
static void test_asked_until_it_is_granted(void **state) {
  (void)state;
  c.claim_status[0] = 503;
  c.claim_status[1] = 401;
  c.claim_status[2] = 500;
  struct kelou_options o;
  options_for(&o);
  struct kelou_executor *e = start(&o);
  assert_int_equal(claim_run("r", "inline", 2, ""), 202);
  await(c.acknowledged == 1);
  assert_int_equal(c.claims, 4);
  assert_int_equal(atomic_load(&started), 1);
  assert_string_equal(c.last_claim, "{\"claims\":[{\"run_id\":\"r\",\"attempt\":2,\"fence\":4,\"executor\":"
                                    "\"an id/\xc3\xbc\",\"incarnation\":3}]}");
  assert_int_equal(claim_run("r", "inline", 2, ""),
                   202); /* delivered again: its report again, and nothing else */
  await(c.acknowledged == 2);
  assert_int_equal(c.claims, 4);
  assert_int_equal(counts_of(e).succeeded, 1);
  stop(&e);
}

/* Refused: it does not start and says nothing; delivered again, it asks again. */
static void test_refused(void **state) {
  (void)state;
  c.claim_status[0] = 1;
  c.claim_status[1] = 404; /* a centre that knows no claims */
  struct kelou_options o;
  options_for(&o);
  struct kelou_executor *e = start(&o);
  for (int i = 1; i <= 2; i++) {
    assert_int_equal(claim_run("r", "work", 1, ""), 202);
    await(c.claims == i);
    while (counts_of(e).not_granted < i)
      sched_yield();
  }
  assert_int_equal(atomic_load(&started), 0);
  assert_int_equal(claim_run("r", "work", 1, ""), 202);
  await(c.acknowledged == 1);
  assert_int_equal(c.claims, 3);
  assert_int_equal(atomic_load(&started), 1);
  assert_int_equal(counts_of(e).succeeded, 1);
  stop(&e);
}

/* No answer until the deadline: it never starts. */
static void test_not_after_its_deadline(void **state) {
  (void)state;
  for (int i = 0; i < 8; i++)
    c.claim_status[i] = 503;
  struct kelou_options o;
  options_for(&o);
  struct kelou_executor *e = start(&o);
  assert_int_equal(claim_run("r", "work", 1, ",\"deadline\":\"2020-01-01T00:00:00Z\""), 202);
  while (counts_of(e).not_granted < 1)
    sched_yield();
  assert_int_equal(c.claims, 1);
  assert_int_equal(atomic_load(&started), 0);
  assert_int_equal(c.taken, 0);
  stop(&e);
}

/* Cancelled while it asks: it says so. */
static void test_cancelled_while_it_asks(void **state) {
  (void)state;
  for (int i = 0; i < 8; i++)
    c.claim_status[i] = 503;
  struct kelou_options o;
  options_for(&o);
  struct kelou_executor *e = start(&o);
  struct got g = {0};
  assert_int_equal(claim_run("r", "work", 1, ""), 202);
  await(c.claims > 0);
  post("/kelou/v1/cancel", "{\"run_id\":\"r\",\"attempt\":1,\"fence\":4}", &g);
  await(c.acknowledged == 1);
  assert_string_equal(c.states[0], "CANCELLED");
  assert_int_equal(atomic_load(&started), 0);
  await(g.done);
  assert_int_equal(g.status, 202);
  stop(&e);
}

/* Stopped while it asks: it neither starts nor reports. */
static void test_stopped_while_it_asks(void **state) {
  (void)state;
  for (int i = 0; i < 8; i++)
    c.claim_status[i] = 503;
  struct kelou_options o;
  options_for(&o);
  struct kelou_executor *e = start(&o);
  assert_int_equal(claim_run("r", "work", 1, ""), 202);
  await(c.claims > 0);
  stop(&e);
  assert_int_equal(c.taken, 0);
  assert_int_equal(atomic_load(&started), 0);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      T(test_asked_until_it_is_granted), T(test_refused),
      T(test_not_after_its_deadline),    T(test_cancelled_while_it_asks),
      T(test_stopped_while_it_asks),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
