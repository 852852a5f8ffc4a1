#include "store/backup.h"
#include "store/source.h"

struct backend {
  const char *scheme; /* what the URL begins with */
  int (*open)(const struct store_options *o, struct store_source **ret, struct err *e);
  int (*backup)(const struct store_options *o, const char *path, struct err *e); /* NULL: not here */
  int (*restore)(const struct store_options *o, const char *from, struct err *e);
  int (*after_restore)(const struct store_options *o, struct err *e);
};
static const struct backend backends[] = {
    {"sqlite:", sqlite_source_open, sqlite_backup, sqlite_restore, sqlite_after_restore},
    {"postgres://", pg_source_open, NULL, NULL, pg_after_restore},
    {"postgresql://", pg_source_open, NULL, NULL, pg_after_restore},
};

static int backend_of(const struct store_options *o, const struct backend **ret, struct err *e) {
  for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++)
    if (strncmp(o->url, backends[i].scheme, strlen(backends[i].scheme)) == 0) {
      *ret = &backends[i];
      return 0;
    }
  return err_set(e, ERR_INVALID,
                 "expected a database URL that begins with sqlite:, postgres:// or postgresql://");
}

int store_source_open(const struct store_options *o, struct store_source **ret, struct err *e) {
  const struct backend *b = NULL;
  int r = backend_of(o, &b, e);
  return r < 0 ? r : b->open(o, ret, e);
}

int store_backup(const struct store_options *o, const char *path, struct err *e) {
  const struct backend *b = NULL;
  int r = backend_of(o, &b, e);
  if (r == 0 && !b->backup)
    return err_set(e, -ENOTSUP, "this database is copied with its own tools: pg_dump (docs/retention.md)");
  return r < 0 ? r : b->backup(o, path, e);
}

int store_restore(const struct store_options *o, const char *from, struct err *e) {
  const struct backend *b = NULL;
  int r = backend_of(o, &b, e);
  if (r == 0 && !b->restore)
    return err_set(e, -ENOTSUP,
                   "this database is restored with its own tools: pg_restore, then keloud --after-restore "
                   "(docs/retention.md)");
  return r < 0 ? r : b->restore(o, from, e);
}

int store_after_restore(const struct store_options *o, struct err *e) {
  const struct backend *b = NULL;
  int r = backend_of(o, &b, e);
  return r < 0 ? r : b->after_restore(o, e);
}
