#pragma once
/* The archive of runs that leave the database: a file of compressed JSON lines for each batch, `runs-<batch>-<first day>-<last day>-
 * <count>.jsonl.gz`, one run a line as the API shows it, with its attempts, oldest first. A file has its name only when it is whole and
 * durable. Private to src/run. */
#include "store/store.h"

struct archive_writer;
/* Begin the file of batch `no` below `dir` (made when it is not there). */
int archive_begin(const char *dir, int level, int64_t no, struct archive_writer **ret, struct err *e);
int archive_add(struct archive_writer *w, const struct history_row *row, struct err *e);
/* 0: the file is there for good. Frees. */
int archive_end(struct archive_writer **w, struct err *e);
void archive_abandon(struct archive_writer **w);
/* 1: batch `no` has its file. */
int archive_has(const char *dir, int64_t no, struct err *e);
