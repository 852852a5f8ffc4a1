#include "core/shares.h"

struct plan {
  const struct share_view *v;
  size_t nodes; /* looked at */
  enum share share[SHARE_NODES_MAX];
  int64_t have[SHARE_NODES_MAX], target[SHARE_NODES_MAX];
  bool fixed[SHARE_NODES_MAX]; /* its target is what it has */
  size_t in_flight;            /* shards without an owner, or about to be */
  enum share taker;            /* nodes of this share get what is free */
};

static void look_at_nodes(struct plan *p) {
  const struct share_view *v = p->v;
  bool in_order = false, full = false;
  p->nodes = v->node_count < SHARE_NODES_MAX ? v->node_count : SHARE_NODES_MAX;
  for (size_t i = 0; i < p->nodes; i++) {
    const struct share_node *n = &v->nodes[i];
    p->share[i] = n->alive && !n->drained ? n->share : SHARE_NONE;
    in_order = in_order || p->share[i] >= SHARE_KEEP;
  }
  for (size_t i = 0; i < p->nodes; i++) {
    if (p->share[i] == SHARE_LAST)
      p->share[i] = in_order ? SHARE_NONE : SHARE_FULL;
    full = full || p->share[i] == SHARE_FULL;
  }
  p->taker = full ? SHARE_FULL : SHARE_KEEP;
}

static void count(struct plan *p) {
  for (size_t i = 0; i < p->v->shard_count; i++) {
    const struct share_shard *s = &p->v->shards[i];
    if (s->owner < 0 || s->going)
      p->in_flight++;
    else if ((size_t)s->owner < p->nodes)
      p->have[s->owner]++;
  }
}

/* Who has more keeps the odd ones; the order of the ids decides among equals. */
static int64_t rank(const struct plan *p, size_t me) {
  int64_t before = 0;
  for (size_t i = 0; i < p->nodes; i++)
    before += p->share[i] >= SHARE_KEEP && !p->fixed[i] && i != me &&
              (p->have[i] > p->have[me] || (p->have[i] == p->have[me] && i < me));
  return before;
}

/* A node that takes over nothing is counted with what it has, the others have an even share of the rest. */
static void set_targets(struct plan *p) {
  int64_t pool = (int64_t)p->v->shard_count, n = 0;
  for (size_t i = 0; i < p->nodes; i++)
    n += p->share[i] >= SHARE_KEEP;
  for (bool again = true; again && n > 0;) {
    again = false;
    for (size_t i = 0; i < p->nodes && n > 0; i++)
      if (p->share[i] == SHARE_KEEP && !p->fixed[i] && p->have[i] < pool / n) {
        p->fixed[i] = again = true;
        p->target[i] = p->have[i];
        pool -= p->have[i];
        n--;
      }
  }
  for (size_t i = 0; i < p->nodes; i++)
    if (p->share[i] >= SHARE_KEEP && !p->fixed[i])
      p->target[i] = pool / n + (rank(p, i) < pool % n);
}

/* The one that is furthest below its share; -1: nobody takes anything. */
static int64_t next_taker(const struct plan *p) {
  int64_t best = -1;
  for (size_t i = 0; i < p->nodes; i++)
    if (p->share[i] == p->taker && (best < 0 || p->have[i] - p->target[i] < p->have[best] - p->target[best]))
      best = (int64_t)i;
  return best;
}

/* What is free is dealt out, shard by shard; this node claims what falls to it. */
static void deal(struct plan *p, struct share_plan *ret) {
  size_t me = p->v->me;
  for (size_t i = 0; i < p->v->shard_count; i++) {
    const struct share_shard *s = &p->v->shards[i];
    if (s->owner >= 0 || s->going)
      continue;
    int64_t taker = next_taker(p);
    if (taker < 0)
      return;
    p->have[taker]++;
    bool mine = (size_t)taker == me || s->waited;
    if (mine && (p->share[me] == SHARE_FULL || (p->share[me] == SHARE_KEEP && !s->lapsed)))
      ret->claim[ret->claims++] = s->id;
  }
}

static bool others_take(const struct plan *p) {
  bool any = false;
  for (size_t i = 0; i < p->nodes; i++)
    any = any || (i != p->v->me && p->share[i] == p->taker);
  return any;
}

/* How many shards may be on their way besides those that are. A node that leaves with nobody to take over need not mind. */
static size_t room_for_moves(const struct plan *p, bool alone) {
  if (alone)
    return p->v->shard_count;
  return p->v->moves > p->in_flight ? p->v->moves - p->in_flight : 0;
}

static void give_up(struct plan *p, int64_t mine, struct share_plan *ret) {
  const struct share_view *v = p->v;
  size_t me = v->me;
  ret->takers = others_take(p);
  bool leaves = v->nodes[me].drained || v->nodes[me].share == SHARE_NONE;
  if (p->share[me] != SHARE_NONE)
    mine -= p->target[me];
  else if (!leaves && p->taker != SHARE_FULL)
    return; /* its clock: only to those that take it */
  size_t room = room_for_moves(p, leaves && !ret->takers);
  for (size_t i = 0; i < v->shard_count && mine > 0 && ret->releases < room; i++)
    if (v->shards[i].owner == (int32_t)me && !v->shards[i].going) {
      ret->release[ret->releases++] = v->shards[i].id;
      mine--;
    }
}

void shares_plan(const struct share_view *v, struct share_plan *ret) {
  struct plan p = {.v = v};
  ret->claims = ret->releases = 0;
  ret->takers = false;
  if (v->me >= v->node_count || v->me >= SHARE_NODES_MAX)
    return;
  look_at_nodes(&p);
  count(&p);
  set_targets(&p);
  int64_t mine = p.have[v->me];
  deal(&p, ret);
  give_up(&p, mine, ret);
}
