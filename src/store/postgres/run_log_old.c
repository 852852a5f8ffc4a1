/* Logs that go: with their runs, or before them; a day's partition at once wherever that can be. */
#include "store/postgres/pg.h"
#include <stdio.h>

#define DROP_LOCK_TIMEOUT                                                                                    \
  "50ms"                 /* of the lock on all of run_log: who writes logs waits behind us so long at most */
#define DAYS_KEPT      1 /* yesterday and today never go as a whole: upkeep would make them again */
#define NAME_MAX_BYTES 64
#define SAME_RUN(a, b)                                                                                       \
  a ".scheduled_at = " b ".scheduled_at AND " a ".task_id = " b ".task_id AND " a ".part = " b ".part"
/* A run of that key that has not ended; the index of `run` begins with the shard. */
#define OPEN_RUN(t)                                                                                          \
  "EXISTS (SELECT FROM run r WHERE r.shard IN (SELECT id FROM shard) AND " SAME_RUN("r", t) " OFFSET 0)"

int pg_log_drop_taken(struct pg_store *s, int32_t limit, int64_t *ret_lines, struct err *e) {
  static const struct pg_sql q = {
      "run_log_drop",
      "WITH x AS MATERIALIZED (SELECT l.* FROM (SELECT scheduled_at, task_id, part FROM ONLY run_old ORDER "
      "BY "
      "scheduled_at, task_id, part LIMIT $1::int4) o CROSS JOIN LATERAL (SELECT l.scheduled_at, l.task_id, "
      "l.part, "
      "l.attempt, l.seq FROM run_log l WHERE " SAME_RUN(
          "l",
          "o") " LIMIT $1) l LIMIT $1), "
               "d AS (DELETE FROM run_log l USING x WHERE " SAME_RUN(
                   "l",
                   "x") " AND l.attempt = x.attempt AND l.seq = x.seq RETURNING 1) SELECT count(*) FROM d",
      PG_WRITE};
  auto_result r = NULL;
  pgw_i4(&s->args, limit);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    *ret_lines = pgw_int(r, 0, 0);
  return code;
}

/* ---------------------------------------------------------------- whole days */
/* The oldest day that may go: it is old enough, or its runs are no more; and none of its runs is open. "" = none. */
static int find_day(struct pg_store *s, usec_t before, char name[NAME_MAX_BYTES], usec_t *ret_day,
                    struct err *e) {
  static const struct pg_sql q = {
      "run_log_days",
      "SELECT name, day FROM (SELECT c.relname::text AS name, " PG_DAY_OF(
          "c.relname") " AS day FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = "
                       "'run_log'::regclass OFFSET 0) p WHERE day + 86400000000 <= (" PG_NOW
                       " / 86400000000 - $2::int4) * 86400000000 AND (day + 86400000000 <= $1::int8 OR "
                       "to_regclass('run_history' || "
                       "substr(name, 8)) IS NULL AND NOT EXISTS (SELECT FROM run_history h WHERE "
                       "h.scheduled_at >= day AND "
                       "h.scheduled_at < day + 86400000000 OFFSET 0)) AND NOT EXISTS (SELECT FROM run r "
                       "WHERE r.shard IN (SELECT id "
                       "FROM shard) AND r.scheduled_at >= day AND r.scheduled_at < day + 86400000000 OFFSET "
                       "0) ORDER BY day LIMIT 1",
      PG_READ, true};
  auto_arena mem = {};
  auto_result r = NULL;
  name[0] = '\0';
  pgw_i8(&s->args, before);
  pgw_i4(&s->args, DAYS_KEPT);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0 || PQntuples(r) == 0)
    return code;
  struct pgw_cursor c = pgw_row_of(r, 0, &mem);
  code = text_copy(name, NAME_MAX_BYTES, pgw_next_text(&c));
  *ret_day = pgw_next_int(&c);
  return code;
}

/* One short transaction; all of run_log is locked for it. 1: it was in use, at another time. */
static int drop_table(struct pg_store *s, const char *name, struct err *e) {
  char text[NAME_MAX_BYTES + 32];
  static const struct pg_sql timeout = {"run_log_timeout", "SET LOCAL lock_timeout = '" DROP_LOCK_TIMEOUT "'",
                                        PG_READ};
  snprintf(text, sizeof text, "DROP TABLE %s", name);
  const struct pg_sql drop = {"run_log_drop_day", text, PG_WRITE, true};
  PGresult *r[3] = {0};
  pgc_begin(s);
  pgc_add(s, &timeout);
  pgc_add(s, &drop);
  int code = pgc_run(s, r, e);
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  if (code == 0)
    return pgc_commit(s, e);
  bool busy = pgc_refused(s, PG_LOCK_NOT_AVAILABLE);
  pgc_rollback(s);
  return busy ? 1 : code;
}

static int drop_day(struct pg_store *s, const char *name, usec_t day, int32_t limit,
                    struct st_run_log_expire_ret *ret, struct err *e) {
  static const struct pg_sql q = {"run_log_drop_heads",
                                  "WITH d AS (DELETE FROM run_log_head WHERE ctid = ANY (ARRAY (SELECT ctid "
                                  "FROM run_log_head WHERE scheduled_at "
                                  ">= $1::int8 AND scheduled_at < $1 + 86400000000 ORDER BY scheduled_at "
                                  "LIMIT $2::int4)) RETURNING 1) SELECT "
                                  "count(*) FROM d",
                                  PG_WRITE};
  auto_result r = NULL;
  pgw_i8(&s->args, day);
  pgw_i4(&s->args, limit);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  *ret = (struct st_run_log_expire_ret){.more = true};
  if (pgw_int(r, 0, 0) >= limit)
    return 0;
  code = drop_table(s, name, e);
  ret->removed = code == 0 ? -1 : 0;
  ret->more = code == 0;
  return code < 0 ? code : 0;
}

/* ---------------------------------------------------------------- what stands in no day's table */
#define OLDEST_ENDED  " AND NOT " OPEN_RUN("l") " ORDER BY l.scheduled_at LIMIT $2::int4)) RETURNING 1"
#define WITHOUT_LINES " AND NOT EXISTS (SELECT FROM run_log g WHERE " SAME_RUN("g", "l") " OFFSET 0)"
#define FIRST_DAY                                                                                            \
  "(SELECT min(" PG_DAY_OF("c.relname") ") FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE "  \
                                        "i.inhparent = 'run_log'::regclass)"

/* Heads of days that have a table go with it: only those before the oldest one are looked at, or a whole day of them would be, each time. */
static int drop_strays(struct pg_store *s, const struct st_run_log_expire *in,
                       struct st_run_log_expire_ret *ret, struct err *e) {
  static const struct pg_sql q = {
      "run_log_expire",
      "WITH d AS (DELETE FROM run_log_default WHERE ctid = ANY (ARRAY (SELECT l.ctid FROM run_log_default l "
      "WHERE l.scheduled_at < $1::int8" OLDEST_ENDED
      "), h AS (DELETE FROM run_log_head WHERE ctid = ANY (ARRAY "
      "(SELECT l.ctid FROM run_log_head l WHERE l.scheduled_at < least($1, " FIRST_DAY
      ")" WITHOUT_LINES OLDEST_ENDED ") SELECT (SELECT count(*) FROM d), (SELECT count(*) FROM h)",
      PG_WRITE};
  auto_result r = NULL;
  pgw_i8(&s->args, in->before);
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    *ret = (struct st_run_log_expire_ret){.removed = pgw_int(r, 0, 0),
                                          .more = pgw_int(r, 0, 0) > 0 || pgw_int(r, 0, 1) >= in->limit};
  return code;
}

int pg_run_log_expire(struct store *store, const struct st_run_log_expire *in,
                      struct st_run_log_expire_ret *ret, struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  struct st_run_log_expire_ret out = {0};
  char name[NAME_MAX_BYTES];
  usec_t day = 0;
  (void)mem;
  int code = pg_history_turn(s, e);
  if (code == 0)
    code = find_day(s, in->before, name, &day, e);
  if (code != 0)
    return code;
  if (name[0])
    code = drop_day(s, name, day, in->limit, &out, e);
  if (code == 0 && !out.more) {
    int64_t removed = out.removed;
    code = drop_strays(s, in, &out, e);
    out.removed = removed ? removed : out.removed;
  }
  if (code == 0)
    *ret = out;
  return code;
}
