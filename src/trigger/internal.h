#pragma once
/* Private to src/trigger. Everything here runs on the trigger thread unless said otherwise. */
#include "base/metric.h"
#include "base/metric_group.h"
#include "base/queue.h"
#include "base/thread.h"
#include "trigger/engine.h"
#include <stdatomic.h>

struct engine_msg {
  enum { MSG_OWN, MSG_DISOWN, MSG_HAND_OVER, MSG_DELAY_ENDED } kind;
  int32_t shard;
  int64_t epoch, tasks_version, fired_task, task_id;
  usec_t fired_at, end;
};

struct reservation { /* of a run whose FIRE has an unknown fate (live_decide) */
  int64_t task_id;
  struct task_spec *spec; /* a reference */
  bool queued;
};

struct owned_shard {
  struct shard *shard; /* NULL: not ours */
  bool adopted;        /* its open runs are in the run service */
  bool loaded;
  usec_t loaded_at; /* database time */
  bool look;        /* changes or inbox rows may be waiting */
  usec_t retry_at;  /* a load failed: again then (database time) */
  usec_t
      pause_until; /* its FIRE was refused for what is in it, or for its time: not before then (database time) */
  int refused;     /* FIREs refused in a row because tasks changed */
  int64_t epoch;
  struct fire_batch batch;
  bool in_fire; /* has an unsettled batch */
  struct reservation *
      kept; /* to be given back when its open runs have been read anew: theirs are among them, or there are none */
  size_t kept_count, kept_cap;
  struct fire_request *requests; /* parsed inbox, in `mem` */
  size_t request_count;
  struct arena mem; /* of the requests */
};

struct hint {
  _Atomic bool changed; /* look at its tasks and its inbox */
  _Atomic int
      events; /* of its inbox, on their way through the run writer: until they are answered their rows are left alone */
  _Atomic bool reload; /* the queue was full: an order for it was lost, its truth is in the database */
};

enum { COMPLETED_BLOCK = 500 };
struct completed_block {
  int64_t ids[COMPLETED_BLOCK];
  int32_t versions[COMPLETED_BLOCK];
  size_t count;
};

enum missed {                  /* why an instant was not fired within its misfire threshold */
              MISSED_DOWNTIME, /* it was due before this node had loaded its shard */
              MISSED_DB,       /* the database did not take a FIRE */
              MISSED_OVERLOAD,
              MISSED_MAX_
};
struct fire_series { /* of an executor group */
  struct metric *fires[ORIGIN_MAX_], *skipped[REASON_MAX_], *missed[MISSED_MAX_];
};

struct engine {
  struct engine_options o;
  struct queue *queue;
  struct queue *completed; /* struct completed_block: to be marked COMPLETED */
  struct hint *hints;      /* by shard; from any thread */
  struct thread thread, listener, completer;
  _Atomic bool stopping;
  struct zone_set *zones;
  struct spec_cache *specs;
  struct owned_shard *shards; /* by shard id */
  usec_t polled_at, zones_at; /* database time */
  usec_t backoff;             /* the database does not answer: how long to wait */
  usec_t
      alone_until; /* a FIRE of many shards was refused for what is in it: one shard at a time until then (database time) */
  int32_t first;        /* which shard is looked at first: moves on, so that none starves */
  struct arena mem;     /* of one round */
  struct run_row *rows; /* of one FIRE: open ones from the front, ended ones in `ended` */
  size_t row_count, row_cap;
  struct run_row *ended;
  size_t ended_count, ended_cap;
  struct fire_item **row_items; /* what each of `rows` was made of */
  size_t row_items_cap;
  _Atomic size_t owned, loaded, tasks;
  struct thread after;     /* after.c */
  struct mutex after_lock; /* guards parents_ended */
  struct cond after_wake;
  bool parents_ended;
  struct mutex pause_lock; /* guards nothing: for pauses that end with the engine */
  struct cond pause;
  _Atomic usec_t
      failing_since; /* monotonic: the database has not taken a FIRE since; 0: it took the last one */
  usec_t db_bad_from, db_bad_until;                  /* database time: FIREs were not taken then; 0 = never */
  struct fire_series *series[METRIC_GROUPS_MAX + 1]; /* by the group's number */
  struct metric *lateness, *inbox_events, *refusals, *fire_errors, *tasks_gauge, *after_age;
};

/* engine.c: wait, but not beyond engine_stop. Any thread. */
void engine_pause(struct engine *g, usec_t length);
/* load.c: read the tasks of a shard and start it. */
int engine_load(struct engine *g, struct owned_shard *w);
/* Earlier versions of tasks that are held, those that ruled after `since` and those that these need. */
struct engine_older {
  struct store *store;
  usec_t watermark, since;
  const int64_t *task_ids; /* of these tasks; NULL: of all */
  size_t task_count;
};
int engine_load_older(struct engine *g, struct owned_shard *w, const struct engine_older *o, struct err *e);
void engine_drop(struct engine *g, struct owned_shard *w);
/* … but its runs stay. */
void engine_let_go(struct engine *g, struct owned_shard *w);
/* Read the shard anew with the next round, its open runs too. */
void engine_reload(struct engine *g, struct owned_shard *w);
/* after.c: the thread that makes requests of what the ends of parents lead to. */
void engine_after_main(void *engine);
/* changes.c: read the feed and the inbox of shards that may have something. */
int engine_look(struct engine *g, usec_t now);
int engine_changes(struct engine *g, struct owned_shard *w, struct store *store);
void engine_take_version(struct engine *g, const struct task_version_row *row, struct shard_version *ret);
/* pause.c: a catch-up on request begins, with the version that resumed the task and those of the pause. False: not now. */
bool engine_begin_catch_up(struct engine *g, struct owned_shard *w, const struct fire_request *r);
/* fire.c: one FIRE over all shards that have something due. Returns true when there may be more at once. */
bool engine_fire(struct engine *g, usec_t now);
/* Nobody can have fired it before: it was due after the watermark as seen, whatever the jitter. */
static inline bool engine_is_fresh(const struct fire_batch *b, const struct fire_item *i) {
  return i->key.part == 0 && i->key.scheduled_at > b->seen_at;
}
/* settle.c: send it, until the fate of each of its shards is known, and settle their batches. `locked`: inside shard_lock, which it ends. */
int engine_send(struct engine *g, const struct st_fire *in, bool locked);
/* The statement is refused for what is in it, and will be again. */
bool engine_refuses_contents(int rc);
/* The open runs of the shard are known: give back what was kept for those of them that were not. */
void engine_give_back_kept(struct engine *g, struct owned_shard *w);
/* Hand the tasks of a shard that have no instant left to the completer. */
void engine_note_completed(struct engine *g, struct owned_shard *w);
