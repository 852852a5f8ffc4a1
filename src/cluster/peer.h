#pragma once
/* The peer link (storage.md "Between nodes", docs/adr/0024): one node asks another one something, over HTTP/1.1, both ways signed with a
 * secret that follows from the cluster's secret.key. Requests and answers are JSON documents of whoever asks and answers; what may be asked
 * is a row of PEER_KINDS. Whatever is asked may come twice, late, or not at all: it must be idempotent, and the one who is asked judges by
 * what it knows itself. Thread-safe. */
#include "base/json.h"
#include "cluster/directory.h"

struct http_request;
struct loop;
struct peers;

#define PEER_KINDS(X)                                                                                        \
  X(PING, "ping")     /* {}: nothing but an answer */                                                        \
  X(EVENTS, "events") /* reports and cancels for their owner: src/report/forward.h */
enum peer_kind {
#define X(id, word) PEER_##id,
  PEER_KINDS(X)
#undef X
      PEER_KIND_MAX_
};

#define PEER_PATH     "/api/v1/peer"
#define PEER_BODY_MAX ((size_t)1024 * 1024) /* of one request: more is to be asked in several */

struct peers_options {
  struct loop *loop;
  struct directory *directory; /* borrowed */
  const char *node_id;
  uint8_t key[32];          /* secret.key, the same on all nodes */
  usec_t (*now)(void *arg); /* database time, which all nodes share; thread-safe */
  void *arg;
  const char *ca_file; /* certificates that sign https addresses; NULL: the system's */
  usec_t timeout;      /* until the whole answer: 500 ms */
  int connections;     /* to one node: 16 */
  int waiting;         /* requests to one node that wait for a connection: 1,024; beyond: not asked */
};
/* What is counted, by its names: there on every node, also where there can be no other one. */
void peers_metrics(void);
void peers_options_default(struct peers_options *o);
int peers_new(const struct peers_options *o, struct peers **ret, struct err *e);
/* Starts the thread that resolves addresses; each node that is new is asked once whether it understands us, so that the log says early when not. */
int peers_start(struct peers *p, struct err *e);
/* Any thread but the loop's. What is under way ends without an answer; nothing more may be asked. */
void peers_stop(struct peers *p);
void peers_free(struct peers **p);

enum peer_outcome {
  PEER_ANSWERED,
  PEER_SILENT,  /* not reached, or no whole answer in time: it may have carried it out all the same */
  PEER_REFUSED, /* another secret, there or here, or it is another node by now: it has not carried it out, or its word counts for nothing */
};
struct peer_answer {
  enum peer_outcome outcome;
  const json_t *body; /* ANSWERED: what it said, for the time of the call */
  const char *why;    /* else */
};
/* Ask node `number` (directory_owner). `body`: JSON text of at most PEER_BODY_MAX, copied. `done` is called once, on the loop thread. False:
 * not asked (its address is not known, or it was silent a moment ago, or too much waits for it), `done` is not called. Never blocks. */
struct peer_ask {
  int number;
  enum peer_kind kind;
  struct slice body;
  void (*done)(void *arg, const struct peer_answer *a);
  void *arg;
};
bool peers_ask(struct peers *p, const struct peer_ask *ask);

/* What other nodes ask. `asked` is called on the loop thread or on a worker and must not block: 0: it answers, now or later, from any thread,
 * with peer_reply exactly once; `body` is valid until then. Negative: refused with `e`. Before the server listens. */
struct peer_request;
struct peer_handler {
  int (*asked)(void *arg, struct peer_request *r, const json_t *body, struct err *e);
  void *arg;
};
void peers_handle(struct peers *p, enum peer_kind kind, const struct peer_handler *h);
void peer_reply(struct peer_request *r, struct slice body); /* JSON text */
/* POST PEER_PATH: checks signature, time, sender and addressee. 0: taken; negative: refused, the request is still the caller's. */
int peers_http(struct peers *p, struct http_request *r, struct err *e);

/* Ask all other living nodes for an answer, wait for it, and tell of each. Blocks for `timeout` at most; not on the loop thread. */
struct peer_state {
  const char *id;
  enum peer_outcome outcome;
  const char *why;
};
void peers_look(struct peers *p, void (*tell)(void *arg, const struct peer_state *s), void *arg);
