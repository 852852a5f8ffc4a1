#include "sim.h"

/* A session of a node: every call takes time, may fail before or after the commit, may come to the database long after its node believes that
 * it failed, and may find its node stopped or dead in the middle. */

struct session {
  struct store store;
  struct store *db;
  struct sim_proc *proc;
  enum store_role role;
  bool tx; /* between shard_lock and shard_unlock, as this side knows */
};
static usec_t tx_since; /* of the world's one transaction */
static const usec_t IDLE_TX_TIMEOUT = 1700 * USEC_PER_MS;
struct late { /* a FIRE or a change of runs that outlives its call */
  struct arena mem;
  struct st_fire fire;
  struct st_run_apply apply;
  bool is_fire;
};
enum op_no {
#define OP(n) OP_##n,
#include "store/store_ops.def"
  OP_MAX_
};
static const bool writes[OP_MAX_] = {
    [OP_node_join] = true,   [OP_node_renew] = true,    [OP_node_leave] = true,    [OP_node_drain] = true,
    [OP_shard_claim] = true, [OP_shard_release] = true, [OP_task_complete] = true, [OP_fire] = true,
    [OP_run_apply] = true,   [OP_shard_unlock] = true,  [OP_inbox_put] = true};

static struct session *session_of(struct store *s) { return (struct session *)s; }

/* ------------------------------------------------------------------ calls that outlive their node */
static void *copy(struct arena *mem, const void *p, size_t n, size_t size) {
  void *to = arena_array(mem, n, size);
  if (n)
    memcpy(to, p, n * size);
  return to;
}

static void keep(struct arena *mem, struct slice *s) {
  if (s->p)
    *s = arena_slice(mem, *s);
}

static struct run_row *copy_rows(struct arena *mem, const struct run_row *rows, size_t n) {
  struct run_row *to = copy(mem, rows, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    keep(mem, &to[i].pin);
    keep(mem, &to[i].payload);
    keep(mem, &to[i].origin_run);
  }
  return to;
}

static void copy_fire(struct late *l, const struct st_fire *in) {
  l->is_fire = true;
  l->fire = *in;
  l->fire.shards = copy(&l->mem, in->shards, in->shard_count, sizeof *in->shards);
  l->fire.open = copy_rows(&l->mem, in->open, in->open_count);
  l->fire.ended = copy_rows(&l->mem, in->ended, in->ended_count);
  l->fire.progress = copy(&l->mem, in->progress, in->progress_count, sizeof *in->progress);
  l->fire.inbox_done = copy(&l->mem, in->inbox_done, in->inbox_count, sizeof *in->inbox_done);
}

static void copy_apply(struct late *l, const struct st_run_apply *in) {
  l->apply = *in;
  l->apply.fences = copy(&l->mem, in->fences, in->fence_count, sizeof *in->fences);
  struct run_update *u = copy(&l->mem, in->updates, in->update_count, sizeof *u);
  for (size_t i = 0; i < in->update_count; i++) {
    keep(&l->mem, &u[i].executor);
    keep(&l->mem, &u[i].error_type);
    keep(&l->mem, &u[i].error_message);
  }
  struct run_finish *f = copy(&l->mem, in->finishes, in->finish_count, sizeof *f);
  for (size_t i = 0; i < in->finish_count; i++) {
    keep(&l->mem, &f[i].executor);
    keep(&l->mem, &f[i].result);
    keep(&l->mem, &f[i].error_type);
    keep(&l->mem, &f[i].error_message);
    keep(&l->mem, &f[i].error_detail);
  }
  struct attempt_row *a = copy(&l->mem, in->attempts, in->attempt_count, sizeof *a);
  for (size_t i = 0; i < in->attempt_count; i++) {
    keep(&l->mem, &a[i].executor);
    keep(&l->mem, &a[i].error_type);
    keep(&l->mem, &a[i].error_message);
  }
  l->apply.updates = u;
  l->apply.finishes = f;
  l->apply.attempts = a;
  l->apply.progress = copy(&l->mem, in->progress, in->progress_count, sizeof *in->progress);
  l->apply.inbox_done = copy(&l->mem, in->inbox_done, in->inbox_count, sizeof *in->inbox_done);
}

static void arrive_late(void *arg) {
  struct late *l = arg;
  if (sim_world->db->tx) { /* its lock waits for the shard */
    sim_at(sim_now + USEC_PER_MS, NULL, arrive_late, l);
    return;
  }
  struct store *s;
  union {
    struct st_fire_ret fire;
    struct st_run_apply_ret apply;
  } ret;
  (void)sim_db_session(sim_world->db, &s);
  int rc = l->is_fire ? store_fire(s, &l->fire, &ret.fire, &l->mem, NULL)
                      : store_run_apply(s, &l->apply, &ret.apply, &l->mem, NULL);
  sim_trace("a late %s arrives: %d", l->is_fire ? "FIRE" : "change", rc);
  store_close(&s);
  arena_done(&l->mem);
  mem_free(l);
}

/* Only what has to be exact: FIRE and changes of runs. */
static bool send_late(enum op_no op, const void *in, usec_t after) {
  if (op != OP_fire && op != OP_run_apply)
    return false;
  struct late *l = mem_zalloc(sizeof *l);
  if (op == OP_fire)
    copy_fire(l, in);
  else
    copy_apply(l, in);
  sim_at(sim_now + after, NULL, arrive_late, l);
  return true;
}

/* ------------------------------------------------------------------ one call */
static void crash_now(void *node) { sim_node_crash(node); }

static usec_t latency(void) {
  if (sim_faulty() && chance(sim_world->f.slow))
    return between(50 * USEC_PER_MS, 3 * USEC_PER_SEC);
  return between(80, 900);
}

static bool in_tx(const struct session *s) { return sim_world->db->tx == s->db; }

/* Others wait for the shard's lock; whoever sleeps on it loses it. False: not in time. */
static bool wait_for_lock(struct session *s) {
  for (usec_t waited = 0; sim_world->db->tx && !in_tx(s); waited += USEC_PER_MS) {
    if (s->proc->dying || waited > 5 * USEC_PER_SEC)
      return false;
    if (sim_now - tx_since > IDLE_TX_TIMEOUT)
      sim_db_break(sim_world->db->tx);
    sim_sleep(USEC_PER_MS);
  }
  return true;
}

static void note_tx(struct session *s, enum op_no op, int rc) {
  if (op == OP_shard_lock && rc >= 0)
    s->tx = true;
  if (s->tx)
    tx_since = sim_now;
  if (op == OP_shard_unlock)
    s->tx = false;
}

static int broken(struct session *s, int code, struct err *e) {
  sim_db_break(s->db);
  if (code == ERR_UNKNOWN_OUTCOME)
    sim_world->unknown++;
  return err_set(e, code,
                 code == ERR_UNAVAILABLE ? "connection lost before the commit"
                                         : "connection lost at the commit");
}

/* The node dies while the call is under way: it may have been sent already. */
static int died(struct session *s, enum op_no op, const void *in, struct err *e) {
  if (!s->tx && chance(.6))
    (void)send_late(op, in, chance(.7) ? 0 : between(0, 20 * USEC_PER_SEC));
  return err_set(e, ERR_UNAVAILABLE, "the node is dead");
}

/* It does not come to the database, or long after its answer was given up. */
static bool gets_lost(struct session *s, enum op_no op, const void *in) {
  if (chance(sim_world->f.lost_not_done))
    return true;
  double late = op == OP_fire ? sim_world->f.late_fire : op == OP_run_apply ? sim_world->f.late_change : 0;
  return !s->tx && chance(late) && send_late(op, in, between(USEC_PER_MS, 3 * USEC_PER_SEC));
}

static void befall(struct session *s) {
  if (chance(sim_world->f.freeze_before))
    sim_pause(s->proc, between(USEC_PER_SEC, 25 * USEC_PER_SEC));
  if (chance(sim_world->f.crash_in_call))
    sim_at(sim_now + between(0, 1000), NULL, crash_now, s->proc->node);
}

/* Everything before the statement; 0: execute it. */
static int call_begin(struct session *s, enum op_no op, const void *in, struct err *e) {
  if (s->proc->dying)
    return err_set(e, ERR_UNAVAILABLE, "the node is dead");
  bool faulty = sim_faulty() && s->role != STORE_API;
  if (faulty)
    befall(s);
  sim_sleep(latency());
  bool free = wait_for_lock(s);
  if (s->proc->dying)
    return died(s, op, in, e);
  if (sim_world->outage_until > sim_now || !free || (s->tx && !in_tx(s)))
    return broken(s, ERR_UNAVAILABLE, e);
  if (faulty && chance(sim_world->f.abort))
    return broken(s, ERR_UNAVAILABLE, e);
  return faulty && writes[op] && gets_lost(s, op, in) ? broken(s, ERR_UNKNOWN_OUTCOME, e) : 0;
}

static int call_end(struct session *s, enum op_no op, int rc, struct err *e) {
  bool faulty = sim_faulty() && s->role != STORE_API;
  if (faulty && writes[op] && rc >= 0 && chance(sim_world->f.lost_done))
    return broken(s, ERR_UNKNOWN_OUTCOME, e);
  if (faulty && chance(sim_world->f.freeze_after))
    sim_pause(s->proc, between(USEC_PER_SEC, 25 * USEC_PER_SEC));
  sim_sleep(latency());
  return s->proc->dying ? err_set(e, ERR_UNAVAILABLE, "the node is dead") : rc;
}

/* ------------------------------------------------------------------ guards that live on this side */
static bool all_true(bool *p, size_t n) {
  for (size_t i = 0; i < n; i++)
    p[i] = true;
  return true;
}

/* "It will have worked": what the caller is told when it does not wait for the commit, or does not read back. */
static void claim_done(enum op_no op, const void *in, void *ret, struct arena *mem) {
  if (op == OP_fire) {
    const struct st_fire *f = in;
    struct st_fire_ret *r = ret;
    r->advanced = arena_array(mem, f->shard_count, sizeof(bool));
    (void)all_true(r->advanced, f->shard_count);
    r->present = NULL;
    r->now = sim_db_now(NULL);
    return;
  }
  const struct st_run_apply *a = in;
  struct st_run_apply_ret *r = ret;
  r->fence_ok = arena_array(mem, a->fence_count, sizeof(bool));
  r->updated = arena_array(mem, a->update_count, sizeof(bool));
  r->finished = arena_array(mem, a->finish_count, sizeof(bool));
  (void)(all_true(r->fence_ok, a->fence_count) && all_true(r->updated, a->update_count) &&
         all_true(r->finished, a->finish_count));
  r->now = sim_db_now(NULL);
}

static bool answered_early(enum op_no op, const void *in, void *ret, struct arena *mem) {
  const bool *gone = sim_world->o.removed;
  if (!((gone[GUARD_COMMIT_FIRST] && (op == OP_fire || op == OP_run_apply))))
    return false;
  if (!sim_faulty() || !chance(sim_world->f.abort * 4)) /* the failure comes when nobody listens any more */
    (void)send_late(op, in, latency());
  claim_done(op, in, ret, mem);
  return true;
}

/* Without STEP_DOWN a node does not see by the rows, either, that a shard has gone. */
static void see_as_believed(const struct session *s, enum op_no op, void *ret) {
  if (op != OP_shard_list || s->role != STORE_LEASE || !sim_world->o.removed[GUARD_STEP_DOWN])
    return;
  const struct sim_node *n = s->proc->node;
  struct st_shard_list_ret *r = ret;
  for (size_t i = 0; i < r->count; i++)
    if (n->believed[r->shards[i].id])
      r->shards[i].epoch = n->believed[r->shards[i].id];
}

static void note_sent(enum op_no op, const void *in) {
  if (op == OP_fire)
    sim_check_fire_sent(in);
  if (op == OP_run_apply)
    sim_check_change_sent(in);
}

#define OP(n)                                                                                                \
  static int call_##n(struct store *base, const struct st_##n *in, struct st_##n##_ret *ret,                 \
                      struct arena *mem, struct err *e) {                                                    \
    struct session *s = session_of(base);                                                                    \
    note_sent(OP_##n, in);                                                                                   \
    if (answered_early(OP_##n, in, ret, mem))                                                                \
      return 0;                                                                                              \
    int rc = call_begin(s, OP_##n, in, e);                                                                   \
    if (rc == 0) {                                                                                           \
      rc = store_##n(s->db, in, ret, mem, e);                                                                \
      note_tx(s, OP_##n, rc);                                                                                \
      rc = call_end(s, OP_##n, rc, e);                                                                       \
      if (rc >= 0)                                                                                           \
        see_as_believed(s, OP_##n, ret);                                                                     \
    } else if (OP_##n == OP_shard_unlock) {                                                                  \
      s->tx = false;                                                                                         \
    }                                                                                                        \
    if (rc == ERR_UNKNOWN_OUTCOME && OP_##n == OP_fire && sim_world->o.removed[GUARD_READ_BACK]) {           \
      claim_done(OP_##n, in, ret, mem);                                                                      \
      rc = 0;                                                                                                \
    }                                                                                                        \
    return rc;                                                                                               \
  }
#include "store/store_ops.def"

static void close_session(struct store *base) {
  struct session *s = session_of(base);
  store_close(&s->db);
  mem_free(s);
}

static const struct store_ops ops = {
    .name = "sim",
    .caps = 0,
    .close = close_session,
#define OP(n) .n = call_##n,
#include "store/store_ops.def"
};

struct store *sim_session(struct sim_proc *proc, enum store_role role) {
  struct session *s = mem_zalloc(sizeof *s);
  s->store.ops = &ops;
  s->proc = proc;
  s->role = role;
  (void)sim_db_session(sim_world->db, &s->db);
  return &s->store;
}
