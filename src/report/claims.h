#pragma once
/* Claims (semantics.md §5): an executor asks whether it may start an attempt of a task with exactly_one_start. Answered after the commit
 * that says who has it. */
#include "access/access.h"
#include "report/forward.h"

struct http_request;
struct claims;
struct claims_options {
  struct forward *forward; /* borrowed: the owner of the run decides */
  size_t max_claims;       /* in one request */
};
struct claims *claims_new(const struct claims_options *o);
void claims_free(struct claims **c);
/* POST /api/v1/claims on the loop thread: {"claims": [{run_id, attempt, fence, executor, incarnation}]}. 0: taken, the reply follows: 200
 * {"results": [{"run_id", "status": "granted" | "refused" | "forbidden", "why"}]}; 403 when all are forbidden; 503 with Retry-After when one
 * of them cannot be decided here now (all may be asked again, by the same process). Negative: refused, `e` names the field, the request is
 * still the caller's. */
int claims_http(struct claims *c, struct http_request *r, const struct access_identity *who, struct err *e);
