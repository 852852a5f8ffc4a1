#include "core/run_fsm.h"
#include "core/retry.h"

#define PHASE(name, state, reason) #name,
const char *const run_phase_names[] = {
#include "core/run_fsm.def"
    NULL};
#define EVENT(name, text) #name,
const char *const run_event_names[] = {
#include "core/run_fsm.def"
    NULL};
#define EVENT(name, text) text,
const char *const run_event_texts[] = {
#include "core/run_fsm.def"
    NULL};

static const struct {
  enum run_state state;
  enum run_reason reason;
} phase_public[] = {
#define RUN_MAX_                   RUN_STATE_MAX_
#define PHASE(name, state, reason) {RUN_##state, REASON_##reason},
#include "core/run_fsm.def"
};

enum verb { VERB_NONE, VERB_GO, VERB_STAY, VERB_END, VERB_TRY, VERB_TRY_LAST, VERB_LOST, VERB_CANCEL };

struct move {
  enum verb verb;
  enum run_phase phase;
  enum run_state state;
  enum run_reason reason;
  const char *text, *target;
};

/* Outcomes of END. */
#define OUTCOME_SUCCESS         .state = RUN_SUCCESS
#define OUTCOME_CANCELLED       .state = RUN_CANCELLED
#define OUTCOME_REPLACED        .state = RUN_CANCELLED, .reason = REASON_REPLACED
#define OUTCOME_SKIPPED_OVERLAP .state = RUN_SKIPPED, .reason = REASON_OVERLAP
#define OUTCOME_FAIL_EXPIRED    .state = RUN_FAIL, .reason = REASON_EXPIRED
#define OUTCOME_FAIL_TIMEOUT    .state = RUN_FAIL, .reason = REASON_TIMEOUT
#define OUTCOME_FAIL_ERROR      .state = RUN_FAIL, .reason = REASON_ERROR

#define TARGET_GO(t)       .phase = PHASE_##t
#define TARGET_STAY(t)     .phase = PHASE_MAX_
#define TARGET_END(t)      .phase = PHASE_ENDED, OUTCOME_##t
#define TARGET_TRY(t)      .reason = REASON_##t
#define TARGET_TRY_LAST(t) .phase = PHASE_MAX_
#define TARGET_LOST(t)     .phase = PHASE_MAX_
#define TARGET_CANCEL(t)   .phase = PHASE_MAX_

static const struct move moves[PHASE_MAX_][EV_MAX_] = {
#define MOVE(from, event, v, to, words)                                                                      \
  [PHASE_##from][EV_##event] = {.verb = VERB_##v, TARGET_##v(to), .text = words, .target = #to},
#include "core/run_fsm.def"
};

enum run_state run_phase_state(enum run_phase p) { return phase_public[p].state; }

enum run_reason run_phase_reason(enum run_phase p) { return phase_public[p].reason; }

enum run_phase run_phase_of(enum run_state state, enum run_reason reason) {
  for (int p = 0; p < PHASE_ENDED; p++)
    if (phase_public[p].state == state && phase_public[p].reason == reason)
      return (enum run_phase)p;
  return PHASE_ENDED;
}

static void end_run(struct run_actions *a, enum run_state state, enum run_reason reason) {
  a->phase = PHASE_ENDED;
  a->state = state;
  a->reason = reason;
}

static void go(struct run_actions *a, enum run_phase phase) {
  a->phase = phase;
  a->state = run_phase_state(phase);
  a->reason = run_phase_reason(phase);
}

struct try_context {
  usec_t now;
  struct rng *rng;
  bool last_one; /* on_lost = FAIL */
};

/* The attempt failed: one more, or the end. */
static void try_again(struct run_actions *a, const struct run_view *v, const struct task_spec *spec,
                      enum run_reason why, struct try_context *c) {
  usec_t delay = c->last_one ? -1 : retry_delay(spec, v->attempt, why, v->fired_at, c->now, c->rng);
  a->attempt_failed = true;
  a->failed_for = why;
  if (delay < 0) {
    end_run(a, RUN_FAIL, why);
    return;
  }
  go(a, PHASE_RETRY_WAIT);
  a->not_before = c->now + delay;
}

/* An attempt that we give up on may still run out there: its executor is told so. */
static bool gives_up_on(const struct run_view *v, enum run_event event) {
  bool on_executor = v->phase == PHASE_ACCEPTED || v->phase == PHASE_PROGRESS ||
                     (v->phase == PHASE_DISPATCHING && v->maybe_sent);
  return on_executor && (event == EV_ATTEMPT_TIMEOUT || event == EV_BEAT_TIMEOUT || event == EV_RUN_TIMEOUT ||
                         event == EV_DISPATCH_TIMEOUT);
}

struct run_actions run_step(const struct run_view *v, const struct task_spec *spec, enum run_event event,
                            usec_t now, struct rng *rng) {
  const struct move *m = &moves[v->phase][event];
  struct run_actions a = {.phase = v->phase, .attempt = v->attempt, .text = m->text};
  struct try_context c = {.now = now, .rng = rng};
  go(&a, v->phase);
  if (m->verb == VERB_NONE)
    return a;
  a.changed = true;
  bool unclaimed = spec->exactly_one_start && v->phase == PHASE_DISPATCHING; /* then it has not started */
  switch (m->verb) {
  case VERB_GO:
    go(&a, m->phase);
    a.dispatch = m->phase == PHASE_DISPATCHING;
    a.attempt += a.dispatch;
    a.tell_cancel = m->phase == PHASE_CANCELLING;
    break;
  case VERB_END: end_run(&a, m->state, m->reason); break;
  case VERB_TRY: try_again(&a, v, spec, m->reason, &c); break;
  case VERB_TRY_LAST:
    try_again(&a, v, spec, v->last_trouble ? v->last_trouble : REASON_NO_EXECUTOR, &c);
    break;
  case VERB_LOST:
    if (unclaimed) {
      go(&a, PHASE_RETRY_WAIT);
      a.attempt_failed = true;
      a.failed_for = REASON_LOST;
      a.not_before = now;
      break;
    }
    c.last_one = spec->on_lost == ON_LOST_FAIL;
    try_again(&a, v, spec, REASON_LOST, &c);
    break;
  case VERB_CANCEL:
    a.tell_cancel = v->maybe_sent;
    if (v->maybe_sent && !unclaimed)
      go(&a, PHASE_CANCELLING);
    else
      end_run(&a, RUN_CANCELLED, REASON_NONE);
    break;
  case VERB_STAY:
  case VERB_NONE: break;
  }
  if (a.phase == PHASE_ENDED && a.state == RUN_CANCELLED && (v->replaced || event == EV_REPLACE))
    a.reason = REASON_REPLACED;
  a.tell_cancel = a.tell_cancel || gives_up_on(v, event);
  return a;
}

/* Targets of a move as drawn: a phase, or an end. */
static const char *move_target(enum run_phase from, const struct move *m) {
  switch (m->verb) {
  case VERB_GO:
  case VERB_END: return m->target;
  case VERB_TRY:
  case VERB_TRY_LAST:
  case VERB_LOST: return "RETRY_WAIT";
  case VERB_CANCEL: return "CANCELLING";
  case VERB_STAY:
  case VERB_NONE: break;
  }
  return run_phase_names[from];
}

static bool move_may_fail(const struct move *m) {
  return m->verb == VERB_TRY || m->verb == VERB_TRY_LAST || m->verb == VERB_LOST;
}

static const char *fail_name(const struct move *m) {
  return m->verb == VERB_TRY    ? run_reason_names[m->reason]
         : m->verb == VERB_LOST ? "LOST"
                                : "by the last trouble";
}

void run_fsm_mermaid(struct str *out) {
  str_addz(out, "stateDiagram-v2\n  [*] --> DISPATCHING : fired\n  [*] --> QUEUED : fired, overlap\n  [*] "
                "--> SCHEDULED : caught up\n");
  for (int p = 0; p < PHASE_ENDED; p++)
    for (int ev = 0; ev < EV_MAX_; ev++) {
      const struct move *m = &moves[p][ev];
      if (m->verb == VERB_NONE || m->verb == VERB_STAY)
        continue;
      str_addf(out, "  %s --> %s : %s (%s)\n", run_phase_names[p], move_target((enum run_phase)p, m),
               run_event_names[ev], m->text);
      if (move_may_fail(m))
        str_addf(out, "  %s --> FAIL : %s, no attempt left (%s)\n", run_phase_names[p], run_event_names[ev],
                 fail_name(m));
      if (m->verb == VERB_CANCEL)
        str_addf(out, "  %s --> %s : %s, surely not sent\n", run_phase_names[p],
                 ev == EV_REPLACE ? "REPLACED" : "CANCELLED", run_event_names[ev]);
    }
  for (const char *const *end =
           (const char *const[]){"SUCCESS", "CANCELLED", "REPLACED", "SKIPPED_OVERLAP", "FAIL",
                                 "FAIL_EXPIRED", "FAIL_TIMEOUT", "FAIL_ERROR", NULL};
       *end; end++)
    str_addf(out, "  %s --> [*]\n", *end);
}

void run_fsm_json(struct str *out) {
  bool first = true;
  str_addz(out, "[");
  for (int p = 0; p < PHASE_ENDED; p++)
    for (int ev = 0; ev < EV_MAX_; ev++) {
      const struct move *m = &moves[p][ev];
      if (m->verb == VERB_NONE)
        continue;
      str_addf(out, "%s\n  {\"from\":\"%s\",\"event\":\"%s\",\"to\":\"%s\",\"or_fail\":%s,\"text\":\"%s\"}",
               first ? "" : ",", run_phase_names[p], run_event_names[ev], move_target((enum run_phase)p, m),
               move_may_fail(m) ? "true" : "false", m->text);
      first = false;
    }
  str_addz(out, "\n]\n");
}
