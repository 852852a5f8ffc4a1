#include "run/service.h"
#include "base/mem.h"

/* A shard that another owner shall have goes in one turn of the writer: the rows that say who has what, then nothing more of it is known here.
 * Between that step and the release of the shard nobody sends anything of it, so that no start is doubled. */

/* So long the answers of deliveries under way are waited for. One that comes later is lost: the next owner asks the same executor again. */
static const usec_t ANSWERS_WAIT = 100 * USEC_PER_MS;

static usec_t mono(void) { return clock_system.mono(&clock_system); }

static bool owns_any(const struct run_service *s) {
  for (int32_t i = 0; i < s->o.shard_count; i++)
    if (s->epochs[i])
      return true;
  return false;
}

void run_forget_shard(struct run_service *s, int32_t shard) {
  s->epochs[shard] = 0;
  s->adopting[shard] = s->expected[shard] = false;
  s->closing[shard] = 0;
  if (s->o.several && !live_shares(s->live)) /* what it has in the bounds goes with the shard */
    live_share(s->live, true, 1);
  live_drop_shard(s->live, shard, &s->opened);
  if (s->o.several && !owns_any(s))
    live_parts_drop(s->live);
  run_hold_or_not(s);
}

void run_hand_over(struct run_service *s, int32_t shard, int64_t epoch) {
  mutex_lock(&s->lock);
  bool known = s->epochs[shard] == epoch;
  if (!known) { /* never read */
    s->expected[shard] = false;
    run_hold_or_not(s);
  } else if (!s->closing[shard]) {
    s->closing[shard] = mono() + ANSWERS_WAIT;
  }
  mutex_unlock(&s->lock);
  if (known)
    run_wake_writer(s);
  else if (s->o.hooks.handed_over)
    s->o.hooks.handed_over(s->o.hooks.arg, shard, epoch);
}

void run_fenced(struct run_service *s, int32_t shard, int64_t epoch) {
  mutex_lock(&s->lock);
  if (s->epochs[shard] == epoch)
    s->closing[shard] = USEC_NEVER;
  mutex_unlock(&s->lock);
}

void run_close_step(struct run_service *s, bool all, usec_t now) {
  for (int32_t i = 0; i < s->o.shard_count; i++) {
    s->closed[i] = false;
    if (!s->closing[i])
      continue;
    s->closed[i] = mono() >= s->closing[i] || (all && !live_unanswered(s->live, i));
    if (s->closed[i])
      live_write_running(s->live, i, now, &s->out);
  }
}

usec_t run_close_wait(const struct run_service *s, usec_t wait) {
  usec_t now = mono();
  for (int32_t i = 0; i < s->o.shard_count; i++)
    if (s->closing[i] && s->closing[i] - now < wait)
      wait = s->closing[i] > now ? s->closing[i] - now : 0;
  return wait;
}

void run_close_finish(struct run_service *s) {
  bool any = false;
  for (int32_t i = 0; i < s->o.shard_count; i++)
    any = any || s->closed[i];
  if (!any)
    return;
  mutex_lock(&s->lock);
  for (int32_t i = 0; i < s->o.shard_count; i++) {
    s->closed[i] = s->closed[i] && s->closing[i]; /* else taken over anew meanwhile */
    if (s->closed[i])
      run_forget_shard(s, i);
  }
  run_unlock_and_deliver(s);
  for (int32_t i = 0; i < s->o.shard_count; i++)
    if (s->closed[i] && !s->lost[i] && s->o.hooks.handed_over)
      s->o.hooks.handed_over(s->o.hooks.arg, i, s->turn_epochs[i]);
}
