/* Runs: read. Open ones stand in run, ended ones in run_history. */
#include "store/postgres/pg.h"

#define TASK_OF_RUN                                                                                          \
  " LEFT JOIN LATERAL (SELECT name, ns FROM task WHERE shard = r.shard AND id = r.task_id OFFSET 0) t ON "   \
  "true "

void pg_read_run(struct pgw_cursor *c, struct run_row *ret) {
  ret->key.shard = (int32_t)pgw_next_int(c);
  ret->key.scheduled_at = pgw_next_int(c);
  ret->key.task_id = pgw_next_int(c);
  ret->key.part = (int32_t)pgw_next_int(c);
  ret->version = (int32_t)pgw_next_int(c);
  ret->state = (enum run_state)pgw_next_int(c);
  ret->reason = (enum run_reason)pgw_next_int(c);
  ret->origin = (enum run_origin)pgw_next_int(c);
  ret->attempt = (int32_t)pgw_next_int(c);
  ret->fired_at = pgw_next_int(c);
  ret->attempt_at = pgw_next_int(c);
  ret->started_at = pgw_next_int(c);
  ret->missed_first = pgw_next_int(c);
  ret->missed_count = pgw_next_int(c);
  ret->progress = pgw_next_progress(c);
  ret->executor = pgw_next_text(c);
  ret->pin = pgw_next_text(c);
  ret->payload = pgw_next_text(c);
  ret->origin_run = pgw_next_text(c);
  ret->error_type = pgw_next_text(c);
  ret->error_message = pgw_next_text(c);
  ret->not_before = pgw_next_int(c);
  ret->finished_at = pgw_next_int(c);
  ret->result = pgw_next_text(c);
  ret->error_detail = pgw_next_text(c);
  ret->incarnation = pgw_next_int(c);
}

int pg_run_load(struct store *store, const struct st_run_load *in, struct st_run_load_ret *ret,
                struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "run_load",
      "SELECT " PG_RUN_OPEN("r.") " FROM run r WHERE r.shard = $1::int4 AND (r.shard, r.scheduled_at, "
                                  "r.task_id, r.part) > ($1, $2::int8, $3::int8, $4::int4) "
                                  "ORDER BY r.shard, r.scheduled_at, r.task_id, r.part LIMIT $5::int4",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i4(&s->args, in->shard);
  pgw_i8(&s->args, in->after ? in->after->scheduled_at : INT64_MIN);
  pgw_i8(&s->args, in->after ? in->after->task_id : INT64_MIN);
  pgw_i4(&s->args, in->after ? in->after->part : INT32_MIN);
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct run_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    pg_read_run(&c, &rows[i]);
  }
  ret->rows = rows;
  ret->count = n;
  return 0;
}

int pg_run_get(struct store *store, const struct st_run_get *in, struct st_run_get_ret *ret,
               struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "run_get",
      "SELECT r.*, t.name, t.ns FROM (SELECT " PG_RUN_OPEN(
          "o.") " FROM run o WHERE o.shard = $1::int4 "
                "AND o.scheduled_at = $2::int8 AND o.task_id = $3::int8 AND o.part = $4::int4 "
                "UNION ALL SELECT " PG_RUN_ENDED(
                    "h.") " FROM run_history h WHERE h.scheduled_at = $2 AND h.task_id = $3 AND h.part = $4 "
                          "AND h.shard = $1) r" TASK_OF_RUN "LIMIT 1",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i4(&s->args, in->key.shard);
  pgw_i8(&s->args, in->key.scheduled_at);
  pgw_i8(&s->args, in->key.task_id);
  pgw_i4(&s->args, in->key.part);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return err_set(e, ERR_NOT_FOUND, "there is no such run");
  struct pgw_cursor c = pgw_row_of(r, 0, mem);
  pg_read_run(&c, &ret->run);
  ret->task_name = pgw_next_text(&c);
  ret->ns = pgw_next_text(&c);
  return 0;
}

int pg_run_folded(struct store *store, const struct st_run_folded *in, struct st_run_folded_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "run_folded",
      "(SELECT " PG_RUN_OPEN(
          "o.") " FROM run o WHERE o.shard = $5::int4 AND o.scheduled_at >= $2::int8 AND "
                "o.task_id = $1::int8 AND o.missed_count > 1 AND o.missed_first <= $3::int8 "
                "ORDER BY o.scheduled_at, o.part LIMIT $4::int4) UNION ALL (SELECT " PG_RUN_ENDED(
                    "h.") " FROM run_history h WHERE h.task_id = $1 AND h.scheduled_at >= $2 "
                          "AND h.missed_count > 1 AND h.missed_first <= $3 ORDER BY "
                          "h.scheduled_at, h.part LIMIT $4) "
                          "ORDER BY scheduled_at, part LIMIT $4",
      PG_READ, true};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i8(&s->args, in->task_id);
  pgw_i8(&s->args, in->from);
  pgw_i8(&s->args, in->to);
  pgw_i4(&s->args, in->limit);
  pgw_i4(&s->args, shard_of_task(in->task_id, s->source->shard_count));
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct run_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    pg_read_run(&c, &rows[i]);
  }
  ret->rows = rows;
  ret->count = n;
  return 0;
}

int pg_attempt_list(struct store *store, const struct st_attempt_list *in, struct st_attempt_list_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "attempt_list",
      "SELECT attempt, state, reason, dispatched_at, started_at, finished_at, executor, error_type, "
      "error_message FROM attempt WHERE scheduled_at = $1::int8 AND task_id = $2::int8 "
      "AND part = $3::int4 ORDER BY attempt",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i8(&s->args, in->key.scheduled_at);
  pgw_i8(&s->args, in->key.task_id);
  pgw_i4(&s->args, in->key.part);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct attempt_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    rows[i].key = in->key;
    rows[i].attempt = (int32_t)pgw_next_int(&c);
    rows[i].state = (enum run_state)pgw_next_int(&c);
    rows[i].reason = (enum run_reason)pgw_next_int(&c);
    rows[i].dispatched_at = pgw_next_int(&c);
    rows[i].started_at = pgw_next_int(&c);
    rows[i].finished_at = pgw_next_int(&c);
    rows[i].executor = pgw_next_text(&c);
    rows[i].error_type = pgw_next_text(&c);
    rows[i].error_message = pgw_next_text(&c);
  }
  ret->rows = rows;
  ret->count = n;
  return 0;
}
