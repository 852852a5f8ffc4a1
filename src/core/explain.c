#include "core/explain.h"
#include <stdlib.h>

/* What became of an instant, and why. Its texts: explain_text.c; where the time went: explain_parts.c. */

#define CODE(name, verdict, en, zh) #name,
const char *const explain_code_names[] = {
#include "core/explain.def"
    NULL};
#define NOTE(name, en, zh) #name,
const char *const explain_note_names[] = {
#include "core/explain.def"
    NULL};
const char *const explain_verdict_names[] = {"RAN",     "UNDER_WAY", "SKIPPED", "AHEAD",
                                             "NOT_DUE", "UNKNOWN",   NULL};

enum explain_verdict explain_verdict_of(enum explain_code code) {
  static const unsigned char verdicts[] = {
#define CODE(name, verdict, en, zh) VERDICT_##verdict,
#include "core/explain.def"
  };
  return (enum explain_verdict)verdicts[code];
}

/* ------------------------------------------------------------------ versions */

/* Can it say which instants it has? */
static bool computes(const struct explain_version *v) {
  return v->spec && v->spec->kind != SCHEDULE_FIXED_DELAY && v->spec->kind != SCHEDULE_MANUAL;
}

static bool has(const struct explain_version *v, usec_t at) {
  return computes(v) && schedule_has(v->spec->schedule, v->anchor, at);
}

/* Under this version: with its jitter, but not before it rules. (A first version has what had passed before it late.) */
static usec_t due_of(const struct explain_facts *f, const struct explain_version *v, usec_t at) {
  usec_t due = at + schedule_jitter(v->spec->schedule, f->task_id, at);
  return v->version > 1 && due <= v->effective_at ? v->effective_at + 1 : due;
}

static const struct explain_version *end_of(const struct explain_facts *f) {
  return f->versions + f->version_count;
}

static usec_t rules_until(const struct explain_facts *f, const struct explain_version *v) {
  return v + 1 < end_of(f) ? v[1].effective_at : USEC_NEVER;
}

static const struct explain_version *ruling(const struct explain_facts *f, usec_t at) {
  const struct explain_version *found = NULL;
  for (const struct explain_version *v = f->versions; v < end_of(f) && v->effective_at < at; v++)
    found = v;
  return found;
}

/* The version that decides this instant: while it is not due each hands it on to the next that has it, too. NULL: the ruling one has not got
 * it, or a later one; `ret_last`, that one. */
static const struct explain_version *handed_on(const struct explain_facts *f, usec_t at,
                                               const struct explain_version **ret_last) {
  const struct explain_version *v = ruling(f, at);
  for (*ret_last = v; v && v < end_of(f) && has(v, at); *ret_last = ++v)
    if (due_of(f, v, at) <= rules_until(f, v))
      return v;
  return NULL;
}

static const struct explain_version *owner_of(const struct explain_facts *f, usec_t at) {
  const struct explain_version *last;
  return handed_on(f, at, &last);
}

static const struct explain_version *numbered(const struct explain_facts *f, int32_t version) {
  for (const struct explain_version *v = f->versions; v < end_of(f); v++)
    if (v->version == version)
      return v;
  return NULL;
}

/* Where the pause began in which `v` was made. */
static const struct explain_version *pause_of(const struct explain_facts *f,
                                              const struct explain_version *v) {
  while (v > f->versions && v < end_of(f) && v[-1].state == TASK_PAUSED)
    v--;
  return v;
}

static const struct explain_version *resumed_after(const struct explain_facts *f,
                                                   const struct explain_version *v) {
  while (v < end_of(f) && v->state == TASK_PAUSED)
    v++;
  return v < end_of(f) ? v : NULL;
}

/* ------------------------------------------------------------------ what is said of every instant */

static void add_note(struct explain_answer *a, enum explain_note n) { a->notes |= 1u << n; }

static void note_schedule(struct explain_answer *a, const struct explain_version *v) {
  static const int dst[DST_NOTE_MAX_] = {[DST_NONE] = -1,
                                         [DST_GAP_MADE_UP] = EXPLAIN_NOTE_GAP_MADE_UP,
                                         [DST_GAP_SHIFTED] = EXPLAIN_NOTE_GAP_SHIFTED,
                                         [DST_FIRST_COPY] = EXPLAIN_NOTE_FIRST_COPY,
                                         [DST_SECOND_COPY] = EXPLAIN_NOTE_SECOND_COPY};
  struct schedule_note n;
  schedule_explain(v->spec->schedule, a->at, &n);
  if (v->spec->kind == SCHEDULE_CRON && dst[n.note] >= 0)
    add_note(a, (enum explain_note)dst[n.note]);
  if (n.calendar == CALENDAR_EXTRA_DAY)
    add_note(a, EXPLAIN_NOTE_EXTRA_DAY);
  if (a->due > a->at)
    add_note(a, EXPLAIN_NOTE_JITTERED);
}

/* The local time, and the nearest instants, by the version that ruled, or else by the one that says most. */
static void surroundings(const struct explain_facts *f, struct explain_answer *a) {
  const struct explain_version *v = a->version ? a->version : f->newest;
  if (!v || !v->spec)
    return;
  const struct schedule *s = v->spec->schedule;
  a->offset = zone_offset_at(schedule_zone(s), a->at);
  a->local_sec = a->at / USEC_PER_SEC + a->offset;
  if (computes(v)) {
    a->previous = schedule_previous(s, v->anchor, a->at);
    usec_t next = schedule_next(s, v->anchor, a->at);
    a->next = next == USEC_NEVER ? 0 : next;
  } else if (f->before_count) {
    a->previous = f->before[0].key.scheduled_at;
  }
}

/* ------------------------------------------------------------------ by its record */

static enum explain_code code_of_run(const struct explain_run *r) {
  static const struct {
    enum run_state state;
    enum run_reason reason;
    enum explain_code code;
  } rows[] = {
#define RUN(state, reason, code) {RUN_##state, REASON_##reason, EXPLAIN_##code},
#include "core/explain.def"
  };
  static const enum explain_code waits[WAIT_MAX_] = {
#define WAIT(wait, code) [WAIT_##wait] = EXPLAIN_##code,
#include "core/explain.def"
  };
  const size_t n = sizeof rows / sizeof *rows;
  if (r->run.state == RUN_PENDING && r->run.reason == REASON_QUEUED)
    return waits[r->waits_for];
  size_t of_state = n;
  for (size_t i = n; i-- > 0;) {
    if (rows[i].state != r->run.state)
      continue;
    of_state = i;
    if (rows[i].reason == r->run.reason)
      return rows[i].code;
  }
  return rows[of_state].code;
}

static bool is_range(const struct run_row *r) { return r->missed_count > 1; }

static void note_run(struct explain_answer *a, const struct run_row *r) {
  static const struct {
    enum run_origin origin;
    enum explain_note note;
  } origins[] = {
#define ORIGIN(origin, note) {ORIGIN_##origin, EXPLAIN_NOTE_##note},
#include "core/explain.def"
  };
  for (size_t i = 0; i < sizeof origins / sizeof *origins; i++)
    if (origins[i].origin == r->origin && !is_range(r) && !(a->notes >> EXPLAIN_NOTE_AFTER_PAUSE & 1))
      add_note(a, origins[i].note);
  if (is_range(r))
    add_note(a, r->state == RUN_SKIPPED ? EXPLAIN_NOTE_FOLDED : EXPLAIN_NOTE_STANDS_FOR);
  if (r->attempt > 1)
    add_note(a, EXPLAIN_NOTE_RETRIED);
  if (a->late_from && r->fired_at - a->late_from >= EXPLAIN_LATE)
    add_note(a, EXPLAIN_NOTE_LATE);
}

/* Is the instant one of those that this row stands for? What its version cannot say is believed. */
static bool covers(const struct explain_facts *f, const struct run_row *r, usec_t at) {
  if (!is_range(r) || at < r->missed_first || at > r->key.scheduled_at)
    return false;
  const struct explain_version *v = numbered(f, r->version);
  if (!v || !computes(v))
    return true;
  bool excluded = schedule_excluded(v->spec->schedule, at);
  return has(v, at) && excluded == (r->reason == REASON_CALENDAR);
}

/* The run of the schedule itself before one that somebody asked for. */
static const struct explain_run *run_of(const struct explain_facts *f, usec_t at) {
  const struct explain_run *exact = NULL, *range = NULL;
  for (size_t i = 0; i < f->run_count; i++) {
    const struct explain_run *r = &f->runs[i];
    if (r->run.key.scheduled_at == at && (!exact || r->run.key.part == 0))
      exact = r;
    else if (!range && covers(f, &r->run, at))
      range = r;
  }
  return exact ? exact : range;
}

/* ------------------------------------------------------------------ by the versions */

static void paused(const struct explain_facts *f, const struct explain_version *v, struct explain_answer *a,
                   bool ahead) {
  a->code = ahead ? EXPLAIN_FUTURE_PAUSED : EXPLAIN_PAUSED;
  a->change = pause_of(f, v);
  if (a->due > f->catch_up_from && a->due <= f->catch_up_to) {
    a->code = EXPLAIN_CATCH_UP_ASKED;
    a->change = resumed_after(f, v);
  }
}

static bool is_decided(const struct explain_facts *f, usec_t due) {
  return due < f->decided_at || (due == f->decided_at && f->task_id <= f->decided_task);
}

/* An instant that this version has, and no record of it. */
static void unrecorded(const struct explain_facts *f, const struct explain_version *v,
                       struct explain_answer *a) {
  bool decided = is_decided(f, a->due);
  if (v->state == TASK_PAUSED)
    paused(f, v, a, a->due > f->now);
  else if (!decided && a->due <= f->now && v->state == TASK_ENABLED)
    a->code = EXPLAIN_NOT_DECIDED;
  else if (!decided && v->state == TASK_ENABLED)
    a->code = schedule_excluded(v->spec->schedule, a->at) ? EXPLAIN_FUTURE_CALENDAR : EXPLAIN_FUTURE;
  else if (decided && a->at < f->kept_since)
    a->code = EXPLAIN_RECORD_DROPPED;
  else if (v->spec->max_runs)
    a->code = EXPLAIN_MAX_RUNS;
  else
    a->code = v->state == TASK_COMPLETED ? EXPLAIN_COMPLETED : EXPLAIN_NO_RECORD;
}

/* Was it an instant before, or did it become one? */
static bool in_another(const struct explain_facts *f, struct explain_answer *a) {
  const struct explain_version *v = a->version;
  for (const struct explain_version *later = v + 1; later < end_of(f); later++)
    if (has(later, a->at)) {
      a->code = EXPLAIN_IN_LATER_VERSION;
      a->change = a->other = later;
      return true;
    }
  for (const struct explain_version *earlier = v; earlier-- > f->versions;)
    if (has(earlier, a->at)) {
      a->code = EXPLAIN_IN_EARLIER_VERSION;
      a->other = earlier;
      a->change = earlier + 1;
      return true;
    }
  return false;
}

static void not_an_instant(struct explain_answer *a) {
  const struct task_spec *spec = a->version->spec;
  if (a->at < spec->start_at) {
    a->code = EXPLAIN_BEFORE_START;
  } else if (a->at > spec->end_at) {
    a->code = EXPLAIN_AFTER_END;
  } else if (spec->kind == SCHEDULE_FIXED_RATE) {
    a->code = EXPLAIN_NOT_IN_RATE;
  } else if (spec->kind == SCHEDULE_ONE_TIME) {
    a->code = EXPLAIN_NOT_THE_ONE_TIME;
  } else {
    a->mismatch = schedule_mismatch(spec->schedule, a->local_sec);
    if (a->at % USEC_PER_SEC)
      a->mismatch |= 1u << CRON_SECOND;
    a->code = a->mismatch ? EXPLAIN_NOT_IN_CRON : EXPLAIN_DST_OTHER_COPY;
  }
}

static void by_kind(const struct explain_facts *f, struct explain_answer *a) {
  const struct explain_version *v = a->version;
  if (!v->spec) {
    a->code = EXPLAIN_NO_ZONE;
  } else if (has(v, a->at)) { /* but it was not due yet when one came that has not got it */
    a->code = EXPLAIN_BETWEEN_VERSIONS;
    (void)handed_on(f, a->at, &a->change);
    a->due = due_of(f, a->change - 1, a->at);
  } else if (v->spec->kind == SCHEDULE_MANUAL) {
    a->code = EXPLAIN_NO_SCHEDULE;
  } else if (v->spec->kind == SCHEDULE_FIXED_DELAY) {
    a->code = EXPLAIN_FIXED_DELAY;
    if (v->state == TASK_PAUSED)
      paused(f, v, a, a->at > f->now);
  } else if (!in_another(f, a)) {
    not_an_instant(a);
  }
  if (v->state == TASK_PAUSED && !a->change) {
    a->change = pause_of(f, v);
    add_note(a, EXPLAIN_NOTE_WAS_PAUSED);
  }
}

static void by_version(const struct explain_facts *f, struct explain_answer *a) {
  const struct explain_version *v = a->version;
  if (!v) {
    a->code = EXPLAIN_BEFORE_CREATION;
    a->change = f->versions;
  } else if (v->state == TASK_DELETED) {
    a->code = EXPLAIN_AFTER_DELETION;
    a->change = v;
  } else {
    by_kind(f, a);
  }
}

/* ------------------------------------------------------------------ one instant */

/* Where its lateness begins. A catch-up after a pause is no later than the resume that asked for it. */
static void count_lateness(const struct explain_facts *f, const struct explain_version *owner,
                           struct explain_answer *a) {
  a->late_from = a->run->run.origin == ORIGIN_BACKFILL ? 0 : a->due;
  if (!owner)
    return;
  add_note(a, EXPLAIN_NOTE_AFTER_PAUSE);
  a->change = pause_of(f, owner);
  a->other = resumed_after(f, owner);
  const struct explain_version *resumed = a->other ? a->other : a->version;
  if (resumed && resumed->effective_at > a->late_from)
    a->late_from = resumed->effective_at;
}

static void by_run(const struct explain_facts *f, const struct explain_run *r, struct arena *mem,
                   struct explain_answer *a) {
  const struct explain_version *v = numbered(f, r->run.version), *paused_by = owner_of(f, a->at);
  bool own = r->run.key.part == 0 || r->run.origin == ORIGIN_BACKFILL;
  if (r->run.key.part != 0 || (paused_by && paused_by->state != TASK_PAUSED))
    paused_by = NULL;
  a->run = r;
  a->version = v ? v : a->version;
  a->due = a->at;
  if (own && v && has(v, a->at)) {
    a->due = r->run.origin == ORIGIN_BACKFILL ? a->at : due_of(f, paused_by ? paused_by : v, a->at);
    note_schedule(a, v);
  }
  a->code = code_of_run(r);
  if (r->run.state != RUN_SKIPPED && r->run.key.scheduled_at != a->at)
    a->code = EXPLAIN_MADE_UP;
  count_lateness(f, paused_by, a);
  note_run(a, &r->run);
  explain_parts(f, mem, a);
}

void explain_instant(const struct explain_facts *f, usec_t at, struct arena *mem,
                     struct explain_answer *ret) {
  struct explain_answer a = {.at = at, .version = ruling(f, at)};
  const struct explain_run *r = run_of(f, at);
  const struct explain_version *owner = owner_of(f, at);
  if (owner)
    a.version = owner;
  surroundings(f, &a);
  if (r) {
    by_run(f, r, mem, &a);
  } else if (owner && owner->state != TASK_DELETED) {
    a.due = due_of(f, owner, at);
    unrecorded(f, owner, &a);
    note_schedule(&a, owner);
  } else {
    by_version(f, &a);
  }
  *ret = a;
}

void explain_left_out(const struct explain_facts *f, int64_t local_sec, usec_t change,
                      struct explain_answer *ret) {
  struct explain_answer a = {.at = change, .code = EXPLAIN_DST_LEFT_OUT, .version = ruling(f, change)};
  if (!a.version)
    a.version = f->newest;
  surroundings(f, &a);
  a.local_sec = local_sec;
  if (a.version->spec && a.version->spec->kind == SCHEDULE_CRON &&
      !schedule_mismatch(a.version->spec->schedule, local_sec)) {
    struct schedule_note n = {0};
    usec_t next = schedule_next(a.version->spec->schedule, a.version->anchor, change - 1);
    if (next != USEC_NEVER)
      schedule_explain(a.version->spec->schedule, next, &n);
    bool made_up = n.note == DST_GAP_MADE_UP || n.note == DST_GAP_SHIFTED;
    a.code = made_up ? EXPLAIN_DST_MADE_UP : EXPLAIN_DST_SKIPPED;
    a.next = next == USEC_NEVER ? 0 : next;
  }
  *ret = a;
}

/* ------------------------------------------------------------------ the present */

/* Under way before waiting, the longest first. */
static const struct explain_run *first_open(const struct explain_facts *f) {
  const struct explain_run *found = NULL;
  for (size_t i = 0; i < f->open_count; i++) {
    const struct explain_run *r = &f->open[i];
    if (!found || (found->run.state == RUN_PENDING && r->run.state == RUN_RUNNING))
      found = r;
  }
  return found;
}

static usec_t delay_next(const struct explain_facts *f, const struct explain_version *v) {
  usec_t base = 0;
  for (size_t i = 0; i < f->before_count; i++)
    if (f->before[i].key.part == 0 && f->before[i].finished_at > base)
      base = f->before[i].finished_at;
  if (!base && v->spec->start_at > v->effective_at)
    return v->spec->start_at;
  usec_t next = (base > v->effective_at ? base : v->effective_at) + v->spec->every;
  return next > v->spec->end_at ? 0 : next;
}

static bool is_its_own(const struct explain_facts *f, const struct explain_version *v, usec_t at) {
  const struct explain_version *owner = at > v->effective_at ? v : owner_of(f, at);
  return owner && owner->version == v->version;
}

/* The longest time that anything may wait between its nominal instant and its being due. */
static usec_t longest_wait(const struct explain_facts *f, const struct explain_version *v) {
  usec_t room = schedule_jitter_max(v->spec->schedule);
  for (const struct explain_version *u = f->versions; f->decided_at <= v->effective_at && u < end_of(f); u++)
    if (u->spec && computes(u) && schedule_jitter_max(u->spec->schedule) > room)
      room = schedule_jitter_max(u->spec->schedule); /* what waited under it may be this one's */
  return room;
}

static void waits(const struct explain_facts *f, const struct explain_version *v, struct arena *mem,
                  struct explain_answer *a) {
  const struct schedule *s = v->spec->schedule;
  if (v->spec->kind == SCHEDULE_FIXED_DELAY) {
    a->next = delay_next(f, v);
    a->code = a->next ? EXPLAIN_DELAY_AHEAD : EXPLAIN_NONE_LEFT;
    return;
  }
  usec_t at = schedule_next(s, v->anchor, f->decided_at - longest_wait(f, v));
  while (at != USEC_NEVER && (is_decided(f, due_of(f, v, at)) || !is_its_own(f, v, at)))
    at = schedule_next(s, v->anchor, at);
  if (at != USEC_NEVER && due_of(f, v, at) <= f->now) {
    explain_instant(f, at, mem, a);
    return;
  }
  usec_t next = at == USEC_NEVER ? at : schedule_next_included(s, v->anchor, at - 1);
  a->code = next == USEC_NEVER ? EXPLAIN_NONE_LEFT : EXPLAIN_NEXT_AHEAD;
  a->next = next == USEC_NEVER ? 0 : next;
}

void explain_present(const struct explain_facts *f, struct arena *mem, struct explain_answer *ret) {
  const struct explain_version *v = f->newest;
  const struct explain_run *open = first_open(f);
  struct explain_answer a = {.at = open ? open->run.key.scheduled_at : f->now, .version = v};
  surroundings(f, &a);
  if (open) {
    by_run(f, open, mem, &a);
    *ret = a;
    return;
  }
  a.at = 0;
  if (v->state == TASK_DELETED) {
    a.code = EXPLAIN_AFTER_DELETION;
    a.change = v;
  } else if (!v->spec) {
    a.code = EXPLAIN_NO_ZONE;
  } else if (v->spec->kind == SCHEDULE_MANUAL) {
    a.code = EXPLAIN_NO_SCHEDULE;
  } else if (v->state == TASK_PAUSED) {
    a.code = EXPLAIN_PAUSED_NOW;
    a.change = pause_of(f, numbered(f, v->version));
  } else if (v->state == TASK_COMPLETED) {
    a.code = v->spec->max_runs && a.next ? EXPLAIN_MAX_RUNS : EXPLAIN_COMPLETED;
    a.next = 0;
  } else {
    waits(f, v, mem, &a);
  }
  *ret = a;
}

/* ------------------------------------------------------------------ the instants of a range */

static int ascending(const void *a, const void *b) {
  usec_t x = *(const usec_t *)a, y = *(const usec_t *)b;
  return (x > y) - (x < y);
}

/* Those that come under this version and are decided by it or one of the next: at most `max`. */
static size_t own_instants(const struct explain_facts *f, const struct explain_version *v,
                           const struct explain_range *range, usec_t *ret, size_t max) {
  size_t n = 0;
  usec_t from = range->from - 1 > v->effective_at ? range->from - 1 : v->effective_at;
  usec_t to = range->to < rules_until(f, v) ? range->to : rules_until(f, v);
  if (!computes(v) || v->state == TASK_DELETED)
    return 0;
  usec_t at = schedule_next(v->spec->schedule, v->anchor, from);
  for (; n < max && at <= to; at = schedule_next(v->spec->schedule, v->anchor, at)) {
    const struct explain_version *owner = owner_of(f, at);
    if (owner && owner->state != TASK_DELETED)
      ret[n++] = at;
  }
  return n;
}

size_t explain_instants(const struct explain_facts *f, struct explain_range *range, struct arena *mem,
                        usec_t **ret) {
  size_t most = range->max + 1, n = 0, kept = 0;
  usec_t *all = arena_array(mem, most + f->run_count, sizeof *all);
  for (const struct explain_version *v = f->versions; v < end_of(f) && n < most; v++)
    n += own_instants(f, v, range, all + n, most - n);
  for (size_t i = 0; i < f->run_count; i++) {
    usec_t at = f->runs[i].run.key.scheduled_at;
    if (at >= range->from && at <= range->to)
      all[n++] = at;
  }
  if (n)
    qsort(all, n, sizeof *all, ascending);
  for (size_t i = 0; i < n; i++)
    if (!kept || all[i] != all[kept - 1])
      all[kept++] = all[i];
  range->more = kept > range->max;
  *ret = all;
  return range->more ? range->max : kept;
}

/* ------------------------------------------------------------------ the question */

/* "…T02:30" and what follows → with ":00" in between. True: it had no seconds. */
static bool with_seconds(struct slice at, char *buf, size_t size, struct slice *ret) {
  enum { MINUTES = 16 };
  bool short_form = at.n >= MINUTES && at.p[13] == ':' && (at.n == MINUTES || !strchr(":.", at.p[MINUTES]));
  *ret = at;
  if (!short_form || at.n + 4 > size)
    return false;
  memcpy(buf, at.p, MINUTES);
  memcpy(buf + MINUTES, ":00", 3);
  memcpy(buf + MINUTES + 3, at.p + MINUTES, at.n - MINUTES);
  *ret = slice_n(buf, at.n + 3);
  return true;
}

static int not_a_time(struct err *e) {
  return err_set(e, ERR_INVALID,
                 "expected an instant such as 2026-03-29T02:30:00Z, or a local time of the task such as "
                 "2026-03-29T02:30:00 or 2026-03-29T02:30");
}

/* A time without an offset. */
static int read_local(struct slice text, const struct zone *z, struct explain_span *s, usec_t *ret,
                      struct err *e) {
  char utc[TIME_TEXT_MAX];
  usec_t local;
  if (!text.n || text.n + 2 > sizeof utc)
    return not_a_time(e);
  memcpy(utc, text.p, text.n);
  utc[text.n] = 'Z';
  if (time_parse_rfc3339(slice_n(utc, text.n + 1), &local, NULL) < 0)
    return not_a_time(e);
  struct zone_local l;
  zone_local(z, local / USEC_PER_SEC, &l);
  s->local_sec = local / USEC_PER_SEC;
  s->left_out = l.kind == ZONE_GAP;
  *ret = (s->left_out ? l.change : l.utc_sec) * USEC_PER_SEC + (s->left_out ? 0 : local % USEC_PER_SEC);
  if (l.kind == ZONE_OVERLAP)
    s->twin = l.utc_later * USEC_PER_SEC + local % USEC_PER_SEC;
  return 0;
}

int explain_span_parse(struct slice at, usec_t within, const struct zone *z, struct explain_span *ret,
                       struct err *e) {
  char buf[TIME_TEXT_MAX + 4];
  struct slice text;
  struct explain_span s = {0};
  usec_t instant;
  usec_t unit = with_seconds(at, buf, sizeof buf, &text) ? USEC_PER_MIN - 1 : 0;
  if (time_parse_rfc3339(text, &instant, NULL) < 0) {
    int r = read_local(text, z, &s, &instant, e);
    if (r < 0)
      return r;
  }
  if (instant < 0)
    return err_set(e, ERR_INVALID, "expected an instant in the years 1970 to 9999");
  s.at = instant;
  s.from = instant > within ? instant - within : 0;
  s.to = s.left_out ? instant : instant + unit + within;
  if (s.left_out)
    s.from = instant;
  *ret = s;
  return 0;
}
