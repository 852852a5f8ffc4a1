/* What runs have logged. One writer: nothing can be dropped between the look at a run and the lines that are added to it. */
#include "store/sqlite/sqlite.h"

/* ------------------------------------------------------------------ adding */
struct adding {
  struct sqlite_tx *tx;
  const struct st_run_log_put *in;
  const struct log_entry *entry;
  struct log_put_result *result;
  int64_t lines, bytes; /* of the run, kept */
  bool full;
  struct log_head head; /* what is new of one attempt, not written yet */
};

static int check(struct sqlite_tx *tx, const struct log_entry *entry, enum log_answer *ret) {
  static const enum sql places[] = {SQL_LOG_RUN_OPEN, SQL_LOG_RUN_ENDED};
  const struct run_key *k = &entry->key;
  *ret = LOG_UNKNOWN;
  for (size_t i = 0; i < 2; i++) {
    struct slice group, ns;
    int r = db_first(tx->db, places[i], tx->e, "illi", k->shard, k->scheduled_at, k->task_id, k->part);
    if (r < 0)
      return r;
    if (r == 0)
      continue;
    db_get(tx->db, places[i], tx->mem, "ss", &group, &ns);
    bool mine =
        (!entry->ns.p || slice_eq(entry->ns, ns)) && (!entry->group.p || slice_eq(entry->group, group));
    *ret = mine ? LOG_TAKEN : LOG_FORBIDDEN;
    return 0;
  }
  return 0;
}

static int write_head(struct adding *a) {
  const struct run_key *k = &a->entry->key;
  const struct log_head *h = &a->head;
  if (!h->attempt)
    return 0;
  return db_run(a->tx->db, SQL_LOG_HEAD_PUT, a->tx->e, "lliiilli", k->scheduled_at, k->task_id, k->part,
                h->attempt, h->last_seq, h->lines, h->bytes, h->full);
}

/* A new line, kept or not, in what is to be written of its attempt. */
static int count_line(struct adding *a, const struct log_line *l, bool keep) {
  int64_t bytes = (int64_t)l->text.n;
  int r = a->head.attempt == l->attempt ? 0 : write_head(a);
  if (a->head.attempt != l->attempt)
    a->head = (struct log_head){.attempt = l->attempt};
  a->head.last_seq = l->seq > a->head.last_seq ? l->seq : a->head.last_seq;
  a->head.full = a->full = a->full || !keep;
  a->head.lines += keep;
  a->lines += keep;
  a->result->taken += keep;
  a->result->dropped += !keep;
  if (keep) {
    a->head.bytes += bytes;
    a->bytes += bytes;
    a->result->taken_bytes += bytes;
  } else {
    a->result->dropped_bytes += bytes;
  }
  return r;
}

static int add_line(struct adding *a, const struct log_line *l) {
  const struct run_key *k = &a->entry->key;
  struct db *db = a->tx->db;
  int r = db_first(db, SQL_LOG_THERE, a->tx->e, "lliii", k->scheduled_at, k->task_id, k->part, l->attempt,
                   l->seq);
  if (r != 0) {
    a->result->repeated += r > 0;
    return r;
  }
  bool keep = !a->full && a->lines < a->in->max_lines && a->bytes + (int64_t)l->text.n <= a->in->max_bytes;
  r = count_line(a, l, keep);
  if (r >= 0 && keep)
    r = db_run(db, SQL_LOG_NEW, a->tx->e, "lliiiillit", k->scheduled_at, k->task_id, k->part, l->attempt,
               l->seq, l->level, l->at, a->tx->now, l->cut, l->text);
  return r;
}

static int add_entry(struct adding *a) {
  const struct run_key *k = &a->entry->key;
  struct sqlite_tx *tx = a->tx;
  int r = check(tx, a->entry, &a->result->answer);
  if (r < 0 || a->result->answer != LOG_TAKEN)
    return r;
  r = db_first(tx->db, SQL_LOG_TOTALS, tx->e, "lli", k->scheduled_at, k->task_id, k->part);
  if (r > 0)
    db_get(tx->db, SQL_LOG_TOTALS, NULL, "llb", &a->lines, &a->bytes, &a->full);
  for (size_t i = 0; r >= 0 && i < a->entry->count; i++)
    r = add_line(a, &a->entry->lines[i]);
  return r < 0 ? r : write_head(a);
}

int sqlite_run_log_put(struct store *s, const struct st_run_log_put *in, struct st_run_log_put_ret *ret,
                       struct arena *mem, struct err *e) {
  struct log_put_result *results = arena_array(mem, in->count, sizeof *results);
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  for (size_t i = 0; r >= 0 && i < in->count; i++) {
    struct adding a = {.tx = &tx, .in = in, .entry = &in->entries[i], .result = &results[i]};
    r = add_entry(&a);
  }
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  if (r < 0)
    return r;
  ret->results = results;
  return 0;
}

/* ------------------------------------------------------------------ reading */
static int read_heads(struct sqlite_tx *tx, const struct run_key *k, struct st_run_log_list_ret *out) {
  size_t cap = 0;
  int r = db_query(tx->db, SQL_LOG_HEADS, tx->e, "lli", k->scheduled_at, k->task_id, k->part);
  while (r >= 0 && (r = db_step(tx->db, SQL_LOG_HEADS, tx->e)) > 0) {
    struct log_head *h = sqlite_push(tx->mem, out->heads, out->head_count, cap);
    db_get(tx->db, SQL_LOG_HEADS, NULL, "iillb", &h->attempt, &h->last_seq, &h->lines, &h->bytes, &h->full);
  }
  return r;
}

int sqlite_run_log_list(struct store *s, const struct st_run_log_list *in, struct st_run_log_list_ret *ret,
                        struct arena *mem, struct err *e) {
  const struct run_key *k = &in->key;
  struct st_run_log_list_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  out.now = tx.now;
  r = db_query(tx.db, SQL_LOG_LIST, e, "lliiiii", k->scheduled_at, k->task_id, k->part, in->attempt,
               in->after_attempt, in->after_seq, in->limit);
  while (r >= 0 && (r = db_step(tx.db, SQL_LOG_LIST, e)) > 0) {
    struct log_line *l = sqlite_push(mem, out.lines, out.count, cap);
    db_get(tx.db, SQL_LOG_LIST, mem, "iiillis", &l->attempt, &l->seq, &l->level, &l->at, &l->taken_at,
           &l->cut, &l->text);
  }
  if (r >= 0)
    r = read_heads(&tx, k, &out);
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

/* ------------------------------------------------------------------ removing */
int sqlite_log_drop(struct sqlite_tx *tx, const struct run_key *k, int32_t *budget) {
  int r = db_run(tx->db, SQL_LOG_DROP, tx->e, "llii", k->scheduled_at, k->task_id, k->part, *budget);
  if (r < 0)
    return r;
  *budget -= r;
  if (*budget <= 0)
    return 0;
  r = db_run(tx->db, SQL_LOG_DROP_HEADS, tx->e, "lli", k->scheduled_at, k->task_id, k->part);
  return r < 0 ? r : 1;
}

static int is_open(struct sqlite_tx *tx, const struct run_key *k) {
  return db_first(tx->db, SQL_LOG_RUN_OPEN, tx->e, "illi", sqlite_shard_of(tx, k->task_id), k->scheduled_at,
                  k->task_id, k->part);
}

int sqlite_run_log_expire(struct store *s, const struct st_run_log_expire *in,
                          struct st_run_log_expire_ret *ret, struct arena *mem, struct err *e) {
  struct run_key k = {.scheduled_at = INT64_MIN, .task_id = INT64_MIN, .part = INT32_MIN};
  int32_t budget = in->limit, runs = 0; /* some have a head and no lines */
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  while (r >= 0 && budget > 0 && runs < in->limit &&
         (r = db_first(tx.db, SQL_LOG_OLDEST, e, "llil", k.scheduled_at, k.task_id, k.part, in->before)) >
             0) {
    db_get(tx.db, SQL_LOG_OLDEST, NULL, "lli", &k.scheduled_at, &k.task_id, &k.part);
    r = is_open(&tx, &k);
    if (r == 0) {
      r = sqlite_log_drop(&tx, &k, &budget);
      runs++;
    }
  }
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  if (r < 0)
    return r;
  *ret =
      (struct st_run_log_expire_ret){.removed = in->limit - budget, .more = budget <= 0 || runs >= in->limit};
  return 0;
}
