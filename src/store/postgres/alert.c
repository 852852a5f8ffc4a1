/* Events of failed runs, the alerts that they become, and the log of their deliveries. */
#include "store/postgres/pg.h"

#define ALERT_COLUMNS(t)                                                                                     \
  t "id, " t "rule_id, " t "channel_id, " t "task_id, " t "seq, " t "state, " t "summary, " t "closed, " t   \
    "count, " t "attempts, " t "tries, " t "status, " t "first_at, " t "last_at, " t "window_until, " t      \
    "created_at, " t "next_at, " t "give_up_at, " t "sent_at, " t "ns, " t "rule, " t "channel, " t          \
    "task_name, " t "error, " t "details"

_Static_assert(ALERT_PENDING == 0 && ALERT_DELIVERED == 1, "numbers used in SQL");

int pg_alert_events(struct store *store, const struct st_alert_events *in, struct st_alert_events_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "alert_events",
      "SELECT r.*, e.no, t.id IS NOT NULL, t.name, t.ns, t.group_name, t.handler FROM (SELECT * FROM "
      "alert_event ORDER BY no LIMIT $1::int4) e LEFT JOIN LATERAL (SELECT " PG_RUN_ENDED(
          "h.") " FROM run_history h WHERE h.scheduled_at = e.scheduled_at AND h.task_id = e.task_id AND "
                "h.part = e.part OFFSET 0) r ON true LEFT JOIN LATERAL (SELECT id, name, ns, group_name, "
                "handler FROM task WHERE shard = r.shard AND id = r.task_id OFFSET 0) t ON true ORDER BY "
                "e.no",
      PG_READ};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct alert_event *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    pg_read_run(&c, &rows[i].run);
    rows[i].no = pgw_next_int(&c);
    rows[i].there = pgw_next_int(&c) != 0;
    rows[i].task_name = pgw_next_text(&c);
    rows[i].ns = pgw_next_text(&c);
    rows[i].group = pgw_next_text(&c);
    rows[i].handler = pgw_next_text(&c);
  }
  ret->rows = rows;
  ret->count = n;
  return 0;
}

/* ---------------------------------------------------------------- alerts */
static void read_alert(struct pgw_cursor *c, struct alert_row *ret) {
  ret->id = pgw_next_int(c);
  ret->key.rule_id = pgw_next_int(c);
  ret->key.channel_id = pgw_next_int(c);
  ret->key.task_id = pgw_next_int(c);
  ret->seq = (int32_t)pgw_next_int(c);
  ret->state = (enum alert_state)pgw_next_int(c);
  ret->summary = pgw_next_int(c) != 0;
  ret->closed = pgw_next_int(c) != 0;
  ret->count = pgw_next_int(c);
  ret->attempts = (int32_t)pgw_next_int(c);
  ret->tries = (int32_t)pgw_next_int(c);
  ret->status = (int32_t)pgw_next_int(c);
  ret->first_at = pgw_next_int(c);
  ret->last_at = pgw_next_int(c);
  ret->window_until = pgw_next_int(c);
  ret->created_at = pgw_next_int(c);
  ret->next_at = pgw_next_int(c);
  ret->give_up_at = pgw_next_int(c);
  ret->sent_at = pgw_next_int(c);
  ret->ns = pgw_next_text(c);
  ret->rule = pgw_next_text(c);
  ret->channel = pgw_next_text(c);
  ret->task_name = pgw_next_text(c);
  ret->error = pgw_next_text(c);
  ret->details = pgw_next_text(c);
}

static struct alert_row *read_alerts(const PGresult *r, size_t *ret_count, struct arena *mem) {
  size_t n = (size_t)PQntuples(r);
  struct alert_row *rows = arena_array(mem, n + 1, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    read_alert(&c, &rows[i]);
  }
  *ret_count = n;
  return rows;
}

/* A column of many rows as one array parameter. */
#define ADD_I8S(a, rows, n, expression)                                                                      \
  do {                                                                                                       \
    pgw_array((a), PG_INT8_OID, (n));                                                                        \
    for (size_t i_ = 0; i_ < (n); i_++) {                                                                    \
      __typeof__((rows)[0]) *x = &(rows)[i_];                                                                \
      pgw_el_i8((a), (expression));                                                                          \
    }                                                                                                        \
    pgw_array_end(a);                                                                                        \
  } while (0)
#define ADD_TEXTS(a, rows, n, expression)                                                                    \
  do {                                                                                                       \
    pgw_array((a), PG_TEXT_OID, (n));                                                                        \
    for (size_t i_ = 0; i_ < (n); i_++) {                                                                    \
      __typeof__((rows)[0]) *x = &(rows)[i_];                                                                \
      pgw_el_text((a), (expression));                                                                        \
    }                                                                                                        \
    pgw_array_end(a);                                                                                        \
  } while (0)

int pg_alert_latest(struct store *store, const struct st_alert_latest *in, struct st_alert_latest_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"alert_latest",
                                  "SELECT u.ord - 1, " ALERT_COLUMNS(
                                      "a.") " FROM unnest($1::int8[], $2::int8[], $3::int8[]) WITH "
                                            "ORDINALITY u (rule_id, channel_id, task_id, ord) CROSS JOIN "
                                            "LATERAL (SELECT * FROM alert l WHERE l.rule_id = u.rule_id AND "
                                            "l.channel_id = u.channel_id AND l.task_id = u.task_id ORDER BY "
                                            "l.seq DESC LIMIT 1) a",
                                  PG_READ};
  struct pg_store *s = pg_of(store);
  struct alert_row *rows = arena_array(mem, in->count + 1, sizeof *rows);
  auto_result r = NULL;
  ADD_I8S(&s->args, in->keys, in->count, x->rule_id);
  ADD_I8S(&s->args, in->keys, in->count, x->channel_id);
  ADD_I8S(&s->args, in->keys, in->count, x->task_id);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  for (int i = 0; i < PQntuples(r); i++) {
    struct pgw_cursor c = pgw_row_of(r, (size_t)i, mem);
    size_t at = (size_t)pgw_next_int(&c);
    if (at < in->count)
      read_alert(&c, &rows[at]);
  }
  ret->rows = rows;
  return 0;
}

static void add_apply(struct pg_store *s, const struct st_alert_apply *in) {
  static const struct pg_sql events = {
      "alert_events_done", "DELETE FROM alert_event WHERE no = ANY ($1::int8[]) RETURNING 1", PG_WRITE};
  static const struct pg_sql bumps = {
      "alert_bump",
      "UPDATE alert a SET count = u.count, last_at = u.last_at, details = u.details FROM unnest($1::int8[], "
      "$2::int8[], $3::int8[], $4::int8[], $5::text[]) u (id, seen, count, last_at, details) WHERE a.id = "
      "u.id "
      "AND a.count = u.seen AND NOT a.closed RETURNING 1",
      PG_WRITE};
  static const struct pg_sql alerts = {
      "alert_new",
      "INSERT INTO alert (rule_id, channel_id, task_id, seq, summary, count, first_at, last_at, "
      "window_until, "
      "created_at, next_at, give_up_at, ns, rule, channel, task_name, details) SELECT rule_id, channel_id, "
      "task_id, seq, summary <> 0, count, first_at, last_at, window_until, created_at, next_at, give_up_at, "
      "ns, "
      "rule, channel, task_name, details FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int8[], "
      "$5::int8[], $6::int8[], $7::int8[], $8::int8[], $9::int8[], $10::int8[], $11::int8[], $12::int8[], "
      "$13::text[], $14::text[], $15::text[], $16::text[], $17::text[]) u (rule_id, channel_id, task_id, "
      "seq, "
      "summary, count, first_at, last_at, window_until, created_at, next_at, give_up_at, ns, rule, channel, "
      "task_name, details)",
      PG_WRITE};
  struct pgw_args *a = &s->args;
  size_t n = in->alert_count;
  ADD_I8S(a, in->events, in->event_count, *x);
  pgc_add(s, &events);
  ADD_I8S(a, in->bumps, in->bump_count, x->id);
  ADD_I8S(a, in->bumps, in->bump_count, x->seen_count);
  ADD_I8S(a, in->bumps, in->bump_count, x->count);
  ADD_I8S(a, in->bumps, in->bump_count, x->last_at);
  ADD_TEXTS(a, in->bumps, in->bump_count, x->details);
  pgc_add(s, &bumps);
  ADD_I8S(a, in->alerts, n, x->key.rule_id);
  ADD_I8S(a, in->alerts, n, x->key.channel_id);
  ADD_I8S(a, in->alerts, n, x->key.task_id);
  ADD_I8S(a, in->alerts, n, x->seq);
  ADD_I8S(a, in->alerts, n, x->summary);
  ADD_I8S(a, in->alerts, n, x->count);
  ADD_I8S(a, in->alerts, n, x->first_at);
  ADD_I8S(a, in->alerts, n, x->last_at);
  ADD_I8S(a, in->alerts, n, x->window_until);
  ADD_I8S(a, in->alerts, n, x->created_at);
  ADD_I8S(a, in->alerts, n, x->next_at);
  ADD_I8S(a, in->alerts, n, x->give_up_at);
  ADD_TEXTS(a, in->alerts, n, x->ns);
  ADD_TEXTS(a, in->alerts, n, x->rule);
  ADD_TEXTS(a, in->alerts, n, x->channel);
  ADD_TEXTS(a, in->alerts, n, x->task_name);
  ADD_TEXTS(a, in->alerts, n, x->details);
  pgc_add(s, &alerts);
}

int pg_alert_apply(struct store *store, const struct st_alert_apply *in, struct st_alert_apply_ret *ret,
                   struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  PGresult *r[4] = {0};
  (void)ret;
  (void)mem;
  pgc_begin(s);
  add_apply(s, in);
  int code = pgc_run(s, r, e);
  if (code == 0 && ((size_t)PQntuples(r[1]) != in->event_count || (size_t)PQntuples(r[2]) != in->bump_count))
    code = err_set(e, ERR_CONFLICT, "events or alerts have been taken by somebody else");
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  if (code == 0)
    return pgc_commit(s, e);
  pgc_rollback(s);
  return code;
}

/* ---------------------------------------------------------------- deliveries */
int pg_alert_claim(struct store *store, const struct st_alert_claim *in, struct st_alert_claim_ret *ret,
                   struct arena *mem, struct err *e) {
  static const struct pg_sql look = {
      "alert_look",
      "SELECT n.now, count(a.id), coalesce(min(a.created_at) FILTER (WHERE a.next_at <= n.now), 0) FROM "
      "(SELECT " PG_NOW " AS now OFFSET 0) n LEFT JOIN alert a ON a.state = 0 GROUP BY n.now",
      PG_READ};
  static const struct pg_sql claim = {
      "alert_claim",
      "UPDATE alert a SET closed = true, attempts = attempts + 1, tries = tries + 1, next_at = " PG_NOW
      " + $1::int8 WHERE id = ANY (ARRAY (SELECT id FROM alert WHERE state = 0 AND next_at <= (SELECT " PG_NOW
      ") ORDER BY next_at LIMIT $2::int4 FOR UPDATE SKIP LOCKED)) RETURNING " ALERT_COLUMNS("a."),
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result seen = NULL;
  auto_result r = NULL;
  int code = pgc_one(s, &look, &seen, e);
  if (code < 0)
    return code;
  struct st_alert_claim_ret out = {
      .now = pgw_int(seen, 0, 0), .pending = pgw_int(seen, 0, 1), .oldest_at = pgw_int(seen, 0, 2)};
  if (out.oldest_at && in->limit > 0) {
    pgw_i8(&s->args, in->lease);
    pgw_i4(&s->args, in->limit);
    code = pgc_one(s, &claim, &r, e);
    if (code < 0)
      return code;
    out.rows = read_alerts(r, &out.count, mem);
  }
  *ret = out;
  return 0;
}

int pg_alert_result(struct store *store, const struct st_alert_result *in, struct st_alert_result_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "alert_result",
      "WITH l AS (INSERT INTO alert_attempt (alert_id, attempt, at, took, status, error) SELECT a.id, "
      "$2::int4, $5::int8, $6::int8, $7::int4, $8::text FROM alert a WHERE a.id = $1::int8 ON CONFLICT DO "
      "NOTHING) UPDATE alert SET state = $3::int4, next_at = n.now + $4::int8, status = $7, error = $8, "
      "sent_at "
      "= CASE $3 WHEN 1 THEN n.now ELSE sent_at END FROM (SELECT " PG_NOW
      " AS now OFFSET 0) n WHERE id = $1 AND attempts = $2 AND state = 0",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  pgw_i8(&s->args, in->id);
  pgw_i4(&s->args, in->attempt.attempt);
  pgw_i4(&s->args, (int32_t)in->state);
  pgw_i8(&s->args, in->next_in);
  pgw_i8(&s->args, in->attempt.at);
  pgw_i8(&s->args, in->attempt.took);
  pgw_i4(&s->args, in->attempt.status);
  pgw_text(&s->args, in->attempt.error);
  return pgc_one(s, &q, &r, e);
}

int pg_alert_list(struct store *store, const struct st_alert_list *in, struct st_alert_list_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "alert_list",
      "SELECT " ALERT_COLUMNS(
          "") " FROM alert WHERE id < $1::int8 AND ($2::text IS NULL OR ns = $2) AND "
              "($3::text IS NULL OR rule = $3) AND ($4::text IS NULL OR channel = $4) AND "
              "($5::int8 = 0 OR task_id = $5) AND ($6::int4 < 0 OR state = $6) ORDER BY id "
              "DESC LIMIT $7::int4",
      PG_READ, true};
  static const struct slice any;
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  pgw_i8(&s->args, in->before ? in->before : INT64_MAX);
  pgw_text(&s->args, in->ns.n ? in->ns : any);
  pgw_text(&s->args, in->rule.n ? in->rule : any);
  pgw_text(&s->args, in->channel.n ? in->channel : any);
  pgw_i8(&s->args, in->task_id);
  pgw_i4(&s->args, in->state);
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    ret->rows = read_alerts(r, &ret->count, mem);
  return code;
}

static int not_there(struct err *e, int64_t id) {
  return err_set(e, ERR_NOT_FOUND, "there is no alert %" PRId64, id);
}

int pg_alert_get(struct store *store, const struct st_alert_get *in, struct st_alert_get_ret *ret,
                 struct arena *mem, struct err *e) {
  static const struct pg_sql get = {"alert_get",
                                    "SELECT " ALERT_COLUMNS("") " FROM alert WHERE id = $1::int8", PG_READ};
  static const struct pg_sql log = {
      "alert_attempts",
      "SELECT attempt, at, took, status, error FROM alert_attempt WHERE alert_id = $1::int8 ORDER BY attempt",
      PG_READ};
  struct pg_store *s = pg_of(store);
  PGresult *r[2] = {0};
  size_t n = 0;
  pgw_i8(&s->args, in->id);
  pgc_add(s, &get);
  pgw_i8(&s->args, in->id);
  pgc_add(s, &log);
  int code = pgc_run(s, r, e);
  if (code == 0) {
    const struct alert_row *alert = read_alerts(r[0], &n, mem);
    size_t count = (size_t)PQntuples(r[1]);
    struct alert_attempt_row *rows = arena_array(mem, count + 1, sizeof *rows);
    for (size_t i = 0; i < count; i++) {
      struct pgw_cursor c = pgw_row_of(r[1], i, mem);
      rows[i].attempt = (int32_t)pgw_next_int(&c);
      rows[i].at = pgw_next_int(&c);
      rows[i].took = pgw_next_int(&c);
      rows[i].status = (int32_t)pgw_next_int(&c);
      rows[i].error = pgw_next_text(&c);
    }
    if (n)
      *ret = (struct st_alert_get_ret){alert[0], rows, count};
    else
      code = not_there(e, in->id);
  }
  pgr_clear(&r[0]);
  pgr_clear(&r[1]);
  return code;
}

int pg_alert_send(struct store *store, const struct st_alert_send *in, struct st_alert_send_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"alert_send",
                                  "UPDATE alert a SET state = 0, closed = true, tries = 0, next_at = n.now, "
                                  "give_up_at = n.now + $2::int8 "
                                  "FROM (SELECT " PG_NOW
                                  " AS now OFFSET 0) n WHERE id = $1::int8 RETURNING " ALERT_COLUMNS("a."),
                                  PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  size_t n = 0;
  pgw_i8(&s->args, in->id);
  pgw_i8(&s->args, in->give_up_in);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  const struct alert_row *rows = read_alerts(r, &n, mem);
  if (n == 0)
    return not_there(e, in->id);
  ret->alert = rows[0];
  return 0;
}

int pg_alert_expire(struct store *store, const struct st_alert_expire *in, struct st_alert_expire_ret *ret,
                    struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "alert_expire",
      "WITH old AS (SELECT id FROM alert WHERE state <> 0 AND created_at < (SELECT " PG_NOW
      ") - $1::int8 ORDER BY created_at, id LIMIT $2::int4 FOR UPDATE SKIP LOCKED), l AS (DELETE FROM "
      "alert_attempt WHERE alert_id = ANY (ARRAY (SELECT id FROM old))), d AS (DELETE FROM alert WHERE id = "
      "ANY "
      "(ARRAY (SELECT id FROM old)) RETURNING 1) SELECT count(*) FROM d",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)mem;
  pgw_i8(&s->args, in->age);
  pgw_i4(&s->args, in->limit);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    ret->removed = pgw_int(r, 0, 0);
  return code;
}
