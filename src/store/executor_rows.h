#pragma once
/* Executors and their groups: the operations on them. Part of store.h, which is the contract of all operations; owner src/executor. */
#include "store/rows.h"

/* Create (expected_version 0: ERR_CONFLICT when it exists) or change (that version, else ERR_STALE). */
struct st_group_put {
  struct group_row group;
  int32_t expected_version;
};
struct st_group_put_ret {
  struct group_row group;
};
struct st_group_get {
  struct slice ns, name;
};
struct st_group_get_ret {
  struct group_row group;
};
struct st_group_list {
  struct slice ns /* empty = all */;
};
struct st_group_list_ret {
  struct group_row *rows;
  size_t count;
};
/* ERR_CONFLICT while tasks that are not DELETED use it. Its executors go with it. */
struct st_group_delete {
  struct slice ns, name;
};
struct st_group_delete_ret {
  char unused;
};
/* Register: insert or replace, ONLINE, beat now, incarnation + 1. A weight < 0 leaves the one that is there, 1 when there is none.
 * ERR_NOT_FOUND without the group. */
struct st_executor_put {
  struct executor_row executor;
};
struct st_executor_put_ret {
  int64_t incarnation;
  int32_t weight;
  usec_t now;
};
/* Beats of n instances: ns, group, id and `running` are looked at (state LOST → ONLINE again; DRAINING stays). known[i] = false: not
 * there or OFFLINE, must register anew. */
struct st_executor_beat {
  const struct executor_row *rows;
  size_t count;
};
struct st_executor_beat_ret {
  bool *known;
  enum executor_state *states;
  usec_t now;
};
/* Set DRAINING, ONLINE or OFFLINE (deregistered); EXECUTOR_STATE_MAX_ leaves the state. A weight < 0 leaves the weight. */
struct st_executor_set {
  struct slice ns, group, id;
  enum executor_state state;
  int32_t weight;
};
struct st_executor_set_ret {
  char unused;
};
/* ONLINE/DRAINING ones without a beat for `timeout` → LOST; OFFLINE and LOST ones older than `forget` are removed. Returns the newly lost. Removal
 * comes first: an instance just lost is removed by a later call at the earliest. */
struct st_executor_expire {
  usec_t timeout, forget;
};
struct st_executor_expire_ret {
  struct executor_row *lost;
  size_t count;
};
struct st_executor_list {
  struct slice ns, group; /* empty = all */
};
struct st_executor_list_ret {
  struct executor_row *rows;
  size_t count;
  usec_t now;
};
