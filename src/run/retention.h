#pragma once
/* Retention: ended runs that are old enough, or too many, leave the database, by way of the archive when there is one; their logs before
 * or with them. A thread and a
 * session of its own; small steps with pauses in between, so that nobody waits. What is in progress is found again after a crash:
 * nothing is lost, and nothing comes into the archive twice. */
#include "store/store.h"

struct retention;
struct retention_options {
  struct store *store;     /* a session of its own; owned by retention_new from its call on */
  usec_t age;              /* of namespaces that do not say: 0 = for ever */
  int64_t runs;            /* the same: 0 = any number */
  usec_t log_age;          /* logs of ended runs go before their runs; 0 = with them */
  usec_t every;            /* between two passes */
  const char *archive_dir; /* NULL or "" = none; borrowed */
  int archive_level;       /* 1…9 */
};
struct retention *retention_new(const struct retention_options *o);
int retention_start(struct retention *r, struct err *e);
void retention_free(struct retention **r); /* stops first, after the step that is in progress */
/* One pass over everything, for tests. 1: another node is at it. */
int retention_pass(struct retention *r, struct err *e);
