/* Channels and rules of alerts. */
#include "store/postgres/pg.h"

#define DEF_COLUMNS                                                                                          \
  "id, kind, ns, name, definition, url_sealed, secret_sealed, secret_previous_sealed, created_at, "          \
  "updated_at, version"

_Static_assert(ALERT_DEF_RULE == 1, "number used in SQL");

static void read_def(const PGresult *r, size_t row, struct alert_def_row *ret, struct arena *mem) {
  struct pgw_cursor c = pgw_row_of(r, row, mem);
  ret->id = pgw_next_int(&c);
  ret->kind = (enum alert_def_kind)pgw_next_int(&c);
  ret->ns = pgw_next_text(&c);
  ret->name = pgw_next_text(&c);
  ret->definition = pgw_next_text(&c);
  ret->url_sealed = pgw_next_text(&c);
  ret->secret_sealed = pgw_next_text(&c);
  ret->secret_previous_sealed = pgw_next_text(&c);
  ret->created_at = pgw_next_int(&c);
  ret->updated_at = pgw_next_int(&c);
  ret->version = (int32_t)pgw_next_int(&c);
}

static const char *kind_word(enum alert_def_kind kind) {
  return kind == ALERT_DEF_CHANNEL ? "alert channel" : "alert rule";
}

static int find_def(struct pg_store *s, enum alert_def_kind kind, struct slice ns, struct slice name,
                    struct alert_def_row *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "alert_def_get",
      "SELECT " DEF_COLUMNS " FROM alert_def WHERE kind = $1::int4 AND ns = $2::text AND name = $3::text",
      PG_READ};
  auto_result r = NULL;
  pgw_i4(&s->args, (int32_t)kind);
  pgw_text0(&s->args, ns);
  pgw_text0(&s->args, name);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return err_set(e, ERR_NOT_FOUND, "there is no %s %.*s", kind_word(kind), SLICE_FMT(name));
  read_def(r, 0, ret, mem);
  return 0;
}

int pg_alert_def_put(struct store *store, const struct st_alert_def_put *in, struct st_alert_def_put_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql create = {
      "alert_def_create",
      "INSERT INTO alert_def (kind, ns, name, definition, url_sealed, secret_sealed, secret_previous_sealed, "
      "created_at, updated_at, version) SELECT $1::int4::int2, $2::text, $3::text, $4::text, $5::text, "
      "$6::text, $7::text, n.now, n.now, 1 FROM (SELECT " PG_NOW
      " AS now OFFSET 0) n ON CONFLICT (kind, ns, name) DO NOTHING RETURNING " DEF_COLUMNS,
      PG_WRITE};
  static const struct pg_sql change = {
      "alert_def_change",
      "UPDATE alert_def SET definition = $4::text, url_sealed = $5::text, secret_sealed = $6::text, "
      "secret_previous_sealed = $7::text, updated_at = " PG_NOW ", version = version + 1 "
      "WHERE kind = $1::int4 AND ns = $2::text AND name = $3::text AND version = $8::int4 "
      "RETURNING " DEF_COLUMNS,
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  const struct alert_def_row *d = &in->def;
  struct alert_def_row now;
  auto_result r = NULL;
  pgw_i4(&s->args, (int32_t)d->kind);
  pgw_text0(&s->args, d->ns);
  pgw_text0(&s->args, d->name);
  pgw_text0(&s->args, d->definition);
  pgw_text(&s->args, d->url_sealed);
  pgw_text(&s->args, d->secret_sealed);
  pgw_text(&s->args, d->secret_previous_sealed);
  if (in->expected_version)
    pgw_i4(&s->args, in->expected_version);
  int code = pgc_one(s, in->expected_version ? &change : &create, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r)) {
    read_def(r, 0, &ret->def, mem);
    return 0;
  }
  if (!in->expected_version)
    return err_field(e, ERR_CONFLICT, "/name", "the %s %.*s exists", kind_word(d->kind), SLICE_FMT(d->name));
  code = find_def(s, d->kind, d->ns, d->name, &now, mem, e);
  if (code < 0)
    return code;
  return err_set(e, ERR_STALE, "the %s is at version %d, not %d", kind_word(d->kind), (int)now.version,
                 (int)in->expected_version);
}

int pg_alert_def_get(struct store *store, const struct st_alert_def_get *in, struct st_alert_def_get_ret *ret,
                     struct arena *mem, struct err *e) {
  return find_def(pg_of(store), in->kind, in->ns, in->name, &ret->def, mem, e);
}

int pg_alert_def_list(struct store *store, const struct st_alert_def_list *in,
                      struct st_alert_def_list_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "alert_def_list",
      "SELECT " DEF_COLUMNS " FROM alert_def WHERE kind = $1::int4 AND "
      "($2::text IS NULL OR ns = $2) ORDER BY ns COLLATE \"C\", name COLLATE \"C\"",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i4(&s->args, (int32_t)in->kind);
  pgw_text(&s->args, in->ns.n ? in->ns : (struct slice){0});
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct alert_def_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++)
    read_def(r, i, &rows[i], mem);
  ret->rows = rows;
  ret->count = n;
  return 0;
}

int pg_alert_def_delete(struct store *store, const struct st_alert_def_delete *in,
                        struct st_alert_def_delete_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "alert_def_delete",
      "DELETE FROM alert_def WHERE kind = $1::int4 AND ns = $2::text AND name = $3::text RETURNING 1",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  pgw_i4(&s->args, (int32_t)in->kind);
  pgw_text0(&s->args, in->ns);
  pgw_text0(&s->args, in->name);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0 && PQntuples(r) == 0)
    code = err_set(e, ERR_NOT_FOUND, "there is no %s %.*s", kind_word(in->kind), SLICE_FMT(in->name));
  return code;
}
