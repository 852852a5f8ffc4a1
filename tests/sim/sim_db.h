#pragma once
/* The simulated database: store.h in memory, without time of its own, faults or waiting. The world (sim_session.c) adds those; the contract
 * suite (store_sim.c) runs over it as it is. Its tables are open to the checks (sim_check.c). */
#include "base/rng.h"
#include "base/thread.h"
#include "store/source.h"
#include <uthash.h>

/* Guards of the design that a simulation may take away (mutations.def), to prove that it would notice. */
#define GUARD(name, text) GUARD_##name,
enum sim_guard {
#include "guards.def"
  GUARD_MAX_
};
extern const char *const sim_guard_names[], *const sim_guard_texts[];

struct db_run {
  struct run_key key; /* hashed without its padding, see db_run_id */
  struct db_run_id {
    int64_t scheduled_at, task_id;
    int32_t shard, part;
  } id;
  struct run_row row;
  bool ended, doubled;
  bool opened;                /* it came as an open run */
  uint64_t decided_no;        /* in which order it was decided that it begins (kept by the checks) */
  struct db_run *prev, *next; /* open runs of the shard */
  UT_hash_handle hh;
};
struct db_attempts {
  struct db_run_id id;
  struct attempt_row *rows;
  size_t count, cap;
  UT_hash_handle hh;
};
struct db_version {
  struct task_version_row v;
  struct task_row row;
};
struct db_task {
  int64_t id;
  int32_t shard;
  enum task_state state;
  struct db_version *versions; /* [version - 1] */
  size_t count, cap;
  struct slice created_by;
  usec_t created_at;
  UT_hash_handle hh;
};
struct db_name {
  char *name; /* namespace, a NUL in print, name */
  int64_t task_id;
  UT_hash_handle hh;
};
struct db_change {
  int64_t change_no, task_id;
  int32_t version;
};
struct db_shard {
  struct shard_row row;
  int64_t finish_epoch, inbox_last;
  usec_t claimed_at;
  struct db_change *changes;
  size_t change_count, change_cap;
  struct db_run *open;
};
struct db_progress {
  int64_t task_id;
  struct progress_row row;
  UT_hash_handle hh;
};
struct db_idem {
  char *key;
  uint8_t body_hash[32];
  usec_t expires_at;
  int64_t no;
  struct slice ref;
  UT_hash_handle hh;
};
struct db_undo {
  enum { UNDO_SHARD, UNDO_RUN, UNDO_PROGRESS, UNDO_PROGRESS_NEW, UNDO_INBOX } kind;
  struct shard_row shard;
  struct db_run *run;
  struct progress_row progress;
  struct inbox_row inbox;
};
/* What the world is told of commits; NULL members are not called. */
struct db_hooks {
  void (*run_changed)(void *arg, struct db_run *r, const struct run_row *before); /* NULL: new */
  void (*committed)(void *arg);
  bool (*half)(void *arg); /* GUARD_ONE_TRANSACTION is gone: shall this FIRE break in the middle? */
  void *arg;
  void (*inbox_gone)(const struct inbox_row *row); /* deleted, with all that its transaction has changed */
};
struct sim_db {
  struct mutex lock;
  usec_t (*now)(void *arg);
  void *now_arg;
  struct db_hooks hooks;
  bool removed[GUARD_MAX_];
  struct arena mem; /* texts */
  int32_t shard_count;
  struct db_shard *shards;
  struct node_row *nodes;
  size_t node_count, node_cap;
  int64_t last_incarnation, last_task;
  struct db_task *tasks;
  struct db_name *names;
  struct db_run *runs;
  struct db_attempts *attempts;
  struct db_progress *progress;
  struct inbox_row *inbox;
  size_t inbox_count, inbox_cap;
  struct db_idem *idems;
  struct depend_edge *edges; /* sim_db_depend.c; without what belongs to the tasks */
  size_t edge_count;
  struct depend_event *events;
  size_t event_count, event_cap;
  struct depend_event *ends; /* all that there ever were */
  size_t end_count, end_cap;
  int64_t depend_turn, last_event;
  struct store *tx; /* the session that holds shard_lock; nobody else may call meanwhile */
  struct db_undo *undo;
  size_t undo_count, undo_cap;
  uint64_t digest;
  int64_t writes;
};

struct sim_db *sim_db_new(int32_t shard_count, usec_t (*now)(void *arg), void *arg);
void sim_db_free(struct sim_db **db);
int sim_db_session(struct sim_db *db, struct store **ret);
/* The session's connection broke: its transaction is rolled back. */
void sim_db_break(struct store *session);
struct db_run *sim_db_run(struct sim_db *db, const struct run_key *key);
struct db_task *sim_db_task(struct sim_db *db, int64_t task_id);
const struct db_attempts *sim_db_attempts(struct sim_db *db, const struct run_key *key);
int64_t sim_db_inbox_add(struct sim_db *db, int32_t shard, int32_t kind, struct slice body);

/* ------------------------------------------------------------------ between the files of the database */
struct sim_store {
  struct store store;
  struct sim_db *db;
};
static inline struct sim_db *db_of(struct store *s) { return ((struct sim_store *)s)->db; }
struct db_run_id db_run_id(const struct run_key *k);
struct slice db_text(struct sim_db *db, struct slice s); /* kept as long as the database */
void db_written(struct sim_db *db, int64_t a, int64_t b);
void db_undo_add(struct sim_db *db, const struct db_undo *u);
int db_idem_find(struct sim_db *db, const struct idem *idem, struct db_idem **ret, struct err *e);
void db_idem_add(struct sim_db *db, const struct idem *idem, int64_t no, struct slice ref);
int64_t db_inbox_append(struct sim_db *db, int32_t shard, int32_t kind, struct slice body);
void db_inbox_drop(struct sim_db *db, const struct inbox_row *in);
void db_runs_free(struct sim_db *db);
int64_t db_task_named(struct sim_db *db, struct slice ns, struct slice name); /* 0: there is none */
/* Before the tasks are written; `put`: tasks that this call makes, or NULL. Refused: nothing is changed. */
int db_edit_edges(struct sim_db *db, const struct edge_edit *edits, size_t count,
                  const struct st_task_put *put, struct arena *mem, struct err *e);
bool db_has_parents(const struct sim_db *db, int64_t task_id);
/* A run has ended: true when others depend on its task. */
bool db_note_end(struct sim_db *db, const struct run_row *r);
#define OP(n)                                                                                                \
  int db_##n(struct store *, const struct st_##n *in, struct st_##n##_ret *ret, struct arena *mem,           \
             struct err *e);
#include "store/store_ops.def"
