#include "cluster/internal.h"

int cluster_nodes(struct cluster *c, struct cluster_nodes *ret, struct arena *mem, struct err *e) {
  int rc = store_node_list(c->o.api, &(struct st_node_list){0}, &ret->nodes, mem, e);
  return rc < 0 ? rc : store_shard_list(c->o.api, &(struct st_shard_list){0}, &ret->shards, mem, e);
}

bool cluster_owns(const struct node_row *n, const struct shard_row *s) {
  return s->incarnation == n->incarnation && s->owner.n && slice_eq(s->owner, n->id);
}

const char *const node_state_names[] = {"ACTIVE",  "SLOW",    "CLOCK", "DRAINING",
                                        "DRAINED", "LEAVING", "DEAD",  NULL};

enum node_state cluster_node_state(const struct node_row *n, usec_t now, size_t shards) {
  static const enum node_state of[] = {[SHARE_NONE] = NODE_LEAVING,
                                       [SHARE_LAST] = NODE_CLOCK,
                                       [SHARE_KEEP] = NODE_SLOW,
                                       [SHARE_FULL] = NODE_ACTIVE};
  if (n->lease_until <= now)
    return NODE_DEAD;
  if (n->drained)
    return shards ? NODE_DRAINING : NODE_DRAINED;
  return n->share < SHARE_MAX_ ? of[n->share] : NODE_ACTIVE;
}

int cluster_drain(struct cluster *c, struct slice node, bool drained, struct err *e) {
  auto_arena mem = {0};
  struct st_node_drain_ret none;
  int rc = store_node_drain(c->o.api, &(struct st_node_drain){node, drained}, &none, &mem, e);
  if (rc >= 0)
    cluster_look(c);
  return rc;
}

int64_t cluster_forget(struct cluster *c, usec_t age, struct err *e) {
  auto_arena mem = {0};
  struct st_node_forget_ret ret = {0};
  int rc = store_node_forget(c->o.api, &(struct st_node_forget){age}, &ret, &mem, e);
  return rc < 0 ? rc : ret.removed;
}
