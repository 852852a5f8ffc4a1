/* After-tasks: who depends on whom, the ends of parents, the turns that make runs of them. */
#include "store/postgres/pg.h"

_Static_assert(TASK_ENABLED == 0 && TASK_DELETED == 3, "numbers used in SQL");

/* ---------------------------------------------------------------- edits */

/* A name that stands in the list of one of the tasks. */
struct named {
  size_t of; /* index of the edit */
  int32_t place;
  int64_t id;
  int32_t shard;
};

static int raise_turn(struct pg_store *s, int64_t *ret, struct err *e) {
  static const struct pg_sql q = {"dependency_raise", "UPDATE dependency_turn SET no = no + 1 RETURNING no",
                                  PG_WRITE};
  auto_result r = NULL;
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    *ret = pgw_int(r, 0, 0);
  return code;
}

/* Every name of every list, as a task. */
static int find_parents(struct pg_store *s, const struct edge_edit *edits, size_t count, struct named *ret,
                        size_t names, struct err *e) {
  static const struct pg_sql q = {
      "dependency_names",
      "SELECT t.id, t.shard FROM unnest($1::text[], $2::text[]) WITH ORDINALITY u (ns, name, ord) LEFT JOIN "
      "LATERAL (SELECT id, shard FROM task WHERE ns = u.ns AND name = u.name AND state <> 3 OFFSET 0) t ON "
      "true ORDER BY u.ord",
      PG_READ};
  auto_result r = NULL;
  for (int column = 0; column < 2; column++) {
    size_t n = 0;
    pgw_array(&s->args, PG_TEXT_OID, names);
    for (size_t i = 0; i < count; i++)
      for (size_t k = 0; edits[i].depends && k < edits[i].depends->count; k++) {
        ret[n++] = (struct named){.of = i, .place = (int32_t)k};
        pgw_el_text(&s->args, column ? edits[i].depends->tasks[k] : edits[i].ns);
      }
    pgw_array_end(&s->args);
  }
  int code = pgc_one(s, &q, &r, e);
  for (size_t i = 0; code == 0 && i < names; i++) {
    const struct edge_edit *d = &edits[ret[i].of];
    ret[i].id = pgw_int(r, (int)i, 0);
    ret[i].shard = (int32_t)pgw_int(r, (int)i, 1);
    if (PQgetisnull(r, (int)i, 0))
      code = edge_edit_at(d, ret[i].place,
                          err_set(e, ERR_INVALID, "there is no task \"%.*s\" in the namespace %.*s",
                                  SLICE_FMT(d->depends->tasks[ret[i].place]), SLICE_FMT(d->ns)),
                          e);
  }
  return code;
}

static void add_children(struct pg_store *s, const struct edge_edit *edits, size_t count) {
  pgw_array(&s->args, PG_INT8_OID, count);
  for (size_t i = 0; i < count; i++)
    pgw_el_i8(&s->args, edits[i].task_id);
  pgw_array_end(&s->args);
}

#define ADD_NAMED(a, type, names, n, expression)                                                             \
  do {                                                                                                       \
    pgw_array((a), type == 8 ? PG_INT8_OID : PG_INT4_OID, (n));                                              \
    for (size_t i_ = 0; i_ < (n); i_++) {                                                                    \
      const struct named *x = &(names)[i_];                                                                  \
      const struct edge_edit *d = &edits[x->of];                                                             \
      (void)d;                                                                                               \
      if (type == 8)                                                                                         \
        pgw_el_i8((a), (expression));                                                                        \
      else                                                                                                   \
        pgw_el_i4((a), (int32_t)(expression));                                                               \
    }                                                                                                        \
    pgw_array_end(a);                                                                                        \
  } while (0)

static int write_edges(struct pg_store *s, const struct edge_edit *edits, size_t count,
                       const struct named *names, size_t n, int64_t since, struct err *e) {
  static const struct pg_sql gone = {
      "dependency_gone",
      "DELETE FROM dependency d WHERE d.child_id = ANY ($1::int8[]) AND NOT EXISTS (SELECT FROM "
      "unnest($2::int8[], $3::int8[]) u (child, parent) WHERE u.child = d.child_id AND u.parent = "
      "d.parent_id)",
      PG_WRITE};
  static const struct pg_sql put = {
      "dependency_put",
      "INSERT INTO dependency AS d (child_id, parent_id, child_shard, parent_shard, place, mode, ends, "
      "since) "
      "SELECT u.*, $8::int8 FROM unnest($1::int8[], $2::int8[], $3::int4[], $4::int4[], $5::int4[], "
      "$6::int4[], $7::int4[]) u ON CONFLICT (child_id, parent_id) DO UPDATE SET place = excluded.place, "
      "mode "
      "= excluded.mode, ends = excluded.ends, kept = CASE WHEN d.mode = excluded.mode AND d.ends = "
      "excluded.ends THEN d.kept ELSE 0 END",
      PG_WRITE};
  struct pgw_args *a = &s->args;
  PGresult *r[2] = {0};
  add_children(s, edits, count);
  ADD_NAMED(a, 8, names, n, d->task_id);
  ADD_NAMED(a, 8, names, n, x->id);
  pgc_add(s, &gone);
  ADD_NAMED(a, 8, names, n, d->task_id);
  ADD_NAMED(a, 8, names, n, x->id);
  ADD_NAMED(a, 4, names, n, shard_of_task(d->task_id, s->source->shard_count));
  ADD_NAMED(a, 4, names, n, x->shard);
  ADD_NAMED(a, 4, names, n, x->place);
  ADD_NAMED(a, 4, names, n, d->depends->mode);
  ADD_NAMED(a, 4, names, n, d->depends->ends);
  pgw_i8(a, since);
  pgc_add(s, &put);
  int code = pgc_run(s, r, e);
  pgr_clear(&r[0]);
  pgr_clear(&r[1]);
  return code;
}

/* The edge that is to blame, in the words of the request. */
static int blame(const struct edge_edit *edits, size_t count, const struct named *names, size_t n,
                 const struct depend_link *l, struct err *e) {
  for (size_t i = 0; i < n; i++)
    if (edits[names[i].of].task_id == l->child && names[i].id == l->parent)
      return edge_edit_at(&edits[names[i].of], names[i].place, ERR_INVALID, e);
  for (size_t i = 0; i < count; i++)
    if (edits[i].task_id == l->child)
      return edge_edit_at(&edits[i], -1, ERR_INVALID, e);
  return ERR_INVALID;
}

static int check_graph(struct pg_store *s, const struct edge_edit *edits, size_t count,
                       const struct named *names, size_t n, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "dependency_links",
      "WITH RECURSIVE up AS (SELECT child_id, parent_id, child_shard, parent_shard FROM dependency WHERE "
      "child_id = ANY ($1::int8[]) UNION SELECT d.child_id, d.parent_id, d.child_shard, d.parent_shard FROM "
      "up "
      "JOIN dependency d ON d.child_id = up.parent_id), down AS (SELECT child_id, parent_id, child_shard, "
      "parent_shard FROM dependency WHERE parent_id = ANY ($1) UNION SELECT d.child_id, d.parent_id, "
      "d.child_shard, d.parent_shard FROM down JOIN dependency d ON d.parent_id = down.child_id) SELECT "
      "l.child_id, l.parent_id, (SELECT name FROM task WHERE shard = l.child_shard AND id = l.child_id), "
      "(SELECT name FROM task WHERE shard = l.parent_shard AND id = l.parent_id) FROM (SELECT * FROM up "
      "UNION "
      "SELECT * FROM down) l ORDER BY l.child_id, l.parent_id",
      PG_READ};
  auto_result r = NULL;
  struct depend_link bad;
  int64_t *changed = arena_array(mem, count, sizeof *changed);
  add_children(s, edits, count);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t links = (size_t)PQntuples(r);
  struct depend_link *l = arena_array(mem, links, sizeof *l);
  for (size_t i = 0; i < links; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    l[i].child = pgw_next_int(&c);
    l[i].parent = pgw_next_int(&c);
    l[i].child_name = pgw_next_text(&c);
    l[i].parent_name = pgw_next_text(&c);
  }
  for (size_t i = 0; i < count; i++)
    changed[i] = edits[i].task_id;
  code = depend_check(l, links, changed, count, &bad, e);
  return code < 0 ? blame(edits, count, names, n, &bad, e) : 0;
}

static int check_children(struct pg_store *s, const struct edge_edit *edits, const struct named *names,
                          size_t n, struct err *e) {
  static const struct pg_sql q = {"dependency_children",
                                  "SELECT parent_id FROM dependency WHERE parent_id = ANY ($1::int8[]) GROUP "
                                  "BY parent_id HAVING count(*) "
                                  "> $2::int4 ORDER BY parent_id LIMIT 1",
                                  PG_READ};
  auto_result r = NULL;
  ADD_NAMED(&s->args, 8, names, n, x->id);
  pgw_i4(&s->args, DEPEND_CHILDREN_MAX);
  int code = pgc_one(s, &q, &r, e);
  for (size_t i = 0; code == 0 && PQntuples(r) && i < n; i++)
    if (names[i].id == pgw_int(r, 0, 0))
      code =
          edge_edit_at(&edits[names[i].of], names[i].place,
                       err_set(e, ERR_INVALID, "at most %d tasks may depend on one", DEPEND_CHILDREN_MAX), e);
  return code;
}

/* Nobody may depend on what is deleted, or called otherwise from now on. */
static int check_going(struct pg_store *s, const struct edge_edit *edits, size_t count, struct err *e) {
  static const struct pg_sql q = {
      "dependency_going",
      "SELECT u.ord - 1, (SELECT name FROM task WHERE shard = d.child_shard AND id = d.child_id) FROM "
      "unnest($1::int8[]) WITH ORDINALITY u (id, ord) CROSS JOIN LATERAL (SELECT child_id, child_shard FROM "
      "dependency WHERE parent_id = u.id ORDER BY child_id LIMIT 1) d ORDER BY u.ord LIMIT 1",
      PG_READ};
  auto_result r = NULL;
  auto_arena mem = {0};
  pgw_array(&s->args, PG_INT8_OID, count);
  for (size_t i = 0; i < count; i++)
    pgw_el_i8(&s->args, edits[i].goes ? edits[i].task_id : 0);
  pgw_array_end(&s->args);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0 || PQntuples(r) == 0)
    return code;
  struct pgw_cursor c = pgw_row_of(r, 0, &mem);
  const struct edge_edit *d = &edits[pgw_next_int(&c)];
  struct slice child = pgw_next_text(&c);
  return edge_edit_refused(d, child, e);
}

int pg_edit_edges(struct pg_store *s, const struct edge_edit *edits, size_t count, struct arena *mem,
                  struct err *e) {
  int64_t since = 0;
  size_t names = 0;
  for (size_t i = 0; i < count; i++)
    names += edits[i].depends ? edits[i].depends->count : 0;
  if (!count)
    return 0;
  struct named *found = arena_array(mem, names + 1, sizeof *found);
  int code = raise_turn(s, &since, e);
  if (code == 0 && names)
    code = find_parents(s, edits, count, found, names, e);
  if (code == 0)
    code = write_edges(s, edits, count, found, names, since, e);
  if (code == 0 && names)
    code = check_graph(s, edits, count, found, names, mem, e);
  if (code == 0 && names)
    code = check_children(s, edits, found, names, e);
  return code < 0 ? code : check_going(s, edits, count, e);
}

/* ---------------------------------------------------------------- a turn */

static void read_event(struct pgw_cursor *c, struct depend_event *v) {
  v->no = pgw_next_int(c);
  v->turn = pgw_next_int(c);
  v->after = pgw_next_int(c);
  v->key.shard = (int32_t)pgw_next_int(c);
  v->key.scheduled_at = pgw_next_int(c);
  v->key.task_id = pgw_next_int(c);
  v->key.part = (int32_t)pgw_next_int(c);
  v->state = (enum run_state)pgw_next_int(c);
  v->finished_at = pgw_next_int(c);
}

static void read_edge(struct pgw_cursor *c, struct depend_edge *d) {
  d->child = pgw_next_int(c);
  d->parent = pgw_next_int(c);
  d->since = pgw_next_int(c);
  d->child_shard = (int32_t)pgw_next_int(c);
  d->mode = (enum depend_mode)pgw_next_int(c);
  d->ends = (enum depend_ends)pgw_next_int(c);
  d->kept = pgw_next_int(c);
  d->key.shard = (int32_t)pgw_next_int(c);
  d->key.scheduled_at = pgw_next_int(c);
  d->key.part = (int32_t)pgw_next_int(c);
  d->key.task_id = d->parent;
  d->state = (enum run_state)pgw_next_int(c);
  d->finished_at = pgw_next_int(c);
  d->version = (int32_t)pgw_next_int(c);
  d->enabled = pgw_next_int(c) != 0;
  d->parent_name = pgw_next_text(c);
}

static int read_edges(struct pg_store *s, struct st_dependency_read_ret *out, struct arena *mem,
                      struct err *e) {
  static const struct pg_sql q = {
      "dependency_edges",
      "SELECT d.child_id, d.parent_id, d.since, d.child_shard, d.mode, d.ends, d.kept, d.parent_shard, "
      "d.end_scheduled_at, d.end_part, d.end_state, d.end_at, t.version, t.state = 0, p.name FROM (SELECT "
      "DISTINCT c.child_id FROM unnest($1::int8[]) u (id) CROSS JOIN LATERAL (SELECT child_id FROM "
      "dependency "
      "WHERE parent_id = u.id OFFSET 0) c) c CROSS JOIN LATERAL (SELECT * FROM dependency WHERE child_id = "
      "c.child_id OFFSET 0) d LEFT JOIN LATERAL (SELECT version, state FROM task WHERE shard = d.child_shard "
      "AND id = d.child_id OFFSET 0) t ON true LEFT JOIN LATERAL (SELECT name FROM task WHERE shard = "
      "d.parent_shard AND id = d.parent_id OFFSET 0) p ON true ORDER BY d.child_id, d.place",
      PG_READ};
  auto_result r = NULL;
  pgw_array(&s->args, PG_INT8_OID, out->event_count);
  for (size_t i = 0; i < out->event_count; i++)
    pgw_el_i8(&s->args, out->events[i].key.task_id);
  pgw_array_end(&s->args);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  out->edge_count = (size_t)PQntuples(r);
  out->edges = arena_array(mem, out->edge_count, sizeof *out->edges);
  for (size_t i = 0; i < out->edge_count; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    read_edge(&c, &out->edges[i]);
  }
  return 0;
}

int pg_dependency_read(struct store *store, const struct st_dependency_read *in,
                       struct st_dependency_read_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql turn = {"dependency_turn", "SELECT no FROM dependency_turn", PG_READ};
  static const struct pg_sql events = {
      "dependency_events",
      "SELECT no, turn, served, shard, scheduled_at, task_id, part, state, finished_at FROM dependency_event "
      "ORDER BY no LIMIT $1::int4",
      PG_READ};
  struct pg_store *s = pg_of(store);
  struct st_dependency_read_ret out = {0};
  PGresult *r[2] = {0};
  pgc_add(s, &turn);
  pgw_i4(&s->args, in->limit);
  pgc_add(s, &events);
  int code = pgc_run(s, r, e);
  if (code == 0) {
    out.turn = pgw_int(r[0], 0, 0);
    out.event_count = (size_t)PQntuples(r[1]);
    out.events = arena_array(mem, out.event_count, sizeof *out.events);
    for (size_t i = 0; i < out.event_count; i++) {
      struct pgw_cursor c = pgw_row_of(r[1], i, mem);
      read_event(&c, &out.events[i]);
    }
  }
  pgr_clear(&r[0]);
  pgr_clear(&r[1]);
  if (code == 0 && out.event_count)
    code = read_edges(s, &out, mem, e);
  if (code == 0)
    *ret = out;
  return code;
}

#define ADD_KEPT(a, oid, el, expression)                                                                     \
  do {                                                                                                       \
    pgw_array((a), oid, in->kept_count);                                                                     \
    for (size_t i_ = 0; i_ < in->kept_count; i_++) {                                                         \
      const struct depend_edge *x = &in->kept[i_];                                                           \
      el((a), (expression));                                                                                 \
    }                                                                                                        \
    pgw_array_end(a);                                                                                        \
  } while (0)

static void add_kept(struct pg_store *s, const struct st_dependency_apply *in) {
  static const struct pg_sql q = {
      "dependency_keep",
      "UPDATE dependency d SET kept = u.kept, end_scheduled_at = u.scheduled_at, end_at = u.at, end_part = "
      "u.part, end_state = u.state FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], $5::int8[], "
      "$6::int4[], $7::int4[]) u (child, parent, kept, scheduled_at, at, part, state) CROSS JOIN LATERAL "
      "(SELECT k.ctid AS at FROM dependency k WHERE k.child_id = u.child AND k.parent_id = u.parent OFFSET "
      "0) "
      "k WHERE d.ctid = k.at",
      PG_WRITE};
  struct pgw_args *a = &s->args;
  ADD_KEPT(a, PG_INT8_OID, pgw_el_i8, x->child);
  ADD_KEPT(a, PG_INT8_OID, pgw_el_i8, x->parent);
  ADD_KEPT(a, PG_INT8_OID, pgw_el_i8, x->kept);
  ADD_KEPT(a, PG_INT8_OID, pgw_el_i8, x->key.scheduled_at);
  ADD_KEPT(a, PG_INT8_OID, pgw_el_i8, x->finished_at);
  ADD_KEPT(a, PG_INT4_OID, pgw_el_i4, x->key.part);
  ADD_KEPT(a, PG_INT4_OID, pgw_el_i4, (int32_t)x->state);
  pgc_add(s, &q);
}

static void add_requests(struct pg_store *s, const struct st_dependency_apply *in) {
  static const struct pg_sql q = {
      "dependency_inbox",
      "WITH i AS (INSERT INTO inbox (shard, kind, body) SELECT shard, kind, body FROM unnest($1::int4[], "
      "$2::int4[], $3::text[]) WITH ORDINALITY u (shard, kind, body, ord) ORDER BY ord RETURNING shard) "
      "SELECT pg_notify('" PG_CHANNEL "', shard::text) FROM (SELECT DISTINCT shard FROM i) n",
      PG_WRITE};
  struct pgw_args *a = &s->args;
  pgw_array(a, PG_INT4_OID, in->inbox_count);
  for (size_t i = 0; i < in->inbox_count; i++)
    pgw_el_i4(a, in->inbox[i].shard);
  pgw_array_end(a);
  pgw_array(a, PG_INT4_OID, in->inbox_count);
  for (size_t i = 0; i < in->inbox_count; i++)
    pgw_el_i4(a, in->inbox[i].kind);
  pgw_array_end(a);
  pgw_array(a, PG_TEXT_OID, in->inbox_count);
  for (size_t i = 0; i < in->inbox_count; i++)
    pgw_el_text(a, in->inbox[i].body);
  pgw_array_end(a);
  pgc_add(s, &q);
}

int pg_dependency_apply(struct store *store, const struct st_dependency_apply *in,
                        struct st_dependency_apply_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql turn = {
      "dependency_take", "UPDATE dependency_turn SET no = no + 1 WHERE no = $1::int8 RETURNING no", PG_WRITE};
  static const struct pg_sql done = {"dependency_done",
                                     "DELETE FROM dependency_event WHERE no = ANY ($1::int8[])", PG_WRITE};
  static const struct pg_sql partly = {
      "dependency_partly", "UPDATE dependency_event SET served = $2::int8 WHERE no = $1::int8", PG_WRITE};
  struct pg_store *s = pg_of(store);
  PGresult *r[6] = {0};
  (void)ret;
  (void)mem;
  pgc_begin(s);
  pgw_i8(&s->args, in->turn);
  pgc_add(s, &turn);
  pgw_array(&s->args, PG_INT8_OID, in->done_count);
  for (size_t i = 0; i < in->done_count; i++)
    pgw_el_i8(&s->args, in->done[i]);
  pgw_array_end(&s->args);
  pgc_add(s, &done);
  pgw_i8(&s->args, in->partly);
  pgw_i8(&s->args, in->after);
  pgc_add(s, &partly);
  add_kept(s, in);
  add_requests(s, in);
  int code = pgc_run(s, r, e);
  if (code == 0 && PQntuples(r[1]) == 0)
    code = err_set(e, ERR_CONFLICT, "another turn, or an edit of who depends on whom, came first");
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  if (code == 0)
    return pgc_commit(s, e);
  pgc_rollback(s);
  return code;
}
