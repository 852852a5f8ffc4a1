#pragma once
/* An executor inside the node: accepts and ends every run at once. What is left is the centre itself and its database. */
#include "dispatch/dispatcher.h"
#include "base/thread.h"

struct inproc {
  struct dispatcher *dispatcher;
  usec_t (*now)(void *arg); /* database time, for lateness */
  void *now_arg;
  struct mutex lock;    /* guards lateness */
  int32_t *lateness_us; /* of each delivery: sent minus scheduled_at */
  size_t count, cap, max;
};
struct dispatch_channel inproc_channel(void *arg, struct dispatcher *d); /* arg = struct inproc */
