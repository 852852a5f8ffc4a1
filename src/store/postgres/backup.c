/* After pg_restore: the database has gone back in time. */
#include "store/backup.h"
#include "store/postgres/pg.h"
#include <stdio.h>

#define STEP "1048576"
_Static_assert(STORE_RESTORE_STEP == 1048576, "the step in the statements");

static int exec(PGconn *conn, const char *text, PGresult **ret, struct err *e) {
  PGresult *r = PQexec(conn, text);
  if (PQresultStatus(r) == PGRES_TUPLES_OK || PQresultStatus(r) == PGRES_COMMAND_OK) {
    *ret = r;
    return 0;
  }
  pgc_error(conn, r, ERR_UNAVAILABLE, e);
  PQclear(r);
  return ERR_UNAVAILABLE;
}

/* By its lease, or by its connections: a lease may just have been restored from another time. */
static int nobody_alive(PGconn *conn, struct err *e) {
  auto_result r = NULL;
  int code = exec(conn,
                  "SELECT (SELECT string_agg(id, ', ') FROM node WHERE lease_until > " PG_NOW "), "
                  "(SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
                  "pg_backend_pid() AND application_name LIKE 'kelou %')",
                  &r, e);
  if (code < 0)
    return code;
  if (!PQgetisnull(r, 0, 0))
    return err_set(e, ERR_CONFLICT, "alive by its lease: node %s", PQgetvalue(r, 0, 0));
  if (strcmp(PQgetvalue(r, 0, 1), "0") != 0)
    return err_set(e, ERR_CONFLICT, "nodes have %s connections to this database", PQgetvalue(r, 0, 1));
  return 0;
}

static int raise_all(PGconn *conn, struct err *e) {
  static const char *const statements[] = {
      "UPDATE shard s SET owner = NULL, epoch = " STEP
      " + greatest(s.epoch, (SELECT f.epoch FROM shard_finish f WHERE f.id = s.id))",
      "UPDATE shard_finish f SET epoch = (SELECT s.epoch FROM shard s WHERE s.id = f.id)",
      "SELECT setval(name::regclass, nextval(name::regclass) + " STEP ") FROM unnest(ARRAY['task_id', "
      "'node_incarnation', 'inbox_no']) name",
      "UPDATE history_batch SET no = no + " STEP ", archived = false",
      "DELETE FROM node",
  };
  int code = 0;
  for (size_t i = 0; code == 0 && i < sizeof statements / sizeof statements[0]; i++) {
    auto_result r = NULL;
    code = exec(conn, statements[i], &r, e);
  }
  return code;
}

int pg_after_restore(const struct store_options *o, struct err *e) {
  struct pg_source source;
  int64_t timeline;
  char lock[80];
  auto_result begun = NULL;
  auto_result locked = NULL;
  auto_result ended = NULL;
  pgc_source_init(&source, o);
  PGconn *conn = pgc_connect(&source, STORE_API, &timeline, e);
  pgc_source_done(&source);
  if (!conn)
    return ERR_UNAVAILABLE;
  snprintf(lock, sizeof lock, "SELECT pg_advisory_xact_lock(%" PRId64 ")", PG_MIGRATION_LOCK);
  int code = exec(conn, "BEGIN", &begun, e);
  if (code == 0)
    code = exec(conn, lock, &locked, e);
  if (code == 0)
    code = nobody_alive(conn, e);
  if (code == 0)
    code = raise_all(conn, e);
  if (code == 0)
    code = exec(conn, "COMMIT", &ended, e);
  PQfinish(conn); /* what is not committed is rolled back */
  return code;
}
