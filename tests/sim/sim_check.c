#include "sim_plan.h"

/* What must hold, read from the database's tables and what executors saw alone: at every commit, at every delivery, at every answer, and at
 * the end (sim_story.c). */

struct activity { /* open runs of a task between dispatch and end */
  int64_t task_id;
  int64_t active;
  UT_hash_handle hh;
};
struct decision { /* that a run begins: by the first statement that says so */
  struct db_run_id id;
  usec_t attempt_at; /* as it says: another one was decided anew */
  uint64_t no;
  UT_hash_handle hh;
};
static const usec_t AHEAD = 50 * USEC_PER_MS; /* engine_options.ahead */
static struct activity *activities;
static struct run_key *started; /* became active in this commit */
static size_t started_count, started_cap;
static struct decision *decisions;
static uint64_t last_decision;

static bool is_active(const struct run_row *r) {
  return !run_state_ended(r->state) && r->attempt > 0; /* RETRY_WAIT included: it has begun and not ended */
}

static struct activity *activity_of(int64_t task_id) {
  struct activity *a;
  HASH_FIND(hh, activities, &task_id, sizeof task_id, a);
  if (!a) {
    a = mem_zalloc(sizeof *a);
    a->task_id = task_id;
    HASH_ADD(hh, activities, task_id, sizeof a->task_id, a);
  }
  return a;
}

/* ------------------------------------------------------------------ in which order they were decided */
static struct decision *find_decision(const struct run_key *k) {
  struct db_run_id id = db_run_id(k);
  struct decision *d;
  HASH_FIND(hh, decisions, &id, sizeof id, d);
  return d;
}

static void decided(const struct run_key *k, usec_t attempt_at, uint64_t no) {
  struct decision *d = find_decision(k);
  if (d && d->attempt_at == attempt_at)
    return; /* the same one is sent again */
  if (!d) {
    d = mem_zalloc(sizeof *d);
    d->id = db_run_id(k);
    HASH_ADD(hh, decisions, id, sizeof d->id, d);
  }
  d->attempt_at = attempt_at;
  d->no = no;
}

void sim_check_fire_sent(const struct st_fire *in) {
  for (size_t i = 0; i < in->open_count; i++)
    if (in->open[i].attempt)
      decided(&in->open[i].key, in->open[i].attempt_at, ++last_decision);
}

/* Its rows are in no order. */
void sim_check_change_sent(const struct st_run_apply *in) {
  last_decision++;
  for (size_t i = 0; i < in->update_count; i++)
    if (in->updates[i].attempt && !in->updates[i].seen_attempt)
      decided(&in->updates[i].key, in->updates[i].attempt_at, last_decision);
}

static uint64_t decision_no(const struct run_key *k) {
  const struct decision *d = find_decision(k);
  return d ? d->no : 0;
}

/* ------------------------------------------------------------------ at every commit */
static bool may_overlap(const struct db_run *r) {
  const struct sim_plan *p = sim_plan_of(r->key.task_id, r->row.version);
  return !p || p->overlap == OVERLAP_ALLOW || p->max_concurrent > 1 || sim_ignores_overlap(&r->key);
}

static void check_new(const struct db_run *r) {
  if (r->doubled)
    sim_wrong(WRONG_DOUBLED, "%s exists twice", sim_key(&r->key));
  if (r->key.part == 0 && r->key.scheduled_at > sim_db_now(NULL) + AHEAD)
    sim_wrong(WRONG_OTHER, "%s is fired %lld us before its instant", sim_key(&r->key),
              (long long)(r->key.scheduled_at - sim_db_now(NULL)));
  if (!r->ended)
    sim_world->fires++;
}

static void check_change(const struct db_run *r, const struct run_row *before) {
  if (run_state_ended(before->state))
    sim_wrong(WRONG_OTHER, "%s had ended as %s and is written again", sim_key(&r->key),
              run_state_names[before->state]);
  if (r->row.attempt < before->attempt || r->row.attempt > before->attempt + 1)
    sim_wrong(WRONG_OTHER, "%s goes from attempt %d to %d", sim_key(&r->key), before->attempt,
              r->row.attempt);
}

void sim_check_run_changed(void *arg, struct db_run *r, const struct run_row *before) {
  (void)arg;
  if (sim_world->o.verbose)
    sim_trace("%s v%d is %s/%s attempt %d", sim_key(&r->key), r->row.version, run_state_names[r->row.state],
              run_reason_names[r->row.reason], r->row.attempt);
  if (before)
    check_change(r, before);
  else
    check_new(r);
  const struct sim_plan *p = sim_plan_of(r->key.task_id, r->row.version);
  if (p && r->row.attempt > p->max_attempts)
    sim_wrong(WRONG_OTHER, "%s has attempt %d of %d", sim_key(&r->key), r->row.attempt, p->max_attempts);
  bool was = before && is_active(before), is = !r->ended && is_active(&r->row);
  if (was == is)
    return;
  activity_of(r->key.task_id)->active += is ? 1 : -1;
  if (is) {
    r->decided_no = decision_no(&r->key);
    mem_reserve(started, started_count, started_cap);
    started[started_count++] = r->key;
  }
}

/* Of two commits under way the one that was decided first may come second, however late: what may overlap can begin in between. */
static bool no_offence(const struct db_run *r, const struct db_run *o) {
  return may_overlap(o) && r->decided_no <= o->decided_no;
}

static const usec_t TAKEN_IN = 15 * USEC_PER_SEC;

/* What the owner of this shard has under way, as committed: of a group, or of all. What it has taken over only just it may not know of. */
static int64_t active_of_owner(int32_t shard, const struct sim_group *group) {
  const struct shard_row *of = &sim_world->db->shards[shard].row;
  int64_t n = 0;
  for (int s = 0; s < sim_world->o.shards; s++) {
    const struct db_shard *d = &sim_world->db->shards[s];
    if (!slice_eq(d->row.owner, of->owner) || d->row.incarnation != of->incarnation ||
        (s != shard && sim_db_now(NULL) - d->claimed_at < TAKEN_IN))
      continue;
    if (s != shard && sim_world->handed[s] == d->row.epoch) /* on its way to another owner, but for its row */
      continue;
    for (const struct db_run *r = d->open; r; r = r->next)
      n += is_active(&r->row) && (!group || sim_group_of(&r->key) == group);
  }
  return n;
}

/* Those of its own version: another one may allow more, and of two commits under way the one that was decided first may come second. */
static int64_t active_of_version(const struct db_run *of) {
  int64_t n = 0;
  for (const struct db_run *r = sim_world->db->shards[of->key.shard].open; r; r = r->next)
    n += r->key.task_id == of->key.task_id && r->row.version == of->row.version && is_active(&r->row) &&
         !sim_ignores_overlap(&r->key);
  return n;
}

/* It begins within the bounds of its task, and of its group and namespace at its owner. (A further attempt goes on, it does not begin.) */
static void check_bounds(const struct db_run *r) {
  const struct sim_plan *p = sim_plan_of(r->key.task_id, r->row.version);
  const struct sim_group *g = sim_group_of(&r->key);
  if (p && p->max_concurrent > 1 && active_of_version(r) > p->max_concurrent)
    sim_wrong(WRONG_OTHER, "%s starts beyond its task's max_concurrent %lld", sim_key(&r->key),
              (long long)p->max_concurrent);
  if (g->bound.max_concurrent && active_of_owner(r->key.shard, g) > g->bound.max_concurrent)
    sim_wrong(WRONG_OTHER, "%s starts beyond the max_concurrent %lld of %s", sim_key(&r->key),
              (long long)g->bound.max_concurrent, g->name);
  if (active_of_owner(r->key.shard, NULL) > sim_namespace_bound.max_concurrent)
    sim_wrong(WRONG_OTHER, "%s starts beyond the max_concurrent %lld of its namespace", sim_key(&r->key),
              (long long)sim_namespace_bound.max_concurrent);
}

void sim_check_committed(void *arg) {
  (void)arg;
  for (size_t i = 0; sim_world->o.limits && i < started_count; i++) {
    const struct db_run *r = sim_db_run(sim_world->db, &started[i]);
    if (r && !r->ended)
      check_bounds(r);
  }
  for (size_t i = 0; i < started_count; i++) {
    const struct db_run *r = sim_db_run(sim_world->db, &started[i]);
    if (!r || r->ended || may_overlap(r) || activity_of(r->key.task_id)->active <= 1)
      continue;
    for (const struct db_run *o = sim_world->db->shards[r->key.shard].open; o; o = o->next) {
      if (o->key.task_id != r->key.task_id || o == r || !is_active(&o->row) || no_offence(r, o))
        continue;
      sim_wrong(WRONG_OTHER, "%s starts while %s (%s/%s) of its task has not ended", sim_key(&r->key),
                sim_key(&o->key), run_state_names[o->row.state], run_reason_names[o->row.reason]);
    }
  }
  started_count = 0;
}

void sim_check_sending(const struct run_job *j) {
  const struct db_run *r = sim_db_run(sim_world->db, &j->key);
  if (!r || (!r->ended && r->row.attempt < j->attempt))
    sim_wrong(WRONG_OTHER, "%s attempt %d is sent, the row says %d", sim_key(&j->key), j->attempt,
              r ? r->row.attempt : -1);
  else if (r->ended && r->row.attempt < j->attempt)
    sim_wrong(WRONG_OTHER, "%s attempt %d is sent, it ended with attempt %d", sim_key(&j->key), j->attempt,
              r->row.attempt);
  else if (r->ended && j->fence == sim_world->db->shards[j->key.shard].finish_epoch)
    sim_wrong(WRONG_OTHER, "%s attempt %d is sent by the shard's owner, it has ended", sim_key(&j->key),
              j->attempt);
}

/* The executor is about to hear this answer: it will not tell again. */
void sim_check_acked(const struct live_event *ev, enum run_result result) {
  const struct db_run *r = sim_db_run(sim_world->db, &ev->key);
  if (!r || ev->kind == EV_BEAT)
    return;
  bool current = !r->ended && r->row.attempt == ev->attempt && r->row.reason != REASON_RETRY_WAIT;
  if (result == RUN_RESULT_LATE && current)
    sim_wrong(WRONG_OTHER, "%s of %s attempt %d is called late, but that attempt is under way",
              run_event_names[ev->kind], sim_key(&ev->key), ev->attempt);
  if (result != RUN_RESULT_RECORDED)
    return;
  if (current)
    sim_wrong(WRONG_OTHER, "%s of %s attempt %d is answered, but not written", run_event_names[ev->kind],
              sim_key(&ev->key), ev->attempt);
  if (ev->kind == EV_DONE_OK && !(r->ended && r->row.state == RUN_SUCCESS && r->row.attempt == ev->attempt))
    sim_wrong(WRONG_OTHER, "the success of %s attempt %d is answered, the row says %s, attempt %d",
              sim_key(&ev->key), ev->attempt, run_state_names[r->row.state], r->row.attempt);
}

/* ------------------------------------------------------------------ the end */
static void check_run_at_end(const struct db_run *r) {
  if (!r->ended)
    sim_wrong(WRONG_STUCK, "%s is still %s/%s, attempt %d", sim_key(&r->key), run_state_names[r->row.state],
              run_reason_names[r->row.reason], r->row.attempt);
}

/* A run gave way: to a newer one of its task, whose version says REPLACE. */
static void check_replaced(const struct db_run *r) {
  bool queued = r->row.state == RUN_SKIPPED && r->row.reason == REASON_OVERLAP && r->opened;
  if (!queued && r->row.reason != REASON_REPLACED)
    return;
  sim_world->replaced++;
  for (const struct db_run *n = sim_world->db->runs; n; n = n->hh.next) {
    const struct sim_plan *p = n->key.task_id == r->key.task_id && n != r && n->opened
                                   ? sim_plan_of(n->key.task_id, n->row.version)
                                   : NULL;
    if (p && p->overlap == OVERLAP_REPLACE && n->row.fired_at >= r->row.fired_at)
      return;
  }
  sim_wrong(WRONG_OTHER, "%s is %s/%s, but no newer run has its place", sim_key(&r->key),
            run_state_names[r->row.state], run_reason_names[r->row.reason]);
}

static void check_triggers(void) {
  for (size_t i = 0; i < sim_people.trigger_count; i++)
    if (!sim_db_run(sim_world->db, &sim_people.triggers[i]))
      sim_wrong(WRONG_LOST, "the trigger %s made no run", sim_key(&sim_people.triggers[i]));
}

void sim_check_end(void) {
  for (const struct db_run *r = sim_world->db->runs; r; r = r->hh.next) {
    check_run_at_end(r);
    check_replaced(r);
  }
  sim_check_stories();
  if (sim_world->o.after)
    sim_after_check();
  check_triggers();
  for (size_t i = 0; i < sim_world->db->inbox_count; i++)
    sim_wrong(WRONG_STUCK, "the inbox of shard %d still holds %.*s", sim_world->db->inbox[i].shard,
              SLICE_FMT(sim_world->db->inbox[i].body));
  for (int i = 0; i < sim_world->o.nodes; i++)
    if (sim_world->nodes[i]->slots_out)
      sim_wrong(WRONG_OTHER, "%s has not got %lld slots back", sim_world->nodes[i]->id,
                (long long)sim_world->nodes[i]->slots_out);
}

void sim_check_free(void) {
  struct activity *a, *next;
  HASH_ITER (hh, activities, a, next) {
    HASH_DEL(activities, a);
    mem_free(a);
  }
  struct decision *d, *dnext;
  HASH_ITER (hh, decisions, d, dnext) {
    HASH_DEL(decisions, d);
    mem_free(d);
  }
  last_decision = 0;
  mem_free(started);
  started = NULL;
  started_count = started_cap = 0;
}
