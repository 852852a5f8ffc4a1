/* One attempt: what its handler asks and says, and its end. */
#include "internal.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { RESULT_BYTES_MAX = 16 * 1024 * 1024, ERROR_TYPE_MAX = 200, REPORT_HEAD_MAX = 2048 };

struct kelou_run *run_new(struct kelou_executor *e, const struct kelou_handler *h, struct message *m) {
  struct kelou_run *r = mem_zalloc(sizeof *r);
  r->executor = e;
  r->handler = h;
  atomic_init(&r->refs, 1);
  atomic_init(&r->cancel_fd, -1);
  atomic_init(&r->progress, -1);
  (void)text_copy(r->id, sizeof r->id, slice_of(m->run_id)); /* checked when it was read */
  r->attempt = m->attempt;
  r->fence = m->fence;
  r->granted = true;
  r->message = m;
  return r;
}

struct kelou_run *run_ref(struct kelou_run *r) {
  atomic_fetch_add(&r->refs, 1);
  return r;
}

/* What is needed no more once it has ended and its report is written. */
static void run_shrink(struct kelou_run *r) {
  int fd = atomic_load(&r->cancel_fd);
  message_free(&r->message);
  mem_freep(&r->result);
  mem_freep(&r->error_type);
  mem_freep(&r->error_message);
  mem_freep(&r->error_detail);
  if (fd >= 0)
    (void)close(fd); /* nothing was written that could be lost */
  atomic_store(&r->cancel_fd, -1);
}

void run_unref(struct kelou_run **rp) {
  struct kelou_run *r = *rp;
  *rp = NULL;
  if (!r || atomic_fetch_sub(&r->refs, 1) != 1)
    return;
  run_shrink(r);
  mem_free(r->report);
  mem_free(r->out_instead);
  (void)lines_free(&r->lines); /* nobody counts them any more */
  mem_free(r);
}

/* ---------------------------------------------------------------- stopping */

static void fd_raise(int fd) {
  uint64_t one = 1;
  ssize_t n = write(fd, &one, sizeof one);
  (void)n; /* fails only when it is readable already */
}

/* With the executor's lock, like kelou_cancel_fd and the end of the run: the descriptor cannot go away meanwhile. */
void run_stop(struct kelou_run *r, enum run_stop why) {
  int none = STOP_NOT;
  if (!atomic_compare_exchange_strong(&r->stop, &none, why))
    return;
  int fd = atomic_load(&r->cancel_fd);
  if (fd >= 0)
    fd_raise(fd);
}

int kelou_cancelled(const struct kelou_run *r) { return atomic_load(&r->stop) != STOP_NOT; }

int kelou_cancel_fd(struct kelou_run *r) {
  struct mutex *lock = &r->executor->lock;
  mutex_lock(lock);
  int fd = atomic_load(&r->cancel_fd);
  if (fd < 0 && (fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) >= 0) {
    atomic_store(&r->cancel_fd, fd);
    if (kelou_cancelled(r))
      fd_raise(fd);
  }
  mutex_unlock(lock);
  return fd;
}

int kelou_sleep(struct kelou_run *r, int64_t length) {
  usec_t until, now = sdk_mono();
  if (__builtin_add_overflow(now, length < 0 ? 0 : length, &until))
    until = USEC_NEVER;
  struct pollfd p = {.fd = kelou_cancel_fd(r), .events = POLLIN};
  for (; !kelou_cancelled(r) && now < until; now = sdk_mono()) {
    usec_t ms = (until - now + USEC_PER_MS - 1) / USEC_PER_MS;
    if (p.fd < 0 && ms > 20)
      ms = 20;                                           /* no descriptor to be had: look now and then */
    (void)poll(&p, 1, ms > 1000000 ? 1000000 : (int)ms); /* whatever it says: the loop looks again */
  }
  return kelou_cancelled(r);
}

/* ---------------------------------------------------------------- what a handler asks */

const char *kelou_run_id(const struct kelou_run *r) { return r->id; }
const char *kelou_idempotency_key(const struct kelou_run *r) { return r->message->idempotency_key; }
const char *kelou_task_id(const struct kelou_run *r) { return r->message->task_id; }
const char *kelou_task_name(const struct kelou_run *r) { return r->message->task_name; }
const char *kelou_namespace(const struct kelou_run *r) { return r->message->ns; }
const char *kelou_handler_name(const struct kelou_run *r) { return r->message->handler; }
const char *kelou_traceparent(const struct kelou_run *r) { return r->message->traceparent; }
const char *kelou_parent_run_id(const struct kelou_run *r) { return r->message->parent_run_id; }
const char *kelou_payload(const struct kelou_run *r) { return r->message->payload; }
size_t kelou_payload_size(const struct kelou_run *r) { return r->message->payload_n; }
int kelou_attempt(const struct kelou_run *r) { return r->attempt; }
int kelou_max_attempts(const struct kelou_run *r) { return r->message->max_attempts; }
int kelou_priority(const struct kelou_run *r) { return r->message->priority; }
int kelou_part_index(const struct kelou_run *r) { return r->message->part_index; }
int kelou_part_total(const struct kelou_run *r) { return r->message->part_total; }
int64_t kelou_scheduled_at(const struct kelou_run *r) { return r->message->scheduled_at; }
int64_t kelou_fired_at(const struct kelou_run *r) { return r->message->fired_at; }
int64_t kelou_deadline(const struct kelou_run *r) { return r->message->deadline; }
int64_t kelou_fence(const struct kelou_run *r) { return r->message->fence; }

/* ---------------------------------------------------------------- what a handler says */

void kelou_progress(struct kelou_run *r, double fraction) {
  double bounded = fraction > 1 ? 1 : fraction > 0 ? fraction : 0; /* not a number: 0 */
  atomic_store(&r->progress, (int)(bounded * 1e6));
  outbox_push(r->executor->outbox, r, false);
}

static void outcome(struct kelou_run *r, enum run_outcome o) {
  mem_freep(&r->result);
  mem_freep(&r->error_type);
  mem_freep(&r->error_message);
  mem_freep(&r->error_detail);
  r->outcome = o;
}

/* `text` as a JSON string of at most KELOU_RESULT_MAX bytes. */
static char *as_string(const char *text) {
  auto_free char *inside = report_text(text, KELOU_RESULT_MAX - 2);
  auto_str out;
  str_init(&out, KELOU_RESULT_MAX + 1);
  str_addc(&out, '"');
  str_addz(&out, inside);
  str_addc(&out, '"');
  return str_take(&out);
}

int kelou_succeed(struct kelou_run *r, const char *json) {
  size_t n = json ? strlen(json) : 0;
  if (json) {
    auto_json *doc = NULL;
    if (json_read(slice_n(json, n), RESULT_BYTES_MAX, &doc, NULL) < 0)
      return KELOU_EINVAL;
  }
  char *result = !json ? NULL : n <= KELOU_RESULT_MAX ? mem_strdup(json) : as_string(json);
  outcome(r, OUTCOME_SUCCESS);
  r->result = result;
  return 0;
}

void kelou_fail(struct kelou_run *r, const char *type, const char *message, const char *detail) {
  char *t = report_text(type && *type ? type : "ERROR", ERROR_TYPE_MAX);
  char *m = report_text(message ? message : "", KELOU_RESULT_MAX);
  char *d = detail ? report_text(detail, KELOU_RESULT_MAX) : NULL;
  outcome(r, OUTCOME_FAIL);
  r->error_type = t;
  r->error_message = m;
  r->error_detail = d;
}

void kelou_stopped(struct kelou_run *r) { outcome(r, OUTCOME_STOPPED); }

/* ---------------------------------------------------------------- its life */

static void journal(struct kelou_run *r, const char *event, const char *state) {
  int code = journal_write(r->executor->journal, r, event, state);
  if (code < 0)
    sdk_log(r->executor, KELOU_ERROR, "journal: a line of run %s is lost, the run goes on: %s", r->id,
            strerror(-code));
}

/* False: it was cancelled while it waited. */
static bool begin(struct kelou_run *r) {
  struct kelou_executor *e = r->executor;
  mutex_lock(&e->lock);
  bool mine = r->phase == PHASE_QUEUED;
  if (mine)
    r->phase = PHASE_RUNNING;
  mutex_unlock(&e->lock);
  return mine;
}

static const char *state_name(const struct kelou_run *r) {
  switch (r->outcome) {
  case OUTCOME_SUCCESS: return "SUCCESS";
  case OUTCOME_FAIL: return "FAIL";
  case OUTCOME_STOPPED: return "CANCELLED";
  case OUTCOME_NONE: break;
  }
  return "";
}

static void write_report(struct kelou_run *r, const char *state) {
  struct str text;
  str_init(&text, REPORT_HEAD_MAX + 4 * KELOU_RESULT_MAX);
  report_final(&text, r, state, sdk_wall());
  r->report_n = text.n;
  r->report = str_take(&text); /* it fits: every part is bounded */
}

/* Ended: known to the table and the counters. With the lock. Who waits for the end of all is told by run_left. */
static void end(struct kelou_run *r, enum run_said said) {
  struct kelou_executor *e = r->executor;
  r->said = said;
  atomic_store(&r->unacknowledged, said == SAID_REPORT); /* before it can be forgotten */
  attempts_ended(&e->attempts, r, sdk_mono());
  int64_t *count = !r->granted                     ? &e->counts.not_granted
                   : r->outcome == OUTCOME_SUCCESS ? &e->counts.succeeded
                   : r->outcome == OUTCOME_FAIL    ? &e->counts.failed
                                                   : &e->counts.cancelled;
  (*count)++;
  run_shrink(r);
}

/* False: it must not start, and has ended. Unless it was cancelled, it is left to whoever the centre gives it to, or to another delivery. */
static bool claimed(struct kelou_run *r) {
  struct kelou_executor *e = r->executor;
  if (run_claim(r) == CLAIM_GRANTED)
    return true;
  bool cancelled = atomic_load(&r->stop) == STOP_CANCELLED;
  r->granted = false;
  r->outcome = OUTCOME_STOPPED;
  write_report(r, state_name(r));
  mutex_lock(&e->lock);
  end(r, cancelled ? SAID_REPORT : SAID_NOTHING);
  if (!cancelled)
    attempts_forget(&e->attempts, r);
  mutex_unlock(&e->lock);
  run_left(r);
  return false;
}

void run_perform(struct kelou_run *r, bool inline_answer) {
  struct kelou_executor *e = r->executor;
  if (!begin(r))
    return;
  if (r->message->exactly_one_start && !claimed(r))
    return;
  r->started_at = sdk_wall();
  journal(r, "start", "RUNNING");
  r->handler->run(r, r->handler->user);
  if (r->outcome == OUTCOME_NONE)
    r->outcome = kelou_cancelled(r) ? OUTCOME_STOPPED : OUTCOME_SUCCESS;
  bool for_us = r->outcome == OUTCOME_STOPPED && atomic_load(&r->stop) == STOP_SHUTDOWN;
  enum run_said said = for_us ? SAID_NOTHING : inline_answer ? SAID_ANSWER : SAID_REPORT;
  journal(r, "end", for_us ? "STOPPED" : state_name(r));
  write_report(r, state_name(r));
  mutex_lock(&e->lock);
  end(r, said);
  mutex_unlock(&e->lock);
  run_left(r);
}

bool run_leave_queue(struct kelou_run *r, enum run_said said) {
  if (r->phase != PHASE_QUEUED)
    return false;
  r->outcome = OUTCOME_STOPPED;
  write_report(r, state_name(r));
  end(r, said);
  return true;
}

void run_left(struct kelou_run *r) {
  struct kelou_executor *e = r->executor;
  if (r->said == SAID_REPORT)
    outbox_push(e->outbox, r, true);
  mutex_lock(&e->lock);
  if (--e->active == 0)
    cond_broadcast(&e->idle);
  mutex_unlock(&e->lock);
}
