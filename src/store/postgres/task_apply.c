/* One document's groups and tasks, in one transaction. */
#include "store/postgres/pg.h"
#include <stdio.h>

/* Which part of the request was refused; `code` is given back. */
static int at(struct err *e, const char *list, size_t i, int code) {
  char place[ERR_FIELD_MAX];
  (void)snprintf(place, sizeof place, "/%s/%zu", list, i);
  if (e)
    (void)err_at(e, place);
  return code;
}

static void add_task(struct pg_store *s, int64_t id) {
  pgw_el_i4(&s->args, shard_of_task(id, s->source->shard_count));
}

/* Every shard that is written to, in the order of their ids: as FIRE locks them. */
static int lock_shards(struct pg_store *s, const struct st_task_apply *in, const int64_t *ids,
                       struct err *e) {
  static const struct pg_sql lock = {
      "task_apply_lock", "SELECT 1 FROM shard WHERE id = ANY ($1::int4[]) ORDER BY id FOR UPDATE", PG_READ};
  PGresult *r[2] = {0};
  pgc_begin(s);
  pgw_array(&s->args, PG_INT4_OID, in->put_count + in->change_count);
  for (size_t i = 0; i < in->put_count; i++)
    add_task(s, ids[i]);
  for (size_t i = 0; i < in->change_count; i++)
    add_task(s, in->changes[i].task_id);
  pgw_array_end(&s->args);
  pgc_add(s, &lock);
  int code = pgc_run(s, r, e);
  pgr_clear(&r[0]);
  pgr_clear(&r[1]);
  return code;
}

/* Those of `ids` that are there belong to `source` from now on. Returns how many. */
static int64_t own(struct pg_store *s, const int64_t *ids, size_t count, struct slice source, struct err *e) {
  static const struct pg_sql q = {
      "task_apply_own",
      "WITH t AS (UPDATE task SET managed_by = $3::text FROM unnest($1::int4[], $2::int8[]) u (shard, id) "
      "WHERE task.shard = u.shard AND task.id = u.id AND task.state <> 3 RETURNING 1) SELECT count(*) FROM t",
      PG_WRITE};
  auto_result r = NULL;
  pgw_array(&s->args, PG_INT4_OID, count);
  for (size_t i = 0; i < count; i++)
    add_task(s, ids[i]);
  pgw_array_end(&s->args);
  pgw_array(&s->args, PG_INT8_OID, count);
  for (size_t i = 0; i < count; i++)
    pgw_el_i8(&s->args, ids[i]);
  pgw_array_end(&s->args);
  pgw_text0(&s->args, source);
  int code = pgc_one(s, &q, &r, e);
  return code < 0 ? code : pgw_int(r, 0, 0);
}

static int may_delete(struct pg_store *s, const struct st_task_change *ch, struct slice source,
                      struct err *e) {
  static const struct pg_sql q = {
      "task_apply_managed",
      "SELECT 1 FROM task WHERE shard = $1::int4 AND id = $2::int8 AND managed_by = $3::text "
      "AND managed_by <> '' OR NOT EXISTS (SELECT FROM task WHERE shard = $1 AND id = $2 AND state <> 3)",
      PG_READ}; /* one that is gone is refused as such */
  auto_result r = NULL;
  pgw_i4(&s->args, shard_of_task(ch->task_id, s->source->shard_count));
  pgw_i8(&s->args, ch->task_id);
  pgw_text0(&s->args, source);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0 && PQntuples(r) == 0)
    return err_set(e, ERR_CONFLICT, "the task is not managed by this source");
  return code;
}

/* `edits` gets what they mean for who depends on whom. */
static int change_tasks(struct pg_store *s, const struct st_task_apply *in, struct task_version_row *rows,
                        struct edge_edit *edits, size_t *edit_count, struct arena *mem, struct err *e) {
  for (size_t i = 0; i < in->change_count; i++) {
    const struct st_task_change *ch = &in->changes[i];
    struct st_task_change_ret out = {0};
    int code = ch->state == TASK_DELETED ? may_delete(s, ch, in->source, e) : 0;
    if (code == 0)
      code = pg_change_task(s, ch, &out, &edits[*edit_count], mem, e);
    if (code < 0)
      return at(e, "changes", i, code);
    rows[i] = out.row;
    if (edits[*edit_count].task_id) {
      struct edge_edit *d = &edits[(*edit_count)++];
      (void)snprintf(d->at, sizeof d->at, "/changes/%zu", i);
    }
  }
  int64_t n = in->own_count ? own(s, in->own, in->own_count, in->source, e) : 0;
  if (n < 0)
    return (int)n;
  return n == (int64_t)in->own_count ? 0 : err_field(e, ERR_NOT_FOUND, "/own", "one of the tasks is gone");
}

/* Inside the transaction. *ret_put: the new tasks are what was refused. */
static int write_all(struct pg_store *s, const struct st_task_apply *in, const int64_t *ids,
                     struct st_task_apply_ret *ret, struct arena *mem, bool *ret_put, struct err *e) {
  const struct st_task_put put = {.defs = in->puts, .count = in->put_count, .by = in->by};
  struct st_task_put_ret made = {0};
  int code = lock_shards(s, in, ids, e);
  for (size_t i = 0; code == 0 && i < in->group_count; i++)
    if ((code = pg_put_group(s, &in->groups[i], &ret->groups[i], mem, e)) < 0)
      code = at(e, "groups", i, code);
  if (code == 0 && in->put_count) {
    code = pg_put_tasks(s, &put, ids, &made, mem, e);
    *ret_put = code < 0;
    ret->puts = made.rows;
  }
  if (code == 0 && in->put_count && in->source.n) {
    int64_t n = own(s, ids, in->put_count, in->source, e);
    code = n < 0 ? (int)n : 0;
  }
  struct edge_edit *edits = arena_array(mem, in->put_count + in->change_count + 1, sizeof *edits);
  size_t n = edge_edits_of(in->puts, ids, in->put_count, "/puts", edits);
  if (code == 0)
    code = change_tasks(s, in, ret->changes, edits, &n, mem, e);
  return code < 0 ? code : pg_edit_edges(s, edits, n, mem, e);
}

int pg_task_apply(struct store *store, const struct st_task_apply *in, struct st_task_apply_ret *ret,
                  struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  struct st_task_apply_ret out = {.groups = arena_array(mem, in->group_count + 1, sizeof *out.groups),
                                  .changes = arena_array(mem, in->change_count + 1, sizeof *out.changes)};
  int64_t *ids = arena_array(mem, in->put_count + 1, sizeof *ids);
  bool puts = false;
  int code = pg_take_task_ids(s, ids, in->put_count, e);
  if (code < 0)
    return code;
  code = write_all(s, in, ids, &out, mem, &puts, e);
  if (code == 0 && in->check_only) {
    pgc_rollback(s);
    *ret = out;
    return 0;
  }
  if (code == 0) {
    if ((code = pgc_commit(s, e)) == 0)
      *ret = out;
    return code;
  }
  bool name = puts && code == ERR_CONFLICT && pgc_refused(s, PG_UNIQUE_VIOLATION);
  pgc_rollback(s);
  if (!name)
    return code;
  code = pg_name_taken(s, in->puts, in->put_count, e);
  if (e && e->field[0])
    (void)err_at(e, in->put_count > 1 ? "/puts" : "/puts/0");
  return code;
}
