#pragma once
/* keloud --backup, --restore, --after-restore: what an operator does to a database beside the daemon. Each says on standard output
 * what it has done. */
#include "base/conf.h"

/* Into the folder `dir` (made): kelou.db, and secret.key, without which the secrets in it cannot be read. */
int server_backup(const struct conf *conf, const char *dir, struct err *e);
int server_restore(const struct conf *conf, const char *dir, struct err *e);
int server_after_restore(const struct conf *conf, struct err *e);
