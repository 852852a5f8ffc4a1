/* Retention: ended runs leave run_history for run_old in small steps, so that nobody waits for them, and from there they go. */
#include "store/sqlite/sqlite.h"
#include "store/totals.h"
#include <limits.h>

#define LINES_FACTOR 4 /* lines of logs that go with a step, for each of its runs */

_Static_assert(RUN_SUCCESS == 2 && RUN_FAIL == 3 && RUN_CANCELLED == 4 && RUN_SKIPPED == 5,
               "numbers in sql.def");

static const struct run_key start = {.scheduled_at = INT64_MIN, .task_id = INT64_MIN, .part = INT32_MIN};

int sqlite_history_batch(struct store *s, const struct st_history_batch *in, struct st_history_batch_ret *ret,
                         struct arena *mem, struct err *e) {
  struct st_history_batch_ret out = {};
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  (void)in;
  if (r < 0)
    return r;
  out.now = tx.now;
  r = db_first(tx.db, SQL_HISTORY_BATCH, e, "");
  if (r > 0)
    db_get(tx.db, SQL_HISTORY_BATCH, mem, "lbll", &out.no, &out.archived, &out.first, &out.last);
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  out.any = out.last != 0;
  *ret = out;
  return 0;
}

int sqlite_history_take_day(struct store *s, const struct st_history_take_day *in,
                            struct st_history_take_day_ret *ret, struct arena *mem, struct err *e) {
  (void)s;
  (void)in;
  (void)mem;
  (void)e;
  *ret = (struct st_history_take_day_ret){}; /* days are not stored apart here */
  return 0;
}

/* ------------------------------------------------------------------ taking */
struct seen {
  struct run_key *keys; /* those that go */
  size_t count, cap;
  int32_t rows;
  struct run_key last;
};

/* The listed namespaces as a JSON array; names have no characters that need care there. */
static struct slice names_json(const struct st_history_take *in, struct arena *mem) {
  const char *text = "";
  if (!in->ns_count)
    return (struct slice){};
  for (size_t i = 0; i < in->ns_count; i++)
    text = arena_printf(mem, "%s%c\"%.*s\"", text, i ? ',' : '[', SLICE_FMT(in->ns[i]));
  return slice_of(arena_printf(mem, "%s]", text));
}

/* Looked at beside the writers: an ended run never changes, and only this takes it away. */
static int look(struct store *s, const struct st_history_take *in, struct seen *seen, struct arena *mem,
                struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_HISTORY_SEEN, e, "llilis", seen->last.scheduled_at, seen->last.task_id,
               seen->last.part, in->before, in->scan, names_json(in, mem));
  while (r >= 0 && seen->count < (size_t)in->limit && (r = db_step(tx.db, SQL_HISTORY_SEEN, e)) > 0) {
    bool goes = false;
    struct run_key *k = &seen->last;
    db_get(tx.db, SQL_HISTORY_SEEN, NULL, "lliib", &k->scheduled_at, &k->task_id, &k->part, &k->shard, &goes);
    seen->rows++;
    if (goes)
      *sqlite_push(mem, seen->keys, seen->count, seen->cap) = *k;
  }
  return sqlite_read_end(&tx, r);
}

int sqlite_history_take(struct store *s, const struct st_history_take *in, struct st_history_take_ret *ret,
                        struct arena *mem, struct err *e) {
  struct seen seen = {.last = in->after ? *in->after : start};
  struct st_history_take_ret out = {.last = seen.last};
  struct sqlite_tx tx;
  int r = in->strays ? 0 : look(s, in, &seen, mem, e);
  if (r >= 0 && seen.count && (r = sqlite_write(&tx, s, mem, e)) >= 0) {
    r = db_run(tx.db, SQL_HISTORY_GROWS, e, "");
    for (size_t i = 0; r >= 0 && i < seen.count; i++) {
      const struct run_key *k = &seen.keys[i];
      r = db_run(tx.db, SQL_HISTORY_TAKE, e, "lli", k->scheduled_at, k->task_id, k->part);
      if (r > 0)
        r = db_run(tx.db, SQL_HISTORY_TAKEN, e, "lli", k->scheduled_at, k->task_id, k->part);
      out.taken += r > 0;
    }
    r = sqlite_write_end(&tx, r);
  }
  if (r < 0)
    return r;
  out.last = seen.last;
  out.more = seen.rows >= in->scan || seen.count >= (size_t)in->limit;
  *ret = out;
  return 0;
}

/* ------------------------------------------------------------------ for the archive */
static int read_attempts(struct sqlite_tx *tx, struct history_row *row) {
  const struct run_key *k = &row->r.run.key;
  size_t cap = 0;
  int r = db_query(tx->db, SQL_ATTEMPT_LIST, tx->e, "lli", k->task_id, k->scheduled_at, k->part);
  while (r >= 0 && (r = db_step(tx->db, SQL_ATTEMPT_LIST, tx->e)) > 0) {
    struct attempt_row *a = sqlite_push(tx->mem, row->attempts, row->attempt_count, cap);
    a->key = *k;
    db_get(tx->db, SQL_ATTEMPT_LIST, tx->mem, "iiilllsss", &a->attempt, &a->state, &a->reason,
           &a->dispatched_at, &a->started_at, &a->finished_at, &a->executor, &a->error_type,
           &a->error_message);
  }
  return r;
}

int sqlite_history_read(struct store *s, const struct st_history_read *in, struct st_history_read_ret *ret,
                        struct arena *mem, struct err *e) {
  const struct run_key *after = in->after ? in->after : &start;
  struct st_history_read_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_HISTORY_READ_OLD, e, "llii", after->scheduled_at, after->task_id, after->part,
               in->limit);
  while (r >= 0 && (r = db_step(tx.db, SQL_HISTORY_READ_OLD, e)) > 0) {
    struct history_row *h = sqlite_push(mem, out.rows, out.count, cap);
    *h = (struct history_row){};
    sqlite_get_ended(&tx, SQL_HISTORY_READ_OLD, &h->r);
  }
  for (size_t i = 0; r >= 0 && i < out.count; i++)
    r = read_attempts(&tx, &out.rows[i]);
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_history_archived(struct store *s, const struct st_history_archived *in,
                            struct st_history_archived_ret *ret, struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  r = db_run(tx.db, SQL_HISTORY_ARCHIVED, e, "l", in->no);
  if (r == 0)
    r = err_set(e, ERR_STALE, "the batch %lld is done already", (long long)in->no);
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}

/* ------------------------------------------------------------------ away */
static int old_keys(struct sqlite_tx *tx, int32_t limit, struct seen *seen) {
  int r = db_query(tx->db, SQL_HISTORY_OLD_KEYS, tx->e, "i", limit);
  while (r >= 0 && (r = db_step(tx->db, SQL_HISTORY_OLD_KEYS, tx->e)) > 0) {
    struct run_key *k = sqlite_push(tx->mem, seen->keys, seen->count, seen->cap);
    db_get(tx->db, SQL_HISTORY_OLD_KEYS, NULL, "lli", &k->scheduled_at, &k->task_id, &k->part);
  }
  return r;
}

int sqlite_history_drop(struct store *s, const struct st_history_drop *in, struct st_history_drop_ret *ret,
                        struct arena *mem, struct err *e) {
  static const enum sql steps[] = {SQL_HISTORY_FOLD, SQL_HISTORY_DROP_ATTEMPTS, SQL_DEAD_LETTER_DROP,
                                   SQL_HISTORY_DROP};
  int32_t lines = in->limit * LINES_FACTOR;
  struct seen seen = {};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = old_keys(&tx, in->limit, &seen);
  for (size_t i = 0; r >= 0 && i < seen.count; i++) {
    r = sqlite_log_drop(&tx, &seen.keys[i], &lines);
    if (r == 0)
      break; /* the rest of its log first */
    for (size_t step = 0; r >= 0 && step < sizeof steps / sizeof steps[0]; step++)
      r = db_run(tx.db, steps[step], e, "lli", seen.keys[i].scheduled_at, seen.keys[i].task_id,
                 seen.keys[i].part);
  }
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  if (r == 0)
    ret->more = seen.count > 0;
  return r;
}

int sqlite_history_settle(struct store *s, const struct st_history_settle *in,
                          struct st_history_settle_ret *ret, struct arena *mem, struct err *e) {
  (void)s;
  (void)in;
  (void)mem;
  (void)e;
  ret->more = false;
  return 0;
}

/* ------------------------------------------------------------------ how many are there? */
int sqlite_history_count(struct store *s, const struct st_history_count *in, struct st_history_count_ret *ret,
                         struct arena *mem, struct err *e) {
  struct st_history_count_ret out = {};
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  if (in->ns.n && (r = db_first(tx.db, SQL_HISTORY_COUNT, e, "tll", in->ns, in->since, in->until)) > 0)
    db_get(tx.db, SQL_HISTORY_COUNT, mem, "l", &out.count);
  if (r >= 0 && (r = db_first(tx.db, SQL_HISTORY_OLDEST, e, "ll", in->since, in->until)) > 0)
    db_get(tx.db, SQL_HISTORY_OLDEST, mem, "l", &out.oldest);
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

static void read_totals(struct sqlite_tx *tx, enum sql id, struct task_totals *t, int *last_state) {
  if (last_state)
    db_get(tx->db, id, NULL, "llllllllllli", &t->success, &t->fail, &t->cancelled, &t->skipped, &t->attempts,
           &t->durations, &t->duration_sum, &t->duration_max, &t->last_scheduled_at, &t->last_started_at,
           &t->last_finished_at, last_state);
  else
    db_get(tx->db, id, NULL, "lllllllllll", &t->success, &t->fail, &t->cancelled, &t->skipped, &t->attempts,
           &t->durations, &t->duration_sum, &t->duration_max, &t->last_scheduled_at, &t->last_started_at,
           &t->last_finished_at);
}

/* The history, what has been taken out of it, and (of all time only) what is gone. */
static int ended_totals(struct sqlite_tx *tx, const struct st_task_stats *in, struct task_totals *ret,
                        int *ret_last_state) {
  static const enum sql places[] = {SQL_STATS_ENDED, SQL_STATS_OLD};
  struct task_totals one;
  int r = 0;
  for (size_t i = 0; r >= 0 && i < 2; i++)
    if ((r = db_first(tx->db, places[i], tx->e, "ll", in->task_id, in->since)) > 0) {
      read_totals(tx, places[i], &one, NULL);
      task_totals_add(ret, &one);
    }
  if (r >= 0 && in->since == 0 && (r = db_first(tx->db, SQL_STATS_GONE, tx->e, "l", in->task_id)) > 0) {
    read_totals(tx, SQL_STATS_GONE, &one, ret_last_state);
    task_totals_add(ret, &one);
  }
  if (r >= 0 && (r = db_first(tx->db, SQL_STATS_LAST, tx->e, "ll", in->task_id, in->since)) > 0)
    db_get(tx->db, SQL_STATS_LAST, NULL, "i", ret_last_state);
  return r;
}

int sqlite_task_stats(struct store *s, const struct st_task_stats *in, struct st_task_stats_ret *ret,
                      struct arena *mem, struct err *e) {
  struct task_totals ended = {};
  struct st_task_stats_ret out;
  int64_t open = 0, attempts = 0, scheduled_at = 0, started_at = 0;
  int last_state = -1;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = ended_totals(&tx, in, &ended, &last_state);
  if (r >= 0 && (r = db_first(tx.db, SQL_STATS_OPEN, e, "ill", sqlite_shard_of(&tx, in->task_id), in->task_id,
                              in->since)) > 0)
    db_get(tx.db, SQL_STATS_OPEN, mem, "llll", &open, &attempts, &scheduled_at, &started_at);
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  task_totals_give(&ended, &out);
  out.last_state = last_state;
  out.open = open;
  out.fires += open;
  out.attempts += attempts;
  out.last_scheduled_at = task_totals_max(out.last_scheduled_at, scheduled_at);
  out.last_started_at = task_totals_max(out.last_started_at, started_at);
  *ret = out;
  return 0;
}
