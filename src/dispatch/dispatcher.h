#pragma once
/* The dispatcher: takes deliveries whose rows are committed, finds an executor instance, sends, and tells the run service what came of it.
 * One thread; a channel does the sending. A slow or dead executor costs a waiting place of its own, never another's. */
#include "executor/registry.h"
#include "run/run.h"
#include "store/store.h"

struct dispatcher;

/* One delivery under way. Owned by the dispatcher; a channel gives it back with dispatch_answer, exactly once. */
struct delivery {
  struct run_job *job;
  struct instance *instance;           /* a reference: what is sent goes there */
  struct slice ns, task_name, payload; /* payload: JSON text or empty; valid as long as the delivery */
  usec_t timeout;                      /* for the acknowledgement */
  /* the dispatcher's own */
  struct task_text *text; /* keeps the slices alive */
  struct waiting *again;  /* what the job met so far */
  char *instance_id;
  usec_t sent_at; /* monotonic */
};
enum dispatch_outcome {
  DISPATCH_ACCEPTED,    /* it runs on and will report */
  DISPATCH_DONE,        /* it is done: the event says how (SUCCESS, FAIL, CANCELLED) */
  DISPATCH_BUSY,        /* 429, 503: not now; retry_after */
  DISPATCH_REFUSED,     /* it will not have it; out_of_order: nor anything else */
  DISPATCH_UNREACHABLE, /* surely not received */
  DISPATCH_LOST,        /* may have been received */
};
struct dispatch_answer {
  enum dispatch_outcome outcome;
  struct live_event
      event; /* DONE: kind, result, error…; others: error_type and error_message if there is something to say */
  usec_t retry_after; /* BUSY; 0 = not said */
  bool out_of_order;  /* REFUSED: by a fault of its own (5xx), which counts for its breaker */
};
struct dispatch_channel {
  const char *name;
  /* Start sending; never blocks. The answer may come from any thread, also from within. */
  void (*send)(void *arg, struct delivery *d);
  /* Tell an executor to stop a run; best effort, repeated a few times by the channel. `i` is referenced by the callee if kept. */
  void (*cancel)(void *arg, struct instance *i, const struct live_cancel *c, int64_t fence);
  void *arg;
};
struct dispatch_options {
  struct run_service *runs; /* borrowed, as all below */
  struct registry *registry;
  struct store *store; /* pooled: names and payloads of tasks */
  usec_t (*now)(void *arg);
  bool (*may_send)(void *arg); /* is the node's lease valid? Else nothing is sent. NULL: always */
  void *now_arg;               /* of both */
  size_t text_cache_bytes;     /* names and payloads kept in memory: 64 MiB */
  usec_t ack_timeout; /* for one acknowledgement, at most: 5 s (and half of the task's dispatch_timeout) */
  usec_t retry_first, retry_most; /* between deliveries of one attempt: 100 ms … 2 s */
  usec_t cool_busy; /* an instance is left alone so long: 200 ms, or its Retry-After, at most 30 s */
};
void dispatch_options_default(struct dispatch_options *o);
int dispatcher_new(const struct dispatch_options *o, struct dispatcher **ret, struct err *e);
void dispatcher_channel(struct dispatcher *d, const struct dispatch_channel *c); /* before start */
int dispatcher_start(struct dispatcher *d, struct err *e);
void dispatcher_stop(struct dispatcher *d); /* what was not sent stays PENDING in the database */
void dispatcher_free(struct dispatcher **d);

/* Hooks of the run service and the registry: never block. */
void dispatcher_deliver(struct dispatcher *d, struct run_job *jobs);
void dispatcher_cancel(struct dispatcher *d, const struct live_cancel *c, int64_t fence);
void dispatcher_release(struct dispatcher *d, void *slot);
void dispatcher_capacity(struct dispatcher *d, struct slice ns, struct slice group);
/* From a channel. */
void dispatch_answer(struct dispatcher *d, struct delivery *v, const struct dispatch_answer *a);
