#include "cluster/directory.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"

static const usec_t RESOLVE_AGAIN = 5 * USEC_PER_SEC;

struct node {                    /* of one number; numbers of nodes that are gone are given out again */
  char id[DIRECTORY_ID_MAX + 1]; /* empty: free */
  char *address;
  struct target *target;
  char why[256]; /* why there is none */
  bool alive, resolve;
  usec_t resolve_at; /* monotonic */
};
struct directory {
  char self[DIRECTORY_ID_MAX + 1];
  int32_t shard_count;
  _Atomic int *owners; /* by shard */
  struct mutex lock;   /* guards all below */
  struct cond wake;
  bool closed;
  struct node nodes[DIRECTORY_NODES_MAX + 1]; /* [0] is nobody */
};

static usec_t mono(void) { return clock_system.mono(&clock_system); }

struct directory *directory_new(const char *node_id, int32_t shard_count) {
  struct directory *d = mem_zalloc(sizeof *d);
  (void)text_copy(d->self, sizeof d->self, slice_of(node_id)); /* the setting is no longer */
  d->shard_count = shard_count;
  d->owners = mem_array((size_t)shard_count, sizeof *d->owners);
  mutex_init(&d->lock);
  cond_init(&d->wake);
  return d;
}

void directory_close(struct directory *d) {
  mutex_lock(&d->lock);
  d->closed = true;
  cond_broadcast(&d->wake);
  mutex_unlock(&d->lock);
}

static void forget(struct node *n) {
  mem_free(n->address);
  target_unref(&n->target);
  *n = (struct node){0};
}

void directory_free(struct directory **p) {
  struct directory *d = *p;
  if (!d)
    return;
  for (int i = 1; i <= DIRECTORY_NODES_MAX; i++)
    forget(&d->nodes[i]);
  mutex_done(&d->lock);
  cond_done(&d->wake);
  mem_free(d->owners);
  mem_free(d);
  *p = NULL;
}

/* ---------------------------------------------------------------- what the database says */

static int number_of(const struct directory *d, struct slice id) {
  for (int i = 1; i <= DIRECTORY_NODES_MAX; i++)
    if (d->nodes[i].id[0] && slice_eqz(id, d->nodes[i].id))
      return i;
  return 0;
}

static int new_number(struct directory *d, struct slice id) {
  for (int i = 1; i <= DIRECTORY_NODES_MAX; i++)
    if (!d->nodes[i].id[0] && text_copy(d->nodes[i].id, sizeof d->nodes[i].id, id) == 0)
      return i;
  return 0; /* more than so many nodes: what is theirs goes by the inbox */
}

static void take_node(struct directory *d, const struct node_row *row) {
  int i = number_of(d, row->id);
  if (!i && !(i = new_number(d, row->id)))
    return;
  struct node *n = &d->nodes[i];
  n->alive = true;
  if (n->address && slice_eqz(row->address, n->address))
    return;
  mem_free(n->address);
  n->address = mem_slicedup(row->address);
  n->resolve = true;
  n->resolve_at = 0;
  cond_signal(&d->wake);
}

void directory_update(struct directory *d, const struct st_node_list_ret *nodes,
                      const struct st_shard_list_ret *shards) {
  mutex_lock(&d->lock);
  for (int i = 1; i <= DIRECTORY_NODES_MAX; i++)
    d->nodes[i].alive = false;
  for (size_t i = 0; i < nodes->count; i++)
    if (nodes->nodes[i].lease_until > nodes->now && !slice_eqz(nodes->nodes[i].id, d->self))
      take_node(d, &nodes->nodes[i]);
  for (size_t i = 0; i < shards->count; i++) {
    const struct shard_row *s = &shards->shards[i];
    int number = s->owner.n ? number_of(d, s->owner) : 0;
    if (s->id >= 0 && s->id < d->shard_count)
      atomic_store_explicit(&d->owners[s->id], number && d->nodes[number].alive ? number : 0,
                            memory_order_relaxed);
  }
  for (int i = 1; i <= DIRECTORY_NODES_MAX; i++)
    if (d->nodes[i].id[0] && !d->nodes[i].alive)
      forget(&d->nodes[i]);
  mutex_unlock(&d->lock);
}

/* ---------------------------------------------------------------- questions */

int directory_owner(const struct directory *d, int32_t shard) {
  return shard >= 0 && shard < d->shard_count ? atomic_load_explicit(&d->owners[shard], memory_order_relaxed)
                                              : 0;
}

struct target *directory_target(struct directory *d, int number, char ret_id[DIRECTORY_ID_MAX + 1],
                                char ret_why[256]) {
  struct target *t = NULL;
  mutex_lock(&d->lock);
  struct node *n = &d->nodes[number];
  (void)text_copy(ret_id, DIRECTORY_ID_MAX + 1, slice_of(n->id)); /* as long */
  if (n->target)
    t = target_ref(n->target);
  else if (ret_why)
    (void)text_copy(ret_why, 256, slice_of(n->why[0] ? n->why : "its address is not resolved yet"));
  mutex_unlock(&d->lock);
  return t;
}

size_t directory_nodes(struct directory *d, int *ret_numbers, size_t max) {
  size_t n = 0;
  mutex_lock(&d->lock);
  for (int i = 1; i <= DIRECTORY_NODES_MAX && n < max; i++)
    if (d->nodes[i].id[0])
      ret_numbers[n++] = i;
  mutex_unlock(&d->lock);
  return n;
}

void directory_unreached(struct directory *d, int number) {
  mutex_lock(&d->lock);
  struct node *n = &d->nodes[number];
  if (n->id[0] && !n->resolve) {
    n->resolve = true;
    n->resolve_at = mono() + RESOLVE_AGAIN;
    cond_signal(&d->wake);
  }
  mutex_unlock(&d->lock);
}

/* ---------------------------------------------------------------- addresses */

/* The number of a node whose address is to be resolved now, else 0 and for how long there is none. */
static int next_to_resolve(struct directory *d, usec_t *ret_wait) {
  usec_t now = mono();
  *ret_wait = USEC_NEVER;
  for (int i = 1; i <= DIRECTORY_NODES_MAX; i++) {
    struct node *n = &d->nodes[i];
    if (!n->id[0] || !n->resolve)
      continue;
    if (n->resolve_at <= now)
      return i;
    *ret_wait = n->resolve_at - now < *ret_wait ? n->resolve_at - now : *ret_wait;
  }
  return 0;
}

/* "host:port" is http. */
static int parse_address(const char *address, struct target **ret, struct err *e) {
  auto_str url;
  str_init(&url, 1024);
  str_addf(&url, "%s%s", strstr(address, "://") ? "" : "http://", address);
  if (str_failed(&url))
    return err_set(e, ERR_INVALID, "the address is too long");
  return target_parse(str_slice(&url), NULL, ret, e);
}

int directory_resolve(struct directory *d) {
  usec_t wait;
  int number = 0;
  mutex_lock(&d->lock);
  while (!d->closed && !(number = next_to_resolve(d, &wait)))
    (void)cond_wait(&d->wake, &d->lock, wait);
  if (d->closed) {
    mutex_unlock(&d->lock);
    return 0;
  }
  auto_free char *address = mem_strdup(d->nodes[number].address), *id = mem_strdup(d->nodes[number].id);
  mutex_unlock(&d->lock);
  struct target *t = NULL;
  struct err e = {0};
  int rc = parse_address(address, &t, &e);
  mutex_lock(&d->lock);
  struct node *n = &d->nodes[number];
  bool same = strcmp(n->id, id) == 0 && strcmp(n->address, address) == 0, told = n->why[0];
  if (same) {
    n->resolve = rc < 0;
    n->resolve_at = mono() + RESOLVE_AGAIN;
    (void)text_copy(n->why, sizeof n->why, slice_of(rc < 0 ? e.text : "")); /* a part of it will do */
    struct target *old = n->target;
    if (rc >= 0) {
      n->target = t;
      t = old;
    }
  }
  mutex_unlock(&d->lock);
  if (same && rc < 0 && !told)
    log_error("the address of another node cannot be used; what is meant for it goes by the database. Set "
              "node.address there",
              LF_S("node", id), LF_S("address", address), LF_E(&e));
  target_unref(&t);
  return number;
}
