#include "core/live_run.h"

/* What one event makes of one run: the rows to write, and what follows their commit. */

struct step { /* what the parts of one live_apply share */
  struct live *l;
  struct live_run *r;
  const struct live_event *ev;
  usec_t now;
  struct live_out *out;
  struct run_actions a;
};

static struct slice keep(struct live_out *out, struct slice s) { return s.p ? arena_slice(&out->mem, s) : s; }

static struct slice keepz(struct live_out *out, const char *z) { return keep(out, slice_of(z)); }

/* The run's row shall say what the run says now; one row a run and turn. */
static void write_update(struct step *st) {
  struct live_run *r = st->r;
  struct run_update *u;
  if (r->update_row) {
    u = &st->out->updates[r->update_row - 1];
  } else {
    u = LIVE_ADD(st->out, updates);
    r->update_row = st->out->updates_count;
    *u = (struct run_update){
        .key = r->key, .seen_attempt = r->db_attempt, .seen_state = r->db_state, .seen_reason = r->db_reason};
  }
  u->state = run_phase_state(r->phase);
  u->reason = run_phase_reason(r->phase);
  u->attempt = r->attempt;
  u->not_before = r->not_before;
  u->attempt_at = r->attempt_at;
  u->started_at = r->started_at;
  u->executor = keepz(st->out, r->executor);
  u->incarnation = r->incarnation;
  u->error_type = keepz(st->out, r->error_type);
  u->error_message = keepz(st->out, r->error_message);
  u->progress = r->progress;
  r->written_at = st->now;
}

/* The run ends in this very turn: its pending update is not needed any more. */
static void drop_update(struct step *st) {
  struct live_run *r = st->r;
  if (!r->update_row)
    return;
  struct run_update *last = &st->out->updates[--st->out->updates_count];
  if (r->update_row - 1 != st->out->updates_count) {
    struct live_run *moved = live_find(st->l, &last->key);
    st->out->updates[r->update_row - 1] = *last;
    moved->update_row = r->update_row;
  }
  r->update_row = 0;
}

static void tell_cancel(struct step *st) {
  struct live_run *r = st->r;
  if (r->executor)
    *LIVE_ADD(st->out, cancels) =
        (struct live_cancel){r->key, r->attempt, task_spec_ref(r->spec), mem_strdup(r->executor)};
}

/* An executor itself tells of the run: it is there. */
static bool is_sign_of_life(enum run_event kind) {
  return kind == EV_ACCEPT || kind == EV_CLAIM || kind == EV_BEAT || kind == EV_DONE_OK ||
         kind == EV_DONE_FAIL || kind == EV_DONE_CANCELLED;
}

/* What an executor says of its work. */
static void take_life(struct live_run *r, const struct live_event *ev, usec_t now) {
  if (!is_sign_of_life(ev->kind))
    return;
  if (ev->progress >= 0 && (ev->kind == EV_BEAT || ev->kind == EV_DONE_OK))
    r->progress = ev->progress;
  if (!r->started_at)
    r->started_at = ev->started_at > 0 ? ev->started_at : now;
  r->beat_at = now;
}

/* What the event itself tells about the run. */
static void take_in(struct step *st) {
  struct live_run *r = st->r;
  const struct live_event *ev = st->ev;
  if (ev->executor.p && r->phase != PHASE_RETRY_WAIT && r->phase != PHASE_QUEUED &&
      r->phase != PHASE_SCHEDULED)
    live_set_executor(r, ev->executor, ev->incarnation);
  if (r->error_is_new && r->phase == PHASE_DISPATCHING && is_sign_of_life(ev->kind)) {
    live_set_text(&r->error_type, (struct slice){0}); /* what its delivery met is over */
    live_set_text(&r->error_message, (struct slice){0});
    r->error_is_new = false;
  }
  if (ev->error_type.p || ev->error_message.p) {
    live_set_text(&r->error_type, ev->error_type);
    live_set_text(&r->error_message, ev->error_message);
    r->error_is_new = true;
  }
  take_life(r, ev, st->now);
}

/* What a delivery met: decides the reason when the time for it is up, and whether the executor may have it. */
static void note_delivery(struct live_run *r, enum run_event kind) {
  if (kind == EV_PROMISE) {
    r->promised = true;
    r->last_trouble = REASON_LOST;
    live_set_text(&r->error_type, slice_of(run_reason_names[REASON_LOST]));
    live_set_text(&r->error_message, SLICE("the executor took it and has not claimed it"));
    r->error_is_new = true;
  }
  if (kind == EV_BUSY || kind == EV_UNREACHABLE)
    r->maybe_sent = r->ack_lost;
  if (kind == EV_ACK_LOST)
    r->maybe_sent = r->ack_lost = true;
  if (kind == EV_BUSY)
    r->last_trouble = REASON_REJECTED;
  else if (kind == EV_UNREACHABLE || kind == EV_NO_EXECUTOR)
    r->last_trouble = REASON_NO_EXECUTOR;
  else if (kind == EV_ACK_LOST)
    r->last_trouble = REASON_LOST;
}

/* When nobody said what was wrong, the reason and the log text do. */
static void explain(struct step *st, enum run_reason why) {
  struct live_run *r = st->r;
  bool told = st->ev->error_type.p || st->ev->error_message.p;
  if (told && st->ev->kind != EV_BUSY)
    return;
  live_set_text(&r->error_type, slice_of(run_reason_names[why]));
  if (!r->error_is_new || !r->error_message || st->ev->kind != EV_DISPATCH_TIMEOUT)
    live_set_text(&r->error_message, slice_of(st->a.text));
  r->error_is_new = true;
}

static void add_attempt(struct step *st, enum run_state state, enum run_reason reason) {
  struct live_run *r = st->r;
  bool failed = state == RUN_FAIL;
  *LIVE_ADD(st->out, attempts) =
      (struct attempt_row){.key = r->key,
                           .attempt = r->attempt,
                           .state = state,
                           .reason = reason,
                           .dispatched_at = r->attempt_at,
                           .started_at = r->started_at,
                           .finished_at = st->now,
                           .executor = keepz(st->out, r->executor),
                           .error_type = keepz(st->out, failed ? r->error_type : NULL),
                           .error_message = keepz(st->out, failed ? r->error_message : NULL)};
}

/* The run leaves the place where it waits; what it counts as active only live_settle gives back. */
static bool leave_queue(struct step *st) {
  struct live_run *r = st->r;
  if (r->phase != PHASE_QUEUED)
    return false;
  r->task->queued--;
  live_queue_remove(r->task, r);
  return true;
}

/* It is active from now on; a further attempt of one that was before is only paid for. */
static void count_start(struct step *st) {
  struct live_run *r = st->r;
  struct live_limit *x = r->limit;
  if (r->active) {
    if (x)
      live_limit_pay(st->l, x);
    return;
  }
  r->active = true;
  r->task->active++;
  if (x)
    live_limit_reserve(st->l, x);
}

static void start_delivery(struct step *st) {
  struct live_run *r = st->r;
  bool queued = leave_queue(st);
  count_start(st);
  live_set_phase(st->l, r, PHASE_DISPATCHING);
  if (queued)
    live_review(st->l, r->task);
  if (r->limit)
    live_pump(st->l, r->limit);
  r->attempt = st->a.attempt;
  r->attempt_at = r->begun_at = st->now;
  r->started_at = 0;
  r->not_before = 0;
  r->maybe_sent = r->ack_lost = r->promised = r->error_is_new = false;
  r->last_trouble = REASON_NONE;
  if (r->executor) { /* the attempt before was there */
    mem_free(r->previous);
    r->previous = take(r->executor);
    r->incarnation = 0;
  }
  write_update(st);
  r->written_at = 0; /* that was the delivery; RUNNING is still to be written */
  live_out_dispatch(r, st->out);
}

static void apply_to(struct step *st, struct live_run *r, enum run_event kind) {
  struct live_event ev = {.kind = kind, .key = r->key, .progress = -1};
  (void)live_apply(st->l, r, &ev, st->now, st->out); /* a queued run always takes its release and its end */
}

/* Whatever is due of a queued run: its time is up, a newer one takes its place, or it starts. True: only out of the way of the next. */
static bool go_queued(struct step *st, struct live_run *r) {
  enum run_event due;
  if (!r || !live_due(st->l, r, st->now, &due) || due == EV_MAX_)
    return false;
  apply_to(st, r, due);
  return due != EV_RELEASE;
}

/* Whoever waited for this end starts in the very transaction that ends it; those whose time is up have expired before, and those whose place
 * a newer one takes are skipped. */
static void release_successors(struct step *st) {
  struct live_task *t = st->r->task;
  struct live_limit *x = st->r->limit;
  t->ending++;
  live_limit_count(x, 0, 1);
  if (t->head)
    live_review(st->l, t);
  while (go_queued(st, t->head))
    continue;
  if (x)
    live_pump(st->l, x);
  while (x && go_queued(st, live_limit_first(st->l, x)))
    continue;
}

/* When it ended: as it was told, if that can be. */
static usec_t ended_at(const struct step *st) {
  usec_t told = st->ev->finished_at, fired = st->r->fired_at;
  if (told > 0 && told <= st->now && told >= fired)
    return told;
  return st->now < fired ? fired : st->now; /* the estimate of the database's time was set back in between */
}

static void finish(struct step *st) {
  struct live_run *r = st->r;
  struct live_out *out = st->out;
  const struct live_event *ev = st->ev;
  bool failed = st->a.state == RUN_FAIL;
  bool queued = leave_queue(st);
  drop_update(st);
  if (r->attempt > 1 && !st->a.attempt_failed)
    add_attempt(st, st->a.state, st->a.reason);
  usec_t end = ended_at(st);
  if (r->started_at > end) /* its start was never told, or by a clock that is ahead */
    r->started_at = end;
  *LIVE_ADD(out, finishes) =
      (struct run_finish){.key = r->key,
                          .seen_attempt = r->db_attempt,
                          .state = st->a.state,
                          .reason = st->a.reason,
                          .attempt_at = r->attempt ? r->attempt_at : 0,
                          .started_at = r->started_at,
                          .finished_at = end,
                          .executor = keepz(out, r->executor),
                          .result = keep(out, ev->result),
                          .error_type = failed ? keepz(out, r->error_type) : (struct slice){0},
                          .error_message = failed ? keepz(out, r->error_message) : (struct slice){0},
                          .error_detail = failed ? keep(out, ev->error_detail) : (struct slice){0}};
  *LIVE_ADD(out, done) = (struct live_done){
      r->key,      task_spec_ref(r->spec), st->a.state, st->a.reason, r->origin, r->attempt,
      r->fired_at, r->started_at,          end};
  if (r->spec->kind == SCHEDULE_FIXED_DELAY && r->key.part == 0)
    *LIVE_ADD(out, progress) = (struct progress_row){r->key.task_id, r->key.shard, end, -1};
  live_set_phase(st->l, r, PHASE_ENDED);
  r->ended = true;
  mem_reserve(st->l->ended, st->l->ended_count, st->l->ended_cap);
  st->l->ended[st->l->ended_count++] = r;
  if (queued)
    live_review(st->l, r->task);
  if (r->active)
    release_successors(st);
}

/* Nothing follows from the event: what is said to whoever told it. */
static enum live_answer refused(const struct live_run *r, enum run_event kind) {
  if (kind != EV_CANCEL)
    return LIVE_LATE;
  return r->phase == PHASE_CANCELLING ? LIVE_RECORDED : LIVE_CONFLICT;
}

/* The attempt is over, or the run is: what is kept of it. */
static void end_attempt(struct step *st) {
  if (st->a.attempt_failed) {
    explain(st, st->a.failed_for);
    add_attempt(st, RUN_FAIL, st->a.failed_for);
  } else if (st->a.state == RUN_FAIL) {
    explain(st, st->a.reason);
  }
  if (st->a.attempt_failed || st->a.phase == PHASE_ENDED)
    live_release_slot(st->r, st->out);
}

/* Neither delivered nor ended: in another phase now. */
static void go_to_phase(struct step *st) {
  struct live_run *r = st->r;
  enum run_phase phase = st->a.phase;
  live_set_phase(st->l, r, phase);
  r->not_before = st->a.not_before;
  if (phase == PHASE_QUEUED) {
    r->task->queued++;
    live_queue_add(r->task, r);
    live_review(st->l, r->task);
  }
  if (phase == PHASE_CANCELLING)
    r->cancel_at = st->now;
  if (st->ev->kind == EV_REPLACE) {
    r->replaced = true;
    live_set_text(&r->error_type, SLICE(LIVE_REPLACED_TYPE));
    live_set_text(&r->error_message, SLICE(LIVE_REPLACED_TEXT));
  }
  bool waits = (phase == PHASE_ACCEPTED || phase == PHASE_PROGRESS) &&
               st->ev->kind != EV_CLAIM; /* for write_running_after */
  if (!waits || r->written_at)
    write_update(st);
}

static bool progress_is_due(const struct step *st) {
  usec_t written = st->r->written_at;
  return st->ev->kind == EV_BEAT && written && st->now - written >= st->l->limits.write_progress_every;
}

static void go_on(struct step *st) {
  if (st->a.phase == PHASE_ENDED)
    finish(st);
  else if (st->a.dispatch)
    start_delivery(st);
  else if (st->a.phase != st->r->phase)
    go_to_phase(st);
  else if (progress_is_due(st))
    write_update(st);
}

/* May this process start the attempt? LIVE_GRANTED, or why not. Until it has been claimed only the one to which this owner delivered it may
 * have it: that one's loss is told to the run. */
static enum live_answer judge_claim(const struct live_run *r, const struct live_event *ev) {
  bool open = r->phase == PHASE_DISPATCHING;
  if (!open && r->phase != PHASE_ACCEPTED && r->phase != PHASE_PROGRESS)
    return LIVE_LATE;
  if (open && !r->executor)
    return LIVE_UNKNOWN; /* not delivered yet since it was taken over */
  bool same = r->spec->exactly_one_start && r->executor && slice_eqz(ev->executor, r->executor) &&
              r->incarnation == ev->incarnation;
  return same ? LIVE_GRANTED : LIVE_CONFLICT;
}

/* Where an attempt has to be claimed, an acknowledgement says only that it will be; and who has claimed it has it. */
static struct live_event as_meant(const struct live_run *r, const struct live_event *ev) {
  struct live_event e = *ev;
  if (!r->spec->exactly_one_start)
    return e;
  if (e.kind == EV_ACCEPT && r->phase == PHASE_DISPATCHING)
    e.kind = EV_PROMISE;
  if (run_phase_state(r->phase) == RUN_RUNNING && r->incarnation)
    e.executor = (struct slice){0};
  return e;
}

static enum live_answer step_event(struct live *l, struct live_run *r, const struct live_event *ev,
                                   usec_t now, struct live_out *out) {
  note_delivery(r, ev->kind);
  r->superseded = r->superseded && ev->kind != EV_REPLACE;
  struct run_view view = {.phase = r->phase,
                          .attempt = r->attempt,
                          .fired_at = r->fired_at,
                          .maybe_sent = r->maybe_sent,
                          .replaced = r->replaced,
                          .last_trouble = r->last_trouble};
  struct step st = {.l = l, .r = r, .ev = ev, .now = now, .out = out};
  st.a = run_step(&view, r->spec, ev->kind, now, &l->rng);
  if (!st.a.changed)
    return refused(r, ev->kind);
  take_in(&st);
  if (st.a.tell_cancel)
    tell_cancel(&st);
  end_attempt(&st);
  go_on(&st);
  live_wake(l, r, live_next_timer(l, r));
  return LIVE_RECORDED;
}

enum live_answer live_apply(struct live *l, struct live_run *r, const struct live_event *ev, usec_t now,
                            struct live_out *out) {
  enum live_answer claim = ev->kind == EV_CLAIM ? judge_claim(r, ev) : LIVE_RECORDED;
  if (claim != LIVE_RECORDED && claim != LIVE_GRANTED)
    return claim;
  struct live_event meant = as_meant(r, ev);
  enum live_answer answer = step_event(l, r, &meant, now, out);
  return claim == LIVE_GRANTED ? claim : answer;
}

/* ---------------------------------------------------------------- the turn */

void live_event(struct live *l, const struct live_event *ev, usec_t now, struct live_out *out) {
  live_clock(l, now);
  struct live_run *r = live_find(l, &ev->key);
  enum live_answer answer = LIVE_LATE;
  if (r && ((ev->ns.p && !slice_eqz(ev->ns, r->spec->ns)) ||
            (ev->group.p && !slice_eqz(ev->group, r->spec->group))))
    answer = LIVE_FORBIDDEN;
  else if (r && !r->ended && (!ev->attempt || ev->attempt == r->attempt))
    answer = live_apply(l, r, ev, now, out);
  if (ev->token)
    *LIVE_ADD(out, answers) = (struct live_token){ev->token, answer};
}

void live_executor_lost(struct live *l, const struct live_event *lost, uint64_t sends, usec_t now,
                        struct live_out *out) {
  struct live_run *r, *next;
  live_clock(l, now);
  HASH_ITER (hh, l->runs, r, next) {
    bool later =
        r->incarnation && lost->incarnation ? r->incarnation > lost->incarnation : r->sent_no > sends;
    if (r->ended || !r->executor || later || !slice_eqz(lost->executor, r->executor) ||
        !slice_eqz(lost->group, r->spec->group) || !slice_eqz(lost->ns, r->spec->ns))
      continue;
    struct live_event ev = {.kind = EV_EXECUTOR_LOST, .key = r->key, .progress = -1};
    (void)live_apply(l, r, &ev, now, out);
  }
}

void live_write_running(struct live *l, int32_t shard, usec_t now, struct live_out *out) {
  struct live_run *r, *next;
  HASH_ITER (hh, l->runs, r, next) {
    if (shard >= 0 && r->key.shard != shard)
      continue;
    bool runs = r->phase == PHASE_ACCEPTED || r->phase == PHASE_PROGRESS;
    bool sent = r->phase == PHASE_DISPATCHING && r->maybe_sent && r->executor;
    if (r->ended || (runs && r->written_at) || (!runs && !sent))
      continue;
    struct step st = {.l = l, .r = r, .now = now, .out = out};
    write_update(&st);
  }
}

bool live_unanswered(const struct live *l, int32_t shard) {
  struct live_run *r, *next;
  HASH_ITER (hh, l->runs, r, next) {
    if (r->key.shard == shard && r->phase == PHASE_DISPATCHING && r->maybe_sent && !r->ack_lost && !r->ended)
      return true;
  }
  return false;
}

/* What time alone does to this run now. */
static void tick_run(struct live *l, struct live_run *r, usec_t now, struct live_out *out) {
  enum run_event kind;
  struct step st = {.l = l, .r = r, .now = now, .out = out};
  bool due = live_due(l, r, now, &kind);
  if (due && kind != EV_MAX_) {
    apply_to(&st, r, kind);
    return;
  }
  if (due)
    write_update(&st); /* a long run: its row says RUNNING from now on */
  live_wake(l, r, live_next_timer(l, r));
}

bool live_tick(struct live *l, usec_t now, size_t max, struct live_out *out) {
  live_clock(l, now);
  while (live_next_wake(l) <= now) {
    if (max-- == 0)
      return true;
    tick_run(l, l->heap[0], now, out);
  }
  return false;
}

void live_settle(struct live *l, struct live_out *out) {
  for (size_t i = 0; i < out->updates_count; i++) {
    struct live_run *r = live_find(l, &out->updates[i].key);
    if (!r || r->update_row != i + 1) /* dropped, or dropped and taken over anew, since the step */
      continue;
    r->db_state = out->updates[i].state;
    r->db_reason = out->updates[i].reason;
    r->db_attempt = out->updates[i].attempt;
    r->update_row = 0;
  }
  for (size_t i = 0; i < l->ended_count; i++)
    live_leave(l, l->ended[i]);
  l->ended_count = 0;
}
