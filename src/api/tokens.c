/* /api/v1/tokens and /api/v1/namespaces. A token bound to a namespace sees and makes only tokens of that namespace. */
#include "api/internal.h"
#include "base/parse.h"

json_t *token_json(const struct token_row *t, const char *text) {
  json_t *o = json_object();
  put_id(o, "id", t->id);
  put_text(o, "name", t->name);
  put(o, "role", json_string(token_role_names[t->role]));
  put_text(o, "namespace", t->ns);
  put_text(o, "group", t->group);
  put_time(o, "created_at", t->created_at);
  put_text(o, "created_by", t->created_by);
  put_time(o, "expires_at", t->expires_at);
  put_text(o, "token", slice_of(text));
  return o;
}

static bool may_see(const struct call *c, const struct token_row *t) {
  return access_need_ns(&c->who, t->ns, NULL) == 0;
}

int on_tokens_list(struct call *c) {
  int64_t after = 0;
  int32_t limit = (int32_t)c->query[Q_limit].i;
  struct st_token_list_ret found;
  int r = cursor_read(c, &after, sizeof after);
  if (r < 0 || (r = access_token_list(c->api->o.access, after, limit, &found, &c->mem, &c->e)) < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; i < found.count; i++)
    if (may_see(c, &found.rows[i]))
      (void)json_array_append_new(items, token_json(&found.rows[i], NULL)); /* fails only without memory */
  const char *next = NULL;
  if (found.count && found.count == (size_t)limit)
    next = cursor_make(c, &found.rows[found.count - 1].id, sizeof after);
  return call_list(c, items, next);
}

int on_tokens_create(struct call *c) {
  const struct value *ns = IN(c, token_new, namespace);
  struct access_token_new t = {.name = IN(c, token_new, name)->s,
                               .ns = ns->there ? ns->s : slice_of(c->who.ns),
                               .group = IN(c, token_new, group)->s,
                               .role = (enum token_role)IN(c, token_new, role)->i,
                               .expires_at = IN(c, token_new, expires_at)->i};
  char text[ACCESS_TOKEN_TEXT_MAX];
  struct token_row row;
  int r = access_need_ns(&c->who, t.ns, &c->e);
  if (r < 0 || (r = access_token_create(c->api->o.access, &t, slice_of(c->who.name), text, &row, &c->e)) < 0)
    return r;
  return call_json(c, 201, token_json(&row, text));
}

int on_tokens_delete(struct call *c) {
  int64_t id = 0;
  struct st_token_list_ret found = {0};
  int r = parse_i64(c->param[0], 1, INT64_MAX, &id, NULL);
  if (r == 0)
    r = access_token_list(c->api->o.access, id - 1, 1, &found, &c->mem, &c->e);
  else
    r = 0; /* no such number: not found */
  if (r < 0)
    return r;
  if (!found.count || found.rows[0].id != id || !may_see(c, &found.rows[0]))
    return err_set(&c->e, ERR_NOT_FOUND, "there is no such token");
  r = access_token_delete(c->api->o.access, id, slice_of(c->who.name), &c->e);
  return r < 0 ? r : call_empty(c, 204);
}

static json_t *namespace_json(const struct namespace_row *n) {
  json_t *o = json_object();
  put_text(o, "name", n->name);
  if (n->retention_age >= 0)
    put_duration(o, "retention_age", n->retention_age);
  if (n->retention_runs >= 0)
    put(o, "retention_runs", json_integer(n->retention_runs));
  put(o, "max_concurrent", json_integer(n->max_concurrent));
  return o;
}

int on_namespaces_list(struct call *c) {
  struct st_namespace_list_ret found;
  int r = access_namespace_list(c->api->o.access, &found, &c->mem, &c->e);
  if (r < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; i < found.count; i++) {
    if (access_need_ns(&c->who, found.names[i], NULL) < 0)
      continue;
    (void)json_array_append_new(items, namespace_json(&found.rows[i])); /* fails only without memory */
  }
  return call_list(c, items, NULL);
}

int on_namespaces_create(struct call *c) {
  struct slice name = IN(c, namespace_new, name)->s;
  int r = access_need_ns(&c->who, name, &c->e);
  if (r < 0 || (r = access_namespace_create(c->api->o.access, name, slice_of(c->who.name), &c->e)) < 0)
    return r;
  struct namespace_row row = {.name = name, .retention_age = -1, .retention_runs = -1};
  int status = r == 1 ? 200 : 201;
  if (r == 1 && (r = access_namespace_get(c->api->o.access, name, &row, &c->mem, &c->e)) < 0)
    return r;
  return call_json(c, status, namespace_json(&row));
}

/* What the patch says of one field: left alone, null (-1: as the settings say), or a number. */
static int64_t patched(const struct call *c, const char *key, const struct value *v, int64_t old) {
  return v->there ? v->i : json_is_null(json_object_get(c->body, key)) ? -1 : old;
}

int on_namespaces_patch(struct call *c) {
  struct namespace_row row;
  int r = access_need_ns(&c->who, c->param[0], &c->e);
  if (r < 0 || (r = access_namespace_get(c->api->o.access, c->param[0], &row, &c->mem, &c->e)) < 0)
    return r;
  row.retention_age = patched(c, "retention_age", IN(c, namespace_patch, retention_age), row.retention_age);
  row.retention_runs =
      patched(c, "retention_runs", IN(c, namespace_patch, retention_runs), row.retention_runs);
  const struct value *most = IN(c, namespace_patch, max_concurrent);
  if (most->there || json_is_null(json_object_get(c->body, "max_concurrent")))
    row.max_concurrent = most->there ? (int32_t)most->i : 0;
  r = access_namespace_set(c->api->o.access, &row, slice_of(c->who.name), &c->e);
  return r < 0 ? r : call_json(c, 200, namespace_json(&row));
}
