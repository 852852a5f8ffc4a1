/* Kelou executor SDK for C: registers with the centre, takes signed runs over HTTP, runs handlers on a bounded pool of
 * threads, refuses stale and repeated deliveries, and reports until the centre has acknowledged (docs/executors.md).
 *
 * Texts given to the library are copied unless it is said otherwise. Times are µs since 1970-01-01T00:00:00Z, lengths
 * are µs. Codes are 0, or a negative KELOU_E…. Thread-safe where nothing else is said. The process ignores SIGPIPE from
 * kelou_start on. Out of memory ends the process.
 *
 * A run is delivered at least once: the same run may be given to another executor when this one is slow, lost or cut off.
 * Within this process one attempt starts once. */
#ifndef KELOU_EXECUTOR_H
#define KELOU_EXECUTOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KELOU_SDK_VERSION "0.1.0"

enum kelou_error {
  KELOU_EINVAL = -1,   /* an argument or option */
  KELOU_EIO = -2,      /* a file, a socket, a thread */
  KELOU_ETIMEDOUT = -3 /* the time is up */
};

enum kelou_level { KELOU_DEBUG, KELOU_INFO, KELOU_WARN, KELOU_ERROR };

struct kelou_executor; /* one instance registered in one group; several may live in one process */
struct kelou_run;      /* one attempt of a run, as its handler sees it: valid until the handler returns */

/* ---------------------------------------------------------------- handlers */

enum kelou_handler_flag {
  /* Run on the I/O thread itself, at once: for work of microseconds that never blocks. Takes no slot. */
  KELOU_INLINE = 1
};

struct kelou_handler {
  const char *name; /* "*": whatever no other handler is named for */
  /* Does the work and says how it went with kelou_succeed, kelou_fail or kelou_stopped; without any of them it has
   * succeeded without a result, or was stopped when a cancel came. On a thread of the pool. */
  void (*run)(struct kelou_run *run, void *user);
  void *user;
  unsigned flags;
};

/* ---------------------------------------------------------------- options */

struct kelou_options {
  const char
      *server; /* base URL of the centre; several with commas: the next is tried when one does not answer */
  const char *token;          /* an executor token */
  const char *ns;             /* namespace; NULL: that of the token */
  const char *group;          /* NULL: that of the token */
  const char *id;             /* of this instance, unique in its group; NULL: host name and listen port */
  const char *const *secrets; /* HMAC secrets of the group, at least one; two while one is being rotated */
  size_t secret_count;        /* at most KELOU_SECRETS_MAX */

  const char *listen_address; /* numeric; "127.0.0.1" */
  int listen_port;            /* 0: any free one, see kelou_port */
  const char *advertised_url; /* how the centre reaches this instance; NULL: http://listen_address:port */

  const struct kelou_handler *handlers;
  size_t handler_count;
  int slots;         /* handlers at the same time, threads at most; 10 */
  int queue;         /* runs that wait for a slot; beyond: 429; 16 */
  int answer_inline; /* not 0: runs of KELOU_INLINE handlers are answered 200 with their result, without a report */
  const char *version; /* of the program, shown in the executor list; NULL */
  const char *labels;  /* JSON object text: tasks may ask for them; NULL */
  int weight; /* its share of the runs, 0 (only those that name it) to 1000; -1: as the centre has it, 1 at first */
  int64_t heartbeat;   /* 0: as the centre says */
  const char *ca_file; /* for an https server; NULL: the system's certificates */
  const char
      *journal;      /* file to which start and end of each attempt are appended as JSON lines; NULL: none */
  int journal_fsync; /* 1: each line is on the disk before the work goes on; 0: it is in the kernel */

  int report_batch;       /* reports of one request, at most; 500 */
  int remember;           /* ended attempts remembered for repeated deliveries, at most; 100,000 */
  int64_t remember_for;   /* and so long; 1 h */
  int64_t remember_bytes; /* and so many bytes of their reports; 64 MiB */
  int outbox;             /* reports not yet acknowledged, beyond which new runs get 429; 100,000 */
  int64_t outbox_bytes;   /* and bytes of them; 256 MiB */
  int64_t log_bytes;      /* lines of run logs not yet acknowledged; beyond they are dropped; 16 MiB */
  int64_t replay_window;  /* age of a signature; 300 s */

  /* One line without its end, from any thread; NULL: silence. Has no secrets in it. */
  void (*log)(void *arg, enum kelou_level level, const char *line);
  void *log_arg;
};
#define KELOU_SECRETS_MAX 4

/* Defaults; server, token, secrets and handlers remain to be set. */
void kelou_options_init(struct kelou_options *o);

/* ---------------------------------------------------------------- life */

/* Listens, and registers from a thread of its own, again and again until the centre answers. On failure nothing is left
 * behind and ret_why (may be NULL) of why_size bytes says why. */
int kelou_start(const struct kelou_options *o, struct kelou_executor **ret, char *ret_why, size_t why_size);

/* Wait until it is registered. KELOU_ETIMEDOUT. A negative timeout waits without end. */
int kelou_wait_registered(struct kelou_executor *e, int64_t timeout);

int kelou_port(const struct kelou_executor *e);
const char *kelou_id(const struct kelou_executor *e); /* lives as long as the executor */

struct kelou_counts {
  int64_t accepted, repeated, refused_stale, refused_busy; /* deliveries, by what became of them */
  int64_t succeeded, failed, cancelled;                    /* attempts that have ended */
  int64_t not_granted;     /* … without having started: they could not be claimed */
  int64_t running, queued; /* now */
  int64_t reports_waiting; /* now: not yet acknowledged */
  int64_t reports_acknowledged, report_requests;
};
void kelou_get_counts(struct kelou_executor *e, struct kelou_counts *ret);

/* Take no new runs (503), let what was accepted end, report it, deregister: within `grace`, else KELOU_ETIMEDOUT and it
 * may be called again. Repeated deliveries and cancels are answered all the while. */
int kelou_drain(struct kelou_executor *e, int64_t grace);

/* The end, drained or not: running handlers are asked to stop (kelou_cancelled) and waited for without limit, what they
 * say is reported within 2 s if the centre answers, the instance is deregistered. *e becomes NULL. Not from a handler. */
void kelou_stop(struct kelou_executor **e);

/* ---------------------------------------------------------------- what a handler may ask */

const char *kelou_run_id(const struct kelou_run *r);
const char *kelou_idempotency_key(const struct kelou_run *r); /* the same for all attempts of a run */
const char *kelou_task_id(const struct kelou_run *r);
const char *kelou_task_name(const struct kelou_run *r);
const char *kelou_namespace(const struct kelou_run *r);
const char *kelou_handler_name(const struct kelou_run *r);
const char *kelou_traceparent(const struct kelou_run *r);   /* W3C trace context; "" when there is none */
const char *kelou_parent_run_id(const struct kelou_run *r); /* "" when there is none */
const char *kelou_payload(const struct kelou_run *r);       /* JSON text, "null" when there is none */
size_t kelou_payload_size(const struct kelou_run *r);
int kelou_attempt(const struct kelou_run *r); /* 1, 2, … */
int kelou_max_attempts(const struct kelou_run *r);
int kelou_priority(const struct kelou_run *r);
int kelou_part_index(const struct kelou_run *r); /* of a broadcast; 0 of 1 otherwise */
int kelou_part_total(const struct kelou_run *r);
int64_t
kelou_fence(const struct kelou_run *r); /* grows with each owner of the run: to fence writes elsewhere */
int64_t kelou_scheduled_at(const struct kelou_run *r);
int64_t kelou_fired_at(const struct kelou_run *r);
int64_t kelou_deadline(const struct kelou_run *r); /* by the centre's clock; INT64_MAX: none */

/* Not 0 once the run shall stop: cancelled, or a later attempt of it has come, or the executor ends. */
int kelou_cancelled(const struct kelou_run *r);
/* A descriptor that becomes readable then, for poll(2); belongs to the run. -1: no descriptor was to be had. */
int kelou_cancel_fd(struct kelou_run *r);
/* Wait. Returns 1 as soon as the run shall stop, else 0 after `length`. */
int kelou_sleep(struct kelou_run *r, int64_t length);

/* ---------------------------------------------------------------- what a handler says */

/* How far, 0 … 1. Cheap: what was said since the last report request is folded into one. */
void kelou_progress(struct kelou_run *r, double fraction);

/* A line for the run's log, from any thread while the handler runs. Kept in memory until the centre has it, sent with the next report or a
 * moment later, before the end of the run is. Numbered here: when lines come faster than they go (256 KiB of a run, log_bytes of all),
 * the newest are dropped and readers see the hole. Beyond 8 KiB a line is cut with a notice; bytes that are not UTF-8 are replaced; line
 * feeds at its end are left out. kelou_run_log_text: `size` bytes as they are. */
void kelou_run_log(struct kelou_run *r, enum kelou_level level, const char *fmt, ...)
#ifdef __GNUC__
    __attribute__((format(printf, 3, 4)))
#endif
    ;
void kelou_run_log_text(struct kelou_run *r, enum kelou_level level, const char *text, size_t size);

/* How it went; the last call counts. Reported when the handler returns.
 * kelou_succeed: `json` is any JSON value, or NULL. KELOU_EINVAL when it is not JSON: then nothing was said. A text
 * beyond KELOU_RESULT_MAX bytes is reported as a JSON string of its beginning, with a notice. */
int kelou_succeed(struct kelou_run *r, const char *json);
/* `type` is a short word for machines, `message` for people, `detail` (may be NULL) whatever helps. Cut with a notice
 * beyond KELOU_RESULT_MAX bytes. Whether it is tried again is for the task's retry policy. Bytes that are not UTF-8 are replaced. */
void kelou_fail(struct kelou_run *r, const char *type, const char *message, const char *detail);
/* It stopped because it was told to. */
void kelou_stopped(struct kelou_run *r);
#define KELOU_RESULT_MAX 65536

#ifdef __cplusplus
}
#endif
#endif
