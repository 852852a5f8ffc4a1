/* The C SDK against a centre that a test scripts: registration, deliveries, reports until they are acknowledged, the end. */
#include "sdk_centre.h"

/* --- handlers --------------------------------------------------------------------------------------------- */

static void do_echo(struct kelou_run *r, void *user) {
  (void)user;
  atomic_fetch_add(&started, 1);
  assert_int_equal(kelou_succeed(r, kelou_payload(r)), 0);
}

/* Until the gate opens or it is told to stop. */
static void do_wait(struct kelou_run *r, void *user) {
  (void)user;
  atomic_fetch_add(&started, 1);
  kelou_progress(r, 0.5);
  for (int i = 0; i < WAIT_MAX_MS && !atomic_load(&gate); i++)
    if (kelou_sleep(r, USEC_PER_MS))
      return;
  kelou_fail(r, "Gate", "opened", NULL);
}

static void do_big(struct kelou_run *r, void *user) {
  (void)user;
  char *text = mem_alloc(60003);
  memset(text, 'x', 60002);
  text[0] = text[60001] = '"';
  text[60002] = 0;
  assert_int_equal(kelou_succeed(r, text), 0);
  mem_free(text);
}

static const struct kelou_handler handlers[] = {{"echo", do_echo, NULL, 0},
                                                {"inline", do_echo, NULL, KELOU_INLINE},
                                                {"wait", do_wait, NULL, 0},
                                                {"big", do_big, NULL, 0}};

#include "sdk_executor.h"

/* --- registration ----------------------------------------------------------------------------------------- */

static void test_registers_until_it_is_let_in_and_beats(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  c.refuse_registrations = 2;
  struct kelou_executor *e = start(&o);
  await(c.registrations == 1 && c.beats >= 2);
  assert_string_equal(kelou_id(e), o.id);
  assert_int_equal(kelou_drain(e, WAIT_MAX_MS * USEC_PER_MS), 0);
  await(c.deregistrations == 1);
  stop(&e);
}

static void test_registers_anew_when_it_is_forgotten(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  struct kelou_executor *e = start(&o);
  mutex_lock(&c.lock);
  c.beat_status = 404;
  mutex_unlock(&c.lock);
  await(c.registrations == 2);
  mutex_lock(&c.lock);
  c.beat_status = 412; /* somebody else under this id: once more */
  mutex_unlock(&c.lock);
  await(c.registrations == 3);
  stop(&e);
  assert_int_equal(c.deregistrations, 1);
}

static void test_options_are_checked(void **state) {
  (void)state;
  struct kelou_options o;
  struct kelou_executor *e = NULL;
  char why[256];
#define REFUSED(change, word)                                                                                \
  do {                                                                                                       \
    options_for(&o);                                                                                         \
    change;                                                                                                  \
    assert_int_equal(kelou_start(&o, &e, why, sizeof why), KELOU_EINVAL);                                    \
    assert_non_null(strstr(why, word));                                                                      \
    assert_null(e);                                                                                          \
  } while (0)
  REFUSED(o.server = "ftp://x", "http");
  REFUSED(o.server = NULL, "server");
  REFUSED(o.token = "", "token");
  REFUSED(o.token = "a\nb", "token");
  REFUSED(o.slots = 0, "slots");
  REFUSED(o.weight = 1001, "weight");
  REFUSED(o.secret_count = 0, "secret");
  REFUSED(o.handler_count = 0, "handler");
  REFUSED(o.labels = "[1]", "object");
  REFUSED(o.listen_address = "0.0.0.0", "advertised_url");
  options_for(&o);
  o.journal = "/nonexistent/j";
  assert_int_equal(kelou_start(&o, &e, why, sizeof why), KELOU_EIO);
}

/* --- reports ---------------------------------------------------------------------------------------------- */

static void test_a_report_is_sent_until_it_is_taken(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  static const int answers[] = {503, 500, 429, 401};
  memcpy(c.report_status, answers, sizeof answers);
  c.report_status_n = 4;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("r", "echo", "{\"x\":1}"), 202);
  await(c.acknowledged == 1);
  assert_int_equal(c.requests, 5);
  assert_non_null(strstr(c.last, "\"result\":{\"x\":1}"));
  assert_non_null(strstr(c.last, "\"state\":\"SUCCESS\""));
  /* delivered again after its end: no second start, its report once more */
  assert_int_equal(send_run("r", "echo", "{\"x\":1}"), 202);
  await(c.acknowledged == 2);
  assert_int_equal(atomic_load(&started), 1);
  stop(&e);
}

static void test_reports_of_others_are_dropped(void **state) {
  (void)state;
  struct kelou_options o;
  struct kelou_counts n;
  options_for(&o);
  c.report_status[0] = 403;
  c.report_status_n = 1;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("r", "echo", "1"), 202);
  assert_int_equal(kelou_drain(e, WAIT_MAX_MS * USEC_PER_MS), 0);
  kelou_get_counts(e, &n);
  assert_int_equal(n.reports_waiting, 0);
  assert_int_equal(c.requests, 1);
  stop(&e);
}

/* What ends while a request is under way goes into the next, which is as large as it may be and no larger. */
static void test_reports_are_gathered(void **state) {
  (void)state;
  struct kelou_options o;
  char id[16];
  options_for(&o);
  o.report_batch = 40;
  c.hold = 1;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("first", "inline", "1"), 202);
  await(c.held);
  for (int i = 0; i < 100; i++) {
    (void)snprintf(id, sizeof id, "r%d", i);
    assert_int_equal(send_run(id, "inline", "2"), 202);
  }
  assert_int_equal(c.requests, 1);
  answer(c.held, 200, "{}");
  await(c.acknowledged == 101);
  assert_int_equal(c.requests, 4); /* 1, 40, 40, 20 */
  assert_int_equal(c.largest, 40);
  stop(&e);
}

static void test_large_reports_do_not_make_a_request_too_large(void **state) {
  (void)state;
  struct kelou_options o;
  char id[16];
  options_for(&o);
  o.slots = 64;
  c.hold = 1;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("first", "inline", "1"), 202);
  await(c.held);
  for (int i = 0; i < 40; i++) {
    (void)snprintf(id, sizeof id, "r%d", i);
    assert_int_equal(send_run(id, "big", "2"), 202);
  }
  answer(c.held, 200, "{}");
  await(c.acknowledged == 41);
  assert_true(c.largest < 20);
  stop(&e);
}

/* One report that the centre refuses keeps no other one back, and its run ends all the same. */
static void test_a_refused_report_is_replaced(void **state) {
  (void)state;
  struct kelou_options o;
  char id[16];
  options_for(&o);
  c.hold = 1;
  c.refuse_word = 1;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("first", "inline", "1"), 202);
  await(c.held);
  for (int i = 0; i < 5; i++) {
    (void)snprintf(id, sizeof id, "r%d", i);
    assert_int_equal(send_run(id, "inline", i == 2 ? "\"poison\"" : "2"), 202);
  }
  answer(c.held, 200, "{}");
  await(c.acknowledged == 6);
  assert_string_equal(c.states[3], "FAIL");
  for (int i = 0; i < 6; i++)
    if (i != 3)
      assert_string_equal(c.states[i], "SUCCESS");
  stop(&e);
}

static void test_no_new_runs_when_too_many_reports_wait(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  o.outbox = 2;
  c.hold = 1;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("a", "inline", "1"), 202);
  await(c.held);
  assert_int_equal(send_run("b", "inline", "1"), 202);
  assert_int_equal(send_run("c", "inline", "1"), 429);
  assert_int_equal(send_run("a", "inline", "1"), 202); /* a repeated one is no new one */
  answer(c.held, 200, "{}");
  await(c.acknowledged >= 2);
  for (int i = 0, status = 0; status != 202; i++) {
    assert_true(i < WAIT_MAX_MS);
    status = send_run("c", "inline", "1");
  }
  stop(&e);
}

static void test_reports_outlive_the_centre(void **state) {
  (void)state;
  struct kelou_options o;
  int port = http_server_port(c.server);
  options_for(&o);
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("a", "wait", "1"), 202);
  await(c.progress == 1);
  centre_stop();
  atomic_store(&gate, 1);
  struct kelou_counts n;
  int i = 0;
  do {
    kelou_get_counts(e, &n);
    assert_int_equal(poll(NULL, 0, 1), 0);
  } while (n.failed == 0 && i++ < WAIT_MAX_MS);
  centre_start(port);
  await(c.acknowledged == 1);
  assert_non_null(strstr(c.last, "\"type\":\"Gate\""));
  stop(&e);
}

/* --- deliveries ------------------------------------------------------------------------------------------- */

static void test_answered_at_once(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  o.answer_inline = 1;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("a", "inline", "{\"k\":[]}"), 200);
  assert_int_equal(send_run("a", "inline", "{\"k\":[]}"), 200); /* the same answer again */
  assert_int_equal(atomic_load(&started), 1);
  assert_int_equal(send_run("b", "echo", "1"), 202);
  await(c.acknowledged == 1);
  stop(&e);
}

static void test_cancel(void **state) {
  (void)state;
  struct kelou_options o;
  struct kelou_counts n;
  options_for(&o);
  o.slots = 1;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("a", "wait", "1"), 202);
  await(c.progress >= 1);
  assert_int_equal(send_run("b", "wait", "1"), 202); /* waits for the slot */
  assert_int_equal(cancel("b"), 202);
  await(c.acknowledged == 1);
  assert_string_equal(c.states[0], "CANCELLED");
  assert_int_equal(atomic_load(&started), 1);
  assert_int_equal(cancel("a"), 202);
  await(c.acknowledged == 2);
  assert_string_equal(c.states[1], "CANCELLED");
  assert_int_equal(cancel("a"), 202); /* its report once more */
  await(c.acknowledged == 3);
  assert_int_equal(cancel("nobody"), 404);
  kelou_get_counts(e, &n);
  assert_int_equal(n.cancelled, 2);
  stop(&e);
}

static void test_drain(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("a", "wait", "1"), 202);
  assert_int_equal(kelou_drain(e, 1), KELOU_ETIMEDOUT);
  assert_int_equal(send_run("b", "echo", "1"), 503);
  assert_int_equal(send_run("a", "wait", "1"), 202);
  assert_int_equal(c.deregistrations, 0);
  atomic_store(&gate, 1);
  assert_int_equal(kelou_drain(e, WAIT_MAX_MS * USEC_PER_MS), 0);
  assert_int_equal(c.acknowledged, 1);
  assert_int_equal(c.deregistrations, 1);
  stop(&e);
  assert_int_equal(c.deregistrations, 1);
}

/* What is cut short by the end of the process is nobody's failure: no report, the centre gives it to another. */
static void test_stop_reports_nothing_for_what_it_cut_short(void **state) {
  (void)state;
  struct kelou_options o;
  options_for(&o);
  o.slots = 1;
  struct kelou_executor *e = start(&o);
  assert_int_equal(send_run("a", "wait", "1"), 202);
  assert_int_equal(send_run("b", "wait", "1"), 202);
  await(c.progress == 1);
  stop(&e);
  assert_int_equal(c.acknowledged, 0);
  assert_int_equal(c.deregistrations, 1);
  assert_int_equal(atomic_load(&started), 1);
}

static void many(bool at_once) {
  struct kelou_options o;
  struct kelou_counts n;
  char id[32], body[256];
  struct got *got = mem_array(MANY, sizeof *got);
  options_for(&o);
  o.answer_inline = at_once;
  o.queue = MANY;
  struct kelou_executor *e = start(&o);
  for (int i = 0; i < MANY; i++) {
    (void)snprintf(id, sizeof id, "r%d", i);
    (void)snprintf(body, sizeof body,
                   "{\"run_id\":\"%s\",\"attempt\":1,\"fence\":1,\"handler\":\"%s\",\"payload\":%d}", id,
                   i % 2 ? "inline" : "echo", i);
    post("/kelou/v1/run", body, &got[i]);
    if (i % 500 == 499)
      await(got[i].done);
  }
  await(c.answers[200] + c.answers[202] == MANY);
  assert_int_equal(kelou_drain(e, WAIT_MAX_MS * USEC_PER_MS), 0);
  kelou_get_counts(e, &n);
  assert_int_equal(n.accepted, MANY);
  assert_int_equal(n.succeeded, MANY);
  assert_int_equal(n.reports_acknowledged, at_once ? MANY / 2 : MANY);
  assert_int_equal(c.acknowledged, at_once ? MANY / 2 : MANY);
  assert_int_equal(atomic_load(&started), MANY);
  stop(&e);
  mem_free(got);
}
static void test_many_reported(void **state) {
  (void)state;
  many(false);
}
static void test_many_answered(void **state) {
  (void)state;
  many(true);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      T(test_registers_until_it_is_let_in_and_beats),
      T(test_registers_anew_when_it_is_forgotten),
      T(test_options_are_checked),
      T(test_a_report_is_sent_until_it_is_taken),
      T(test_reports_of_others_are_dropped),
      T(test_reports_are_gathered),
      T(test_large_reports_do_not_make_a_request_too_large),
      T(test_a_refused_report_is_replaced),
      T(test_no_new_runs_when_too_many_reports_wait),
      T(test_reports_outlive_the_centre),
      T(test_answered_at_once),
      T(test_cancel),
      T(test_drain),
      T(test_stop_reports_nothing_for_what_it_cut_short),
      T(test_many_reported),
      T(test_many_answered),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
