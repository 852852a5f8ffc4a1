#pragma once
/* The task service: what people do with tasks. Owns task, task_version and the shard's feed (by the store's task operations) and
 * writes inbox rows. Thread-safe; every call blocks on the database. Logs each change at info. Never touches a run's state.
 *
 * References: a task is named by its id ("123"), by "namespace/name", or by "name" in the namespace "default" (names made of
 * digits only need the long form). */
#include "core/inbox.h"
#include "core/task_spec.h"
#include "store/store.h"

#define TASK_CREATE_MAX  1000 /* tasks of one create call */
#define TASK_LIST_MAX    1000
#define TASK_PREVIEW_MAX 1000 /* instants of one preview */
#define TASK_REMARK_MAX  512  /* bytes of what is said of them */

struct task_service;
struct task_service_options {
  struct store *store;      /* pooled, thread-safe; borrowed */
  const char *zone_dir;     /* "/usr/share/zoneinfo"; borrowed */
  usec_t (*now)(void *arg); /* the estimate of database time (cluster); thread-safe */
  void *now_arg;
  int64_t backfill_max;    /* instants of one backfill; 0: 1,000 */
  int64_t dead_letter_max; /* dead letters replayed or discarded by one call; 0: 1,000 */
  uint64_t seed;           /* for the random part of run keys: from crypto_random */
};
struct task_service *task_service_new(const struct task_service_options *o);
void task_service_free(struct task_service **s);
/* After each committed change or inbox row of a shard (so that the trigger wakes at once). Set before other threads call. */
void task_service_on_change(struct task_service *s, void (*changed)(void *arg, int32_t shard), void *arg);
/* Look whether the zone files changed on disk, and read them anew from then on. Every minute or so, from any thread. */
void task_service_refresh_zones(struct task_service *s);

/* Who asks, under which conditions, and where the answer lives. */
struct task_call {
  struct slice by; /* name of the token, kept with the version */
  struct slice
      only_ns; /* not empty: tasks elsewhere do not exist for this caller (creating there: ERR_FORBIDDEN) */
  const struct idem *idem; /* create (one) and trigger; NULL = none */
  int32_t if_version;      /* replace, patch, pause, resume, delete: ERR_STALE unless current; 0 = any */
  struct slice note;       /* a remark kept with the version, ≤ 1,024 bytes */
  struct arena *mem;       /* results live here */
  struct err *e;
};

/* Create. `doc`: the task document of docs/api.md. 0; 1: the idempotent repeat's first answer. Errors of task_input_parse,
 * ERR_CONFLICT "/name", ERR_IDEMPOTENCY. */
int task_create(struct task_service *s, const struct task_call *c, const json_t *doc, struct task_row *ret);
/* All or none of an array of 1…TASK_CREATE_MAX documents; errors name "/<index>/…". */
int task_create_many(struct task_service *s, const struct task_call *c, const json_t *docs,
                     struct task_version_row **ret_rows);
int task_get(struct task_service *s, const struct task_call *c, struct slice ref,
             int32_t version /* 0 = current */, struct task_row *ret);
/* filter->limit 1…TASK_LIST_MAX; only_ns narrows filter->ns. */
int task_list(struct task_service *s, const struct task_call *c, const struct st_task_list *filter,
              struct st_task_list_ret *ret);
int task_versions(struct task_service *s, const struct task_call *c, struct slice ref,
                  const struct st_task_versions *page,
                  struct st_task_versions_ret *ret); /* page->task_id is filled in here */
/* A new version from a whole document / an RFC 7396 merge patch. A COMPLETED task becomes ENABLED when its schedule changed. The
 * namespace cannot change. A document as task_json printed it may be sent back (server-made fields are ignored). */
int task_replace(struct task_service *s, const struct task_call *c, struct slice ref, const json_t *doc,
                 struct task_row *ret);
int task_patch(struct task_service *s, const struct task_call *c, struct slice ref, const json_t *patch,
               struct task_row *ret);
/* 1 when it was so already. Pause holds the schedule, not manual triggers, and leaves queued and running runs alone.
 * Resume goes on from now; catch_up: the instants of the pause go through the misfire policy. COMPLETED: ERR_CONFLICT. */
int task_pause(struct task_service *s, const struct task_call *c, struct slice ref, struct task_row *ret);
int task_resume(struct task_service *s, const struct task_call *c, struct slice ref, bool catch_up,
                struct task_row *ret);
/* ERR_CONFLICT while runs are open, unless `cancel`: then an INBOX_CANCEL of the same transaction has the owner cancel them. */
int task_delete(struct task_service *s, const struct task_call *c, struct slice ref, bool cancel);

/* ---------------------------------------------------------------- config as code */
#define TASK_APPLY_MAX  1000 /* documents of one call, and deletions */
#define TASK_SOURCE_MAX 128  /* bytes of a source's name */
struct task_apply {
  const json_t
      *tasks; /* array of task documents, each what shall be: also "version" (the one it is made for; 0: none
                           exists) and "state" (ENABLED or PAUSED; not given: as it is, ENABLED for a new one). May be NULL */
  const json_t *remove; /* array of {"namespace", "name", "version"}; only what `source` made. May be NULL */
  const struct st_group_put *groups; /* written in the same transaction */
  size_t group_count;
  struct slice source; /* whose tasks new ones are; empty: nobody's */
  bool dry_run, adopt,
      cancel; /* write nothing; tasks of others become the source's; deletions cancel open runs */
};
/* All of it or nothing, in one transaction. *ret_items: a row for each document and deletion, in order: {"kind": "task", "action":
 * created, changed, unchanged or deleted, "namespace", "name", "id", "from_version" (what was there, 0: nothing), "version" (after it;
 * not in a dry run), "differences"}. *ret_groups: as written, NULL in a dry run. A task of another source: ERR_CONFLICT unless
 * `adopt`; one that is nobody's is changed and stays nobody's. Not at the expected version, or changed between reading and
 * writing: ERR_STALE. Errors name "/tasks/<i>/…", "/remove/<i>", "/groups/<i>/…". */
int task_apply(struct task_service *s, const struct task_call *c, const struct task_apply *a,
               struct group_row **ret_groups, json_t **ret_items);
/* What differs between two documents (NULL: there is none), appended to `list` as {"field": JSON pointer, "from": …, "to": …}; a side
 * that is not there is left out. Objects are looked into, everything else is compared as a whole. Pure. */
void task_differences(json_t *list, const json_t *from, const json_t *to);
/* A document that `apply` takes and that makes the task again: no defaults, "state" only when PAUSED. A new reference. */
int task_export(const struct task_row *t, json_t **ret, struct err *e);
/* Versions, newest first, each with what differs from the one before: {"version", "state", "effective_at", "updated_at",
 * "updated_by", "note", "differences"}. `page` as of task_versions; *ret_before: where the next page goes on, 0 = this is the last. */
int task_history(struct task_service *s, const struct task_call *c, struct slice ref,
                 const struct st_task_versions *page, int32_t *ret_before, json_t **ret_items);
/* A new version with the definition of an earlier one; the state stays. 1: it is the same already, nothing was written. */
int task_rollback(struct task_service *s, const struct task_call *c, struct slice ref, int32_t version,
                  struct task_row *ret);

/* ---------------------------------------------------------------- calendars */
#define CALENDAR_DOCUMENT_MAX ((size_t)64 * 1024)
#define CALENDAR_FOLLOW_MAX                                                                                  \
  1000 /* tasks that a change of a calendar takes with it at once; the others follow within moments */
struct calendar_ref {
  struct slice ns, name; /* the caller has seen to it that the namespace exists and is the token's */
};
struct calendar_put {
  struct calendar_ref ref;
  const json_t
      *doc; /* "description", "excluded", "extra_days" (core/calendar.h); other members are not looked at */
  bool create; /* ERR_CONFLICT "/name" when it exists */
};
/* Create or change. 0: written, and the tasks that use it follow; 1: it is so already. c->if_version as for tasks. */
int task_calendar_put(struct task_service *s, const struct task_call *c, const struct calendar_put *p,
                      struct calendar_row *ret);
int task_calendar_get(struct task_service *s, const struct task_call *c, const struct calendar_ref *ref,
                      struct calendar_row *ret);
int task_calendar_list(struct task_service *s, const struct task_call *c, struct slice ns,
                       struct st_calendar_list_ret *ret);
/* ERR_CONFLICT while tasks use it. */
int task_calendar_delete(struct task_service *s, const struct task_call *c, const struct calendar_ref *ref);
/* "description", "excluded", "extra_days". A new reference. */
int task_calendar_json(const struct calendar_row *row, json_t **ret, struct err *e);
/* Give tasks that have an earlier version of their calendar a new version of themselves, at most `limit`. How many did; every few
 * seconds, from any thread: what a node that died had left is found so. */
int task_calendar_follow(struct task_service *s, int32_t limit, struct err *e);

struct task_trigger {
  struct slice payload; /* compact JSON text ≤ 1 MiB; p == NULL: the task's own */
  struct slice pin;     /* as in run_row: executor instance id, or '#' and a routing key; empty = any */
  bool ignore_overlap;
  enum run_origin origin; /* ORIGIN_API, ORIGIN_RETRY */
  struct slice
      retry_of; /* run id of the ended run; empty = none. Its dead letter, if it has one, becomes REPLAYED */
  bool open_letter; /* … and must be OPEN: else ERR_CONFLICT */
};
/* Ask for one run now: an inbox row, durable on return; the shard's owner makes the run. *ret_key is the run's key (print with
 * run_id_format). 1: idempotent repeat, the first key. */
int task_trigger(struct task_service *s, const struct task_call *c, struct slice ref,
                 const struct task_trigger *t, struct run_key *ret_key);

/* ---------------------------------------------------------------- backfill */
#define BACKFILL_ID_MAX 48
struct task_backfill {
  usec_t from, to;      /* both included; `to` has passed */
  double rate;          /* runs released a second; 0: the task's catchup_rate */
  struct slice payload; /* p == NULL: the task's own */
  bool dry_run;         /* only count */
};
/* A backfill, as its id says: no table keeps them. */
struct backfill_made {
  char id[BACKFILL_ID_MAX]; /* "": a dry run, or nothing to do */
  int64_t task_id;
  int32_t part; /* of the keys of all its runs */
  usec_t from, to, first, last;
  int64_t count; /* instants in the range by the task's schedule as it is now */
  double rate;
};
/* Ask for runs of the schedule's instants in a past range: an inbox row, durable on return; the shard's owner makes all of them at once
 * and releases them at the rate. They obey the task's overlap policy as caught-up runs do (each waits for its turn) and do not count
 * for max_runs. ERR_LIMIT "/to": more than the setting allows. 1: idempotent repeat. */
int task_backfill(struct task_service *s, const struct task_call *c, struct slice ref,
                  const struct task_backfill *b, struct backfill_made *ret);
/* What an id says. ERR_NOT_FOUND. */
int task_backfill_read(struct task_service *s, const struct task_call *c, struct slice ref, struct slice id,
                       struct backfill_made *ret);

struct task_stats {
  struct st_task_stats_ret counts;
  double success_rate; /* success / (success + fail); -1 = no such run */
  double failure_rate;
  usec_t next_at;  /* the next instant (nominal); USEC_NEVER = none known */
  usec_t next_due; /* the same with the jitter */
};
int task_stats(struct task_service *s, const struct task_call *c, struct slice ref, usec_t since,
               struct task_stats *ret);

/* ---------------------------------------------------------------- its part of an explanation (core/explain.h) */
struct explain_facts;
struct explain_span;
struct task_explain_at {
  struct slice at; /* see explain_span_parse */
  usec_t within;
};
/* The newest version of a task, of a DELETED one too, when it is named by its id. */
int task_explain_find(struct task_service *s, const struct task_call *c, struct slice ref,
                      struct task_row *ret);
/* The question, in the time zone of that version. */
int task_explain_span(struct task_service *s, const struct task_row *t, const struct task_explain_at *at,
                      struct explain_span *ret, struct err *e);
/* The versions around the span, `newest`, a catch-up that waits, and now. A span with very many changes in it becomes shorter. The facts
 * hold references afterwards, also when it failed: task_explain_done. */
int task_explain_facts(struct task_service *s, const struct task_call *c, const struct task_row *newest,
                       struct explain_span *span, struct explain_facts *f);
void task_explain_done(struct explain_facts *f);

/* The document that people read: the definition with all defaults and the server-made fields (id, version, state, shard,
 * effective_at, created_at, created_by, updated_at, updated_by, note). A new reference. `with_payload`: lists leave it out. */
int task_json(const struct task_row *t, bool with_payload, json_t **ret, struct err *e);
json_t *task_stats_json(const struct task_stats *st);

struct preview_item {
  usec_t at;                 /* nominal instant */
  int32_t offset;            /* seconds east of UTC */
  char local[TIME_TEXT_MAX]; /* RFC 3339 with that offset */
  const char *note;          /* about daylight saving, static text; NULL = nothing to say */
  const char *calendar;      /* "excluded" (it is skipped), "extra_day"; static text; NULL = nothing to say */
};
struct preview {
  struct preview_item *items; /* in the call's arena */
  size_t count;               /* fewer than asked: the schedule ends */
  usec_t jitter;              /* each instant may be later by less than this */
  const char *remark;         /* FIXED_DELAY and MANUAL: why there is nothing to compute; NULL */
};
struct preview_ask {
  usec_t from;   /* 0 = now */
  int32_t n;     /* 1…TASK_PREVIEW_MAX */
  bool included; /* task_next: without those that its calendar excludes */
};
/* The next instants of a task as it is stored. */
int task_next(struct task_service *s, const struct task_call *c, const struct task_row *t,
              const struct preview_ask *ask, struct preview *ret);
/* The next n instants after `from` (0 = now) of {"schedule": {…}} or of a bare schedule object. Its calendar is that of the document's
 * "namespace", else of the token's or the default one. Nothing is stored. */
int task_preview(struct task_service *s, const struct task_call *c, const json_t *doc,
                 const struct preview_ask *ask, struct preview *ret);
