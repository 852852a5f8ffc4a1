/* kelou-sim: simulated clusters, as many hours as asked for, in episodes of an hour each. */
#include "sim.h"
#include "base/log.h"
#include "base/parse.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double seconds(void) {
  struct timespec t;
  (void)clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int usage(void) {
  (void)fputs("kelou-sim [--seed S] [--hours H] [--nodes N] [--episode MINUTES] [--first N] [--calm] "
              "[--after] [--limits] "
              "[--rough TIMES] [--verbose] [--without GUARD] [--list]\n"
              "Simulates a cluster with faults; the same seed tells the same story. Exit 1: a guarantee did "
              "not hold.\n",
              stderr);
  return 2;
}

enum { SEED, HOURS, FIRST, MINUTES, ROUGH, NODES, NUMBERS };
static const struct {
  const char *key;
  int64_t least, most, usual;
} numbers[NUMBERS] = {[SEED] = {"--seed", 0, INT64_MAX, 1},   [HOURS] = {"--hours", 1, 1000000, 1},
                      [FIRST] = {"--first", 0, INT64_MAX, 0}, [MINUTES] = {"--episode", 1, 100000, 60},
                      [ROUGH] = {"--rough", 0, 50, 0},        [NODES] = {"--nodes", 1, SIM_NODES_MAX, 1}};

struct arguments {
  bool calm, after, limits, verbose, removed[GUARD_MAX_];
  int64_t n[NUMBERS];
};

static bool flag(const char *key, struct arguments *a) {
  bool *to = strcmp(key, "--calm") == 0      ? &a->calm
             : strcmp(key, "--limits") == 0  ? &a->limits
             : strcmp(key, "--after") == 0   ? &a->after
             : strcmp(key, "--verbose") == 0 ? &a->verbose
                                             : NULL;
  if (to)
    *to = true;
  return to != NULL;
}

static int remove_guard(const char *name, struct arguments *a) {
  for (int g = 0; g < GUARD_MAX_; g++)
    if (strcmp(sim_guard_names[g], name) == 0) {
      a->removed[g] = true;
      return 0;
    }
  return -1;
}

static int pair(const char *key, const char *value, struct arguments *a) {
  if (strcmp(key, "--without") == 0)
    return remove_guard(value, a);
  for (int i = 0; i < NUMBERS; i++)
    if (strcmp(key, numbers[i].key) == 0)
      return parse_i64(slice_of(value), numbers[i].least, numbers[i].most, &a->n[i], NULL) >= 0 ? 0 : -1;
  return -1;
}

static int read_arguments(int argc, char **argv, struct arguments *a) {
  for (int i = 0; i < NUMBERS; i++)
    a->n[i] = numbers[i].usual;
  for (int i = 1; i < argc; i++) {
    if (flag(argv[i], a))
      continue;
    if (i + 1 == argc || pair(argv[i], argv[i + 1], a) < 0)
      return -1;
    i++;
  }
  return 0;
}

static void add(struct sim_world *sum, const struct sim_world *w) {
  sum->end += w->end;
  sum->fires += w->fires;
  sum->starts += w->starts;
  sum->lost += w->lost;
  sum->doubled += w->doubled;
  sum->stuck += w->stuck;
  sum->crashes += w->crashes;
  sum->unknown += w->unknown;
  sum->violations += w->violations;
  sum->digest = hash_u64(sum->digest ^ w->digest);
}

static void tell(const struct sim_world *sum, double took) {
  (void)printf("simulated %.1f hours in %.1f s, %lld fires, %lld starts, %lld crashes, %lld unknown commits, "
               "%lld lost, %lld doubled, %lld stuck, %lld other, digest %016llx\n",
               (double)sum->end / (double)USEC_PER_HOUR, took, (long long)sum->fires, (long long)sum->starts,
               (long long)sum->crashes, (long long)sum->unknown, (long long)sum->lost,
               (long long)sum->doubled, (long long)sum->stuck,
               (long long)(sum->violations - sum->lost - sum->doubled - sum->stuck),
               (unsigned long long)sum->digest);
}

static void list(void) {
  for (int g = 0; g < GUARD_MAX_; g++)
    (void)printf("%-16s %s\n", sim_guard_names[g], sim_guard_texts[g]);
}

int main(int argc, char **argv) {
  struct arguments a = {0};
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    list();
    return 0;
  }
  if (read_arguments(argc, argv, &a) < 0)
    return usage();
  log_level_set(a.verbose ? LOG_INFO : LOG_LEVEL_MAX_);
  struct sim_options o = {.length = a.n[MINUTES] * USEC_PER_MIN,
                          .nodes = (int)a.n[NODES],
                          .executors = 3,
                          .shards = 4,
                          .tasks = 20,
                          .calm = a.calm,
                          .rough = (int)a.n[ROUGH],
                          .after = a.after,
                          .limits = a.limits,
                          .verbose = a.verbose};
  memcpy(o.removed, a.removed, sizeof o.removed);
  double begin = seconds();
  struct sim_world sum = {0};
  for (int64_t i = a.n[FIRST]; sum.end < a.n[HOURS] * USEC_PER_HOUR && !sum.violations; i++) {
    struct sim_world w;
    o.seed = hash_u64((uint64_t)a.n[SEED]) + (uint64_t)i;
    if (sim_episode(&o, &w) != 0)
      (void)printf("seed %lld episode %lld: %s\n", (long long)a.n[SEED], (long long)i, w.first);
    add(&sum, &w);
  }
  tell(&sum, seconds() - begin);
  return sum.violations ? 1 : 0;
}
