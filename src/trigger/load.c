#include "trigger/internal.h"
#include "base/log.h"
#include "core/schedule.h"

enum { LOAD_PAGE = 20000 };

/* A definition that cannot be read (its zone vanished) is never silently taken for something else: the task stands still, and says so. */
void engine_take_version(struct engine *g, const struct task_version_row *row, struct shard_version *ret) {
  *ret = (struct shard_version){.task_id = row->task_id,
                                .version = row->version,
                                .state = row->state,
                                .effective_at = row->effective_at,
                                .anchor = row->anchor};
  if (row->state == TASK_DELETED)
    return;
  struct err e = {0};
  if (spec_cache_get(g->specs, row->definition, &ret->spec, &e) < 0)
    log_error("task cannot be scheduled, it stands still", LF_I("task", row->task_id),
              LF_I("version", row->version), LF_S("field", e.field), LF_E(&e));
}

/* `since`: made earlier where it must be, that what the versions before have left to this one is known. */
static void put_row(struct engine *g, struct owned_shard *w, const struct task_version_row *row,
                    usec_t watermark, usec_t *since) {
  struct shard_version v;
  engine_take_version(g, row, &v);
  usec_t at = shard_needs_since(&v, watermark);
  *since = at < *since ? at : *since;
  bool delay = v.spec && v.spec->kind == SCHEDULE_FIXED_DELAY;
  shard_put(w->shard, &v);
  if (delay &&
      run_has_scheduled(g->o.runs, v.task_id)) /* its first run has not ended: there is no progress row yet */
    shard_put_progress(w->shard, v.task_id, 0, 0, true);
}

static bool is_wanted(struct owned_shard *w, const struct engine_older *o, int64_t task_id) {
  if (!o->task_ids) /* else its present version rules nothing, nor may an older one */
    return shard_find(w->shard, task_id) != NULL;
  for (size_t i = 0; i < o->task_count; i++)
    if (o->task_ids[i] == task_id)
      return true;
  return false;
}

int engine_load_older(struct engine *g, struct owned_shard *w, const struct engine_older *o, struct err *e) {
  usec_t since = o->since;
  int rc = 0;
  for (usec_t known = USEC_NEVER; rc >= 0 && since < known;) { /* they may need still older ones */
    known = since;
    struct st_task_load_older_ret older;
    rc = store_task_load_older(o->store, &(struct st_task_load_older){shard_id(w->shard), since}, &older,
                               &g->mem, e);
    for (size_t i = 0; rc >= 0 && i < older.count; i++)
      if (is_wanted(w, o, older.rows[i].task_id))
        put_row(g, w, &older.rows[i], o->watermark, &since);
  }
  return rc;
}

static int load_tasks(struct engine *g, struct owned_shard *w, usec_t watermark, struct err *e) {
  int32_t id = shard_id(w->shard);
  struct st_task_load_ret page;
  int64_t after = 0;
  usec_t since = watermark;
  do {
    arena_clear(&g->mem);
    int rc = store_task_load(g->o.fire, &(struct st_task_load){id, watermark, after, LOAD_PAGE}, &page,
                             &g->mem, e);
    if (rc < 0)
      return rc;
    for (size_t i = 0; i < page.count; i++)
      put_row(g, w, &page.rows[i], watermark, &since);
    if (page.count)
      after = page.rows[page.count - 1].task_id;
  } while (page.count == LOAD_PAGE && !atomic_load(&g->stopping));
  /* after the current ones: of a task changed meanwhile, nothing that owned instants can be missed */
  return engine_load_older(g, w, &(struct engine_older){g->o.fire, watermark, since}, e);
}

/* After load_tasks, which noted what was open: a run that ends meanwhile must not count as ended with the base of the run before it. */
static int load_progress(struct engine *g, struct owned_shard *w, struct err *e) {
  struct st_progress_load_ret ret;
  int rc = store_progress_load(g->o.fire, &(struct st_progress_load){shard_id(w->shard)}, &ret, &g->mem, e);
  for (size_t i = 0; rc >= 0 && i < ret.count; i++)
    shard_put_progress(w->shard, ret.rows[i].task_id, ret.rows[i].base_at, ret.rows[i].fired, false);
  return rc;
}

static int read_shard(struct engine *g, struct owned_shard *w, struct err *e) {
  arena_clear(&g->mem);
  int32_t id = shard_id(w->shard);
  struct st_shard_list_ret list;
  int rc = store_shard_list(g->o.fire, &(struct st_shard_list){0}, &list, &g->mem, e);
  if (rc < 0)
    return rc;
  const struct shard_row *row = NULL;
  for (size_t i = 0; i < list.count; i++)
    if (list.shards[i].id == id)
      row = &list.shards[i];
  if (!row || row->epoch != w->epoch)
    return err_set(e, ERR_FENCED, "shard %d has epoch %lld now, ours was %lld", id,
                   row ? (long long)row->epoch : 0LL, (long long)w->epoch);
  struct shard_row s = *row;
  shard_reset(w->shard, s.epoch, s.tasks_version, s.fired_at, s.fired_task);
  if (!w->adopted)
    rc = run_adopt(g->o.runs, g->o.fire, id, w->epoch, g->specs, e);
  w->adopted = w->adopted || rc >= 0;
  if (w->adopted)
    engine_give_back_kept(g, w);
  if (rc >= 0)
    rc = load_tasks(g, w, s.fired_at, e);
  if (rc >= 0)
    rc = load_progress(g, w, e);
  return rc;
}

int engine_load(struct engine *g, struct owned_shard *w) {
  struct err e = {0};
  int rc = read_shard(g, w, &e);
  if (rc == ERR_FENCED) {
    g->o.fenced(g->o.arg, shard_id(w->shard), w->epoch);
    return rc;
  }
  if (rc < 0) {
    w->retry_at = g->o.now(g->o.arg) + 500 * USEC_PER_MS;
    log_warn("shard not loaded, trying again", LF_I("shard", shard_id(w->shard)), LF_E(&e));
    return rc;
  }
  shard_loaded(w->shard);
  w->loaded = w->look = true;
  w->loaded_at = g->o.now(g->o.arg);
  atomic_fetch_add(&g->loaded, 1);
  atomic_fetch_add(&g->tasks, shard_task_count(w->shard));
  log_debug("shard loaded", LF_I("shard", shard_id(w->shard)), LF_I("tasks", shard_task_count(w->shard)));
  return 0;
}

void engine_reload(struct engine *g, struct owned_shard *w) {
  if (w->loaded) {
    atomic_fetch_sub(&g->loaded, 1);
    atomic_fetch_sub(&g->tasks, shard_task_count(w->shard));
  }
  w->loaded = w->adopted = false;
  w->retry_at = 0;
  w->requests = NULL; /* they are found again, if they are still there */
  w->request_count = 0;
  arena_clear(&w->mem);
}

void engine_drop(struct engine *g, struct owned_shard *w) {
  if (!w->shard)
    return;
  run_disown(g->o.runs, shard_id(w->shard));
  engine_let_go(g, w);
}

void engine_let_go(struct engine *g, struct owned_shard *w) {
  engine_give_back_kept(g, w);
  if (w->loaded) {
    atomic_fetch_sub(&g->loaded, 1);
    atomic_fetch_sub(&g->tasks, shard_task_count(w->shard));
  }
  atomic_fetch_sub(&g->owned, 1);
  shard_free(&w->shard);
  fire_batch_done(&w->batch);
  mem_free(w->kept);
  arena_done(&w->mem);
  *w = (struct owned_shard){0};
}
