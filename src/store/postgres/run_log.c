/* What runs have logged: added in one statement, read by its key. */
#include "store/postgres/pg.h"

#define SAME_RUN(a, b)                                                                                       \
  a ".scheduled_at = " b ".scheduled_at AND " a ".task_id = " b ".task_id AND " a ".part = " b ".part"
#define THIS_RUN "scheduled_at = $1::int8 AND task_id = $2::int8 AND part = $3::int4"

_Static_assert(LOG_TAKEN == 0 && LOG_UNKNOWN == 1 && LOG_FORBIDDEN == 2, "numbers used in SQL");

/* ---------------------------------------------------------------- whose runs are they? */
static void add_entry_columns(struct pgw_args *a, const struct st_run_log_put *in) {
  pgw_array(a, PG_INT4_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i4(a, in->entries[i].key.shard);
  pgw_array_end(a);
  pgw_array(a, PG_INT8_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i8(a, in->entries[i].key.scheduled_at);
  pgw_array_end(a);
  pgw_array(a, PG_INT8_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i8(a, in->entries[i].key.task_id);
  pgw_array_end(a);
  pgw_array(a, PG_INT4_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_i4(a, in->entries[i].key.part);
  pgw_array_end(a);
  pgw_array(a, PG_TEXT_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_text(a, in->entries[i].ns);
  pgw_array_end(a);
  pgw_array(a, PG_TEXT_OID, in->count);
  for (size_t i = 0; i < in->count; i++)
    pgw_el_text(a, in->entries[i].group);
  pgw_array_end(a);
}

static int check_entries(struct pg_store *s, const struct st_run_log_put *in, struct log_put_result *results,
                         struct err *e) {
  static const struct pg_sql q = {"run_log_check",
                                  "SELECT CASE WHEN v.ns IS NULL THEN 1 WHEN u.ns <> '' AND u.ns <> v.ns OR "
                                  "u.grp <> '' AND u.grp <> v.group_name THEN 2 ELSE 0 END "
                                  "FROM unnest($1::int4[], $2::int8[], $3::int8[], $4::int4[], $5::text[], "
                                  "$6::text[]) WITH ORDINALITY "
                                  "u (shard, scheduled_at, task_id, part, ns, grp, ord) LEFT JOIN LATERAL "
                                  "(SELECT tv.ns, tv.group_name FROM "
                                  "(SELECT r.version FROM run r WHERE r.shard = u.shard AND " SAME_RUN(
                                      "r", "u") " UNION ALL SELECT h.version FROM run_history h "
                                                "WHERE " SAME_RUN("h", "u") " LIMIT 1) x JOIN "
                                                                            "task_version tv ON tv.task_id = "
                                                                            "u.task_id AND tv.version = "
                                                                            "x.version LIMIT 1) v ON true "
                                                                            "ORDER BY u.ord",
                                  PG_READ};
  auto_result r = NULL;
  add_entry_columns(&s->args, in);
  int code = pgc_one(s, &q, &r, e);
  for (size_t i = 0; code == 0 && i < in->count; i++)
    results[i].answer = (enum log_answer)pgw_int(r, (int)i, 0);
  return code;
}

/* ---------------------------------------------------------------- the lines */
/* $1 entry, $2 scheduled_at, $3 task, $4 part, $5 attempt, $6 seq, $7 at (0: not said), $8 level, $9 cut, $10 text: a line each;
 * $11 lines and $12 bytes of a run. l: each line once; n: those that are not there; k: which of them are kept. */
static const struct pg_sql sql_put = {
    "run_log_put",
    "WITH l AS MATERIALIZED (SELECT DISTINCT ON (scheduled_at, task_id, part, attempt, seq) * FROM "
    "unnest($1::int4[], $2::int8[], $3::int8[], $4::int4[], $5::int4[], $6::int4[], $7::int8[], $8::int4[], "
    "$9::int4[], $10::text[]) WITH ORDINALITY u (entry, scheduled_at, task_id, part, attempt, seq, at, "
    "level, cut, "
    "text, ord) ORDER BY scheduled_at, task_id, part, attempt, seq, ord), "
    "n AS MATERIALIZED (SELECT l.* FROM l WHERE NOT EXISTS (SELECT FROM run_log g WHERE " SAME_RUN(
        "g",
        "l") " AND g.attempt = l.attempt AND g.seq = l.seq OFFSET 0)), "
             "k AS MATERIALIZED (SELECT n.*, NOT coalesce(h.is_full, false) AND coalesce(h.lines, 0) + "
             "row_number() OVER w <= "
             "$11::int8 AND coalesce(h.bytes, 0) + sum(octet_length(n.text)) OVER w <= $12::int8 AS keep "
             "FROM n CROSS JOIN "
             "LATERAL (SELECT sum(d.lines) AS lines, sum(d.bytes) AS bytes, bool_or(d.is_full) AS is_full "
             "FROM run_log_head d "
             "WHERE " SAME_RUN(
                 "d",
                 "n") " OFFSET 0) h WINDOW w AS (PARTITION BY n.scheduled_at, n.task_id, n.part ORDER BY "
                      "n.ord)), "
                      "i AS (INSERT INTO run_log (scheduled_at, task_id, at, taken_at, part, attempt, seq, "
                      "cut, level, text) SELECT "
                      "scheduled_at, task_id, nullif(at, 0), " PG_NOW
                      ", part, attempt, seq, cut, level, text FROM k WHERE keep ORDER BY "
                      "scheduled_at, task_id, part, attempt, seq ON CONFLICT DO NOTHING), "
                      "h AS (INSERT INTO run_log_head AS d (scheduled_at, task_id, lines, bytes, part, "
                      "attempt, last_seq, is_full) SELECT "
                      "scheduled_at, task_id, count(*) FILTER (WHERE keep), coalesce(sum(octet_length(text)) "
                      "FILTER (WHERE keep), 0), "
                      "part, attempt, max(seq), bool_or(NOT keep) FROM k GROUP BY scheduled_at, task_id, "
                      "part, attempt ORDER BY "
                      "scheduled_at, task_id, part, attempt ON CONFLICT (scheduled_at, task_id, part, "
                      "attempt) DO UPDATE SET lines = "
                      "d.lines + excluded.lines, bytes = d.bytes + excluded.bytes, last_seq = "
                      "greatest(d.last_seq, excluded.last_seq), "
                      "is_full = d.is_full OR excluded.is_full) "
                      "SELECT entry, count(*) FILTER (WHERE keep), count(*) FILTER (WHERE NOT keep), "
                      "coalesce(sum(octet_length(text)) FILTER (WHERE keep), 0)::int8, "
                      "coalesce(sum(octet_length(text)) FILTER (WHERE NOT keep), 0)::int8 FROM k GROUP BY "
                      "entry",
    PG_WRITE};

struct line_ref { /* a line, and the entry that brought it */
  size_t entry;
  const struct log_line *line;
};

enum column {
  COL_ENTRY,
  COL_SCHEDULED_AT,
  COL_TASK,
  COL_PART,
  COL_ATTEMPT,
  COL_SEQ,
  COL_AT,
  COL_LEVEL,
  COL_CUT
};

static int64_t value_of(const struct st_run_log_put *in, const struct line_ref *l, enum column c) {
  const struct run_key *k = &in->entries[l->entry].key;
  switch (c) {
  case COL_ENTRY: return (int64_t)l->entry;
  case COL_SCHEDULED_AT: return k->scheduled_at;
  case COL_TASK: return k->task_id;
  case COL_PART: return k->part;
  case COL_ATTEMPT: return l->line->attempt;
  case COL_SEQ: return l->line->seq;
  case COL_AT: return l->line->at;
  case COL_LEVEL: return l->line->level;
  case COL_CUT: return l->line->cut;
  }
  return 0;
}

static void add_line_columns(struct pgw_args *a, const struct st_run_log_put *in,
                             const struct line_ref *lines, size_t n) {
  static const struct {
    enum column column;
    bool wide;
  } columns[] = {{COL_ENTRY, false}, {COL_SCHEDULED_AT, true}, {COL_TASK, true},
                 {COL_PART, false},  {COL_ATTEMPT, false},     {COL_SEQ, false},
                 {COL_AT, true},     {COL_LEVEL, false},       {COL_CUT, false}};
  for (size_t c = 0; c < sizeof columns / sizeof columns[0]; c++) {
    pgw_array(a, columns[c].wide ? PG_INT8_OID : PG_INT4_OID, n);
    for (size_t i = 0; i < n; i++) {
      int64_t v = value_of(in, &lines[i], columns[c].column);
      if (columns[c].wide)
        pgw_el_i8(a, v);
      else
        pgw_el_i4(a, (int32_t)v);
    }
    pgw_array_end(a);
  }
  pgw_array(a, PG_TEXT_OID, n);
  for (size_t i = 0; i < n; i++)
    pgw_el_text(a, lines[i].line->text.p ? lines[i].line->text : SLICE(""));
  pgw_array_end(a);
}

static int put_lines(struct pg_store *s, const struct st_run_log_put *in, struct log_put_result *results,
                     struct arena *mem, struct err *e) {
  size_t total = 0, n = 0;
  for (size_t i = 0; i < in->count; i++)
    total += results[i].answer == LOG_TAKEN ? in->entries[i].count : 0;
  if (!total)
    return 0;
  struct line_ref *lines = arena_array(mem, total, sizeof *lines);
  for (size_t i = 0; i < in->count; i++)
    for (size_t j = 0; results[i].answer == LOG_TAKEN && j < in->entries[i].count; j++)
      lines[n++] = (struct line_ref){i, &in->entries[i].lines[j]};
  auto_result r = NULL;
  add_line_columns(&s->args, in, lines, n);
  pgw_i8(&s->args, in->max_lines);
  pgw_i8(&s->args, in->max_bytes);
  int code = pgc_one(s, &sql_put, &r, e);
  for (int row = 0; code == 0 && row < PQntuples(r); row++) {
    struct pgw_cursor c = pgw_row_of(r, (size_t)row, mem);
    struct log_put_result *one = &results[pgw_next_int(&c)];
    one->taken = (int32_t)pgw_next_int(&c);
    one->dropped = (int32_t)pgw_next_int(&c);
    one->taken_bytes = pgw_next_int(&c);
    one->dropped_bytes = pgw_next_int(&c);
  }
  for (size_t i = 0; code == 0 && i < in->count; i++)
    if (results[i].answer == LOG_TAKEN)
      results[i].repeated = (int32_t)in->entries[i].count - results[i].taken - results[i].dropped;
  return code;
}

int pg_run_log_put(struct store *store, const struct st_run_log_put *in, struct st_run_log_put_ret *ret,
                   struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  struct log_put_result *results = arena_array(mem, in->count, sizeof *results);
  int code = check_entries(s, in, results, e);
  if (code == 0)
    code = put_lines(s, in, results, mem, e);
  if (code == 0)
    ret->results = results;
  return code;
}

/* ---------------------------------------------------------------- reading */
static void read_lines(const PGresult *r, struct st_run_log_list_ret *ret, struct arena *mem) {
  ret->count = (size_t)PQntuples(r);
  ret->lines = arena_array(mem, ret->count, sizeof *ret->lines);
  for (size_t i = 0; i < ret->count; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    struct log_line *l = &ret->lines[i];
    l->attempt = (int32_t)pgw_next_int(&c);
    l->seq = (int32_t)pgw_next_int(&c);
    l->level = (enum run_log_level)pgw_next_int(&c);
    l->at = pgw_next_int(&c);
    l->taken_at = pgw_next_int(&c);
    l->cut = (int32_t)pgw_next_int(&c);
    l->text = pgw_next_text(&c);
  }
}

static void read_heads(const PGresult *r, struct st_run_log_list_ret *ret, struct arena *mem) {
  size_t n = (size_t)PQntuples(r);
  ret->heads = arena_array(mem, n, sizeof *ret->heads);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, NULL);
    struct log_head h = {.attempt = (int32_t)pgw_next_int(&c)};
    h.last_seq = (int32_t)pgw_next_int(&c);
    h.lines = pgw_next_int(&c);
    h.bytes = pgw_next_int(&c);
    h.full = pgw_next_int(&c) != 0;
    ret->now = pgw_next_int(&c);
    if (h.attempt) /* the row without one is there for the clock */
      ret->heads[ret->head_count++] = h;
  }
}

static void add_key(struct pgw_args *a, const struct run_key *k) {
  pgw_i8(a, k->scheduled_at);
  pgw_i8(a, k->task_id);
  pgw_i4(a, k->part);
}

int pg_run_log_list(struct store *store, const struct st_run_log_list *in, struct st_run_log_list_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql lines = {
      "run_log_list",
      "SELECT attempt, seq, level, at, taken_at, cut, text FROM run_log WHERE " THIS_RUN
      " AND ($4::int4 = 0 OR attempt = $4) AND (attempt, seq) > ($5::int4, $6::int4) ORDER BY attempt, seq "
      "LIMIT "
      "$7::int4",
      PG_READ};
  static const struct pg_sql heads = {
      "run_log_heads",
      "SELECT coalesce(h.attempt, 0), h.last_seq, h.lines, h.bytes, h.is_full, " PG_NOW
      " FROM (SELECT 1) one LEFT JOIN (SELECT * FROM run_log_head WHERE " THIS_RUN
      ") h ON true ORDER BY h.attempt",
      PG_READ};
  struct pg_store *s = pg_of(store);
  PGresult *r[2] = {0};
  add_key(&s->args,
          &in->key); /* the heads first: of what they say all lines are read, but for what comes in between */
  pgc_add(s, &heads);
  add_key(&s->args, &in->key);
  pgw_i4(&s->args, in->attempt);
  pgw_i4(&s->args, in->after_attempt);
  pgw_i4(&s->args, in->after_seq);
  pgw_i4(&s->args, in->limit);
  pgc_add(s, &lines);
  int code = pgc_run(s, r, e);
  if (code == 0) {
    *ret = (struct st_run_log_list_ret){0};
    read_heads(r[0], ret, mem);
    read_lines(r[1], ret, mem);
  }
  pgr_clear(&r[0]);
  pgr_clear(&r[1]);
  return code;
}
