#include "run/service.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"

/* One transaction for all rows of a turn. Nothing else writes run state, and every row is a compare-and-set on what this node knows, so
 * that after an unknown outcome the same rows may be sent again: what was written before comes back as "not written now". */

static const usec_t RETRY_FIRST = 20 * USEC_PER_MS, RETRY_MOST = USEC_PER_SEC, FAILING_AFTER = USEC_PER_SEC;

/* The distinct shards of the turn with the epochs that we held at its step. */
static size_t collect_fences(struct run_service *s, struct fence_row **ret) {
  struct live_out *o = &s->out;
  bool *seen = arena_array(&s->mem, (size_t)s->o.shard_count, sizeof *seen);
  struct fence_row *f = arena_array(&s->mem, (size_t)s->o.shard_count, sizeof *f);
  size_t n = 0;
#define FENCE(key_shard)                                                                                     \
  do {                                                                                                       \
    int32_t shard_ = (key_shard);                                                                            \
    if (!seen[shard_]) {                                                                                     \
      seen[shard_] = true;                                                                                   \
      f[n++] = (struct fence_row){shard_, s->turn_epochs[shard_]};                                           \
    }                                                                                                        \
  } while (0)
  for (size_t i = 0; i < o->updates_count; i++)
    FENCE(o->updates[i].key.shard);
  for (size_t i = 0; i < o->finishes_count; i++)
    FENCE(o->finishes[i].key.shard);
  for (size_t i = 0; i < o->attempts_count; i++)
    FENCE(o->attempts[i].key.shard);
  for (size_t i = 0; i < s->inbox_count; i++)
    FENCE(s->inbox_done[i].shard);
  for (size_t i = 0; i < o->answers_count; i++) /* "late" is for the owner to say: is it still us? */
    if (o->answers[i].answer != LIVE_RECORDED && o->answers[i].answer != LIVE_UNKNOWN)
      FENCE(((const struct run_token *)o->answers[i].token)->shard);
#undef FENCE
  *ret = f;
  return n;
}

void run_step_down(struct run_service *s, int32_t shard) {
  if (s->lost[shard])
    return;
  s->lost[shard] = true;
  s->o.hooks.lost_shard(s->o.hooks.arg, shard, s->turn_epochs[shard]);
}

bool run_pause(struct run_service *s, usec_t *wait) {
  usec_t until = clock_system.mono(&clock_system) + *wait;
  *wait = *wait * 2 > RETRY_MOST ? RETRY_MOST : *wait * 2;
  if (atomic_load(&s->stopping) && until > s->stop_at)
    return false;
  mutex_lock(&s->pause_lock); /* nobody but run_service_stop cuts it short */
  while (clock_system.mono(&clock_system) < until && !atomic_load(&s->stopping))
    (void)cond_wait(&s->pause, &s->pause_lock, until - clock_system.mono(&clock_system));
  mutex_unlock(&s->pause_lock);
  return true;
}

void run_note_taken(struct run_service *s, int rc) {
  if (rc != ERR_UNAVAILABLE && rc != ERR_UNKNOWN_OUTCOME)
    atomic_store(&s->failing_since, 0);
  else if (!atomic_load(&s->failing_since))
    atomic_store(&s->failing_since, clock_system.mono(&clock_system));
}

bool run_failing(const struct run_service *s) {
  usec_t since = atomic_load(&s->failing_since);
  return since && clock_system.mono(&clock_system) - since > FAILING_AFTER;
}

bool run_commit(struct run_service *s) {
  struct live_out *o = &s->out;
  arena_clear(&s->mem);
  struct fence_row *fences;
  size_t n = collect_fences(s, &fences);
  struct st_run_apply in = {.fences = fences,
                            .fence_count = n,
                            .updates = o->updates,
                            .update_count = o->updates_count,
                            .finishes = o->finishes,
                            .finish_count = o->finishes_count,
                            .attempts = o->attempts,
                            .attempt_count = o->attempts_count,
                            .progress = o->progress,
                            .progress_count = o->progress_count,
                            .inbox_done = s->inbox_done,
                            .inbox_count = s->inbox_count};
  struct st_run_apply_ret ret;
  usec_t wait = RETRY_FIRST;
  for (;;) {
    struct err e = {0};
    (void)failpoint("run.before_commit");
    int rc = store_run_apply(s->o.finish, &in, &ret, &s->mem, &e);
    run_note_taken(s, rc);
    if (rc >= 0)
      break;
    if (rc == ERR_INVALID || rc == ERR_CONFLICT || rc == ERR_INTERNAL) {
      log_error("the database refuses a change of runs, looking for the one", LF_E(&e));
      return run_commit_apart(s, &in);
    }
    log_error("run state not written, trying again", LF_I("rows", o->updates_count + o->finishes_count),
              LF_D("after", wait), LF_E(&e));
    if (!run_pause(s, &wait))
      return false;
  }
  (void)failpoint("run.after_commit");
  if (ret.parents_ended && s->o.hooks.parents_ended)
    s->o.hooks.parents_ended(s->o.hooks.arg);
  for (size_t i = 0; i < n; i++)
    if (!ret.fence_ok[i]) {
      log_warn("shard lost to another owner, stepping down", LF_I("shard", fences[i].shard),
               LF_I("epoch", fences[i].epoch));
      run_step_down(s, fences[i].shard);
    }
  return true;
}
