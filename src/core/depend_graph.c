/* Who may depend on whom: nobody on himself, however far round, and not too many one after the other. */
#include "base/mem.h"
#include "core/depend.h"
#include <stdlib.h>

struct node {
  int64_t id;
  size_t parents; /* not passed yet */
  size_t depth;   /* tasks of the longest chain that ends here */
};

struct graph {
  const struct depend_link *links;
  struct depend_link *by_parent; /* the same in the order of their parents */
  size_t link_count;
  struct node *nodes; /* by id */
  size_t node_count;
};

static int by_id(const void *a, const void *b) {
  int64_t x = ((const struct node *)a)->id, y = ((const struct node *)b)->id;
  return (x > y) - (x < y);
}

static int by_parent(const void *a, const void *b) {
  int64_t x = ((const struct depend_link *)a)->parent, y = ((const struct depend_link *)b)->parent;
  return (x > y) - (x < y);
}

static struct node *find(struct graph *g, int64_t id) {
  const struct node key = {.id = id};
  return bsearch(&key, g->nodes, g->node_count, sizeof *g->nodes, by_id);
}

static void build(struct graph *g, const struct depend_link *links, size_t count) {
  g->links = links;
  g->link_count = count;
  g->by_parent = mem_array(count, sizeof *g->by_parent);
  memcpy(g->by_parent, links, count * sizeof *links);
  qsort(g->by_parent, count, sizeof *g->by_parent, by_parent);
  g->nodes = mem_array(2 * count, sizeof *g->nodes);
  for (size_t i = 0; i < count; i++) {
    g->nodes[2 * i].id = links[i].child;
    g->nodes[2 * i + 1].id = links[i].parent;
  }
  qsort(g->nodes, 2 * count, sizeof *g->nodes, by_id);
  for (size_t i = 0; i < 2 * count; i++)
    if (!g->node_count || g->nodes[g->node_count - 1].id != g->nodes[i].id)
      g->nodes[g->node_count++] = g->nodes[i];
  for (size_t i = 0; i < count; i++)
    find(g, links[i].child)->parents++;
}

/* Pass all that come after nothing, then all that come after those, … What is left has parents that are left: it comes after itself,
 * or after one that does. Returns the greatest depth of those passed. */
static size_t pass(struct graph *g, size_t *ret_left) {
  struct node **ready = mem_array(g->node_count, sizeof *ready);
  size_t n = 0, done = 0, most = 0;
  for (size_t i = 0; i < g->node_count; i++) {
    g->nodes[i].depth = 1;
    if (!g->nodes[i].parents)
      ready[n++] = &g->nodes[i];
  }
  for (; done < n; done++) {
    const struct node *p = ready[done];
    size_t lo = 0, hi = g->link_count;
    most = p->depth > most ? p->depth : most;
    while (lo < hi) {
      size_t mid = lo + (hi - lo) / 2;
      if (g->by_parent[mid].parent < p->id)
        lo = mid + 1;
      else
        hi = mid;
    }
    for (; lo < g->link_count && g->by_parent[lo].parent == p->id; lo++) {
      struct node *c = find(g, g->by_parent[lo].child);
      c->depth = p->depth + 1 > c->depth ? p->depth + 1 : c->depth;
      if (--c->parents == 0)
        ready[n++] = c;
    }
  }
  mem_free(ready);
  *ret_left = g->node_count - done;
  return most;
}

static const struct depend_link *link_left(struct graph *g, int64_t child) {
  for (size_t i = 0; i < g->link_count; i++)
    if (g->links[i].child == child && find(g, g->links[i].parent)->parents)
      return &g->links[i];
  return NULL;
}

static bool is_changed(const int64_t *changed, size_t count, int64_t id) {
  for (size_t i = 0; i < count; i++)
    if (changed[i] == id)
      return true;
  return false;
}

/* "a after c after b after a", as far as there is room. */
static int say(struct graph *g, const struct depend_link *from, struct err *e) {
  auto_str s;
  str_init(&s, ERR_TEXT_MAX - 64);
  str_add(&s, from->child_name);
  for (const struct depend_link *l = from; !str_failed(&s); l = link_left(g, l->parent)) {
    str_addz(&s, " after ");
    str_add(&s, l->parent_name);
    if (l->parent == from->child)
      return err_set(e, ERR_INVALID, "the task would come after itself: %.*s", SLICE_FMT(str_slice(&s)));
  }
  return err_set(e, ERR_INVALID, "the task would come after itself, by way of many others");
}

/* From any that is left upwards one comes into a cycle; it goes through a changed task, for there was none before. */
static int blame(struct graph *g, const int64_t *changed, size_t count, struct depend_link *ret,
                 struct err *e) {
  const struct depend_link *l = NULL;
  for (size_t i = 0; i < g->node_count && !l; i++)
    if (g->nodes[i].parents)
      l = link_left(g, g->nodes[i].id);
  for (size_t steps = 0; steps < g->node_count; steps++)
    l = link_left(g, l->parent); /* now in the cycle */
  for (size_t steps = 0; steps < g->node_count && !is_changed(changed, count, l->child); steps++)
    l = link_left(g, l->parent);
  *ret = *l;
  return say(g, l, e);
}

int depend_check(const struct depend_link *links, size_t count, const int64_t *changed, size_t changed_count,
                 struct depend_link *ret, struct err *e) {
  struct graph g = {0};
  size_t left = 0;
  int r = 0;
  if (!count)
    return 0;
  build(&g, links, count);
  size_t most = pass(&g, &left);
  if (left) {
    r = blame(&g, changed, changed_count, ret, e);
  } else if (most > DEPEND_DEPTH_MAX) {
    *ret = (struct depend_link){.child = changed_count ? changed[0] : 0};
    r = err_set(e, ERR_INVALID, "%zu tasks would come one after the other, at most %d may", most,
                DEPEND_DEPTH_MAX);
  }
  mem_free(g.by_parent);
  mem_free(g.nodes);
  return r;
}
