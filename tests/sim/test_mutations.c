/* Take away one guard of the design (guards.def), and the simulation must notice within a bounded number of seeds. */
#include "sim.h"
#include "base/log.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

enum { EPISODES = 120 };

static struct sim_options options(int episode) {
  static const int nodes[] = {2, 1, 3};
  return (struct sim_options){.seed = hash_u64(7) + (uint64_t)episode,
                              .length = 40 * USEC_PER_MIN,
                              .nodes = nodes[episode % 3],
                              .executors = 3,
                              .shards = 4,
                              .tasks = 20,
                              .rough = 15};
}

static void must_fail_without(enum sim_guard g) {
  for (int i = 0; i < EPISODES; i++) {
    struct sim_options o = options(i);
    struct sim_world w;
    o.removed[g] = true;
    if (sim_episode(&o, &w) == 0)
      continue;
    print_message("without %s (%s), in episode %d %s\n", sim_guard_names[g], sim_guard_texts[g], i, w.first);
    return;
  }
  fail_msg("nobody noticed that %s is gone: %s", sim_guard_names[g], sim_guard_texts[g]);
}

/* The key is the third guard behind the watermark and the epoch: alone it is hardly ever needed. Without the watermark's comparison it is
 * all that keeps a run from being there twice. */
static void without_key_behind_watermark(void **state) {
  (void)state;
  for (int i = 0; i < EPISODES; i++) {
    struct sim_options o = options(i);
    struct sim_world w;
    o.removed[GUARD_RUN_KEY] = o.removed[GUARD_WATERMARK] = true;
    if (sim_episode(&o, &w) == 0 || w.doubled == 0)
      continue;
    print_message("without RUN_KEY and WATERMARK, in episode %d %s\n", i, w.first);
    o.removed[GUARD_RUN_KEY] = false;
    (void)sim_episode(&o, &w);
    assert_int_equal(w.doubled, 0);
    return;
  }
  fail_msg("nobody noticed that RUN_KEY and WATERMARK are gone");
}

#define GUARD(name, text)                                                                                    \
  static void without_##name(void **state) {                                                                 \
    if (GUARD_##name == GUARD_RUN_KEY)                                                                       \
      without_key_behind_watermark(state);                                                                   \
    else                                                                                                     \
      must_fail_without(GUARD_##name);                                                                       \
  }
#include "guards.def"

/* With all guards in place the same worlds are sound. */
static void with_all(void **state) {
  (void)state;
  for (int i = 0; i < 9; i++) {
    struct sim_options o = options(i);
    struct sim_world w;
    if (sim_episode(&o, &w) != 0)
      fail_msg("episode %d: %s", i, w.first);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(with_all),
#define GUARD(name, text) cmocka_unit_test(without_##name),
#include "guards.def"
  };
  log_level_set(LOG_LEVEL_MAX_);
  return cmocka_run_group_tests(tests, NULL, NULL);
}
