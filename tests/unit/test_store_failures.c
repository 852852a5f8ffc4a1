/* Every operation of the record services with every n-th call of the store failing in every way: refused, done but the answer lost, not
 * done and nobody can say. An operation then either succeeds or says so, leaves its output alone, and can be repeated. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "access/access.h"
#include "executor/registry.h"
#include "store_util.h"
#include "task/task.h"

enum { CALLS_MAX = 16, UNTOUCHED = 0x5a };

static struct test_store t;
static struct task_service *tasks;
static struct access *acc;
static struct registry *reg;
static struct arena mem;
static struct err e;
static struct task_call call;

/* ---------------------------------------------------------------- the fault */
static int calls, fail_at; /* fail_at 0: none */
static enum store_fault how;
static const char *failed_op;

static enum store_fault decide(void *arg, const char *op) {
  (void)arg;
  if (++calls != fail_at)
    return STORE_FAULT_NONE;
  failed_op = op;
  return how;
}

static void no_fault(void) { calls = fail_at = 0; }

/* ---------------------------------------------------------------- the operations */
/* Each takes a number that no other trial has: what it makes is named after it. `ready` makes what the operation needs. */
static char name_text[64];
static struct slice name_of(const char *prefix, int n) {
  (void)snprintf(name_text, sizeof name_text, "%s%d", prefix, n);
  return slice_of(name_text);
}

static json_t *parse(const char *text) {
  json_t *j = NULL;
  OK(json_read(slice_of(text), 1024, &j, &e));
  return j;
}
/* The number may stand in the text several times: %1$d. */
#define doc(fmt, n)                                                                                          \
  ({                                                                                                         \
    char text_[512];                                                                                         \
    (void)snprintf(text_, sizeof text_, fmt, n);                                                             \
    parse(text_);                                                                                            \
  })

#define DOC                                                                                                  \
  "\"executor_group\":\"g\",\"handler\":\"h\",\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 * * "  \
  "?\"}}"

static union {
  struct task_row task;
  struct task_version_row *versions;
  struct st_task_list_ret list;
  struct st_task_versions_ret pages;
  struct run_key key;
  struct token_row token;
  struct st_token_list_ret tokens;
  struct st_namespace_list_ret namespaces;
  struct group_row group;
  struct st_group_list_ret groups;
  struct executor_registered registered;
  struct st_executor_list_ret executors;
  struct access_identity who;
  unsigned char bytes[1024];
} out;
static char secret[REGISTRY_SECRET_MAX], token[ACCESS_TOKEN_TEXT_MAX], kept_token[ACCESS_TOKEN_TEXT_MAX];
static int64_t kept_id;

static int task_make(int n) {
  auto_json *d = doc("{\"name\":\"t%1$d\"," DOC, n);
  return task_create(tasks, &call, d, &out.task);
}
static void task_ready(int n) { OK(task_make(n)); }
static int task_make_keyed(int n) {
  char key[32];
  (void)snprintf(key, sizeof key, "k%d", n);
  struct idem idem = {.route = SLICE("POST /tasks"), .key = slice_of(key), .keep = USEC_PER_DAY};
  call.idem = &idem;
  int r = task_make(n);
  call.idem = NULL;
  return r;
}
static int task_make_many(int n) {
  auto_json *d = doc("[{\"name\":\"m%1$d\"," DOC ",{\"name\":\"n%1$d\"," DOC "]", n);
  return task_create_many(tasks, &call, d, &out.versions);
}
static int task_make_new(int n) {
  auto_json *d = doc("{\"name\":\"t%1$d\",\"description\":\"other %1$d\"," DOC, n);
  return task_replace(tasks, &call, name_of("t", n), d, &out.task);
}
static int task_edit(int n) {
  auto_json *d = doc("{\"description\":\"d%1$d\"}", n);
  return task_patch(tasks, &call, name_of("t", n), d, &out.task);
}
static int task_stop(int n) { return task_pause(tasks, &call, name_of("t", n), &out.task); }
static void paused_ready(int n) {
  task_ready(n);
  OK(task_stop(n));
}
static int task_go(int n) { return task_resume(tasks, &call, name_of("t", n), true, &out.task); }
static int task_remove(int n) { return task_delete(tasks, &call, name_of("t", n), false); }
static int task_read(int n) { return task_get(tasks, &call, name_of("t", n), 0, &out.task); }
static int task_pages(int n) {
  return task_versions(tasks, &call, name_of("t", n), &(struct st_task_versions){.limit = 5}, &out.pages);
}
static int task_search(int n) {
  (void)n;
  return task_list(tasks, &call, &(struct st_task_list){.limit = 5}, &out.list);
}
static int task_run_keyed(int n) {
  char key[32];
  (void)snprintf(key, sizeof key, "r%d", n);
  struct idem idem = {.route = SLICE("trigger"), .key = slice_of(key), .keep = USEC_PER_DAY};
  struct task_trigger ask = {.origin = ORIGIN_API};
  call.idem = &idem;
  int r = task_trigger(tasks, &call, name_of("t", n), &ask, &out.key);
  call.idem = NULL;
  return r;
}
static void edited_ready(int n) {
  task_ready(n);
  OK(task_edit(n));
}
static int task_back(int n) { return task_rollback(tasks, &call, name_of("t", n), 1, &out.task); }

static int token_make(int n) {
  return access_token_create(acc, &(struct access_token_new){.name = name_of("k", n), .role = ROLE_VIEWER},
                             SLICE("me"), token, &out.token, &e);
}
static void token_ready(int n) {
  OK(token_make(n));
  kept_id = out.token.id;
  memcpy(kept_token, token, sizeof token);
}
static int token_drop(int n) {
  (void)n;
  return access_token_delete(acc, kept_id, SLICE("me"), &e);
}
static int token_ask(int n) {
  (void)n;
  char header[ACCESS_TOKEN_TEXT_MAX + 8];
  (void)snprintf(header, sizeof header, "Bearer %s", kept_token);
  return access_check(acc, slice_of(header), &out.who, &e);
}
static int token_search(int n) {
  (void)n;
  return access_token_list(acc, 0, 5, &out.tokens, &mem, &e);
}
static int ns_make(int n) { return access_namespace_create(acc, name_of("n", n), SLICE("me"), &e); }
static int ns_search(int n) {
  (void)n;
  return access_namespace_list(acc, &out.namespaces, &mem, &e);
}

static int group_make(int n) {
  return registry_group_create(
      reg, &(struct group_new){SLICE("default"), name_of("g", n), CHANNEL_HTTP, ROUTING_ROUND_ROBIN, 16},
      secret, &out.group, &mem, &e);
}
static void group_ready(int n) { OK(group_make(n)); }
static int group_edit(int n) {
  return registry_group_change(
      reg, &(struct group_new){SLICE("default"), name_of("g", n), CHANNEL_HTTP, ROUTING_LEAST_BUSY, 3}, 0,
      &out.group, &mem, &e);
}
static int group_rotate(int n) {
  return registry_group_rotate(reg, SLICE("default"), name_of("g", n), secret, &out.group, &mem, &e);
}
static int group_retire(int n) { return registry_group_retire(reg, SLICE("default"), name_of("g", n), &e); }
static int group_drop(int n) { return registry_group_delete(reg, SLICE("default"), name_of("g", n), &e); }
static int group_read(int n) {
  return registry_group_get(reg, SLICE("default"), name_of("g", n), &out.group, &mem, &e);
}
static int group_search(int n) {
  (void)n;
  return registry_group_list(reg, SLICE("default"), &out.groups, &mem, &e);
}
static int executor_make(int n) {
  const struct slice any = SLICE("*");
  return registry_register(reg,
                           &(struct executor_new){.ns = SLICE("default"),
                                                  .group = SLICE("g"),
                                                  .id = name_of("x", n),
                                                  .url = SLICE("http://127.0.0.1:1"),
                                                  .handlers = &any,
                                                  .handler_count = 1,
                                                  .weight = -1,
                                                  .slots = 1},
                           &out.registered, &e);
}
static void executor_ready(int n) { OK(executor_make(n)); }
static int executor_drain(int n) {
  return registry_set_state(reg, SLICE("default"), SLICE("g"), name_of("x", n), EXECUTOR_DRAINING, &e);
}
static int executor_weigh(int n) {
  return registry_set_weight(reg, SLICE("default"), SLICE("g"), name_of("x", n), 3, &e);
}
static int executor_search(int n) {
  (void)n;
  return registry_list(reg, &(struct st_executor_list){0}, &out.executors, &mem, &e);
}

enum { OR_CONFLICT = 1, OR_GONE = 2 }; /* what a repeat may say after the first one was done unseen */

static const struct operation {
  const char *name;
  void (*ready)(int n);
  int (*go)(int n);
  unsigned repeat;
} operations[] = {
    {"task_create", NULL, task_make, OR_CONFLICT},
    {"task_create with a key", NULL, task_make_keyed, 0},
    {"task_create_many", NULL, task_make_many, OR_CONFLICT},
    {"task_replace", task_ready, task_make_new, 0},
    {"task_patch", task_ready, task_edit, 0},
    {"task_pause", task_ready, task_stop, 0},
    {"task_resume", paused_ready, task_go, 0},
    {"task_delete", task_ready, task_remove, OR_GONE},
    {"task_get", task_ready, task_read, 0},
    {"task_versions", task_ready, task_pages, 0},
    {"task_list", NULL, task_search, 0},
    {"task_trigger with a key", task_ready, task_run_keyed, 0},
    {"task_rollback", edited_ready, task_back, 0},
    {"access_token_create", NULL, token_make, OR_CONFLICT},
    {"access_token_delete", token_ready, token_drop, OR_GONE},
    {"access_check", token_ready, token_ask, 0},
    {"access_token_list", NULL, token_search, 0},
    {"access_namespace_create", NULL, ns_make, 0},
    {"access_namespace_list", NULL, ns_search, 0},
    {"registry_group_create", NULL, group_make, OR_CONFLICT},
    {"registry_group_change", group_ready, group_edit, 0},
    {"registry_group_rotate", group_ready, group_rotate, 0},
    {"registry_group_retire", group_ready, group_retire, 0},
    {"registry_group_delete", group_ready, group_drop, OR_GONE},
    {"registry_group_get", group_ready, group_read, 0},
    {"registry_group_list", NULL, group_search, 0},
    {"registry_register", NULL, executor_make, 0},
    {"registry_set_state", executor_ready, executor_drain, 0},
    {"registry_set_weight", executor_ready, executor_weigh, 0},
    {"registry_list", NULL, executor_search, 0},
};

/* ---------------------------------------------------------------- trying */
static int number;

static void want_answer(const struct operation *o, int r) {
  if (r >= 0)
    return;
  if (r != ERR_UNAVAILABLE && r != ERR_UNKNOWN_OUTCOME)
    fail_msg("%s, %s failing: answered %s: %s", o->name, failed_op, err_name(r), e.text);
  if (e.code != r || !e.text[0])
    fail_msg("%s, %s failing: the error does not say what is wrong", o->name, failed_op);
  for (size_t i = 0; i < sizeof out; i++)
    if (out.bytes[i] != UNTOUCHED)
      fail_msg("%s, %s failing: the output was touched", o->name, failed_op);
}

/* One failure: the `at`-th call. False: the operation has no such call. */
static bool try_one(const struct operation *o, int at, enum store_fault fault) {
  int n = ++number;
  no_fault();
  if (o->ready)
    o->ready(n);
  memset(&out, UNTOUCHED, sizeof out);
  e = (struct err){0};
  calls = 0;
  fail_at = at;
  how = fault;
  int r = o->go(n);
  bool reached = calls >= at;
  no_fault();
  if (!reached) {
    OK(r);
    return false;
  }
  want_answer(o, r);
  int again = o->go(n);
  bool fine = again >= 0 || (again == ERR_CONFLICT && o->repeat & OR_CONFLICT) ||
              (again == ERR_NOT_FOUND && o->repeat & OR_GONE);
  bool nothing_done = fault == STORE_FAULT_UNAVAILABLE && r < 0 && at == 1;
  if (!fine || (nothing_done && again < 0))
    fail_msg("%s, %s failing: the repeat said %s: %s", o->name, failed_op, err_name(again), e.text);
  return true;
}

static void test_every_call_fails(void **state) {
  (void)state;
  static const enum store_fault faults[] = {STORE_FAULT_UNAVAILABLE, STORE_FAULT_LOST_ANSWER,
                                            STORE_FAULT_UNKNOWN_NOT_DONE};
  for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
    for (size_t f = 0; f < sizeof faults / sizeof *faults; f++) {
      int at = 1;
      while (at <= CALLS_MAX && try_one(&operations[i], at, faults[f]))
        at++;
      if (at == 1)
        fail_msg("%s does not ask the store", operations[i].name);
      assert_true(at <= CALLS_MAX);
      arena_clear(&mem);
    }
}

/* A create and a trigger with a key are done once, however often they are repeated. */
static void test_a_key_makes_it_once(void **state) {
  (void)state;
  how = STORE_FAULT_LOST_ANSWER;
  task_ready(7);
  calls = 0;
  fail_at = 2;
  (void)task_run_keyed(7);
  no_fault();
  OK(task_run_keyed(7));
  struct run_key first = out.key;
  assert_int_equal(task_run_keyed(7), 1);
  assert_true(run_key_eq(&first, &out.key));
  struct st_inbox_read_ret rows;
  const int32_t shards[] = {0, 1, 2, 3};
  OK(store_inbox_read(t.store, &(struct st_inbox_read){shards, 4, 100}, &rows, &mem, &e));
  assert_int_equal(rows.count, 1);
}

static usec_t now(void *arg) {
  (void)arg;
  return test_wall(&test_clock);
}

static int setup(void **state) {
  (void)state;
  test_ahead = 0;
  no_fault();
  test_store_open(&t);
  t.store = store_faults(t.store, decide, NULL);
  struct st_namespace_put_ret ns;
  OK(store_namespace_put(t.store, &(struct st_namespace_put){SLICE("default")}, &ns, &mem, &e));
  tasks = task_service_new(&(struct task_service_options){t.store, "/usr/share/zoneinfo", now, NULL, 42});
  call = (struct task_call){.by = SLICE("me"), .mem = &mem, .e = &e};
  struct access_options a;
  access_options_default(&a);
  a.store = t.store;
  a.clock = &test_clock;
  a.state_dir = t.dir;
  acc = access_new(&a);
  struct registry_options r;
  registry_options_default(&r);
  r.store = t.store;
  r.clock = &test_clock;
  memset(r.key, 7, sizeof r.key);
  OK(registry_new(&r, &reg, &e));
  struct group_row row;
  OK(registry_group_create(
      reg, &(struct group_new){SLICE("default"), SLICE("g"), CHANNEL_HTTP, ROUTING_ROUND_ROBIN, 16}, secret,
      &row, &mem, &e));
  return 0;
}

static int teardown(void **state) {
  (void)state;
  registry_free(&reg);
  access_free(&acc);
  task_service_free(&tasks);
  arena_done(&mem);
  test_store_close(&t);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_every_call_fails, setup, teardown),
      cmocka_unit_test_setup_teardown(test_a_key_makes_it_once, setup, teardown)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
