#include "trigger/internal.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"

/* FIRE: what the shards decided becomes rows, in one statement for all of them (storage.md). */

static const usec_t REFUSED_PAUSE = 20 * USEC_PER_MS, POISON_PAUSE = USEC_PER_SEC, ALONE = 10 * USEC_PER_SEC;

static struct run_row to_row(const struct fire_item *i, usec_t now) {
  struct run_row r = {.key = i->key,
                      .version = i->version,
                      .state = i->state,
                      .reason = i->reason,
                      .origin = i->origin,
                      .attempt = i->attempt,
                      .fired_at = now,
                      .not_before = i->not_before,
                      .attempt_at = i->attempt ? now : 0,
                      .finished_at = run_state_ended(i->state) ? now : 0,
                      .missed_first = i->missed_count > 1 ? i->missed_first : 0,
                      .missed_count = i->missed_count,
                      .progress = -1};
  if (i->request) {
    r.payload = i->request->payload;
    r.pin = i->request->pin;
    r.origin_run = i->request->origin_run;
  }
  return r;
}

static void add_row(struct run_row **rows, size_t *n, size_t *cap, const struct run_row *r) {
  mem_reserve(*rows, *n, *cap);
  (*rows)[(*n)++] = *r;
}

static void add_rows(struct engine *g, const struct fire_batch *b, usec_t now) {
  for (size_t i = 0; i < b->count; i++) {
    struct run_row r = to_row(&b->items[i], now);
    if (run_state_ended(r.state)) {
      add_row(&g->ended, &g->ended_count, &g->ended_cap, &r);
      continue;
    }
    mem_reserve(g->row_specs, g->row_count, g->row_specs_cap);
    g->row_specs[g->row_count] = b->items[i].spec;
    add_row(&g->rows, &g->row_count, &g->row_cap, &r);
  }
}

/* ---------------------------------------------------------------- the outcome, shard by shard */

static void count_items(struct engine *g, const struct fire_batch *b) {
  usec_t now = g->o.now(g->o.arg);
  for (size_t i = 0; i < b->count; i++) {
    const struct fire_item *it = &b->items[i];
    if (it->state == RUN_SKIPPED) {
      metric_add(g->skipped[it->reason], it->missed_count > 1 ? it->missed_count : 1);
      continue;
    }
    metric_add(g->fires[it->origin], 1);
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

static void settle_fired(struct engine *g, struct owned_shard *w) {
  count_items(g, &w->batch);
  shard_fired(w->shard, &w->batch);
  w->in_fire = false;
  w->refused = 0;
  if (w->batch.inbox_count) { /* requests that did not fit in come again with the next look */
    w->requests = NULL;
    w->request_count = 0;
    w->look = true;
    arena_clear(&w->mem);
  }
  engine_note_completed(g, w);
}

static void settle_refused(struct engine *g, struct owned_shard *w) {
  struct live *l = run_decide_begin(g->o.runs);
  for (size_t i = 0; i < w->batch.count; i++) {
    const struct fire_item *it = &w->batch.items[i];
    if (it->state == RUN_PENDING && it->reason != REASON_SCHEDULED)
      live_undecide(l, it->key.task_id, it->reason == REASON_QUEUED);
  }
  run_decide_end(g->o.runs);
  shard_refused(w->shard, &w->batch);
  w->in_fire = false;
}

/* Why was it not advanced? The stored row tells: another owner, or changed tasks. */
static void settle_by_row(struct engine *g, struct owned_shard *w, const struct shard_row *row) {
  struct fire_batch *b = &w->batch;
  settle_refused(g, w);
  if (!row)
    return; /* the database does not answer: the same instants come again */
  metric_add(g->refusals, 1);
  if (row->epoch != b->epoch) {
    g->o.fenced(g->o.arg, b->shard, b->epoch);
  } else if (row->fired_at != b->seen_at || row->fired_task != b->seen_task) {
    /* a FIRE of ours was still under way when its fate was read back: what it wrote is there, and ours */
    log_warn("a FIRE came through after all, its shard is read anew", LF_I("shard", b->shard));
    engine_reload(g, w);
    return;
  } else if (row->tasks_version == b->tasks_version) {
    w->pause_until = g->o.now(g->o.arg) + REFUSED_PAUSE; /* ahead of the database's clock */
  }
  w->look = true;
  w->refused += row->tasks_version != b->tasks_version;
}

/* The stored rows by shard id; all NULL when the engine stops before the database answers. */
static const struct shard_row **read_back(struct engine *g) {
  const struct shard_row **rows = arena_array(&g->mem, (size_t)g->o.shard_count, sizeof(struct shard_row *));
  for (usec_t wait = 20 * USEC_PER_MS; !atomic_load(&g->stopping);
       wait = wait > USEC_PER_SEC / 2 ? USEC_PER_SEC : wait * 2) {
    struct err e = {0};
    struct st_shard_list_ret list;
    if (store_shard_list(g->o.fire, &(struct st_shard_list){0}, &list, &g->mem, &e) >= 0) {
      for (size_t i = 0; i < list.count; i++)
        rows[list.shards[i].id] = &list.shards[i];
      break;
    }
    log_warn("watermarks not read back, trying again", LF_D("after", wait), LF_E(&e));
    engine_pause(g, wait);
  }
  return rows;
}

/* Keep of the rows only those of shards that were advanced, and open their runs. */
static void open_runs(struct engine *g, const bool *ok) {
  size_t n = 0;
  for (size_t i = 0; i < g->row_count; i++)
    if (ok[g->rows[i].key.shard]) {
      g->rows[n] = g->rows[i];
      g->row_specs[n++] = g->row_specs[i];
    }
  run_opened(g->o.runs, g->rows, g->row_specs, n);
}

/* Does the stored row say that this batch was written? Every batch moves its own watermark. An earlier FIRE of unknown fate may have moved it
 * to the very same pair, with other contents: then it is read anew. */
static bool was_written(const struct engine *g, const struct fire_shard *f, const struct shard_row *row) {
  return row && !g->shards[f->shard].doubt && row->epoch == f->epoch && row->fired_at == f->new_at &&
         row->fired_task == f->new_task;
}

/* What a FIRE did, by shard id. */
struct outcome {
  bool known; /* it was answered */
  bool *ok;
  const struct shard_row **rows; /* as stored; NULL: not read, for all were advanced */
};

static struct outcome find_outcome(struct engine *g, const struct fire_shard *shards, size_t n,
                                   const bool *advanced) {
  struct outcome o = {.known = advanced != NULL,
                      .ok = arena_array(&g->mem, (size_t)g->o.shard_count, sizeof(bool))};
  bool all = o.known;
  for (size_t i = 0; o.known && i < n; i++) {
    o.ok[shards[i].shard] = advanced[i];
    all = all && advanced[i];
  }
  if (all)
    return o;
  o.rows = read_back(g);
  for (size_t i = 0; !o.known && i < n; i++)
    o.ok[shards[i].shard] = was_written(g, &shards[i], o.rows[shards[i].shard]);
  return o;
}

static void settle_shard(struct engine *g, int32_t id, const struct outcome *o) {
  struct owned_shard *w = &g->shards[id];
  if (o->ok[id]) {
    w->doubt = false; /* whatever is still under way finds the watermark moved */
    settle_fired(g, w);
    return;
  }
  w->doubt = w->doubt || !o->known;
  settle_by_row(g, w, o->rows[id]);
}

/* `advanced` NULL: the outcome is unknown, the watermarks tell. */
static void settle_all(struct engine *g, const struct fire_shard *shards, size_t n, const bool *advanced) {
  struct outcome o = find_outcome(g, shards, n, advanced);
  open_runs(g, o.ok); /* before the batches are settled: they hold the specs */
  for (size_t i = 0; i < n; i++)
    settle_shard(g, shards[i].shard, &o);
}

/* ---------------------------------------------------------------- one FIRE */

static struct fire_shard as_seen(const struct fire_batch *b) {
  return (struct fire_shard){b->shard,     b->epoch,  b->tasks_version, b->seen_at,
                             b->seen_task, b->new_at, b->new_task};
}

static enum overlap_decision decide(void *arg, int64_t task_id, enum overlap_policy policy, bool caught_up) {
  return live_decide(arg, task_id, policy, caught_up);
}

static bool collect_shard(struct engine *g, struct owned_shard *w, usec_t now) {
  struct live *l = run_decide_begin(g->o.runs);
  struct shard_overlap overlap = {decide, l};
  w->in_fire = shard_collect(w->shard, now, &overlap, w->requests, w->request_count, &w->batch);
  run_decide_end(g->o.runs);
  return w->in_fire;
}

/* The statement itself; `locked`: inside shard_lock, which it ends. */
static int execute(struct engine *g, const struct st_fire *in, bool locked, struct st_fire_ret *ret) {
  struct err e = {0};
  (void)failpoint("fire.before_commit");
  int rc = store_fire(g->o.fire, in, ret, &g->mem, &e);
  if (locked) {
    struct st_shard_unlock_ret none;
    int unlocked =
        store_shard_unlock(g->o.fire, &(struct st_shard_unlock){.commit = rc >= 0}, &none, &g->mem, &e);
    rc = rc < 0 ? rc : unlocked;
  }
  (void)failpoint("fire.after_commit");
  if (rc < 0) {
    metric_add(g->fire_errors, 1);
    log_warn("FIRE failed, reading the watermarks back", LF_I("rows", in->open_count + in->ended_count),
             LF_E(&e));
  }
  return rc;
}

/* Send what the listed shards decided as one statement, and settle it. */
static int send(struct engine *g, const int32_t *ids, size_t n, usec_t now, bool locked) {
  struct fire_shard *shards = arena_array(&g->mem, n, sizeof *shards);
  size_t progress_count = 0, inbox_count = 0;
  g->row_count = g->ended_count = 0;
  for (size_t i = 0; i < n; i++) {
    const struct fire_batch *b = &g->shards[ids[i]].batch;
    shards[i] = as_seen(b);
    add_rows(g, b, now);
    progress_count += b->progress_count;
    inbox_count += b->inbox_count;
  }
  struct progress_row *progress = arena_array(&g->mem, progress_count, sizeof *progress);
  struct inbox_row *inbox = arena_array(&g->mem, inbox_count, sizeof *inbox);
  progress_count = inbox_count = 0;
  for (size_t i = 0; i < n; i++) {
    const struct fire_batch *b = &g->shards[ids[i]].batch;
    for (size_t k = 0; k < b->progress_count; k++)
      progress[progress_count++] = (struct progress_row){b->progress[k].task_id, b->shard,
                                                         b->progress[k].base_at, b->progress[k].fired};
    for (size_t k = 0; k < b->inbox_count; k++)
      inbox[inbox_count++] = (struct inbox_row){.shard = b->shard, .no = b->inbox_done[k]};
  }
  struct st_fire in = {shards,         n,     g->rows,     g->row_count, g->ended, g->ended_count, progress,
                       progress_count, inbox, inbox_count, g->o.ahead};
  struct st_fire_ret ret = {0};
  int rc = execute(g, &in, locked, &ret);
  settle_all(g, shards, n, rc < 0 ? NULL : ret.advanced);
  return rc;
}

/* A shard whose tasks change faster than a FIRE can follow: hold its row, read the changes, FIRE, commit. */
static int fire_locked(struct engine *g, struct owned_shard *w, usec_t now) {
  int32_t id = shard_id(w->shard);
  struct err e = {0};
  struct st_shard_lock_ret locked;
  struct st_shard_unlock_ret none;
  int rc = store_shard_lock(g->o.fire, &(struct st_shard_lock){id, w->epoch}, &locked, &g->mem, &e);
  if (rc == ERR_FENCED)
    g->o.fenced(g->o.arg, id, w->epoch);
  if (rc < 0)
    return rc;
  rc = engine_changes(g, w, g->o.fire);
  w->refused = 0;
  if (rc >= 0 && collect_shard(g, w, now))
    return send(g, &id, 1, now, true);
  int unlocked =
      store_shard_unlock(g->o.fire, &(struct st_shard_unlock){.commit = false}, &none, &g->mem, &e);
  return rc < 0 ? rc : unlocked; /* nothing was written */
}

enum { REFUSED_BEFORE_LOCK = 2 };

/* The database refuses what is in it: the shards go on one by one, and the one that is refused alone holds up only itself. */
static bool keep_apart(struct engine *g, const int32_t *ids, size_t n, int rc, usec_t now) {
  if (rc != ERR_INVALID && rc != ERR_INTERNAL && rc != ERR_CONFLICT)
    return false;
  g->alone_until = now + ALONE;
  if (n == 1) {
    log_error("a FIRE is refused for what is in it, its shard waits", LF_I("shard", ids[0]));
    g->shards[ids[0]].pause_until = now + POISON_PAUSE;
  }
  return true;
}

/* One round over the shards. */
struct round {
  int32_t *ids; /* those that have a batch */
  size_t count, rows;
  struct owned_shard *stubborn; /* its tasks change faster than a FIRE can follow */
  bool alone;                   /* no more than one shard */
};

static bool waits(const struct owned_shard *w, usec_t now) {
  return w->pause_until > now && w->pause_until - now <= POISON_PAUSE;
}

static void collect_round(struct engine *g, usec_t now, struct round *r) {
  int32_t first = g->first;
  r->ids = arena_array(&g->mem, (size_t)g->o.shard_count, sizeof *r->ids);
  for (int32_t k = 0; k < g->o.shard_count && r->rows < g->o.fire_rows && !(r->alone && r->count); k++) {
    int32_t id = (first + k) % g->o.shard_count;
    struct owned_shard *w = &g->shards[id];
    if (!w->loaded || waits(w, now))
      continue;
    if (w->refused >= REFUSED_BEFORE_LOCK) {
      r->stubborn = w;
      continue;
    }
    if (collect_shard(g, w, now)) {
      r->ids[r->count++] = id;
      r->rows += w->batch.count;
    }
    g->first = (id + 1) % g->o.shard_count;
  }
}

/* Give the database a moment: 20 ms … 1 s. */
static void back_off(struct engine *g) {
  usec_t longer = g->backoff * 2;
  g->backoff = !g->backoff ? 20 * USEC_PER_MS : longer > USEC_PER_SEC ? USEC_PER_SEC : longer;
  engine_pause(g, g->backoff);
}

bool engine_fire(struct engine *g, usec_t now) {
  arena_clear(&g->mem);
  struct round r = {.alone = now < g->alone_until && g->alone_until - now <= ALONE};
  collect_round(g, now, &r);
  int rc = r.count ? send(g, r.ids, r.count, now, false) : 0;
  if (rc < 0 && keep_apart(g, r.ids, r.count, rc, now))
    return true;
  if (rc >= 0 && r.stubborn) {
    arena_clear(&g->mem);
    rc = fire_locked(g, r.stubborn, now);
  }
  if (rc < 0) {
    back_off(g);
    return true;
  }
  g->backoff = 0;
  return r.rows >= g->o.fire_rows || (r.alone && r.count);
}
