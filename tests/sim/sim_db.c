#include "core/inbox.h"
#include "sim_db.h"
#include <stdlib.h>
#include <utlist.h>

/* The database itself, its sessions, nodes, shards and the inbox. */

const char *const sim_guard_names[] = {
#define GUARD(name, text) #name,
#include "guards.def"
    NULL};
const char *const sim_guard_texts[] = {
#define GUARD(name, text) text,
#include "guards.def"
    NULL};

struct sim_db *sim_db_new(int32_t shard_count, usec_t (*now)(void *arg), void *arg) {
  struct sim_db *db = mem_zalloc(sizeof *db);
  mutex_init(&db->lock);
  db->now = now;
  db->now_arg = arg;
  db->shard_count = shard_count;
  db->depend_turn = 1;
  db->shards = mem_array((size_t)shard_count, sizeof *db->shards);
  for (int32_t i = 0; i < shard_count; i++)
    db->shards[i].row = (struct shard_row){.id = i, .fired_at = now(arg), .fired_task = INT64_MAX};
  return db;
}

static void free_tables(struct sim_db *db) {
  struct db_task *t, *tn;
  HASH_ITER (hh, db->tasks, t, tn) {
    HASH_DEL(db->tasks, t);
    mem_free(t->versions);
    mem_free(t);
  }
  struct db_name *n, *nn;
  HASH_ITER (hh, db->names, n, nn) {
    HASH_DEL(db->names, n);
    mem_free(n->name);
    mem_free(n);
  }
  struct db_progress *p, *pn;
  HASH_ITER (hh, db->progress, p, pn) {
    HASH_DEL(db->progress, p);
    mem_free(p);
  }
  struct db_idem *i, *in;
  HASH_ITER (hh, db->idems, i, in) {
    HASH_DEL(db->idems, i);
    mem_free(i->key);
    mem_free(i);
  }
}

void sim_db_free(struct sim_db **p) {
  struct sim_db *db = *p;
  if (!db)
    return;
  free_tables(db);
  db_runs_free(db);
  for (int32_t i = 0; i < db->shard_count; i++)
    mem_free(db->shards[i].changes);
  mem_free(db->shards);
  mem_free(db->nodes);
  mem_free(db->inbox);
  mem_free(db->edges);
  mem_free(db->events);
  mem_free(db->ends);
  mem_free(db->undo);
  arena_done(&db->mem);
  mutex_done(&db->lock);
  mem_free(db);
  *p = NULL;
}

struct slice db_text(struct sim_db *db, struct slice s) {
  return s.p ? arena_slice(&db->mem, s) : s;
}

void db_written(struct sim_db *db, int64_t a, int64_t b) {
  db->digest = hash_u64(db->digest ^ hash_u64((uint64_t)a) ^ (uint64_t)b * 3);
  db->writes++;
}

/* ------------------------------------------------------------------ sessions */
#define OP(n)                                                                                                \
  static int locked_##n(struct store *s, const struct st_##n *in, struct st_##n##_ret *ret,                  \
                        struct arena *mem, struct err *e) {                                                  \
    mutex_lock(&db_of(s)->lock);                                                                             \
    int rc = db_##n(s, in, ret, mem, e);                                                                     \
    mutex_unlock(&db_of(s)->lock);                                                                           \
    return rc;                                                                                               \
  }
#include "store/store_ops.def"

static void roll_back(struct sim_db *db);

void sim_db_break(struct store *s) {
  struct sim_db *db = db_of(s);
  if (db->tx == s)
    roll_back(db);
}

static void close_session(struct store *s) {
  sim_db_break(s);
  mem_free(s);
}

static const struct store_ops ops = {
    .name = "sim",
    .caps = 0,
    .close = close_session,
#define OP(n) .n = locked_##n,
#include "store/store_ops.def"
};

int sim_db_session(struct sim_db *db, struct store **ret) {
  struct sim_store *s = mem_zalloc(sizeof *s);
  s->store.ops = &ops;
  s->db = db;
  *ret = &s->store;
  return 0;
}

/* What it does not have. */
#define LACKS(n)                                                                                             \
  int db_##n(struct store *s, const struct st_##n *in, struct st_##n##_ret *ret, struct arena *mem,          \
             struct err *e) {                                                                                \
    (void)s, (void)in, (void)ret, (void)mem;                                                                 \
    return err_set(e, -ENOTSUP, "the simulated store has no " #n);                                           \
  }
LACKS(calendar_put)
LACKS(calendar_get)
LACKS(calendar_list)
LACKS(calendar_delete)
LACKS(calendar_behind)
LACKS(dead_letter_list)
LACKS(dead_letter_get)
LACKS(dead_letter_handle)
LACKS(dead_letter_count)
LACKS(bound_exchange)
LACKS(alert_def_put)
LACKS(alert_def_get)
LACKS(alert_def_list)
LACKS(alert_def_delete)
LACKS(alert_events)
LACKS(alert_latest)
LACKS(alert_apply)
LACKS(alert_claim)
LACKS(alert_result)
LACKS(alert_list)
LACKS(alert_get)
LACKS(alert_send)
LACKS(alert_expire)
LACKS(task_apply)
LACKS(task_list)
LACKS(task_stats)
LACKS(wait_change)
LACKS(run_list)
LACKS(group_put)
LACKS(group_get)
LACKS(group_list)
LACKS(group_delete)
LACKS(executor_put)
LACKS(executor_beat)
LACKS(executor_set)
LACKS(executor_expire)
LACKS(executor_list)
LACKS(namespace_put)
LACKS(namespace_list)
LACKS(namespace_set)
LACKS(history_batch)
LACKS(history_take_day)
LACKS(history_take)
LACKS(history_read)
LACKS(history_archived)
LACKS(history_drop)
LACKS(history_count)
LACKS(history_settle)
LACKS(run_log_put)
LACKS(run_log_list)
LACKS(run_log_expire)
LACKS(token_put)
LACKS(token_find)
LACKS(token_list)
LACKS(token_delete)

int db_maintain(struct store *s, const struct st_maintain *in, struct st_maintain_ret *ret, struct arena *mem,
                struct err *e) {
  (void)s, (void)in, (void)ret, (void)mem, (void)e;
  return 0;
}

int db_meta(struct store *s, const struct st_meta *in, struct st_meta_ret *ret, struct arena *mem,
            struct err *e) {
  struct sim_db *db = db_of(s);
  (void)in, (void)mem, (void)e;
  *ret = (struct st_meta_ret){db->now(db->now_arg), db->shard_count, 1, SLICE("simulated")};
  return 0;
}

/* ------------------------------------------------------------------ nodes */
static struct node_row *find_node(struct sim_db *db, struct slice id) {
  for (size_t i = 0; i < db->node_count; i++)
    if (slice_eq(db->nodes[i].id, id))
      return &db->nodes[i];
  return NULL;
}

static struct node_row *node_of(struct sim_db *db, struct slice id, int64_t incarnation, struct err *e) {
  struct node_row *n = find_node(db, id);
  if (n && n->incarnation == incarnation)
    return n;
  (void)err_set(e, ERR_FENCED, "this incarnation of the node is gone");
  return NULL;
}

int db_node_join(struct store *s, const struct st_node_join *in, struct st_node_join_ret *ret,
                 struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  usec_t now = db->now(db->now_arg);
  (void)mem, (void)e;
  struct node_row *n = find_node(db, in->id);
  bool drained = n && n->drained;
  if (!n) {
    mem_reserve(db->nodes, db->node_count, db->node_cap);
    n = &db->nodes[db->node_count++];
  }
  *n = (struct node_row){.id = db_text(db, in->id),
                         .address = db_text(db, in->address),
                         .version = db_text(db, in->version),
                         .tzdata = db_text(db, in->tzdata),
                         .incarnation = ++db->last_incarnation,
                         .lease_until = now + in->ttl,
                         .started_at = now,
                         .share = SHARE_KEEP,
                         .drained = drained};
  db_written(db, n->incarnation, now);
  *ret = (struct st_node_join_ret){n->incarnation, now, n->lease_until};
  return 0;
}

int db_node_renew(struct store *s, const struct st_node_renew *in, struct st_node_renew_ret *ret,
                  struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  struct node_row *n = node_of(db, in->id, in->incarnation, e);
  (void)mem;
  if (!n)
    return ERR_FENCED;
  usec_t now = db->now(db->now_arg);
  n->lease_until = now + in->ttl;
  n->renewals++;
  n->share = in->share;
  n->clock_offset = in->clock_offset;
  *ret = (struct st_node_renew_ret){now, n->lease_until};
  return 0;
}

static void free_shard(struct db_shard *sh) {
  sh->row.owner = (struct slice){0};
  sh->row.incarnation = 0;
}

int db_node_leave(struct store *s, const struct st_node_leave *in, struct st_node_leave_ret *ret,
                  struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  struct node_row *n = node_of(db, in->id, in->incarnation, e);
  (void)ret, (void)mem;
  if (!n)
    return ERR_FENCED;
  for (int32_t i = 0; i < db->shard_count; i++)
    if (slice_eq(db->shards[i].row.owner, in->id))
      free_shard(&db->shards[i]);
  if (n->drained) {
    usec_t now = db->now(db->now_arg);
    n->incarnation = 0;
    n->lease_until = n->lease_until < now ? n->lease_until : now;
    return 0;
  }
  *n = db->nodes[--db->node_count];
  return 0;
}

int db_node_drain(struct store *s, const struct st_node_drain *in, struct st_node_drain_ret *ret,
                  struct arena *mem, struct err *e) {
  struct node_row *n = find_node(db_of(s), in->id);
  (void)ret, (void)mem;
  if (!n)
    return err_set(e, ERR_NOT_FOUND, "there is no such node");
  bool was = n->drained;
  n->drained = in->drained;
  return was == in->drained;
}

int db_node_forget(struct store *s, const struct st_node_forget *in, struct st_node_forget_ret *ret,
                   struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  usec_t now = db->now(db->now_arg);
  (void)mem, (void)e;
  ret->removed = 0;
  for (size_t i = db->node_count; i-- > 0;) {
    bool stays = db->nodes[i].lease_until >= now - in->age;
    for (int32_t k = 0; k < db->shard_count; k++)
      stays = stays || slice_eq(db->shards[k].row.owner, db->nodes[i].id);
    if (!stays)
      db->nodes[i] = db->nodes[--db->node_count];
    ret->removed += !stays;
  }
  return 0;
}

int db_node_list(struct store *s, const struct st_node_list *in, struct st_node_list_ret *ret,
                 struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)in, (void)e;
  struct node_row *rows = arena_array(mem, db->node_count, sizeof *rows);
  if (db->node_count)
    memcpy(rows, db->nodes, db->node_count * sizeof *rows);
  *ret = (struct st_node_list_ret){rows, db->node_count, db->now(db->now_arg)};
  return 0;
}

/* ------------------------------------------------------------------ shards */
int db_shard_list(struct store *s, const struct st_shard_list *in, struct st_shard_list_ret *ret,
                  struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)in, (void)e;
  struct shard_row *rows = arena_array(mem, (size_t)db->shard_count, sizeof *rows);
  for (int32_t i = 0; i < db->shard_count; i++)
    rows[i] = db->shards[i].row;
  *ret = (struct st_shard_list_ret){rows, (size_t)db->shard_count, db->now(db->now_arg)};
  return 0;
}

static bool may_claim(struct sim_db *db, const struct shard_row *row, const struct st_shard_claim *in) {
  if (!row->owner.n)
    return true;
  if (slice_eq(row->owner, in->node))
    return row->incarnation != in->incarnation;
  for (size_t i = 0; i < in->dead_count; i++)
    if (slice_eq(in->dead[i], row->owner))
      return true;
  const struct node_row *owner = find_node(db, row->owner);
  return !owner || owner->incarnation != row->incarnation || owner->lease_until <= db->now(db->now_arg);
}

int db_shard_claim(struct store *s, const struct st_shard_claim *in, struct st_shard_claim_ret *ret,
                   struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  const struct node_row *me = node_of(db, in->node, in->incarnation, e);
  if (!me)
    return ERR_FENCED;
  struct shard_row *rows = arena_array(mem, in->count, sizeof *rows);
  size_t n = 0;
  for (size_t i = 0; i < in->count; i++) {
    struct db_shard *sh = &db->shards[in->ids[i]];
    if (!may_claim(db, &sh->row, in))
      continue;
    sh->row.owner = db_text(db, in->node);
    sh->row.incarnation = in->incarnation;
    sh->claimed_at = db->now(db->now_arg);
    if (!db->removed[GUARD_CLAIM_EPOCH] || sh->row.epoch == 0)
      sh->finish_epoch = ++sh->row.epoch;
    db_written(db, sh->row.id, sh->row.epoch);
    rows[n++] = sh->row;
  }
  *ret = (struct st_shard_claim_ret){rows, n};
  return 0;
}

int db_shard_release(struct store *s, const struct st_shard_release *in, struct st_shard_release_ret *ret,
                     struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)ret, (void)mem, (void)e;
  for (size_t i = 0; i < in->count; i++) {
    struct db_shard *sh = &db->shards[in->ids[i]];
    if (slice_eq(sh->row.owner, in->node) && sh->row.incarnation == in->incarnation)
      free_shard(sh);
  }
  return 0;
}

/* ------------------------------------------------------------------ a transaction that holds a shard */
void db_undo_add(struct sim_db *db, const struct db_undo *u) {
  if (!db->tx)
    return;
  mem_reserve(db->undo, db->undo_count, db->undo_cap);
  db->undo[db->undo_count++] = *u;
}

static void undo_progress(struct sim_db *db, const struct db_undo *u) {
  struct db_progress *p;
  HASH_FIND(hh, db->progress, &u->progress.task_id, sizeof u->progress.task_id, p);
  if (u->kind == UNDO_PROGRESS) {
    p->row = u->progress;
  } else {
    HASH_DEL(db->progress, p);
    mem_free(p);
  }
}

static void undo_run(struct sim_db *db, struct db_run *r) {
  if (!r->ended)
    DL_DELETE(db->shards[r->key.shard].open, r);
  HASH_DEL(db->runs, r);
  mem_free(r);
}

static void roll_back(struct sim_db *db) {
  db->tx = NULL; /* what is undone is not to be undone again */
  while (db->undo_count) {
    struct db_undo *u = &db->undo[--db->undo_count];
    switch (u->kind) {
    case UNDO_SHARD: db->shards[u->shard.id].row = u->shard; break;
    case UNDO_RUN: undo_run(db, u->run); break;
    case UNDO_PROGRESS:
    case UNDO_PROGRESS_NEW: undo_progress(db, u); break;
    case UNDO_INBOX:
      mem_reserve(db->inbox, db->inbox_count, db->inbox_cap);
      db->inbox[db->inbox_count++] = u->inbox;
      break;
    }
  }
}

int db_shard_lock(struct store *s, const struct st_shard_lock *in, struct st_shard_lock_ret *ret,
                  struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)mem;
  if (db->tx)
    return err_set(e, ERR_UNAVAILABLE, "another session holds a shard");
  if (db->shards[in->shard].row.epoch != in->epoch)
    return err_set(e, ERR_FENCED, "the epoch moved");
  db->tx = s;
  db->undo_count = 0;
  ret->shard = db->shards[in->shard].row;
  return 0;
}

int db_shard_unlock(struct store *s, const struct st_shard_unlock *in, struct st_shard_unlock_ret *ret,
                    struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)ret, (void)mem;
  if (db->tx != s)
    return err_set(e, ERR_UNAVAILABLE, "the transaction is gone");
  if (in->commit) {
    for (size_t i = 0; i < db->undo_count && db->hooks.run_changed; i++)
      if (db->undo[i].kind == UNDO_RUN)
        db->hooks.run_changed(db->hooks.arg, db->undo[i].run, NULL);
    db->tx = NULL;
    db->undo_count = 0;
    if (db->hooks.committed)
      db->hooks.committed(db->hooks.arg);
  } else {
    roll_back(db);
  }
  return 0;
}

/* ------------------------------------------------------------------ inbox, idempotency */
int64_t db_inbox_append(struct sim_db *db, int32_t shard, int32_t kind, struct slice body) {
  int64_t no = ++db->shards[shard].inbox_last;
  mem_reserve(db->inbox, db->inbox_count, db->inbox_cap);
  db->inbox[db->inbox_count++] = (struct inbox_row){shard, no, kind, db_text(db, body), db->now(db->now_arg)};
  db_written(db, shard, no);
  return no;
}

int64_t sim_db_inbox_add(struct sim_db *db, int32_t shard, int32_t kind, struct slice body) {
  return db_inbox_append(db, shard, kind, body);
}

static char *idem_key(const struct idem *i) {
  struct str s;
  str_init(&s, SIZE_MAX - 1);
  str_addf(&s, "%zu ", i->route.n);
  str_add(&s, i->route);
  str_add(&s, i->key);
  return str_take(&s);
}

int db_idem_find(struct sim_db *db, const struct idem *idem, struct db_idem **ret, struct err *e) {
  *ret = NULL;
  if (!idem)
    return 0;
  auto_free char *key = idem_key(idem);
  struct db_idem *i;
  HASH_FIND_STR(db->idems, key, i);
  if (!i || i->expires_at < db->now(db->now_arg))
    return 0;
  if (memcmp(i->body_hash, idem->body_hash, sizeof i->body_hash) != 0)
    return err_set(e, ERR_IDEMPOTENCY, "this key was used for another request");
  *ret = i;
  return 1;
}

static void forget_idem(struct sim_db *db, struct db_idem *i) {
  HASH_DEL(db->idems, i);
  mem_free(i->key);
  mem_free(i);
}

void db_idem_add(struct sim_db *db, const struct idem *idem, int64_t no, struct slice ref) {
  if (!idem)
    return;
  struct db_idem *i = mem_zalloc(sizeof *i), *old;
  i->key = idem_key(idem);
  i->expires_at = db->now(db->now_arg) + idem->keep;
  i->no = no;
  i->ref = db_text(db, ref);
  memcpy(i->body_hash, idem->body_hash, sizeof i->body_hash);
  HASH_FIND_STR(db->idems, i->key, old);
  if (old)
    forget_idem(db, old);
  HASH_ADD_KEYPTR(hh, db->idems, i->key, strlen(i->key), i);
}

int db_idem_expire(struct store *s, const struct st_idem_expire *in, struct st_idem_expire_ret *ret,
                   struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  struct db_idem *i, *next;
  int64_t removed = 0;
  (void)mem, (void)e;
  HASH_ITER (hh, db->idems, i, next) {
    if (removed < in->limit && i->expires_at < db->now(db->now_arg)) {
      forget_idem(db, i);
      removed++;
    }
  }
  ret->removed = removed;
  return 0;
}

int db_inbox_add(struct store *s, const struct st_inbox_add *in, struct st_inbox_add_ret *ret,
                 struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  struct db_idem *was;
  int rc = db_idem_find(db, in->idem, &was, e);
  (void)mem;
  if (rc < 0)
    return rc;
  if (was) {
    *ret = (struct st_inbox_add_ret){was->no, was->ref};
    return 1;
  }
  int64_t no = db_inbox_append(db, in->shard, in->kind, in->body);
  db_idem_add(db, in->idem, no, in->ref);
  *ret = (struct st_inbox_add_ret){no, in->ref};
  return 0;
}

static int by_no(const void *a, const void *b) {
  const struct inbox_row *x = a, *y = b;
  if (x->no != y->no)
    return x->no < y->no ? -1 : 1;
  return x->shard - y->shard;
}

int db_inbox_put(struct store *s, const struct st_inbox_put *in, struct st_inbox_put_ret *ret,
                 struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)ret, (void)mem;
  for (size_t i = 0; i < in->count; i++)
    if (in->rows[i].shard < 0 || in->rows[i].shard >= db->shard_count)
      return err_set(e, ERR_NOT_FOUND, "there is no shard %d", (int)in->rows[i].shard);
  for (size_t i = 0; i < in->count; i++)
    (void)db_inbox_append(db, in->rows[i].shard, in->rows[i].kind, in->rows[i].body);
  return 0;
}

int db_inbox_oldest(struct store *s, const struct st_inbox_oldest *in, struct st_inbox_oldest_ret *ret,
                    struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)in, (void)mem, (void)e;
  *ret = (struct st_inbox_oldest_ret){.now = db->now(db->now_arg)};
  for (size_t i = 0; i < db->inbox_count; i++)
    if (!ret->at || db->inbox[i].at < ret->at)
      ret->at = db->inbox[i].at;
  return 0;
}

int db_inbox_read(struct store *s, const struct st_inbox_read *in, struct st_inbox_read_ret *ret,
                  struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)e;
  struct inbox_row *rows = arena_array(mem, db->inbox_count, sizeof *rows);
  size_t n = 0;
  for (size_t i = 0; i < db->inbox_count; i++)
    for (size_t k = 0; k < in->shard_count; k++)
      if (db->inbox[i].shard == in->shards[k])
        rows[n++] = db->inbox[i];
  if (n)
    qsort(rows, n, sizeof *rows, by_no);
  for (size_t i = 0; db->removed[GUARD_INBOX_FIRST] && i < n; i++)
    if (rows[i].kind == INBOX_EVENT)
      db_inbox_drop(db, &rows[i]);
  *ret = (struct st_inbox_read_ret){rows, n < (size_t)in->limit ? n : (size_t)in->limit};
  return 0;
}
