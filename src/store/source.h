#pragma once
/* What a back end gives to source.c. Private to src/store. */
#include "store/store.h"

struct store_source_ops {
  const char *name;
  int (*session)(struct store_source *s, enum store_role role, struct store **ret, struct err *e);
  void (*close)(struct store_source *s); /* also frees s */
};
struct store_source { /* first member of each back end's own struct */
  const struct store_source_ops *ops;
};

/* What an operation on a task means for the edges of core/depend.h: its own are written anew, and nobody may depend on one that goes. */
struct edge_edit {
  int64_t task_id;
  struct slice ns;
  const struct depend_def *depends; /* NULL: on no task */
  bool goes;                        /* deleted, or … */
  bool renamed;
  char at[40]; /* where the task stands in the request: "", "/3", "/puts/3", "/changes/3" */
};
/* Those of new tasks that depend on others: how many (at most `count`). `list`: "" or "/puts". */
size_t edge_edits_of(const struct task_def *defs, const int64_t *ids, size_t count, const char *list,
                     struct edge_edit *ret);
/* That of a change of a task that was called `name`; `had`: it depended on others. False: it means nothing for them. */
bool edge_edit_of(const struct st_task_change *in, struct slice ns, struct slice name, bool had,
                  struct edge_edit *ret);
/* The task goes, and `child` depends on it. */
int edge_edit_refused(const struct edge_edit *d, struct slice child, struct err *e);
/* An error of the edit: at this place of its list (-1: at the whole of it). Returns `code`. */
int edge_edit_at(const struct edge_edit *d, int32_t place, int code, struct err *e);

/* The back ends' store_source_open: the same duties. */
int sqlite_source_open(const struct store_options *o, struct store_source **ret, struct err *e);
/* The back ends' parts of backup.h. */
int sqlite_backup(const struct store_options *o, const char *path, struct err *e);
int sqlite_restore(const struct store_options *o, const char *from, struct err *e);
int sqlite_after_restore(const struct store_options *o, struct err *e);
int pg_after_restore(const struct store_options *o, struct err *e);
int pg_source_open(const struct store_options *o, struct store_source **ret, struct err *e);
/* and their store_source_probe, but for `took` */
int sqlite_source_probe(const struct store_options *o, struct store_probe *ret, struct err *e);
int pg_source_probe(const struct store_options *o, struct store_probe *ret, struct err *e);
