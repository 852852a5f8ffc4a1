#pragma once
/* Retention: the operations on ended runs. Part of store.h, which is the contract of all operations; owner src/run/retention.c.
 *
 * Ended runs leave the history in bounded, repeatable steps: they are *taken* out of it (nobody lists them any more, task_stats counts
 * them still), read for the archive, marked as archived, and *dropped*: added to the totals of their tasks, with their attempts and logs. What is
 * taken and not yet dropped is one batch. Use one session of its own: one node does this at a time, and for as long as its session's
 * connection lives; each of these operations but history_count returns 1 when another one is at it, and then has done nothing. */
#include "store/rows.h"

struct st_history_batch {
  char unused;
};
struct st_history_batch_ret {
  int64_t no;         /* of the batch that is there, or that was last; the first taken run begins a new one */
  bool archived;      /* its runs are in the archive, or nobody wants them there */
  bool any;           /* there are taken runs: finish this batch before anything is taken */
  usec_t first, last; /* scheduled_at of the oldest and youngest; 0 = none */
  usec_t now;
};
/* STORE_CAP_DAYS: take the oldest whole day (UTC) all of whose runs were due and had ended before `before`. ERR_BUSY: it was in use,
 * soon again. */
struct st_history_take_day {
  usec_t before;
};
struct st_history_take_day_ret {
  bool taken;
  usec_t day; /* its beginning */
};
/* Take at most `limit` ended runs, ascending by (scheduled_at, task_id, part), after `after` (NULL = from the start), with
 * scheduled_at < before and finished_at < before, of the listed namespaces (none listed: of all). Looks at no more than `scan` rows.
 * strays: only those outside whole days (STORE_CAP_DAYS; else it takes nothing). */
struct st_history_take {
  const struct slice *ns;
  size_t ns_count;
  const struct run_key *after;
  usec_t before;
  int32_t scan, limit;
  bool strays;
};
struct st_history_take_ret {
  int64_t taken;
  struct run_key last; /* go on after this */
  bool more;           /* not everything was looked at */
};
/* Taken runs by (scheduled_at, task_id, part), after `after` (NULL = from the start), with the attempts of each. */
struct st_history_read {
  const struct run_key *after;
  int32_t limit;
};
struct history_row {
  struct run_list_row r;
  struct attempt_row *attempts;
  size_t attempt_count;
};
struct st_history_read_ret {
  struct history_row *rows;
  size_t count;
};
struct st_history_archived {
  int64_t no;
};
struct st_history_archived_ret {
  char unused;
};
/* Drop about `limit` taken runs, or so much of their logs. more = false: the batch is done. */
struct st_history_drop {
  int32_t limit;
};
struct st_history_drop_ret {
  bool more;
};
/* STORE_CAP_DAYS: a day that is over gets the indexes that only readers need, one a call; writers do not wait. more = false: all have
 * them. */
struct st_history_settle {
  char unused;
};
struct st_history_settle_ret {
  bool more;
};
/* Ended runs of a namespace (empty: not counted) with since <= scheduled_at < until. */
struct st_history_count {
  struct slice ns;
  usec_t since, until;
};
struct st_history_count_ret {
  int64_t count;
  usec_t oldest; /* the first scheduled_at of any namespace in the range; 0 = none */
};
