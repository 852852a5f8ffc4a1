#include "store/sqlite/sqlite.h"
#include "core/model.h"
#include "store/migrate.h"
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_STATEMENT_TIMEOUT (30 * USEC_PER_SEC)
#define LOCK_TIMEOUT_SHARE        6 /* of the statement time-out */
#define SHARD_COUNT_MAX           1024

/* The database file next to its lock file: whoever holds the flock owns every shard, that is the lease. */
int sqlite_lock_database(const char *path, int *ret_fd, struct err *e) {
  auto_arena mem = {};
  const char *name = arena_printf(&mem, "%s.lock", path);
  char pid[32] = "";
  int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0)
    return err_set(e, -errno, "cannot open %s: %s", name, strerror(errno));
  if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
    if (read(fd, pid, sizeof pid - 1) <= 0)
      (void)text_copy(pid, sizeof pid, SLICE("unknown")); /* it fits */
    pid[strcspn(pid, "\n")] = '\0';
    close(fd);
    return err_set(e, ERR_CONFLICT, "%s is in use by the process %s", path, pid);
  }
  int n = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
  if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) != n) {
    int code = -errno;
    close(fd);
    return err_set(e, code, "cannot write %s: %s", name, strerror(-code));
  }
  *ret_fd = fd;
  return 0;
}

/* Before SQLite does, so that nobody else can read it. */
static int create_file(const char *path, struct err *e) {
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0)
    return err_set(e, -errno, "cannot open the database %s: %s", path, strerror(errno));
  close(fd);
  return 0;
}

static int list_applied(void *arg, struct arena *mem, struct migration_applied **ret, size_t *ret_count,
                        struct err *e) {
  struct db *db = arg;
  struct migration_applied *rows = NULL;
  sqlite3_stmt *st = NULL;
  size_t n = 0, cap = 0;
  int rc = SQLITE_ERROR;
  int r =
      db_exec(db,
              "CREATE TABLE IF NOT EXISTS schema_migration (number INTEGER PRIMARY KEY, name TEXT NOT NULL,"
              " checksum TEXT NOT NULL, applied_at INTEGER NOT NULL)",
              e);
  if (r < 0)
    return r;
  if (sqlite3_prepare_v2(db->h, "SELECT number, name, checksum FROM schema_migration ORDER BY number", -1,
                         &st, NULL) == SQLITE_OK)
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
      struct migration_applied *row = sqlite_push(mem, rows, n, cap);
      row->number = sqlite3_column_int(st, 0);
      row->name = arena_slice(mem, slice_of((const char *)sqlite3_column_text(st, 1)));
      row->checksum = arena_slice(mem, slice_of((const char *)sqlite3_column_text(st, 2)));
    }
  if (rc != SQLITE_DONE)
    r = db_fail(db, e);
  (void)sqlite3_finalize(st); /* reports the same failure again */
  if (r < 0)
    return r;
  *ret = rows;
  *ret_count = n;
  return 0;
}

static int record_applied(struct db *db, const struct migration *m, const char *checksum, struct err *e) {
  sqlite3_stmt *st = NULL;
  int rc = sqlite3_prepare_v2(db->h, "INSERT INTO schema_migration VALUES (?1, ?2, ?3, ?4)", -1, &st, NULL);
  if (rc == SQLITE_OK) {
    (void)sqlite3_bind_int(st, 1, m->number); /* a failed bind shows as a NOT NULL violation */
    (void)sqlite3_bind_text(st, 2, m->name, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(st, 3, checksum, -1, SQLITE_STATIC);
    (void)sqlite3_bind_int64(st, 4, db->clock->wall(db->clock));
    rc = sqlite3_step(st);
  }
  int r = rc == SQLITE_DONE ? 0 : db_fail(db, e);
  (void)sqlite3_finalize(st); /* reports the same failure again */
  return r;
}

static int apply_migration(void *arg, const struct migration *m, const char *checksum, struct err *e) {
  struct db *db = arg;
  int r = db_exec(db, "BEGIN EXCLUSIVE", e);
  if (r < 0)
    return r;
  r = db_exec(db, m->sql, e);
  if (r == 0)
    r = record_applied(db, m, checksum, e);
  if (r == 0)
    r = db_exec(db, "COMMIT", e);
  if (r < 0)
    (void)db_exec(db, "ROLLBACK", NULL); /* the failure is known already */
  return r;
}

static const struct migrate_ops migrate_ops = {.list = list_applied, .apply = apply_migration};

static int create_shards(struct db *db, int32_t count, struct err *e) {
  if (count < 1 || count > SHARD_COUNT_MAX)
    return err_set(e, ERR_INVALID, "expected 1 to %d shards", SHARD_COUNT_MAX);
  int r = db_run(db, SQL_META_ADD, e, "sl", SLICE("shard_count"), (int64_t)count);
  for (int32_t i = 0; r >= 0 && i < count; i++) {
    r = db_run(db, SQL_SHARD_NEW, e, "il", i, db->clock->wall(db->clock));
    if (r >= 0)
      r = db_run(db, SQL_SHARD_FINISH_NEW, e, "i", i);
  }
  return r;
}

/* The flock is ours, so every earlier owner is gone: release its shards and raise the fences. */
static int take_over(struct sqlite_source *src, const struct store_options *o, struct err *e) {
  struct db *db = &src->writer;
  int64_t count = o->shard_count;
  int r = db_exec(db, "BEGIN EXCLUSIVE", e);
  if (r < 0)
    return r;
  r = db_first(db, SQL_META_GET, e, "s", SLICE("shard_count"));
  if (r > 0)
    db_get(db, SQL_META_GET, NULL, "l", &count);
  else if (r == 0)
    r = create_shards(db, o->shard_count, e);
  db_settle(db);
  if (r >= 0)
    r = db_exec(db,
                "UPDATE shard SET owner = '', epoch = epoch + 1;"
                "UPDATE shard_finish SET epoch = (SELECT epoch FROM shard WHERE shard.id = shard_finish.id);"
                "DELETE FROM node WHERE drained = 0; UPDATE node SET incarnation = 0; COMMIT",
                e);
  if (r < 0) {
    (void)db_exec(db, "ROLLBACK", NULL); /* the failure is known already */
    return r;
  }
  src->shard_count = (int32_t)count;
  return 0;
}

static void source_close(struct store_source *base) {
  struct sqlite_source *src = (struct sqlite_source *)base;
  if (src->writer.h) {
    (void)sqlite3_wal_checkpoint_v2(src->writer.h, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL,
                                    NULL); /* else at the next open */
    db_close(&src->writer);
  }
  if (src->lock_fd >= 0)
    close(src->lock_fd);
  mutex_done(&src->queue.m);
  mutex_done(&src->news_m);
  cond_done(&src->news_c);
  mem_free(src->touched);
  mem_free(src->parents);
  mem_free(src->news);
  mem_free(src->path);
  mem_free(src);
}

static const struct store_source_ops source_ops = {
    .name = "sqlite", .session = sqlite_session, .close = source_close};

static int open_writer(struct sqlite_source *src, const struct store_options *o, struct err *e) {
  int r = sqlite_lock_database(src->path, &src->lock_fd, e);
  if (r == 0)
    r = create_file(src->path, e);
  if (r == 0)
    r = db_open(&src->writer, src->path, src->clock, false, src->lock_timeout, e);
  if (r == 0)
    r = migrate_run(sqlite_migrations, &migrate_ops, &src->writer, &src->schema_version, e);
  if (r == 0)
    r = take_over(src, o, e);
  return r;
}

int sqlite_path_of(const char *url, const char **ret, struct err *e) {
  const char *path = url + strlen("sqlite:");
  if (strncmp(path, "///", 3) == 0)
    path += 2;
  if (!*path || strchr(path, '?'))
    return err_set(e, ERR_INVALID, "expected sqlite:PATH, the path of a file");
  *ret = path;
  return 0;
}

int sqlite_source_open(const struct store_options *o, struct store_source **ret, struct err *e) {
  const char *path;
  int r = sqlite_path_of(o->url, &path, e);
  if (r < 0)
    return r;
  struct sqlite_source *src = mem_zalloc(sizeof *src);
  src->base.ops = &source_ops;
  src->path = mem_strdup(path);
  src->lock_fd = -1;
  src->clock = o->clock ? o->clock : &clock_system;
  src->statement_timeout = o->statement_timeout > 0 ? o->statement_timeout : DEFAULT_STATEMENT_TIMEOUT;
  src->lock_timeout = src->statement_timeout / LOCK_TIMEOUT_SHARE;
  mutex_init(&src->queue.m);
  mutex_init(&src->news_m);
  cond_init(&src->news_c);
  r = open_writer(src, o, e);
  if (r < 0) {
    source_close(&src->base);
    return r;
  }
  src->touched = mem_array((size_t)src->shard_count + 1, sizeof *src->touched);
  src->news = mem_array((size_t)src->shard_count + 1, sizeof *src->news);
  *ret = &src->base;
  return 0;
}

/* ------------------------------------------------------------------ looking from outside */
static bool is_locked(const char *path) {
  auto_arena mem = {};
  int fd = open(arena_printf(&mem, "%s.lock", path), O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return false;
  bool locked = flock(fd, LOCK_SH | LOCK_NB) < 0;
  close(fd);
  return locked;
}

int sqlite_source_probe(const struct store_options *o, struct store_probe *ret, struct err *e) {
  const char *path = o->url + strlen("sqlite:");
  sqlite3 *h = NULL;
  sqlite3_stmt *st = NULL;
  if (access(path, F_OK) < 0)
    return err_set(e, ERR_NOT_FOUND, "there is no file %s", path);
  int rc = sqlite3_open_v2(path, &h, SQLITE_OPEN_READONLY, NULL);
  if (rc == SQLITE_OK)
    rc = sqlite3_prepare_v2(h, "SELECT count(*) FROM schema_migration", -1, &st, NULL);
  if (rc == SQLITE_OK)
    rc = sqlite3_step(st);
  if (rc == SQLITE_ROW)
    ret->schema = sqlite3_column_int(st, 0);
  else
    (void)err_set(e, ERR_UNAVAILABLE, "SQLite: %s", sqlite3_errmsg(h));
  (void)sqlite3_finalize(st); /* reports the same failure again */
  (void)sqlite3_close(h);     /* cannot fail: no statement is left */
  while (sqlite_migrations[ret->known].name)
    ret->known++;
  (void)snprintf(ret->server, sizeof ret->server, "SQLite %s", sqlite3_libversion());
  ret->now = clock_system.wall(&clock_system);
  ret->in_use = is_locked(path);
  return rc == SQLITE_ROW ? 0 : ERR_UNAVAILABLE;
}
