/* Writing runs: FIRE, the owner's changes, the inbox. */
#include "store/sqlite/sqlite.h"

#define NO_ENTRY (-1)

/* The index of each shard's entry in a list of shards; NO_ENTRY where there is none, or when it may not be written. */
static int32_t *no_entries(const struct sqlite_tx *tx) {
  int32_t *entry = arena_array(tx->mem, (size_t)tx->shard_count, sizeof *entry);
  for (int32_t i = 0; i < tx->shard_count; i++)
    entry[i] = NO_ENTRY;
  return entry;
}

static bool writable(const struct sqlite_tx *tx, const int32_t *entry, int32_t shard) {
  return shard >= 0 && shard < tx->shard_count && entry[shard] != NO_ENTRY;
}

/* ------------------------------------------------------------------ FIRE */
static bool moves_forward(const struct fire_shard *f) {
  return f->new_at > f->seen_at || (f->new_at == f->seen_at && f->new_task >= f->seen_task);
}

static int advance(struct sqlite_tx *tx, const struct st_fire *in, int32_t *entry, bool *advanced) {
  int r = 0;
  for (size_t i = 0; r >= 0 && i < in->shard_count; i++) {
    const struct fire_shard *f = &in->shards[i];
    if (f->shard < 0 || f->shard >= tx->shard_count || f->new_at > tx->now + in->ahead || !moves_forward(f) ||
        entry[f->shard] != NO_ENTRY)
      continue;
    r = db_run(tx->db, SQL_FIRE_ADVANCE, tx->e, "illllll", f->shard, f->epoch, f->tasks_version, f->seen_at,
               f->seen_task, f->new_at, f->new_task);
    advanced[i] = r > 0;
    if (r > 0)
      entry[f->shard] = (int32_t)i;
  }
  return r;
}

static int insert_open(struct db *db, const struct run_row *w, struct err *e) {
  return db_run(db, SQL_RUN_NEW, e, "illiiiiiilllllldssssssl", w->key.shard, w->key.scheduled_at,
                w->key.task_id, w->key.part, w->version, w->state, w->reason, w->origin, w->attempt,
                w->fired_at, w->not_before, w->attempt_at, w->started_at, w->missed_first, w->missed_count,
                w->progress, w->executor, w->pin, w->origin_run, w->error_type, w->error_message, w->payload,
                w->incarnation);
}

static int insert_ended(struct db *db, const struct run_row *w, struct err *e) {
  return db_run(db, SQL_HISTORY_NEW, e, "illiiiiiilllllldssssssss", w->key.shard, w->key.scheduled_at,
                w->key.task_id, w->key.part, w->version, w->state, w->reason, w->origin, w->attempt,
                w->fired_at, w->attempt_at, w->started_at, w->finished_at, w->missed_first, w->missed_count,
                w->progress, w->executor, w->pin, w->origin_run, w->error_type, w->error_message,
                w->error_detail, w->result, w->payload);
}

static int put_progress(struct db *db, const struct progress_row *p, struct err *e) {
  return db_run(db, SQL_PROGRESS_PUT, e, "illl", p->shard, p->task_id, p->base_at, p->fired);
}

/* `present`: made for the first row that is found to be there. */
static int open_rows(struct sqlite_tx *tx, const struct st_fire *in, const int32_t *entry, bool **present) {
  for (size_t i = 0; i < in->open_count; i++) {
    if (!writable(tx, entry, in->open[i].key.shard))
      continue;
    int r = insert_open(tx->db, &in->open[i], tx->e);
    if (r < 0)
      return r;
    if (r > 0)
      continue;
    if (!*present)
      *present = arena_array(tx->mem, in->open_count, sizeof **present);
    (*present)[i] = true;
  }
  return 0;
}

static int other_rows(struct sqlite_tx *tx, const struct st_fire *in, const int32_t *entry) {
  int r = 0;
  for (size_t i = 0; r >= 0 && i < in->ended_count; i++)
    if (writable(tx, entry, in->ended[i].key.shard))
      r = insert_ended(tx->db, &in->ended[i], tx->e);
  for (size_t i = 0; r >= 0 && i < in->progress_count; i++)
    if (writable(tx, entry, in->progress[i].shard))
      r = put_progress(tx->db, &in->progress[i], tx->e);
  for (size_t i = 0; r >= 0 && i < in->inbox_count; i++)
    if (writable(tx, entry, in->inbox_done[i].shard))
      r = db_run(tx->db, SQL_INBOX_DELETE, tx->e, "il", in->inbox_done[i].shard, in->inbox_done[i].no);
  return r;
}

int sqlite_fire(struct store *s, const struct st_fire *in, struct st_fire_ret *ret, struct arena *mem,
                struct err *e) {
  bool *advanced = arena_array(mem, in->shard_count + 1, sizeof *advanced), *present = NULL;
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  int32_t *entry = no_entries(&tx);
  r = advance(&tx, in, entry, advanced);
  if (r >= 0)
    r = open_rows(&tx, in, entry, &present);
  if (r >= 0)
    r = other_rows(&tx, in, entry);
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  if (r < 0)
    return r;
  ret->advanced = advanced;
  ret->present = present;
  ret->now = tx.now;
  return 0;
}

/* ------------------------------------------------------------------ the owner's changes */
static int check_fences(struct sqlite_tx *tx, const struct st_run_apply *in, int32_t *entry, bool *ok) {
  int64_t epoch;
  for (size_t i = 0; i < in->fence_count; i++) {
    const struct fence_row *f = &in->fences[i];
    int r = db_first(tx->db, SQL_FINISH_EPOCH, tx->e, "i", f->shard);
    if (r < 0)
      return r;
    if (r == 0)
      continue;
    db_get(tx->db, SQL_FINISH_EPOCH, NULL, "l", &epoch);
    ok[i] = epoch == f->epoch;
    if (ok[i] && f->shard >= 0 && f->shard < tx->shard_count)
      entry[f->shard] = (int32_t)i;
  }
  return 0;
}

static int update_run(struct db *db, const struct run_update *u, struct err *e) {
  return db_run(db, SQL_RUN_UPDATE, e, "illiiiiiiillldsssl", u->key.shard, u->key.scheduled_at,
                u->key.task_id, u->key.part, u->seen_attempt, u->seen_state, u->seen_reason, u->state,
                u->reason, u->attempt, u->not_before, u->attempt_at, u->started_at, u->progress, u->executor,
                u->error_type, u->error_message, u->incarnation);
}

/* For the children of a task (docs/adr/0017). */
static int tell_children(struct sqlite_tx *tx, const struct run_finish *f, bool *ret_told) {
  if (f->state == RUN_SKIPPED || !sqlite_is_parent(tx, f->key.task_id))
    return 0;
  *ret_told = true;
  return db_run(tx->db, SQL_DEPEND_EVENT_NEW, tx->e, "illiil", f->key.shard, f->key.scheduled_at,
                f->key.task_id, f->key.part, f->state, f->finished_at);
}

static int finish_run(struct db *db, const struct run_finish *f, struct err *e) {
  int r = db_run(db, SQL_RUN_FINISH, e, "illiiiilllsssss", f->key.shard, f->key.scheduled_at, f->key.task_id,
                 f->key.part, f->seen_attempt, f->state, f->reason, f->attempt_at, f->started_at,
                 f->finished_at, f->executor, f->error_type, f->error_message, f->error_detail, f->result);
  if (r <= 0)
    return r;
  int more = db_run(db, SQL_RUN_DELETE, e, "illii", f->key.shard, f->key.scheduled_at, f->key.task_id,
                    f->key.part, f->seen_attempt);
  if (more >= 0 && f->state == RUN_FAIL)
    more = db_run(db, SQL_DEAD_LETTER_NEW, e, "illiis", f->key.shard, f->key.scheduled_at, f->key.task_id,
                  f->key.part, f->reason, f->error_type);
  if (more >= 0 && f->state == RUN_FAIL)
    more = db_run(db, SQL_ALERT_EVENT_NEW, e, "illi", f->key.shard, f->key.scheduled_at, f->key.task_id,
                  f->key.part);
  return more < 0 ? more : r;
}

static int insert_attempt(struct db *db, const struct attempt_row *a, struct err *e) {
  return db_run(db, SQL_ATTEMPT_NEW, e, "lliiiilllsss", a->key.task_id, a->key.scheduled_at, a->key.part,
                a->attempt, a->state, a->reason, a->dispatched_at, a->started_at, a->finished_at, a->executor,
                a->error_type, a->error_message);
}

static int apply_finishes(struct sqlite_tx *tx, const struct st_run_apply *in, const int32_t *entry,
                          struct st_run_apply_ret *out) {
  int r = in->finish_count ? sqlite_parents_read(tx) : 0;
  for (size_t i = 0; r >= 0 && i < in->finish_count; i++) {
    if (!writable(tx, entry, in->finishes[i].key.shard))
      continue;
    out->finished[i] = (r = finish_run(tx->db, &in->finishes[i], tx->e)) > 0;
    if (out->finished[i])
      r = tell_children(tx, &in->finishes[i], &out->parents_ended);
  }
  return r;
}

static int apply_rows(struct sqlite_tx *tx, const struct st_run_apply *in, const int32_t *entry,
                      struct st_run_apply_ret *out) {
  int r = 0;
  for (size_t i = 0; r >= 0 && i < in->update_count; i++)
    if (writable(tx, entry, in->updates[i].key.shard))
      out->updated[i] = (r = update_run(tx->db, &in->updates[i], tx->e)) > 0;
  if (r >= 0)
    r = apply_finishes(tx, in, entry, out);
  for (size_t i = 0; r >= 0 && i < in->attempt_count; i++)
    if (writable(tx, entry, in->attempts[i].key.shard))
      r = insert_attempt(tx->db, &in->attempts[i], tx->e);
  for (size_t i = 0; r >= 0 && i < in->progress_count; i++)
    if (writable(tx, entry, in->progress[i].shard))
      r = put_progress(tx->db, &in->progress[i], tx->e);
  for (size_t i = 0; r >= 0 && i < in->inbox_count; i++)
    if (writable(tx, entry, in->inbox_done[i].shard))
      r = db_run(tx->db, SQL_INBOX_DELETE, tx->e, "il", in->inbox_done[i].shard, in->inbox_done[i].no);
  return r;
}

int sqlite_run_apply(struct store *s, const struct st_run_apply *in, struct st_run_apply_ret *ret,
                     struct arena *mem, struct err *e) {
  struct st_run_apply_ret out = {
      .fence_ok = arena_array(mem, in->fence_count + 1, sizeof *out.fence_ok),
      .updated = arena_array(mem, in->update_count + 1, sizeof *out.updated),
      .finished = arena_array(mem, in->finish_count + 1, sizeof *out.finished),
  };
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  out.now = tx.now;
  int32_t *entry = no_entries(&tx);
  r = check_fences(&tx, in, entry, out.fence_ok);
  if (r >= 0)
    r = apply_rows(&tx, in, entry, &out);
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  if (r < 0)
    return r;
  *ret = out;
  return 0;
}

/* ------------------------------------------------------------------ the inbox */
int sqlite_inbox_append(struct sqlite_tx *tx, const struct inbox_row *row, int64_t *ret_no) {
  int64_t no;
  int r = db_first(tx->db, SQL_INBOX_NO, tx->e, "i", row->shard);
  if (r <= 0)
    return r < 0 ? r : err_set(tx->e, ERR_NOT_FOUND, "there is no shard %d", (int)row->shard);
  db_get(tx->db, SQL_INBOX_NO, NULL, "l", &no);
  r = db_run(tx->db, SQL_INBOX_NEW, tx->e, "ilitl", row->shard, no, row->kind, row->body, tx->now);
  if (r < 0)
    return r;
  sqlite_touch(tx, row->shard);
  *ret_no = no;
  return 0;
}

int sqlite_inbox_add(struct store *s, const struct st_inbox_add *in, struct st_inbox_add_ret *ret,
                     struct arena *mem, struct err *e) {
  struct st_inbox_add_ret out = {.ref = in->ref};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = sqlite_idem_find(&tx, in->idem, &out.ref);
  if (r == 0) {
    r = sqlite_inbox_append(&tx, &(struct inbox_row){.shard = in->shard, .kind = in->kind, .body = in->body},
                            &out.no);
    if (r == 0)
      r = sqlite_idem_keep(&tx, in->idem, in->ref);
  }
  r = sqlite_write_end(&tx, r);
  if (r < 0)
    return r;
  out.ref = arena_slice(mem, out.ref);
  *ret = out;
  return r;
}

int sqlite_inbox_read(struct store *s, const struct st_inbox_read *in, struct st_inbox_read_ret *ret,
                      struct arena *mem, struct err *e) {
  struct st_inbox_read_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  for (size_t i = 0; r >= 0 && i < in->shard_count && out.count < (size_t)in->limit; i++) {
    r = db_query(tx.db, SQL_INBOX_READ, e, "ii", in->shards[i], in->limit - (int32_t)out.count);
    while (r >= 0 && (r = db_step(tx.db, SQL_INBOX_READ, e)) > 0) {
      struct inbox_row *row = sqlite_push(mem, out.rows, out.count, cap);
      db_get(tx.db, SQL_INBOX_READ, mem, "ilis", &row->shard, &row->no, &row->kind, &row->body);
    }
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_inbox_put(struct store *s, const struct st_inbox_put *in, struct st_inbox_put_ret *ret,
                     struct arena *mem, struct err *e) {
  (void)ret;
  struct sqlite_tx tx;
  int64_t no;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  for (size_t i = 0; r >= 0 && i < in->count; i++)
    r = sqlite_inbox_append(&tx, &in->rows[i], &no);
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}

int sqlite_inbox_oldest(struct store *s, const struct st_inbox_oldest *in, struct st_inbox_oldest_ret *ret,
                        struct arena *mem, struct err *e) {
  (void)in;
  struct st_inbox_oldest_ret out = {0};
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_INBOX_OLDEST, e, "");
  if (r > 0)
    db_get(tx.db, SQL_INBOX_OLDEST, NULL, "l", &out.at);
  out.now = tx.now;
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}
