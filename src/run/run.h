#pragma once
/* The run service: the only writer of run state. It holds the open runs of the owned shards (core/live), turns events into rows, commits
 * them in groups (one writer thread), and only then answers, delivers and cancels. Owns run, run_history, attempt, shard_finish, and the
 * base_at of progress. Thread-safe. */
#include "core/live.h"
#include "core/spec_cache.h"
#include "store/store.h"

struct run_service;

/* A delivery to be made. Owned by whoever gets it: run_job_free. */
struct run_job {
  struct run_key key;
  int32_t version, attempt;
  struct task_spec *spec; /* a reference of its own */
  int64_t fence;          /* the shard's epoch */
  usec_t fired_at, deadline;
  char *pin, *payload, *previous, *holder; /* NULL: none; as in struct live_dispatch */
  int64_t holder_incarnation;
  struct run_job *next; /* for the holder's lists */
};
void run_job_free(struct run_job **j);

struct run_hooks { /* called without locks, on the writer's or the trigger's thread; must not block */
  void (*deliver)(void *arg, struct run_job *jobs); /* a list linked by `next` */
  void (*cancel)(void *arg, const struct live_cancel *c, int64_t fence);
  void (*release)(void *arg, void *slot);
  void (*delay_ended)(void *arg, const struct progress_row *p);
  void (*lost_shard)(void *arg, int32_t shard,
                     int64_t epoch); /* a write was fenced off: another owner has it */
  /* A run was taken over while it was RUNNING: the slot of its executor, or NULL when that is gone, or is a later process than the
   * incarnation says (0: not known): the run is then LOST there. May itself be NULL: executors are not looked at. */
  void *(*adopted)(void *arg, const struct task_spec *spec, struct slice executor, int64_t incarnation);
  void *arg;
  /* Runs have ended on which others depend (st_run_apply_ret). May be NULL: they are found all the same, later. */
  void (*parents_ended)(void *arg);
  /* All that this node knows of the shard is durable, and nothing of it is sent any more (run_hand_over): it may be released. */
  void (*handed_over)(void *arg, int32_t shard, int64_t epoch);
};
struct run_options {
  struct store *finish;     /* a STORE_FINISH session; owned by the service from run_service_new on */
  struct store *api;        /* pooled; borrowed; for questions */
  usec_t (*now)(void *arg); /* estimate of database time; thread-safe */
  void *now_arg;
  int32_t shard_count;
  bool several;     /* other nodes may own shards of the same database: bounds are shared (run/bounds.h) */
  size_t queue_max; /* events waiting for the writer: 65,536; beyond: ERR_BUSY */
  size_t batch_max; /* events of one commit: 4,096 */
  struct live_limits limits;
  uint64_t seed;
  struct run_hooks hooks;
};
void run_options_default(struct run_options *o);
int run_service_new(const struct run_options *o, struct run_service **ret, struct err *e);
int run_service_start(struct run_service *s, struct err *e);
/* Applies what is queued (at most `grace`), stops the writer. */
void run_service_stop(struct run_service *s, usec_t grace);
void run_service_free(struct run_service **s);

/* ---- bounds of executor groups and namespaces (core/live.h) */
/* The bounds of a group, or (group.p == NULL) of a namespace, have been read or changed. */
void run_bound(struct run_service *s, struct slice ns, struct slice group, const struct live_bound *b);
/* The shard is ours and will be taken over soon: until then nobody knows how many runs are under way, and nothing starts that is bounded. */
void run_expect(struct run_service *s, int32_t shard);
/* What a run waits for, as far as this node knows. */
enum run_wait run_waits_for(struct run_service *s, const struct run_key *key);
void run_count_waits(struct run_service *s, int64_t ret[WAIT_MAX_]);

/* ---- for the trigger */
/* The shard is ours with this epoch: read its open runs by `store` and take them over (deliveries start at once). Blocks. ERR_FENCED:
 * another owner had it before they were read; nothing was taken over. */
int run_adopt(struct run_service *s, struct store *store, int32_t shard, int64_t epoch,
              struct spec_cache *specs, struct err *e);
void run_disown(struct run_service *s, int32_t shard);
/* Another owner has it, or may: from now on nothing of it is sent. run_disown follows. Does not block. */
void run_fenced(struct run_service *s, int32_t shard, int64_t epoch);
/* Another owner shall have the shard, which fires no more: from now on nothing of it is sent; what waits for the writer is written, what is
 * under way may be answered for 100 ms, then its executors are written into the rows, the runs are forgotten, and hooks.handed_over follows. */
void run_hand_over(struct run_service *s, int32_t shard, int64_t epoch);
/* Overlap decisions with reservation: between run_decide_begin and _end only live_decide may be called; short. */
struct live *run_decide_begin(struct run_service *s);
void run_decide_end(struct run_service *s);
/* Rows committed by FIRE, with their specs: they become open runs, deliveries start. */
void run_opened(struct run_service *s, const struct run_row *rows, struct task_spec *const *specs, size_t n);
bool run_has_scheduled(struct run_service *s, int64_t task_id);
/* Ask for the cancel of all open runs of a task. Returns how many were open. */
size_t run_cancel_task(struct run_service *s, int64_t task_id);

/* ---- for the dispatcher */
bool run_wanted(struct run_service *s, const struct run_job *j);
bool run_sending(struct run_service *s, const struct run_job *j, const struct live_place *where);
void *run_take_slot(struct run_service *s, const struct run_job *j);

/* ---- events: from deliveries, reports, people */
enum run_result {
  RUN_RESULT_RECORDED,
  RUN_RESULT_LATE,
  RUN_RESULT_CONFLICT,
  RUN_RESULT_FORBIDDEN,
  RUN_RESULT_NOT_OWNER,
  RUN_RESULT_TAKEN /* not by run_post: it is in the inbox, the owner will carry it out (report/forward.h) */
};
/* Post events; all texts are copied. `done` (may be NULL) is called once, when each of them is durable or refused, on the writer's
 * thread: one result for each event. ERR_BUSY: nothing was taken; an event of a shard that is not ours gets NOT_OWNER. */
int run_post(struct run_service *s, const struct live_event *events, size_t n,
             void (*done)(void *arg, const enum run_result *results, size_t n), void *arg, struct err *e);
/* Post an event that came by row `no` of the inbox of its run's shard, which goes in the very transaction that it leads to. `done` (not
 * NULL) as in run_post; NOT_OWNER: the row is still there. */
int run_post_inbox(struct run_service *s, const struct live_event *ev, int64_t no,
                   void (*done)(void *arg, const enum run_result *results, size_t n), void *arg,
                   struct err *e);
/* This incarnation of it, and those before. */
int run_executor_lost(struct run_service *s, struct slice ns, struct slice group, struct slice executor,
                      int64_t incarnation);

/* The database has refused every change of runs for a second. */
bool run_failing(const struct run_service *s);
/* Under which number the metrics count the group of a task (base/metric_group.h). */
int run_group_label(struct task_spec *spec);

/* ---- questions (block on the database) */
int run_get(struct run_service *s, const struct run_key *key, struct st_run_get_ret *ret, struct arena *mem,
            struct err *e);
int run_list(struct run_service *s, const struct st_run_list *in, struct st_run_list_ret *ret,
             struct arena *mem, struct err *e);
int run_attempts(struct run_service *s, const struct run_key *key, struct st_attempt_list_ret *ret,
                 struct arena *mem, struct err *e);
/* ---- its part of an explanation (core/explain.h); f->task_id is known. In this order, and the versions between the first two. */
struct explain_facts;
struct explain_span;
#define RUN_EXPLAIN_MAX 200 /* runs in the time that is asked for */
int run_explain_decided(struct run_service *s, int32_t shard, struct explain_facts *f, struct arena *mem,
                        struct err *e);
/* The runs in a time, those that stand for instants in it, and some before. ERR_LIMIT: more than RUN_EXPLAIN_MAX. */
int run_explain_at(struct run_service *s, const struct explain_span *span, struct explain_facts *f,
                   struct arena *mem, struct err *e);
/* The open runs (some of them, when there are very many), and the last ones; f->now is known. */
int run_explain_open(struct run_service *s, struct explain_facts *f, struct arena *mem, struct err *e);
/* Open runs in memory by public state: [0] pending not yet delivered, [1] being delivered, [2] running; and how long ago the oldest of
 * each was fired, 0 = there is none (beyond 20,000 open runs: at most). */
void run_counts(struct run_service *s, int64_t ret[3], usec_t ret_age[3]);
