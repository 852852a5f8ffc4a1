/* The task service over SQLite: create, edit, pause, resume, trigger, delete, statistics, previews; and what is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "store_util.h"
#include "task/task.h"

static struct test_store t;
static struct task_service *s;
static struct arena mem;
static struct err e;
static struct task_call call;
static int told;
static int32_t told_shard;

static usec_t now(void *arg) {
  (void)arg;
  return test_wall(NULL);
}
static void changed(void *arg, int32_t shard) {
  (void)arg;
  told++;
  told_shard = shard;
}

static int setup(void **state) {
  (void)state;
  test_ahead = 0;
  test_store_open(&t);
  s = task_service_new(&(struct task_service_options){t.store, "/usr/share/zoneinfo", now, NULL, 42});
  task_service_on_change(s, changed, NULL);
  e = (struct err){0};
  call = (struct task_call){.by = SLICE("tester"), .mem = &mem, .e = &e};
  static const char *const names[] = {"default", "team"};
  for (size_t i = 0; i < 2; i++) {
    struct st_namespace_put ns = {slice_of(names[i])};
    struct st_namespace_put_ret ns_out;
    OK(store_namespace_put(t.store, &ns, &ns_out, &mem, &e));
    struct st_group_put g = {
        .group = {.ns = ns.name, .name = SLICE("g"), .max_connections = 1, .secret_sealed = SLICE("x")}};
    struct st_group_put_ret g_out;
    OK(store_group_put(t.store, &g, &g_out, &mem, &e));
  }
  told = 0;
  return 0;
}

static int teardown(void **state) {
  (void)state;
  task_service_free(&s);
  test_store_close(&t);
  arena_clear(&mem);
  return 0;
}

static json_t *doc_of(const char *text) {
  json_t *j = NULL;
  OK(json_read(slice_of(text), 1 << 20, &j, &e));
  return j;
}

#define CRON(name, more)                                                                                     \
  "{\"name\":\"" name "\",\"executor_group\":\"g\",\"handler\":\"h\"," more                                  \
  "\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 * * ?\"}}"
#define EVERY(name, every)                                                                                   \
  "{\"name\":\"" name                                                                                        \
  "\",\"executor_group\":\"g\",\"handler\":\"h\",\"schedule\":{\"kind\":\"FIXED_RATE\",\"every\":\"" every   \
  "\"}}"

static struct task_row create(const char *text) {
  struct task_row row;
  auto_json *doc = doc_of(text);
  OK(task_create(s, &call, doc, &row));
  return row;
}

static struct inbox_item inbox_last(int32_t shard, int *ret_count) {
  struct st_inbox_read in = {.shards = &shard, .shard_count = 1, .limit = 100};
  struct st_inbox_read_ret out;
  struct inbox_item item = {0};
  OK(store_inbox_read(t.store, &in, &out, &mem, &e));
  *ret_count = (int)out.count;
  if (out.count) {
    const struct inbox_row *row = &out.rows[out.count - 1];
    OK(inbox_parse(&(struct inbox_text){row->shard, row->kind, row->no, row->body}, &mem, &item, &e));
  }
  return item;
}

static void test_create(void **state) {
  (void)state;
  struct task_row a = create(CRON("a", "\"description\":\"d\",\"payload\":{\"x\":1},")), b;
  assert_true(a.v.task_id > 0 && a.v.version == 1 && a.v.state == TASK_ENABLED);
  assert_true(slice_eqz(a.ns, "default") && slice_eqz(a.created_by, "tester") &&
              slice_eqz(a.payload, "{\"x\":1}"));
  assert_true(a.schedule_text.n > 0);
  assert_true(told == 1 && told_shard == a.v.shard);
  OK(task_get(s, &call, SLICE("a"), 0, &b));
  assert_int_equal(b.v.task_id, a.v.task_id);
  OK(task_get(s, &call, SLICE("default/a"), 0, &b));
  char id[24];
  (void)snprintf(id, sizeof id, "%lld", (long long)a.v.task_id);
  OK(task_get(s, &call, slice_of(id), 0, &b));
  assert_int_equal(task_get(s, &call, SLICE("team/a"), 0, &b), ERR_NOT_FOUND);
  assert_int_equal(task_get(s, &call, SLICE("0"), 0, &b), ERR_NOT_FOUND);
  auto_json *again = doc_of(CRON("a", ""));
  assert_int_equal(task_create(s, &call, again, &b), ERR_CONFLICT);
  assert_string_equal(e.field, "/name");
}

static void test_idempotent(void **state) {
  (void)state;
  struct idem key = {.route = SLICE("POST /tasks"), .key = SLICE("k1"), .keep = USEC_PER_DAY};
  struct task_row a, b;
  auto_json *doc = doc_of(CRON("a", ""));
  call.idem = &key;
  assert_int_equal(task_create(s, &call, doc, &a), 0);
  assert_int_equal(task_create(s, &call, doc, &b), 1);
  assert_int_equal(a.v.task_id, b.v.task_id);
  key.body_hash[0] = 1;
  assert_int_equal(task_create(s, &call, doc, &b), ERR_IDEMPOTENCY);
}

static void test_create_many(void **state) {
  (void)state;
  struct task_version_row *rows;
  auto_json *docs = doc_of("[" CRON("a", "") "," CRON("b", "") "," EVERY("c", "5s") "]");
  OK(task_create_many(s, &call, docs, &rows));
  struct st_task_list_ret list;
  OK(task_list(s, &call, &(struct st_task_list){.state = -1, .kind = -1, .limit = 10}, &list));
  assert_int_equal(list.count, 3);
  auto_json *taken = doc_of("[" CRON("x", "") "," CRON("b", "") "]"),
            *wrong = doc_of("[" CRON("y", "") "," CRON("z", "\"priority\":77,") "]");
  assert_int_equal(task_create_many(s, &call, taken, &rows), ERR_CONFLICT);
  assert_string_equal(e.field, "/1/name");
  assert_int_equal(task_create_many(s, &call, wrong, &rows), ERR_INVALID);
  assert_string_equal(e.field, "/1/priority");
  OK(task_list(s, &call, &(struct st_task_list){.state = -1, .kind = -1, .limit = 10},
               &list)); /* nothing half-written */
  assert_int_equal(list.count, 3);
  auto_json *none = json_array();
  assert_int_equal(task_create_many(s, &call, none, &rows), ERR_INVALID);
}

static void test_bound_to_a_namespace(void **state) {
  (void)state;
  struct task_row row;
  create(CRON("a", ""));
  call.only_ns = SLICE("team");
  assert_int_equal(task_get(s, &call, SLICE("default/a"), 0, &row), ERR_NOT_FOUND);
  auto_json *elsewhere = doc_of(CRON("b", "\"namespace\":\"default\","));
  assert_int_equal(task_create(s, &call, elsewhere, &row), ERR_FORBIDDEN);
  assert_string_equal(e.field, "/namespace");
  row = create(CRON("b", "")); /* its own namespace is meant */
  assert_true(slice_eqz(row.ns, "team"));
  struct st_task_list_ret list;
  OK(task_list(s, &call, &(struct st_task_list){.state = -1, .kind = -1, .limit = 10}, &list));
  assert_int_equal(list.count, 1);
  OK(task_list(s, &call, &(struct st_task_list){.ns = SLICE("default"), .state = -1, .kind = -1, .limit = 10},
               &list));
  assert_int_equal(list.count, 0);
}

static void test_replace(void **state) {
  (void)state;
  struct task_row a = create(EVERY("a", "5s")), b;
  auto_json *shown = NULL;
  OK(task_json(&a, true, &shown, &e));
  call.if_version = 1;
  OK(task_replace(s, &call, SLICE("a"), shown, &b)); /* what GET shows may be sent back */
  assert_int_equal(b.v.version, 2);
  assert_int_equal(b.v.anchor, a.v.anchor);
  auto_json *shown_again = NULL;
  OK(task_json(&b, true, &shown_again, &e));
  assert_true(json_equal(json_object_get(shown, "schedule"), json_object_get(shown_again, "schedule")));
  assert_int_equal(task_replace(s, &call, SLICE("a"), shown, &b), ERR_STALE);
  call.if_version = 0;
  auto_json *other = doc_of(EVERY("a", "7s")), *moved = doc_of(CRON("a", "\"namespace\":\"team\",")),
            *renamed = doc_of(EVERY("b", "7s"));
  OK(task_replace(s, &call, SLICE("a"), other, &b));
  assert_int_equal(b.v.anchor, a.v.anchor); /* editing keeps the anchor */
  assert_int_equal(task_replace(s, &call, SLICE("a"), moved, &b), ERR_INVALID);
  assert_string_equal(e.field, "/namespace");
  OK(task_replace(s, &call, SLICE("a"), renamed, &b));
  assert_true(slice_eqz(b.v.name, "b"));
  assert_int_equal(task_get(s, &call, SLICE("a"), 0, &b), ERR_NOT_FOUND);
  struct st_task_versions_ret versions;
  OK(task_versions(s, &call, SLICE("b"), &(struct st_task_versions){.limit = 10}, &versions));
  assert_int_equal(versions.count, 4);
}

static void test_patch(void **state) {
  (void)state;
  create(CRON("a", "\"priority\":3,\"payload\":[1],"));
  struct task_row b;
  auto_json *p = doc_of("{\"priority\":null,\"timeout\":\"5m\"}"), *bad = doc_of("{\"timeout\":\"soon\"}");
  call.note = SLICE("because");
  OK(task_patch(s, &call, SLICE("a"), p, &b));
  assert_true(slice_eqz(b.payload, "[1]") && slice_eqz(b.note, "because") && b.v.version == 2);
  auto_json *doc = NULL;
  OK(task_json(&b, true, &doc, &e));
  assert_int_equal(json_integer_value(json_object_get(doc, "priority")), 5);
  assert_string_equal(json_string_value(json_object_get(doc, "timeout")), "5m");
  assert_string_equal(json_string_value(json_object_get(doc, "state")), "ENABLED");
  assert_true(json_is_string(json_object_get(doc, "id")));
  assert_int_equal(task_patch(s, &call, SLICE("a"), bad, &b), ERR_INVALID);
  assert_string_equal(e.field, "/timeout");
  OK(task_get(s, &call, SLICE("a"), 0, &b));
  assert_int_equal(b.v.version, 2);
}

static void test_pause_resume(void **state) {
  (void)state;
  struct task_row a = create(EVERY("a", "5s")), b;
  int count;
  assert_int_equal(task_pause(s, &call, SLICE("a"), &b), 0);
  assert_int_equal(b.v.state, TASK_PAUSED);
  usec_t paused_at = b.v.effective_at;
  assert_int_equal(task_pause(s, &call, SLICE("a"), &b), 1);
  assert_int_equal(b.v.version, 2);
  test_ahead += USEC_PER_MIN;
  auto_json *p = doc_of("{\"priority\":1}");
  OK(task_patch(s, &call, SLICE("a"), p, &b)); /* an edit does not end the pause */
  assert_int_equal(b.v.state, TASK_PAUSED);
  test_ahead += USEC_PER_MIN;
  assert_int_equal(task_resume(s, &call, SLICE("a"), true, &b), 0);
  assert_int_equal(b.v.state, TASK_ENABLED);
  struct inbox_item item = inbox_last(a.v.shard, &count);
  assert_int_equal(count, 1);
  assert_int_equal(item.kind, INBOX_CATCHUP);
  assert_int_equal(item.request.from, paused_at);
  assert_int_equal(item.request.version, b.v.version);
  assert_true(item.request.to > paused_at + 2 * USEC_PER_MIN - USEC_PER_SEC &&
              item.request.to <= b.v.effective_at);
  assert_int_equal(task_resume(s, &call, SLICE("a"), true, &b), 1);
  OK(task_pause(s, &call, SLICE("a"), &b));
  OK(task_resume(s, &call, SLICE("a"), false, &b));
  (void)inbox_last(a.v.shard, &count);
  assert_int_equal(count, 1); /* the first only */

  int64_t id = b.v.task_id; /* COMPLETED: not resumed, but revived by a new schedule */
  int32_t version = b.v.version;
  struct st_task_complete_ret out;
  OK(store_task_complete(t.store, &(struct st_task_complete){&id, &version, 1}, &out, &mem, &e));
  assert_int_equal(task_resume(s, &call, SLICE("a"), false, &b), ERR_CONFLICT);
  auto_json *rename = doc_of("{\"name\":\"b\"}"), *anew = doc_of("{\"schedule\":{\"every\":\"9s\"}}");
  OK(task_patch(s, &call, SLICE("a"), rename, &b));
  assert_int_equal(b.v.state, TASK_COMPLETED);
  OK(task_patch(s, &call, SLICE("b"), anew, &b));
  assert_int_equal(b.v.state, TASK_ENABLED);
}

static void test_trigger(void **state) {
  (void)state;
  struct task_row a = create(CRON("a", ""));
  struct run_key key, again;
  int count;
  told = 0;
  struct task_trigger how = {
      .payload = SLICE("{\"p\":1}"), .pin = SLICE("x1"), .ignore_overlap = true, .origin = ORIGIN_API};
  struct idem idem = {.route = SLICE("trigger"), .key = SLICE("k"), .keep = USEC_PER_DAY};
  call.idem = &idem;
  assert_int_equal(task_trigger(s, &call, SLICE("a"), &how, &key), 0);
  assert_true(key.task_id == a.v.task_id && key.shard == a.v.shard && (key.part & 0x40000000) &&
              key.part > 0);
  assert_true(told == 1 && told_shard == a.v.shard);
  assert_int_equal(task_trigger(s, &call, SLICE("a"), &how, &again), 1);
  assert_true(run_key_eq(&key, &again));
  struct inbox_item item = inbox_last(a.v.shard, &count);
  assert_int_equal(count, 1);
  assert_true(run_key_eq(&item.request.key, &key) && item.request.ignore_overlap &&
              slice_eqz(item.request.payload, "{\"p\":1}"));
  assert_true(slice_eqz(item.request.pin, "x1") && slice_eqz(item.by, "tester"));
  call.idem = NULL;
  assert_int_equal(task_trigger(s, &call, SLICE("a"), &how, &again), 0);
  assert_false(run_key_eq(&key, &again));
  assert_int_equal(task_trigger(s, &call, SLICE("nobody"), &how, &again), ERR_NOT_FOUND);
}

static void test_delete(void **state) {
  (void)state;
  struct task_row a = create(CRON("a", ""));
  int count;
  call.if_version = 7;
  assert_int_equal(task_delete(s, &call, SLICE("a"), false), ERR_STALE);
  call.if_version = 1;
  OK(task_delete(s, &call, SLICE("a"), false));
  assert_int_equal(task_get(s, &call, SLICE("a"), 0, &a), ERR_NOT_FOUND);
  call.if_version = 0;
  a = create(CRON("a", "")); /* its name is free again */
  OK(task_delete(s, &call, SLICE("a"), true));
  struct inbox_item item = inbox_last(a.v.shard, &count);
  assert_int_equal(count, 1);
  assert_true(item.kind == INBOX_CANCEL && item.request.key.task_id == a.v.task_id);
}

static void test_stats(void **state) {
  (void)state;
  struct task_row a = create(EVERY("a", "1h"));
  struct task_stats st;
  OK(task_stats(s, &call, SLICE("a"), 0, &st));
  assert_true(st.success_rate == -1 && st.counts.fires == 0);
  assert_int_equal(st.next_at, a.v.anchor + USEC_PER_HOUR);
  auto_json *j = task_stats_json(&st);
  assert_true(json_is_null(json_object_get(j, "success_rate")) &&
              json_is_string(json_object_get(j, "next_at")));
  struct task_row b;
  OK(task_pause(s, &call, SLICE("a"), &b));
  OK(task_stats(s, &call, SLICE("a"), 0, &st));
  assert_int_equal(st.next_at, USEC_NEVER);
}

static struct preview preview(const char *text, const char *from, int32_t n) {
  struct preview p;
  usec_t at = 0;
  auto_json *doc = doc_of(text);
  OK(time_parse_rfc3339(slice_of(from), &at, &e));
  OK(task_preview(s, &call, doc, &(struct preview_ask){at, n}, &p));
  return p;
}

static void test_preview(void **state) {
  (void)state;
  struct preview p = preview("{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 30 2 * * "
                             "?\",\"timezone\":\"Europe/Berlin\",\"jitter\":\"5s\"}}",
                             "2027-03-27T12:00:00Z", 2);
  assert_int_equal(p.count, 2);
  assert_string_equal(p.items[0].local, "2027-03-28T03:00:00+02:00"); /* 02:30 was left out */
  assert_non_null(p.items[0].note);
  assert_string_equal(p.items[1].local, "2027-03-29T02:30:00+02:00");
  assert_null(p.items[1].note);
  assert_int_equal(p.jitter, 5 * USEC_PER_SEC);
  assert_null(p.remark);
  p = preview("{\"kind\":\"ONE_TIME\",\"run_at\":\"2027-03-28T02:30:00\",\"timezone\":\"Europe/Berlin\"}",
              "2027-01-01T00:00:00Z", 5);
  assert_int_equal(p.count, 1);
  assert_string_equal(p.items[0].local, "2027-03-28T03:30:00+02:00");
  assert_non_null(p.items[0].note);
  p = preview("{\"kind\":\"MANUAL\"}", "2027-01-01T00:00:00Z", 5);
  assert_true(p.count == 0 && p.remark);
  p = preview("{\"kind\":\"FIXED_RATE\",\"every\":\"10m\",\"anchor\":\"2026-01-01T00:03:00Z\"}",
              "2027-01-01T00:00:00Z", 1);
  assert_string_equal(p.items[0].local, "2027-01-01T00:03:00+00:00");
  struct preview q;
  auto_json *bare = doc_of("{\"kind\":\"CRON\",\"expression\":\"0 0 25 * * ?\"}"),
            *whole = doc_of("{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 25 * * ?\"}}");
  assert_int_equal(task_preview(s, &call, bare, &(struct preview_ask){0, 1}, &q), ERR_INVALID);
  assert_string_equal(e.field, "/expression");
  assert_int_equal(e.column, 5);
  assert_int_equal(task_preview(s, &call, whole, &(struct preview_ask){0, 1}, &q), ERR_INVALID);
  assert_string_equal(e.field, "/schedule/expression");
  assert_int_equal(task_preview(s, &call, bare, &(struct preview_ask){0, 0}, &q), ERR_INVALID);
}

/* The one instant has passed: the task can still be renamed by PUT of what GET showed, but not be given a new past instant. */
static void test_replace_in_the_past(void **state) {
  (void)state;
  struct task_row
      a = create("{\"name\":\"a\",\"executor_group\":\"g\",\"handler\":\"h\",\"misfire_policy\":\"SKIP\","
                 "\"schedule\":{\"kind\":\"ONE_TIME\",\"run_at\":\"2020-01-01T00:00:00Z\"}}"),
      b;
  int64_t id = a.v.task_id;
  int32_t version = a.v.version;
  struct st_task_complete_ret out;
  OK(store_task_complete(t.store, &(struct st_task_complete){&id, &version, 1}, &out, &mem, &e));
  auto_json *doc = NULL;
  OK(task_json(&a, true, &doc, &e));
  json_object_set_new(doc, "name", json_string("b"));
  json_object_del(doc, "misfire_policy");
  OK(task_replace(s, &call, SLICE("a"), doc, &b));
  assert_int_equal(b.v.state, TASK_COMPLETED);
  json_object_set_new(json_object_get(doc, "schedule"), "run_at", json_string("2021-01-01T00:00:00Z"));
  assert_int_equal(task_replace(s, &call, SLICE("b"), doc, &b), ERR_IN_THE_PAST);
}

/* Not a limit, a figure for the log. */
static void test_cost(void **state) {
  (void)state;
  enum { N = 1000 };
  auto_json *docs = json_array();
  for (int i = 0; i < N; i++) {
    char name[32];
    (void)snprintf(name, sizeof name, "t%d", i);
    json_t *doc = doc_of(CRON("x", "\"payload\":{\"x\":1},\"retry\":{\"max_attempts\":3},"));
    json_object_set_new(doc, "name", json_string(name));
    json_array_append_new(docs, doc);
  }
  struct task_version_row *rows;
  usec_t t0 = test_mono(NULL);
  OK(task_create_many(s, &call, docs, &rows));
  print_message("create of %d tasks in one call: %d us each\n", N, (int)((test_mono(NULL) - t0) / N));
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {T(test_create),      T(test_idempotent),
                                     T(test_create_many), T(test_bound_to_a_namespace),
                                     T(test_replace),     T(test_replace_in_the_past),
                                     T(test_patch),       T(test_pause_resume),
                                     T(test_trigger),     T(test_delete),
                                     T(test_stats),       T(test_preview),
                                     T(test_cost)};
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  arena_done(&mem);
  return failed;
}
