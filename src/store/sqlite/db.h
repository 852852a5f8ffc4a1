#pragma once
/* One SQLite connection with its prepared statements (sql.def), and short ways to bind and to read. A connection is used by one
 * thread at a time. Negative codes are those of store.h. */
#include "base/mem.h"
#include "base/time.h"
#include <sqlite3.h>

enum sql {
#define SQL(name, text) SQL_##name,
#include "store/sqlite/sql.def"
  SQL_MAX_
};

struct db {
  sqlite3 *h;
  sqlite3_stmt *st[SQL_MAX_]; /* prepared at first use */
  const struct clock *clock;
  usec_t deadline; /* monotonic; 0 = none: a statement running longer is ended */
};

/* `read_only` refuses writes but can take part in a checkpoint. `busy` = how long to wait for a lock of another process. */
int db_open(struct db *db, const char *path, const struct clock *clock, bool read_only, usec_t busy,
            struct err *e);
void db_close(struct db *db);

/* Bind by `types`, one letter a parameter: i int32 or enum, l int64, s slice (p == NULL: NULL), t slice (p == NULL: empty text),
 * d double (negative: NULL), h 32 bytes. Texts are borrowed until the statement is bound again or db_settle. */
int db_query(struct db *db, enum sql id, struct err *e, const char *types, ...);
/* 1: a row, 0: no more (and reset). */
int db_step(struct db *db, enum sql id, struct err *e);
/* Read the row's columns by `types`, into: i int32* or enum*, l int64*, s slice* (copied into mem), d double* (NULL: -1), b bool*,
 * h uint8_t[32]. */
void db_get(struct db *db, enum sql id, struct arena *mem, const char *types, ...);
/* A statement without rows: the number of rows it changed, or negative. */
int db_run(struct db *db, enum sql id, struct err *e, const char *types, ...);
/* db_query and the first step. */
#define db_first(db, id, e, ...)                                                                             \
  ({                                                                                                         \
    int first_ = db_query((db), (id), (e), __VA_ARGS__);                                                     \
    first_ < 0 ? first_ : db_step((db), (id), (e));                                                          \
  })
/* Reset whatever was left in the middle: ends the read snapshot. */
void db_settle(struct db *db);
int db_exec(struct db *db, const char *sql, struct err *e);
/* The connection's last error as a code of store.h (nothing was written), with SQLite's text. */
int db_fail(struct db *db, struct err *e);
/* True when the last failure was a UNIQUE or PRIMARY KEY violation. */
bool db_is_duplicate(struct db *db);
