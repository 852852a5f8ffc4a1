#include "trigger/internal.h"
#include "base/log.h"
#include "base/mem.h"

/* FIRE: what the shards decided becomes rows, in one statement for all of them (storage.md). */

static const usec_t POISON_PAUSE = USEC_PER_SEC, ALONE = 10 * USEC_PER_SEC;

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

static void add_batch(struct engine *g, const struct fire_batch *b, usec_t now) {
  for (size_t i = 0; i < b->count; i++) {
    if (b->items[i].present)
      continue;
    struct run_row r = to_row(&b->items[i], now);
    if (run_state_ended(r.state)) {
      add_row(&g->ended, &g->ended_count, &g->ended_cap, &r);
      continue;
    }
    mem_reserve(g->row_items, g->row_count, g->row_items_cap);
    g->row_items[g->row_count] = &b->items[i];
    add_row(&g->rows, &g->row_count, &g->row_cap, &r);
  }
}

/* ---------------------------------------------------------------- one FIRE */

static struct fire_shard as_seen(const struct fire_batch *b) {
  return (struct fire_shard){b->shard,     b->epoch,  b->tasks_version, b->seen_at,
                             b->seen_task, b->new_at, b->new_task};
}

static enum overlap_decision decide(void *arg, const struct overlap_ask *ask) {
  return live_decide(arg, ask);
}

/* Runs that are here already. A FIRE finds only what was committed before it began: a run whose end is being written meanwhile is neither
 * open nor ended for it. Here a run is known until its end is durable. */
static void note_present(struct live *l, struct fire_batch *b) {
  for (size_t i = 0; i < b->count; i++)
    if (!run_state_ended(b->items[i].state) && !engine_is_fresh(b, &b->items[i]))
      b->items[i].present = live_has(l, &b->items[i].key);
}

static bool collect_shard(struct engine *g, struct owned_shard *w, usec_t now) {
  struct live *l = run_decide_begin(g->o.runs);
  struct shard_overlap overlap = {decide, l};
  w->in_fire = shard_collect(w->shard, now, &overlap, w->requests, w->request_count, &w->batch);
  note_present(l, &w->batch);
  run_decide_end(g->o.runs);
  return w->in_fire;
}

/* What the listed shards decided, as one statement. */
static struct st_fire fire_of(struct engine *g, const int32_t *ids, size_t n, usec_t now) {
  struct fire_shard *shards = arena_array(&g->mem, n, sizeof *shards);
  size_t progress_count = 0, inbox_count = 0;
  g->row_count = g->ended_count = 0;
  for (size_t i = 0; i < n; i++) {
    const struct fire_batch *b = &g->shards[ids[i]].batch;
    shards[i] = as_seen(b);
    add_batch(g, b, now);
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
  return (struct st_fire){shards,         n,        g->rows,        g->row_count, g->ended,
                          g->ended_count, progress, progress_count, inbox,        inbox_count,
                          g->o.ahead};
}

static int send(struct engine *g, const int32_t *ids, size_t n, usec_t now, bool locked) {
  struct st_fire in = fire_of(g, ids, n, now);
  return engine_send(g, &in, locked);
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
  if (!engine_refuses_contents(rc))
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
