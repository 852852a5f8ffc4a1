/* Task documents: every field, every refusal with its place, the canonical text, patches, defaults; specs and their cache; inbox bodies. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/file.h"
#include "core/inbox.h"
#include "core/schedule.h"
#include "core/spec_cache.h"
#include "core/task_fields.h"
#include "core/zone_set.h"

#define NOW ((usec_t)1795000000 * USEC_PER_SEC) /* November 2026 */

static int read_zone(void *arg, const char *name, struct str *out, struct err *e) {
  return file_read_below(arg, name, ZONE_FILE_MAX, out, e);
}
static uint64_t stamp(void *arg) {
  (void)arg;
  return 1;
}
static struct zone_set *zones(void) {
  static char dir[] = "/usr/share/zoneinfo";
  static struct zone_set *set;
  const struct zone_source source = {read_zone, stamp, dir};
  if (!set)
    set = zone_set_new(&source);
  return set;
}

static json_t *doc_of(const char *text) {
  json_t *j = NULL;
  struct err e = {0};
  if (json_read(slice_of(text), 1 << 22, &j, &e) < 0)
    fail_msg("%s in %s", e.text, text);
  return j;
}

/* A document with these members added to a small valid one; a member that is named again replaces. */
static json_t *with(const char *members) {
  json_t *base = doc_of("{\"name\":\"n\",\"executor_group\":\"g\",\"handler\":\"h\","
                        "\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 * * ?\"}}");
  json_t *more = doc_of(members);
  json_object_update(base, more);
  json_decref(more);
  return base;
}

static struct task_input good(const char *members) {
  struct task_input in = {0};
  struct err e = {0};
  auto_json *doc = with(members);
  if (task_input_parse(doc, zones(), NOW, &in, &e) < 0)
    fail_msg("%s: %s: %s", members, e.field, e.text);
  return in;
}

static struct err bad(const char *members, int code, const char *field) {
  struct task_input in = {0};
  struct err e = {0};
  auto_json *doc = with(members);
  int r = task_input_parse(doc, zones(), NOW, &in, &e);
  if (r != code || e.code != code || strcmp(e.field, field) != 0)
    fail_msg("%s: got %d %s (%s), expected %d %s", members, r, e.field, e.text, code, field);
  assert_true(e.text[0] != 0);
  assert_null(in.spec);
  return e;
}

static void test_defaults(void **state) {
  (void)state;
  struct task_input in = good("{}");
  const struct task_spec *s = in.spec;
  assert_string_equal(s->ns, "default");
  assert_string_equal(s->group, "g");
  assert_string_equal(s->handler, "h");
  assert_int_equal(s->kind, SCHEDULE_CRON);
  assert_int_equal(s->end_at, USEC_NEVER);
  assert_int_equal(s->misfire_policy, MISFIRE_FIRE_ONCE);
  assert_int_equal(s->misfire_threshold, 60 * USEC_PER_SEC);
  assert_int_equal(s->catchup_window, USEC_PER_HOUR);
  assert_int_equal(s->catchup_max_runs, 100);
  assert_true(s->catchup_rate == 10.0);
  assert_int_equal(s->overlap_policy, OVERLAP_QUEUE_ONE);
  assert_int_equal(s->retry.max_attempts, 1);
  assert_int_equal(s->retry.initial_interval, 10 * USEC_PER_SEC);
  assert_int_equal(s->retry.max_interval, 10 * USEC_PER_MIN);
  assert_int_equal(s->retry.max_elapsed, 0);
  assert_true(s->retry.multiplier == 2.0 && s->retry.jitter == 0.1);
  assert_int_equal(s->retry.retry_on, TASK_RETRY_ON_ALL);
  assert_int_equal(s->dispatch_timeout, 10 * USEC_PER_SEC);
  assert_int_equal(s->attempt_timeout, USEC_PER_HOUR);
  assert_int_equal(s->timeout, USEC_PER_DAY);
  assert_int_equal(s->heartbeat_timeout, 0);
  assert_int_equal(s->cancel_timeout, 30 * USEC_PER_SEC);
  assert_int_equal(s->on_lost, ON_LOST_RETRY);
  assert_int_equal(s->priority, 5);
  assert_string_equal(in.definition, "{\"executor_group\":\"g\",\"handler\":\"h\",\"namespace\":\"default\","
                                     "\"schedule\":{\"expression\":\"0 0 12 * * ?\",\"kind\":\"CRON\"}}");
  task_input_done(&in);
}

static void test_every_field(void **state) {
  (void)state;
  struct task_input in =
      good("{\"description\":\"d\",\"namespace\":\"team\",\"payload\":{\"a\":[1,2.5,null]},"
           "\"schedule\":{\"kind\":\"CRON\",\"expression\":\"*/5 * * * "
           "*\",\"dialect\":\"UNIX\",\"timezone\":\"Europe/Berlin\","
           "\"start_at\":\"2026-01-01T00:00:00+01:00\",\"end_at\":\"2030-01-01T00:00:00Z\",\"max_runs\":7,"
           "\"jitter\":\"2s\","
           "\"dst_gap\":\"SKIP\",\"dst_overlap\":\"BOTH\"},"
           "\"misfire_policy\":\"FIRE_ALL\",\"misfire_threshold\":\"90s\",\"catchup_window\":\"2h\","
           "\"catchup_max_runs\":3,"
           "\"catchup_rate\":0.5,\"overlap_policy\":\"ALLOW\","
           "\"retry\":{\"max_attempts\":4,\"initial_interval\":\"1s\",\"multiplier\":3,\"max_interval\":"
           "\"60s\",\"jitter\":0,"
           "\"max_elapsed\":\"1h\",\"retry_on\":[\"LOST\",\"ERROR\"]},"
           "\"dispatch_timeout\":\"3s\",\"attempt_timeout\":\"1m\",\"timeout\":\"10m\",\"heartbeat_timeout\":"
           "\"5s\","
           "\"cancel_timeout\":\"1s\",\"on_lost\":\"FAIL\",\"priority\":9}");
  const struct task_spec *s = in.spec;
  assert_string_equal(in.description, "d");
  assert_string_equal(in.payload, "{\"a\":[1,2.5,null]}");
  assert_string_equal(s->ns, "team");
  assert_int_equal(s->max_runs, 7);
  assert_int_equal(s->retry.retry_on, 1u << REASON_LOST | 1u << REASON_ERROR);
  assert_int_equal(s->retry.max_attempts, 4);
  assert_int_equal(s->retry.max_elapsed, USEC_PER_HOUR);
  assert_int_equal(s->priority, 9);
  assert_int_equal(s->on_lost, ON_LOST_FAIL);
  assert_int_equal(s->overlap_policy, OVERLAP_ALLOW);
  assert_int_equal(s->catchup_max_runs, 3);
  assert_int_equal(schedule_jitter_max(s->schedule), 2 * USEC_PER_SEC);
  assert_string_equal(zone_name(schedule_zone(s->schedule)), "Europe/Berlin");

  struct task_spec *again = NULL; /* the stored text says the same */
  struct err e = {0};
  assert_int_equal(task_spec_parse(slice_of(in.definition), zones(), &again, &e), 0);
  assert_int_equal(again->timeout, s->timeout);
  assert_int_equal(again->start_at, s->start_at);
  assert_int_equal(again->end_at, s->end_at);
  assert_int_equal(schedule_next(again->schedule, 0, NOW), schedule_next(s->schedule, 0, NOW));
  task_spec_unref(&again);
  task_input_done(&in);
}

/* Equal meanings have one text: 60s and 1m, order of members, order of reasons. */
static void test_canonical(void **state) {
  (void)state;
  struct task_input a = good(
      "{\"timeout\":\"60s\",\"priority\":1,\"retry\":{\"multiplier\":2,\"retry_on\":[\"LOST\",\"ERROR\"]}}");
  struct task_input b = good("{\"retry\":{\"retry_on\":[\"ERROR\",\"LOST\"],\"multiplier\":2.0},\"priority\":"
                             "1,\"timeout\":\"1m\",\"description\":null}");
  assert_string_equal(a.definition, b.definition);
  struct task_input c =
      good("{\"name\":\"other\",\"payload\":5,\"description\":\"x\",\"timeout\":\"60s\",\"priority\":1,"
           "\"retry\":{\"multiplier\":2,\"retry_on\":[\"LOST\",\"ERROR\"]}}");
  assert_string_equal(a.definition, c.definition);
  task_input_done(&a);
  task_input_done(&b);
  task_input_done(&c);
}

/* Which executor: kept as it was said, the labels in one form whatever their order. */
static void test_routing(void **state) {
  (void)state;
  struct task_input plain = good("{\"executor_labels\":{}}");
  assert_int_equal(plain.spec->routing, ROUTING_MAX_);
  assert_null(plain.spec->executor);
  assert_null(plain.spec->routing_key);
  assert_null(plain.spec->executor_labels);
  assert_null(strstr(plain.definition, "executor_labels"));
  struct task_input in = good("{\"routing\":\"CONSISTENT_HASH\",\"routing_key\":\"k 1\","
                              "\"executor_labels\":{\"zone\":\"a\",\"gpu\":true,\"cores\":8}}");
  assert_int_equal(in.spec->routing, ROUTING_CONSISTENT_HASH);
  assert_string_equal(in.spec->routing_key, "k 1");
  assert_string_equal(in.spec->executor_labels, "{\"cores\":8,\"gpu\":true,\"zone\":\"a\"}");
  struct task_input same = good("{\"executor_labels\":{\"gpu\":true,\"cores\":8,\"zone\":\"a\"},"
                                "\"routing_key\":\"k 1\",\"routing\":\"CONSISTENT_HASH\"}");
  assert_string_equal(in.definition, same.definition);
  struct task_input pinned = good("{\"executor\":\"e-1\"}");
  assert_string_equal(pinned.spec->executor, "e-1");
  task_input_done(&plain);
  task_input_done(&in);
  task_input_done(&same);
  task_input_done(&pinned);
}

static void test_refusals(void **state) {
  (void)state;
  static const struct {
    const char *members;
    int code;
    const char *field;
  } cases[] = {
      {"{\"name\":null}", ERR_MISSING, "/name"},
      {"{\"name\":\"\"}", ERR_INVALID, "/name"},
      {"{\"name\":\"a/b\"}", ERR_INVALID, "/name"},
      {"{\"name\":7}", ERR_INVALID, "/name"},
      {"{\"handler\":null}", ERR_MISSING, "/handler"},
      {"{\"executor_group\":null}", ERR_MISSING, "/executor_group"},
      {"{\"schedule\":null}", ERR_MISSING, "/schedule"},
      {"{\"schedule\":[]}", ERR_INVALID, "/schedule"},
      {"{\"schedule\":{}}", ERR_MISSING, "/schedule/kind"},
      {"{\"max_concurrent\":0}", ERR_INVALID, "/max_concurrent"},
      {"{\"max_concurrent\":2}", ERR_INVALID, "/max_concurrent"},
      {"{\"max_concurrent\":2,\"overlap_policy\":\"REPLACE\"}", ERR_INVALID, "/max_concurrent"},
      {"{\"routing\":\"NEAREST\"}", ERR_INVALID, "/routing"},
      {"{\"routing\":\"PINNED\"}", ERR_MISSING, "/executor"},
      {"{\"routing\":\"FIRST\",\"executor\":\"e\"}", ERR_INVALID, "/executor"},
      {"{\"executor\":\"a/b\"}", ERR_INVALID, "/executor"},
      {"{\"routing_key\":\"\"}", ERR_INVALID, "/routing_key"},
      {"{\"routing\":\"RANDOM\",\"routing_key\":\"k\"}", ERR_INVALID, "/routing_key"},
      {"{\"executor\":\"e\",\"routing_key\":\"k\"}", ERR_INVALID, "/routing_key"},
      {"{\"executor_labels\":[\"a\"]}", ERR_INVALID, "/executor_labels"},
      {"{\"executor_labels\":{\"a\":null}}", ERR_INVALID, "/executor_labels"},
      {"{\"executor_labels\":{\"a\":1.5}}", ERR_INVALID, "/executor_labels"},
      {"{\"executor_labels\":{\"a\":{}}}", ERR_INVALID, "/executor_labels"},
      {"{\"executor_labels\":{\"\":\"a\"}}", ERR_INVALID, "/executor_labels"},
      {"{\"schedule\":{\"kind\":\"SOMETIMES\"}}", ERR_INVALID, "/schedule/kind"},
      {"{\"schedule\":{\"kind\":\"CRON\"}}", ERR_MISSING, "/schedule/expression"},
      {"{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 * * ?\",\"every\":\"5s\"}}", ERR_INVALID,
       "/schedule/every"},
      {"{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 * * "
       "?\",\"run_at\":\"2027-01-01T00:00:00Z\"}}",
       ERR_INVALID, "/schedule/run_at"},
      {"{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 30 2 ?\"}}", ERR_NEVER_FIRES,
       "/schedule/expression"},
      {"{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 1 1 ? 2020\"}}", ERR_NEVER_FIRES,
       "/schedule/expression"},
      {"{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 * * "
       "?\",\"end_at\":\"2020-01-01T00:00:00Z\"}}",
       ERR_NEVER_FIRES, "/schedule/end_at"},
      {"{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 * * "
       "?\",\"start_at\":\"2029-01-01T00:00:00Z\",\"end_at\":\"2028-01-01T00:00:00Z\"}}",
       ERR_INVALID, "/schedule/end_at"},
      {"{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 * * ?\",\"timezone\":\"Mars/Olympus\"}}",
       ERR_UNKNOWN_ZONE, "/schedule/timezone"},
      {"{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 * * ?\",\"jitter\":\"1d\"}}", ERR_INVALID,
       "/schedule/jitter"},
      {"{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 12 * * ?\",\"start_at\":\"tomorrow\"}}",
       ERR_INVALID, "/schedule/start_at"},
      {"{\"schedule\":{\"kind\":\"CRON\",\"expresion\":\"0 0 12 * * ?\"}}", ERR_UNKNOWN_FIELD,
       "/schedule/expresion"},
      {"{\"schedule\":{\"kind\":\"FIXED_RATE\"}}", ERR_MISSING, "/schedule/every"},
      {"{\"schedule\":{\"kind\":\"FIXED_RATE\",\"every\":\"0s\"}}", ERR_INVALID, "/schedule/every"},
      {"{\"schedule\":{\"kind\":\"FIXED_RATE\",\"every\":\"5s\",\"expression\":\"@daily\"}}", ERR_INVALID,
       "/schedule/expression"},
      {"{\"schedule\":{\"kind\":\"FIXED_DELAY\",\"every\":\"5s\",\"anchor\":\"2026-01-01T00:00:00Z\"}}",
       ERR_INVALID, "/schedule/anchor"},
      {"{\"schedule\":{\"kind\":\"FIXED_DELAY\",\"every\":\"5s\",\"end_at\":\"2020-01-01T00:00:00Z\"}}",
       ERR_NEVER_FIRES, "/schedule/end_at"},
      {"{\"schedule\":{\"kind\":\"ONE_TIME\"}}", ERR_MISSING, "/schedule/run_at"},
      {"{\"schedule\":{\"kind\":\"ONE_TIME\",\"run_at\":\"2020-01-01T00:00:00Z\"}}", ERR_IN_THE_PAST,
       "/schedule/run_at"},
      {"{\"schedule\":{\"kind\":\"ONE_TIME\",\"run_at\":\"soon\"}}", ERR_INVALID, "/schedule/run_at"},
      {"{\"schedule\":{\"kind\":\"MANUAL\",\"jitter\":\"1s\"}}", ERR_INVALID, "/schedule/jitter"},
      {"{\"misfire_threshold\":\"14s\"}", ERR_INVALID, "/misfire_threshold"},
      {"{\"priority\":10}", ERR_INVALID, "/priority"},
      {"{\"priority\":\"5\"}", ERR_INVALID, "/priority"},
      {"{\"timeout\":5}", ERR_INVALID, "/timeout"},
      {"{\"overlap_policy\":\"SOMETIMES\"}", ERR_INVALID, "/overlap_policy"},
      {"{\"retry\":5}", ERR_INVALID, "/retry"},
      {"{\"retry\":{\"max_attempts\":0}}", ERR_INVALID, "/retry/max_attempts"},
      {"{\"retry\":{\"multiplier\":0.5}}", ERR_INVALID, "/retry/multiplier"},
      {"{\"retry\":{\"initial_interval\":\"1h\"}}", ERR_INVALID, "/retry/max_interval"},
      {"{\"retry\":{\"retry_on\":[\"SUCCESS\"]}}", ERR_INVALID, "/retry/retry_on/0"},
      {"{\"retry\":{\"retry_on\":[7]}}", ERR_INVALID, "/retry/retry_on/0"},
      {"{\"retry\":{\"retry_on\":\"LOST\"}}", ERR_INVALID, "/retry/retry_on"},
      {"{\"retry\":{\"tries\":3}}", ERR_UNKNOWN_FIELD, "/retry/tries"},
      {"{\"timeot\":\"5s\"}", ERR_UNKNOWN_FIELD, "/timeot"},
      {"{\"id\":\"7\"}", ERR_INVALID, "/id"},
      {"{\"state\":\"PAUSED\"}", ERR_INVALID, "/state"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    (void)bad(cases[i].members, cases[i].code, cases[i].field);
  struct err e = bad("{\"timeot\":\"5s\"}", ERR_UNKNOWN_FIELD, "/timeot");
  assert_non_null(strstr(e.text, "\"timeout\""));
  e = bad("{\"schedule\":{\"kind\":\"CRON\",\"expression\":\"0 0 99 * * ?\"}}", ERR_INVALID,
          "/schedule/expression");
  assert_int_equal(e.column, 5);
}

static void test_one_time(void **state) {
  (void)state;
  struct task_input in = good("{\"schedule\":{\"kind\":\"ONE_TIME\",\"run_at\":\"2027-07-01T12:00:00\","
                              "\"timezone\":\"Asia/Shanghai\"}}");
  char buf[TIME_TEXT_MAX];
  assert_string_equal(time_format(in.anchor, buf), "2027-07-01T04:00:00Z");
  assert_null(strstr(in.definition, "run_at"));
  struct task_spec *spec = NULL;
  assert_int_equal(task_spec_parse(slice_of(in.definition), zones(), &spec, NULL), 0);
  assert_int_equal(schedule_next(spec->schedule, in.anchor, NOW), in.anchor);
  task_spec_unref(&spec);
  task_input_done(&in);
  in = good("{\"schedule\":{\"kind\":\"ONE_TIME\",\"run_at\":\"2020-01-01T00:00:00Z\"},\"misfire_policy\":"
            "\"FIRE_ONCE\"}");
  task_input_done(&in);
}

static void test_payload_limit(void **state) {
  (void)state;
  auto_json *doc = with("{}");
  char *big = mem_alloc(TASK_PAYLOAD_MAX + 8);
  memset(big, 'x', TASK_PAYLOAD_MAX - 2);
  json_object_set_new(doc, "payload",
                      json_stringn(big, TASK_PAYLOAD_MAX - 2)); /* with its quotes: exactly the limit */
  struct task_input in = {0};
  struct err e = {0};
  assert_int_equal(task_input_parse(doc, zones(), NOW, &in, &e), 0);
  task_input_done(&in);
  memset(big, 'x', TASK_PAYLOAD_MAX);
  json_object_set_new(doc, "payload", json_stringn(big, TASK_PAYLOAD_MAX - 1));
  assert_int_equal(task_input_parse(doc, zones(), NOW, &in, &e), ERR_TOO_LARGE);
  assert_string_equal(e.field, "/payload");
  mem_free(big);
}

static struct task_source source(const struct task_input *in) {
  return (struct task_source){.definition = slice_of(in->definition),
                              .name = in->name,
                              .description = in->description,
                              .payload = slice_of(in->payload),
                              .anchor = in->anchor};
}

/* What GET shows can be sent back as it is, server-made fields and all. */
static void test_round_trip(void **state) {
  (void)state;
  struct task_input in =
      good("{\"description\":\"d\",\"payload\":[1],\"schedule\":{\"kind\":\"FIXED_RATE\",\"every\":\"90s\","
           "\"anchor\":\"2026-01-01T00:00:00Z\"},\"retry\":{\"max_attempts\":3}}");
  struct task_source src = source(&in);
  auto_json *doc = NULL, *bare = NULL;
  struct err e = {0};
  assert_int_equal(task_document(&src, &doc, &e), 0);
  auto_free char *text = json_text(doc);
  assert_string_equal(json_string_value(json_object_get(json_object_get(doc, "schedule"), "every")), "90s");
  assert_string_equal(json_string_value(json_object_get(json_object_get(doc, "schedule"), "anchor")),
                      "2026-01-01T00:00:00Z");
  assert_string_equal(json_string_value(json_object_get(doc, "timeout")), "1d");
  assert_null(json_object_get(json_object_get(doc, "schedule"), "dialect"));
  assert_int_equal(json_array_size(json_object_get(json_object_get(doc, "retry"), "retry_on")), 5);
  json_object_set_new(doc, "id", json_string("7"));
  json_object_set_new(doc, "version", json_integer(2));
  json_object_set_new(doc, "state", json_string("ENABLED"));
  json_object_set_new(doc, "created_at", json_string("2026-01-01T00:00:00Z"));
  struct task_input back = {0};
  if (task_input_parse(doc, zones(), NOW, &back, &e) < 0)
    fail_msg("%s %s in %s", e.field, e.text, text);
  assert_int_equal(back.anchor, in.anchor);
  assert_string_equal(back.payload, in.payload);
  task_input_done(&back);

  assert_int_equal(task_source_json(&src, &bare, &e), 0);
  assert_null(json_object_get(bare, "timeout"));
  assert_int_equal(task_input_parse(bare, zones(), NOW, &back, &e), 0);
  assert_string_equal(back.definition, in.definition);
  task_input_done(&back);
  task_input_done(&in);
}

static void test_patch(void **state) {
  (void)state;
  struct task_input in = good("{\"timeout\":\"5m\",\"retry\":{\"max_attempts\":3,\"jitter\":0.5}}"),
                    out = {0};
  struct task_source src = source(&in);
  auto_json *current = NULL;
  struct err e = {0};
  assert_int_equal(task_source_json(&src, &current, &e), 0);
  auto_json *p =
      doc_of("{\"timeout\":null,\"retry\":{\"jitter\":null},\"priority\":2,\"payload\":{\"a\":1}}");
  assert_int_equal(task_input_patch(current, p, zones(), NOW, &out, &e), 0);
  assert_int_equal(out.spec->timeout, USEC_PER_DAY);
  assert_true(out.spec->retry.jitter == 0.1);
  assert_int_equal(out.spec->retry.max_attempts, 3);
  assert_int_equal(out.spec->priority, 2);
  assert_string_equal(out.payload, "{\"a\":1}");
  assert_string_equal(out.name, "n");
  task_input_done(&out);
  static const struct {
    const char *patch;
    int code;
    const char *field;
  } cases[] = {
      {"[]", ERR_INVALID, ""},
      {"{\"name\":null}", ERR_MISSING, "/name"},
      {"{\"id\":\"5\"}", ERR_INVALID, "/id"},
      {"{\"nonsense\":1}", ERR_UNKNOWN_FIELD, "/nonsense"},
      {"{\"schedule\":{\"kind\":\"FIXED_RATE\",\"every\":\"5s\"}}", ERR_INVALID, "/schedule/expression"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    auto_json *q = doc_of(cases[i].patch);
    e = (struct err){0};
    assert_int_equal(task_input_patch(current, q, zones(), NOW, &out, &e), cases[i].code);
    assert_string_equal(e.field, cases[i].field);
  }
  auto_json *kind = doc_of("{\"schedule\":{\"kind\":\"FIXED_RATE\",\"every\":\"5s\",\"expression\":null}}");
  assert_int_equal(task_input_patch(current, kind, zones(), NOW, &out, &e), 0);
  assert_int_equal(out.spec->kind, SCHEDULE_FIXED_RATE);
  task_input_done(&out);
  task_input_done(&in);
}

/* A task whose one instant has passed can still be renamed; a new past instant is refused. */
static void test_patch_of_the_past(void **state) {
  (void)state;
  auto_json *current = doc_of("{\"name\":\"n\",\"executor_group\":\"g\",\"handler\":\"h\","
                              "\"schedule\":{\"kind\":\"ONE_TIME\",\"run_at\":\"2020-01-01T00:00:00Z\"}}");
  auto_json *rename = doc_of("{\"name\":\"m\"}"),
            *again = doc_of("{\"schedule\":{\"run_at\":\"2021-01-01T00:00:00Z\"}}");
  struct task_input out = {0};
  struct err e = {0};
  assert_int_equal(task_input_patch(current, rename, zones(), NOW, &out, &e), 0);
  task_input_done(&out);
  assert_int_equal(task_input_patch(current, again, zones(), NOW, &out, &e), ERR_IN_THE_PAST);
}

static void test_stored_nonsense(void **state) {
  (void)state;
  static const char *const texts[] = {
      "", "[]", "{}", "{\"schedule\":5}",
      "{\"schedule\":{\"kind\":\"CRON\"},\"executor_group\":\"g\",\"handler\":\"h\"}"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct task_spec *spec = NULL;
    struct err e = {0};
    assert_true(task_spec_parse(slice_of(texts[i]), zones(), &spec, &e) < 0);
    assert_null(spec);
  }
}

static void test_cache(void **state) {
  (void)state;
  struct spec_cache *c = spec_cache_new(zones(), 4);
  struct task_spec *held[16], *s = NULL;
  struct err e = {0};
  for (int i = 0; i < 16; i++) {
    char text[200];
    (void)snprintf(text, sizeof text,
                   "{\"executor_group\":\"g\",\"handler\":\"h%d\",\"namespace\":\"d\",\"schedule\":{\"kind\":"
                   "\"MANUAL\"}}",
                   i);
    assert_int_equal(spec_cache_get(c, slice_of(text), &held[i], &e), 0);
    assert_int_equal(spec_cache_get(c, slice_of(text), &s, &e), 0);
    assert_ptr_equal(s, held[i]);
    task_spec_unref(&s);
  }
  assert_int_equal(spec_cache_size(c), 16); /* all are in use */
  for (int i = 0; i < 16; i++)
    task_spec_unref(&held[i]);
  for (int i = 0; i < 64; i++) {
    char text[200];
    (void)snprintf(text, sizeof text,
                   "{\"executor_group\":\"g\",\"handler\":\"k%d\",\"namespace\":\"d\",\"schedule\":{\"kind\":"
                   "\"MANUAL\"}}",
                   i);
    assert_int_equal(spec_cache_get(c, slice_of(text), &s, &e), 0);
    task_spec_unref(&s);
    assert_true(spec_cache_size(c) <= 32);
  }
  assert_true(spec_cache_get(c, SLICE("{}"), &s, &e) < 0);
  spec_cache_clear(c);
  assert_int_equal(spec_cache_size(c), 0);
  spec_cache_free(&c);
}

static void test_inbox(void **state) {
  (void)state;
  auto_arena mem = {0};
  struct err e = {0};
  struct inbox_item in = {.kind = INBOX_TRIGGER,
                          .by = SLICE("o'brien \"x\""),
                          .request = {.key = {3, NOW, 42, 0x40000001},
                                      .ignore_overlap = true,
                                      .not_before = NOW + 5,
                                      .origin = ORIGIN_RETRY,
                                      .payload = SLICE("{\"a\":[1,null]}"),
                                      .pin = SLICE("exec-1"),
                                      .origin_run = SLICE("abc")}},
                    out;
  auto_free char *body = inbox_body(&in);
  struct inbox_text row = {.shard = 3, .kind = INBOX_TRIGGER, .no = 9, .body = slice_of(body)};
  assert_int_equal(inbox_parse(&row, &mem, &out, &e), 0);
  assert_true(run_key_eq(&out.request.key, &in.request.key));
  assert_true(out.request.ignore_overlap && !out.request.catch_up);
  assert_int_equal(out.request.origin, ORIGIN_RETRY);
  assert_int_equal(out.request.not_before, NOW + 5);
  assert_int_equal(out.request.inbox_no, 9);
  assert_true(slice_eq(out.request.payload, in.request.payload) && slice_eq(out.request.pin, in.request.pin));
  assert_true(slice_eq(out.request.origin_run, in.request.origin_run) && slice_eq(out.by, in.by));

  in = (struct inbox_item){.kind = INBOX_TRIGGER,
                           .request = {.key = {3, NOW, 42, 0x40000001}, .origin = ORIGIN_API}};
  auto_free char *least = inbox_body(&in);
  row.body = slice_of(least);
  assert_int_equal(inbox_parse(&row, &mem, &out, &e), 0);
  assert_null(out.request.payload.p);
  assert_int_equal(out.request.pin.n, 0);

  in = (struct inbox_item){.kind = INBOX_CATCHUP,
                           .request = {.key.task_id = 5, .from = 10, .to = 20, .version = 7}};
  auto_free char *range = inbox_body(&in);
  row = (struct inbox_text){.shard = 1, .kind = INBOX_CATCHUP, .no = 1, .body = slice_of(range)};
  assert_int_equal(inbox_parse(&row, &mem, &out, &e), 0);
  assert_true(out.request.catch_up && out.request.from == 10 && out.request.to == 20 &&
              out.request.version == 7 && out.request.key.task_id == 5);

  static const struct inbox_text bad_rows[] = {
      {.kind = INBOX_TRIGGER, .body = {"{", 1}},
      {.kind = INBOX_TRIGGER, .body = {"{}", 2}},
      {.kind = 99, .body = {"{\"task_id\":5}", 13}},
      {.kind = INBOX_TRIGGER, .body = {"{\"task_id\":5}", 13}},
      {.kind = INBOX_CATCHUP, .body = {"{\"task_id\":5,\"from\":9,\"to\":3}", 30}}};
  for (size_t i = 0; i < sizeof bad_rows / sizeof *bad_rows; i++)
    assert_true(inbox_parse(&bad_rows[i], &mem, &out, &e) < 0);
}

#define AFTER(members) "\"schedule\":{\"kind\":\"MANUAL\"},\"depends_on\":{" members "}"

/* What it depends on: in the definition as it was written, in the document with its defaults, gone by a patch. */
static void test_depends_on(void **state) {
  struct err e = {0};
  (void)state;
  struct task_input in =
      good("{" AFTER("\"tasks\":[\"b\",\"a\"],\"ends\":\"FAIL\"") ",\"payload\":{\"x\":1}}");
  const struct depend_def *d = &in.spec->depends;
  assert_true(d->count == 2 && d->mode == DEPEND_ALL && d->ends == ENDS_FAIL && slice_eqz(d->tasks[0], "b") &&
              slice_eqz(d->tasks[1], "a"));
  assert_non_null(strstr(in.definition, "\"depends_on\":{\"ends\":\"FAIL\",\"tasks\":[\"b\",\"a\"]}"));
  struct task_spec *stored = NULL;
  assert_int_equal(task_spec_parse(slice_of(in.definition), zones(), &stored, &e), 0);
  assert_true(stored->depends.count == 2 && stored->depends.ends == ENDS_FAIL);
  task_spec_free(&stored);
  const struct task_source source = {.definition = slice_of(in.definition), .name = "n"};
  auto_json *current = NULL, *whole = NULL, *patch = doc_of("{\"depends_on\":null}");
  assert_int_equal(task_document(&source, &whole, &e), 0);
  assert_string_equal(json_string_value(json_object_get(json_object_get(whole, "depends_on"), "mode")),
                      "ALL");
  assert_int_equal(task_source_json(&source, &current, &e), 0);
  task_input_done(&in);
  assert_int_equal(task_input_patch(current, patch, zones(), 0, &in, &e), 0);
  assert_true(in.spec->depends.count == 0 && !strstr(in.definition, "depends_on"));
  task_input_done(&in);
  in = good(
      "{\"schedule\":{\"kind\":\"MANUAL\"},\"payload\":{\"parents\":1}}"); /* who depends on nothing may have it */
  task_input_done(&in);
}

static void test_depends_on_refused(void **state) {
  static const struct {
    const char *members;
    int code;
    const char *field;
  } table[] = {
      {AFTER(""), ERR_MISSING, "/depends_on/tasks"},
      {AFTER("\"tasks\":[]"), ERR_INVALID, "/depends_on/tasks"},
      {AFTER("\"tasks\":\"a\""), ERR_INVALID, "/depends_on/tasks"},
      {AFTER("\"tasks\":[\"a\",1]"), ERR_INVALID, "/depends_on/tasks/1"},
      {AFTER("\"tasks\":[\"a\",\"b\",\"a\"]"), ERR_INVALID, "/depends_on/tasks/2"},
      {AFTER("\"tasks\":[\"\"]"), ERR_INVALID, "/depends_on/tasks/0"},
      {AFTER("\"tasks\":[\"a\"],\"mode\":\"BOTH\""), ERR_INVALID, "/depends_on/mode"},
      {AFTER("\"tasks\":[\"a\"],\"ends\":\"SKIPPED\""), ERR_INVALID, "/depends_on/ends"},
      {AFTER("\"tasks\":[\"a\"],\"when\":1"), ERR_UNKNOWN_FIELD, "/depends_on/when"},
      {AFTER("\"tasks\":[\"a\"]") ",\"payload\":\"text\"", ERR_INVALID, "/payload"},
      {AFTER("\"tasks\":[\"a\"]") ",\"payload\":{\"parents\":[]}", ERR_INVALID, "/payload/parents"},
      {"\"depends_on\":{\"tasks\":[\"a\"]}", ERR_INVALID, "/depends_on"}, /* a CRON */
      {"\"schedule\":{\"kind\":\"MANUAL\"},\"depends_on\":[\"a\"]", ERR_INVALID, "/depends_on"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
    char text[512];
    (void)snprintf(text, sizeof text, "{%s}", table[i].members);
    (void)bad(text, table[i].code, table[i].field);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_defaults),        cmocka_unit_test(test_every_field),
      cmocka_unit_test(test_canonical),       cmocka_unit_test(test_routing),
      cmocka_unit_test(test_refusals),        cmocka_unit_test(test_one_time),
      cmocka_unit_test(test_payload_limit),   cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_patch),           cmocka_unit_test(test_patch_of_the_past),
      cmocka_unit_test(test_stored_nonsense), cmocka_unit_test(test_cache),
      cmocka_unit_test(test_depends_on),      cmocka_unit_test(test_depends_on_refused),
      cmocka_unit_test(test_inbox),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
