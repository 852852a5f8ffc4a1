/* kelou-bench-executor: an executor that does nothing, as fast as it can, and notes how late each run reached it. SIGUSR1 starts the
 * count anew; SIGTERM ends it with one line of JSON on standard output. */
#include "base/file.h"
#include "base/mem.h"
#include "base/time.h"
#include "kelou_executor.h"
#include <getopt.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* Lateness by size: 64 steps for each power of two of microseconds, so that a quantile is at most 1.6 % too great. */
enum { STEPS = 64, POWERS = 40, BUCKETS = STEPS * POWERS };

struct late {
  _Atomic uint64_t count[BUCKETS];
  _Atomic int64_t most;
};

static size_t bucket_of(int64_t us) {
  if (us < STEPS)
    return us < 0 ? 0 : (size_t)us;
  int power = 63 - __builtin_clzll((unsigned long long)us); /* ≥ 6 */
  size_t i = (size_t)(power - 5) * STEPS + (size_t)((us >> (power - 6)) & (STEPS - 1));
  return i < BUCKETS ? i : BUCKETS - 1;
}

static double bucket_end_ms(size_t i) {
  if (i < STEPS)
    return (double)i / 1e3;
  size_t power = i / STEPS + 5;
  return (double)((i % STEPS + STEPS + 1) << (power - 6)) / 1e3;
}

static void do_nothing(struct kelou_run *r, void *user) {
  struct late *l = user;
  int64_t us = clock_system.wall(&clock_system) - kelou_scheduled_at(r);
  atomic_fetch_add_explicit(&l->count[bucket_of(us)], 1, memory_order_relaxed);
  int64_t most = atomic_load_explicit(&l->most, memory_order_relaxed);
  while (us > most && !atomic_compare_exchange_weak(&l->most, &most, us))
    continue;
}

static double quantile(const struct late *l, uint64_t total, double q) {
  uint64_t want = (uint64_t)((double)total * q), seen = 0;
  for (size_t i = 0; i < BUCKETS; i++) {
    seen += l->count[i];
    if (seen > want)
      return bucket_end_ms(i);
  }
  return 0;
}

static void print_late(const struct late *l) {
  uint64_t total = 0;
  for (size_t i = 0; i < BUCKETS; i++)
    total += l->count[i];
  printf("{\"runs\":%llu,\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"p999_ms\":%.3f,\"max_ms\":%.3f}\n",
         (unsigned long long)total, quantile(l, total, .5), quantile(l, total, .99), quantile(l, total, .999),
         (double)l->most / 1e3);
  fflush(stdout);
}

static void clear(struct late *l) {
  for (size_t i = 0; i < BUCKETS; i++)
    l->count[i] = 0;
  l->most = 0;
}

static char *read_line(const char *path, struct arena *mem) {
  auto_str text;
  str_init(&text, 4096);
  struct err e = {0};
  if (file_read(path, 4096, &text, &e) < 0)
    return NULL;
  char *line = arena_strdup(mem, text.p ? text.p : "");
  line[strcspn(line, "\r\n")] = 0;
  return line;
}

static void log_line(void *arg, enum kelou_level level, const char *line) {
  (void)arg;
  if (level >= KELOU_WARN)
    fprintf(stderr, "%s\n", line);
}

/* Until SIGTERM. */
static void serve(struct kelou_executor *x, struct late *l, const sigset_t *signals) {
  printf("registered\n");
  fflush(stdout);
  for (int s = 0; s != SIGTERM && s != SIGINT;) {
    if (sigwait(signals, &s) != 0)
      continue;
    if (s == SIGUSR1)
      clear(l);
  }
  print_late(l);
  (void)kelou_drain(x, 2 * USEC_PER_SEC);
}

int main(int argc, char **argv) {
  static const struct option names[] = {
      {"server", 1, NULL, 's'}, {"token-file", 1, NULL, 't'}, {"secret-file", 1, NULL, 'k'},
      {"group", 1, NULL, 'g'},  {"id", 1, NULL, 'i'},         {"answer-inline", 0, NULL, 'a'},
      {NULL, 0, NULL, 0}};
  static struct late late;
  auto_arena mem = {0};
  struct kelou_handler handler = {"*", do_nothing, &late, KELOU_INLINE};
  struct kelou_options o;
  kelou_options_init(&o);
  o.handlers = &handler;
  o.handler_count = 1;
  o.slots = 10000;
  o.log = log_line;
  const char *secret = NULL;
  for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;)
    switch (c) {
    case 's': o.server = optarg; break;
    case 't': o.token = read_line(optarg, &mem); break;
    case 'k': secret = read_line(optarg, &mem); break;
    case 'g': o.group = optarg; break;
    case 'i': o.id = optarg; break;
    case 'a': o.answer_inline = 1; break;
    default: return 2;
    }
  o.secrets = &secret;
  o.secret_count = secret ? 1 : 0;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR1);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  struct kelou_executor *x = NULL;
  char why[256];
  if (kelou_start(&o, &x, why, sizeof why) < 0 || kelou_wait_registered(x, 20 * USEC_PER_SEC) < 0) {
    fprintf(stderr, "kelou-bench-executor: %s\n", x ? "not registered within 20 s" : why);
    return 1;
  }
  serve(x, &late, &signals);
  kelou_stop(&x);
  return 0;
}
