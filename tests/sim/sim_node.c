#include "sim_plan.h"
#include "cluster/cluster.h"
#include "core/zone_set.h"
#include "report/forward.h"
#include "trigger/engine.h"

/* A node: the real cluster, run service and trigger engine, wired as src/server does it; and its death. */

static usec_t node_now(void *arg) { return cluster_now(((struct sim_node *)arg)->cluster); }

static bool node_may_fire(void *arg) {
  return cluster_lease_valid(((struct sim_node *)arg)->cluster) || sim_world->o.removed[GUARD_STEP_DOWN];
}

static void node_fenced(void *arg, int32_t shard, int64_t epoch) {
  struct sim_node *n = arg;
  sim_world->refusals++;
  if (!sim_world->o.removed[GUARD_STEP_DOWN])
    cluster_fenced(n->cluster, shard, epoch);
}

static void node_owned(void *arg, const struct shard_row *s) {
  sim_trace("%s owns shard %d, epoch %lld", ((struct sim_node *)arg)->id, s->id, (long long)s->epoch);
  ((struct sim_node *)arg)->believed[s->id] = s->epoch;
  run_expect(((struct sim_node *)arg)->runs, s->id);
  engine_own(((struct sim_node *)arg)->engine, s);
}

static void node_lost(void *arg, int32_t shard, int64_t epoch) {
  struct sim_node *n = arg;
  sim_trace("%s lost shard %d, epoch %lld", n->id, shard, (long long)epoch);
  if (!sim_world->o.removed[GUARD_STEP_DOWN])
    engine_disown(n->engine, shard, epoch);
}

static void node_hand_over(void *arg, int32_t shard, int64_t epoch) {
  struct sim_node *n = arg;
  sim_trace("%s hands shard %d over, epoch %lld", n->id, shard, (long long)epoch);
  engine_hand_over(n->engine, shard, epoch);
}

static void node_handed_over(void *arg, int32_t shard, int64_t epoch) {
  struct sim_node *n = arg;
  sim_trace("%s has handed shard %d over, epoch %lld", n->id, shard, (long long)epoch);
  sim_world->handovers++;
  sim_world->handed[shard] = epoch;
  cluster_handed_over(n->cluster, shard, epoch);
}

static bool gone(const struct sim_node *n) { return !n->proc || n->proc->dying; }

static void node_deliver(void *arg, struct run_job *jobs) {
  if (!gone(arg)) {
    sim_deliver(arg, jobs);
    return;
  }
  for (struct run_job *next; jobs; jobs = next) {
    next = jobs->next;
    run_job_free(&jobs);
  }
}

static void node_cancel(void *arg, const struct live_cancel *c, int64_t fence) {
  if (!gone(arg))
    sim_cancel(arg, c, fence);
}

static void node_release(void *arg, void *slot) { sim_release(arg, slot); }

static void node_delay_ended(void *arg, const struct progress_row *p) {
  engine_delay_ended(((struct sim_node *)arg)->engine, p);
}

static int no_zone(void *arg, const char *name, struct str *out, struct err *e) {
  (void)arg, (void)out;
  return err_set(e, ERR_UNKNOWN_ZONE, "no zone %s here", name);
}

static uint64_t no_stamp(void *arg) {
  (void)arg;
  return 1;
}

static const struct zone_source zones = {no_zone, no_stamp, NULL};

static bool start_cluster(struct sim_node *n) {
  struct cluster_options o = {
      .store = sim_session(n->proc, STORE_LEASE),
      .node_id = n->id,
      .address = "127.0.0.1:1",
      .version = "sim",
      .tzdata = "sim",
      .lease_ttl = 5 * USEC_PER_SEC,
      .hooks = {
          .owned = node_owned, .lost = node_lost, .hand_over = node_hand_over, .arg = n, .seen = sim_seen}};
  struct err e = {0};
  return cluster_new(&o, &n->cluster, &e) >= 0;
}

static void start_runs(struct sim_node *n) {
  struct run_options o;
  struct err e = {0};
  run_options_default(&o);
  o.finish = sim_session(n->proc, STORE_FINISH);
  o.api = n->api;
  o.now = node_now;
  o.now_arg = n;
  o.shard_count = sim_world->o.shards;
  o.queue_max = 4096;
  o.batch_max = 256;
  o.seed = rng_next(RNG);
  o.hooks = (struct run_hooks){.deliver = node_deliver,
                               .cancel = node_cancel,
                               .release = node_release,
                               .delay_ended = node_delay_ended,
                               .lost_shard = node_fenced,
                               .handed_over = node_handed_over,
                               .arg = n};
  (void)run_service_new(&o, &n->runs, &e);
  (void)run_service_start(n->runs, &e);
  if (!sim_world->o.limits)
    return;
  run_bound(n->runs, SLICE("default"), (struct slice){0}, &sim_namespace_bound);
  for (int g = 1; g < SIM_GROUPS; g++)
    run_bound(n->runs, SLICE("default"), slice_of(sim_groups[g].name), &sim_groups[g].bound);
}

static void start_engine(struct sim_node *n) {
  struct engine_options o;
  struct err e = {0};
  engine_options_default(&o);
  o.fire = sim_session(n->proc, STORE_FIRE);
  o.api = n->api;
  o.runs = n->runs;
  o.zones = zone_set_new(&zones);
  o.now = node_now;
  o.may_fire = node_may_fire;
  o.fenced = node_fenced;
  o.arg = n;
  o.shard_count = sim_world->o.shards;
  o.limits = (struct shard_limits){
      .max_rows = 7, .max_work = 50, .idle_advance = 10 * USEC_PER_SEC}; /* small: batches are cut */
  o.fire_rows = 20;
  o.poll = 500 * USEC_PER_MS;
  (void)engine_new(&o, &n->engine, &e);
  (void)engine_start(n->engine, &e);
}

static void live(void *arg) {
  struct sim_node *n = arg;
  struct err e = {0};
  while (!start_cluster(n)) {
    if (n->proc->dying)
      return;
    sim_sleep(USEC_PER_SEC / 2);
  }
  if (n->proc->dying)
    return; /* buried already but for this */
  n->api = sim_session(n->proc, STORE_API);
  start_runs(n);
  sim_forward_start(n);
  start_engine(n);
  (void)cluster_start(n->cluster, &e);
  n->up = true;
}

void sim_node_start(struct sim_node *n) {
  if (n->proc)
    return;
  n->proc = sim_proc_new(n->id, n);
  n->proc->mono_offset = between(0, USEC_PER_DAY);
  n->proc->wall_offset = between(0, USEC_PER_HOUR) - USEC_PER_HOUR / 2;
  n->proc->drift = (rng_unit(RNG) - .5) * 4e-4;
  sim_trace("%s starts", n->id);
  memset(n->believed, 0, sizeof n->believed);
  (void)sim_go(n->proc, "main", live, n);
}

/* The process is gone: what its memory held is freed, nothing of it gets out. */
static void bury(void *arg) {
  struct sim_node *n = arg;
  if (n->up) {
    sim_deliveries_drop(n);
    sim_forward_drop(n);
    engine_stop(n->engine);
    run_service_stop(n->runs, 0);
    forward_stop(n->forward);
    cluster_stop(n->cluster);
    sim_deliveries_drop(n);
    engine_free(&n->engine);
    forward_free(&n->forward);
    run_service_free(&n->runs);
  }
  cluster_free(&n->cluster);
  store_close(&n->api);
  store_close(&n->inbox);
}

void sim_node_crash(struct sim_node *n) {
  if (!n->proc)
    return;
  sim_trace("%s dies", n->id);
  sim_world->crashes++;
  struct sim_proc *p = n->proc;
  sim_kill(p, bury, n);
  sim_slots_drop(n);
  n->proc = NULL;
  n->up = false;
  n->slots_out = 0;
}

static void crash(void *node) { sim_node_crash(node); }

/* SIGTERM: everything is handed over while it still runs; then it goes. */
static void leave(void *arg) {
  struct sim_node *n = arg;
  struct sim_proc *p = n->proc;
  cluster_hand_over_all(n->cluster, 10 * USEC_PER_SEC);
  if (p->dying)
    return;
  sim_trace("%s leaves with %zu shards", n->id, cluster_owned(n->cluster));
  sim_at(sim_now, NULL, crash, n);
}

void sim_node_leave(struct sim_node *n) {
  if (!n->up || gone(n))
    return;
  sim_trace("%s shall leave", n->id);
  (void)sim_go(n->proc, "leave", leave, n);
}

void sim_node_changed(struct sim_node *n, int32_t shard) {
  if (!n->up || gone(n) || n->proc->paused_until > sim_now)
    return;
  sim_proc = n->proc;
  engine_changed(n->engine, shard);
  sim_proc = NULL;
}
