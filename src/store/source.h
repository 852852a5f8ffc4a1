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
