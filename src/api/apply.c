/* /api/v1/apply, /api/v1/export, and the versions of tasks: config as code. */
#include "api/internal.h"
#include "base/parse.h"
#include <stdio.h>

#define EXPORT_PAGE_BYTES ((size_t)8 * 1024 * 1024) /* of payloads; then the next page begins */

/* ------------------------------------------------------------------ groups */

struct group_wish {
  struct group_new g;
  struct group_plan plan;
  int64_t expected; /* -1: any */
  json_t *differences;
  bool writes;
  size_t at; /* in the rows that were written */
};

static json_t *options_json(const struct group_row *g) {
  json_t *o = json_object();
  put(o, "channel", json_string(channel_names[g->channel]));
  put(o, "routing", json_string(routing_names[g->routing]));
  put(o, "max_connections", json_integer(g->max_connections));
  put(o, "max_concurrent", json_integer(g->max_concurrent));
  put(o, "rate_limit", json_real((double)g->rate_milli / 1000));
  put(o, "rate_burst", json_integer(g->rate_burst));
  return o;
}

#define WISH(field) (&in[F_group_wanted_##field - schema_first(SCHEMA_group_wanted)])

static int read_group(struct call *c, const json_t *doc, struct group_wish *w) {
  struct value in[API_FIELDS_MAX];
  int r = fields_read(SCHEMA_group_wanted, doc, in, &c->mem, &c->e);
  if (r < 0 || (r = call_need_namespace(c, doc)) < 0)
    return r;
  w->g = (struct group_new){
      .ns = WISH(namespace)->there ? WISH(namespace)->s
                                   : slice_of(c->who.ns[0] ? c->who.ns : ACCESS_NS_DEFAULT),
      .name = WISH(name)->s,
      .channel = WISH(channel)->there ? (enum channel)WISH(channel)->i : CHANNEL_HTTP,
      .routing = WISH(routing)->there ? (enum routing)WISH(routing)->i : ROUTING_ROUND_ROBIN,
      .max_connections = (int32_t)WISH(max_connections)->i};
  r = group_bounds_of(WISH(max_concurrent), WISH(rate_limit), WISH(rate_burst), &w->g.bounds, &c->e);
  if (r < 0)
    return r;
  w->expected = WISH(version)->there ? WISH(version)->i : -1;
  return 0;
}

static int plan_group(struct call *c, struct group_wish *w) {
  int r = registry_group_plan(c->api->o.registry, &w->g, &w->plan, &c->mem, &c->e);
  if (r < 0)
    return r;
  const struct group_row *was = &w->plan.was;
  int32_t version = w->plan.there ? was->version : 0;
  if (w->expected >= 0 && w->expected != version)
    return err_field(&c->e, ERR_STALE, "/version", "the group %.*s has version %d, not %d",
                     SLICE_FMT(w->g.name), version, (int)w->expected);
  auto_json *old = w->plan.there ? options_json(was) : NULL, *new = options_json(&w->plan.put.group);
  task_differences(w->differences, old, new);
  w->writes = !w->plan.there || json_array_size(w->differences);
  return w->writes ? access_need_role(&c->who, ROLE_ADMIN, &c->e) : 0;
}

static int check_twice(struct call *c, const struct group_wish *all, size_t i) {
  for (size_t k = 0; k < i; k++)
    if (slice_eq(all[k].g.name, all[i].g.name) && slice_eq(all[k].g.ns, all[i].g.ns))
      return err_field(&c->e, ERR_CONFLICT, "/name", "the group %.*s stands here twice: also at number %zu",
                       SLICE_FMT(all[i].g.name), k + 1);
  return 0;
}

/* *ret_puts: what the store shall write. */
static int plan_groups(struct call *c, const json_t *docs, struct group_wish *all, struct st_group_put *puts,
                       size_t *ret_count) {
  size_t n = 0;
  for (size_t i = 0; i < json_array_size(docs); i++) {
    all[i].differences = json_array();
    int r = read_group(c, json_array_get(docs, i), &all[i]);
    if (r == 0 && (r = check_twice(c, all, i)) == 0)
      r = plan_group(c, &all[i]);
    if (r < 0) {
      (void)err_at(&c->e, arena_printf(&c->mem, "/groups/%zu", i));
      return r;
    }
    if (!all[i].writes)
      continue;
    all[i].at = n;
    puts[n++] = all[i].plan.put;
  }
  *ret_count = n;
  return 0;
}

/* `rows`: those that were written. */
static json_t *group_item(const struct group_wish *w, const struct group_row *rows, bool dry_run) {
  const struct group_row *row = !w->writes ? &w->plan.was : dry_run ? NULL : &rows[w->at];
  json_t *o = json_object();
  put(o, "kind", json_string("group"));
  put(o, "action", json_string(!w->writes ? "unchanged" : w->plan.there ? "changed" : "created"));
  put_text(o, "namespace", w->g.ns);
  put_text(o, "name", w->g.name);
  if (w->plan.there || row)
    put_id(o, "id", w->plan.there ? w->plan.was.id : row->id);
  put(o, "from_version", json_integer(w->plan.there ? w->plan.was.version : 0));
  if (row && !dry_run)
    put(o, "version", json_integer(row->version));
  put(o, "differences", json_incref(w->differences));
  if (row && !dry_run && !w->plan.there)
    put_text(o, "secret", slice_of(w->plan.secret));
  return o;
}

/* ------------------------------------------------------------------ apply */

static void count_actions(json_t *doc, const json_t *items) {
  static const char *const names[] = {"created", "changed", "unchanged", "deleted"};
  for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
    int64_t n = 0;
    for (size_t i = 0; i < json_array_size(items); i++)
      n += strcmp(json_string_value(json_object_get(json_array_get(items, i), "action")), names[k]) == 0;
    put(doc, names[k], json_integer(n));
  }
}

static int need_namespaces(struct call *c, const json_t *docs, const char *list) {
  for (size_t i = 0; i < json_array_size(docs); i++) {
    int r = call_need_namespace(c, json_array_get(docs, i));
    if (r < 0) {
      (void)err_at(&c->e, arena_printf(&c->mem, "/%s/%zu", list, i));
      return r;
    }
  }
  return 0;
}

/* A group that was written, by its number in the store's call, is the one at another number of the document. */
static void name_group(struct call *c, const struct group_wish *all, size_t count) {
  static const char list[] = "/groups/";
  int64_t k;
  if (strncmp(c->e.field, list, sizeof list - 1) != 0)
    return;
  struct slice rest, number = slice_cut(slice_of(c->e.field + sizeof list - 1), '/', &rest);
  const char *tail = rest.n ? arena_printf(&c->mem, "/%.*s", SLICE_FMT(rest)) : "";
  if (parse_i64(number, 0, INT32_MAX, &k, NULL) < 0)
    return;
  for (size_t i = 0; i < count; i++)
    if (all[i].writes && all[i].at == (size_t)k) {
      (void)snprintf(c->e.field, sizeof c->e.field, "%s%zu%s", list, i, tail);
      return;
    }
}

static int written(struct call *c, const struct group_row *rows, size_t count) {
  int r = 0;
  for (size_t i = 0; r == 0 && i < count; i++)
    r = registry_group_written(c->api->o.registry, &rows[i], &c->e);
  return r;
}

static int apply(struct call *c, struct group_wish *groups, size_t group_count) {
  const json_t *docs = IN(c, apply, groups)->j;
  struct task_apply a = {.tasks = IN(c, apply, tasks)->j,
                         .remove = IN(c, apply, remove)->j,
                         .source = IN(c, apply, source)->s,
                         .dry_run = IN(c, apply, dry_run)->b,
                         .adopt = IN(c, apply, adopt)->b,
                         .cancel = IN(c, apply, cancel)->b};
  struct st_group_put *puts = arena_array(&c->mem, group_count + 1, sizeof *puts);
  struct group_row *rows = NULL;
  auto_json *items = NULL;
  struct task_call tc = call_task(c);
  tc.note = IN(c, apply, note)->s;
  a.groups = puts;
  int r = need_namespaces(c, a.tasks, "tasks");
  if (r < 0 || (r = plan_groups(c, docs, groups, puts, &a.group_count)) < 0)
    return r;
  if ((r = task_apply(c->api->o.tasks, &tc, &a, &rows, &items)) < 0) {
    name_group(c, groups, group_count);
    return r;
  }
  if (!a.dry_run && (r = written(c, rows, a.group_count)) < 0)
    return r;
  json_t *doc = json_object(), *all = json_array();
  for (size_t i = 0; i < group_count; i++)
    (void)json_array_append_new(all, group_item(&groups[i], rows, a.dry_run));
  (void)json_array_extend(all, items); /* fails only without memory, as the one before */
  count_actions(doc, all);
  put(doc, "dry_run", json_boolean(a.dry_run));
  put(doc, "items", all);
  return call_json(c, 200, doc);
}

int on_apply(struct call *c) {
  size_t n = json_array_size(IN(c, apply, groups)->j);
  if (!n && !json_array_size(IN(c, apply, tasks)->j) && !json_array_size(IN(c, apply, remove)->j))
    return err_set(&c->e, ERR_MISSING, "expected at least one group, task or removal");
  struct group_wish *groups = arena_array(&c->mem, n + 1, sizeof *groups);
  int r = apply(c, groups, n);
  for (size_t i = 0; i < n; i++) {
    json_decref(groups[i].differences);
    explicit_bzero(groups[i].plan.secret, sizeof groups[i].plan.secret);
  }
  return r;
}

/* ------------------------------------------------------------------ export */

int on_export(struct call *c) {
  struct st_task_list filter = {.ns = c->query[Q_namespace].s,
                                .group = c->query[Q_group].s,
                                .handler = c->query[Q_handler].s,
                                .name_prefix = c->query[Q_name_prefix].s,
                                .managed_by = c->query[Q_managed_by].s,
                                .state = -1,
                                .kind = -1,
                                .limit = (int32_t)c->query[Q_limit].i};
  struct st_task_list_ret found;
  struct task_call tc = call_task(c);
  int r = cursor_read(c, &filter.after, sizeof filter.after);
  if (r < 0 || (r = task_list(c->api->o.tasks, &tc, &filter, &found)) < 0)
    return r;
  auto_json *items = json_array();
  size_t n = 0, bytes = 0;
  for (; n < found.count && bytes < EXPORT_PAGE_BYTES; n++) {
    json_t *doc = NULL;
    if ((r = task_export(&found.tasks[n], &doc, &c->e)) < 0)
      return r;
    bytes += found.tasks[n].payload.n;
    (void)json_array_append_new(items, doc); /* fails only without memory */
  }
  const char *next = NULL;
  if (n && (n < found.count || n == (size_t)filter.limit))
    next = cursor_make(c, &found.tasks[n - 1].v.task_id, sizeof filter.after);
  return call_list(c, json_incref(items), next);
}

/* ------------------------------------------------------------------ versions */

int on_tasks_history(struct call *c) {
  struct st_task_versions page = {.limit = (int32_t)c->query[Q_limit].i};
  struct task_call tc = call_task(c);
  int32_t before = 0;
  json_t *items = NULL;
  int r = cursor_read(c, &page.before, sizeof page.before);
  if (r < 0 ||
      (r = task_history(c->api->o.tasks, &tc, call_task_ref(c, c->param[0]), &page, &before, &items)) < 0)
    return r;
  return call_list(c, items, before ? cursor_make(c, &before, sizeof before) : NULL);
}

int on_tasks_rollback(struct call *c) {
  struct task_row t;
  struct task_call tc = call_task(c);
  json_t *doc = NULL;
  int r = task_rollback(c->api->o.tasks, &tc, call_task_ref(c, c->param[0]),
                        (int32_t)IN(c, rollback, version)->i, &t);
  if (r < 0 || (r = task_json(&t, true, &doc, &c->e)) < 0)
    return r;
  call_etag(c, t.v.version);
  return call_json(c, 200, doc);
}
