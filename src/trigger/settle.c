#include "trigger/internal.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"

/* What becomes of a FIRE, shard by shard. One whose answer was lost may be done, or not, or still be under way; the watermark tells, because
 * every batch moves its own. While it has not moved, the very same statement is sent again, whichever of the two comes through: the other
 * one finds the watermark moved. Until then nothing of it is given back: neither its instants, nor its places in the tasks' overlap. */

static const usec_t REFUSED_PAUSE = 20 * USEC_PER_MS;
static const usec_t DB_BAD_GAP = 2 * USEC_PER_MIN; /* failures further apart are two troubles */

enum fate {
  FATE_UNKNOWN,
  FATE_FIRED,
  FATE_READ_BACK, /* fired, as its watermark says; which of its runs were there before, nobody says */
  FATE_REFUSED,   /* surely not fired, and never will be */
  FATE_MOVED      /* the watermark is somewhere else */
};
struct settling {
  struct engine *g;
  const struct st_fire *in;
  enum fate *fates;              /* by entry of in->shards */
  const struct shard_row **rows; /* by shard id, as read back; NULL: nobody asked, or the engine stops */
  struct arena mem;              /* of the last look: however long it takes, no more than one is kept */
  bool doubt;                    /* the statement may still be under way */
};

/* ---------------------------------------------------------------- its fate */

/* The statement itself; `locked`: inside shard_lock, which it ends. */
static int execute(struct engine *g, const struct st_fire *in, bool locked, struct st_fire_ret *ret,
                   struct arena *mem) {
  struct err e = {0};
  (void)failpoint("fire.before_commit");
  int rc = store_fire(g->o.fire, in, ret, mem, &e);
  if (locked) {
    struct st_shard_unlock_ret none;
    int unlocked =
        store_shard_unlock(g->o.fire, &(struct st_shard_unlock){.commit = rc >= 0}, &none, mem, &e);
    rc = rc < 0 ? rc : unlocked;
  }
  (void)failpoint("fire.after_commit");
  if (rc != ERR_UNAVAILABLE && rc != ERR_UNKNOWN_OUTCOME)
    atomic_store(&g->failing_since, 0);
  else if (!atomic_load(&g->failing_since))
    atomic_store(&g->failing_since, clock_system.mono(&clock_system));
  if (rc < 0) {
    usec_t now = g->o.now(g->o.arg);
    if (!g->db_bad_from || now - g->db_bad_until > DB_BAD_GAP)
      g->db_bad_from = now;
    g->db_bad_until = now;
    metric_add(g->fire_errors, 1);
    log_warn("FIRE failed, reading the watermarks back", LF_I("rows", in->open_count + in->ended_count),
             LF_E(&e));
  }
  return rc;
}

/* `from`: which entry of the whole FIRE each of this statement's shards is; NULL: the same. */
static void take_answer(struct settling *s, const struct st_fire *in, const size_t *from,
                        const struct st_fire_ret *ret) {
  for (size_t i = 0; i < in->shard_count; i++)
    if (ret->advanced[i])
      s->fates[from ? from[i] : i] = FATE_FIRED;
  for (size_t i = 0; ret->present && i < in->open_count; i++)
    if (ret->present[i])
      s->g->row_items[i]->present = true;
}

static size_t left(const struct settling *s) {
  size_t n = 0;
  for (size_t i = 0; i < s->in->shard_count; i++)
    n += s->fates[i] == FATE_UNKNOWN;
  return n;
}

/* False: the engine stops before the database answers. */
static bool read_back(struct settling *s) {
  struct engine *g = s->g;
  s->rows = NULL;
  for (usec_t wait = REFUSED_PAUSE; !atomic_load(&g->stopping);
       wait = wait > USEC_PER_SEC / 2 ? USEC_PER_SEC : wait * 2) {
    struct err e = {0};
    struct st_shard_list_ret list;
    arena_clear(&s->mem);
    if (store_shard_list(g->o.fire, &(struct st_shard_list){0}, &list, &s->mem, &e) >= 0) {
      const struct shard_row **rows =
          arena_array(&s->mem, (size_t)g->o.shard_count, sizeof(struct shard_row *));
      for (size_t i = 0; i < list.count; i++)
        rows[list.shards[i].id] = &list.shards[i];
      s->rows = rows;
      return true;
    }
    log_warn("watermarks not read back, trying again", LF_D("after", wait), LF_E(&e));
    engine_pause(g, wait);
  }
  return false;
}

static enum fate judge(const struct fire_shard *f, const struct shard_row *r, bool doubt) {
  if (!r || r->epoch != f->epoch)
    return FATE_REFUSED;
  if (r->fired_at == f->new_at && r->fired_task == f->new_task)
    return FATE_READ_BACK;
  if (r->fired_at != f->seen_at || r->fired_task != f->seen_task)
    return FATE_MOVED;
  return r->tasks_version != f->tasks_version || !doubt ? FATE_REFUSED : FATE_UNKNOWN;
}

/* Once more, for the shards of unknown fate alone. */
static int repeat(struct settling *s) {
  struct engine *g = s->g;
  if (!g->o.may_fire(g->o.arg))
    return ERR_UNAVAILABLE; /* the lease is about to end: only look */
  size_t n = 0, *from = arena_array(&s->mem, s->in->shard_count, sizeof *from);
  struct fire_shard *shards = arena_array(&s->mem, s->in->shard_count, sizeof *shards);
  for (size_t i = 0; i < s->in->shard_count; i++)
    if (s->fates[i] == FATE_UNKNOWN) {
      shards[n] = s->in->shards[i];
      from[n++] = i;
    }
  struct st_fire in = *s->in;
  in.shards = shards;
  in.shard_count = n;
  struct st_fire_ret ret = {0};
  int rc = execute(g, &in, false, &ret, &s->mem);
  if (rc >= 0)
    take_answer(s, &in, from, &ret);
  return rc;
}

bool engine_refuses_contents(int rc) { return rc == ERR_INVALID || rc == ERR_INTERNAL || rc == ERR_CONFLICT; }

/* Until every fate is known, or the engine stops. */
static int find_out(struct settling *s, int rc) {
  usec_t wait = 0;
  while (left(s) && read_back(s)) {
    for (size_t i = 0; i < s->in->shard_count; i++)
      if (s->fates[i] == FATE_UNKNOWN)
        s->fates[i] = judge(&s->in->shards[i], s->rows[s->in->shards[i].shard], s->doubt);
    if (!left(s))
      break;
    engine_pause(s->g, wait);
    wait = !wait ? REFUSED_PAUSE : wait > USEC_PER_SEC / 2 ? USEC_PER_SEC : wait * 2;
    rc = repeat(s);
    s->doubt = !engine_refuses_contents(rc); /* else the earlier one is refused for the same */
  }
  return rc;
}

/* ---------------------------------------------------------------- what follows from it, run by run */

enum follow { FOLLOW_NOTHING, FOLLOW_OPEN, FOLLOW_GIVE_BACK, FOLLOW_KEEP };

static enum follow follow(enum fate fate, const struct fire_batch *b, const struct fire_item *i) {
  if (run_state_ended(i->state) || fate == FATE_UNKNOWN)
    return FOLLOW_NOTHING;
  if (i->present)
    return FOLLOW_GIVE_BACK;
  switch (fate) {
  case FATE_FIRED: return FOLLOW_OPEN;
  case FATE_READ_BACK: return engine_is_fresh(b, i) ? FOLLOW_OPEN : FOLLOW_KEEP;
  case FATE_REFUSED: return FOLLOW_GIVE_BACK;
  case FATE_MOVED: return FOLLOW_KEEP;
  case FATE_UNKNOWN: break;
  }
  return FOLLOW_NOTHING;
}

static void open_runs(struct settling *s) {
  struct engine *g = s->g;
  enum fate *of = arena_array(&g->mem, (size_t)g->o.shard_count, sizeof *of);
  struct task_spec **specs = arena_array(&g->mem, g->row_count, sizeof(struct task_spec *));
  for (size_t i = 0; i < s->in->shard_count; i++)
    of[s->in->shards[i].shard] = s->fates[i];
  size_t n = 0;
  for (size_t i = 0; i < g->row_count; i++) {
    int32_t shard = g->rows[i].key.shard;
    if (follow(of[shard], &g->shards[shard].batch, g->row_items[i]) != FOLLOW_OPEN)
      continue;
    g->rows[n] = g->rows[i];
    specs[n++] = g->row_items[i]->spec;
  }
  run_opened(g->o.runs, g->rows, specs, n);
}

/* Reservations of runs that are not opened. Returns whether the open runs must be read from the database. */
static bool leave_runs(struct engine *g, struct owned_shard *w, enum fate fate) {
  bool read_anew = false;
  struct live *l = run_decide_begin(g->o.runs);
  for (size_t i = 0; i < w->batch.count; i++) {
    const struct fire_item *it = &w->batch.items[i];
    enum follow f = follow(fate, &w->batch, it);
    bool reserved = it->reason != REASON_SCHEDULED, queued = it->reason == REASON_QUEUED;
    if (f == FOLLOW_GIVE_BACK && reserved)
      live_undecide(l, it->key.task_id, it->spec, queued);
    if (f != FOLLOW_KEEP)
      continue;
    read_anew = true;
    if (!reserved)
      continue;
    mem_reserve(w->kept, w->kept_count, w->kept_cap);
    w->kept[w->kept_count++] = (struct reservation){it->key.task_id, task_spec_ref(it->spec), queued};
  }
  run_decide_end(g->o.runs);
  return read_anew;
}

void engine_give_back_kept(struct engine *g, struct owned_shard *w) {
  struct live *l = run_decide_begin(g->o.runs);
  for (size_t i = 0; i < w->kept_count; i++) {
    live_undecide(l, w->kept[i].task_id, w->kept[i].spec, w->kept[i].queued);
    task_spec_unref(&w->kept[i].spec);
  }
  run_decide_end(g->o.runs);
  w->kept_count = 0;
}

/* ---------------------------------------------------------------- what follows from it, shard by shard */

/* Why an instant was missed. A FIRE that failed in between is taken for the cause of all that was due while it was tried again. */
static enum missed why_missed(const struct engine *g, const struct owned_shard *w,
                              const struct fire_item *i) {
  usec_t first = i->missed_count > 1 ? i->missed_first : i->key.scheduled_at;
  if (first < w->loaded_at)
    return MISSED_DOWNTIME;
  return g->db_bad_from && first <= g->db_bad_until && i->due >= g->db_bad_from ? MISSED_DB : MISSED_OVERLOAD;
}

static void count_items(struct engine *g, const struct owned_shard *w) {
  const struct fire_batch *b = &w->batch;
  usec_t now = g->o.now(g->o.arg);
  for (size_t i = 0; i < b->count; i++) {
    const struct fire_item *it = &b->items[i];
    if (it->present)
      continue;
    const struct fire_series *x = g->series[it->spec ? run_group_label(it->spec) : METRIC_GROUP_OTHER];
    int64_t instants = it->missed_count > 1 ? it->missed_count : 1;
    bool skipped = it->state == RUN_SKIPPED;
    if (!it->on_request && (it->origin == ORIGIN_CATCHUP || (skipped && it->reason == REASON_MISFIRE)))
      metric_add(x->missed[why_missed(g, w, it)], instants);
    if (skipped) {
      metric_add(x->skipped[it->reason], instants);
      continue;
    }
    metric_add(x->fires[it->origin], 1);
    if (it->origin == ORIGIN_SCHEDULE)
      metric_observe_usec(g->lateness, now > it->due ? now - it->due : 0);
  }
}

void engine_note_completed(struct engine *g, struct owned_shard *w) {
  for (;;) {
    struct completed_block found;
    found.count = shard_take_completed(w->shard, found.ids, found.versions, COMPLETED_BLOCK);
    if (found.count == 0)
      return;
    struct completed_block *c = mem_alloc(sizeof *c);
    *c = found;
    if (queue_push(g->completed, c) < 0) { /* full: the next load finds them again */
      mem_free(c);
      return;
    }
  }
}

/* FIXED_DELAY goes on from the end of its run. Of one that was there before, and has ended, nobody will tell the end. */
static size_t find_ended_delays(struct engine *g, const struct fire_batch *b, int64_t *ret_tasks) {
  size_t n = 0;
  for (size_t i = 0; i < b->count; i++) {
    const struct fire_item *it = &b->items[i];
    if (it->present && it->key.part == 0 && it->spec->kind == SCHEDULE_FIXED_DELAY &&
        !run_has_scheduled(g->o.runs, it->key.task_id))
      ret_tasks[n++] = it->key.task_id;
  }
  return n;
}

static void settle_fired(struct engine *g, struct owned_shard *w) {
  count_items(g, w);
  int64_t *delays = arena_array(&g->mem, w->batch.count, sizeof *delays);
  size_t n = find_ended_delays(g, &w->batch, delays); /* before: the batch borrows its specs */
  shard_fired(w->shard, &w->batch);
  for (size_t i = 0; i < n; i++)
    shard_delay_ended(w->shard, delays[i], g->o.now(g->o.arg));
  w->refused = 0;
  if (w->batch.inbox_count) { /* requests that did not fit in come again with the next look */
    w->requests = NULL;
    w->request_count = 0;
    w->look = true;
    arena_clear(&w->mem);
  }
  engine_note_completed(g, w);
}

/* Why was it not advanced? The stored row tells: another owner, or changed tasks. */
static void settle_refused(struct engine *g, struct owned_shard *w, const struct shard_row *row) {
  struct fire_batch *b = &w->batch;
  shard_refused(w->shard, b);
  if (!row)
    return;
  metric_add(g->refusals, 1);
  if (row->epoch != b->epoch)
    g->o.fenced(g->o.arg, b->shard, b->epoch);
  else if (row->tasks_version == b->tasks_version)
    w->pause_until = g->o.now(g->o.arg) + REFUSED_PAUSE; /* ahead of the database's clock */
  w->look = true;
  w->refused += row->tasks_version != b->tasks_version;
}

static void settle_shard(struct settling *s, size_t i) {
  struct engine *g = s->g;
  int32_t id = s->in->shards[i].shard;
  struct owned_shard *w = &g->shards[id];
  bool read_anew = leave_runs(g, w, s->fates[i]);
  switch (s->fates[i]) {
  case FATE_FIRED:
  case FATE_READ_BACK: settle_fired(g, w); break;
  case FATE_REFUSED: settle_refused(g, w, s->rows ? s->rows[id] : NULL); break;
  case FATE_MOVED: read_anew = true; /* fall through */
  case FATE_UNKNOWN: shard_refused(w->shard, &w->batch); break;
  }
  w->in_fire = false;
  if (!read_anew)
    return;
  log_warn("what a FIRE has written is not known, its shard is read anew", LF_I("shard", id));
  engine_reload(g, w);
}

int engine_send(struct engine *g, const struct st_fire *in, bool locked) {
  struct settling s = {.g = g, .in = in};
  s.fates = arena_array(&g->mem, in->shard_count, sizeof *s.fates);
  struct st_fire_ret ret = {0};
  int rc = execute(g, in, locked, &ret, &g->mem);
  if (rc >= 0)
    take_answer(&s, in, NULL, &ret);
  s.doubt = rc == ERR_UNKNOWN_OUTCOME;
  rc = find_out(&s, rc);
  open_runs(&s); /* before the batches are settled: they hold the specs */
  for (size_t i = 0; i < in->shard_count; i++)
    settle_shard(&s, i);
  arena_done(&s.mem);
  return rc;
}
