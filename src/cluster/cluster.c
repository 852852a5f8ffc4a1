#include "cluster/cluster.h"
#include "cluster/estimate.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metric.h"
#include "base/thread.h"
#include <stdatomic.h>

struct cluster {
  struct cluster_options o;
  struct thread thread;
  struct mutex lock; /* guards epochs, stopping */
  struct cond wake;
  bool stopping;
  int64_t *epochs; /* by shard; 0 = not ours */
  int32_t shard_count;
  int64_t incarnation;
  _Atomic usec_t offset;      /* database time - monotonic */
  _Atomic usec_t lease_until; /* monotonic */
  _Atomic size_t owned;
  struct metric *takeovers, *fenced, *owned_gauge, *offset_gauge;
};

static usec_t mono(void) { return clock_system.mono(&clock_system); }

usec_t cluster_now(const struct cluster *c) { return mono() + atomic_load(&c->offset); }

usec_t cluster_offset(const struct cluster *c) { return cluster_now(c) - clock_system.wall(&clock_system); }

bool cluster_renewed(const struct cluster *c) {
  return mono() < atomic_load(&c->lease_until) - c->o.lease_ttl / 5;
}

bool cluster_lease_valid(const struct cluster *c) {
  if (c->o.store->ops->caps & STORE_CAP_SINGLE_NODE)
    return true; /* the lock file is the lease */
  return cluster_renewed(c);
}

size_t cluster_owned(const struct cluster *c) { return atomic_load(&c->owned); }

int32_t cluster_shard_count(const struct cluster *c) { return c->shard_count; }

/* What a round trip that began at `sent` says about the database's clock and our lease. */
static void note_time(struct cluster *c, usec_t sent, usec_t now) {
  usec_t back = mono();
  atomic_store(&c->offset,
               estimate_offset(atomic_load(&c->offset), !atomic_load(&c->lease_until), sent, back, now));
  atomic_store(&c->lease_until,
               sent + c->o.lease_ttl); /* counted from before the renewal: never longer than granted */
  metric_set(c->offset_gauge, (double)cluster_offset(c) / (double)USEC_PER_SEC);
}

static int join(struct cluster *c, struct err *e) {
  auto_arena mem = {0};
  struct st_node_join_ret ret;
  usec_t sent = mono();
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

int cluster_new(const struct cluster_options *o, struct cluster **ret, struct err *e) {
  struct cluster *c = mem_zalloc(sizeof *c);
  c->o = *o;
  mutex_init(&c->lock);
  cond_init(&c->wake);
  c->takeovers = metric_series(metric_family("kelou_shard_takeovers_total", "Shards that this node took over",
                                             METRIC_COUNTER, "", NULL),
                               NULL);
  c->fenced = metric_series(metric_family("kelou_fencing_rejections_total",
                                          "Stale writes refused by an epoch", METRIC_COUNTER, "", NULL),
                            NULL);
  c->owned_gauge = metric_series(
      metric_family("kelou_shards_owned", "Shards that this node owns", METRIC_GAUGE, "", NULL), NULL);
  c->offset_gauge = metric_series(
      metric_family("kelou_clock_offset_seconds", "Database clock minus this node's", METRIC_GAUGE, "", NULL),
      NULL);
  auto_arena mem = {0};
  struct st_meta_ret meta;
  int rc = store_meta(o->store, &(struct st_meta){0}, &meta, &mem, e);
  if (rc >= 0)
    rc = join(c, e);
  if (rc < 0) {
    cluster_free(&c);
    return rc;
  }
  c->shard_count = meta.shard_count;
  c->epochs = mem_array((size_t)meta.shard_count, sizeof *c->epochs);
  *ret = c;
  return 0;
}

/* With the lock, which is kept until the hook has been called: orders for one shard must come in the order of what they say.
 * From one epoch to another (0: not ours). False: it was not that one any more. */
static bool set_owned(struct cluster *c, int32_t shard, int64_t from, int64_t epoch) {
  bool good = c->epochs[shard] == from;
  if (good && (from != 0) != (epoch != 0))
    metric_set(c->owned_gauge,
               (double)(epoch ? atomic_fetch_add(&c->owned, 1) + 1 : atomic_fetch_sub(&c->owned, 1) - 1));
  if (good)
    c->epochs[shard] = epoch;
  return good;
}

static int64_t epoch_of(struct cluster *c, int32_t shard) {
  mutex_lock(&c->lock);
  int64_t epoch = c->epochs[shard];
  mutex_unlock(&c->lock);
  return epoch;
}

void cluster_fenced(struct cluster *c, int32_t shard, int64_t epoch) {
  mutex_lock(&c->lock);
  if (set_owned(c, shard, epoch, 0)) { /* else known already */
    metric_add(c->fenced, 1);
    c->o.hooks.lost(c->o.hooks.arg, shard, epoch);
  }
  mutex_unlock(&c->lock);
}

static void lose_all(struct cluster *c) {
  for (int32_t i = 0; i < c->shard_count; i++) {
    int64_t epoch = epoch_of(c, i);
    if (epoch)
      cluster_fenced(c, i, epoch);
  }
}

static int renew(struct cluster *c, struct err *e) {
  auto_arena mem = {0};
  struct st_node_renew_ret ret;
  usec_t sent = mono();
  int rc = store_node_renew(c->o.store,
                            &(struct st_node_renew){slice_of(c->o.node_id), c->incarnation, c->o.lease_ttl},
                            &ret, &mem, e);
  if (rc == ERR_FENCED) { /* we were given up: start again as a new incarnation */
    log_warn("this node's lease was ended by others, joining anew");
    lose_all(c);
    return join(c, e);
  }
  if (rc >= 0)
    note_time(c, sent, ret.now);
  return rc;
}

/* Shards without a living owner, up to this node's fair share. */
static size_t wanted_shards(struct cluster *c, const struct st_shard_list_ret *shards,
                            const struct st_node_list_ret *nodes, int32_t *ids) {
  size_t alive = 0, mine = cluster_owned(c), n = 0;
  for (size_t i = 0; i < nodes->count; i++)
    alive += nodes->nodes[i].lease_until > nodes->now;
  size_t share = ((size_t)c->shard_count + alive - 1) / (alive ? alive : 1);
  for (size_t i = 0; i < shards->count && mine + n < share; i++) {
    const struct shard_row *s = &shards->shards[i];
    if (epoch_of(c, s->id))
      continue;
    bool owned = false;
    for (size_t k = 0; k < nodes->count; k++)
      owned =
          owned || (slice_eq(nodes->nodes[k].id, s->owner) && nodes->nodes[k].incarnation == s->incarnation &&
                    nodes->nodes[k].lease_until > nodes->now && !slice_eqz(s->owner, c->o.node_id));
    if (!owned)
      ids[n++] = s->id;
  }
  return n;
}

static void take_over(struct cluster *c, const struct shard_row *s) {
  mutex_lock(&c->lock);
  if (set_owned(c, s->id, 0, s->epoch)) {
    metric_add(c->takeovers, 1);
    c->o.hooks.owned(c->o.hooks.arg, s);
  }
  mutex_unlock(&c->lock);
}

/* Ours as the database says, though we do not know of it: the answer to a claim was lost, or we gave the shard up. No other node takes it, and
 * a claim would not, either. */
static void take_ours(struct cluster *c, const struct st_shard_list_ret *shards) {
  for (size_t i = 0; i < shards->count; i++) {
    const struct shard_row *s = &shards->shards[i];
    if (s->incarnation == c->incarnation && slice_eqz(s->owner, c->o.node_id) && epoch_of(c, s->id) == 0)
      take_over(c, s);
  }
}

static int claim(struct cluster *c, struct err *e) {
  auto_arena mem = {0};
  struct st_shard_list_ret shards;
  struct st_node_list_ret nodes;
  int rc = store_shard_list(c->o.store, &(struct st_shard_list){0}, &shards, &mem, e);
  if (rc >= 0)
    rc = store_node_list(c->o.store, &(struct st_node_list){0}, &nodes, &mem, e);
  if (rc < 0)
    return rc;
  if (c->o.hooks.seen)
    c->o.hooks.seen(c->o.hooks.arg, &nodes, &shards);
  take_ours(c, &shards);
  int32_t *ids = arena_array(&mem, (size_t)c->shard_count, sizeof *ids);
  size_t n = wanted_shards(c, &shards, &nodes, ids);
  if (n == 0)
    return 0;
  struct st_shard_claim_ret got;
  rc = store_shard_claim(
      c->o.store,
      &(struct st_shard_claim){
          .node = slice_of(c->o.node_id), .incarnation = c->incarnation, .ids = ids, .count = n},
      &got, &mem, e);
  for (size_t i = 0; rc >= 0 && i < got.count; i++)
    take_over(c, &got.shards[i]);
  if (rc >= 0 && got.count)
    log_info("shards taken over", LF_I("shards", got.count), LF_I("owned", cluster_owned(c)));
  return rc;
}

static void lease_main(void *arg) {
  struct cluster *c = arg;
  bool stop = false;
  while (!stop) {
    struct err e = {0};
    int rc = renew(c, &e);
    if (rc >= 0)
      rc = claim(c, &e);
    if (rc < 0)
      log_warn("lease not renewed, trying again", LF_E(&e));
    mutex_lock(&c->lock);
    usec_t until = mono() + c->o.lease_ttl / (rc < 0 ? 10 : 3);
    while (!c->stopping && mono() < until)
      (void)cond_wait(&c->wake, &c->lock, until - mono());
    stop = c->stopping;
    mutex_unlock(&c->lock);
  }
}

int cluster_start(struct cluster *c, struct err *e) {
  return thread_start(&c->thread, "lease", lease_main, c, e);
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
  mem_free(c->epochs);
  mutex_done(&c->lock);
  cond_done(&c->wake);
  mem_free(c);
  *p = NULL;
}
