#include "core/explain.h"

/* Where the time of a run went: from the instant at which it was due to its end, in parts that follow each other. */

#define PART(name, en, zh) #name,
const char *const explain_part_names[] = {
#include "core/explain.def"
    NULL};
#define RUN_WAIT(x) #x,
const char *const explain_wait_names[] = {
#include "core/words.def"
    "RELEASE", "BOUND", NULL};

/* A wait shorter than this is the way from the decision to the dispatcher: it has no cause. */
#define WAIT_MIN USEC_PER_SEC

struct parts {
  struct explain_answer *a;
  const struct run_row *run;
};

static struct explain_part *add(struct parts *p, enum explain_part_kind kind, usec_t from, usec_t to) {
  if (to && to <= from)
    return NULL;
  struct explain_part *x = &p->a->parts[p->a->part_count++];
  *x = (struct explain_part){.kind = kind, .from = from, .to = to};
  return x;
}

/* Was it under way when `of` was decided? */
static bool in_the_way(const struct run_row *r, const struct run_row *of) {
  if (run_key_eq(&r->key, &of->key) || r->state == RUN_SKIPPED || r->fired_at > of->fired_at)
    return false;
  return !run_state_ended(r->state) || r->finished_at > of->fired_at;
}

static const struct run_row *later(const struct run_row *a, const struct run_row *b) {
  return !a || a->key.scheduled_at < b->key.scheduled_at ? b : a;
}

/* The last of those that were. */
static const struct run_row *behind(const struct explain_facts *f, const struct run_row *of) {
  const struct run_row *found = NULL;
  for (size_t i = 0; i < f->before_count; i++)
    if (in_the_way(&f->before[i], of))
      found = later(found, &f->before[i]);
  for (size_t i = 0; i < f->run_count; i++)
    if (in_the_way(&f->runs[i].run, of))
      found = later(found, &f->runs[i].run);
  for (size_t i = 0; i < f->open_count; i++)
    if (in_the_way(&f->open[i].run, of))
      found = later(found, &f->open[i].run);
  return found;
}

/* Did the end of the run in the way let this one go, or has it still not ended? What a catch-up or a backfill made would else wait for
 * its release only. */
static bool let_go(const struct run_row *before, usec_t at) {
  return before && (!run_state_ended(before->state) || before->finished_at + WAIT_MIN >= at);
}

/* What a wait from the decision to the first delivery (0: not yet) was for. */
static const char *cause(const struct parts *p, usec_t to) {
  const struct run_row *r = p->run, *before = p->a->behind;
  bool released = (r->origin == ORIGIN_CATCHUP && r->missed_count <= 1) || r->origin == ORIGIN_BACKFILL ||
                  r->origin == ORIGIN_REPLAY;
  if (r->reason == REASON_QUEUED && p->a->run->waits_for != WAIT_NONE)
    return explain_wait_names[p->a->run->waits_for];
  if (r->reason == REASON_SCHEDULED || (released && to && !let_go(before, to)))
    return explain_wait_names[EXPLAIN_WAIT_RELEASE];
  if (before)
    return explain_wait_names[WAIT_TASK];
  return !to || to - r->fired_at >= WAIT_MIN ? explain_wait_names[EXPLAIN_WAIT_BOUND] : NULL;
}

static void add_wait(struct parts *p, usec_t to) {
  struct explain_part *x = add(p, EXPLAIN_PART_WAIT, p->run->fired_at, to);
  if (!x)
    return;
  x->waited_for = cause(p, to);
  if (x->waited_for == explain_wait_names[WAIT_TASK])
    x->behind = p->a->behind;
}

struct attempt_times {
  int32_t no;
  usec_t dispatched, started, finished; /* 0: not yet, or never */
};

static void add_attempt(struct parts *p, const struct attempt_times *t) {
  usec_t accepted = t->started && t->started < t->dispatched ? t->dispatched : t->started;
  struct explain_part *x = add(p, EXPLAIN_PART_DELIVER, t->dispatched, accepted ? accepted : t->finished);
  if (x)
    x->attempt = t->no;
  if (accepted && (x = add(p, EXPLAIN_PART_RUN, accepted, t->finished)))
    x->attempt = t->no;
}

static void add_attempts(struct parts *p) {
  const struct explain_run *r = p->a->run;
  usec_t end = 0; /* of the attempt before */
  int32_t last = 0;
  for (size_t i = 0; i < r->attempt_count; i++) {
    const struct attempt_row *x = &r->attempts[i];
    if (i > 0)
      (void)add(p, EXPLAIN_PART_RETRY_WAIT, end, x->dispatched_at);
    add_attempt(p, &(struct attempt_times){x->attempt, x->dispatched_at, x->started_at, x->finished_at});
    end = x->finished_at;
    last = x->attempt;
  }
  if (r->run.reason == REASON_RETRY_WAIT) {
    (void)add(p, EXPLAIN_PART_RETRY_WAIT, end, 0);
    return;
  }
  if (r->run.attempt <= last || !r->run.attempt_at)
    return;
  if (last)
    (void)add(p, EXPLAIN_PART_RETRY_WAIT, end, r->run.attempt_at);
  add_attempt(
      p, &(struct attempt_times){r->run.attempt, r->run.attempt_at, r->run.started_at, r->run.finished_at});
}

void explain_parts(const struct explain_facts *f, struct arena *mem, struct explain_answer *a) {
  const struct run_row *r = &a->run->run;
  struct parts p = {a, r};
  usec_t due = r->key.scheduled_at == a->at ? a->due : r->key.scheduled_at;
  bool paused = a->notes >> EXPLAIN_NOTE_AFTER_PAUSE & 1;
  usec_t resumed = paused && a->late_from > due ? a->late_from : due;
  if (resumed > r->fired_at && r->fired_at >= due)
    resumed = r->fired_at; /* stamped by two clocks: the database's and the owner's estimate of it */
  a->parts = arena_array(mem, 3 * (a->run->attempt_count + 4), sizeof *a->parts);
  a->part_count = 0;
  a->behind = behind(f, r);
  (void)add(&p, EXPLAIN_PART_JITTER, r->key.scheduled_at, due);
  (void)add(&p, EXPLAIN_PART_PAUSED, due, resumed);
  if (a->late_from)
    (void)add(&p, EXPLAIN_PART_DECIDE, resumed, r->fired_at);
  if (r->state == RUN_SKIPPED)
    return;
  usec_t first = a->run->attempt_count ? a->run->attempts[0].dispatched_at : r->attempt_at;
  if (first || !run_state_ended(r->state))
    add_wait(&p, first);
  else
    add_wait(&p, r->finished_at);
  add_attempts(&p);
}
