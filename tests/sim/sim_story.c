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
  int64_t
      twice; /* at most so many were counted twice: due again with another jitter, and the node died before it could mend that */
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

/* Was what is due then asked for by a resume with catch-up? */
static bool asked_again(const struct story *s, usec_t due) {
  for (size_t i = 0; i < sim_people.catch_up_count; i++) {
    const struct sim_catch_up *c = &sim_people.catch_ups[i];
    if (c->task_id == s->t->id && due > c->from && due <= c->to)
      return true;
  }
  return false;
}

/* With another jitter an instant can be due again, by a version made after it was fired. Alone it finds its row there; but what a node
 * that knows only the new version misses begins with it. */
static bool range_begins_with_one_had(struct story *s, size_t version, usec_t t, size_t range) {
  const struct run_row *r = &s->rows[range]->row;
  if (t > s->d->versions[version].v.effective_at || r->version != (int32_t)version + 1 ||
      r->missed_first != t)
    return false;
  for (size_t i = range; i-- > 0 && s->rows[i]->key.scheduled_at >= t;)
    if (s->rows[i]->key.scheduled_at == t && s->rows[i]->row.version < r->version) {
      s->covers[i]--;
      return true;
    }
  return false;
}

/* Another version's row for the same instant: an earlier one had it, less late; or a later one, when this one had had all its runs. */
static bool of_another(const struct story *s, size_t version, usec_t t, const struct db_run *r,
                       bool used_up) {
  int32_t mine = (int32_t)version + 1;
  return (r->row.version < mine && t <= s->d->versions[version].v.effective_at) ||
         (r->row.version > mine && used_up);
}

/* The one row that stands for an instant; `used_up`: its version had had all its runs. */
static void check_its_row(struct story *s, size_t version, usec_t t, usec_t due, size_t row, bool used_up) {
  const struct sim_plan *p = &s->t->plans[version];
  const struct db_run *r = s->rows[row];
  bool last = r->key.scheduled_at == t, mine = r->row.version == (int32_t)version + 1;
  if (of_another(s, version, t, r, used_up)) {
    s->covers[row]--;
    return;
  }
  bool asked = asked_again(s, due);
  if (used_up && !asked)
    sim_wrong(WRONG_OTHER, "%s is fired beyond max_runs %lld", sim_key(&r->key), (long long)p->max_runs);
  if (p->max_runs && last && mine && has_fired(r))
    s->fired++;
  if (asked || !last)
    return;
  if (mine)
    check_misfire(s, p, r, due);
  else
    sim_wrong(WRONG_OTHER, "%s was fired by version %d, its instant belongs to %zu", sim_key(&r->key),
              r->row.version, version + 1);
}

static void check_instant(struct story *s, size_t version, usec_t t, usec_t due) {
  const struct sim_plan *p = &s->t->plans[version];
  size_t row = 0, n = rows_of(s, version, t, &row);
  if (n == 2 && range_begins_with_one_had(s, version, t, row))
    return;
  bool used_up = p->max_runs && s->fired >= p->max_runs;
  if (n == 0 && !(p->max_runs && s->fired + s->asked + s->twice >= p->max_runs))
    sim_wrong(WRONG_LOST, "task %lld version %zu: the instant %lld (due %lld) has no row",
              (long long)s->t->id, version + 1, (long long)t, (long long)due);
  if (n > 1)
    sim_wrong(WRONG_DOUBLED, "task %lld: %zu rows stand for the instant %lld", (long long)s->t->id, n,
              (long long)t);
  if (n == 1)
    check_its_row(s, version, t, due, row, used_up);
}

static bool has_instants(const struct sim_plan *p) {
  return p->kind != SCHEDULE_MANUAL && p->kind != SCHEDULE_FIXED_DELAY;
}

/* The next instant of this version later than t and due in (lo, hi]; USEC_NEVER. */
static usec_t next_within(const struct story *s, size_t version, usec_t t, usec_t lo, usec_t hi,
                          usec_t *ret_due) {
  const struct sim_plan *p = &s->t->plans[version];
  while ((t = sim_plan_next(p, t)) <= hi) {
    *ret_due = sim_plan_due(p, s->t->id, t);
    if (*ret_due > lo && *ret_due <= hi)
      return t;
  }
  return USEC_NEVER;
}

static int64_t fired_by(const struct story *s, int32_t version) {
  int64_t n = 0;
  for (size_t k = 0; k < s->count; k++)
    n += s->rows[k]->row.version == version && has_fired(s->rows[k]);
  return n;
}

/* The instants of one version: those due later than its beginning and not later than the next one's. */
static void check_version(struct story *s, size_t i) {
  const struct sim_plan *p = &s->t->plans[i];
  const struct task_version_row *v = &s->d->versions[i].v;
  if (p->kind == SCHEDULE_FIXED_DELAY && p->max_runs)
    s->fired += fired_by(s, v->version);
  usec_t lo = v->effective_at, hi = i + 1 < s->d->count ? s->d->versions[i + 1].v.effective_at : USEC_NEVER;
  if (v->state != TASK_ENABLED || !has_instants(p) || lo >= hi)
    return;
  if (hi == USEC_NEVER) {
    sim_wrong(WRONG_OTHER, "task %lld is not paused at the end", (long long)s->t->id);
    return;
  }
  if (p->kind == SCHEDULE_ONE_TIME && i == 0 &&
      p->anchor <= lo) { /* created too late: due at once, and missed */
    check_instant(s, i, p->anchor, p->anchor);
    return;
  }
  usec_t t = lo - p->jitter - USEC_PER_SEC, due;
  while ((t = next_within(s, i, t, lo, hi, &due)) != USEC_NEVER && !sim_stopped())
    check_instant(s, i, t, due);
}

/* An instant that was due while the task was paused, by version `v`. `must`: it must be there. */
static void check_asked(struct story *s, const struct sim_catch_up *c, size_t v, usec_t t, bool must) {
  size_t row, n = rows_of(s, v, t, &row);
  if (n == 1 && t <= c->from && s->rows[row]->row.version < c->version)
    s->covers[row]--;       /* had before the pause, by an earlier version, less late */
  if (n > 1 && t > c->from) /* else another version's jitter may have had it before the pause */
    sim_wrong(WRONG_DOUBLED, "task %lld: %zu rows stand for the instant %lld caught up on request",
              (long long)s->t->id, n, (long long)t);
  if (n == 0 && must)
    sim_wrong(WRONG_LOST, "task %lld: the instant %lld was to be caught up", (long long)s->t->id,
              (long long)t);
}

/* Resumed with catch-up, nothing changed since but the end: all of it must be there. */
static void check_catch_up(struct story *s, const struct sim_catch_up *c) {
  bool quiet = s->d->state != TASK_DELETED &&
               ((size_t)c->version + 1 == s->d->count || (size_t)c->version == s->d->count);
  for (size_t v = (size_t)c->version - 1; v < s->d->count; v++) {
    const struct sim_plan *p = &s->t->plans[v];
    bool must = quiet && v + 1 == (size_t)c->version && !p->max_runs;
    usec_t t = c->from - p->jitter - USEC_PER_SEC, due;
    while (has_instants(p) && (t = next_within(s, v, t, c->from, c->to, &due)) != USEC_NEVER &&
           !sim_stopped())
      check_asked(s, c, v, t, must && due > c->to - p->window);
  }
}

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

/* A range that a request took part in: which version's instants it made up is not known here. */
static bool asked_within(const struct story *s, usec_t first, usec_t last) {
  for (size_t i = 0; i < sim_people.catch_up_count; i++) {
    const struct sim_catch_up *c = &sim_people.catch_ups[i];
    if (c->task_id == s->t->id && last > c->from - SIM_JITTER_MAX && first <= c->to)
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
         asked_within(s, r->key.scheduled_at, r->key.scheduled_at);
  }
  return n;
}

/* Is an instant from before `at` due after it, and had by an earlier version? */
static bool repeats(const struct story *s, size_t version, usec_t at) {
  const struct sim_plan *p = &s->t->plans[version];
  usec_t t = at - p->jitter;
  while (has_instants(p) && p->jitter && (t = sim_plan_next(p, t)) <= at) {
    if (sim_plan_due(p, s->t->id, t) <= at)
      continue;
    for (size_t i = 0; i < s->count; i++)
      if (s->rows[i]->key.scheduled_at == t && s->rows[i]->row.version <= (int32_t)version)
        return true;
  }
  return false;
}

static int64_t count_repeats(const struct story *s) {
  int64_t n = 0;
  for (size_t v = 1; v < s->d->count; v++)
    n += repeats(s, v, s->d->versions[v].v.effective_at);
  for (size_t i = 0; i < sim_people.catch_up_count; i++) {
    const struct sim_catch_up *c = &sim_people.catch_ups[i];
    n += c->task_id == s->t->id && repeats(s, (size_t)c->version - 1, c->from);
  }
  return n;
}

static void check_rows(struct story *s) {
  for (size_t i = 0; i < s->count && !sim_stopped(); i++) {
    const struct db_run *r = s->rows[i];
    if (!of_kind(s, r, false))
      continue;
    size_t want = r->row.missed_count > 1 ? (size_t)r->row.missed_count : 1;
    usec_t first = r->row.missed_count > 1 ? r->row.missed_first : r->key.scheduled_at;
    if (asked_within(s, first, r->key.scheduled_at) ? s->covers[i] == 0 : s->covers[i] != want)
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
  s->twice = count_repeats(s);
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
    struct story *s = &stories[r->key.task_id - sim_people.tasks[0].id]; /* ids follow one another */
    if (r->key.part != 0)
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
