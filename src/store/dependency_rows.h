#pragma once
/* After-tasks: who depends on whom, the ends of parents, and what they lead to (docs/adr/0017). Part of store.h, which is the contract
 * of all operations; the edges are written with their child's version (task_put, task_change, task_apply), the events by run_apply;
 * owner of what follows: src/trigger. */
#include "core/depend.h"
#include "store/rows.h"

/* The oldest events, at most `limit`, and the edges of every child that has one of their parents, by child, as core/depend.h wants them.
 * `turn` was read before all else. */
struct st_dependency_read {
  int32_t limit;
};
struct st_dependency_read_ret {
  int64_t turn;
  struct depend_event *events;
  size_t event_count;
  struct depend_edge *edges;
  size_t edge_count;
};
/* A turn, all or nothing: ERR_CONFLICT, nothing written, when there has been another one, or an edit, since `turn` was read. `done` are
 * removed; the event `partly` (0: none) has been served for the children up to `after`; of each edge in `kept` what is kept of its
 * parent; `inbox` is appended (NOTIFY). */
struct st_dependency_apply {
  int64_t turn;
  const int64_t *done;
  size_t done_count;
  int64_t partly, after;
  const struct depend_edge *kept;
  size_t kept_count;
  const struct inbox_row *inbox;
  size_t inbox_count;
};
struct st_dependency_apply_ret {
  char unused;
};
