#pragma once
/* The contract of store.h as one suite over any source: SQLite, PostgreSQL, the simulated store. An operation that answers
 * -ENOTSUP skips its tests. The source need not be empty: every test works with names of its own. */
#include "store/store.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

/* Runs everything; 0 = all passed or skipped. `open` is called once and the source closed at the end. */
int contract_run(struct store_source *(*open)(void), const char *name);

/* ------------------------------------------------------------------ for the files of the suite */
struct fixture {
  struct store_source *source;
  struct store *s;
  struct arena mem; /* cleared before each test */
  struct err e;
  int32_t shard_count;
  struct slice ns;   /* a namespace of this test alone */
  struct slice node; /* owns every shard, see own_shards */
  int64_t incarnation;
};
extern struct fixture fx;

#define CALL(op, ret, ...) store_##op(fx.s, &(struct st_##op){__VA_ARGS__}, (ret), &fx.mem, &fx.e)
#define CALL_ON(session, op, ret, ...)                                                                       \
  store_##op((session), &(struct st_##op){__VA_ARGS__}, (ret), &fx.mem, &fx.e)
/* The call's value; fails the test when it is negative, skips it on -ENOTSUP. */
#define OK(call)            check_ok((call), #call, __FILE__, __LINE__)
#define REFUSED(code, call) check_refused((code), (call), #call, __FILE__, __LINE__)
int check_ok(int r, const char *call, const char *file, int line);
void check_refused(int code, int r, const char *call, const char *file, int line);

usec_t db_now(void);
struct slice unique(const char *prefix);
/* A new node takes every shard from whoever holds it: fx.node, fx.incarnation. */
void own_shards(void);
struct shard_row shard_now(int32_t shard);
struct task_def task_def_named(struct slice name);
struct task_version_row new_task(const char *prefix);
/* An entry that moves the watermark of `shard` by a microsecond. */
struct fire_shard fire_entry(int32_t shard);
struct run_row run_of(const struct task_version_row *task, usec_t scheduled_at, int32_t part);
/* FIRE of open or ended runs of one shard; true = advanced. */
bool fire_open(const struct run_row *rows, size_t count);
bool fire_ended(const struct run_row *rows, size_t count);
struct fence_row fence_of(int32_t shard);
/* Ends one open run; true = finished. */
bool finish_run(const struct run_row *run, enum run_state state, usec_t finished_at);
/* RUN_STATE_MAX_ when there is no such run. */
enum run_state state_of(const struct run_key *key);

extern const struct CMUnitTest bounds_tests[], calendar_tests[], cluster_tests[], task_tests[],
    task_apply_tests[], task_load_tests[], fire_tests[], run_tests[], run_list_tests[], executor_tests[],
    access_tests[], alert_tests[], dead_letter_tests[], retention_tests[], log_tests[], lists_tests[],
    dependency_tests[];
extern const size_t bounds_tests_count, calendar_tests_count, cluster_tests_count, task_tests_count,
    task_apply_tests_count, task_load_tests_count, fire_tests_count, run_tests_count, run_list_tests_count,
    executor_tests_count, access_tests_count, alert_tests_count, dead_letter_tests_count,
    retention_tests_count, log_tests_count, lists_tests_count, dependency_tests_count;
#define TESTS(name, ...)                                                                                     \
  const struct CMUnitTest name[] = {__VA_ARGS__};                                                            \
  const size_t name##_count = sizeof name / sizeof name[0]
