/* Who may have a run: the instances with its handler and its labels, as lists that are kept until the members change. */
#include "executor/internal.h"
#include "core/task_fields.h"
#include <assert.h>
#include <stdlib.h>

enum { ROUTES_MAX = 4096 /* of one group; beyond, all are made anew as they are asked for */ };

void routes_clear(struct group *g) {
  struct route *x, *next;
  HASH_ITER (hh, g->routes, x, next) {
    HASH_DEL(g->routes, x);
    mem_free(x->list);
    mem_free(x);
  }
  g->routes_stale = false;
}

static int by_text(const void *key, const void *item) { return strcmp(key, *(char *const *)item); }

static bool has_handler(const struct inst *x, const char *handler) {
  return x->any_handler ||
         (x->handler_count && bsearch(handler, x->handlers, x->handler_count, sizeof *x->handlers, by_text));
}

static bool has_labels(const struct inst *x, const json_t *wanted) {
  const char *key;
  json_t *value;
  json_object_foreach ((json_t *)(uintptr_t)wanted, key, value) {
    if (!json_equal(json_object_get(x->labels, key), value))
      return false;
  }
  return true;
}

/* Those that get runs first, then by id. */
static int by_id(const void *a, const void *b) {
  const struct inst *x = ((const struct place *)a)->inst, *y = ((const struct place *)b)->inst;
  if ((x->weight > 0) != (y->weight > 0))
    return x->weight > 0 ? -1 : 1;
  return strcmp(x->i.id, y->i.id);
}

static void fill(struct route *t, const struct group *g, const char *handler, const json_t *labels) {
  t->list = mem_array(HASH_COUNT(g->members), sizeof *t->list);
  for (const struct member *m = g->members; m; m = m->hh.next)
    if (has_handler(m->inst, handler) && has_labels(m->inst, labels))
      t->list[t->all++] = (struct place){.inst = m->inst};
  if (t->all)
    qsort(t->list, t->all, sizeof *t->list, by_id);
  while (t->count < t->all && t->list[t->count].inst->weight > 0)
    t->count++;
  t->even = true;
  for (size_t n = 1; n < t->count; n++)
    t->even = t->even && t->list[n].inst->weight == t->list[0].inst->weight;
}

/* `key`: the handler, with a NUL; behind it the labels, if there are any. */
static struct route *make(struct group *g, struct slice key, struct slice labels) {
  if (HASH_COUNT(g->routes) >= ROUTES_MAX)
    routes_clear(g);
  auto_json *wanted = NULL;
  struct route *t = mem_zalloc(sizeof *t + key.n + 1);
  memcpy(t->key, key.p, key.n);
  if (!labels.n || json_read(labels, labels.n, &wanted, NULL) >= 0) /* else nobody has them */
    fill(t, g, t->key, wanted);
  t->next = t->count ? g->routes_made++ % t->count : 0;
  HASH_ADD_KEYPTR(hh, g->routes, t->key, key.n, t);
  return t;
}

struct route *route_for(struct group *g, struct slice handler, struct slice labels) {
  char buf[TASK_NAME_MAX + 1 + TASK_LABELS_MAX];
  struct slice key = handler;
  if (labels.n) {
    assert(handler.n <= TASK_NAME_MAX && labels.n <= TASK_LABELS_MAX);
    memcpy(buf, handler.p, handler.n);
    buf[handler.n] = 0;
    memcpy(buf + handler.n + 1, labels.p, labels.n);
    key = slice_n(buf, handler.n + 1 + labels.n);
  }
  if (g->routes_stale)
    routes_clear(g);
  struct route *t;
  HASH_FIND(hh, g->routes, key.p, key.n, t);
  return t ? t : make(g, key, labels);
}
