/* The hot path: which instance shall do a run. */
#include "base/log.h"
#include "base/metric.h"
#include "core/rendezvous.h"
#include "executor/internal.h"

/* ------------------------------------------------------------------ who can take it now? */

struct search {
  const struct choose_ask *ask;
  usec_t now;
  struct route *route;
  bool online;     /* seen one that is, */
  bool healthy;    /* and one whose breaker lets deliveries through */
  usec_t retry_at; /* the first of those with a slot that only cool down, or whose breaker lets one through */
};

static bool is_excluded(const struct choose_ask *a, const char *id) {
  for (size_t n = 0; n < a->exclude_count; n++)
    if (slice_eqz(a->exclude[n], id))
      return true;
  return false;
}

static bool is_previous(const struct choose_ask *a, const char *id) {
  return a->previous.n && slice_eqz(a->previous, id);
}

static void retry_at(struct search *s, usec_t at) { s->retry_at = at < s->retry_at ? at : s->retry_at; }

static bool is_online(const struct inst *x) { return x->online && x->i.target; }

/* Online, in order, and a slot free now? */
static enum breaker_advice advice(struct search *s, struct inst *x) {
  if (!is_online(x))
    return BREAKER_NO;
  s->online = true;
  enum breaker_advice a = breaker_ask(&x->breaker, s->now);
  if (a == BREAKER_NO) {
    retry_at(s, x->breaker.until);
    return BREAKER_NO;
  }
  s->healthy = true;
  if (atomic_load_explicit(&x->i.running, memory_order_relaxed) >= x->i.slots)
    return BREAKER_NO;
  usec_t cool = atomic_load_explicit(&x->cool_until, memory_order_relaxed);
  if (cool > s->now) {
    retry_at(s, cool);
    return BREAKER_NO;
  }
  return a == BREAKER_YES && is_excluded(s->ask, x->i.id) ? BREAKER_RATHER_NOT : a;
}

/* The same, for routings that try another one at the next attempt. */
static enum breaker_advice advice_anew(struct search *s, struct inst *x) {
  enum breaker_advice a = advice(s, x);
  return a == BREAKER_YES && is_previous(s->ask, x->i.id) ? BREAKER_RATHER_NOT : a;
}

/* ------------------------------------------------------------------ routings that leave no choice */

static struct inst *find_pinned(const struct route *t, struct slice id) {
  for (size_t n = 0; n < t->all; n++)
    if (slice_eqz(id, t->list[n].inst->i.id))
      return t->list[n].inst;
  return NULL;
}

static struct inst *find_first(const struct route *t) {
  for (size_t n = 0; n < t->count; n++)
    if (is_online(t->list[n].inst))
      return t->list[n].inst;
  return NULL;
}

/* The one of the highest rank among those that are in order; among all, when none is. */
static struct inst *find_hashed(const struct route *t, uint64_t key, usec_t now) {
  struct inst *best = NULL;
  bool best_good = false;
  uint64_t best_hash = 0;
  double best_rank = 0;
  for (size_t n = 0; n < t->count; n++) {
    struct inst *x = t->list[n].inst;
    bool good = breaker_ask(&x->breaker, now) != BREAKER_NO;
    if (!is_online(x) || (best_good && !good))
      continue;
    uint64_t hash = rendezvous_hash(key, x->hash);
    double rank = t->even ? 0 : rendezvous_rank(hash, x->weight);
    if (best && best_good == good && (t->even ? hash <= best_hash : rank <= best_rank))
      continue;
    best = x;
    best_good = good;
    best_hash = hash;
    best_rank = rank;
  }
  return best;
}

static enum routing routing_of(const struct group *g, const struct choose_ask *a) {
  if (a->pin.n)
    return ROUTING_PINNED;
  return a->routing < ROUTING_MAX_ ? a->routing : g->routing;
}

/* True: the routing names one instance, which the run gets or waits for; NULL: there is none. */
static bool find_only(const struct search *s, enum routing how, struct inst **ret) {
  switch (how) {
  case ROUTING_PINNED: *ret = find_pinned(s->route, s->ask->pin); return true;
  case ROUTING_FIRST: *ret = find_first(s->route); return true;
  case ROUTING_CONSISTENT_HASH: *ret = find_hashed(s->route, s->ask->key, s->now); return true;
  case ROUTING_ROUND_ROBIN:
  case ROUTING_LEAST_BUSY:
  case ROUTING_RANDOM:
  case ROUTING_FAILOVER:
  case ROUTING_MAX_: break;
  }
  return false;
}

/* ------------------------------------------------------------------ routings that choose */

/* Is a less busy than b, by the share of its slots, which count for as much as its weight says? */
static bool less_busy(const struct inst *a, const struct inst *b) {
  int64_t x = atomic_load_explicit(&a->i.running, memory_order_relaxed);
  int64_t y = atomic_load_explicit(&b->i.running, memory_order_relaxed);
  return x * b->i.slots * b->weight < y * a->i.slots * a->weight;
}

static bool is_idle(const struct inst *x) {
  return atomic_load_explicit(&x->i.running, memory_order_relaxed) == 0;
}

/* Go round once from where the last one ended. ROUND_ROBIN ends at the first that is free, LEAST_BUSY at one that does nothing. */
static struct inst *go_round(struct search *s, bool least_busy) {
  struct route *t = s->route;
  struct inst *best = NULL;
  enum breaker_advice best_advice = BREAKER_NO;
  size_t start = t->next < t->count ? t->next : 0;
  for (size_t n = 0, at = start; n < t->count; n++, at = at + 1 < t->count ? at + 1 : 0) {
    struct inst *x = t->list[at].inst;
    enum breaker_advice a = advice_anew(s, x);
    if (a > best_advice || (a && a == best_advice && least_busy && less_busy(x, best))) {
      best = x;
      best_advice = a;
      t->next = at + 1;
    }
    if (best_advice == BREAKER_YES && (!least_busy || is_idle(best)))
      break;
  }
  return best;
}

/* FAILOVER: the first by id that can take it. What failed there before says nothing against it, its breaker does. */
static struct inst *go_down(struct search *s) {
  struct inst *best = NULL;
  enum breaker_advice best_advice = BREAKER_NO;
  for (size_t n = 0; n < s->route->count && best_advice != BREAKER_YES; n++) {
    enum breaker_advice a = advice(s, s->route->list[n].inst);
    if (a <= best_advice)
      continue;
    best = s->route->list[n].inst;
    best_advice = a;
  }
  return best;
}

/* ROUND_ROBIN with weights: everybody who can take it earns its weight, the richest one gets it and pays for all. */
static struct inst *go_by_credit(struct search *s) {
  struct route *t = s->route;
  struct place *best = NULL;
  enum breaker_advice class = BREAKER_NO;
  int64_t total = 0;
  for (size_t n = 0; n < t->count && class != BREAKER_YES; n++) {
    enum breaker_advice a = advice_anew(s, t->list[n].inst);
    class = a > class ? a : class;
  }
  for (size_t n = 0; n < t->count && class; n++) {
    struct place *p = &t->list[n];
    if (advice_anew(s, p->inst) != class)
      continue;
    p->credit += p->inst->weight;
    total += p->inst->weight;
    if (!best || p->credit > best->credit)
      best = p;
  }
  if (best)
    best->credit -= total;
  return best ? best->inst : NULL;
}

/* RANDOM: each that can take it with a probability by its weight. */
static struct inst *draw(struct search *s, struct rng *rng) {
  struct inst *best[BREAKER_YES + 1] = {NULL};
  uint64_t total[BREAKER_YES + 1] = {0};
  for (size_t n = 0; n < s->route->count; n++) {
    struct inst *x = s->route->list[n].inst;
    enum breaker_advice a = advice_anew(s, x);
    total[a] += (uint64_t)x->weight;
    if (a != BREAKER_NO && rng_below(rng, total[a]) < (uint64_t)x->weight)
      best[a] = x;
  }
  return best[BREAKER_YES] ? best[BREAKER_YES] : best[BREAKER_RATHER_NOT];
}

static struct inst *find_any(struct registry *r, struct search *s, enum routing how) {
  switch (how) {
  case ROUTING_ROUND_ROBIN: return s->route->even ? go_round(s, false) : go_by_credit(s);
  case ROUTING_LEAST_BUSY: return go_round(s, true);
  case ROUTING_RANDOM: return draw(s, &r->rng);
  case ROUTING_FAILOVER: return go_down(s);
  case ROUTING_CONSISTENT_HASH:
  case ROUTING_FIRST:
  case ROUTING_PINNED:
  case ROUTING_MAX_: break;
  }
  return NULL;
}

static struct inst *find(struct registry *r, struct search *s, const struct group *g) {
  struct inst *only;
  enum routing how = routing_of(g, s->ask);
  if (!find_only(s, how, &only))
    return find_any(r, s, how);
  return only && advice(s, only) ? only : NULL;
}

/* ------------------------------------------------------------------ choosing */

/* Why there was none: what is missing, or what has to be waited for. */
static int why_none(const struct search *s, bool unnamed, bool resting, struct err *e) {
  const struct choose_ask *a = s->ask;
  bool pin = a->pin.n, labels = a->labels.n;
  if (unnamed)
    return err_set(e, ERR_NOT_FOUND, "the routing of \"%.*s/%.*s\" is PINNED, and the task names no executor",
                   SLICE_FMT(a->ns), SLICE_FMT(a->group));
  if (s->healthy)
    return err_set(e, ERR_BUSY, "every executor for \"%.*s\" is busy", SLICE_FMT(a->handler));
  if (s->online)
    return err_set(e, ERR_UNAVAILABLE, "every executor for \"%.*s\" has failed: the breaker is open",
                   SLICE_FMT(a->handler));
  return err_set(e, ERR_NOT_FOUND, "no executor%s%.*s%s of \"%.*s/%.*s\" is online for \"%.*s\"%s%.*s%s",
                 pin ? " \"" : "", SLICE_FMT(a->pin), pin ? "\"" : "", SLICE_FMT(a->ns), SLICE_FMT(a->group),
                 SLICE_FMT(a->handler), labels ? " with the labels " : "", SLICE_FMT(a->labels),
                 resting ? ", but with the weight 0" : "");
}

int registry_choose(struct registry *r, const struct choose_ask *ask, struct instance **ret,
                    usec_t *ret_retry_at, struct err *e) {
  struct search s = {.ask = ask, .now = registry_mono(r), .retry_at = USEC_NEVER};
  struct inst *x = NULL;
  bool unnamed = false, resting = false;
  mutex_lock(&r->lock);
  struct group *g = group_find(r, ask->ns, ask->group);
  if (g) {
    s.route = route_for(g, ask->handler, ask->labels);
    x = find(r, &s, g);
  }
  if (x) {
    x->i.running++;
    breaker_chosen(&x->breaker, s.now);
    *ret = instance_ref(&x->i);
  } else if (g) {
    g->waiting = true;
    unnamed = !ask->pin.n && routing_of(g, ask) == ROUTING_PINNED;
    resting = !ask->pin.n && s.route->all > s.route->count;
  }
  mutex_unlock(&r->lock);
  if (x)
    return 0;
  if (s.online && ret_retry_at)
    *ret_retry_at = s.retry_at;
  return why_none(&s, unnamed, resting, e);
}

void registry_only(struct registry *r, const struct choose_ask *ask, char ret_id[REGISTRY_ID_MAX]) {
  struct search s = {.ask = ask, .now = registry_mono(r)};
  struct inst *only = NULL;
  struct slice id = ask->pin;
  mutex_lock(&r->lock);
  struct group *g = group_find(r, ask->ns, ask->group);
  if (g && !id.n) {
    s.route = route_for(g, ask->handler, ask->labels);
    (void)find_only(&s, routing_of(g, ask), &only); /* no: any of several */
  }
  if (only)
    id = slice_of(only->i.id);
  (void)text_copy(ret_id, REGISTRY_ID_MAX, id); /* ids are shorter */
  mutex_unlock(&r->lock);
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

static void log_breaker(const struct instance *i, enum breaker_state was, const struct breaker *b) {
  char buf[TIME_TEXT_MAX];
  if (b->state == BREAKER_OPEN && was != b->state)
    log_warn("deliveries to an executor fail; it gets none for a while", LF_S("namespace", i->ns),
             LF_S("group", i->group), LF_S("executor", i->id), LF_I("failures", b->failures),
             LF_S("pause", duration_format(b->open_for, buf)));
  if (b->state == BREAKER_CLOSED && was != b->state)
    log_info("an executor takes deliveries again", LF_S("namespace", i->ns), LF_S("group", i->group),
             LF_S("executor", i->id));
}

void registry_answered(struct registry *r, struct instance *i, enum breaker_event ev) {
  struct inst *x = (struct inst *)i;
  if (ev == BREAKER_ANSWERED && !atomic_load_explicit(&x->troubled, memory_order_relaxed))
    return;
  struct events v = {0};
  mutex_lock(&r->lock);
  enum breaker_state was = x->breaker.state;
  breaker_step(&x->breaker, &r->o.breaker, ev, registry_mono(r));
  struct breaker now = x->breaker;
  x->troubled = !breaker_is_calm(&now);
  if (was != BREAKER_CLOSED && now.state == BREAKER_CLOSED)
    event_capacity(&v, x->group);
  mutex_unlock(&r->lock);
  if (was != BREAKER_OPEN && now.state == BREAKER_OPEN)
    metric_add(r->opened, 1);
  log_breaker(i, was, &now);
  events_deliver(r, &v);
}

int registry_secrets(struct registry *r, const struct instance *i, struct registry_secrets *ret) {
  const struct group *g = ((const struct inst *)i)->group;
  mutex_lock(&r->lock);
  bool good = g->exists && g->secrets.text[0][0];
  if (good)
    *ret = g->secrets;
  mutex_unlock(&r->lock);
  return good ? 0 : ERR_NOT_FOUND;
}

struct executor_here registry_here(struct registry *r, struct slice ns, struct slice group, struct slice id) {
  struct executor_here h = {0};
  mutex_lock(&r->lock);
  struct group *g = group_find(r, ns, group);
  const struct member *m = g ? member_find(g, id) : NULL;
  if (m)
    h = (struct executor_here){m->inst->i.running, m->inst->breaker.state};
  mutex_unlock(&r->lock);
  return h;
}

void registry_counts(struct registry *r, void (*each)(void *arg, const struct group_counts *c), void *arg) {
  mutex_lock(&r->lock);
  for (struct group *g = r->groups; g; g = g->hh.next) {
    struct group_counts c = {.ns = g->ns, .group = g->name};
    for (struct member *m = g->members; m; m = m->hh.next) {
      c.by_state[m->state]++;
      if (!alive(m->state))
        continue;
      c.by_breaker[m->inst->breaker.state]++;
      c.slots += m->inst->i.slots;
      c.taken += m->inst->i.running;
    }
    each(arg, &c);
  }
  mutex_unlock(&r->lock);
}
