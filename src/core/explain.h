#pragma once
/* Why a task did or did not run at an instant (docs/semantics.md, "Every instant accounted for"): from what is known of it to one code,
 * its fields, and where the time went. explain.def has the codes and their texts. Pure: whoever asks has read the facts, in this order,
 * so that none of them can contradict an earlier one: the watermark, then the versions, then the runs. */
#include "base/mem.h"
#include "core/rows.h"
#include "core/schedule.h"
#include "core/task_spec.h"

#define EXPLAIN_LATE USEC_PER_SEC /* decided so much after it was due: the answer says so */

enum explain_verdict {
  VERDICT_RAN,
  VERDICT_UNDER_WAY,
  VERDICT_SKIPPED,
  VERDICT_AHEAD,
  VERDICT_NOT_DUE,
  VERDICT_UNKNOWN,
  VERDICT_MAX_
};
enum explain_code {
#define CODE(name, verdict, en, zh) EXPLAIN_##name,
#include "core/explain.def"
  EXPLAIN_CODE_MAX_
};
enum explain_note {
#define NOTE(name, en, zh) EXPLAIN_NOTE_##name,
#include "core/explain.def"
  EXPLAIN_NOTE_MAX_
};
_Static_assert(EXPLAIN_NOTE_MAX_ <= 32, "a set of notes has 32 bits");
enum explain_part_kind {
#define PART(name, en, zh) EXPLAIN_PART_##name,
#include "core/explain.def"
  EXPLAIN_PART_MAX_
};
/* NULL-terminated */
extern const char *const explain_verdict_names[];
extern const char *const explain_code_names[];
extern const char *const explain_note_names[];
extern const char *const explain_part_names[];
/* What a run has waited for: the words of enum run_wait, RELEASE (a catch-up's or backfill's rate, its delay) and BOUND (of the task, a
 * group or a namespace; which is not kept). */
extern const char *const explain_wait_names[];
enum { EXPLAIN_WAIT_RELEASE = WAIT_MAX_, EXPLAIN_WAIT_BOUND, EXPLAIN_WAIT_MAX_ };

/* ------------------------------------------------------------------ the facts; everything is borrowed */
struct explain_version {
  int32_t version;
  enum task_state state;
  usec_t effective_at, anchor; /* rules in (effective_at, the next one's effective_at] */
  struct slice by, note;
  struct task_spec *spec; /* NULL: it cannot be read, its zone has vanished */
};
struct explain_run {
  struct run_row run;
  enum run_wait waits_for; /* of a QUEUED one */
  const struct attempt_row *attempts;
  size_t attempt_count;
};
struct explain_facts {
  int64_t task_id;
  usec_t now;
  usec_t decided_at; /* the shard's watermark pair: every (due, task id) up to it has been decided */
  int64_t decided_task;
  /* Ascending: those that rule the instants asked for, some before and after them, and the one that began the pause in which they
   * begin, if they do. */
  const struct explain_version *versions;
  size_t version_count;
  const struct explain_version *newest; /* of the task */
  const struct explain_run *runs;       /* whose instant, or range of instants, is asked for: ascending */
  size_t run_count;
  const struct explain_run *open; /* for the present: the task's open runs, ascending; some of them */
  size_t open_count;
  const struct run_row *before; /* the nearest runs before the instants asked for, the last one first */
  size_t before_count;
  usec_t kept_since; /* older records may be gone; 0: never by age */
  usec_t catch_up_from,
      catch_up_to; /* a catch-up that was asked for and not done yet: (from, to]; both 0: none */
};

/* ------------------------------------------------------------------ the answer; points into the facts */
struct explain_part {
  enum explain_part_kind kind;
  usec_t from, to;              /* to = 0: it goes on */
  int32_t attempt;              /* 0: of none */
  const char *waited_for;       /* WAIT: explain_wait_names; else NULL */
  const struct run_row *behind; /* WAIT for the task: a run that it waited for; NULL: not known */
};
struct explain_answer {
  usec_t at; /* the instant, nominal; 0: the present, and no run is open */
  enum explain_code code;
  uint32_t notes; /* bits 1 << EXPLAIN_NOTE_… */
  usec_t due;     /* at with its jitter; 0: it is none of the schedule */
  usec_t
      late_from; /* of a run: its lateness counts from here: due, or the resume that caught it up; 0: it has none (BACKFILL) */
  const struct explain_run *run;
  const struct explain_version *version; /* that ruled then; NULL: none yet, or not known */
  const struct explain_version *change; /* the version whose making explains it: pause, edit, creation, … */
  const struct explain_version
      *other;                   /* IN_…_VERSION: the one that has the instant; AFTER_PAUSE: the resume */
  const struct run_row *behind; /* the run that kept it waiting, or in whose favour it was skipped */
  usec_t previous, next;      /* the nearest instants of the ruling version (FIXED_DELAY: of runs); 0: none */
  unsigned mismatch;          /* NOT_IN_CRON: bits 1 << CRON_… */
  int64_t local_sec;          /* the local time in the ruling version's zone */
  int32_t offset;             /* of that zone then, seconds east of UTC */
  struct explain_part *parts; /* in the arena, in order */
  size_t part_count;
};

/* One instant. */
void explain_instant(const struct explain_facts *f, usec_t at, struct arena *mem, struct explain_answer *ret);
/* The present: the open run, else why there is none and what comes next. */
void explain_present(const struct explain_facts *f, struct arena *mem, struct explain_answer *ret);
/* A local time that the clock leaves out: `local_sec`, and `change`, the instant at which it does. */
void explain_left_out(const struct explain_facts *f, int64_t local_sec, usec_t change,
                      struct explain_answer *ret);
/* The instants in [from, to], ascending, in the arena: those of runs and those of each ruling version's schedule. */
struct explain_range {
  usec_t from, to;
  size_t max;
  bool more; /* set: there are more than that */
};
size_t explain_instants(const struct explain_facts *f, struct explain_range *range, struct arena *mem,
                        usec_t **ret);
/* Private to core/explain*.c: the parts of an answer that has its run. */
void explain_parts(const struct explain_facts *f, struct arena *mem, struct explain_answer *a);
enum explain_verdict explain_verdict_of(enum explain_code code);

/* Texts, appended to `out`. */
void explain_text(const struct explain_facts *f, const struct explain_answer *a, enum cron_lang lang,
                  struct str *out);
void explain_note_text(const struct explain_facts *f, const struct explain_answer *a, enum explain_note note,
                       enum cron_lang lang, struct str *out);
/* An instant as the texts of this answer say it, in the zone of the schedule. `buf`: TIME_TEXT_MAX. Returns buf. */
char *explain_local(const struct explain_facts *f, const struct explain_answer *a, usec_t t, char *buf);
const char *explain_part_text(enum explain_part_kind kind, enum cron_lang lang);

/* ------------------------------------------------------------------ the question */
#define EXPLAIN_WITHIN_MAX USEC_PER_DAY
struct explain_span {
  usec_t from, to; /* all instants in it are asked for; from == to: this one */
  usec_t at;       /* to be explained when there is none in it */
  usec_t twin;     /* the same local time comes once more; 0: it does not */
  bool left_out;   /* there is no such local time: from = to = at = the change of the clock */
  int64_t local_sec;
};
/* "2026-03-29T02:30:00+01:00"; without an offset it is local time in `z`; without seconds the whole minute. `within`: and all so much
 * earlier and later, 0…EXPLAIN_WITHIN_MAX. ERR_INVALID, without a field. */
int explain_span_parse(struct slice at, usec_t within, const struct zone *z, struct explain_span *ret,
                       struct err *e);
