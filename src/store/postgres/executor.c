/* Executor groups and their instances. */
#include "store/postgres/pg.h"

#define GROUP_COLUMNS                                                                                        \
  "id, ns, name, channel, routing, max_connections, max_concurrent, rate_milli, rate_burst, secret_sealed, " \
  "secret_previous_sealed, created_at, updated_at, version"
#define EXECUTOR_COLUMNS(t)                                                                                  \
  t "ns, " t "group_name, " t "id, " t "url, " t "handlers, " t "version, " t "labels, " t "incarnation, " t \
    "slots, " t "running, " t "weight, " t "state, " t "registered_at, " t "beat_at"
_Static_assert(EXECUTOR_ONLINE == 0 && EXECUTOR_DRAINING == 1 && EXECUTOR_LOST == 2 && EXECUTOR_OFFLINE == 3,
               "numbers used in SQL");

static void read_group(const PGresult *r, size_t row, struct group_row *ret, struct arena *mem) {
  struct pgw_cursor c = pgw_row_of(r, row, mem);
  ret->id = pgw_next_int(&c);
  ret->ns = pgw_next_text(&c);
  ret->name = pgw_next_text(&c);
  ret->channel = (enum channel)pgw_next_int(&c);
  ret->routing = (enum routing)pgw_next_int(&c);
  ret->max_connections = (int32_t)pgw_next_int(&c);
  ret->max_concurrent = (int32_t)pgw_next_int(&c);
  ret->rate_milli = pgw_next_int(&c);
  ret->rate_burst = (int32_t)pgw_next_int(&c);
  ret->secret_sealed = pgw_next_text(&c);
  ret->secret_previous_sealed = pgw_next_text(&c);
  ret->created_at = pgw_next_int(&c);
  ret->updated_at = pgw_next_int(&c);
  ret->version = (int32_t)pgw_next_int(&c);
}

static int no_group(struct slice name, struct err *e) {
  return err_set(e, ERR_NOT_FOUND, "there is no executor group %.*s", SLICE_FMT(name));
}

static int find_group(struct pg_store *s, struct slice ns, struct slice name, struct group_row *ret,
                      struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "group_get", "SELECT " GROUP_COLUMNS " FROM executor_group WHERE ns = $1::text AND name = $2::text",
      PG_READ};
  auto_result r = NULL;
  pgw_text0(&s->args, ns);
  pgw_text0(&s->args, name);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return no_group(name, e);
  read_group(r, 0, ret, mem);
  return 0;
}

/* Why did nothing change? The group is gone, or at another version. */
static int group_moved(struct pg_store *s, const struct st_group_put *in, struct arena *mem, struct err *e) {
  struct group_row now;
  int code = find_group(s, in->group.ns, in->group.name, &now, mem, e);
  if (code < 0)
    return code;
  return err_set(e, ERR_STALE, "the executor group is at version %d, not %d", (int)now.version,
                 (int)in->expected_version);
}

int pg_put_group(struct pg_store *s, const struct st_group_put *in, struct group_row *ret, struct arena *mem,
                 struct err *e) {
  static const struct pg_sql create = {
      "group_create",
      "INSERT INTO executor_group (ns, name, channel, routing, max_connections, max_concurrent, rate_milli, "
      "rate_burst, secret_sealed, secret_previous_sealed, created_at, updated_at, version) SELECT $1::text, "
      "$2::text, $3::int4::int2, $4::int4::int2, $5::int4, $6::int4, $7::int8, $8::int4, $9::text, "
      "$10::text, "
      "n.now, n.now, 1 FROM (SELECT " PG_NOW
      " AS now OFFSET 0) n ON CONFLICT (ns, name) DO NOTHING RETURNING " GROUP_COLUMNS,
      PG_WRITE};
  static const struct pg_sql change = {
      "group_change",
      "UPDATE executor_group SET channel = $3::int4::int2, routing = $4::int4::int2, max_connections = "
      "$5::int4, max_concurrent = $6::int4, rate_milli = $7::int8, rate_burst = $8::int4, secret_sealed = "
      "$9::text, secret_previous_sealed = $10::text, updated_at = " PG_NOW ", version = version + 1 "
      "WHERE ns = $1::text AND name = $2::text AND version = $11::int4 RETURNING " GROUP_COLUMNS,
      PG_WRITE};
  const struct group_row *g = &in->group;
  auto_result r = NULL;
  pgw_text0(&s->args, g->ns);
  pgw_text0(&s->args, g->name);
  pgw_i4(&s->args, (int32_t)g->channel);
  pgw_i4(&s->args, (int32_t)g->routing);
  pgw_i4(&s->args, g->max_connections);
  pgw_i4(&s->args, g->max_concurrent);
  pgw_i8(&s->args, g->rate_milli);
  pgw_i4(&s->args, g->rate_burst);
  pgw_text(&s->args, g->secret_sealed);
  pgw_text(&s->args, g->secret_previous_sealed);
  if (in->expected_version)
    pgw_i4(&s->args, in->expected_version);
  int code = pgc_one(s, in->expected_version ? &change : &create, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0 && in->expected_version)
    return group_moved(s, in, mem, e);
  if (PQntuples(r) == 0)
    return err_field(e, ERR_CONFLICT, "/name", "the executor group %.*s exists", SLICE_FMT(g->name));
  read_group(r, 0, ret, mem);
  return 0;
}

int pg_group_put(struct store *store, const struct st_group_put *in, struct st_group_put_ret *ret,
                 struct arena *mem, struct err *e) {
  return pg_put_group(pg_of(store), in, &ret->group, mem, e);
}

int pg_group_get(struct store *store, const struct st_group_get *in, struct st_group_get_ret *ret,
                 struct arena *mem, struct err *e) {
  return find_group(pg_of(store), in->ns, in->name, &ret->group, mem, e);
}

int pg_group_list(struct store *store, const struct st_group_list *in, struct st_group_list_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "group_list",
      "SELECT " GROUP_COLUMNS
      " FROM executor_group WHERE $1::text = '' OR ns = $1 ORDER BY ns COLLATE \"C\", name COLLATE \"C\"",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_text0(&s->args, in->ns);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct group_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++)
    read_group(r, i, &rows[i], mem);
  ret->rows = rows;
  ret->count = n;
  return 0;
}

int pg_group_delete(struct store *store, const struct st_group_delete *in, struct st_group_delete_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "group_delete",
      "WITH used AS MATERIALIZED (SELECT EXISTS (SELECT FROM task WHERE ns = $1::text AND group_name = "
      "$2::text AND state <> 3) AS by_task), "
      "g AS (DELETE FROM executor_group WHERE ns = $1 AND name = $2 AND NOT (SELECT by_task FROM used) "
      "RETURNING 1), "
      "x AS (DELETE FROM executor WHERE ns = $1 AND group_name = $2 AND NOT (SELECT by_task FROM used)) "
      "SELECT by_task, (SELECT count(*) FROM g) FROM used",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  pgw_text0(&s->args, in->ns);
  pgw_text0(&s->args, in->name);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (pgw_int(r, 0, 0))
    return err_set(e, ERR_CONFLICT, "tasks use the executor group %.*s", SLICE_FMT(in->name));
  return pgw_int(r, 0, 1) ? 0 : no_group(in->name, e);
}

/* ---------------------------------------------------------------- instances */
int pg_executor_put(struct store *store, const struct st_executor_put *in, struct st_executor_put_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "executor_put",
      "INSERT INTO executor AS x (ns, group_name, id, url, handlers, version, labels, incarnation, slots, "
      "running, weight, state, "
      "registered_at, beat_at) SELECT g.ns, g.name, $3::text, $4::text, $5::text, $6::text, $7::text, 1, "
      "$8::int4, $9::int4, CASE WHEN $10::int4 < 0 THEN 1 ELSE $10 END, 0, "
      "n.now, n.now FROM executor_group g, (SELECT " PG_NOW
      " AS now OFFSET 0) n WHERE g.ns = $1::text AND g.name = $2::text "
      "ON CONFLICT (ns, group_name, id) DO UPDATE SET url = excluded.url, handlers = excluded.handlers, "
      "version = excluded.version, labels = excluded.labels, incarnation = x.incarnation + 1, slots = "
      "excluded.slots, "
      "running = excluded.running, weight = CASE WHEN $10 < 0 THEN x.weight ELSE $10 END, state = 0, "
      "registered_at = excluded.registered_at, beat_at = "
      "excluded.beat_at "
      "RETURNING incarnation, beat_at, weight",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  const struct executor_row *x = &in->executor;
  auto_result r = NULL;
  (void)mem;
  pgw_text0(&s->args, x->ns);
  pgw_text0(&s->args, x->group);
  pgw_text0(&s->args, x->id);
  pgw_text0(&s->args, x->url);
  pgw_text0(&s->args, x->handlers);
  pgw_text0(&s->args, x->version);
  pgw_text0(&s->args, x->labels);
  pgw_i4(&s->args, x->slots);
  pgw_i4(&s->args, x->running);
  pgw_i4(&s->args, x->weight);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return no_group(x->group, e);
  ret->incarnation = pgw_int(r, 0, 0);
  ret->now = pgw_int(r, 0, 1);
  ret->weight = (int32_t)pgw_int(r, 0, 2);
  return 0;
}

static void add_beats(struct pg_store *s, const struct st_executor_beat *in) {
  struct pgw_args *a = &s->args;
  const size_t texts[] = {offsetof(struct executor_row, ns), offsetof(struct executor_row, group),
                          offsetof(struct executor_row, id)};
  for (size_t t = 0; t < sizeof texts / sizeof texts[0]; t++) {
    pgw_array(a, PG_TEXT_OID, in->count);
    for (size_t i = 0; i < in->count; i++)
      pgw_el_text(a, *(const struct slice *)((const char *)&in->rows[i] + texts[t]));
    pgw_array_end(a);
  }
  pgw_array(a, PG_INT4_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i4(a, in->rows[i].running);
  pgw_array_end(a);
}

/* In the order of the key: two nodes' beats of the same instances must not wait for each other in a circle. */
int pg_executor_beat(struct store *store, const struct st_executor_beat *in, struct st_executor_beat_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "executor_beat",
      "WITH u AS MATERIALIZED (SELECT k.at, u.running, u.ord, n.now FROM (SELECT " PG_NOW
      " AS now OFFSET 0) n, "
      "unnest($1::text[], $2::text[], $3::text[], $4::int4[]) WITH ORDINALITY u (ns, grp, id, running, ord) "
      "CROSS JOIN LATERAL (SELECT ctid AS at, ns, group_name, id FROM executor k WHERE k.ns = u.ns AND "
      "k.group_name = u.grp AND k.id = u.id "
      "AND k.state <> 3 OFFSET 0) k ORDER BY k.ns, k.group_name, k.id), "
      "b AS (UPDATE executor x SET beat_at = u.now, running = u.running, state = CASE state WHEN 2 THEN 0 "
      "ELSE state END FROM u "
      "WHERE x.ctid = u.at RETURNING u.ord, x.state) SELECT " PG_NOW
      ", b.ord, b.state FROM (SELECT 1) one LEFT JOIN b ON true",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  bool *known = arena_array(mem, in->count, sizeof *known);
  enum executor_state *states = arena_array(mem, in->count, sizeof *states);
  add_beats(s, in);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  for (size_t i = 0; i < in->count; i++)
    states[i] = EXECUTOR_OFFLINE;
  for (int row = 0; row < PQntuples(r) && !PQgetisnull(r, row, 1); row++) {
    size_t i = (size_t)pgw_int(r, row, 1) - 1;
    known[i] = true;
    states[i] = (enum executor_state)pgw_int(r, row, 2);
  }
  ret->known = known;
  ret->states = states;
  ret->now = pgw_int(r, 0, 0);
  return 0;
}

int pg_executor_set(struct store *store, const struct st_executor_set *in, struct st_executor_set_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "executor_set",
      "UPDATE executor SET state = CASE WHEN $4::int4 < 0 THEN state ELSE $4::int2 END, weight = CASE WHEN "
      "$5::int4 < 0 THEN weight ELSE $5 END WHERE ns = $1::text AND group_name = $2::text "
      "AND id = $3::text RETURNING 1",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  pgw_text0(&s->args, in->ns);
  pgw_text0(&s->args, in->group);
  pgw_text0(&s->args, in->id);
  pgw_i4(&s->args, in->state < EXECUTOR_STATE_MAX_ ? (int32_t)in->state : -1);
  pgw_i4(&s->args, in->weight);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0 && PQntuples(r) == 0)
    code = err_set(e, ERR_NOT_FOUND, "there is no executor %.*s", SLICE_FMT(in->id));
  return code;
}

static struct executor_row *read_executors(const PGresult *r, struct arena *mem, int first_col,
                                           size_t *ret_count) {
  size_t n = PQntuples(r) && PQgetisnull(r, 0, first_col) ? 0 : (size_t)PQntuples(r);
  struct executor_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    struct executor_row *x = &rows[i];
    c.col = first_col;
    x->ns = pgw_next_text(&c);
    x->group = pgw_next_text(&c);
    x->id = pgw_next_text(&c);
    x->url = pgw_next_text(&c);
    x->handlers = pgw_next_text(&c);
    x->version = pgw_next_text(&c);
    x->labels = pgw_next_text(&c);
    x->incarnation = pgw_next_int(&c);
    x->slots = (int32_t)pgw_next_int(&c);
    x->running = (int32_t)pgw_next_int(&c);
    x->weight = (int32_t)pgw_next_int(&c);
    x->state = (enum executor_state)pgw_next_int(&c);
    x->registered_at = pgw_next_int(&c);
    x->beat_at = pgw_next_int(&c);
  }
  *ret_count = n;
  return rows;
}

int pg_executor_expire(struct store *store, const struct st_executor_expire *in,
                       struct st_executor_expire_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "executor_expire",
      "WITH forgotten AS (DELETE FROM executor WHERE state IN (2, 3) AND beat_at < " PG_NOW " - $2::int8) "
      "UPDATE executor x SET state = 2 WHERE state IN (0, 1) AND beat_at < " PG_NOW
      " - $1::int8 RETURNING " EXECUTOR_COLUMNS("x."),
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i8(&s->args, in->timeout);
  pgw_i8(&s->args, in->forget);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    ret->lost = read_executors(r, mem, 0, &ret->count);
  return code;
}

int pg_executor_list(struct store *store, const struct st_executor_list *in, struct st_executor_list_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "executor_list",
      "SELECT n.now, " EXECUTOR_COLUMNS(
          "x.") " FROM (SELECT " PG_NOW " AS now OFFSET 0) n LEFT JOIN executor x "
                "ON ($1::text = '' OR x.ns = $1) AND ($2::text = '' OR x.group_name = $2) "
                "ORDER BY x.ns COLLATE \"C\", x.group_name COLLATE \"C\", x.id COLLATE \"C\"",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_text0(&s->args, in->ns);
  pgw_text0(&s->args, in->group);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  ret->rows = read_executors(r, mem, 1, &ret->count);
  ret->now = pgw_int(r, 0, 0);
  return 0;
}
