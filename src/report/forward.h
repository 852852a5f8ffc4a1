#pragma once
/* Events of runs on their way to the owner (storage.md "Between nodes", docs/adr/0024): what is ours goes to the run service; what another
 * node owns goes to it, and is answered after its commit; what cannot be brought to its owner in time is appended to the inbox, which the
 * owner, or the next one, reads (but claims: they are asked again). Knows no sockets: the server wires it to src/cluster/peer.h, the simulation to its own. Thread-safe. */
#include "base/json.h"
#include "run/run.h"

struct forward;
struct forward_ask { /* the bringing of one message to one node */
  int node;
  struct slice body; /* JSON: {"events": [core/event_doc.h …]} */
  /* Once, on any thread: {"answers": […]}, one word for each event, or NULL: it did not answer. */
  void (*done)(void *arg, const json_t *answer);
  void *arg;
};
struct forward_hooks {
  /* The number of another node that owns the shard, as far as is known, from 1; 0: this one, or nobody. Quick. */
  int (*owner)(void *arg, int32_t shard);
  /* False: not asked, `done` is not called. Never blocks. */
  bool (*ask)(void *arg, const struct forward_ask *ask);
  void *arg;
};
struct forward_options {
  struct run_service *runs; /* borrowed, as is store: a session of its own, or a pool */
  struct store *store;
  int32_t shard_count;
  struct forward_hooks hooks; /* owner NULL: there is one node, everything is ours */
  size_t message_bytes;       /* of one message to a node: 768 KiB, 1,000 events */
  size_t waiting_bytes;       /* what is under way to nodes and to the inbox: 64 MiB; beyond: NOT_OWNER */
};
void forward_options_default(struct forward_options *o);
struct forward *forward_new(const struct forward_options *o);
int forward_start(struct forward *f, struct err *e);
/* After run_service_stop: what waits for the inbox is still appended. */
void forward_stop(struct forward *f);
void forward_free(struct forward **f);
/* May there be other nodes? Then what is posted must stay where it is until `done`. */
bool forward_far(const struct forward *f);

/* As run_post, with one more result: TAKEN, it is durable in the inbox and will be carried out by the owner. With forward_far, `events` and
 * their texts are borrowed until `done` is called, which may be before this returns. Negative: nothing was taken. */
int forward_post(struct forward *f, const struct live_event *events, size_t n,
                 void (*done)(void *arg, const enum run_result *results, size_t n), void *arg, struct err *e);
/* Cancel a run, wherever its owner is, and wait for the commit. 0: it has ended, or is told to stop (CANCELLING); 1: asked, the owner will
 * do so; ERR_CONFLICT: it had ended; ERR_UNAVAILABLE. Blocks. */
int forward_cancel(struct forward *f, const struct run_key *key, struct err *e);

/* What another node has brought: judged by what this one owns, answered after the commit. `reply`: once, with {"answers": […]}, from any
 * thread. Negative: refused, `reply` is not called. Never blocks. `body` must stay until then. */
int forward_take(struct forward *f, const json_t *body, void (*reply)(void *arg, struct slice answer),
                 void *arg, struct err *e);
