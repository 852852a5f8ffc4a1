#include "internal.h"
#include "base/parse.h"
#include "base/rng.h"
#include "net/http_client.h"
#include "net/loop.h"
#include <inttypes.h>
#include <stdio.h>
#include <utlist.h>

/* One request at a time. Runs wait in a list, each at most once: its text is made when it is sent, so that progress said
 * meanwhile is one report and a final report takes the place of progress. */

enum { BATCH_BYTES_MAX = 1024 * 1024, BATCH_TEXT_MAX = 2 * BATCH_BYTES_MAX, AUTHORIZATION_MAX = 8192 };
static const usec_t RETRY_AFTER_MOST = 30 * USEC_PER_SEC;

struct outbox {
  struct outbox_options o;
  char *authorization;
  struct rng rng;                    /* loop thread, as are these */
  struct loop_timer *timer, *linger; /* NULL until needed */
  struct str text;
  struct target *used; /* by the request under way */
  int singly;          /* so many requests of one report each: one of them was refused */
  usec_t pause;        /* back-off; 0 after a success */
  struct mutex lock;   /* protects the rest */
  struct cond empty;
  struct kelou_run *waiting, *flying;
  int64_t owed, owed_bytes; /* final reports not acknowledged */
  int64_t line_bytes;       /* logged and not acknowledged, of all runs */
  bool busy;                /* a send is posted, under way, or waiting for the timer */
  bool lingers;             /* lines wait for company */
  bool closed;
  int64_t acknowledged, requests;
};

void outbox_options_default(struct outbox_options *o) {
  *o = (struct outbox_options){.batch = 500,
                               .max_count = 100000,
                               .max_bytes = 256 * 1024 * 1024,
                               .max_line_bytes = 16 * 1024 * 1024,
                               .linger = 100 * USEC_PER_MS,
                               .retry_first = 100 * USEC_PER_MS,
                               .retry_most = 5 * USEC_PER_SEC,
                               .timeout = 10 * USEC_PER_SEC};
}

struct outbox *outbox_new(const struct outbox_options *o) {
  struct outbox *b = mem_zalloc(sizeof *b);
  struct str s;
  b->o = *o;
  str_init(&s, AUTHORIZATION_MAX);
  str_addf(&s, "Bearer %s", o->token);
  b->authorization = str_take(&s); /* the token's length was checked */
  str_init(&b->text, BATCH_TEXT_MAX);
  rng_seed(&b->rng, (uint64_t)sdk_mono());
  mutex_init(&b->lock);
  cond_init(&b->empty);
  return b;
}

static void say(struct outbox *b, enum kelou_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void say(struct outbox *b, enum kelou_level level, const char *fmt, ...) {
  char line[400];
  va_list ap;
  if (!b->o.log)
    return;
  va_start(ap, fmt);
  (void)vsnprintf(line, sizeof line, fmt, ap); /* a cut line is good enough */
  va_end(ap);
  b->o.log(b->o.arg, level, line);
}

/* ---------------------------------------------------------------- in */

static void send_next(void *outbox);

/* With the lock. */
static void kick(struct outbox *b) {
  if (b->busy || b->closed || !b->waiting)
    return;
  b->busy = true;
  loop_post(b->o.loop, send_next, b);
}

static void enqueue(struct outbox *b, struct kelou_run *r) {
  r->out = OUT_WAITING;
  DL_APPEND2(b->waiting, r, out_prev, out_next);
}

/* With the lock. */
static void put_in(struct outbox *b, struct kelou_run *r) {
  if (r->out == OUT_NONE)
    enqueue(b, run_ref(r)); /* what is under way is looked at when it has been taken */
}

void outbox_push(struct outbox *b, struct kelou_run *r, bool final) {
  mutex_lock(&b->lock);
  r->out_beat = !final && !r->out_ended;
  if (final && !r->out_owed) {
    b->line_bytes += (int64_t)lines_end(r->lines);
    r->out_ended = r->out_owed = true;
    b->owed++;
    b->owed_bytes += (int64_t)r->report_n;
  }
  put_in(b, r);
  kick(b);
  mutex_unlock(&b->lock);
}

/* ---------------------------------------------------------------- lines */

/* Does nothing wait but lines? */
static bool only_lines(const struct outbox *b) {
  const struct kelou_run *r;
  DL_FOREACH2(b->waiting, r, out_next) {
    if (r->out_owed || r->out_beat)
      return false;
  }
  return true;
}

static void on_linger(void *outbox) {
  struct outbox *b = outbox;
  mutex_lock(&b->lock);
  b->lingers = false;
  kick(b);
  mutex_unlock(&b->lock);
}

/* Loop thread. */
static void start_linger(void *outbox) {
  struct outbox *b = outbox;
  mutex_lock(&b->lock);
  bool closed = b->closed;
  mutex_unlock(&b->lock);
  if (closed)
    return;
  if (!b->linger)
    b->linger = loop_timer_new(b->o.loop, on_linger, b);
  loop_timer_set(b->linger, b->o.linger, 0);
}

/* With the lock. Lines go with the next report, or by themselves after a short time. */
static void kick_lines(struct outbox *b) {
  if (b->busy || b->closed || b->lingers || !b->waiting)
    return;
  b->lingers = true;
  loop_post(b->o.loop, start_linger, b);
}

void outbox_line(struct outbox *b, struct kelou_run *r, enum kelou_level level, const char *inside) {
  mutex_lock(&b->lock);
  int64_t room = b->o.max_line_bytes - b->line_bytes;
  b->line_bytes += (int64_t)lines_add(&r->lines, level, inside, room > 0 ? (size_t)room : 0);
  if (lines_any(r->lines)) {
    put_in(b, r);
    kick_lines(b);
  }
  mutex_unlock(&b->lock);
}

bool outbox_full(struct outbox *b) {
  mutex_lock(&b->lock);
  bool full = b->owed >= b->o.max_count || b->owed_bytes >= b->o.max_bytes;
  mutex_unlock(&b->lock);
  return full;
}

void outbox_count(struct outbox *b, struct outbox_counts *ret) {
  mutex_lock(&b->lock);
  *ret = (struct outbox_counts){b->owed, b->acknowledged, b->requests};
  mutex_unlock(&b->lock);
}

bool outbox_wait_empty(struct outbox *b, usec_t until) {
  mutex_lock(&b->lock);
  for (usec_t now = sdk_mono(); b->owed && now < until; now = sdk_mono())
    (void)cond_wait(&b->empty, &b->lock, until == USEC_NEVER ? USEC_NEVER : until - now);
  bool empty = b->owed == 0;
  mutex_unlock(&b->lock);
  return empty;
}

/* ---------------------------------------------------------------- what became of a request */

/* With the lock. Those under way are done with, but for what is new since. */
static void settle(struct outbox *b) {
  struct kelou_run *r = b->flying, *next;
  b->flying = NULL;
  for (; r; r = next) {
    next = r->out_next;
    if (r->out_lines)
      b->line_bytes -= (int64_t)lines_drop(r->lines);
    if (r->out_sent_final) {
      r->out_owed = false;
      atomic_store(&r->unacknowledged, false);
      b->owed--;
      b->owed_bytes -= (int64_t)r->report_n;
      b->acknowledged++;
      b->line_bytes -= (int64_t)lines_free(&r->lines);
    } else if (r->out_owed || r->out_beat || lines_any(r->lines)) {
      enqueue(b, r);
      continue;
    }
    r->out = OUT_NONE;
    run_unref(&r);
  }
  if (b->owed == 0)
    cond_broadcast(&b->empty);
}

/* With the lock. Those under way come first again. */
static int put_back(struct outbox *b) {
  int n = 0;
  struct kelou_run *r;
  DL_FOREACH2(b->flying, r, out_next) {
    r->out = OUT_WAITING;
    r->out_beat = r->out_beat || r->out_sent_beat;
    n++;
  }
  DL_CONCAT2(b->flying, b->waiting, out_prev, out_next);
  b->waiting = b->flying;
  b->flying = NULL;
  return n;
}

/* With the lock. One report alone was refused for good: what is left to say is that, or nothing. */
static void replace(struct outbox *b, struct kelou_run *r, int status) {
  if (r->out_lines && r->out_sent_final) { /* the report alone may be well */
    b->line_bytes -= (int64_t)lines_free(&r->lines);
    (void)put_back(b);
    return;
  }
  if (!r->out_sent_final || r->out_instead) {
    settle(b);
    return;
  }
  struct str text;
  str_init(&text, KELOU_RESULT_MAX);
  report_refused(&text, r, status);
  r->out_instead = str_take(&text); /* it fits */
  (void)put_back(b);
}

static usec_t retry_after(const struct http_result *res) {
  for (size_t i = 0; i < res->header_count; i++) {
    int64_t seconds;
    if (slice_eqz_nocase(res->headers[i].name, "retry-after") &&
        parse_i64(slice_trim(res->headers[i].value), 0, 86400, &seconds, NULL) >= 0)
      return seconds * USEC_PER_SEC > RETRY_AFTER_MOST ? RETRY_AFTER_MOST : seconds * USEC_PER_SEC;
  }
  return 0;
}

enum verdict { TAKEN, REFUSED, AGAIN };

static enum verdict verdict_of(const struct http_result *res) {
  if (res->outcome != HTTP_CALL_ANSWERED)
    return AGAIN;
  switch (res->status) {
  case 200: return TAKEN;
  case 403: /* all belong to others: so says the list of results; without one it is the token */
    return memmem(res->body.p ? res->body.p : "", res->body.n, "\"results\"", 9) ? TAKEN : AGAIN;
  case 400:
  case 413:
  case 415:
  case 422: return REFUSED;
  default: return AGAIN;
  }
}

/* Log it once when it begins to fail, not at each try. */
static void tell_again(struct outbox *b, const struct http_result *res) {
  enum kelou_level level = b->pause ? KELOU_DEBUG : KELOU_WARN;
  if (res->outcome == HTTP_CALL_ANSWERED)
    say(b, level, "reports are not taken now, trying again: status %d: %.*s", res->status,
        (int)(res->body.n > 200 ? 200 : res->body.n), res->body.p ? res->body.p : "");
  else
    say(b, level, "reports cannot be sent now, trying again: %s", res->why);
}

static void on_timer(void *outbox) { send_next(outbox); }

/* Loop thread. Try again after a while: doubled each time, less up to a fifth, so that many executors do not come at once. */
static void later(struct outbox *b, usec_t at_least) {
  b->pause = b->pause ? b->pause * 2 : b->o.retry_first;
  if (b->pause > b->o.retry_most)
    b->pause = b->o.retry_most;
  usec_t wait = b->pause - (usec_t)rng_below(&b->rng, (uint64_t)b->pause / 5 + 1);
  mutex_lock(&b->lock);
  bool closed = b->closed;
  mutex_unlock(&b->lock);
  if (closed)
    return; /* busy for ever: nothing is sent any more */
  if (!b->timer)
    b->timer = loop_timer_new(b->o.loop, on_timer, b);
  loop_timer_set(b->timer, wait < at_least ? at_least : wait, 0);
}

static void on_taken(struct outbox *b, const struct http_result *res) {
  if (memmem(res->body.p ? res->body.p : "", res->body.n, "\"forbidden\"", 11))
    say(b, KELOU_ERROR,
        "the centre says that a reported run belongs to another group; its report is dropped");
  if (b->pause)
    say(b, KELOU_INFO, "reports are taken again");
  b->pause = 0;
  b->singly -= b->singly > 0;
}

/* Loop thread. */
static void on_answer(const struct http_result *res, void *outbox) {
  struct outbox *b = outbox;
  enum verdict v = verdict_of(res);
  if (v == TAKEN)
    on_taken(b, res);
  else if (v == REFUSED)
    say(b, KELOU_ERROR, "the centre refuses a report: status %d: %.*s", res->status,
        (int)(res->body.n > 300 ? 300 : res->body.n), res->body.p ? res->body.p : "");
  else
    tell_again(b, res);
  if (res->outcome != HTTP_CALL_ANSWERED)
    b->o.failed(b->o.arg, b->used);
  target_unref(&b->used);
  mutex_lock(&b->lock);
  bool single = b->flying && !b->flying->out_next;
  if (v == TAKEN)
    settle(b);
  else if (v == REFUSED && single)
    replace(b, b->flying, res->status);
  else if (v == REFUSED)
    b->singly = put_back(b); /* to find out which of them it is */
  else
    (void)put_back(b);
  if (v != AGAIN) {
    b->busy = false;
    if (only_lines(b))
      kick_lines(b);
    else
      kick(b);
  }
  mutex_unlock(&b->lock);
  if (v == AGAIN)
    later(b, retry_after(res));
}

/* With the lock. While requests fail those with lines come last: it may be the lines that are not taken now. */
static bool goes(const struct outbox *b, const struct kelou_run *r, bool others) {
  return !b->pause || !others || !lines_any(r->lines);
}

/* The report of a run with the first chunk of its lines; its end goes with the last one. */
static void add_report(struct outbox *b, struct kelou_run *r) {
  bool end = r->out_ended && r->out_owed && lines_last(r->lines);
  if (end && r->out_instead)
    str_addz(&b->text, r->out_instead);
  else if (end)
    str_add(&b->text, slice_n(r->report, r->report_n));
  else if (r->out_beat)
    report_progress(&b->text, r);
  else
    report_lines(&b->text, r);
  r->out_lines = lines_any(r->lines);
  r->out_sent_final = end;
  if (r->out_lines) {
    b->text.n--; /* inside of its object */
    lines_take(r->lines, &b->text);
    str_addc(&b->text, '}');
  }
}

/* With the lock: what fits goes from `waiting` to `flying` and into b->text. */
static void gather(struct outbox *b) {
  int most = b->singly > 0 ? 1 : b->o.batch, n = 0;
  struct kelou_run *r, *next;
  bool others = false;
  DL_FOREACH2(b->waiting, r, out_next) {
    others = !lines_any(r->lines);
    if (others)
      break;
  }
  str_clear(&b->text);
  str_addz(&b->text, "{\"reports\":[");
  DL_FOREACH_SAFE2(b->waiting, r, next, out_next) {
    size_t size = (r->out_ended ? r->report_n : 0) + lines_size(r->lines);
    if (n == most || (n > 0 && b->text.n + size > BATCH_BYTES_MAX))
      break;
    if (!goes(b, r, others))
      continue;
    if (n++ > 0)
      str_addc(&b->text, ',');
    add_report(b, r);
    DL_DELETE2(b->waiting, r, out_prev, out_next);
    DL_APPEND2(b->flying, r, out_prev, out_next);
    r->out = OUT_FLYING;
    r->out_sent_beat = r->out_beat;
    r->out_beat = false;
  }
  str_addz(&b->text, "]}");
}

/* Loop thread; `busy` is ours. */
static void send_next(void *outbox) {
  struct outbox *b = outbox;
  mutex_lock(&b->lock);
  bool go = !b->closed && b->waiting;
  if (!go)
    b->busy = false;
  mutex_unlock(&b->lock);
  if (!go)
    return;
  struct target *target = b->o.target(b->o.arg);
  if (!target) {
    later(b, 0);
    return;
  }
  mutex_lock(&b->lock);
  gather(b);
  b->requests++;
  mutex_unlock(&b->lock);
  struct http_header headers[] = {{SLICE("Authorization"), slice_of(b->authorization)},
                                  {SLICE("Content-Type"), SLICE("application/json")}};
  struct http_call call = {.target = target,
                           .method = "POST",
                           .path = SLICE("/api/v1/reports"),
                           .headers = headers,
                           .header_count = 2,
                           .body = str_slice(&b->text),
                           .timeout = b->o.timeout,
                           .done = on_answer,
                           .arg = b};
  b->used = target;
  http_client_call(b->o.client, &call);
}

/* ---------------------------------------------------------------- the end */

void outbox_close(struct outbox *b) {
  mutex_lock(&b->lock);
  b->closed = true;
  mutex_unlock(&b->lock);
}

static void free_timer(void *outbox) {
  struct outbox *b = outbox;
  loop_timer_free(&b->timer);
  loop_timer_free(&b->linger);
  mutex_lock(&b->lock);
  b->busy = false;
  cond_broadcast(&b->empty);
  mutex_unlock(&b->lock);
}

static void drop(struct kelou_run *r) {
  for (struct kelou_run *next; r; r = next) {
    next = r->out_next;
    run_unref(&r);
  }
}

void outbox_free(struct outbox **bp) {
  struct outbox *b = *bp;
  if (!b)
    return;
  mutex_lock(&b->lock);
  b->closed = b->busy = true;
  loop_post(b->o.loop, free_timer, b); /* behind whatever was posted before */
  while (b->busy)
    (void)cond_wait(&b->empty, &b->lock, USEC_NEVER);
  mutex_unlock(&b->lock);
  drop(b->flying);
  drop(b->waiting);
  str_done(&b->text);
  mem_free(b->authorization);
  cond_done(&b->empty);
  mutex_done(&b->lock);
  mem_freep(bp);
}
