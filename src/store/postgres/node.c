/* Nodes, leases, shards. */
#include "store/postgres/pg.h"

#define SHARD_COLUMNS(t)                                                                                     \
  t "id, " t "owner, " t "incarnation, " t "epoch, " t "fired_at, " t "fired_task, " t "tasks_version"

static struct slice not_null(struct slice s) { return s.p ? s : SLICE(""); }

static void read_shard(struct pgw_cursor *c, struct shard_row *ret) {
  ret->id = (int32_t)pgw_next_int(c);
  ret->owner = not_null(pgw_next_text(c));
  ret->incarnation = pgw_next_int(c);
  ret->epoch = pgw_next_int(c);
  ret->fired_at = pgw_next_int(c);
  ret->fired_task = pgw_next_int(c);
  ret->tasks_version = pgw_next_int(c);
}

static struct shard_row *read_shards(const PGresult *r, struct arena *mem, size_t *ret_count) {
  size_t n = (size_t)PQntuples(r);
  struct shard_row *rows = arena_array(mem, n, sizeof *rows);
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    read_shard(&c, &rows[i]);
  }
  *ret_count = n;
  return rows;
}

void pg_add_i4s(struct pgw_args *a, const int32_t *v, size_t count) {
  pgw_array(a, PG_INT4_OID, count);
  for (size_t i = 0; i < count; i++)
    pgw_el_i4(a, v[i]);
  pgw_array_end(a);
}

static void add_texts(struct pgw_args *a, const struct slice *v, size_t count) {
  pgw_array(a, PG_TEXT_OID, count);
  for (size_t i = 0; i < count; i++)
    pgw_el_text(a, v[i]);
  pgw_array_end(a);
}

/* An incarnation is never given twice, not even to a node that left and came back. */
int pg_node_join(struct store *store, const struct st_node_join *in, struct st_node_join_ret *ret,
                 struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "node_join",
      "INSERT INTO node (id, incarnation, renewals, lease_until, started_at, address, version, tzdata, "
      "share) "
      "SELECT $1::text, nextval('node_incarnation'), 0, n.now + $5::int8, n.now, $2::text, $3::text, "
      "$4::text, $6::int4 "
      "FROM (SELECT " PG_NOW " AS now OFFSET 0) n "
      "ON CONFLICT (id) DO UPDATE SET incarnation = excluded.incarnation, renewals = 0, lease_until = "
      "excluded.lease_until, "
      "started_at = excluded.started_at, address = excluded.address, version = excluded.version, tzdata = "
      "excluded.tzdata, share = excluded.share, clock_offset = 0 "
      "RETURNING incarnation, started_at, lease_until",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)mem;
  pgw_text0(&s->args, in->id);
  pgw_text0(&s->args, in->address);
  pgw_text0(&s->args, in->version);
  pgw_text0(&s->args, in->tzdata);
  pgw_i8(&s->args, in->ttl);
  pgw_i4(&s->args, SHARE_KEEP);
  int code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  struct pgw_cursor c = pgw_row_of(r, 0, NULL);
  s->joined = s->timeline;
  ret->incarnation = pgw_next_int(&c);
  ret->now = pgw_next_int(&c);
  ret->lease_until = pgw_next_int(&c);
  return 0;
}

int pg_node_renew(struct store *store, const struct st_node_renew *in, struct st_node_renew_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "node_renew",
      "UPDATE node SET renewals = renewals + 1, lease_until = n.now + $3::int8, share = $4::int4, "
      "clock_offset = $5::int8 FROM (SELECT " PG_NOW " AS now OFFSET 0) n "
      "WHERE id = $1::text AND incarnation = $2::int8 RETURNING n.now, lease_until",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)mem;
  int code = pgc_ready(s, e);
  if (code == 0 && s->timeline != s->joined)
    code = err_set(e, ERR_FENCED, "another server has become the primary");
  if (code < 0)
    return code;
  pgw_text0(&s->args, in->id);
  pgw_i8(&s->args, in->incarnation);
  pgw_i8(&s->args, in->ttl);
  pgw_i4(&s->args, (int32_t)in->share);
  pgw_i8(&s->args, in->clock_offset);
  code = pgc_one(s, &q, &r, e);
  if (code < 0)
    return code;
  if (PQntuples(r) == 0)
    return err_set(e, ERR_FENCED, "this node's incarnation is gone");
  ret->now = pgw_int(r, 0, 0);
  ret->lease_until = pgw_int(r, 0, 1);
  return 0;
}

#define PG_TELL_NODES "pg_notify('" PG_CHANNEL "', '" PG_NODES_CHANGED "')"

int pg_node_leave(struct store *store, const struct st_node_leave *in, struct st_node_leave_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "node_leave",
      "WITH gone AS (DELETE FROM node WHERE id = $1::text AND incarnation = $2::int8 AND NOT drained "
      "RETURNING 1), "
      "away AS (UPDATE node SET incarnation = 0, lease_until = least(lease_until, " PG_NOW ") "
      "WHERE id = $1 AND incarnation = $2 AND drained RETURNING 1), "
      "mine AS (SELECT id FROM shard WHERE owner = $1 AND incarnation = $2 ORDER BY id FOR UPDATE), "
      "released AS (UPDATE shard s SET owner = NULL, incarnation = 0 FROM mine "
      "WHERE s.id = mine.id AND s.owner = $1 AND s.incarnation = $2) "
      "SELECT " PG_TELL_NODES " FROM (SELECT FROM gone UNION ALL SELECT FROM away) x",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  pgw_text0(&s->args, in->id);
  pgw_i8(&s->args, in->incarnation);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0 && PQntuples(r) == 0)
    code = err_set(e, ERR_FENCED, "this node's incarnation is gone");
  return code;
}

int pg_node_drain(struct store *store, const struct st_node_drain *in, struct st_node_drain_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "node_drain",
      "WITH was AS (SELECT drained FROM node WHERE id = $1::text FOR UPDATE), "
      "n AS (UPDATE node SET drained = $2::bool WHERE id = $1 RETURNING " PG_TELL_NODES ") "
      "SELECT was.drained FROM was, n",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  pgw_text0(&s->args, in->id);
  pgw_bool(&s->args, in->drained);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0 && PQntuples(r) == 0)
    return err_set(e, ERR_NOT_FOUND, "there is no node %.*s", SLICE_FMT(in->id));
  return code < 0 ? code : pgw_int(r, 0, 0) == in->drained;
}

int pg_node_forget(struct store *store, const struct st_node_forget *in, struct st_node_forget_ret *ret,
                   struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "node_forget",
      "WITH gone AS (DELETE FROM node n WHERE lease_until < " PG_NOW " - $1::int8 "
      "AND NOT EXISTS (SELECT FROM shard WHERE owner = n.id) RETURNING 1) SELECT count(*) FROM gone",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)mem;
  pgw_i8(&s->args, in->age);
  int code = pgc_one(s, &q, &r, e);
  if (code == 0)
    ret->removed = pgw_int(r, 0, 0);
  return code;
}

int pg_node_list(struct store *store, const struct st_node_list *in, struct st_node_list_ret *ret,
                 struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "node_list",
      "SELECT n.now, id, address, version, tzdata, incarnation, renewals, lease_until, started_at, "
      "clock_offset, share, drained FROM (SELECT " PG_NOW
      " AS now OFFSET 0) n LEFT JOIN node ON true ORDER BY id",
      PG_READ};
  auto_result r = NULL;
  (void)in;
  int code = pgc_one(pg_of(store), &q, &r, e);
  if (code < 0)
    return code;
  size_t n = PQgetisnull(r, 0, 1) ? 0 : (size_t)PQntuples(r);
  ret->now = pgw_int(r, 0, 0);
  ret->nodes = arena_array(mem, n, sizeof *ret->nodes);
  ret->count = n;
  for (size_t i = 0; i < n; i++) {
    struct pgw_cursor c = pgw_row_of(r, i, mem);
    struct node_row *node = &ret->nodes[i];
    c.col = 1;
    node->id = pgw_next_text(&c);
    node->address = pgw_next_text(&c);
    node->version = pgw_next_text(&c);
    node->tzdata = pgw_next_text(&c);
    node->incarnation = pgw_next_int(&c);
    node->renewals = pgw_next_int(&c);
    node->lease_until = pgw_next_int(&c);
    node->started_at = pgw_next_int(&c);
    node->clock_offset = pgw_next_int(&c);
    node->share = (enum share)pgw_next_int(&c);
    node->drained = pgw_next_int(&c) != 0;
  }
  return 0;
}

int pg_shard_list(struct store *store, const struct st_shard_list *in, struct st_shard_list_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"shard_list",
                                  "SELECT " SHARD_COLUMNS("") ", " PG_NOW " FROM shard ORDER BY id", PG_READ};
  auto_result r = NULL;
  (void)in;
  int code = pgc_one(pg_of(store), &q, &r, e);
  if (code < 0)
    return code;
  ret->shards = read_shards(r, mem, &ret->count);
  ret->now = ret->count ? pgw_int(r, 0, 7) : 0;
  return 0;
}

/* End sessions of ours that hold a fence row and do nothing: their node was stopped inside a transaction. */
static void end_idle_holders(struct pg_store *s) {
  static const struct pg_sql q = {
      "end_idle_holders",
      "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a WHERE a.application_name LIKE 'kelou %' "
      "AND a.datname = current_database() AND a.state LIKE 'idle in transaction%' AND a.pid <> "
      "pg_backend_pid() "
      "AND a.state_change < clock_timestamp() - interval '" PG_CLAIM_LOCK_TIMEOUT "' "
      "AND EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.granted "
      "AND l.relation IN ('shard'::regclass, 'shard_finish'::regclass))",
      PG_READ};
  auto_result r = NULL;
  (void)pgc_one(s, &q, &r, NULL); /* the claim is tried again anyway */
}

/* Lock, then decide by what a later statement sees: the wait for a lock may have changed everything. */
int pg_shard_claim(struct store *store, const struct st_shard_claim *in, struct st_shard_claim_ret *ret,
                   struct arena *mem, struct err *e) {
  static const struct pg_sql timeout = {"claim_timeout",
                                        "SET LOCAL lock_timeout = '" PG_CLAIM_LOCK_TIMEOUT "'", PG_READ};
  static const struct pg_sql me = {
      "claim_me", "SELECT 1 FROM node WHERE id = $1::text AND incarnation = $2::int8", PG_READ};
  static const struct pg_sql lock = {
      "claim_lock", "SELECT 1 FROM shard WHERE id = ANY ($1::int4[]) ORDER BY id FOR UPDATE", PG_READ};
  static const struct pg_sql claim = {
      "claim",
      "WITH taken AS (UPDATE shard s SET owner = $1::text, incarnation = $2::int8, epoch = greatest(epoch + "
      "1, $5::int8) "
      "WHERE id = ANY ($3::int4[]) AND EXISTS (SELECT FROM node WHERE node.id = $1 AND node.incarnation = "
      "$2) AND (s.owner IS NULL "
      "OR s.owner = ANY ($4::text[]) OR (s.owner = $1 AND s.incarnation < $2) "
      "OR coalesce((SELECT n.lease_until FROM node n WHERE n.id = s.owner AND n.incarnation = "
      "s.incarnation), 0) < " PG_NOW ") "
      "RETURNING " SHARD_COLUMNS(
          "s.") "), "
                "fenced AS (UPDATE shard_finish f SET epoch = taken.epoch FROM taken WHERE f.id = taken.id) "
                "SELECT " SHARD_COLUMNS("") " FROM taken ORDER BY id",
      PG_WRITE};
  struct pg_store *s = pg_of(store);
  PGresult *r[6] = {0};
  pgc_begin(s);
  int64_t on = s->timeline;
  pgc_add(s, &timeout);
  pgw_text0(&s->args, in->node);
  pgw_i8(&s->args, in->incarnation);
  pgc_add(s, &me);
  pg_add_i4s(&s->args, in->ids, in->count);
  pgc_add(s, &lock);
  pgw_text0(&s->args, in->node);
  pgw_i8(&s->args, in->incarnation);
  pg_add_i4s(&s->args, in->ids, in->count);
  add_texts(&s->args, in->dead, in->dead_count);
  pgw_i8(&s->args, (on - 1) * PG_EPOCHS_OF_TIMELINE);
  pgc_add(s, &claim);
  int code = pgc_run(s, r, e);
  if (code == 0 && PQntuples(r[2]) == 0)
    code = err_set(e, ERR_FENCED, "this node's incarnation is gone");
  if (code == 0)
    code = pgc_commit(s, e);
  else
    pgc_rollback(s);
  if (code == 0 || code == ERR_UNKNOWN_OUTCOME)
    atomic_store(&s->source->served, on);
  if (code == 0)
    ret->shards = read_shards(r[4], mem, &ret->count);
  for (size_t i = 0; i < sizeof r / sizeof r[0]; i++)
    pgr_clear(&r[i]);
  if (code < 0 && pgc_refused(s, PG_LOCK_NOT_AVAILABLE))
    end_idle_holders(s);
  return code;
}

int pg_shard_release(struct store *store, const struct st_shard_release *in, struct st_shard_release_ret *ret,
                     struct arena *mem, struct err *e) {
  static const struct pg_sql q = {"shard_release",
                                  "WITH mine AS (SELECT id FROM shard WHERE id = ANY ($3::int4[]) AND owner "
                                  "= $1::text AND incarnation = $2::int8 "
                                  "ORDER BY id FOR UPDATE) "
                                  "UPDATE shard s SET owner = NULL, incarnation = 0 FROM mine WHERE s.id = "
                                  "mine.id AND s.owner = $1 AND s.incarnation = $2 RETURNING " PG_TELL_NODES,
                                  PG_WRITE};
  struct pg_store *s = pg_of(store);
  auto_result r = NULL;
  (void)ret;
  (void)mem;
  pgw_text0(&s->args, in->node);
  pgw_i8(&s->args, in->incarnation);
  pg_add_i4s(&s->args, in->ids, in->count);
  return pgc_one(s, &q, &r, e);
}

int pg_shard_lock(struct store *store, const struct st_shard_lock *in, struct st_shard_lock_ret *ret,
                  struct arena *mem, struct err *e) {
  static const struct pg_sql q = {
      "shard_lock",
      "SELECT " SHARD_COLUMNS("") " FROM shard WHERE id = $1::int4 AND epoch = $2::int8 FOR UPDATE", PG_READ};
  struct pg_store *s = pg_of(store);
  PGresult *r[2] = {0};
  if (s->locked)
    return err_set(e, ERR_INTERNAL, "this session has locked a shard already");
  pgc_begin(s);
  pgw_i4(&s->args, in->shard);
  pgw_i8(&s->args, in->epoch);
  pgc_add(s, &q);
  int code = pgc_run(s, r, e);
  if (code == 0 && PQntuples(r[1]) == 0)
    code = err_set(e, ERR_FENCED, "the epoch of shard %d has moved on", (int)in->shard);
  if (code < 0)
    pgc_rollback(s);
  else {
    struct pgw_cursor c = pgw_row_of(r[1], 0, mem);
    read_shard(&c, &ret->shard);
    s->in_tx = false;
    s->locked = true;
  }
  pgr_clear(&r[0]);
  pgr_clear(&r[1]);
  return code;
}

int pg_shard_unlock(struct store *store, const struct st_shard_unlock *in, struct st_shard_unlock_ret *ret,
                    struct arena *mem, struct err *e) {
  struct pg_store *s = pg_of(store);
  (void)ret;
  (void)mem;
  if (!s->locked)
    return err_set(e, ERR_INTERNAL, "this session has locked no shard");
  int code = 0;
  s->in_tx = true; /* the one that shard_lock began */
  s->locked = false;
  if (!in->commit)
    pgc_rollback(s);
  else
    code = pgc_commit(s, e);
  return code;
}
