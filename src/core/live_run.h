#pragma once
/* Private to core/live*.c: one open run, its timers and its place in the task's queue. */
#include "base/mem.h"
#include "core/live.h"
#include <uthash.h>
#include <utlist.h>

/* What the row of a run says while it is CANCELLING for a newer one: with these two a take-over knows it for what it is. */
#define LIVE_REPLACED_TYPE "REPLACED"
#define LIVE_REPLACED_TEXT "a newer run of its task takes its place"

struct live_id { /* the key without padding: hashed as bytes */
  int64_t scheduled_at, task_id;
  int32_t part, shard;
};
struct live_run {
  struct live_id id;
  struct run_key key;
  struct live_task *task;
  struct task_spec *spec;
  int32_t version, attempt;
  enum run_phase phase;
  enum run_origin origin;
  enum run_reason last_trouble;
  bool maybe_sent; /* this attempt may be at an executor */
  bool ack_lost;   /* … and surely was written to one that did not answer */
  bool active;     /* counts as active in its task; else as queued (or as neither: SCHEDULED) */
  bool ended;      /* in this turn; freed by live_settle */
  bool superseded; /* a newer run takes its place: it gets EV_REPLACE with the next tick */
  bool replaced;   /* it is CANCELLING for that */
  usec_t fired_at, not_before, attempt_at, started_at, beat_at, cancel_at, written_at;
  double progress;
  char *executor, *previous, *pin, *payload;
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
  int64_t scheduled;      /* open runs of a FIXED_DELAY schedule itself */
  struct live_run *all;   /* SCHEDULED ones are neither active nor queued */
  struct live_run *head;  /* QUEUED runs in the order in which they were opened */
  UT_hash_handle hh;
};
struct live {
  struct live_limits limits;
  struct rng rng;
  uint64_t sends, opened;
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
void live_set_phase(struct live *l, struct live_run *r, enum run_phase p);
/* (Re)arm or clear the run's one timer. */
void live_wake(struct live *l, struct live_run *r, usec_t at);
/* The next instant at which anything can happen to this run by time alone. */
usec_t live_next_timer(const struct live *l, const struct live_run *r);
/* What has happened to it by time alone: EV_MAX_ = only its row is to be written. False: nothing. */
bool live_due(const struct live *l, const struct live_run *r, usec_t now, enum run_event *ret);
void live_run_free(struct live *l, struct live_run *r);
void live_release_slot(struct live_run *r, struct live_out *out);
void live_set_text(char **where, struct slice text);
void live_out_dispatch(struct live_run *r, struct live_out *out);
/* Apply one event to one run. */
enum live_answer live_apply(struct live *l, struct live_run *r, const struct live_event *ev, usec_t now,
                            struct live_out *out);

#define LIVE_ADD(out, name)                                                                                  \
  ({                                                                                                         \
    mem_reserve((out)->name, (out)->name##_count, (out)->name##_cap);                                        \
    &(out)->name[(out)->name##_count++];                                                                     \
  })
