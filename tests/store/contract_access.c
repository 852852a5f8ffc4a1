#include "contract.h"

static void test_namespace(void **state) {
  struct st_namespace_put_ret put;
  struct st_namespace_list_ret list;
  bool found_default = false, found_mine = false;
  (void)state;
  assert_int_equal(OK(CALL(namespace_put, &put, .name = SLICE("default"))), 1);
  assert_int_equal(OK(CALL(namespace_put, &put, .name = fx.ns)), 0);
  assert_int_equal(OK(CALL(namespace_put, &put, .name = fx.ns)), 1);
  OK(CALL(namespace_list, &list));
  for (size_t i = 0; i < list.count; i++) {
    found_default |= slice_eqz(list.names[i], "default");
    found_mine |= slice_eq(list.names[i], fx.ns);
  }
  assert_true(found_default && found_mine);
}

static struct token_row token(void) {
  struct token_row t = {
      .name = unique("token"), .ns = fx.ns, .role = ROLE_OPERATOR, .created_by = SLICE("tester")};
  uint64_t h = slice_hash(t.name);
  memcpy(t.hash + 20, &h, sizeof h); /* hashes hold zero bytes, too */
  return t;
}

static int find(const struct token_row *t, struct st_token_find_ret *ret) {
  struct st_token_find in;
  memcpy(in.hash, t->hash, sizeof in.hash);
  return store_token_find(fx.s, &in, ret, &fx.mem, &fx.e);
}

static void test_token(void **state) {
  struct token_row t = token();
  struct st_token_put_ret put;
  struct st_token_find_ret found;
  struct st_token_list_ret list;
  struct st_token_delete_ret deleted;
  (void)state;
  OK(CALL(token_put, &put, .token = t));
  REFUSED(ERR_CONFLICT, CALL(token_put, &put, .token = t));
  OK(find(&t, &found));
  assert_int_equal(found.token.id, put.id);
  assert_int_equal(found.token.role, ROLE_OPERATOR);
  assert_true(slice_eq(found.token.name, t.name) && slice_eq(found.token.ns, fx.ns));
  assert_int_equal(found.token.group.n, 0);
  assert_memory_equal(found.token.hash, t.hash, 32);
  assert_true(found.token.created_at > 0);
  OK(CALL(token_list, &list, .after = put.id - 1, .limit = 1));
  assert_int_equal(list.count, 1);
  assert_int_equal(list.rows[0].id, put.id);
  OK(CALL(token_delete, &deleted, .id = put.id));
  REFUSED(ERR_NOT_FOUND, find(&t, &found));
  REFUSED(ERR_NOT_FOUND, CALL(token_delete, &deleted, .id = put.id));
}

static void test_token_expiry(void **state) {
  struct token_row gone = token(), valid = token();
  struct st_token_put_ret put;
  struct st_token_find_ret found;
  (void)state;
  gone.expires_at = db_now() - 1;
  valid.expires_at = db_now() + USEC_PER_HOUR;
  OK(CALL(token_put, &put, .token = gone));
  OK(CALL(token_put, &put, .token = valid));
  REFUSED(ERR_NOT_FOUND, find(&gone, &found));
  OK(find(&valid, &found));
  assert_int_equal(found.token.expires_at, valid.expires_at);
}

static void test_bootstrap_once(void **state) {
  struct token_row first = token(), second = token();
  struct st_token_put_ret put;
  struct st_token_list_ret list;
  struct st_token_delete_ret deleted;
  struct st_token_find_ret found;
  (void)state;
  OK(CALL(token_list, &list, .limit = 10000));
  for (size_t i = 0; i < list.count; i++)
    OK(CALL(token_delete, &deleted, .id = list.rows[i].id));
  assert_int_equal(OK(CALL(token_put, &put, .token = first, .only_if_none = true)), 0);
  assert_int_equal(OK(CALL(token_put, &put, .token = second, .only_if_none = true)), 1);
  OK(find(&first, &found));
  REFUSED(ERR_NOT_FOUND, find(&second, &found));
  OK(CALL(token_put, &put, .token = second));
}

static void test_inbox(void **state) {
  struct st_inbox_add_ret first, second, other;
  struct st_inbox_read_ret read;
  struct st_fire_ret fired;
  (void)state;
  own_shards();
  int32_t shards[2] = {0, fx.shard_count - 1};
  OK(CALL(inbox_read, &read, .shards = shards, .shard_count = 2, .limit = 100));
  size_t before = read.count;
  OK(CALL(inbox_add, &first, .shard = 0, .kind = 3, .body = SLICE("{\"a\":1}"), .ref = SLICE("r1")));
  OK(CALL(inbox_add, &second, .shard = 0, .kind = 4, .body = SLICE("{\"a\":2}")));
  OK(CALL(inbox_add, &other, .shard = shards[1], .kind = 5, .body = SLICE("{}")));
  assert_true(second.no > first.no);
  assert_true(slice_eqz(first.ref, "r1"));
  OK(CALL(inbox_read, &read, .shards = shards, .shard_count = 1, .limit = 100));
  const struct inbox_row *last = &read.rows[read.count - 2];
  assert_int_equal(last[0].no, first.no);
  assert_int_equal(last[0].kind, 3);
  assert_true(slice_eqz(last[0].body, "{\"a\":1}"));
  assert_int_equal(last[1].no, second.no);
  OK(CALL(inbox_read, &read, .shards = shards, .shard_count = 2, .limit = 1));
  assert_int_equal(read.count, 1);
  /* done with the FIRE that takes them in, but only of a shard that advanced */
  struct fire_shard entries[2] = {fire_entry(0), fire_entry(shards[1])};
  entries[1].epoch--;
  struct inbox_row done[2] = {{.shard = 0, .no = second.no}, {.shard = shards[1], .no = other.no}};
  OK(CALL(fire, &fired, .shards = entries, .shard_count = 2, .inbox_done = done, .inbox_count = 2,
          .ahead = USEC_PER_HOUR));
  OK(CALL(inbox_read, &read, .shards = shards, .shard_count = 2, .limit = 100));
  assert_int_equal(read.count, before + 2);
  struct st_inbox_add_ret third;
  OK(CALL(inbox_add, &third, .shard = 0, .kind = 3, .body = SLICE("{}")));
  assert_true(third.no > second.no); /* a number is never given out twice */
}

static void test_idempotency(void **state) {
  struct idem idem = {.route = SLICE("POST /runs"), .key = unique("key"), .keep = USEC_PER_HOUR};
  struct st_inbox_add_ret add;
  struct st_inbox_read_ret read;
  (void)state;
  int32_t shard = 0;
  assert_int_equal(
      OK(CALL(inbox_add, &add, .kind = 1, .body = SLICE("{}"), .ref = SLICE("run-1"), .idem = &idem)), 0);
  OK(CALL(inbox_read, &read, .shards = &shard, .shard_count = 1, .limit = 1000));
  size_t count = read.count;
  assert_int_equal(
      OK(CALL(inbox_add, &add, .kind = 1, .body = SLICE("{}"), .ref = SLICE("run-2"), .idem = &idem)), 1);
  assert_true(slice_eqz(add.ref, "run-1"));
  idem.body_hash[0] = 1;
  REFUSED(ERR_IDEMPOTENCY, CALL(inbox_add, &add, .kind = 1, .body = SLICE("{}"), .idem = &idem));
  OK(CALL(inbox_read, &read, .shards = &shard, .shard_count = 1, .limit = 1000));
  assert_int_equal(read.count, count);
  idem.route = SLICE("POST /tasks"); /* another request */
  assert_int_equal(
      OK(CALL(inbox_add, &add, .kind = 1, .body = SLICE("{}"), .ref = SLICE("run-3"), .idem = &idem)), 0);
}

static void test_idem_expire(void **state) {
  struct idem idem = {.route = SLICE("r"), .key = unique("key"), .keep = 0};
  struct st_idem_expire_ret expired;
  struct st_inbox_add_ret add;
  (void)state;
  OK(CALL(inbox_add, &add, .kind = 1, .body = SLICE("{}"), .ref = SLICE("a"), .idem = &idem));
  usec_t now = db_now();
  while (db_now() <= now + 1)
    continue;
  /* forgotten, even when nobody has cleared it away yet */
  assert_int_equal(
      OK(CALL(inbox_add, &add, .kind = 1, .body = SLICE("{}"), .ref = SLICE("b"), .idem = &idem)), 0);
  assert_true(slice_eqz(add.ref, "b"));
  now = db_now();
  while (db_now() <= now + 1)
    continue;
  OK(CALL(idem_expire, &expired, .limit = 1000));
  assert_true(expired.removed >= 1);
  OK(CALL(idem_expire, &expired, .limit = 1000));
  assert_int_equal(expired.removed, 0);
}

static void test_wait_change(void **state) {
  struct st_wait_change_ret ret;
  struct st_inbox_add_ret add;
  struct store *listener;
  (void)state;
  OK(store_session(fx.source, STORE_LISTEN, &listener, &fx.e));
  int r = CALL_ON(listener, wait_change, &ret, .timeout = 0); /* from here on it listens */
  if (r < 0) {
    store_close(&listener);
    OK(r);
  }
  struct task_version_row task = new_task("news");
  OK(CALL_ON(listener, wait_change, &ret, .timeout = 10 * USEC_PER_SEC));
  assert_int_equal(ret.count, 1);
  assert_int_equal(ret.shards[0], task.shard);
  OK(CALL(inbox_add, &add, .shard = fx.shard_count - 1, .kind = 1, .body = SLICE("{}")));
  OK(CALL_ON(listener, wait_change, &ret, .timeout = 10 * USEC_PER_SEC));
  assert_int_equal(ret.count, 1);
  assert_int_equal(ret.shards[0], fx.shard_count - 1);
  OK(CALL_ON(listener, wait_change, &ret, .timeout = 1000));
  assert_int_equal(ret.count, 0);
  assert_false(ret.nodes);
  /* nodes: a shard is free, one is drained, one has left */
  own_shards();
  struct st_shard_release_ret released;
  OK(CALL(shard_release, &released, .node = fx.node, .incarnation = fx.incarnation, .ids = (int32_t[]){0},
          .count = 1));
  OK(CALL_ON(listener, wait_change, &ret, .timeout = 10 * USEC_PER_SEC));
  assert_true(ret.nodes && ret.count == 0);
  struct st_node_drain_ret drained;
  OK(CALL(node_drain, &drained, .id = fx.node, .drained = true));
  OK(CALL_ON(listener, wait_change, &ret, .timeout = 10 * USEC_PER_SEC));
  assert_true(ret.nodes);
  OK(CALL(node_drain, &drained, .id = fx.node, .drained = false));
  OK(CALL_ON(listener, wait_change, &ret, .timeout = 10 * USEC_PER_SEC));
  assert_true(ret.nodes);
  struct slice other = unique("leaver");
  struct st_node_join_ret joined;
  struct st_node_leave_ret left;
  OK(CALL(node_join, &joined, .id = other, .ttl = USEC_PER_HOUR));
  OK(CALL(node_leave, &left, .id = other, .incarnation = joined.incarnation));
  OK(CALL_ON(listener, wait_change, &ret, .timeout = 10 * USEC_PER_SEC));
  assert_true(ret.nodes);
  store_close(&listener);
}

TESTS(access_tests, cmocka_unit_test(test_namespace), cmocka_unit_test(test_token),
      cmocka_unit_test(test_token_expiry), cmocka_unit_test(test_bootstrap_once),
      cmocka_unit_test(test_inbox), cmocka_unit_test(test_idempotency), cmocka_unit_test(test_idem_expire),
      cmocka_unit_test(test_wait_change));
