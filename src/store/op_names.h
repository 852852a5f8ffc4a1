#pragma once
/* Every operation by number and by name, for what treats all of them alike (the decorators). Private to src/store. */
enum store_op {
#define OP(n) STORE_OP_##n,
#include "store/store_ops.def"
  STORE_OP_MAX_
};
static const char *const store_op_names[] __attribute__((unused)) = {
#define OP(n) #n,
#include "store/store_ops.def"
};
