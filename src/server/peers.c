#include "server/parts.h"
#include "base/log.h"
#include "base/mem.h"

/* How nodes reach each other: the directory, the peer link, and what they bring each other. With an embedded database there is one node. */

static bool alone(const struct server *s) { return s->inbox_store == NULL; }

void server_seen(void *arg, const struct st_node_list_ret *nodes, const struct st_shard_list_ret *shards) {
  struct server *s = arg;
  if (s->directory)
    directory_update(s->directory, nodes, shards);
}

/* ---------------------------------------------------------------- this node's own address */

const char *server_address_trouble(struct server *s) {
  static const char *const nowhere[] = {"0.0.0.0:", "[::]:", "*:", ":"};
  const char *address = conf_str(s->conf, "node.address"), *host;
  if (!s->directory)
    return NULL;
  if (!*address)
    address = conf_str(s->conf, "http.listen");
  host = strstr(address, "://");
  host = host ? host + 3 : address;
  for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++)
    if (strncmp(host, nowhere[i], strlen(nowhere[i])) == 0)
      return "it names no host";
  const char *colon = strrchr(host, ':');
  return colon && strcmp(colon, ":0") == 0 ? "its port is 0" : NULL;
}

static usec_t now(void *arg) { return cluster_now(((struct server *)arg)->cluster); }

int server_peers_new(struct server *s, struct err *e) {
  peers_metrics();
  if (s->api_store->ops->caps & STORE_CAP_SINGLE_NODE)
    return 0;
  struct peers_options o;
  peers_options_default(&o);
  s->directory = directory_new(s->node_id, cluster_shard_count(s->cluster));
  o.loop = s->loop;
  o.directory = s->directory;
  o.node_id = s->node_id;
  memcpy(o.key, s->key, sizeof o.key);
  o.now = now;
  o.arg = s;
  o.timeout = conf_usec(s->conf, "peer.timeout");
  o.connections = (int)conf_int(s->conf, "peer.connections");
  o.waiting = (int)conf_int(s->conf, "peer.waiting");
  const char *ca = conf_str(s->conf, "peer.ca_file");
  o.ca_file = *ca ? ca : NULL;
  const char *trouble = server_address_trouble(s);
  if (trouble)
    log_warn(
        "other nodes cannot reach this one: set node.address; what they have for it goes by the database",
        LF_S("why", trouble));
  return peers_new(&o, &s->peers, e);
}

/* ---------------------------------------------------------------- reports and cancels */

static int owner(void *arg, int32_t shard) {
  return directory_owner(((struct server *)arg)->directory, shard);
}

struct errand {
  void (*done)(void *arg, const json_t *answer);
  void *arg;
};

static void answered(void *arg, const struct peer_answer *a) {
  struct errand *x = arg;
  x->done(x->arg, a->outcome == PEER_ANSWERED ? a->body : NULL);
  mem_free(x);
}

static bool ask(void *arg, const struct forward_ask *ask) {
  struct errand *x = mem_alloc(sizeof *x);
  *x = (struct errand){ask->done, ask->arg};
  bool asked = peers_ask(((struct server *)arg)->peers,
                         &(struct peer_ask){ask->node, PEER_EVENTS, ask->body, answered, x});
  if (!asked)
    mem_free(x);
  return asked;
}

static void reply(void *arg, struct slice answer) { peer_reply(arg, answer); }

static int take_events(void *arg, struct peer_request *r, const json_t *body, struct err *e) {
  return forward_take(((struct server *)arg)->forward, body, reply, r, e);
}

int server_forward_new(struct server *s, struct err *e) {
  struct forward_options o;
  forward_options_default(&o);
  o.runs = s->runs;
  o.shard_count = cluster_shard_count(s->cluster);
  o.waiting_bytes = (size_t)conf_bytes(s->conf, "peer.buffer");
  if (s->peers) {
    int rc = server_session(s, STORE_API, &s->inbox_store, e);
    if (rc < 0)
      return rc;
    o.store = s->inbox_store;
    o.hooks = (struct forward_hooks){owner, ask, s};
    peers_handle(s->peers, PEER_EVENTS, &(struct peer_handler){take_events, s});
  }
  s->forward = forward_new(&o);
  return 0;
}

int server_peer(void *arg, struct http_request *r, struct err *e) {
  struct server *s = arg;
  if (alone(s))
    return err_field(e, ERR_UNAVAILABLE, "!", "this node has no other nodes");
  return peers_http(s->peers, r, e);
}

int server_cancel(void *arg, const struct run_key *key, struct err *e) {
  return forward_cancel(((struct server *)arg)->forward, key, e);
}
