/* Calendars. Which tasks use them the schema knows (generated columns, a foreign key). */
#include "store/postgres/pg.h"

#define CALENDAR_COLUMNS "ns, name, definition, updated_by, version, created_at, updated_at"
#define CALENDAR_TASKS   "(SELECT count(*) FROM task t WHERE t.ns = c.ns AND t.calendar = c.name)"

static void read_calendar(const PGresult *r, size_t row, struct calendar_row *ret, struct arena *mem) {
  struct pgw_cursor c = pgw_row_of(r, row, mem);
  ret->ns = pgw_next_text(&c);
  ret->name = pgw_next_text(&c);
  ret->definition = pgw_next_text(&c);
  ret->updated_by = pgw_next_text(&c);
  ret->version = (int32_t)pgw_next_int(&c);
  ret->created_at = pgw_next_int(&c);
  ret->updated_at = pgw_next_int(&c);
  ret->tasks = pgw_next_int(&c);
}

static int find_calendar(struct pg_store *s, struct slice ns, struct slice name, struct calendar_row *ret,
                         struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"calendar_get",
                                  "SELECT " CALENDAR_COLUMNS ", " CALENDAR_TASKS " FROM calendar c "
                                  "WHERE ns = $1::text AND name = $2::text",
                                  PG_READ};
  auto_result r = NULL;
  pgw_text0(&s->args, ns);
  pgw_text0(&s->args, name);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return err_set(e, ERR_NOT_FOUND, "there is no calendar %.*s", SLICE_FMT(name));
  read_calendar(r, 0, ret, mem);
  return 0;
}

int pg_calendar_put(struct store *store, const struct st_calendar_put *in, struct st_calendar_put_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql create = {
      "calendar_create",
      "INSERT INTO calendar AS c (ns, name, definition, updated_by, created_at, updated_at, version) "
      "SELECT $1::text, $2::text, $3::text, $4::text, n.now, n.now, 1 FROM (SELECT " PG_NOW
      " AS now OFFSET 0) n "
      "ON CONFLICT (ns, name) DO NOTHING RETURNING " CALENDAR_COLUMNS ", " CALENDAR_TASKS,
      PG_WRITE};
  static const struct pg_sql change = {
      "calendar_change",
      "UPDATE calendar c SET definition = $3::text, updated_by = $4::text, updated_at = " PG_NOW
      ", version = version + 1 WHERE ns = $1::text AND name = $2::text AND version = $5::int4 "
      "RETURNING " CALENDAR_COLUMNS ", " CALENDAR_TASKS,
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  const struct calendar_row *c = &in->calendar;
  struct calendar_row now;
  auto_result r = NULL;
  pgw_text0(&s->args, c->ns);
  pgw_text0(&s->args, c->name);
  pgw_text0(&s->args, c->definition);
  pgw_text0(&s->args, c->updated_by);
  if (in->expected_version)
    pgw_i4(&s->args, in->expected_version);
  int code = pgc_one(s, in->expected_version ? &change : &create, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r)) {
    read_calendar(r, 0, &ret->calendar, mem);
    return 0;
  }
  if (!in->expected_version)
    return err_field(e, ERR_CONFLICT, "/name", "the calendar %.*s exists", SLICE_FMT(c->name));
  code = find_calendar(s, c->ns, c->name, &now, mem, e);
  if (code < 0)
    return code;
  return err_set(e, ERR_STALE, "the calendar is at version %d, not %d", (int)now.version,
                 (int)in->expected_version);
}

int pg_calendar_get(struct store *store, const struct st_calendar_get *in, struct st_calendar_get_ret *ret,
                    struct arena *mem, struct err *e) {
  return find_calendar(pg_of(store), in->ns, in->name, &ret->calendar, mem, e);
}

int pg_calendar_list(struct store *store, const struct st_calendar_list *in, struct st_calendar_list_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"calendar_list",
                                  "SELECT " CALENDAR_COLUMNS ", " CALENDAR_TASKS " FROM calendar c "
                                  "WHERE $1::text IS NULL OR ns = $1 "
                                  "ORDER BY ns COLLATE \"C\", name COLLATE \"C\"",
                                  PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_text(&s->args, in->ns.n ? in->ns : (struct slice){0});
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct calendar_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++)
    read_calendar(r, i, &rows[i], mem);
  ret->rows = rows;
  ret->count = n;
  return 0;
}

int pg_calendar_delete(struct store *store, const struct st_calendar_delete *in,
                       struct st_calendar_delete_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"calendar_delete",
                                  "DELETE FROM calendar WHERE ns = $1::text AND name = $2::text RETURNING 1",
                                  PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  pgw_text0(&s->args, in->ns);
  pgw_text0(&s->args, in->name);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0 && pgc_refused(s, PG_FOREIGN_KEY_VIOLATION))
    return err_set(e, ERR_CONFLICT, "tasks use the calendar %.*s", SLICE_FMT(in->name));
  if (code == 0 && PQntuples(r) == 0)
    code = err_set(e, ERR_NOT_FOUND, "there is no calendar %.*s", SLICE_FMT(in->name));
  return code;
}

int pg_calendar_behind(struct store *store, const struct st_calendar_behind *in,
                       struct st_calendar_behind_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "calendar_behind",
      "SELECT b.id FROM calendar c CROSS JOIN LATERAL (SELECT t.id FROM task t WHERE t.ns = c.ns AND "
      "t.calendar = c.name AND t.calendar_version < c.version LIMIT $1::int4) b LIMIT $1::int4",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  int64_t *ids = arena_array(mem, n, sizeof *ids);
  for (size_t i = 0; i < n; i++)
    ids[i] = pgw_int(r, (int)i, 0);
  ret->task_ids = ids;
  ret->count = n;
  return 0;
}
