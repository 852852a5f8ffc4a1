#pragma once
/* Dead letters: runs that ended in FAIL, and what became of each. Part of store.h, which is the contract of all operations; owner
 * src/task. A dead letter is made by the FINISH of its run, in the same transaction, and goes when retention drops the run. One whose
 * run has left the history is not found any more. */
#include "store/rows.h"

struct dead_letter_row {
  struct run_row run;                         /* as it ended */
  struct slice task_name, ns, group, handler; /* group and handler: of the task when the run failed */
  enum dead_letter_state state;
  usec_t handled_at; /* 0: OPEN, as are the rest */
  struct slice handled_by, note;
  struct slice replay_run; /* REPLAYED: id of the new run */
};
struct dead_letter_filter { /* empty, 0 and negative: any */
  struct slice ns, group, handler, error_type;
  int64_t task_id;
  int state, reason;
  usec_t since, until; /* since <= scheduled_at < until */
};
/* By (scheduled_at, task_id, part), newest first, below `from`; or oldest first, above it (NULL: from the end). */
struct st_dead_letter_list {
  struct dead_letter_filter filter;
  const struct run_key *from;
  bool oldest_first;
  bool of_tasks; /* only those whose task is not DELETED */
  int32_t limit;
};
struct st_dead_letter_list_ret {
  struct dead_letter_row *rows;
  size_t count;
};
struct st_dead_letter_get {
  struct run_key key;
};
struct st_dead_letter_get_ret {
  struct dead_letter_row row;
};
enum dead_letter_want {
  DEAD_LETTER_EACH_OPEN, /* those that are OPEN, the others are left alone */
  DEAD_LETTER_ALL_OPEN, /* ERR_CONFLICT, nothing written, unless all are OPEN; ERR_NOT_FOUND: one is not there */
  DEAD_LETTER_RETRY, /* REPLAYED: each inbox row is written, whatever the run is; a letter that is not REPLAYED becomes so */
};
struct dead_letter_deed {
  struct run_key key;
  struct inbox_row inbox; /* REPLAYED: asks for the new run; shard, kind, body */
  struct slice replay_run;
};
/* Replay or discard, with the new runs' inbox rows, in one transaction. With idem: a repeat returns 1, and `count` and `ref` of the
 * first answer; two calls with one key never both write. */
struct st_dead_letter_handle {
  enum dead_letter_want want;
  enum dead_letter_state state; /* REPLAYED or DISCARDED */
  const struct dead_letter_deed *deeds;
  size_t count;
  struct slice by, note;
  struct slice ref; /* kept with the answer */
  const struct idem *idem;
};
struct st_dead_letter_handle_ret {
  int64_t count; /* letters that this call handled */
  struct slice ref;
};
/* OPEN ones, counted up to `limit`. */
struct st_dead_letter_count {
  int32_t limit;
};
struct st_dead_letter_count_ret {
  int64_t open;
};
