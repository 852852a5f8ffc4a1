/* Retention: ended runs leave run_history for run_old, a day's partition as it is or rows in small steps, and from there they go. */
#include "store/postgres/pg.h"
#include <stdio.h>

#define TAKE_LOCK_TIMEOUT                                                                                    \
  "50ms"                  /* of the lock on all of run_history: FINISH waits behind us so long at most */
#define DAYS_KEPT       1 /* yesterday and today are never taken as a whole: upkeep would make them again */
#define SETTLED_AFTER   USEC_PER_HOUR /* the end of a day: few of its runs are open then */
#define SETTLE_PATIENCE USEC_PER_HOUR /* for an index of a day */
#define FOLDED_ALL      INT64_MAX
#define NAME_MAX_BYTES  64

_Static_assert(RUN_SUCCESS == 2 && RUN_FAIL == 3 && RUN_CANCELLED == 4 && RUN_SKIPPED == 5,
               "numbers in the statements below");

/* The runs of `rows`, added up by task, into task_stat. Each of them leaves with this very statement, or is behind `folded`. */
#define FOLD(rows)                                                                                           \
  "INSERT INTO task_stat AS t SELECT task_id, count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE "    \
  "state = 3), count(*) FILTER (WHERE state = 4), count(*) FILTER (WHERE state = 5), sum(attempt), "         \
  "count(finished_at - started_at), coalesce(sum(finished_at - started_at), 0), "                            \
  "coalesce(max(finished_at - started_at), 0), "                                                             \
  "coalesce(max(scheduled_at) FILTER (WHERE state <> 5), 0), coalesce(max(started_at) FILTER (WHERE state "  \
  "<> 5), 0), coalesce(max(finished_at) FILTER (WHERE state <> 5), 0), "                                     \
  "coalesce((array_agg(state ORDER BY scheduled_at DESC, part DESC) FILTER (WHERE state <> 5))[1], -1) "     \
  "FROM " rows " GROUP BY task_id ORDER BY task_id ON CONFLICT (task_id) DO UPDATE SET "                     \
  "success = t.success + excluded.success, fail = t.fail + excluded.fail, cancelled = t.cancelled + "        \
  "excluded.cancelled, skipped = t.skipped + excluded.skipped, attempts = t.attempts + excluded.attempts, "  \
  "durations = t.durations + excluded.durations, duration_sum = t.duration_sum + excluded.duration_sum, "    \
  "duration_max = greatest(t.duration_max, excluded.duration_max), "                                         \
  "last_state = CASE WHEN excluded.last_state >= 0 AND excluded.last_scheduled_at >= t.last_scheduled_at "   \
  "THEN excluded.last_state ELSE t.last_state END, "                                                         \
  "last_scheduled_at = greatest(t.last_scheduled_at, excluded.last_scheduled_at), "                          \
  "last_started_at = greatest(t.last_started_at, excluded.last_started_at), "                                \
  "last_finished_at = greatest(t.last_finished_at, excluded.last_finished_at)"

/* A batch has a number of its own from its first run on. */
#define NEW_BATCH                                                                                            \
  "no = no + CASE WHEN EXISTS (SELECT FROM run_old) THEN 0 ELSE 1 END, archived = false, folded = 0"

/* ---------------------------------------------------------------- one node at a time */
/* 0: it is ours, 1: another session's. Kept until the connection ends. */
int pg_history_turn(struct pg_store *s, struct err *e) {
  static const struct pg_sql q = {"history_lock", "SELECT pg_try_advisory_lock($1::int8)", PG_READ};
  auto_result r = NULL;
  int code = pgc_ready(s, e);
  if (code < 0 || s->history_locked)
    return code;
  pgw_i8(&s->args, PG_HISTORY_LOCK);
  code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  s->history_locked = pgw_int(r, 0, 0) != 0;
  return s->history_locked ? 0 : 1;
}

static int command(struct pg_store *s, const char *text, struct err *e) {
  const struct pg_sql q = {"history", text, PG_READ, true};
  auto_result r = NULL;
  return pgc_one(s, &q, &r, e);
}

/* The former partition that is in the batch, "" = none. */
static int taken_day(struct pg_store *s, char name[NAME_MAX_BYTES], struct err *e) {
  static const struct pg_sql q = {
      "history_day",
      "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
      "WHERE i.inhparent = 'run_old'::regclass",
      PG_READ, true};
  auto_arena mem = {};
  auto_result r = NULL;
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  struct pgw_cursor c = pgw_row_of(r, 0, &mem);
  return text_copy(name, NAME_MAX_BYTES, PQntuples(r) ? pgw_next_text(&c) : (struct slice){});
}

int pg_history_batch(struct store *store, const struct st_history_batch *in, struct st_history_batch_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "history_batch",
      "SELECT b.no, b.archived, EXISTS (SELECT FROM pg_inherits WHERE inhparent = 'run_old'::regclass), "
      "(SELECT scheduled_at FROM run_old ORDER BY scheduled_at LIMIT 1), "
      "(SELECT scheduled_at FROM run_old ORDER BY scheduled_at DESC LIMIT 1), " PG_NOW
      " FROM history_batch b",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)in;
  (void)mem;
  int code = pg_history_turn(s, e);
  if (code == 0)
    code = pgc_one(s, &q, &r, e);
  if (code != 0)
    return code;
  struct pgw_cursor c = pgw_row_of(r, 0, NULL);
  ret->no = pgw_next_int(&c);
  ret->archived = pgw_next_int(&c);
  bool day = pgw_next_int(&c);
  ret->first = pgw_next_int(&c);
  ret->last = pgw_next_int(&c);
  ret->now = pgw_next_int(&c);
  ret->any = day || ret->last != 0;
  return 0;
}

/* ---------------------------------------------------------------- a day at once */
/* Does this day have a run that has not been over for long enough? The whole table is read, but nothing waits for that. */
static int day_is_over(struct pg_store *s, const char *name, usec_t before, bool *ret, struct err *e) {
  char text[256];
  snprintf(text, sizeof text, "SELECT EXISTS (SELECT FROM %s WHERE finished_at >= %" PRId64 ")", name,
           before);
  const struct pg_sql q = {"history_day_over", text, PG_READ, true};
  PGresult *r[4] = {0};
  pgc_begin(s);
  static const struct pg_sql plain = {"history_plain", "SET LOCAL enable_seqscan = on", PG_READ};
  static const struct pg_sql end = {"history_end", "COMMIT", PG_READ};
  pgc_add(s, &plain);
  pgc_add(s, &q);
  pgc_add(s, &end);
  int code = pgc_run(s, r, e);
  if (code == 0)
    *ret = !pgw_int(r[2], 0, 0);
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  s->in_tx = false;
  if (code < 0)
    pgc_drop(s); /* whatever state it is in */
  return code;
}

/* One short transaction; all of run_history is locked for it. */
static int detach(struct pg_store *s, const char *name, struct err *e) {
  char text[2][160];
  snprintf(text[0], sizeof text[0], "ALTER TABLE run_history DETACH PARTITION %s", name);
  snprintf(text[1], sizeof text[1], "ALTER TABLE %s INHERIT run_old", name);
  static const struct pg_sql timeout = {"history_timeout", "SET LOCAL lock_timeout = '" TAKE_LOCK_TIMEOUT "'",
                                        PG_READ};
  static const struct pg_sql begin = {"history_begin", "UPDATE history_batch SET " NEW_BATCH, PG_READ};
  PGresult *r[3] = {0};
  pgc_begin(s);
  pgc_add(s, &timeout);
  pgc_add(s, &begin);
  int code = pgc_run(s, r, e);
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  for (size_t i = 0; code == 0 && i < 2; i++)
    code = command(s, text[i], e);
  if (code == 0)
    return pgc_commit(s, e);
  bool busy = pgc_refused(s, PG_LOCK_NOT_AVAILABLE);
  pgc_rollback(s);
  return busy ? err_set(e, ERR_BUSY, "the history is in use") : code;
}

int pg_history_take_day(struct store *store, const struct st_history_take_day *in,
                        struct st_history_take_day_ret *ret, struct arena *mem, struct err *e) {
  /* the days that end before `before`, oldest first */
  static const struct pg_sql q = {
      "history_days",
      "SELECT c.relname::text, d.day FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid CROSS JOIN "
      "LATERAL (SELECT " PG_DAY_OF(
          "c.relname") " AS day) d WHERE i.inhparent = 'run_history'::regclass AND d.day + 86400000000 <= "
                       "least($1::int8, (" PG_NOW " / 86400000000 - $2::int4) * 86400000000) ORDER BY 1",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  char name[NAME_MAX_BYTES];
  bool over = false;
  usec_t day = 0;
  int code = pg_history_turn(s, e);
  if (code != 0)
    return code;
  pgw_i8(&s->args, in->before);
  pgw_i4(&s->args, DAYS_KEPT);
  code = pgc_one(s, &q, &r, e);
  for (int row = 0; code == 0 && !over && row < PQntuples(r); row++) {
    struct pgw_cursor c = pgw_row_of(r, (size_t)row, mem);
    code = text_copy(name, sizeof name, pgw_next_text(&c));
    day = pgw_next_int(&c);
    over = code == 0 && strcmp(name, s->day_over) == 0; /* it was in use a moment ago */
    if (code == 0 && !over)
      code = day_is_over(s, name, in->before, &over, e);
  }
  s->day_over[0] = '\0';
  if (code == 0 && over)
    code = detach(s, name, e);
  if (code == ERR_BUSY)
    (void)text_copy(s->day_over, sizeof s->day_over, slice_of(name)); /* run_history_YYYYMMDD fits */
  if (code == 0)
    *ret = (struct st_history_take_day_ret){over, day};
  return code;
}

/* ---------------------------------------------------------------- rows in small steps */
/* The first day table that may hold a run after `after` and before `before`; "" = none. */
static int next_table(struct pg_store *s, usec_t after, usec_t before, char name[NAME_MAX_BYTES],
                      usec_t *ret_end, struct err *e) {
  static const struct pg_sql q = {
      "history_table",
      "SELECT c.relname::text, d.day + 86400000000 FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
      "CROSS JOIN "
      "LATERAL (SELECT " PG_DAY_OF(
          "c.relname") " AS day) d WHERE i.inhparent = 'run_history'::regclass "
                       "AND d.day + 86399999999 > $1::int8 AND d.day < $2::int8 ORDER BY 2 LIMIT 1",
      PG_READ};
  auto_arena mem = {};
  auto_result r = NULL;
  pgw_i8(&s->args, after);
  pgw_i8(&s->args, before);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  name[0] = '\0';
  if (PQntuples(r) == 0)
    return 0;
  struct pgw_cursor c = pgw_row_of(r, 0, &mem);
  code = text_copy(name, NAME_MAX_BYTES, pgw_next_text(&c));
  *ret_end = pgw_next_int(&c);
  return code;
}

/* $1 scheduled_at, $2 task, $3 part: after these; $4 before, $5 scan, $6 limit, $7 namespaces (NULL = all) */
#define TAKE_TEXT                                                                                            \
  "WITH s AS MATERIALIZED (SELECT h.ctid AS at, h.scheduled_at, h.task_id, h.part, (h.finished_at IS NULL "  \
  "OR h.finished_at < $4::int8) AND ($7::text[] IS NULL OR EXISTS (SELECT FROM task t WHERE t.shard = "      \
  "h.shard AND t.id = h.task_id AND t.ns = ANY ($7) OFFSET 0)) AS goes FROM %s h WHERE (h.scheduled_at, "    \
  "h.task_id, h.part) > ($1::int8, $2::int8, $3::int4) AND h.scheduled_at >= $1 AND h.scheduled_at < $4 "    \
  "ORDER BY h.scheduled_at, h.task_id, h.part LIMIT $5::int4), "                                             \
  "d AS (DELETE FROM %s WHERE ctid = ANY (ARRAY (SELECT at FROM s WHERE goes ORDER BY scheduled_at, "        \
  "task_id, part LIMIT $6::int4)) RETURNING *), "                                                            \
  "o AS (INSERT INTO run_old SELECT * FROM d RETURNING 1), "                                                 \
  "b AS (UPDATE history_batch SET " NEW_BATCH " WHERE EXISTS (SELECT FROM s WHERE goes)) "                   \
  "SELECT (SELECT count(*) FROM o), (SELECT count(*) FROM s), (SELECT count(*) FROM s WHERE goes), "         \
  "l.scheduled_at, l.task_id, l.part FROM (SELECT 1) one LEFT JOIN LATERAL (SELECT * FROM s "                \
  "ORDER BY scheduled_at DESC, task_id DESC, part DESC LIMIT 1) l ON true"

static int take_from(struct pg_store *s, const struct st_history_take *in, const char *name,
                     const struct run_key *after, struct st_history_take_ret *ret, struct err *e) {
  char text[sizeof TAKE_TEXT + (size_t)2 * NAME_MAX_BYTES];
  snprintf(text, sizeof text, TAKE_TEXT, name, name);
  const struct pg_sql q = {"history_take", text, PG_WRITE, true};
  auto_result r = NULL;
  pgw_i8(&s->args, after->scheduled_at);
  pgw_i8(&s->args, after->task_id);
  pgw_i4(&s->args, after->part);
  pgw_i8(&s->args, in->before);
  pgw_i4(&s->args, in->scan);
  pgw_i4(&s->args, in->limit);
  if (in->ns_count) {
    pgw_array(&s->args, PG_TEXT_OID, in->ns_count);
    for (size_t i = 0; i < in->ns_count; i++)
      pgw_el_text(&s->args, in->ns[i]);
    pgw_array_end(&s->args);
  } else {
    pgw_text(&s->args, (struct slice){});
  }
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  struct pgw_cursor c = pgw_row_of(r, 0, NULL);
  ret->taken = pgw_next_int(&c);
  int64_t seen = pgw_next_int(&c), wanted = pgw_next_int(&c);
  ret->more = seen >= in->scan || wanted > ret->taken;
  ret->last = *after;
  if (seen) {
    ret->last.scheduled_at = pgw_next_int(&c);
    ret->last.task_id = pgw_next_int(&c);
    ret->last.part = (int32_t)pgw_next_int(&c);
  }
  if (wanted > ret->taken)
    ret->last = *after; /* the rest of these first */
  return 0;
}

int pg_history_take(struct store *store, const struct st_history_take *in, struct st_history_take_ret *ret,
                    struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  struct run_key after = {.scheduled_at = INT64_MIN, .task_id = INT64_MIN, .part = INT32_MIN};
  struct st_history_take_ret out = {};
  char name[NAME_MAX_BYTES] = "run_history_default";
  usec_t end = 0;
  (void)mem;
  if (in->after)
    after = *in->after;
  int code = pg_history_turn(s, e);
  if (code == 0 && !in->strays)
    code = next_table(s, after.scheduled_at, in->before, name, &end, e);
  if (code != 0)
    return code;
  if (name[0])
    code = take_from(s, in, name, &after, &out, e);
  if (code < 0)
    return code;
  if (name[0] && !in->strays && !out.more) { /* on with the next day */
    out.last = (struct run_key){.scheduled_at = end - 1, .task_id = INT64_MAX, .part = INT32_MAX};
    out.more = end < in->before;
  }
  *ret = out;
  return 0;
}

#define OLD_AFTER "(o.scheduled_at, o.task_id, o.part) > ($1::int8, $2::int8, $3::int4)"
#define OLD_ORDER " ORDER BY o.scheduled_at, o.task_id, o.part"

static void add_after(struct pg_store *s, const struct run_key *after, int32_t limit) {
  pgw_i8(&s->args, after ? after->scheduled_at : INT64_MIN);
  pgw_i8(&s->args, after ? after->task_id : INT64_MIN);
  pgw_i4(&s->args, after ? after->part : INT32_MIN);
  pgw_i4(&s->args, limit);
}

static void read_attempt(struct pgw_cursor *c, struct attempt_row *a) {
  a->attempt = (int32_t)pgw_next_int(c);
  a->state = (enum run_state)pgw_next_int(c);
  a->reason = (enum run_reason)pgw_next_int(c);
  a->dispatched_at = pgw_next_int(c);
  a->started_at = pgw_next_int(c);
  a->finished_at = pgw_next_int(c);
  a->executor = pgw_next_text(c);
  a->error_type = pgw_next_text(c);
  a->error_message = pgw_next_text(c);
}

/* Both in the order of the key: one walk. */
static void give_attempts(const PGresult *r, struct history_row *rows, size_t count, struct arena *mem) {
  size_t n = (size_t)PQntuples(r), at = 0;
  struct attempt_row *all = arena_array(mem, n, sizeof *all);
  for (size_t i = 0; i < count; i++) {
    rows[i].attempts = all + at;
    for (; at < n; at++) {
      struct pgw_cursor c = pgw_row_of(r, at, mem);
      const struct run_key *k = &rows[i].r.run.key;
      if (pgw_next_int(&c) != k->scheduled_at || pgw_next_int(&c) != k->task_id ||
          pgw_next_int(&c) != k->part)
        break;
      all[at].key = *k;
      read_attempt(&c, &all[at]);
      rows[i].attempt_count++;
    }
  }
}

int pg_history_read(struct store *store, const struct st_history_read *in, struct st_history_read_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql runs = {
      "history_read",
      "SELECT " PG_RUN_ENDED(
          "o.") ", t.name, t.ns FROM (SELECT * FROM run_old o WHERE " OLD_AFTER OLD_ORDER
                " LIMIT $4::int4) o LEFT JOIN LATERAL (SELECT name, ns FROM task WHERE shard = "
                "o.shard AND id = o.task_id OFFSET 0) t ON true" OLD_ORDER,
      PG_READ};
  static const struct pg_sql attempts = {
      "history_read_attempts",
      "SELECT a.scheduled_at, a.task_id, a.part, a.attempt, a.state, a.reason, a.dispatched_at, "
      "a.started_at, "
      "a.finished_at, a.executor, a.error_type, a.error_message FROM (SELECT scheduled_at, task_id, part "
      "FROM "
      "run_old o WHERE " OLD_AFTER OLD_ORDER " LIMIT $4::int4) o CROSS JOIN LATERAL (SELECT * FROM attempt a "
      "WHERE a.scheduled_at = o.scheduled_at AND a.task_id = o.task_id AND a.part = o.part OFFSET 0) a "
      "ORDER BY a.scheduled_at, a.task_id, a.part, a.attempt",
      PG_READ};
  struct pg_store *s = pg_of(store);
  PGresult *r[2] = {0};
  int code = pg_history_turn(s, e);
  if (code != 0)
    return code;
  add_after(s, in->after, in->limit);
  pgc_add(s, &runs);
  add_after(s, in->after, in->limit);
  pgc_add(s, &attempts);
  code = pgc_run(s, r, e);
  if (code == 0) {
    ret->count = (size_t)PQntuples(r[0]);
    ret->rows = arena_array(mem, ret->count, sizeof *ret->rows);
    for (size_t i = 0; i < ret->count; i++) {
      struct pgw_cursor c = pgw_row_of(r[0], i, mem);
      pg_read_run(&c, &ret->rows[i].r.run);
      ret->rows[i].r.task_name = pgw_next_text(&c);
      ret->rows[i].r.ns = pgw_next_text(&c);
    }
    give_attempts(r[1], ret->rows, ret->count, mem);
  }
  pgr_clear(&r[0]);
  pgr_clear(&r[1]);
  return code;
}

int pg_history_archived(struct store *store, const struct st_history_archived *in,
                        struct st_history_archived_ret *ret, struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"history_archived",
                                  "UPDATE history_batch SET archived = true WHERE no = $1::int8 RETURNING 1",
                                  PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  int code = pg_history_turn(s, e);
  if (code != 0)
    return code;
  pgw_i8(&s->args, in->no);
  code = pgc_one(s, &q, &r, e);
  if (code == 0 && PQntuples(r) == 0)
    code = err_set(e, ERR_STALE, "the batch %" PRId64 " is done already", in->no);
  return code;
}

/* ---------------------------------------------------------------- away */
/* Rows of run_old itself. */
static int drop_rows(struct pg_store *s, int32_t limit, int64_t *ret_dropped, struct err *e) {
  static const struct pg_sql q = {
      "history_drop_rows",
      "WITH d AS (DELETE FROM ONLY run_old WHERE ctid = ANY (ARRAY (SELECT ctid FROM ONLY run_old ORDER BY "
      "scheduled_at, task_id, part LIMIT $1::int4)) RETURNING *), "
      "a AS (DELETE FROM attempt WHERE ctid = ANY (ARRAY (SELECT a.at FROM d CROSS JOIN LATERAL (SELECT ctid "
      "AS "
      "at FROM attempt a WHERE a.scheduled_at = d.scheduled_at AND a.task_id = d.task_id AND a.part = d.part "
      "OFFSET 0) a))), l AS (DELETE FROM run_log_head WHERE ctid = ANY (ARRAY (SELECT l.at FROM d CROSS JOIN "
      "LATERAL "
      "(SELECT ctid AS at FROM run_log_head l WHERE l.scheduled_at = d.scheduled_at AND l.task_id = "
      "d.task_id AND "
      "l.part = d.part OFFSET 0) l))), f AS (DELETE FROM dead_letter WHERE ctid = ANY (ARRAY (SELECT l.at "
      "FROM d CROSS JOIN LATERAL (SELECT ctid AS at FROM dead_letter l WHERE l.scheduled_at = d.scheduled_at "
      "AND l.task_id = d.task_id AND l.part = d.part OFFSET 0) l WHERE d.state = 3))), t AS (" FOLD(
          "d") ") SELECT count(*) FROM d",
      PG_WRITE};
  auto_result r = NULL;
  pgw_i4(&s->args, limit);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    *ret_dropped = pgw_int(r, 0, 0);
  return code;
}

/* The former partition's runs, task by task. 1: all of them have been added up. */
static int fold_some(struct pg_store *s, const char *name, int32_t limit, struct err *e) {
  static const char format[] = "WITH b AS MATERIALIZED (SELECT folded, coalesce((SELECT task_id FROM %s "
                               "WHERE task_id > folded ORDER BY task_id "
                               "OFFSET $1::int4 LIMIT 1), $2::int8) AS upto FROM history_batch), t AS (" FOLD(
                                   "%s WHERE task_id > (SELECT folded FROM b) AND task_id <= (SELECT upto "
                                   "FROM b)") ") "
                                              "UPDATE history_batch SET "
                                              "folded = (SELECT upto "
                                              "FROM b) RETURNING folded";
  char text[sizeof format + (size_t)2 * NAME_MAX_BYTES];
  snprintf(text, sizeof text, format, name, name);
  const struct pg_sql q = {"history_fold", text, PG_WRITE, true};
  auto_result r = NULL;
  pgw_i4(&s->args, limit);
  pgw_i8(&s->args, FOLDED_ALL);
  int code = pgc_one(s, &q, &r, e);
  return code < 0 ? code : pgw_int(r, 0, 0) == FOLDED_ALL;
}

/* What hangs on the former partition's runs: their attempts, their dead letters. 1: none is left. */
static int drop_followers(struct pg_store *s, const char *table, const char *name, int32_t limit,
                          struct err *e) {
  static const char format[] =
      "WITH r AS MATERIALIZED (SELECT (SELECT scheduled_at FROM %s ORDER BY scheduled_at LIMIT 1) AS first, "
      "(SELECT scheduled_at FROM %s ORDER BY scheduled_at DESC LIMIT 1) AS last), "
      "d AS (DELETE FROM %s WHERE ctid = ANY (ARRAY (SELECT a.ctid FROM %s a WHERE a.scheduled_at "
      ">= (SELECT first FROM r) AND a.scheduled_at <= (SELECT last FROM r) AND EXISTS (SELECT FROM %s o "
      "WHERE "
      "o.scheduled_at = a.scheduled_at AND o.task_id = a.task_id AND o.part = a.part OFFSET 0) ORDER BY "
      "a.scheduled_at LIMIT $1::int4)) RETURNING 1) SELECT count(*) FROM d";
  char text[sizeof format + (size_t)5 * NAME_MAX_BYTES];
  snprintf(text, sizeof text, format, name, name, table, table, name);
  const struct pg_sql q = {"history_drop_followers", text, PG_WRITE, true};
  auto_result r = NULL;
  pgw_i4(&s->args, limit);
  int code = pgc_one(s, &q, &r, e);
  return code < 0 ? code : pgw_int(r, 0, 0) < limit;
}

/* The former partition, when nothing hangs on its runs any more. 1: it is gone. */
static int drop_day(struct pg_store *s, const char *name, int32_t limit, struct err *e) {
  int r = fold_some(s, name, limit, e);
  if (r == 1)
    r = drop_followers(s, "attempt", name, limit, e);
  if (r == 1)
    r = drop_followers(s, "dead_letter", name, limit, e);
  if (r != 1)
    return r;
  char text[NAME_MAX_BYTES + 32];
  snprintf(text, sizeof text, "DROP TABLE %s", name);
  r = command(s, text, e);
  return r < 0 ? r : 1;
}

int pg_history_drop(struct store *store, const struct st_history_drop *in, struct st_history_drop_ret *ret,
                    struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  char name[NAME_MAX_BYTES];
  int64_t dropped = 0;
  (void)mem;
  int64_t lines = 0;
  int code = pg_history_turn(s, e);
  if (code == 0)
    code = pg_log_drop_taken(s, in->limit, &lines, e);
  if (code == 0 && lines >= in->limit) { /* the rest of their logs first */
    ret->more = true;
    return 0;
  }
  if (code == 0)
    code = drop_rows(s, in->limit, &dropped, e);
  if (code == 0 && dropped == 0)
    code = taken_day(s, name, e);
  if (code != 0)
    return code;
  int done = dropped == 0;
  if (done && name[0])
    done = drop_day(s, name, in->limit, e);
  if (done < 0)
    return done;
  ret->more = !done;
  return 0;
}

/* ---------------------------------------------------------------- a day that is over */
/* The newest one that has not been settled; what an earlier try has left of its index; "" = none. */
static int unsettled(struct pg_store *s, char name[NAME_MAX_BYTES], bool *ret_rest, struct err *e) {
  static const struct pg_sql q = {
      "history_unsettled",
      "SELECT c.relname::text, x.indexrelid IS NOT NULL FROM pg_inherits i JOIN pg_class c ON c.oid = "
      "i.inhrelid "
      "LEFT JOIN pg_index x ON x.indexrelid = to_regclass(c.relname || '_executor') WHERE i.inhparent = "
      "'run_history'::regclass AND " PG_DAY_OF(
          "c.relname") " + 86400000000 + $1::int8 <= " PG_NOW
                       " AND NOT coalesce(x.indisvalid, false) ORDER BY 1 DESC LIMIT 1",
      PG_READ};
  auto_arena mem = {};
  auto_result r = NULL;
  pgw_i8(&s->args, SETTLED_AFTER);
  int code = pgc_one(s, &q, &r, e);
  name[0] = '\0';
  if (code < 0 || PQntuples(r) == 0)
    return code;
  struct pgw_cursor c = pgw_row_of(r, 0, &mem);
  code = text_copy(name, NAME_MAX_BYTES, pgw_next_text(&c));
  *ret_rest = pgw_next_int(&c);
  return code;
}

int pg_history_settle(struct store *store, const struct st_history_settle *in,
                      struct st_history_settle_ret *ret, struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  char name[NAME_MAX_BYTES] = "", text[3 * NAME_MAX_BYTES + 120];
  bool rest = false;
  (void)in;
  (void)mem;
  int code = pg_history_turn(s, e);
  if (code == 0)
    code = unsettled(s, name, &rest, e);
  if (code == 0 && rest) {
    snprintf(text, sizeof text, "DROP INDEX %s_executor", name);
    code = command(s, text, e);
  }
  if (code == 0 && name[0]) {
    code = command(s, "SET statement_timeout = 0", e);
    s->patience = SETTLE_PATIENCE;
    snprintf(text, sizeof text,
             "CREATE INDEX CONCURRENTLY %s_executor ON %s (executor, scheduled_at, task_id, part) WHERE "
             "executor IS NOT NULL",
             name, name);
    if (code == 0)
      code = command(s, text, e);
    s->patience = 0;
    snprintf(text, sizeof text, "SET statement_timeout = %" PRId64,
             s->source->statement_timeout / USEC_PER_MS);
    if (s->conn && command(s, text, NULL) < 0)
      pgc_drop(s);
  }
  if (code == 0)
    ret->more = name[0] != '\0';
  return code;
}
