#include "contract.h"
#include <stdio.h>

struct fixture fx;
static unsigned counter;

int check_ok(int r, const char *call, const char *file, int line) {
  if (r == -ENOTSUP)
    skip();
  if (r < 0) {
    print_error("%s:%d: %.120s\n  → %s %d %s: %s\n", file, line, call, err_name(r), r, fx.e.field, fx.e.text);
    _fail(file, line);
  }
  return r;
}

void check_refused(int code, int r, const char *call, const char *file, int line) {
  if (r == -ENOTSUP)
    skip();
  if (r != code) {
    print_error("%s:%d: %.120s\n  → %s %d, not %s\n", file, line, call, r < 0 ? err_name(r) : "done", r,
                err_name(code));
    _fail(file, line);
  }
}

usec_t db_now(void) {
  struct st_meta_ret meta;
  OK(CALL(meta, &meta));
  return meta.now;
}

struct slice unique(const char *prefix) {
  return slice_of(arena_printf(&fx.mem, "%s-%llx-%u", prefix,
                               (unsigned long long)clock_system.wall(&clock_system), ++counter));
}

void own_shards(void) {
  struct st_shard_list_ret list;
  struct st_node_join_ret join;
  struct st_shard_claim_ret claim;
  fx.node = unique("node");
  OK(CALL(node_join, &join, .id = fx.node, .address = SLICE("127.0.0.1:1"), .version = SLICE("1"),
          .tzdata = SLICE("2024a"), .ttl = USEC_PER_HOUR));
  fx.incarnation = join.incarnation;
  OK(CALL(shard_list, &list));
  int32_t *ids = arena_array(&fx.mem, list.count, sizeof *ids);
  struct slice *dead = arena_array(&fx.mem, list.count, sizeof *dead);
  for (size_t i = 0; i < list.count; i++) {
    ids[i] = list.shards[i].id;
    dead[i] = list.shards[i].owner;
  }
  OK(CALL(shard_claim, &claim, .node = fx.node, .incarnation = fx.incarnation, .ids = ids,
          .count = list.count, .dead = dead, .dead_count = list.count));
  assert_int_equal(claim.count, list.count);
}

struct shard_row shard_now(int32_t shard) {
  struct st_shard_list_ret list;
  OK(CALL(shard_list, &list));
  assert_in_range(shard, 0, list.count - 1);
  assert_int_equal(list.shards[shard].id, shard);
  return list.shards[shard];
}

struct task_def task_def_named(struct slice name) {
  return (struct task_def){.ns = fx.ns,
                           .name = name,
                           .definition = SLICE("{\"schedule\":{\"kind\":\"CRON\"}}"),
                           .group = SLICE("workers"),
                           .handler = SLICE("echo"),
                           .schedule_text = SLICE("0 0 * * * ?"),
                           .kind = SCHEDULE_CRON,
                           .state = TASK_ENABLED};
}

struct task_version_row new_task(const char *prefix) {
  struct task_def def = task_def_named(unique(prefix));
  struct st_task_put_ret put;
  OK(CALL(task_put, &put, .defs = &def, .count = 1, .by = SLICE("tester")));
  return put.rows[0];
}

struct fire_shard fire_entry(int32_t shard) {
  struct shard_row row = shard_now(shard);
  return (struct fire_shard){.shard = shard,
                             .epoch = row.epoch,
                             .tasks_version = row.tasks_version,
                             .seen_at = row.fired_at,
                             .seen_task = row.fired_task,
                             .new_at = row.fired_at + 1,
                             .new_task = 7};
}

struct run_row run_of(const struct task_version_row *task, usec_t scheduled_at, int32_t part) {
  return (struct run_row){
      .key = {.shard = task->shard, .scheduled_at = scheduled_at, .task_id = task->task_id, .part = part},
      .version = task->version,
      .state = RUN_PENDING,
      .reason = REASON_SCHEDULED,
      .origin = ORIGIN_SCHEDULE,
      .fired_at = scheduled_at + 5,
      .progress = -1};
}

bool fire_open(const struct run_row *rows, size_t count) {
  struct fire_shard entry = fire_entry(rows[0].key.shard);
  struct st_fire_ret ret;
  OK(CALL(fire, &ret, .shards = &entry, .shard_count = 1, .open = rows, .open_count = count,
          .ahead = USEC_PER_HOUR));
  return ret.advanced[0];
}

bool fire_ended(const struct run_row *rows, size_t count) {
  struct fire_shard entry = fire_entry(rows[0].key.shard);
  struct st_fire_ret ret;
  OK(CALL(fire, &ret, .shards = &entry, .shard_count = 1, .ended = rows, .ended_count = count,
          .ahead = USEC_PER_HOUR));
  return ret.advanced[0];
}

struct fence_row fence_of(int32_t shard) {
  return (struct fence_row){.shard = shard, .epoch = shard_now(shard).epoch};
}

bool finish_run(const struct run_row *run, enum run_state state, usec_t finished_at) {
  struct fence_row fence = fence_of(run->key.shard);
  struct run_finish finish = {.key = run->key,
                              .seen_attempt = run->attempt,
                              .state = state,
                              .attempt_at = finished_at - 20,
                              .started_at = finished_at - 10,
                              .finished_at = finished_at,
                              .executor = SLICE("x1")};
  struct st_run_apply_ret ret;
  OK(CALL(run_apply, &ret, .fences = &fence, .fence_count = 1, .finishes = &finish, .finish_count = 1));
  assert_true(ret.fence_ok[0]);
  return ret.finished[0];
}

enum run_state state_of(const struct run_key *key) {
  struct st_run_get_ret ret;
  int r = CALL(run_get, &ret, .key = *key);
  if (r == ERR_NOT_FOUND)
    return RUN_STATE_MAX_;
  OK(r);
  return ret.run.state;
}

/* ------------------------------------------------------------------ all of it */
static int before_each(void **state) {
  (void)state;
  arena_clear(&fx.mem);
  fx.e = (struct err){};
  fx.ns = unique("ns");
  return 0;
}

static const struct {
  const char *name;
  const struct CMUnitTest *tests;
  const size_t *count;
} groups[] = {
    {"cluster", cluster_tests, &cluster_tests_count},
    {"bounds", bounds_tests, &bounds_tests_count},
    {"task", task_tests, &task_tests_count},
    {"task-apply", task_apply_tests, &task_apply_tests_count},
    {"task-load", task_load_tests, &task_load_tests_count},
    {"fire", fire_tests, &fire_tests_count},
    {"run", run_tests, &run_tests_count},
    {"run-list", run_list_tests, &run_list_tests_count},
    {"executor", executor_tests, &executor_tests_count},
    {"access", access_tests, &access_tests_count},
    {"alert", alert_tests, &alert_tests_count},
    {"dead-letter", dead_letter_tests, &dead_letter_tests_count},
    {"retention", retention_tests, &retention_tests_count},
    {"log", log_tests, &log_tests_count},
    {"calendar", calendar_tests, &calendar_tests_count},
    {"lists", lists_tests, &lists_tests_count},
    {"dependency", dependency_tests, &dependency_tests_count},
};

int contract_run(struct store_source *(*open)(void), const char *name) {
  struct st_meta_ret meta;
  int failed = 0;
  fx.source = open();
  if (!fx.source || store_session(fx.source, STORE_API, &fx.s, &fx.e) < 0 || CALL(meta, &meta) < 0) {
    print_error("%s: cannot open: %s\n", name, fx.e.text);
    return 1;
  }
  fx.shard_count = meta.shard_count;
  for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
    struct CMUnitTest *tests = mem_array(*groups[i].count, sizeof *tests);
    char title[64];
    snprintf(title, sizeof title, "%s %s", name, groups[i].name);
    memcpy(tests, groups[i].tests, *groups[i].count * sizeof *tests);
    for (size_t j = 0; j < *groups[i].count; j++)
      tests[j].setup_func = before_each;
    failed += _cmocka_run_group_tests(title, tests, *groups[i].count, NULL, NULL);
    mem_free(tests);
  }
  store_close(&fx.s);
  store_source_close(&fx.source);
  arena_done(&fx.mem);
  return failed != 0;
}
