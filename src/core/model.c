#include "core/model.h"
#include "base/parse.h"
#include "base/rng.h"

#define RUN_STATE(x) #x,
const char *const run_state_names[] = {
#include "core/words.def"
    NULL};
#define RUN_REASON(x) #x,
const char *const run_reason_names[] = {
#include "core/words.def"
    NULL};
#define RUN_ORIGIN(x) #x,
const char *const run_origin_names[] = {
#include "core/words.def"
    NULL};
#define RUN_WAIT(x) #x,
const char *const run_wait_names[] = {
#include "core/words.def"
    NULL};
#define TASK_STATE(x) #x,
const char *const task_state_names[] = {
#include "core/words.def"
    NULL};
#define SCHEDULE_KIND(x) #x,
const char *const schedule_kind_names[] = {
#include "core/words.def"
    NULL};
#define MISFIRE_POLICY(x) #x,
const char *const misfire_policy_names[] = {
#include "core/words.def"
    NULL};
#define OVERLAP_POLICY(x) #x,
const char *const overlap_policy_names[] = {
#include "core/words.def"
    NULL};
#define DEPEND_MODE(x) #x,
const char *const depend_mode_names[] = {
#include "core/words.def"
    NULL};
#define DEPEND_ENDS(x) #x,
const char *const depend_ends_names[] = {
#include "core/words.def"
    NULL};
#define ROUTING(x) #x,
const char *const routing_names[] = {
#include "core/words.def"
    NULL};
#define ON_LOST(x) #x,
const char *const on_lost_names[] = {
#include "core/words.def"
    NULL};
#define CHANNEL(x) #x,
const char *const channel_names[] = {
#include "core/words.def"
    NULL};
#define EXECUTOR_STATE(x) #x,
const char *const executor_state_names[] = {
#include "core/words.def"
    NULL};
#define BREAKER_STATE(x) #x,
const char *const breaker_state_names[] = {
#include "core/words.def"
    NULL};
#define ALERT_STATE(x) #x,
const char *const alert_state_names[] = {
#include "core/words.def"
    NULL};
#define RUN_LOG_LEVEL(x) #x,
const char *const run_log_level_names[] = {
#include "core/words.def"
    NULL};
#define DEAD_LETTER_STATE(x) #x,
const char *const dead_letter_state_names[] = {
#include "core/words.def"
    NULL};
#define TOKEN_ROLE(x) #x,
const char *const token_role_names[] = {
#include "core/words.def"
    NULL};

int run_key_cmp(const struct run_key *a, const struct run_key *b) {
  if (a->shard != b->shard)
    return a->shard < b->shard ? -1 : 1;
  if (a->scheduled_at != b->scheduled_at)
    return a->scheduled_at < b->scheduled_at ? -1 : 1;
  if (a->task_id != b->task_id)
    return a->task_id < b->task_id ? -1 : 1;
  return (a->part > b->part) - (a->part < b->part);
}

bool run_key_eq(const struct run_key *a, const struct run_key *b) { return run_key_cmp(a, b) == 0; }

uint64_t run_key_hash(const struct run_key *k) {
  uint64_t h = hash_u64((uint64_t)k->task_id);
  h = hash_u64(h ^ (uint64_t)k->scheduled_at);
  return hash_u64(h ^ (uint64_t)(uint32_t)k->part);
}

static void put_be(uint8_t *p, uint64_t v, int bytes) {
  for (int i = bytes - 1; i >= 0; i--, v >>= 8)
    p[i] = (uint8_t)v;
}

static uint64_t get_be(const uint8_t *p, int bytes) {
  uint64_t v = 0;
  for (int i = 0; i < bytes; i++)
    v = v << 8 | p[i];
  return v;
}

enum { KEY_BYTES = 2 + 8 + 8 + 4 };

void run_id_format(const struct run_key *k, char ret_text[RUN_ID_LEN + 1]) {
  uint8_t raw[KEY_BYTES];
  put_be(raw, (uint64_t)k->shard, 2);
  put_be(raw + 2, (uint64_t)k->scheduled_at, 8);
  put_be(raw + 10, (uint64_t)k->task_id, 8);
  put_be(raw + 18, (uint64_t)(uint32_t)k->part, 4);
  base32hex_encode(raw, sizeof raw, ret_text);
}

int run_id_parse(struct slice text, struct run_key *ret, struct err *e) {
  uint8_t raw[KEY_BYTES];
  if (text.n != RUN_ID_LEN || base32hex_decode(text, raw, sizeof raw, NULL) < 0)
    return err_field(e, ERR_NOT_FOUND, "/run_id", "not a run id: expected %d characters 0-9a-v", RUN_ID_LEN);
  struct run_key k = {.shard = (int32_t)get_be(raw, 2),
                      .scheduled_at = (usec_t)get_be(raw + 2, 8),
                      .task_id = (int64_t)get_be(raw + 10, 8),
                      .part = (int32_t)get_be(raw + 18, 4)};
  if (k.scheduled_at < 0 || k.task_id <= 0 || k.part < 0)
    return err_field(e, ERR_NOT_FOUND, "/run_id", "not a run id");
  *ret = k;
  return 0;
}

int32_t shard_of_task(int64_t task_id, int32_t shard_count) {
  return (int32_t)(hash_u64((uint64_t)task_id) % (uint64_t)shard_count);
}
