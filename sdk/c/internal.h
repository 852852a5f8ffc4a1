#pragma once
/* Private to sdk/c. Lock order: the executor's lock, then that of outbox, session or slots; none is held over a handler. */
#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/thread.h"
#include "kelou_executor.h"
#include <uthash.h>

struct http_client;
struct http_request;
struct http_server;
struct loop;
struct target;

#define RUN_ID_BYTES_MAX 64
#define SDK_ID_MAX       128
#define SDK_ID_JSON_MAX  (6 * SDK_ID_MAX)

/* ---------------------------------------------------------------- message.c */

/* A delivery as it came in. The texts belong to `doc`. */
struct message {
  json_t *doc;
  const char *run_id, *idempotency_key, *task_id, *task_name, *ns, *handler, *traceparent, *parent_run_id;
  char *payload; /* JSON text */
  size_t payload_n;
  int attempt, max_attempts, priority, part_index, part_total;
  int64_t fence;
  usec_t scheduled_at, fired_at, deadline;
  bool exactly_one_start; /* to be claimed before it is started */
};
/* Fields it does not know are left alone. Errors name the field. */
int message_read(struct slice body, struct message **ret, struct err *e);
void message_free(struct message **m);

/* {"run_id", "attempt", "fence"} and nothing else: a run's message is no cancel message, though its signature is good. */
struct cancel_message {
  char run_id[RUN_ID_BYTES_MAX + 1];
  int attempt;
  int64_t fence;
};
int cancel_message_read(struct slice body, struct cancel_message *ret, struct err *e);

/* ---------------------------------------------------------------- one attempt */

enum run_phase { PHASE_QUEUED, PHASE_RUNNING, PHASE_ENDED };
enum run_outcome { OUTCOME_NONE, OUTCOME_SUCCESS, OUTCOME_FAIL, OUTCOME_STOPPED };
enum run_stop { STOP_NOT, STOP_CANCELLED, STOP_SUPERSEDED, STOP_SHUTDOWN };
enum run_said {
  SAID_REPORT,
  SAID_ANSWER /* 200 to the delivery */,
  SAID_NOTHING /* it belongs to whoever gets it next */
};
enum out_state { OUT_NONE, OUT_WAITING, OUT_FLYING };

struct kelou_run {
  struct kelou_executor *executor;
  const struct kelou_handler *handler;
  atomic_int refs;
  char id[RUN_ID_BYTES_MAX + 1];
  int attempt;
  struct message *message; /* until it has ended */
  usec_t started_at;
  atomic_int stop; /* enum run_stop */
  atomic_int cancel_fd;
  atomic_int progress; /* millionths; -1: none */

  bool granted; /* false: it could not be claimed */

  atomic_bool unacknowledged; /* it ended with a report, which the centre has not taken yet */

  _Atomic int64_t fence; /* the highest delivered with; changed with the executor's lock */

  /* the executor's lock */
  enum run_phase phase;
  enum run_said said;            /* when it has ended */
  bool known;                    /* in the table */
  usec_t ended_at;               /* monotonic */
  struct kelou_run *prev, *next; /* in the table's list of ended ones */
  UT_hash_handle hh;

  /* the handler's */
  enum run_outcome outcome;
  char *result;
  char *error_type, *error_message, *error_detail; /* already inside of JSON strings */

  /* set once, before PHASE_ENDED */
  char *report;
  size_t report_n;

  /* the outbox's lock */
  enum out_state out;
  bool out_ended;      /* `report` is there */
  bool out_owed;       /* and to be acknowledged */
  bool out_sent_final; /* OUT_FLYING: with `report`, not with progress */
  bool out_beat;       /* progress is to be told */
  bool out_sent_beat;  /* OUT_FLYING: it is in it */
  bool out_lines;      /* OUT_FLYING: with a chunk of `lines` */
  struct lines
      *lines;        /* what it has logged and the centre does not have yet; NULL: nothing ever, or no more */
  char *out_instead; /* `report` was refused: this is sent in its place */
  struct kelou_run *out_prev, *out_next;
};

/* run.c */
struct kelou_run *run_new(struct kelou_executor *e, const struct kelou_handler *h,
                          struct message *m); /* takes m; one reference */
struct kelou_run *run_ref(struct kelou_run *r);
void run_unref(struct kelou_run **r);
void run_stop(struct kelou_run *r, enum run_stop why); /* the first reason counts */
/* Handler, journal, report; `inline_answer`: the report's text is for the answer and not put into the outbox. */
void run_perform(struct kelou_run *r, bool inline_answer);
/* It has not begun and never shall. With the executor's lock. True: run_left must follow, without it. */
bool run_leave_queue(struct kelou_run *r, enum run_said said);
void run_left(struct kelou_run *r);

/* claim.c: on a thread that may block. UNKNOWN: it was cancelled or its deadline passed before the centre answered. */
enum claim { CLAIM_GRANTED, CLAIM_REFUSED, CLAIM_UNKNOWN };
enum claim run_claim(struct kelou_run *r);

/* lines.c: what a run logs. With the outbox's lock. */
#define LINES_RUN_BYTES_MAX ((size_t)256 * 1024) /* of one run */
/* A line (already inside of a JSON string), made when needed; dropped, and a hole in the numbers, when it does not fit into `room` bytes or
 * into the run's bound. Returns the bytes that it takes. */
size_t lines_add(struct lines **l, enum kelou_level level, const char *inside, size_t room);
size_t lines_end(
    struct lines *l); /* no more will come: says so when the last ones were dropped; the bytes that takes */
bool lines_any(const struct lines *l);
bool lines_last(const struct lines *l);   /* no chunk behind the first */
size_t lines_size(const struct lines *l); /* of the first chunk */
void lines_take(struct lines *l,
                struct str *out);    /* the first chunk as `,"log":[…]`; it stays until lines_drop */
size_t lines_drop(struct lines *l);  /* the first chunk: its bytes */
size_t lines_free(struct lines **l); /* the bytes of all */

/* report.c: the texts of one report, appended. */
void report_final(struct str *out, const struct kelou_run *r, const char *state, usec_t finished_at);
void report_progress(struct str *out, const struct kelou_run *r);
void report_lines(struct str *out, const struct kelou_run *r); /* without a state, for lines alone */
void report_refused(struct str *out, const struct kelou_run *r, int status);
/* The inside of a JSON string, cut with a notice so that it has at most `max` bytes; bad UTF-8 replaced. Free with mem_free. */
char *report_text(const char *z, size_t max);

/* ---------------------------------------------------------------- attempts.c */

/* Which attempt of each run this process has, so that stale and repeated deliveries start nothing. Not locked. Active attempts
 * stay, and so do those whose reports the centre has not taken (the outbox bounds them): it may deliver them again. Other ended ones stay
 * within the limits, the oldest goes first. */
struct attempts {
  size_t max_ended, max_bytes;
  usec_t max_age;
  struct kelou_run *by_id, *ended;
  size_t ended_n, bytes;
};
enum admission { ADMIT_NEW, ADMIT_REPEATED, ADMIT_STALE };
/* STALE: the fence is lower than one seen, or the attempt is an earlier one. REPEATED: ret_known is that attempt, its fence
 * raised to this one. NEW: ret_known is the earlier attempt of the run, or NULL. */
enum admission attempts_look(struct attempts *t, const char *id, int attempt, int64_t fence,
                             struct kelou_run **ret_known);
struct kelou_run *attempts_find(struct attempts *t, const char *id);
void attempts_add(struct attempts *t,
                  struct kelou_run *r); /* in place of an earlier attempt; takes a reference */
void attempts_ended(struct attempts *t, struct kelou_run *r, usec_t now);
void attempts_expire(struct attempts *t, usec_t now);
void attempts_forget(struct attempts *t, struct kelou_run *r); /* as if it had never been here */
void attempts_clear(struct attempts *t);

/* ---------------------------------------------------------------- slots.c */

/* Threads started as they are needed, up to `threads`; tasks beyond wait, up to `waiting`. */
struct slots;
struct slots_counts {
  int running, queued;
};
int slots_new(int threads, int waiting, void (*work)(struct kelou_run *r), struct slots **ret, struct err *e);
bool slots_full(struct slots *p);
void slots_submit(
    struct slots *p,
    struct kelou_run *r); /* one submitting thread, after slots_full said no; takes a reference */
void slots_count(struct slots *p, struct slots_counts *ret);
void slots_free(struct slots **p); /* what waits is still worked on; waits for all */

/* ---------------------------------------------------------------- journal.c */

struct journal; /* thread-safe; concurrent lines share one fsync */
int journal_open(const char *path, bool fsync, struct journal **ret, struct err *e);
/* {"t","event","run_id","attempt","fence","executor","state"}. -errno. NULL journal: nothing. */
int journal_write(struct journal *j, const struct kelou_run *r, const char *event, const char *state);
void journal_close(struct journal **j);

/* ---------------------------------------------------------------- outbox.c */

/* Reports until they are acknowledged: what collects while one request is under way goes into the next. */
struct outbox_options {
  struct loop *loop;
  struct http_client *client;
  const char *token;
  int batch, max_count;
  int64_t max_bytes, max_line_bytes;
  struct target *(*target)(void *arg);               /* a reference, or NULL: not known yet */
  void (*failed)(void *arg, const struct target *t); /* that one did not answer */
  void (*log)(void *arg, enum kelou_level level, const char *line);
  void *arg;
  usec_t retry_first, retry_most, timeout, linger; /* linger: lines alone wait so long for company */
};
struct outbox_counts {
  int64_t waiting, acknowledged, requests;
};
struct outbox;
void outbox_options_default(struct outbox_options *o);
struct outbox *outbox_new(const struct outbox_options *o);
void outbox_push(struct outbox *o, struct kelou_run *r,
                 bool final); /* any thread; final: r->report has been set */
/* A line that the run logs, already inside of a JSON string; any thread. */
void outbox_line(struct outbox *o, struct kelou_run *r, enum kelou_level level, const char *inside);
bool outbox_full(struct outbox *o);
bool outbox_wait_empty(struct outbox *o, usec_t until); /* monotonic */
void outbox_count(struct outbox *o, struct outbox_counts *ret);
void outbox_close(struct outbox *o); /* no further requests; then free the client, then: */
void outbox_free(struct outbox **o);

/* ---------------------------------------------------------------- session.c */

/* The thread that registers, beats and deregisters. */
struct session;
int session_new(struct kelou_executor *ex, struct session **ret,
                struct err *e); /* checks the server's URLs */
int session_start(struct session *s, const char *url, struct err *e);
bool session_wait_registered(struct session *s, usec_t timeout);
struct target *session_target(struct session *s); /* of the server in use; a reference or NULL */
void session_server_failed(struct session *s,
                           const struct target *t); /* another one, if that is still in use */
/* As which incarnation it is registered; 0: not now. */
int64_t session_incarnation(struct session *s);
/* POST and wait for the answer, from any thread that may block. Its status; 0: none (the next call goes to another server). */
int session_ask(struct session *s, const char *path, const char *body, struct str *ret);
bool session_leave(struct session *s, usec_t until); /* deregister and be done; false: not within the time */
void session_free(struct session **s);

/* ---------------------------------------------------------------- executor.c, receive.c */

struct kelou_executor {
  struct arena mem;
  struct kelou_options o; /* texts in mem */
  const char *id_json;    /* the id, as inside of a JSON string */
  const char *base_path;  /* of the advertised URL */
  struct slice secrets[KELOU_SECRETS_MAX];
  struct loop *loop;
  struct http_client *client;
  struct http_server *server;
  struct slots *slots;
  struct outbox *outbox;
  struct session *session;
  struct journal *journal;
  atomic_bool draining;
  struct mutex lock; /* protects: attempts, counts, active */
  struct cond idle;  /* active is 0 */
  struct attempts attempts;
  struct kelou_counts counts; /* up to `cancelled` */
  int64_t active;             /* accepted and not ended */
};
usec_t sdk_mono(void);
usec_t sdk_wall(void);
void sdk_log(const struct kelou_executor *e, enum kelou_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
void receive(struct http_request *r, void *executor); /* loop thread */
