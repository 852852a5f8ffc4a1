#pragma once
/* Cross-cutting behaviour of a store: decorators that implement the same operations. Each owns the store it wraps. */
#include "store/store.h"

/* A pool: any thread may call; each operation borrows a session (at most `max`, waits up to `wait`, else ERR_BUSY), broken ones are
 * replaced. shard_lock/unlock and wait_change are refused (-ENOTSUP): they need a session of their own. */
int store_pool(struct store_source *source, enum store_role role, int max, usec_t wait, struct store **ret,
               struct err *e);

/* Times each operation: kelou_db_query_duration_seconds{op}, kelou_db_errors_total{op}; slow ones (≥ slow) at debug. */
struct store *store_trace(struct store *inner, usec_t slow, const struct clock *clock);

/* Faults for tests, decided by the caller before each operation. */
enum store_fault {
  STORE_FAULT_NONE,
  STORE_FAULT_UNAVAILABLE /* before: nothing written */,
  STORE_FAULT_LOST_ANSWER /* done, answer lost: ERR_UNKNOWN_OUTCOME */,
  STORE_FAULT_UNKNOWN_NOT_DONE /* not done, ERR_UNKNOWN_OUTCOME */
};
struct store *store_faults(struct store *inner, enum store_fault (*decide)(void *arg, const char *op),
                           void *arg);
