/* Open a database: check the server, migrate under a lock, make the shards. */
#include "store/migrate.h"
#include "store/postgres/pg.h"
#include <stdio.h>

#define SERVER_VERSION_MIN 140000
#define SHARDS_DEFAULT     32

const struct store_ops pg_ops = {
    .name = "postgres",
    .caps = STORE_CAP_NOTIFY | STORE_CAP_DAYS,
    .close = pgc_close,
#define OP(n) .n = pg_##n,
#include "store/store_ops.def"
};

static int plain(PGconn *conn, const char *text, const struct pgw_args *a, PGresult **ret, struct err *e) {
  const char *values[PG_ARGS_MAX];
  int formats[PG_ARGS_MAX], n = a ? a->count : 0;
  for (int i = 0; i < n; i++) {
    values[i] = a->p + a->at[i];
    formats[i] = 1;
  }
  PGresult *r = PQexecParams(conn, text, n, NULL, values, a ? a->length : NULL, formats, 1);
  if (PQresultStatus(r) == PGRES_TUPLES_OK || PQresultStatus(r) == PGRES_COMMAND_OK) {
    *ret = r;
    return 0;
  }
  pgc_error(conn, r, ERR_UNAVAILABLE, e);
  PQclear(r);
  return ERR_UNAVAILABLE;
}

/* ---------------------------------------------------------------- migrations */
static int list_applied(void *db, struct arena *mem, struct migration_applied **ret, size_t *ret_count,
                        struct err *e) {
  auto_result made = NULL;
  auto_result r = NULL;
  int code =
      plain(db,
            "CREATE TABLE IF NOT EXISTS schema_migration (number int4 PRIMARY KEY, name text NOT NULL, "
            "checksum text NOT NULL, applied_at int8 NOT NULL)",
            NULL, &made, e);
  if (code == 0)
    code = plain(db, "SELECT number, name, checksum FROM schema_migration ORDER BY number", NULL, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct migration_applied *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    rows[i].number = (int32_t)pgw_next_int(&c);
    rows[i].name = pgw_next_text(&c);
    rows[i].checksum = pgw_next_text(&c);
  }
  *ret = rows;
  *ret_count = n;
  return 0;
}

static int run_script(PGconn *conn, const char *script, struct err *e) {
  auto_result r = PQexec(conn, script); /* many statements: the simple protocol */
  return PQresultStatus(r) == PGRES_COMMAND_OK ? 0 : pgc_error(conn, r, ERR_SCHEMA, e);
}

static int apply_migration(void *db, const struct migration *m, const char *checksum, struct err *e) {
  struct pgw_args a = {0};
  auto_result row = NULL;
  int r = run_script(db, "BEGIN", e);
  if (r == 0)
    r = run_script(db, m->sql, e);
  pgw_i4(&a, m->number);
  pgw_text0(&a, slice_of(m->name));
  pgw_text0(&a, slice_of(checksum));
  if (r == 0)
    r = plain(db, "INSERT INTO schema_migration VALUES ($1::int4, $2::text, $3::text, " PG_NOW ")", &a, &row,
              e);
  pgw_done(&a);
  if (r == 0)
    return run_script(db, "COMMIT", e);
  (void)run_script(db, "ROLLBACK",
                   NULL); /* the first error is told; a lost connection rolls back by itself */
  return r;
}

static const struct migrate_ops migrate_ops = {list_applied, apply_migration};

/* The first node makes the shards; fired_at = now, so that nothing before the database's birth is due. */
static int make_shards(PGconn *conn, int shard_count, struct err *e) {
  struct pgw_args a = {0};
  auto_result r = NULL;
  pgw_i4(&a, shard_count > 0 ? shard_count : SHARDS_DEFAULT);
  int code = plain(conn,
                   "WITH m AS (INSERT INTO meta (shard_count, created_at) VALUES ($1::int4, " PG_NOW
                   ") ON CONFLICT DO NOTHING RETURNING shard_count, created_at), "
                   "s AS (INSERT INTO shard (id, fired_at) SELECT i, created_at FROM m, generate_series(0, "
                   "shard_count - 1) i) "
                   "INSERT INTO shard_finish (id) SELECT i FROM m, generate_series(0, shard_count - 1) i",
                   &a, &r, e);
  pgw_done(&a);
  return code;
}

static int migrate(PGconn *conn, struct pg_source *o, int shard_count, struct err *e) {
  char text[80];
  auto_result lock = NULL;
  auto_result unlock = NULL;
  snprintf(text, sizeof text, "SELECT pg_advisory_lock(%" PRId64 ")", PG_MIGRATION_LOCK);
  int r = plain(conn, text, NULL, &lock, e);
  if (r == 0)
    r = migrate_run(pg_migrations, &migrate_ops, conn, &o->schema_version, e);
  if (r == 0)
    r = make_shards(conn, shard_count, e);
  snprintf(text, sizeof text, "SELECT pg_advisory_unlock(%" PRId64 ")", PG_MIGRATION_LOCK);
  (void)plain(conn, text, NULL, &unlock, NULL); /* a lost connection has given it back */
  return r;
}

/* ---------------------------------------------------------------- checks */
static int backend_pid(PGconn *conn, int32_t *ret, struct err *e) {
  auto_result r = NULL;
  int code = plain(conn, "SELECT pg_backend_pid()", NULL, &r, e);
  if (code == 0)
    *ret = (int32_t)pgw_int(r, 0, 0);
  return code;
}

/* A pooler in between shows itself by another backend's pid than the start-up told. In transaction mode our server connection
 * goes to somebody else while we hold no transaction: session settings, prepared statements and locks would be lost. */
static int check_pooler(PGconn *conn, struct pg_source *o, struct err *e) {
  int64_t timeline;
  int32_t first = 0, other = 0, again = 0;
  auto_result begun = NULL;
  int r = backend_pid(conn, &first, e);
  if (r < 0 || first == PQbackendPID(conn))
    return r;
  PGconn *second = pgc_connect(o, STORE_API, &timeline, e);
  if (!second)
    return ERR_UNAVAILABLE;
  r = plain(second, "BEGIN", NULL, &begun, e);
  if (r == 0)
    r = backend_pid(second, &other, e);
  if (r == 0)
    r = backend_pid(conn, &again, e);
  if (r == 0 && (other == first || again != first))
    r = err_set(e, ERR_INVALID,
                "the database URL leads to a pooler in transaction mode: connect to PostgreSQL itself");
  PQfinish(second);
  return r;
}

static int check_server(PGconn *conn, struct pg_source *o, struct err *e) {
  if (PQserverVersion(conn) < SERVER_VERSION_MIN)
    return err_set(e, ERR_SCHEMA, "PostgreSQL %d is too old: 14 or later is needed",
                   PQserverVersion(conn) / 10000);
  const char *encoding = PQparameterStatus(conn, "server_encoding");
  if (!encoding || strcmp(encoding, "UTF8") != 0)
    return err_set(e, ERR_SCHEMA, "the database's encoding is %s: UTF8 is needed",
                   encoding ? encoding : "unknown");
  return check_pooler(conn, o, e);
}

static int read_types(PGconn *conn, struct pg_source *o, struct err *e) {
  auto_result r = NULL;
  int code =
      plain(conn,
            "SELECT 'run'::regtype::oid, 'run_history'::regtype::oid, 'progress'::regtype::oid, "
            "'fire_shard_in'::regtype::oid, 'run_update_in'::regtype::oid, 'run_finish_in'::regtype::oid, "
            "'attempt_in'::regtype::oid, 'task_in'::regtype::oid, 'executor'::regtype::oid, "
            "(SELECT shard_count FROM meta)",
            NULL, &r, e);
  if (code < 0)
    return code;
  struct pgw_cursor c = pgw_row_of(r, 0, NULL);
  uint32_t *const types[] = {&o->types.run,           &o->types.run_history,   &o->types.progress,
                             &o->types.fire_shard_in, &o->types.run_update_in, &o->types.run_finish_in,
                             &o->types.attempt_in,    &o->types.task_in,       &o->types.executor};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
    *types[i] = (uint32_t)pgw_next_int(&c);
  o->shard_count = (int32_t)pgw_next_int(&c);
  return 0;
}

/* ---------------------------------------------------------------- the source */
static void source_close(struct store_source *source) {
  struct pg_source *o = (struct pg_source *)source;
  pgc_source_done(o);
  mem_free(o);
}

static int source_session(struct store_source *source, enum store_role role, struct store **ret,
                          struct err *e) {
  struct pg_store *s = mem_zalloc(sizeof *s);
  s->base.ops = &pg_ops;
  s->source = (struct pg_source *)source;
  s->role = role;
  int r = pgc_ready(s, e);
  if (r < 0) {
    pgc_close(&s->base);
    return r;
  }
  *ret = &s->base;
  return 0;
}

static const struct store_source_ops source_ops = {"postgres", source_session, source_close};

static int make_partitions(struct pg_source *o, struct err *e) {
  struct store *s;
  int r = source_session(&o->base, STORE_API, &s, e);
  if (r < 0)
    return r;
  r = pg_make_partitions(pg_of(s), e);
  pgc_close(s);
  return r;
}

int pg_source_open(const struct store_options *options, struct store_source **ret, struct err *e) {
  struct pg_source *o = mem_zalloc(sizeof *o);
  int64_t timeline = 0;
  pgc_source_init(o, options);
  o->base.ops = &source_ops;
  PGconn *conn = pgc_connect(o, STORE_API, &timeline, e);
  int r = conn ? check_server(conn, o, e) : ERR_UNAVAILABLE;
  if (r == 0)
    r = migrate(conn, o, options->shard_count, e);
  if (r == 0)
    r = read_types(conn, o, e);
  if (r == 0)
    r = make_partitions(o, e);
  PQfinish(conn);
  atomic_store(&o->served, timeline);
  if (r == 0)
    *ret = &o->base;
  else
    source_close(&o->base);
  return r;
}

/* ---------------------------------------------------------------- meta */
int pg_meta(struct store *store, const struct st_meta *in, struct st_meta_ret *ret, struct arena *mem,
            struct err *e) {
  static const struct pg_sql q = {
      "meta", "SELECT " PG_NOW ", 'PostgreSQL ' || current_setting('server_version')", PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)in;
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  struct pgw_cursor c = pgw_row_of(r, 0, mem);
  ret->now = pgw_next_int(&c);
  ret->server = pgw_next_text(&c);
  ret->shard_count = s->source->shard_count;
  ret->schema_version = s->source->schema_version;
  return 0;
}

/* ---------------------------------------------------------------- looking from outside */
static int read_probe(PGconn *conn, struct store_probe *ret, struct err *e) {
  auto_result now = NULL;
  auto_result schema = NULL;
  int r = plain(conn,
                "SELECT " PG_NOW ", to_regclass('schema_migration') IS NOT NULL, 'PostgreSQL ' || "
                "current_setting('server_version')",
                NULL, &now, e);
  if (r < 0)
    return r;
  auto_arena mem = {0};
  struct pgw_cursor c = pgw_row_of(now, 0, &mem);
  ret->now = pgw_next_int(&c);
  bool there = pgw_next_int(&c) != 0;
  (void)text_copy(ret->server, sizeof ret->server, pgw_next_text(&c)); /* a part of it will do */
  if (there)
    r = plain(conn, "SELECT count(*) FROM schema_migration", NULL, &schema, e);
  if (r == 0 && there)
    ret->schema = (int32_t)pgw_int(schema, 0, 0);
  return r;
}

int pg_source_probe(const struct store_options *options, struct store_probe *ret, struct err *e) {
  struct pg_source o;
  int64_t timeline;
  pgc_source_init(&o, options);
  PGconn *conn = pgc_connect(&o, STORE_API, &timeline, e);
  int r = conn ? check_server(conn, &o, e) : ERR_UNAVAILABLE;
  if (r == 0)
    r = read_probe(conn, ret, e);
  PQfinish(conn);
  pgc_source_done(&o);
  while (pg_migrations[ret->known].name)
    ret->known++;
  return r;
}
