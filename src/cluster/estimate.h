#pragma once
/* What one round trip says about another machine's clock. Pure. */
#include "base/time.h"

/* That clock said `now` at some moment between `sent` and `back` of ours (monotonic). Returns its offset to ours: the midpoint when the round
 * trip was quick; after a slow one what was `held` before, moved no further than it has to be wrong. `first`: nothing is held yet. */
usec_t estimate_offset(usec_t held, bool first, usec_t sent, usec_t back, usec_t now);
