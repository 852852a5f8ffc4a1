/* /api/v1/alerts, /api/v1/alert-channels and /api/v1/alert-rules */
#include "api/internal.h"
#include "base/parse.h"
#include "monitor/alerts.h"

static int body_ns(struct call *c, const struct value *v, struct slice *ret) {
  *ret = v->there ? v->s : slice_of(c->who.ns[0] ? c->who.ns : ACCESS_NS_DEFAULT);
  int r = access_need_ns(&c->who, *ret, &c->e);
  return r < 0 ? r : access_namespace_need(c->api->o.access, *ret, &c->e);
}

/* The document of a channel or rule: all fields of the body but those that are columns. */
static json_t *definition_of(const struct call *c, json_t *doc) {
  static const char *const columns[] = {"name", "namespace", "url"};
  (void)json_object_update(doc, c->body); /* fails only without memory */
  for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
    (void)json_object_del(doc, columns[i]); /* it may not be there */
  const char *key;
  json_t *value;
  void *next;
  json_object_foreach_safe(doc, next, key, value) if (json_is_null(value))(void)
      json_object_del(doc, key); /* null: back to the default */
  return doc;
}

/* The former document with the patch upon it. */
static int patched(struct call *c, struct slice former, json_t **ret) {
  json_t *doc = NULL;
  int r = json_read(former, API_PAYLOAD_MAX, &doc, &c->e);
  if (r < 0)
    return err_set(&c->e, ERR_INTERNAL, "a stored definition cannot be read");
  *ret = definition_of(c, doc);
  return 0;
}

static void put_def(json_t *o, const struct alert_def_row *d) {
  json_t *doc = NULL;
  put_id(o, "id", d->id);
  put_text(o, "name", d->name);
  put_text(o, "namespace", d->ns);
  put(o, "enabled", json_true());
  if (json_read(d->definition, API_PAYLOAD_MAX, &doc, NULL) >= 0) {
    (void)json_object_update(o, doc); /* fails only without memory */
    json_decref(doc);
  }
  put(o, "version", json_integer(d->version));
  put_time(o, "created_at", d->created_at);
  put_time(o, "updated_at", d->updated_at);
}

/* ------------------------------------------------------------------ channels */

/* The URL may hold a secret of the receiver's: only administrators see more than where it leads. */
static json_t *channel_json(struct call *c, const struct alert_channel *x, const char *secret) {
  json_t *o = json_object();
  put(o, "kind", json_string(alert_channel_kinds[0]));
  put_def(o, &x->def);
  bool all = access_need_role(&c->who, ROLE_ADMIN, NULL) == 0;
  put_text(o, "url", all ? x->url : slice_of(arena_printf(&c->mem, "%.*s/…", SLICE_FMT(x->origin))));
  put_text(o, "secret", slice_of(secret));
  return o;
}

static int channel_answer(struct call *c, int status, const struct alert_channel *x, const char *secret) {
  call_etag(c, x->def.version);
  return call_json(c, status, channel_json(c, x, secret));
}

int on_alert_channels_list(struct call *c) {
  struct alert_channel *rows;
  struct slice ns;
  size_t n;
  int r = call_ns_filter(c, &c->query[Q_namespace], &ns);
  if (r < 0 || (r = alerts_channel_list(c->api->o.alerts, ns, &rows, &n, &c->mem, &c->e)) < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; i < n; i++)
    (void)json_array_append_new(items, channel_json(c, &rows[i], NULL)); /* fails only without memory */
  return call_list(c, items, NULL);
}

int on_alert_channels_create(struct call *c) {
  struct alert_channel_new x = {.name = IN(c, alert_channel_new, name)->s,
                                .url = IN(c, alert_channel_new, url)->s};
  auto_json *doc = definition_of(c, json_object());
  char secret[ALERT_SECRET_MAX];
  struct alert_channel row;
  x.definition = doc;
  int r = body_ns(c, IN(c, alert_channel_new, namespace), &x.ns);
  if (r < 0 || (r = alerts_channel_put(c->api->o.alerts, &x, 0, secret, &row, &c->mem, &c->e)) < 0)
    return r;
  return channel_answer(c, 201, &row, secret);
}

static int find_channel(struct call *c, struct alert_channel *ret) {
  struct slice ns, name;
  int r = call_named(c, c->param[0], &ns, &name);
  return r < 0 ? r : alerts_channel_get(c->api->o.alerts, ns, name, ret, &c->mem, &c->e);
}

int on_alert_channels_get(struct call *c) {
  struct alert_channel row;
  int r = find_channel(c, &row);
  if (r < 0)
    return r;
  return call_unchanged(c, row.def.version) ? 0 : channel_answer(c, 200, &row, NULL);
}

int on_alert_channels_patch(struct call *c) {
  const struct value *url = IN(c, alert_channel_patch, url);
  auto_json *doc = NULL;
  struct alert_channel row;
  int r = find_channel(c, &row);
  if (r < 0 || (r = patched(c, row.def.definition, &doc)) < 0)
    return r;
  struct alert_channel_new x = {.ns = row.def.ns, .name = row.def.name, .definition = doc};
  if (url->there)
    x.url = url->s;
  r = alerts_channel_put(c->api->o.alerts, &x, c->if_version ? c->if_version : row.def.version, NULL, &row,
                         &c->mem, &c->e);
  return r < 0 ? r : channel_answer(c, 200, &row, NULL);
}

int on_alert_channels_delete(struct call *c) {
  struct slice ns, name;
  int r = call_named(c, c->param[0], &ns, &name);
  if (r < 0 || (r = alerts_channel_delete(c->api->o.alerts, ns, name, &c->e)) < 0)
    return r;
  return call_empty(c, 204);
}

int on_alert_channels_rotate(struct call *c) {
  char secret[ALERT_SECRET_MAX];
  struct slice ns, name;
  struct alert_channel row;
  int r = call_named(c, c->param[0], &ns, &name);
  if (r < 0 || (r = alerts_channel_rotate(c->api->o.alerts, ns, name, secret, &row, &c->mem, &c->e)) < 0)
    return r;
  return channel_answer(c, 200, &row, secret);
}

int on_alert_channels_retire(struct call *c) {
  struct slice ns, name;
  struct alert_channel row;
  int r = call_named(c, c->param[0], &ns, &name);
  if (r < 0 || (r = alerts_channel_retire(c->api->o.alerts, ns, name, &row, &c->mem, &c->e)) < 0)
    return r;
  return channel_answer(c, 200, &row, NULL);
}

int on_alert_channels_test(struct call *c) {
  struct slice ns, name;
  struct alert_test t;
  int r = call_named(c, c->param[0], &ns, &name);
  if (r < 0 || (r = alerts_channel_test(c->api->o.alerts, ns, name, &t, &c->mem, &c->e)) < 0)
    return r;
  json_t *o = json_object();
  put(o, "delivered", json_boolean(t.delivered));
  if (t.status)
    put(o, "status", json_integer(t.status));
  put_duration(o, "took", t.took);
  put_text(o, "error", t.error);
  return call_json(c, 200, o);
}

/* ------------------------------------------------------------------ rules */

static json_t *rule_json(const struct alert_def_row *d) {
  json_t *o = json_object();
  put(o, "event", json_string(alert_event_names[0]));
  put(o, "window", json_string(ALERT_WINDOW_DEFAULT));
  put_def(o, d);
  return o;
}

static int rule_answer(struct call *c, int status, const struct alert_def_row *d) {
  call_etag(c, d->version);
  return call_json(c, status, rule_json(d));
}

int on_alert_rules_list(struct call *c) {
  struct st_alert_def_list_ret found;
  struct slice ns;
  int r = call_ns_filter(c, &c->query[Q_namespace], &ns);
  if (r < 0 || (r = alerts_rule_list(c->api->o.alerts, ns, &found, &c->mem, &c->e)) < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; i < found.count; i++)
    (void)json_array_append_new(items, rule_json(&found.rows[i])); /* fails only without memory */
  return call_list(c, items, NULL);
}

int on_alert_rules_create(struct call *c) {
  auto_json *doc = definition_of(c, json_object());
  struct alert_def_row row;
  struct slice ns, name = IN(c, alert_rule_new, name)->s;
  int r = body_ns(c, IN(c, alert_rule_new, namespace), &ns);
  if (r < 0 || (r = alerts_rule_put(c->api->o.alerts, ns, name, doc, 0, &row, &c->mem, &c->e)) < 0)
    return r;
  return rule_answer(c, 201, &row);
}

static int find_rule(struct call *c, struct alert_def_row *ret) {
  struct slice ns, name;
  int r = call_named(c, c->param[0], &ns, &name);
  return r < 0 ? r : alerts_rule_get(c->api->o.alerts, ns, name, ret, &c->mem, &c->e);
}

int on_alert_rules_get(struct call *c) {
  struct alert_def_row row;
  int r = find_rule(c, &row);
  if (r < 0)
    return r;
  return call_unchanged(c, row.version) ? 0 : rule_answer(c, 200, &row);
}

int on_alert_rules_patch(struct call *c) {
  auto_json *doc = NULL;
  struct alert_def_row row;
  int r = find_rule(c, &row);
  if (r < 0 || (r = patched(c, row.definition, &doc)) < 0 ||
      (r = alerts_rule_put(c->api->o.alerts, row.ns, row.name, doc,
                           c->if_version ? c->if_version : row.version, &row, &c->mem, &c->e)) < 0)
    return r;
  return rule_answer(c, 200, &row);
}

int on_alert_rules_delete(struct call *c) {
  struct slice ns, name;
  int r = call_named(c, c->param[0], &ns, &name);
  if (r < 0 || (r = alerts_rule_delete(c->api->o.alerts, ns, name, &c->e)) < 0)
    return r;
  return call_empty(c, 204);
}

/* ------------------------------------------------------------------ the log */

static json_t *alert_json(const struct alert_row *a) {
  json_t *o = json_object();
  put_id(o, "id", a->id);
  put_text(o, "namespace", a->ns);
  put_text(o, "rule", a->rule);
  put_text(o, "channel", a->channel);
  put_id(o, "task_id", a->key.task_id);
  put_text(o, "task_name", a->task_name);
  put(o, "state", json_string(alert_state_names[a->state]));
  put(o, "summary", json_boolean(a->summary));
  put(o, "count", json_integer(a->count));
  put_time(o, "first_at", a->first_at);
  put_time(o, "last_at", a->last_at);
  put_time(o, "created_at", a->created_at);
  if (a->state == ALERT_PENDING)
    put_time(o, "next_at", a->next_at);
  put(o, "attempts", json_integer(a->attempts));
  if (a->status)
    put(o, "status", json_integer(a->status));
  put_text(o, "error", a->error);
  put_time(o, "delivered_at", a->sent_at);
  return o;
}

static json_t *log_json(const struct st_alert_get_ret *found) {
  json_t *log = json_array();
  for (size_t i = 0; i < found->attempt_count; i++) {
    const struct alert_attempt_row *t = &found->attempts[i];
    json_t *o = json_object();
    put(o, "attempt", json_integer(t->attempt));
    put_time(o, "at", t->at);
    put_duration(o, "took", t->took);
    if (t->status)
      put(o, "status", json_integer(t->status));
    put_text(o, "error", t->error);
    (void)json_array_append_new(log, o); /* fails only without memory */
  }
  return log;
}

int on_alerts_list(struct call *c) {
  struct st_alert_list in = {.rule = c->query[Q_rule].s,
                             .channel = c->query[Q_channel].s,
                             .state = c->query[Q_alert_state].there ? (int)c->query[Q_alert_state].i : -1,
                             .limit = (int32_t)c->query[Q_limit].i};
  struct st_alert_list_ret found;
  int r = call_ns_filter(c, &c->query[Q_namespace], &in.ns);
  if (r < 0 || (r = call_task_filter(c, &in.task_id)) < 0 ||
      (r = cursor_read(c, &in.before, sizeof in.before)) < 0 ||
      (r = alerts_list(c->api->o.alerts, &in, &found, &c->mem, &c->e)) < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; i < found.count; i++)
    (void)json_array_append_new(items, alert_json(&found.rows[i])); /* fails only without memory */
  const char *next = NULL;
  if (found.count && found.count == (size_t)in.limit)
    next = cursor_make(c, &found.rows[found.count - 1].id, sizeof in.before);
  return call_list(c, items, next);
}

static int find_alert(struct call *c, struct st_alert_get_ret *ret) {
  int64_t id;
  int r = parse_i64(c->param[0], 1, INT64_MAX, &id, NULL);
  r = r < 0 ? ERR_NOT_FOUND : alerts_get(c->api->o.alerts, id, ret, &c->mem, &c->e);
  if (r >= 0 && access_need_ns(&c->who, ret->alert.ns, NULL) < 0)
    r = ERR_NOT_FOUND;
  return r == ERR_NOT_FOUND ? err_set(&c->e, r, "there is no such alert") : r;
}

int on_alerts_get(struct call *c) {
  struct st_alert_get_ret found;
  int r = find_alert(c, &found);
  if (r < 0)
    return r;
  json_t *o = alert_json(&found.alert);
  put_raw(o, "details", found.alert.details);
  put(o, "log", log_json(&found));
  return call_json(c, 200, o);
}

int on_alerts_redeliver(struct call *c) {
  struct st_alert_get_ret found;
  struct alert_row row;
  int r = find_alert(c, &found);
  if (r < 0 || (r = alerts_redeliver(c->api->o.alerts, found.alert.id, &row, &c->mem, &c->e)) < 0)
    return r;
  return call_json(c, 202, alert_json(&row));
}
