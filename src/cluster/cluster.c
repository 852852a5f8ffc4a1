#include "cluster/internal.h"
#include "cluster/estimate.h"
#include "base/log.h"
#include "base/mem.h"

enum { SKEW_STREAK = 3 }; /* so many renewals in a row must say the same */

usec_t cluster_now(const struct cluster *c) { return cluster_mono() + atomic_load(&c->offset); }

usec_t cluster_offset(const struct cluster *c) { return cluster_now(c) - clock_system.wall(&clock_system); }

static bool alone(const struct cluster *c) { return c->o.store->ops->caps & STORE_CAP_SINGLE_NODE; }

bool cluster_renewed(const struct cluster *c) {
  return cluster_mono() < atomic_load(&c->lease_until) - c->o.lease_ttl / 5;
}

bool cluster_lease_valid(const struct cluster *c) {
  if (alone(c))
    return true; /* the lock file is the lease */
  return cluster_renewed(c) && !atomic_load(&c->unsure);
}

size_t cluster_owned(const struct cluster *c) { return atomic_load(&c->owned_count); }

int32_t cluster_shard_count(const struct cluster *c) { return c->shard_count; }

/* Is the wall clock past the bound? What the round trip leaves open counts for neither answer, and one answer alone for nothing, but the first. */
static void judge_clock(struct cluster *c, usec_t trip) {
  usec_t offset = cluster_offset(c), off = offset < 0 ? -offset : offset, most = c->o.max_clock_skew;
  if (most == 0 || alone(c))
    return;
  bool other = c->skewed ? off + trip / 2 < most : off - trip / 2 > most;
  c->skew_streak = other ? c->skew_streak + 1 : 0;
  if (!other || (c->renewed_at && c->skew_streak < SKEW_STREAK))
    return;
  c->skewed = !c->skewed;
  c->skew_streak = 0;
  metric_set(c->skewed_gauge, c->skewed);
  if (c->skewed)
    log_error("this machine's clock differs too much from the database's, other nodes shall own its shards",
              LF_D("offset", offset), LF_D("most", most));
  else
    log_info("this machine's clock is in order again, it takes its share of the shards",
             LF_D("offset", offset));
}

/* What a round trip that began at `sent` says about the database's clock and our lease. */
static void note_time(struct cluster *c, usec_t sent, usec_t now) {
  usec_t back = cluster_mono();
  if (!cluster_renewed(c)) /* others may have what is ours: first look, then act (cluster_look_now) */
    atomic_store(&c->unsure, true);
  atomic_store(&c->offset,
               estimate_offset(atomic_load(&c->offset), !atomic_load(&c->lease_until), sent, back, now));
  atomic_store(&c->lease_until,
               sent + c->o.lease_ttl); /* counted from before the renewal: never longer than granted */
  metric_set(c->offset_gauge, (double)cluster_offset(c) / (double)USEC_PER_SEC);
  judge_clock(c, back - sent);
  c->renewed_at = back;
}

int cluster_join(struct cluster *c, struct err *e) {
  auto_arena mem = {0};
  struct st_node_join_ret ret;
  usec_t sent = cluster_mono();
  int rc =
      store_node_join(c->o.store,
                      &(struct st_node_join){slice_of(c->o.node_id), slice_of(c->o.address),
                                             slice_of(c->o.version), slice_of(c->o.tzdata), c->o.lease_ttl},
                      &ret, &mem, e);
  if (rc < 0)
    return rc;
  c->incarnation = ret.incarnation;
  note_time(c, sent, ret.now);
  return 0;
}

static struct metric *gauge(const char *name, const char *help) {
  return metric_series(metric_family(name, help, METRIC_GAUGE, "", NULL), NULL);
}

static struct metric *counter(const char *name, const char *help) {
  return metric_series(metric_family(name, help, METRIC_COUNTER, "", NULL), NULL);
}

static void make_metrics(struct cluster *c) {
  c->takeovers = counter("kelou_shard_takeovers_total", "Shards that this node took over");
  c->handovers = counter("kelou_shard_handovers_total", "Shards that this node handed over to others");
  c->fenced = counter("kelou_fencing_rejections_total", "Stale writes refused by an epoch");
  c->owned_gauge = gauge("kelou_shards_owned", "Shards that this node owns");
  c->unowned_gauge = gauge("kelou_shards_unowned", "Shards that no living node owns");
  c->alive_gauge = gauge("kelou_nodes_alive", "Nodes whose lease holds");
  c->zones_gauge =
      gauge("kelou_nodes_tzdata_versions", "Different versions of time zone data on the living nodes");
  c->offset_gauge = gauge("kelou_clock_offset_seconds", "Database clock minus this node's");
  c->skewed_gauge = gauge("kelou_clock_skewed", "1: this node's clock is past node.max_clock_skew");
}

int cluster_new(const struct cluster_options *o, struct cluster **ret, struct err *e) {
  struct cluster *c = mem_zalloc(sizeof *c);
  c->o = *o;
  mutex_init(&c->lock);
  cond_init(&c->wake);
  cond_init(&c->changed);
  make_metrics(c);
  auto_arena mem = {0};
  struct st_meta_ret meta;
  int rc = store_meta(o->store, &(struct st_meta){0}, &meta, &mem, e);
  if (rc >= 0)
    rc = cluster_join(c, e);
  if (rc < 0) {
    cluster_free(&c);
    return rc;
  }
  c->shard_count = meta.shard_count;
  c->owned = mem_array((size_t)meta.shard_count, sizeof *c->owned);
  c->free_since = mem_array((size_t)meta.shard_count, sizeof *c->free_since);
  *ret = c;
  return 0;
}

/* ---------------------------------------------------------------- shards that are ours */

/* With the lock, which is kept until the hook has been called: orders for one shard must come in the order of what they say.
 * From one epoch to another (0: not ours). False: it was not that one any more. */
static bool set_owned(struct cluster *c, int32_t shard, int64_t from, int64_t epoch) {
  struct owned *o = &c->owned[shard];
  if (o->epoch != from)
    return false;
  if ((from != 0) != (epoch != 0))
    metric_set(c->owned_gauge, (double)(epoch ? atomic_fetch_add(&c->owned_count, 1) + 1
                                              : atomic_fetch_sub(&c->owned_count, 1) - 1));
  c->handing -= o->stage != STAGE_KEPT;
  *o = (struct owned){.epoch = epoch, .stage = STAGE_KEPT};
  cond_broadcast(&c->changed);
  return true;
}

struct owned cluster_owned_as(struct cluster *c, int32_t shard) {
  mutex_lock(&c->lock);
  struct owned o = c->owned[shard];
  mutex_unlock(&c->lock);
  return o;
}

void cluster_take(struct cluster *c, const struct shard_row *s) {
  mutex_lock(&c->lock);
  if (set_owned(c, s->id, 0, s->epoch)) {
    metric_add(c->takeovers, 1);
    c->o.hooks.owned(c->o.hooks.arg, s);
  }
  mutex_unlock(&c->lock);
}

static void wake(struct cluster *c) {
  c->woken = true;
  cond_broadcast(&c->wake);
}

static bool lose(struct cluster *c, int32_t shard, int64_t epoch, bool fenced) {
  mutex_lock(&c->lock);
  bool lost = epoch && set_owned(c, shard, epoch, 0); /* else known already */
  if (lost) {
    c->owned[shard].fenced = fenced ? epoch : 0;
    c->o.hooks.lost(c->o.hooks.arg, shard, epoch);
    wake(c);
  }
  mutex_unlock(&c->lock);
  return lost;
}

void cluster_fenced(struct cluster *c, int32_t shard, int64_t epoch) {
  if (lose(c, shard, epoch, true))
    metric_add(c->fenced, 1);
}

void cluster_handed_over(struct cluster *c, int32_t shard, int64_t epoch) {
  mutex_lock(&c->lock);
  struct owned *o = &c->owned[shard];
  if (o->epoch == epoch && o->stage == STAGE_GOING) {
    o->stage = STAGE_QUIET;
    wake(c);
  }
  mutex_unlock(&c->lock);
}

void cluster_forget_handed(struct cluster *c, const int32_t *ids, size_t n) {
  mutex_lock(&c->lock);
  for (size_t i = 0; i < n; i++)
    (void)set_owned(c, ids[i], c->owned[ids[i]].epoch, 0); /* it is that epoch */
  mutex_unlock(&c->lock);
}

void cluster_forget_fenced(struct cluster *c, int32_t shard) {
  mutex_lock(&c->lock);
  c->owned[shard].fenced = 0;
  mutex_unlock(&c->lock);
}

void cluster_lose_all(struct cluster *c) {
  for (int32_t i = 0; i < c->shard_count; i++) {
    (void)lose(c, i, cluster_owned_as(c, i).epoch, false); /* those that are ours */
    cluster_forget_fenced(c, i);
  }
}

/* ---------------------------------------------------------------- the lease */

/* While our own commits are slow, so may be those of others: that their leases pass says nothing then. Until some time after it. */
static void note_slow(struct cluster *c, usec_t took) {
  if (took > c->o.lease_ttl / 2) {
    if (cluster_mono() >= c->slow_until)
      log_warn("renewals of the lease are slow, nothing is taken over from other nodes", LF_D("took", took));
    c->slow_until = cluster_mono() + c->o.lease_ttl / 2;
  }
}

static enum share share_of_ours(struct cluster *c) {
  mutex_lock(&c->lock);
  bool leaving = c->leaving;
  mutex_unlock(&c->lock);
  if (leaving)
    return SHARE_NONE;
  if (c->skewed)
    return SHARE_LAST;
  return cluster_mono() < c->slow_until ? SHARE_KEEP : SHARE_FULL;
}

static int renew(struct cluster *c, struct err *e) {
  auto_arena mem = {0};
  struct st_node_renew_ret ret;
  usec_t sent = cluster_mono(), before = c->renewed_at;
  int rc = store_node_renew(c->o.store,
                            &(struct st_node_renew){slice_of(c->o.node_id), c->incarnation, c->o.lease_ttl,
                                                    share_of_ours(c), cluster_offset(c)},
                            &ret, &mem, e);
  if (rc == ERR_FENCED) { /* we were given up: start again as a new incarnation */
    log_warn("this node's lease was ended by others, joining anew");
    cluster_lose_all(c);
    return cluster_join(c, e);
  }
  if (rc < 0)
    return rc;
  note_time(c, sent, ret.now);
  note_slow(c, c->renewed_at - sent);
  if (c->renewed_at - before > c->o.lease_ttl) /* nobody's renewal may have come through */
    note_slow(c, c->renewed_at - before);
  return 0;
}

/* Until the next renewal, or something is to be looked at. */
static bool wait_for(struct cluster *c, usec_t renew_at) {
  mutex_lock(&c->lock);
  usec_t until = c->look_at < renew_at ? c->look_at : renew_at;
  while (!c->stopping && !c->woken && cluster_mono() < until)
    (void)cond_wait(&c->wake, &c->lock, until - cluster_mono());
  c->woken = false;
  bool stop = c->stopping;
  mutex_unlock(&c->lock);
  return !stop;
}

static void lease_main(void *arg) {
  struct cluster *c = arg;
  usec_t renew_at = 0;
  enum share said = SHARE_KEEP;
  do {
    struct err e = {0};
    int rc = 0;
    usec_t now = cluster_mono();
    enum share share = share_of_ours(c);
    if (now >= renew_at || share != said) {
      rc = renew(c, &e);
      said = rc < 0 ? said : share;
      renew_at = now + c->o.lease_ttl / (rc < 0 ? 10 : 3);
    }
    c->look_at = USEC_NEVER;
    if (rc >= 0)
      rc = cluster_look_now(c, &e);
    if (rc < 0) {
      log_warn("lease not renewed, trying again", LF_E(&e));
      renew_at = cluster_mono() + c->o.lease_ttl / 10;
    }
  } while (wait_for(c, renew_at));
}

int cluster_start(struct cluster *c, struct err *e) {
  return thread_start(&c->thread, "lease", lease_main, c, e);
}

void cluster_look(struct cluster *c) {
  mutex_lock(&c->lock);
  wake(c);
  mutex_unlock(&c->lock);
}

void cluster_state(struct cluster *c, struct cluster_state *ret) {
  mutex_lock(&c->lock);
  *ret = c->state;
  mutex_unlock(&c->lock);
}

void cluster_hand_over_all(struct cluster *c, usec_t grace) {
  usec_t until = cluster_mono() + grace;
  mutex_lock(&c->lock);
  c->leaving = true;
  bool others = c->state.alive > 1 && c->thread.running;
  if (others)
    wake(c);
  while (others && cluster_owned(c) && cluster_mono() < until)
    (void)cond_wait(&c->changed, &c->lock, until - cluster_mono());
  mutex_unlock(&c->lock);
  if (others)
    log_info("shards handed over before leaving", LF_I("left", cluster_owned(c)));
}

void cluster_stop(struct cluster *c) {
  if (!c->thread.running)
    return;
  mutex_lock(&c->lock);
  c->stopping = true;
  cond_broadcast(&c->wake);
  mutex_unlock(&c->lock);
  thread_join(&c->thread);
  auto_arena mem = {0};
  struct err e = {0};
  struct st_node_leave_ret ret;
  if (store_node_leave(c->o.store, &(struct st_node_leave){slice_of(c->o.node_id), c->incarnation}, &ret,
                       &mem, &e) < 0)
    log_warn("could not leave the cluster, the lease will run out", LF_E(&e));
}

void cluster_free(struct cluster **p) {
  struct cluster *c = *p;
  if (!c)
    return;
  store_close(&c->o.store);
  mem_free(c->owned);
  mem_free(c->free_since);
  mutex_done(&c->lock);
  cond_done(&c->wake);
  cond_done(&c->changed);
  mem_free(c);
  *p = NULL;
}
