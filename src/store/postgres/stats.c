/* What has become of a task's runs: the open ones, the history, what retention has taken out of it, and the totals of what is gone. */
#include "store/postgres/pg.h"
#include "store/totals.h"

#define ENDED "state, attempt, scheduled_at, started_at, finished_at"
/* What is in run_old, but for the runs of a former partition that have been added to task_stat already. */
#define OLD                                                                                                  \
  "FROM run_old o WHERE o.task_id = $2 AND o.scheduled_at >= $3 AND (o.tableoid = 'run_old'::regclass OR "   \
  "o.task_id > (SELECT folded FROM history_batch)) "

int pg_task_stats(struct store *store, const struct st_task_stats *in, struct st_task_stats_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "task_stats",
      "SELECT h.*, s.*, o.*, coalesce((SELECT state FROM run_history WHERE task_id = $2::int8 AND "
      "scheduled_at >= "
      "$3::int8 AND state <> 5 ORDER BY scheduled_at DESC, part DESC LIMIT 1), (SELECT state " OLD
      "AND state <> 5 ORDER BY scheduled_at DESC, part DESC LIMIT 1), -1) FROM "
      "(SELECT count(*) FILTER (WHERE state = 2), count(*) FILTER (WHERE state = 3), "
      "count(*) FILTER (WHERE state = 4), count(*) FILTER (WHERE state = 5), coalesce(sum(attempt), "
      "0)::int8, "
      "count(finished_at - started_at), coalesce(sum(finished_at - started_at), 0)::int8, "
      "coalesce(max(finished_at - started_at), 0), coalesce(max(scheduled_at) FILTER (WHERE state <> 5), 0), "
      "coalesce(max(started_at) FILTER (WHERE state <> 5), 0), "
      "coalesce(max(finished_at) FILTER (WHERE state <> 5), 0) "
      "FROM (SELECT " ENDED
      " FROM run_history WHERE task_id = $2 AND scheduled_at >= $3 UNION ALL SELECT " ENDED " " OLD ") e) h, "
      "(SELECT count(*), coalesce(sum(attempt), 0)::int8, coalesce(max(scheduled_at), 0), "
      "coalesce(max(started_at), 0) FROM run WHERE shard = $1::int4 AND task_id = $2 AND scheduled_at >= $3) "
      "s, "
      "(SELECT count(*), coalesce(sum(success), 0)::int8, coalesce(sum(fail), 0)::int8, "
      "coalesce(sum(cancelled), 0)::int8, "
      "coalesce(sum(skipped), 0)::int8, coalesce(sum(attempts), 0)::int8, coalesce(sum(durations), 0)::int8, "
      "coalesce(sum(duration_sum), 0)::int8, coalesce(max(duration_max), 0), "
      "coalesce(max(last_scheduled_at), 0), "
      "coalesce(max(last_started_at), 0), coalesce(max(last_finished_at), 0), coalesce(max(last_state), -1) "
      "FROM task_stat WHERE task_id = $2 AND $3 = 0) o",
      PG_READ};
  struct pg_store *s = pg_of(store);
  struct task_totals ended = {0}, gone = {0};
  auto_result r = NULL;
  (void)mem;
  pgw_i4(&s->args, shard_of_task(in->task_id, s->source->shard_count));
  pgw_i8(&s->args, in->task_id);
  pgw_i8(&s->args, in->since);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  struct pgw_cursor c = pgw_row_of(r, 0, NULL);
  int64_t *const totals[] = {(int64_t *)&ended, (int64_t *)&gone};
  for (size_t i = 0; i < TASK_TOTALS; i++)
    totals[0][i] = pgw_next_int(&c);
  int64_t open = pgw_next_int(&c), attempts = pgw_next_int(&c);
  usec_t scheduled_at = pgw_next_int(&c), started_at = pgw_next_int(&c);
  (void)pgw_next_int(&c); /* is there a row of totals? The sums say it */
  for (size_t i = 0; i < TASK_TOTALS; i++)
    totals[1][i] = pgw_next_int(&c);
  int gone_state = (int)pgw_next_int(&c), state = (int)pgw_next_int(&c);
  task_totals_add(&ended, &gone);
  task_totals_give(&ended, ret);
  ret->last_state = state >= 0 ? state : gone_state;
  ret->open = open;
  ret->fires += open;
  ret->attempts += attempts;
  ret->last_scheduled_at = scheduled_at > ret->last_scheduled_at ? scheduled_at : ret->last_scheduled_at;
  ret->last_started_at = started_at > ret->last_started_at ? started_at : ret->last_started_at;
  return 0;
}

/* ---------------------------------------------------------------- how many are there? */
int pg_history_count(struct store *store, const struct st_history_count *in, struct st_history_count_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "history_count",
      "SELECT (SELECT count(*) FROM run_history h JOIN task t ON t.shard = h.shard AND t.id = h.task_id AND "
      "t.ns = "
      "$1::text WHERE $1 <> '' AND h.scheduled_at >= $2::int8 AND h.scheduled_at < $3::int8), "
      "(SELECT scheduled_at FROM run_history WHERE scheduled_at >= $2 AND scheduled_at < $3 ORDER BY "
      "scheduled_at "
      "LIMIT 1)",
      PG_READ, true};
  static const struct pg_sql plain = {"history_count_plan", "SET LOCAL enable_seqscan = on", PG_READ};
  static const struct pg_sql hash = {"history_count_hash", "SET LOCAL enable_hashjoin = on", PG_READ};
  static const struct pg_sql end = {"history_end", "COMMIT", PG_READ};
  struct pg_store *s = pg_of(store);
  PGresult *r[5] = {0};
  (void)mem;
  pgc_begin(s);
  pgc_add(s, &plain);
  pgc_add(s, &hash);
  pgw_text0(&s->args, in->ns);
  pgw_i8(&s->args, in->since);
  pgw_i8(&s->args, in->until);
  pgc_add(s, &q);
  pgc_add(s, &end);
  int code = pgc_run(s, r, e);
  s->in_tx = false;
  if (code == 0) {
    ret->count = pgw_int(r[3], 0, 0);
    ret->oldest = PQgetisnull(r[3], 0, 1) ? 0 : pgw_int(r[3], 0, 1);
  } else {
    pgc_drop(s); /* whatever state it is in */
  }
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  return code;
}
