#include "sim_db.h"
#include <stdlib.h>
#include <utlist.h>

/* The database: FIRE, changes of runs, their history. */

struct db_run_id db_run_id(const struct run_key *k) {
  return (struct db_run_id){k->scheduled_at, k->task_id, k->shard, k->part};
}

struct db_run *sim_db_run(struct sim_db *db, const struct run_key *key) {
  struct db_run_id id = db_run_id(key);
  struct db_run *r;
  HASH_FIND(hh, db->runs, &id, sizeof id, r);
  return r;
}

static void keep_text(struct sim_db *db, struct slice *s, struct slice from) {
  if (from.p && s->p && slice_eq(*s, from))
    return;
  *s = db_text(db, from);
}

static void changed(struct sim_db *db, struct db_run *r, const struct run_row *before) {
  db_written(db, r->key.task_id ^ r->key.scheduled_at,
             (int64_t)r->row.state * 1000 + r->row.reason * 100 + r->row.attempt);
  if (db->hooks.run_changed && !db->tx)
    db->hooks.run_changed(db->hooks.arg, r, before);
}

/* False: it was there. */
static bool insert_run(struct sim_db *db, const struct run_row *row, bool ended) {
  struct db_run *was = sim_db_run(db, &row->key);
  if (was && !db->removed[GUARD_RUN_KEY])
    return false;
  struct db_run *r = mem_zalloc(sizeof *r);
  r->key = row->key;
  r->id = db_run_id(&row->key);
  r->row = *row;
  r->ended = ended;
  r->opened = !ended;
  r->doubled = was != NULL;
  struct slice *texts[] = {&r->row.executor, &r->row.pin,        &r->row.payload,       &r->row.origin_run,
                           &r->row.result,   &r->row.error_type, &r->row.error_message, &r->row.error_detail};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    *texts[i] = db_text(db, *texts[i]);
  HASH_ADD(hh, db->runs, id, sizeof r->id, r);
  if (!ended)
    DL_APPEND(db->shards[row->key.shard].open, r);
  db_undo_add(db, &(struct db_undo){.kind = UNDO_RUN, .run = r});
  changed(db, r, NULL);
  return true;
}

static void put_progress(struct sim_db *db, const struct progress_row *in) {
  struct db_progress *p;
  HASH_FIND(hh, db->progress, &in->task_id, sizeof in->task_id, p);
  if (p) {
    db_undo_add(db, &(struct db_undo){.kind = UNDO_PROGRESS, .progress = p->row});
  } else {
    p = mem_zalloc(sizeof *p);
    p->task_id = in->task_id;
    p->row = (struct progress_row){.task_id = in->task_id, .shard = in->shard};
    HASH_ADD(hh, db->progress, task_id, sizeof p->task_id, p);
    db_undo_add(db, &(struct db_undo){.kind = UNDO_PROGRESS_NEW, .progress = p->row});
  }
  if (in->base_at > p->row.base_at)
    p->row.base_at = in->base_at;
  if (in->fired >= 0)
    p->row.fired = in->fired;
  db_written(db, p->row.base_at, p->row.fired);
}

void db_inbox_drop(struct sim_db *db, const struct inbox_row *in) {
  for (size_t i = 0; i < db->inbox_count; i++)
    if (db->inbox[i].shard == in->shard && db->inbox[i].no == in->no) {
      struct inbox_row gone = db->inbox[i];
      db_undo_add(db, &(struct db_undo){.kind = UNDO_INBOX, .inbox = gone});
      memmove(&db->inbox[i], &db->inbox[i + 1], (db->inbox_count - i - 1) * sizeof db->inbox[0]);
      db->inbox_count--;
      if (db->hooks.inbox_gone)
        db->hooks.inbox_gone(&gone);
      return;
    }
}

static bool as_seen(struct sim_db *db, const struct fire_shard *f, usec_t ahead) {
  const struct shard_row *r = &db->shards[f->shard].row;
  bool forward = f->new_at > f->seen_at || (f->new_at == f->seen_at && f->new_task >= f->seen_task);
  return (r->epoch == f->epoch || db->removed[GUARD_FIRE_EPOCH]) &&
         (r->tasks_version == f->tasks_version || db->removed[GUARD_TASKS_VERSION]) &&
         ((r->fired_at == f->seen_at && r->fired_task == f->seen_task) || db->removed[GUARD_WATERMARK]) &&
         forward && (f->new_at <= db->now(db->now_arg) + ahead || db->removed[GUARD_AHEAD]);
}

/* The rows of the shards that were moved. */
static void insert_fire(struct sim_db *db, const struct st_fire *in, const bool *ok, bool *ret_present) {
  for (size_t i = 0; i < in->open_count; i++)
    if (ok[in->open[i].key.shard])
      ret_present[i] = !insert_run(db, &in->open[i], false);
  for (size_t i = 0; i < in->ended_count; i++)
    if (ok[in->ended[i].key.shard])
      (void)insert_run(db, &in->ended[i], true);
  for (size_t i = 0; i < in->progress_count; i++)
    if (ok[in->progress[i].shard])
      put_progress(db, &in->progress[i]);
  for (size_t i = 0; i < in->inbox_count; i++)
    if (ok[in->inbox_done[i].shard])
      db_inbox_drop(db, &in->inbox_done[i]);
}

int db_fire(struct store *s, const struct st_fire *in, struct st_fire_ret *ret, struct arena *mem,
            struct err *e) {
  struct sim_db *db = db_of(s);
  bool *ok = arena_array(mem, (size_t)db->shard_count, sizeof *ok);
  ret->advanced = arena_array(mem, in->shard_count, sizeof *ret->advanced);
  ret->present = arena_array(mem, in->open_count, sizeof *ret->present);
  ret->now = db->now(db->now_arg);
  for (size_t i = 0; i < in->shard_count; i++) {
    const struct fire_shard *f = &in->shards[i];
    if (!as_seen(db, f, in->ahead))
      continue;
    struct shard_row *r = &db->shards[f->shard].row;
    db_undo_add(db, &(struct db_undo){.kind = UNDO_SHARD, .shard = *r});
    r->fired_at = f->new_at;
    r->fired_task = f->new_task;
    ret->advanced[i] = ok[f->shard] = true;
    db_written(db, f->shard, f->new_at ^ f->new_task);
  }
  if (db->removed[GUARD_ONE_TRANSACTION] && db->hooks.half && db->hooks.half(db->hooks.arg))
    return err_set(e, ERR_UNKNOWN_OUTCOME, "broken between the two transactions");
  insert_fire(db, in, ok, ret->present);
  if (db->hooks.committed && !db->tx)
    db->hooks.committed(db->hooks.arg);
  return 0;
}

/* ------------------------------------------------------------------ changes */
static bool update_run(struct sim_db *db, const struct run_update *u) {
  struct db_run *r = sim_db_run(db, &u->key);
  if (!r || r->ended)
    return false;
  bool as_seen =
      r->row.attempt == u->seen_attempt && r->row.state == u->seen_state && r->row.reason == u->seen_reason;
  if (!as_seen && !db->removed[GUARD_FINISH_ATTEMPT])
    return false;
  struct run_row before = r->row;
  r->row.state = u->state;
  r->row.reason = u->reason;
  r->row.attempt = u->attempt;
  r->row.not_before = u->not_before;
  r->row.attempt_at = u->attempt_at;
  r->row.started_at = u->started_at;
  r->row.progress = u->progress;
  r->row.incarnation = u->incarnation;
  keep_text(db, &r->row.executor, u->executor);
  keep_text(db, &r->row.error_type, u->error_type);
  keep_text(db, &r->row.error_message, u->error_message);
  changed(db, r, &before);
  return true;
}

static bool finish_run(struct sim_db *db, const struct run_finish *f) {
  struct db_run *r = sim_db_run(db, &f->key);
  bool any = db->removed[GUARD_FINISH_ATTEMPT];
  if (!r || (r->ended && !any) || (r->row.attempt != f->seen_attempt && !any))
    return false;
  struct run_row before = r->row;
  if (!r->ended)
    DL_DELETE(db->shards[r->key.shard].open, r);
  r->ended = true;
  r->row.state = f->state;
  r->row.reason = f->reason;
  r->row.not_before = 0;
  r->row.attempt_at = f->attempt_at;
  r->row.started_at = f->started_at;
  r->row.finished_at = f->finished_at;
  keep_text(db, &r->row.executor, f->executor);
  keep_text(db, &r->row.result, f->result);
  keep_text(db, &r->row.error_type, f->error_type);
  keep_text(db, &r->row.error_message, f->error_message);
  keep_text(db, &r->row.error_detail, f->error_detail);
  changed(db, r, &before);
  return true;
}

const struct db_attempts *sim_db_attempts(struct sim_db *db, const struct run_key *key) {
  struct db_run_id id = db_run_id(key);
  struct db_attempts *a;
  HASH_FIND(hh, db->attempts, &id, sizeof id, a);
  return a;
}

static void add_attempt(struct sim_db *db, const struct attempt_row *in) {
  struct db_run_id id = db_run_id(&in->key);
  struct db_attempts *a;
  HASH_FIND(hh, db->attempts, &id, sizeof id, a);
  if (!a) {
    a = mem_zalloc(sizeof *a);
    a->id = id;
    HASH_ADD(hh, db->attempts, id, sizeof a->id, a);
  }
  size_t at = a->count;
  while (at && a->rows[at - 1].attempt >= in->attempt)
    at--;
  if (at < a->count && a->rows[at].attempt == in->attempt)
    return;
  mem_reserve(a->rows, a->count, a->cap);
  memmove(&a->rows[at + 1], &a->rows[at], (a->count - at) * sizeof *a->rows);
  a->count++;
  a->rows[at] = *in;
  a->rows[at].executor = db_text(db, in->executor);
  a->rows[at].error_type = db_text(db, in->error_type);
  a->rows[at].error_message = db_text(db, in->error_message);
  db_written(db, in->key.task_id, in->attempt);
}

int db_run_apply(struct store *s, const struct st_run_apply *in, struct st_run_apply_ret *ret,
                 struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)e;
  bool *ok = arena_array(mem, (size_t)db->shard_count, sizeof *ok);
  ret->fence_ok = arena_array(mem, in->fence_count, sizeof(bool));
  ret->updated = arena_array(mem, in->update_count, sizeof(bool));
  ret->finished = arena_array(mem, in->finish_count, sizeof(bool));
  ret->parents_ended = false;
  ret->now = db->now(db->now_arg);
  for (size_t i = 0; i < in->fence_count; i++) {
    const struct fence_row *f = &in->fences[i];
    ret->fence_ok[i] = ok[f->shard] =
        db->shards[f->shard].finish_epoch == f->epoch || db->removed[GUARD_FINISH_EPOCH];
  }
  for (size_t i = 0; i < in->update_count; i++)
    ret->updated[i] = ok[in->updates[i].key.shard] && update_run(db, &in->updates[i]);
  for (size_t i = 0; i < in->finish_count; i++)
    if ((ret->finished[i] = ok[in->finishes[i].key.shard] && finish_run(db, &in->finishes[i])))
      ret->parents_ended |= db_note_end(db, &sim_db_run(db, &in->finishes[i].key)->row);
  for (size_t i = 0; i < in->attempt_count; i++)
    if (ok[in->attempts[i].key.shard])
      add_attempt(db, &in->attempts[i]);
  for (size_t i = 0; i < in->progress_count; i++)
    if (ok[in->progress[i].shard])
      put_progress(db, &in->progress[i]);
  for (size_t i = 0; i < in->inbox_count; i++)
    if (ok[in->inbox_done[i].shard] || db->removed[GUARD_INBOX_EPOCH])
      db_inbox_drop(db, &in->inbox_done[i]);
  if (db->hooks.committed && !db->tx)
    db->hooks.committed(db->hooks.arg);
  return 0;
}

/* ------------------------------------------------------------------ questions */
static int by_key(const void *a, const void *b) {
  return run_key_cmp(&((const struct run_row *)a)->key, &((const struct run_row *)b)->key);
}

int db_run_load(struct store *s, const struct st_run_load *in, struct st_run_load_ret *ret, struct arena *mem,
                struct err *e) {
  struct sim_db *db = db_of(s);
  size_t n = 0, all = 0;
  (void)e;
  for (struct db_run *r = db->shards[in->shard].open; r; r = r->next)
    all++;
  struct run_row *rows = arena_array(mem, all, sizeof *rows);
  for (struct db_run *r = db->shards[in->shard].open; r; r = r->next)
    if (!in->after || run_key_cmp(&r->key, in->after) > 0)
      rows[n++] = r->row;
  if (n)
    qsort(rows, n, sizeof *rows, by_key);
  *ret = (struct st_run_load_ret){rows, n < (size_t)in->limit ? n : (size_t)in->limit};
  return 0;
}

int db_run_get(struct store *s, const struct st_run_get *in, struct st_run_get_ret *ret, struct arena *mem,
               struct err *e) {
  struct sim_db *db = db_of(s);
  const struct db_run *r = sim_db_run(db, &in->key);
  (void)mem;
  if (!r)
    return err_set(e, ERR_NOT_FOUND, "no such run");
  const struct db_task *t = sim_db_task(db, in->key.task_id);
  *ret = (struct st_run_get_ret){.run = r->row};
  if (t) {
    ret->task_name = t->versions[t->count - 1].v.name;
    ret->ns = t->versions[0].row.ns;
  }
  return 0;
}

int db_run_folded(struct store *s, const struct st_run_folded *in, struct st_run_folded_ret *ret,
                  struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  struct db_run *r, *next;
  size_t n = 0;
  (void)e;
  struct run_row *rows = arena_array(mem, HASH_COUNT(db->runs), sizeof *rows);
  HASH_ITER (hh, db->runs, r, next)
    if (r->key.task_id == in->task_id && r->row.missed_count > 1 && r->row.missed_first <= in->to &&
        r->key.scheduled_at >= in->from)
      rows[n++] = r->row;
  if (n)
    qsort(rows, n, sizeof *rows, by_key);
  *ret = (struct st_run_folded_ret){rows, n < (size_t)in->limit ? n : (size_t)in->limit};
  return 0;
}

int db_attempt_list(struct store *s, const struct st_attempt_list *in, struct st_attempt_list_ret *ret,
                    struct arena *mem, struct err *e) {
  const struct db_attempts *a = sim_db_attempts(db_of(s), &in->key);
  (void)e;
  size_t n = a ? a->count : 0;
  ret->rows = arena_array(mem, n, sizeof *ret->rows);
  if (n)
    memcpy(ret->rows, a->rows, n * sizeof *ret->rows);
  ret->count = n;
  return 0;
}

void db_runs_free(struct sim_db *db) {
  struct db_run *r, *next;
  HASH_ITER (hh, db->runs, r, next) {
    HASH_DEL(db->runs, r);
    mem_free(r);
  }
  struct db_attempts *a, *an;
  HASH_ITER (hh, db->attempts, a, an) {
    HASH_DEL(db->attempts, a);
    mem_free(a->rows);
    mem_free(a);
  }
}
