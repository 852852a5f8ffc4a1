#pragma once
/* Bounds that several nodes share (docs/adr/0030). Part of store.h, which is the contract of all operations; owner src/run. */
#include "store/rows.h"

struct bound_row {
  struct slice ns, group; /* group empty: of the namespace */
  int64_t most;           /* the whole bound */
  int64_t part, want;     /* what this node has, and what runs and waits there */
  int64_t take;           /* so many more, if they are free */
};
/* One transaction, one after the other: this node says which parts it has, and is given more of what is free: `most` less all parts.
 * Something is *settled* while every shard has a living owner that has taken over all its runs and has said so here: `adopted` is the sum
 * of the epochs of the shards that it owns. A part goes down, and the parts of nodes that are gone are free, only then: until then their runs may
 * be on their way to another owner, who has not said yet that it has them. Nothing is given while an owner has never been here.
 * A store of a single node: ERR_INTERNAL. */
struct st_bound_exchange {
  struct slice node;
  int64_t incarnation, adopted;
  const struct bound_row *rows;
  size_t count;
};
struct bound_wish {
  size_t row; /* of the call */
  bool mine;
  int64_t want;
};
struct st_bound_exchange_ret {
  int64_t *given;            /* for each row */
  struct bound_wish *wishes; /* of the living nodes, by row, then node */
  size_t wish_count;
  usec_t now;
};
