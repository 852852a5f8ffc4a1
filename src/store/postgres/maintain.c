/* Upkeep: vacuum of what is written all the time, partitions of run_history and run_log ahead of the time. */
#include "store/postgres/pg.h"
#include <stdio.h>

#define PARTITIONS_BEFORE_DAYS 1
#define PARTITIONS_AHEAD_DAYS  3
#define DDL_LOCK_TIMEOUT       "500ms" /* FINISH shall not wait for us longer */

struct day {
  usec_t from, to;
  char name[40], of[24]; /* of: the table that it is a part of */
};

static int ddl(struct pg_store *s, struct err *e, const char *text) {
  const struct pg_sql q = {"ddl", text, PG_READ, true};
  auto_result r = NULL;
  return pgc_one(s, &q, &r, e);
}

static int make_partition(struct pg_store *s, const struct day *d, struct err *e) {
  char text[256];
  snprintf(text, sizeof text,
           "CREATE TABLE IF NOT EXISTS %s PARTITION OF %s FOR VALUES FROM (%" PRId64 ") TO (%" PRId64 ")",
           d->name, d->of, d->from, d->to);
  return ddl(s, e, text);
}

/* The default partition holds rows of that day: take them along. Nobody else may insert meanwhile. */
static int make_partition_of_default(struct pg_store *s, const struct day *d, struct err *e) {
  char text[5][320];
  int r = 0;
  snprintf(text[0], sizeof text[0], "LOCK TABLE %s, %s_default IN ACCESS EXCLUSIVE MODE", d->of, d->of);
  snprintf(text[1], sizeof text[1], "CREATE TABLE %s (LIKE %s INCLUDING ALL)", d->name, d->of);
  snprintf(text[2], sizeof text[2],
           "INSERT INTO %s SELECT * FROM %s_default WHERE scheduled_at >= %" PRId64
           " AND scheduled_at < %" PRId64,
           d->name, d->of, d->from, d->to);
  snprintf(text[3], sizeof text[3],
           "DELETE FROM %s_default WHERE scheduled_at >= %" PRId64 " AND scheduled_at < %" PRId64, d->of,
           d->from, d->to);
  snprintf(text[4], sizeof text[4],
           "ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%" PRId64 ") TO (%" PRId64 ")", d->of,
           d->name, d->from, d->to);
  for (size_t i = 0; r == 0 && i < sizeof text / sizeof text[0]; i++)
    r = ddl(s, e, text[i]);
  return r;
}

/* One transaction; 1: another node is at it. */
static int in_transaction(struct pg_store *s, const struct day *d,
                          int (*make)(struct pg_store *, const struct day *, struct err *), struct err *e) {
  static const struct pg_sql timeout = {"upkeep_timeout", "SET LOCAL lock_timeout = '" DDL_LOCK_TIMEOUT "'",
                                        PG_READ};
  static const struct pg_sql lock = {"upkeep_lock", "SELECT pg_try_advisory_xact_lock($1::int8)", PG_READ};
  PGresult *r[3] = {0};
  pgc_begin(s);
  pgc_add(s, &timeout);
  pgw_i8(&s->args, PG_UPKEEP_LOCK);
  pgc_add(s, &lock);
  int code = pgc_run(s, r, e);
  if (code == 0)
    code = pgw_int(r[2], 0, 0) ? make(s, d, e) : 1;
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  if (code == 0)
    return pgc_commit(s, e);
  pgc_rollback(s);
  return code;
}

int pg_make_partitions(struct pg_store *s, struct err *e) {
  static const struct pg_sql q = {
      "partitions_missing",
      "SELECT d, p.name, b FROM (SELECT " PG_NOW
      " / 86400000000 AS today OFFSET 0) n, generate_series(n.today - $1::int4, n.today + $2::int4) d, "
      "(VALUES ('run_history'), ('run_log')) v (b), LATERAL (SELECT b || '_' || to_char(to_timestamp(d * "
      "86400) AT "
      "TIME ZONE 'UTC', 'YYYYMMDD') AS name) p WHERE to_regclass(p.name) IS NULL ORDER BY d, b",
      PG_READ};
  auto_arena mem = {};
  auto_result r = NULL;
  pgw_i4(&s->args, PARTITIONS_BEFORE_DAYS);
  pgw_i4(&s->args, PARTITIONS_AHEAD_DAYS);
  int code = pgc_one(s, &q, &r, e);
  for (int row = 0; code == 0 && row < PQntuples(r); row++) {
    struct day d;
    struct pgw_cursor c = pgw_row_of(r, (size_t)row, &mem);
    d.from = pgw_next_int(&c) * USEC_PER_DAY;
    d.to = d.from + USEC_PER_DAY;
    (void)text_copy(d.name, sizeof d.name, pgw_next_text(&c)); /* run_history_YYYYMMDD fits */
    (void)text_copy(d.of, sizeof d.of, pgw_next_text(&c));
    code = in_transaction(s, &d, make_partition, e);
    if (code < 0 && pgc_refused(s, PG_CHECK_VIOLATION))
      code = in_transaction(s, &d, make_partition_of_default, e);
  }
  return code < 0 ? code : 0;
}

int pg_maintain(struct store *store, const struct st_maintain *in, struct st_maintain_ret *ret,
                struct arena *mem, struct err *e) {
  static const char *const vacuums[] = {"VACUUM (SKIP_LOCKED, TRUNCATE false) run",
                                        "VACUUM (SKIP_LOCKED, TRUNCATE false) shard",
                                        "VACUUM (SKIP_LOCKED, TRUNCATE false) shard_finish",
                                        "VACUUM (SKIP_LOCKED, TRUNCATE false) progress",
                                        "VACUUM (SKIP_LOCKED, TRUNCATE false) inbox",
                                        "VACUUM (SKIP_LOCKED, TRUNCATE false) node",
                                        "VACUUM (SKIP_LOCKED, TRUNCATE false) dependency_event"};
  struct pg_store *s = pg_of(store);
  (void)in;
  (void)ret;
  (void)mem;
  if (s->locked)
    return err_set(e, ERR_INTERNAL, "upkeep is no part of a transaction");
  pgc_survey(s->source);
  int code = pg_make_partitions(s, e);
  for (size_t i = 0; code == 0 && i < sizeof vacuums / sizeof vacuums[0]; i++)
    code = ddl(s, e, vacuums[i]);
  return code;
}
