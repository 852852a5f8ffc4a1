#include "cli/cron_lines.h"
#include "base/json.h"
#include "base/mem.h"
#include "core/schedule.h"
#include <unistd.h>

#define READ_BYTES  (256 * 1024)
#define OUT_BYTES   (1024 * 1024) /* flush beyond */
#define ANSWER_MAX  (CRON_COUNT_MAX * 20 + 8192)
#define FROM_MS_MAX ((int64_t)9007199254740991) /* 2^53 - 1: what every JSON reader holds exactly */

struct lines {
  struct zone_set *zones;
  int out_fd;
  struct str out;
};

struct question {
  struct slice expr, tz;
  int64_t from_ms, n;
  int dialect, gap, overlap;
};

static int read_choices(const json_t *doc, struct question *q, struct err *e) {
  int r = json_get_enum(doc, "dialect", cron_dialect_names, &q->dialect, e);
  if (r >= 0)
    r = json_get_enum(doc, "dst_gap", dst_gap_names, &q->gap, e);
  if (r >= 0)
    r = json_get_enum(doc, "dst_overlap", dst_overlap_names, &q->overlap, e);
  return r;
}

static int read_question(const json_t *doc, struct question *q, struct err *e) {
  static const char *const known[] = {"expr",    "tz",      "from_ms",     "n",
                                      "dialect", "dst_gap", "dst_overlap", NULL};
  int r = json_want_object(doc, "", e);
  if (r >= 0)
    r = json_check_keys(doc, known, e);
  if (r >= 0)
    r = json_get_slice(doc, "expr", CRON_TEXT_MAX, &q->expr, e);
  if (r == 0)
    return err_field(e, ERR_MISSING, "/expr", "expected a cron expression");
  if (r > 0)
    r = json_get_i64(doc, "from_ms", -FROM_MS_MAX, FROM_MS_MAX, &q->from_ms, e);
  if (r == 0)
    return err_field(e, ERR_MISSING, "/from_ms", "expected milliseconds since 1970");
  if (r > 0)
    r = json_get_slice(doc, "tz", ZONE_NAME_MAX, &q->tz, e);
  if (r >= 0)
    r = json_get_i64(doc, "n", 1, CRON_COUNT_MAX, &q->n, e);
  return r < 0 ? r : read_choices(doc, q, e);
}

static int answer(struct lines *l, const json_t *doc, struct err *e) {
  struct question q = {.tz = SLICE("UTC"), .n = CRON_COUNT_DEFAULT};
  int r = read_question(doc, &q, e);
  if (r < 0)
    return r;
  struct schedule_input in = {.kind = SCHEDULE_CRON,
                              .expr = q.expr,
                              .dialect = (enum cron_dialect)q.dialect,
                              .dst = {(enum dst_gap)q.gap, (enum dst_overlap)q.overlap}};
  r = zone_set_get(l->zones, q.tz, &in.zone, e);
  struct schedule *s = NULL;
  if (r == 0)
    r = schedule_new(&in, &s, e);
  if (r < 0)
    return r;
  str_addz(&l->out, "{\"next_ms\":[");
  usec_t t = q.from_ms * USEC_PER_MS;
  for (int64_t i = 0; i < q.n; i++) {
    t = schedule_next(s, 0, t);
    if (t == USEC_NEVER)
      break;
    if (i)
      str_addc(&l->out, ',');
    str_addi(&l->out, t / USEC_PER_MS);
  }
  str_addz(&l->out, "]}\n");
  schedule_free(&s);
  return 0;
}

static void put_error(struct lines *l, const struct err *e) {
  str_addz(&l->out, "{\"error\":{\"column\":");
  str_addi(&l->out, e->column);
  str_addz(&l->out, ",\"message\":\"");
  if (e->field[0] && strcmp(e->field, "/expression") != 0) {
    str_add_json(&l->out, slice_of(e->field));
    str_addz(&l->out, ": ");
  }
  str_add_json(&l->out, slice_of(e->text));
  str_addz(&l->out, "\"}}\n");
}

static int flush(struct lines *l) {
  struct slice left = str_slice(&l->out);
  while (left.n) {
    ssize_t n = write(l->out_fd, left.p, left.n);
    if (n < 0 && errno != EINTR)
      return -errno;
    left = n > 0 ? slice_n(left.p + n, left.n - (size_t)n) : left;
  }
  str_clear(&l->out);
  return 0;
}

static int one_line(struct lines *l, struct slice line) {
  struct err e = {0};
  json_t *doc = NULL;
  int r = line.n > CRON_LINE_MAX ? err_set(&e, ERR_TOO_LARGE, "a line has at most %d bytes", CRON_LINE_MAX)
                                 : json_read(line, CRON_LINE_MAX, &doc, &e);
  if (r >= 0)
    r = answer(l, doc, &e);
  json_decref(doc);
  if (r < 0)
    put_error(l, &e);
  return l->out.n > OUT_BYTES ? flush(l) : 0;
}

/* Answer all whole lines at the front of buf[0…n) and move the rest to the front; *overlong: the line that
 * goes on was refused already. */
static int whole_lines(struct lines *l, char *buf, size_t *n, bool *overlong) {
  struct slice rest = slice_n(buf, *n);
  const char *end;
  int r = 0;
  while (r == 0 && rest.n && (end = memchr(rest.p, '\n', rest.n))) {
    struct slice line = slice_n(rest.p, (size_t)(end - rest.p));
    rest = slice_n(end + 1, rest.n - line.n - 1);
    if (!*overlong)
      r = one_line(l, line);
    *overlong = false;
  }
  if (rest.n > CRON_LINE_MAX || *overlong) {
    if (!*overlong && r == 0)
      r = one_line(l, rest);
    *overlong = true;
    rest.n = 0;
  }
  if (rest.n)
    memmove(buf, rest.p, rest.n);
  *n = rest.n;
  return r;
}

static int stream(struct lines *l, int in_fd) {
  auto_free char *buf = mem_alloc(READ_BYTES);
  size_t n = 0;
  bool overlong = false;
  for (;;) {
    ssize_t got = read(in_fd, buf + n, READ_BYTES - n);
    if (got < 0 && errno == EINTR)
      continue;
    if (got < 0)
      return -errno;
    if (got == 0)
      break;
    n += (size_t)got;
    (void)zone_set_refresh(l->zones); /* nothing is held between batches */
    int r = whole_lines(l, buf, &n, &overlong);
    if (r == 0)
      r = flush(l);
    if (r < 0)
      return r;
  }
  int r = n && !overlong ? one_line(l, slice_n(buf, n)) : 0; /* the last line may lack its newline */
  return r < 0 ? r : flush(l);
}

int cron_lines(struct zone_set *zones, int in_fd, int out_fd) {
  struct lines l = {.zones = zones, .out_fd = out_fd};
  str_init(&l.out, OUT_BYTES + ANSWER_MAX);
  int r = stream(&l, in_fd);
  str_done(&l.out);
  return r < 0 ? 1 : 0;
}
