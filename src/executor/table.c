/* The snapshot: groups, their members, and who has which handler. */
#include "base/json.h"
#include "executor/internal.h"
#include <stdlib.h>

enum { GROUP_KEY_MAX = 512 };

/* "namespace/name"; 0: longer than any that was accepted. */
static size_t make_key(char *buf, struct slice ns, struct slice name) {
  if (ns.n + name.n + 1 > GROUP_KEY_MAX)
    return 0;
  memcpy(buf, ns.p, ns.n);
  buf[ns.n] = '/';
  memcpy(buf + ns.n + 1, name.p, name.n);
  return ns.n + 1 + name.n;
}

static struct group *find_any(struct registry *r, struct slice ns, struct slice name) {
  char key[GROUP_KEY_MAX];
  size_t n = make_key(key, ns, name);
  struct group *g = NULL;
  if (n)
    HASH_FIND(hh, r->groups, key, n, g);
  return g;
}

struct group *group_find(struct registry *r, struct slice ns, struct slice name) {
  struct group *g = find_any(r, ns, name);
  return g && g->exists ? g : NULL;
}

struct group *group_make(struct registry *r, struct slice ns, struct slice name) {
  struct group *g = find_any(r, ns, name);
  if (!g) {
    char key[GROUP_KEY_MAX];
    size_t n = make_key(key, ns, name);
    g = mem_zalloc(sizeof *g + n + 1); /* the key is a C string, too */
    memcpy(g->key, key, n);
    g->ns = mem_slicedup(ns);
    g->name = mem_slicedup(name);
    HASH_ADD_KEYPTR(hh, r->groups, g->key, n, g);
  }
  g->exists = true;
  g->routes_stale = true;
  return g;
}

/* ------------------------------------------------------------------ incarnations */

struct instance *instance_ref(struct instance *i) {
  i->refs++;
  return i;
}

static void inst_free(struct inst *x) {
  target_unref(&x->i.target);
  for (size_t n = 0; n < x->handler_count; n++)
    mem_free(x->handlers[n]);
  mem_free(x->handlers);
  json_decref(x->labels);
  mem_free((char *)(uintptr_t)x->i.id); /* ns and group are the group's */
  mem_free(x);
}

void instance_unref(struct instance **i) {
  if (*i && --(*i)->refs == 0)
    inst_free((struct inst *)*i);
  *i = NULL;
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

struct inst *inst_new(struct group *g, const struct executor_row *row, struct target *target) {
  struct inst *x = mem_zalloc(sizeof *x);
  x->group = g;
  x->i = (struct instance){.ns = g->ns,
                           .group = g->name,
                           .id = mem_slicedup(row->id),
                           .incarnation = row->incarnation,
                           .target = target,
                           .slots = row->slots,
                           .max_connections = g->max_connections,
                           .refs = 1};
  x->hash = slice_hash(row->id);
  x->weight = row->weight;
  if (json_read(row->labels, REGISTRY_LABELS_MAX_BYTES, &x->labels, NULL) < 0)
    x->labels = NULL;
  auto_json *list = NULL;
  if (json_read(row->handlers, SIZE_MAX, &list, NULL) < 0) /* then it has none: never chosen */
    return x;
  size_t n = json_array_size(list);
  x->handlers = mem_array(n, sizeof *x->handlers);
  for (size_t k = 0; k < n; k++) {
    const char *text = json_string_value(json_array_get(list, k));
    if (text && strcmp(text, "*") == 0)
      x->any_handler = true;
    else if (text)
      x->handlers[x->handler_count++] = mem_strdup(text);
  }
  if (x->handler_count)
    qsort(x->handlers, x->handler_count, sizeof *x->handlers, by_text);
  return x;
}

/* ------------------------------------------------------------------ members */

struct member *member_find(struct group *g, struct slice id) {
  struct member *m;
  HASH_FIND(hh, g->members, id.p, id.n, m);
  return m;
}

/* The incarnation ends: whoever runs on it must be told, unless that was done when it was lost. */
static void drop_inst(struct member *m, struct events *v) {
  if (alive(m->state))
    event_lost(v, m->inst);
  struct instance *i = &m->inst->i;
  instance_unref(&i);
  m->inst = NULL;
}

struct member *member_put(struct group *g, struct inst *x, enum executor_state state, struct events *v) {
  struct member *m = member_find(g, slice_of(x->i.id));
  if (m) {
    HASH_DEL(g->members, m); /* its key is the incarnation's own text */
    drop_inst(m, v);
  } else {
    m = mem_zalloc(sizeof *m);
  }
  m->inst = x;
  m->state = state;
  x->online = state == EXECUTOR_ONLINE;
  HASH_ADD_KEYPTR(hh, g->members, x->i.id, strlen(x->i.id), m);
  g->routes_stale = true;
  if (state == EXECUTOR_ONLINE)
    event_capacity(v, g);
  return m;
}

void member_set_state(struct member *m, enum executor_state state, struct events *v) {
  if (m->state == state)
    return;
  if (alive(m->state) && !alive(state))
    event_lost(v, m->inst);
  if (state == EXECUTOR_ONLINE)
    event_capacity(v, m->inst->group);
  m->state = state;
  m->inst->online = state == EXECUTOR_ONLINE;
}

void member_set_weight(struct member *m, int32_t weight) {
  if (m->inst->weight == weight)
    return;
  m->inst->weight = weight;
  m->inst->group->routes_stale = true;
}

void member_remove(struct registry *r, struct group *g, struct member *m, struct events *v) {
  pending_remove(r, m);
  HASH_DEL(g->members, m);
  drop_inst(m, v);
  mem_free(m);
  g->routes_stale = true;
}

void group_set_bounds(struct registry *r, struct group *g, const struct group_bounds *b) {
  bool same = g->bounds.max_concurrent == b->max_concurrent && g->bounds.rate_milli == b->rate_milli &&
              g->bounds.rate_burst == b->rate_burst;
  g->bounds = *b;
  if (!same && r->hooks.on_bounds)
    r->hooks.on_bounds(r->hooks.arg, slice_of(g->ns), slice_of(g->name), b);
}

void group_gone(struct registry *r, struct group *g, struct events *v) {
  struct member *m, *next;
  group_set_bounds(r, g, &(struct group_bounds){0});
  HASH_ITER (hh, g->members, m, next) {
    member_remove(r, g, m, v);
  }
  for (int n = 0; n < 2; n++) {
    mem_freep(&g->sealed[n]);
    explicit_bzero(g->secrets.text[n], sizeof g->secrets.text[n]);
  }
  g->exists = false;
}

/* ------------------------------------------------------------------ the end */

void table_free(struct registry *r) {
  struct group *g, *next;
  struct events v = {0};
  r->hooks = (struct registry_hooks){0}; /* nobody listens any more: the events are only freed */
  HASH_ITER (hh, r->groups, g, next) {
    group_gone(r, g, &v);
    routes_clear(g);
    HASH_DEL(r->groups, g);
    mem_free(g->ns);
    mem_free(g->name);
    mem_free(g);
  }
  events_deliver(r, &v);
}
