#include "cluster/estimate.h"

static const usec_t QUICK = 20 * USEC_PER_MS;

usec_t estimate_offset(usec_t held, bool first, usec_t sent, usec_t back, usec_t now) {
  usec_t least = now - back, most = now - sent;
  if (first || back - sent <= QUICK)
    return least + (most - least) / 2;
  return held < least ? least : held > most ? most : held;
}
