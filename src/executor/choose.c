/* The hot path: which instance shall do a run. */
#include "executor/internal.h"

/* ------------------------------------------------------------------ routes */

static struct route *route_find(struct group *g, struct slice handler) {
  struct route *t;
  HASH_FIND(hh, g->routes, handler.p, handler.n, t);
  return t;
}

static void route_add(struct group *g, struct slice handler) {
  if (route_find(g, handler))
    return;
  struct route *t = mem_zalloc(sizeof *t + handler.n + 1);
  memcpy(t->handler, handler.p, handler.n);
  HASH_ADD_KEYPTR(hh, g->routes, t->handler, handler.n, t);
}

static void route_join(struct route *t, struct inst *x, size_t room) {
  if (t->count && t->list[t->count - 1] == x)
    return; /* named twice */
  if (!t->list)
    t->list = mem_array(room, sizeof *t->list);
  t->list[t->count++] = x;
}

/* Membership changed: who has which handler? Those with "*" stand in every list. The rounds begin anew. */
static void routes_build(struct group *g) {
  struct member *m;
  routes_clear(g);
  route_add(g, SLICE("*"));
  for (m = g->members; m; m = m->hh.next)
    for (size_t n = 0; n < m->inst->handler_count; n++)
      route_add(g, slice_of(m->inst->handlers[n]));
  size_t room = HASH_COUNT(g->members);
  for (m = g->members; m; m = m->hh.next) {
    struct inst *x = m->inst;
    for (size_t n = 0; n < x->handler_count; n++)
      route_join(route_find(g, slice_of(x->handlers[n])), x, room);
    for (struct route *t = x->any_handler ? g->routes : NULL; t; t = t->hh.next)
      route_join(t, x, room);
  }
  g->routes_stale = false;
}

static struct route *route_for(struct group *g, struct slice handler) {
  if (g->routes_stale)
    routes_build(g);
  struct route *t = route_find(g, handler);
  return t ? t : route_find(g, SLICE("*"));
}

/* ------------------------------------------------------------------ choosing */

struct search {
  const struct choose_ask *ask;
  usec_t now;
  bool seen_fitting; /* online, with the handler */
  usec_t cooled_at;  /* the first of those with a slot that only cool down */
  struct inst *best, *best_avoided;
};

static bool is_avoided(const struct choose_ask *a, const char *id) {
  if (a->previous.n && slice_eqz(a->previous, id))
    return true;
  for (size_t n = 0; n < a->exclude_count; n++)
    if (slice_eqz(a->exclude[n], id))
      return true;
  return false;
}

/* Online, with an address; and a slot free now? */
static bool is_free(struct search *s, struct inst *x) {
  if (!x->online || !x->i.target)
    return false;
  s->seen_fitting = true;
  if (atomic_load_explicit(&x->i.running, memory_order_relaxed) >= x->i.slots)
    return false;
  usec_t cool = atomic_load_explicit(&x->cool_until, memory_order_relaxed);
  if (cool > s->now) {
    if (cool < s->cooled_at)
      s->cooled_at = cool;
    return false;
  }
  return true;
}

/* Is a less busy than b, by the share of its slots? */
static bool less_busy(const struct inst *a, const struct inst *b) {
  int64_t x = atomic_load_explicit(&a->i.running, memory_order_relaxed);
  int64_t y = atomic_load_explicit(&b->i.running, memory_order_relaxed);
  return x * b->i.slots < y * a->i.slots;
}

static bool is_idle(const struct inst *x) {
  return atomic_load_explicit(&x->i.running, memory_order_relaxed) == 0;
}

static bool is_shunned(const struct search *s, struct inst *x) {
  return atomic_load_explicit(&x->shun_until, memory_order_relaxed) > s->now;
}

/* Go round once from where the last one ended. ROUND_ROBIN ends at the first that is free, LEAST_BUSY at one that does nothing. */
static void search_route(struct search *s, struct route *t, bool least_busy) {
  bool picky = s->ask->previous.n || s->ask->exclude_count;
  size_t start = t->next < t->count ? t->next : 0;
  for (size_t n = 0, at = start; n < t->count; n++, at = at + 1 < t->count ? at + 1 : 0) {
    struct inst *x = t->list[at];
    if (!is_free(s, x))
      continue;
    bool rather_not = is_shunned(s, x) || (picky && is_avoided(s->ask, x->i.id));
    struct inst **place = rather_not ? &s->best_avoided : &s->best;
    if (!*place || (least_busy && less_busy(x, *place))) {
      *place = x;
      t->next = at + 1;
    }
    if (s->best && (!least_busy || is_idle(s->best)))
      return;
  }
}

static void search_pinned(struct search *s, struct group *g, const struct route *t) {
  struct member *m = member_find(g, s->ask->pin);
  for (size_t n = 0; m && n < t->count; n++)
    if (t->list[n] == m->inst && is_free(s, m->inst))
      s->best = m->inst;
}

int registry_choose(struct registry *r, const struct choose_ask *ask, struct instance **ret,
                    usec_t *ret_retry_at, struct err *e) {
  struct search s = {.ask = ask, .now = registry_mono(r), .cooled_at = USEC_NEVER};
  mutex_lock(&r->lock);
  struct group *g = group_find(r, ask->ns, ask->group);
  if (g) {
    struct route *t = route_for(g, ask->handler);
    if (ask->pin.n)
      search_pinned(&s, g, t);
    else
      search_route(&s, t, g->routing == ROUTING_LEAST_BUSY);
  }
  struct inst *x = s.best ? s.best : s.best_avoided;
  if (x) {
    x->i.running++;
    *ret = instance_ref(&x->i);
  } else if (g) {
    g->waiting = true;
  }
  mutex_unlock(&r->lock);
  if (x)
    return 0;
  if (s.seen_fitting && ret_retry_at)
    *ret_retry_at = s.cooled_at;
  if (s.seen_fitting)
    return err_set(e, ERR_BUSY, "every executor for \"%.*s\" is busy", SLICE_FMT(ask->handler));
  return err_set(e, ERR_NOT_FOUND, "no executor of \"%.*s/%.*s\" is online for \"%.*s\"", SLICE_FMT(ask->ns),
                 SLICE_FMT(ask->group), SLICE_FMT(ask->handler));
}

int registry_adopt(struct registry *r, struct slice ns, struct slice group, struct slice id,
                   struct instance **ret) {
  mutex_lock(&r->lock);
  struct group *g = group_find(r, ns, group);
  struct member *m = g ? member_find(g, id) : NULL;
  bool good = m && m->inst->i.target && alive(m->state);
  if (good) {
    m->inst->i.running++;
    *ret = instance_ref(&m->inst->i);
  }
  mutex_unlock(&r->lock);
  return good ? 0 : ERR_NOT_FOUND;
}

void registry_release(struct registry *r, struct instance **i) {
  if (!*i)
    return;
  struct group *g = ((struct inst *)*i)->group;
  struct events v = {0};
  (*i)->running--;
  mutex_lock(&r->lock);
  if (g->waiting) {
    g->waiting = false;
    event_capacity(&v, g);
  }
  mutex_unlock(&r->lock);
  instance_unref(i);
  events_deliver(r, &v);
}

void registry_cool(struct instance *i, usec_t until) { ((struct inst *)i)->cool_until = until; }

void registry_shun(struct instance *i, usec_t until) { ((struct inst *)i)->shun_until = until; }

int registry_secrets(struct registry *r, const struct instance *i, struct registry_secrets *ret) {
  const struct group *g = ((const struct inst *)i)->group;
  mutex_lock(&r->lock);
  bool good = g->exists && g->secrets.text[0][0];
  if (good)
    *ret = g->secrets;
  mutex_unlock(&r->lock);
  return good ? 0 : ERR_NOT_FOUND;
}

int32_t registry_running(struct registry *r, struct slice ns, struct slice group, struct slice id) {
  mutex_lock(&r->lock);
  struct group *g = group_find(r, ns, group);
  struct member *m = g ? member_find(g, id) : NULL;
  int32_t n = m ? m->inst->i.running : 0;
  mutex_unlock(&r->lock);
  return n;
}

void registry_counts(struct registry *r, void (*each)(void *arg, const struct group_counts *c), void *arg) {
  mutex_lock(&r->lock);
  for (struct group *g = r->groups; g; g = g->hh.next) {
    struct group_counts c = {.ns = g->ns, .group = g->name};
    for (struct member *m = g->members; m; m = m->hh.next) {
      c.by_state[m->state]++;
      if (!alive(m->state))
        continue;
      c.slots += m->inst->i.slots;
      c.taken += m->inst->i.running;
    }
    each(arg, &c);
  }
  mutex_unlock(&r->lock);
}
