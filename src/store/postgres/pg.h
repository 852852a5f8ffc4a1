#pragma once
/* The PostgreSQL back end's own parts: parameters and rows in the binary protocol (wire.c), a session that reconnects
 * and sends its statements as one pipeline (conn.c), and the operations (one file a subject). Private to this folder. */
#include "store/source.h"
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdatomic.h>

#define PG_NOW                "(extract(epoch FROM clock_timestamp()) * 1000000)::int8"
#define PG_CHANNEL            "kelou"                 /* NOTIFY channel; the payload is the shard */
#define PG_NODES_CHANGED      "nodes"                 /* … or this */
#define PG_MIGRATION_LOCK     INT64_C(0x6b656c6f75)   /* advisory lock of migrations and of the first token */
#define PG_UPKEEP_LOCK        (PG_MIGRATION_LOCK + 1) /* advisory lock of the making of partitions */
#define PG_HISTORY_LOCK       (PG_MIGRATION_LOCK + 2) /* advisory lock of the retention */
#define PG_CONNECT_TIMEOUT    "5"                     /* seconds */
#define PG_STATEMENT_TIMEOUT  (30 * USEC_PER_SEC)     /* when the options name none */
#define PG_LOCK_TIMEOUT_SHARE 6                       /* lock_timeout = statement_timeout / 6 */
#define PG_IDLE_TX_TIMEOUT    (5 * USEC_PER_SEC / 3)
#define PG_CLAIM_LOCK_TIMEOUT "200ms"
/* Epochs given on a timeline are higher than all of the timelines before, whatever a fail-over has lost of them. */
#define PG_EPOCHS_OF_TIMELINE (INT64_C(1) << 20)
#define PG_ARGS_MAX           24
#define PG_PREPARED_MAX       256 /* power of two, several times the number of statements */
#define PG_PIPELINE_MAX       64

/* ---------------------------------------------------------------- wire.c: parameters */
#define PG_INT8_OID   20
#define PG_INT2_OID   21
#define PG_INT4_OID   23
#define PG_TEXT_OID   25
#define PG_FLOAT8_OID 701

/* The parameters of one statement, in order. Zeroed = empty; kept from statement to statement. */
struct pgw_args {
  char *p;
  size_t n, cap;
  int count;
  size_t at[PG_ARGS_MAX];
  int length[PG_ARGS_MAX]; /* -1 = NULL */
  size_t row;              /* where the open row's length stands */
};
void pgw_clear(struct pgw_args *a);
void pgw_done(struct pgw_args *a);
void pgw_i8(struct pgw_args *a, int64_t v);
void pgw_i4(struct pgw_args *a, int32_t v);
void pgw_bool(struct pgw_args *a, bool v);
void pgw_text(struct pgw_args *a, struct slice v);  /* p == NULL: SQL NULL */
void pgw_text0(struct pgw_args *a, struct slice v); /* p == NULL: '' */
void pgw_bytes(struct pgw_args *a, const void *p, size_t n);
/* An array of `count` elements of one type: open, the elements, close. */
void pgw_array(struct pgw_args *a, uint32_t element_oid, size_t count);
void pgw_array_end(struct pgw_args *a);
void pgw_el_i8(struct pgw_args *a, int64_t v);
void pgw_el_i4(struct pgw_args *a, int32_t v);
void pgw_el_text(struct pgw_args *a, struct slice v);
/* An element that is a row of a composite type: open, its columns in order, close. */
void pgw_row(struct pgw_args *a, int columns);
void pgw_row_end(struct pgw_args *a);
void pgw_col_i8(struct pgw_args *a, int64_t v);
void pgw_col_i8z(struct pgw_args *a, int64_t v); /* 0: SQL NULL */
void pgw_col_i4(struct pgw_args *a, int32_t v);
void pgw_col_i2(struct pgw_args *a, int v);
void pgw_col_text(struct pgw_args *a, struct slice v);
void pgw_col_text0(struct pgw_args *a, struct slice v);
void pgw_col_progress(struct pgw_args *a, double v); /* negative: SQL NULL */

/* A row of a result, read column by column. */
struct pgw_cursor {
  const PGresult *r;
  int row, col;
  struct arena *mem;
};
static inline struct pgw_cursor pgw_row_of(const PGresult *r, size_t row, struct arena *mem) {
  return (struct pgw_cursor){r, (int)row, 0, mem};
}
int64_t pgw_next_int(struct pgw_cursor *c);       /* int2, int4, int8, bool; NULL: 0 */
bool pgw_next_null(const struct pgw_cursor *c);   /* is the next one NULL? */
double pgw_next_progress(struct pgw_cursor *c);   /* NULL: -1 */
struct slice pgw_next_text(struct pgw_cursor *c); /* copied to mem; NULL: p == NULL */
int64_t pgw_int(const PGresult *r, int row, int col);

/* ---------------------------------------------------------------- conn.c: a session */
enum pg_kind {
  PG_READ,
  PG_WRITE, /* a transaction of its own unless one is open: if its answer is lost, the outcome is unknown */
  PG_COMMIT,
};
struct pg_sql { /* static const: the address is its identity */
  const char *name, *text;
  enum pg_kind kind;
  bool unprepared; /* planned anew each time, for these very parameters: lists with optional filters */
};
struct pg_types { /* of the composite types */
  uint32_t run, run_history, progress, fire_shard_in, run_update_in, run_finish_in, attempt_in, task_in,
      executor;
};
struct pg_host;
struct pg_source {
  struct store_source base;
  char *url;
  struct pg_host *hosts; /* of a URL that names several, else none */
  int host_count;
  usec_t statement_timeout, idle_tx_timeout;
  usec_t lease_timeout;    /* for an answer to the lease's session: later than that it is of no use */
  _Atomic uint64_t system; /* of the database cluster; 0: not known */
  _Atomic int64_t
      served; /* the timeline on which this node's epochs were given: its shards' writers work on no later one */
  _Atomic int64_t timeline; /* the highest that was seen; sessions on a lower one connect anew */
  int32_t shard_count, schema_version;
  struct pg_types types;
};
struct pg_store {
  struct store base;
  struct pg_source *source;
  enum store_role role;
  PGconn *conn;     /* NULL: not connected; the next operation connects */
  int64_t timeline; /* of the connection's server; 0: it does not tell */
  int64_t joined;   /* node_join was on this timeline */
  bool locked;      /* between shard_lock and shard_unlock */
  bool in_tx;       /* inside a transaction of one operation */
  bool listening;
  bool history_locked;  /* the retention is ours (retention.c), for as long as the connection lives */
  char day_over[24];    /* the day that is to be taken has been looked at: run_history_YYYYMMDD */
  usec_t patience;      /* beyond the statement time-out, for what is known to take long */
  struct pgw_args args; /* of the next statement */
  const struct pg_sql *prepared[PG_PREPARED_MAX];
  struct {
    const struct pg_sql *sql;
    bool prepares;
  } pipeline[PG_PIPELINE_MAX];
  int pipeline_count, statement_count;
  struct err broken;                 /* why the pipeline could not be sent */
  int64_t task_id_next, task_id_end; /* ids taken from the sequence, not used yet: [next, end) */
  char sqlstate[6];                  /* of the last refused statement */
};

void pgr_clear(PGresult **r);
#define auto_result __attribute__((cleanup(pgr_clear))) PGresult *

/* Add a statement with s->args (cleared by it) to the pipeline. Everything up to the next pgc_run is one transaction. */
void pgc_add(struct pg_store *s, const struct pg_sql *q);
/* Send the pipeline, take the answers: `ret` gets one result for each statement, in order. On failure all are NULL; the code is
 * by the SQLSTATE (s->sqlstate) or by what is known about the outcome. */
int pgc_run(struct pg_store *s, PGresult **ret, struct err *e);
int pgc_one(struct pg_store *s, const struct pg_sql *q, PGresult **ret, struct err *e);
/* A transaction over several round trips; inside shard_lock a savepoint. pgc_begin adds to the pipeline. */
void pgc_begin(struct pg_store *s);
int pgc_commit(struct pg_store *s, struct err *e);
void pgc_rollback(struct pg_store *s);
bool pgc_refused(const struct pg_store *s,
                 const char *sqlstate); /* was it this that refused the last statement? */
void pgc_drop(struct pg_store *s);      /* close the connection */
/* Wait until the connection has something to read or the time is up; ERR_UNAVAILABLE when it is lost. */
int pgc_wait(struct pg_store *s, usec_t timeout, struct err *e);
int pgc_ready(struct pg_store *s, struct err *e); /* connected, and not closed by the server meanwhile */
int pgc_wait_socket(PGconn *conn, short events,
                    usec_t timeout); /* 1: readable (or an error to be read), 0: time is up */
void pgc_close(struct store *s);
/* 0 rows or more; the text of a server's error, on one line. */
int pgc_error(const PGconn *conn, const PGresult *r, int code, struct err *e);

/* ---------------------------------------------------------------- connect.c: to the right server */
void pgc_source_init(struct pg_source *o, const struct store_options *options); /* without `base` */
void pgc_source_done(struct pg_source *o);
/* A plain connection with our settings. Of several hosts that would take writes: the one on the highest timeline, and none on a lower one than
 * was ever seen, nor of another database cluster. */
PGconn *pgc_connect(struct pg_source *o, enum store_role role, int64_t *ret_timeline, struct err *e);
/* Look whether another host of the list has gone on with a higher timeline: then all sessions go over to it. */
void pgc_survey(struct pg_source *o);

#define PG_READ_ONLY             "25006"
#define PG_UNIQUE_VIOLATION      "23505"
#define PG_FOREIGN_KEY_VIOLATION "23503"
#define PG_CHECK_VIOLATION       "23514"
#define PG_LOCK_NOT_AVAILABLE    "55P03"

/* The beginning of the day whose rows stand in the table of that name; NULL: it is none of run_history's or run_log's days. */
#define PG_DAY_OF(name)                                                                                      \
  "CASE WHEN " name " ~ '^run_(history|log)_[0-9]{8}$' THEN extract(epoch FROM to_date(right(" name          \
  ", 8), 'YYYYMMDD'))::int8 * 1000000 END"

/* ---------------------------------------------------------------- rows shared by several files */
/* of a row of run and of run_history, in the order of pg_read_run */
#define PG_RUN_COMMON(t)                                                                                     \
  t "shard, " t "scheduled_at, " t "task_id, " t "part, " t "version, " t "state, " t "reason, " t           \
    "origin, " t "attempt, " t "fired_at, " t "attempt_at, " t "started_at, " t "missed_first, " t           \
    "missed_count, " t "progress, " t "executor, " t "pin, " t "payload, " t "origin_run, " t                \
    "error_type, " t "error_message, "
#define PG_RUN_OPEN(t)                                                                                       \
  PG_RUN_COMMON(t)                                                                                           \
  t "not_before, NULL::int8 AS finished_at, NULL::text AS result, NULL::text AS "                            \
    "error_detail, " t "incarnation"
#define PG_RUN_ENDED(t)                                                                                      \
  PG_RUN_COMMON(t)                                                                                           \
  "NULL::int8 AS not_before, " t "finished_at, " t "result, " t "error_detail, NULL::int8 AS incarnation"
/* A negative value leaves the stored one; several rows of one task: the last value of each column that is not negative. FIRE and
 * FINISH may write one row at the same time: never read first. `rows`: the parameter, `condition`: on u. */
#define PG_PROGRESS_PUT(rows, condition)                                                                     \
  "INSERT INTO progress AS p (task_id, base_at, fired, shard) SELECT u.task_id, "                            \
  "max(u.base_at), "                                                                                         \
  "coalesce((array_agg(u.fired ORDER BY u.ord DESC) FILTER (WHERE u.fired >= 0))[1], -1), u.shard "          \
  "FROM unnest(" rows                                                                                        \
  "::progress[]) WITH ORDINALITY u (task_id, base_at, fired, shard, ord) WHERE " condition                   \
  " GROUP BY u.shard, u.task_id ON CONFLICT (shard, task_id) DO UPDATE SET "                                 \
  "base_at = greatest(p.base_at, excluded.base_at), "                                                        \
  "fired = CASE WHEN excluded.fired < 0 THEN p.fired ELSE excluded.fired END"
void pg_read_run(struct pgw_cursor *c, struct run_row *ret);
void pg_add_progress(struct pgw_args *a, const struct pg_source *o, const struct progress_row *rows,
                     size_t count);
void pg_add_idem(struct pgw_args *a,
                 const struct idem *idem); /* route, key, body hash, keep: four parameters */
/* The first answer to this key. 1: found, ERR_IDEMPOTENCY: it was for another body, ERR_UNAVAILABLE: it has just expired. */
int pg_idem_first(struct pg_store *s, const struct idem *idem, int64_t *ret_no, struct slice *ret_ref,
                  struct arena *mem, struct err *e);
/* A CTE `idem` that has a row unless this key has an answer: parameters $1…$4 of pg_add_idem, $5::int8 the number,
 * $6::text the ref of this answer. Use it with PG_IDEM_IS_NEW. */
#define PG_IDEM_CTE                                                                                          \
  "idem AS (INSERT INTO idempotency AS i (route, key, body_hash, no, ref, expires_at) "                      \
  "SELECT $1::text, $2::text, $3::bytea, $5::int8, $6::text, " PG_NOW " + $4::int8 WHERE $1 IS NOT NULL "    \
  "ON CONFLICT (route, key) DO UPDATE SET body_hash = excluded.body_hash, no = excluded.no, ref = "          \
  "excluded.ref, "                                                                                           \
  "expires_at = excluded.expires_at WHERE i.expires_at <= " PG_NOW " RETURNING 1)"
#define PG_IDEM_IS_NEW "($1::text IS NULL OR EXISTS (SELECT FROM idem))"
/* Parts of the operations on tasks and groups, inside a transaction that pgc_begin opened. Ids are taken before it. After
 * ERR_CONFLICT of pg_put_tasks and the end of the transaction pg_name_taken says which name it was. */
int pg_take_task_ids(struct pg_store *s, int64_t *ids, size_t count, struct err *e);
int pg_put_tasks(struct pg_store *s, const struct st_task_put *in, const int64_t *ids,
                 struct st_task_put_ret *ret, struct arena *mem, struct err *e);
int pg_name_taken(struct pg_store *s, const struct task_def *defs, size_t count, struct err *e);
/* *ret_edit: what it means for the edges; task_id 0: nothing. */
int pg_change_task(struct pg_store *s, const struct st_task_change *in, struct st_task_change_ret *ret,
                   struct edge_edit *ret_edit, struct arena *mem, struct err *e);
/* dependency.c: edges of tasks that have been written in this transaction, whose shards are locked. */
int pg_edit_edges(struct pg_store *s, const struct edge_edit *edits, size_t count, struct arena *mem,
                  struct err *e);
int pgc_begin_now(struct pg_store *s, struct err *e);
int pg_put_group(struct pg_store *s, const struct st_group_put *in, struct group_row *ret, struct arena *mem,
                 struct err *e);
void pg_add_i4s(struct pgw_args *a, const int32_t *v, size_t count);

int pg_make_partitions(struct pg_store *s,
                       struct err *e); /* of run_history and run_log: from yesterday to some days ahead */
/* Retention: 0: it is this session's, 1: another one's. Kept until the connection ends. */
int pg_history_turn(struct pg_store *s, struct err *e);
/* Remove at most `limit` lines of the logs of the first `limit` taken runs (not of a former partition's: its logs are a partition too). */
int pg_log_drop_taken(struct pg_store *s, int32_t limit, int64_t *ret_lines, struct err *e);
extern const struct store_ops pg_ops;
#define OP(n)                                                                                                \
  int pg_##n(struct store *, const struct st_##n *in, struct st_##n##_ret *ret, struct arena *mem,           \
             struct err *e);
#include "store/store_ops.def"
static inline struct pg_store *pg_of(struct store *s) { return (struct pg_store *)s; }
