#include "server/backup.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/backup.h"
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATABASE "kelou.db"
#define KEY      "secret.key"
#define KEY_MAX  ((size_t)64 * 1024)

static struct store_options options(const struct conf *conf) {
  return (struct store_options){.url = conf_str(conf, "store.url"),
                                .statement_timeout = conf_usec(conf, "store.statement_timeout"),
                                .clock = &clock_system};
}

static const char *below(struct arena *mem, const char *dir, const char *name) {
  return arena_printf(mem, "%s/%s", dir, name);
}

int server_backup(const struct conf *conf, const char *dir, struct err *e) {
  auto_arena mem = {0};
  struct store_options o = options(conf);
  const char *to = below(&mem, dir, DATABASE), *key = below(&mem, conf_str(conf, "node.state_dir"), KEY);
  if (mkdir(dir, 0700) < 0 && errno != EEXIST)
    return err_set(e, -errno, "%s: %s", dir, strerror(errno));
  if (access(to, F_OK) == 0)
    return err_set(e, ERR_CONFLICT, "%s exists: a backup has a folder of its own", to);
  int r =
      file_copy(key, below(&mem, dir, KEY), true, e); /* first: a folder with a database is a whole backup */
  if (r == 0)
    r = store_backup(&o, to, e);
  if (r == 0)
    (void)printf(
        "backup: %s and %s; the key opens the secrets in the database: keep both, and keep them safe\n", to,
        below(&mem, dir, KEY));
  return r;
}

/* The key of the backup's time; another one that was here stays beside it. */
static int restore_key(const char *from, const char *to, struct err *e) {
  auto_arena mem = {0};
  auto_str old, new;
  str_init(&old, KEY_MAX);
  str_init(&new, KEY_MAX);
  int r = file_read(from, KEY_MAX, &new, e);
  if (r < 0)
    return r;
  bool had = file_read(to, KEY_MAX, &old, NULL) == 0;
  if (had && slice_eq(str_slice(&old), str_slice(&new)))
    return 0;
  if (had)
    r = file_copy(to, arena_printf(&mem, "%s.before-restore", to), true, e);
  const char *part = arena_printf(&mem, "%s.restore", to);
  if (r == 0)
    r = file_copy(from, part, true, e);
  return r < 0 ? r : file_publish(part, to, e);
}

int server_restore(const struct conf *conf, const char *dir, struct err *e) {
  auto_arena mem = {0};
  struct store_options o = options(conf);
  const char *state = conf_str(conf, "node.state_dir"), *key = below(&mem, dir, KEY);
  if (access(key, R_OK) < 0)
    return err_set(e, -errno, "%s: %s; a backup has this file and " DATABASE, key, strerror(errno));
  if (mkdir(state, 0700) < 0 && errno != EEXIST)
    return err_set(e, -errno, "%s: %s", state, strerror(errno));
  int r = store_restore(&o, below(&mem, dir, DATABASE), e);
  if (r == 0)
    r = restore_key(key, below(&mem, state, KEY), e);
  if (r == 0)
    (void)puts(
        "restored, with every epoch raised; what was there before has names that end in .before-restore");
  return r;
}

int server_after_restore(const struct conf *conf, struct err *e) {
  struct store_options o = options(conf);
  int r = store_after_restore(&o, e);
  if (r == 0)
    (void)puts("every epoch is raised: the nodes may start");
  return r;
}
