/* Which rules want an event, when its alert goes out, and what it says. Pure. */
#include "base/parse.h"
#include "monitor/internal.h"

enum { MESSAGE_TEXT_MAX = 1024 };
const char *const alert_channel_kinds[] = {"WEBHOOK", NULL};
const char *const alert_event_names[] = {"RUN_FAILED", NULL};

/* ------------------------------------------------------------------ rules */

static int read_names(const json_t *doc, const char *key, size_t max, const json_t **ret, struct err *e) {
  const json_t *list = json_object_get(doc, key);
  if (!list || json_is_null(list))
    return 0;
  if (!json_is_array(list) || json_array_size(list) > max)
    return err_set(e, ERR_INVALID, "expected a list of at most %zu names", max);
  for (size_t i = 0; i < json_array_size(list); i++)
    if (!json_is_string(json_array_get(list, i)))
      return err_set(e, ERR_INVALID, "expected a list of names");
  *ret = list;
  return 0;
}

static int read_reasons(const json_t *doc, uint32_t *ret, struct err *e) {
  static const uint32_t of_fail = 1u << REASON_ERROR | 1u << REASON_TIMEOUT | 1u << REASON_LOST |
                                  1u << REASON_REJECTED | 1u << REASON_NO_EXECUTOR | 1u << REASON_EXPIRED;
  const json_t *list = NULL;
  uint32_t bits = 0;
  int r = read_names(doc, "reasons", REASON_MAX_, &list, e), reason = 0;
  for (size_t i = 0; r >= 0 && i < json_array_size(list); i++) {
    r = parse_enum(slice_of(json_string_value(json_array_get(list, i))), run_reason_names, &reason, NULL);
    if (r < 0 || !(of_fail >> reason & 1))
      return err_set(e, ERR_INVALID,
                     "expected reasons of a failure: ERROR, TIMEOUT, LOST, REJECTED, NO_EXECUTOR, EXPIRED");
    bits |= 1u << reason;
  }
  *ret = bits;
  return r;
}

static int at(struct err *e, const char *field, int r) {
  if (r < 0)
    (void)err_at(e, field);
  return r;
}

int rule_read(const struct alert_def_row *def, struct rule_filter *ret, struct err *e) {
  struct rule_filter f = {.enabled = true, .ns = def->ns, .name = def->name, .id = def->id};
  (void)duration_parse(SLICE(ALERT_WINDOW_DEFAULT), 0, ALERT_WINDOW_MAX, &f.window, NULL); /* our own */
  int r = json_read(def->definition, 256 * 1024, &f.doc, e);
  if (r >= 0)
    r = json_get_bool(f.doc, "enabled", &f.enabled, e);
  if (r >= 0)
    r = at(e, "/tasks", read_names(f.doc, "tasks", ALERT_NAMES_MAX, &f.tasks, e));
  if (r >= 0)
    r = at(e, "/groups", read_names(f.doc, "groups", ALERT_NAMES_MAX, &f.groups, e));
  if (r >= 0)
    r = at(e, "/reasons", read_reasons(f.doc, &f.reasons, e));
  if (r >= 0)
    r = at(e, "/channels", read_names(f.doc, "channels", ALERT_CHANNELS_MAX, &f.channels, e));
  if (r >= 0 && json_array_size(f.channels) == 0)
    r = err_field(e, ERR_MISSING, "/channels", "expected 1 to %d channels", ALERT_CHANNELS_MAX);
  if (r >= 0)
    r = json_get_duration(f.doc, "window", 0, ALERT_WINDOW_MAX, &f.window, e);
  if (r < 0) {
    rule_done(&f);
    return r;
  }
  *ret = f;
  return 0;
}

void rule_done(struct rule_filter *r) {
  json_decref(r->doc);
  r->doc = NULL;
}

/* No list, an empty one, or one with "*": any. */
static bool listed(const json_t *list, struct slice name) {
  size_t n = json_array_size(list);
  for (size_t i = 0; i < n; i++) {
    const char *text = json_string_value(json_array_get(list, i));
    if (slice_eqz(name, text) || strcmp(text, "*") == 0)
      return true;
  }
  return n == 0;
}

bool rule_wants(const struct rule_filter *r, const struct alert_event *v) {
  return r->enabled && v->there && v->run.state == RUN_FAIL && slice_eq(r->ns, v->ns) &&
         (!r->reasons || r->reasons >> v->run.reason & 1) && listed(r->tasks, v->task_name) &&
         listed(r->groups, v->group);
}

enum alert_step alert_step(const struct alert_row *latest, usec_t now) {
  if (!latest->seq || now >= latest->window_until)
    return ALERT_ALONE;
  return latest->summary && !latest->closed ? ALERT_ADD : ALERT_SUMMARY;
}

/* ------------------------------------------------------------------ texts */

static void put_text(json_t *o, const char *key, struct slice s) {
  if (s.n)
    (void)json_object_set_new(o, key, json_stringn(s.p, s.n)); /* fails only without memory */
}

static void put_time(json_t *o, const char *key, usec_t t) {
  char text[TIME_TEXT_MAX];
  if (t)
    (void)json_object_set_new(o, key, json_string(time_format(t, text))); /* fails only without memory */
}

static void put_id(json_t *o, const char *key, int64_t id) {
  char text[24];
  (void)snprintf(text, sizeof text, "%lld", (long long)id); /* 20 digits fit */
  put_text(o, key, slice_of(text));
}

char *alert_details(const struct alert_event *v) {
  const struct run_row *w = &v->run;
  char id[RUN_ID_LEN + 1];
  json_t *task = json_object(), *run = json_object();
  put_id(task, "id", w->key.task_id);
  put_text(task, "name", v->task_name);
  put_text(task, "executor_group", v->group);
  put_text(task, "handler", v->handler);
  run_id_format(&w->key, id);
  put_text(run, "id", slice_of(id));
  put_text(run, "state", slice_of(run_state_names[w->state]));
  put_text(run, "reason", slice_of(run_reason_names[w->reason]));
  put_text(run, "origin", slice_of(run_origin_names[w->origin]));
  (void)json_object_set_new(run, "attempt", json_integer(w->attempt)); /* as above */
  put_time(run, "scheduled_at", w->key.scheduled_at);
  put_time(run, "fired_at", w->fired_at);
  put_time(run, "started_at", w->started_at);
  put_time(run, "finished_at", w->finished_at);
  put_text(run, "executor", w->executor);
  put_text(run, "error_type", w->error_type);
  put_text(run, "error_message", slice_utf8_head(w->error_message, MESSAGE_TEXT_MAX));
  auto_json *both = json_object();
  (void)json_object_set_new(both, "task", task);
  (void)json_object_set_new(both, "run", run);
  return json_text(both);
}

char *alert_message(const struct alert_row *row) {
  json_t *details = NULL;
  auto_json *o = json_object();
  put_id(o, "alert_id", row->id);
  put_text(o, "event", slice_of(alert_event_names[0]));
  put_text(o, "namespace", row->ns);
  put_text(o, "rule", row->rule);
  put_text(o, "channel", row->channel);
  (void)json_object_set_new(o, "summary", json_boolean(row->summary)); /* fails only without memory */
  (void)json_object_set_new(o, "count", json_integer(row->count));
  put_time(o, "first_at", row->first_at);
  put_time(o, "last_at", row->last_at);
  if (json_read(row->details, 64 * 1024, &details, NULL) >= 0) {
    (void)json_object_update(o, details);
    json_decref(details);
  }
  return json_text(o);
}
