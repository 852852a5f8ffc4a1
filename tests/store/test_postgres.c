/* What the PostgreSQL back end promises beyond the contract: look-ups by index whatever the planner saw, and what a lost
 * connection means. In a schema of its own in the database of KELOU_TEST_PG_URL. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/thread.h"
#include "store/postgres/pg.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SKIPPED                   77
#define SCHEMA                    "kelou_own"
#define BATCH                     100
#define FULL                      20000
#define SHARDS                    8
#define CALL_OWN(s, op, ret, ...) store_##op((s), &(struct st_##op){__VA_ARGS__}, (ret), &mem, &e)

static struct store_source *source;
static PGconn *side; /* another connection, not of the back end */
static struct arena mem;
static struct err e;
static struct shard_row shards[SHARDS];
static int64_t incarnation, next_task = 1;

static int64_t side_int(const char *sql) {
  PGresult *r = PQexec(side, sql);
  if (PQresultStatus(r) != PGRES_TUPLES_OK && PQresultStatus(r) != PGRES_COMMAND_OK)
    print_error("%s: %s\n", sql, PQerrorMessage(side));
  assert_true(PQresultStatus(r) == PGRES_TUPLES_OK || PQresultStatus(r) == PGRES_COMMAND_OK);
  int64_t v = PQntuples(r) ? atoll(PQgetvalue(r, 0, 0)) : 0;
  PQclear(r);
  return v;
}

static struct store *session(enum store_role role) {
  struct store *s;
  assert_int_equal(source->ops->session(source, role, &s, &e), 0);
  return s;
}

static void refresh_shards(struct store *s) {
  struct st_shard_list_ret list;
  assert_int_equal(CALL_OWN(s, shard_list, &list, 0), 0);
  assert_int_equal(list.count, SHARDS);
  memcpy(shards, list.shards, sizeof shards);
}

static void claim_all(struct store *s) {
  struct st_node_join_ret join;
  struct st_shard_claim_ret claim;
  int32_t ids[SHARDS];
  struct slice dead = SLICE("me");
  for (int32_t i = 0; i < SHARDS; i++)
    ids[i] = i;
  assert_int_equal(CALL_OWN(s, node_join, &join, .id = SLICE("me"), .ttl = USEC_PER_HOUR), 0);
  incarnation = join.incarnation;
  assert_int_equal(CALL_OWN(s, shard_claim, &claim, .node = SLICE("me"), .incarnation = incarnation,
                            .ids = ids, .count = SHARDS, .dead = &dead, .dead_count = 1),
                   0);
  assert_int_equal(claim.count, SHARDS);
  refresh_shards(s);
}

/* FIRE of `count` runs, spread over the shards; their keys. */
static int fire(struct store *s, size_t count, struct run_key *ret_keys) {
  struct fire_shard entries[SHARDS];
  struct st_fire_ret ret;
  struct run_row *runs = arena_array(&mem, count, sizeof *runs);
  for (int32_t i = 0; i < SHARDS; i++)
    entries[i] = (struct fire_shard){.shard = i,
                                     .epoch = shards[i].epoch,
                                     .tasks_version = shards[i].tasks_version,
                                     .seen_at = shards[i].fired_at,
                                     .seen_task = shards[i].fired_task,
                                     .new_at = shards[i].fired_at + 1};
  for (size_t i = 0; i < count; i++) {
    const struct shard_row *shard = &shards[i % SHARDS];
    ret_keys[i] =
        (struct run_key){.shard = shard->id, .scheduled_at = shard->fired_at + 1, .task_id = next_task++};
    runs[i] = (struct run_row){.key = ret_keys[i],
                               .version = 1,
                               .state = RUN_PENDING,
                               .reason = REASON_DISPATCHING,
                               .attempt = 1,
                               .fired_at = shard->fired_at,
                               .progress = -1};
  }
  int r = CALL_OWN(s, fire, &ret, .shards = entries, .shard_count = SHARDS, .open = runs, .open_count = count,
                   .ahead = USEC_PER_DAY);
  for (int32_t i = 0; r == 0 && i < SHARDS; i++) {
    assert_true(ret.advanced[i]);
    shards[i].fired_at++;
    shards[i].fired_task = 0;
  }
  return r;
}

/* Mark them RUNNING, then end them. */
static void update_and_finish(struct store *s, const struct run_key *keys, size_t count) {
  struct fence_row fences[SHARDS];
  struct st_run_apply_ret ret;
  struct run_update *updates = arena_array(&mem, count, sizeof *updates);
  struct run_finish *finishes = arena_array(&mem, count, sizeof *finishes);
  for (int32_t i = 0; i < SHARDS; i++)
    fences[i] = (struct fence_row){i, shards[i].epoch};
  for (size_t i = 0; i < count; i++) {
    updates[i] = (struct run_update){.key = keys[i],
                                     .seen_attempt = 1,
                                     .seen_state = RUN_PENDING,
                                     .seen_reason = REASON_DISPATCHING,
                                     .state = RUN_RUNNING,
                                     .reason = REASON_ACCEPTED,
                                     .attempt = 1,
                                     .progress = -1};
    finishes[i] =
        (struct run_finish){.key = keys[i], .seen_attempt = 1, .state = RUN_SUCCESS, .finished_at = 1};
  }
  assert_int_equal(CALL_OWN(s, run_apply, &ret, .fences = fences, .fence_count = SHARDS, .updates = updates,
                            .update_count = count, .finishes = finishes, .finish_count = count),
                   0);
  for (size_t i = 0; i < count; i++)
    assert_true(ret.updated[i] && ret.finished[i]);
}

/* ---------------------------------------------------------------- plans */
/* Rows of run that sessions have read so far: by scans of the table or of its index, or found. */
static int64_t rows_read(struct store *s) /* after telling what `s` has read */
{
  static const struct pg_sql flush = {"flush_statistics", "SELECT pg_stat_force_next_flush()", PG_READ, true};
  auto_result r = NULL;
  assert_int_equal(pgc_one(pg_of(s), &flush, &r, &e), 0);
  return side_int("SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE schemaname = '" SCHEMA
                  "' AND (relname = 'run' OR relname LIKE 'run_history%')) + (SELECT sum(idx_tup_read) FROM "
                  "pg_stat_user_indexes "
                  "WHERE schemaname = '" SCHEMA "' AND (relname = 'run' OR relname LIKE 'run_history%'))");
}

static void check_reads(struct store *fire_session, struct store *finish_session) {
  struct run_key keys[BATCH];
  rows_read(fire_session); /* each session tells its own figures */
  int64_t before = rows_read(finish_session);
  assert_int_equal(fire(fire_session, BATCH, keys), 0);
  update_and_finish(finish_session, keys, BATCH);
  rows_read(fire_session);
  int64_t read = rows_read(finish_session) - before;
  if (read > 12 * BATCH)
    print_error("%lld rows read for %d runs\n", (long long)read, BATCH);
  assert_true(read >= BATCH && read <= 12 * BATCH);
  arena_clear(&mem);
}

/* A plan made while the table was empty serves it when it is full. */
static void test_plans(void **state) {
  struct store *api = session(STORE_API), *fires[3], *finishes[3];
  struct run_key *keys = mem_array(FULL, sizeof *keys);
  (void)state;
  claim_all(api);
  for (int i = 0; i < 3; i++) {
    fires[i] = session(STORE_FIRE);
    finishes[i] = session(STORE_FINISH);
  }
  check_reads(fires[0], finishes[0]); /* planned on an empty table */
  side_int("DELETE FROM " SCHEMA ".run");
  side_int("VACUUM ANALYZE " SCHEMA ".run");
  check_reads(fires[1], finishes[1]); /* planned on an empty table that was analysed so */
  assert_int_equal(fire(fires[2], FULL, keys), 0);
  for (int i = 0; i < 2; i++)
    check_reads(fires[i], finishes[i]); /* those plans, the table is full and nobody analysed it */
  side_int("ANALYZE " SCHEMA ".run");
  for (int i = 0; i < 3; i++)
    check_reads(fires[i], finishes[i]);
  update_and_finish(finishes[2], keys, FULL);
  for (int i = 0; i < 3; i++) {
    store_close(&fires[i]);
    store_close(&finishes[i]);
  }
  store_close(&api);
  mem_free(keys);
}

/* Which record stands for an instant is found by its index, however many there are. */
static void test_folded_plan(void **state) {
  struct store *s = session(STORE_API);
  struct st_run_folded_ret got;
  (void)state;
  side_int(
      "INSERT INTO " SCHEMA
      ".run_history (scheduled_at, task_id, fired_at, shard, part, version, attempt, state, reason, origin, "
      "missed_first, missed_count) SELECT i, 1 + i % 20, 1, 0, 0, 1, 1, 2, 0, 0, CASE WHEN i % 1000 = 0 THEN "
      "i "
      "- 50 END, CASE WHEN i % 1000 = 0 THEN 40 END FROM generate_series(1, 100000) i");
  for (int analysed = 0; analysed < 2; analysed++) {
    int64_t before = rows_read(s);
    assert_int_equal(CALL_OWN(s, run_folded, &got, .task_id = 1, .from = 49960, .to = 49960, .limit = 10), 0);
    int64_t read = rows_read(s) - before;
    assert_int_equal(got.count, 1);
    assert_int_equal(got.rows[0].key.scheduled_at, 50000);
    assert_true(read >= 1 && read <= 110); /* of this task's ranges */
    side_int("ANALYZE " SCHEMA ".run_history");
  }
  side_int("TRUNCATE " SCHEMA ".run_history");
  arena_clear(&mem);
  store_close(&s);
}

/* ---------------------------------------------------------------- lost connections */
static void end_backend(struct store *s) {
  char sql[80];
  snprintf(sql, sizeof sql, "SELECT pg_terminate_backend(%d, 5000)::int", PQbackendPID(pg_of(s)->conn));
  assert_int_equal(side_int(sql), 1);
}

/* It was idle: nobody needs to know. */
static void test_idle_session_ended(void **state) {
  struct store *s = session(STORE_API);
  struct st_meta_ret meta;
  struct st_namespace_put_ret put;
  (void)state;
  for (int i = 0; i < 2; i++) {
    end_backend(s);
    assert_int_equal(CALL_OWN(s, meta, &meta, 0), 0);
    end_backend(s);
    assert_int_equal(CALL_OWN(s, namespace_put, &put, .name = SLICE("again")), i);
  }
  store_close(&s);
}

struct blocked {
  struct thread thread;
  struct store *s;
  int answer;
};
static void fire_blocked(void *arg) {
  struct blocked *b = arg;
  struct run_key key[1];
  b->answer = fire(b->s, 1, key);
}

static void wait_for_blocked(const struct store *s) {
  char sql[120];
  snprintf(sql, sizeof sql, "SELECT cardinality(pg_blocking_pids(%d))",
           PQbackendPID(((const struct pg_store *)s)->conn));
  for (int i = 0; i < 2000 && side_int(sql) == 0; i++)
    usleep(5000);
  assert_int_equal(side_int(sql), 1);
}

/* It was at work on a write: nobody can know. */
static void test_write_ended(void **state) {
  struct store *api = session(STORE_API);
  struct blocked b = {.s = session(STORE_FIRE)};
  (void)state;
  claim_all(api);
  side_int("BEGIN");
  side_int("SELECT 1 FROM " SCHEMA ".shard WHERE id = 3 FOR UPDATE");
  assert_int_equal(thread_start(&b.thread, "fire", fire_blocked, &b, &e), 0);
  wait_for_blocked(b.s);
  end_backend(b.s);
  thread_join(&b.thread);
  assert_int_equal(b.answer, ERR_UNKNOWN_OUTCOME);
  side_int("ROLLBACK");
  int64_t fired_at = shards[3].fired_at;
  refresh_shards(api); /* read back: it was not done */
  assert_int_equal(shards[3].fired_at, fired_at);
  fire_blocked(&b);
  assert_int_equal(b.answer, 0);
  store_close(&b.s);
  store_close(&api);
}

/* Inside a transaction it is certain that nothing was written. */
static void test_locked_session_ended(void **state) {
  struct store *s = session(STORE_FIRE);
  struct st_shard_lock_ret lock;
  struct st_shard_unlock_ret unlock;
  struct st_meta_ret meta;
  (void)state;
  claim_all(s);
  assert_int_equal(CALL_OWN(s, shard_lock, &lock, .shard = 2, .epoch = shards[2].epoch), 0);
  end_backend(s);
  assert_int_equal(CALL_OWN(s, meta, &meta, 0), ERR_UNAVAILABLE);
  assert_int_equal(CALL_OWN(s, shard_unlock, &unlock, .commit = true), ERR_UNAVAILABLE);
  assert_int_equal(CALL_OWN(s, meta, &meta, 0), 0);
  store_close(&s);
}

/* A node that was stopped inside a transaction does not hold up the taker. */
static void test_claim_ends_idle_holder(void **state) {
  struct store *stopped = session(STORE_FIRE), *taker = session(STORE_LEASE);
  struct st_shard_lock_ret lock;
  struct st_shard_unlock_ret unlock;
  struct st_node_join_ret join;
  struct st_shard_claim_ret claim;
  int32_t ids[] = {4, 5};
  struct slice dead = SLICE("me");
  int r = ERR_UNAVAILABLE;
  (void)state;
  claim_all(stopped);
  assert_int_equal(CALL_OWN(stopped, shard_lock, &lock, .shard = 4, .epoch = shards[4].epoch), 0);
  assert_int_equal(CALL_OWN(taker, node_join, &join, .id = SLICE("taker"), .ttl = USEC_PER_HOUR), 0);
  for (int i = 0; i < 5 && r == ERR_UNAVAILABLE; i++)
    r = CALL_OWN(taker, shard_claim, &claim, .node = SLICE("taker"), .incarnation = join.incarnation,
                 .ids = ids, .count = 2, .dead = &dead, .dead_count = 1);
  assert_int_equal(r, 0);
  assert_int_equal(claim.count, 2);
  assert_int_equal(claim.shards[0].epoch, shards[4].epoch + 1);
  r = CALL_OWN(stopped, shard_unlock, &unlock, .commit = true);
  assert_true(r == ERR_UNAVAILABLE ||
              r == ERR_UNKNOWN_OUTCOME); /* unknown: its end came while COMMIT was on the way */
  refresh_shards(taker);
  assert_true(slice_eqz(shards[4].owner, "taker"));
  store_close(&stopped);
  store_close(&taker);
}

/* A server that has been switched to read-only is left: another one of the list may be the primary. */
static void test_read_only_is_left(void **state) {
  struct store *s = session(STORE_API);
  struct st_namespace_put_ret put;
  static const struct pg_sql switched = {"switched", "SET default_transaction_read_only = on", PG_READ, true};
  auto_result r = NULL;
  (void)state;
  assert_int_equal(pgc_one(pg_of(s), &switched, &r, &e), 0);
  int32_t pid = PQbackendPID(pg_of(s)->conn);
  assert_int_equal(CALL_OWN(s, namespace_put, &put, .name = SLICE("left")), ERR_UNAVAILABLE);
  assert_null(pg_of(s)->conn);
  assert_int_equal(CALL_OWN(s, namespace_put, &put, .name = SLICE("left")), 0);
  assert_int_not_equal(PQbackendPID(pg_of(s)->conn), pid);
  store_close(&s);
}

/* As after a promotion elsewhere: this server is on a lower timeline than one that was seen. */
static void test_former_primary_is_left(void **state) {
  struct store *s = session(STORE_API), *fire_session = session(STORE_FIRE), *lease = session(STORE_LEASE);
  struct pg_source *o = pg_of(s)->source;
  struct st_meta_ret meta;
  struct st_node_join_ret join;
  struct st_node_renew_ret renew;
  struct st_shard_claim_ret claim;
  struct st_shard_list_ret list;
  int32_t one = 1;
  (void)state;
  int64_t timeline = atomic_load(&o->timeline);
  assert_true(timeline >= 1 && o->system != 0);
  assert_int_equal(CALL_OWN(lease, node_join, &join, .id = SLICE("here"), .ttl = USEC_PER_HOUR), 0);
  atomic_store(&o->timeline, timeline + 1);
  assert_int_equal(CALL_OWN(s, meta, &meta, 0), ERR_UNAVAILABLE);
  assert_non_null(strstr(e.text, "former primary"));
  assert_int_equal(CALL_OWN(lease, node_renew, &renew, .id = SLICE("here"), .incarnation = join.incarnation,
                            .ttl = USEC_PER_HOUR),
                   ERR_UNAVAILABLE);
  atomic_store(&o->timeline, timeline); /* and now it is as if this were the new one */
  atomic_store(&o->served, timeline - 1);
  assert_int_equal(CALL_OWN(lease, meta, &meta, 0), 0);
  pg_of(lease)->joined = timeline - 1;
  assert_int_equal(CALL_OWN(lease, node_renew, &renew, .id = SLICE("here"), .incarnation = join.incarnation,
                            .ttl = USEC_PER_HOUR),
                   ERR_FENCED);
  assert_int_equal(CALL_OWN(fire_session, shard_list, &list, 0), ERR_UNAVAILABLE);
  assert_int_equal(CALL_OWN(s, shard_list, &list, 0), 0);
  assert_int_equal(CALL_OWN(lease, node_join, &join, .id = SLICE("here"), .ttl = USEC_PER_HOUR), 0);
  assert_int_equal(CALL_OWN(lease, shard_claim, &claim, .node = SLICE("here"),
                            .incarnation = join.incarnation, .ids = &one, .count = 1),
                   0);
  assert_int_equal(CALL_OWN(fire_session, shard_list, &list, 0), 0);
  atomic_store(&o->system, o->system + 1);
  end_backend(s);
  assert_int_equal(CALL_OWN(s, meta, &meta, 0), ERR_UNAVAILABLE);
  assert_non_null(strstr(e.text, "another database cluster"));
  atomic_store(&o->system, o->system - 1);
  store_close(&s);
  store_close(&fire_session);
  store_close(&lease);
}

static void test_listener_ended(void **state) {
  struct store *s = session(STORE_LISTEN), *api = session(STORE_API);
  struct st_wait_change_ret wait;
  struct st_inbox_add_ret add;
  (void)state;
  assert_int_equal(CALL_OWN(s, wait_change, &wait, .timeout = 0), 0);
  end_backend(s);
  assert_int_equal(CALL_OWN(s, wait_change, &wait, .timeout = 0), 0); /* listens anew */
  assert_int_equal(CALL_OWN(api, inbox_add, &add, .shard = 6, .body = SLICE("{}"), .ref = SLICE("r")), 0);
  assert_int_equal(CALL_OWN(s, wait_change, &wait, .timeout = 30 * USEC_PER_SEC), 0);
  assert_int_equal(wait.count, 1);
  assert_int_equal(wait.shards[0], 6);
  store_close(&s);
  store_close(&api);
}

/* Rows that stand in the default partition go along into the partition of their day. */
static void test_partition_of_default(void **state) {
  struct store *s = session(STORE_API);
  struct st_maintain_ret ret;
  char sql[400];
  (void)state;
  int64_t day =
      side_int("SELECT extract(epoch FROM date_trunc('day', now() AT TIME ZONE 'UTC'))::int8 / 86400 + 2");
  side_int("DO $$ DECLARE n text := to_char((now() AT TIME ZONE 'UTC')::date + 2, 'YYYYMMDD'); BEGIN "
           "EXECUTE 'DROP TABLE " SCHEMA ".run_history_' || n; END $$");
  snprintf(
      sql, sizeof sql,
      "INSERT INTO " SCHEMA
      ".run_history (scheduled_at, task_id, fired_at, shard, part, version, attempt, state, reason, origin) "
      "SELECT %lld * 86400000000 + i, 1, 1, 0, 0, 1, 1, 2, 0, 0 FROM generate_series(0, 99) i",
      (long long)day);
  side_int(sql);
  assert_int_equal(side_int("SELECT count(*) FROM " SCHEMA ".run_history_default"), 100);
  assert_int_equal(CALL_OWN(s, maintain, &ret, 0), 0);
  assert_int_equal(side_int("SELECT count(*) FROM " SCHEMA ".run_history_default"), 0);
  snprintf(sql, sizeof sql,
           "SELECT count(*) FROM " SCHEMA ".run_history WHERE scheduled_at >= %lld * 86400000000",
           (long long)day);
  assert_int_equal(side_int(sql), 100);
  assert_int_equal(CALL_OWN(s, maintain, &ret, 0), 0);
  store_close(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_plans),
      cmocka_unit_test(test_folded_plan),
      cmocka_unit_test(test_idle_session_ended),
      cmocka_unit_test(test_write_ended),
      cmocka_unit_test(test_locked_session_ended),
      cmocka_unit_test(test_claim_ends_idle_holder),
      cmocka_unit_test(test_read_only_is_left),
      cmocka_unit_test(test_former_primary_is_left),
      cmocka_unit_test(test_listener_ended),
      cmocka_unit_test(test_partition_of_default),
  };
  const char *url = getenv("KELOU_TEST_PG_URL");
  char own[1024];
  if (!url) {
    puts("skipped: KELOU_TEST_PG_URL is not set");
    return SKIPPED;
  }
  side = PQconnectdb(url);
  if (PQstatus(side) != CONNECTION_OK) {
    printf("%s", PQerrorMessage(side));
    return 1;
  }
  side_int("SET client_min_messages = warning");
  side_int("DROP SCHEMA IF EXISTS " SCHEMA " CASCADE");
  side_int("CREATE SCHEMA " SCHEMA);
  snprintf(own, sizeof own, "%s%coptions=-csearch_path%%3D" SCHEMA, url, strchr(url, '?') ? '&' : '?');
  struct store_options options = {.url = own, .shard_count = SHARDS, .idle_tx_timeout = 30 * USEC_PER_SEC};
  if (pg_source_open(&options, &source, &e) < 0) {
    printf("%s\n", e.text);
    return 1;
  }
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  source->ops->close(source);
  side_int("DROP SCHEMA " SCHEMA " CASCADE");
  PQfinish(side);
  arena_done(&mem);
  return failed;
}
