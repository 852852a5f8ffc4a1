#pragma once
/* Numbered, checksummed migrations. The scripts are schema/<database>/NNNN_name.sql, built into the program (embed.py); those
 * applied are rows of schema_migration(number, name, checksum, applied_at). Private to src/store. */
#include "base/err.h"
#include "base/mem.h"

struct migration { /* tables end with a row whose name is NULL */
  int32_t number;
  const char *name; /* the script's file name */
  const char *sql;
};
extern const struct migration sqlite_migrations[], pg_migrations[];

#define MIGRATION_CHECKSUM_LEN 16
struct migration_applied {
  int32_t number;
  struct slice name, checksum; /* lower-case hex */
};

/* How a back end does it; `db` is its own connection, and holds its migration lock during migrate_run. */
struct migrate_ops {
  /* Make schema_migration if it is not there, read it, ascending number. */
  int (*list)(void *db, struct arena *mem, struct migration_applied **ret, size_t *ret_count, struct err *e);
  /* One transaction: the script, then its row of schema_migration. */
  int (*apply)(void *db, const struct migration *m, const char *checksum, struct err *e);
};
/* Check what is applied, apply what is missing. ERR_SCHEMA names the script: changed since it was applied, or a number that this
 * program does not know. */
int migrate_run(const struct migration *known, const struct migrate_ops *ops, void *db, int32_t *ret_version,
                struct err *e);
/* `ret_text` of MIGRATION_CHECKSUM_LEN + 1. Line ends and blanks count: a script never changes once it is released. */
void migration_checksum(const struct migration *m, char *ret_text);
