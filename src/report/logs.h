#pragma once
/* What runs log (semantics.md §5, §6): lines of reports on their way to the database, and back to readers. Owns run_log and run_log_head.
 *
 * One writer thread commits what has queued, in bounded transactions, beside FIRE and FINISH and never in their way; who posts is told
 * after the commit. Thread-safe. */
#include "core/model.h"
#include "store/store.h"

struct logs;
struct logs_options {
  struct store *write;          /* a session of its own; owned from logs_new on */
  struct store *read;           /* pooled; borrowed */
  int64_t max_lines, max_bytes; /* of a run: 10,000 and 4 MiB; what is beyond is dropped and shown as cut */
  size_t queue_bytes;           /* waiting for the writer: 16 MiB; beyond: ERR_BUSY */
  usec_t retry_for;             /* a database that does not answer: 10 s, then LOG_RESULT_RETRY */
};
void logs_options_default(struct logs_options *o);
struct logs *logs_new(const struct logs_options *o);
int logs_start(struct logs *l, struct err *e);
void logs_stop(struct logs *l); /* writes what is queued */
void logs_free(struct logs **l);

enum log_result {
  LOG_RESULT_RECORDED,
  LOG_RESULT_UNKNOWN,   /* there is no such run, or no more */
  LOG_RESULT_FORBIDDEN, /* it belongs to another namespace or group */
  LOG_RESULT_RETRY      /* the database does not answer: may be posted again */
};
/* Post the lines of reports; all of it is copied. `done` is called once, when each of them is durable or refused, on the writer's
 * thread: one result for each entry. ERR_BUSY: nothing was taken. */
int logs_post(struct logs *l, const struct log_entry *entries, size_t n,
              void (*done)(void *arg, const enum log_result *results, size_t n), void *arg, struct err *e);

/* ---- reading */
enum log_row_kind {
  LOG_ROW_LINE,
  LOG_ROW_GAP, /* the lines from…to have not come: the executor dropped them, or they are still on their way */
  LOG_ROW_CUT /* the lines from…to came and were dropped: the run has reached its bound */
};
struct log_row {
  enum log_row_kind kind;
  int32_t attempt, from, to;
  const struct log_line *line; /* LOG_ROW_LINE */
};
struct logs_ask {
  struct run_key key;
  int32_t attempt;                  /* only this one; 0 = all */
  int32_t after_attempt, after_seq; /* rows behind this place */
  int32_t limit;                    /* rows */
  bool ended;                       /* the run has: read before the lines are */
};
struct logs_page {
  struct log_row *rows; /* by attempt, line number */
  size_t count;
  int32_t attempt, seq; /* go on after this */
  bool more;            /* there is more to be read at once */
};
/* Blocks on the database; results in `mem`. */
int logs_read(struct logs *l, const struct logs_ask *ask, struct logs_page *ret, struct arena *mem,
              struct err *e);

/* A line whose predecessor is missing is held back for so long while the run is open: what is sent at the same time may overtake. */
#define LOGS_PATIENCE (5 * USEC_PER_SEC)
/* The rows of a page, from what was read. Pure. */
void logs_arrange(const struct logs_ask *ask, const struct st_run_log_list_ret *got, struct logs_page *ret,
                  struct arena *mem);
