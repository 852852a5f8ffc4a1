/* Writing tasks: their versions, their feed, their completion. */
#include "store/sqlite/sqlite.h"
#include "base/parse.h"
#include <stdio.h>

_Static_assert(TASK_ENABLED == 0 && TASK_COMPLETED == 2 && TASK_DELETED == 3, "numbers in sql.def");

/* What the shard's row gave to the versions that this transaction makes in it. */
struct shard_change {
  usec_t effective_at;
  int64_t change_no; /* 0 = not taken yet */
};

static int shard_change(struct sqlite_tx *tx, int32_t shard, struct shard_change *c) {
  usec_t fired_at;
  if (c->change_no)
    return 0;
  int r = db_first(tx->db, SQL_SHARD_CHANGE, tx->e, "i", shard);
  if (r <= 0)
    return r < 0 ? r : err_set(tx->e, ERR_INTERNAL, "the shard %d is missing", (int)shard);
  db_get(tx->db, SQL_SHARD_CHANGE, NULL, "ll", &fired_at, &c->change_no);
  c->effective_at = fired_at > tx->now ? fired_at : tx->now;
  sqlite_touch(tx, shard);
  return 0;
}

static int insert_version(struct sqlite_tx *tx, const struct task_version_row *v, const struct task_def *d,
                          struct slice by, struct slice note) {
  return db_run(tx->db, SQL_VERSION_NEW, tx->e, "ilillliiltttttstss", v->shard, v->task_id, v->version,
                v->change_no, v->effective_at, v->anchor, v->state, d->kind, tx->now, by, d->name, d->group,
                d->handler, d->schedule_text, note, d->definition, d->description, d->payload);
}

/* What the failed write of a task's row means: `field` is where its name stands in the request. */
static int name_in_use(struct sqlite_tx *tx, const char *field, struct slice name, int r) {
  return db_is_duplicate(tx->db)
             ? err_field(tx->e, ERR_CONFLICT, field, "the name %.*s is in use", SLICE_FMT(name))
             : r;
}

static int put_one(struct sqlite_tx *tx, const struct st_task_put *in, size_t i,
                   const struct task_version_row *v) {
  const struct task_def *d = &in->defs[i];
  char field[ERR_FIELD_MAX] = "/name";
  int r = db_run(tx->db, SQL_TASK_NEW, tx->e, "illlliiiltttttt", v->shard, v->task_id, v->change_no,
                 v->effective_at, v->anchor, v->state, d->kind, v->has_payload, tx->now, d->ns, d->name,
                 d->group, d->handler, in->by, d->definition);
  if (r >= 0)
    return insert_version(tx, v, d, in->by, (struct slice){});
  if (in->count > 1)
    snprintf(field, sizeof field, "/%zu/name", i);
  return name_in_use(tx, field, d->name, r);
}

int sqlite_put_tasks(struct sqlite_tx *tx, const struct st_task_put *in, struct task_version_row *rows) {
  struct shard_change *changes = arena_array(tx->mem, (size_t)tx->shard_count, sizeof *changes);
  int64_t last = 0;
  int r = db_first(tx->db, SQL_META_ADD, tx->e, "sl", SLICE("task"), (int64_t)in->count);
  if (r > 0)
    db_get(tx->db, SQL_META_ADD, NULL, "l", &last);
  for (size_t i = 0; r >= 0 && i < in->count; i++) {
    const struct task_def *d = &in->defs[i];
    struct task_version_row *v = &rows[i];
    v->task_id = last - (int64_t)in->count + 1 + (int64_t)i;
    v->version = 1;
    v->shard = sqlite_shard_of(tx, v->task_id);
    struct shard_change *c = &changes[v->shard];
    r = shard_change(tx, v->shard, c);
    v->change_no = c->change_no;
    v->effective_at = c->effective_at;
    v->anchor = d->anchor ? d->anchor : v->effective_at;
    v->state = d->state;
    v->has_payload = d->payload.p != NULL;
    v->name = arena_slice(tx->mem, d->name);
    v->definition = arena_slice(tx->mem, d->definition);
    if (r >= 0)
      r = put_one(tx, in, i, v);
  }
  return r < 0 ? r : 0;
}

/* The first answer to a repeated request: the task as it was created. */
static int first_version(struct sqlite_tx *tx, struct slice answer, struct task_version_row *v) {
  struct task_row t = {};
  int64_t id;
  int r = parse_i64(answer, 1, INT64_MAX, &id, tx->e);
  if (r >= 0)
    r = db_first(tx->db, SQL_TASK_GET, tx->e, "ilii", sqlite_shard_of(tx, id), id, 1, 1);
  if (r <= 0)
    return r < 0 ? r : err_set(tx->e, ERR_INTERNAL, "the task of a remembered answer is missing");
  sqlite_get_task(tx, SQL_TASK_GET, &t);
  *v = t.v;
  return 1;
}

static int put_edges(struct sqlite_tx *tx, const struct st_task_put *in,
                     const struct task_version_row *rows) {
  struct edge_edit *edits = arena_array(tx->mem, in->count + 1, sizeof *edits);
  int64_t *ids = arena_array(tx->mem, in->count, sizeof *ids);
  for (size_t i = 0; i < in->count; i++)
    ids[i] = rows[i].task_id;
  return sqlite_edit_edges(tx, edits, edge_edits_of(in->defs, ids, in->count, "", edits));
}

int sqlite_task_put(struct store *s, const struct st_task_put *in, struct st_task_put_ret *ret,
                    struct arena *mem, struct err *e) {
  struct task_version_row *rows = arena_array(mem, in->count + 1, sizeof *rows);
  struct slice answer = {};
  struct sqlite_tx tx;
  if (in->idem && in->count != 1)
    return err_set(e, ERR_INTERNAL, "an Idempotency-Key goes with one task");
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = sqlite_idem_find(&tx, in->idem, &answer);
  if (r > 0) {
    r = first_version(&tx, answer, rows);
  } else if (r == 0) {
    r = sqlite_put_tasks(&tx, in, rows);
    if (r == 0)
      r = put_edges(&tx, in, rows);
    if (r == 0 && in->idem)
      r = sqlite_idem_keep(&tx, in->idem, slice_of(arena_printf(mem, "%lld", (long long)rows[0].task_id)));
  }
  r = sqlite_write_end(&tx, r);
  if (r < 0)
    return r;
  ret->rows = rows;
  ret->count = in->count;
  return r;
}

/* ------------------------------------------------------------------ a new version */
static int check_change(struct sqlite_tx *tx, const struct st_task_change *in,
                        const struct task_version_row *old) {
  if (in->expected_version && in->expected_version != old->version)
    return err_set(tx->e, ERR_STALE, "the task is at version %d, not %d", (int)old->version,
                   (int)in->expected_version);
  if (!in->def && in->state == old->state)
    return 1;
  if (in->state != TASK_DELETED || in->even_with_open_runs)
    return 0;
  int r = db_first(tx->db, SQL_RUN_OPEN_OF_TASK, tx->e, "il", old->shard, old->task_id);
  return r > 0 ? err_set(tx->e, ERR_CONFLICT, "the task has open runs") : r;
}

/* The definition of the next version: the given one, or the old one again. */
static struct task_def next_def(const struct st_task_change *in, const struct task_row *old) {
  if (in->def)
    return *in->def;
  return (struct task_def){.name = old->v.name,
                           .description = old->description,
                           .definition = old->v.definition,
                           .payload = old->payload,
                           .group = old->group,
                           .handler = old->handler,
                           .schedule_text = old->schedule_text,
                           .kind = old->kind};
}

static int write_version(struct sqlite_tx *tx, const struct st_task_change *in, const struct task_row *old,
                         struct task_version_row *v) {
  struct task_def d = next_def(in, old);
  struct shard_change c = {};
  int r = shard_change(tx, old->v.shard, &c);
  if (r < 0)
    return r;
  v->version = old->v.version + 1;
  v->change_no = c.change_no;
  v->effective_at = c.effective_at > old->v.effective_at ? c.effective_at
                                                         : old->v.effective_at; /* the clock may step back */
  v->anchor = d.anchor ? d.anchor : old->v.anchor;
  v->state = in->state;
  v->has_payload = d.payload.p != NULL;
  v->name = d.name;
  v->definition = d.definition;
  r = db_run(tx->db, SQL_TASK_CHANGE, tx->e, "ilillliiitttt", v->shard, v->task_id, v->version, v->change_no,
             v->effective_at, v->anchor, v->state, d.kind, v->has_payload, d.name, d.group, d.handler,
             d.definition);
  if (r < 0)
    return name_in_use(tx, "/name", d.name, r);
  return insert_version(tx, v, &d, in->by, in->note);
}

/* As it is before the change. */
static int note_edges(struct sqlite_tx *tx, const struct st_task_change *in, const struct task_row *old,
                      struct edge_edit *ret) {
  int had = db_first(tx->db, SQL_DEPEND_HAS, tx->e, "l", in->task_id);
  if (had < 0)
    return had;
  if (!edge_edit_of(in, old->ns, old->v.name, had > 0, ret))
    ret->task_id = 0;
  return 0;
}

int sqlite_change_task(struct sqlite_tx *tx, const struct st_task_change *in, struct task_row *ret_old,
                       struct task_version_row *ret, struct edge_edit *ret_edit) {
  int64_t no;
  ret_edit->task_id = 0;
  int r = db_first(tx->db, SQL_TASK_GET, tx->e, "ilii", sqlite_shard_of(tx, in->task_id), in->task_id, 0, 0);
  if (r > 0) {
    sqlite_get_task(tx, SQL_TASK_GET, ret_old);
    *ret = ret_old->v;
    r = check_change(tx, in, &ret_old->v);
  } else if (r == 0) {
    r = err_set(tx->e, ERR_NOT_FOUND, "there is no task %lld", (long long)in->task_id);
  }
  if (r == 0)
    r = note_edges(tx, in, ret_old, ret_edit);
  if (r == 0) {
    r = write_version(tx, in, ret_old, ret);
    if (r >= 0 && in->inbox)
      r = sqlite_inbox_append(tx, in->inbox, &no);
    r = r < 0 ? r : 0;
  }
  if (r >= 0) {
    ret->name = arena_slice(tx->mem, ret->name);
    ret->definition = arena_slice(tx->mem, ret->definition);
  }
  return r;
}

int sqlite_task_change(struct store *s, const struct st_task_change *in, struct st_task_change_ret *ret,
                       struct arena *mem, struct err *e) {
  struct task_row old = {};
  struct task_version_row v;
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  struct edge_edit edit;
  r = sqlite_change_task(&tx, in, &old, &v, &edit);
  if (r == 0 && edit.task_id)
    r = sqlite_edit_edges(&tx, &edit, 1);
  r = sqlite_write_end(&tx, r);
  if (r >= 0)
    ret->row = v;
  return r;
}

int sqlite_task_complete(struct store *s, const struct st_task_complete *in, struct st_task_complete_ret *ret,
                         struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  for (size_t i = 0; r >= 0 && i < in->count; i++) {
    int32_t shard = sqlite_shard_of(&tx, in->task_ids[i]);
    r = db_run(tx.db, SQL_TASK_COMPLETE, e, "ili", shard, in->task_ids[i], in->versions[i]);
    if (r > 0)
      r = db_run(tx.db, SQL_VERSION_COMPLETE, e, "ili", shard, in->task_ids[i], in->versions[i]);
  }
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}
