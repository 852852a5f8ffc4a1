#include "server/parts.h"
#include "server/doctor.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metric_group.h"
#include <sys/stat.h>

static usec_t db_now(void *arg) {
  struct server *s = arg;
  return cluster_now(s->cluster);
}

/* What is signed, and what expires, is so by the clock that all nodes share. */
static usec_t db_wall(const struct clock *c) {
  const struct server *s = (const void *)((const char *)c - offsetof(struct server, clock));
  return cluster_now(s->cluster);
}

/* ---------------------------------------------------------------- wires between the rooms */

static void on_deliver(void *arg, struct run_job *jobs) {
  dispatcher_deliver(((struct server *)arg)->dispatcher, jobs);
}
static void on_cancel(void *arg, const struct live_cancel *c, int64_t fence) {
  dispatcher_cancel(((struct server *)arg)->dispatcher, c, fence);
}
static void on_release(void *arg, void *slot) {
  dispatcher_release(((struct server *)arg)->dispatcher, slot);
}
static void on_delay_ended(void *arg, const struct progress_row *p) {
  engine_delay_ended(((struct server *)arg)->engine, p);
}
static void on_parents_ended(void *arg) { engine_parents_ended(((struct server *)arg)->engine); }
static void on_fenced(void *arg, int32_t shard, int64_t epoch) {
  cluster_fenced(((struct server *)arg)->cluster, shard, epoch);
}
static void on_owned(void *arg, const struct shard_row *row) {
  run_expect(((struct server *)arg)->runs, row->id);
  engine_own(((struct server *)arg)->engine, row);
}
static void on_shard_lost(void *arg, int32_t shard, int64_t epoch) {
  run_fenced(((struct server *)arg)->runs, shard, epoch);
  engine_disown(((struct server *)arg)->engine, shard, epoch);
}
static void on_hand_over(void *arg, int32_t shard, int64_t epoch) {
  engine_hand_over(((struct server *)arg)->engine, shard, epoch);
}
static void on_handed_over(void *arg, int32_t shard, int64_t epoch) {
  cluster_handed_over(((struct server *)arg)->cluster, shard, epoch);
}
static void on_nodes_changed(void *arg) { cluster_look(((struct server *)arg)->cluster); }
static void on_group_bounds(void *arg, struct slice ns, struct slice group, const struct group_bounds *b) {
  struct live_bound bound = {.max_concurrent = b->max_concurrent, .rate = (double)b->rate_milli / 1000};
  if (b->rate_milli)
    bound.burst = b->rate_burst ? b->rate_burst : bound.rate > 1 ? bound.rate : 1;
  (void)metric_group(ns, group); /* its series are there from now on */
  run_bound(((struct server *)arg)->runs, ns, group, &bound);
}
static void on_namespace_bound(void *arg, struct slice ns, int32_t max_concurrent) {
  run_bound(((struct server *)arg)->runs, ns, (struct slice){0},
            &(struct live_bound){.max_concurrent = max_concurrent});
}
static void on_changed(void *arg, int32_t shard) { engine_changed(((struct server *)arg)->engine, shard); }
static void on_executor_lost(void *arg, struct slice ns, struct slice group, struct slice id,
                             int64_t incarnation) {
  struct server *s = arg;
  log_warn("executor lost", LF_L("namespace", ns), LF_L("group", group), LF_L("executor", id),
           LF_I("incarnation", incarnation));
  if (run_executor_lost(s->runs, ns, group, id, incarnation) < 0)
    log_error("runs of a lost executor not told, their time-outs will end them", LF_L("executor", id));
}
static void on_capacity(void *arg, struct slice ns, struct slice group) {
  dispatcher_capacity(((struct server *)arg)->dispatcher, ns, group);
}
static void *on_adopted(void *arg, const struct task_spec *spec, struct slice executor, int64_t incarnation) {
  struct instance *i = NULL;
  struct server *s = arg;
  if (registry_adopt(s->registry, slice_of(spec->ns), slice_of(spec->group), executor, &i) < 0)
    return NULL;
  if (incarnation && i->incarnation > incarnation)
    registry_release(s->registry, &i);
  return i;
}
static bool may_fire(void *arg) { return cluster_lease_valid(((struct server *)arg)->cluster); }

bool server_ready(struct server *s, struct str *why) {
  const char *missing = NULL;
  struct cluster_state st;
  cluster_state(s->cluster, &st);
  if (!cluster_renewed(s->cluster))
    missing = "the lease is not renewed: the database does not answer";
  else if (!engine_ready(s->engine) || (!cluster_owned(s->cluster) && !st.settled))
    missing = "shards are being loaded";
  else if (engine_failing(s->engine))
    missing = "the database takes no fires";
  else if (run_failing(s->runs))
    missing = "the database takes no changes of runs";
  else if (st.skewed && st.alive > 1)
    missing = "the clock is past node.max_clock_skew: other nodes have the shards";
  if (missing && why)
    str_addz(why, missing);
  return !missing;
}

static json_t *on_doctor(void *arg, bool zh, const char **ret_level) {
  struct doctor d = {.zh = zh};
  doctor_ask(&d, arg);
  *ret_level = doctor_level_names[d.worst];
  return d.items;
}
static bool api_ready(void *arg, struct str *why) { return server_ready(arg, why); }
static int on_claim(void *arg, struct http_request *r, const struct access_identity *who, struct err *e) {
  return claims_http(((struct server *)arg)->claims, r, who, e);
}
static int on_report(void *arg, struct http_request *r, const struct access_identity *who, struct err *e) {
  return intake_http(((struct server *)arg)->intake, r, who, e);
}

/* ---------------------------------------------------------------- the parts, in the order in which they need each other */

static int start_state(struct server *s, struct err *e) {
  const char *dir = conf_str(s->conf, "node.state_dir");
  if (mkdir(dir, 0700) < 0 && errno != EEXIST)
    return err_field(e, -errno, "node.state_dir", "folder %s cannot be made: %s", dir, strerror(errno));
  s->state_dir = dir;
  int rc = server_node_id(s, e);
  if (rc < 0)
    return rc;
  log_node(s->node_id);
  metric_groups_bound((int)conf_int(s->conf, "metrics.groups"));
  char *path = arena_printf(&s->mem, "%s/secret.key", dir);
  return crypto_key_file(path, true, s->key, e);
}

static int start_store(struct server *s, struct err *e) {
  struct store_options o = {.url = conf_str(s->conf, "store.url"),
                            .shard_count = (int)conf_int(s->conf, "store.shards"),
                            .statement_timeout = conf_usec(s->conf, "store.statement_timeout"),
                            .idle_tx_timeout = conf_usec(s->conf, "node.lease_ttl") / 3,
                            .lease_timeout = conf_usec(s->conf, "node.lease_ttl"),
                            .clock = &clock_system};
  int rc = store_source_open(&o, &s->source, e);
  if (rc < 0)
    return e->field[0] ? rc : err_at(e, "store.url");
  rc = store_pool(s->source, STORE_API, (int)conf_int(s->conf, "store.pool"),
                  conf_usec(s->conf, "store.pool_wait"), &s->api_store, e);
  if (rc >= 0)
    s->api_store = store_trace(s->api_store, conf_usec(s->conf, "store.slow"), &clock_system);
  return rc;
}

int server_session(struct server *s, enum store_role role, struct store **ret, struct err *e) {
  int rc = store_session(s->source, role, ret, e);
  if (rc >= 0)
    *ret = store_trace(*ret, conf_usec(s->conf, "store.slow"), &clock_system);
  return rc;
}

static int start_cluster(struct server *s, struct err *e) {
  const char *address = conf_str(s->conf, "node.address");
  struct cluster_options o = {.node_id = s->node_id,
                              .address = *address ? address : conf_str(s->conf, "http.listen"),
                              .version = s->version,
                              .tzdata = server_tzdata(s->conf, &s->mem),
                              .lease_ttl = conf_usec(s->conf, "node.lease_ttl"),
                              .max_clock_skew = conf_usec(s->conf, "node.max_clock_skew"),
                              .api = s->api_store,
                              .hooks = {.owned = on_owned,
                                        .lost = on_shard_lost,
                                        .hand_over = on_hand_over,
                                        .arg = s,
                                        .seen = server_seen}};
  s->clock = (struct clock){db_wall, clock_system.mono};
  int rc = server_session(s, STORE_LEASE, &o.store, e);
  return rc < 0 ? rc : cluster_new(&o, &s->cluster, e);
}

static int start_runs(struct server *s, struct err *e) {
  struct run_options o;
  run_options_default(&o);
  int rc = server_session(s, STORE_FINISH, &o.finish, e);
  if (rc < 0)
    return rc;
  o.api = s->api_store;
  o.now = db_now;
  o.now_arg = s;
  o.shard_count = cluster_shard_count(s->cluster);
  o.several = !(s->api_store->ops->caps & STORE_CAP_SINGLE_NODE);
  o.queue_max = (size_t)conf_int(s->conf, "run.queue");
  o.batch_max = (size_t)conf_int(s->conf, "run.batch");
  o.limits.write_running_after = conf_usec(s->conf, "run.write_running_after");
  crypto_random(&o.seed, sizeof o.seed);
  o.hooks = (struct run_hooks){on_deliver, on_cancel, on_release,       on_delay_ended, on_fenced,
                               on_adopted, s,         on_parents_ended, on_handed_over};
  rc = run_service_new(&o, &s->runs, e);
  if (rc < 0 || !o.several)
    return rc;
  struct run_bounds_options bo;
  run_bounds_options_default(&bo);
  bo.runs = s->runs;
  bo.store = s->api_store;
  bo.node_id = s->node_id;
  s->bounds = run_bounds_new(&bo);
  return 0;
}

static int start_engine(struct server *s, struct err *e) {
  struct engine_options o;
  engine_options_default(&o);
  int rc = server_session(s, STORE_FIRE, &o.fire, e);
  if (rc < 0)
    return rc;
  if (o.fire->ops->caps & STORE_CAP_NOTIFY) {
    rc = store_session(s->source, STORE_LISTEN, &o.listen, e);
    if (rc < 0) {
      store_close(&o.fire);
      return rc;
    }
  }
  o.api = s->api_store;
  o.runs = s->runs;
  o.zones = zones_open(conf_str(s->conf, "trigger.zone_dir"));
  o.now = db_now;
  o.may_fire = may_fire;
  o.fenced = on_fenced;
  o.nodes_changed = on_nodes_changed;
  o.arg = s;
  o.shard_count = cluster_shard_count(s->cluster);
  o.poll = conf_usec(s->conf, "trigger.poll");
  o.zone_poll = conf_usec(s->conf, "trigger.zone_poll");
  o.fire_rows = o.limits.max_rows = (size_t)conf_int(s->conf, "trigger.fire_rows");
  o.limits.idle_advance = conf_usec(s->conf, "trigger.idle_advance");
  return engine_new(&o, &s->engine, e);
}

static int read_networks(struct server *s, const char *setting, struct network_list **ret, struct err *e) {
  auto_str nets;
  str_init(&nets, 8192);
  for (const char *const *n = conf_list(s->conf, setting); *n; n++)
    str_addf(&nets, "%s%s", nets.n ? "," : "", *n);
  int r = network_list_parse(str_slice(&nets), ret, e);
  if (r < 0)
    return err_at(e, setting);
  network_list_named(*ret, setting);
  return 0;
}

static int start_registry(struct server *s, struct err *e) {
  int rc = read_networks(s, "executor.allowed_networks", &s->networks, e);
  if (rc < 0)
    return rc;
  struct registry_options o;
  registry_options_default(&o);
  o.store = s->api_store;
  o.clock = &clock_system;
  o.allowed = s->networks;
  memcpy(o.key, s->key, sizeof o.key);
  o.lost_after = conf_usec(s->conf, "executor.lost_after");
  o.forget_after = conf_usec(s->conf, "executor.forget_after");
  o.refresh = conf_usec(s->conf, "executor.refresh");
  o.breaker.failures = (int32_t)conf_int(s->conf, "executor.breaker_failures");
  o.breaker.open_first = conf_usec(s->conf, "executor.breaker_open_first");
  o.breaker.open_most = conf_usec(s->conf, "executor.breaker_open_most");
  rc = registry_new(&o, &s->registry, e);
  if (rc >= 0)
    registry_hook(s->registry, &(struct registry_hooks){on_executor_lost, on_capacity, on_group_bounds, s});
  return rc;
}

static int start_dispatch(struct server *s, const struct server_options *so, struct err *e) {
  struct dispatch_options o;
  dispatch_options_default(&o);
  o.runs = s->runs;
  o.registry = s->registry;
  o.store = s->api_store;
  o.now = db_now;
  o.may_send = may_fire;
  o.now_arg = s;
  o.text_cache_bytes = (size_t)conf_bytes(s->conf, "dispatch.text_cache");
  o.ack_timeout = conf_usec(s->conf, "dispatch.ack_timeout");
  o.retry_first = conf_usec(s->conf, "dispatch.retry_first");
  o.retry_most = conf_usec(s->conf, "dispatch.retry_most");
  int rc = dispatcher_new(&o, &s->dispatcher, e);
  if (rc < 0)
    return rc;
  if (so->channel) {
    struct dispatch_channel c = so->channel(so->channel_arg, s->dispatcher);
    dispatcher_channel(s->dispatcher, &c);
    return 0;
  }
  struct http_client_options ho;
  http_client_options_default(&ho);
  ho.max_connections_per_target = (int)conf_int(s->conf, "dispatch.connections");
  ho.max_waiting_per_target = (int)conf_int(s->conf, "dispatch.waiting");
  ho.connect_timeout = conf_usec(s->conf, "dispatch.connect_timeout");
  const char *ca = conf_str(s->conf, "dispatch.ca_file");
  ho.ca_file = *ca ? ca : NULL;
  rc = http_client_new(s->loop, &ho, &s->client, e);
  if (rc < 0)
    return rc;
  struct http_channel_options co;
  http_channel_options_default(&co);
  co.client = s->client;
  co.registry = s->registry;
  co.clock = &s->clock;
  s->http_channel = http_channel_new(&co, s->dispatcher);
  struct dispatch_channel c = http_channel_ops(s->http_channel);
  dispatcher_channel(s->dispatcher, &c);
  return 0;
}

/* On a session of its own: nobody waits for what runs log, and they wait for nobody. */
static int start_logs(struct server *s, struct err *e) {
  struct logs_options o;
  logs_options_default(&o);
  int rc = server_session(s, STORE_API, &o.write, e);
  if (rc < 0)
    return rc;
  o.read = s->api_store;
  o.max_lines = conf_int(s->conf, "report.log_max_lines");
  o.max_bytes = conf_bytes(s->conf, "report.log_max_bytes");
  o.queue_bytes = (size_t)conf_bytes(s->conf, "report.log_queue");
  s->logs = logs_new(&o);
  return 0;
}

static int start_services(struct server *s, struct err *e) {
  struct access_options ao;
  access_options_default(&ao);
  ao.store = s->api_store;
  ao.state_dir = s->state_dir;
  ao.clock = &s->clock;
  ao.on_bound = on_namespace_bound;
  ao.arg = s;
  s->access = access_new(&ao);
  int rc = access_bootstrap(s->access, e);
  if (rc < 0)
    return rc;
  struct task_service_options to = {.store = s->api_store,
                                    .zone_dir = conf_str(s->conf, "trigger.zone_dir"),
                                    .now = db_now,
                                    .now_arg = s,
                                    .backfill_max = conf_int(s->conf, "backfill.max_instants"),
                                    .dead_letter_max = conf_int(s->conf, "dead_letters.max_bulk")};
  crypto_random(&to.seed, sizeof to.seed);
  s->tasks = task_service_new(&to);
  task_service_on_change(s->tasks, on_changed, s);
  rc = start_logs(s, e);
  if (rc >= 0)
    rc = server_forward_new(s, e);
  if (rc < 0)
    return rc;
  struct intake_options io;
  intake_options_default(&io);
  io.forward = s->forward;
  io.logs = s->logs;
  io.max_line_bytes = (size_t)conf_bytes(s->conf, "report.log_max_line");
  io.max_reports = (size_t)conf_int(s->conf, "report.max_reports");
  io.max_result_bytes = (size_t)conf_bytes(s->conf, "report.max_result");
  s->intake = intake_new(&io);
  s->claims = claims_new(&(struct claims_options){s->forward, io.max_reports});
  return 0;
}

static int start_alerts(struct server *s, struct err *e) {
  int rc = read_networks(s, "alert.allowed_networks", &s->alert_networks, e);
  if (rc < 0)
    return rc;
  struct alerts_options o;
  alerts_options_default(&o);
  o.store = s->api_store;
  o.clock = &s->clock;
  o.loop = s->loop;
  o.allowed = s->alert_networks;
  o.now = db_now;
  o.now_arg = s;
  memcpy(o.key, s->key, sizeof o.key);
  const char *ca = conf_str(s->conf, "alert.ca_file");
  o.ca_file = *ca ? ca : NULL;
  o.poll = conf_usec(s->conf, "alert.poll");
  o.timeout = conf_usec(s->conf, "alert.timeout");
  o.retry_first = conf_usec(s->conf, "alert.retry_first");
  o.retry_most = conf_usec(s->conf, "alert.retry_most");
  o.retry_for = conf_usec(s->conf, "alert.retry_for");
  o.keep = conf_usec(s->conf, "alert.keep");
  o.in_flight = (int)conf_int(s->conf, "alert.in_flight");
  return alerts_new(&o, &s->alerts, e);
}

static int start_http(struct server *s, struct err *e) {
  struct api_options ao;
  api_options_default(&ao);
  ao.tasks = s->tasks;
  ao.cluster = s->cluster;
  ao.access = s->access;
  ao.registry = s->registry;
  ao.runs = s->runs;
  ao.logs = s->logs;
  ao.alerts = s->alerts;
  ao.version = s->version;
  ao.workers = (int)conf_int(s->conf, "api.workers");
  ao.queue_max = (size_t)conf_int(s->conf, "api.queue");
  ao.max_body_bytes = (size_t)conf_bytes(s->conf, "http.max_body");
  ao.idempotency_keep = conf_usec(s->conf, "api.idempotency_keep");
  ao.retention_age = conf_usec(s->conf, "retention.age");
  ao.metrics_public = conf_bool(s->conf, "api.metrics_public");
  ao.ready = api_ready;
  ao.report = on_report;
  ao.claim = on_claim;
  ao.peer = server_peer;
  ao.cancel = server_cancel;
  ao.doctor = on_doctor;
  ao.arg = s;
  int rc = api_new(&ao, &s->api, e);
  if (rc < 0)
    return rc;
  struct http_server_options ho;
  http_server_options_default(&ho);
  rc = server_split_address(conf_str(s->conf, "http.listen"), s->listen_address, &ho.port, e);
  ho.address = s->listen_address;
  ho.max_header_bytes = (size_t)conf_bytes(s->conf, "http.max_header");
  ho.max_body_bytes = ao.max_body_bytes;
  ho.max_connections = (int)conf_int(s->conf, "http.max_connections");
  ho.header_timeout = conf_usec(s->conf, "http.header_timeout");
  ho.body_timeout = conf_usec(s->conf, "http.body_timeout");
  ho.idle_timeout = conf_usec(s->conf, "http.idle_timeout");
  ho.write_timeout = conf_usec(s->conf, "http.write_timeout");
  ho.request_timeout = conf_usec(s->conf, "http.request_timeout");
  ho.max_headers = (size_t)conf_int(s->conf, "http.max_headers");
  ho.max_connections_per_address = (int)conf_int(s->conf, "http.max_connections_per_address");
  ho.max_requests_per_token = (int)conf_int(s->conf, "http.max_requests_per_token");
  ho.rate_per_address = conf_int(s->conf, "http.rate_per_address");
  ho.rate_per_token = conf_int(s->conf, "http.rate_per_token");
  ho.max_buffered_bytes = (size_t)conf_bytes(s->conf, "http.max_buffered");
  ho.handle = api_handle;
  ho.refusal = api_refusal;
  ho.arg = s->api;
  return rc < 0 ? rc : http_server_start(s->loop, &ho, &s->http, e);
}

static int start_threads(struct server *s, struct err *e) {
  int rc = run_service_start(s->runs, e);
  if (rc >= 0)
    rc = logs_start(s->logs, e);
  if (rc >= 0)
    rc = access_bounds_read(s->access, e); /* before anything starts, as the groups' in registry_start */
  if (rc >= 0)
    rc = registry_start(s->registry, e);
  if (rc >= 0)
    rc = dispatcher_start(s->dispatcher, e);
  if (rc >= 0)
    rc = engine_start(s->engine, e);
  if (rc >= 0)
    rc = forward_start(s->forward, e);
  if (rc >= 0 && s->peers)
    rc = peers_start(s->peers, e);
  if (rc >= 0)
    rc = cluster_start(s->cluster, e);
  if (rc >= 0 && s->bounds)
    rc = run_bounds_start(s->bounds, e);
  if (rc >= 0)
    rc = server_janitor_start(s, e);
  if (rc >= 0)
    rc = alerts_start(s->alerts, e);
  if (rc >= 0)
    monitor_gauges(s->runs, s->registry, s->version);
  return rc;
}

int server_start(const struct server_options *o, struct server **ret, struct err *e) {
  struct server *s = mem_zalloc(sizeof *s);
  s->conf = conf_ref(o->conf);
  s->version = o->version;
  int rc = server_raise_files(s, e);
  if (rc >= 0)
    rc = loop_new("io", &s->loop, e);
  if (rc >= 0)
    rc = loop_start(s->loop, e);
  if (rc >= 0)
    rc = start_state(s, e);
  if (rc >= 0)
    rc = start_store(s, e);
  if (rc >= 0)
    rc = start_cluster(s, e);
  if (rc >= 0)
    rc = server_peers_new(s, e);
  if (rc >= 0)
    rc = start_runs(s, e);
  if (rc >= 0)
    rc = start_engine(s, e);
  if (rc >= 0)
    rc = start_registry(s, e);
  if (rc >= 0)
    rc = start_dispatch(s, o, e);
  if (rc >= 0)
    rc = start_services(s, e);
  if (rc >= 0)
    rc = start_alerts(s, e);
  if (rc >= 0)
    rc = start_threads(s, e);
  if (rc >= 0)
    rc = start_http(s, e);
  if (rc >= 0)
    rc = server_write_port(s, e);
  if (rc < 0) {
    server_stop(&s);
    return rc;
  }
  log_info("ready to serve", LF_S("address", s->listen_address), LF_I("port", server_port(s)));
  *ret = s;
  return 0;
}

int server_port(const struct server *s) { return http_server_port(s->http); }

/* Backwards through the data's way: nothing new comes in, nothing new fires, what is known is written, then the lease goes. */
void server_stop(struct server **p) {
  struct server *s = *p;
  if (!s)
    return;
  usec_t grace = conf_usec(s->conf, "node.drain_grace");
  if (s->cluster && s->http) /* all of it runs: a shard that goes is not late elsewhere */
    cluster_hand_over_all(s->cluster, grace);
  if (s->bounds)
    run_bounds_stop(s->bounds);
  if (s->engine)
    engine_stop(s->engine);
  if (s->http)
    http_server_drain(&s->http, grace);
  if (s->api)
    api_free(&s->api);
  server_janitor_stop(s);
  if (s->alerts)
    alerts_stop(s->alerts);
  if (s->dispatcher)
    dispatcher_stop(s->dispatcher);
  if (s->client)
    http_client_free(&s->client);
  if (s->registry)
    registry_stop(s->registry);
  if (s->logs)
    logs_stop(s->logs);
  if (s->runs)
    run_service_stop(s->runs, grace);
  if (s->peers) /* after all who may have something for other nodes */
    peers_stop(s->peers);
  if (s->forward)
    forward_stop(s->forward);
  if (s->cluster)
    cluster_stop(s->cluster);
  server_free(p);
}
