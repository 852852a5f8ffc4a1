#include "run/archive.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/gzip.h"
#include "base/json.h"
#include "base/mem.h"
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define LINE_MAX_BYTES GZIP_LINE_MAX
#define NAME_START     "runs-%010" PRId64 "-"
#define DAY_TEXT_MAX   16

struct archive_writer {
  char *dir, *part; /* the file while it is written */
  struct gzip_writer *gz;
  struct str line;
  int64_t no;
  usec_t first, last;
  size_t count;
};

static int fail(struct err *e, const char *path) {
  int code = -errno;
  return err_field(e, code, "archive.dir", "%s: %s", path, strerror(-code));
}

int archive_begin(const char *dir, int level, int64_t no, struct archive_writer **ret, struct err *e) {
  auto_arena mem = {0};
  if (mkdir(dir, 0700) < 0 && errno != EEXIST)
    return fail(e, dir);
  const char *part = arena_printf(&mem, "%s/runs-%010" PRId64 ".part", dir, no);
  struct gzip_writer *gz = NULL;
  int r = gzip_create(part, level, &gz, e);
  if (r < 0)
    return r;
  struct archive_writer *w = mem_zalloc(sizeof *w);
  w->dir = mem_strdup(dir);
  w->part = mem_strdup(part);
  w->gz = gz;
  w->no = no;
  str_init(&w->line, LINE_MAX_BYTES);
  *ret = w;
  return 0;
}

/* ---------------------------------------------------------------- a line */
static void add_key(struct str *s, const char *key) {
  if (s->n && s->p[s->n - 1] != '{' && s->p[s->n - 1] != '[')
    str_addc(s, ',');
  str_addf(s, "\"%s\":", key);
}
static void add_text(struct str *s, const char *key, struct slice text) {
  if (!text.n)
    return;
  add_key(s, key);
  str_addc(s, '"');
  str_add_json(s, text);
  str_addc(s, '"');
}
static void add_word(struct str *s, const char *key, const char *word) {
  add_key(s, key);
  str_addf(s, "\"%s\"", word);
}
static void add_int(struct str *s, const char *key, int64_t v) {
  add_key(s, key);
  str_addi(s, v);
}
static void add_time(struct str *s, const char *key, usec_t t) {
  char buf[TIME_TEXT_MAX];
  if (t)
    add_word(s, key, time_format(t, buf));
}
/* JSON as it is; what has been cut is none any more, and becomes a text. */
static void add_raw(struct str *s, const char *key, struct slice text) {
  auto_json *j = NULL;
  if (!text.n)
    return;
  if (json_read(text, text.n, &j, NULL) < 0) {
    add_text(s, key, text);
    return;
  }
  auto_free char *compact = json_text(j); /* on one line */
  add_key(s, key);
  str_addz(s, compact);
}
static void add_error(struct str *s, struct slice type, struct slice message, struct slice detail) {
  if (!type.n && !message.n && !detail.n)
    return;
  add_key(s, "error");
  str_addc(s, '{');
  add_text(s, "type", type);
  add_text(s, "message", message);
  add_text(s, "detail", detail);
  str_addc(s, '}');
}

static void add_attempts(struct str *s, const struct history_row *row) {
  if (!row->attempt_count)
    return;
  add_key(s, "attempts");
  str_addc(s, '[');
  for (size_t i = 0; i < row->attempt_count; i++) {
    const struct attempt_row *a = &row->attempts[i];
    str_addz(s, i ? ",{" : "{");
    add_int(s, "attempt", a->attempt);
    add_word(s, "state", run_state_names[a->state]);
    add_word(s, "reason", run_reason_names[a->reason]);
    add_text(s, "executor", a->executor);
    add_time(s, "dispatched_at", a->dispatched_at);
    add_time(s, "started_at", a->started_at);
    add_time(s, "finished_at", a->finished_at);
    add_error(s, a->error_type, a->error_message, (struct slice){0});
    str_addc(s, '}');
  }
  str_addc(s, ']');
}

static void add_what(struct str *s, const struct history_row *row) {
  const struct run_row *r = &row->r.run;
  char id[RUN_ID_LEN + 1];
  run_id_format(&r->key, id);
  add_word(s, "id", id);
  add_key(s, "task_id");
  str_addf(s, "\"%" PRId64 "\"", r->key.task_id);
  add_text(s, "task_name", row->r.task_name);
  add_text(s, "namespace", row->r.ns);
  add_int(s, "task_version", r->version);
  add_word(s, "state", run_state_names[r->state]);
  add_word(s, "reason", run_reason_names[r->reason]);
  add_word(s, "origin", run_origin_names[r->origin]);
  add_text(s, "retry_of", r->origin_run);
}

static void add_line(struct str *s, const struct history_row *row) {
  const struct run_row *r = &row->r.run;
  str_addc(s, '{');
  add_what(s, row);
  add_time(s, "scheduled_at", r->key.scheduled_at);
  add_time(s, "fired_at", r->fired_at);
  add_time(s, "started_at", r->started_at);
  add_time(s, "finished_at", r->finished_at);
  add_int(s, "attempt", r->attempt);
  add_text(s, "executor", r->executor);
  add_text(s, "pinned_to", pin_executor(r->pin));
  add_text(s, "routing_key", pin_key(r->pin));
  if (r->missed_count > 1) {
    add_key(s, "missed");
    str_addc(s, '{');
    add_time(s, "first", r->missed_first);
    add_int(s, "count", r->missed_count);
    str_addc(s, '}');
  }
  add_error(s, r->error_type, r->error_message, r->error_detail);
  add_raw(s, "result", r->result);
  add_raw(s, "payload", r->payload);
  add_attempts(s, row);
  str_addz(s, "}\n");
}

int archive_add(struct archive_writer *w, const struct history_row *row, struct err *e) {
  str_clear(&w->line);
  add_line(&w->line, row);
  if (str_failed(&w->line))
    return err_set(e, ERR_TOO_LARGE, "a run takes more than %zu bytes in the archive", LINE_MAX_BYTES);
  usec_t at = row->r.run.key.scheduled_at;
  if (w->count++ == 0)
    w->first = at;
  w->last = at;
  return gzip_write(w->gz, str_slice(&w->line), e);
}

/* ---------------------------------------------------------------- files */
static const char *day_text(usec_t t, char buf[DAY_TEXT_MAX]) {
  int64_t days = t >= 0 ? t / USEC_PER_DAY : (t - USEC_PER_DAY + 1) / USEC_PER_DAY, year;
  int month, day;
  civil_from_days(days, &year, &month, &day);
  (void)snprintf(buf, DAY_TEXT_MAX, "%04d%02d%02d", (int)(year % 10000), month, day);
  return buf;
}

static void writer_free(struct archive_writer **p) {
  str_done(&(*p)->line);
  mem_free((*p)->dir);
  mem_free((*p)->part);
  mem_freep(p);
}

int archive_end(struct archive_writer **p, struct err *e) {
  struct archive_writer *w = *p;
  auto_arena mem = {0};
  char first[DAY_TEXT_MAX], last[DAY_TEXT_MAX];
  const char *name = arena_printf(&mem, "%s/" NAME_START "%s-%s-%zu.jsonl.gz", w->dir, w->no,
                                  day_text(w->first, first), day_text(w->last, last), w->count);
  int r = gzip_finish(&w->gz, e);
  if (r == 0 && failpoint("retention.before_publish"))
    r = err_set(e, -EIO, "a failpoint");
  if (r == 0)
    r = file_publish(w->part, name, e);
  writer_free(p);
  return r;
}

void archive_abandon(struct archive_writer **p) {
  if (!*p)
    return;
  gzip_abandon(&(*p)->gz);
  writer_free(p);
}

int archive_has(const char *dir, int64_t no, struct err *e) {
  char start[40];
  int n = snprintf(start, sizeof start, NAME_START, no);
  DIR *d = opendir(dir);
  if (!d)
    return errno == ENOENT ? 0 : fail(e, dir);
  bool found = false;
  for (const struct dirent *f; !found && (f = readdir(d)) != NULL;) {
    size_t len = strlen(f->d_name);
    found =
        strncmp(f->d_name, start, (size_t)n) == 0 && len > 9 && strcmp(f->d_name + len - 9, ".jsonl.gz") == 0;
  }
  (void)closedir(d); /* read-only: nothing can be lost */
  return found;
}
