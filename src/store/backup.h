#pragma once
/* Copies of a whole database, and what makes an older one safe to run. Blocking; no session is needed. */
#include "store/store.h"

/* Copy the database into the file `path` (made; 0600, durable), as it is at one instant, while a node goes on with it. SQLite;
 * -ENOTSUP: with the database's own tools. */
int store_backup(const struct store_options *o, const char *path, struct err *e);
/* Put the copy `from` in the database's place, as store_after_restore would leave it; what was there stays beside it as
 * <file>.before-restore. SQLite; -ENOTSUP: with the database's own tools. ERR_CONFLICT: a node is alive. */
int store_restore(const struct store_options *o, const char *from, struct err *e);
/* The database has gone back in time: raise every epoch by 2^20, beyond whatever the lost time gave out, and the counters of tasks,
 * incarnations, inbox and archive too. ERR_CONFLICT: a node is alive. */
int store_after_restore(const struct store_options *o, struct err *e);

#define STORE_RESTORE_STEP (INT64_C(1) << 20)
