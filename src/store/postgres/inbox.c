/* The inbox of a shard's owner, and the waiting for news. */
#include "store/postgres/pg.h"
#include "base/parse.h"

int pg_inbox_add(struct store *store, const struct st_inbox_add *in, struct st_inbox_add_ret *ret,
                 struct arena *mem, struct err *e) {
  static const struct pg_sql number = {"inbox_no", "SELECT nextval('inbox_no')", PG_READ};
  static const struct pg_sql q = {
      "inbox_add",
      "WITH " PG_IDEM_CTE ", "
      "i AS (INSERT INTO inbox (shard, no, kind, body) SELECT $7::int4, $5, $8::int4, $9::text "
      "WHERE " PG_IDEM_IS_NEW " RETURNING shard) "
      "SELECT pg_notify('" PG_CHANNEL "', shard::text) FROM i",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result taken = NULL;
  auto_result r = NULL;
  if (in->shard < 0 || in->shard >= s->source->shard_count)
    return err_set(e, ERR_NOT_FOUND, "there is no shard %d", (int)in->shard);
  int code = pgc_one(s, &number, &taken, e);
  if (code < 0)
    return code;
  int64_t no = pgw_int(taken, 0, 0);
  pg_add_idem(&s->args, in->idem);
  pgw_i8(&s->args, no);
  pgw_text0(&s->args, in->ref);
  pgw_i4(&s->args, in->shard);
  pgw_i4(&s->args, in->kind);
  pgw_text0(&s->args, in->body);
  code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return pg_idem_first(s, in->idem, &ret->no, &ret->ref, mem, e);
  ret->no = no;
  ret->ref = arena_slice(mem, in->ref);
  return 0;
}

int pg_inbox_read(struct store *store, const struct st_inbox_read *in, struct st_inbox_read_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "inbox_read",
      "SELECT i.* FROM unnest($1::int4[]) s (id) CROSS JOIN LATERAL (SELECT shard, no, kind, body "
      "FROM inbox WHERE shard = s.id ORDER BY no LIMIT $2::int4 OFFSET 0) i ORDER BY i.no LIMIT $2",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pg_add_i4s(&s->args, in->shards, in->shard_count);
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct inbox_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    rows[i].shard = (int32_t)pgw_next_int(&c);
    rows[i].no = pgw_next_int(&c);
    rows[i].kind = (int32_t)pgw_next_int(&c);
    rows[i].body = pgw_next_text(&c);
  }
  ret->rows = rows;
  ret->count = n;
  return 0;
}

int pg_inbox_put(struct store *store, const struct st_inbox_put *in, struct st_inbox_put_ret *ret,
                 struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "inbox_put",
      "WITH i AS (INSERT INTO inbox (shard, kind, body) SELECT shard, kind, body FROM unnest($1::int4[], "
      "$2::int4[], $3::text[]) WITH ORDINALITY u (shard, kind, body, ord) ORDER BY ord RETURNING shard) "
      "SELECT pg_notify('" PG_CHANNEL "', shard::text) FROM (SELECT DISTINCT shard FROM i) n",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret, (void)mem;
  for (size_t i = 0; i < in->count; i++)
    if (in->rows[i].shard < 0 || in->rows[i].shard >= s->source->shard_count)
      return err_set(e, ERR_NOT_FOUND, "there is no shard %d", (int)in->rows[i].shard);
  pgw_array(&s->args, PG_INT4_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i4(&s->args, in->rows[i].shard);
  pgw_array_end(&s->args);
  pgw_array(&s->args, PG_INT4_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i4(&s->args, in->rows[i].kind);
  pgw_array_end(&s->args);
  pgw_array(&s->args, PG_TEXT_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_text(&s->args, in->rows[i].body);
  pgw_array_end(&s->args);
  return pgc_one(s, &q, &r, e);
}

int pg_inbox_oldest(struct store *store, const struct st_inbox_oldest *in, struct st_inbox_oldest_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "inbox_oldest",
      "SELECT coalesce((extract(epoch FROM min(i.at)) * 1000000)::int8, 0), " PG_NOW
      " FROM shard s CROSS JOIN LATERAL (SELECT at FROM inbox WHERE shard = s.id ORDER BY no LIMIT 1) i",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)in, (void)mem;
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  *ret = (struct st_inbox_oldest_ret){.at = pgw_int(r, 0, 0), .now = pgw_int(r, 0, 1)};
  return 0;
}

/* Each shard once, in the order of the ids. */
static size_t take_notifications(struct pg_store *s, bool *changed, bool *nodes) {
  size_t n = 0;
  PGnotify *note;
  while ((note = PQnotifies(s->conn))) {
    int64_t shard;
    if (parse_i64(slice_of(note->extra), 0, s->source->shard_count - 1, &shard, NULL) == 0 &&
        !changed[shard]) {
      changed[shard] = true;
      n++;
    }
    *nodes = *nodes || strcmp(note->extra, PG_NODES_CHANGED) == 0;
    PQfreemem(note);
  }
  return n;
}

int pg_wait_change(struct store *store, const struct st_wait_change *in, struct st_wait_change_ret *ret,
                   struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"listen", "LISTEN " PG_CHANNEL, PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  int code = pgc_ready(s, e);
  if (code == 0 && !s->listening) {
    code = pgc_one(s, &q, &r, e);
    s->listening = code == 0;
  }
  if (code < 0)
    return code;
  bool *changed = arena_array(mem, (size_t)s->source->shard_count, sizeof *changed);
  usec_t until = clock_system.mono(&clock_system) + in->timeout, left = in->timeout;
  bool nodes = false;
  size_t n = take_notifications(s, changed, &nodes);
  while (n == 0 && !nodes && left > 0) {
    code = pgc_wait(s, left, e);
    if (code < 0)
      return code;
    n = take_notifications(s, changed, &nodes);
    left = until - clock_system.mono(&clock_system);
  }
  int32_t *shards = arena_array(mem, n, sizeof *shards);
  for (int32_t i = 0, k = 0; i < s->source->shard_count; i++)
    if (changed[i])
      shards[k++] = i;
  ret->nodes = nodes;
  ret->shards = shards;
  ret->count = n;
  return 0;
}
