#pragma once
/* What is kept for an Idempotency-Key when the answer has a count: "<count> <ref>". Used by the back ends. */
#include "base/mem.h"
#include "base/parse.h"

static inline struct slice store_answer(int64_t count, struct slice ref, struct arena *mem) {
  return slice_of(arena_printf(mem, "%lld %.*s", (long long)count, SLICE_FMT(ref)));
}
static inline void store_answer_read(struct slice kept, int64_t *ret_count, struct slice *ret_ref) {
  struct slice count = slice_cut(kept, ' ', ret_ref);
  *ret_count = 0;
  (void)parse_i64(count, 0, INT64_MAX, ret_count, NULL); /* it was written by store_answer */
}
