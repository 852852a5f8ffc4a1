/* /api/v1/executor-groups and /api/v1/executors */
#include "api/internal.h"

/* ------------------------------------------------------------------ groups */

json_t *group_json(const struct group_row *g, const char *secret) {
  json_t *o = json_object();
  put_id(o, "id", g->id);
  put_text(o, "name", g->name);
  put_text(o, "namespace", g->ns);
  put(o, "channel", json_string(channel_names[g->channel]));
  put(o, "routing", json_string(routing_names[g->routing]));
  put(o, "max_connections", json_integer(g->max_connections));
  put(o, "max_concurrent", json_integer(g->max_concurrent));
  put(o, "rate_limit", json_real((double)g->rate_milli / 1000));
  put(o, "rate_burst", json_integer(g->rate_burst));
  put(o, "version", json_integer(g->version));
  put_time(o, "created_at", g->created_at);
  put_time(o, "updated_at", g->updated_at);
  put_text(o, "secret", slice_of(secret));
  return o;
}

static int group_answer(struct call *c, int status, const struct group_row *g, const char *secret) {
  call_etag(c, g->version);
  return call_json(c, status, group_json(g, secret));
}

static int query_ns(struct call *c, struct slice *ret) {
  *ret = c->query[Q_namespace].s;
  if (!ret->n)
    *ret = slice_of(c->who.ns);
  return ret->n ? access_need_ns(&c->who, *ret, &c->e) : 0;
}

int on_groups_list(struct call *c) {
  struct slice ns;
  struct st_group_list_ret found;
  int r = query_ns(c, &ns);
  if (r < 0 || (r = registry_group_list(c->api->o.registry, ns, &found, &c->mem, &c->e)) < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; i < found.count; i++)
    (void)json_array_append_new(items, group_json(&found.rows[i], NULL)); /* fails only without memory */
  return call_list(c, items, NULL);
}

/* A namespace named in a body: the token's own or the default one when left out; it must exist. */
static int body_ns(struct call *c, const struct value *v, struct slice *ret) {
  *ret = v->there ? v->s : slice_of(c->who.ns[0] ? c->who.ns : ACCESS_NS_DEFAULT);
  int r = access_need_ns(&c->who, *ret, &c->e);
  return r < 0 ? r : access_namespace_need(c->api->o.access, *ret, &c->e);
}

int group_bounds_of(const struct value *concurrent, const struct value *rate, const struct value *burst,
                    struct group_bounds *b, struct err *e) {
  if (concurrent->there)
    b->max_concurrent = (int32_t)concurrent->i;
  if (burst->there)
    b->rate_burst = (int32_t)burst->i;
  if (!rate->there)
    return 0;
  b->rate_milli = (int64_t)(rate->d * 1000 + .5);
  return rate->d > 0 && !b->rate_milli
             ? err_field(e, ERR_INVALID, "/rate_limit", "expected at least 0.001, or 0")
             : 0;
}

int on_groups_create(struct call *c) {
  const struct value *channel = IN(c, group_new, channel), *routing = IN(c, group_new, routing);
  struct group_new g = {.name = IN(c, group_new, name)->s,
                        .channel = channel->there ? (enum channel)channel->i : CHANNEL_HTTP,
                        .routing = routing->there ? (enum routing)routing->i : ROUTING_ROUND_ROBIN,
                        .max_connections = (int32_t)IN(c, group_new, max_connections)->i};
  char secret[REGISTRY_SECRET_MAX];
  struct group_row row;
  int r = body_ns(c, IN(c, group_new, namespace), &g.ns);
  if (r >= 0)
    r = group_bounds_of(IN(c, group_new, max_concurrent), IN(c, group_new, rate_limit),
                        IN(c, group_new, rate_burst), &g.bounds, &c->e);
  if (r < 0 || (r = registry_group_create(c->api->o.registry, &g, secret, &row, &c->mem, &c->e)) < 0)
    return r;
  return group_answer(c, 201, &row, secret);
}

static int find_group(struct call *c, struct group_row *ret) {
  struct slice ns, name;
  int r = call_named(c, c->param[0], &ns, &name);
  return r < 0 ? r : registry_group_get(c->api->o.registry, ns, name, ret, &c->mem, &c->e);
}

int on_groups_get(struct call *c) {
  struct group_row row;
  int r = find_group(c, &row);
  if (r < 0)
    return r;
  return call_unchanged(c, row.version) ? 0 : group_answer(c, 200, &row, NULL);
}

int on_groups_patch(struct call *c) {
  struct group_row row;
  int r = find_group(c, &row);
  if (r < 0)
    return r;
  struct group_new g = {.ns = row.ns,
                        .name = row.name,
                        .channel = row.channel,
                        .routing = row.routing,
                        .max_connections = row.max_connections,
                        .bounds = {row.max_concurrent, row.rate_milli, row.rate_burst}};
  if (IN(c, group_patch, routing)->there)
    g.routing = (enum routing)IN(c, group_patch, routing)->i;
  if (IN(c, group_patch, max_connections)->there)
    g.max_connections = (int32_t)IN(c, group_patch, max_connections)->i;
  r = group_bounds_of(IN(c, group_patch, max_concurrent), IN(c, group_patch, rate_limit),
                      IN(c, group_patch, rate_burst), &g.bounds, &c->e);
  if (r < 0)
    return r;
  /* without If-Match the version just read guards what the patch left alone */
  r = registry_group_change(c->api->o.registry, &g, c->if_version ? c->if_version : row.version, &row,
                            &c->mem, &c->e);
  return r < 0 ? r : group_answer(c, 200, &row, NULL);
}

int on_groups_delete(struct call *c) {
  struct slice ns, name;
  int r = call_named(c, c->param[0], &ns, &name);
  if (r < 0 || (r = registry_group_delete(c->api->o.registry, ns, name, &c->e)) < 0)
    return r;
  return call_empty(c, 204);
}

int on_groups_rotate(struct call *c) {
  char secret[REGISTRY_SECRET_MAX];
  struct slice ns, name;
  struct group_row row;
  int r = call_named(c, c->param[0], &ns, &name);
  if (r < 0 || (r = registry_group_rotate(c->api->o.registry, ns, name, secret, &row, &c->mem, &c->e)) < 0)
    return r;
  return group_answer(c, 200, &row, secret);
}

int on_groups_retire(struct call *c) {
  struct slice ns, name;
  struct group_row row;
  int r = call_named(c, c->param[0], &ns, &name);
  if (r < 0 || (r = registry_group_retire(c->api->o.registry, ns, name, &c->e)) < 0)
    return r;
  r = registry_group_get(c->api->o.registry, ns, name, &row, &c->mem, &c->e);
  return r < 0 ? r : group_answer(c, 200, &row, NULL);
}

/* ------------------------------------------------------------------ executors */

json_t *executor_json(struct api *a, const struct executor_row *x) {
  struct executor_here here = registry_here(a->o.registry, x->ns, x->group, x->id);
  json_t *o = json_object();
  put_text(o, "id", x->id);
  put_text(o, "namespace", x->ns);
  put_text(o, "group", x->group);
  put(o, "state", json_string(executor_state_names[x->state]));
  put_text(o, "url", x->url);
  put_raw(o, "handlers", x->handlers);
  put(o, "slots", json_integer(x->slots));
  put(o, "running", json_integer(x->running));
  put(o, "slots_taken", json_integer(here.running));
  put(o, "weight", json_integer(x->weight));
  put(o, "breaker", json_string(breaker_state_names[here.breaker]));
  put_text(o, "version", x->version);
  put_raw(o, "labels", x->labels);
  put(o, "incarnation", json_integer(x->incarnation));
  put_time(o, "registered_at", x->registered_at);
  put_time(o, "heartbeat_at", x->beat_at);
  return o;
}

int on_executors_list(struct call *c) {
  struct st_executor_list which = {.group = c->query[Q_group].s};
  struct st_executor_list_ret found;
  int r = query_ns(c, &which.ns);
  if (r < 0 || (r = registry_list(c->api->o.registry, &which, &found, &c->mem, &c->e)) < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; i < found.count; i++)
    (void)json_array_append_new(items, executor_json(c->api, &found.rows[i])); /* fails only without memory */
  return call_list(c, items, NULL);
}

/* Which executor the path means: "namespace/group/id", or an id in the token's or the query's group, or one that only one group has. */
struct which {
  struct slice ns, group, id;
};

static int no_executor(struct call *c) {
  return err_set(&c->e, ERR_NOT_FOUND, "there is no executor \"%.*s\"", SLICE_FMT(c->param[0]));
}

static int search(struct call *c, struct which *w, struct executor_row *ret) {
  struct st_executor_list in = {.ns = w->ns, .group = w->group};
  struct st_executor_list_ret found;
  int r = registry_list(c->api->o.registry, &in, &found, &c->mem, &c->e);
  if (r < 0)
    return r;
  const struct executor_row *hit = NULL;
  for (size_t i = 0; i < found.count; i++) {
    if (!slice_eq(found.rows[i].id, w->id))
      continue;
    if (hit)
      return err_field(&c->e, ERR_INVALID, "?group",
                       "several groups have an executor of this id: name the namespace and the group");
    hit = &found.rows[i];
  }
  if (!hit)
    return no_executor(c);
  *w = (struct which){hit->ns, hit->group, hit->id};
  *ret = *hit;
  return 0;
}

/* What the request says by itself; empty parts are not said. */
static int said(struct call *c, struct which *ret) {
  struct slice rest, tail, first = slice_cut(c->param[0], '/', &rest), second = slice_cut(rest, '/', &tail);
  *ret = (struct which){c->query[Q_namespace].s, c->query[Q_group].s, c->param[0]};
  if (tail.p)
    *ret = (struct which){first, second, tail};
  if (!ret->ns.n)
    ret->ns = slice_of(c->who.ns);
  if (!ret->group.n)
    ret->group = slice_of(c->who.group);
  if (ret->ns.n && ret->group.n)
    return access_need_group(&c->who, ret->ns, ret->group, &c->e);
  return ret->ns.n ? access_need_ns(&c->who, ret->ns, &c->e) : 0;
}

/* Both parts of the group are known afterwards; asks the store only when the request does not say them. */
static int find_which(struct call *c, struct which *ret) {
  struct executor_row row;
  int r = said(c, ret);
  return r < 0 || (ret->ns.n && ret->group.n) ? r : search(c, ret, &row);
}

static int executor_answer(struct call *c, struct which *w) {
  struct executor_row row;
  int r = search(c, w, &row);
  return r < 0 ? r : call_json(c, 200, executor_json(c->api, &row));
}

int on_executors_get(struct call *c) {
  struct which w;
  int r = said(c, &w);
  return r < 0 ? r : executor_answer(c, &w);
}

int on_executors_patch(struct call *c) {
  struct which w;
  const struct value *weight = IN(c, executor_patch, weight);
  int r = find_which(c, &w);
  if (r >= 0 && weight->there)
    r = registry_set_weight(c->api->o.registry, w.ns, w.group, w.id, (int32_t)weight->i, &c->e);
  return r < 0 ? r : executor_answer(c, &w);
}

static int set_state(struct call *c, enum executor_state st, struct which *w) {
  int r = find_which(c, w);
  return r < 0 ? r : registry_set_state(c->api->o.registry, w->ns, w->group, w->id, st, &c->e);
}

int on_executors_drain(struct call *c) {
  struct which w;
  int r = set_state(c, EXECUTOR_DRAINING, &w);
  return r < 0 ? r : executor_answer(c, &w);
}

int on_executors_resume(struct call *c) {
  struct which w;
  int r = set_state(c, EXECUTOR_ONLINE, &w);
  return r < 0 ? r : executor_answer(c, &w);
}

int on_executors_deregister(struct call *c) {
  struct which w;
  int r = set_state(c, EXECUTOR_OFFLINE, &w);
  return r < 0 ? r : call_empty(c, 204);
}

int on_executors_beat(struct call *c) {
  struct which w;
  int r = find_which(c, &w);
  if (r < 0)
    return r;
  struct executor_beat b = {.ns = w.ns,
                            .group = w.group,
                            .id = w.id,
                            .incarnation = IN(c, beat, incarnation)->i,
                            .running = (int32_t)IN(c, beat, running)->i};
  enum executor_state state;
  r = registry_beat(c->api->o.registry, &b, &state, &c->e);
  if (r < 0)
    return r;
  json_t *o = json_object();
  put(o, "state", json_string(executor_state_names[state]));
  return call_json(c, 200, o);
}

/* ------------------------------------------------------------------ registration */

static void handlers_of(struct call *c, struct executor_new *x) {
  const json_t *list = IN(c, executor_new, handlers)->j;
  struct slice *names = arena_array(&c->mem, json_array_size(list), sizeof *names);
  for (size_t i = 0; i < json_array_size(list); i++) {
    const json_t *item = json_array_get(list, i);
    names[i] = slice_n(json_string_value(item), json_string_length(item));
  }
  x->handlers = names;
  x->handler_count = json_array_size(list);
}

static int registration_group(struct call *c, struct executor_new *x) {
  const struct value *group = IN(c, executor_new, group);
  int r = body_ns(c, IN(c, executor_new, namespace), &x->ns);
  if (r < 0)
    return r;
  x->group = group->there ? group->s : slice_of(c->who.group);
  if (!x->group.n)
    return err_field(&c->e, ERR_MISSING, "/group", "this field is required: the token is bound to no group");
  return access_need_group(&c->who, x->ns, x->group, &c->e);
}

int on_executors_register(struct call *c) {
  const struct value *weight = IN(c, executor_new, weight);
  struct executor_new x = {.id = IN(c, executor_new, id)->s,
                           .url = IN(c, executor_new, url)->s,
                           .slots = (int32_t)IN(c, executor_new, slots)->i,
                           .weight = weight->there ? (int32_t)weight->i : -1,
                           .version = IN(c, executor_new, version)->s,
                           .labels = IN(c, executor_new, labels)->s};
  handlers_of(c, &x);
  struct executor_registered done;
  int r = registration_group(c, &x);
  if (r < 0 || (r = registry_register(c->api->o.registry, &x, &done, &c->e)) < 0)
    return r;
  json_t *o = json_object();
  put_text(o, "id", x.id);
  put_text(o, "namespace", x.ns);
  put_text(o, "group", x.group);
  put(o, "incarnation", json_integer(done.incarnation));
  put_duration(o, "heartbeat_interval", done.beat_every);
  put_duration(o, "lost_after", done.lost_after);
  return call_json(c, 200, o);
}
