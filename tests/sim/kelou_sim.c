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
              "[--rough TIMES] [--verbose] [--without GUARD] [--list]\n"
              "Simulates a cluster with faults; the same seed tells the same story. Exit 1: a guarantee did "
              "not hold.\n",
              stderr);
  return 2;
}

static int number(const char *text, int64_t most, int64_t *ret) {
  return text && parse_i64(slice_of(text), 0, most, ret, NULL) >= 0 ? 0 : -1;
}

struct arguments {
  struct sim_options o;
  int64_t seed, hours, minutes, first;
};

static int guard_named(const char *name) {
  for (int g = 0; name && g < GUARD_MAX_; g++)
    if (strcmp(sim_guard_names[g], name) == 0)
      return g;
  return -1;
}

static int read_arguments(int argc, char **argv, struct arguments *a) {
  for (int i = 1; i < argc; i++) {
    const char *key = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
    int64_t n = 0;
    if (strcmp(key, "--calm") == 0) {
      a->o.calm = true;
      continue;
    }
    if (strcmp(key, "--verbose") == 0) {
      a->o.verbose = true;
      continue;
    }
    if (strcmp(key, "--without") == 0) {
      if (guard_named(value) < 0)
        return -1;
      a->o.removed[guard_named(value)] = true;
    } else if (number(value, INT64_MAX, &n) < 0) {
      return -1;
    } else if (strcmp(key, "--seed") == 0) {
      a->seed = n;
    } else if (strcmp(key, "--hours") == 0) {
      a->hours = n;
    } else if (strcmp(key, "--first") == 0) {
      a->first = n;
    } else if (strcmp(key, "--episode") == 0) {
      a->minutes = n;
    } else if (strcmp(key, "--rough") == 0 && n <= 50) {
      a->o.rough = (int)n;
    } else if (strcmp(key, "--nodes") == 0 && n >= 1 && n <= SIM_NODES_MAX) {
      a->o.nodes = (int)n;
    } else {
      return -1;
    }
    i++;
  }
  return a->minutes > 0 && a->hours > 0 ? 0 : -1;
}

int main(int argc, char **argv) {
  struct arguments a = {
      .o = {.nodes = 1, .executors = 3, .shards = 4, .tasks = 20}, .seed = 1, .hours = 1, .minutes = 60};
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (int g = 0; g < GUARD_MAX_; g++)
      (void)printf("%-16s %s\n", sim_guard_names[g], sim_guard_texts[g]);
    return 0;
  }
  if (read_arguments(argc, argv, &a) < 0)
    return usage();
  log_level_set(a.o.verbose ? LOG_INFO : LOG_LEVEL_MAX_);
  double begin = seconds();
  struct sim_world sum = {0};
  usec_t total = 0;
  a.o.length = a.minutes * USEC_PER_MIN;
  for (int64_t i = a.first; total < a.hours * USEC_PER_HOUR; i++) {
    struct sim_world w;
    a.o.seed = hash_u64((uint64_t)a.seed) + (uint64_t)i;
    int bad = sim_episode(&a.o, &w);
    total += w.end;
    sum.fires += w.fires;
    sum.starts += w.starts;
    sum.lost += w.lost;
    sum.doubled += w.doubled;
    sum.stuck += w.stuck;
    sum.crashes += w.crashes;
    sum.unknown += w.unknown;
    sum.violations += w.violations;
    sum.digest = hash_u64(sum.digest ^ w.digest);
    if (bad) {
      (void)printf("seed %lld episode %lld: %s\n", (long long)a.seed, (long long)i, w.first);
      break;
    }
  }
  (void)printf("simulated %.1f hours in %.1f s, %lld fires, %lld starts, %lld crashes, %lld unknown commits, "
               "%lld lost, %lld doubled, "
               "%lld stuck, %lld other, digest %016llx\n",
               (double)total / 3.6e9, seconds() - begin, (long long)sum.fires, (long long)sum.starts,
               (long long)sum.crashes, (long long)sum.unknown, (long long)sum.lost, (long long)sum.doubled,
               (long long)sum.stuck, (long long)(sum.violations - sum.lost - sum.doubled - sum.stuck),
               (unsigned long long)sum.digest);
  return sum.violations ? 1 : 0;
}
