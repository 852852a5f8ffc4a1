/* A database as a file: copied while it is used, put back, and made safe after that. */
#include "store/backup.h"
#include "base/file.h"
#include "store/sqlite/sqlite.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUSY_TRIES 50
#define BUSY_MS    100

static int sql_fail(sqlite3 *h, const char *path, struct err *e) {
  return err_set(e, ERR_UNAVAILABLE, "%s: %s", path, h ? sqlite3_errmsg(h) : "out of memory");
}

static int open_file(const char *path, int flags, sqlite3 **ret, struct err *e) {
  if (access(path, F_OK) < 0)
    return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : -errno, "%s: %s", path, strerror(errno));
  if (sqlite3_open_v2(path, ret, flags, NULL) == SQLITE_OK) {
    (void)sqlite3_busy_timeout(*ret, BUSY_TRIES * BUSY_MS);
    return 0;
  }
  int r = sql_fail(*ret, path, e);
  (void)sqlite3_close(*ret); /* nothing is open in it */
  *ret = NULL;
  return r;
}

static int run(sqlite3 *h, const char *path, const char *sql, struct err *e) {
  return sqlite3_exec(h, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : sql_fail(h, path, e);
}

/* "ok" is what a whole database answers. */
static int check(sqlite3 *h, const char *path, struct err *e) {
  sqlite3_stmt *st = NULL;
  int r = ERR_MALFORMED;
  if (sqlite3_prepare_v2(h, "PRAGMA quick_check(1)", -1, &st, NULL) == SQLITE_OK &&
      sqlite3_step(st) == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(st, 0), "ok") == 0)
    r = 0;
  (void)sqlite3_finalize(st); /* reports the same failure again */
  return r < 0 ? err_set(e, r, "%s is damaged, or no database", path) : 0;
}

/* One step holds one snapshot: the writers go on, and what they add is not in the copy. */
static int copy(sqlite3 *to, sqlite3 *from, const char *path, struct err *e) {
  sqlite3_backup *b = sqlite3_backup_init(to, "main", from, "main");
  if (!b)
    return sql_fail(to, path, e);
  int rc = SQLITE_BUSY;
  for (int i = 0; (rc == SQLITE_BUSY || rc == SQLITE_LOCKED) && i < BUSY_TRIES; i++) {
    rc = sqlite3_backup_step(b, -1);
    if (rc == SQLITE_BUSY || rc == SQLITE_LOCKED)
      (void)sqlite3_sleep(BUSY_MS);
  }
  int r = sqlite3_backup_finish(b);
  return rc == SQLITE_DONE && r == SQLITE_OK ? 0 : sql_fail(to, path, e);
}

static int sync_file(const char *path, struct err *e) {
  int fd = open(path, O_RDWR | O_CLOEXEC);
  int r = fd < 0 || fsync(fd) < 0 ? err_set(e, -errno, "%s: %s", path, strerror(errno)) : 0;
  if (fd >= 0)
    (void)close(fd); /* synced above */
  return r;
}

/* Copy into a new file, one that needs nothing beside it; `then` is done there too (may be NULL). */
static int copy_to_file(const char *from, const char *to, const char *then, struct err *e) {
  sqlite3 *source = NULL, *made = NULL;
  (void)unlink(to); /* the rest of an earlier try */
  int fd = open(to, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0)
    return err_set(e, -errno, "%s: %s", to, strerror(errno));
  (void)close(fd); /* it is empty */
  int r = open_file(from, SQLITE_OPEN_READWRITE, &source, e);
  if (r == 0)
    r = open_file(to, SQLITE_OPEN_READWRITE, &made, e);
  if (r == 0)
    r = copy(made, source, to, e);
  if (r == 0)
    r = check(made, from, e);
  if (r == 0)
    r = run(made, to, "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL", e);
  if (r == 0 && then)
    r = run(made, to, then, e);
  (void)sqlite3_close(source); /* no statement is left */
  if (sqlite3_close(made) != SQLITE_OK && r == 0)
    r = err_set(e, ERR_INTERNAL, "%s: not closed", to);
  if (r == 0)
    r = sync_file(to, e);
  if (r < 0)
    (void)unlink(to); /* of no use */
  return r;
}

int sqlite_backup(const struct store_options *o, const char *path, struct err *e) {
  auto_arena mem = {0};
  const char *part = arena_printf(&mem, "%s.part", path), *from;
  int r = sqlite_path_of(o->url, &from, e);
  if (r == 0)
    r = copy_to_file(from, part, NULL, e);
  return r < 0 ? r : file_publish(part, path, e);
}

/* ------------------------------------------------------------------ back */
#define STEP "1048576"
_Static_assert(STORE_RESTORE_STEP == 1048576, "the step in the statements");
static const char after_restore[] =
    "BEGIN IMMEDIATE; UPDATE shard SET owner = '', inbox_last = inbox_last + " STEP ", epoch = " STEP
    " + max(epoch, (SELECT f.epoch FROM shard_finish f WHERE f.id = shard.id));"
    "UPDATE shard_finish SET epoch = (SELECT epoch FROM shard WHERE shard.id = shard_finish.id);"
    "UPDATE meta SET value = value + " STEP " WHERE name <> 'shard_count';"
    "UPDATE history_batch SET no = no + " STEP ", archived = 0; DELETE FROM node; COMMIT";

/* What was there goes on to exist beside it, with its log, should that not have gone into it. */
static int set_aside(const char *path, struct err *e) {
  static const char *const parts[] = {"-wal", "-shm"};
  auto_arena mem = {0};
  const char *aside = arena_printf(&mem, "%s.before-restore", path);
  sqlite3 *h = NULL;
  if (access(path, F_OK) < 0)
    return 0;
  if (open_file(path, SQLITE_OPEN_READWRITE, &h, NULL) ==
      0) { /* it may be damaged: that is why we are here */
    (void)sqlite3_wal_checkpoint_v2(h, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    (void)sqlite3_close(h); /* no statement is left */
  }
  for (size_t i = 0; i < 2; i++) { /* a log left here would be played into the restored file */
    const char *from = arena_printf(&mem, "%s%s", path, parts[i]);
    if (rename(from, arena_printf(&mem, "%s%s", aside, parts[i])) < 0 && errno != ENOENT)
      return err_set(e, -errno, "%s: %s", from, strerror(errno));
  }
  if ((unlink(aside) < 0 && errno != ENOENT) || link(path, aside) < 0)
    return err_set(e, -errno, "%s: %s", aside, strerror(errno));
  return 0;
}

int sqlite_restore(const struct store_options *o, const char *from, struct err *e) {
  auto_arena mem = {0};
  const char *path;
  int lock = -1;
  int r = sqlite_path_of(o->url, &path, e);
  if (r == 0)
    r = sqlite_lock_database(path, &lock, e);
  if (r < 0)
    return r;
  const char *part = arena_printf(&mem, "%s.restore", path);
  r = copy_to_file(from, part, after_restore, e);
  if (r == 0)
    r = set_aside(path, e);
  if (r == 0)
    r = file_publish(part, path, e);
  close(lock);
  return r;
}

int sqlite_after_restore(const struct store_options *o, struct err *e) {
  const char *path;
  sqlite3 *h = NULL;
  int lock = -1;
  int r = sqlite_path_of(o->url, &path, e);
  if (r == 0)
    r = sqlite_lock_database(path, &lock, e);
  if (r < 0)
    return r;
  r = open_file(path, SQLITE_OPEN_READWRITE, &h, e);
  if (r == 0)
    r = run(h, path, "PRAGMA synchronous = FULL", e);
  if (r == 0)
    r = run(h, path, after_restore, e);
  (void)sqlite3_close(h); /* rolls back what was not committed */
  close(lock);
  return r;
}
