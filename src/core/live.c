#include "core/live_run.h"
#include <stdlib.h>

struct live *live_new(const struct live_limits *limits, uint64_t seed) {
  struct live *l = mem_zalloc(sizeof *l);
  l->limits = *limits;
  l->rate_share = 1;
  rng_seed(&l->rng, seed);
  return l;
}

void live_free(struct live **l) {
  if (!*l)
    return;
  struct live_run *r, *next;
  HASH_ITER (hh, (*l)->runs, r, next) {
    live_run_free(*l, r);
  }
  struct live_task *t, *tnext;
  HASH_ITER (hh, (*l)->tasks, t, tnext) {
    HASH_DEL((*l)->tasks, t);
    mem_free(t);
  }
  live_limits_free(*l);
  mem_free((*l)->heap);
  mem_free((*l)->ended);
  mem_free(*l);
  *l = NULL;
}

size_t live_count(const struct live *l) { return HASH_COUNT(l->runs); }

size_t live_count_phase(const struct live *l, enum run_phase phase) { return l->by_phase[phase]; }

void live_oldest(const struct live *l, size_t look, usec_t ret[PHASE_MAX_]) {
  usec_t last = 0;
  for (int i = 0; i < PHASE_MAX_; i++)
    ret[i] = USEC_NEVER;
  for (const struct live_run *r = l->runs; r && look > 0;
       r = r->hh.next, look--) { /* in the order of opening */
    last = r->fired_at;
    if (r->fired_at < ret[r->phase])
      ret[r->phase] = r->fired_at;
  }
  for (int i = 0; i < PHASE_MAX_; i++)
    if (ret[i] == USEC_NEVER && i != PHASE_ENDED && l->by_phase[i])
      ret[i] = last;
}

/* ---------------------------------------------------------------- tables */

static usec_t sooner(usec_t a, usec_t b) { return a < b ? a : b; }

static struct live_id id_of(const struct run_key *k) {
  return (struct live_id){
      .scheduled_at = k->scheduled_at, .task_id = k->task_id, .part = k->part, .shard = k->shard};
}

struct live_run *live_find(struct live *l, const struct run_key *key) {
  struct live_id id = id_of(key);
  struct live_run *r;
  HASH_FIND(hh, l->runs, &id, sizeof id, r);
  return r;
}

struct live_task *live_task_of(struct live *l, int64_t task_id) {
  struct live_task *t;
  HASH_FIND(hh, l->tasks, &task_id, sizeof task_id, t);
  if (!t) {
    t = mem_zalloc(sizeof *t);
    t->id = task_id;
    HASH_ADD(hh, l->tasks, id, sizeof t->id, t);
  }
  return t;
}

void live_task_drop_if_idle(struct live *l, struct live_task *t) {
  if (t->active || t->queued || t->all)
    return;
  HASH_DEL(l->tasks, t);
  mem_free(t);
}

void live_queue_add(struct live_task *t, struct live_run *r) {
  DL_APPEND2(t->head, r, queue_prev, queue_next);
  t->queue_count++;
}

void live_queue_remove(struct live_task *t, struct live_run *r) {
  DL_DELETE2(t->head, r, queue_prev, queue_next);
  t->queue_count--;
}

void live_set_phase(struct live *l, struct live_run *r, enum run_phase p) {
  l->by_phase[r->phase]--;
  l->by_phase[p]++;
  r->phase = p;
}

void live_set_text(char **where, struct slice text) {
  mem_free(*where);
  *where = text.p ? mem_slicedup(text) : NULL;
}

void live_set_executor(struct live_run *r, struct slice executor, int64_t incarnation) {
  if (incarnation || !r->executor || !slice_eqz(executor, r->executor))
    r->incarnation = incarnation;
  live_set_text(&r->executor, executor);
}

/* Does a FIXED_DELAY task wait for the end of this run? */
static bool live_is_delay(const struct live_run *r) {
  return r->key.part == 0 && r->spec->kind == SCHEDULE_FIXED_DELAY;
}

void live_run_free(struct live *l, struct live_run *r) {
  live_wake(l, r, USEC_NEVER);
  DL_DELETE2(r->task->all, r, task_prev, task_next);
  l->by_phase[r->phase]--;
  r->task->scheduled -= live_is_delay(r);
  HASH_DEL(l->runs, r);
  task_spec_unref(&r->spec);
  mem_free(r->executor);
  mem_free(r->previous);
  mem_free(r->pin);
  mem_free(r->payload);
  mem_free(r->error_type);
  mem_free(r->error_message);
  mem_free(r);
}

/* ---------------------------------------------------------------- the trigger's side */

enum overlap_decision live_decide(struct live *l, const struct overlap_ask *ask) {
  struct live_task *t = live_task_of(l, ask->task_id);
  struct live_limit *x = live_limit_of(l, ask->spec);
  live_clock(l, ask->now);
  struct overlap_view v = {.policy = ask->policy,
                           .max_concurrent = ask->spec->max_concurrent,
                           .active = t->active,
                           .queued = t->queued,
                           .caught_up = ask->caught_up,
                           .bounded = x && live_bounded(l, x)};
  enum overlap_decision d = overlap_decide(&v);
  if (d == OVERLAP_DO_QUEUE)
    t->queued++;
  if (d != OVERLAP_DO_START)
    return d;
  t->active++;
  l->reserved++;
  if (x)
    live_limit_reserve(l, x);
  return d;
}

void live_undecide(struct live *l, int64_t task_id, const struct task_spec *spec, bool queued) {
  struct live_task *t = live_task_of(l, task_id);
  if (queued) {
    t->queued--;
  } else {
    struct live_limit *x = live_limit_of(l, spec);
    t->active--;
    l->reserved--;
    if (x)
      live_limit_unreserve(l, x);
    live_bounds_take(l);
  }
  if (t->head)
    live_review(l, t);
  live_task_drop_if_idle(l, t);
}

static struct live_run *new_run(struct live *l, const struct run_row *row, struct task_spec *spec) {
  struct live_run *r = mem_zalloc(sizeof *r);
  r->id = id_of(&row->key);
  r->key = row->key;
  r->spec = task_spec_ref(spec);
  r->version = row->version;
  r->attempt = r->db_attempt = row->attempt;
  r->db_state = row->state;
  r->db_reason = row->reason;
  r->phase = run_phase_of(row->state, row->reason);
  r->origin = row->origin;
  r->fired_at = row->fired_at;
  r->not_before = row->not_before;
  r->attempt_at = row->attempt_at ? row->attempt_at : row->fired_at;
  r->begun_at = r->attempt_at;
  r->started_at = row->started_at;
  r->progress = row->progress;
  live_set_executor(r, row->executor, row->incarnation);
  live_set_text(&r->pin, row->pin);
  live_set_text(&r->payload, row->payload);
  live_set_text(&r->error_type, row->error_type);
  live_set_text(&r->error_message, row->error_message);
  l->by_phase[r->phase]++;
  r->no = ++l->opened;
  r->replaced = r->phase == PHASE_CANCELLING && slice_eqz(row->error_type, LIVE_REPLACED_TYPE) &&
                slice_eqz(row->error_message, LIVE_REPLACED_TEXT);
  HASH_ADD(hh, l->runs, id, sizeof r->id, r);
  return r;
}

void live_out_dispatch(struct live_run *r, struct live_out *out) {
  usec_t deadline = r->spec->attempt_timeout ? r->attempt_at + r->spec->attempt_timeout : USEC_NEVER;
  if (r->spec->timeout)
    deadline = sooner(deadline, r->fired_at + r->spec->timeout);
  *LIVE_ADD(out, dispatches) = (struct live_dispatch){.key = r->key,
                                                      .version = r->version,
                                                      .attempt = r->attempt,
                                                      .spec = r->spec,
                                                      .fired_at = r->fired_at,
                                                      .deadline = deadline,
                                                      .pin = r->pin,
                                                      .payload = r->payload,
                                                      .previous = r->previous,
                                                      .holder = r->executor,
                                                      .holder_incarnation = r->incarnation};
}

/* How an open run counts in its task: between dispatch and end it is active; SCHEDULED ones do not count yet. */
static void count_in(struct live *l, struct live_run *r, bool adopted) {
  struct live_task *t = r->task;
  r->limit = live_limit_of(l, r->spec);
  if (r->phase == PHASE_QUEUED) {
    t->queued += adopted;
    live_queue_add(t, r);
  } else if (r->phase != PHASE_SCHEDULED) {
    r->active = true;
    t->active += adopted;
    if (adopted) {
      live_limit_move(l, r->limit, 1);
      live_limit_count(r->limit, 1, 0);
    } else {
      l->reserved--;
    }
  }
}

/* Runs of a catch-up were promised one by one: they wait in their turn, and nobody takes their place there. So were replays of many. */
static bool waits_its_turn(const struct live_run *r) {
  return r->origin == ORIGIN_CATCHUP || r->origin == ORIGIN_BACKFILL || r->origin == ORIGIN_REPLAY;
}

bool live_fired_before(const struct live_run *a, const struct live_run *b) {
  return a->fired_at != b->fired_at ? a->fired_at < b->fired_at : a->no < b->no;
}

/* A run that waits its turn, waits: or did when `newest` was fired, and has begun since. */
static bool keeps_its_turn(const struct live_run *r, const struct live_run *newest) {
  return waits_its_turn(r) && (r->phase == PHASE_QUEUED || r->begun_at >= newest->fired_at);
}

/* REPLACE: the newest one that waits takes the place of all that were fired before it. Said with each run that comes, in whatever order:
 * at a take-over they come by their keys. */
static void supersede(struct live *l, struct live_task *t) {
  const struct live_run *newest = NULL;
  for (const struct live_run *r = t->head; r; r = r->queue_next)
    if (r->spec->overlap_policy == OVERLAP_REPLACE && !waits_its_turn(r) &&
        (!newest || live_fired_before(newest, r)))
      newest = r;
  for (struct live_run *r = newest ? t->all : NULL; r; r = r->task_next) {
    bool safe = r->phase == PHASE_SCHEDULED || r->phase == PHASE_CANCELLING || keeps_its_turn(r, newest);
    if (r->ended || r->superseded || safe || !live_fired_before(r, newest))
      continue;
    r->superseded = true;
    live_wake(l, r, 0);
  }
}

bool live_open(struct live *l, const struct run_row *row, struct task_spec *spec, bool adopted, usec_t now,
               struct live_out *out) {
  if (live_find(l, &row->key)) {
    if (!adopted && row->reason != REASON_SCHEDULED)
      live_undecide(l, row->key.task_id, spec, row->reason == REASON_QUEUED);
    return false;
  }
  struct live_run *r = new_run(l, row, spec);
  r->task = live_task_of(l, row->key.task_id);
  DL_APPEND2(r->task->all, r, task_prev, task_next);
  r->task->scheduled += live_is_delay(r);
  live_clock(l, now);
  count_in(l, r, adopted);
  if (adopted) {
    r->beat_at = now;
    r->maybe_sent = r->ack_lost = r->phase == PHASE_DISPATCHING;
    r->cancel_at = now;
    r->written_at = row->state == RUN_RUNNING ? now : 0;
    if (r->phase == PHASE_DISPATCHING)
      r->attempt_at = now; /* its delivery starts anew: so does the time for it */
  }
  if (r->phase == PHASE_DISPATCHING)
    live_out_dispatch(r, out);
  live_wake(l, r, live_next_timer(l, r));
  if (r->phase == PHASE_QUEUED)
    live_review(l, r->task);
  if (spec->overlap_policy == OVERLAP_REPLACE)
    supersede(l, r->task);
  live_bounds_take(l);
  return true;
}

void live_leave(struct live *l, struct live_run *r) {
  struct live_task *t = r->task;
  struct live_limit *x = r->active ? r->limit : NULL;
  if (r->phase == PHASE_QUEUED) {
    t->queued--;
    live_queue_remove(t, r);
    live_review(l, t);
  }
  if (r->active) {
    t->active--;
    t->ending -= r->ended;
    live_limit_count(x, -1, -(int64_t)r->ended);
  }
  live_run_free(l, r);
  if (t->head)
    live_review(l, t);
  if (x)
    live_pump(l, x);
  live_task_drop_if_idle(l, t);
}

void live_drop_shard(struct live *l, int32_t shard, struct live_out *out) {
  struct live_run *r, *next;
  size_t kept = 0; /* between a step and its settle: what ended in it goes here and now, not there */
  for (size_t i = 0; i < l->ended_count; i++)
    if (l->ended[i]->key.shard != shard)
      l->ended[kept++] = l->ended[i];
  l->ended_count = kept;
  HASH_ITER (hh, l->runs, r, next) {
    if (r->key.shard != shard)
      continue;
    live_release_slot(r, out);
    if (r->active)
      live_limit_move(l, r->limit, -1);
    live_leave(l, r);
  }
}

bool live_has(struct live *l, const struct run_key *key) { return live_find(l, key) != NULL; }

bool live_has_scheduled(struct live *l, int64_t task_id) {
  struct live_task *t;
  HASH_FIND(hh, l->tasks, &task_id, sizeof task_id, t);
  return t && t->scheduled > 0;
}

/* ---------------------------------------------------------------- questions */

static int by_key(const void *a, const void *b) { return run_key_cmp(a, b); }

struct run_key *live_keys_of_shard(struct live *l, int32_t shard, size_t *ret_count) {
  struct run_key *keys = NULL;
  size_t n = 0, cap = 0;
  struct live_run *r, *next;
  HASH_ITER (hh, l->runs, r, next) {
    if (r->key.shard != shard)
      continue;
    mem_reserve(keys, n, cap);
    keys[n++] = r->key;
  }
  if (n)
    qsort(keys, n, sizeof *keys, by_key);
  *ret_count = n;
  return keys;
}

struct run_key *live_keys_of_task(struct live *l, int64_t task_id, size_t *ret_count) {
  struct run_key *keys = NULL;
  size_t n = 0, cap = 0;
  struct live_task *t;
  HASH_FIND(hh, l->tasks, &task_id, sizeof task_id, t);
  for (struct live_run *r = t ? t->all : NULL; r; r = r->task_next) {
    if (r->ended)
      continue;
    mem_reserve(keys, n, cap);
    keys[n++] = r->key;
  }
  *ret_count = n;
  return keys;
}

bool live_wanted(struct live *l, const struct run_key *key, int32_t attempt) {
  const struct live_run *r = live_find(l, key);
  return r && !r->ended && r->phase == PHASE_DISPATCHING && r->attempt == attempt;
}

bool live_sending(struct live *l, const struct run_key *key, int32_t attempt,
                  const struct live_place *where) {
  if (!live_wanted(l, key, attempt))
    return false;
  struct live_run *r = live_find(l, key);
  r->maybe_sent = true;
  r->sent_no = ++l->sends;
  r->slot = where->slot;
  live_set_executor(r, where->executor, where->incarnation);
  return true;
}

uint64_t live_sends(const struct live *l) { return l->sends; }

void *live_take_slot(struct live *l, const struct run_key *key, int32_t attempt) {
  struct live_run *r = live_find(l, key);
  return r && r->attempt == attempt ? take(r->slot) : NULL;
}

bool live_adopt_slot(struct live *l, const struct run_key *key, int32_t attempt, void *slot) {
  struct live_run *r = live_find(l, key);
  if (!r || r->ended || r->slot || r->attempt != attempt || run_phase_state(r->phase) != RUN_RUNNING)
    return false;
  r->slot = slot;
  return true;
}

void live_release_slot(struct live_run *r, struct live_out *out) {
  if (r->slot)
    LIVE_ADD(out, releases)->slot = take(r->slot);
}

/* ---------------------------------------------------------------- the out */

void live_out_answer(struct live_out *o, void *token, enum live_answer answer) {
  *LIVE_ADD(o, answers) = (struct live_token){token, answer};
}

void live_out_clear(struct live_out *o) {
  for (size_t i = 0; i < o->cancels_count; i++)
    mem_free(o->cancels[i].executor);
  for (size_t i = 0; i < o->done_count; i++)
    task_spec_unref(&o->done[i].spec);
  for (size_t i = 0; i < o->cancels_count; i++)
    task_spec_unref(&o->cancels[i].spec);
  o->updates_count = o->finishes_count = o->attempts_count = o->progress_count = 0;
  o->dispatches_count = o->cancels_count = o->releases_count = o->done_count = o->answers_count = 0;
  arena_clear(&o->mem);
}

void live_out_done(struct live_out *o) {
  live_out_clear(o);
  mem_free(o->updates);
  mem_free(o->finishes);
  mem_free(o->attempts);
  mem_free(o->progress);
  mem_free(o->dispatches);
  mem_free(o->cancels);
  mem_free(o->releases);
  mem_free(o->done);
  mem_free(o->answers);
  arena_done(&o->mem);
  *o = (struct live_out){0};
}
