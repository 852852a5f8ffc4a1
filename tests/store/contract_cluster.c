#include "contract.h"

static struct st_node_join_ret join(struct slice id, usec_t ttl) {
  struct st_node_join_ret ret;
  OK(CALL(node_join, &ret, .id = id, .address = SLICE("127.0.0.1:7001"), .version = SLICE("0.1"),
          .tzdata = SLICE("2024a"), .ttl = ttl));
  return ret;
}

static size_t claim(struct slice node, int64_t incarnation, int32_t shard, const struct slice *dead) {
  struct st_shard_claim_ret ret;
  OK(CALL(shard_claim, &ret, .node = node, .incarnation = incarnation, .ids = &shard, .count = 1,
          .dead = dead, .dead_count = dead ? 1 : 0));
  if (ret.count) {
    assert_true(slice_eq(ret.shards[0].owner, node));
    assert_int_equal(ret.shards[0].epoch, shard_now(shard).epoch);
  }
  return ret.count;
}

static void test_meta(void **state) {
  struct st_meta_ret meta;
  struct st_shard_list_ret shards;
  (void)state;
  OK(CALL(meta, &meta));
  assert_true(meta.shard_count >= 1);
  assert_true(meta.schema_version >= 1);
  assert_true(meta.server.n > 0);
  assert_true(meta.now > 1700000000 * USEC_PER_SEC);
  OK(CALL(shard_list, &shards));
  assert_int_equal(shards.count, meta.shard_count);
}

static const struct node_row *find_node(struct slice id) {
  struct st_node_list_ret list;
  OK(CALL(node_list, &list));
  for (size_t i = 0; i < list.count; i++)
    if (slice_eq(list.nodes[i].id, id))
      return &list.nodes[i];
  return NULL;
}

static void test_node(void **state) {
  struct slice id = unique("node");
  struct st_node_renew_ret renew;
  struct st_node_leave_ret leave;
  (void)state;
  struct st_node_join_ret first = join(id, USEC_PER_HOUR);
  assert_int_equal(first.lease_until, first.now + USEC_PER_HOUR);
  assert_int_equal(find_node(id)->share, SHARE_KEEP);
  OK(CALL(node_renew, &renew, .id = id, .incarnation = first.incarnation, .ttl = 2 * USEC_PER_HOUR,
          .share = SHARE_FULL, .clock_offset = -1500));
  const struct node_row *n = find_node(id);
  assert_non_null(n);
  assert_int_equal(n->share, SHARE_FULL);
  assert_int_equal(n->clock_offset, -1500);
  assert_false(n->drained);
  assert_int_equal(n->renewals, 1);
  assert_int_equal(n->lease_until, renew.lease_until);
  assert_int_equal(n->started_at, first.now);
  assert_true(slice_eqz(n->address, "127.0.0.1:7001") && slice_eqz(n->tzdata, "2024a") &&
              slice_eqz(n->version, "0.1"));
  struct st_node_join_ret second = join(id, USEC_PER_HOUR);
  assert_int_equal(find_node(id)->share, SHARE_KEEP);
  assert_int_equal(find_node(id)->clock_offset, 0);
  assert_true(second.incarnation > first.incarnation);
  REFUSED(ERR_FENCED,
          CALL(node_renew, &renew, .id = id, .incarnation = first.incarnation, .ttl = USEC_PER_HOUR));
  REFUSED(ERR_FENCED, CALL(node_leave, &leave, .id = id, .incarnation = first.incarnation));
  OK(CALL(node_leave, &leave, .id = id, .incarnation = second.incarnation));
  assert_null(find_node(id));
  REFUSED(ERR_FENCED,
          CALL(node_renew, &renew, .id = id, .incarnation = second.incarnation, .ttl = USEC_PER_HOUR));
  assert_true(join(id, USEC_PER_HOUR).incarnation > second.incarnation);
}

static void test_drain(void **state) {
  struct slice id = unique("drained");
  struct st_node_drain_ret none;
  struct st_node_leave_ret left;
  struct st_node_renew_ret renew;
  struct st_node_forget_ret forgot;
  (void)state;
  REFUSED(ERR_NOT_FOUND, CALL(node_drain, &none, .id = id, .drained = true));
  struct st_node_join_ret first = join(id, USEC_PER_HOUR);
  OK(CALL(node_drain, &none, .id = id, .drained = true));
  assert_int_equal(CALL(node_drain, &none, .id = id, .drained = true), 1);
  assert_true(find_node(id)->drained);
  /* over a kill, and over an orderly stop */
  struct st_node_join_ret second = join(id, USEC_PER_HOUR);
  assert_true(find_node(id)->drained);
  REFUSED(ERR_FENCED, CALL(node_leave, &left, .id = id, .incarnation = first.incarnation));
  OK(CALL(node_leave, &left, .id = id, .incarnation = second.incarnation));
  const struct node_row *n = find_node(id);
  assert_non_null(n);
  assert_true(n->drained && n->lease_until <= db_now());
  REFUSED(ERR_FENCED,
          CALL(node_renew, &renew, .id = id, .incarnation = second.incarnation, .ttl = USEC_PER_HOUR));
  struct st_node_join_ret third = join(id, USEC_PER_HOUR);
  assert_true(third.incarnation > second.incarnation);
  assert_true(find_node(id)->drained);
  OK(CALL(node_drain, &none, .id = id, .drained = false));
  assert_int_equal(CALL(node_drain, &none, .id = id, .drained = false), 1);
  OK(CALL(node_leave, &left, .id = id, .incarnation = third.incarnation));
  assert_null(find_node(id));
  /* what is dead for long is forgotten, but not the living, nor the owner of a shard */
  struct slice owner = unique("owner"), idle = unique("idle"), living = unique("living");
  struct st_node_join_ret o = join(owner, 1), i = join(idle, 1);
  (void)join(living, USEC_PER_HOUR);
  own_shards();
  assert_int_equal(claim(owner, o.incarnation, 0, &fx.node), 1);
  while (db_now() <= i.lease_until + USEC_PER_MS)
    continue;
  OK(CALL(node_forget, &forgot, .age = USEC_PER_HOUR));
  assert_non_null(find_node(idle));
  OK(CALL(node_forget, &forgot, .age = 0));
  assert_true(forgot.removed >= 1);
  assert_null(find_node(idle));
  assert_non_null(find_node(owner));
  assert_non_null(find_node(living));
}

static void test_claim(void **state) {
  (void)state;
  own_shards();
  int64_t epoch = shard_now(0).epoch;
  assert_int_equal(claim(fx.node, fx.incarnation, 0, NULL), 0); /* mine already */
  struct slice other = unique("other");
  struct st_node_join_ret o = join(other, USEC_PER_HOUR);
  assert_int_equal(claim(other, o.incarnation, 0, NULL), 0); /* its owner lives */
  assert_int_equal(shard_now(0).epoch, epoch);
  assert_int_equal(claim(other, o.incarnation, 0, &fx.node), 1); /* dead by the taker's own watch */
  assert_int_equal(shard_now(0).epoch, epoch + 1);
  assert_true(slice_eq(shard_now(0).owner, other));
  /* the node comes back: what its former self held is its own again */
  struct st_node_join_ret again = join(other, USEC_PER_HOUR);
  struct st_shard_claim_ret ret;
  REFUSED(ERR_FENCED, CALL(shard_claim, &ret, .node = other, .incarnation = o.incarnation,
                           .ids = (int32_t[]){0}, .count = 1));
  assert_int_equal(claim(other, again.incarnation, 0, NULL), 1);
  assert_int_equal(shard_now(0).epoch, epoch + 2);
  assert_int_equal(shard_now(0).incarnation, again.incarnation);
}

static void test_claim_lapsed(void **state) {
  struct slice shortly = unique("shortly"), other = unique("other");
  struct st_shard_release_ret released;
  struct st_node_leave_ret left;
  (void)state;
  own_shards();
  struct st_node_join_ret a = join(shortly, 1), b = join(other, USEC_PER_HOUR);
  while (db_now() <= a.lease_until) /* a microsecond */
    continue;
  OK(CALL(shard_release, &released, .node = fx.node, .incarnation = fx.incarnation, .ids = (int32_t[]){0},
          .count = 1));
  assert_int_equal(shard_now(0).owner.n, 0);
  int64_t epoch = shard_now(0).epoch;
  assert_int_equal(claim(shortly, a.incarnation, 0, NULL), 1); /* free */
  assert_int_equal(claim(other, b.incarnation, 0, NULL), 1);   /* the lease has passed */
  assert_int_equal(shard_now(0).epoch, epoch + 2);
  /* a release by one who owns it no more changes nothing */
  OK(CALL(shard_release, &released, .node = shortly, .incarnation = a.incarnation, .ids = (int32_t[]){0},
          .count = 1));
  assert_true(slice_eq(shard_now(0).owner, other));
  OK(CALL(node_leave, &left, .id = other, .incarnation = b.incarnation));
  assert_int_equal(shard_now(0).owner.n, 0);
  assert_int_equal(shard_now(0).epoch, epoch + 2);
}

static void test_claim_raises_both_fences(void **state) {
  struct st_run_apply_ret ret;
  struct fence_row before[2], after[2];
  (void)state;
  own_shards();
  before[0] = fence_of(0);
  before[1] = fence_of(fx.shard_count - 1);
  own_shards();
  after[0] = fence_of(0);
  after[1] = fence_of(fx.shard_count - 1);
  assert_true(after[0].epoch > before[0].epoch);
  OK(CALL(run_apply, &ret, .fences = before, .fence_count = 2));
  assert_false(ret.fence_ok[0] || ret.fence_ok[1]);
  OK(CALL(run_apply, &ret, .fences = after, .fence_count = 2));
  assert_true(ret.fence_ok[0] && ret.fence_ok[1]);
}

static void test_shard_lock(void **state) {
  struct task_version_row task = new_task("locked");
  struct st_shard_lock_ret lock;
  struct st_shard_unlock_ret unlock;
  struct st_task_changes_ret changes;
  (void)state;
  own_shards();
  struct run_row run = run_of(&task, 1000, 0), other = run_of(&task, 2000, 0);
  struct shard_row row = shard_now(task.shard);
  struct st_fire_ret fired;
  REFUSED(ERR_FENCED, CALL(shard_lock, &lock, .shard = task.shard, .epoch = row.epoch - 1));
  OK(CALL(shard_lock, &lock, .shard = task.shard, .epoch = row.epoch));
  assert_int_equal(lock.shard.tasks_version, row.tasks_version);
  assert_int_equal(lock.shard.fired_at, row.fired_at);
  OK(CALL(task_changes, &changes, .shard = task.shard, .after = row.tasks_version - 1, .limit = 1000));
  assert_true(changes.count >= 1);
  struct fire_shard entry = fire_entry(task.shard);
  OK(CALL(fire, &fired, .shards = &entry, .shard_count = 1, .open = &run, .open_count = 1,
          .ahead = USEC_PER_HOUR));
  assert_true(fired.advanced[0]);
  OK(CALL(shard_unlock, &unlock, .commit = true));
  assert_int_equal(state_of(&run.key), RUN_PENDING);
  /* and rolled back */
  OK(CALL(shard_lock, &lock, .shard = task.shard, .epoch = row.epoch));
  assert_true(fire_open(&other, 1));
  assert_int_equal(state_of(&other.key), RUN_PENDING); /* one sees one's own writes */
  OK(CALL(shard_unlock, &unlock, .commit = false));
  assert_int_equal(state_of(&other.key), RUN_STATE_MAX_);
}

static void test_maintain(void **state) {
  struct st_maintain_ret ret;
  (void)state;
  OK(CALL(maintain, &ret));
  OK(CALL(maintain, &ret));
}

TESTS(cluster_tests, cmocka_unit_test(test_meta), cmocka_unit_test(test_node), cmocka_unit_test(test_drain),
      cmocka_unit_test(test_claim), cmocka_unit_test(test_claim_lapsed),
      cmocka_unit_test(test_claim_raises_both_fences), cmocka_unit_test(test_shard_lock),
      cmocka_unit_test(test_maintain));
