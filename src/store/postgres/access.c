/* Namespaces, tokens, and the forgetting of kept answers. */
#include "store/postgres/pg.h"

#define TOKEN_COLUMNS "id, name, ns, group_name, role, hash, created_at, expires_at, created_by"

int pg_namespace_put(struct store *store, const struct st_namespace_put *in, struct st_namespace_put_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "namespace_put", "INSERT INTO namespace (name) VALUES ($1::text) ON CONFLICT DO NOTHING RETURNING 1",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  pgw_text0(&s->args, in->name);
  int code = pgc_one(s, &q, &r, e);
  return code < 0 ? code : PQntuples(r) == 0;
}

int pg_namespace_list(struct store *store, const struct st_namespace_list *in,
                      struct st_namespace_list_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "namespace_list",
      "SELECT name, coalesce(retention_age, -1), coalesce(retention_runs, -1), max_concurrent FROM "
      "namespace ORDER BY name COLLATE \"C\"",
      PG_READ};
  auto_result r = NULL;
  (void)in;
  int code = pgc_one(pg_of(store), &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct slice *names = arena_array(mem, n, sizeof *names);
  struct namespace_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    names[i] = rows[i].name = pgw_next_text(&c);
    rows[i].retention_age = pgw_next_int(&c);
    rows[i].retention_runs = pgw_next_int(&c);
    rows[i].max_concurrent = (int32_t)pgw_next_int(&c);
  }
  ret->names = names;
  ret->rows = rows;
  ret->count = n;
  return 0;
}

int pg_namespace_set(struct store *store, const struct st_namespace_set *in, struct st_namespace_set_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "namespace_set",
      "UPDATE namespace SET retention_age = nullif($2::int8, -1), retention_runs = "
      "nullif($3::int8, -1), max_concurrent = $4::int4 WHERE name = $1::text RETURNING 1",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  pgw_text0(&s->args, in->row.name);
  pgw_i8(&s->args, in->row.retention_age);
  pgw_i8(&s->args, in->row.retention_runs);
  pgw_i4(&s->args, in->row.max_concurrent);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0 && PQntuples(r) == 0)
    code = err_set(e, ERR_NOT_FOUND, "there is no namespace \"%.*s\"", SLICE_FMT(in->row.name));
  return code;
}

/* ---------------------------------------------------------------- tokens */
static void read_token(const PGresult *r, size_t row, struct token_row *ret, struct arena *mem) {
  struct pgw_cursor c = pgw_row_of(r, row, mem);
  ret->id = pgw_next_int(&c);
  ret->name = pgw_next_text(&c);
  ret->ns = pgw_next_text(&c);
  ret->group = pgw_next_text(&c);
  ret->role = (enum token_role)pgw_next_int(&c);
  struct slice hash = pgw_next_text(&c);
  memcpy(ret->hash, hash.p, hash.n < sizeof ret->hash ? hash.n : sizeof ret->hash);
  ret->created_at = pgw_next_int(&c);
  ret->expires_at = pgw_next_int(&c);
  ret->created_by = pgw_next_text(&c);
}

static void add_token(struct pgw_args *a, const struct token_row *t) {
  pgw_text0(a, t->name);
  pgw_text0(a, t->ns);
  pgw_text0(a, t->group);
  pgw_i4(a, (int32_t)t->role);
  pgw_bytes(a, t->hash, sizeof t->hash);
  pgw_i8(a, t->expires_at);
  pgw_text0(a, t->created_by);
}

/* The lock first, so that two nodes' first tokens are not both the first. */
int pg_token_put(struct store *store, const struct st_token_put *in, struct st_token_put_ret *ret,
                 struct arena *mem, struct err *e) {
  static const struct pg_sql lock = {"token_lock", "SELECT pg_advisory_xact_lock($1::int8)", PG_READ};
  static const struct pg_sql put = {
      "token_put",
      "INSERT INTO token (name, ns, group_name, role, hash, created_at, expires_at, created_by) SELECT "
      "$1::text, $2::text, $3::text, "
      "$4::int4::int2, $5::bytea, " PG_NOW
      ", nullif($6::int8, 0), $7::text WHERE NOT ($8::bool AND EXISTS (SELECT FROM token)) RETURNING id",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  PGresult *r[2] = {0};
  int n = 0;
  (void)mem;
  if (in->only_if_none) {
    pgw_i8(&s->args, PG_MIGRATION_LOCK);
    pgc_add(s, &lock);
    n = 1;
  }
  add_token(&s->args, &in->token);
  pgw_bool(&s->args, in->only_if_none);
  pgc_add(s, &put);
  int code = pgc_run(s, r, e);
  if (code == ERR_CONFLICT)
    code = err_set(e, ERR_CONFLICT, "the token exists");
  if (code == 0 && PQntuples(r[n]) == 0)
    code = 1;
  if (code == 0)
    ret->id = pgw_int(r[n], 0, 0);
  pgr_clear(&r[0]);
  pgr_clear(&r[1]);
  return code;
}

int pg_token_find(struct store *store, const struct st_token_find *in, struct st_token_find_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"token_find",
                                  "SELECT " TOKEN_COLUMNS " FROM token WHERE hash = $1::bytea "
                                  "AND (expires_at IS NULL OR expires_at > " PG_NOW ")",
                                  PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_bytes(&s->args, in->hash, sizeof in->hash);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return err_set(e, ERR_NOT_FOUND, "the token is unknown or has expired");
  read_token(r, 0, &ret->token, mem);
  return 0;
}

int pg_token_list(struct store *store, const struct st_token_list *in, struct st_token_list_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "token_list", "SELECT " TOKEN_COLUMNS " FROM token WHERE id > $1::int8 ORDER BY id LIMIT $2::int4",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i8(&s->args, in->after);
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct token_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++)
    read_token(r, i, &rows[i], mem);
  ret->rows = rows;
  ret->count = n;
  return 0;
}

int pg_token_delete(struct store *store, const struct st_token_delete *in, struct st_token_delete_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"token_delete", "DELETE FROM token WHERE id = $1::int8 RETURNING 1",
                                  PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  pgw_i8(&s->args, in->id);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0 && PQntuples(r) == 0)
    code = err_set(e, ERR_NOT_FOUND, "there is no token %" PRId64, in->id);
  return code;
}

/* ---------------------------------------------------------------- kept answers */
int pg_idem_expire(struct store *store, const struct st_idem_expire *in, struct st_idem_expire_ret *ret,
                   struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "idem_expire",
      "WITH old AS (SELECT ctid AS at FROM idempotency WHERE expires_at <= (SELECT " PG_NOW
      ") ORDER BY expires_at LIMIT $1::int4 "
      "FOR UPDATE SKIP LOCKED), d AS (DELETE FROM idempotency WHERE ctid = ANY (ARRAY (SELECT at FROM old)) "
      "RETURNING 1) "
      "SELECT count(*) FROM d",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)mem;
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    ret->removed = pgw_int(r, 0, 0);
  return code;
}
