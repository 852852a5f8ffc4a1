#include "contract.h"

/* Bounds that several nodes share. */

struct party {
  struct slice node;
  int64_t incarnation, adopted;
};

static struct party party(const char *name, usec_t ttl) {
  struct slice node = unique(name);
  struct st_node_join_ret j;
  OK(CALL(node_join, &j, .id = node, .address = SLICE("127.0.0.1:7001"), .version = SLICE("0.1"),
          .tzdata = SLICE("2024a"), .ttl = ttl));
  return (struct party){node, j.incarnation, 0};
}

/* Takes all shards, whoever has them; what it says from now on is that it has their runs. */
static void take_all(struct party *p, const struct slice *from) {
  int32_t *ids = arena_array(&fx.mem, (size_t)fx.shard_count, sizeof *ids);
  for (int32_t i = 0; i < fx.shard_count; i++)
    ids[i] = i;
  struct st_shard_claim_ret ret;
  OK(CALL(shard_claim, &ret, .node = p->node, .incarnation = p->incarnation, .ids = ids,
          .count = (size_t)fx.shard_count, .dead = from, .dead_count = 1));
  assert_int_equal(ret.count, fx.shard_count);
  p->adopted = 0;
  for (size_t i = 0; i < ret.count; i++)
    p->adopted += ret.shards[i].epoch;
}

static struct st_bound_exchange_ret say(const struct party *p, struct slice ns, int64_t part, int64_t want,
                                        int64_t take) {
  struct bound_row row = {
      .ns = ns, .group = SLICE("g"), .most = 10, .part = part, .want = want, .take = take};
  struct st_bound_exchange_ret ret;
  OK(CALL(bound_exchange, &ret, .node = p->node, .incarnation = p->incarnation, .adopted = p->adopted,
          .rows = &row, .count = 1));
  return ret;
}

static void test_exchange(void **state) {
  (void)state;
  if (fx.s->ops->caps & STORE_CAP_SINGLE_NODE) {
    struct st_bound_exchange_ret none;
    REFUSED(ERR_INTERNAL, CALL(bound_exchange, &none, .node = fx.node, .incarnation = fx.incarnation));
    return;
  }
  own_shards();
  struct slice ns = unique("ns");
  struct party a = party("a", USEC_PER_HOUR), b = party("b", USEC_PER_HOUR), c = party("c", USEC_PER_HOUR);
  take_all(&a, &fx.node);
  /* the owner has never been here: nobody knows what it has */
  assert_int_equal(say(&b, ns, 0, 5, 5).given[0], 0);
  struct st_bound_exchange_ret r = say(&a, ns, 4, 6, 2);
  assert_int_equal(r.given[0], 2);
  assert_int_equal(r.wish_count, 2);
  for (size_t i = 0; i < 2; i++) {
    assert_int_equal(r.wishes[i].row, 0);
    assert_int_equal(r.wishes[i].want, r.wishes[i].mine ? 6 : 5);
  }
  assert_true(r.now > 1700000000 * USEC_PER_SEC);
  assert_int_equal(say(&b, ns, 0, 5, 9).given[0], 4); /* what is left */
  assert_int_equal(say(&c, ns, 0, 5, 1).given[0], 0);
  assert_int_equal(say(&c, unique("other"), 0, 5, 7).given[0], 7); /* another bound */
  /* settled: what it lets go of is free */
  (void)say(&a, ns, 5, 5, 0);
  assert_int_equal(say(&c, ns, 0, 5, 9).given[0], 1);
  /* its runs are on their way to b, which has not said so yet: nothing goes down, nothing of a's is free */
  take_all(&b, &a.node);
  int64_t adopted = b.adopted;
  b.adopted = 0;
  (void)say(&a, ns, 0, 0, 0);
  assert_int_equal(say(&c, ns, 1, 9, 9).given[0], 0);
  (void)say(&b, ns, 9, 9, 0); /* it has them: more than all for a moment, as a's are counted twice */
  assert_int_equal(say(&c, ns, 1, 9, 9).given[0], 0);
  b.adopted = adopted;
  (void)say(&b, ns, 9, 9, 0);
  (void)say(&a, ns, 0, 0, 0);
  assert_int_equal(say(&c, ns, 1, 9, 9).given[0], 0);
  (void)say(&b, ns, 6, 6, 0);
  assert_int_equal(say(&c, ns, 1, 9, 2).given[0], 2);
}

/* A node that is gone keeps its part until all its shards have an owner who has said that it has their runs. */
static void test_gone(void **state) {
  (void)state;
  if (fx.s->ops->caps & STORE_CAP_SINGLE_NODE)
    return;
  own_shards();
  struct slice ns = unique("ns");
  struct party a = party("a", USEC_PER_HOUR), b = party("b", USEC_PER_HOUR);
  struct st_node_renew_ret renewed;
  take_all(&a, &fx.node);
  assert_int_equal(say(&a, ns, 0, 8, 8).given[0], 8);
  assert_int_equal(say(&b, ns, 0, 8, 8).given[0], 2);
  OK(CALL(node_renew, &renewed, .id = a.node, .incarnation = a.incarnation, .ttl = 1));
  while (db_now() <= renewed.lease_until)
    continue;
  assert_int_equal(say(&b, ns, 2, 8, 6).given[0], 0);
  take_all(&b, &a.node);
  int64_t adopted = b.adopted;
  b.adopted--;
  assert_int_equal(say(&b, ns, 2, 8, 6).given[0], 0);
  b.adopted = adopted;
  struct st_bound_exchange_ret r = say(&b, ns, 5, 8, 4); /* with three of a's runs */
  assert_int_equal(r.given[0], 4);
  assert_int_equal(r.wish_count, 1);
  assert_true(r.wishes[0].mine);
}

TESTS(bounds_tests, cmocka_unit_test(test_exchange), cmocka_unit_test(test_gone));
