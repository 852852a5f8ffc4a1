#include "executor/internal.h"

static struct event *add(struct events *v) {
  mem_reserve(v->list, v->count, v->cap);
  v->list[v->count] = (struct event){0};
  return &v->list[v->count++];
}

void event_lost(struct events *v, const struct inst *x) {
  *add(v) = (struct event){true, mem_strdup(x->i.ns), mem_strdup(x->i.group), mem_strdup(x->i.id),
                           x->i.incarnation};
}

void event_capacity(struct events *v, const struct group *g) {
  *add(v) = (struct event){false, mem_strdup(g->ns), mem_strdup(g->name), NULL, 0};
}

void events_deliver(struct registry *r, struct events *v) {
  for (size_t n = 0; n < v->count; n++) {
    struct event *x = &v->list[n];
    struct slice ns = slice_of(x->ns), group = slice_of(x->group);
    if (x->lost && r->hooks.on_lost)
      r->hooks.on_lost(r->hooks.arg, ns, group, slice_of(x->id), x->incarnation);
    if (!x->lost && r->hooks.on_capacity)
      r->hooks.on_capacity(r->hooks.arg, ns, group);
    mem_free(x->ns);
    mem_free(x->group);
    mem_free(x->id);
  }
  mem_freep(&v->list);
  *v = (struct events){0};
}
