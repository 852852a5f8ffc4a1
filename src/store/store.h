#pragma once
/* The contract of the SQL database (storage.md). Back ends: sqlite/, postgres/, (tests) the simulated one.
 *
 * A source is a database; a session is one connection to it, used by one thread at a time. Every operation has one signature:
 *     int store_<op>(struct store *, const struct st_<op> *in, struct st_<op>_ret *ret, struct arena *mem, struct err *e)
 * `in` is borrowed for the call; variable-size results live in `mem`. Decorators (pool, trace, fault) are made from
 * store_ops.def alone. Codes:
 *   0                    done, committed, durable
 *   1                    (where said) nothing to do, or an idempotent repeat: `ret` holds the first answer
 *   ERR_NOT_FOUND, ERR_CONFLICT, ERR_STALE, ERR_IDEMPOTENCY, ERR_LIMIT   refused, nothing written
 *   ERR_FENCED           this node no longer owns it: step down, never retry
 *   ERR_UNAVAILABLE      surely nothing was written; may be tried again
 *   ERR_UNKNOWN_OUTCOME  the commit's answer was lost: read back by key, never repeat blindly
 * All instants are µs UTC; `now` inside an operation is always the database's clock. */
#include "base/err.h"
#include "base/mem.h"
#include "core/model.h"
#include "core/rows.h"
#include "core/shares.h"
#include "store/access_rows.h"
#include "store/alert_rows.h"
#include "store/calendar_rows.h"
#include "store/dead_letter_rows.h"
#include "store/dependency_rows.h"
#include "store/bound_rows.h"
#include "store/executor_rows.h"
#include "store/log_rows.h"
#include "store/retention_rows.h"
#include "store/rows.h"

struct store;
struct store_source;

enum store_role {               /* what a session is for: settings and time-outs follow from it */
                  STORE_FIRE,   /* the trigger's: FIRE only */
                  STORE_FINISH, /* the run writer's */
                  STORE_LEASE,  /* nodes, leases: nothing may delay it */
                  STORE_API,    /* API workers, services */
                  STORE_LISTEN, /* wait_change */
                  STORE_ROLE_MAX_
};

struct store_options {
  const char *url; /* "sqlite:/path/kelou.db", "postgres://user@host:port/db?…" or "postgresql://…" */
  int shard_count; /* used when the database is created; else the stored one rules (st_meta) */
  usec_t statement_timeout;  /* 30 s; lock_timeout = 1/6 of it; connect timeout 5 s */
  usec_t idle_tx_timeout;    /* lease_ttl / 3 */
  usec_t lease_timeout;      /* for an answer to a STORE_LEASE session; lease_ttl */
  const struct clock *clock; /* SQLite's database clock is this one's wall() */
};
/* Connect, check the server (PgBouncer in transaction mode is refused), take the migration lock, migrate, check checksums.
 * A newer schema than this program knows: ERR_SCHEMA. SQLite: takes the flock on <file>.lock: ERR_CONFLICT if held. */
int store_source_open(const struct store_options *o, struct store_source **ret, struct err *e);
void store_source_close(struct store_source **s); /* all sessions closed before */
/* Look at a database without opening it for work: nothing is locked, migrated or written. ERR_UNAVAILABLE: it does not answer. */
struct store_probe {
  char server[64];
  usec_t now; /* of its clock */
  usec_t took;
  int32_t schema, known; /* migrations applied, and those that this program knows */
  bool in_use;           /* SQLite: some process has it open for work */
};
int store_source_probe(const struct store_options *o, struct store_probe *ret, struct err *e);
int store_session(struct store_source *s, enum store_role role, struct store **ret, struct err *e);

#define STORE_CAP_NOTIFY      1u /* wait_change works */
#define STORE_CAP_SINGLE_NODE 2u /* one node owns the whole database */
#define STORE_CAP_DAYS        4u /* history_take_day works: a day of history goes at once */

/* ------------------------------------------------------------------ nodes, shards (src/cluster) */
struct st_meta {
  char unused;
};
struct st_meta_ret {
  usec_t now;
  int32_t shard_count, schema_version;
  struct slice server;
};

/* A new incarnation of the node, with SHARE_KEEP (core/shares.h); whether it is drained stays as it was. */
struct st_node_join {
  struct slice id, address, version, tzdata;
  usec_t ttl;
};
struct st_node_join_ret {
  int64_t incarnation;
  usec_t now, lease_until;
};
/* Extends the lease, and says how much of the work the node takes and by how much its wall clock is behind the database's; ERR_FENCED when
 * the incarnation is gone, or another server has become the primary since node_join. */
struct st_node_renew {
  struct slice id;
  int64_t incarnation;
  usec_t ttl;
  enum share share;
  usec_t clock_offset;
};
struct st_node_renew_ret {
  usec_t now, lease_until;
};
/* Removes the node and releases its shards (owner = none, epochs stay). A drained one leaves its row, with a lease that has passed and the
 * incarnation 0, so that it is drained when it comes back. */
struct st_node_leave {
  struct slice id;
  int64_t incarnation;
};
struct st_node_leave_ret {
  char unused;
};
/* Drained or not, until it is said otherwise, also over restarts. 1: it is so already. ERR_NOT_FOUND. Tells those that wait_change. */
struct st_node_drain {
  struct slice id;
  bool drained;
};
struct st_node_drain_ret {
  char unused;
};
/* Nodes without shards whose lease has passed for `age`, are no more. */
struct st_node_forget {
  usec_t age;
};
struct st_node_forget_ret {
  int64_t removed;
};
struct st_node_list {
  char unused;
};
struct st_node_list_ret {
  struct node_row *nodes;
  size_t count;
  usec_t now;
};
struct st_shard_list {
  char unused;
};
struct st_shard_list_ret {
  struct shard_row *shards;
  size_t count;
  usec_t now;
}; /* by id */
/* Take those of `ids` that are free, whose owner's lease has passed (or is `dead` by the taker's own monotonic watch), or that an
 * older incarnation of this node held: owner := me, epoch + 1 (or more) in shard and shard_finish, one statement. */
struct st_shard_claim {
  struct slice node;
  int64_t incarnation;
  const int32_t *ids;
  size_t count;
  const struct slice *dead;
  size_t dead_count;
};
struct st_shard_claim_ret {
  struct shard_row *shards;
  size_t count;
}; /* those taken */
/* Those of `ids` that this incarnation owns have no owner any more; the epochs stay. Tells those that wait_change. */
struct st_shard_release {
  struct slice node;
  int64_t incarnation;
  const int32_t *ids;
  size_t count;
};
struct st_shard_release_ret {
  char unused;
};
/* Open a transaction and lock that shard's row, so that a FIRE cannot be refused again; all operations of this session until
 * shard_unlock belong to it. ERR_FENCED when the epoch moved. */
struct st_shard_lock {
  int32_t shard;
  int64_t epoch;
};
struct st_shard_lock_ret {
  struct shard_row shard;
};
struct st_shard_unlock {
  bool commit;
};
struct st_shard_unlock_ret {
  char unused;
};

/* ------------------------------------------------------------------ tasks (src/task) */
struct task_def { /* what a new task or version holds; texts as in core/task_spec.h */
  struct slice ns, name, description, definition, payload, group, handler, schedule_text;
  enum schedule_kind kind;
  usec_t anchor; /* 0: the version's effective_at for a new task; the old one for a change */
  enum task_state state;
  const struct depend_def *depends; /* NULL: on no task */
};
/* Create n tasks in one transaction: per shard, under the shard row's lock, effective_at = greatest(now, fired_at), tasks_version + 1
 * (all tasks of one call in one shard share the number), task + task_version rows, NOTIFY. A name in use: ERR_CONFLICT, field
 * "/name" (with several: "/<index>/name"), nothing written. Tasks of `depends` may be those of the same call; one that is not there, a task
 * that would come after itself, too many: ERR_INVALID, field "/depends_on/tasks/<i>" or "/depends_on" (with several: below "/<index>"). With `idem` (n = 1 only): a repeat returns 1 and the first answer's row. */
struct st_task_put {
  const struct task_def *defs;
  size_t count;
  struct slice by;
  const struct idem *idem;
};
struct st_task_put_ret {
  struct task_version_row *rows;
  size_t count;
}; /* id, version, shard, effective_at, anchor set */
/* A new version: replace (def given) and/or a new state. expected_version 0 = any; else ERR_STALE when it has moved on.
 * effective_at as for put. DELETED hides the task and frees its name; ERR_CONFLICT when it has open runs and !even_with_open_runs.
 * inbox (may be NULL): appended in the same transaction (resume with catch_up). The same state again without def: returns 1.
 * The namespace never changes (def->ns is not looked at). effective_at is never below the former version's.
 * `depends` as in task_put. A parent that stays keeps what has been collected of it, unless mode or ends are others now. A task on which others
 * depend is neither deleted nor renamed: ERR_CONFLICT (renamed: field "/name"). */
struct st_task_change {
  int64_t task_id;
  int32_t expected_version;
  const struct task_def *def;
  enum task_state state;
  struct slice by, note;
  bool even_with_open_runs;
  const struct inbox_row *inbox;
};
struct st_task_change_ret {
  struct task_version_row row;
};
/* What one document asks for, all of it or nothing, in one transaction: `groups` as group_put each, then `puts` as task_put (without
 * idem), `changes` as task_change each (each with its expected_version; none renames), and `own`, the tasks that are `source`'s from
 * now on, without a new version. What is put is `source`'s too (empty: nobody's). A change to DELETED is refused with ERR_CONFLICT
 * unless the task is `source`'s. Who depends on whom is looked at when all is written. `check_only`: nothing stays, but errors are found (the
 * numbers and versions that come back are those that would have been). Errors name "/puts/<i>/…", "/changes/<i>…", "/own/<i>" or "/groups/<i>". */
struct st_task_apply {
  const struct st_group_put *groups;
  size_t group_count;
  const struct task_def *puts;
  size_t put_count;
  const struct st_task_change *changes;
  size_t change_count;
  const int64_t *own;
  size_t own_count;
  struct slice by, source;
  bool check_only;
};
struct st_task_apply_ret {
  struct group_row *groups;
  struct task_version_row *puts, *changes;
};
/* By id, or by (ns, name) when id is 0. version 0 = current, else that version. DELETED ones are not found. */
struct st_task_get {
  int64_t task_id;
  struct slice ns, name;
  int32_t version;
};
struct st_task_get_ret {
  struct task_row task;
};
/* Ascending id, id > after. Filters: empty/negative = any (of the state: any but DELETED). name_prefix and name_contains both
 * optional, compared byte by byte. */
struct st_task_list {
  struct slice ns, group, handler, name_prefix, name_contains, managed_by;
  int state, kind;
  int64_t after;
  int32_t limit;
};
struct st_task_list_ret {
  struct task_row *tasks;
  size_t count;
};
struct st_task_versions {
  int64_t task_id;
  int32_t before /* 0 = newest */, limit;
};
struct st_task_versions_ret {
  struct task_row *versions;
  size_t count;
}; /* newest first */
/* The versions that rule the instants in [from, to], of a DELETED task too, ascending; when they are more than `limit`, the first so many.
 * With them `margin` earlier and as many later ones, and, when the first of them is PAUSED, the version with which that pause began.
 * Without a version before `from` the first one counts as ruling. No such task: none. */
struct st_task_timeline {
  int64_t task_id;
  usec_t from, to;
  int32_t margin, limit;
};
struct st_task_timeline_ret {
  struct task_row *versions;
  size_t count;
};
/* Aggregates over the ended runs of a task (scheduled_at ≥ since), and its open ones: fires = all but SKIPPED; attempts = their sum;
 * durations finished - started of the ended ones that started; last_… over all but SKIPPED, last_state being that of the ended
 * one with the greatest scheduled_at. Without `since` the runs that retention has dropped are counted too, with it only those still
 * stored. An unknown task has zeros. */
struct st_task_stats {
  int64_t task_id;
  usec_t since;
};
struct st_task_stats_ret {
  int64_t fires, success, fail, cancelled, skipped, open, attempts;
  usec_t mean_duration, max_duration, last_scheduled_at, last_finished_at, last_started_at;
  int last_state; /* -1 = none */
};
/* Current versions of a shard's tasks, task_id > after ascending: those ENABLED, and those with effective_at > changed_after. */
struct st_task_load {
  int32_t shard;
  usec_t changed_after;
  int64_t after;
  int32_t limit;
};
struct st_task_load_ret {
  struct task_version_row *rows;
  size_t count;
};
/* For tasks with effective_at > changed_after: their earlier versions that still own instants > changed_after. By task, version. */
struct st_task_load_older {
  int32_t shard;
  usec_t changed_after;
};
struct st_task_load_older_ret {
  struct task_version_row *rows;
  size_t count;
};
/* Versions with change_no > after, by change_no, task_id; whole numbers only (never half of one change_no). */
struct st_task_changes {
  int32_t shard;
  int64_t after;
  int32_t limit;
};
struct st_task_changes_ret {
  struct task_version_row *rows;
  size_t count;
  int64_t last; /* complete up to this number */
};
/* ENABLED → COMPLETED of exactly that version; no new version, idempotent. */
struct st_task_complete {
  const int64_t *task_ids;
  const int32_t *versions;
  size_t count;
};
struct st_task_complete_ret {
  char unused;
};
/* Payload, name, namespace of task versions for dispatch. Missing ones come back with has = false. */
struct st_payload_get {
  const int64_t *task_ids;
  const int32_t *versions;
  size_t count;
};
struct payload_row {
  bool has;
  struct slice ns, name, payload, definition;
  usec_t anchor;
};
struct st_payload_get_ret {
  struct payload_row *rows;
}; /* `count` rows, same order */
struct st_progress_load {
  int32_t shard;
};
struct st_progress_load_ret {
  struct progress_row *rows;
  size_t count;
};
/* Wait until a task or the inbox of some shard changed, or the time-out: PostgreSQL LISTEN. -ENOTSUP elsewhere. */
struct st_wait_change {
  usec_t timeout;
};
struct st_wait_change_ret {
  int32_t *shards;
  size_t count;
  bool nodes; /* a shard was released, a node has left, or was drained or resumed */
};

/* ------------------------------------------------------------------ runs (src/run, src/trigger) */
struct fire_shard {
  int32_t shard;
  int64_t epoch, tasks_version;
  usec_t seen_at;
  int64_t seen_task;
  usec_t new_at;
  int64_t new_task;
};
/* FIRE (storage.md): for each listed shard that is still as seen (epoch, tasks_version, watermark pair) and with
 * new_at ≤ now + ahead: move the watermark, insert `open` into run and `ended` (SKIPPED) into run_history, upsert `progress`, delete
 * `inbox_done` – all of exactly those shards, in one transaction. A run that exists already (open or ended) is left as it is, and
 * `present` names it: it is not this FIRE's to deliver. */
struct st_fire {
  const struct fire_shard *shards;
  size_t shard_count;
  const struct run_row *open;
  size_t open_count;
  const struct run_row *ended;
  size_t ended_count;
  const struct progress_row *progress;
  size_t progress_count;
  const struct inbox_row *inbox_done;
  size_t inbox_count;
  usec_t ahead;
};
struct st_fire_ret {
  bool *advanced; /* one per entry of shards */
  bool *
      present; /* NULL: every row of `open` of the shards advanced was inserted. Else one per entry of `open`: it was there */
  usec_t now;
};

/* All in one transaction: fences first (an entry whose epoch moved: none of its shard's rows are written; the same for rows of a
 * shard without an entry). Then updates, finishes, attempts (one that is there already stays as it is), progress; and
 * inbox_done is deleted (shard and no; the event that it asked for is in this transaction). A finish (but SKIPPED) of a
 * task on which others depend leaves an event for dependency_read; one in FAIL
 * an OPEN dead letter, and an alert event while there is an alert rule. */
struct st_run_apply {
  const struct fence_row *fences;
  size_t fence_count;
  const struct run_update *updates;
  size_t update_count;
  const struct run_finish *finishes;
  size_t finish_count;
  const struct attempt_row *attempts;
  size_t attempt_count;
  const struct progress_row *progress;
  size_t progress_count;
  const struct inbox_row *inbox_done;
  size_t inbox_count;
};
struct st_run_apply_ret {
  bool *fence_ok, *updated, *finished;
  bool parents_ended; /* there are new events of dependency_read */
  usec_t now;
};
/* Open runs of a shard, ascending key, after `after` (NULL = from the start). */
struct st_run_load {
  int32_t shard;
  const struct run_key *after;
  int32_t limit;
};
struct st_run_load_ret {
  struct run_row *rows;
  size_t count;
};
struct st_run_get {
  struct run_key key;
};
struct st_run_get_ret {
  struct run_row run;
  struct slice task_name, ns;
};
/* Newest scheduled_at first (scheduled_at, task_id, part descending), below `before` (NULL = from the top). state_mask 0 = any
 * (1 << RUN_x); task_id 0, empty ns, since/until 0 = any (since <= scheduled_at < until). Open and ended ones together. */
struct st_run_list {
  struct slice ns;
  int64_t task_id;
  uint32_t state_mask;
  int reason /* -1 any */;
  struct slice executor;
  usec_t since, until;
  const struct run_key *before;
  int32_t limit;
};
struct st_run_list_ret {
  struct run_list_row *rows;
  size_t count;
};
/* Runs of a task, open and ended, that stand for more than one instant, some of them in [from, to]: ascending. */
struct st_run_folded {
  int64_t task_id;
  usec_t from, to;
  int32_t limit;
};
struct st_run_folded_ret {
  struct run_row *rows;
  size_t count;
};
struct st_attempt_list {
  struct run_key key;
};
struct st_attempt_list_ret {
  struct attempt_row *rows;
  size_t count;
};
/* Append for the shard's owner; NOTIFY. With idem: a repeat returns 1 and the first `ref`. `no` rises within a shard and is never
 * given out twice. */
struct st_inbox_add {
  int32_t shard, kind;
  struct slice body, ref;
  const struct idem *idem;
};
struct st_inbox_add_ret {
  int64_t no;
  struct slice ref;
};
/* Oldest first, for the listed shards. */
struct st_inbox_read {
  const int32_t *shards;
  size_t shard_count;
  int32_t limit;
};
struct st_inbox_read_ret {
  struct inbox_row *rows;
  size_t count;
};
/* Append many, in one transaction; NOTIFY. `no` of the rows is not looked at. May come twice after an unknown outcome. */
struct st_inbox_put {
  const struct inbox_row *rows;
  size_t count;
};
struct st_inbox_put_ret {
  char unused;
};
/* When the row was appended that is the first of its shard and the oldest of these; 0: the inbox is empty. */
struct st_inbox_oldest {
  char unused;
};
struct st_inbox_oldest_ret {
  usec_t at, now;
};

/* ------------------------------------------------------------------ upkeep */
/* Small, regular upkeep: vacuum of run, shard, shard_finish (PostgreSQL), history partitions ahead, WAL checkpoint (SQLite). */
struct st_maintain {
  char unused;
};
struct st_maintain_ret {
  char unused;
};

/* ------------------------------------------------------------------ the operations */
struct store_ops {
  const char *name; /* "sqlite", "postgres", … */
  unsigned caps;
  void (*close)(struct store *s); /* also frees s */
#define OP(n)                                                                                                \
  int (*n)(struct store *, const struct st_##n *in, struct st_##n##_ret *ret, struct arena *mem,             \
           struct err *e);
#include "store/store_ops.def"
};
struct store { /* first member of each back end's own struct */
  const struct store_ops *ops;
};
#define OP(n)                                                                                                \
  __attribute__((warn_unused_result)) static inline int store_##n(struct store *s, const struct st_##n *in,  \
                                                                  struct st_##n##_ret *ret,                  \
                                                                  struct arena *mem, struct err *e) {        \
    return s->ops->n(s, in, ret, mem, e);                                                                    \
  }
#include "store/store_ops.def"
static inline void store_close(struct store **s) {
  if (*s)
    (*s)->ops->close(*s);
  *s = NULL;
}
