#include "store/sqlite/sqlite.h"

/* ------------------------------------------------------------------ the queue for the writer connection */
struct write_waiter {
  struct cond c;
  bool granted;
  struct write_waiter *next;
};

void write_queue_enter(struct write_queue *q, bool first) {
  mutex_lock(&q->m);
  if (q->busy) {
    struct write_waiter me = {};
    struct write_waiter **at = &q->first;
    cond_init(&me.c);
    while (!first && *at)
      at = &(*at)->next;
    me.next = *at;
    *at = &me;
    while (!me.granted)
      (void)cond_wait(&me.c, &q->m, USEC_NEVER); /* without a time-out: only `granted` counts */
    cond_done(&me.c);
  }
  q->busy = true;
  mutex_unlock(&q->m);
}

void write_queue_leave(struct write_queue *q) {
  mutex_lock(&q->m);
  struct write_waiter *next = q->first;
  if (next) { /* handed over without being free in between: nobody overtakes */
    q->first = next->next;
    next->granted = true;
    cond_signal(&next->c);
  } else {
    q->busy = false;
  }
  mutex_unlock(&q->m);
}

/* ------------------------------------------------------------------ transactions */
static void begin(struct sqlite_tx *tx, struct sqlite_store *st, struct db *db, struct arena *mem,
                  struct err *e) {
  struct sqlite_source *src = st->source;
  *tx = (struct sqlite_tx){.session = st,
                           .db = db,
                           .mem = mem,
                           .e = e,
                           .now = src->clock->wall(src->clock),
                           .shard_count = src->shard_count};
  db->deadline = src->clock->mono(src->clock) + src->statement_timeout;
}

int sqlite_write(struct sqlite_tx *ret_tx, struct store *s, struct arena *mem, struct err *e) {
  struct sqlite_store *st = (struct sqlite_store *)s;
  struct db *db = &st->source->writer;
  if (!st->holds_lock)
    write_queue_enter(&st->source->queue, st->role == STORE_LEASE);
  begin(ret_tx, st, db, mem, e);
  int r = db_exec(db, st->holds_lock ? "SAVEPOINT op" : "BEGIN IMMEDIATE", e);
  if (r < 0 && !st->holds_lock)
    write_queue_leave(&st->source->queue);
  return r;
}

static void tell_news(struct sqlite_source *src, bool committed) {
  bool any = false;
  mutex_lock(&src->news_m);
  for (int32_t i = 0; i <= src->shard_count; i++) {
    if (src->touched[i] && committed) {
      src->news[i]++;
      any = true;
    }
    src->touched[i] = false;
  }
  if (any)
    cond_broadcast(&src->news_c);
  mutex_unlock(&src->news_m);
}

/* A commit that only met a lock surely wrote nothing; after any other failure the frames may be in the log, and would be found
 * there after a crash. */
static int commit(struct db *db, struct err *e) {
  if (sqlite3_exec(db->h, "COMMIT", NULL, NULL, NULL) == SQLITE_OK)
    return 0;
  int code = sqlite3_errcode(db->h) & 0xff;
  int r = code == SQLITE_BUSY || code == SQLITE_INTERRUPT
              ? db_fail(db, e)
              : err_set(e, ERR_UNKNOWN_OUTCOME, "SQLite: the commit failed: %s", sqlite3_errmsg(db->h));
  (void)db_exec(db, "ROLLBACK", NULL); /* SQLite may have done so by itself */
  return r;
}

int sqlite_write_end(struct sqlite_tx *tx, int r) {
  struct sqlite_store *st = tx->session;
  struct db *db = tx->db;
  db_settle(db);
  if (r < 0) /* they may have been read from what is rolled back */
    st->source->parents_known = false;
  db->deadline = 0; /* neither a commit nor a rollback is ended half-way */
  if (st->holds_lock) {
    (void)db_exec(db, r < 0 ? "ROLLBACK TO op; RELEASE op" : "RELEASE op", NULL); /* in memory only */
    return r;
  }
  if (r < 0) {
    (void)db_exec(db, "ROLLBACK", NULL); /* SQLite may have done so by itself */
  } else {
    int committed = commit(db, tx->e);
    r = committed < 0 ? committed : r;
    if (r < 0)
      st->source->parents_known = false;
  }
  tell_news(st->source, r >= 0);
  write_queue_leave(&st->source->queue);
  return r;
}

int sqlite_read(struct sqlite_tx *ret_tx, struct store *s, struct arena *mem, struct err *e) {
  struct sqlite_store *st = (struct sqlite_store *)s;
  struct sqlite_source *src = st->source;
  struct db *db = st->holds_lock ? &src->writer : &st->reader;
  int r = db->h ? 0 : db_open(db, src->path, src->clock, true, src->lock_timeout, e);
  if (r < 0)
    return r;
  begin(ret_tx, st, db, mem, e);
  return st->holds_lock ? 0 : db_exec(db, "BEGIN", e);
}

int sqlite_read_end(struct sqlite_tx *tx, int r) {
  db_settle(tx->db);
  tx->db->deadline = 0;
  if (!tx->session->holds_lock)
    (void)db_exec(tx->db, "COMMIT", NULL); /* nothing was written */
  return r;
}

/* ------------------------------------------------------------------ the locked shard */
int sqlite_shard_lock(struct store *s, const struct st_shard_lock *in, struct st_shard_lock_ret *ret,
                      struct arena *mem, struct err *e) {
  struct sqlite_store *st = (struct sqlite_store *)s;
  struct shard_row row;
  struct sqlite_tx tx;
  if (st->holds_lock)
    return err_set(e, ERR_INTERNAL, "the session has locked a shard already");
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_SHARD_GET, e, "i", in->shard);
  if (r > 0) {
    db_get(tx.db, SQL_SHARD_GET, mem, "islllll", &row.id, &row.owner, &row.incarnation, &row.epoch,
           &row.fired_at, &row.fired_task, &row.tasks_version);
    r = row.epoch == in->epoch ? 0 : ERR_FENCED;
  } else if (r == 0) {
    r = ERR_FENCED;
  }
  if (r < 0) {
    if (r == ERR_FENCED)
      (void)err_set(e, r, "the epoch of shard %d has moved", (int)in->shard);
    return sqlite_write_end(&tx, r);
  }
  db_settle(tx.db);
  st->holds_lock = true;
  ret->shard = row;
  return 0;
}

int sqlite_shard_unlock(struct store *s, const struct st_shard_unlock *in, struct st_shard_unlock_ret *ret,
                        struct arena *mem, struct err *e) {
  struct sqlite_store *st = (struct sqlite_store *)s;
  (void)ret;
  (void)mem;
  if (!st->holds_lock)
    return err_set(e, ERR_INTERNAL, "the session has no shard locked");
  st->holds_lock = false;
  struct sqlite_tx tx = {.session = st, .db = &st->source->writer, .e = e};
  int r = sqlite_write_end(&tx, in->commit ? 0 : ERR_CONFLICT);
  return in->commit ? r : 0;
}

/* ------------------------------------------------------------------ news */
void sqlite_touch(struct sqlite_tx *tx, int32_t shard) { tx->session->source->touched[shard] = true; }

void sqlite_touch_nodes(struct sqlite_tx *tx) { sqlite_touch(tx, tx->session->source->shard_count); }

int sqlite_wait_change(struct store *s, const struct st_wait_change *in, struct st_wait_change_ret *ret,
                       struct arena *mem, struct err *e) {
  struct sqlite_store *st = (struct sqlite_store *)s;
  struct sqlite_source *src = st->source;
  int32_t *shards = arena_array(mem, (size_t)src->shard_count, sizeof *shards);
  usec_t until = src->clock->mono(src->clock) + in->timeout, left = in->timeout;
  size_t n = 0;
  (void)e;
  ret->nodes = false;
  mutex_lock(&src->news_m);
  for (;;) {
    ret->nodes = st->seen[src->shard_count] != src->news[src->shard_count];
    st->seen[src->shard_count] = src->news[src->shard_count];
    for (int32_t i = 0; i < src->shard_count; i++)
      if (st->seen[i] != src->news[i]) {
        st->seen[i] = src->news[i];
        shards[n++] = i;
      }
    if (n || ret->nodes || left <= 0 || !cond_wait(&src->news_c, &src->news_m, left))
      break;
    left = until - src->clock->mono(src->clock);
  }
  mutex_unlock(&src->news_m);
  ret->shards = shards;
  ret->count = n;
  return 0;
}

/* ------------------------------------------------------------------ sessions */
static void session_close(struct store *s) {
  struct sqlite_store *st = (struct sqlite_store *)s;
  if (st->holds_lock) {
    st->holds_lock = false;
    (void)sqlite_write_end(&(struct sqlite_tx){.session = st, .db = &st->source->writer},
                           ERR_CONFLICT); /* rolls back */
  }
  if (st->reader.h)
    db_close(&st->reader);
  mem_free(st->seen);
  mem_free(st);
}

static const struct store_ops ops = {
    .name = "sqlite",
    .caps = STORE_CAP_NOTIFY | STORE_CAP_SINGLE_NODE,
    .close = session_close,
#define OP(n) .n = sqlite_##n,
#include "store/store_ops.def"
};

int sqlite_session(struct store_source *s, enum store_role role, struct store **ret, struct err *e) {
  struct sqlite_source *src = (struct sqlite_source *)s;
  struct sqlite_store *st = mem_zalloc(sizeof *st);
  (void)e; /* the reader is opened at its first use */
  st->base.ops = &ops;
  st->source = src;
  st->role = role;
  st->seen = mem_array((size_t)src->shard_count + 1, sizeof *st->seen);
  mutex_lock(&src->news_m);
  memcpy(st->seen, src->news, ((size_t)src->shard_count + 1) * sizeof *st->seen);
  mutex_unlock(&src->news_m);
  *ret = &st->base;
  return 0;
}

void *sqlite_grow(struct arena *mem, void *rows, size_t count, size_t *cap, size_t size) {
  size_t more = *cap ? *cap * 2 : 64;
  void *p = arena_array(mem, more, size);
  if (count)
    memcpy(p, rows, count * size);
  *cap = more;
  return p;
}
