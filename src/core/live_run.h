#pragma once
/* Private to core/live*.c: one open run, its timers and its place in the task's queue. */
#include "base/mem.h"
#include "core/live.h"
#include <uthash.h>
#include <utlist.h>

/* What the row of a run says while it is CANCELLING for a newer one: with these two a take-over knows it for what it is. */
#define LIVE_REPLACED_TYPE "REPLACED"
#define LIVE_REPLACED_TEXT "a newer run of its task takes its place"

/* The bounds of an executor group, or of a namespace, that has any (or has a group with any), and who waits there. */
struct live_limit {
  struct live_limit *parent;          /* of a group: its namespace */
  struct live_limit *children, *next; /* of a namespace: its groups */
  struct live_bound bound;
  int64_t active, ending; /* reservations included; of these: ended in this turn */
  int64_t most;       /* so many may be active: the bound, or this node's part of it; INT64_MAX: any number */
  int64_t goal;       /* at most `most`: what it goes down to as runs end, for others need it */
  double rate, burst; /* of the bound, or this node's share */
  double tokens;      /* at `filled_at`; below 0: taken in advance */
  usec_t filled_at;
  struct live_task **heap; /* those whose first queued run waits here */
  size_t count, cap;
  int64_t queued; /* runs in the queues of these */
  UT_hash_handle hh;
  char key[];
};
struct live_new_bound { /* to be taken when no reservation is out */
  char *ns, *group;
  struct live_bound bound;
};

struct live_id { /* the key without padding: hashed as bytes */
  int64_t scheduled_at, task_id;
  int32_t part, shard;
};
struct live_run {
  struct live_id id;
  struct run_key key;
  struct live_task *task;
  struct live_limit *limit; /* that it counts for, or would; NULL: of no bounds */
  struct task_spec *spec;
  int32_t version, attempt;
  enum run_phase phase;
  enum run_origin origin;
  enum run_reason last_trouble;
  bool maybe_sent; /* this attempt may be at an executor */
  bool ack_lost;   /* … and surely was written to one that did not answer */
  bool promised;   /* … and an executor has taken it, and is to claim it */
  bool active;     /* counts as active in its task; else as queued (or as neither: SCHEDULED) */
  bool ended;      /* in this turn; freed by live_settle */
  bool superseded; /* a newer run takes its place: it gets EV_REPLACE with the next tick */
  bool replaced;   /* it is CANCELLING for that */
  usec_t fired_at, not_before, attempt_at, started_at, beat_at, cancel_at, written_at;
  usec_t begun_at; /* its attempt, as committed: not the delivery of a new owner */
  double progress;
  char *executor, *previous, *pin, *payload;
  int64_t incarnation; /* of `executor`; 0 = not known */
  void *slot;
  uint64_t sent_no;                 /* number of its last delivery; 0 = none by this node */
  char *error_type, *error_message; /* of the last attempt that failed, or of this one's delivery: */
  bool error_is_new;                /* it was said in this attempt */
  enum run_state db_state;          /* as committed */
  enum run_reason db_reason;
  int32_t db_attempt;
  size_t update_row; /* 1 + index in this turn's updates; 0 = none */
  usec_t wake_at;
  size_t heap_pos;                          /* 1 + index in the heap; 0 = not in it */
  uint64_t no;                              /* in the order in which they were opened */
  struct live_run *queue_prev, *queue_next; /* in the task's queue */
  struct live_run *task_prev, *task_next;   /* among all of its task */
  UT_hash_handle hh;
};
struct live_task {
  int64_t id;
  int64_t active, queued; /* reservations included */
  int64_t ending;         /* active ones that ended in this turn: given back when it is settled */
  int64_t queue_count;
  int64_t scheduled;           /* open runs of a FIXED_DELAY schedule itself */
  struct live_run *all;        /* SCHEDULED ones are neither active nor queued */
  struct live_run *head;       /* QUEUED runs in the order in which they were opened */
  struct live_limit *waits_at; /* its head may go as far as the task is concerned */
  struct live_run *waits_with; /* the head when it began to wait there */
  size_t waits_pos;
  int64_t waits_count; /* of its queue, as counted there */
  UT_hash_handle hh;
};
struct live {
  struct live_limits limits;
  struct rng rng;
  uint64_t sends, opened;
  usec_t now;       /* of the last call that said it */
  int64_t reserved; /* decided OVERLAP_DO_START, not opened and not given back yet */
  bool held;
  bool shared;       /* other nodes have parts of the bounds, too */
  double rate_share; /* of each rate; 1: all of it */
  struct live_limit *limits_by_key;
  struct live_new_bound *bounds;
  size_t bounds_count, bounds_cap;
  struct live_run *runs;
  struct live_task *tasks;
  struct live_run **heap; /* binary, by wake_at */
  size_t heap_count, heap_cap;
  size_t by_phase[PHASE_MAX_];
  struct live_run **ended; /* of this turn */
  size_t ended_count, ended_cap;
};

struct live_run *live_find(struct live *l, const struct run_key *key);
struct live_task *live_task_of(struct live *l, int64_t task_id); /* made on demand */
void live_task_drop_if_idle(struct live *l, struct live_task *t);
void live_queue_add(struct live_task *t, struct live_run *r);
void live_queue_remove(struct live_task *t, struct live_run *r);
bool live_fired_before(const struct live_run *a, const struct live_run *b);

/* live_limit.c */
struct live_limit *live_limit_of(const struct live *l, const struct task_spec *spec); /* NULL: no bounds */
/* Does it let no further run start now, that nobody knows of yet? */
bool live_bounded(const struct live *l, const struct live_limit *x);
void live_limit_reserve(struct live *l, struct live_limit *x);
void live_limit_unreserve(struct live *l, struct live_limit *x);
/* A further attempt of a run that counts already. */
void live_limit_pay(const struct live *l, struct live_limit *x);
void live_limit_count(struct live_limit *x, int64_t active, int64_t ending); /* NULL: nothing */
/* An active run comes (1) from another owner with the place that it has in the bounds, or goes (-1) to one. */
void live_limit_move(struct live *l, struct live_limit *x, int64_t n);
/* Who of those that wait where this one does, or in its namespace, goes now; NULL: nobody. */
struct live_run *live_limit_first(const struct live *l, struct live_limit *x);
/* When a QUEUED run may start, as far as is known now; 0 = at once, USEC_NEVER = others are before it. */
usec_t live_turn_at(const struct live *l, const struct live_run *r);
/* The queue of a task, or how many of it are active, has changed: where does its head wait now? */
void live_review(struct live *l, struct live_task *t);
/* There may be room: wake who goes next. */
void live_pump(struct live *l, struct live_limit *x);
void live_bounds_take(struct live *l);
void live_clock(struct live *l, usec_t now);
void live_limits_free(struct live *l);

void live_set_phase(struct live *l, struct live_run *r, enum run_phase p);
/* (Re)arm or clear the run's one timer. */
void live_wake(struct live *l, struct live_run *r, usec_t at);
/* The next instant at which anything can happen to this run by time alone. */
usec_t live_next_timer(const struct live *l, const struct live_run *r);
/* What has happened to it by time alone: EV_MAX_ = only its row is to be written. False: nothing. */
bool live_due(const struct live *l, const struct live_run *r, usec_t now, enum run_event *ret);
void live_run_free(struct live *l, struct live_run *r);
/* It is no more, or no more here: out of its queue and counts, then freed. */
void live_leave(struct live *l, struct live_run *r);
void live_release_slot(struct live_run *r, struct live_out *out);
void live_set_text(char **where, struct slice text);
/* It is there. The same name without an incarnation says nothing new. */
void live_set_executor(struct live_run *r, struct slice executor, int64_t incarnation);
void live_out_dispatch(struct live_run *r, struct live_out *out);
/* Apply one event to one run. */
enum live_answer live_apply(struct live *l, struct live_run *r, const struct live_event *ev, usec_t now,
                            struct live_out *out);

#define LIVE_ADD(out, name)                                                                                  \
  ({                                                                                                         \
    mem_reserve((out)->name, (out)->name##_count, (out)->name##_cap);                                        \
    &(out)->name[(out)->name##_count++];                                                                     \
  })
