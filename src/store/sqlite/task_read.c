/* Reading tasks: for people, for the trigger, for dispatch. */
#include "store/sqlite/sqlite.h"
#include <limits.h>
#include <stdlib.h>

_Static_assert(RUN_SUCCESS == 2 && RUN_FAIL == 3 && RUN_CANCELLED == 4 && RUN_SKIPPED == 5,
               "numbers in sql.def");

void sqlite_get_version(struct sqlite_tx *tx, enum sql id, struct task_version_row *v) {
  db_get(tx->db, id, tx->mem, "liilllibss", &v->task_id, &v->version, &v->shard, &v->change_no,
         &v->effective_at, &v->anchor, &v->state, &v->has_payload, &v->name, &v->definition);
}

void sqlite_get_task(struct sqlite_tx *tx, enum sql id, struct task_row *t) {
  struct task_version_row *v = &t->v;
  db_get(tx->db, id, tx->mem, "liilllibsssssssssssills", &v->task_id, &v->version, &v->shard, &v->change_no,
         &v->effective_at, &v->anchor, &v->state, &v->has_payload, &v->name, &v->definition, &t->ns,
         &t->description, &t->payload, &t->group, &t->handler, &t->schedule_text, &t->created_by,
         &t->updated_by, &t->note, &t->kind, &t->created_at, &t->updated_at, &t->managed_by);
}

int sqlite_task_get(struct store *s, const struct st_task_get *in, struct st_task_get_ret *ret,
                    struct arena *mem, struct err *e) {
  struct task_row t = {};
  int64_t id = in->task_id;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  if (!id && (r = db_first(tx.db, SQL_TASK_BY_NAME, e, "tt", in->ns, in->name)) > 0)
    db_get(tx.db, SQL_TASK_BY_NAME, mem, "l", &id);
  if (r >= 0 && id)
    r = db_first(tx.db, SQL_TASK_GET, e, "ilii", sqlite_shard_of(&tx, id), id, in->version, 0);
  if (r > 0)
    sqlite_get_task(&tx, SQL_TASK_GET, &t);
  else if (r == 0)
    r = err_set(e, ERR_NOT_FOUND, "there is no such task%s", in->version ? " version" : "");
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  ret->task = t;
  return 0;
}

/* ------------------------------------------------------------------ lists: ids by the fitting index, then the rows by key */
struct id_list {
  int64_t *ids;
  size_t count, cap;
};

static int list_ids(struct sqlite_tx *tx, const struct st_task_list *in, struct slice ns,
                    struct id_list *list) {
  enum sql id = SQL_TASK_LIST_NS;
  if (in->managed_by.n)
    id = SQL_TASK_LIST_MANAGED;
  else if (in->state != TASK_DELETED && in->group.n)
    id = SQL_TASK_LIST_GROUP;
  else if (in->state != TASK_DELETED && in->name_prefix.n)
    id = SQL_TASK_LIST_NAME;
  int r =
      db_query(tx->db, id, tx->e, "tlssssiiis", ns, in->after, sqlite_filter(in->group),
               sqlite_filter(in->handler), sqlite_filter(in->name_prefix), sqlite_filter(in->name_contains),
               in->state, in->kind, in->limit, sqlite_filter(in->managed_by));
  while (r >= 0 && (r = db_step(tx->db, id, tx->e)) > 0)
    db_get(tx->db, id, NULL, "l", sqlite_push(tx->mem, list->ids, list->count, list->cap));
  return r;
}

static int list_all_ids(struct sqlite_tx *tx, const struct st_task_list *in, struct id_list *list) {
  struct slice ns = SLICE("");
  int r = 0;
  for (;;) {
    r = db_first(tx->db, SQL_TASK_NEXT_NS, tx->e, "t", ns);
    if (r <= 0)
      return r;
    db_get(tx->db, SQL_TASK_NEXT_NS, tx->mem, "s", &ns);
    if (!ns.p)
      return 0;
    r = list_ids(tx, in, ns, list);
    if (r < 0)
      return r;
  }
}

static int by_id(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

int sqlite_task_list(struct store *s, const struct st_task_list *in, struct st_task_list_ret *ret,
                     struct arena *mem, struct err *e) {
  struct st_task_list_ret out = {};
  struct id_list list = {};
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = in->ns.n ? list_ids(&tx, in, in->ns, &list) : list_all_ids(&tx, in, &list);
  if (list.count)
    qsort(list.ids, list.count, sizeof *list.ids, by_id);
  if (list.count > (size_t)in->limit)
    list.count = (size_t)in->limit;
  out.tasks = arena_array(mem, list.count + 1, sizeof *out.tasks);
  for (size_t i = 0; r >= 0 && i < list.count; i++) {
    r = db_first(tx.db, SQL_TASK_GET, e, "ilii", sqlite_shard_of(&tx, list.ids[i]), list.ids[i], 0, 1);
    if (r > 0)
      sqlite_get_task(&tx, SQL_TASK_GET, &out.tasks[out.count++]);
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_task_versions(struct store *s, const struct st_task_versions *in, struct st_task_versions_ret *ret,
                         struct arena *mem, struct err *e) {
  struct st_task_versions_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_TASK_VERSIONS, e, "ilii", sqlite_shard_of(&tx, in->task_id), in->task_id,
               in->before ? in->before : INT_MAX, in->limit);
  while (r >= 0 && (r = db_step(tx.db, SQL_TASK_VERSIONS, e)) > 0)
    sqlite_get_task(&tx, SQL_TASK_VERSIONS, sqlite_push(mem, out.versions, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_task_timeline(struct store *s, const struct st_task_timeline *in, struct st_task_timeline_ret *ret,
                         struct arena *mem, struct err *e) {
  struct st_task_timeline_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_TASK_TIMELINE, e, "illlii", sqlite_shard_of(&tx, in->task_id), in->task_id,
               in->from, in->to, in->margin, in->limit);
  while (r >= 0 && (r = db_step(tx.db, SQL_TASK_TIMELINE, e)) > 0)
    sqlite_get_task(&tx, SQL_TASK_TIMELINE, sqlite_push(mem, out.versions, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

/* ------------------------------------------------------------------ for the trigger */
int sqlite_task_load(struct store *s, const struct st_task_load *in, struct st_task_load_ret *ret,
                     struct arena *mem, struct err *e) {
  struct st_task_load_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_TASK_LOAD, e, "illi", in->shard, in->after, in->changed_after, in->limit);
  while (r >= 0 && (r = db_step(tx.db, SQL_TASK_LOAD, e)) > 0)
    sqlite_get_version(&tx, SQL_TASK_LOAD, sqlite_push(mem, out.rows, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_task_load_older(struct store *s, const struct st_task_load_older *in,
                           struct st_task_load_older_ret *ret, struct arena *mem, struct err *e) {
  struct st_task_load_older_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_TASK_LOAD_OLDER, e, "il", in->shard, in->changed_after);
  while (r >= 0 && (r = db_step(tx.db, SQL_TASK_LOAD_OLDER, e)) > 0)
    sqlite_get_version(&tx, SQL_TASK_LOAD_OLDER, sqlite_push(mem, out.rows, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_task_changes(struct store *s, const struct st_task_changes *in, struct st_task_changes_ret *ret,
                        struct arena *mem, struct err *e) {
  struct st_task_changes_ret out = {.last = in->after};
  struct task_version_row row = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_TASK_CHANGES, e, "il", in->shard, in->after);
  while (r >= 0 && (r = db_step(tx.db, SQL_TASK_CHANGES, e)) > 0) {
    sqlite_get_version(&tx, SQL_TASK_CHANGES, &row);
    if (out.count >= (size_t)in->limit && row.change_no != out.last)
      break; /* a number is never cut in half, so the limit may be passed */
    *sqlite_push(mem, out.rows, out.count, cap) = row;
    out.last = row.change_no;
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_progress_load(struct store *s, const struct st_progress_load *in, struct st_progress_load_ret *ret,
                         struct arena *mem, struct err *e) {
  struct st_progress_load_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_PROGRESS_LOAD, e, "i", in->shard);
  while (r >= 0 && (r = db_step(tx.db, SQL_PROGRESS_LOAD, e)) > 0) {
    struct progress_row *p = sqlite_push(mem, out.rows, out.count, cap);
    db_get(tx.db, SQL_PROGRESS_LOAD, mem, "lill", &p->task_id, &p->shard, &p->base_at, &p->fired);
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

/* ------------------------------------------------------------------ for dispatch */
int sqlite_payload_get(struct store *s, const struct st_payload_get *in, struct st_payload_get_ret *ret,
                       struct arena *mem, struct err *e) {
  struct payload_row *rows = arena_array(mem, in->count + 1, sizeof *rows);
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  for (size_t i = 0; r >= 0 && i < in->count; i++) {
    r = db_first(tx.db, SQL_PAYLOAD_GET, e, "ili", sqlite_shard_of(&tx, in->task_ids[i]), in->task_ids[i],
                 in->versions[i]);
    rows[i].has = r > 0;
    if (r > 0)
      db_get(tx.db, SQL_PAYLOAD_GET, mem, "ssssl", &rows[i].ns, &rows[i].name, &rows[i].payload,
             &rows[i].definition, &rows[i].anchor);
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  ret->rows = rows;
  return 0;
}
