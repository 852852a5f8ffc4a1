#pragma once
/* Alerts: their rows and the operations on them. Part of store.h, which is the contract of all operations; owner src/monitor.
 *
 * The FINISH of a run that ends in FAIL leaves an event in the same transaction, while there is a rule at all; other runs cost
 * nothing. Events become alerts (rule × channel × task), alerts are sent until they are delivered or given up. */
#include "core/rows.h"

enum alert_def_kind { ALERT_DEF_CHANNEL, ALERT_DEF_RULE };
/* A channel or a rule: what the database need not understand stands in `definition` (JSON). */
struct alert_def_row {
  int64_t id;
  enum alert_def_kind kind;
  struct slice ns, name, definition;
  struct slice url_sealed, secret_sealed, secret_previous_sealed; /* crypto_seal texts; channels only */
  usec_t created_at, updated_at;
  int32_t version;
};
struct alert_event {
  int64_t no;
  bool there; /* false: the run or its task is gone; only `no` is set */
  struct run_row run;
  struct slice task_name, ns, group, handler;
};
struct alert_key {
  int64_t rule_id, channel_id, task_id;
};
struct alert_row {
  int64_t id;
  struct alert_key key;
  int32_t seq; /* rises within a key from 1 */
  enum alert_state state;
  bool summary, closed; /* closed: being sent or sent, nothing is added any more */
  int64_t count;        /* failures that it stands for */
  int32_t attempts, tries,
      status;               /* tries: attempts since it was asked for; status: the last answer's, 0 = none */
  usec_t first_at, last_at; /* ends of its first and last run */
  usec_t window_until;      /* before this no other alert of the key is sent */
  usec_t created_at, next_at;                /* next_at: due not before */
  usec_t give_up_at, sent_at;                /* sent_at: delivered; 0 = not yet */
  struct slice ns, rule, channel, task_name; /* as they were called */
  struct slice error, details;               /* details: JSON of task and last run */
};
struct alert_attempt_row {
  int32_t attempt, status;
  usec_t at, took;
  struct slice error;
};

/* Create (expected_version 0: ERR_CONFLICT when it exists) or change (that version, else ERR_STALE). */
struct st_alert_def_put {
  struct alert_def_row def;
  int32_t expected_version;
};
struct st_alert_def_put_ret {
  struct alert_def_row def;
};
struct st_alert_def_get {
  enum alert_def_kind kind;
  struct slice ns, name;
};
struct st_alert_def_get_ret {
  struct alert_def_row def;
};
/* By namespace and name. */
struct st_alert_def_list {
  enum alert_def_kind kind;
  struct slice ns; /* empty = all */
};
struct st_alert_def_list_ret {
  struct alert_def_row *rows;
  size_t count;
};
struct st_alert_def_delete {
  enum alert_def_kind kind;
  struct slice ns, name;
};
struct st_alert_def_delete_ret {
  char unused;
};
/* The oldest events, with their runs. */
struct st_alert_events {
  int32_t limit;
};
struct st_alert_events_ret {
  struct alert_event *rows;
  size_t count;
};
/* The latest alert of each key; id 0: there is none. */
struct st_alert_latest {
  const struct alert_key *keys;
  size_t count;
};
struct st_alert_latest_ret {
  struct alert_row *rows; /* `count` rows, same order */
};
struct alert_bump { /* more failures for an alert that is not closed; compare-and-set on its count */
  int64_t id, seen_count, count;
  usec_t last_at;
  struct slice details;
};
/* Events are done and their alerts made, in one transaction. ERR_CONFLICT, nothing written: an event is gone, an alert was closed
 * or has another count, or a (key, seq) exists: somebody else was at it, read again. */
struct st_alert_apply {
  const int64_t *events;
  size_t event_count;
  const struct alert_row *alerts; /* new ones: all but id; state PENDING */
  size_t alert_count;
  const struct alert_bump *bumps;
  size_t bump_count;
};
struct st_alert_apply_ret {
  char unused;
};
/* Take PENDING alerts that are due: closed, one attempt more, not due again before `lease` has passed. */
struct st_alert_claim {
  int32_t limit; /* 0: only look */
  usec_t lease;
};
struct st_alert_claim_ret {
  struct alert_row *rows;
  size_t count;
  int64_t pending;  /* all PENDING ones, also those not due */
  usec_t oldest_at; /* created_at of the oldest of them that is due; 0 = none */
  usec_t now;
};
/* What became of attempt `attempt`: into the log; state and `next_in` (PENDING: due then) unless a later attempt has begun. */
struct st_alert_result {
  int64_t id;
  enum alert_state state;
  usec_t next_in;
  struct alert_attempt_row attempt;
};
struct st_alert_result_ret {
  char unused;
};
/* Newest first, id < before (0 = from the top). Empty, negative and 0 filters = any. */
struct st_alert_list {
  struct slice ns, rule, channel;
  int64_t task_id;
  int state;
  int64_t before;
  int32_t limit;
};
struct st_alert_list_ret {
  struct alert_row *rows;
  size_t count;
};
struct st_alert_get {
  int64_t id;
};
struct st_alert_get_ret {
  struct alert_row alert;
  struct alert_attempt_row *attempts; /* oldest first */
  size_t attempt_count;
};
/* Send it (again) now, for at most `give_up_in`; closed. */
struct st_alert_send {
  int64_t id;
  usec_t give_up_in;
};
struct st_alert_send_ret {
  struct alert_row alert;
};
/* Forget ended alerts created longer than `age` ago, at most `limit`. */
struct st_alert_expire {
  usec_t age;
  int32_t limit;
};
struct st_alert_expire_ret {
  int64_t removed;
};
