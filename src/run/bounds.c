#include "run/bounds.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"
#include "core/share.h"
#include "run/service.h"

static const usec_t TURN = 5 * USEC_PER_SEC; /* of a place that goes round */

struct run_bounds {
  struct run_bounds_options o;
  struct thread thread;
  struct mutex lock; /* guards stopping */
  struct cond wake;
  bool stopping;
  /* the thread's own */
  bool said;   /* other nodes can read here which parts it has */
  bool told;   /* the trouble that lasts has been logged */
  struct aim { /* what an earlier exchange said: so much shall be here */
    char *key;
    int64_t part;
  } * aims;
  size_t aim_count, aim_cap;
};

void run_bounds_options_default(struct run_bounds_options *o) {
  *o = (struct run_bounds_options){.period = USEC_PER_SEC, .hurry = 200 * USEC_PER_MS};
}

struct run_bounds *run_bounds_new(const struct run_bounds_options *o) {
  struct run_bounds *b = mem_zalloc(sizeof *b);
  b->o = *o;
  mutex_init(&b->lock);
  cond_init(&b->wake);
  return b;
}

/* ---------------------------------------------------------------- what is here */

struct here {
  struct live_need *needs;
  size_t count;
  int64_t adopted; /* the sum of the epochs of the shards whose runs have been taken over */
  int32_t owned;   /* such shards */
  bool bounded, shared;
};

static struct here look_here(struct run_service *s) {
  struct here h = {0};
  mutex_lock(&s->lock);
  for (int32_t i = 0; i < s->o.shard_count; i++)
    if (s->epochs[i] && !s->adopting[i] && !s->expected[i]) {
      h.adopted += s->epochs[i];
      h.owned++;
    }
  h.needs = live_needs(s->live, &h.count);
  h.bounded = live_has_bounds(s->live);
  h.shared = live_shares(s->live);
  mutex_unlock(&s->lock);
  return h;
}

static void share(struct run_service *s, bool shared, int32_t owned) {
  double part = (double)(owned ? owned : 1) / (double)s->o.shard_count;
  mutex_lock(&s->lock);
  live_share(s->live, shared, shared ? part : 1);
  mutex_unlock(&s->lock);
  run_wake_writer(s);
}

/* ---------------------------------------------------------------- who else is there */

struct others {
  int64_t incarnation; /* this node's, as the database says; 0: it is gone */
  bool any;            /* another node lives */
};

static int look_around(struct run_bounds *b, struct others *ret, struct err *e) {
  auto_arena mem = {0};
  struct st_node_list_ret list;
  int rc = store_node_list(b->o.store, &(struct st_node_list){0}, &list, &mem, e);
  for (size_t i = 0; rc >= 0 && i < list.count; i++) {
    const struct node_row *n = &list.nodes[i];
    if (slice_eqz(n->id, b->o.node_id))
      ret->incarnation = n->incarnation;
    else
      ret->any = ret->any || n->lease_until > list.now;
  }
  return rc;
}

/* ---------------------------------------------------------------- an exchange */

static void key_of(const struct live_need *n, struct str *out) {
  str_addf(out, "%s/%s", n->ns, n->group ? n->group : "");
}

static struct aim *aim_of(struct run_bounds *b, const struct live_need *n) {
  auto_str key;
  str_init(&key, 1024);
  key_of(n, &key);
  for (size_t i = 0; i < b->aim_count; i++)
    if (slice_eqz(str_slice(&key), b->aims[i].key))
      return &b->aims[i];
  mem_reserve(b->aims, b->aim_count, b->aim_cap);
  b->aims[b->aim_count] = (struct aim){str_take(&key), 0};
  return &b->aims[b->aim_count++];
}

/* What this node shall have of one bound, from what all living nodes want. */
static int64_t target_now(const struct st_bound_exchange_ret *ret, size_t row, int64_t most,
                          struct arena *mem) {
  int64_t *want = arena_array(mem, ret->wish_count + 1, sizeof *want);
  struct share_ask ask = {.bound = most, .want = want, .turn = (uint64_t)(ret->now / TURN)};
  size_t me = SIZE_MAX;
  for (size_t i = 0; i < ret->wish_count; i++) {
    if (ret->wishes[i].row != row)
      continue;
    if (ret->wishes[i].mine)
      me = ask.count;
    want[ask.count++] = ret->wishes[i].want;
  }
  return me == SIZE_MAX ? 0 : share_target(&ask, me); /* not there: this node's lease has just passed */
}

static int exchange(struct run_bounds *b, const struct here *h, int64_t incarnation, struct err *e) {
  auto_arena mem = {0};
  struct bound_row *rows = arena_array(&mem, h->count, sizeof *rows);
  struct st_bound_exchange in = {.node = slice_of(b->o.node_id),
                                 .incarnation = incarnation,
                                 .adopted = h->adopted,
                                 .rows = rows,
                                 .count = h->count};
  for (size_t i = 0; i < h->count; i++) {
    const struct live_need *n = &h->needs[i];
    int64_t more = aim_of(b, n)->part - n->part;
    rows[i] = (struct bound_row){.ns = slice_of(n->ns),
                                 .group = n->group ? slice_of(n->group) : (struct slice){0},
                                 .most = n->most,
                                 .part = n->part,
                                 .want = n->want,
                                 .take = more > 0 ? more : 0};
  }
  struct st_bound_exchange_ret ret;
  b->said = true; /* also when the answer is lost */
  int rc = store_bound_exchange(b->o.store, &in, &ret, &mem, e);
  if (rc < 0)
    return rc;
  struct run_service *s = b->o.runs;
  for (size_t i = 0; i < h->count; i++)
    aim_of(b, &h->needs[i])->part = target_now(&ret, i, h->needs[i].most, &mem);
  mutex_lock(&s->lock);
  for (size_t i = 0; i < h->count; i++)
    live_part(s->live, &h->needs[i], ret.given[i], aim_of(b, &h->needs[i])->part);
  mutex_unlock(&s->lock);
  run_wake_writer(s);
  return 0;
}

/* Somebody here waits for a place, and more is to come. */
static bool is_hungry(struct run_bounds *b, const struct here *h) {
  for (size_t i = 0; i < h->count; i++)
    if (h->needs[i].want > h->needs[i].part || aim_of(b, &h->needs[i])->part > h->needs[i].part)
      return true;
  return false;
}

/* Alone a node has all of each bound, and asks nobody; from the first other one that it has seen it shares, for ever. */
static int look(struct run_bounds *b, const struct here *h, struct err *e) {
  struct others others = {0};
  int rc = look_around(b, &others, e);
  if (rc < 0)
    return rc;
  if (!others.any && !b->said) { /* until it has all runs it does not know how many there are */
    if (h->shared && h->owned == b->o.runs->o.shard_count)
      share(b->o.runs, false, h->owned);
    return 0;
  }
  share(b->o.runs, true, h->owned);
  return others.incarnation ? exchange(b, h, others.incarnation, e) : 0;
}

static void bounds_main(void *arg) {
  struct run_bounds *b = arg;
  for (bool stop = false; !stop;) {
    struct err e = {0};
    struct here h = look_here(b->o.runs);
    bool alone = !h.shared && !h.bounded; /* there is nothing to share */
    int rc = alone ? 0 : look(b, &h, &e);
    if (rc < 0 && !b->told)
      log_warn("parts of bounds not exchanged with other nodes, trying again", LF_E(&e));
    b->told = rc < 0;
    usec_t wait = h.shared && rc >= 0 && (is_hungry(b, &h) || !b->said) ? b->o.hurry : b->o.period;
    live_needs_free(h.needs, h.count);
    usec_t until = clock_system.mono(&clock_system) + wait;
    mutex_lock(&b->lock);
    while (!b->stopping && clock_system.mono(&clock_system) < until)
      (void)cond_wait(&b->wake, &b->lock, until - clock_system.mono(&clock_system));
    stop = b->stopping;
    mutex_unlock(&b->lock);
  }
}

int run_bounds_start(struct run_bounds *b, struct err *e) {
  return thread_start(&b->thread, "bounds", bounds_main, b, e);
}

void run_bounds_stop(struct run_bounds *b) {
  mutex_lock(&b->lock);
  b->stopping = true;
  cond_broadcast(&b->wake);
  mutex_unlock(&b->lock);
  if (b->thread.running)
    thread_join(&b->thread);
}

void run_bounds_free(struct run_bounds **p) {
  struct run_bounds *b = *p;
  if (!b)
    return;
  run_bounds_stop(b);
  for (size_t i = 0; i < b->aim_count; i++)
    mem_free(b->aims[i].key);
  mem_free(b->aims);
  mutex_done(&b->lock);
  cond_done(&b->wake);
  mem_free(b);
  *p = NULL;
}
