#include "access/token_file.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int failed(struct err *e, const char *what, const char *path) {
  int code = -errno;
  return err_set(e, code, "cannot %s %s: %s", what, path, strerror(-code));
}

int token_file_init(struct token_file *f, const char *dir, struct err *e) {
  int n = snprintf(f->final, sizeof f->final, "%s/admin.token", dir);
  int m = snprintf(f->pending, sizeof f->pending, "%s/admin.token.new", dir);
  int k = snprintf(f->former, sizeof f->former, "%s/admin.token.old", dir);
  f->dir = dir;
  if (n < 0 || m < 0 || k < 0 || (size_t)m >= sizeof f->pending || (size_t)k >= sizeof f->former)
    return err_set(e, ERR_INVALID, "the path of the state folder is too long");
  return 0;
}

static int read_all(int fd, char *buf, size_t size, size_t *ret_n) {
  size_t n = 0;
  while (n < size) {
    ssize_t k = read(fd, buf + n, size - n);
    if (k < 0 && errno == EINTR)
      continue;
    if (k < 0)
      return -errno;
    if (k == 0)
      break;
    n += (size_t)k;
  }
  *ret_n = n;
  return 0;
}

int token_file_read(const struct token_file *f, char *ret_text, size_t size, struct err *e) {
  int fd = open(f->pending, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0)
    return errno == ENOENT ? -ENOENT : failed(e, "open", f->pending);
  char buf[256];
  size_t n = 0;
  int r = read_all(fd, buf, sizeof buf, &n);
  (void)close(fd); /* only read from */
  if (r < 0)
    return err_set(e, r, "cannot read %s: %s", f->pending, strerror(-r));
  if (n < 2 || buf[n - 1] != '\n' || n > size)
    return -ENOENT; /* torn: the end of the line was written last */
  memcpy(ret_text, buf, n - 1);
  ret_text[n - 1] = 0;
  return 0;
}

static int write_all(int fd, struct slice s) {
  while (s.n) {
    ssize_t k = write(fd, s.p, s.n);
    if (k < 0 && errno != EINTR)
      return -errno;
    if (k > 0)
      s = slice_n(s.p + k, s.n - (size_t)k);
  }
  return fsync(fd) < 0 ? -errno : 0;
}

static int sync_dir(const struct token_file *f, struct err *e) {
  int fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return failed(e, "open", f->dir);
  int r = fsync(fd) < 0 ? failed(e, "sync", f->dir) : 0;
  (void)close(fd);
  return r;
}

int token_file_write(const struct token_file *f, const char *text, struct err *e) {
  token_file_discard(f);
  int fd = open(f->pending, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return failed(e, "create", f->pending);
  char line[256];
  int n = snprintf(line, sizeof line, "%s\n", text);
  int r = write_all(fd, slice_n(line, (size_t)n));
  if (close(fd) < 0 && r == 0)
    r = -errno;
  if (r < 0)
    return err_set(e, r, "cannot write %s: %s", f->pending, strerror(-r));
  return sync_dir(f, e);
}

/* A crash between the two renames leaves the pending file, and the next start goes on. */
int token_file_publish(const struct token_file *f, bool *ret_kept, struct err *e) {
  *ret_kept = rename(f->final, f->former) == 0;
  if (!*ret_kept && errno != ENOENT)
    return failed(e, "rename", f->final);
  if (*ret_kept && chmod(f->former, 0600) < 0)
    return failed(e, "protect", f->former);
  if (rename(f->pending, f->final) < 0)
    return failed(e, "rename", f->pending);
  return sync_dir(f, e);
}

void token_file_discard(const struct token_file *f) {
  (void)unlink(f->pending); /* absent is fine; a real trouble shows when it is created */
}
