#pragma once
/* Executor groups and instances: registered, beating, draining, lost; and the choice of an instance for a run. Owns executor_group
 * and executor. Changes are written through to the store; a snapshot in memory (this node's and, within `refresh`, the other nodes'
 * changes) answers the dispatcher.
 *
 * Thread-safe. Calls marked "memory" never block on the database or the network; the others do. Two threads of its own: beats (flush of
 * heartbeats, expiry) and refresh. No lock is held over a store call, a name look-up or a callback. */
#include "core/breaker.h"
#include "core/model.h"
#include "net/target.h"
#include "store/store.h"
#include <stdatomic.h>

#define REGISTRY_SECRET_MAX       64  /* bytes of a secret's text with its end */
#define REGISTRY_HANDLERS_MAX     256 /* of one instance */
#define REGISTRY_SLOTS_MAX        10000
#define REGISTRY_LABELS_MAX_BYTES 4096
#define REGISTRY_WEIGHT_MAX       1000
#define REGISTRY_ID_MAX           129 /* bytes of an id with its end */

/* Of all executors of a group together. */
struct group_bounds {
  int32_t max_concurrent; /* runs between dispatch and end; 0 = any number */
  int64_t rate_milli;     /* runs begun in 1,000 s; 0 = any number */
  int32_t rate_burst;     /* begun at once after a rest; 0 = as many as in a second */
};
#define GROUP_CONCURRENT_MAX 100000
#define GROUP_RATE_MAX       100000 /* a second */
#define GROUP_BURST_MAX      100000

struct registry;
struct registry_options {
  struct store *store; /* pooled; borrowed */
  const struct clock *clock;
  const struct network_list
      *allowed;        /* executor.allowed_networks; borrowed; NULL = the default (loopback, private) */
  uint8_t key[32];     /* seals the groups' secrets (crypto_key_file) */
  usec_t lost_after;   /* without a heartbeat: 30 s */
  usec_t forget_after; /* LOST and OFFLINE ones are removed: 1 d */
  usec_t refresh;      /* 1 s */
  usec_t beat_flush;   /* 200 ms */
  struct breaker_limits breaker;
};
void registry_options_default(struct registry_options *o);
/* Called without locks, from any thread, possibly during a registry call of that thread. Hints: state is what calls answer. */
struct registry_hooks {
  /* This incarnation is gone (expired, deregistered, registered anew, removed): its runs are lost. On each node, once each time. */
  void (*on_lost)(void *arg, struct slice ns, struct slice group, struct slice id, int64_t incarnation);
  /* An instance of the group came online, or a slot became free after a choose had to answer ERR_BUSY. */
  void (*on_capacity)(void *arg, struct slice ns, struct slice group);
  /* The bounds of a group are now these; all 0: it is gone. With the registry's lock, so that they come in their order: must not call back.
   * Before registry_start has returned, for all groups. May be NULL. */
  void (*on_bounds)(void *arg, struct slice ns, struct slice group, const struct group_bounds *b);
  void *arg;
};
int registry_new(const struct registry_options *o, struct registry **ret, struct err *e);
/* Before registry_start. */
void registry_hook(struct registry *r, const struct registry_hooks *h);
/* Reads the first snapshot, then starts the threads. */
int registry_start(struct registry *r, struct err *e);
void registry_stop(struct registry *r);  /* flushes beats, joins the threads */
void registry_free(struct registry **r); /* after all instances were given back */

/* ---------------------------------------------------------------- for the dispatcher (memory) */
/* One incarnation of an executor. Immutable but `running` and what is private; alive while referenced. */
struct instance {
  const char *ns, *group, *id;
  int64_t incarnation;
  struct target *target;
  int32_t slots, max_connections;
  _Atomic int32_t running; /* slots taken on this node */
  _Atomic int32_t refs;
};
struct choose_ask {
  struct slice ns, group, handler;
  struct slice labels;         /* canonical JSON object: only instances that have them all; empty = any */
  enum routing routing;        /* ROUTING_MAX_ = as the group says */
  uint64_t key;                /* CONSISTENT_HASH: hash of the key */
  struct slice pin;            /* only this instance id (PINNED); empty = any */
  const struct slice *exclude; /* ids to avoid (they refused this run) while another one has a slot */
  size_t exclude_count;
  struct slice previous; /* the last attempt's instance: avoided in the same way */
};
/* Takes a slot of a fitting instance: ONLINE, with the handler (or "*") and the labels, a slot free, not cooling down, its breaker not
 * open; which one of them: the routing says (semantics.md §5). 0: *ret holds a slot and a reference, both given back by registry_release;
 * its answer has to be told by registry_answered. ERR_BUSY: fitting ones exist, all that work are full or cooling; ERR_UNAVAILABLE: the
 * breakers of all are open; *ret_retry_at (may be NULL) is then set: when that ends for the first (monotonic), USEC_NEVER = all are full.
 * ERR_NOT_FOUND: none is online. The text says what was looked for. After each of them, on_capacity tells. */
int registry_choose(struct registry *r, const struct choose_ask *ask, struct instance **ret,
                    usec_t *ret_retry_at, struct err *e);
/* The id of the only instance that may have it now, be it free or not: under PINNED, FIRST and CONSISTENT_HASH; else "". */
void registry_only(struct registry *r, const struct choose_ask *ask, char ret_id[REGISTRY_ID_MAX]);
/* The current incarnation of this instance, ONLINE or DRAINING, with a slot taken even beyond its number (a run found at take-over).
 * ERR_NOT_FOUND when it is gone. */
int registry_adopt(struct registry *r, struct slice ns, struct slice group, struct slice id,
                   struct instance **ret);
/* Give slot and reference back; *i becomes NULL. */
void registry_release(struct registry *r, struct instance **i);
/* A further reference without a slot (e.g. for a cancel call), and its end. */
struct instance *instance_ref(struct instance *i);
void instance_unref(struct instance **i);
/* Not to be chosen until then (monotonic): it answered 429/503. */
void registry_cool(struct instance *i, usec_t until);
/* What came of a delivery to it. Logs when its breaker opens or closes. */
void registry_answered(struct registry *r, struct instance *i, enum breaker_event ev);
/* The group's secrets for signing: [0] the current one, [1] the one before while a rotation lasts ("" = none).
 * Sign with all that exist (several v1= in one header), so that executors of both sides of a rotation accept. */
struct registry_secrets {
  char text[2][REGISTRY_SECRET_MAX];
};
int registry_secrets(struct registry *r, const struct instance *i,
                     struct registry_secrets *ret); /* ERR_NOT_FOUND: group gone */

/* ---------------------------------------------------------------- for executors (API) */
struct executor_new {
  struct slice ns, group, id; /* id ≤ 128 bytes, chosen by the executor, stable over restarts if it likes */
  struct slice url;           /* base URL, checked against the allowed networks */
  const struct slice *handlers; /* names, or "*"; 1…REGISTRY_HANDLERS_MAX */
  size_t handler_count;
  int32_t slots;        /* 1…REGISTRY_SLOTS_MAX */
  int32_t weight;       /* 0…REGISTRY_WEIGHT_MAX; < 0: as it was, 1 at first */
  struct slice version; /* ≤ 128 bytes */
  struct slice labels;  /* JSON object text, "" = none */
};
struct executor_registered {
  int64_t incarnation; /* to be sent with each beat */
  usec_t beat_every, lost_after;
};
/* Online at once. Registering anew ends the incarnation before (its runs are lost). Errors name the field. ERR_NOT_FOUND "/group". */
int registry_register(struct registry *r, const struct executor_new *x, struct executor_registered *ret,
                      struct err *e);
struct executor_beat {
  struct slice ns, group, id;
  int64_t incarnation; /* 0 = not checked */
  int32_t running;     /* what it runs, all nodes together */
};
/* Known and online: memory, flushed within beat_flush. ERR_NOT_FOUND: unknown here and in the store, must register anew;
 * ERR_STALE: a later incarnation has registered. */
int registry_beat(struct registry *r, const struct executor_beat *b, enum executor_state *ret_state,
                  struct err *e);
/* ONLINE (resume), DRAINING (no new runs), OFFLINE (deregister: its runs are lost at once). ERR_NOT_FOUND. */
int registry_set_state(struct registry *r, struct slice ns, struct slice group, struct slice id,
                       enum executor_state st, struct err *e);
/* Its share of the runs, from now on. ERR_INVALID "/weight", ERR_NOT_FOUND. */
int registry_set_weight(struct registry *r, struct slice ns, struct slice group, struct slice id,
                        int32_t weight, struct err *e);
/* Rows with texts in `mem`; from the store. `here` (memory): what this node knows of one. */
int registry_list(struct registry *r, const struct st_executor_list *which, struct st_executor_list_ret *ret,
                  struct arena *mem, struct err *e);
struct executor_here {
  int32_t running; /* slots taken by this node */
  enum breaker_state breaker;
};
struct executor_here registry_here(struct registry *r, struct slice ns, struct slice group, struct slice id);

/* ---------------------------------------------------------------- groups */
struct group_new {
  struct slice ns, name;
  enum channel channel;
  enum routing routing;
  int32_t max_connections; /* 1…1,024 per executor */
  struct group_bounds bounds;
};
#define GROUP_MAX_CONNECTIONS 1024
/* The secret's text is given here once and never again. Rows are without secrets (sealed fields emptied), texts in `mem`. */
int registry_group_create(struct registry *r, const struct group_new *g, char ret_secret[REGISTRY_SECRET_MAX],
                          struct group_row *ret, struct arena *mem, struct err *e);
/* New routing and connections; if_version 0 = any. ERR_STALE. */
int registry_group_change(struct registry *r, const struct group_new *g, int32_t if_version,
                          struct group_row *ret, struct arena *mem, struct err *e);
/* What would have to be written so that the group is as `g` says: `put` for the store, in a transaction of the caller's. A new group
 * has a new secret, whose text is given here. ERR_INVALID "/channel": it cannot be changed. Nothing is written. */
struct group_plan {
  bool there;
  struct group_row was; /* when `there`; without secrets */
  struct st_group_put put;
  char secret[REGISTRY_SECRET_MAX]; /* of a new one */
};
int registry_group_plan(struct registry *r, const struct group_new *g, struct group_plan *ret,
                        struct arena *mem, struct err *e);
/* After the commit: the row as it was written. */
int registry_group_written(struct registry *r, const struct group_row *row, struct err *e);
/* A new secret; the one before stays valid until the next rotation or registry_group_retire. */
int registry_group_rotate(struct registry *r, struct slice ns, struct slice name,
                          char ret_secret[REGISTRY_SECRET_MAX], struct group_row *ret, struct arena *mem,
                          struct err *e);
int registry_group_retire(struct registry *r, struct slice ns, struct slice name,
                          struct err *e); /* the former secret ends */
int registry_group_get(struct registry *r, struct slice ns, struct slice name, struct group_row *ret,
                       struct arena *mem, struct err *e);
int registry_group_list(struct registry *r, struct slice ns, struct st_group_list_ret *ret, struct arena *mem,
                        struct err *e);
int registry_group_delete(struct registry *r, struct slice ns, struct slice name,
                          struct err *e); /* ERR_CONFLICT: in use */

/* Counts for metrics, group by group, also of those that are gone (memory). `each` must not block nor call the registry. */
struct group_counts {
  const char *ns, *group;
  int64_t by_state[EXECUTOR_STATE_MAX_];
  int64_t by_breaker[BREAKER_STATE_MAX_]; /* of those that are ONLINE or DRAINING, as this node sees them */
  int64_t slots, taken;                   /* of those that are ONLINE or DRAINING; taken: by this node */
};
void registry_counts(struct registry *r, void (*each)(void *arg, const struct group_counts *c), void *arg);
