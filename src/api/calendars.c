/* /api/v1/calendars: the task service does it, this is its clothing. */
#include "api/internal.h"

static int answer(struct call *c, int status, const struct calendar_row *row, json_t **ret) {
  json_t *doc = NULL, *o = json_object();
  put_text(o, "name", row->name);
  put_text(o, "namespace", row->ns);
  int r = task_calendar_json(row, &doc, &c->e);
  if (r < 0) {
    json_decref(o);
    return r;
  }
  (void)json_object_update(o, doc); /* fails only without memory */
  json_decref(doc);
  put(o, "version", json_integer(row->version));
  put(o, "tasks", json_integer(row->tasks));
  put_time(o, "created_at", row->created_at);
  put_time(o, "updated_at", row->updated_at);
  put_text(o, "updated_by", row->updated_by);
  if (ret) {
    *ret = o;
    return 0;
  }
  call_etag(c, row->version);
  return call_json(c, status, o);
}

int on_calendars_list(struct call *c) {
  struct st_calendar_list_ret found;
  struct task_call tc = call_task(c);
  struct slice ns = c->query[Q_namespace].s;
  int r = ns.n ? access_need_ns(&c->who, ns, &c->e) : 0;
  if (r < 0 || (r = task_calendar_list(c->api->o.tasks, &tc, ns, &found)) < 0)
    return r;
  json_t *items = json_array(), *o = NULL;
  for (size_t i = 0; r == 0 && i < found.count; i++) {
    r = answer(c, 200, &found.rows[i], &o);
    if (r == 0)
      (void)json_array_append_new(items, o); /* fails only without memory */
  }
  if (r < 0) {
    json_decref(items);
    return r;
  }
  return call_list(c, items, NULL);
}

int on_calendars_create(struct call *c) {
  const struct value *ns = IN(c, calendar_new, namespace);
  struct task_call tc = call_task(c);
  struct calendar_row row;
  struct calendar_put p = {.ref = {.name = IN(c, calendar_new, name)->s}, .doc = c->body, .create = true};
  p.ref.ns = ns->there ? ns->s : slice_of(c->who.ns[0] ? c->who.ns : ACCESS_NS_DEFAULT);
  int r = access_need_ns(&c->who, p.ref.ns, &c->e);
  if (r < 0 || (r = access_namespace_need(c->api->o.access, p.ref.ns, &c->e)) < 0 ||
      (r = task_calendar_put(c->api->o.tasks, &tc, &p, &row)) < 0)
    return r;
  call_header(
      c, "Location",
      arena_printf(&c->mem, "/api/v1/calendars/%.*s%%2F%.*s", SLICE_FMT(row.ns), SLICE_FMT(row.name)));
  return answer(c, 201, &row, NULL);
}

int on_calendars_get(struct call *c) {
  struct calendar_ref ref;
  struct calendar_row row;
  struct task_call tc = call_task(c);
  int r = call_named(c, c->param[0], &ref.ns, &ref.name);
  if (r < 0 || (r = task_calendar_get(c->api->o.tasks, &tc, &ref, &row)) < 0)
    return r;
  return call_unchanged(c, row.version) ? 0 : answer(c, 200, &row, NULL);
}

int on_calendars_put(struct call *c) {
  struct calendar_put p = {.doc = c->body};
  struct calendar_row row;
  struct task_call tc = call_task(c);
  int r = call_named(c, c->param[0], &p.ref.ns, &p.ref.name);
  if (r < 0 || (r = access_namespace_need(c->api->o.access, p.ref.ns, &c->e)) < 0 ||
      (r = task_calendar_put(c->api->o.tasks, &tc, &p, &row)) < 0)
    return r;
  return answer(c, r == 0 && row.version == 1 ? 201 : 200, &row, NULL);
}

int on_calendars_delete(struct call *c) {
  struct calendar_ref ref;
  struct task_call tc = call_task(c);
  int r = call_named(c, c->param[0], &ref.ns, &ref.name);
  return r < 0 || (r = task_calendar_delete(c->api->o.tasks, &tc, &ref)) < 0 ? r : call_empty(c, 204);
}
