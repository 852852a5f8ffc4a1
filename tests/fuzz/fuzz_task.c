/* A task document; behind a NUL byte a merge patch for it. What was accepted must come back as the same task. */
#include "base/json.h"
#include "base/mem.h"
#include "core/schedule.h"
#include "core/task_spec.h"
#include "fuzz.h"

#define NOW       (INT64_C(1774000000) * USEC_PER_SEC)
#define BYTES_MAX ((size_t)64 * 1024)

static struct zone_set *zones;

static struct task_source source_of(const struct task_input *in) {
  return (struct task_source){slice_of(in->definition), in->name, in->description, slice_of(in->payload),
                              in->anchor};
}

/* The instants of a schedule go up. */
static void walk(const struct task_input *in) {
  usec_t at = NOW;
  for (int i = 0; i < 8 && at != USEC_NEVER; i++) {
    usec_t next = schedule_next(in->spec->schedule, in->anchor ? in->anchor : NOW, at);
    assert(next > at);
    at = next;
  }
  auto_str text;
  str_init(&text, 64 * 1024);
  schedule_describe(in->spec->schedule, CRON_ZH, &text);
  assert(!str_failed(&text) && slice_utf8_valid(str_slice(&text)));
}

static void same_task(const struct task_input *a, const struct task_input *b) {
  assert(strcmp(a->definition, b->definition) == 0 && strcmp(a->name, b->name) == 0);
  assert(a->anchor == b->anchor && !a->payload == !b->payload && !a->description == !b->description);
  assert(!a->payload || strcmp(a->payload, b->payload) == 0);
}

/* Both texts that people get of a task can be sent back. */
static void check_round_trip(const struct task_input *in) {
  struct err e = {0};
  struct task_source source = source_of(in);
  json_t *plain = NULL, *whole = NULL;
  struct task_input again = {0};
  assert(task_source_json(&source, &plain, &e) == 0 && task_document(&source, &whole, &e) == 0);
  assert(task_input_parse(plain, zones, 0, &again, &e) == 0);
  same_task(in, &again);
  task_input_done(&again);
  again = (struct task_input){0};
  assert(task_input_parse(whole, zones, 0, &again, &e) == 0);
  task_input_done(&again);
  struct task_spec *spec = NULL;
  assert(task_spec_parse(slice_of(in->definition), zones, &spec, &e) == 0);
  task_spec_unref(&spec);
  json_decref(plain);
  json_decref(whole);
}

static void check_patch(const struct task_input *in, struct slice text) {
  struct task_source source = source_of(in);
  struct err e = {0};
  auto_json *patch = NULL, *current = NULL;
  if (json_read(text, BYTES_MAX, &patch, &e) < 0)
    return;
  assert(task_source_json(&source, &current, &e) == 0);
  struct task_input got = {0};
  int r = task_input_patch(current, patch, zones, NOW, &got, &e);
  if (r < 0)
    fuzz_check_error(r, &e);
  else
    check_round_trip(&got);
  task_input_done(&got);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!zones)
    zones = zone_set_new(&fuzz_zone_source);
  struct slice patch, text = slice_cut(fuzz_slice(data, size), 0, &patch);
  auto_json *doc = NULL;
  struct err e = {0};
  int r = json_read(text, BYTES_MAX, &doc, &e);
  if (r < 0) {
    fuzz_check_error(r, &e);
    return 0;
  }
  struct task_input in = {0};
  r = task_input_parse(doc, zones, NOW, &in, &e);
  if (r < 0) {
    fuzz_check_error(r, &e);
  } else {
    walk(&in);
    check_round_trip(&in);
    if (patch.p)
      check_patch(&in, patch);
  }
  task_input_done(&in);
  return 0;
}
