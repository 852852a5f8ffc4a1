#include "base/gzip.h"
#include "base/mem.h"
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#define CHUNK_BYTES  65536
#define GZIP_FORMAT  16 /* added to the window bits: a gzip header */
#define GZIP_DETECT  32
#define MEMORY_LEVEL 8

struct gzip_writer {
  z_stream z;
  int fd;
  char *path;
  unsigned char out[CHUNK_BYTES];
};

static int fail(struct err *e, const char *path, int code) {
  return err_set(e, code, "%s: %s", path, strerror(-code));
}

static int write_all(int fd, const unsigned char *p, size_t n) {
  while (n) {
    ssize_t w = write(fd, p, n);
    if (w < 0 && errno != EINTR)
      return -errno;
    if (w > 0) {
      p += w;
      n -= (size_t)w;
    }
  }
  return 0;
}

int gzip_create(const char *path, int level, struct gzip_writer **ret, struct err *e) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0)
    return fail(e, path, -errno);
  struct gzip_writer *w = mem_zalloc(sizeof *w);
  w->fd = fd;
  w->path = mem_strdup(path);
  if (deflateInit2(&w->z, level, Z_DEFLATED, MAX_WBITS + GZIP_FORMAT, MEMORY_LEVEL, Z_DEFAULT_STRATEGY) !=
      Z_OK)
    mem_exhausted(); /* the parameters are good */
  *ret = w;
  return 0;
}

static int feed(struct gzip_writer *w, struct slice bytes, int flush, struct err *e) {
  w->z.next_in = (z_const Bytef *)(uintptr_t)bytes.p; /* zlib does not write there */
  w->z.avail_in = (uInt)bytes.n;
  do {
    w->z.next_out = w->out;
    w->z.avail_out = sizeof w->out;
    (void)deflate(&w->z, flush); /* fails only for a broken stream */
    int r = write_all(w->fd, w->out, sizeof w->out - w->z.avail_out);
    if (r < 0)
      return fail(e, w->path, r);
  } while (w->z.avail_out == 0);
  return 0;
}

int gzip_write(struct gzip_writer *w, struct slice bytes, struct err *e) {
  return feed(w, bytes, Z_NO_FLUSH, e);
}

static void writer_free(struct gzip_writer **w) {
  (void)deflateEnd(&(*w)->z); /* says only that there was more to come */
  mem_free((*w)->path);
  mem_freep(w);
}

int gzip_finish(struct gzip_writer **p, struct err *e) {
  struct gzip_writer *w = *p;
  int r = feed(w, SLICE(""), Z_FINISH, e);
  if (r == 0 && fsync(w->fd) < 0)
    r = fail(e, w->path, -errno);
  if (close(w->fd) < 0 && r == 0)
    r = fail(e, w->path, -errno);
  if (r < 0)
    (void)unlink(w->path); /* what is left of it is of no use */
  writer_free(p);
  return r;
}

void gzip_abandon(struct gzip_writer **p) {
  if (!*p)
    return;
  (void)close((*p)->fd);
  (void)unlink((*p)->path); /* the next one of this name replaces it */
  writer_free(p);
}

/* ------------------------------------------------------------------ reading */
struct gzip_reader {
  z_stream z;
  int fd;
  char *path;
  struct str line;   /* what is decompressed and not given out yet */
  size_t given;      /* of it: given out by the last call */
  bool ended, whole; /* no more input; the last stream was complete */
  bool full;         /* the last piece filled its room: there may be more without more input */
  unsigned char in[CHUNK_BYTES];
};

int gzip_open(const char *path, struct gzip_reader **ret, struct err *e) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
  if (fd < 0)
    return fail(e, path, -errno);
  struct gzip_reader *r = mem_zalloc(sizeof *r);
  r->fd = fd;
  r->path = mem_strdup(path);
  r->whole = true; /* an empty file holds no line */
  str_init(&r->line, GZIP_LINE_MAX + CHUNK_BYTES);
  if (inflateInit2(&r->z, MAX_WBITS + GZIP_DETECT) != Z_OK)
    mem_exhausted();
  *ret = r;
  return 0;
}

static int read_chunk(struct gzip_reader *r, struct err *e) {
  ssize_t n;
  do
    n = read(r->fd, r->in, sizeof r->in);
  while (n < 0 && errno == EINTR);
  if (n < 0)
    return fail(e, r->path, -errno);
  r->z.next_in = r->in;
  r->z.avail_in = (uInt)n;
  r->ended = n == 0;
  return 0;
}

/* Decompress one more piece onto the end of `line`. */
static int more(struct gzip_reader *r, struct err *e) {
  unsigned char out[CHUNK_BYTES];
  int code = r->z.avail_in || r->full ? 0 : read_chunk(r, e);
  if (code < 0 || r->ended)
    return code;
  r->z.next_out = out;
  r->z.avail_out = sizeof out;
  int z = inflate(&r->z, Z_NO_FLUSH);
  if (z != Z_OK && z != Z_STREAM_END && z != Z_BUF_ERROR)
    return err_set(e, ERR_MALFORMED, "%s is damaged: %s", r->path, r->z.msg ? r->z.msg : "not compressed");
  str_add(&r->line, slice_n((char *)out, sizeof out - r->z.avail_out));
  if (str_failed(&r->line))
    return err_set(e, ERR_TOO_LARGE, "%s has a line of more than %zu bytes", r->path, GZIP_LINE_MAX);
  r->whole = z == Z_STREAM_END;
  r->full = !r->whole && r->z.avail_out == 0;
  if (r->whole)
    (void)inflateReset(&r->z); /* another stream may follow */
  return 0;
}

int gzip_line(struct gzip_reader *r, struct slice *ret, struct err *e) {
  size_t looked = 0;
  if (r->given) {
    memmove(r->line.p, r->line.p + r->given, r->line.n - r->given);
    r->line.n -= r->given;
    r->given = 0;
  }
  for (;;) {
    const char *end = r->line.n > looked ? memchr(r->line.p + looked, '\n', r->line.n - looked) : NULL;
    if (end) {
      *ret = slice_n(r->line.p, (size_t)(end - r->line.p));
      r->given = ret->n + 1;
      return 1;
    }
    looked = r->line.n;
    if (r->ended)
      break;
    int code = more(r, e);
    if (code < 0)
      return code;
  }
  if (r->line.n == 0 && r->whole)
    return 0;
  return err_set(e, ERR_MALFORMED, "%s ends in the middle", r->path);
}

void gzip_close(struct gzip_reader **p) {
  if (!*p)
    return;
  (void)close((*p)->fd);
  (void)inflateEnd(&(*p)->z);
  str_done(&(*p)->line);
  mem_free((*p)->path);
  mem_freep(p);
}
