#pragma once
/* After-tasks (semantics.md §5, docs/adr/0017): who may depend on whom, what the ends of parents lead to, and what a child's run is
 * told of them. Pure. The rows are read and written by src/trigger/after.c through the store, all or nothing. */
#include "base/mem.h"
#include "core/rows.h"

#define DEPEND_PARENTS_MAX  32   /* tasks that one task depends on */
#define DEPEND_CHILDREN_MAX 1000 /* tasks that depend on one task */
#define DEPEND_DEPTH_MAX    100  /* tasks one after the other */
#define DEPEND_PAYLOAD_MAX                                                                                   \
  (512 * 1024) /* bytes of the payload of a task that depends on others; `parents` has as much */

/* What a task depends on: tasks of its namespace. */
struct depend_def {
  enum depend_mode mode;
  enum depend_ends ends;
  const struct slice *tasks; /* their names, 1…DEPEND_PARENTS_MAX, each once */
  size_t count;
};

/* "after a, b and c have succeeded". */
void depend_describe(const struct depend_def *d, struct str *out);

/* ------------------------------------------------------------------ who depends on whom */
struct depend_link {
  int64_t child, parent;
  struct slice child_name, parent_name;
};
/* `links`: all edges above and below the tasks in `changed`, whose edges are new. 0, or ERR_INVALID when a task would come after itself,
 * or one of more than DEPEND_DEPTH_MAX one after the other: *ret is then an edge of a changed task that is to blame (its parent is 0:
 * no single one is). */
int depend_check(const struct depend_link *links, size_t count, const int64_t *changed, size_t changed_count,
                 struct depend_link *ret, struct err *e);

/* ------------------------------------------------------------------ a turn */
/* The end of a run of a task that was a parent then. */
struct depend_event {
  int64_t no;    /* given out once; later ends have a greater one as a rule */
  int64_t turn;  /* dependency_turn.no when it was written: edges that are newer are not served */
  int64_t after; /* children up to this id have been served */
  struct run_key key;
  enum run_state state;
  usec_t finished_at;
};
/* A child depends on a parent. */
struct depend_edge {
  int64_t child, parent, since; /* since: the number of the edit that made it */
  int32_t child_shard, version; /* version: of the child */
  enum depend_mode mode;
  enum depend_ends ends;
  bool enabled; /* the child is ENABLED */
  struct slice parent_name;
  int64_t kept;       /* ALL: ends that the next run of the child will stand for; the newest of them is: */
  struct run_key key; /* … this run */
  enum run_state state;
  usec_t finished_at;
};
/* A parent's end that a run of the child stands for. */
struct depend_parent {
  struct slice name;
  struct run_key key;
  enum run_state state;
  usec_t finished_at;
  int64_t count; /* ends that it stands for, itself included */
};
struct depend_fire {        /* a run to be made */
  struct run_key key, last; /* the child's; that of the end which led to it */
  int32_t version;          /* of the child, as seen */
  struct depend_parent *parents;
  size_t count;
};
struct depend_out {
  struct depend_fire *fires;
  size_t fire_count;
  bool *changed; /* by edge: what is kept of its parent is another now (in the edge itself) */
  size_t done;   /* events that are done, from the front */
  int64_t after; /* not 0: the event behind them has been served for the children up to this */
};
/* `events` by no; `edges` by child, the whole list of each child that has one of their parents. At most `max_fires` runs. Everything is made
 * in `mem`. */
void depend_decide(const struct depend_event *events, size_t count, struct depend_edge *edges,
                   size_t edge_count, size_t max_fires, struct arena *mem, struct depend_out *ret);

/* ------------------------------------------------------------------ what the child is told */
/* The child's own payload (an object as text; p == NULL: none) with `parents` in it. `runs`: one for each parent, as it stands in the
 * history; NULL: it is there no more. Results that are too long together are cut, and say so. Free with mem_free. */
char *depend_payload(struct slice own, const struct depend_parent *parents, const struct run_row *const *runs,
                     size_t count);
