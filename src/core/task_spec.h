#pragma once
/* What a task asks for: the parsed form of its definition. Immutable once built; many tasks that differ only in name,
 * payload and anchor share one (interned by the canonical text). Pure. */
#include "base/json.h"
#include "core/depend.h"
#include "core/model.h"

struct calendar;
struct schedule;
struct zone_set;

struct retry_policy {
  int32_t max_attempts;    /* 1…100, default 1: no retry */
  usec_t initial_interval; /* default 10 s */
  usec_t max_interval;     /* default 10 min */
  usec_t max_elapsed;      /* from fired_at; 0 = no bound of its own */
  double multiplier;       /* 1…10, default 2 */
  double jitter;           /* 0…1, default 0.1: ± that share */
  uint32_t
      retry_on; /* bit set of 1 << REASON_x out of ERROR TIMEOUT LOST REJECTED NO_EXECUTOR; default: all */
};

struct task_spec {
  _Atomic int32_t extra_refs; /* holders beyond the first: task_spec_ref, task_spec_unref */
  _Atomic int32_t
      label; /* the driver's own: 1 + the number under which its group is counted; 0: not asked yet */
  struct schedule *schedule; /* owned */
  enum schedule_kind kind;
  usec_t every;            /* FIXED_RATE, FIXED_DELAY */
  usec_t start_at, end_at; /* 0 / USEC_NEVER when not set */
  int64_t max_runs;        /* 0 = no bound */
  enum misfire_policy misfire_policy;
  usec_t misfire_threshold; /* default 60 s */
  usec_t catchup_window;    /* default 1 h */
  int64_t catchup_max_runs; /* default 100 */
  double catchup_rate;      /* released per second, default 10 */
  enum overlap_policy overlap_policy;
  struct retry_policy retry;
  usec_t dispatch_timeout;   /* default 10 s: accepted by an executor, per attempt */
  usec_t attempt_timeout;    /* default 1 h */
  usec_t timeout;            /* default 24 h: whole run, from fired_at */
  usec_t heartbeat_timeout;  /* default 0 = no progress beats asked for */
  usec_t cancel_timeout;     /* default 30 s: then CANCELLED without confirmation */
  enum on_lost on_lost;      /* default RETRY */
  bool exactly_one_start;    /* an executor has to claim an attempt before it starts it */
  int32_t priority;          /* 0…9, default 5: among those that wait the higher one goes first */
  int32_t max_concurrent;    /* 0 = not given: QUEUE_ALL one at a time, ALLOW any number */
  char *ns;                  /* namespace, owned text */
  char *group;               /* executor group, owned text */
  char *handler;             /* owned text */
  enum routing routing;      /* ROUTING_MAX_: as the group says */
  char *executor;            /* the only one that may have a run; NULL: any */
  char *routing_key;         /* CONSISTENT_HASH; NULL: the task's id */
  char *executor_labels;     /* that it must have: canonical JSON object text; NULL: none */
  char *calendar;            /* its name, owned text; NULL: none */
  int32_t calendar_version;  /* in the definition; 0: the name only */
  struct depend_def depends; /* what it depends on; count 0: nothing. Owned */
};

/* The fields of a task as people write them (docs/api.md). Everything in the definition but name, description, payload,
 * anchor and run_at, which differ from task to task, goes into the canonical text. */
struct task_input {
  char *name;        /* ≤ 128 bytes */
  char *description; /* ≤ 1,024 bytes, may be NULL */
  char *definition;  /* canonical JSON text, what is stored and interned */
  char *payload;     /* compact JSON text, NULL = none; ≤ 1 MiB */
  usec_t anchor;     /* FIXED_RATE anchor or ONE_TIME run_at; 0 = not given (then the creation's instant) */
  struct task_spec *spec;
};
void task_input_done(struct task_input *in);

#define TASK_DEFINITION_MAX ((size_t)64 * 1024) /* bytes of a canonical definition */

/* Check a whole task document (create, or a full replacement) and take it apart. `now` for "run_at has passed" (refused unless
 * misfire_policy is named) and "no instant is left"; 0 = do not ask that. Every error names the field (JSON pointer) and what was
 * expected; unknown fields are refused. `zones` is used, not kept. */
int task_input_parse(const json_t *doc, struct zone_set *zones, usec_t now, struct task_input *ret,
                     struct err *e);
/* RFC 7396 merge patch of `current` (task_source_json) with a partial document; result as task_input_parse. While the schedule
 * stays as it is nobody is told that its instants have passed. */
int task_input_patch(const json_t *current, const json_t *patch, struct zone_set *zones, usec_t now,
                     struct task_input *ret, struct err *e);

/* A document names its calendar; a stored definition has that version of the calendar in it, so that it says all by itself: put it
 * in (in place of another version). `definition` is canonical; *ret too: mem_free. ERR_TOO_LARGE. */
int task_definition_bind(struct slice definition, int32_t version, const struct calendar *c, char **ret,
                         struct err *e);
/* The same with a parsed document, whose spec nobody else has yet. */
int task_input_bind(struct task_input *in, int32_t version, const struct calendar *c, struct err *e);

/* Build the spec from a stored canonical definition. Defaults are not stored: a missing field takes today's default. */
int task_spec_parse(struct slice definition, struct zone_set *zones, struct task_spec **ret, struct err *e);
void task_spec_free(struct task_spec **s); /* the last holder's; others use task_spec_unref */
static inline struct task_spec *task_spec_ref(struct task_spec *s) {
  s->extra_refs++;
  return s;
}
static inline void task_spec_unref(struct task_spec **s) {
  if (*s && (*s)->extra_refs-- == 0)
    task_spec_free(s);
  *s = NULL;
}

/* Only the schedule of a document, for previews: the value of its field "schedule". Errors name "/schedule/…". */
struct task_schedule {
  struct schedule *schedule; /* the caller's: schedule_free */
  usec_t anchor;             /* FIXED_RATE anchor, ONE_TIME run_at; 0 = not given */
  int run_at_note;           /* enum dst_note of a run_at in local time */
  struct slice
      calendar; /* its name, in the document; p == NULL: none. schedule_set_calendar is the caller's */
};
int task_schedule_parse(const json_t *schedule, struct zone_set *zones, struct task_schedule *ret,
                        struct err *e);

/* A task as stored. */
struct task_source {
  struct slice definition;
  const char *name, *description; /* description may be NULL */
  struct slice payload;           /* p == NULL = none, or left out */
  usec_t anchor;                  /* shown as anchor or run_at where the kind has one; 0 = leave out */
};
/* The document as its author wrote it (normal form, no defaults), and as people read it (all defaults filled in); both can be
 * sent back. New references. */
int task_source_json(const struct task_source *t, json_t **ret, struct err *e);
int task_document(const struct task_source *t, json_t **ret, struct err *e);
