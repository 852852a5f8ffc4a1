/* FIRE: one statement. Watermark, open runs, skipped ones, progress and inbox of exactly the shards that are as seen. */
#include "store/postgres/pg.h"
#include <stdlib.h>

#define RUN_KEY     "shard, scheduled_at, task_id, part"
#define OF_ADVANCED "shard = ANY (ARRAY (SELECT id FROM adv))"

/* A run that has ended stands in history, and the key of run does not guard it. An instant of the schedule after the watermark as
 * seen cannot be there: only the others are looked up. ON CONFLICT costs a third of an insert, and there is next to never a
 * conflict: the first try is without it, and when that is done, every one of them was inserted. */
#define FIRE_FRESH                                                                                           \
  "WITH adv AS (UPDATE shard s SET fired_at = w.new_at, fired_task = w.new_task FROM (SELECT w.* FROM "      \
  "unnest($1::fire_shard_in[]) w CROSS JOIN LATERAL (SELECT id FROM shard WHERE id = w.shard FOR UPDATE "    \
  "OFFSET 0) l "                                                                                             \
  "ORDER BY w.shard OFFSET 0) w WHERE s.id = w.shard AND s.epoch = w.epoch AND s.tasks_version = "           \
  "w.tasks_version "                                                                                         \
  "AND s.fired_at = w.seen_at AND s.fired_task = w.seen_task AND (w.new_at, w.new_task) >= (w.seen_at, "     \
  "w.seen_task) "                                                                                            \
  "AND w.new_at <= " PG_NOW " + $2::int8 RETURNING s.id), "                                                  \
  "fresh AS (INSERT INTO run SELECT r.* FROM unnest($3::run[]) r WHERE r." OF_ADVANCED ")"
#define FIRE_OTHERS                                                                                          \
  ", checked AS (INSERT INTO run SELECT r.* FROM unnest($4::run[]) r WHERE r." OF_ADVANCED                   \
  " AND NOT EXISTS (SELECT FROM run_history h WHERE h.scheduled_at = r.scheduled_at AND h.task_id = "        \
  "r.task_id "                                                                                               \
  "AND h.part = r.part OFFSET 0) ON CONFLICT DO NOTHING RETURNING " RUN_KEY "), "                            \
  "ended AS (INSERT INTO run_history SELECT h.* FROM unnest($5::run_history[]) h WHERE h." OF_ADVANCED       \
  " AND NOT EXISTS (SELECT FROM run r WHERE r.shard = h.shard AND r.scheduled_at = h.scheduled_at "          \
  "AND r.task_id = h.task_id AND r.part = h.part OFFSET 0) ON CONFLICT DO NOTHING), "                        \
  "p AS (" PG_PROGRESS_PUT("$6", "u." OF_ADVANCED) "), "                                                     \
                                                   "i AS (DELETE FROM inbox i USING unnest($7::int4[], "     \
                                                   "$8::int8[]) u (shard, no) CROSS JOIN LATERAL "           \
                                                   "(SELECT k.ctid AS at FROM inbox k WHERE k.shard = "      \
                                                   "u.shard AND k.no = u.no OFFSET 0) k "                    \
                                                   "WHERE i.ctid = k.at AND u." OF_ADVANCED ")"
#define FIRE_ADVANCED PG_NOW ", adv.id"
#define FROM_ADVANCED " FROM (SELECT 1) one LEFT JOIN adv ON true"
/* The keys of $4 that were there already: looked for only when some row of it was not inserted. */
#define FEWER "(SELECT count(*) FROM checked) < cardinality($4::run[])"
#define FIRE_PRESENT                                                                                         \
  " UNION ALL SELECT NULL, NULL, k.* FROM (SELECT " RUN_KEY " FROM unnest($4::run[]) r WHERE " FEWER         \
  " AND r." OF_ADVANCED " EXCEPT SELECT " RUN_KEY " FROM checked WHERE " FEWER ") k"

/* The first is nearly every FIRE, and to begin and end a statement of half the parts costs half. */
static const struct pg_sql sql_fire_fresh = {"fire_fresh", FIRE_FRESH " SELECT " FIRE_ADVANCED FROM_ADVANCED,
                                             PG_WRITE};
static const struct pg_sql sql_fire = {
    "fire",
    FIRE_FRESH FIRE_OTHERS " SELECT " FIRE_ADVANCED
                           ", NULL::int4, NULL::int8, NULL::int8, NULL::int4" FROM_ADVANCED FIRE_PRESENT,
    PG_WRITE};

static int by_shard(const void *a, const void *b) {
  const struct fire_shard *const *x = a, *const *y = b;
  return ((*x)->shard > (*y)->shard) - ((*x)->shard < (*y)->shard);
}

/* In the order of the ids: the order in which they are locked. */
static void add_fire_shards(struct pg_store *s, const struct st_fire *in, struct arena *mem) {
  struct pgw_args *a = &s->args;
  const struct fire_shard **order = arena_array(mem, in->shard_count, sizeof *order);
  for (size_t i = 0; i < in->shard_count; i++)
    order[i] = &in->shards[i];
  qsort(order, in->shard_count, sizeof *order, by_shard);
  pgw_array(a, s->source->types.fire_shard_in, in->shard_count);
  for (size_t i = 0; i < in->shard_count; i++) {
    const struct fire_shard *f = order[i];
    pgw_row(a, 7);
    pgw_col_i4(a, f->shard);
    pgw_col_i8(a, f->epoch);
    pgw_col_i8(a, f->tasks_version);
    pgw_col_i8(a, f->seen_at);
    pgw_col_i8(a, f->seen_task);
    pgw_col_i8(a, f->new_at);
    pgw_col_i8(a, f->new_task);
    pgw_row_end(a);
  }
  pgw_array_end(a);
}

/* The columns of run, or (ended) of run_history, in the order of the table. */
static void add_run(struct pgw_args *a, const struct run_row *w, bool ended) {
  pgw_row(a, ended ? 24 : 23);
  pgw_col_i8(a, w->key.scheduled_at);
  pgw_col_i8(a, w->key.task_id);
  pgw_col_i8(a, w->fired_at);
  pgw_col_i8z(a, ended ? w->finished_at : w->not_before);
  pgw_col_i8z(a, w->attempt_at);
  pgw_col_i8z(a, w->started_at);
  pgw_col_i8z(a, w->missed_first);
  pgw_col_i8z(a, w->missed_count);
  pgw_col_progress(a, w->progress);
  pgw_col_i4(a, w->key.shard);
  pgw_col_i4(a, w->key.part);
  pgw_col_i4(a, w->version);
  pgw_col_i4(a, w->attempt);
  pgw_col_i2(a, w->state);
  pgw_col_i2(a, w->reason);
  pgw_col_i2(a, w->origin);
  pgw_col_text(a, w->executor);
  pgw_col_text(a, w->pin);
  pgw_col_text(a, w->payload);
  pgw_col_text(a, w->origin_run);
  if (ended)
    pgw_col_text(a, w->result);
  pgw_col_text(a, w->error_type);
  pgw_col_text(a, w->error_message);
  if (ended)
    pgw_col_text(a, w->error_detail);
  else
    pgw_col_i8z(a, w->incarnation);
  pgw_row_end(a);
}

/* Those that the key of run alone guards (fresh), or the others; `seen_at` NULL: none is fresh. Returns how many. */
static size_t add_open(struct pg_store *s, const struct st_fire *in, const usec_t *seen_at, bool fresh) {
  size_t n = 0;
  for (int pass = 0; pass < 2; pass++) {
    if (pass == 1)
      pgw_array(&s->args, s->source->types.run, n);
    for (size_t i = 0; i < in->open_count; i++) {
      const struct run_key *k = &in->open[i].key;
      bool known = k->shard >= 0 && k->shard < s->source->shard_count;
      if (!known || fresh != (seen_at && k->part == 0 && k->scheduled_at > seen_at[k->shard]))
        continue;
      if (pass == 0)
        n++;
      else
        add_run(&s->args, &in->open[i], false);
    }
  }
  pgw_array_end(&s->args);
  return n;
}

void pg_add_progress(struct pgw_args *a, const struct pg_source *o, const struct progress_row *rows,
                     size_t count) {
  pgw_array(a, o->types.progress, count);
  for (size_t i = 0; i < count; i++) {
    pgw_row(a, 4);
    pgw_col_i8(a, rows[i].task_id);
    pgw_col_i8(a, rows[i].base_at);
    pgw_col_i8(a, rows[i].fired);
    pgw_col_i4(a, rows[i].shard);
    pgw_row_end(a);
  }
  pgw_array_end(a);
}

static void add_inbox(struct pgw_args *a, const struct inbox_row *rows, size_t count) {
  pgw_array(a, PG_INT4_OID, count);
  for (size_t i = 0; i < count; i++)
    pgw_el_i4(a, rows[i].shard);
  pgw_array_end(a);
  pgw_array(a, PG_INT8_OID, count);
  for (size_t i = 0; i < count; i++)
    pgw_el_i8(a, rows[i].no);
  pgw_array_end(a);
}

/* `again`: one that was thought to be fresh was there. */
static const struct pg_sql *add_fire(struct pg_store *s, const struct st_fire *in, bool again,
                                     struct arena *mem) {
  usec_t *seen_at = again ? NULL : arena_array(mem, (size_t)s->source->shard_count, sizeof *seen_at);
  for (size_t i = 0; seen_at && i < in->shard_count; i++)
    if (in->shards[i].shard >= 0 && in->shards[i].shard < s->source->shard_count)
      seen_at[in->shards[i].shard] = in->shards[i].seen_at;
  add_fire_shards(s, in, mem);
  pgw_i8(&s->args, in->ahead);
  size_t fresh = add_open(s, in, seen_at, true);
  if (!again && fresh == in->open_count && in->ended_count + in->progress_count + in->inbox_count == 0)
    return &sql_fire_fresh;
  add_open(s, in, seen_at, false);
  pgw_array(&s->args, s->source->types.run_history, in->ended_count);
  for (size_t i = 0; i < in->ended_count; i++)
    add_run(&s->args, &in->ended[i], true);
  pgw_array_end(&s->args);
  pg_add_progress(&s->args, s->source, in->progress, in->progress_count);
  add_inbox(&s->args, in->inbox_done, in->inbox_count);
  return &sql_fire;
}

static void mark_advanced(const struct st_fire *in, int32_t shard, bool *advanced) {
  for (size_t i = 0; i < in->shard_count; i++)
    if (in->shards[i].shard == shard) {
      advanced[i] = true;
      return; /* a shard that is listed twice advances once */
    }
}

static int by_key(const void *a, const void *b) { return run_key_cmp(a, b); }

static bool *mark_present(const struct st_fire *in, struct run_key *keys, size_t count, struct arena *mem) {
  bool *present = arena_array(mem, in->open_count, sizeof *present);
  qsort(keys, count, sizeof *keys, by_key);
  for (size_t i = 0; i < in->open_count; i++)
    present[i] = bsearch(&in->open[i].key, keys, count, sizeof *keys, by_key) != NULL;
  return present;
}

static void read_answer(const PGresult *r, const struct st_fire *in, struct st_fire_ret *ret,
                        struct arena *mem) {
  size_t present = 0;
  bool others = PQnfields(r) > 2;
  struct run_key *keys = arena_array(mem, others ? (size_t)PQntuples(r) : 0, sizeof *keys);
  for (int row = 0; row < PQntuples(r); row++) {
    if (others && !PQgetisnull(r, row, 2)) {
      keys[present++] = (struct run_key){.shard = (int32_t)pgw_int(r, row, 2),
                                         .scheduled_at = pgw_int(r, row, 3),
                                         .task_id = pgw_int(r, row, 4),
                                         .part = (int32_t)pgw_int(r, row, 5)};
      continue;
    }
    ret->now = pgw_int(r, row, 0);
    if (!PQgetisnull(r, row, 1))
      mark_advanced(in, (int32_t)pgw_int(r, row, 1), ret->advanced);
  }
  if (present)
    ret->present = mark_present(in, keys, present, mem);
}

int pg_fire(struct store *store, const struct st_fire *in, struct st_fire_ret *ret, struct arena *mem,
            struct err *e) {
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  struct st_fire_ret out = {.advanced = arena_array(mem, in->shard_count, sizeof *out.advanced)};
  int code = pgc_one(s, add_fire(s, in, s->locked, mem), &r,
                     e); /* inside shard_lock a refusal would end the transaction */
  if (code == ERR_CONFLICT && !s->locked)
    code = pgc_one(s, add_fire(s, in, true, mem), &r, e);
  if (code < 0)
    return code;
  read_answer(r, in, &out, mem);
  *ret = out;
  return 0;
}
