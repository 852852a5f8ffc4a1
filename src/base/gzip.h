#pragma once
/* Compressed files of lines (gzip, so that zcat reads them too): written once and made durable, read line by line. Blocking. */
#include "base/err.h"
#include "base/str.h"

#define GZIP_LINE_MAX ((size_t)32 << 20) /* bytes of a line that is read */

struct gzip_writer;
/* Make `path` (0600; what is there is replaced). `level` 1…9. */
int gzip_create(const char *path, int level, struct gzip_writer **ret, struct err *e);
int gzip_write(struct gzip_writer *w, struct slice bytes, struct err *e);
/* End the stream and fsync: 0 means that the file is whole and durable (its name is not: file_publish). Frees. */
int gzip_finish(struct gzip_writer **w, struct err *e);
/* Close and remove the file; nothing when finished. */
void gzip_abandon(struct gzip_writer **w);

struct gzip_reader;
int gzip_open(const char *path, struct gzip_reader **ret, struct err *e);
/* The next line without its end, valid until the next call. 1: a line, 0: the end. ERR_MALFORMED: damaged or cut off;
 * ERR_TOO_LARGE: a line beyond GZIP_LINE_MAX. */
int gzip_line(struct gzip_reader *r, struct slice *ret, struct err *e);
void gzip_close(struct gzip_reader **r);
