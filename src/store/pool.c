/* A pool of sessions behind the operations of one store. */
#include "base/thread.h"
#include "store/decorators.h"
#include "store/op_names.h"

struct pool {
  struct store base;
  struct store_ops ops; /* base.ops: the sessions' name and caps */
  struct store_source *source;
  enum store_role role;
  usec_t wait;
  struct mutex m; /* protects the following */
  struct cond returned;
  struct store **idle; /* room for `max` */
  int idle_count, open_count, max;
};

/* One that is idle, or room for a new one (*ret = NULL). */
static int wait_for_turn(struct pool *p, struct store **ret, struct err *e) {
  usec_t until = clock_system.mono(&clock_system) + p->wait, left = p->wait;
  mutex_lock(&p->m);
  while (p->idle_count == 0 && p->open_count == p->max && left > 0) {
    cond_wait(&p->returned, &p->m, left);
    left = until - clock_system.mono(&clock_system);
  }
  bool turn = p->idle_count > 0 || p->open_count < p->max;
  *ret = p->idle_count > 0 ? p->idle[--p->idle_count] : NULL;
  if (turn && !*ret)
    p->open_count++;
  mutex_unlock(&p->m);
  return turn ? 0 : err_set(e, ERR_BUSY, "all %d database sessions are in use", p->max);
}

static void session_gone(struct pool *p) {
  mutex_lock(&p->m);
  p->open_count--;
  cond_signal(&p->returned);
  mutex_unlock(&p->m);
}

static int borrow(struct pool *p, struct store **ret, struct err *e) {
  struct store *s = NULL;
  int r = wait_for_turn(p, &s, e);
  if (r == 0 && !s) {
    r = store_session(p->source, p->role, &s, e);
    if (r < 0)
      session_gone(p);
  }
  if (r == 0)
    *ret = s;
  return r;
}

/* What may be broken is not kept. */
static void give_back(struct pool *p, struct store *s, int r) {
  if (r == ERR_UNAVAILABLE || r == ERR_UNKNOWN_OUTCOME) {
    store_close(&s);
    session_gone(p);
    return;
  }
  mutex_lock(&p->m);
  p->idle[p->idle_count++] = s;
  cond_signal(&p->returned);
  mutex_unlock(&p->m);
}

static void pool_close(struct store *s) {
  struct pool *p = (struct pool *)s;
  for (int i = 0; i < p->idle_count; i++)
    store_close(&p->idle[i]);
  cond_done(&p->returned);
  mutex_done(&p->m);
  mem_free(p->idle);
  mem_free(p);
}

static bool needs_own_session(enum store_op op) {
  return op == STORE_OP_shard_lock || op == STORE_OP_shard_unlock || op == STORE_OP_wait_change;
}

#define OP(n)                                                                                                \
  static int pool_##n(struct store *s, const struct st_##n *in, struct st_##n##_ret *ret, struct arena *mem, \
                      struct err *e) {                                                                       \
    struct pool *p = (struct pool *)s;                                                                       \
    struct store *session;                                                                                   \
    if (needs_own_session(STORE_OP_##n))                                                                     \
      return err_set(e, -ENOTSUP, #n " needs a database session of its own, not a pool");                    \
    int r = borrow(p, &session, e);                                                                          \
    if (r < 0)                                                                                               \
      return r;                                                                                              \
    r = store_##n(session, in, ret, mem, e);                                                                 \
    give_back(p, session, r);                                                                                \
    return r;                                                                                                \
  }
#include "store/store_ops.def"

static const struct store_ops pool_ops = {
    .close = pool_close,
#define OP(n) .n = pool_##n,
#include "store/store_ops.def"
};

int store_pool(struct store_source *source, enum store_role role, int max, usec_t wait, struct store **ret,
               struct err *e) {
  struct pool *p = mem_zalloc(sizeof *p);
  struct store *first;
  p->ops = pool_ops;
  p->base.ops = &p->ops;
  p->source = source;
  p->role = role;
  p->max = max > 0 ? max : 1;
  p->wait = wait;
  p->idle = mem_array((size_t)p->max, sizeof *p->idle);
  mutex_init(&p->m);
  cond_init(&p->returned);
  int r = borrow(p, &first, e);
  if (r < 0) {
    pool_close(&p->base);
    return r;
  }
  p->ops.name = first->ops->name;
  p->ops.caps = first->ops->caps & ~STORE_CAP_NOTIFY;
  give_back(p, first, 0);
  *ret = &p->base;
  return 0;
}
