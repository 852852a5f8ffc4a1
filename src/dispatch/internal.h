#pragma once
/* Private to src/dispatch. */
#include "base/mem.h"
#include "base/metric.h"
#include "base/thread.h"
#include "dispatch/dispatcher.h"
#include <stdatomic.h>
#include <uthash.h>

/* Name and payload of a task version, shared by its deliveries. */
struct task_text_id {
  int64_t task_id;
  int64_t version;
};
struct task_text {
  struct task_text_id id;
  _Atomic int32_t refs;
  char *ns, *name, *payload; /* payload NULL: none */
  size_t bytes;
  UT_hash_handle hh;
};
void task_text_unref(struct task_text **t);

struct text_cache { /* the dispatcher thread's; oldest out first */
  struct task_text *by_id;
  size_t bytes, max_bytes;
};
/* The texts of n jobs, from the cache or in one query. ret[i] is referenced; NULL when the version is gone. */
int text_cache_get(struct text_cache *c, struct store *store, struct run_job *const *jobs, size_t n,
                   struct task_text **ret, struct err *e);
void text_cache_done(struct text_cache *c);

enum { DISPATCH_PRIORITIES = 10 };

/* Jobs that wait for capacity, the higher priority first: one place for each (namespace, group, handler, labels), and for each instance
 * when the routing names one; and one for each instance that may have a job
 * already: such a job holds its slot, it must not stand behind those that wait for one. */
struct parking {
  char *key, *ns, *group;
  struct lane { /* first come, first served */
    struct waiting *head, *tail;
  } lanes[DISPATCH_PRIORITIES]; /* by priority */
  size_t count;
  usec_t retry_at;            /* monotonic: look again then; 0 = now */
  usec_t soonest;             /* while they are tried */
  struct parking *next_ready; /* … together with others */
  bool full;                  /* the last one found no executor; else those here only wait for their time */
  UT_hash_handle hh;
};
struct waiting { /* a job and what it met so far */
  struct run_job *job;
  struct task_text *text;
  struct instance *instance; /* not NULL: it may have been received there; deliver there again */
  char *avoid;               /* instance id that was busy or not reached */
  usec_t not_before, pause;  /* monotonic; back-off */
  bool was_lost;             /* a delivery of this attempt may have been received by `instance` */
  int told;                  /* why there is nobody: the last answer of registry_choose that was posted */
  struct waiting *next;
};

struct dispatcher {
  struct dispatch_options o;
  struct dispatch_channel channel;
  struct thread thread;
  struct mutex lock; /* guards the fields up to `stopping` */
  struct cond wake;
  struct run_job *jobs, **jobs_tail;
  struct waiting *again; /* back from a channel */
  struct cancel_order *cancels;
  struct capacity_hint *hints;
  bool stopping;
  _Atomic int64_t in_flight;
  struct parking *parked;
  struct text_cache texts;
  struct metric *results[DISPATCH_LOST + 1], *duration, *parked_gauge;
  size_t parked_count;
  usec_t database_at; /* monotonic: payloads could not be read, look again then */
};
struct cancel_order {
  struct live_cancel c; /* executor and spec are our own */
  int64_t fence;
  struct cancel_order *next;
};
struct capacity_hint {
  char *ns, *group;
  struct capacity_hint *next;
};
void waiting_free(struct dispatcher *d, struct waiting **w);
/* parking.c */
void park(struct dispatcher *d, struct waiting *w, usec_t retry_at, bool full);
void unpark_ready(struct dispatcher *d, usec_t mono);
void parking_hint(struct dispatcher *d, const char *ns, const char *group);
usec_t parking_next(struct dispatcher *d);
void parking_done(struct dispatcher *d);
bool parking_full(struct dispatcher *d,
                  const struct waiting *w); /* others wait for the same executors: stand in line */
/* dispatcher.c: choose an executor and send. */
enum send_result {
  SEND_GONE,  /* sent, or no longer wanted: `w` is not ours any more */
  SEND_FULL,  /* no executor can take it now: look again at *ret_retry_at or when there is capacity */
  SEND_LATER, /* not before *ret_retry_at */
};
struct choose_ask ask_of(const struct waiting *w); /* borrows from it; without `exclude` */
enum send_result try_send(struct dispatcher *d, struct waiting *w, usec_t mono, usec_t *ret_retry_at);
