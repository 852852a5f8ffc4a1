/* kelou-bench: full lives a second, lateness, CPU and bytes per life, on one machine with its database. See README.md. */
#include "base/log.h"
#include "base/mem.h"
#include "inproc.h"
#include "measure.h"
#include "server/parts.h"
#include "server/settings.h"
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct bench {
  const char *store, *state_dir;
  int64_t tasks, rate, seconds, warmup;
  int database_pid;
  bool herd;
  struct server *server;
  struct inproc in;
};

enum { PUT = 1000 };

static int make_group(struct bench *b, struct err *e) {
  auto_arena mem = {0};
  char secret[REGISTRY_SECRET_MAX];
  struct group_row row;
  struct group_new g = {SLICE("default"), SLICE("bench"), CHANNEL_HTTP, ROUTING_ROUND_ROBIN, 16};
  int rc = registry_group_create(b->server->registry, &g, secret, &row, &mem, e);
  if (rc < 0 && rc != ERR_CONFLICT)
    return rc;
  struct slice handler = SLICE("*");
  struct executor_new x = {.weight = -1,
                           .ns = SLICE("default"),
                           .group = SLICE("bench"),
                           .id = SLICE("inproc"),
                           .url = SLICE("http://127.0.0.1:9"),
                           .handlers = &handler,
                           .handler_count = 1,
                           .slots = REGISTRY_SLOTS_MAX};
  struct executor_registered reg;
  return registry_register(b->server->registry, &x, &reg, e);
}

/* FIXED_RATE tasks whose instants are spread evenly; or ONE_TIME tasks that are all due at one instant. */
static int make_tasks(struct bench *b, usec_t start, struct err *e) {
  auto_arena mem = {0};
  usec_t every = b->tasks * USEC_PER_SEC / b->rate;
  const char *text =
      b->herd
          ? arena_printf(&mem, "{\"schedule\":{\"kind\":\"ONE_TIME\",\"run_at\":\"2199-01-01T00:00:00Z\"},"
                               "\"name\":\"x\",\"executor_group\":\"bench\",\"handler\":\"noop\"}")
          : arena_printf(&mem,
                         "{\"schedule\":{\"kind\":\"FIXED_RATE\",\"every\":\"%lldms\"},\"name\":\"x\","
                         "\"executor_group\":\"bench\",\"handler\":\"noop\",\"overlap_policy\":\"ALLOW\"}",
                         (long long)(every / 1000));
  auto_json *doc = NULL;
  struct zone_set *zones = zones_open("/usr/share/zoneinfo");
  struct task_input input;
  int rc = json_read(slice_of(text), 65536, &doc, e);
  if (rc >= 0)
    rc = task_input_parse(doc, zones, cluster_now(b->server->cluster), &input, e);
  zone_set_free(&zones);
  if (rc < 0)
    return rc;
  struct task_def defs[PUT];
  for (int64_t done = 0; done < b->tasks && rc >= 0; done += PUT) {
    auto_arena page = {0};
    size_t n = 0;
    for (; n < PUT && done + (int64_t)n < b->tasks; n++) {
      int64_t i = done + (int64_t)n;
      defs[n] = (struct task_def){
          .ns = SLICE("default"),
          .name = slice_of(arena_printf(&page, "bench-%lld-%lld", (long long)getpid(), (long long)i)),
          .definition = slice_of(input.definition),
          .group = SLICE("bench"),
          .handler = SLICE("noop"),
          .schedule_text = SLICE("bench"),
          .kind = input.spec->kind,
          .anchor = b->herd ? start : start + (usec_t)((double)i * (double)every / (double)b->tasks)};
    }
    struct st_task_put_ret ret;
    rc =
        store_task_put(b->server->api_store,
                       &(struct st_task_put){.defs = defs, .count = n, .by = SLICE("bench")}, &ret, &page, e);
  }
  task_input_done(&input);
  engine_changed(b->server->engine, -1);
  return rc;
}

static double counter(const char *name) {
  auto_str text;
  str_init(&text, (size_t)4 << 20);
  metric_render(&text);
  double sum = 0;
  for (char *p = text.p; p && (p = strstr(p, name)); p += strlen(name))
    if (p == text.p || p[-1] == '\n') {
      const char *value = strchr(p, ' ');
      sum += value ? strtod(value, NULL) : 0;
    }
  return sum;
}

static void beat(struct bench *b) {
  enum executor_state st;
  (void)registry_beat(
      b->server->registry,
      &(struct executor_beat){.ns = SLICE("default"), .group = SLICE("bench"), .id = SLICE("inproc")}, &st,
      NULL);
}

static void wait_until(struct bench *b, usec_t mono) {
  while (clock_system.mono(&clock_system) < mono) {
    beat(b);
    usec_t left = mono - clock_system.mono(&clock_system);
    usleep((useconds_t)(left > 500000 ? 500000 : left > 0 ? left : 0));
  }
}

static int compare(const void *a, const void *b) {
  return (*(const int32_t *)a > *(const int32_t *)b) - (*(const int32_t *)a < *(const int32_t *)b);
}

static void print_lateness(struct inproc *in) {
  mutex_lock(&in->lock); /* deliveries go on */
  in->max = 0;
  mutex_unlock(&in->lock);
  if (!in->count)
    return;
  qsort(in->lateness_us, in->count, sizeof *in->lateness_us, compare);
#define Q(q) ((double)in->lateness_us[(size_t)((double)(in->count - 1) * (q))] / 1000)
  printf("lateness (committed and handed over), ms: p50 %.2f  p99 %.2f  p99.9 %.2f  max %.2f  of %zu\n",
         Q(.5), Q(.99), Q(.999), Q(1), in->count);
#undef Q
}

static void run(struct bench *b) {
  usec_t t0 = clock_system.mono(&clock_system);
  wait_until(b, t0 + b->warmup * USEC_PER_SEC);
  struct usage before, after;
  measure(b->database_pid, &before);
  double lives = counter("kelou_runs_total"), fires = counter("kelou_fires_total");
  mutex_lock(&b->in.lock);
  b->in.count = 0;
  mutex_unlock(&b->in.lock);
  usec_t from = clock_system.mono(&clock_system);
  wait_until(b, from + b->seconds * USEC_PER_SEC);
  double took = (double)(clock_system.mono(&clock_system) - from) / 1e6;
  measure(b->database_pid, &after);
  lives = counter("kelou_runs_total") - lives;
  fires = counter("kelou_fires_total") - fires;
  printf("offered %lld/s  fired %.0f/s  lives %.0f/s over %.1f s\n", (long long)b->rate, fires / took,
         lives / took, took);
  printf("CPU per life, us: node %.1f  database %.1f   of two cores: %.0f %%   RSS %.0f MB\n",
         (after.self_us - before.self_us) / lives, (after.database_us - before.database_us) / lives,
         (after.self_us - before.self_us + after.database_us - before.database_us) / took / 2e4,
         after.rss_mb);
  print_lateness(&b->in);
}

static void run_herd(struct bench *b, usec_t at) {
  while (cluster_now(b->server->cluster) < at)
    usleep(1000);
  double want = (double)b->tasks;
  usec_t fired = 0, ended = 0;
  for (int i = 0; i < 60000 && !ended; i++) {
    usec_t now = cluster_now(b->server->cluster);
    if (!fired && counter("kelou_fires_total") >= want)
      fired = now;
    if (counter("kelou_runs_total") >= want)
      ended = now;
    usleep(2000);
  }
  printf("herd of %lld at one instant: all fired after %.3f s, all ended after %.3f s\n", (long long)b->tasks,
         (double)(fired - at) / 1e6, (double)(ended - at) / 1e6);
}

static int start(struct bench *b, struct err *e) {
  auto_arena mem = {0};
  const char *sets[] = {arena_printf(&mem, "store.url=%s", b->store),
                        arena_printf(&mem, "node.state_dir=%s", b->state_dir), "http.listen=127.0.0.1:0",
                        NULL};
  struct conf_errors errors = {0};
  struct conf *conf = NULL;
  if (conf_load(&(struct conf_sources){.items = settings, .n_items = settings_count, .sets = sets}, &conf,
                &errors) < 0)
    return err_set(e, ERR_INVALID, "%s", errors.list[0].text);
  struct server_options o = {
      .conf = conf, .version = "bench", .channel = inproc_channel, .channel_arg = &b->in};
  usec_t t0 = clock_system.mono(&clock_system);
  int rc = server_start(&o, &b->server, e);
  conf_unref(&conf);
  for (int i = 0; rc >= 0 && i < 60000 && !server_ready(b->server, NULL); i++)
    usleep(1000);
  if (rc >= 0) {
    struct usage u;
    measure(b->database_pid, &u);
    printf("ready after %.2f s, RSS %.0f MB\n", (double)(clock_system.mono(&clock_system) - t0) / 1e6,
           u.rss_mb);
    b->in.now = (usec_t(*)(void *))cluster_now;
    b->in.now_arg = b->server->cluster;
  }
  return rc;
}

int main(int argc, char **argv) {
  static const struct option options[] = {
      {"store", 1, NULL, 's'},        {"state-dir", 1, NULL, 'd'}, {"tasks", 1, NULL, 'n'},
      {"rate", 1, NULL, 'r'},         {"seconds", 1, NULL, 't'},   {"warmup", 1, NULL, 'w'},
      {"database-pid", 1, NULL, 'p'}, {"herd", 0, NULL, 'h'},      {NULL, 0, NULL, 0}};
  struct bench b = {.tasks = 1000, .rate = 1000, .seconds = 10, .warmup = 3, .in = {.max = 20000000}};
  for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
    switch (o) {
    case 's': b.store = optarg; break;
    case 'd': b.state_dir = optarg; break;
    case 'n': b.tasks = strtoll(optarg, NULL, 10); break;
    case 'r': b.rate = strtoll(optarg, NULL, 10); break;
    case 't': b.seconds = strtoll(optarg, NULL, 10); break;
    case 'w': b.warmup = strtoll(optarg, NULL, 10); break;
    case 'p': b.database_pid = (int)strtol(optarg, NULL, 10); break;
    case 'h': b.herd = true; break;
    default: return 2;
    }
  if (!b.store || !b.state_dir || optind < argc) {
    fputs("usage: kelou-bench --store URL --state-dir DIR [--tasks N] [--rate R] [--seconds S] [--warmup S] "
          "[--database-pid PID] [--herd]\n",
          stderr);
    return 2;
  }
  struct err e = {0};
  signal(SIGPIPE, SIG_IGN);
  (void)log_open(&(struct log_options){.level = LOG_WARN, .clock = &clock_system}, &e);
  mutex_init(&b.in.lock);
  int rc = start(&b, &e);
  if (rc >= 0)
    rc = make_group(&b, &e);
  usec_t at = rc >= 0 ? cluster_now(b.server->cluster) + (b.herd ? 5 : 1) * USEC_PER_SEC : 0;
  if (rc >= 0 && b.rate)
    rc = make_tasks(&b, at, &e);
  if (rc < 0)
    fprintf(stderr, "kelou-bench: %s %s\n", e.field, e.text);
  else if (b.herd)
    run_herd(&b, at);
  else if (b.rate)
    run(&b);
  server_stop(&b.server);
  return rc < 0;
}
