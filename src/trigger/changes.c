#include "trigger/internal.h"
#include "base/log.h"
#include "base/mem.h"
#include "core/inbox.h"

enum { CHANGES_PAGE = 1000, INBOX_PAGE = 1000 };

/* A paused or COMPLETED task was not loaded: when it comes back, what it had counted comes with it. */
static bool comes_back(struct owned_shard *w, const struct shard_version *v) {
  return v->version > 1 && v->spec && (v->spec->kind == SCHEDULE_FIXED_DELAY || v->spec->max_runs) &&
         !shard_find(w->shard, v->task_id);
}

/* `open`: a scheduled run had not ended, as seen before `all` was read. */
static void put_back(struct owned_shard *w, const struct shard_version *v, bool open,
                     const struct st_progress_load_ret *all) {
  if (v->spec)
    (void)task_spec_ref(v->spec);
  shard_put(w->shard, v);
  shard_put_progress(w->shard, v->task_id, 0, 0, open && v->spec && v->spec->kind == SCHEDULE_FIXED_DELAY);
  for (size_t i = 0; i < all->count; i++)
    if (all->rows[i].task_id == v->task_id)
      shard_put_progress(w->shard, v->task_id, all->rows[i].base_at, all->rows[i].fired, false);
}

/* Tasks that were not held: what their versions have taken over from those before must be known. On failure the shard is read anew. */
static int load_before(struct engine *g, struct owned_shard *w, struct store *store,
                       const struct shard_version *v, size_t n, struct err *e) {
  struct engine_older o = {.store = store, .since = USEC_NEVER};
  int64_t *ids = arena_array(&g->mem, n, sizeof *ids), mark_task;
  shard_watermark(w->shard, &o.watermark, &mark_task);
  for (size_t i = 0; i < n; i++) {
    usec_t since = shard_find(w->shard, v[i].task_id) ? USEC_NEVER : shard_needs_since(&v[i], o.watermark);
    o.since = since < o.since ? since : o.since;
    if (since != USEC_NEVER)
      ids[o.task_count++] = v[i].task_id;
  }
  o.task_ids = ids;
  int rc = o.task_count ? engine_load_older(g, w, &o, e) : 0;
  if (rc < 0)
    engine_reload(g, w); /* half of what is needed is worse than nothing */
  return rc;
}

static int apply_page(struct engine *g, struct owned_shard *w, struct store *store,
                      const struct st_task_changes_ret *page, struct err *e) {
  struct shard_version *v = arena_array(&g->mem, page->count, sizeof *v);
  bool *back = arena_array(&g->mem, page->count, sizeof *back), any = false;
  bool *open = arena_array(&g->mem, page->count, sizeof *open);
  for (size_t i = 0; i < page->count; i++) {
    engine_take_version(g, &page->rows[i], &v[i]);
    back[i] = comes_back(w, &v[i]);
    open[i] = back[i] && run_has_scheduled(g->o.runs, v[i].task_id);
    any = any || back[i];
  }
  struct st_progress_load_ret all = {0};
  int rc =
      any ? store_progress_load(store, &(struct st_progress_load){shard_id(w->shard)}, &all, &g->mem, e) : 0;
  if (rc >= 0)
    rc = load_before(g, w, store, v, page->count, e);
  for (size_t i = 0; i < page->count; i++) {
    if (rc < 0) {
      task_spec_unref(&v[i].spec);
      continue;
    }
    if (back[i])
      put_back(w, &v[i], open[i], &all);
    shard_change(w->shard, &v[i], page->rows[i].change_no);
  }
  return rc;
}

int engine_changes(struct engine *g, struct owned_shard *w, struct store *store) {
  struct st_task_changes_ret page;
  size_t before = shard_task_count(w->shard);
  do {
    struct err e = {0};
    arena_clear(&g->mem);
    int rc = store_task_changes(
        store, &(struct st_task_changes){shard_id(w->shard), shard_tasks_version(w->shard), CHANGES_PAGE},
        &page, &g->mem, &e);
    if (rc < 0) {
      log_warn("changes of tasks not read, trying again", LF_I("shard", shard_id(w->shard)), LF_E(&e));
      return rc;
    }
    rc = apply_page(g, w, store, &page, &e);
    if (rc < 0) {
      log_warn("what changed tasks were before is not read, trying again", LF_I("shard", shard_id(w->shard)),
               LF_E(&e));
      return rc;
    }
  } while (page.count >= CHANGES_PAGE);
  atomic_fetch_add(&g->tasks, shard_task_count(w->shard) - before);
  return 0;
}

/* A task that is paused or COMPLETED was not loaded; a person may trigger it all the same. False: not now. */
static bool fetch_task(struct engine *g, struct owned_shard *w, int64_t task_id) {
  if (shard_find(w->shard, task_id))
    return true;
  auto_arena mem = {0};
  struct st_task_get_ret ret;
  int rc = store_task_get(g->o.api, &(struct st_task_get){.task_id = task_id}, &ret, &mem, NULL);
  if (rc < 0) /* deleted: the shard says so in the run; else the next look finds the request again */
    return rc == ERR_NOT_FOUND;
  if (ret.task.v.change_no >
      shard_tasks_version(w->shard)) { /* made just now: first the feed, which has its earlier versions too */
    w->look = true;
    return false;
  }
  struct shard_version v;
  engine_take_version(g, &ret.task.v, &v);
  struct st_progress_load_ret all = {0};
  struct err e = {0};
  bool open = run_has_scheduled(g->o.runs, task_id);
  if (comes_back(w, &v) &&
      store_progress_load(g->o.api, &(struct st_progress_load){shard_id(w->shard)}, &all, &mem, NULL) < 0) {
    task_spec_unref(&v.spec); /* the next look finds the request again */
    return false;
  }
  if (load_before(g, w, g->o.api, &v, 1, &e) < 0) {
    log_warn("earlier versions of a task not read, trying again", LF_I("task", task_id), LF_E(&e));
    task_spec_unref(&v.spec);
    return false;
  }
  put_back(w, &v, open, &all);
  task_spec_unref(&v.spec);
  atomic_fetch_add(&g->tasks, 1);
  return true;
}

struct handed_over { /* an EVENT of the inbox, until the run writer has answered */
  struct engine *g;
  int32_t shard;
};

/* On the writer's thread. Whoever comes last has the inbox read again: rows that are still there are tried once more. */
static void event_done(void *arg, const enum run_result *results, size_t n) {
  struct handed_over *h = arg;
  (void)n;
  metric_add(h->g->inbox_events, results[0] != RUN_RESULT_NOT_OWNER);
  if (atomic_fetch_sub(&h->g->hints[h->shard].events, 1) == 1)
    engine_changed(h->g, h->shard);
  mem_free(h);
}

/* In the order of the inbox; all of one look, and the next ones when these are done: else each look would hand them over again. */
static void hand_over(struct engine *g, int32_t shard, const struct live_event *ev, int64_t no) {
  struct handed_over *h = mem_alloc(sizeof *h);
  *h = (struct handed_over){g, shard};
  atomic_fetch_add(&g->hints[shard].events, 1);
  if (run_post_inbox(g->o.runs, ev, no, event_done, h, NULL) >= 0)
    return;
  atomic_fetch_sub(&g->hints[shard].events, 1); /* no room: the next look finds it again */
  mem_free(h);
}

/* Rows that ask for no FIRE. `busy`: events of an earlier look are still on their way. */
static bool is_event(struct engine *g, const struct inbox_row *row, bool busy) {
  auto_arena mem = {0};
  struct inbox_text text = {row->shard, row->kind, row->no, row->body};
  struct inbox_item item;
  if (row->kind != INBOX_EVENT)
    return false;
  if (!busy && inbox_parse(&text, &mem, &item, NULL) < 0)
    return false; /* as any row that cannot be read */
  if (!busy)
    hand_over(g, row->shard, &item.event, row->no);
  return true;
}

/* An inbox row as a request; false: it waits (a cancel whose runs are still open). A row that asks for nothing (any more) becomes an
 * empty range: it is only deleted. */
static bool to_request(struct engine *g, struct owned_shard *w, const struct inbox_row *row,
                       struct fire_request *ret) {
  struct inbox_text text = {row->shard, row->kind, row->no, row->body};
  struct inbox_item item;
  struct err e = {0};
  *ret = (struct fire_request){.catch_up = true, .inbox_no = row->no};
  if (inbox_parse(&text, &w->mem, &item, &e) < 0) {
    log_error("inbox row cannot be read, removed", LF_I("shard", row->shard), LF_I("no", row->no), LF_E(&e));
    return true;
  }
  if (item.kind == INBOX_CANCEL) {
    ret->key = item.request.key;
    /* while the shard knows the task, instants from before its end may still be fired */
    return run_cancel_task(g->o.runs, item.request.key.task_id) == 0 &&
           !shard_find(w->shard, item.request.key.task_id);
  }
  if (!fetch_task(g, w, item.request.key.task_id))
    return false;
  *ret = item.request;
  ret->inbox_no = row->no;
  return !ret->catch_up || !shard_find(w->shard, ret->key.task_id) || engine_begin_catch_up(g, w, ret);
}

static int read_inbox(struct engine *g, const int32_t *ids, size_t n) {
  if (n == 0)
    return 0;
  struct err e = {0};
  struct st_inbox_read_ret ret;
  arena_clear(&g->mem);
  int rc = store_inbox_read(g->o.fire, &(struct st_inbox_read){ids, n, INBOX_PAGE}, &ret, &g->mem, &e);
  if (rc < 0) {
    log_warn("inbox not read, trying again", LF_E(&e));
    return rc;
  }
  for (size_t i = 0; i < n; i++) { /* what waited at the last look is among these rows again */
    g->shards[ids[i]].requests = NULL;
    arena_clear(&g->shards[ids[i]].mem);
  }
  bool *busy = arena_array(&g->mem, (size_t)g->o.shard_count, sizeof *busy);
  for (size_t i = 0; i < n; i++)
    busy[ids[i]] = atomic_load(&g->hints[ids[i]].events) > 0;
  for (size_t i = 0; i < ret.count; i++) {
    struct owned_shard *w = &g->shards[ret.rows[i].shard];
    if (is_event(g, &ret.rows[i], busy[ret.rows[i].shard]))
      continue;
    if (!w->requests)
      w->requests = arena_array(&w->mem, ret.count, sizeof *w->requests);
    if (to_request(g, w, &ret.rows[i], &w->requests[w->request_count]))
      w->request_count++;
  }
  if (ret.count == INBOX_PAGE) /* the rest when these are done */
    for (size_t i = 0; i < n; i++)
      g->shards[ids[i]].look = true;
  return 0;
}

/* Which shards changed since we looked, as the database says. */
static int poll_database(struct engine *g) {
  struct err e = {0};
  struct st_shard_list_ret list;
  arena_clear(&g->mem);
  int rc = store_shard_list(g->o.fire, &(struct st_shard_list){0}, &list, &g->mem, &e);
  if (rc < 0) {
    log_warn("changes not polled, trying again", LF_E(&e));
    return rc;
  }
  for (size_t i = 0; i < list.count; i++) {
    struct owned_shard *w = &g->shards[list.shards[i].id];
    if (!w->loaded)
      continue;
    if (list.shards[i].epoch != w->epoch)
      g->o.fenced(g->o.arg, list.shards[i].id, w->epoch);
    w->look = true;
  }
  return 0;
}

int engine_look(struct engine *g, usec_t now) {
  if (now < g->polled_at || now - g->polled_at >= g->o.poll) {
    int rc = poll_database(g);
    if (rc < 0)
      return rc;
    g->polled_at = now;
  }
  int32_t *ids = mem_array((size_t)g->o.shard_count, sizeof *ids);
  size_t n = 0;
  int rc = 0;
  for (int32_t i = 0; i < g->o.shard_count && rc >= 0; i++) {
    struct owned_shard *w = &g->shards[i];
    if (!w->loaded || !w->look || w->in_fire)
      continue;
    w->look = false;
    rc = engine_changes(g, w, g->o.fire);
    if (rc < 0)
      w->look = true;
    else if (!w->request_count)
      ids[n++] = i;
  }
  if (rc >= 0)
    rc = read_inbox(g, ids, n);
  mem_free(ids);
  return rc;
}
