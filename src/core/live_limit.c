#include "core/live_run.h"

/* Bounds of executor groups and namespaces: who may start, and who waits. A run counts for its group's limit and through it for its
 * namespace's. What waits is a task, with the first run of its queue: the higher priority first, then the older one. Groups and namespaces
 * without bounds have no limit here, and their runs cost nothing. */

/* ---------------------------------------------------------------- the heap of those who wait */

static bool goes_before(const struct live_run *a, const struct live_run *b) {
  if (a->spec->priority != b->spec->priority)
    return a->spec->priority > b->spec->priority;
  return live_fired_before(a, b);
}

static void heap_put(struct live_limit *x, size_t i, struct live_task *t) {
  x->heap[i] = t;
  t->waits_pos = i;
}

static void heap_up(struct live_limit *x, size_t i) {
  struct live_task *t = x->heap[i];
  for (; i > 0 && goes_before(t->waits_with, x->heap[(i - 1) / 2]->waits_with); i = (i - 1) / 2)
    heap_put(x, i, x->heap[(i - 1) / 2]);
  heap_put(x, i, t);
}

static void heap_down(struct live_limit *x, size_t i) {
  struct live_task *t = x->heap[i];
  for (size_t c; (c = 2 * i + 1) < x->count; i = c) {
    if (c + 1 < x->count && goes_before(x->heap[c + 1]->waits_with, x->heap[c]->waits_with))
      c++;
    if (!goes_before(x->heap[c]->waits_with, t->waits_with))
      break;
    heap_put(x, i, x->heap[c]);
  }
  heap_put(x, i, t);
}

static void leave(struct live_task *t) {
  struct live_limit *x = take(t->waits_at);
  struct live_task *last = x->heap[--x->count];
  x->queued -= t->waits_count;
  t->waits_count = 0;
  if (last == t)
    return;
  heap_put(x, t->waits_pos, last);
  heap_up(x, last->waits_pos);
  heap_down(x, last->waits_pos);
}

static void join(struct live_limit *x, struct live_task *t) {
  t->waits_at = x;
  t->waits_with = t->head;
  mem_reserve(x->heap, x->count, x->cap);
  heap_put(x, x->count++, t);
  heap_up(x, x->count - 1);
}

/* ---------------------------------------------------------------- room */

static bool has_room(const struct live_limit *x, bool committed) {
  int64_t active = committed ? x->active : x->active - x->ending;
  return active < x->most;
}

/* When the bucket holds a token; 0 = now. */
static usec_t ready_at(const struct live_limit *x) {
  if (!x->rate || x->tokens >= 1)
    return 0;
  return x->filled_at + 1 + (usec_t)((1 - x->tokens) / x->rate * (double)USEC_PER_SEC);
}

static bool is_ready(const struct live *l, const struct live_limit *x) {
  return has_room(x, false) && ready_at(x) <= l->now;
}

static struct live_limit *top_of(struct live_limit *x) { return x->parent ? x->parent : x; }

static void better(const struct live *l, const struct live_limit *x, struct live_run **best) {
  if (x->count && is_ready(l, x) && (!*best || goes_before(x->heap[0]->waits_with, *best)))
    *best = x->heap[0]->waits_with;
}

/* The one of all that wait in a namespace that goes next; those whose group lets nobody start now do not count. */
static struct live_run *first_of(const struct live *l, const struct live_limit *top) {
  struct live_run *best = NULL;
  better(l, top, &best);
  for (const struct live_limit *x = top->children; x; x = x->next)
    better(l, x, &best);
  return best;
}

struct live_run *live_limit_first(const struct live *l, struct live_limit *x) {
  const struct live_limit *top = top_of(x);
  if (l->held || !has_room(top, false))
    return NULL;
  if (top->bound.max_concurrent)
    return first_of(l, top);
  return x->count && is_ready(l, x) ? x->heap[0]->waits_with : NULL;
}

bool live_bounded(const struct live *l, const struct live_limit *x) {
  const struct live_limit *top = x->parent ? x->parent : x;
  return l->held || !has_room(x, true) || !has_room(top, true) || ready_at(x) > l->now || x->count ||
         (top->bound.max_concurrent && first_of(l, top));
}

/* ---------------------------------------------------------------- who may go */

static bool task_admits(const struct live_task *t, const struct live_run *r) {
  return t->active - t->ending < overlap_max(r->spec->overlap_policy, r->spec->max_concurrent);
}

usec_t live_turn_at(const struct live *l, const struct live_run *r) {
  const struct live_task *t = r->task;
  struct live_limit *x = r->limit;
  if (r != t->head || !task_admits(t, r))
    return USEC_NEVER;
  if (!x)
    return 0;
  if (t->waits_at != x || x->heap[0] != t || !has_room(x, false) || l->held)
    return USEC_NEVER;
  if (ready_at(x) > l->now)
    return ready_at(x);
  return live_limit_first(l, x) == r ? 0 : USEC_NEVER;
}

void live_pump(struct live *l, struct live_limit *x) {
  struct live_run *r = live_limit_first(l, x);
  if (r)
    live_wake(l, r, 0);
  if (x->count && has_room(x, false) && ready_at(x) > l->now) {
    r = x->heap[0]->waits_with;
    live_wake(l, r, live_next_timer(l, r));
  }
}

void live_review(struct live *l, struct live_task *t) {
  struct live_run *r = t->head;
  bool admitted = r && task_admits(t, r);
  struct live_limit *where = admitted ? r->limit : NULL;
  if (t->waits_at && (t->waits_at != where || t->waits_with != r)) {
    struct live_limit *left = t->waits_at;
    leave(t);
    live_pump(l, left); /* it may have been its turn: now it is another's */
  }
  if (!where) {
    if (admitted)
      live_wake(l, r, 0);
    return;
  }
  if (!t->waits_at)
    join(where, t);
  where->queued += t->queue_count - t->waits_count;
  t->waits_count = t->queue_count;
  live_pump(l, where);
}

/* ---------------------------------------------------------------- counting */

static void fill(struct live_limit *x, usec_t now) {
  if (now > x->filled_at) {
    double tokens = x->tokens + (double)(now - x->filled_at) / (double)USEC_PER_SEC * x->rate;
    x->tokens = tokens < x->burst ? tokens : x->burst;
  }
  x->filled_at = now;
}

static void pay(struct live_limit *x, usec_t now) {
  if (!x->rate)
    return;
  fill(x, now);
  x->tokens -= 1;
  if (x->tokens < -x->burst) /* what further attempts may take in advance */
    x->tokens = -x->burst;
}

void live_limit_pay(const struct live *l, struct live_limit *x) { pay(x, l->now); }

void live_limit_count(struct live_limit *x, int64_t active, int64_t ending) {
  for (; x; x = x->parent) {
    x->active += active;
    x->ending += ending;
    if (active < 0 && x->most > x->goal)
      x->most = x->most + active > x->goal ? x->most + active : x->goal;
  }
}

void live_limit_move(struct live *l, struct live_limit *x, int64_t n) {
  for (; x && l->shared; x = x->parent) {
    if (!x->bound.max_concurrent)
      continue;
    x->most = x->most + n > 0 ? x->most + n : 0;
    x->goal = x->goal + n > 0 ? x->goal + n : 0;
  }
}

void live_limit_reserve(struct live *l, struct live_limit *x) {
  live_limit_count(x, 1, 0);
  pay(x, l->now);
}

void live_limit_unreserve(struct live *l, struct live_limit *x) {
  live_limit_count(x, -1, 0);
  if (x->rate)
    x->tokens = x->tokens + 1 < x->burst ? x->tokens + 1 : x->burst;
  live_pump(l, x);
}

void live_clock(struct live *l, usec_t now) {
  if (now <
      l->now) /* the estimate of the database's time was set back: nobody waits for the time in between */
    for (struct live_limit *x = l->limits_by_key; x; x = x->hh.next)
      x->filled_at = x->filled_at < now ? x->filled_at : now;
  l->now = now;
}

/* ---------------------------------------------------------------- the bounds */

enum { KEY_MAX = 520 };

/* "namespace", or "namespace/group": neither has a slash in it. Empty: too long to be one. */
static size_t key_of(struct slice ns, struct slice group, char key[KEY_MAX]) {
  if (ns.n + group.n + 1 > KEY_MAX)
    return 0;
  memcpy(key, ns.p, ns.n);
  if (!group.p)
    return ns.n;
  key[ns.n] = '/';
  memcpy(key + ns.n + 1, group.p, group.n);
  return ns.n + 1 + group.n;
}

static struct live_limit *find(const struct live *l, struct slice ns, struct slice group) {
  char key[KEY_MAX];
  size_t n = key_of(ns, group, key);
  struct live_limit *x;
  HASH_FIND(hh, l->limits_by_key, key, n, x);
  return x;
}

struct live_limit *live_limit_of(const struct live *l, const struct task_spec *spec) {
  if (!l->limits_by_key)
    return NULL;
  struct slice ns = slice_of(spec->ns);
  struct live_limit *x = find(l, ns, slice_of(spec->group));
  if (x)
    return x;
  x = find(l, ns, (struct slice){0});
  return x && x->bound.max_concurrent ? x : NULL;
}

static struct live_limit *make(struct live *l, struct slice ns, struct slice group) {
  struct live_limit *x = find(l, ns, group);
  if (x)
    return x;
  char key[KEY_MAX];
  size_t n = key_of(ns, group, key);
  x = mem_zalloc(sizeof *x + n + 1);
  memcpy(x->key, key, n);
  x->most = x->goal = INT64_MAX;
  HASH_ADD_KEYPTR(hh, l->limits_by_key, x->key, n, x);
  if (group.p) {
    x->parent = make(l, ns, (struct slice){0});
    x->next = x->parent->children;
    x->parent->children = x;
  }
  return x;
}

/* All is counted anew: a run may have a limit now that it had not, or another one. */
static void count_anew(struct live *l) {
  struct live_task *t, *tnext;
  struct live_run *r, *next;
  HASH_ITER (hh, l->tasks, t, tnext) {
    if (t->waits_at)
      leave(t);
  }
  for (struct live_limit *x = l->limits_by_key; x; x = x->hh.next)
    x->active = x->ending = 0;
  HASH_ITER (hh, l->runs, r, next) {
    r->limit = live_limit_of(l, r->spec);
    if (r->active)
      live_limit_count(r->limit, 1, r->ended);
  }
  HASH_ITER (hh, l->tasks, t, tnext) {
    if (t->head)
      live_review(l, t);
  }
}

/* A bucket of less than one would never let anything start. */
static void set_rate(const struct live *l, struct live_limit *x) {
  double burst = x->bound.burst * l->rate_share;
  x->rate = x->bound.rate * l->rate_share;
  x->burst = burst > 1 ? burst : 1;
}

/* The bound has changed, or who shares it. A part stays as it is; the first part is what runs here already. */
static void set_most(const struct live *l, struct live_limit *x) {
  int64_t whole = x->bound.max_concurrent;
  if (!whole)
    x->most = INT64_MAX;
  else if (!l->shared)
    x->most = whole;
  else if (x->most == INT64_MAX)
    x->most = x->active;
  x->goal = whole && l->shared && x->goal < x->most ? x->goal : x->most;
}

void live_share(struct live *l, bool shared, double rate_share) {
  bool changed = l->shared != shared;
  l->shared = shared;
  l->rate_share = rate_share;
  for (struct live_limit *x = l->limits_by_key; x; x = x->hh.next) {
    if (x->rate > 0)
      fill(x, l->now);
    set_rate(l, x);
    x->tokens = x->tokens < x->burst ? x->tokens : x->burst;
    if (changed && x->bound.max_concurrent) {
      x->most = x->goal = INT64_MAX;
      set_most(l, x);
    }
    live_pump(l, x);
  }
}

bool live_shares(const struct live *l) { return l->shared; }

bool live_has_bounds(const struct live *l) { return l->limits_by_key != NULL; }

void live_parts_drop(struct live *l) {
  for (struct live_limit *x = l->shared ? l->limits_by_key : NULL; x; x = x->hh.next)
    if (x->bound.max_concurrent)
      x->most = x->goal = x->active;
}

struct live_need *live_needs(const struct live *l, size_t *ret_count) {
  struct live_need *needs = NULL;
  size_t n = 0, cap = 0;
  for (const struct live_limit *x = l->limits_by_key; x; x = x->hh.next) {
    if (!x->bound.max_concurrent)
      continue;
    struct slice group, ns = slice_cut(slice_of(x->key), '/', &group);
    int64_t queued = x->queued;
    for (const struct live_limit *y = x->children; y; y = y->next)
      queued += y->queued;
    mem_reserve(needs, n, cap);
    needs[n++] = (struct live_need){.ns = mem_slicedup(ns),
                                    .group = x->parent ? mem_slicedup(group) : NULL,
                                    .most = x->bound.max_concurrent,
                                    .part = x->most,
                                    .want = x->active + queued};
  }
  *ret_count = n;
  return needs;
}

void live_needs_free(struct live_need *needs, size_t count) {
  for (size_t i = 0; i < count; i++) {
    mem_free(needs[i].ns);
    mem_free(needs[i].group);
  }
  mem_free(needs);
}

void live_part(struct live *l, const struct live_need *of, int64_t given, int64_t goal) {
  struct live_limit *x = find(l, slice_of(of->ns), of->group ? slice_of(of->group) : (struct slice){0});
  if (!x || !l->shared || !x->bound.max_concurrent)
    return; /* what was given for it is given back: its next need says less */
  x->most += given;
  x->goal = goal < x->most ? goal : x->most;
  int64_t least = x->active > x->goal ? x->active : x->goal;
  x->most = x->most < least ? x->most : least;
  live_pump(l, x);
}

void live_bounds_take(struct live *l) {
  if (l->reserved || !l->bounds_count)
    return;
  for (size_t i = 0; i < l->bounds_count; i++) {
    struct live_new_bound *b = &l->bounds[i];
    struct live_limit *x = make(l, slice_of(b->ns), slice_of(b->group));
    bool had = x->rate > 0;
    if (had)
      fill(x, l->now);
    x->bound = b->bound;
    set_rate(l, x);
    set_most(l, x);
    x->tokens = had && x->tokens < x->burst ? x->tokens : x->burst;
    x->filled_at = l->now;
    mem_free(b->ns);
    mem_free(b->group);
  }
  l->bounds_count = 0;
  count_anew(l);
  for (struct live_limit *x = l->shared ? l->limits_by_key : NULL; x; x = x->hh.next)
    if (x->most < x->active) /* it ran before it was bounded */
      x->most = x->goal = x->active;
}

static bool same(const struct live_bound *a, const struct live_bound *b) {
  return a->max_concurrent == b->max_concurrent && a->rate >= b->rate && a->rate <= b->rate &&
         a->burst >= b->burst && a->burst <= b->burst;
}

void live_bound(struct live *l, struct slice ns, struct slice group, const struct live_bound *b) {
  static const struct live_bound none = {0};
  char key[KEY_MAX];
  if (!key_of(ns, group, key))
    return;
  const struct live_limit *x = find(l, ns, group);
  if (!l->bounds_count && same(b, x ? &x->bound : &none))
    return;
  mem_reserve(l->bounds, l->bounds_count, l->bounds_cap);
  l->bounds[l->bounds_count++] =
      (struct live_new_bound){mem_slicedup(ns), group.p ? mem_slicedup(group) : NULL, *b};
  live_bounds_take(l);
}

void live_hold(struct live *l, bool hold) {
  if (l->held == hold)
    return;
  l->held = hold;
  for (struct live_limit *x = hold ? NULL : l->limits_by_key; x; x = x->hh.next)
    live_pump(l, x);
}

void live_limits_free(struct live *l) {
  struct live_limit *x, *next;
  HASH_ITER (hh, l->limits_by_key, x, next) {
    HASH_DEL(l->limits_by_key, x);
    mem_free(x->heap);
    mem_free(x);
  }
  for (size_t i = 0; i < l->bounds_count; i++) {
    mem_free(l->bounds[i].ns);
    mem_free(l->bounds[i].group);
  }
  mem_free(l->bounds);
}

/* ---------------------------------------------------------------- questions */

/* What those who wait at this limit wait for. */
static enum run_wait wait_at(const struct live *l, const struct live_limit *x) {
  const struct live_limit *top = x->parent ? x->parent : x;
  if (x->parent && (l->held || !has_room(x, false)))
    return WAIT_GROUP;
  if (x->parent && ready_at(x) > l->now)
    return WAIT_RATE;
  return top->bound.max_concurrent ? WAIT_NAMESPACE : WAIT_GROUP;
}

enum run_wait live_waits_for(struct live *l, const struct run_key *key) {
  const struct live_run *r = live_find(l, key);
  if (!r || r->phase != PHASE_QUEUED)
    return WAIT_NONE;
  const struct live_task *t = r->task;
  return t->waits_at && task_admits(t, r) ? wait_at(l, t->waits_at) : WAIT_TASK;
}

void live_count_waits(const struct live *l, int64_t ret[WAIT_MAX_]) {
  memset(ret, 0, WAIT_MAX_ * sizeof *ret);
  ret[WAIT_TASK] = (int64_t)l->by_phase[PHASE_QUEUED];
  for (const struct live_limit *x = l->limits_by_key; x; x = x->hh.next) {
    ret[wait_at(l, x)] += x->queued;
    ret[WAIT_TASK] -= x->queued;
  }
}
