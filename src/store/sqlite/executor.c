/* Executor groups and their instances. */
#include "store/sqlite/sqlite.h"

_Static_assert(EXECUTOR_ONLINE == 0 && EXECUTOR_DRAINING == 1 && EXECUTOR_LOST == 2 && EXECUTOR_OFFLINE == 3,
               "numbers in sql.def");

static void get_group(struct sqlite_tx *tx, enum sql id, struct group_row *g) {
  db_get(tx->db, id, tx->mem, "lssiiiilisslli", &g->id, &g->ns, &g->name, &g->channel, &g->routing,
         &g->max_connections, &g->max_concurrent, &g->rate_milli, &g->rate_burst, &g->secret_sealed,
         &g->secret_previous_sealed, &g->created_at, &g->updated_at, &g->version);
}

static int find_group(struct sqlite_tx *tx, struct slice ns, struct slice name, struct group_row *g) {
  int r = db_first(tx->db, SQL_GROUP_GET, tx->e, "tt", ns, name);
  if (r > 0)
    get_group(tx, SQL_GROUP_GET, g);
  else if (r == 0)
    r = err_set(tx->e, ERR_NOT_FOUND, "there is no executor group %.*s", SLICE_FMT(name));
  return r;
}

static int create_group(struct sqlite_tx *tx, const struct group_row *g) {
  int r = db_run(tx->db, SQL_GROUP_NEW, tx->e, "ttiiiilissl", g->ns, g->name, g->channel, g->routing,
                 g->max_connections, g->max_concurrent, g->rate_milli, g->rate_burst, g->secret_sealed,
                 g->secret_previous_sealed, tx->now);
  if (r < 0 && db_is_duplicate(tx->db))
    r = err_field(tx->e, ERR_CONFLICT, "/name", "the executor group %.*s exists", SLICE_FMT(g->name));
  return r;
}

static int change_group(struct sqlite_tx *tx, const struct group_row *g, int32_t version) {
  struct group_row old;
  int r = find_group(tx, g->ns, g->name, &old);
  if (r < 0)
    return r;
  r = db_run(tx->db, SQL_GROUP_CHANGE, tx->e, "ttiiiilissli", g->ns, g->name, g->channel, g->routing,
             g->max_connections, g->max_concurrent, g->rate_milli, g->rate_burst, g->secret_sealed,
             g->secret_previous_sealed, tx->now, version);
  if (r == 0)
    r = err_set(tx->e, ERR_STALE, "the executor group is at version %d, not %d", (int)old.version,
                (int)version);
  return r;
}

int sqlite_put_group(struct sqlite_tx *tx, const struct st_group_put *in, struct group_row *ret) {
  int r = in->expected_version ? change_group(tx, &in->group, in->expected_version)
                               : create_group(tx, &in->group);
  if (r >= 0)
    r = find_group(tx, in->group.ns, in->group.name, ret);
  return r < 0 ? r : 0;
}

int sqlite_group_put(struct store *s, const struct st_group_put *in, struct st_group_put_ret *ret,
                     struct arena *mem, struct err *e) {
  struct group_row g = {};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = sqlite_write_end(&tx, sqlite_put_group(&tx, in, &g));
  if (r == 0)
    ret->group = g;
  return r;
}

int sqlite_group_get(struct store *s, const struct st_group_get *in, struct st_group_get_ret *ret,
                     struct arena *mem, struct err *e) {
  struct group_row g = {};
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = find_group(&tx, in->ns, in->name, &g);
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  ret->group = g;
  return 0;
}

int sqlite_group_list(struct store *s, const struct st_group_list *in, struct st_group_list_ret *ret,
                      struct arena *mem, struct err *e) {
  struct st_group_list_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_GROUP_LIST, e, "s", sqlite_filter(in->ns));
  while (r >= 0 && (r = db_step(tx.db, SQL_GROUP_LIST, e)) > 0)
    get_group(&tx, SQL_GROUP_LIST, sqlite_push(mem, out.rows, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_group_delete(struct store *s, const struct st_group_delete *in, struct st_group_delete_ret *ret,
                        struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_GROUP_USED, e, "tt", in->ns, in->name);
  if (r > 0)
    r = err_set(e, ERR_CONFLICT, "tasks use the executor group %.*s", SLICE_FMT(in->name));
  if (r == 0)
    r = db_run(tx.db, SQL_GROUP_DELETE, e, "tt", in->ns, in->name);
  if (r == 0)
    r = err_set(e, ERR_NOT_FOUND, "there is no executor group %.*s", SLICE_FMT(in->name));
  if (r > 0)
    r = db_run(tx.db, SQL_GROUP_DELETE_EXECUTORS, e, "tt", in->ns, in->name);
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}

/* ------------------------------------------------------------------ instances */
int sqlite_executor_put(struct store *s, const struct st_executor_put *in, struct st_executor_put_ret *ret,
                        struct arena *mem, struct err *e) {
  const struct executor_row *x = &in->executor;
  struct st_executor_put_ret out = {};
  struct group_row g;
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  out.now = tx.now;
  r = find_group(&tx, x->ns, x->group, &g);
  if (r > 0)
    r = db_first(tx.db, SQL_EXECUTOR_PUT, e, "ttttsssiili", x->ns, x->group, x->id, x->url, x->handlers,
                 x->version, x->labels, x->slots, x->running, out.now, x->weight);
  if (r > 0)
    db_get(tx.db, SQL_EXECUTOR_PUT, mem, "li", &out.incarnation, &out.weight);
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  if (r == 0)
    *ret = out;
  return r;
}

int sqlite_executor_beat(struct store *s, const struct st_executor_beat *in, struct st_executor_beat_ret *ret,
                         struct arena *mem, struct err *e) {
  struct st_executor_beat_ret out = {.known = arena_array(mem, in->count + 1, sizeof *out.known),
                                     .states = arena_array(mem, in->count + 1, sizeof *out.states)};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  out.now = tx.now;
  for (size_t i = 0; r >= 0 && i < in->count; i++) {
    const struct executor_row *x = &in->rows[i];
    r = db_first(tx.db, SQL_EXECUTOR_BEAT, e, "tttli", x->ns, x->group, x->id, out.now, x->running);
    out.known[i] = r > 0;
    out.states[i] = EXECUTOR_OFFLINE;
    if (r > 0)
      db_get(tx.db, SQL_EXECUTOR_BEAT, mem, "i", &out.states[i]);
  }
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  if (r == 0)
    *ret = out;
  return r;
}

int sqlite_executor_set(struct store *s, const struct st_executor_set *in, struct st_executor_set_ret *ret,
                        struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  r = db_run(tx.db, SQL_EXECUTOR_SET, e, "tttii", in->ns, in->group, in->id,
             in->state < EXECUTOR_STATE_MAX_ ? (int)in->state : -1, in->weight);
  if (r == 0)
    r = err_set(e, ERR_NOT_FOUND, "there is no executor %.*s", SLICE_FMT(in->id));
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}

static void get_executor(struct sqlite_tx *tx, enum sql id, struct executor_row *x) {
  db_get(tx->db, id, tx->mem, "sssssssliiiill", &x->ns, &x->group, &x->id, &x->url, &x->handlers, &x->version,
         &x->labels, &x->incarnation, &x->slots, &x->running, &x->weight, &x->state, &x->registered_at,
         &x->beat_at);
}

int sqlite_executor_expire(struct store *s, const struct st_executor_expire *in,
                           struct st_executor_expire_ret *ret, struct arena *mem, struct err *e) {
  struct st_executor_expire_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_run(tx.db, SQL_EXECUTOR_FORGET, e, "l", tx.now - in->forget);
  if (r >= 0)
    r = db_query(tx.db, SQL_EXECUTOR_EXPIRE, e, "l", tx.now - in->timeout);
  while (r >= 0 && (r = db_step(tx.db, SQL_EXECUTOR_EXPIRE, e)) > 0)
    get_executor(&tx, SQL_EXECUTOR_EXPIRE, sqlite_push(mem, out.lost, out.count, cap));
  r = sqlite_write_end(&tx, r < 0 ? r : 0);
  if (r == 0)
    *ret = out;
  return r;
}

int sqlite_executor_list(struct store *s, const struct st_executor_list *in, struct st_executor_list_ret *ret,
                         struct arena *mem, struct err *e) {
  struct st_executor_list_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  out.now = tx.now;
  r = db_query(tx.db, SQL_EXECUTOR_LIST, e, "ss", sqlite_filter(in->ns), sqlite_filter(in->group));
  while (r >= 0 && (r = db_step(tx.db, SQL_EXECUTOR_LIST, e)) > 0)
    get_executor(&tx, SQL_EXECUTOR_LIST, sqlite_push(mem, out.rows, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}
