#pragma once
/* Private to net: the client's insides, shared by http_client.c (calls and their deadlines) and
 * http_pool.c (connections). Everything but `outstanding` and `ended` belongs to the loop thread. */
#include "base/thread.h"
#include "net/http_client.h"
#include "net/http_parse.h"
#include "net/list.h"
#include "net/stream.h"
#include "net/target_internal.h"

#define HTTP_RESPONSE_HEADER_BYTES (64 * 1024)

struct client_conn;

struct call {
  struct link link; /* in pool->waiting */
  struct http_client *client;
  struct target *target;
  struct client_conn *conn; /* NULL: waiting */
  usec_t started, deadline;
  size_t heap_at; /* 1-based place in the heap of deadlines, 0 = not in it */
  bool head, retried;
  const char *bad; /* why this cannot be sent at all */
  void (*done)(const struct http_result *r, void *arg);
  void *arg;
  struct buf text; /* the whole request */
};

struct pool {
  struct pool *next; /* in its hash bucket */
  struct http_client *client;
  struct target *target;
  struct link conns;   /* open ones */
  struct link idle;    /* last used at the end: taken first */
  struct link waiting; /* calls, first come first served */
  int open, connecting, waiting_n;
  int handles; /* open or being closed: the pool lives as long */
};

struct client_conn {
  struct stream stream; /* first */
  struct pool *pool;
  struct link link; /* in pool->conns */
  struct link idle; /* in pool->idle */
  struct due due;   /* connecting or idle */
  struct call *call;
  struct http_parse parse;
  struct http_message message;
  bool connecting;
  usec_t idle_since;
};

struct http_client {
  struct loop *loop;
  struct http_client_options o;
  struct tls_context *tls;
  struct pool **buckets;
  size_t bucket_n, pool_n;
  struct due_list connecting, idle;
  struct loop_timer *tick, *alarm;
  usec_t alarm_at;
  struct call **heap; /* by deadline */
  size_t heap_n, heap_cap;
  int handles;
  bool stopping;
  atomic_int outstanding; /* calls made whose done() has not returned */
  struct mutex lock;      /* protects: ended */
  struct cond ended_cond;
  bool ended;
};

/* http_client.c */
void client_finish(struct call *k, enum http_call_outcome outcome, const char *why);
void client_answer(struct call *k, const struct http_parse *p, const struct http_message *m);
void client_end_when_empty(struct http_client *c);

/* http_pool.c */
void pool_submit(struct http_client *c, struct call *k);
void pool_expire(struct call *k); /* the call's time is up */
void pool_tick(struct http_client *c);
void pool_close_all(struct http_client *c, const char *why);
