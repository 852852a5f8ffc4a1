#pragma once
/* The nouns every room speaks of: enums with their texts, the key of a run, its public id. Pure data. */
#include "base/err.h"
#include "base/str.h"
#include "base/time.h"

#define RUN_STATE(x) RUN_##x,
enum run_state {
#include "core/words.def"
  RUN_STATE_MAX_
};
#define RUN_REASON(x) REASON_##x,
enum run_reason {
#include "core/words.def"
  REASON_MAX_
};
#define RUN_ORIGIN(x) ORIGIN_##x,
enum run_origin {
#include "core/words.def"
  ORIGIN_MAX_
};
#define RUN_WAIT(x) WAIT_##x,
enum run_wait { /* what a QUEUED run waits for: others of its task, a place in its group or namespace, its group's rate; not stored */
#include "core/words.def"
                WAIT_MAX_
};
#define TASK_STATE(x) TASK_##x,
enum task_state {
#include "core/words.def"
  TASK_STATE_MAX_
};
#define SCHEDULE_KIND(x) SCHEDULE_##x,
enum schedule_kind {
#include "core/words.def"
  SCHEDULE_KIND_MAX_
};
#define MISFIRE_POLICY(x) MISFIRE_##x,
enum misfire_policy {
#include "core/words.def"
  MISFIRE_MAX_
};
#define OVERLAP_POLICY(x) OVERLAP_##x,
enum overlap_policy {
#include "core/words.def"
  OVERLAP_MAX_
};
#define DEPEND_MODE(x) DEPEND_##x,
enum depend_mode {
#include "core/words.def"
  DEPEND_MODE_MAX_
};
#define DEPEND_ENDS(x) ENDS_##x,
enum depend_ends { /* which ends of a parent's runs count */
#include "core/words.def"
                   DEPEND_ENDS_MAX_
};
#define ROUTING(x) ROUTING_##x,
enum routing {
#include "core/words.def"
  ROUTING_MAX_
};
#define ON_LOST(x) ON_LOST_##x,
enum on_lost {
#include "core/words.def"
  ON_LOST_MAX_
};
#define CHANNEL(x) CHANNEL_##x,
enum channel {
#include "core/words.def"
  CHANNEL_MAX_
};
#define EXECUTOR_STATE(x) EXECUTOR_##x,
enum executor_state {
#include "core/words.def"
  EXECUTOR_STATE_MAX_
};
#define BREAKER_STATE(x) BREAKER_##x,
enum breaker_state { /* of an executor, as one node sees it; not stored */
#include "core/words.def"
                     BREAKER_STATE_MAX_
};
#define ALERT_STATE(x) ALERT_##x,
enum alert_state {
#include "core/words.def"
  ALERT_STATE_MAX_
};
#define RUN_LOG_LEVEL(x) RUN_LOG_##x,
enum run_log_level {
#include "core/words.def"
  RUN_LOG_LEVEL_MAX_
};
#define DEAD_LETTER_STATE(x) DEAD_LETTER_##x,
enum dead_letter_state {
#include "core/words.def"
  DEAD_LETTER_STATE_MAX_
};
#define TOKEN_ROLE(x) ROLE_##x,
enum token_role {
#include "core/words.def"
  ROLE_MAX_
};

/* NULL-terminated tables, index = enum value; for parse_enum and for printing. */
extern const char *const run_state_names[],
    *const run_reason_names[],
        *const run_wait_names[],
            *const run_origin_names[],
                *const task_state_names[],
                    *const schedule_kind_names[],
                        *const misfire_policy_names[],
                            *const overlap_policy_names[],
                                *const depend_mode_names[],
                                    *const depend_ends_names[],
                                        *const routing_names[],
                                            *const on_lost_names[],
                                                *const channel_names[],
                                                    *const executor_state_names[],
                                                        *const breaker_state_names[],
                                                            *const token_role_names[],
                                                                *const alert_state_names[],
                                                                    *const run_log_level_names[],
                                                                        *const dead_letter_state_names[];

static inline bool run_state_ended(enum run_state s) { return s >= RUN_SUCCESS; }

/* The natural key of a run (storage.md "Keys"). part 0: the schedule's own instant; 1…n: a broadcast's
 * children; else a random 31-bit number (top bit of 31 set) for a run made by the API. */
struct run_key {
  int32_t shard;
  usec_t scheduled_at;
  int64_t task_id;
  int32_t part;
};
bool run_key_eq(const struct run_key *a, const struct run_key *b);
int run_key_cmp(const struct run_key *a, const struct run_key *b); /* shard, scheduled_at, task_id, part */
uint64_t run_key_hash(const struct run_key *k);

/* The public run id: the key as 36 characters of base32hex; sorts as the key does. */
#define RUN_ID_LEN 36
void run_id_format(const struct run_key *k, char ret_text[RUN_ID_LEN + 1]);
int run_id_parse(struct slice text, struct run_key *ret, struct err *e); /* ERR_NOT_FOUND when it is none */

/* The shard of a task, for ever. */
int32_t shard_of_task(int64_t task_id, int32_t shard_count);
