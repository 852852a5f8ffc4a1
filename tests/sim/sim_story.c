#include "sim_plan.h"
#include <stdlib.h>

/* The whole story of every task at the end: each instant that the people asked for has its row, and no other has. */

struct story {
  const struct sim_task *t;
  const struct db_task *d;
  const struct db_run **rows; /* part 0, by scheduled_at */
  size_t *covers;             /* per row: how many instants it stands for */
  size_t count, cap;
  int64_t fired; /* towards max_runs: instants of the schedule */
  int64_t asked; /* … and those of pauses, caught up on request: at some time after the resume */
};

/* Towards max_runs; a run that another one replaced in the queue has been fired. */
static bool has_fired(const struct db_run *r) { return r->row.state != RUN_SKIPPED || r->opened; }

static int by_instant(const void *a, const void *b) {
  const struct db_run *x = *(const struct db_run *const *)a, *y = *(const struct db_run *const *)b;
  return x->key.scheduled_at < y->key.scheduled_at ? -1 : x->key.scheduled_at > y->key.scheduled_at;
}

/* A range is one version's. */
static bool stands_for(const struct db_run *r, size_t version, usec_t t) {
  if (r->row.missed_count > 1 && t != r->key.scheduled_at)
    return r->row.version == (int32_t)version + 1 && t >= r->row.missed_first && t <= r->key.scheduled_at;
  return t == r->key.scheduled_at;
}

static bool of_kind(const struct story *s, const struct db_run *r, bool delay) {
  const struct sim_plan *p = sim_plan_of(s->t->id, r->row.version);
  return p && (p->kind == SCHEDULE_FIXED_DELAY) == delay;
}

/* How many rows stand for this instant; the last of them. */
static size_t rows_of(struct story *s, size_t version, usec_t t, size_t *ret) {
  size_t n = 0, from = 0, to = s->count;
  while (from < to) { /* the first row at or after t: a fold may begin before it */
    size_t mid = (from + to) / 2;
    if (s->rows[mid]->key.scheduled_at < t)
      from = mid + 1;
    else
      to = mid;
  }
  for (size_t i = from; i < s->count && i < from + 50; i++)
    if (stands_for(s->rows[i], version, t) && of_kind(s, s->rows[i], false)) {
      s->covers[i]++;
      *ret = i;
      n++;
    }
  return n;
}

static void check_misfire(const struct story *s, const struct sim_plan *p, const struct db_run *r,
                          usec_t due) {
  bool late = r->row.fired_at - due > p->threshold;
  bool missed =
      r->row.origin == ORIGIN_CATCHUP || (r->row.state == RUN_SKIPPED && r->row.reason == REASON_MISFIRE);
  if (missed && !late)
    sim_wrong(WRONG_OTHER, "%s of task %lld counts as missed %lld us after it was due", sim_key(&r->key),
              (long long)s->t->id, (long long)(r->row.fired_at - due));
  if (!missed && late)
    sim_wrong(WRONG_OTHER, "%s was due %lld us before its fire: that is a misfire", sim_key(&r->key),
              (long long)(r->row.fired_at - due));
  if (r->row.origin == ORIGIN_CATCHUP && p->misfire == MISFIRE_FIRE_ALL && r->row.fired_at - due > p->window)
    sim_wrong(WRONG_OTHER, "%s is caught up beyond its window", sim_key(&r->key));
  if (missed && p->misfire == MISFIRE_SKIP && r->row.state != RUN_SKIPPED)
    sim_wrong(WRONG_OTHER, "%s is caught up against its policy SKIP", sim_key(&r->key));
}

/* ------------------------------------------------------------------ whose an instant is */

static usec_t begin_of(const struct story *s, size_t version) {
  return s->d->versions[version].v.effective_at;
}

static usec_t end_of(const struct story *s, size_t version) {
  return version + 1 < s->d->count ? begin_of(s, version + 1) : USEC_NEVER;
}

static bool is_in_state(const struct story *s, size_t version, enum task_state state) {
  return s->d->versions[version].v.state == state;
}

static bool has_instants(const struct sim_plan *p) {
  return p->kind != SCHEDULE_MANUAL && p->kind != SCHEDULE_FIXED_DELAY;
}

static bool has_instant(const struct story *s, size_t version, usec_t t) {
  const struct sim_plan *p = &s->t->plans[version];
  return has_instants(p) && sim_plan_next(p, t - 1) == t;
}

/* Under this version: with its jitter, but not before it rules. */
static usec_t due_under(const struct story *s, size_t version, usec_t t) {
  usec_t due = sim_plan_due(&s->t->plans[version], s->t->id, t), soonest = begin_of(s, version) + 1;
  return due > soonest ? due : soonest;
}

/* An instant comes under one version. Until it is due it goes from each version to the next, as long as that has it, too. Which version
 * decides it (fires it if it is ENABLED then)? Not beyond `last`; -1: none. */
static int64_t decides(const struct story *s, size_t version, usec_t t, size_t last) {
  for (; version <= last && has_instant(s, version, t); version++)
    if (due_under(s, version, t) <= end_of(s, version))
      return (int64_t)version;
  return -1;
}

/* Has it come under an earlier version than this one, and is it still undecided when this one begins? */
static bool waits_at(const struct story *s, size_t version, usec_t t) {
  size_t i = 0;
  if (t <= begin_of(s, 0) && s->t->plans[0].kind != SCHEDULE_ONE_TIME)
    return false;
  while (i < version && end_of(s, i) < t)
    i++;
  for (; i < version; i++)
    if (!has_instant(s, i, t) || due_under(s, i, t) <= end_of(s, i))
      return false;
  return t <= begin_of(s, version) && has_instant(s, version, t);
}

/* ------------------------------------------------------------------ its row */

static void check_its_row(struct story *s, size_t version, usec_t t, size_t row, bool used_up) {
  const struct sim_plan *p = &s->t->plans[version];
  const struct db_run *r = s->rows[row];
  bool last = r->key.scheduled_at == t;
  if (used_up)
    sim_wrong(WRONG_OTHER, "%s is fired beyond max_runs %lld", sim_key(&r->key), (long long)p->max_runs);
  if (p->max_runs && last && has_fired(r))
    s->fired++;
  if (last && r->row.version != (int32_t)version + 1)
    sim_wrong(WRONG_OTHER, "%s was fired by version %d, its instant belongs to %zu", sim_key(&r->key),
              r->row.version, version + 1);
  if (last) /* a ONE_TIME that had passed when its task was made counts as missed */
    check_misfire(s, p, r, version == 0 && t <= begin_of(s, 0) ? t : due_under(s, version, t));
}

static void check_instant(struct story *s, size_t version, usec_t t) {
  const struct sim_plan *p = &s->t->plans[version];
  size_t row = 0, n = rows_of(s, version, t, &row);
  bool used_up = p->max_runs && s->fired >= p->max_runs;
  if (n == 0 && !(p->max_runs && s->fired + s->asked >= p->max_runs))
    sim_wrong(WRONG_LOST, "task %lld version %zu: the instant %lld (due %lld) has no row",
              (long long)s->t->id, version + 1, (long long)t, (long long)due_under(s, version, t));
  if (n > 1)
    sim_wrong(WRONG_DOUBLED, "task %lld: %zu rows stand for the instant %lld", (long long)s->t->id, n,
              (long long)t);
  if (n == 1)
    check_its_row(s, version, t, row, used_up);
}

static int64_t fired_by(const struct story *s, int32_t version) {
  int64_t n = 0;
  for (size_t k = 0; k < s->count; k++)
    n += s->rows[k]->row.version == version && has_fired(s->rows[k]);
  return n;
}

static void check_from(struct story *s, size_t version, usec_t t) {
  int64_t by = decides(s, version, t, s->d->count - 1);
  if (by >= 0 && is_in_state(s, (size_t)by, TASK_ENABLED))
    check_instant(s, (size_t)by, t);
}

/* The instants that come under one version: later than its beginning and not later than the next one's. */
static void check_version(struct story *s, size_t i) {
  const struct sim_plan *p = &s->t->plans[i];
  usec_t lo = begin_of(s, i), hi = end_of(s, i);
  if (p->kind == SCHEDULE_FIXED_DELAY && p->max_runs)
    s->fired += fired_by(s, (int32_t)i + 1);
  if (!has_instants(p))
    return;
  if (hi == USEC_NEVER) {
    if (is_in_state(s, i, TASK_ENABLED))
      sim_wrong(WRONG_OTHER, "task %lld is not paused at the end", (long long)s->t->id);
    return;
  }
  if (p->kind == SCHEDULE_ONE_TIME && i == 0 && p->anchor <= lo) /* it had passed when the task was made */
    check_from(s, i, p->anchor);
  for (usec_t t = lo; (t = sim_plan_next(p, t)) <= hi && !sim_stopped();)
    check_from(s, i, t);
}

/* ------------------------------------------------------------------ pauses that were caught up on request */

static void check_asked(struct story *s, size_t version, usec_t t, bool must) {
  size_t row = 0, n = rows_of(s, version, t, &row);
  if (n > 1)
    sim_wrong(WRONG_DOUBLED, "task %lld: %zu rows stand for the instant %lld caught up on request",
              (long long)s->t->id, n, (long long)t);
  if (n == 0 && must)
    sim_wrong(WRONG_LOST, "task %lld: the instant %lld was to be caught up", (long long)s->t->id,
              (long long)t);
  if (n == 1 && s->rows[row]->row.version != (int32_t)version + 1)
    sim_wrong(WRONG_OTHER, "%s was to be caught up by version %zu", sim_key(&s->rows[row]->key), version + 1);
}

/* The instants of the resumed version that came in the pause, and the one that waited when the pause began; not the one that the resumed
 * version takes over. */
static void check_catch_up(struct story *s, const struct sim_catch_up *c) {
  size_t v = (size_t)c->version - 1, paused = v;
  const struct sim_plan *p = &s->t->plans[v];
  bool must = s->d->state != TASK_DELETED && !p->max_runs;
  while (paused > 0 && is_in_state(s, paused - 1, TASK_PAUSED))
    paused--;
  usec_t oldest = c->to - p->window, t = c->from - SIM_JITTER_MAX - USEC_PER_SEC;
  while (has_instants(p) && (t = sim_plan_next(p, t)) <= c->to && !sim_stopped())
    if (t > oldest && (t > c->from || waits_at(s, paused, t)) && !waits_at(s, v, t))
      check_asked(s, v, t, must);
}

/* ------------------------------------------------------------------ FIXED_DELAY */

/* FIXED_DELAY: each follows the end of the one before by exactly `every`. */
static void check_delays(struct story *s) {
  usec_t base = 0;
  for (size_t i = 0; i < s->count; i++) {
    const struct db_run *r = s->rows[i];
    if (!of_kind(s, r, true))
      continue;
    const struct sim_plan *p = &s->t->plans[r->row.version - 1];
    usec_t from = s->d->versions[r->row.version - 1].v.effective_at;
    usec_t want = base ? base + p->every : 0;
    if (want <= from)
      want = p->start_at > from ? p->start_at : from + p->every;
    if (r->key.scheduled_at != want)
      sim_wrong(WRONG_OTHER, "%s (FIXED_DELAY) should have been at %lld: the one before ended at %lld",
                sim_key(&r->key), (long long)want, (long long)base);
    if (!r->ended)
      return; /* told elsewhere */
    base = r->row.finished_at;
  }
}

/* A FIXED_DELAY version that ruled for long after its predecessor's end has gone on. */
static void check_delay_goes_on(struct story *s) {
  usec_t end = 0;
  int64_t fired = 0;
  for (size_t i = 0; i < s->count; i++) {
    fired += s->t->plans[s->rows[i]->row.version - 1].max_runs && has_fired(s->rows[i]);
    if (of_kind(s, s->rows[i], true)) {
      end = s->rows[i]->row.finished_at;
    } else if (s->rows[i]->row.finished_at > end) { /* a run of another kind holds it back, too */
      end = s->rows[i]->row.finished_at;
    }
  }
  if (s->d->count < 2)
    return;
  const struct sim_plan *p = &s->t->plans[s->d->count - 2];
  const struct task_version_row *v = &s->d->versions[s->d->count - 2].v, *next = v + 0;
  next = &s->d->versions[s->d->count - 1].v;
  if (p->kind != SCHEDULE_FIXED_DELAY || v->state != TASK_ENABLED || (p->max_runs && fired >= p->max_runs))
    return;
  usec_t since = end > v->effective_at ? end : v->effective_at;
  usec_t due = since + p->every;
  if (p->start_at > due)
    due = p->start_at;
  if (p->end_at && due > p->end_at)
    return;
  if (due + 3 * USEC_PER_MIN < next->effective_at)
    sim_wrong(WRONG_LOST, "task %lld (FIXED_DELAY) has not gone on since %lld", (long long)s->t->id,
              (long long)since);
}

static bool was_asked(const struct story *s, usec_t t) {
  for (size_t i = 0; i < sim_people.catch_up_count; i++) {
    const struct sim_catch_up *c = &sim_people.catch_ups[i];
    if (c->task_id == s->t->id && t > c->from - SIM_JITTER_MAX && t <= c->to)
      return true;
  }
  return false;
}

static int64_t count_asked(const struct story *s) {
  int64_t n = 0;
  for (size_t i = 0; i < s->count; i++) {
    const struct db_run *r = s->rows[i];
    const struct sim_plan *p = sim_plan_of(s->t->id, r->row.version);
    n += p && p->max_runs && r->row.origin == ORIGIN_CATCHUP && has_fired(r) &&
         was_asked(s, r->key.scheduled_at);
  }
  return n;
}

static void check_rows(struct story *s) {
  for (size_t i = 0; i < s->count && !sim_stopped(); i++) {
    const struct db_run *r = s->rows[i];
    if (!of_kind(s, r, false))
      continue;
    size_t want = r->row.missed_count > 1 ? (size_t)r->row.missed_count : 1;
    if (s->covers[i] != want)
      sim_wrong(WRONG_OTHER, "%s stands for %zu instants, it says %zu", sim_key(&r->key), s->covers[i], want);
  }
}

static void check_max_runs(struct story *s) {
  int64_t most = 0, fired = 0;
  for (size_t i = 0; i < s->t->count; i++) {
    if (!s->t->plans[i].max_runs)
      return;
    most = s->t->plans[i].max_runs > most ? s->t->plans[i].max_runs : most;
  }
  for (size_t i = 0; i < s->count; i++)
    fired += has_fired(s->rows[i]);
  if (fired > most)
    sim_wrong(WRONG_OTHER, "task %lld fired %lld times of %lld", (long long)s->t->id, (long long)fired,
              (long long)most);
}

static void tell_story(const struct story *s) {
  for (size_t i = 0; i < s->d->count; i++)
    sim_trace("  version %zu %s from %lld", i + 1, task_state_names[s->d->versions[i].v.state],
              (long long)s->d->versions[i].v.effective_at);
  for (size_t i = 0; i < s->count; i++) {
    const struct run_row *r = &s->rows[i]->row;
    sim_trace("  %s v%d %s/%s %s fired %lld ended %lld missed %lld from %lld", sim_key(&r->key), r->version,
              run_state_names[r->state], run_reason_names[r->reason], run_origin_names[r->origin],
              (long long)r->fired_at, (long long)r->finished_at, (long long)r->missed_count,
              (long long)r->missed_first);
  }
}

static void check_task(struct story *s) {
  if (s->count)
    qsort(s->rows, s->count, sizeof *s->rows, by_instant);
  s->covers = mem_array(s->count + 1, sizeof *s->covers);
  s->asked = count_asked(s);
  for (size_t v = 0; v < s->t->count && !sim_stopped(); v++)
    check_version(s, v);
  for (size_t i = 0; i < sim_people.catch_up_count && !sim_stopped(); i++)
    if (sim_people.catch_ups[i].task_id == s->t->id)
      check_catch_up(s, &sim_people.catch_ups[i]);
  check_rows(s);
  check_delays(s);
  check_delay_goes_on(s);
  check_max_runs(s);
  if (sim_stopped())
    tell_story(s);
  mem_free(s->covers);
}

void sim_check_stories(void) {
  struct story *stories = mem_array(sim_people.count + 1, sizeof *stories);
  for (size_t i = 0; i < sim_people.count; i++)
    stories[i] =
        (struct story){.t = &sim_people.tasks[i], .d = sim_db_task(sim_world->db, sim_people.tasks[i].id)};
  for (const struct db_run *r = sim_world->db->runs; r; r = r->hh.next) {
    const struct sim_task *t = r->key.part == 0 ? sim_people_task(r->key.task_id) : NULL;
    struct story *s = t ? &stories[t - sim_people.tasks] : NULL;
    if (!s)
      continue;
    mem_reserve(s->rows, s->count, s->cap);
    s->rows[s->count++] = r;
  }
  for (size_t i = 0; i < sim_people.count && !sim_stopped(); i++)
    check_task(&stories[i]);
  for (size_t i = 0; i < sim_people.count; i++)
    mem_free(stories[i].rows);
  mem_free(stories);
}
