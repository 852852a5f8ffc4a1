/* Dead letters: lists, and what becomes of them. */
#include "store/postgres/pg.h"
#include "store/answer.h"

_Static_assert(DEAD_LETTER_OPEN == 0 && DEAD_LETTER_REPLAYED == 1 && TASK_DELETED == 3,
               "numbers used in SQL");

/* Of a letter d, its run h and its task t, in the order of read_letter. */
#define LETTER                                                                                               \
  PG_RUN_ENDED("h.")                                                                                         \
  ", t.name, d.ns, d.group_name, d.handler, d.state, d.handled_at, d.handled_by, d.note, d.replay_run"
#define OF_LETTER                                                                                            \
  " CROSS JOIN LATERAL (SELECT * FROM run_history h WHERE h.scheduled_at = d.scheduled_at AND h.task_id = "  \
  "d.task_id AND h.part = d.part OFFSET 0) h LEFT JOIN LATERAL (SELECT name, state FROM task WHERE shard = " \
  "d.shard AND id = d.task_id OFFSET 0) t ON true"
/* $1 scheduled_at, $2 task, $3 part: from there; $4 since, $5 until, $6 state, $7 reason, $8 group, $9 handler, $10 error type, $11
 * namespace, $12 task, $13 only of tasks that are there, $14 limit. Planned for these very values. */
#define FILTER                                                                                               \
  "d.scheduled_at >= $4::int8 AND d.scheduled_at < $5::int8 AND ($6::int4 < 0 OR d.state = $6) AND "         \
  "($7::int4 < 0 OR d.reason = $7) AND ($8::text IS NULL OR d.group_name = $8) AND ($9::text IS NULL OR "    \
  "d.handler = $9) AND ($10::text IS NULL OR d.error_type = $10) AND ($11::text IS NULL OR d.ns = $11) AND " \
  "($12::int8 = 0 OR d.task_id = $12) AND (NOT $13::bool OR t.state <> 3)"
#define KEY "(d.scheduled_at, d.task_id, d.part)"

static const struct pg_sql newest = {"dead_letter_list",
                                     "SELECT " LETTER " FROM dead_letter d" OF_LETTER
                                     " WHERE d.scheduled_at <= $1::int8 AND " KEY
                                     " < ($1, $2::int8, $3::int4) AND " FILTER
                                     " ORDER BY d.scheduled_at DESC, d.task_id DESC, d.part DESC LIMIT "
                                     "$14::int4",
                                     PG_READ, true};
static const struct pg_sql oldest = {
    "dead_letter_list_up",
    "SELECT " LETTER " FROM dead_letter d" OF_LETTER " WHERE d.scheduled_at >= $1::int8 AND " KEY
    " > ($1, $2::int8, $3::int4) AND " FILTER " ORDER BY d.scheduled_at, d.task_id, d.part LIMIT $14::int4",
    PG_READ, true};

static void read_letter(struct pgw_cursor *c, struct dead_letter_row *ret) {
  pg_read_run(c, &ret->run);
  ret->task_name = pgw_next_text(c);
  ret->ns = pgw_next_text(c);
  ret->group = pgw_next_text(c);
  ret->handler = pgw_next_text(c);
  ret->state = (enum dead_letter_state)pgw_next_int(c);
  ret->handled_at = pgw_next_int(c);
  ret->handled_by = pgw_next_text(c);
  ret->note = pgw_next_text(c);
  ret->replay_run = pgw_next_text(c);
}

static struct slice filter_of(struct slice s) { return s.n ? s : (struct slice){}; }

int pg_dead_letter_list(struct store *store, const struct st_dead_letter_list *in,
                        struct st_dead_letter_list_ret *ret, struct arena *mem, struct err *e) {
  static const struct run_key ends[] = {{.scheduled_at = INT64_MAX, .task_id = INT64_MAX, .part = INT32_MAX},
                                        {.scheduled_at = INT64_MIN, .task_id = INT64_MIN, .part = INT32_MIN}};
  const struct dead_letter_filter *f = &in->filter;
  const struct run_key *from = in->from ? in->from : &ends[in->oldest_first];
  struct pg_store *s = pg_of(store);
  struct pgw_args *a = &s->args;
  auto_result r = NULL;
  pgw_i8(a, from->scheduled_at);
  pgw_i8(a, from->task_id);
  pgw_i4(a, from->part);
  pgw_i8(a, f->since ? f->since : INT64_MIN);
  pgw_i8(a, f->until ? f->until : INT64_MAX);
  pgw_i4(a, f->state);
  pgw_i4(a, f->reason);
  pgw_text(a, filter_of(f->group));
  pgw_text(a, filter_of(f->handler));
  pgw_text(a, filter_of(f->error_type));
  pgw_text(a, filter_of(f->ns));
  pgw_i8(a, f->task_id);
  pgw_bool(a, in->of_tasks);
  pgw_i4(a, in->limit);
  int code = pgc_one(s, in->oldest_first ? &oldest : &newest, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct dead_letter_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    read_letter(&c, &rows[i]);
  }
  ret->rows = rows;
  ret->count = n;
  return 0;
}

int pg_dead_letter_get(struct store *store, const struct st_dead_letter_get *in,
                       struct st_dead_letter_get_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"dead_letter_get",
                                  "SELECT " LETTER
                                  " FROM (SELECT * FROM dead_letter WHERE scheduled_at = $1::int8 AND "
                                  "task_id = $2::int8 AND part = $3::int4) d" OF_LETTER,
                                  PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i8(&s->args, in->key.scheduled_at);
  pgw_i8(&s->args, in->key.task_id);
  pgw_i4(&s->args, in->key.part);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return err_set(e, ERR_NOT_FOUND, "there is no such dead letter");
  struct pgw_cursor c = pgw_row_of(r, 0, mem);
  read_letter(&c, &ret->row);
  return 0;
}

int pg_dead_letter_count(struct store *store, const struct st_dead_letter_count *in,
                         struct st_dead_letter_count_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "dead_letter_count", "SELECT count(*) FROM (SELECT FROM dead_letter WHERE state = 0 LIMIT $1::int4) d",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)mem;
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    ret->open = pgw_int(r, 0, 0);
  return code;
}

/* ---------------------------------------------------------------- replay, discard */
#define DEEDS                                                                                                \
  "unnest($1::int8[], $2::int8[], $3::int4[], $4::int4[], $5::text[], $6::text[]) WITH ORDINALITY "          \
  "u (scheduled_at, task_id, part, shard, replay_run, body, ord)"

static void add_keys(struct pgw_args *a, const struct st_dead_letter_handle *in) {
  pgw_array(a, PG_INT8_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i8(a, in->deeds[i].key.scheduled_at);
  pgw_array_end(a);
  pgw_array(a, PG_INT8_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i8(a, in->deeds[i].key.task_id);
  pgw_array_end(a);
  pgw_array(a, PG_INT4_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i4(a, in->deeds[i].key.part);
  pgw_array_end(a);
}

static void add_deeds(struct pgw_args *a, const struct st_dead_letter_handle *in) {
  add_keys(a, in);
  pgw_array(a, PG_INT4_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i4(a, in->deeds[i].inbox.shard);
  pgw_array_end(a);
  pgw_array(a, PG_TEXT_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_text(a, in->deeds[i].replay_run);
  pgw_array_end(a);
  pgw_array(a, PG_TEXT_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_text(a, in->deeds[i].inbox.body);
  pgw_array_end(a);
}

/* The transaction begins with the key of the answer, so that of two calls with one key the second waits and then does nothing; then all
 * letters are locked, by their keys in order, so that two calls for the same ones cannot stop each other. Both are planned anew: a plan
 * of a day when there were few letters would read all of them for each (storage.md, the first trap). */
static int begin(struct pg_store *s, const struct st_dead_letter_handle *in, bool *ret_repeat,
                 struct err *e) {
  static const struct pg_sql idem = {"dead_letter_idem", "WITH " PG_IDEM_CTE " SELECT " PG_IDEM_IS_NEW,
                                     PG_WRITE};
  static const struct pg_sql lock = {
      "dead_letter_lock",
      "SELECT FROM dead_letter d JOIN unnest($1::int8[], $2::int8[], $3::int4[]) u (scheduled_at, task_id, "
      "part) ON d.scheduled_at = u.scheduled_at AND d.task_id = u.task_id AND d.part = u.part ORDER BY "
      "d.scheduled_at, d.task_id, d.part FOR UPDATE OF d",
      PG_WRITE, true};
  PGresult *r[3] = {0};
  pgc_begin(s);
  pg_add_idem(&s->args, in->idem);
  pgw_i8(&s->args, 0);
  pgw_text0(&s->args, (struct slice){});
  pgc_add(s, &idem);
  add_keys(&s->args, in);
  pgc_add(s, &lock);
  int code = pgc_run(s, r, e);
  if (code == 0)
    *ret_repeat = !pgw_int(r[1], 0, 0);
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  return code;
}

static int act(struct pg_store *s, const struct st_dead_letter_handle *in, int64_t *ret_count,
               struct err *e) {
  /* $7 state, $8 by, $9 note, $10 is it a retry, $11 kind of the inbox rows */
  static const struct pg_sql q = {
      "dead_letter_handle",
      "WITH u AS MATERIALIZED (SELECT * FROM " DEEDS "), d AS (UPDATE dead_letter d SET state = $7::int4, "
      "handled_at = " PG_NOW ", handled_by = $8::text, note = $9::text, replay_run = u.replay_run FROM u "
      "WHERE d.scheduled_at = u.scheduled_at AND d.task_id = u.task_id AND d.part = u.part AND (d.state = 0 "
      "OR ($10::bool AND d.state <> 1)) RETURNING u.ord), "
      "i AS (INSERT INTO inbox (shard, kind, body) SELECT u.shard, $11::int4, u.body FROM u WHERE $7 = 1 AND "
      "($10 OR u.ord IN (SELECT ord FROM d)) ORDER BY u.ord RETURNING shard), "
      "n AS (SELECT pg_notify('" PG_CHANNEL "', shard::text) FROM (SELECT DISTINCT shard FROM i) x) "
      "SELECT (SELECT count(*) FROM d), (SELECT count(*) FROM n)",
      PG_WRITE, true};
  auto_result r = NULL;
  add_deeds(&s->args, in);
  pgw_i4(&s->args, (int32_t)in->state);
  pgw_text(&s->args, in->by);
  pgw_text(&s->args, filter_of(in->note));
  pgw_bool(&s->args, in->want == DEAD_LETTER_RETRY);
  pgw_i4(&s->args, in->count ? in->deeds[0].inbox.kind : 0);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    *ret_count = pgw_int(r, 0, 0);
  return code;
}

static int keep_answer(struct pg_store *s, const struct st_dead_letter_handle *in, int64_t count,
                       struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"dead_letter_answer",
                                  "UPDATE idempotency SET ref = $3::text WHERE route = $1::text AND key = "
                                  "$2::text",
                                  PG_WRITE};
  auto_result r = NULL;
  if (!in->idem)
    return 0;
  pgw_text0(&s->args, in->idem->route);
  pgw_text0(&s->args, in->idem->key);
  pgw_text0(&s->args, store_answer(count, in->ref, mem));
  return pgc_one(s, &q, &r, e);
}

/* Which refusal it is, when not all of them were OPEN. */
static int refuse(struct pg_store *s, const struct st_dead_letter_handle *in, struct arena *mem,
                  struct err *e) {
  struct st_dead_letter_get_ret got;
  for (size_t i = 0; i < in->count; i++) {
    int code = pg_dead_letter_get(&s->base, &(struct st_dead_letter_get){in->deeds[i].key}, &got, mem, e);
    if (code < 0)
      return code;
  }
  return err_set(e, ERR_CONFLICT, "the dead letter is not OPEN any more");
}

int pg_dead_letter_handle(struct store *store, const struct st_dead_letter_handle *in,
                          struct st_dead_letter_handle_ret *ret, struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  struct st_dead_letter_handle_ret out = {.ref = in->ref};
  bool repeat = false;
  int64_t no;
  int code = begin(s, in, &repeat, e);
  if (code == 0 && repeat) {
    pgc_rollback(s);
    code = pg_idem_first(s, in->idem, &no, &out.ref, mem, e);
    if (code == 1) {
      store_answer_read(out.ref, &out.count, &out.ref);
      *ret = out;
    }
    return code;
  }
  if (code == 0)
    code = act(s, in, &out.count, e);
  if (code == 0 && in->want == DEAD_LETTER_ALL_OPEN && out.count < (int64_t)in->count)
    code = refuse(s, in, mem, e);
  if (code == 0)
    code = keep_answer(s, in, out.count, mem, e);
  if (code < 0) {
    pgc_rollback(s);
    return code;
  }
  code = pgc_commit(s, e);
  out.ref = arena_slice(mem, out.ref);
  if (code == 0)
    *ret = out;
  return code;
}
