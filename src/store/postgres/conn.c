/* A session: connects when it must, sends what an operation needs as one pipeline (one round trip, one transaction), and says
 * what is known about the outcome when the answer does not come. */
#include "store/postgres/pg.h"
#include <inttypes.h>
#include <poll.h>

#define ANSWER_GRACE (10 * USEC_PER_SEC) /* beyond statement_timeout: then the server itself is stuck */
#define DRAIN_MAX    64                  /* reads of an idle connection before it is used */

static const struct pg_sql sql_begin = {"begin", "BEGIN", PG_READ};
static const struct pg_sql sql_commit = {"commit", "COMMIT", PG_COMMIT};
static const struct pg_sql sql_rollback = {"rollback", "ROLLBACK", PG_READ};
static const struct pg_sql sql_savepoint = {"savepoint", "SAVEPOINT operation", PG_READ};
static const struct pg_sql sql_savepoint_release = {"savepoint_release", "RELEASE SAVEPOINT operation",
                                                    PG_READ};
static const struct pg_sql sql_savepoint_rollback = {"savepoint_rollback", "ROLLBACK TO SAVEPOINT operation",
                                                     PG_READ};

void pgr_clear(PGresult **r) {
  PQclear(*r);
  *r = NULL;
}

int pgc_error(const PGconn *conn, const PGresult *r, int code, struct err *e) {
  struct slice line, rest;
  const char *primary = r ? PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY) : NULL;
  line = slice_trim(slice_cut(slice_of(primary ? primary : PQerrorMessage(conn)), '\n', &rest));
  return line.n ? err_set(e, code, "PostgreSQL: %.*s", SLICE_FMT(line))
                : err_set(e, code, "PostgreSQL does not answer in time");
}

void pgc_drop(struct pg_store *s) {
  PQfinish(s->conn);
  s->conn = NULL;
  s->listening = s->history_locked = false;
  memset(s->prepared, 0, sizeof s->prepared);
}

void pgc_close(struct store *store) {
  struct pg_store *s = pg_of(store);
  pgc_drop(s);
  pgw_done(&s->args);
  mem_free(s);
}

int pgc_wait_socket(PGconn *conn, short events, usec_t timeout) {
  struct pollfd p = {.fd = PQsocket(conn), .events = events};
  usec_t ms = timeout < 0 ? 0 : (timeout + USEC_PER_MS - 1) / USEC_PER_MS;
  int r = poll(&p, 1, ms > INT32_MAX ? INT32_MAX : (int)ms);
  return r < 0 && errno == EINTR ? 1 : r != 0;
}

/* Whatever the server sent while nobody listened: a notification, or that it is gone. */
static void drain(PGconn *conn) {
  for (int i = 0; i < DRAIN_MAX && PQstatus(conn) == CONNECTION_OK && pgc_wait_socket(conn, POLLIN, 0) > 0;
       i++)
    if (!PQconsumeInput(conn))
      break;
}

/* What this node knows of its shards may be of commits that a fail-over has lost: it takes them over anew before it writes. */
static int check_served(const struct pg_store *s, struct err *e) {
  bool writer = s->role == STORE_FIRE || s->role == STORE_FINISH;
  return writer && s->timeline > atomic_load(&s->source->served)
             ? err_set(e, ERR_UNAVAILABLE,
                       "another server has become the primary: the shards are taken over anew")
             : 0;
}

int pgc_ready(struct pg_store *s, struct err *e) {
  if (s->conn)
    drain(s->conn);
  if (s->conn && (PQstatus(s->conn) != CONNECTION_OK || s->timeline < atomic_load(&s->source->timeline)))
    pgc_drop(s); /* gone, or left behind by a fail-over */
  if (s->conn)
    return check_served(s, e);
  if (s->locked || s->in_tx)
    return err_set(e, ERR_UNAVAILABLE, "the connection to PostgreSQL was lost inside a transaction");
  s->conn = pgc_connect(s->source, s->role, &s->timeline, e);
  if (!s->conn)
    return ERR_UNAVAILABLE;
  if (PQsetnonblocking(s->conn, 1) == 0 && PQenterPipelineMode(s->conn))
    return check_served(s, e);
  pgc_error(s->conn, NULL, ERR_UNAVAILABLE, e);
  pgc_drop(s);
  return ERR_UNAVAILABLE;
}

static const struct pg_sql **prepared_slot(struct pg_store *s, const struct pg_sql *q) {
  size_t i = ((uintptr_t)q / sizeof *q) % PG_PREPARED_MAX;
  while (s->prepared[i] && s->prepared[i] != q)
    i = (i + 1) % PG_PREPARED_MAX;
  return &s->prepared[i];
}

static void pipeline_push(struct pg_store *s, const struct pg_sql *q, bool prepares) {
  s->pipeline[s->pipeline_count].sql = q;
  s->pipeline[s->pipeline_count++].prepares = prepares;
}

static bool send_prepared(struct pg_store *s, const struct pg_sql *q) {
  const char *values[PG_ARGS_MAX];
  int formats[PG_ARGS_MAX];
  for (int i = 0; i < s->args.count; i++) {
    values[i] = s->args.length[i] < 0 ? NULL : s->args.p + s->args.at[i];
    formats[i] = 1;
  }
  if (q->unprepared) {
    if (!PQsendQueryParams(s->conn, q->text, s->args.count, NULL, values, s->args.length, formats, 1))
      return false;
    pipeline_push(s, q, false);
    return true;
  }
  if (*prepared_slot(s, q) != q) {
    if (!PQsendPrepare(s->conn, q->name, q->text, 0, NULL))
      return false;
    pipeline_push(s, q, true);
  }
  if (!PQsendQueryPrepared(s->conn, q->name, s->args.count, values, s->args.length, formats, 1))
    return false;
  pipeline_push(s, q, false);
  return true;
}

void pgc_add(struct pg_store *s, const struct pg_sql *q) {
  if (s->statement_count == 0)
    s->broken.code = 0;
  s->statement_count++;
  if (s->pipeline_count == 0 && s->broken.code == 0)
    (void)pgc_ready(s, &s->broken); /* kept in broken, told by pgc_run */
  if (s->broken.code == 0 && s->pipeline_count + 2 > PG_PIPELINE_MAX)
    err_set(&s->broken, ERR_INTERNAL, "a transaction of more than %d statements", PG_PIPELINE_MAX / 2);
  /* what is in libpq's buffer has perhaps gone out already, but without the Sync nothing is committed */
  if (s->broken.code == 0 && !send_prepared(s, q))
    pgc_error(s->conn, NULL, ERR_UNAVAILABLE, &s->broken);
  pgw_clear(&s->args);
}

static int flush(struct pg_store *s, usec_t until) {
  for (;;) {
    int r = PQflush(s->conn);
    if (r <= 0)
      return r;
    usec_t left = until - clock_system.mono(&clock_system);
    if (left <= 0 || !pgc_wait_socket(s->conn, POLLIN | POLLOUT, left) || !PQconsumeInput(s->conn))
      return -1;
  }
}

static PGresult *next_result(struct pg_store *s, usec_t until) {
  while (PQisBusy(s->conn)) {
    usec_t left = until - clock_system.mono(&clock_system);
    if (left <= 0 || !pgc_wait_socket(s->conn, POLLIN, left) || !PQconsumeInput(s->conn))
      return NULL;
  }
  return PQgetResult(s->conn);
}

/* By the class of the SQLSTATE: what was refused for good, and what may be tried again. */
static int code_of(const char *state) {
  static const char *const again[] = {"08", "25", "40", "53", "55", "57", "58"};
  for (size_t i = 0; i < sizeof again / sizeof again[0]; i++)
    if (strncmp(state, again[i], 2) == 0)
      return ERR_UNAVAILABLE;
  if (strncmp(state, "22", 2) == 0)
    return ERR_INVALID;
  bool conflict = strcmp(state, PG_UNIQUE_VIOLATION) == 0 || strcmp(state, PG_FOREIGN_KEY_VIOLATION) == 0;
  return conflict ? ERR_CONFLICT : ERR_INTERNAL;
}

static int refused(struct pg_store *s, const PGresult *r, struct err *e) {
  const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
  text_copy(s->sqlstate, sizeof s->sqlstate, slice_of(state ? state : "XX000"));
  return pgc_error(s->conn, r, code_of(s->sqlstate), e);
}

/* A COMMIT of a transaction that had failed answers ROLLBACK. */
static bool rolled_back(const struct pg_sql *q, PGresult *r) {
  return q->kind == PG_COMMIT && strcmp(PQcmdStatus(r), "COMMIT") != 0;
}

/* One answer. 0, the code of a refusal, or 1: the connection is lost. */
static int take_answer(struct pg_store *s, int i, PGresult **ret, usec_t until, struct err *e) {
  PGresult *r = next_result(s, until);
  if (!r)
    return 1;
  ExecStatusType status = PQresultStatus(r);
  int code = 0;
  if (status == PGRES_FATAL_ERROR && PQstatus(s->conn) == CONNECTION_OK)
    code = refused(s, r, e);
  else if (status == PGRES_FATAL_ERROR)
    code = 1;
  else if (status == PGRES_PIPELINE_ABORTED)
    code = ERR_UNAVAILABLE; /* an earlier one was refused, and has told why */
  else if (!s->pipeline[i].prepares && rolled_back(s->pipeline[i].sql, r))
    code = err_set(e, ERR_UNAVAILABLE, "PostgreSQL rolled the transaction back");
  if (code == 0 && s->pipeline[i].prepares)
    *prepared_slot(s, s->pipeline[i].sql) = s->pipeline[i].sql;
  if (code == 0 && !s->pipeline[i].prepares)
    *ret = r;
  else
    PQclear(r);
  PGresult *end = next_result(s, until); /* NULL ends each statement's answers */
  PQclear(end);
  return code == 0 && end ? 1 : code;
}

static int lost(struct pg_store *s, struct err *e) {
  bool unknown = false;
  for (int i = 0; i < s->pipeline_count; i++)
    unknown |= s->pipeline[i].sql->kind == PG_COMMIT ||
               (s->pipeline[i].sql->kind == PG_WRITE && !s->locked && !s->in_tx);
  pgc_error(s->conn, NULL, unknown ? ERR_UNKNOWN_OUTCOME : ERR_UNAVAILABLE, e);
  pgc_drop(s);
  return unknown ? ERR_UNKNOWN_OUTCOME : ERR_UNAVAILABLE;
}

static int take_answers(struct pg_store *s, PGresult **ret, struct err *e) {
  const struct pg_source *o = s->source;
  usec_t patience =
      s->role == STORE_LEASE ? o->lease_timeout : o->statement_timeout + ANSWER_GRACE + s->patience;
  usec_t until = clock_system.mono(&clock_system) + patience;
  int code = 0, statement = 0;
  if (!PQpipelineSync(s->conn) || flush(s, until) < 0)
    return lost(s, e);
  for (int i = 0; i < s->pipeline_count; i++) {
    int r = take_answer(s, i, &ret[statement], until, code ? NULL : e);
    if (r > 0)
      return lost(s, e);
    code = code ? code : r;
    statement += !s->pipeline[i].prepares;
  }
  auto_result sync = next_result(s, until);
  if (!sync || PQresultStatus(sync) != PGRES_PIPELINE_SYNC)
    return lost(s, e);
  return code;
}

int pgc_run(struct pg_store *s, PGresult **ret, struct err *e) {
  int n = s->statement_count, r = s->broken.code;
  memset(ret, 0, (size_t)n * sizeof *ret);
  s->sqlstate[0] = '\0';
  if (r < 0 && e)
    *e = s->broken;
  if (r == 0)
    r = take_answers(s, ret, e);
  else if (s->conn && s->pipeline_count > 0)
    pgc_drop(s); /* half a pipeline is in its buffers */
  if (r < 0 && pgc_refused(s, PG_READ_ONLY))
    pgc_drop(s); /* it is not the primary any more: another one of the list may be */
  s->pipeline_count = s->statement_count = 0;
  for (int i = 0; r < 0 && i < n; i++)
    pgr_clear(&ret[i]);
  return r;
}

int pgc_one(struct pg_store *s, const struct pg_sql *q, PGresult **ret, struct err *e) {
  pgc_add(s, q);
  return pgc_run(s, ret, e);
}

bool pgc_refused(const struct pg_store *s, const char *sqlstate) {
  return strcmp(s->sqlstate, sqlstate) == 0;
}

void pgc_begin(struct pg_store *s) {
  pgc_add(s, s->locked ? &sql_savepoint : &sql_begin);
  if (s->broken.code == 0)
    s->in_tx = true;
}

int pgc_begin_now(struct pg_store *s, struct err *e) {
  auto_result r = NULL;
  pgc_begin(s);
  return pgc_run(s, &r, e);
}

int pgc_commit(struct pg_store *s, struct err *e) {
  auto_result done = NULL;
  int r = pgc_one(s, s->locked ? &sql_savepoint_release : &sql_commit, &done, e);
  s->in_tx = false;
  return r;
}

void pgc_rollback(struct pg_store *s) {
  auto_result done = NULL;
  char refused_by[sizeof s->sqlstate];
  memcpy(refused_by, s->sqlstate, sizeof refused_by);
  if (s->conn && pgc_one(s, s->locked ? &sql_savepoint_rollback : &sql_rollback, &done, NULL) < 0)
    pgc_drop(s);
  memcpy(s->sqlstate, refused_by, sizeof refused_by);
  s->in_tx = false;
}

int pgc_wait(struct pg_store *s, usec_t timeout, struct err *e) {
  if (pgc_wait_socket(s->conn, POLLIN, timeout))
    drain(s->conn);
  if (PQstatus(s->conn) == CONNECTION_OK)
    return 0;
  pgc_error(s->conn, NULL, ERR_UNAVAILABLE, e);
  pgc_drop(s);
  return ERR_UNAVAILABLE;
}
