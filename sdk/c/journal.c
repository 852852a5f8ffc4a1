#include "internal.h"
#include <fcntl.h>
#include <inttypes.h>
#include <unistd.h>

struct journal {
  int fd;
  bool fsync;
  struct mutex lock; /* protects the rest; written lines are numbered */
  struct cond synced_cond;
  uint64_t written, synced;
  bool syncing;
  int failed; /* -errno of the last fsync that failed */
};

int journal_open(const char *path, bool fsync, struct journal **ret, struct err *e) {
  int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0)
    return err_set(e, -errno, "the journal %s cannot be opened: %s", path, strerror(errno));
  struct journal *j = mem_zalloc(sizeof *j);
  j->fd = fd;
  j->fsync = fsync;
  mutex_init(&j->lock);
  cond_init(&j->synced_cond);
  *ret = j;
  return 0;
}

/* Until line `mine` is on the disk: one thread syncs for all whose lines were written before it began. With the lock. */
static int sync_up_to(struct journal *j, uint64_t mine) {
  while (j->synced < mine) {
    if (j->syncing) {
      (void)cond_wait(&j->synced_cond, &j->lock, USEC_NEVER);
      continue;
    }
    uint64_t all = j->written;
    j->syncing = true;
    mutex_unlock(&j->lock);
    int r = fdatasync(j->fd) < 0 ? -errno : 0;
    mutex_lock(&j->lock);
    j->syncing = false;
    j->failed = r;
    j->synced = all; /* even then: trying again would not bring back what the kernel has given up */
    cond_broadcast(&j->synced_cond);
  }
  return j->failed;
}

static int append(struct journal *j, struct slice line) {
  mutex_lock(&j->lock);
  ssize_t n = write(j->fd, line.p, line.n);
  int r = n == (ssize_t)line.n ? 0 : n < 0 ? -errno : -ENOSPC;
  uint64_t mine = ++j->written;
  if (r == 0 && j->fsync)
    r = sync_up_to(j, mine);
  mutex_unlock(&j->lock);
  return r;
}

int journal_write(struct journal *j, const struct kelou_run *r, const char *event, const char *state) {
  if (!j)
    return 0;
  char buf[SDK_ID_JSON_MAX + 512];
  int n = snprintf(buf, sizeof buf,
                   "{\"t\":%" PRId64 ",\"event\":\"%s\",\"run_id\":\"%s\",\"attempt\":%d,\"fence\":%" PRId64
                   ",\"executor\":\"%s\",\"state\":\"%s\"}\n",
                   sdk_wall(), event, r->id, r->attempt, r->fence, r->executor->id_json, state);
  return append(j, slice_n(buf, (size_t)n)); /* it fits: every part is bounded */
}

void journal_close(struct journal **j) {
  if (!*j)
    return;
  (void)close((*j)->fd); /* what matters has been synced */
  cond_done(&(*j)->synced_cond);
  mutex_done(&(*j)->lock);
  mem_freep(j);
}
