#pragma once
/* Private to src/server: all rooms of one node. */
#include "access/access.h"
#include "api/api.h"
#include "base/metric.h"
#include "base/thread.h"
#include "cluster/cluster.h"
#include "cluster/directory.h"
#include "cluster/peer.h"
#include "dispatch/dispatcher.h"
#include "dispatch/http.h"
#include "executor/registry.h"
#include "monitor/alerts.h"
#include "monitor/gauges.h"
#include "net/crypto.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "report/claims.h"
#include "report/forward.h"
#include "report/intake.h"
#include "report/logs.h"
#include "run/bounds.h"
#include "run/retention.h"
#include "run/run.h"
#include "server/server.h"
#include "store/decorators.h"
#include "task/task.h"
#include "task/zones.h"
#include "trigger/engine.h"

struct server {
  struct conf *conf;
  const char *version, *state_dir;
  char node_id[65];
  char listen_address[64];
  uint8_t key[32];
  struct arena mem; /* texts that live as long as the server */
  struct loop *loop;
  struct store_source *source;
  struct store *api_store; /* pooled */
  struct cluster *cluster;
  struct clock clock;          /* its wall time is the database's, as the cluster has it */
  struct directory *directory; /* as is peers: NULL where there can be one node only */
  struct peers *peers;
  struct store *inbox_store; /* of forward */
  struct forward *forward;
  struct run_service *runs;
  struct run_bounds *bounds; /* NULL: the store has a single node */
  struct engine *engine;
  struct network_list *networks;
  struct registry *registry;
  struct dispatcher *dispatcher;
  struct http_client *client;
  struct http_channel *http_channel;
  struct access *access;
  struct task_service *tasks;
  struct logs *logs;
  struct intake *intake;
  struct claims *claims;
  struct network_list *alert_networks;
  struct alerts *alerts;
  struct api *api;
  struct http_server *http;
  /* janitor.c */
  struct thread janitor;
  struct mutex janitor_lock; /* guards janitor_stop */
  struct cond janitor_wake;
  bool janitor_made, janitor_stop;
  struct metric *inbox_oldest;
  struct retention *retention;
};
/* state.c: files of the state folder, addresses */
int server_node_id(struct server *s, struct err *e);
int server_write_port(struct server *s, struct err *e);
int server_split_address(const char *text, char ret_address[64], int *ret_port, struct err *e);
const char *server_tzdata(const struct conf *conf, struct arena *mem);
int server_session(struct server *s, enum store_role role, struct store **ret, struct err *e);
void server_free(struct server **s);
/* peers.c: how nodes reach each other */
int server_peers_new(struct server *s, struct err *e);   /* after the cluster */
int server_forward_new(struct server *s, struct err *e); /* after the run service */
/* Another node cannot reach this one: why not; NULL: nothing is wrong with its address, or there is one node only. */
const char *server_address_trouble(struct server *s);
int server_peer(void *arg, struct http_request *r, struct err *e);      /* api_options.peer */
int server_cancel(void *arg, const struct run_key *key, struct err *e); /* api_options.cancel */
void server_seen(void *arg, const struct st_node_list_ret *nodes, const struct st_shard_list_ret *shards);
/* files.c: enough file descriptors for all connections */
int server_raise_files(struct server *s, struct err *e);
/* janitor.c: regular upkeep of the database */
int server_janitor_start(struct server *s, struct err *e);
void server_janitor_stop(struct server *s);
