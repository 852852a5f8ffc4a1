#include "dispatch/internal.h"

void task_text_unref(struct task_text **t) {
  if (*t && atomic_fetch_sub(&(*t)->refs, 1) == 1) {
    mem_free((*t)->ns);
    mem_free((*t)->name);
    mem_free((*t)->payload);
    mem_free(*t);
  }
  *t = NULL;
}

static struct task_text *find(struct text_cache *c, const struct run_job *j) {
  struct task_text_id id = {j->key.task_id, j->version};
  struct task_text *t;
  HASH_FIND(hh, c->by_id, &id, sizeof id, t);
  return t;
}

static void forget(struct text_cache *c, struct task_text *t) {
  HASH_DEL(c->by_id, t);
  c->bytes -= t->bytes;
  task_text_unref(&t);
}

static void add(struct text_cache *c, const struct run_job *j, const struct payload_row *row) {
  struct task_text *t = mem_zalloc(sizeof *t);
  t->id = (struct task_text_id){j->key.task_id, j->version};
  t->refs = 1;
  t->ns = mem_slicedup(row->ns);
  t->name = mem_slicedup(row->name);
  t->payload = row->payload.p ? mem_slicedup(row->payload) : NULL;
  t->bytes = sizeof *t + row->ns.n + row->name.n + row->payload.n + 64;
  HASH_ADD(hh, c->by_id, id, sizeof t->id, t);
  c->bytes += t->bytes;
}

int text_cache_get(struct text_cache *c, struct store *store, struct run_job *const *jobs, size_t n,
                   struct task_text **ret, struct err *e) {
  auto_arena mem = {0};
  int64_t *ids = arena_array(&mem, n, sizeof *ids);
  int32_t *versions = arena_array(&mem, n, sizeof *versions);
  const struct run_job **missing = arena_array(&mem, n, sizeof(struct run_job *));
  size_t misses = 0;
  for (size_t i = 0; i < n; i++)
    if (!find(c, jobs[i])) {
      ids[misses] = jobs[i]->key.task_id;
      versions[misses] = jobs[i]->version;
      missing[misses++] = jobs[i];
    }
  if (misses) {
    struct st_payload_get_ret got;
    int rc = store_payload_get(store, &(struct st_payload_get){ids, versions, misses}, &got, &mem, e);
    if (rc < 0)
      return rc;
    for (size_t i = 0; i < misses; i++)
      if (got.rows[i].has && !find(c, missing[i])) /* the same task may be asked for twice */
        add(c, missing[i], &got.rows[i]);
  }
  for (size_t i = 0; i < n; i++) {
    ret[i] = find(c, jobs[i]);
    if (ret[i])
      atomic_fetch_add(&ret[i]->refs, 1);
  }
  struct task_text *t, *next;
  HASH_ITER (hh, c->by_id, t, next) /* insertion order: the oldest first */
  {
    if (c->bytes <= c->max_bytes)
      break;
    forget(c, t);
  }
  return 0;
}

void text_cache_done(struct text_cache *c) {
  struct task_text *t, *next;
  HASH_ITER (hh, c->by_id, t, next) {
    forget(c, t);
  }
}
