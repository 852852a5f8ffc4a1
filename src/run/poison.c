#include "run/service.h"
#include "base/log.h"
#include "base/mem.h"

/* A transaction that the database refuses for what is in it would be refused for ever, and hold up the runs of everybody. It is cut into
 * halves until the one run that is refused stands alone; that one is written without the texts that came from outside: as FAIL, if it ended.
 * If even this is refused, its shard is given up and taken over anew: the database's rows are the truth, and the reporter is told to repeat.
 * Of that shard no more than ends are written, which come first: what they let start would begin beside the one that has not ended. */

enum { TRIES_ALONE = 3 };
#define POISON_TYPE "STORE_REFUSED"

struct unit { /* what the turn writes about one run */
  const struct run_key *key;
  const struct run_finish *finish; /* or NULL */
  const struct run_update *update; /* or NULL */
};
struct apart {
  struct run_service *s;
  const struct st_run_apply *all;
  struct unit *units;
  size_t count;
  size_t *attempt_unit, *progress_unit; /* to which unit they belong */
  bool stopping;
};

/* Ends come first: a successor's start must not be durable before the end that it waited for. */
static void make_units(struct apart *a, struct arena *mem) {
  const struct st_run_apply *in = a->all;
  size_t most = in->finish_count + in->update_count + in->attempt_count;
  a->units = arena_array(mem, most, sizeof *a->units);
  a->attempt_unit = arena_array(mem, in->attempt_count, sizeof *a->attempt_unit);
  a->progress_unit = arena_array(mem, in->progress_count, sizeof *a->progress_unit);
  for (size_t i = 0; i < in->finish_count; i++)
    a->units[a->count++] = (struct unit){.key = &in->finishes[i].key, .finish = &in->finishes[i]};
  for (size_t i = 0; i < in->update_count; i++)
    a->units[a->count++] = (struct unit){.key = &in->updates[i].key, .update = &in->updates[i]};
  for (size_t i = 0; i < in->attempt_count; i++) {
    size_t u = 0;
    while (u < a->count && !run_key_eq(a->units[u].key, &in->attempts[i].key))
      u++;
    if (u == a->count)
      a->units[a->count++] = (struct unit){.key = &in->attempts[i].key};
    a->attempt_unit[i] = u;
  }
  for (size_t i = 0; i < in->progress_count; i++) {
    size_t u = 0;
    while (u < a->count && !(a->units[u].finish && a->units[u].key->task_id == in->progress[i].task_id &&
                             a->units[u].finish->finished_at == in->progress[i].base_at))
      u++;
    a->progress_unit[i] = u < a->count ? u : 0;
  }
}

static const struct slice NO_TEXT = {0};

static struct run_finish without_texts(const struct run_finish *f) {
  struct run_finish c = *f;
  c.state = f->state == RUN_CANCELLED ? RUN_CANCELLED : RUN_FAIL;
  c.reason = f->state == RUN_SUCCESS ? REASON_ERROR : f->reason;
  c.executor = c.result = c.error_detail = NO_TEXT;
  c.error_type = c.state == RUN_FAIL ? SLICE(POISON_TYPE) : NO_TEXT;
  c.error_message =
      c.state == RUN_FAIL ? SLICE("what the executor reported cannot be stored by the database") : NO_TEXT;
  return c;
}

/* One run's rows of the turn, without the texts that came from outside. */
static void strip(struct st_run_apply *part, struct arena *mem) {
  struct run_finish *finishes = arena_array(mem, part->finish_count, sizeof *finishes);
  struct run_update *updates = arena_array(mem, part->update_count, sizeof *updates);
  struct attempt_row *attempts = arena_array(mem, part->attempt_count, sizeof *attempts);
  for (size_t i = 0; i < part->finish_count; i++)
    finishes[i] = without_texts(&part->finishes[i]);
  for (size_t i = 0; i < part->update_count; i++) {
    updates[i] = part->updates[i];
    updates[i].executor = updates[i].error_type = updates[i].error_message = NO_TEXT;
  }
  for (size_t i = 0; i < part->attempt_count; i++) {
    attempts[i] = part->attempts[i];
    attempts[i].executor = attempts[i].error_type = attempts[i].error_message = NO_TEXT;
  }
  part->finishes = finishes;
  part->updates = updates;
  part->attempts = attempts;
}

static bool is_left_out(const struct apart *a, size_t unit) {
  return !a->units[unit].finish && a->s->lost[a->units[unit].key->shard];
}

/* Units [lo, hi) as a transaction of their own. */
static struct st_run_apply part_of(const struct apart *a, size_t lo, size_t hi, struct arena *mem) {
  const struct st_run_apply *in = a->all;
  struct run_finish *finishes = arena_array(mem, hi - lo, sizeof *finishes);
  struct run_update *updates = arena_array(mem, hi - lo, sizeof *updates);
  struct attempt_row *attempts = arena_array(mem, in->attempt_count, sizeof *attempts);
  struct progress_row *progress = arena_array(mem, in->progress_count, sizeof *progress);
  struct st_run_apply part = {.fences = in->fences,
                              .fence_count = in->fence_count,
                              .finishes = finishes,
                              .updates = updates,
                              .attempts = attempts,
                              .progress = progress};
  for (size_t u = lo; u < hi; u++) {
    if (is_left_out(a, u))
      continue;
    if (a->units[u].finish)
      finishes[part.finish_count++] = *a->units[u].finish;
    if (a->units[u].update)
      updates[part.update_count++] = *a->units[u].update;
  }
  for (size_t i = 0; i < in->attempt_count; i++)
    if (a->attempt_unit[i] >= lo && a->attempt_unit[i] < hi && !is_left_out(a, a->attempt_unit[i]))
      attempts[part.attempt_count++] = in->attempts[i];
  for (size_t i = 0; i < in->progress_count; i++)
    if (a->progress_unit[i] >= lo && a->progress_unit[i] < hi && !is_left_out(a, a->progress_unit[i]))
      progress[part.progress_count++] = in->progress[i];
  return part;
}

/* One try. */
static int apply_part(struct apart *a, const struct st_run_apply *part, struct arena *mem, struct err *e) {
  struct st_run_apply_ret ret;
  int rc = store_run_apply(a->s->o.finish, part, &ret, mem, e);
  run_note_taken(a->s, rc);
  for (size_t i = 0; rc >= 0 && i < part->fence_count; i++)
    if (!ret.fence_ok[i])
      run_step_down(a->s, part->fences[i].shard);
  return rc;
}

/* Until the database takes it or refuses it. `bare`: without the texts that came from outside. */
static int write_units(struct apart *a, size_t lo, size_t hi, bool bare) {
  auto_arena mem = {0};
  struct st_run_apply part = part_of(a, lo, hi, &mem);
  if (bare)
    strip(&part, &mem);
  for (usec_t wait = 20 * USEC_PER_MS;;) {
    struct err e = {0};
    int rc = apply_part(a, &part, &mem, &e);
    if (rc != ERR_UNAVAILABLE && rc != ERR_UNKNOWN_OUTCOME)
      return rc;
    log_error("run state not written, trying again", LF_I("rows", hi - lo), LF_D("after", wait), LF_E(&e));
    if (!run_pause(a->s, &wait)) {
      a->stopping = true;
      return 0;
    }
  }
}

/* One run that is refused: once more without texts, a few times, for the trouble may pass. */
static void write_poison(struct apart *a, size_t u) {
  const struct run_key *k = a->units[u].key;
  usec_t wait = 20 * USEC_PER_MS;
  int rc = ERR_INTERNAL;
  for (int i = 0; rc < 0 && i < TRIES_ALONE && !a->stopping; i++) {
    if (i && !run_pause(a->s, &wait))
      a->stopping = true;
    else
      rc = write_units(a, u, u + 1, true);
  }
  if (a->stopping)
    return;
  if (rc < 0)
    run_step_down(a->s, k->shard);
  log_error(rc < 0 ? "a change of a run is refused by the database, its shard is taken over anew"
                   : "what was reported about a run is refused by the database, written without it",
            LF_I("task", k->task_id), LF_T("scheduled_at", k->scheduled_at), LF_I("shard", k->shard));
}

static void write_range(struct apart *a, size_t lo, size_t hi) {
  while (lo < hi && is_left_out(a, lo))
    lo++;
  if (lo == hi || a->stopping || write_units(a, lo, hi, false) >= 0)
    return;
  if (hi - lo == 1) {
    write_poison(a, lo);
    return;
  }
  size_t middle = lo + (hi - lo) / 2;
  write_range(a, lo, middle);
  write_range(a, middle, hi);
}

/* One try: a row that stays is applied again, and changes nothing. */
static void drop_inbox(struct apart *a, struct arena *mem) {
  const struct st_run_apply *in = a->all;
  struct inbox_row *rows = arena_array(mem, in->inbox_count, sizeof *rows);
  struct st_run_apply part = {.fences = in->fences, .fence_count = in->fence_count, .inbox_done = rows};
  struct err e = {0};
  for (size_t i = 0; i < in->inbox_count; i++)
    if (!a->s->lost[in->inbox_done[i].shard])
      rows[part.inbox_count++] = in->inbox_done[i];
  if (part.inbox_count && apply_part(a, &part, mem, &e) < 0)
    log_warn("rows of the inbox not deleted, they are applied again", LF_E(&e));
}

bool run_commit_apart(struct run_service *s, const struct st_run_apply *all) {
  auto_arena mem = {0};
  struct apart a = {.s = s, .all = all};
  make_units(&a, &mem);
  write_range(&a, 0, a.count);
  if (!a.stopping)
    drop_inbox(&a, &mem);
  return !a.stopping;
}
