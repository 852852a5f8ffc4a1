#include "contract.h"

/* A rule, so that failures leave events; the same name is used again and again. */
static struct alert_def_row put_def(enum alert_def_kind kind, const char *name) {
  struct st_alert_def_put_ret put;
  OK(CALL(alert_def_put, &put,
          .def = {.kind = kind,
                  .ns = fx.ns,
                  .name = unique(name),
                  .definition = SLICE("{\"a\":1}"),
                  .secret_sealed = SLICE("sealed")}));
  return put.def;
}

static void drain(void) {
  struct st_alert_events_ret read;
  struct st_alert_apply_ret applied;
  do {
    OK(CALL(alert_events, &read, .limit = 100));
    int64_t *nos = arena_array(&fx.mem, read.count + 1, sizeof *nos);
    for (size_t i = 0; i < read.count; i++)
      nos[i] = read.rows[i].no;
    if (read.count)
      OK(CALL(alert_apply, &applied, .events = nos, .event_count = read.count));
  } while (read.count);
}

static void test_defs(void **state) {
  struct alert_def_row d = put_def(ALERT_DEF_CHANNEL, "channel");
  struct st_alert_def_put_ret put;
  struct st_alert_def_get_ret got;
  struct st_alert_def_list_ret list;
  struct st_alert_def_delete_ret deleted;
  (void)state;
  assert_true(d.id > 0 && d.version == 1 && d.created_at > 0);
  REFUSED(ERR_CONFLICT, CALL(alert_def_put, &put, .def = d));
  struct alert_def_row rule = d;
  rule.kind = ALERT_DEF_RULE; /* another kind: the name is free */
  OK(CALL(alert_def_put, &put, .def = rule));
  d.definition = SLICE("{}");
  d.secret_previous_sealed = SLICE("old");
  d.url_sealed = SLICE("url");
  OK(CALL(alert_def_put, &put, .def = d, .expected_version = 1));
  assert_int_equal(put.def.version, 2);
  assert_int_equal(put.def.id, d.id);
  REFUSED(ERR_STALE, CALL(alert_def_put, &put, .def = d, .expected_version = 1));
  OK(CALL(alert_def_get, &got, .kind = d.kind, .ns = d.ns, .name = d.name));
  assert_true(slice_eqz(got.def.definition, "{}") && slice_eqz(got.def.secret_sealed, "sealed") &&
              slice_eqz(got.def.secret_previous_sealed, "old") && slice_eqz(got.def.url_sealed, "url"));
  OK(CALL(alert_def_list, &list, .kind = ALERT_DEF_RULE, .ns = fx.ns));
  assert_int_equal(list.count, 1);
  assert_int_equal(list.rows[0].kind, ALERT_DEF_RULE);
  OK(CALL(alert_def_delete, &deleted, .kind = d.kind, .ns = d.ns, .name = d.name));
  REFUSED(ERR_NOT_FOUND, CALL(alert_def_delete, &deleted, .kind = d.kind, .ns = d.ns, .name = d.name));
  REFUSED(ERR_NOT_FOUND, CALL(alert_def_get, &got, .kind = d.kind, .ns = d.ns, .name = d.name));
  REFUSED(ERR_NOT_FOUND, CALL(alert_def_put, &put, .def = d, .expected_version = 2));
  OK(CALL(alert_def_delete, &deleted, .kind = ALERT_DEF_RULE, .ns = d.ns, .name = d.name));
}

/* FINISH leaves an event for a FAIL, once, and for nothing else. */
static void test_events(void **state) {
  struct st_alert_events_ret read;
  struct st_alert_def_delete_ret deleted;
  (void)state;
  own_shards();
  drain();
  struct alert_def_row rule = put_def(ALERT_DEF_RULE, "rule");
  struct task_version_row task = new_task("alerted");
  usec_t at = shard_now(task.shard).fired_at;
  struct run_row good = run_of(&task, at + 1, 0), bad = run_of(&task, at + 2, 0),
                 later = run_of(&task, at + 3, 0);
  struct run_row rows[3] = {good, bad, later};
  assert_true(fire_open(rows, 3));
  assert_true(finish_run(&good, RUN_SUCCESS, at + 100));
  OK(CALL(alert_events, &read, .limit = 10));
  assert_int_equal(read.count, 0);
  assert_true(finish_run(&bad, RUN_FAIL, at + 200));
  assert_false(finish_run(&bad, RUN_FAIL, at + 200)); /* as after a lost answer */
  OK(CALL(alert_events, &read, .limit = 10));
  assert_int_equal(read.count, 1);
  const struct alert_event *v = &read.rows[0];
  assert_true(v->there && run_key_eq(&v->run.key, &bad.key) && v->run.state == RUN_FAIL);
  assert_int_equal(v->run.finished_at, at + 200);
  assert_true(slice_eq(v->task_name, task.name) && slice_eq(v->ns, fx.ns) && slice_eqz(v->group, "workers") &&
              slice_eqz(v->handler, "echo"));
  OK(CALL(alert_def_delete, &deleted, .kind = rule.kind, .ns = rule.ns, .name = rule.name));
  assert_true(finish_run(&later, RUN_FAIL, at + 300));
  OK(CALL(alert_events, &read, .limit = 10));
  struct st_alert_def_list_ret rules;
  OK(CALL(alert_def_list, &rules, .kind = ALERT_DEF_RULE));
  assert_int_equal(read.count, rules.count ? 2 : 1); /* nobody wants to know */
  drain();
}

static struct alert_row alert_of(const struct alert_key *key, int32_t seq) {
  usec_t now = db_now();
  return (struct alert_row){.key = *key,
                            .seq = seq,
                            .count = 1,
                            .first_at = now,
                            .last_at = now,
                            .window_until = now + USEC_PER_HOUR,
                            .created_at = now,
                            .next_at = now,
                            .give_up_at = now + USEC_PER_HOUR,
                            .ns = fx.ns,
                            .rule = SLICE("r"),
                            .channel = SLICE("c"),
                            .task_name = SLICE("t"),
                            .details = SLICE("{}")};
}

static struct alert_key new_key(void) { return (struct alert_key){put_def(ALERT_DEF_CHANNEL, "k").id, 7, 9}; }

static struct alert_row latest_of(const struct alert_key *key) {
  struct st_alert_latest_ret latest;
  OK(CALL(alert_latest, &latest, .keys = key, .count = 1));
  return latest.rows[0];
}

static void test_apply(void **state) {
  struct st_alert_apply_ret applied;
  struct st_alert_latest_ret latest;
  (void)state;
  struct alert_key keys[2] = {new_key(), new_key()};
  OK(CALL(alert_latest, &latest, .keys = keys, .count = 2));
  assert_int_equal(latest.rows[0].id | latest.rows[1].id, 0);
  struct alert_row first = alert_of(&keys[1], 1), second = alert_of(&keys[1], 2);
  second.summary = true;
  second.next_at += USEC_PER_HOUR;
  struct alert_row both[2] = {first, second};
  OK(CALL(alert_apply, &applied, .alerts = both, .alert_count = 2));
  REFUSED(ERR_CONFLICT, CALL(alert_apply, &applied, .alerts = &first, .alert_count = 1));
  OK(CALL(alert_latest, &latest, .keys = keys, .count = 2));
  const struct alert_row *got = &latest.rows[1];
  assert_int_equal(latest.rows[0].id, 0);
  assert_true(got->id && got->seq == 2 && got->summary && !got->closed && got->state == ALERT_PENDING);
  assert_true(got->window_until == second.window_until && got->next_at == second.next_at &&
              slice_eq(got->ns, fx.ns) && slice_eqz(got->details, "{}") && !got->error.n);
  struct alert_bump bump = {got->id, 1, 3, got->last_at + 5, SLICE("{\"more\":1}")};
  OK(CALL(alert_apply, &applied, .bumps = &bump, .bump_count = 1));
  assert_true(latest_of(&keys[1]).count == 3 && slice_eqz(latest_of(&keys[1]).details, "{\"more\":1}"));
  /* all or nothing: the count has moved on, so the new alert is not made either */
  struct alert_row third = alert_of(&keys[0], 1);
  REFUSED(ERR_CONFLICT,
          CALL(alert_apply, &applied, .bumps = &bump, .bump_count = 1, .alerts = &third, .alert_count = 1));
  assert_int_equal(latest_of(&keys[0]).id, 0);
  int64_t none = INT64_MAX;
  REFUSED(ERR_CONFLICT,
          CALL(alert_apply, &applied, .events = &none, .event_count = 1, .alerts = &third, .alert_count = 1));
  assert_int_equal(latest_of(&keys[0]).id, 0);
}

/* Claims this test's own alert, whatever others are due. */
static bool claim(int64_t id, usec_t lease, struct alert_row *ret) {
  struct st_alert_claim_ret got;
  OK(CALL(alert_claim, &got, .limit = 1000, .lease = lease));
  for (size_t i = 0; i < got.count; i++)
    if (got.rows[i].id == id) {
      *ret = got.rows[i];
      return true;
    }
  return false;
}

static void test_claim(void **state) {
  struct st_alert_apply_ret applied;
  struct st_alert_claim_ret look;
  struct st_alert_result_ret done;
  struct st_alert_get_ret got;
  struct st_alert_send_ret again;
  struct alert_row a, row;
  (void)state;
  struct alert_key key = new_key();
  a = alert_of(&key, 1);
  OK(CALL(alert_apply, &applied, .alerts = &a, .alert_count = 1));
  OK(CALL(alert_claim, &look, .limit = 0));
  assert_true(look.count == 0 && look.pending >= 1 && look.oldest_at > 0 && look.oldest_at <= a.created_at);
  int64_t id = latest_of(&key).id;
  assert_true(claim(id, USEC_PER_HOUR, &row));
  assert_true(row.attempts == 1 && row.tries == 1 && row.closed);
  assert_false(claim(id, USEC_PER_HOUR, &row)); /* leased */
  struct alert_bump bump = {id, 1, 2, a.last_at, SLICE("{}")};
  REFUSED(ERR_CONFLICT, CALL(alert_apply, &applied, .bumps = &bump, .bump_count = 1));
  struct alert_attempt_row attempt = {
      .attempt = 1, .status = 503, .at = a.created_at, .took = 7, .error = SLICE("HTTP 503")};
  OK(CALL(alert_result, &done, .id = id, .state = ALERT_PENDING, .next_in = 0, .attempt = attempt));
  assert_true(claim(id, 0, &row));
  assert_true(row.attempts == 2 && row.status == 503 && slice_eqz(row.error, "HTTP 503"));
  /* the answer to the first attempt again: it is known, and does not count any more */
  OK(CALL(alert_result, &done, .id = id, .state = ALERT_DELIVERED, .attempt = attempt));
  attempt = (struct alert_attempt_row){.attempt = 2, .status = 200, .at = a.created_at + 1, .took = 9};
  OK(CALL(alert_result, &done, .id = id, .state = ALERT_DELIVERED, .attempt = attempt));
  OK(CALL(alert_get, &got, .id = id));
  assert_true(got.alert.state == ALERT_DELIVERED && got.alert.sent_at > 0 && got.alert.status == 200);
  assert_int_equal(got.attempt_count, 2);
  assert_true(got.attempts[0].status == 503 && slice_eqz(got.attempts[0].error, "HTTP 503") &&
              got.attempts[1].took == 9 && !got.attempts[1].error.n);
  assert_false(claim(id, 0, &row));
  OK(CALL(alert_send, &again, .id = id, .give_up_in = USEC_PER_HOUR));
  assert_true(again.alert.state == ALERT_PENDING && again.alert.tries == 0 &&
              again.alert.give_up_at > a.give_up_at);
  assert_true(claim(id, 0, &row));
  assert_true(row.attempts == 3 && row.tries == 1);
  REFUSED(ERR_NOT_FOUND, CALL(alert_send, &again, .id = INT64_MAX));
  REFUSED(ERR_NOT_FOUND, CALL(alert_get, &got, .id = INT64_MAX));
}

static void test_list_and_expire(void **state) {
  struct st_alert_apply_ret applied;
  struct st_alert_list_ret list;
  struct st_alert_expire_ret expired;
  struct st_alert_result_ret done;
  struct st_alert_get_ret got;
  struct alert_row row;
  (void)state;
  struct alert_key key = new_key();
  struct alert_row three[3] = {alert_of(&key, 1), alert_of(&key, 2), alert_of(&key, 3)};
  three[1].rule = SLICE("other");
  three[0].created_at -= USEC_PER_DAY;
  OK(CALL(alert_apply, &applied, .alerts = three, .alert_count = 3));
  OK(CALL(alert_list, &list, .ns = fx.ns, .state = -1, .limit = 2));
  assert_int_equal(list.count, 2);
  assert_true(list.rows[0].id > list.rows[1].id);
  OK(CALL(alert_list, &list, .ns = fx.ns, .state = -1, .before = list.rows[1].id, .limit = 2));
  assert_int_equal(list.count, 1);
  int64_t oldest = list.rows[0].id;
  OK(CALL(alert_list, &list, .ns = fx.ns, .rule = SLICE("other"), .channel = SLICE("c"), .task_id = 9,
          .state = ALERT_PENDING, .limit = 10));
  assert_int_equal(list.count, 1);
  OK(CALL(alert_list, &list, .ns = fx.ns, .state = ALERT_DELIVERED, .limit = 10));
  assert_int_equal(list.count, 0);
  OK(CALL(alert_expire, &expired, .age = USEC_PER_HOUR, .limit = 1000));
  OK(CALL(alert_get, &got, .id = oldest)); /* not while it is PENDING */
  assert_true(claim(oldest, 0, &row));
  OK(CALL(alert_result, &done, .id = oldest, .state = ALERT_FAILED,
          .attempt = {.attempt = 1, .at = 5, .error = SLICE("given up")}));
  OK(CALL(alert_expire, &expired, .age = USEC_PER_HOUR, .limit = 1000));
  assert_true(expired.removed >= 1);
  REFUSED(ERR_NOT_FOUND, CALL(alert_get, &got, .id = oldest));
}

TESTS(alert_tests, cmocka_unit_test(test_defs), cmocka_unit_test(test_events), cmocka_unit_test(test_apply),
      cmocka_unit_test(test_claim), cmocka_unit_test(test_list_and_expire));
