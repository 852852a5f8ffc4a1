#include "executor/registry.h"
#include "base/log.h"
#include "base/metric.h"
#include "executor/internal.h"
#include "net/crypto.h"

void registry_options_default(struct registry_options *o) {
  *o = (struct registry_options){.clock = &clock_system,
                                 .lost_after = 30 * USEC_PER_SEC,
                                 .forget_after = USEC_PER_DAY,
                                 .refresh = USEC_PER_SEC,
                                 .beat_flush = 200 * USEC_PER_MS,
                                 .breaker = {.failures = 5,
                                             .open_first = 2 * USEC_PER_SEC,
                                             .open_most = USEC_PER_MIN,
                                             .suspect = 5 * USEC_PER_SEC}};
}

int registry_new(const struct registry_options *o, struct registry **ret, struct err *e) {
  struct registry *r = mem_zalloc(sizeof *r);
  uint64_t seed;
  r->o = *o;
  if (!r->o.allowed) {
    int code = network_list_parse(SLICE("loopback,private"), &r->own_networks, e);
    if (code < 0) {
      mem_free(r);
      return code;
    }
    r->o.allowed = r->own_networks;
  }
  crypto_random(&seed, sizeof seed);
  rng_seed(&r->rng, seed);
  r->opened = metric_series(metric_family("kelou_executor_breaker_opened_total",
                                          "Times that deliveries to an executor were stopped for a while",
                                          METRIC_COUNTER, "", NULL),
                            NULL);
  mutex_init(&r->lock);
  cond_init(&r->wake);
  *ret = r;
  return 0;
}

void registry_hook(struct registry *r, const struct registry_hooks *h) { r->hooks = *h; }

/* Wait for the time, a poke, or the end. True: the registry stops. */
static bool pause_refresh(struct registry *r) {
  usec_t until = registry_mono(r) + r->o.refresh;
  mutex_lock(&r->lock);
  for (usec_t left = r->o.refresh; !r->stopping && !r->refresh_now && left > 0;
       left = until - registry_mono(r))
    if (!cond_wait(&r->wake, &r->lock, left))
      break;
  r->refresh_now = false;
  bool stop = r->stopping;
  mutex_unlock(&r->lock);
  return stop;
}

static void refresh_run(void *registry) {
  struct registry *r = registry;
  bool failing = false;
  while (!pause_refresh(r)) {
    struct err e = {0};
    int code = registry_refresh(r, &e);
    if (code < 0 && !failing)
      log_warn("executors cannot be read; going on with those known", LF_E(&e));
    failing = code < 0;
  }
}

int registry_start(struct registry *r, struct err *e) {
  int code = registry_refresh(r, e);
  if (code < 0)
    return code;
  r->expire_after = registry_mono(r) + r->o.lost_after;
  code = thread_start(&r->beats, "exec-beats", beats_run, r, e);
  if (code < 0)
    return code;
  code = thread_start(&r->refresher, "exec-refresh", refresh_run, r, e);
  if (code < 0)
    registry_stop(r);
  return code;
}

void registry_stop(struct registry *r) {
  mutex_lock(&r->lock);
  r->stopping = true;
  cond_broadcast(&r->wake);
  mutex_unlock(&r->lock);
  if (r->beats.running)
    thread_join(&r->beats);
  if (r->refresher.running)
    thread_join(&r->refresher);
}

void registry_free(struct registry **r) {
  if (!*r)
    return;
  table_free(*r);
  mem_free((*r)->pending);
  network_list_free(&(*r)->own_networks);
  cond_done(&(*r)->wake);
  mutex_done(&(*r)->lock);
  explicit_bzero((*r)->o.key, sizeof(*r)->o.key);
  mem_freep(r);
}
