/* Task documents for people: with and without defaults, and merge patches. */
#include "base/mem.h"
#include "core/task_draft.h"

/* (object, name): fails only without memory, and then jansson's NULLs show as missing fields. */
static void set_new(json_t *object, const char *key, json_t *value) {
  (void)json_object_set_new(object, key, value);
}

static void set_instant(json_t *schedule, const char *key, usec_t t) {
  char buf[TIME_TEXT_MAX];
  set_new(schedule, key, json_string(time_format(t, buf)));
}

/* Members of a section in the order of the table; with defaults where they are asked for. */
static json_t *ordered(enum task_section section, const json_t *from, enum schedule_kind kind,
                       bool defaults) {
  json_t *out = json_object();
  for (size_t i = 0; i < task_field_count; i++) {
    const struct task_field *f = &task_fields[i];
    if (f->section != section || !(f->allowed & 1u << kind))
      continue;
    json_t *v = json_object_get(from, f->name);
    if (v && !json_is_null(v))
      (void)json_object_set(out, f->name, v);
    else if (defaults && f->has_default)
      set_new(out, f->name, task_field_default(f));
  }
  return out;
}

static void add_parts(json_t *doc, const struct task_source *t, json_t *payload) {
  set_new(doc, "name", json_string(t->name));
  if (t->description && *t->description)
    set_new(doc, "description", json_string(t->description));
  if (payload)
    (void)json_object_set(doc, "payload", payload);
}

static int build(const struct task_source *t, bool defaults, json_t **ret, struct err *e) {
  auto_json *def = NULL, *payload = NULL;
  int kind = SCHEDULE_MANUAL;
  int r = json_read(t->definition, TASK_DEFINITION_MAX, &def, e);
  if (r < 0 || (t->payload.p && (r = json_read(t->payload, TASK_PAYLOAD_MAX, &payload, e)) < 0))
    return r;
  json_t *schedule = json_object_get(def, "schedule");
  if (!json_is_object(schedule) || json_get_enum(schedule, "kind", schedule_kind_names, &kind, NULL) < 0)
    return err_field(e, ERR_INVALID, "/schedule", "the stored definition has no schedule");
  if (t->anchor && kind == SCHEDULE_ONE_TIME)
    set_instant(schedule, "run_at", t->anchor);
  if (t->anchor && kind == SCHEDULE_FIXED_RATE)
    set_instant(schedule, "anchor", t->anchor);
  add_parts(def, t, payload);
  set_new(def, "schedule", ordered(SECTION_SCHEDULE, schedule, (enum schedule_kind)kind, defaults));
  json_t *depends = json_object_get(def, "depends_on");
  if (depends)
    set_new(def, "depends_on", ordered(SECTION_DEPENDS, depends, (enum schedule_kind)kind, defaults));
  json_t *retry = ordered(SECTION_RETRY, json_object_get(def, "retry"), (enum schedule_kind)kind, defaults);
  if (json_object_size(retry))
    (void)json_object_set(def, "retry", retry);
  json_decref(retry);
  *ret = ordered(SECTION_TASK, def, (enum schedule_kind)kind, defaults);
  return 0;
}

int task_source_json(const struct task_source *t, json_t **ret, struct err *e) {
  return build(t, false, ret, e);
}

int task_document(const struct task_source *t, json_t **ret, struct err *e) { return build(t, true, ret, e); }

/* RFC 7396; `to` is changed. The depth is bounded by what json_read accepts. */
static void merge(json_t *to, const json_t *patch) {
  const char *key;
  json_t *v;
  json_object_foreach ((json_t *)(uintptr_t)patch, key, v) {
    if (json_is_null(v)) {
      (void)json_object_del(to, key); /* absent is fine */
      continue;
    }
    if (!json_is_object(v)) {
      (void)json_object_set(to, key, v);
      continue;
    }
    json_t *old = json_object_get(to, key);
    json_t *fresh =
        json_is_object(old) ? json_copy(old) : json_object(); /* a patch's own nulls must not stay */
    merge(fresh, v);
    set_new(to, key, fresh);
  }
}

int task_input_patch(const json_t *current, const json_t *patch, struct zone_set *zones, usec_t now,
                     struct task_input *ret, struct err *e) {
  int r = json_want_object(patch, "", e);
  if (r < 0 || (r = task_doc_known(SECTION_TASK, patch, e)) < 0)
    return r;
  auto_json *merged = json_copy((json_t *)(uintptr_t)current);
  merge(merged, patch);
  for (size_t i = 0; i < task_server_field_count; i++)
    (void)json_object_del(merged, task_server_fields[i].name);
  /* whoever changes something else shall not be told that the instant has passed */
  bool same = json_equal(json_object_get(merged, "schedule"), json_object_get(current, "schedule"));
  return task_input_parse(merged, zones, same ? 0 : now, ret, e);
}
