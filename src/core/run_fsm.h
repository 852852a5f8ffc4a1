#pragma once
/* The run state machine: a table (run_fsm.def) and one pure function over it. Who writes, sends and waits is elsewhere
 * (core/live decides when, src/run does it). */
#include "base/rng.h"
#include "core/model.h"
#include "core/task_spec.h"

#define PHASE(name, state, reason) PHASE_##name,
enum run_phase {
#include "core/run_fsm.def"
  PHASE_MAX_
};
#define EVENT(name, text) EV_##name,
enum run_event {
#include "core/run_fsm.def"
  EV_MAX_
};
extern const char *const run_phase_names[], *const run_event_names[], *const run_event_texts[];
enum run_state run_phase_state(enum run_phase p);
enum run_reason run_phase_reason(enum run_phase p);
/* The phase that a stored (state, reason) means; PHASE_ENDED for ended states. */
enum run_phase run_phase_of(enum run_state state, enum run_reason reason);

/* What the decision depends on. */
struct run_view {
  enum run_phase phase;
  int32_t attempt; /* 1-based; 0 before the first delivery */
  usec_t fired_at;
  bool maybe_sent;              /* this attempt may have reached an executor */
  bool replaced;                /* it is being cancelled because a newer run takes its place */
  enum run_reason last_trouble; /* what dispatching met last: NO_EXECUTOR, REJECTED (busy) or LOST */
};

/* What follows. */
struct run_actions {
  bool changed;         /* false: nothing happened (late, or not for this phase) */
  enum run_phase phase; /* next one; PHASE_ENDED when ended */
  enum run_state state; /* public: state and reason to write */
  enum run_reason reason;
  int32_t attempt;     /* the attempt from now on */
  bool attempt_failed; /* the current attempt ended without success, for `failed_for` */
  enum run_reason failed_for;
  usec_t not_before; /* RETRY_WAIT: when the next attempt may start; else 0 */
  bool dispatch;     /* deliver `attempt` (after the write is committed) */
  bool tell_cancel;  /* tell the executor to stop this attempt */
  const char *text;  /* for the log */
};

/* Pure: the same arguments give the same actions (the random numbers come from `rng`). */
struct run_actions run_step(const struct run_view *v, const struct task_spec *spec, enum run_event event,
                            usec_t now, struct rng *rng);

/* The whole table as a Mermaid state diagram, and as rows for `kelou fsm show -o json`. */
void run_fsm_mermaid(struct str *out);
void run_fsm_json(struct str *out);
