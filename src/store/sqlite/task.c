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

static int shard_change(struct store *s, struct db *db, int32_t shard, usec_t now, struct shard_change *c, struct err *e)
{
  usec_t fired_at;
  if (c->change_no)
    return 0;
  int r = db_first(db, SQL_SHARD_CHANGE, e, "i", shard);
  if (r <= 0)
    return r < 0 ? r : err_set(e, ERR_INTERNAL, "the shard %d is missing", (int)shard);
  db_get(db, SQL_SHARD_CHANGE, NULL, "ll", &fired_at, &c->change_no);
  c->effective_at = fired_at > now ? fired_at : now;
  sqlite_touch(s, shard);
  return 0;
}

static int insert_version(struct db *db, const struct task_version_row *v, const struct task_def *d, struct slice by,
                          struct slice note, usec_t now, struct err *e)
{
  return db_run(db, SQL_VERSION_NEW, e, "ilillliiltttttstss", v->shard, v->task_id, v->version, v->change_no, v->effective_at,
                v->anchor, v->state, d->kind, now, by, d->name, d->group, d->handler, d->schedule_text, note, d->definition, d->description,
                d->payload);
}

static int name_in_use(struct db *db, size_t index, size_t count, struct slice name, int r, struct err *e)
{
  char field[ERR_FIELD_MAX];
  if (!db_is_duplicate(db))
    return r;
  if (count == 1)
    return err_field(e, ERR_CONFLICT, "/name", "the name %.*s is in use", SLICE_FMT(name));
  snprintf(field, sizeof field, "/%zu/name", index);
  return err_field(e, ERR_CONFLICT, field, "the name %.*s is in use", SLICE_FMT(name));
}

static int put_one(struct db *db, const struct st_task_put *in, size_t i, usec_t now, struct task_version_row *v, struct err *e)
{
  const struct task_def *d = &in->defs[i];
  int r = db_run(db, SQL_TASK_NEW, e, "illlliiiltttttt", v->shard, v->task_id, v->change_no, v->effective_at, v->anchor, v->state,
                 d->kind, v->has_payload, now, d->ns, d->name, d->group, d->handler, in->by, d->definition);
  if (r < 0)
    return name_in_use(db, i, in->count, d->name, r, e);
  return insert_version(db, v, d, in->by, (struct slice){}, now, e);
}

static int put_all(struct store *s, struct db *db, const struct st_task_put *in, struct task_version_row *rows, struct arena *mem,
                   struct err *e)
{
  struct shard_change *changes = arena_array(mem, (size_t)sqlite_source_of(s)->shard_count, sizeof *changes);
  usec_t now = sqlite_now(s);
  int64_t last = 0;
  int r = db_first(db, SQL_META_ADD, e, "sl", SLICE("task"), (int64_t)in->count);
  if (r > 0)
    db_get(db, SQL_META_ADD, mem, "l", &last);
  for (size_t i = 0; r >= 0 && i < in->count; i++) {
    const struct task_def *d = &in->defs[i];
    struct task_version_row *v = &rows[i];
    v->task_id = last - (int64_t)in->count + 1 + (int64_t)i;
    v->version = 1;
    v->shard = shard_of_task(v->task_id, sqlite_source_of(s)->shard_count);
    struct shard_change *c = &changes[v->shard];
    r = shard_change(s, db, v->shard, now, c, e);
    v->change_no = c->change_no;
    v->effective_at = c->effective_at;
    v->anchor = d->anchor ? d->anchor : v->effective_at;
    v->state = d->state;
    v->has_payload = d->payload.p != NULL;
    v->name = arena_slice(mem, d->name);
    v->definition = arena_slice(mem, d->definition);
    if (r >= 0)
      r = put_one(db, in, i, now, v, e);
  }
  return r < 0 ? r : 0;
}

/* The first answer to a repeated request: the task as it was created. */
static int first_version(struct store *s, struct db *db, struct slice answer, struct task_version_row *v, struct arena *mem,
                         struct err *e)
{
  struct task_row t = {};
  int64_t id;
  int r = parse_i64(answer, 1, INT64_MAX, &id, e);
  if (r >= 0)
    r = db_first(db, SQL_TASK_GET, e, "ilii", shard_of_task(id, sqlite_source_of(s)->shard_count), id, 1, 1);
  if (r <= 0)
    return r < 0 ? r : err_set(e, ERR_INTERNAL, "the task of a remembered answer is missing");
  sqlite_get_task(db, SQL_TASK_GET, mem, &t);
  *v = t.v;
  return 1;
}

int sqlite_task_put(struct store *s, const struct st_task_put *in, struct st_task_put_ret *ret, struct arena *mem, struct err *e)
{
  struct task_version_row *rows = arena_array(mem, in->count + 1, sizeof *rows);
  struct slice answer = {};
  struct sqlite_tx tx;
  if (in->idem && in->count != 1)
    return err_set(e, ERR_INTERNAL, "an Idempotency-Key goes with one task");
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = sqlite_idem_find(s, tx.db, in->idem, mem, &answer, e);
  if (r > 0) {
    r = first_version(s, tx.db, answer, rows, mem, e);
  } else if (r == 0) {
    r = put_all(s, tx.db, in, rows, mem, e);
    if (r == 0 && in->idem)
      r = sqlite_idem_keep(s, tx.db, in->idem, slice_of(arena_printf(mem, "%lld", (long long)rows[0].task_id)), e);
  }
  r = sqlite_write_end(&tx, r);
  if (r < 0)
    return r;
  ret->rows = rows;
  ret->count = in->count;
  return r;
}


/* ------------------------------------------------------------------ a new version */
static int check_change(struct db *db, const struct st_task_change *in, const struct task_version_row *old, struct err *e)
{
  if (in->expected_version && in->expected_version != old->version)
    return err_set(e, ERR_STALE, "the task is at version %d, not %d", (int)old->version, (int)in->expected_version);
  if (!in->def && in->state == old->state)
    return 1;
  if (in->state != TASK_DELETED || in->even_with_open_runs)
    return 0;
  int r = db_first(db, SQL_RUN_OPEN_OF_TASK, e, "il", old->shard, old->task_id);
  return r > 0 ? err_set(e, ERR_CONFLICT, "the task has open runs") : r;
}

/* The definition of the next version: the given one, or the old one again. */
static struct task_def next_def(const struct st_task_change *in, const struct task_row *old)
{
  if (in->def)
    return *in->def;
  return (struct task_def){.name = old->v.name, .description = old->description, .definition = old->v.definition,
                           .payload = old->payload, .group = old->group, .handler = old->handler,
                           .schedule_text = old->schedule_text, .kind = old->kind};
}

static int write_version(struct store *s, struct db *db, const struct st_task_change *in, const struct task_row *old,
                         struct task_version_row *v, struct err *e)
{
  struct task_def d = next_def(in, old);
  struct shard_change c = {};
  usec_t now = sqlite_now(s);
  int r = shard_change(s, db, old->v.shard, now, &c, e);
  if (r < 0)
    return r;
  v->version = old->v.version + 1;
  v->change_no = c.change_no;
  v->effective_at = c.effective_at > old->v.effective_at ? c.effective_at : old->v.effective_at; /* the clock may step back */
  v->anchor = d.anchor ? d.anchor : old->v.anchor;
  v->state = in->state;
  v->has_payload = d.payload.p != NULL;
  v->name = d.name;
  v->definition = d.definition;
  r = db_run(db, SQL_TASK_CHANGE, e, "ilillliiitttt", v->shard, v->task_id, v->version, v->change_no, v->effective_at, v->anchor,
             v->state, d.kind, v->has_payload, d.name, d.group, d.handler, d.definition);
  if (r < 0)
    return name_in_use(db, 0, 1, d.name, r, e);
  return insert_version(db, v, &d, in->by, in->note, now, e);
}

int sqlite_task_change(struct store *s, const struct st_task_change *in, struct st_task_change_ret *ret, struct arena *mem,
                       struct err *e)
{
  struct task_row old = {};
  struct task_version_row v;
  int64_t no;
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_TASK_GET, e, "ilii", shard_of_task(in->task_id, sqlite_source_of(s)->shard_count), in->task_id, 0, 0);
  if (r > 0) {
    sqlite_get_task(tx.db, SQL_TASK_GET, mem, &old);
    v = old.v;
    r = check_change(tx.db, in, &old.v, e);
  } else if (r == 0) {
    r = err_set(e, ERR_NOT_FOUND, "there is no task %lld", (long long)in->task_id);
  }
  if (r == 0) {
    r = write_version(s, tx.db, in, &old, &v, e);
    if (r >= 0 && in->inbox)
      r = sqlite_inbox_append(s, tx.db, in->inbox, &no, e);
    r = r < 0 ? r : 0;
  }
  r = sqlite_write_end(&tx, r);
  if (r < 0)
    return r;
  v.name = arena_slice(mem, v.name);
  v.definition = arena_slice(mem, v.definition);
  ret->row = v;
  return r;
}

int sqlite_task_complete(struct store *s, const struct st_task_complete *in, struct st_task_complete_ret *ret, struct arena *mem,
                         struct err *e)
{
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  for (size_t i = 0; r >= 0 && i < in->count; i++) {
    int32_t shard = shard_of_task(in->task_ids[i], sqlite_source_of(s)->shard_count);
    r = db_run(tx.db, SQL_TASK_COMPLETE, e, "ili", shard, in->task_ids[i], in->versions[i]);
    if (r > 0)
      r = db_run(tx.db, SQL_VERSION_COMPLETE, e, "ili", shard, in->task_ids[i], in->versions[i]);
  }
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}
