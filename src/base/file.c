#include "base/file.h"
#include "base/rng.h"
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES 16384

static int fail(struct err *e, const char *path, int code) {
  return err_set(e, code, "%s: %s", path, strerror(-code));
}

static int read_all(int fd, const char *path, size_t max_bytes, struct str *out, struct err *e) {
  char chunk[CHUNK_BYTES];
  size_t total = 0;
  for (;;) {
    ssize_t n = read(fd, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return fail(e, path, -errno);
    if (n == 0)
      return 0;
    total += (size_t)n;
    str_add(out, slice_n(chunk, (size_t)n));
    if (total > max_bytes || str_failed(out))
      return err_set(e, ERR_TOO_LARGE, "%s is larger than %zu bytes", path, max_bytes);
  }
}

int file_read(const char *path, size_t max_bytes, struct str *out, struct err *e) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK); /* a FIFO must not hang the opener */
  if (fd < 0)
    return fail(e, path, -errno);
  struct stat st;
  int r;
  if (fstat(fd, &st) < 0)
    r = fail(e, path, -errno);
  else if (!S_ISREG(st.st_mode))
    r = fail(e, path, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL);
  else
    r = read_all(fd, path, max_bytes, out, e);
  (void)close(fd); /* read-only: nothing can be lost */
  return r;
}

int file_read_below(const char *dir, const char *name, size_t max_bytes, struct str *out, struct err *e) {
  char path[PATH_MAX];
  int n = snprintf(path, sizeof path, "%s/%s", dir, name);
  if (n < 0 || (size_t)n >= sizeof path)
    return fail(e, name, -ENAMETOOLONG);
  return file_read(path, max_bytes, out, e);
}

uint64_t file_stamp(const char *path) {
  struct stat st;
  if (stat(path, &st) < 0)
    return 0;
  uint64_t h = hash_u64((uint64_t)st.st_mtim.tv_sec) ^ (uint64_t)st.st_mtim.tv_nsec;
  return hash_u64(hash_u64(h) ^ (uint64_t)st.st_ino ^ (uint64_t)st.st_size) | 1;
}

static int sync_folder_of(const char *path, struct err *e) {
  char folder[PATH_MAX];
  const char *slash = strrchr(path, '/');
  if (text_copy(folder, sizeof folder, slash ? slice_n(path, (size_t)(slash - path) + 1) : SLICE(".")) < 0)
    return fail(e, path, -ENAMETOOLONG);
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return fail(e, folder, -errno);
  int r = fsync(fd) < 0 ? fail(e, folder, -errno) : 0;
  (void)close(fd); /* read-only: nothing can be lost */
  return r;
}

int file_publish(const char *from, const char *to, struct err *e) {
  if (rename(from, to) < 0)
    return fail(e, to, -errno);
  return sync_folder_of(to, e);
}

static int copy_bytes(int in, int out) {
  char chunk[CHUNK_BYTES];
  for (;;) {
    ssize_t n = read(in, chunk, sizeof chunk);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return n < 0 ? -errno : 0;
    for (ssize_t done = 0; done < n;) {
      ssize_t w = write(out, chunk + done, (size_t)(n - done));
      if (w < 0 && errno != EINTR)
        return -errno;
      done += w > 0 ? w : 0;
    }
  }
}

int file_copy(const char *from, const char *to, bool replace, struct err *e) {
  int in = open(from, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (in < 0)
    return fail(e, from, -errno);
  int out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (replace ? O_TRUNC : O_EXCL), 0600);
  int r = out < 0 ? fail(e, to, -errno) : 0;
  if (r == 0) {
    r = copy_bytes(in, out);
    if (r == 0 && fsync(out) < 0)
      r = -errno;
    if (close(out) < 0 && r == 0)
      r = -errno;
    if (r < 0)
      (void)fail(e, to, r);
  }
  (void)close(in); /* read-only: nothing can be lost */
  return r;
}
