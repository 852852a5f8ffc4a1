#include "store/sqlite/db.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#define DEADLINE_CHECK_OPS                                                                                   \
  20000 /* virtual machine steps between two looks at the clock: about a millisecond */
#define CACHE_KIB_WRITER         32768
#define CACHE_KIB_READER         4096
#define WAL_AUTOCHECKPOINT_PAGES 65536 /* 256 MiB: normally `maintain` comes first */

static const char *const sql_text[] = {
#define SQL(name, text) [SQL_##name] = (text),
#include "store/sqlite/sql.def"
};

static int deadline_passed(void *arg) {
  const struct db *db = arg;
  return db->deadline != 0 && db->clock->mono(db->clock) > db->deadline;
}

int db_fail(struct db *db, struct err *e) {
  if (sqlite3_extended_errcode(db->h) == SQLITE_CONSTRAINT_FOREIGNKEY)
    return err_set(e, ERR_CONFLICT, "a calendar of this name is not there any more, or is in use");
  switch (sqlite3_errcode(db->h) & 0xff) {
  case SQLITE_NOMEM: mem_exhausted();
  case SQLITE_BUSY:
  case SQLITE_LOCKED:
  case SQLITE_FULL:
  case SQLITE_IOERR:
  case SQLITE_CANTOPEN:
  case SQLITE_READONLY:
  case SQLITE_PERM: return err_set(e, ERR_UNAVAILABLE, "SQLite: %s", sqlite3_errmsg(db->h));
  case SQLITE_INTERRUPT:
    return err_set(e, ERR_UNAVAILABLE, "SQLite: the statement took longer than the statement time-out");
  default:
    return err_set(e, ERR_INTERNAL, "SQLite: %s (%d)", sqlite3_errmsg(db->h),
                   sqlite3_extended_errcode(db->h));
  }
}

bool db_is_duplicate(struct db *db) {
  int code = sqlite3_extended_errcode(db->h);
  return code == SQLITE_CONSTRAINT_UNIQUE || code == SQLITE_CONSTRAINT_PRIMARYKEY;
}

int db_exec(struct db *db, const char *sql, struct err *e) {
  return sqlite3_exec(db->h, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : db_fail(db, e);
}

static int db_configure(struct db *db, bool read_only, struct err *e) {
  char text[256];
  snprintf(text, sizeof text,
           "PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA "
           "foreign_keys = ON; PRAGMA "
           "cache_size = -%d;"
           "PRAGMA wal_autocheckpoint = %d; %s",
           read_only ? CACHE_KIB_READER : CACHE_KIB_WRITER, read_only ? 0 : WAL_AUTOCHECKPOINT_PAGES,
           read_only ? "PRAGMA query_only = ON" : "PRAGMA journal_mode = WAL");
  return db_exec(db, text, e);
}

int db_open(struct db *db, const char *path, const struct clock *clock, bool read_only, usec_t busy,
            struct err *e) {
  *db = (struct db){.clock = clock};
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (read_only ? 0 : SQLITE_OPEN_CREATE);
  if (sqlite3_open_v2(path, &db->h, flags, NULL) != SQLITE_OK) {
    if (!db->h)
      mem_exhausted();
    (void)err_set(e, ERR_UNAVAILABLE, "cannot open the database %s: %s", path, sqlite3_errmsg(db->h));
    db_close(db);
    return ERR_UNAVAILABLE;
  }
  (void)sqlite3_extended_result_codes(db->h, 1);
  (void)sqlite3_busy_timeout(db->h, (int)(busy / USEC_PER_MS));
  sqlite3_progress_handler(db->h, DEADLINE_CHECK_OPS, deadline_passed, db);
  int r = db_configure(db, read_only, e);
  if (r < 0)
    db_close(db);
  return r;
}

void db_close(struct db *db) {
  for (int i = 0; i < SQL_MAX_; i++)
    (void)sqlite3_finalize(db->st[i]); /* reports the statement's old failure, nothing new */
  (void)sqlite3_close(db->h);          /* cannot fail: no statement is left */
  *db = (struct db){};
}

static int prepare(struct db *db, enum sql id, struct err *e) {
  if (db->st[id]) {
    (void)sqlite3_reset(db->st[id]); /* reports the old failure again */
    return 0;
  }
  int r = sqlite3_prepare_v3(db->h, sql_text[id], -1, SQLITE_PREPARE_PERSISTENT, &db->st[id], NULL);
  return r == SQLITE_OK ? 0 : db_fail(db, e);
}

static int bind_text(sqlite3_stmt *st, int i, struct slice s) {
  return sqlite3_bind_text64(st, i, s.p, s.n, SQLITE_STATIC, SQLITE_UTF8);
}

static int bind(struct db *db, enum sql id, struct err *e, const char *types, va_list ap) {
  int r = prepare(db, id, e), rc = SQLITE_OK;
  sqlite3_stmt *st = db->st[id];
  struct slice s;
  double d;
  if (r < 0)
    return r;
  assert((int)strlen(types) == sqlite3_bind_parameter_count(st));
  for (int i = 1; *types && rc == SQLITE_OK; i++, types++) {
    switch (*types) {
    case 'i': rc = sqlite3_bind_int(st, i, va_arg(ap, int)); break;
    case 'l': rc = sqlite3_bind_int64(st, i, va_arg(ap, int64_t)); break;
    case 's': rc = bind_text(st, i, va_arg(ap, struct slice)); break;
    case 't':
      s = va_arg(ap, struct slice);
      rc = bind_text(st, i, s.p ? s : SLICE(""));
      break;
    case 'd':
      d = va_arg(ap, double);
      rc = d < 0 ? sqlite3_bind_null(st, i) : sqlite3_bind_double(st, i, d);
      break;
    case 'h': rc = sqlite3_bind_blob(st, i, va_arg(ap, const uint8_t *), 32, SQLITE_STATIC); break;
    default: assert(!"a letter of db_query");
    }
  }
  return rc == SQLITE_OK ? 0 : db_fail(db, e);
}

int db_query(struct db *db, enum sql id, struct err *e, const char *types, ...) {
  va_list ap;
  va_start(ap, types);
  int r = bind(db, id, e, types, ap);
  va_end(ap);
  return r;
}

int db_step(struct db *db, enum sql id, struct err *e) {
  int rc = sqlite3_step(db->st[id]);
  if (rc == SQLITE_ROW)
    return 1;
  int r = rc == SQLITE_DONE ? 0 : db_fail(db, e);
  (void)sqlite3_reset(db->st[id]); /* reports the same failure again */
  return r;
}

int db_run(struct db *db, enum sql id, struct err *e, const char *types, ...) {
  va_list ap;
  va_start(ap, types);
  int r = bind(db, id, e, types, ap);
  va_end(ap);
  while (r == 0 && (r = db_step(db, id, e)) > 0)
    r = 0;
  return r < 0 ? r : sqlite3_changes(db->h);
}

static struct slice column_text(sqlite3_stmt *st, int i, struct arena *mem) {
  const char *p = (const char *)sqlite3_column_text(st, i);
  return p ? arena_slice(mem, slice_n(p, (size_t)sqlite3_column_bytes(st, i))) : (struct slice){};
}

void db_get(struct db *db, enum sql id, struct arena *mem, const char *types, ...) {
  sqlite3_stmt *st = db->st[id];
  va_list ap;
  va_start(ap, types);
  assert((int)strlen(types) == sqlite3_column_count(st));
  for (int i = 0; types[i]; i++) {
    switch (types[i]) {
    case 'i': *va_arg(ap, int *) = sqlite3_column_int(st, i); break;
    case 'l': *va_arg(ap, int64_t *) = sqlite3_column_int64(st, i); break;
    case 's': *va_arg(ap, struct slice *) = column_text(st, i, mem); break;
    case 'b': *va_arg(ap, bool *) = sqlite3_column_int(st, i) != 0; break;
    case 'd':
      *va_arg(ap, double *) = sqlite3_column_type(st, i) == SQLITE_NULL ? -1 : sqlite3_column_double(st, i);
      break;
    case 'h':
      if (sqlite3_column_bytes(st, i) == 32)
        memcpy(va_arg(ap, uint8_t *), sqlite3_column_blob(st, i), 32);
      break;
    default: assert(!"a letter of db_get");
    }
  }
  va_end(ap);
}

void db_settle(struct db *db) {
  for (sqlite3_stmt *st = NULL; (st = sqlite3_next_stmt(db->h, st)) != NULL;)
    if (sqlite3_stmt_busy(st))
      (void)sqlite3_reset(st); /* no failure is pending: it stands on a row */
}
