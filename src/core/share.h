#pragma once
/* How several nodes divide a bound (docs/adr/0030). Pure. */
#include <stddef.h>
#include <stdint.h>

struct share_ask {
  int64_t bound; /* of all nodes together */
  const int64_t
      *want;    /* of each node, in an order that is the same for all: what runs and waits there, ≥ 0 */
  size_t count; /* nodes; at least 1 */
  uint64_t
      turn; /* grows with time, the same for all: whose turn it is when there is less than one for each */
};
/* What node `me` shall have: everybody as much as they want as far as it goes, else all the same; what nobody wants is divided as well, so that
 * whoever needs some has it at once. The sum over all nodes is the bound. */
int64_t share_target(const struct share_ask *a, size_t me);
