#pragma once
/* What runs have logged: its rows and the operations on them. Part of store.h, which is the contract of all operations; owner src/report,
 * but that the logs of dropped runs go with them (retention_rows.h).
 *
 * A line is known by (run, attempt, seq): the executor numbers the lines of an attempt from 1, so that a repeated line is recognised and
 * order does not depend on arrival. Nothing here is fenced, and nothing here looks at the state of a run. */
#include "core/rows.h"

struct log_line {
  int32_t attempt, seq; /* from 1 */
  enum run_log_level level;
  usec_t at;       /* as the executor says; 0 = not said */
  usec_t taken_at; /* when it came, by the database's clock; of the store's making */
  int32_t cut;     /* bytes that were cut off its end */
  struct slice text;
};
/* What one report brings. */
struct log_entry {
  struct run_key key;
  struct slice ns, group; /* of the reporter: must be the run's; p == NULL: not checked */
  const struct log_line *lines;
  size_t count;
};
enum log_answer {
  LOG_TAKEN,     /* each of its lines is there, was there already, or is beyond the bound and counted */
  LOG_UNKNOWN,   /* there is no such run, or no more: nothing was written */
  LOG_FORBIDDEN, /* the run belongs to another namespace or group: nothing was written */
};
/* Add lines to the logs of runs, open or ended, in one transaction, in the order in which they come. A line that is there already stays
 * as it is. A run may have `max_lines` lines and `max_bytes` bytes of text; from the first line beyond on all its new lines are
 * dropped, and only how far they went is kept (log_head). (Two nodes that write for one run at the same instant may go beyond by what
 * one of them writes.) Idempotent: may be repeated after ERR_UNKNOWN_OUTCOME. */
struct st_run_log_put {
  const struct log_entry *entries;
  size_t count;
  int64_t max_lines, max_bytes;
};
struct log_put_result {
  enum log_answer answer;
  int32_t taken, repeated, dropped; /* lines */
  int64_t taken_bytes, dropped_bytes;
};
struct st_run_log_put_ret {
  struct log_put_result *results; /* one for each entry */
};
/* How far the log of an attempt goes. */
struct log_head {
  int32_t attempt;
  int32_t last_seq;     /* the greatest that came, kept or dropped */
  int64_t lines, bytes; /* kept */
  bool full;            /* lines were dropped: the run has reached its bound */
};
/* Lines by (attempt, seq) after (after_attempt, after_seq), of one attempt when `attempt` is not 0; and the heads of all attempts that have
 * logged, read before the lines. An unknown run has none. */
struct st_run_log_list {
  struct run_key key;
  int32_t attempt, after_attempt, after_seq;
  int32_t limit;
};
struct st_run_log_list_ret {
  struct log_line *lines;
  size_t count;
  struct log_head *heads; /* by attempt */
  size_t head_count;
  usec_t now;
};
/* Remove logs of runs that have ended and were due before `before`, about `limit` lines at a time or (STORE_CAP_DAYS) a whole day; and what
 * is left of runs that are no more. more = false: nothing is left to remove. */
struct st_run_log_expire {
  usec_t before;
  int32_t limit;
};
struct st_run_log_expire_ret {
  int64_t removed; /* lines; -1: a whole day, not counted */
  bool more;
};
