#include "base/log.h"
#include "base/mem.h"
#include "cluster/internal.h"

/* What the rows of nodes and shards say, and what follows from it for this node (core/shares). */

enum { MOVES = 4 };                           /* shards without an owner at a time, for the sake of balance */
static const usec_t WAITED = USEC_PER_SEC;    /* then a free shard is for whoever sees it */
static const usec_t POLL = 50 * USEC_PER_MS;  /* while shards are on their way to another owner */
static const usec_t MARGIN = 5 * USEC_PER_MS; /* after the end of another one's lease */

struct look {
  struct cluster *c;
  struct arena mem;
  struct st_node_list_ret nodes;
  struct st_shard_list_ret shards;
  struct share_node *share_nodes;
  struct share_shard *share_shards;
  struct slice *dead; /* nodes that do not renew, by our watch */
  size_t dead_count;
  size_t me; /* nodes.count: not there */
};

static const struct node_row *owner_of(const struct look *l, const struct shard_row *s) {
  for (size_t i = 0; i < l->nodes.count; i++)
    if (cluster_owns(&l->nodes.nodes[i], s))
      return &l->nodes.nodes[i];
  return NULL;
}

/* ---------------------------------------------------------------- who lives */

/* For how long its renewals have not moved, by our own clock. */
static usec_t standstill(struct cluster *c, const struct node_row *n) {
  usec_t now = cluster_mono();
  struct watched *w = NULL;
  for (size_t i = 0; i < c->watched_count && !w; i++)
    if (slice_eqz(n->id, c->watched[i].id))
      w = &c->watched[i];
  if (!w && c->watched_count < WATCHED_MAX)
    w = &c->watched[c->watched_count++];
  if (!w || text_copy(w->id, sizeof w->id, n->id) < 0)
    return 0;
  if (w->moved_at && w->incarnation == n->incarnation && w->renewals == n->renewals)
    return now - w->moved_at;
  w->incarnation = n->incarnation;
  w->renewals = n->renewals;
  w->moved_at = now;
  return 0;
}

/* Those that are gone make room. */
static void unwatch(struct look *l) {
  struct cluster *c = l->c;
  size_t kept = 0;
  for (size_t i = 0; i < c->watched_count; i++) {
    bool there = false;
    for (size_t k = 0; k < l->nodes.count; k++)
      there = there || slice_eqz(l->nodes.nodes[k].id, c->watched[i].id);
    if (there)
      c->watched[kept++] = c->watched[i];
  }
  c->watched_count = kept;
}

static void look_at_node(struct look *l, size_t i) {
  struct cluster *c = l->c;
  const struct node_row *n = &l->nodes.nodes[i];
  bool me = slice_eqz(n->id, c->o.node_id);
  bool lease = n->lease_until > l->nodes.now;
  bool still = !me && lease && standstill(c, n) > 2 * c->o.lease_ttl;
  if (still)
    l->dead[l->dead_count++] = n->id;
  l->share_nodes[i] = (struct share_node){me || (lease && !still), n->drained, n->share};
  usec_t ends = cluster_mono() + (n->lease_until - l->nodes.now) + MARGIN;
  if (!me && lease && ends < c->look_at)
    c->look_at = ends; /* if it dies: at once then */
  if (me)
    l->me = i;
}

/* ---------------------------------------------------------------- who owns what */

static void look_at_shard(struct look *l, size_t i, usec_t now) {
  struct cluster *c = l->c;
  const struct shard_row *s = &l->shards.shards[i];
  const struct node_row *n = owner_of(l, s);
  struct owned ours = cluster_owned_as(c, s->id);
  struct share_shard *x = &l->share_shards[i];
  *x = (struct share_shard){.id = s->id, .owner = -1, .going = ours.stage != STAGE_KEPT};
  if (n && l->share_nodes[n - l->nodes.nodes].alive)
    x->owner = (int32_t)(n - l->nodes.nodes);
  x->lapsed = x->owner < 0 && s->owner.n && !slice_eqz(s->owner, c->o.node_id);
  if (x->owner >= 0)
    c->free_since[s->id] = 0;
  else if (!c->free_since[s->id])
    c->free_since[s->id] = now;
  x->waited = x->owner < 0 && now - c->free_since[s->id] > WAITED;
}

/* Another owner has what we take for ours, or took for it until it was fenced off: we were given up. */
static bool given_up(struct look *l) {
  for (size_t i = 0; i < l->shards.count; i++) {
    const struct shard_row *s = &l->shards.shards[i];
    struct owned ours = cluster_owned_as(l->c, s->id);
    if ((ours.epoch && ours.epoch != s->epoch) || (ours.fenced && ours.fenced != s->epoch))
      return true;
    if (ours.fenced) /* by ourselves: its row is ours still */
      cluster_forget_fenced(l->c, s->id);
  }
  return false;
}

/* ---------------------------------------------------------------- releases */

static int release(struct look *l, const int32_t *ids, size_t n, struct err *e) {
  struct cluster *c = l->c;
  struct st_shard_release_ret none;
  return store_shard_release(
      c->o.store,
      &(struct st_shard_release){
          .node = slice_of(c->o.node_id), .incarnation = c->incarnation, .ids = ids, .count = n},
      &none, &l->mem, e);
}

/* What has been handed over, before the rows are read. */
static int release_quiet(struct look *l, struct err *e) {
  struct cluster *c = l->c;
  int32_t *ids = arena_array(&l->mem, (size_t)c->shard_count, sizeof *ids);
  size_t n = 0;
  mutex_lock(&c->lock);
  for (int32_t i = 0; c->handing && i < c->shard_count; i++)
    if (c->owned[i].stage == STAGE_QUIET)
      ids[n++] = i;
  mutex_unlock(&c->lock);
  if (n == 0)
    return 0;
  int rc =
      release(l, ids, n, e); /* twice, if the answer is lost: nobody else has them with this incarnation */
  if (rc < 0)
    return rc;
  metric_add(c->handovers, (int64_t)n);
  cluster_forget_handed(c, ids, n);
  log_info("shards handed over", LF_I("shards", n), LF_I("owned", cluster_owned(c)));
  return 0;
}

/* Ours as the database says, though we do not know of it: the answer to a claim was lost, or we gave the shard up. It goes back, to be claimed
 * with a new epoch by whoever's turn it is. */
static int release_strays(struct look *l, struct err *e) {
  struct cluster *c = l->c;
  int32_t *ids = arena_array(&l->mem, (size_t)c->shard_count, sizeof *ids);
  size_t n = 0;
  for (size_t i = 0; i < l->shards.count; i++) {
    struct shard_row *s = &l->shards.shards[i];
    if (s->incarnation == c->incarnation && slice_eqz(s->owner, c->o.node_id) &&
        cluster_owned_as(c, s->id).epoch == 0) {
      ids[n++] = s->id;
      s->owner = (struct slice){0};
    }
  }
  return n ? release(l, ids, n, e) : 0;
}

/* ---------------------------------------------------------------- what follows */

static int claim(struct look *l, const int32_t *ids, size_t n, struct err *e) {
  struct cluster *c = l->c;
  struct st_shard_claim_ret got;
  int rc = store_shard_claim(c->o.store,
                             &(struct st_shard_claim){.node = slice_of(c->o.node_id),
                                                      .incarnation = c->incarnation,
                                                      .ids = ids,
                                                      .count = n,
                                                      .dead = l->dead,
                                                      .dead_count = l->dead_count},
                             &got, &l->mem, e);
  for (size_t i = 0; rc >= 0 && i < got.count; i++)
    cluster_take(c, &got.shards[i]);
  if (rc >= 0 && got.count) {
    mutex_lock(&c->lock);
    c->state.unowned -= got.count < c->state.unowned ? got.count : c->state.unowned;
    metric_set(c->unowned_gauge, (double)c->state.unowned);
    mutex_unlock(&c->lock);
    log_info("shards taken over", LF_I("shards", got.count), LF_I("owned", cluster_owned(c)));
  }
  return rc;
}

static void hand_over(struct cluster *c, const int32_t *ids, size_t n) {
  mutex_lock(&c->lock);
  for (size_t i = 0; i < n; i++) {
    struct owned *o = &c->owned[ids[i]];
    if (o->epoch && o->stage == STAGE_KEPT) {
      o->stage = STAGE_GOING;
      c->handing++;
    }
  }
  for (int32_t i = 0; c->handing && i < c->shard_count; i++) /* those of before again: an order may be lost */
    if (c->owned[i].stage == STAGE_GOING)
      c->o.hooks.hand_over(c->o.hooks.arg, i, c->owned[i].epoch);
  mutex_unlock(&c->lock);
}

static size_t zone_versions(const struct look *l) {
  size_t n = 0;
  for (size_t i = 0; i < l->nodes.count; i++) {
    bool first = l->share_nodes[i].alive;
    for (size_t k = 0; k < i; k++)
      first =
          first && !(l->share_nodes[k].alive && slice_eq(l->nodes.nodes[k].tzdata, l->nodes.nodes[i].tzdata));
    n += first;
  }
  return n;
}

static void note_state(struct look *l, const struct share_plan *p) {
  struct cluster *c = l->c;
  struct cluster_state s = {.settled = p->claims == 0,
                            .drained = l->me < l->nodes.count && l->nodes.nodes[l->me].drained,
                            .skewed = c->skewed,
                            .slow = cluster_mono() < c->slow_until,
                            .zones = zone_versions(l)};
  for (size_t i = 0; i < l->nodes.count; i++)
    s.alive += l->share_nodes[i].alive;
  for (size_t i = 0; i < l->shards.count; i++)
    s.unowned += l->share_shards[i].owner < 0;
  mutex_lock(&c->lock);
  struct cluster_state before = c->state;
  c->state = s;
  mutex_unlock(&c->lock);
  metric_set(c->alive_gauge, (double)s.alive);
  metric_set(c->unowned_gauge, (double)s.unowned);
  metric_set(c->zones_gauge, (double)s.zones);
  if (s.zones > 1 && before.zones <= 1)
    log_warn("nodes have different time zone data, an instant may depend on who owns its shard",
             LF_I("versions", s.zones));
  if (s.drained != before.drained)
    log_info(s.drained ? "drained by an operator: all shards go to other nodes"
                       : "resumed by an operator: this node takes its share of the shards");
}

static void read_rows(struct look *l) {
  usec_t now = cluster_mono();
  l->me = l->nodes.count;
  l->dead = arena_array(&l->mem, l->nodes.count + 1, sizeof *l->dead);
  l->share_nodes = arena_array(&l->mem, l->nodes.count + 1, sizeof *l->share_nodes);
  l->share_shards = arena_array(&l->mem, l->shards.count + 1, sizeof *l->share_shards);
  unwatch(l);
  for (size_t i = 0; i < l->nodes.count; i++)
    look_at_node(l, i);
  for (size_t i = 0; i < l->shards.count; i++)
    look_at_shard(l, i, now);
}

static int follow(struct look *l, struct err *e) {
  struct cluster *c = l->c;
  struct share_plan p = {.claim = arena_array(&l->mem, l->shards.count + 1, sizeof *p.claim),
                         .release = arena_array(&l->mem, l->shards.count + 1, sizeof *p.release)};
  shares_plan(
      &(struct share_view){l->share_nodes, l->nodes.count, l->share_shards, l->shards.count, l->me, MOVES},
      &p);
  note_state(l, &p);
  if (c->o.hooks.hand_over)
    hand_over(c, p.release, p.releases);
  int rc = p.claims ? claim(l, p.claim, p.claims, e) : 0;
  mutex_lock(&c->lock);
  bool moving = p.claims || c->handing || (c->state.unowned && c->state.alive > 1);
  mutex_unlock(&c->lock);
  if (moving && cluster_mono() + POLL < c->look_at)
    c->look_at = cluster_mono() + POLL;
  return rc;
}

static int look(struct look *l, struct err *e) {
  struct cluster *c = l->c;
  int rc = release_quiet(l, e);
  if (rc >= 0)
    rc = store_shard_list(c->o.store, &(struct st_shard_list){0}, &l->shards, &l->mem, e);
  if (rc >= 0)
    rc = store_node_list(c->o.store, &(struct st_node_list){0}, &l->nodes, &l->mem, e);
  if (rc < 0)
    return rc;
  if (given_up(l)) {
    log_warn("other nodes own shards that were this one's, joining anew");
    cluster_lose_all(c);
    cluster_look(c);
    return cluster_join(c, e);
  }
  if (c->o.hooks.seen)
    c->o.hooks.seen(c->o.hooks.arg, &l->nodes, &l->shards);
  atomic_store(&c->unsure, false);
  rc = release_strays(l, e);
  if (rc < 0)
    return rc;
  read_rows(l);
  return follow(l, e);
}

int cluster_look_now(struct cluster *c, struct err *e) {
  struct look l = {.c = c};
  int rc = look(&l, e);
  arena_done(&l.mem);
  return rc;
}
