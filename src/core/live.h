#pragma once
/* The open runs of the shards that this node owns, and what each event makes of them. Pure: the driver (src/run, tests/sim)
 * feeds events, commits the rows that come out, and only then carries out what must follow the commit.
 *
 * One turn:  live_event … live_event, live_tick → struct live_out → the driver commits out's rows in one transaction (until the
 * outcome is known) → live_settle → answers, dispatches, cancels. Between a step and its live_settle no further step may be taken.
 * live_decide, live_undecide, live_open and the questions may come at any time under the lock that guards the whole struct. */
#include "base/mem.h"
#include "core/overlap.h"
#include "core/rows.h"
#include "core/run_fsm.h"

struct live;

struct live_limits {
  usec_t write_running_after;  /* a run still open so long after its dispatch gets RUNNING written: 2 s */
  usec_t write_progress_every; /* 2 s */
};

/* What happened to a run. */
struct live_event {
  enum run_event kind;
  struct run_key key;
  int32_t attempt;                /* of the report or answer; 0 = whichever is current (cancel) */
  struct slice executor;          /* who; p == NULL: unknown */
  int64_t incarnation;            /* which registration of it; 0 = not said */
  struct slice ns, group;         /* of the reporter: must be the run's; p == NULL: not checked */
  usec_t started_at, finished_at; /* as the executor says; 0 = not said */
  struct slice result, error_type, error_message, error_detail;
  double progress; /* < 0: not said */
  void *token;     /* answered after the commit; NULL: nobody waits */
  int64_t
      fence; /* of the delivery that it is about; 0 = of none. Looked at by the driver: what went wrong with a delivery of an
                      earlier owner says nothing about this one's */
};
enum live_answer {
  LIVE_RECORDED,  /* it changed something, or was seen and is durable */
  LIVE_LATE,      /* for an ended run, an older attempt, or one that is not known here: changes nothing */
  LIVE_CONFLICT,  /* not possible in this phase; of a claim: another process has the attempt */
  LIVE_GRANTED,   /* of a claim: the attempt is the asker's */
  LIVE_FORBIDDEN, /* the reporter belongs to another namespace or group */
  LIVE_UNKNOWN,   /* this node cannot say now: repeat it */
};

/* A delivery to be made once the rows are committed. Texts are borrowed from the run: valid until the next turn. */
struct live_dispatch {
  struct run_key key;
  int32_t version, attempt;
  struct task_spec *spec;    /* borrowed: take a reference to keep it */
  usec_t fired_at, deadline; /* deadline of the attempt */
  const char *pin, *payload, *previous,
      *holder; /* NULL: none. previous: had the attempt before, try another one first. holder: may have this one already,
                             as the owner before said when it stopped: ask nobody else as long as it lives */
  int64_t holder_incarnation; /* 0 = not known */
};
struct live_cancel { /* tell this executor to stop */
  struct run_key key;
  int32_t attempt;
  struct task_spec *spec;
  char *executor; /* owned by the out */
};
struct live_release { /* the attempt no longer holds this slot (live_sending): give it back */
  void *slot;
};
struct live_done { /* for counting: a run ended */
  struct run_key key;
  struct task_spec *spec; /* borrowed until live_out_clear */
  enum run_state state;
  enum run_reason reason;
  enum run_origin origin;
  int32_t attempt;
  usec_t fired_at, started_at, finished_at;
};
#define LIVE_VEC(type, name)                                                                                 \
  type *name;                                                                                                \
  size_t name##_count, name##_cap
struct live_out {   /* zeroed at first; live_out_clear between turns, live_out_done at the end */
  struct arena mem; /* texts of the rows below */
  LIVE_VEC(struct run_update, updates);
  LIVE_VEC(struct run_finish, finishes);
  LIVE_VEC(struct attempt_row, attempts);
  LIVE_VEC(struct progress_row,
           progress); /* FIXED_DELAY: base_at = the end; tell the trigger after the commit */
  LIVE_VEC(struct live_dispatch, dispatches);
  LIVE_VEC(struct live_cancel, cancels);
  LIVE_VEC(struct live_release, releases);
  LIVE_VEC(struct live_done, done);
  struct live_token {
    void *token;
    enum live_answer answer;
  } * answers;
  size_t answers_count, answers_cap;
};
/* Add an answer of the driver's own (e.g. for a shard that is not held). */
void live_out_answer(struct live_out *o, void *token, enum live_answer answer);
void live_out_clear(struct live_out *o);
void live_out_done(struct live_out *o);
static inline bool live_out_writes(const struct live_out *o) {
  return o->updates_count || o->finishes_count || o->attempts_count || o->progress_count;
}

struct live *live_new(const struct live_limits *limits, uint64_t seed);
void live_free(struct live **l);
size_t live_count(const struct live *l);
/* Open runs in a phase: for metrics. */
size_t live_count_phase(const struct live *l, enum run_phase phase);
/* When the oldest run of each phase was fired; USEC_NEVER: there is none. Looks at the `look` runs that have been open longest; the runs of
 * a phase that is not among these are no older than the last one of them, which is what is said then. */
void live_oldest(const struct live *l, size_t look, usec_t ret[PHASE_MAX_]);

/* --- bounds beyond the task's own: whatever is beyond them waits as QUEUED, the higher priority first, then the older one */
struct live_bound {
  int64_t max_concurrent; /* runs between dispatch and end; 0 = any number */
  double
      rate; /* begun per second; 0 = any number. Further attempts are not held up, they are paid for by what begins next */
  double burst; /* begun at once after a rest: at least 1 */
};
/* Of an executor group, or (group.p == NULL; no rate) of a namespace. For what this owner holds: where several nodes share the shards, each
 * is given its part. Holds from the moment when no reservation is out. */
void live_bound(struct live *l, struct slice ns, struct slice group, const struct live_bound *b);
/* Several nodes share the bounds (docs/adr/0030): from now on only as many may be active as have been given to this one by live_part, at first
 * those that are active now. `rate_share`: this node's share of each rate, 0 < … ≤ 1. */
void live_share(struct live *l, bool shared, double rate_share);
struct live_need {  /* of a bound on how many are active */
  char *ns, *group; /* group NULL: of a namespace. Owned: live_needs_free */
  int64_t most;     /* the whole bound */
  int64_t part;     /* this node's */
  int64_t want;     /* what runs and waits here */
};
struct live_need *live_needs(const struct live *l, size_t *ret_count);
void live_needs_free(struct live_need *needs, size_t count);
bool live_shares(const struct live *l);
bool live_has_bounds(const struct live *l); /* of any kind */
/* Nothing of what was given is left: all it has is what runs. */
void live_parts_drop(struct live *l);
/* So many more are given to this node, and it shall go down to `goal`: at once as far as nothing runs there, else as runs end. */
void live_part(struct live *l, const struct live_need *of, int64_t given, int64_t goal);
/* While the open runs of a shard are still to be read nobody knows how many there are: nothing starts that is bounded. */
void live_hold(struct live *l, bool hold);

/* --- the trigger's side */
/* Decide and reserve for a run about to be fired (core/shard.h struct shard_overlap). */
enum overlap_decision live_decide(struct live *l, const struct overlap_ask *ask);
/* Give a reservation back: the FIRE was refused. `queued`: it was decided OVERLAP_DO_QUEUE. */
void live_undecide(struct live *l, int64_t task_id, const struct task_spec *spec, bool queued);
/* A run whose row has been committed by FIRE, as decided (its reservation becomes the run), or loaded at a take-over (`adopted`: no
 * reservation; a PENDING/DISPATCHING one is delivered again). Takes a reference to `spec`. Its first dispatch goes to `out`.
 * false: it is here already. */
bool live_open(struct live *l, const struct run_row *row, struct task_spec *spec, bool adopted, usec_t now,
               struct live_out *out);
/* Forget all runs of a shard: it was lost to another owner. Their slots come out as releases. May come between a step and its settle. */
void live_drop_shard(struct live *l, int32_t shard, struct live_out *out);
/* Is a run of the schedule itself (part 0) of this task open, fired as FIXED_DELAY: will its end be told? (At load.) */
bool live_has_scheduled(struct live *l, int64_t task_id);
bool live_has(struct live *l, const struct run_key *key);

/* --- the run writer's side */
void live_event(struct live *l, const struct live_event *ev, usec_t now, struct live_out *out);
/* How many deliveries have begun so far (live_sending). */
uint64_t live_sends(const struct live *l);
/* All runs that this executor holds get EXECUTOR_LOST, but those whose delivery began after `sends`: they are its successor's, which has
 * registered under the same id since. */
void live_executor_lost(struct live *l, const struct live_event *ev, uint64_t sends, usec_t now,
                        struct live_out *out);
/* Before a stop. Write RUNNING for all that are and whose row does not say so yet: they need not be delivered again. Of those that
 * may have been received, write by whom: the next owner asks that one. `shard` -1: of all. */
void live_write_running(struct live *l, int32_t shard, usec_t now, struct live_out *out);
/* Is a delivery of this shard under way whose answer may still come? */
bool live_unanswered(const struct live *l, int32_t shard);
/* Timers that have passed. At most `max` runs; true: more are waiting. */
bool live_tick(struct live *l, usec_t now, size_t max, struct live_out *out);
usec_t live_next_wake(const struct live *l); /* USEC_NEVER: none */
/* The rows of `out` are durable: what was waiting for that is applied (successors are released by the next turn's tick). */
void live_settle(struct live *l, struct live_out *out);

/* --- questions */
/* The keys of all open runs of a shard, in order: free with mem_free. */
struct run_key *live_keys_of_shard(struct live *l, int32_t shard, size_t *ret_count);
/* The keys of all open runs of a task: free with mem_free. */
struct run_key *live_keys_of_task(struct live *l, int64_t task_id, size_t *ret_count);
/* What a QUEUED run waits for. */
enum run_wait live_waits_for(struct live *l, const struct run_key *key);
/* QUEUED runs by what they wait for. */
void live_count_waits(const struct live *l, int64_t ret[WAIT_MAX_]);
/* Shall this attempt still be delivered? (asked by the dispatcher just before it sends) */
bool live_wanted(struct live *l, const struct run_key *key, int32_t attempt);
struct live_place { /* where an attempt goes */
  struct slice executor;
  int64_t incarnation; /* 0 = not known */
  void *slot;          /* opaque, may be NULL */
};
/* The dispatcher is about to write the request: from now on it may have been received there. The slot is kept with the attempt and comes
 * back as a live_release when the attempt is over. False: no longer wanted, slot not taken. */
bool live_sending(struct live *l, const struct run_key *key, int32_t attempt, const struct live_place *where);
/* Take the slot back (the executor was busy or not reached): NULL when the attempt holds none any more. */
void *live_take_slot(struct live *l, const struct run_key *key, int32_t attempt);
/* A run found RUNNING at a take-over holds this slot. False: not taken (the run or the attempt is over, or it has one). */
bool live_adopt_slot(struct live *l, const struct run_key *key, int32_t attempt, void *slot);
