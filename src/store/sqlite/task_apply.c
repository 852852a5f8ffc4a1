/* One document's groups and tasks, in one transaction. */
#include "store/sqlite/sqlite.h"
#include <stdio.h>

/* Which part of the request was refused; `code` is given back. */
static int at(struct sqlite_tx *tx, const char *list, size_t i, int code) {
  char place[ERR_FIELD_MAX];
  (void)snprintf(place, sizeof place, "/%s/%zu", list, i);
  if (tx->e)
    (void)err_at(tx->e, place);
  return code;
}

static int own(struct sqlite_tx *tx, int64_t id, struct slice source) {
  int r = db_run(tx->db, SQL_TASK_OWN, tx->e, "ilt", sqlite_shard_of(tx, id), id, source);
  return r ? r : err_set(tx->e, ERR_NOT_FOUND, "there is no task %lld", (long long)id);
}

static int put_tasks(struct sqlite_tx *tx, const struct st_task_apply *in, struct task_version_row *rows) {
  const struct st_task_put put = {.defs = in->puts, .count = in->put_count, .by = in->by};
  if (!in->put_count)
    return 0;
  int r = sqlite_put_tasks(tx, &put, rows);
  if (r < 0 && tx->e && tx->e->field[0]) /* of several its place stands there already */
    (void)err_at(tx->e, in->put_count > 1 ? "/puts" : "/puts/0");
  for (size_t i = 0; r >= 0 && i < in->put_count && in->source.n; i++)
    r = own(tx, rows[i].task_id, in->source);
  return r < 0 ? r : 0;
}

/* `edits` gets what they mean for who depends on whom. */
static int change_tasks(struct sqlite_tx *tx, const struct st_task_apply *in, struct task_version_row *rows,
                        struct edge_edit *edits, size_t *edit_count) {
  int r = 0;
  for (size_t i = 0; r >= 0 && i < in->change_count; i++) {
    const struct st_task_change *ch = &in->changes[i];
    struct task_row old = {};
    struct edge_edit *d = &edits[*edit_count];
    r = sqlite_change_task(tx, ch, &old, &rows[i], d);
    if (r >= 0 && ch->state == TASK_DELETED && !(in->source.n && slice_eq(old.managed_by, in->source)))
      r = err_set(tx->e, ERR_CONFLICT, "the task is not managed by this source");
    if (r < 0)
      r = at(tx, "changes", i, r);
    if (r >= 0 && d->task_id) {
      (void)snprintf(d->at, sizeof d->at, "/changes/%zu", i);
      (*edit_count)++;
    }
  }
  for (size_t i = 0; r >= 0 && i < in->own_count; i++)
    if ((r = own(tx, in->own[i], in->source)) < 0)
      r = at(tx, "own", i, r);
  return r < 0 ? r : 0;
}

/* The changes, and who depends on whom when all is written. */
static int write_changes(struct sqlite_tx *tx, const struct st_task_apply *in,
                         const struct st_task_apply_ret *rows) {
  struct edge_edit *edits = arena_array(tx->mem, in->put_count + in->change_count + 1, sizeof *edits);
  int64_t *ids = arena_array(tx->mem, in->put_count + 1, sizeof *ids);
  for (size_t i = 0; i < in->put_count; i++)
    ids[i] = rows->puts[i].task_id;
  size_t n = edge_edits_of(in->puts, ids, in->put_count, "/puts", edits);
  int r = change_tasks(tx, in, rows->changes, edits, &n);
  return r < 0 ? r : sqlite_edit_edges(tx, edits, n);
}

int sqlite_task_apply(struct store *s, const struct st_task_apply *in, struct st_task_apply_ret *ret,
                      struct arena *mem, struct err *e) {
  struct st_task_apply_ret out = {.groups = arena_array(mem, in->group_count + 1, sizeof *out.groups),
                                  .puts = arena_array(mem, in->put_count + 1, sizeof *out.puts),
                                  .changes = arena_array(mem, in->change_count + 1, sizeof *out.changes)};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  for (size_t i = 0; r >= 0 && i < in->group_count; i++)
    if ((r = sqlite_put_group(&tx, &in->groups[i], &out.groups[i])) < 0)
      r = at(&tx, "groups", i, r);
  if (r >= 0)
    r = put_tasks(&tx, in, out.puts);
  if (r >= 0)
    r = write_changes(&tx, in, &out);
  if (r >= 0 && in->check_only) { /* as it would have been */
    (void)sqlite_write_end(&tx, ERR_CONFLICT);
    *ret = out;
    return 0;
  }
  r = sqlite_write_end(&tx, r);
  if (r >= 0)
    *ret = out;
  return r;
}
