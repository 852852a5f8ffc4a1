#pragma once
/* Private to src/executor. */
#include "base/mem.h"
#include "base/thread.h"
#include "core/breaker.h"
#include "base/json.h"
#include "base/rng.h"
#include "executor/registry.h"
#include <uthash.h>

struct group;

/* One incarnation of an executor; `i` is what others see. Referenced by its member and by those who chose it. */
struct inst {
  struct instance i;
  struct group *group;        /* lives as long as the registry */
  _Atomic int64_t cool_until; /* monotonic */
  _Atomic bool troubled;      /* the breaker is not calm: a good answer has to be told to it */
  struct breaker breaker;     /* under the lock, as what follows */
  bool online;                /* its member is ONLINE */
  int32_t weight;
  uint64_t hash;   /* of its id */
  char **handlers; /* owned, sorted */
  size_t handler_count;
  bool any_handler; /* "*" */
  json_t *labels;   /* owned; NULL: none that can be read */
};

/* An executor as this node knows it. */
struct member {
  struct inst *inst; /* a reference; inst->i.target may be NULL: its name could not be resolved */
  enum executor_state state;
  usec_t
      changed_at; /* monotonic: last change made here; a list read before that is older than what we know */
  usec_t resolve_at; /* without a target: when to try again */
  uint64_t seen;     /* number of the last refresh that listed it */
  int32_t beat_running;
  bool beat_pending;
  UT_hash_handle hh; /* by inst->i.id, in its group */
};

/* The instances that may have runs of one handler that ask for one set of labels, in the order of their ids; those of weight 0, for
 * pinned runs only, stand behind `count`. Made when it is first asked for. */
struct route {
  struct place {
    struct inst *inst; /* borrowed from the members */
    int64_t credit; /* ROUND_ROBIN with weights: grows by the weight, the highest is next and pays for all */
  } * list;
  size_t count, all;
  size_t next; /* where the round goes on */
  bool even;   /* all have the same weight */
  UT_hash_handle hh;
  char key[];
};

/* A group, known by "namespace/name" (neither contains a slash). Never freed before the registry (it comes back under the same
 * name, and instances point at it); `exists` says whether it is there. */
struct group {
  bool exists;
  enum routing routing;
  int32_t max_connections, version;
  struct group_bounds bounds;
  usec_t changed_at;
  uint64_t seen;
  char *sealed[2]; /* as stored, to see whether they changed */
  struct registry_secrets secrets;
  struct member *members;
  struct route *routes;       /* at most ROUTES_MAX */
  size_t routes_made;         /* since ever: their rounds begin at different places */
  bool routes_stale, waiting; /* waiting: a choose was refused since the last on_capacity */
  char *ns, *name;
  UT_hash_handle hh;
  char key[];
};

struct event { /* a hook to call when the lock is off */
  bool lost;   /* else: capacity */
  char *ns, *group, *id;
  int64_t incarnation;
};
struct events {
  struct event *list;
  size_t count, cap;
};

struct registry {
  struct registry_options o;
  struct registry_hooks hooks;
  struct network_list *own_networks; /* when none were given */
  struct thread beats, refresher;
  struct metric *opened; /* breakers */
  struct mutex lock;     /* protects what follows, and all groups, members and routes */
  struct cond wake;
  bool stopping, refresh_now;
  struct group *groups;
  struct rng rng;
  uint64_t refresh_no;
  struct member **pending; /* beats to be flushed */
  size_t pending_count, pending_cap;
  usec_t expire_after; /* monotonic: executors had a fair chance to beat from then on */
  usec_t expired_at;
};

usec_t registry_mono(const struct registry *r);
static inline bool alive(enum executor_state s) { return s == EXECUTOR_ONLINE || s == EXECUTOR_DRAINING; }

/* events.c: collect under the lock, deliver without it. */
void event_lost(struct events *v, const struct inst *x);
void event_capacity(struct events *v, const struct group *g);
void events_deliver(struct registry *r, struct events *v);

/* table.c: all with the lock held unless said otherwise. */
struct group *group_find(struct registry *r, struct slice ns, struct slice name); /* NULL unless it exists */
struct group *group_make(struct registry *r, struct slice ns, struct slice name);
struct member *member_find(struct group *g, struct slice id);
/* `x` (a reference, taken over) becomes the member's present incarnation. */
struct member *member_put(struct group *g, struct inst *x, enum executor_state state, struct events *v);
void member_set_state(struct member *m, enum executor_state state, struct events *v);
void member_set_weight(struct member *m, int32_t weight);
void member_remove(struct registry *r, struct group *g, struct member *m, struct events *v);
/* The group has these bounds: said once when they are others than before. */
void group_set_bounds(struct registry *r, struct group *g, const struct group_bounds *b);
void group_gone(struct registry *r, struct group *g, struct events *v);
/* Without the lock: a new incarnation from a row. `target` may be NULL; it is taken over. handlers: JSON array text. */
struct inst *inst_new(struct group *g, const struct executor_row *row, struct target *target);
void table_free(struct registry *r);

/* route.c, with the lock */
struct route *route_for(struct group *g, struct slice handler, struct slice labels);
void routes_clear(struct group *g);

/* refresh.c */
int registry_refresh(struct registry *r, struct err *e);
struct as_of {
  usec_t time; /* monotonic: what the row says was true then */
  bool local;  /* this node has just written it: older lists must not undo it */
};
/* Without the lock: unseal and bring into the table what a row says. */
int group_apply(struct registry *r, const struct group_row *row, struct as_of at, struct err *e);

/* beats.c */
void beats_run(void *registry);
int beats_flush(struct registry *r, struct err *e);
int beats_expire(struct registry *r, struct err *e);
void pending_add(struct registry *r, struct member *m);    /* with the lock */
void pending_remove(struct registry *r, struct member *m); /* with the lock */
