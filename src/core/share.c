#include "core/share.h"
#include <stdbool.h>

static bool hungry(const struct share_ask *a, size_t i, int64_t level) { return a->want[i] > level; }

static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

/* `n` of the hungry ones, beginning with whose turn it is, get one more. */
static bool in_turn(const struct share_ask *a, int64_t level, int64_t n, size_t me) {
  for (size_t k = 0; k < a->count && n > 0; k++) {
    size_t i = (size_t)((a->turn + k) % a->count);
    if (!hungry(a, i, level))
      continue;
    if (i == me)
      return true;
    n--;
  }
  return false;
}

/* The lowest want above the level: up to there all hungry ones can be raised together. */
static int64_t next_level(const struct share_ask *a, int64_t level, int64_t *ret_hungry) {
  int64_t next = INT64_MAX;
  *ret_hungry = 0;
  for (size_t i = 0; i < a->count; i++)
    if (hungry(a, i, level)) {
      next = at_most(next, a->want[i]);
      ++*ret_hungry;
    }
  return next;
}

int64_t share_target(const struct share_ask *a, size_t me) {
  int64_t left = a->bound, level = 0, n, next;
  while (next = next_level(a, level, &n), n > 0) {
    int64_t raise = at_most(next - level, left / n);
    left -= raise * n;
    level += raise;
    if (level < next) { /* not enough for one more each */
      int64_t base = at_most(a->want[me], level);
      return base + in_turn(a, level, left, me);
    }
  }
  /* all are content: the rest is divided */
  int64_t each = left / (int64_t)a->count, rest = left % (int64_t)a->count;
  size_t place = (size_t)((me + a->count - (size_t)(a->turn % a->count)) % a->count);
  return a->want[me] + each + ((int64_t)place < rest);
}
