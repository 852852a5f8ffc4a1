#pragma once
/* Reports that came back from executors (semantics.md §6): checked, de-duplicated by the run service, answered after the commit. */
#include "access/access.h"
#include "report/forward.h"
#include "report/logs.h"

struct http_request;
struct intake;
struct intake_options {
  struct forward *forward; /* borrowed: where states go */
  struct logs *logs;       /* borrowed */
  size_t max_reports;      /* in one request: 1,000 */
  size_t max_result_bytes; /* 64 KiB; longer ones are cut with a notice */
  size_t max_line_bytes;   /* of a log line: 8 KiB; longer ones are cut */
};
void intake_options_default(struct intake_options *o);
struct intake *intake_new(const struct intake_options *o);
void intake_free(struct intake **i);
/* POST /api/v1/reports on the loop thread: {"reports": [{run_id, attempt, fence, state, …, log}]}. Lines of a report are written before
 * the state that it says; reports without lines wait for no log. 0: taken, the reply follows after the commit of all of it, by whoever owns the run's shard, or of its row in the inbox: 200 {"results": [{"run_id", "status": "recorded" | "late" | "forbidden"}]}; 403 when all are forbidden; 503 with
 * Retry-After when one of them could not be recorded now (all may be repeated). Negative: refused, `e` names the field, the
 * request is still the caller's. */
int intake_http(struct intake *i, struct http_request *r, const struct access_identity *who, struct err *e);
