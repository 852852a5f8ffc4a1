/* Dead letters: lists, and what becomes of them. */
#include "store/sqlite/sqlite.h"
#include "store/answer.h"

_Static_assert(DEAD_LETTER_OPEN == 0 && DEAD_LETTER_REPLAYED == 1 && TASK_DELETED == 3, "numbers in sql.def");

static void get_letter(struct sqlite_tx *tx, enum sql id, struct dead_letter_row *d) {
  db_get(tx->db, id, tx->mem, RUN_TYPES "ssssilsss", RUN_INTO(&d->run), &d->task_name, &d->ns, &d->group,
         &d->handler, &d->state, &d->handled_at, &d->handled_by, &d->note, &d->replay_run);
}

/* What finds them soonest: the task, the namespace, or being OPEN. */
static enum sql list_of(const struct st_dead_letter_list *in) {
  static const enum sql by[][4] = {
      {SQL_DEAD_LETTER_DOWN, SQL_DEAD_LETTER_DOWN_OPEN, SQL_DEAD_LETTER_DOWN_NS, SQL_DEAD_LETTER_DOWN_TASK},
      {SQL_DEAD_LETTER_UP, SQL_DEAD_LETTER_UP_OPEN, SQL_DEAD_LETTER_UP_NS, SQL_DEAD_LETTER_UP_TASK}};
  const struct dead_letter_filter *f = &in->filter;
  return by[in->oldest_first][f->task_id ? 3 : f->state == DEAD_LETTER_OPEN ? 1 : f->ns.n ? 2 : 0];
}

int sqlite_dead_letter_list(struct store *s, const struct st_dead_letter_list *in,
                            struct st_dead_letter_list_ret *ret, struct arena *mem, struct err *e) {
  static const struct run_key ends[] = {{.scheduled_at = INT64_MAX, .task_id = INT64_MAX, .part = INT32_MAX},
                                        {.scheduled_at = INT64_MIN, .task_id = INT64_MIN, .part = INT32_MIN}};
  const struct dead_letter_filter *f = &in->filter;
  const struct run_key *from = in->from ? in->from : &ends[in->oldest_first];
  struct st_dead_letter_list_ret out = {};
  enum sql id = list_of(in);
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, id, e, "llilliisssslii", from->scheduled_at, from->task_id, from->part, f->since,
               f->until ? f->until : INT64_MAX, f->state, f->reason, sqlite_filter(f->group),
               sqlite_filter(f->handler), sqlite_filter(f->error_type), sqlite_filter(f->ns), f->task_id,
               (int)in->of_tasks, in->limit);
  while (r >= 0 && (r = db_step(tx.db, id, e)) > 0)
    get_letter(&tx, id, sqlite_push(mem, out.rows, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

static int not_there(struct err *e) { return err_set(e, ERR_NOT_FOUND, "there is no such dead letter"); }

int sqlite_dead_letter_get(struct store *s, const struct st_dead_letter_get *in,
                           struct st_dead_letter_get_ret *ret, struct arena *mem, struct err *e) {
  struct st_dead_letter_get_ret out = {};
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_DEAD_LETTER_GET, e, "lli", in->key.scheduled_at, in->key.task_id, in->key.part);
  if (r > 0)
    get_letter(&tx, SQL_DEAD_LETTER_GET, &out.row);
  r = r == 0 ? not_there(e) : r;
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

/* ------------------------------------------------------------------ replay, discard */
/* 1: this call did it. */
static int handle_one(struct sqlite_tx *tx, const struct st_dead_letter_handle *in,
                      const struct dead_letter_deed *d) {
  const struct run_key *k = &d->key;
  int r = db_run(tx->db, SQL_DEAD_LETTER_HANDLE, tx->e, "lliilsssi", k->scheduled_at, k->task_id, k->part,
                 in->state, tx->now, in->by, in->note, d->replay_run, in->want == DEAD_LETTER_RETRY);
  if (r < 0)
    return r;
  if (r == 0 && in->want == DEAD_LETTER_ALL_OPEN) {
    r = db_first(tx->db, SQL_DEAD_LETTER_GET, tx->e, "lli", k->scheduled_at, k->task_id, k->part);
    return r < 0    ? r
           : r == 0 ? not_there(tx->e)
                    : err_set(tx->e, ERR_CONFLICT, "the dead letter is not OPEN any more");
  }
  if (in->state == DEAD_LETTER_REPLAYED && (r > 0 || in->want == DEAD_LETTER_RETRY)) {
    int64_t no;
    int added = sqlite_inbox_append(tx, &d->inbox, &no);
    if (added < 0)
      return added;
  }
  return r;
}

int sqlite_dead_letter_handle(struct store *s, const struct st_dead_letter_handle *in,
                              struct st_dead_letter_handle_ret *ret, struct arena *mem, struct err *e) {
  struct st_dead_letter_handle_ret out = {.ref = in->ref};
  struct slice first = {};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  bool repeat = (r = sqlite_idem_find(&tx, in->idem, &first)) > 0;
  for (size_t i = 0; r == 0 && i < in->count; i++) {
    int did = handle_one(&tx, in, &in->deeds[i]);
    out.count += did > 0;
    r = did < 0 ? did : 0;
  }
  if (repeat)
    store_answer_read(first, &out.count, &out.ref);
  else if (r == 0)
    r = sqlite_idem_keep(&tx, in->idem, store_answer(out.count, in->ref, mem));
  out.ref = arena_slice(mem, out.ref);
  r = sqlite_write_end(&tx, r);
  if (r >= 0)
    *ret = out;
  return r;
}

int sqlite_dead_letter_count(struct store *s, const struct st_dead_letter_count *in,
                             struct st_dead_letter_count_ret *ret, struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int64_t open = 0;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_DEAD_LETTER_COUNT, e, "i", in->limit);
  if (r > 0)
    db_get(tx.db, SQL_DEAD_LETTER_COUNT, NULL, "l", &open);
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  ret->open = open;
  return 0;
}
