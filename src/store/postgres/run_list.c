/* Lists of runs: open ones of every shard, ended ones by whatever finds them soon, merged. */
#include "store/postgres/pg.h"

#define LOOK_UPS_MAX    25000 /* by task and day, before reading everything in order is the better bet */
#define NEWEST_FIRST(t) " ORDER BY " t "scheduled_at DESC, " t "task_id DESC, " t "part DESC "
#define OPEN_STATES     (1u << RUN_PENDING | 1u << RUN_RUNNING)
#define ENDED_STATES    (1u << RUN_SUCCESS | REST_STATES)
#define REST_STATES     (1u << RUN_FAIL | 1u << RUN_CANCELLED | 1u << RUN_SKIPPED) /* in run_history_rest */

_Static_assert(RUN_SUCCESS == 2, "the number in the predicate of run_history_rest");

/* $1 scheduled_at, $2 task, $3 part: below these; $4 since, $5 states, $6 reason, $7 executor, $8 ns, $9 task, $10 limit, $11 shard of
 * the task or -1, $12 namespace to be asked of the task too, $13 and $14 states and reasons of the rest. Planned for these very values:
 * what is not asked for is not there. */
#define FILTER_REST(t)                                                                                       \
  t "scheduled_at <= $1::int8 AND (" t "scheduled_at, " t "task_id, " t                                      \
    "part) < ($1, $2::int8, $3::int4) AND " t "scheduled_at >= $4::int8 AND ($5::int4 = 0 OR ($5 >> " t      \
    "state) & 1 = 1) AND ($6::int4 < 0 OR " t "reason = $6) AND ($9::int8 = 0 OR " t "task_id = $9)"
#define FILTER(t) FILTER_REST(t) " AND ($7::text IS NULL OR " t "executor = $7)"
#define OF_NS(t)                                                                                             \
  " AND ($8::text IS NULL OR EXISTS (SELECT FROM task WHERE shard = " t "shard AND id = " t                  \
  "task_id AND ns = $8 OFFSET 0))"
#define USE_ALL "$11::int4 IS NOT NULL AND $13::int4[] IS NOT NULL AND $14::int4[] IS NOT NULL"

#define OPEN                                                                                                 \
  "SELECT " PG_RUN_OPEN(                                                                                     \
      "o.") " FROM shard s CROSS JOIN LATERAL (SELECT * FROM run r WHERE r.shard = s.id "                    \
            "AND " FILTER("r.") OF_NS("r.")                                                                  \
                NEWEST_FIRST("r.") "LIMIT $10::int4 OFFSET 0) o WHERE $12::bool AND ($11 < 0 OR s.id = $11)"
/* in the order of the key, or of (task_id, scheduled_at), or of (executor, scheduled_at): the planner's choice */
#define BY_TIME                                                                                              \
  "SELECT " PG_RUN_ENDED("h.") " FROM run_history h WHERE " FILTER("h.") OF_NS("h.")                         \
      NEWEST_FIRST("h.") "LIMIT $10"
#define BY_REASON                                                                                            \
  "SELECT " PG_RUN_ENDED(                                                                                    \
      "h.") " FROM unnest($13::int4[]) st (state) CROSS JOIN unnest($14::int4[]) re (reason) "               \
            "CROSS JOIN LATERAL (SELECT * FROM run_history h WHERE h.state = st.state "                      \
            "AND h.reason = re.reason AND h.state <> 2 AND " FILTER("h.") OF_NS("h.")                        \
                NEWEST_FIRST("h.") "LIMIT $10 OFFSET 0) h" NEWEST_FIRST("h.") "LIMIT $10"
#define BY_TASK                                                                                              \
  "SELECT " PG_RUN_ENDED("h.") " FROM task t CROSS JOIN LATERAL (SELECT * FROM run_history h WHERE "         \
                               "h.task_id = t.id AND " FILTER(                                               \
                                   "h.") " ORDER BY h.scheduled_at DESC, h.part DESC LIMIT $10 OFFSET 0) h " \
                                         "WHERE t.ns = $8" NEWEST_FIRST("h.") "LIMIT $10"
/* $15: up to there the days have their index by executor (history_settle). A range of one value, for with an equation that index's
 * order is the order of time to the planner, and it may bet on finding the executor soon without it. The days that are still written
 * are read in the order of time. */
#define BY_EXECUTOR                                                                                          \
  "(SELECT " PG_RUN_ENDED(                                                                                   \
      "h.") " FROM run_history h WHERE h.executor >= $7::text AND h.executor <= $7 AND "                     \
            "h.scheduled_at < $15::int8 AND " FILTER_REST("h.") OF_NS(                                       \
                "h.") " ORDER BY h.executor DESC, h.scheduled_at DESC, h.task_id DESC, "                     \
                      "h.part DESC LIMIT $10) UNION ALL (SELECT " PG_RUN_ENDED(                              \
                          "h.") " FROM run_history h WHERE h.scheduled_at >= $15::int8 AND " FILTER("h.")    \
                          OF_NS("h.") NEWEST_FIRST("h.") "LIMIT $10)"
#define LIST(parts)                                                                                          \
  "SELECT r.*, t.name, t.ns FROM (" parts ") r LEFT JOIN LATERAL (SELECT name, ns FROM task WHERE shard = "  \
  "r.shard AND id = r.task_id OFFSET 0) t ON true WHERE " USE_ALL NEWEST_FIRST("r.") "LIMIT $10"
#define BOTH(ended) LIST("(" OPEN ") UNION ALL (" ended ")")

static const struct pg_sql open_only = {"run_list_open", LIST(OPEN), PG_READ, true};
static const struct pg_sql by_time = {"run_list", BOTH(BY_TIME), PG_READ, true};
static const struct pg_sql by_reason = {"run_list_reason", BOTH(BY_REASON), PG_READ, true};
static const struct pg_sql by_executor = {"run_list_executor", BOTH(BY_EXECUTOR), PG_READ, true};
static const struct pg_sql by_task = {"run_list_task", BOTH(BY_TASK), PG_READ, true};

static void add_numbers(struct pgw_args *a, uint32_t mask) {
  size_t n = (size_t)__builtin_popcount(mask);
  pgw_array(a, PG_INT4_OID, n);
  for (int i = 0; i < 32; i++)
    if (mask >> i & 1)
      pgw_el_i4(a, i);
  pgw_array_end(a);
}

static void add_filter(struct pg_store *s, const struct st_run_list *in, uint32_t ended) {
  struct pgw_args *a = &s->args;
  struct run_key top = {.scheduled_at = INT64_MAX, .task_id = INT64_MAX, .part = INT32_MAX};
  if (in->before)
    top = *in->before;
  if (in->until && in->until <= top.scheduled_at)
    top = (struct run_key){.scheduled_at = in->until, .task_id = INT64_MIN, .part = INT32_MIN};
  pgw_i8(a, top.scheduled_at);
  pgw_i8(a, top.task_id);
  pgw_i4(a, top.part);
  pgw_i8(a, in->since ? in->since : INT64_MIN);
  pgw_i4(a, (int32_t)in->state_mask);
  pgw_i4(a, in->reason);
  pgw_text(a, in->executor.n ? in->executor : (struct slice){});
  pgw_text(a, in->ns.n ? in->ns : (struct slice){});
  pgw_i8(a, in->task_id);
  pgw_i4(a, in->limit);
  pgw_i4(a, in->task_id ? shard_of_task(in->task_id, s->source->shard_count) : -1);
  pgw_bool(a, !in->state_mask || (in->state_mask & OPEN_STATES));
  add_numbers(a, ended & REST_STATES);
  add_numbers(a, in->reason >= 0 ? 1u << in->reason : (1u << REASON_MAX_) - 1);
}

/* Has the namespace so few tasks that they can be asked one by one, on each day? */
static int few_tasks(struct pg_store *s, struct slice ns, bool *ret, struct err *e) {
  static const struct pg_sql q = {
      "run_list_tasks",
      "SELECT count(*) * (SELECT count(*) FROM pg_inherits WHERE inhparent = "
      "'run_history'::regclass) <= $2::int4 FROM (SELECT FROM task WHERE ns = $1::text "
      "LIMIT $2::int4) t",
      PG_READ};
  auto_result r = NULL;
  pgw_text0(&s->args, ns);
  pgw_i4(&s->args, LOOK_UPS_MAX);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    *ret = pgw_int(r, 0, 0);
  return code;
}

/* The end of the last day that has its index by executor; 0 = none. */
static int settled_until(struct pg_store *s, usec_t *ret, struct err *e) {
  static const struct pg_sql q = {
      "run_list_settled",
      "SELECT coalesce(max(" PG_DAY_OF(
          "c.relname") " + 86400000000), 0) FROM pg_inherits i JOIN pg_class c ON c.oid = "
                       "i.inhrelid JOIN pg_index x ON x.indexrelid = to_regclass(c.relname || '_executor') "
                       "WHERE i.inhparent = "
                       "'run_history'::regclass AND x.indisvalid",
      PG_READ};
  auto_result r = NULL;
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    *ret = pgw_int(r, 0, 0);
  return code;
}

static int choose(struct pg_store *s, const struct st_run_list *in, uint32_t ended, const struct pg_sql **ret,
                  usec_t *ret_settled, struct err *e) {
  bool few = false;
  int code = 0;
  *ret = &by_time;
  if (!ended)
    *ret = &open_only;
  if (!ended || in->task_id)
    return 0;
  if (in->ns.n && ((code = few_tasks(s, in->ns, &few, e)) < 0 || few))
    *ret = &by_task;
  else if (in->executor.n && ((code = settled_until(s, ret_settled, e)) < 0 || *ret_settled))
    *ret = &by_executor;
  else if (!(ended & 1u << RUN_SUCCESS))
    *ret = &by_reason;
  return code;
}

/* In the days that are still written an executor that is seldom seen is found by reading them whole: sequentially, then. */
static int read_whole(struct pg_store *s, const struct st_run_list *in, uint32_t ended, usec_t settled,
                      PGresult **ret, struct err *e) {
  static const struct pg_sql plain = {"run_list_plan", "SET LOCAL enable_seqscan = on", PG_READ};
  static const struct pg_sql end = {"run_list_end", "COMMIT", PG_READ};
  PGresult *r[4] = {0};
  pgc_begin(s);
  pgc_add(s, &plain);
  add_filter(s, in, ended);
  pgw_i8(&s->args, settled);
  pgc_add(s, &by_executor);
  pgc_add(s, &end);
  int code = pgc_run(s, r, e);
  s->in_tx = false;
  if (code == 0)
    *ret = take(r[2]);
  else
    pgc_drop(s); /* whatever state it is in */
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  return code;
}

int pg_run_list(struct store *store, const struct st_run_list *in, struct st_run_list_ret *ret,
                struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  const struct pg_sql *q;
  auto_result r = NULL;
  uint32_t ended = in->state_mask ? in->state_mask & ENDED_STATES : ENDED_STATES;
  if (in->reason > REASON_NONE)
    ended &= REST_STATES; /* success has none */
  usec_t settled = 0;
  int code = choose(s, in, ended, &q, &settled, e);
  if (code < 0)
    return code;
  if (q == &by_executor && !s->locked) {
    code = read_whole(s, in, ended, settled, &r, e);
  } else {
    add_filter(s, in, ended);
    if (q == &by_executor)
      pgw_i8(&s->args, settled);
    code = pgc_one(s, q, &r, e);
  }
  if (code < 0)
    return code;
  size_t n = (size_t)PQntuples(r);
  struct run_list_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    pg_read_run(&c, &rows[i].run);
    rows[i].task_name = pgw_next_text(&c);
    rows[i].ns = pgw_next_text(&c);
  }
  ret->rows = rows;
  ret->count = n;
  return 0;
}
