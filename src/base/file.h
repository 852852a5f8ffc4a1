#pragma once
/* Whole small files, and names that last. Blocking; thread-safe. */
#include "base/err.h"
#include "base/str.h"
#include <stdint.h>

/* Append the content of a regular file to `out`. -ENOENT, -EACCES, -EISDIR … or ERR_TOO_LARGE beyond
 * `max_bytes` (or beyond what `out` takes). Bytes as they are, NULs included. */
int file_read(const char *path, size_t max_bytes, struct str *out, struct err *e);
/* The same for <dir>/<name>. */
int file_read_below(const char *dir, const char *name, size_t max_bytes, struct str *out, struct err *e);
/* When it was last changed, as a number to compare with an earlier one: it differs when the file was
 * replaced. 0 = there is none. */
uint64_t file_stamp(const char *path);
/* Give a file that is written and synced its lasting name (replacing what has it), and make that durable. */
int file_publish(const char *from, const char *to, struct err *e);
/* Copy a regular file to `to` (0600, must not exist unless `replace`), synced; its name is not durable yet. */
int file_copy(const char *from, const char *to, bool replace, struct err *e);
