#pragma once
/* The SQLite back end: one writer connection for the whole source, a reader a session. Private to src/store/sqlite. */
#include "base/thread.h"
#include "store/source.h"
#include "store/sqlite/db.h"

struct write_waiter;
/* Who may use the writer connection: in the order of arrival, leases first, so that FIRE and FINISH alternate under load. */
struct write_queue {
  struct mutex m; /* protects all fields */
  bool busy;
  struct write_waiter *first;
};

struct sqlite_source {
  struct store_source base;
  char *path;
  int lock_fd;
  const struct clock *clock;
  usec_t statement_timeout, lock_timeout;
  int32_t shard_count, schema_version;
  struct write_queue queue;
  struct db writer; /* of whoever holds the queue */
  bool *touched;    /* by shard, and one more for the nodes: changed in the open transaction; as writer */
  int64_t *parents; /* tasks on which others depend, ascending; as writer */
  size_t parent_count, parent_cap;
  bool parents_known;  /* they are as the writer connection sees them */
  struct mutex news_m; /* protects news */
  struct cond news_c;
  uint64_t *news; /* as touched: committed changes of tasks or inbox, or of nodes */
};
struct sqlite_store {
  struct store base;
  struct sqlite_source *source;
  enum store_role role;
  struct db reader; /* opened at first use */
  bool holds_lock;  /* between shard_lock and shard_unlock: holds the queue and an open transaction */
  uint64_t *seen;   /* by shard: news already told by wait_change */
};

/* The path in a URL that begins with sqlite: (points into it). */
int sqlite_path_of(const char *url, const char **ret, struct err *e);
/* Take the flock of <path>.lock: ERR_CONFLICT while a node has it. Closing the descriptor gives it back. */
int sqlite_lock_database(const char *path, int *ret_fd, struct err *e);

void write_queue_enter(struct write_queue *q, bool first);
void write_queue_leave(struct write_queue *q);

static inline struct sqlite_source *sqlite_source_of(struct store *s) {
  return ((struct sqlite_store *)s)->source;
}

/* An operation under way: what its parts need. */
struct sqlite_tx {
  struct sqlite_store *session;
  struct db *db;
  struct arena *mem; /* of the operation's results */
  struct err *e;
  usec_t now; /* the database's clock */
  int32_t shard_count;
};
/* Begin a write: waits for its turn; the connection is the caller's until sqlite_write_end. */
int sqlite_write(struct sqlite_tx *ret_tx, struct store *s, struct arena *mem, struct err *e);
/* r ≥ 0: commit, returns r or the commit's failure; r < 0: roll back, returns r. */
int sqlite_write_end(struct sqlite_tx *tx, int r);
/* Begin a read of one snapshot; sqlite_read_end returns r. */
int sqlite_read(struct sqlite_tx *ret_tx, struct store *s, struct arena *mem, struct err *e);
int sqlite_read_end(struct sqlite_tx *tx, int r);
/* Tell wait_change once this transaction is committed. */
void sqlite_touch(struct sqlite_tx *tx, int32_t shard);
void sqlite_touch_nodes(struct sqlite_tx *tx);
static inline int32_t sqlite_shard_of(const struct sqlite_tx *tx, int64_t task_id) {
  return shard_of_task(task_id, tx->shard_count);
}
int sqlite_session(struct store_source *s, enum store_role role, struct store **ret, struct err *e);

/* Idempotency inside a write: 1 and the first answer, 0 = new. `idem` may be NULL. */
int sqlite_idem_find(struct sqlite_tx *tx, const struct idem *idem, struct slice *ret_answer);
int sqlite_idem_keep(struct sqlite_tx *tx, const struct idem *idem, struct slice answer);
/* Parts of the operations on tasks and groups, inside a write. `rows`: one for each def. */
int sqlite_put_tasks(struct sqlite_tx *tx, const struct st_task_put *in, struct task_version_row *rows);
/* *ret_edit: what it means for the edges; task_id 0: nothing. */
int sqlite_change_task(struct sqlite_tx *tx, const struct st_task_change *in, struct task_row *ret_old,
                       struct task_version_row *ret, struct edge_edit *ret_edit);
/* Edges of tasks that have been written in this transaction. */
int sqlite_edit_edges(struct sqlite_tx *tx, const struct edge_edit *edits, size_t count);
/* Inside a write: read who is a parent, unless it is known; then ask. */
int sqlite_parents_read(struct sqlite_tx *tx);
bool sqlite_is_parent(const struct sqlite_tx *tx, int64_t task_id);
int sqlite_put_group(struct sqlite_tx *tx, const struct st_group_put *in, struct group_row *ret);
/* Append to the inbox inside a write. */
int sqlite_inbox_append(struct sqlite_tx *tx, const struct inbox_row *row, int64_t *ret_no);

/* Remove at most `*budget` lines of a run's log, inside a write; takes them off the budget. 1: all of it is gone. */
int sqlite_log_drop(struct sqlite_tx *tx, const struct run_key *k, int32_t *budget);

/* The row of a statement that selects TASK_READ or VERSION_READ (sql.def). */
void sqlite_get_task(struct sqlite_tx *tx, enum sql id, struct task_row *t);
void sqlite_get_version(struct sqlite_tx *tx, enum sql id, struct task_version_row *v);
/* The row of a statement that selects HISTORY_READ, name and namespace of the task. */
void sqlite_get_ended(struct sqlite_tx *tx, enum sql id, struct run_list_row *row);
/* The types and places of RUN_READ and HISTORY_READ for db_get. */
#define RUN_TYPES "illiiiiiilllllllssssssssdl"
#define RUN_INTO(w)                                                                                          \
  &(w)->key.shard, &(w)->key.scheduled_at, &(w)->key.task_id, &(w)->key.part, &(w)->version, &(w)->state,    \
      &(w)->reason, &(w)->origin, &(w)->attempt, &(w)->fired_at, &(w)->not_before, &(w)->attempt_at,         \
      &(w)->started_at, &(w)->finished_at, &(w)->missed_first, &(w)->missed_count, &(w)->executor,           \
      &(w)->pin, &(w)->payload, &(w)->origin_run, &(w)->result, &(w)->error_type, &(w)->error_message,       \
      &(w)->error_detail, &(w)->progress, &(w)->incarnation

/* An empty filter is NULL. */
static inline struct slice sqlite_filter(struct slice s) { return s.n ? s : (struct slice){}; }

/* A growing array in an arena. */
void *sqlite_grow(struct arena *mem, void *rows, size_t count, size_t *cap, size_t size);
#define sqlite_push(mem, rows, count, cap)                                                                   \
  ((count) == (cap) ? (void)((rows) = sqlite_grow((mem), (rows), (count), &(cap), sizeof *(rows)))           \
                    : (void)0,                                                                               \
   &(rows)[(count)++])

#define OP(n)                                                                                                \
  int sqlite_##n(struct store *s, const struct st_##n *in, struct st_##n##_ret *ret, struct arena *mem,      \
                 struct err *e);
#include "store/store_ops.def"
