/* Take away one guard of the design (guards.def), and the simulation must notice within a bounded number of seeds, in a world that is sound
 * with it. */
#include "sim.h"
#include "base/log.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

enum { EPISODES = 240 };

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
    o.after = g == GUARD_TURN;
    if (sim_episode(&o, &w) == 0)
      continue;
    print_message("without %s (%s), in episode %d %s\n", sim_guard_names[g], sim_guard_texts[g], i, w.first);
    o.removed[g] = false;
    if (sim_episode(&o, &w) != 0)
      fail_msg("episode %d fails with it, too: %s", i, w.first);
    return;
  }
  fail_msg("nobody noticed that %s is gone: %s", sim_guard_names[g], sim_guard_texts[g]);
}

#define GUARD(name, text)                                                                                    \
  static void without_##name(void **state) {                                                                 \
    (void)state;                                                                                             \
    must_fail_without(GUARD_##name);                                                                         \
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
