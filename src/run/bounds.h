#pragma once
/* This node's parts of the bounds of groups and namespaces, where several nodes share one database (docs/adr/0030). A thread of its own says
 * what runs and waits here, takes of what is free, and lets go of what others need. Owns bound_turn, bound_node, bound_part. */
#include "run/run.h"

struct run_bounds;
struct run_bounds_options {
  struct run_service *runs; /* borrowed; made with `several` */
  struct store *store;      /* pooled; borrowed */
  const char *node_id;
  usec_t period; /* between two exchanges: 1 s */
  usec_t hurry;  /* while somebody here waits for a part: 200 ms */
};
void run_bounds_options_default(struct run_bounds_options *o);
struct run_bounds *run_bounds_new(const struct run_bounds_options *o);
int run_bounds_start(struct run_bounds *b, struct err *e);
void run_bounds_stop(struct run_bounds *b);
void run_bounds_free(struct run_bounds **b);
