#include "base/log.h"
#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>

#define LOG_LINE_MAX   ((size_t)32768)
#define LOG_VALUE_MAX  ((size_t)4096)
#define LOG_ESCAPE_MAX 6  /* bytes that one byte may become */
#define LOG_TAIL_MAX   64 /* kept free for the mark of a cut line */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static atomic_int log_level = LOG_INFO;
static atomic_int log_format = LOG_LOGFMT;
static atomic_int log_fd =
    STDERR_FILENO; /* once a file, its number never changes: dup3 swaps what is behind it */
static const struct clock *_Atomic log_clock = &clock_system;
static const char *_Atomic log_node_id;

static int open_file(const char *path, struct err *e) {
  int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
  if (fd < 0) {
    int code = -errno;
    return err_set(e, code, "cannot open log file %s: %s", path, strerror(-code));
  }
  return fd;
}

/* Put what `fd` refers to behind the number the writers use. */
static int swap_fd(int fd, struct err *e) {
  int now = atomic_load(&log_fd);
  if (now == fd)
    return 0;
  if (now == STDERR_FILENO) {
    atomic_store(&log_fd, fd);
    return 0;
  }
  int r = dup3(fd, now, O_CLOEXEC) < 0 ? -errno : 0;
  if (fd != STDERR_FILENO)
    (void)close(fd);
  return r < 0 ? err_set(e, r, "cannot switch the log: %s", strerror(-r)) : 0;
}

int log_open(const struct log_options *o, struct err *e) {
  int fd = o->path ? open_file(o->path, e) : STDERR_FILENO;
  if (fd < 0)
    return fd;
  int r = swap_fd(fd, e);
  if (r < 0)
    return r;
  atomic_store(&log_format, (int)o->format);
  atomic_store(&log_clock, o->clock ? o->clock : &clock_system);
  log_level_set(o->level);
  return 0;
}

void log_level_set(enum log_level level) { atomic_store(&log_level, (int)level); }
bool log_enabled(enum log_level level) {
  return (int)level >= atomic_load_explicit(&log_level, memory_order_relaxed);
}
void log_node(const char *node_id) { atomic_store(&log_node_id, node_id); }

/* A value that may stand without quotes in logfmt. */
static bool is_bare(struct slice v) {
  for (size_t i = 0; i < v.n; i++) {
    unsigned char c = (unsigned char)v.p[i];
    if (c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == '\\')
      return false;
  }
  return v.n > 0;
}

static void add_key(struct str *out, bool json, const char *key) {
  if (json) {
    str_addz(out, out->n > 1 ? ",\"" : "\"");
    str_add_json(out, slice_of(key));
    str_addz(out, "\":");
  } else {
    if (out->n)
      str_addc(out, ' ');
    str_addz(out, key);
    str_addc(out, '=');
  }
}

static void add_text(struct str *out, bool json, const char *key, struct slice v) {
  bool cut = v.n > LOG_VALUE_MAX;
  if (cut)
    v.n = LOG_VALUE_MAX;
  add_key(out, json, key);
  if (!json && !cut && is_bare(v)) {
    str_add(out, v);
    return;
  }
  str_addc(out, '"');
  str_add_json(out, v);
  str_addz(out, cut ? "...\"" : "\"");
}

static void add_field(struct str *out, bool json, const struct log_field *f) {
  char buf[TIME_TEXT_MAX];
  switch (f->kind) {
  case LOGF_INT:
    add_key(out, json, f->key);
    str_addi(out, f->i);
    return;
  case LOGF_USEC: add_text(out, json, f->key, slice_of(duration_format(f->i, buf))); return;
  case LOGF_TIME: add_text(out, json, f->key, slice_of(time_format(f->i, buf))); return;
  case LOGF_STR:
  case LOGF_SLICE: break;
  }
  add_text(out, json, f->key, f->s);
}

static size_t worst_bytes(const struct log_field *f) {
  size_t value = f->kind == LOGF_STR || f->kind == LOGF_SLICE ? f->s.n : TIME_TEXT_MAX;
  return strlen(f->key) + (value < LOG_VALUE_MAX ? value : LOG_VALUE_MAX) * LOG_ESCAPE_MAX + 16;
}

void log_emit(enum log_level level, const char *message, const struct log_field *fields) {
  bool json = atomic_load(&log_format) == LOG_JSON;
  const struct clock *clock = atomic_load(&log_clock);
  char buf[TIME_TEXT_MAX];
  auto_str out;
  str_init(&out, LOG_LINE_MAX);
  if (json)
    str_addc(&out, '{');
  add_text(&out, json, "time", slice_of(time_format(clock->wall(clock), buf)));
  add_text(&out, json, "level", slice_of(level_names[level]));
  const char *node = atomic_load(&log_node_id);
  if (node)
    add_text(&out, json, "node", slice_of(node));
  add_text(&out, json, "msg", slice_of(message));
  for (; fields && fields->key; fields++) {
    if (out.n + worst_bytes(fields) + LOG_TAIL_MAX > LOG_LINE_MAX) {
      add_key(&out, json, "cut");
      str_addz(&out, "true");
      break;
    }
    add_field(&out, json, fields);
  }
  str_addz(&out, json ? "}\n" : "\n");
  /* One write a line, so that lines of several processes do not mix; a log that cannot be written has no
   * better place to complain to. */
  ssize_t n;
  do
    n = write(atomic_load(&log_fd), out.p, out.n);
  while (n < 0 && errno == EINTR);
}
