/* Tasks: read. */
#include "store/postgres/pg.h"

/* of task (key column "id") and of task_version (key column "task_id"), the same in both */
#define VERSION_READ(t, key)                                                                                 \
  t key ", " t "version, " t "shard, " t "change_no, " t "effective_at, " t "anchor, " t "state, " t         \
        "payload IS NOT NULL, " t "name, " t "definition"
#define TASK_READ(t, key)                                                                                    \
  VERSION_READ(t, key)                                                                                       \
  ", " t "ns, " t "description, " t "payload, " t "group_name, " t "handler, " t "schedule_text, " t         \
  "updated_by, " t "note, " t "kind, " t "updated_at, t.created_by, t.created_at, t.managed_by"

static void read_version(struct pgw_cursor *c, struct task_version_row *ret) {
  ret->task_id = pgw_next_int(c);
  ret->version = (int32_t)pgw_next_int(c);
  ret->shard = (int32_t)pgw_next_int(c);
  ret->change_no = pgw_next_int(c);
  ret->effective_at = pgw_next_int(c);
  ret->anchor = pgw_next_int(c);
  ret->state = (enum task_state)pgw_next_int(c);
  ret->has_payload = pgw_next_int(c);
  ret->name = pgw_next_text(c);
  ret->definition = pgw_next_text(c);
}

static void read_task(struct pgw_cursor *c, struct task_row *ret) {
  read_version(c, &ret->v);
  ret->ns = pgw_next_text(c);
  ret->description = pgw_next_text(c);
  ret->payload = pgw_next_text(c);
  ret->group = pgw_next_text(c);
  ret->handler = pgw_next_text(c);
  ret->schedule_text = pgw_next_text(c);
  ret->updated_by = pgw_next_text(c);
  ret->note = pgw_next_text(c);
  ret->kind = (enum schedule_kind)pgw_next_int(c);
  ret->updated_at = pgw_next_int(c);
  ret->created_by = pgw_next_text(c);
  ret->created_at = pgw_next_int(c);
  ret->managed_by = pgw_next_text(c);
}

static struct task_version_row *read_versions(const PGresult *r, struct arena *mem, size_t *ret_count) {
  size_t n = (size_t)PQntuples(r);
  struct task_version_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    read_version(&c, &rows[i]);
  }
  *ret_count = n;
  return rows;
}

static struct task_row *read_tasks(const PGresult *r, struct arena *mem, size_t *ret_count) {
  size_t n = (size_t)PQntuples(r);
  struct task_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    read_task(&c, &rows[i]);
  }
  *ret_count = n;
  return rows;
}

static void add_text_filter(struct pgw_args *a, struct slice s) { pgw_text(a, s.n ? s : (struct slice){0}); }

int pg_task_get(struct store *store, const struct st_task_get *in, struct st_task_get_ret *ret,
                struct arena *mem, struct err *e) {
  static const struct pg_sql by_id = {
      "task_get",
      "SELECT " TASK_READ("t.", "id") " FROM task t WHERE shard = $1::int4 AND id = $2::int8 AND state <> 3",
      PG_READ};
  static const struct pg_sql by_name = {
      "task_get_name",
      "SELECT " TASK_READ("t.", "id") " FROM task t WHERE ns = $1::text AND name = $2::text AND state <> 3",
      PG_READ};
  static const struct pg_sql by_version = {
      "task_get_version",
      "SELECT " TASK_READ("v.", "task_id") " FROM task t JOIN task_version v "
                                           "ON v.task_id = t.id AND v.version = $3::int4 "
                                           "WHERE t.shard = $1::int4 AND t.id = $2::int8 AND t.state <> 3",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  int64_t id = in->task_id;
  int code = 0;
  if (id == 0) {
    pgw_text0(&s->args, in->ns);
    pgw_text0(&s->args, in->name);
    code = pgc_one(s, &by_name, &r, e);
    if (code == 0 && in->version && PQntuples(r) > 0) {
      id = pgw_int(r, 0, 0);
      pgr_clear(&r);
    }
  }
  if (code == 0 && !r) {
    pgw_i4(&s->args, shard_of_task(id, s->source->shard_count));
    pgw_i8(&s->args, id);
    if (in->version)
      pgw_i4(&s->args, in->version);
    code = pgc_one(s, in->version ? &by_version : &by_id, &r, e);
  }
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return err_set(e, ERR_NOT_FOUND, "there is no such task");
  struct pgw_cursor c = pgw_row_of(r, 0, mem);
  read_task(&c, &ret->task);
  return 0;
}

/* ---------------------------------------------------------------- lists
 * $1 after, $2 limit, $3 ns, $4 group, $5 handler, $6 prefix, $7 contained, $8 state, $9 kind, $10 source, $11 states, $12 kinds */
#define LIST_FILTER                                                                                          \
  "t.id > $1::int8 AND "                                                                                     \
  "($3::text IS NULL OR t.ns = $3) AND ($4::text IS NULL OR t.group_name = $4) AND ($5::text IS NULL OR "    \
  "t.handler = $5) "                                                                                         \
  "AND ($6::text IS NULL OR starts_with(t.name, $6)) AND ($7::text IS NULL OR strpos(t.name, $7) > 0) "      \
  "AND CASE WHEN $8::int4 < 0 THEN t.state <> 3 ELSE t.state = $8 END AND ($9::int4 < 0 OR t.kind = $9) "    \
  "AND ($10::text IS NULL OR t.managed_by = $10) AND $11::int4[] IS NOT NULL AND $12::int4[] IS NOT NULL "
#define LIST_ORDER    " ORDER BY t.id LIMIT $2::int4 OFFSET 0"
#define SAMPLE_ROWS   "50"   /* of each shard */
#define SAMPLE_DENSE  50     /* one in so many fits: reading in order is quick */
#define PROBE_MAX     "5000" /* rows of one index that are counted */
#define TRIGRAM_BYTES 3      /* a shorter text has no entry in task_contains */

/* where each condition finds its tasks: from, the condition itself; by id where its index says so */
#define OF_NS "task t WHERE t.ns = $3 AND "
#define OF_GROUP                                                                                             \
  "namespace n CROSS JOIN LATERAL (SELECT * FROM task t WHERE t.ns = n.name AND t.group_name = $4 AND "      \
  "t.state <> 3 AND " LIST_FILTER LIST_ORDER ") t WHERE ($3 IS NULL OR n.name = $3) AND "
#define OF_HANDLER "task t WHERE t.handler = $5 AND "
#define OF_SOURCE  "task t WHERE t.managed_by = $10 AND t.managed_by <> '' AND "
#define OF_STATE                                                                                             \
  "unnest($11::int4[]) st (state) CROSS JOIN unnest($12::int4[]) ki (kind) CROSS JOIN LATERAL (SELECT * "    \
  "FROM task t WHERE "                                                                                       \
  "t.state = st.state AND t.kind = ki.kind AND " LIST_FILTER LIST_ORDER ") t WHERE "
#define OF_PREFIX                                                                                            \
  "(SELECT * FROM task t WHERE t.name COLLATE \"C\" >= $6 AND t.name COLLATE \"C\" < $6 || chr(1114111) "    \
  "OFFSET 0) t WHERE "
#define OF_CONTAINED                                                                                         \
  "(SELECT * FROM task t WHERE t.name LIKE '%' || replace(replace(replace($7, '\\', '\\\\'), '%', '\\%'), "  \
  "'_', '\\_') || '%' OFFSET 0) t WHERE "
/* by id over all shards: the first of each, merged */
#define OF_ALL                                                                                               \
  "shard s CROSS JOIN LATERAL (SELECT * FROM task t WHERE t.shard = s.id AND " LIST_FILTER LIST_ORDER        \
  ") t WHERE "
#define LIST(from)                                                                                           \
  "SELECT " TASK_READ("t.", "id") " FROM (SELECT t.shard, t.id FROM " from LIST_FILTER LIST_ORDER ") k "     \
                                  "CROSS JOIN LATERAL (SELECT * FROM task WHERE shard = k.shard AND id = "   \
                                  "k.id OFFSET 0) t ORDER BY t.id"
/* how many, whatever else is asked for */
#define MANY_GROUP                                                                                           \
  "namespace n CROSS JOIN LATERAL (SELECT FROM task t WHERE t.ns = n.name AND t.group_name = $4 AND "        \
  "t.state <> 3 LIMIT " PROBE_MAX ") t WHERE ($3 IS NULL OR n.name = $3) AND "
#define MANY_STATE                                                                                           \
  "unnest($11::int4[]) st (state) CROSS JOIN unnest($12::int4[]) ki (kind) CROSS JOIN LATERAL (SELECT FROM " \
  "task t WHERE t.state = st.state AND t.kind = ki.kind LIMIT " PROBE_MAX ") t WHERE "
#define PROBE(given, from)                                                                                   \
  "CASE WHEN " given " THEN (SELECT count(*) FROM (SELECT FROM " from " true LIMIT " PROBE_MAX               \
  ") p) ELSE " PROBE_MAX " + 1 END"

static const struct pg_sql list_all = {"task_list", LIST(OF_ALL), PG_READ, true};
/* in the order of the probes */
static const struct pg_sql lists[] = {
    {"task_list_managed", LIST(OF_SOURCE), PG_READ, true},
    {"task_list_group", LIST(OF_GROUP), PG_READ, true},
    {"task_list_handler", LIST(OF_HANDLER), PG_READ, true},
    {"task_list_ns", LIST(OF_NS), PG_READ, true},
    {"task_list_state", LIST(OF_STATE), PG_READ, true},
    {"task_list_prefix", LIST(OF_PREFIX), PG_READ, true},
    {"task_list_contains", LIST(OF_CONTAINED), PG_READ, true},
};
#define ORDERED_LISTS 5 /* the first so many give their tasks by id */

static void add_numbers(struct pgw_args *a, int one, int from, int upto) {
  pgw_array(a, PG_INT4_OID, one >= 0 ? 1 : (size_t)(upto - from));
  for (int i = one >= 0 ? one : from; i < (one >= 0 ? one + 1 : upto); i++)
    pgw_el_i4(a, i);
  pgw_array_end(a);
}

static void add_list(struct pg_store *s, const struct st_task_list *in) {
  struct pgw_args *a = &s->args;
  pgw_i8(a, in->after);
  pgw_i4(a, in->limit);
  add_text_filter(a, in->ns);
  add_text_filter(a, in->group);
  add_text_filter(a, in->handler);
  add_text_filter(a, in->name_prefix);
  add_text_filter(a, in->name_contains);
  pgw_i4(a, in->state);
  pgw_i4(a, in->kind);
  add_text_filter(a, in->managed_by);
  add_numbers(a, in->state, 0, TASK_DELETED);
  add_numbers(a, in->kind, 0, SCHEDULE_KIND_MAX_);
}

/* Do so many of the next tasks fit that a page is full soon? */
static int is_dense(struct pg_store *s, const struct st_task_list *in, bool *ret, struct err *e) {
  static const struct pg_sql q = {"task_list_sample",
                                  "SELECT count(*), count(*) FILTER (WHERE " LIST_FILTER
                                  ") FROM shard s CROSS JOIN LATERAL (SELECT * FROM task t "
                                  "WHERE t.shard = s.id AND t.id > $1 ORDER BY t.id LIMIT " SAMPLE_ROWS
                                  " OFFSET 0) t WHERE $2::int4 > 0",
                                  PG_READ, true};
  auto_result r = NULL;
  add_list(s, in);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    *ret = pgw_int(r, 0, 1) * SAMPLE_DENSE >= pgw_int(r, 0, 0);
  return code;
}

/* The condition that leaves the fewest tasks. */
static int choose_list(struct pg_store *s, const struct st_task_list *in, const struct pg_sql **ret,
                       struct err *e) {
  static const struct pg_sql q =
      {
          "task_list_probe",
          "SELECT " PROBE("$10 IS NOT NULL", OF_SOURCE) ", " PROBE("$4 IS NOT NULL AND $8 <> 3", MANY_GROUP) ", " PROBE(
              "$5 IS NOT NULL",
              OF_HANDLER) ", " PROBE("$3 IS NOT NULL",
                                     OF_NS) ", " PROBE("true",
                                                       MANY_STATE) ", " PROBE("$6 IS NOT NULL",
                                                                              OF_PREFIX) " FROM (SELECT "
                                                                                         "$1::int8, "
                                                                                         "$2::int4, "
                                                                                         "$3::text, "
                                                                                         "$4::text, "
                                                                                         "$5::text, "
                                                                                         "$6::text, "
                                                                                         "$7::text, "
                                                                                         "$8::int4, "
                                                                                         "$9::int4, "
                                                                                         "$10::text) given",
          PG_READ, true};
  bool dense = false;
  auto_result r = NULL;
  *ret = &list_all;
  int code = is_dense(s, in, &dense, e);
  if (code < 0 || dense)
    return code;
  add_list(s, in);
  code = pgc_one(s, &q, &r, e);
  int64_t fewest = code == 0 ? pgw_int(r, 0, ORDERED_LISTS - 1) : 0;
  if (code < 0)
    return code;
  *ret = &lists[ORDERED_LISTS - 1];
  for (int i = 0; i <= ORDERED_LISTS; i++)
    if (pgw_int(r, 0, i) < fewest) {
      fewest = pgw_int(r, 0, i);
      *ret = &lists[i];
    }
  if (in->name_contains.n >= TRIGRAM_BYTES && *ret == &lists[ORDERED_LISTS - 1])
    *ret = &lists[ORDERED_LISTS + 1]; /* it is no frequent part, or the sample would have had it */
  return 0;
}

int pg_task_list(struct store *store, const struct st_task_list *in, struct st_task_list_ret *ret,
                 struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  const struct pg_sql *q;
  auto_result r = NULL;
  int code = choose_list(s, in, &q, e);
  if (code < 0)
    return code;
  add_list(s, in);
  code = pgc_one(s, q, &r, e);
  if (code == 0)
    ret->tasks = read_tasks(r, mem, &ret->count);
  return code;
}

int pg_task_versions(struct store *store, const struct st_task_versions *in, struct st_task_versions_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "task_versions",
      "SELECT " TASK_READ("v.", "task_id") " FROM task t JOIN task_version v ON v.task_id = t.id "
                                           "WHERE t.shard = $1::int4 AND t.id = $2::int8 AND t.state <> 3 "
                                           "AND v.version < $3::int4 ORDER BY v.version DESC LIMIT $4::int4",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i4(&s->args, shard_of_task(in->task_id, s->source->shard_count));
  pgw_i8(&s->args, in->task_id);
  pgw_i4(&s->args, in->before ? in->before : INT32_MAX);
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    ret->versions = read_tasks(r, mem, &ret->count);
  return code;
}

/* $3 from, $4 to, $5 margin, $6 limit */
#define VERSION_BEFORE(t)                                                                                    \
  "coalesce((SELECT version FROM task_version WHERE task_id = $2 AND effective_at < " t                      \
  " ORDER BY version DESC LIMIT 1), 1)"
int pg_task_timeline(struct store *store, const struct st_task_timeline *in, struct st_task_timeline_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "task_timeline",
      "WITH r AS (SELECT " VERSION_BEFORE("$3::int8") " AS first, " VERSION_BEFORE(
          "$4::int8") " AS last), w AS (SELECT r.first - $5::int4 AS low, "
                      "least(r.last, r.first + $6::int4 - 1) + $5 AS high, (SELECT CASE WHEN f.state = 1 "
                      "THEN 1 + "
                      "coalesce((SELECT version FROM task_version WHERE task_id = $2 AND version < r.first "
                      "AND "
                      "state <> 1 ORDER BY version DESC LIMIT 1), 0) ELSE 0 END FROM task_version f WHERE "
                      "f.task_id = $2 AND f.version = r.first) AS pause FROM r) "
                      "SELECT " TASK_READ(
                          "v.",
                          "task_id") " FROM w CROSS JOIN task t JOIN task_version v ON v.task_id = t.id "
                                     "WHERE t.shard = $1::int4 AND t.id = $2::int8 AND (v.version BETWEEN "
                                     "w.low AND w.high OR v.version = w.pause) ORDER BY v.version",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i4(&s->args, shard_of_task(in->task_id, s->source->shard_count));
  pgw_i8(&s->args, in->task_id);
  pgw_i8(&s->args, in->from);
  pgw_i8(&s->args, in->to);
  pgw_i4(&s->args, in->margin);
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    ret->versions = read_tasks(r, mem, &ret->count);
  return code;
}

int pg_task_load(struct store *store, const struct st_task_load *in, struct st_task_load_ret *ret,
                 struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "task_load",
      "SELECT " VERSION_READ("",
                             "id") " FROM task WHERE shard = $1::int4 AND id > $2::int8 "
                                   "AND (state = 0 OR effective_at > $3::int8) ORDER BY id LIMIT $4::int4",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i4(&s->args, in->shard);
  pgw_i8(&s->args, in->after);
  pgw_i8(&s->args, in->changed_after);
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    ret->rows = read_versions(r, mem, &ret->count);
  return code;
}

int pg_task_load_older(struct store *store, const struct st_task_load_older *in,
                       struct st_task_load_older_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "task_load_older",
      "SELECT " VERSION_READ(
          "v.", "task_id") " FROM task_version n CROSS JOIN LATERAL (SELECT * FROM task_version v "
                           "WHERE v.task_id = n.task_id AND v.version = n.version - 1 OFFSET 0) v "
                           "WHERE n.shard = $1::int4 AND n.version > 1 AND n.effective_at > $2::int8 ORDER "
                           "BY v.task_id, v.version",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i4(&s->args, in->shard);
  pgw_i8(&s->args, in->changed_after);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    ret->rows = read_versions(r, mem, &ret->count);
  return code;
}

/* The number of the limit's row comes whole: the answer may pass the limit, a number is never cut. */
int pg_task_changes(struct store *store, const struct st_task_changes *in, struct st_task_changes_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "task_changes",
      "WITH bound AS MATERIALIZED (SELECT coalesce((SELECT change_no FROM task_version WHERE shard = "
      "$1::int4 "
      "AND change_no > $2::int8 ORDER BY change_no, task_id OFFSET $3::int4 - 1 LIMIT 1), "
      "(SELECT greatest(tasks_version, $2) FROM shard WHERE id = $1)) AS upto) "
      "SELECT " VERSION_READ(
          "v.", "task_id") ", bound.upto FROM bound LEFT JOIN LATERAL (SELECT * FROM task_version v "
                           "WHERE v.shard = $1 AND v.change_no > $2 AND v.change_no <= bound.upto OFFSET 0) "
                           "v ON true ORDER BY v.change_no, v.task_id",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i4(&s->args, in->shard);
  pgw_i8(&s->args, in->after);
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  ret->rows = read_versions(r, mem, &ret->count);
  ret->last = pgw_int(r, 0, 10);
  if (PQgetisnull(r, 0, 0))
    ret->count = 0;
  return 0;
}

int pg_payload_get(struct store *store, const struct st_payload_get *in, struct st_payload_get_ret *ret,
                   struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "payload_get",
      "SELECT v.ns, v.name, v.payload, v.definition, v.anchor FROM unnest($1::int8[], $2::int4[]) WITH "
      "ORDINALITY "
      "u (task_id, version, ord) LEFT JOIN LATERAL (SELECT ns, name, payload, definition, anchor FROM "
      "task_version t "
      "WHERE t.task_id = u.task_id AND t.version = u.version OFFSET 0) v ON true ORDER BY u.ord",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_array(&s->args, PG_INT8_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i8(&s->args, in->task_ids[i]);
  pgw_array_end(&s->args);
  pg_add_i4s(&s->args, in->versions, in->count);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  struct payload_row *rows = arena_array(mem, in->count, sizeof *rows);
  for (size_t i = 0; i < in->count; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    rows[i].has = !pgw_next_null(&c);
    rows[i].ns = pgw_next_text(&c);
    rows[i].name = pgw_next_text(&c);
    rows[i].payload = pgw_next_text(&c);
    rows[i].definition = pgw_next_text(&c);
    rows[i].anchor = pgw_next_int(&c);
  }
  ret->rows = rows;
  return 0;
}

int pg_progress_load(struct store *store, const struct st_progress_load *in, struct st_progress_load_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"progress_load",
                                  "SELECT task_id, shard, greatest(base_at, 0), greatest(fired, 0) FROM "
                                  "progress WHERE shard = $1::int4 ORDER BY task_id",
                                  PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i4(&s->args, in->shard);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct progress_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, NULL);
    rows[i].task_id = pgw_next_int(&c);
    rows[i].shard = (int32_t)pgw_next_int(&c);
    rows[i].base_at = pgw_next_int(&c);
    rows[i].fired = pgw_next_int(&c);
  }
  ret->rows = rows;
  ret->count = n;
  return 0;
}
