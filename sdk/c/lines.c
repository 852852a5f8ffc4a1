/* What a handler logs, until the centre has it: numbered, in chunks of which one at a time is under way, bounded. With the outbox's
 * lock, but for kelou_run_log and kelou_run_log_text. */
#include "internal.h"
#include <stdio.h>

enum {
  LINE_BYTES_MAX = 8192,
  CHUNK_LINES = 1000, /* of one report: the centre takes no more */
  CHUNK_BYTES = 128 * 1024,
  LINE_FRAME_MAX = 160 /* number, time, level */
};

struct chunk {
  struct chunk *next;
  struct str text; /* JSON objects with commas in between */
  int lines;
  bool closed; /* under way, or full: what comes goes into the next one */
};
struct lines {
  struct chunk *first, *last;
  size_t bytes;
  int32_t next_seq; /* number of the next line */
  int32_t lost;     /* lines dropped since the last one that was kept */
};

static const char *level_name(enum kelou_level level) {
  static const char *const names[] = {"DEBUG", "INFO", "WARN", "ERROR"};
  return level >= KELOU_DEBUG && level <= KELOU_ERROR ? names[level] : "INFO";
}

static struct chunk *chunk_for(struct lines *l, size_t n) {
  struct chunk *c = l->last;
  if (c && !c->closed && c->lines < CHUNK_LINES && c->text.n + n <= CHUNK_BYTES)
    return c;
  c = mem_zalloc(sizeof *c);
  str_init(&c->text, CHUNK_BYTES + LINE_FRAME_MAX + LINE_BYTES_MAX);
  if (l->last)
    l->last->next = c;
  else
    l->first = c;
  l->last = c;
  return c;
}

static size_t append(struct lines *l, enum kelou_level level, const char *inside) {
  char at[TIME_TEXT_MAX];
  size_t n = strlen(inside) + LINE_FRAME_MAX;
  struct chunk *c = chunk_for(l, n);
  size_t before = c->text.n;
  str_addf(&c->text, "%s{\"seq\":%d,\"at\":\"%s\",\"level\":\"%s\",\"text\":\"", c->lines ? "," : "",
           l->next_seq++, time_format(sdk_wall(), at), level_name(level));
  str_addz(&c->text, inside);
  str_addz(&c->text, "\"}");
  c->lines++;
  size_t added = c->text.n - before;
  l->bytes += added;
  return added;
}

size_t lines_add(struct lines **lp, enum kelou_level level, const char *inside, size_t room) {
  if (!*lp) {
    *lp = mem_zalloc(sizeof **lp);
    (*lp)->next_seq = 1;
  }
  struct lines *l = *lp;
  size_t n = strlen(inside) + LINE_FRAME_MAX;
  if (l->next_seq == INT32_MAX)
    return 0;
  if (n > room || l->bytes + n > LINES_RUN_BYTES_MAX) {
    l->next_seq++; /* the hole in the numbers says so */
    l->lost++;
    return 0;
  }
  l->lost = 0;
  return append(l, level, inside);
}

size_t lines_end(struct lines *l) {
  char text[96];
  if (!l || !l->lost || l->next_seq == INT32_MAX)
    return 0;
  (void)snprintf(text, sizeof text, "the %d lines before this one were not kept by the executor",
                 l->lost); /* fits */
  l->lost = 0;
  return append(l, KELOU_WARN, text);
}

bool lines_any(const struct lines *l) { return l && l->first; }
bool lines_last(const struct lines *l) { return !l || !l->first || !l->first->next; }
size_t lines_size(const struct lines *l) { return lines_any(l) ? l->first->text.n : 0; }

void lines_take(struct lines *l, struct str *out) {
  l->first->closed = true;
  str_addz(out, ",\"log\":[");
  str_add(out, str_slice(&l->first->text));
  str_addc(out, ']');
}

size_t lines_drop(struct lines *l) {
  struct chunk *c = l->first;
  size_t n = c->text.n;
  l->first = c->next;
  if (!l->first)
    l->last = NULL;
  l->bytes -= n;
  str_done(&c->text);
  mem_free(c);
  return n;
}

size_t lines_free(struct lines **lp) {
  size_t n = 0;
  while (lines_any(*lp))
    n += lines_drop(*lp);
  mem_freep(lp);
  return n;
}

/* ---------------------------------------------------------------- what a handler says */

void kelou_run_log_text(struct kelou_run *r, enum kelou_level level, const char *text, size_t size) {
  char line[LINE_BYTES_MAX + 1];
  while (size && (text[size - 1] == '\n' || text[size - 1] == '\r'))
    size--;
  size_t n = size < sizeof line - 1 ? size : sizeof line - 1; /* what is longer is cut with a notice */
  for (size_t i = 0; i < n; i++)
    line[i] = text[i] ? text[i] : ' ';
  line[n] = '\0';
  auto_free char *inside = report_text(line, size > n ? LINE_BYTES_MAX - 1 : LINE_BYTES_MAX);
  outbox_line(r->executor->outbox, r, level, inside);
}

void kelou_run_log(struct kelou_run *r, enum kelou_level level, const char *fmt, ...) {
  char text[LINE_BYTES_MAX + 2];
  va_list ap;
  va_start(ap, fmt);
  int n = vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  if (n < 0)
    return;
  kelou_run_log_text(r, level, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}
