#pragma once
/* A whole cluster in one thread, from one seed: simulated time, clocks, threads (sim_co.c stands in for base/thread.c), database sessions
 * with faults (sim_session.c), nodes that run the real src/cluster, src/run and src/trigger (sim_node.c), a transport and executors
 * (sim_net.c), people who edit tasks (sim_people.c), and checks that read only the tables and the executors' journals (sim_check.c). */
#include "sim_db.h"
#include "core/spec_cache.h"
#include "run/run.h"

/* ------------------------------------------------------------------ time, coroutines, processes (sim_co.c) */
struct sim_co;
struct sim_proc { /* what stops, pauses and dies as one: a node's life from its start to its crash */
  const char *name;
  bool dying; /* unwinding: no time passes, nothing gets out */
  bool dead;
  usec_t paused_until; /* simulated time */
  usec_t mono_offset, wall_offset, dying_for;
  double drift;                       /* of the monotonic clock */
  int locked;                         /* mutexes held: nobody may wait meanwhile */
  struct sim_co *cos;                 /* all of them, finished ones included */
  struct sim_co *ready, **ready_tail; /* while dying */
  struct sim_proc *next;
  void *node;
};
extern usec_t sim_now;            /* simulated time: also the database's clock, but for db_offset */
extern struct sim_proc *sim_proc; /* whose code runs now; NULL: the world's */

void sim_co_reset(void); /* an empty world at its beginning */
void sim_co_flush(void);
void sim_co_done(void);
struct sim_proc *sim_proc_new(const char *name, void *node);
/* `fn` at simulated time `at` (a proc's events wait while it is paused; a dead one's still come: look at proc->dead). */
void sim_at(usec_t at, struct sim_proc *proc, void (*fn)(void *arg), void *arg);
void sim_run_until(usec_t end);
bool sim_stopped(void); /* a check failed: the world stands still */
void sim_stop(void);
struct sim_co *sim_go(struct sim_proc *proc, const char *name, void (*run)(void *arg), void *arg);
void sim_sleep(usec_t length); /* only in a coroutine */
void sim_pause(struct sim_proc *proc, usec_t length);
/* Run `bury` as a coroutine of the dying proc, without time, until it has ended; all others have ended then. */
void sim_kill(struct sim_proc *proc, void (*bury)(void *arg), void *arg);

/* ------------------------------------------------------------------ the world (sim_world.c) */
struct sim_faults {                                               /* rates; 0 = never */
  double abort, lost_done, lost_not_done, late_fire, late_change; /* per write */
  double slow;                                                    /* a call of 50 ms … 3 s */
  double freeze_before, freeze_after; /* the node pauses in the middle of a call */
  double crash_in_call;
  usec_t crash_every, pause_every, executor_crash_every, outage_every, step_every, stall_every, leave_every,
      drain_every;                             /* mean; 0 = never */
  double loss, duplicate;                      /* per message */
  double busy, refuse, silent, fail, slow_run; /* executors */
};
struct sim_options {
  uint64_t seed;
  usec_t length; /* simulated time with faults */
  int nodes, executors, shards, tasks;
  bool calm; /* no faults at all */
  bool
      limits; /* what order 2 brought is played, too: REPLACE, priorities, bounds of tasks, groups and the namespace */
  bool after; /* tasks that depend on others (sim_after.c) */
  int rough;  /* 0, or how many times more often calls go wrong */
  bool verbose;
  bool removed[GUARD_MAX_];
};
enum { SIM_NODES_MAX = 8, SIM_EXECUTORS_MAX = 8, SIM_SHARDS_MAX = 64 };
struct sim_node;
struct sim_world {
  struct sim_options o;
  struct sim_faults f;
  struct rng rng;
  struct sim_db *db;
  usec_t begin, faults_end, end;
  bool over; /* nothing begins any more */
  struct sim_node *nodes[SIM_NODES_MAX];
  struct sim_executor *executors[SIM_EXECUTORS_MAX];
  usec_t outage_until; /* the database does not answer */
  uint64_t digest;
  int64_t fires, starts, reports, crashes, pauses, unknown, refusals, violations;
  int64_t lost, doubled, stuck;
  int64_t forwarded, by_inbox;    /* reports: passed on to the owner, carried out from the inbox */
  int64_t handovers, handed[256]; /* by shard: the epoch with which it was handed over last */
  int64_t replaced, ends;         /* ends: of runs on which others depend */
  char first[512];                /* the first violation */
};
extern struct sim_world *sim_world;
#define RNG (&sim_world->rng)
static inline bool chance(double p) { return p > 0 && rng_unit(RNG) < p; }
static inline usec_t between(usec_t a, usec_t b) { return a + (usec_t)rng_below(RNG, (uint64_t)(b - a + 1)); }
/* Exponential with this mean. */
usec_t sim_exponential(usec_t mean);
bool sim_faulty(void); /* faults happen now */
usec_t sim_db_now(void *arg);
enum sim_wrong { WRONG_LOST, WRONG_DOUBLED, WRONG_STUCK, WRONG_OTHER };
void sim_wrong(enum sim_wrong kind, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sim_trace(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void sim_note(int64_t a, int64_t b); /* into the digest */
const char *sim_key(const struct run_key *k);
/* One episode. 0: all checks hold. */
int sim_episode(const struct sim_options *o, struct sim_world *ret);

/* ------------------------------------------------------------------ sessions (sim_session.c) */
struct store *sim_session(struct sim_proc *proc, enum store_role role);

/* ------------------------------------------------------------------ nodes (sim_node.c) */
struct sim_node {
  int index;
  char id[8];
  struct sim_proc *proc; /* NULL: down */
  struct cluster *cluster;
  struct run_service *runs;
  struct engine *engine;
  struct store *api, *inbox;
  struct forward *forward;
  int owners[SIM_SHARDS_MAX]; /* which other node (from 1) owns a shard, as the lease thread has read it */
  struct sim_errand *errands; /* what it asks other nodes */
  struct sim_delivery *deliveries; /* of this life */
  struct sim_slot *slots;          /* of this life */
  int64_t slots_out;
  bool up;               /* started */
  int64_t believed[256]; /* by shard: the epoch with which this life took it last */
};
void sim_node_start(struct sim_node *n);
void sim_node_crash(struct sim_node *n);
/* In order: hands its shards over first. */
void sim_node_leave(struct sim_node *n);
/* Tell the node that a shard's tasks or inbox changed (a hint that may be lost). */
void sim_node_changed(struct sim_node *n, int32_t shard);

/* ------------------------------------------------------------------ transport, executors (sim_net.c) */
struct sim_executor;
void sim_executors_new(void);
void sim_executors_stop(void);
void sim_executors_free(void);
void sim_executor_crash(struct sim_executor *x);
void sim_deliver(struct sim_node *n, struct run_job *jobs);
void sim_cancel(struct sim_node *n, const struct live_cancel *c, int64_t fence);
void sim_release(struct sim_node *n, void *slot);
void sim_deliveries_drop(struct sim_node *n);
void sim_slots_drop(struct sim_node *n);
void sim_executors_check(void);

/* ------------------------------------------------------------------ between nodes (sim_peer.c) */
void sim_forward_start(struct sim_node *n); /* after the run service */
void sim_forward_drop(struct sim_node *n);  /* the node dies: nobody answers */
void sim_seen(void *arg, const struct st_node_list_ret *nodes, const struct st_shard_list_ret *shards);
void sim_check_inbox_gone(const struct inbox_row *row);

/* ------------------------------------------------------------------ people (sim_people.c) */
struct sim_plan; /* what a version of a task asks for, as the people know it */
void sim_people_new(void);
void sim_people_free(void);
bool sim_ignores_overlap(const struct run_key *key);

/* ------------------------------------------------------------------ checks (sim_check.c) */
/* A node is about to send this statement: what is in it has just been decided, or is sent again. */
void sim_check_fire_sent(const struct st_fire *in);
void sim_check_change_sent(const struct st_run_apply *in);
void sim_check_run_changed(void *arg, struct db_run *r, const struct run_row *before);
void sim_check_committed(void *arg);
void sim_check_sending(const struct run_job *j);
void sim_check_acked(const struct live_event *ev, enum run_result result);
void sim_check_end(void);
void sim_check_stories(void); /* sim_story.c */
void sim_check_free(void);
