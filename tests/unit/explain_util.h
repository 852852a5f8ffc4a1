#pragma once
/* Cases of explain, as what is known of a task: after cmocka.h. */
#include "core/explain.h"
#include "core/spec_cache.h"
#include "zoneinfo.h"
#include <stdio.h>

#define SEC          USEC_PER_SEC
#define HOUR         USEC_PER_HOUR
#define DAY          USEC_PER_DAY
#define T0           (20000 * DAY) /* 2024-10-04T00:00:00Z, a Friday */
#define NOON         (T0 + 12 * HOUR)
#define GAP          (INT64_C(1711846800) * SEC) /* 2024-03-31T01:00:00Z: Berlin goes from 02:00 to 03:00 */
#define BACK         (INT64_C(1729990800) * SEC) /* 2024-10-27T01:00:00Z: and from 03:00 back to 02:00 */
#define TASK         7
#define N(x)         (1u << EXPLAIN_NOTE_##x)
#define CRON(expr)   "\"kind\":\"CRON\",\"expression\":\"" expr "\""
#define HOURLY       CRON("0 0 * * * ?")
#define BERLIN(expr) CRON(expr) ",\"timezone\":\"Europe/Berlin\""
#define EVERY(text)  "\"kind\":\"FIXED_RATE\",\"every\":\"" text "\""
#define DELAY(text)  "\"kind\":\"FIXED_DELAY\",\"every\":\"" text "\""
#define MANUAL       "\"kind\":\"MANUAL\""
#define ONCE         "\"kind\":\"ONE_TIME\",\"run_at\":\"2024-10-04T12:00:00Z\""
#define OCTOBER                                                                                              \
  ",\"calendar\":\"c\"},\"calendar\":{\"version\":1,\"excluded\":[\"2024-10-05\"],\"extra_days\":[\"2024-"   \
  "10-06\"]}"

static struct zone_set *zones;
static struct spec_cache *specs;
static struct arena mem;

/* `schedule` may close itself and add members of the task. */
static inline struct task_spec *spec_of(const char *schedule) {
  char text[1024];
  struct task_spec *s = NULL;
  struct err e = {0};
  (void)snprintf(text, sizeof text, "{\"executor_group\":\"crew\",\"handler\":\"h\",\"schedule\":{%s%s",
                 schedule, strchr(schedule, '}') ? "}" : "}}");
  if (spec_cache_get(specs, slice_of(text), &s, &e) < 0)
    fail_msg("%s: %s %s", text, e.field, e.text);
  return s;
}

/* ------------------------------------------------------------------ cases */

struct a_run {
  usec_t at; /* 0: the instant asked for */
  enum run_state state;
  enum run_reason reason;
  enum run_origin origin;
  int32_t part, attempt, version;                                   /* version 0: 1 */
  usec_t fired_at, not_before, attempt_at, started_at, finished_at; /* fired_at 0: 5 ms after */
  usec_t missed_first;
  int64_t missed_count;
  const char *error, *executor, *origin_run, *pin;
  enum run_wait waits_for;
  bool open; /* one of the open runs, for the present */
};
struct a_version {
  const char *schedule; /* NULL: there is no such version; "-": it cannot be read */
  enum task_state state;
  usec_t since;
  const char *note;
  usec_t anchor;
};
struct a_case {
  enum explain_code code;
  uint32_t notes;
  usec_t at;             /* 0: the present */
  usec_t left_out;       /* or: this local second is left out at the instant `at` */
  struct a_version v[4]; /* [0].schedule NULL: HOURLY since T0 - 1 day */
  struct a_run run[2];   /* state 0 and reason 0: none */
  struct a_run before;
  usec_t now, decided, kept_since, catch_up_to;
  int64_t decided_task; /* 0: any */
  const char *says[2];  /* part of the text and its notes: English, Chinese */
};

#define PAUSE_AT(t)                                                                                          \
  { HOURLY, TASK_PAUSED, (t), "audit", 0 }
/* Paused and resumed around NOON. */
#define RESUMED FIRST(HOURLY), PAUSE_AT(NOON - 2 * HOUR), THEN(HOURLY, NOON + HOUR)
#define THEN(text, t)                                                                                        \
  { (text), TASK_ENABLED, (t), NULL, 0 }
#define FIRST(text)                                                                                          \
  { (text), TASK_ENABLED, T0 - DAY, NULL, T0 - DAY }
#define DONE(...)                                                                                            \
  {                                                                                                          \
    .state = RUN_SUCCESS, .attempt = 1, .attempt_at = NOON + 10000, .started_at = NOON + 20000,              \
    .finished_at = NOON + SEC, __VA_ARGS__                                                                   \
  }
#define FAILED(r, ...)                                                                                       \
  {                                                                                                          \
    .state = RUN_FAIL, .reason = REASON_##r, .attempt = 1, .attempt_at = NOON + 10000,                       \
    .finished_at = NOON + SEC, __VA_ARGS__                                                                   \
  }

/* ------------------------------------------------------------------ facts of a case */

struct world {
  struct explain_facts f;
  struct explain_version v[4];
  struct explain_run runs[2], open[2];
  struct run_row before;
};

static inline void make_run(struct explain_run *x, const struct a_run *r, usec_t at) {
  usec_t when = r->at ? r->at : at;
  x->run = (struct run_row){.key = {1, when, TASK, r->part},
                            .version = r->version ? r->version : 1,
                            .state = r->state,
                            .reason = r->reason,
                            .origin = r->origin,
                            .attempt = r->attempt,
                            .fired_at = r->fired_at ? r->fired_at : when + 5000,
                            .not_before = r->not_before,
                            .attempt_at = r->attempt_at,
                            .started_at = r->started_at,
                            .finished_at = r->finished_at,
                            .missed_first = r->missed_first,
                            .missed_count = r->missed_count,
                            .error_message = slice_of(r->error),
                            .executor = slice_of(r->executor),
                            .origin_run = slice_of(r->origin_run),
                            .pin = slice_of(r->pin)};
  x->waits_for = r->waits_for;
}

static inline void make_versions(struct world *w, const struct a_case *c) {
  static const struct a_version whole = FIRST(HOURLY);
  static const char *const names[] = {"v1", "v2", "v3", "v4"};
  size_t n = 0;
  for (; n < 4 && (n == 0 || c->v[n].schedule); n++) {
    const struct a_version *a = c->v[n].schedule ? &c->v[n] : &whole;
    w->v[n] = (struct explain_version){.version = (int32_t)n + 1,
                                       .state = a->state,
                                       .effective_at = a->since,
                                       .anchor = a->anchor,
                                       .by = slice_of(names[n]),
                                       .note = slice_of(a->note),
                                       .spec = strcmp(a->schedule, "-") == 0 ? NULL : spec_of(a->schedule)};
  }
  w->f.versions = w->v;
  w->f.version_count = n;
  w->f.newest = &w->v[n - 1];
}

static inline bool is_run(const struct a_run *r) { return r->state || r->reason; }

static inline void make(struct world *w, const struct a_case *c) {
  *w = (struct world){0};
  make_versions(w, c);
  w->f.task_id = TASK;
  w->f.now = c->now ? c->now : T0 + 22 * HOUR + 1800 * SEC;
  w->f.decided_at = c->decided ? c->decided : w->f.now;
  w->f.decided_task = c->decided_task ? c->decided_task : INT64_MAX;
  w->f.kept_since = c->kept_since;
  if (c->catch_up_to) {
    w->f.catch_up_from = 1;
    w->f.catch_up_to = c->catch_up_to;
  }
  for (size_t i = 0; i < 2 && is_run(&c->run[i]); i++)
    make_run(c->run[i].open ? &w->open[w->f.open_count++] : &w->runs[w->f.run_count++], &c->run[i], c->at);
  w->f.runs = w->runs;
  w->f.open = w->open;
  if (is_run(&c->before)) {
    struct explain_run x;
    make_run(&x, &c->before, 0);
    w->before = x.run;
    w->f.before = &w->before;
    w->f.before_count = 1;
  }
}

static inline void drop(struct world *w) {
  for (size_t i = 0; i < w->f.version_count; i++)
    task_spec_unref(&w->v[i].spec);
}

static inline void answer(struct world *w, const struct a_case *c, struct explain_answer *ret) {
  make(w, c);
  if (c->left_out)
    explain_left_out(&w->f, c->left_out, c->at, ret);
  else if (c->at)
    explain_instant(&w->f, c->at, &mem, ret);
  else
    explain_present(&w->f, &mem, ret);
}

static inline int setup(void **state) {
  (void)state;
  zones = test_zones();
  specs = spec_cache_new(zones, 100);
  return 0;
}

static inline int teardown(void **state) {
  (void)state;
  arena_done(&mem);
  spec_cache_free(&specs);
  zone_set_free(&zones);
  return 0;
}
