/* Every other write of run state, behind the fence shard_finish: one pipeline, one transaction, each statement with a snapshot
 * taken after the fence rows are locked. */
#include "store/postgres/pg.h"

#define WAVES_MAX 24 /* changes of one and the same run in one call */
/* $1, $2: the fences. Their rows are locked by the first statement, so this is no guess. */
#define FENCED                                                                                               \
  "shard = ANY (ARRAY (SELECT f.id FROM unnest($1::int4[], $2::int8[]) w (id, epoch) CROSS JOIN LATERAL "    \
  "(SELECT id, epoch FROM shard_finish WHERE id = w.id OFFSET 0) f WHERE f.epoch = w.epoch))"
/* By the whole key, whatever the planner believes about the table's size (storage.md, the first trap). */
#define OPEN_RUN_KEY                                                                                         \
  "k.shard = u.shard AND k.scheduled_at = u.scheduled_at AND k.task_id = u.task_id AND k.part = u.part "     \
  "AND k.attempt = u.seen_attempt"

static const struct pg_sql sql_fence = {
    "apply_fence",
    "SELECT f.ord - 1, " PG_NOW " FROM (SELECT 1) one LEFT JOIN (SELECT w.ord FROM shard_finish f "
    "JOIN unnest($1::int4[], $2::int8[]) WITH ORDINALITY w (id, epoch, ord) ON w.id = f.id "
    "WHERE f.epoch = w.epoch ORDER BY f.id FOR NO KEY UPDATE OF f) f ON true",
    PG_READ};
static const struct pg_sql sql_update = {
    "apply_update",
    "UPDATE run r SET state = u.state, reason = u.reason, attempt = u.attempt, not_before = u.not_before, "
    "attempt_at = u.attempt_at, started_at = u.started_at, executor = u.executor, error_type = u.error_type, "
    "error_message = u.error_message, progress = u.progress, incarnation = u.incarnation FROM ROWS FROM "
    "(unnest($3::run_update_in[]), "
    "unnest($4::int4[])) u (shard, scheduled_at, task_id, part, seen_attempt, seen_state, ord, state, "
    "reason, "
    "attempt, not_before, attempt_at, started_at, executor, error_type, error_message, progress, "
    "incarnation, seen_reason) "
    "CROSS JOIN LATERAL (SELECT k.ctid AS at FROM run k WHERE " OPEN_RUN_KEY
    " AND k.state = u.seen_state AND k.reason = u.seen_reason OFFSET 0) k WHERE r.ctid = k.at AND u." FENCED
    " RETURNING u.ord",
    PG_WRITE};
/* The open rows by key, into history, away by their places. The fence is held, so nothing changes them in between; a join in the
 * DELETE itself would cost a third more. ON CONFLICT costs a sixth, and no run is open and ended at once: the first try is
 * without it. */
#define FINISH(on_conflict, more)                                                                            \
  "WITH m AS MATERIALIZED (SELECT u.ord, k.at, k.scheduled_at, k.task_id, k.fired_at, u.finished_at, "       \
  "u.attempt_at, "                                                                                           \
  "u.started_at, k.missed_first, k.missed_count, k.progress, k.shard, k.part, k.version, k.attempt, "        \
  "u.state, u.reason, "                                                                                      \
  "k.origin, u.executor, k.pin, k.payload, k.origin_run, u.result, u.error_type, u.error_message, "          \
  "u.error_detail "                                                                                          \
  "FROM unnest($3::run_finish_in[]) u CROSS JOIN LATERAL (SELECT k.ctid AS at, k.* FROM run k "              \
  "WHERE " OPEN_RUN_KEY " OFFSET 0) k WHERE u." FENCED "), "                                                 \
  "d AS (DELETE FROM run WHERE ctid = ANY (ARRAY (SELECT at FROM m))), "                                     \
  "h AS (INSERT INTO run_history SELECT scheduled_at, task_id, fired_at, finished_at, attempt_at, "          \
  "started_at, "                                                                                             \
  "missed_first, missed_count, progress, shard, part, version, attempt, state, reason, origin, executor, "   \
  "pin, payload, "                                                                                           \
  "origin_run, result, error_type, error_message, error_detail FROM m " on_conflict                          \
  ")" PARENT_EVENTS more ENDED
/* For a call with a FAIL among its ends: dead letters and, while there is an alert rule: the events that become alerts. */
#define FAIL_EVENTS                                                                                          \
  ", l AS (INSERT INTO dead_letter (scheduled_at, task_id, shard, part, reason, ns, group_name, handler, "   \
  "error_type) SELECT m.scheduled_at, m.task_id, m.shard, m.part, m.reason, t.ns, t.group_name, t.handler, " \
  "m.error_type FROM m CROSS JOIN LATERAL (SELECT ns, group_name, handler FROM task WHERE shard = m.shard "  \
  "AND id = m.task_id OFFSET 0) t WHERE m.state = 3 ON CONFLICT DO NOTHING), a AS (INSERT INTO alert_event " \
  "(shard, scheduled_at, task_id, part) SELECT shard, scheduled_at, "                                        \
  "task_id, part FROM m WHERE state = 3 AND EXISTS (SELECT FROM alert_def WHERE kind = 1))"
/* For the children of a task (docs/adr/0017): who is a parent is looked up in the snapshot of this statement, and only where there is one. */
#define PARENT_EVENTS                                                                                        \
  ", p AS (INSERT INTO dependency_event (turn, shard, scheduled_at, task_id, part, state, finished_at) "     \
  "SELECT (SELECT no FROM dependency_turn), shard, scheduled_at, task_id, part, state, "                     \
  "coalesce(finished_at, fired_at) FROM m WHERE state <> 5 AND EXISTS (SELECT FROM dependency) AND EXISTS "  \
  "(SELECT FROM dependency d WHERE d.parent_id = m.task_id OFFSET 0) RETURNING 1)"
#define ENDED " SELECT ord FROM m UNION ALL (SELECT -1 FROM p LIMIT 1)"
_Static_assert(RUN_FAIL == 3 && RUN_SKIPPED == 5 && ALERT_DEF_RULE == 1, "numbers used in SQL");
#define AGAIN "ON CONFLICT DO NOTHING"
/* [is there a FAIL][is it the second try] */
static const struct pg_sql sql_finish[2][2] = {
    {{"apply_finish", FINISH("", ""), PG_WRITE}, {"apply_finish_again", FINISH(AGAIN, ""), PG_WRITE}},
    {{"apply_finish_fail", FINISH("", FAIL_EVENTS), PG_WRITE},
     {"apply_finish_fail_again", FINISH(AGAIN, FAIL_EVENTS), PG_WRITE}}};
static const struct pg_sql sql_attempts = {
    "apply_attempts",
    "INSERT INTO attempt (scheduled_at, task_id, part, attempt, dispatched_at, started_at, finished_at, "
    "state, reason, executor, "
    "error_type, error_message) SELECT scheduled_at, task_id, part, attempt, dispatched_at, started_at, "
    "finished_at, state, reason, "
    "executor, error_type, error_message FROM unnest($3::attempt_in[]) u WHERE u." FENCED
    " ON CONFLICT DO NOTHING",
    PG_WRITE};
static const struct pg_sql sql_progress = {"apply_progress", PG_PROGRESS_PUT("$3", "u." FENCED), PG_WRITE};

static const struct pg_sql sql_inbox = {"apply_inbox",
                                        "DELETE FROM inbox i USING ROWS FROM (unnest($3::int4[]), "
                                        "unnest($4::int8[])) u (shard, no) CROSS JOIN LATERAL (SELECT k.ctid "
                                        "AS at FROM inbox k WHERE k.shard = u.shard AND k.no = u.no OFFSET "
                                        "0) k WHERE i.ctid = k.at AND u." FENCED,
                                        PG_WRITE};

static void add_fences(struct pg_store *s, const struct st_run_apply *in) {
  pgw_array(&s->args, PG_INT4_OID, in->fence_count);
  for (size_t i = 0; i < in->fence_count; i++)
    pgw_el_i4(&s->args, in->fences[i].shard);
  pgw_array_end(&s->args);
  pgw_array(&s->args, PG_INT8_OID, in->fence_count);
  for (size_t i = 0; i < in->fence_count; i++)
    pgw_el_i8(&s->args, in->fences[i].epoch);
  pgw_array_end(&s->args);
}

static void add_key(struct pgw_args *a, const struct run_key *k) {
  pgw_col_i4(a, k->shard);
  pgw_col_i8(a, k->scheduled_at);
  pgw_col_i8(a, k->task_id);
  pgw_col_i4(a, k->part);
}

static void add_update(struct pgw_args *a, const struct run_update *u, size_t ord) {
  pgw_row(a, 18);
  add_key(a, &u->key);
  pgw_col_i4(a, u->seen_attempt);
  pgw_col_i2(a, u->seen_state);
  pgw_col_i4(a, (int32_t)ord);
  pgw_col_i2(a, u->state);
  pgw_col_i2(a, u->reason);
  pgw_col_i4(a, u->attempt);
  pgw_col_i8z(a, u->not_before);
  pgw_col_i8z(a, u->attempt_at);
  pgw_col_i8z(a, u->started_at);
  pgw_col_text(a, u->executor);
  pgw_col_text(a, u->error_type);
  pgw_col_text(a, u->error_message);
  pgw_col_progress(a, u->progress);
  pgw_col_i8z(a, u->incarnation);
  pgw_row_end(a);
}

static void add_finish(struct pgw_args *a, const struct run_finish *f, size_t ord) {
  pgw_row(a, 16);
  add_key(a, &f->key);
  pgw_col_i4(a, f->seen_attempt);
  pgw_col_i4(a, (int32_t)ord);
  pgw_col_i2(a, f->state);
  pgw_col_i2(a, f->reason);
  pgw_col_i8z(a, f->attempt_at);
  pgw_col_i8z(a, f->started_at);
  pgw_col_i8z(a, f->finished_at);
  pgw_col_text(a, f->executor);
  pgw_col_text(a, f->result);
  pgw_col_text(a, f->error_type);
  pgw_col_text(a, f->error_message);
  pgw_col_text(a, f->error_detail);
  pgw_row_end(a);
}

static void add_attempt(struct pgw_args *a, const struct attempt_row *t) {
  pgw_row(a, 13);
  add_key(a, &t->key);
  pgw_col_i4(a, t->attempt);
  pgw_col_i8z(a, t->dispatched_at);
  pgw_col_i8z(a, t->started_at);
  pgw_col_i8z(a, t->finished_at);
  pgw_col_i2(a, t->state);
  pgw_col_i2(a, t->reason);
  pgw_col_text(a, t->executor);
  pgw_col_text(a, t->error_type);
  pgw_col_text(a, t->error_message);
  pgw_row_end(a);
}

/* How many earlier entries have the same key? Returns the greatest number + 1, 0 without entries. */
static int make_waves(const struct run_key *first, size_t stride, size_t count, uint8_t *wave,
                      struct arena *mem) {
  size_t slots = 16;
  int waves = count ? 1 : 0;
  while (slots < count * 2)
    slots *= 2;
  uint32_t *last =
      arena_array(mem, slots, sizeof *last); /* 1 + index of the last entry with a key, 0 = none */
  for (size_t i = 0; i < count; i++) {
    const struct run_key *k = (const void *)((const char *)first + i * stride), *other = NULL;
    size_t slot = run_key_hash(k) & (slots - 1);
    for (; last[slot]; slot = (slot + 1) & (slots - 1)) {
      other = (const void *)((const char *)first + (last[slot] - 1) * stride);
      if (run_key_eq(other, k))
        break;
    }
    if (last[slot])
      wave[i] = (uint8_t)(wave[last[slot] - 1] + (wave[last[slot] - 1] < UINT8_MAX));
    last[slot] = (uint32_t)i + 1;
    waves = wave[i] >= waves ? wave[i] + 1 : waves;
  }
  return waves;
}

/* One UPDATE changes a row once: the n-th change of the same run in one call goes into the n-th statement. */
static void add_updates(struct pg_store *s, const struct st_run_apply *in, const uint8_t *wave, int waves) {
  for (int w = 0; w < waves; w++) {
    size_t n = 0;
    for (size_t i = 0; i < in->update_count; i++)
      n += wave[i] == w;
    add_fences(s, in);
    pgw_array(&s->args, s->source->types.run_update_in, n);
    for (size_t i = 0; i < in->update_count; i++)
      if (wave[i] == w)
        add_update(&s->args, &in->updates[i], i);
    pgw_array_end(&s->args);
    pgw_array(&s->args, PG_INT4_OID, n); /* beside the rows: their type is older than this column */
    for (size_t i = 0; i < in->update_count; i++)
      if (wave[i] == w)
        pgw_el_i4(&s->args, in->updates[i].seen_reason);
    pgw_array_end(&s->args);
    pgc_add(s, &sql_update);
  }
}

/* The first finish of a run is the one that counts. */
static void add_finishes(struct pg_store *s, const struct st_run_apply *in, const uint8_t *wave, bool again) {
  size_t n = 0;
  bool fails = false;
  for (size_t i = 0; i < in->finish_count; i++) {
    n += wave[i] == 0;
    fails |= in->finishes[i].state == RUN_FAIL;
  }
  add_fences(s, in);
  pgw_array(&s->args, s->source->types.run_finish_in, n);
  for (size_t i = 0; i < in->finish_count; i++)
    if (wave[i] == 0)
      add_finish(&s->args, &in->finishes[i], i);
  pgw_array_end(&s->args);
  pgc_add(s, &sql_finish[fails][again]);
}

static void add_the_rest(struct pg_store *s, const struct st_run_apply *in) {
  struct pgw_args *a = &s->args;
  if (in->attempt_count) {
    add_fences(s, in);
    pgw_array(a, s->source->types.attempt_in, in->attempt_count);
    for (size_t i = 0; i < in->attempt_count; i++)
      add_attempt(a, &in->attempts[i]);
    pgw_array_end(a);
    pgc_add(s, &sql_attempts);
  }
  if (in->progress_count) {
    add_fences(s, in);
    pg_add_progress(a, s->source, in->progress, in->progress_count);
    pgc_add(s, &sql_progress);
  }
  if (in->inbox_count) {
    add_fences(s, in);
    pgw_array(a, PG_INT4_OID, in->inbox_count);
    for (size_t i = 0; i < in->inbox_count; i++)
      pgw_el_i4(a, in->inbox_done[i].shard);
    pgw_array_end(a);
    pgw_array(a, PG_INT8_OID, in->inbox_count);
    for (size_t i = 0; i < in->inbox_count; i++)
      pgw_el_i8(a, in->inbox_done[i].no);
    pgw_array_end(a);
    pgc_add(s, &sql_inbox);
  }
}

/* Returns whether there is a −1 among them. */
static bool mark(const PGresult *r, bool *ret) {
  bool other = false;
  for (int row = 0; row < PQntuples(r); row++) {
    if (PQgetisnull(r, row, 0))
      continue;
    int64_t at = pgw_int(r, row, 0);
    if (at >= 0)
      ret[at] = true;
    else
      other = true;
  }
  return other;
}

struct waves {
  uint8_t *updates, *finishes; /* by entry */
  int update_count;
};

static int send_apply(struct pg_store *s, const struct st_run_apply *in, const struct waves *w, bool again,
                      PGresult **r, struct err *e) {
  add_fences(s, in);
  pgc_add(s, &sql_fence);
  add_updates(s, in, w->updates, w->update_count);
  if (in->finish_count)
    add_finishes(s, in, w->finishes, again);
  add_the_rest(s, in);
  return pgc_run(s, r, e);
}

int pg_run_apply(struct store *store, const struct st_run_apply *in, struct st_run_apply_ret *ret,
                 struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  PGresult *r[WAVES_MAX + 5] = {0};
  struct st_run_apply_ret out = {
      .fence_ok = arena_array(mem, in->fence_count, sizeof *out.fence_ok),
      .updated = arena_array(mem, in->update_count, sizeof *out.updated),
      .finished = arena_array(mem, in->finish_count, sizeof *out.finished),
  };
  struct waves w = {.updates = arena_array(mem, in->update_count, 1),
                    .finishes = arena_array(mem, in->finish_count, 1)};
  w.update_count = make_waves(in->update_count ? &in->updates->key : NULL, sizeof *in->updates,
                              in->update_count, w.updates, mem);
  (void)make_waves(in->finish_count ? &in->finishes->key : NULL, sizeof *in->finishes, in->finish_count,
                   w.finishes, mem);
  if (w.update_count > WAVES_MAX)
    return err_set(e, ERR_INVALID, "more than %d changes of one run in one call", WAVES_MAX);
  int code = send_apply(s, in, &w, s->locked, r,
                        e); /* inside shard_lock a refusal would end the whole transaction */
  if (code == ERR_CONFLICT && !s->locked)
    code = send_apply(s, in, &w, true, r, e);
  if (code == 0) {
    (void)mark(r[0], out.fence_ok);
    out.now = pgw_int(r[0], 0, 1);
    for (int i = 0; i < w.update_count; i++)
      (void)mark(r[1 + i], out.updated);
    if (in->finish_count)
      out.parents_ended = mark(r[1 + w.update_count], out.finished);
    *ret = out;
  }
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  return code;
}
