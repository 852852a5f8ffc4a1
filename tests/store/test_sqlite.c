/* What is SQLite's alone: the lock file, migrations, the fences at open, the injected clock, a shard held locked, kill -9. */
#include "contract.h"
#include "base/parse.h"
#include "store/source.h"
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SHARDS      4
#define CRASHES     12
#define CRASH_BATCH 200

struct fixture fx; /* of contract.h: only s, mem and e are used here */
static char dir[] = "/tmp/kelou-sqlite-XXXXXX", path[64], url[80];

static usec_t wall_now = 1700000000 * USEC_PER_SEC;
static usec_t wall(const struct clock *c) {
  (void)c;
  return wall_now;
}
static usec_t mono(const struct clock *c) {
  (void)c;
  return clock_system.mono(&clock_system);
}
static const struct clock fake_clock = {wall, mono};

int check_ok(int r, const char *call, const char *file, int line) {
  if (r < 0) {
    print_error("%s:%d: %.120s\n  → %s %s\n", file, line, call, err_name(r), fx.e.text);
    _fail(file, line);
  }
  return r;
}

static int try_open(struct store_source **ret) {
  return sqlite_source_open(&(struct store_options){.url = url, .shard_count = SHARDS, .clock = &fake_clock},
                            ret, &fx.e);
}

static struct store_source *open_source(void) {
  struct store_source *source = NULL;
  OK(try_open(&source));
  OK(store_session(source, STORE_API, &fx.s, &fx.e));
  return source;
}

static void close_source(struct store_source *source) {
  store_close(&fx.s);
  store_source_close(&source);
}

static int setup(void **state) {
  static const char *const suffixes[] = {"", ".lock", "-wal", "-shm"};
  char name[96];
  (void)state;
  for (size_t i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
    (void)unlink(name); /* it may not be there */
  }
  arena_clear(&fx.mem);
  return 0;
}

static void sql(const char *text) {
  sqlite3 *db;
  assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
  assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
  sqlite3_close(db);
}

static void test_lock_file(void **state) {
  struct store_source *second = NULL;
  char pid[16];
  (void)state;
  struct store_source *source = open_source();
  assert_int_equal(try_open(&second), ERR_CONFLICT);
  assert_null(second);
  snprintf(pid, sizeof pid, "%d", (int)getpid());
  assert_non_null(strstr(fx.e.text, pid));
  close_source(source);
  close_source(open_source()); /* free again */
}

static void test_migrations(void **state) {
  struct store_source *source = NULL;
  (void)state;
  close_source(open_source());
  sql("UPDATE schema_migration SET checksum = '0123456789abcdef' WHERE number = 1");
  assert_int_equal(try_open(&source), ERR_SCHEMA);
  assert_non_null(strstr(fx.e.text, "0001_init.sql"));
  setup(NULL);
  close_source(open_source());
  sql("INSERT INTO schema_migration VALUES (9999, '9999_later.sql', 'x', 0)");
  assert_int_equal(try_open(&source), ERR_SCHEMA);
  assert_non_null(strstr(fx.e.text, "9999_later.sql"));
}

static struct shard_row shard(int32_t id) {
  struct st_shard_list_ret list;
  OK(CALL(shard_list, &list));
  return list.shards[id];
}

static void test_open_raises_epochs(void **state) {
  struct st_node_join_ret join;
  struct st_shard_claim_ret claim;
  struct st_node_list_ret nodes;
  struct st_run_apply_ret applied;
  (void)state;
  struct store_source *source = open_source();
  OK(CALL(node_join, &join, .id = SLICE("n"), .ttl = USEC_PER_HOUR));
  OK(CALL(shard_claim, &claim, .node = SLICE("n"), .incarnation = join.incarnation, .ids = (int32_t[]){1},
          .count = 1));
  assert_int_equal(claim.count, 1);
  int64_t epoch = claim.shards[0].epoch;
  close_source(source);
  source = open_source(); /* with another count asked for, the stored one rules */
  assert_int_equal(shard(1).epoch, epoch + 1);
  assert_int_equal(shard(1).owner.n, 0);
  OK(CALL(node_list, &nodes));
  assert_int_equal(nodes.count, 0);
  struct fence_row fences[2] = {{1, epoch}, {1, epoch + 1}};
  OK(CALL(run_apply, &applied, .fences = fences, .fence_count = 2));
  assert_true(!applied.fence_ok[0] && applied.fence_ok[1]);
  close_source(source);
}

static struct task_version_row put_task(const char *name) {
  struct task_def def = {
      .ns = SLICE("default"), .name = slice_of(name), .definition = SLICE("{}"), .kind = SCHEDULE_CRON};
  struct st_task_put_ret put;
  OK(CALL(task_put, &put, .defs = &def, .count = 1));
  return put.rows[0];
}

static void test_clock(void **state) {
  struct st_task_change_ret changed;
  struct st_fire_ret fired;
  struct st_meta_ret meta;
  (void)state;
  struct store_source *source = open_source();
  OK(CALL(meta, &meta));
  assert_int_equal(meta.now, wall_now);
  struct task_version_row task = put_task("t");
  assert_int_equal(task.effective_at, wall_now);
  struct shard_row s = shard(task.shard);
  struct fire_shard f = {.shard = task.shard,
                         .epoch = s.epoch,
                         .tasks_version = s.tasks_version,
                         .seen_at = s.fired_at,
                         .seen_task = s.fired_task,
                         .new_at = wall_now + 50001};
  OK(CALL(fire, &fired, .shards = &f, .shard_count = 1, .ahead = 50000));
  assert_false(fired.advanced[0]);
  f.new_at = wall_now + 50000;
  OK(CALL(fire, &fired, .shards = &f, .shard_count = 1, .ahead = 50000));
  assert_true(fired.advanced[0]);
  OK(CALL(task_change, &changed, .task_id = task.task_id, .state = TASK_PAUSED));
  assert_int_equal(changed.row.effective_at, wall_now + 50000); /* the watermark's */
  wall_now += USEC_PER_SEC;
  OK(CALL(task_change, &changed, .task_id = task.task_id, .state = TASK_ENABLED));
  assert_int_equal(changed.row.effective_at, wall_now);
  wall_now -= USEC_PER_HOUR; /* a clock that steps back does not turn the versions round */
  OK(CALL(task_change, &changed, .task_id = task.task_id, .state = TASK_PAUSED));
  assert_int_equal(changed.row.effective_at, wall_now + USEC_PER_HOUR);
  wall_now += USEC_PER_HOUR;
  close_source(source);
}

/* A session closed while it holds a shard gives back the writer and what it wrote is gone. */
static void test_close_while_locked(void **state) {
  struct st_shard_lock_ret lock;
  struct st_namespace_put_ret put;
  struct store *other;
  (void)state;
  struct store_source *source = open_source();
  OK(store_session(source, STORE_FIRE, &other, &fx.e));
  OK(CALL_ON(other, shard_lock, &lock, .shard = 0, .epoch = shard(0).epoch));
  assert_int_equal(OK(CALL_ON(other, namespace_put, &put, .name = SLICE("mine"))), 0);
  store_close(&other);
  assert_int_equal(OK(CALL(namespace_put, &put, .name = SLICE("mine"))), 0);
  close_source(source);
}

/* ------------------------------------------------------------------ kill -9 */
/* Fires and ends runs without end, writing the batch's number to `fd` after each commit. */
static void crash_child(int fd) {
  struct run_row rows[CRASH_BATCH];
  struct run_finish ends[CRASH_BATCH / 2];
  (void)open_source();
  struct st_task_get_ret got;
  OK(CALL(task_get, &got, .ns = SLICE("default"), .name = SLICE("crash")));
  const struct task_version_row *task = &got.task.v;
  for (int64_t batch = shard(task->shard).fired_task + 1;; batch++) {
    struct shard_row s = shard(task->shard);
    struct fire_shard f = {.shard = s.id,
                           .epoch = s.epoch,
                           .tasks_version = s.tasks_version,
                           .seen_at = s.fired_at,
                           .seen_task = s.fired_task,
                           .new_at = s.fired_at,
                           .new_task = batch};
    struct fence_row fence = {s.id, s.epoch};
    struct st_fire_ret fired;
    struct st_run_apply_ret applied;
    for (int i = 0; i < CRASH_BATCH; i++)
      rows[i] = (struct run_row){.key = {s.id, batch, task->task_id, i}, .version = 1, .progress = -1};
    for (int i = 0; i < CRASH_BATCH / 2; i++)
      ends[i] = (struct run_finish){.key = rows[i].key, .state = RUN_SUCCESS, .finished_at = 1};
    OK(CALL(fire, &fired, .shards = &f, .shard_count = 1, .open = rows, .open_count = CRASH_BATCH,
            .ahead = USEC_PER_HOUR));
    assert_true(fired.advanced[0]);
    OK(CALL(run_apply, &applied, .fences = &fence, .fence_count = 1, .finishes = ends,
            .finish_count = CRASH_BATCH / 2));
    assert_int_equal(write(fd, &batch, sizeof batch), sizeof batch);
    arena_clear(&fx.mem);
  }
}

struct acknowledged {
  int64_t last,
      count; /* the last batch's number, and how many came back: a crash may leave one fired and not ended */
};

static void run_and_kill(unsigned delay_us, struct acknowledged *a) {
  int fds[2], status;
  assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) {
    crash_child(fds[1]);
    _exit(1);
  }
  close(fds[1]);
  assert_int_equal(read(fds[0], &a->last, sizeof a->last), sizeof a->last); /* it is in full swing */
  a->count++;
  struct timespec t = {.tv_nsec = delay_us * 1000};
  (void)nanosleep(&t, NULL); /* the moment of the crash, not something waited for */
  kill(pid, SIGKILL);
  assert_int_equal(waitpid(pid, &status, 0), pid);
  while (read(fds[0], &a->last, sizeof a->last) == sizeof a->last)
    a->count++;
  close(fds[0]);
}

static void check_after_crash(const struct acknowledged *a) {
  struct store_source *source = open_source();
  struct st_task_get_ret got;
  OK(CALL(task_get, &got, .ns = SLICE("default"), .name = SLICE("crash")));
  int64_t batches = shard(got.task.v.shard).fired_task;
  assert_in_range(batches, a->last, a->last + 1);
  struct st_task_stats_ret stats;
  OK(CALL(task_stats, &stats, .task_id = got.task.v.task_id));
  assert_int_equal(stats.fires, batches * CRASH_BATCH); /* whole batches, none doubled */
  assert_in_range(stats.success, a->count * CRASH_BATCH / 2, batches * CRASH_BATCH / 2);
  assert_int_equal(stats.success % (CRASH_BATCH / 2), 0);
  close_source(source);
}

static void test_crash(void **state) {
  struct acknowledged a = {};
  (void)state;
  struct store_source *source = open_source();
  (void)put_task("crash");
  close_source(source);
  sql("UPDATE shard SET fired_task = 0");
  for (unsigned i = 0; i < CRASHES; i++) {
    run_and_kill(500 + 2311 * i, &a);
    check_after_crash(&a);
  }
  assert_true(a.count >= CRASHES);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(test_lock_file, setup),          cmocka_unit_test_setup(test_migrations, setup),
      cmocka_unit_test_setup(test_open_raises_epochs, setup), cmocka_unit_test_setup(test_clock, setup),
      cmocka_unit_test_setup(test_close_while_locked, setup), cmocka_unit_test_setup(test_crash, setup),
  };
  if (!mkdtemp(dir))
    return 1;
  snprintf(path, sizeof path, "%s/kelou.db", dir);
  snprintf(url, sizeof url, "sqlite:%s", path);
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  setup(NULL);
  (void)rmdir(dir); /* what is left shows what went wrong */
  arena_done(&fx.mem);
  return failed != 0;
}
