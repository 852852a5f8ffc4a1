/* /api/v1/nodes */
#include "api/internal.h"
#include "cluster/cluster.h"

static json_t *node_json(const struct cluster_nodes *all, const struct node_row *n) {
  json_t *o = json_object(), *ids = json_array();
  for (size_t i = 0; i < all->shards.count; i++)
    if (cluster_owns(n, &all->shards.shards[i]))
      (void)json_array_append_new(ids,
                                  json_integer(all->shards.shards[i].id)); /* fails only without memory */
  size_t owned = json_array_size(ids);
  put_text(o, "id", n->id);
  put(o, "state", json_string(node_state_names[cluster_node_state(n, all->nodes.now, owned)]));
  put(o, "drained", json_boolean(n->drained));
  put(o, "shards", json_integer((json_int_t)owned));
  put(o, "shard_ids", ids);
  put_id(o, "incarnation", n->incarnation);
  put_text(o, "address", n->address);
  put_text(o, "version", n->version);
  put_text(o, "tzdata", n->tzdata);
  put_time(o, "started_at", n->started_at);
  put_time(o, "lease_until", n->lease_until);
  put(o, "clock_offset_seconds", json_real((double)n->clock_offset / (double)USEC_PER_SEC));
  return o;
}

static int all_nodes(struct call *c, struct cluster_nodes *ret) {
  if (!c->api->o.cluster)
    return err_field(&c->e, ERR_UNAVAILABLE, "!", "this server has no cluster");
  return cluster_nodes(c->api->o.cluster, ret, &c->mem, &c->e);
}

int on_nodes_list(struct call *c) {
  struct cluster_nodes all;
  int r = all_nodes(c, &all);
  if (r < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; i < all.nodes.count; i++)
    (void)json_array_append_new(items, node_json(&all, &all.nodes.nodes[i])); /* fails only without memory */
  return call_list(c, items, NULL);
}

int on_nodes_get(struct call *c) {
  struct cluster_nodes all;
  int r = all_nodes(c, &all);
  for (size_t i = 0; r >= 0 && i < all.nodes.count; i++)
    if (slice_eq(all.nodes.nodes[i].id, c->param[0]))
      return call_json(c, 200, node_json(&all, &all.nodes.nodes[i]));
  return r < 0 ? r : err_set(&c->e, ERR_NOT_FOUND, "there is no such node");
}

static int set_drained(struct call *c, bool drained) {
  if (!c->api->o.cluster)
    return err_field(&c->e, ERR_UNAVAILABLE, "!", "this server has no cluster");
  int r = cluster_drain(c->api->o.cluster, c->param[0], drained, &c->e);
  return r < 0 ? r : on_nodes_get(c);
}

int on_nodes_drain(struct call *c) { return set_drained(c, true); }

int on_nodes_resume(struct call *c) { return set_drained(c, false); }
