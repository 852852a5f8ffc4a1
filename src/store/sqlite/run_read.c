/* Reading runs, open and ended ones together. */
#include "store/sqlite/sqlite.h"
#include <limits.h>
#include <stdlib.h>

int sqlite_run_load(struct store *s, const struct st_run_load *in, struct st_run_load_ret *ret,
                    struct arena *mem, struct err *e) {
  const struct run_key start = {.scheduled_at = INT64_MIN, .task_id = INT64_MIN, .part = INT32_MIN};
  const struct run_key *after = in->after ? in->after : &start;
  struct st_run_load_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_RUN_LOAD, e, "illii", in->shard, after->scheduled_at, after->task_id, after->part,
               in->limit);
  while (r >= 0 && (r = db_step(tx.db, SQL_RUN_LOAD, e)) > 0) {
    struct run_row *w = sqlite_push(mem, out.rows, out.count, cap);
    db_get(tx.db, SQL_RUN_LOAD, mem, RUN_TYPES, RUN_INTO(w));
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

void sqlite_get_ended(struct sqlite_tx *tx, enum sql id, struct run_list_row *row) {
  struct run_row *w = &row->run;
  db_get(tx->db, id, tx->mem, RUN_TYPES "ss", RUN_INTO(w), &row->task_name, &row->ns);
}

static int get_run(struct sqlite_tx *tx, const struct run_key *k, struct run_list_row *row) {
  static const enum sql places[] = {SQL_RUN_GET, SQL_HISTORY_GET};
  struct run_row *w = &row->run;
  for (size_t i = 0; i < 2; i++) {
    int r = db_first(tx->db, places[i], tx->e, "illi", k->shard, k->scheduled_at, k->task_id, k->part);
    if (r > 0)
      db_get(tx->db, places[i], tx->mem, RUN_TYPES "ss", RUN_INTO(w), &row->task_name, &row->ns);
    if (r != 0)
      return r;
  }
  return 0;
}

int sqlite_run_get(struct store *s, const struct st_run_get *in, struct st_run_get_ret *ret,
                   struct arena *mem, struct err *e) {
  struct run_list_row row = {};
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = get_run(&tx, &in->key, &row);
  if (r == 0)
    r = err_set(e, ERR_NOT_FOUND, "there is no such run");
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  ret->run = row.run;
  ret->task_name = row.task_name;
  ret->ns = row.ns;
  return 0;
}

/* ------------------------------------------------------------------ lists: the keys of each place, merged, then the rows by key */
struct key_list {
  struct run_key *keys;
  size_t count, cap;
};

/* Below this (scheduled_at, task_id, part): the cursor, or `until` when that is lower. */
static struct run_key upper_bound(const struct st_run_list *in) {
  struct run_key k = {.scheduled_at = INT64_MAX, .task_id = INT64_MAX, .part = INT32_MAX};
  if (in->before)
    k = *in->before;
  if (in->until && in->until <= k.scheduled_at)
    k = (struct run_key){.scheduled_at = in->until, .task_id = INT64_MIN, .part = INT32_MIN};
  return k;
}

static int collect(struct sqlite_tx *tx, enum sql id, struct key_list *list) {
  int r;
  while ((r = db_step(tx->db, id, tx->e)) > 0) {
    struct run_key *k = sqlite_push(tx->mem, list->keys, list->count, list->cap);
    db_get(tx->db, id, NULL, "llii", &k->scheduled_at, &k->task_id, &k->part, &k->shard);
  }
  return r;
}

#define FILTER_TYPES "lliliissi" /* ?1 to ?9 of the run lists */
#define FILTERS(in, top)                                                                                     \
  (top).scheduled_at, (top).task_id, (top).part, (in)->since, (int32_t)(in)->state_mask, (in)->reason,       \
      sqlite_filter((in)->executor), sqlite_filter((in)->ns), (in)->limit

static int list_open(struct sqlite_tx *tx, const struct st_run_list *in, struct key_list *list) {
  struct run_key top = upper_bound(in);
  int32_t first = 0, last = tx->shard_count - 1;
  int r = 0;
  if (in->task_id)
    first = last = sqlite_shard_of(tx, in->task_id);
  for (int32_t shard = first; r >= 0 && shard <= last; shard++) {
    r = db_query(tx->db, SQL_RUN_LIST_OPEN, tx->e, FILTER_TYPES "il", FILTERS(in, top), shard, in->task_id);
    if (r >= 0)
      r = collect(tx, SQL_RUN_LIST_OPEN, list);
  }
  return r;
}

static int list_ended(struct sqlite_tx *tx, const struct st_run_list *in, struct key_list *list) {
  struct run_key top = upper_bound(in);
  enum sql id = in->task_id ? SQL_RUN_LIST_TASK : SQL_RUN_LIST_ENDED;
  int r = in->task_id ? db_query(tx->db, id, tx->e, FILTER_TYPES "l", FILTERS(in, top), in->task_id)
                      : db_query(tx->db, id, tx->e, FILTER_TYPES, FILTERS(in, top));
  return r < 0 ? r : collect(tx, id, list);
}

static int newest_first(const void *a, const void *b) {
  const struct run_key *x = a, *y = b;
  if (x->scheduled_at != y->scheduled_at)
    return x->scheduled_at < y->scheduled_at ? 1 : -1;
  if (x->task_id != y->task_id)
    return x->task_id < y->task_id ? 1 : -1;
  return (x->part < y->part) - (x->part > y->part);
}

static int list_keys(struct sqlite_tx *tx, const struct st_run_list *in, struct key_list *list) {
  const uint32_t open_states = 1u << RUN_PENDING | 1u << RUN_RUNNING;
  int r = 0;
  if (!in->state_mask || (in->state_mask & open_states))
    r = list_open(tx, in, list);
  if (r >= 0 && (!in->state_mask || (in->state_mask & ~open_states)))
    r = list_ended(tx, in, list);
  if (list->count)
    qsort(list->keys, list->count, sizeof *list->keys, newest_first);
  if (list->count > (size_t)in->limit)
    list->count = (size_t)in->limit;
  return r;
}

int sqlite_run_list(struct store *s, const struct st_run_list *in, struct st_run_list_ret *ret,
                    struct arena *mem, struct err *e) {
  struct st_run_list_ret out = {};
  struct key_list list = {};
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = list_keys(&tx, in, &list);
  out.rows = arena_array(mem, list.count + 1, sizeof *out.rows);
  for (size_t i = 0; r >= 0 && i < list.count; i++)
    if ((r = get_run(&tx, &list.keys[i], &out.rows[out.count])) > 0)
      out.count++;
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

static int oldest_first(const void *a, const void *b) {
  return run_key_cmp(&((const struct run_row *)a)->key, &((const struct run_row *)b)->key);
}

int sqlite_run_folded(struct store *s, const struct st_run_folded *in, struct st_run_folded_ret *ret,
                      struct arena *mem, struct err *e) {
  static const enum sql places[] = {SQL_RUN_FOLDED_OPEN, SQL_RUN_FOLDED_ENDED};
  struct st_run_folded_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  for (size_t i = 0; r >= 0 && i < 2; i++) {
    r = i == 0 ? db_query(tx.db, places[i], e, "lllii", in->task_id, in->from, in->to, in->limit,
                          sqlite_shard_of(&tx, in->task_id))
               : db_query(tx.db, places[i], e, "llli", in->task_id, in->from, in->to, in->limit);
    while (r >= 0 && (r = db_step(tx.db, places[i], e)) > 0) {
      struct run_row *w = sqlite_push(mem, out.rows, out.count, cap);
      db_get(tx.db, places[i], mem, RUN_TYPES, RUN_INTO(w));
    }
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  if (out.count)
    qsort(out.rows, out.count, sizeof *out.rows, oldest_first);
  if (out.count > (size_t)in->limit)
    out.count = (size_t)in->limit;
  *ret = out;
  return 0;
}

int sqlite_attempt_list(struct store *s, const struct st_attempt_list *in, struct st_attempt_list_ret *ret,
                        struct arena *mem, struct err *e) {
  struct st_attempt_list_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_ATTEMPT_LIST, e, "lli", in->key.task_id, in->key.scheduled_at, in->key.part);
  while (r >= 0 && (r = db_step(tx.db, SQL_ATTEMPT_LIST, e)) > 0) {
    struct attempt_row *a = sqlite_push(mem, out.rows, out.count, cap);
    a->key = in->key;
    db_get(tx.db, SQL_ATTEMPT_LIST, mem, "iiilllsss", &a->attempt, &a->state, &a->reason, &a->dispatched_at,
           &a->started_at, &a->finished_at, &a->executor, &a->error_type, &a->error_message);
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}
