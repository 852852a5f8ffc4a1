/* Tasks: create and change. Every change is a version, numbered under the lock of the shard's row. */
#include "store/postgres/pg.h"
#include <stdio.h>

#define TASK_ID_BLOCK 32 /* INCREMENT BY of the sequence */
#define VERSION_COLUMNS                                                                                      \
  "change_no, effective_at, anchor, updated_at, version, shard, state, kind, ns, name, description, "        \
  "definition, "                                                                                             \
  "payload, group_name, handler, schedule_text, updated_by, note"
/* what the callers get: in the order of read_version */
#define ANSWER_COLUMNS(t)                                                                                    \
  t "id, " t "version, " t "shard, " t "change_no, " t "effective_at, " t "anchor, " t "state"
_Static_assert(TASK_ENABLED == 0 && TASK_COMPLETED == 2 && TASK_DELETED == 3, "numbers used in SQL");

static void read_version(const PGresult *r, size_t row, struct task_version_row *ret) {
  struct pgw_cursor c = pgw_row_of(r, row, NULL);
  ret->task_id = pgw_next_int(&c);
  ret->version = (int32_t)pgw_next_int(&c);
  ret->shard = (int32_t)pgw_next_int(&c);
  ret->change_no = pgw_next_int(&c);
  ret->effective_at = pgw_next_int(&c);
  ret->anchor = pgw_next_int(&c);
  ret->state = (enum task_state)pgw_next_int(&c);
}

/* ---------------------------------------------------------------- idempotency */
void pg_add_idem(struct pgw_args *a, const struct idem *idem) {
  static const struct idem none;
  const struct idem *i = idem ? idem : &none;
  pgw_text(a, i->route);
  pgw_text(a, i->key);
  pgw_bytes(a, i->body_hash, sizeof i->body_hash);
  pgw_i8(a, i->keep);
}

int pg_idem_first(struct pg_store *s, const struct idem *idem, int64_t *ret_no, struct slice *ret_ref,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "idem_first",
      "SELECT body_hash = $3::bytea, no, ref FROM idempotency WHERE route = $1::text AND key = $2::text",
      PG_READ};
  auto_result r = NULL;
  pgw_text0(&s->args, idem->route);
  pgw_text0(&s->args, idem->key);
  pgw_bytes(&s->args, idem->body_hash, sizeof idem->body_hash);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return err_set(e, ERR_UNAVAILABLE, "the answer kept for this Idempotency-Key has just expired");
  struct pgw_cursor c = pgw_row_of(r, 0, mem);
  if (!pgw_next_int(&c))
    return err_set(e, ERR_IDEMPOTENCY, "this Idempotency-Key was used for another body");
  *ret_no = pgw_next_int(&c);
  *ret_ref = pgw_next_text(&c);
  return 1;
}

/* ---------------------------------------------------------------- create */
int pg_take_task_ids(struct pg_store *s, int64_t *ids, size_t count, struct err *e) {
  static const struct pg_sql q = {"task_ids", "SELECT nextval('task_id') FROM generate_series(1, $1::int4)",
                                  PG_READ};
  auto_result r = NULL;
  size_t left = (size_t)(s->task_id_end - s->task_id_next), row = 0;
  if (left < count) {
    pgw_i4(&s->args, (int32_t)((count - left + TASK_ID_BLOCK - 1) / TASK_ID_BLOCK));
    int code = pgc_one(s, &q, &r, e);
    if (code < 0)
      return code;
  }
  for (size_t i = 0; i < count; i++) {
    if (s->task_id_next == s->task_id_end) {
      s->task_id_next = pgw_int(r, (int)row++, 0);
      s->task_id_end = s->task_id_next + TASK_ID_BLOCK;
    }
    ids[i] = s->task_id_next++;
  }
  return 0;
}

static void add_tasks(struct pg_store *s, const struct st_task_put *in, const int64_t *ids) {
  struct pgw_args *a = &s->args;
  pgw_array(a, s->source->types.task_in, in->count);
  for (size_t i = 0; i < in->count; i++) {
    const struct task_def *d = &in->defs[i];
    pgw_row(a, 14);
    pgw_col_i4(a, (int32_t)i);
    pgw_col_i8(a, ids[i]);
    pgw_col_i4(a, shard_of_task(ids[i], s->source->shard_count));
    pgw_col_i8z(a, d->anchor);
    pgw_col_i2(a, d->state);
    pgw_col_i2(a, d->kind);
    pgw_col_text0(a, d->ns);
    pgw_col_text0(a, d->name);
    pgw_col_text(a, d->description);
    pgw_col_text0(a, d->definition);
    pgw_col_text(a, d->payload);
    pgw_col_text0(a, d->group);
    pgw_col_text0(a, d->handler);
    pgw_col_text0(a, d->schedule_text);
    pgw_row_end(a);
  }
  pgw_array_end(a);
}

static void add_shards_of(struct pg_store *s, const int64_t *ids, size_t count) {
  pgw_array(&s->args, PG_INT4_OID, count);
  for (size_t i = 0; i < count; i++)
    pgw_el_i4(&s->args, shard_of_task(ids[i], s->source->shard_count));
  pgw_array_end(&s->args);
}

/* Which of the names is it? One that a task has, else the second of two equal ones in the call. */
int pg_name_taken(struct pg_store *s, const struct task_def *defs, size_t count, struct err *e) {
  static const struct pg_sql q = {
      "task_name_taken",
      "SELECT u.ord FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u (ns, name, ord) WHERE EXISTS "
      "(SELECT FROM task t "
      "WHERE t.ns = u.ns AND t.name = u.name AND t.state <> 3 OFFSET 0) ORDER BY u.ord LIMIT 1",
      PG_READ};
  auto_result r = NULL;
  char field[ERR_FIELD_MAX] = "/name";
  size_t found = 0;
  pgw_array(&s->args, PG_TEXT_OID, count);
  for (size_t i = 0; i < count; i++)
    pgw_el_text(&s->args, defs[i].ns);
  pgw_array_end(&s->args);
  pgw_array(&s->args, PG_TEXT_OID, count);
  for (size_t i = 0; i < count; i++)
    pgw_el_text(&s->args, defs[i].name);
  pgw_array_end(&s->args);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) > 0)
    found = (size_t)pgw_int(r, 0, 0) - 1;
  for (size_t i = 1; PQntuples(r) == 0 && found == 0 && i < count; i++)
    for (size_t k = 0; k < i && found == 0; k++)
      if (slice_eq(defs[i].name, defs[k].name) && slice_eq(defs[i].ns, defs[k].ns))
        found = i;
  if (count > 1)
    snprintf(field, sizeof field, "/%zu/name", found);
  return err_field(e, ERR_CONFLICT, field, "the name %.*s is in use", SLICE_FMT(defs[found].name));
}

static int first_answer(struct pg_store *s, const struct idem *idem, struct task_version_row **ret,
                        struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"task_first",
                                  "SELECT task_id, version, shard, change_no, effective_at, anchor, state, "
                                  "payload IS NOT NULL, name, definition FROM task_version "
                                  "WHERE task_id = $1::int8 AND version = 1",
                                  PG_READ};
  auto_result r = NULL;
  int64_t id;
  struct slice ref;
  int code = pg_idem_first(s, idem, &id, &ref, mem, e);
  if (code < 0)
    return code;
  pgw_i8(&s->args, id);
  code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return err_set(e, ERR_NOT_FOUND, "the task that this Idempotency-Key made is gone");
  struct task_version_row *row = arena_array(mem, 1, sizeof *row);
  struct pgw_cursor c = pgw_row_of(r, 0, mem);
  read_version(r, 0, row);
  c.col = 7;
  row->has_payload = pgw_next_int(&c);
  row->name = pgw_next_text(&c);
  row->definition = pgw_next_text(&c);
  *ret = row;
  return 1;
}

int pg_put_tasks(struct pg_store *s, const struct st_task_put *in, const int64_t *ids,
                 struct st_task_put_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "task_put",
      "WITH " PG_IDEM_CTE ", "
      "l AS (SELECT id FROM shard WHERE id = ANY ($8::int4[]) AND " PG_IDEM_IS_NEW
      " ORDER BY id FOR UPDATE), "
      "s AS (UPDATE shard SET tasks_version = tasks_version + 1 FROM l WHERE shard.id = l.id "
      "RETURNING shard.id, tasks_version, greatest(" PG_NOW ", fired_at) AS effective_at), "
      "d AS MATERIALIZED (SELECT t.ord, t.id, 1 AS version, t.shard, s.tasks_version AS change_no, "
      "s.effective_at, "
      "coalesce(t.anchor, s.effective_at) AS anchor, t.state, t.kind, t.ns, t.name, t.description, "
      "t.definition, t.payload, "
      "t.group_name, t.handler, t.schedule_text, $9::text AS updated_by, NULL::text AS note, s.effective_at "
      "AS updated_at "
      "FROM unnest($7::task_in[]) t JOIN s ON s.id = t.shard), "
      "n AS (INSERT INTO task (id, created_at, created_by, " VERSION_COLUMNS ") "
      "SELECT id, updated_at, updated_by, " VERSION_COLUMNS " FROM d), "
      "v AS (INSERT INTO task_version (task_id, " VERSION_COLUMNS ") SELECT id, " VERSION_COLUMNS " FROM d) "
      "SELECT " ANSWER_COLUMNS("") ", pg_notify('" PG_CHANNEL "', shard::text) FROM d ORDER BY ord",
      PG_WRITE};
  auto_result r = NULL;
  pg_add_idem(&s->args, in->idem);
  pgw_i8(&s->args, in->count ? ids[0] : 0);
  pgw_text0(&s->args, SLICE(""));
  add_tasks(s, in, ids);
  add_shards_of(s, ids, in->count);
  pgw_text0(&s->args, in->by);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (in->idem && PQntuples(r) == 0) {
    code = first_answer(s, in->idem, &ret->rows, mem, e);
    ret->count = code == 1 ? 1 : ret->count;
    return code;
  }
  ret->count = in->count;
  ret->rows = arena_array(mem, in->count, sizeof *ret->rows);
  for (size_t i = 0; i < in->count; i++) {
    read_version(r, i, &ret->rows[i]);
    ret->rows[i].has_payload = in->defs[i].payload.p;
    ret->rows[i].name = arena_slice(mem, in->defs[i].name);
    ret->rows[i].definition = arena_slice(mem, in->defs[i].definition);
  }
  return 0;
}

/* With the edges of those that depend on others. */
static int put_with_edges(struct pg_store *s, const struct st_task_put *in, const int64_t *ids,
                          struct st_task_put_ret *ret, struct arena *mem, struct err *e) {
  struct edge_edit *edits = arena_array(mem, in->count + 1, sizeof *edits);
  size_t n = edge_edits_of(in->defs, ids, in->count, "", edits);
  if (n == 0)
    return pg_put_tasks(s, in, ids, ret, mem, e);
  struct st_task_put_ret out = *ret;
  int code = pgc_begin_now(s, e);
  if (code == 0)
    code = pg_put_tasks(s, in, ids, &out, mem, e);
  if (code == 0)
    code = pg_edit_edges(s, edits, n, mem, e);
  if (code == 0)
    code = pgc_commit(s, e);
  else
    pgc_rollback(s);
  if (code >= 0)
    *ret = out;
  return code;
}

int pg_task_put(struct store *store, const struct st_task_put *in, struct st_task_put_ret *ret,
                struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  int64_t *ids = arena_array(mem, in->count, sizeof *ids);
  int code = pg_take_task_ids(s, ids, in->count, e);
  if (code == 0)
    code = put_with_edges(s, in, ids, ret, mem, e);
  return code == ERR_CONFLICT ? pg_name_taken(s, in->defs, in->count, e) : code;
}

/* ---------------------------------------------------------------- change */
/* $1 shard, $2 id, $3 state, $4 by, $5 note, $6 inbox kind, $7 inbox body or NULL, $8… the definition */
#define CHANGE(set_definition)                                                                               \
  "WITH s AS (UPDATE shard SET tasks_version = tasks_version + 1 WHERE id = $1::int4 "                       \
  "RETURNING tasks_version, greatest(" PG_NOW ", fired_at) AS effective_at), "                               \
  "t AS (UPDATE task SET version = version + 1, change_no = s.tasks_version, effective_at = "                \
  "greatest(s.effective_at, task.effective_at), "                                                            \
  "updated_at = " PG_NOW ", state = $3::int2, updated_by = $4::text, note = $5::text" set_definition         \
  " FROM s WHERE shard = $1 AND id = $2::int8 RETURNING task.*), "                                           \
  "v AS (INSERT INTO task_version (task_id, " VERSION_COLUMNS ") SELECT id, " VERSION_COLUMNS " FROM t), "   \
  "i AS (INSERT INTO inbox (shard, kind, body) SELECT $1, $6::int4, $7::text WHERE $7 IS NOT NULL) "         \
  "SELECT " ANSWER_COLUMNS("") ", payload IS NOT NULL, name, definition, pg_notify('" PG_CHANNEL             \
                               "', shard::text) FROM t"

static const struct pg_sql sql_change_state = {"task_change_state", CHANGE(""), PG_WRITE};
static const struct pg_sql sql_change_definition = {
    "task_change_definition",
    CHANGE(
        ", anchor = coalesce($8::int8, anchor), kind = $9::int2, name = $10::text, description = $11::text, "
        "definition = $12::text, payload = $13::text, group_name = $14::text, handler = $15::text, "
        "schedule_text = $16::text"),
    PG_WRITE};

/* state as int2 parameters: two bytes */
static void add_i2(struct pgw_args *a, int v) {
  const char p[2] = {(char)(v >> 8), (char)v};
  pgw_bytes(a, p, 2);
}

static void add_change(struct pg_store *s, const struct st_task_change *in, int32_t shard) {
  struct pgw_args *a = &s->args;
  pgw_i4(a, shard);
  pgw_i8(a, in->task_id);
  add_i2(a, in->state);
  pgw_text0(a, in->by);
  pgw_text(a, in->note);
  pgw_i4(a, in->inbox ? in->inbox->kind : 0);
  pgw_text(a, !in->inbox ? (struct slice){0} : in->inbox->body.p ? in->inbox->body : SLICE(""));
  if (in->def) {
    const struct task_def *d = in->def;
    pgw_i8(a, d->anchor);
    if (d->anchor == 0)
      a->length[a->count - 1] = -1;
    add_i2(a, d->kind);
    pgw_text0(a, d->name);
    pgw_text(a, d->description);
    pgw_text0(a, d->definition);
    pgw_text(a, d->payload);
    pgw_text0(a, d->group);
    pgw_text0(a, d->handler);
    pgw_text0(a, d->schedule_text);
  }
  pgc_add(s, in->def ? &sql_change_definition : &sql_change_state);
}

static void read_answer(const PGresult *r, struct task_version_row *ret, struct arena *mem) {
  struct pgw_cursor c = pgw_row_of(r, 0, mem);
  read_version(r, 0, ret);
  c.col = 7;
  ret->has_payload = pgw_next_int(&c);
  ret->name = pgw_next_text(&c);
  ret->definition = pgw_next_text(&c);
}

/* Under the shard's lock: may this change be made? 0: yes, 1: it is so already. */
static int check_change(const struct st_task_change *in, const PGresult *task, const PGresult *open,
                        struct err *e) {
  struct task_version_row now = {0};
  if (PQntuples(task) == 0)
    return err_set(e, ERR_NOT_FOUND, "there is no task %" PRId64, in->task_id);
  read_version(task, 0, &now);
  if (in->expected_version && in->expected_version != now.version)
    return err_set(e, ERR_STALE, "the task is at version %d, not %d", (int)now.version,
                   (int)in->expected_version);
  if (!in->def && in->state == now.state)
    return 1;
  if (in->state == TASK_DELETED && !in->even_with_open_runs && pgw_int(open, 0, 0))
    return err_set(e, ERR_CONFLICT, "the task has runs that have not ended");
  return 0;
}

static void note_edges(const struct st_task_change *in, const PGresult *task, const PGresult *open,
                       struct edge_edit *ret, struct arena *mem) {
  struct pgw_cursor c = pgw_row_of(task, 0, mem);
  c.col = 8;
  struct slice name = pgw_next_text(&c);
  c.col++;
  struct slice ns = pgw_next_text(&c);
  if (!edge_edit_of(in, ns, name, pgw_int(open, 0, 1), ret))
    ret->task_id = 0;
}

static int lock_and_check(struct pg_store *s, const struct st_task_change *in, struct st_task_change_ret *ret,
                          struct edge_edit *ret_edit, struct arena *mem, struct err *e) {
  static const struct pg_sql lock = {"task_change_lock", "SELECT 1 FROM shard WHERE id = $1::int4 FOR UPDATE",
                                     PG_READ};
  static const struct pg_sql now = {
      "task_change_now",
      "SELECT " ANSWER_COLUMNS("") ", payload IS NOT NULL, name, definition, ns FROM task "
                                   "WHERE shard = $1::int4 AND id = $2::int8 AND state <> 3",
      PG_READ};
  static const struct pg_sql open = {
      "task_change_open",
      "SELECT EXISTS (SELECT FROM run WHERE shard = $1::int4 AND task_id = $2::int8), EXISTS (SELECT FROM "
      "dependency WHERE child_id = $2)",
      PG_READ};
  int32_t shard = shard_of_task(in->task_id, s->source->shard_count);
  PGresult *r[4] = {0};
  size_t first = s->in_tx ? 0 : 1; /* answers before those of the lock */
  if (!s->in_tx)
    pgc_begin(s);
  pgw_i4(&s->args, shard);
  pgc_add(s, &lock);
  pgw_i4(&s->args, shard);
  pgw_i8(&s->args, in->task_id);
  pgc_add(s, &now);
  pgw_i4(&s->args, shard);
  pgw_i8(&s->args, in->task_id);
  pgc_add(s, &open);
  int code = pgc_run(s, r, e);
  if (code == 0)
    code = check_change(in, r[first + 1], r[first + 2], e);
  if (code == 0)
    note_edges(in, r[first + 1], r[first + 2], ret_edit, mem);
  if (code == 1)
    read_answer(r[first + 1], &ret->row, mem);
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  return code;
}

int pg_change_task(struct pg_store *s, const struct st_task_change *in, struct st_task_change_ret *ret,
                   struct edge_edit *ret_edit, struct arena *mem, struct err *e) {
  auto_result r = NULL;
  ret_edit->task_id = 0;
  int code = lock_and_check(s, in, ret, ret_edit, mem, e);
  if (code)
    return code;
  add_change(s, in, shard_of_task(in->task_id, s->source->shard_count));
  code = pgc_run(s, &r, e);
  if (code == 0)
    read_answer(r, &ret->row, mem);
  return code;
}

int pg_task_change(struct store *store, const struct st_task_change *in, struct st_task_change_ret *ret,
                   struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  struct st_task_change_ret out;
  struct edge_edit edit;
  int code = pg_change_task(s, in, &out, &edit, mem, e);
  bool name = code == ERR_CONFLICT && pgc_refused(s, PG_UNIQUE_VIOLATION);
  if (code == 0 && edit.task_id)
    code = pg_edit_edges(s, &edit, 1, mem, e);
  if (code == 0)
    code = pgc_commit(s, e);
  else
    pgc_rollback(s);
  if (code >= 0)
    *ret = out;
  return name ? err_field(e, ERR_CONFLICT, "/name", "the name %.*s is in use", SLICE_FMT(in->def->name))
              : code;
}

int pg_task_complete(struct store *store, const struct st_task_complete *in, struct st_task_complete_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "task_complete",
      "WITH u AS MATERIALIZED (SELECT * FROM unnest($1::int4[], $2::int8[], $3::int4[]) u (shard, id, "
      "version)), "
      "t AS (UPDATE task SET state = 2 FROM u CROSS JOIN LATERAL (SELECT k.ctid AS at FROM task k WHERE "
      "k.shard = u.shard "
      "AND k.id = u.id AND k.version = u.version AND k.state = 0 OFFSET 0) k WHERE task.ctid = k.at AND "
      "task.version = u.version) "
      "UPDATE task_version v SET state = 2 FROM u CROSS JOIN LATERAL (SELECT k.ctid AS at FROM task_version "
      "k "
      "WHERE k.task_id = u.id AND k.version = u.version AND k.state = 0 OFFSET 0) k WHERE v.ctid = k.at",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  add_shards_of(s, in->task_ids, in->count);
  pgw_array(&s->args, PG_INT8_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i8(&s->args, in->task_ids[i]);
  pgw_array_end(&s->args);
  pg_add_i4s(&s->args, in->versions, in->count);
  return pgc_one(s, &q, &r, e);
}
