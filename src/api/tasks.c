/* /api/v1/tasks and previews: the task service does it, this is its clothing. */
#include "api/internal.h"
#include <stdio.h>

#define REF call_task_ref(c, c->param[0])

/* What the schedule alone says: not for FIXED_DELAY, which counts from the end of a run (see the statistics). */
static void put_next(struct call *c, const struct task_row *t, json_t *doc) {
  struct err ignored; /* a zone that vanished: no next instant, the rest is true */
  struct task_call tc = call_task(c);
  struct preview_ask ask = {.n = 1, .included = true};
  struct preview p;
  if (c->query[Q_version].there || t->v.state != TASK_ENABLED || t->kind == SCHEDULE_FIXED_DELAY ||
      t->kind == SCHEDULE_MANUAL)
    return;
  tc.e = &ignored;
  if (task_next(c->api->o.tasks, &tc, t, &ask, &p) == 0 && p.count)
    put_time(doc, "next_at", p.items[0].at);
}

static int answer(struct call *c, int status, const struct task_row *t) {
  json_t *doc = NULL;
  int r = task_json(t, true, &doc, &c->e);
  if (r < 0)
    return r;
  put_next(c, t, doc);
  call_etag(c, t->v.version);
  return call_json(c, status, doc);
}

/* `next`: with the next instant, for current versions. */
static int list_item(struct call *c, json_t *items, const struct task_row *t, bool next) {
  json_t *doc = NULL;
  int r = task_json(t, false, &doc, &c->e);
  if (r < 0)
    return r;
  if (next)
    put_next(c, t, doc);
  (void)json_array_append_new(items, doc); /* fails only without memory */
  return 0;
}

int on_tasks_list(struct call *c) {
  struct st_task_list filter = {.ns = c->query[Q_namespace].s,
                                .group = c->query[Q_group].s,
                                .handler = c->query[Q_handler].s,
                                .name_prefix = c->query[Q_name_prefix].s,
                                .name_contains = c->query[Q_name_contains].s,
                                .managed_by = c->query[Q_managed_by].s,
                                .state = c->query[Q_task_state].there ? (int)c->query[Q_task_state].i : -1,
                                .kind = c->query[Q_kind].there ? (int)c->query[Q_kind].i : -1,
                                .limit = (int32_t)c->query[Q_limit].i};
  int r = cursor_read(c, &filter.after, sizeof filter.after);
  struct st_task_list_ret found;
  struct task_call tc = call_task(c);
  if (r < 0 || (r = task_list(c->api->o.tasks, &tc, &filter, &found)) < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; r >= 0 && i < found.count; i++)
    r = list_item(c, items, &found.tasks[i], true);
  if (r < 0) {
    json_decref(items);
    return r;
  }
  const char *next = NULL;
  if (found.count && found.count == (size_t)filter.limit)
    next = cursor_make(c, &found.tasks[found.count - 1].v.task_id, sizeof filter.after);
  return call_list(c, items, next);
}

static void location(struct call *c, int64_t id) {
  call_header(c, "Location", arena_printf(&c->mem, "/api/v1/tasks/%lld", (long long)id));
}

/* Namespaces are not the task service's: does the one that the document names exist? What is no text is left to the service. */
int call_need_namespace(struct call *c, const json_t *doc) {
  const json_t *ns = json_object_get(doc, "namespace");
  if (!json_is_string(ns))
    return 0;
  struct slice name = slice_n(json_string_value(ns), json_string_length(ns));
  int r = access_need_ns(&c->who, name, &c->e);
  return r < 0 ? r : access_namespace_need(c->api->o.access, name, &c->e);
}

int on_tasks_create(struct call *c) {
  struct task_row t;
  struct task_call tc = call_task(c);
  int r = call_need_namespace(c, c->body);
  if (r < 0)
    return r;
  r = task_create(c->api->o.tasks, &tc, c->body, &t);
  if (r < 0)
    return r;
  if (r == 1)
    call_header(c, "Idempotent-Replayed", "true");
  location(c, t.v.task_id);
  return answer(c, 201, &t);
}

int on_tasks_create_many(struct call *c) {
  struct task_version_row *rows;
  struct task_call tc = call_task(c);
  const json_t *docs = IN(c, task_batch, tasks)->j;
  int r = 0;
  for (size_t i = 0; r >= 0 && i < json_array_size(docs); i++) {
    r = call_need_namespace(c, json_array_get(docs, i));
    if (r < 0)
      (void)err_at(&c->e, arena_printf(&c->mem, "/%zu", i));
  }
  if (r >= 0)
    r = task_create_many(c->api->o.tasks, &tc, docs, &rows);
  if (r < 0) {
    if (c->e.code == r && c->e.field[0] == '/') {
      bool indexed = c->e.field[1] >= '0' && c->e.field[1] <= '9';
      (void)err_at(&c->e,
                   indexed ? "/tasks" : "/tasks/0"); /* of a single one the store names the field only */
    }
    return r;
  }
  json_t *items = json_array(), *doc = json_object();
  for (size_t i = 0; i < json_array_size(docs); i++) {
    json_t *o = json_object();
    put_id(o, "id", rows[i].task_id);
    put_text(o, "name", rows[i].name);
    put(o, "version", json_integer(rows[i].version));
    put_time(o, "effective_at", rows[i].effective_at);
    (void)json_array_append_new(items, o); /* fails only without memory */
  }
  put(doc, "items", items);
  return call_json(c, 201, doc);
}

int on_tasks_get(struct call *c) {
  struct task_row t;
  struct task_call tc = call_task(c);
  int r = task_get(c->api->o.tasks, &tc, REF, (int32_t)c->query[Q_version].i, &t);
  if (r < 0)
    return r;
  if (call_unchanged(c, t.v.version))
    return 0;
  return answer(c, 200, &t);
}

int on_tasks_replace(struct call *c) {
  struct task_row t;
  struct task_call tc = call_task(c);
  int r = task_replace(c->api->o.tasks, &tc, REF, c->body, &t);
  return r < 0 ? r : answer(c, 200, &t);
}

int on_tasks_patch(struct call *c) {
  struct task_row t;
  struct task_call tc = call_task(c);
  int r = task_patch(c->api->o.tasks, &tc, REF, c->body, &t);
  return r < 0 ? r : answer(c, 200, &t);
}

int on_tasks_delete(struct call *c) {
  struct task_call tc = call_task(c);
  int r = task_delete(c->api->o.tasks, &tc, REF, c->query[Q_cancel].b);
  return r < 0 ? r : call_empty(c, 204);
}

int on_tasks_pause(struct call *c) {
  struct task_row t;
  struct task_call tc = call_task(c);
  int r = task_pause(c->api->o.tasks, &tc, REF, &t);
  return r < 0 ? r : answer(c, 200, &t);
}

int on_tasks_resume(struct call *c) {
  struct task_row t;
  struct task_call tc = call_task(c);
  int r = task_resume(c->api->o.tasks, &tc, REF, IN(c, resume, catch_up)->b, &t);
  return r < 0 ? r : answer(c, 200, &t);
}

int on_tasks_trigger(struct call *c) {
  const struct value *executor = IN(c, trigger, executor), *key = IN(c, trigger, routing_key);
  if (executor->there && key->there)
    return err_field(&c->e, ERR_INVALID, "/routing_key", "expected either an executor or a routing_key");
  struct slice keyed =
      key->there ? slice_of(arena_printf(&c->mem, "%c%.*s", PIN_KEY, SLICE_FMT(key->s))) : key->s;
  struct task_trigger t = {.payload = IN(c, trigger, payload)->s,
                           .pin = executor->there ? executor->s : keyed,
                           .ignore_overlap = IN(c, trigger, ignore_overlap)->b,
                           .origin = ORIGIN_API};
  return call_trigger(c, REF, &t);
}

int call_made(struct call *c, const struct run_key *key, struct slice retry_of, bool repeat) {
  if (repeat)
    call_header(c, "Idempotent-Replayed", "true");
  char id[RUN_ID_LEN + 1];
  run_id_format(key, id);
  json_t *doc = json_object();
  put(doc, "run_id", json_string(id));
  put_text(doc, "retry_of", retry_of);
  call_header(c, "Location", arena_printf(&c->mem, "/api/v1/runs/%s", id));
  return call_json(c, 202, doc);
}

int call_trigger(struct call *c, struct slice ref, const struct task_trigger *t) {
  struct run_key key;
  struct task_call tc = call_task(c);
  int r = task_trigger(c->api->o.tasks, &tc, ref, t, &key);
  return r < 0 ? r : call_made(c, &key, t->retry_of, r == 1);
}

int on_tasks_versions(struct call *c) {
  struct st_task_versions page = {.limit = (int32_t)c->query[Q_limit].i};
  struct st_task_versions_ret found;
  struct task_call tc = call_task(c);
  int r = cursor_read(c, &page.before, sizeof page.before);
  if (r < 0 || (r = task_versions(c->api->o.tasks, &tc, REF, &page, &found)) < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; r >= 0 && i < found.count; i++)
    r = list_item(c, items, &found.versions[i], false);
  if (r < 0) {
    json_decref(items);
    return r;
  }
  const char *next = NULL;
  if (found.count && found.count == (size_t)page.limit && found.versions[found.count - 1].v.version > 1)
    next = cursor_make(c, &found.versions[found.count - 1].v.version, sizeof page.before);
  return call_list(c, items, next);
}

int on_tasks_stats(struct call *c) {
  struct task_stats st;
  struct task_call tc = call_task(c);
  int r = task_stats(c->api->o.tasks, &tc, REF, c->query[Q_since].i, &st);
  return r < 0 ? r : call_json(c, 200, task_stats_json(&st));
}

/* ------------------------------------------------------------------ instants */

json_t *preview_json(const struct preview *p) {
  json_t *items = json_array(), *doc = json_object();
  for (size_t i = 0; i < p->count; i++) {
    json_t *o = json_object();
    put_time(o, "at", p->items[i].at);
    put(o, "local", json_string(p->items[i].local));
    put(o, "offset_seconds", json_integer(p->items[i].offset));
    put_text(o, "note", slice_of(p->items[i].note));
    put_text(o, "calendar", slice_of(p->items[i].calendar));
    (void)json_array_append_new(items, o); /* fails only without memory */
  }
  put(doc, "items", items);
  if (p->jitter)
    put_duration(doc, "jitter", p->jitter);
  put_text(doc, "remark", slice_of(p->remark));
  return doc;
}

int on_schedules_preview(struct call *c) {
  struct preview_ask ask = {.from = IN(c, preview_ask, from)->i, .n = (int32_t)IN(c, preview_ask, n)->i};
  struct preview p;
  struct task_call tc = call_task(c);
  int r = task_preview(c->api->o.tasks, &tc, c->body, &ask, &p);
  return r < 0 ? r : call_json(c, 200, preview_json(&p));
}

int on_tasks_next(struct call *c) {
  struct preview_ask ask = {.from = c->query[Q_from].i, .n = (int32_t)c->query[Q_n].i};
  struct preview p;
  struct task_row t;
  struct task_call tc = call_task(c);
  int r = task_get(c->api->o.tasks, &tc, REF, 0, &t);
  if (r < 0 || (r = task_next(c->api->o.tasks, &tc, &t, &ask, &p)) < 0)
    return r;
  return call_json(c, 200, preview_json(&p));
}
