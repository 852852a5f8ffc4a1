#pragma once
/* kelou cron next without an expression: questions as JSON lines on standard input, answers in the same order
 * on standard output. */
#include "core/zone_set.h"

#define CRON_LINE_MAX      (64 * 1024) /* longest line in bytes */
#define CRON_COUNT_MAX     10000       /* most instants asked for at once */
#define CRON_COUNT_DEFAULT 5

/* {"expr","tz","from_ms","n","dialect","dst_gap","dst_overlap"} → {"next_ms":[…]} or
 * {"error":{"column","message"}}. expr and from_ms must be given. A bad line gets its error and the stream
 * goes on. Answers go out whenever the input pauses. Returns the exit code. */
int cron_lines(struct zone_set *zones, int in_fd, int out_fd);
