/* Nodes and shards. */
#include "store/sqlite/sqlite.h"

int sqlite_meta(struct store *s, const struct st_meta *in, struct st_meta_ret *ret, struct arena *mem,
                struct err *e) {
  const struct sqlite_source *src = sqlite_source_of(s);
  (void)in;
  (void)e;
  ret->now = src->clock->wall(src->clock);
  ret->shard_count = src->shard_count;
  ret->schema_version = src->schema_version;
  ret->server = slice_of(arena_printf(mem, "SQLite %s", sqlite3_libversion()));
  return 0;
}

int sqlite_node_join(struct store *s, const struct st_node_join *in, struct st_node_join_ret *ret,
                     struct arena *mem, struct err *e) {
  struct st_node_join_ret out = {};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  out.now = tx.now;
  out.lease_until = out.now + in->ttl;
  r = db_first(tx.db, SQL_META_ADD, e, "sl", SLICE("incarnation"), (int64_t)1);
  if (r > 0) {
    db_get(tx.db, SQL_META_ADD, mem, "l", &out.incarnation);
    db_settle(tx.db);
    r = db_run(tx.db, SQL_NODE_PUT, e, "slllttti", in->id, out.incarnation, out.lease_until, out.now,
               in->address, in->version, in->tzdata, SHARE_KEEP);
  }
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  if (r == 0)
    *ret = out;
  return r;
}

static int fenced(struct slice node, struct err *e) {
  return err_set(e, ERR_FENCED, "the node %.*s has a newer incarnation or has left", SLICE_FMT(node));
}

int sqlite_node_renew(struct store *s, const struct st_node_renew *in, struct st_node_renew_ret *ret,
                      struct arena *mem, struct err *e) {
  struct st_node_renew_ret out = {};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  out.now = tx.now;
  out.lease_until = out.now + in->ttl;
  r = db_run(tx.db, SQL_NODE_RENEW, e, "sllil", in->id, in->incarnation, out.lease_until, (int)in->share,
             in->clock_offset);
  if (r == 0)
    r = fenced(in->id, e);
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  if (r == 0)
    *ret = out;
  return r;
}

int sqlite_node_leave(struct store *s, const struct st_node_leave *in, struct st_node_leave_ret *ret,
                      struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  r = db_run(tx.db, SQL_NODE_DELETE, e, "sl", in->id, in->incarnation);
  if (r == 0)
    r = db_run(tx.db, SQL_NODE_AWAY, e, "sll", in->id, in->incarnation, tx.now);
  if (r == 0)
    r = fenced(in->id, e);
  if (r > 0)
    r = db_run(tx.db, SQL_SHARD_RELEASE_ALL, e, "sl", in->id, in->incarnation);
  sqlite_touch_nodes(&tx);
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}

int sqlite_node_drain(struct store *s, const struct st_node_drain *in, struct st_node_drain_ret *ret,
                      struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  bool was = false;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_NODE_DRAINED, e, "s", in->id);
  if (r == 0)
    r = err_set(e, ERR_NOT_FOUND, "there is no node %.*s", SLICE_FMT(in->id));
  if (r > 0) {
    db_get(tx.db, SQL_NODE_DRAINED, NULL, "b", &was);
    db_settle(tx.db);
    r = db_run(tx.db, SQL_NODE_DRAIN, e, "si", in->id, (int)in->drained);
    sqlite_touch_nodes(&tx);
  }
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  return r < 0 ? r : was == in->drained;
}

int sqlite_node_forget(struct store *s, const struct st_node_forget *in, struct st_node_forget_ret *ret,
                       struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  int removed = db_run(tx.db, SQL_NODE_FORGET, e, "l", tx.now - in->age);
  r = sqlite_write_end(&tx, removed < 0 ? removed : 0);
  if (r == 0)
    ret->removed = removed;
  return r;
}

int sqlite_node_list(struct store *s, const struct st_node_list *in, struct st_node_list_ret *ret,
                     struct arena *mem, struct err *e) {
  struct st_node_list_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  (void)in;
  if (r < 0)
    return r;
  out.now = tx.now;
  r = db_query(tx.db, SQL_NODE_LIST, e, "");
  while (r >= 0 && (r = db_step(tx.db, SQL_NODE_LIST, e)) > 0) {
    struct node_row *n = sqlite_push(mem, out.nodes, out.count, cap);
    int32_t share = 0;
    db_get(tx.db, SQL_NODE_LIST, mem, "sssslllllib", &n->id, &n->address, &n->version, &n->tzdata,
           &n->incarnation, &n->renewals, &n->lease_until, &n->started_at, &n->clock_offset, &share,
           &n->drained);
    n->share = (enum share)share;
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

static void get_shard(struct sqlite_tx *tx, enum sql id, struct shard_row *row) {
  db_get(tx->db, id, tx->mem, "islllll", &row->id, &row->owner, &row->incarnation, &row->epoch,
         &row->fired_at, &row->fired_task, &row->tasks_version);
}

int sqlite_shard_list(struct store *s, const struct st_shard_list *in, struct st_shard_list_ret *ret,
                      struct arena *mem, struct err *e) {
  struct st_shard_list_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  (void)in;
  if (r < 0)
    return r;
  out.now = tx.now;
  r = db_query(tx.db, SQL_SHARD_LIST, e, "");
  while (r >= 0 && (r = db_step(tx.db, SQL_SHARD_LIST, e)) > 0)
    get_shard(&tx, SQL_SHARD_LIST, sqlite_push(mem, out.shards, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

static bool is_dead(const struct st_shard_claim *in, struct slice node) {
  for (size_t i = 0; i < in->dead_count; i++)
    if (slice_eq(in->dead[i], node))
      return true;
  return false;
}

/* 1: may be taken, 0: held by a living owner, or by the taker itself. */
static int is_free(struct sqlite_tx *tx, const struct st_shard_claim *in, const struct shard_row *row) {
  int64_t lease_until = 0;
  if (row->owner.n == 0)
    return 1;
  if (slice_eq(row->owner, in->node))
    return row->incarnation < in->incarnation;
  if (is_dead(in, row->owner))
    return 1;
  int r = db_first(tx->db, SQL_NODE_LEASE, tx->e, "sl", row->owner, row->incarnation);
  if (r <= 0) /* the node has left, or came back as a newer incarnation */
    return r < 0 ? r : 1;
  db_get(tx->db, SQL_NODE_LEASE, NULL, "l", &lease_until);
  return lease_until <= tx->now;
}

/* 1: taken, *row is as it is now. */
static int claim_one(struct sqlite_tx *tx, const struct st_shard_claim *in, int32_t id,
                     struct shard_row *row) {
  int r = db_first(tx->db, SQL_SHARD_GET, tx->e, "i", id);
  if (r <= 0)
    return r;
  get_shard(tx, SQL_SHARD_GET, row);
  r = is_free(tx, in, row);
  if (r <= 0)
    return r;
  r = db_run(tx->db, SQL_SHARD_CLAIM, tx->e, "isl", id, in->node, in->incarnation);
  if (r > 0)
    r = db_run(tx->db, SQL_SHARD_FINISH_FOLLOW, tx->e, "i", id);
  row->owner = arena_slice(tx->mem, in->node);
  row->incarnation = in->incarnation;
  row->epoch++;
  return r;
}

int sqlite_shard_claim(struct store *s, const struct st_shard_claim *in, struct st_shard_claim_ret *ret,
                       struct arena *mem, struct err *e) {
  struct st_shard_claim_ret out = {.shards = arena_array(mem, in->count + 1, sizeof *out.shards)};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_NODE_LEASE, e, "sl", in->node, in->incarnation);
  if (r == 0)
    r = fenced(in->node, e);
  for (size_t i = 0; r >= 0 && i < in->count; i++)
    if ((r = claim_one(&tx, in, in->ids[i], &out.shards[out.count])) > 0)
      out.count++;
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  if (r == 0)
    *ret = out;
  return r;
}

int sqlite_shard_release(struct store *s, const struct st_shard_release *in, struct st_shard_release_ret *ret,
                         struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  for (size_t i = 0; r >= 0 && i < in->count; i++)
    r = db_run(tx.db, SQL_SHARD_RELEASE, e, "isl", in->ids[i], in->node, in->incarnation);
  sqlite_touch_nodes(&tx);
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}

/* One node has all of each bound. */
int sqlite_bound_exchange(struct store *s, const struct st_bound_exchange *in,
                          struct st_bound_exchange_ret *ret, struct arena *mem, struct err *e) {
  (void)s;
  (void)in;
  (void)ret;
  (void)mem;
  return err_set(e, ERR_INTERNAL, "this store has a single node");
}

/* Most of the log is copied beside the writers, the rest while they wait: then the log starts again from its beginning. */
int sqlite_maintain(struct store *s, const struct st_maintain *in, struct st_maintain_ret *ret,
                    struct arena *mem, struct err *e) {
  struct sqlite_store *st = (struct sqlite_store *)s;
  struct sqlite_tx tx;
  (void)in;
  (void)ret;
  if (st->holds_lock)
    return err_set(e, ERR_INTERNAL, "no maintenance while a shard is locked");
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  (void)sqlite_read_end(&tx, 0); /* the connection is open now */
  if (sqlite3_wal_checkpoint_v2(tx.db->h, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL) != SQLITE_OK)
    return db_fail(tx.db, e);
  write_queue_enter(&st->source->queue, false);
  (void)sqlite3_wal_checkpoint_v2(st->source->writer.h, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL,
                                  NULL); /* the next one goes on */
  write_queue_leave(&st->source->queue);
  return r;
}
