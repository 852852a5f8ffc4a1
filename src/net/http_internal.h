#pragma once
/* Private to net: the server's insides, shared by http_server.c (life cycle), http_admit.c (who may come in) and http_conn.c (one
 * connection). */
#include "base/metric.h"
#include "base/thread.h"
#include "net/http_limit.h"
#include "net/http_parse.h"
#include "net/http_text.h"
#include "net/list.h"
#include "net/stream.h"

#define HTTP_LINGER        (1 * USEC_PER_SEC) /* how long a refused client may take to read why */
#define HTTP_LINGER_BYTES  (1024 * 1024)      /* and how much it may send meanwhile */
#define HTTP_STASH_BYTES   65536              /* pipelined bytes kept while a request is being handled */
#define HTTP_GATHER_BYTES  65536              /* answers to pipelined requests gathered into one write */
#define HTTP_REFUSED_MAX   256                /* connections beyond the limit that still get their 503 */
#define HTTP_TURN_REQUESTS 64           /* pipelined requests of one connection before the others' turn */
#define HTTP_TURN_PAUSE    USEC_PER_MS  /* and when it goes on */
#define HTTP_SPARE_MAX     64           /* exchanges kept for use by any connection */
#define HTTP_ROOM_AGE      USEC_PER_SEC /* when all places are taken: who has been idle so long gives his */
#define HTTP_PEER_TEXT     48

/* Why connections and requests are refused or cut: label `cause` of kelou_http_refused_total. */
#define HTTP_CAUSES(X)                                                                                       \
  X(connections)     /* too many of them: 503 */                                                             \
  X(address)         /* too many from one address: 429 */                                                    \
  X(address_rate)    /* too many requests or connections a second from one address: 429, or closed */        \
  X(token)           /* too many requests in progress with one token: 429 */                                 \
  X(token_rate)      /* too many requests a second with one token: 429 */                                    \
  X(memory)          /* too much received or waiting to be read: 503, or reset */                            \
  X(malformed)       /* not a request that is served: 400, 415, 417, 501, 505 */                             \
  X(size)            /* too large: 413, 431 */                                                               \
  X(header_timeout)  /* 408 */                                                                               \
  X(body_timeout)    /* 408 */                                                                               \
  X(request_timeout) /* 408, 504, or reset */                                                                \
  X(write_timeout)   /* reset */                                                                             \
  X(idle_timeout)    /* closed */                                                                            \
  X(room)            /* idle, and closed for a new one */                                                    \
  X(drain)           /* still open when the grace was over */                                                \
  X(accept)          /* the kernel gave none: closed */
enum http_cause {
#define X(name) HTTP_CAUSE_##name,
  HTTP_CAUSES(X)
#undef X
      HTTP_CAUSE_MAX_
};

enum conn_state {
  CONN_IDLE,     /* between requests */
  CONN_HEADER,   /* the first bytes of a request are here */
  CONN_BODY,     /* the header is complete */
  CONN_HANDLING, /* the handler has the request */
  CONN_WRITING,  /* the answer does not fit into the socket yet */
  CONN_LINGER,   /* refused: what still comes is dropped */
  CONN_STATE_MAX_
};

/* What outlives connections and even the server: requests in handlers point here. */
struct http_shell {
  atomic_int refs;
  struct mutex lock; /* protects: closed */
  bool closed;       /* no answer may be posted any more */
  struct loop *loop;
  atomic_bool draining;
  atomic_size_t buffered;             /* bytes in requests and answers */
  struct http_limiter address, token; /* loop thread only */
};
void http_shell_unref(struct http_shell *s);

struct http_server {
  struct http_shell *shell;
  struct loop *loop;
  struct http_server_options o;
  char *address;
  int port;
  uv_tcp_t listener;
  bool listening, listener_closed;
  struct loop_timer *tick;
  struct loop_timer *grace;
  struct due_list due[CONN_STATE_MAX_]; /* no entries for HANDLING: that deadline is the handler's */
  struct due_list whole;                /* from the first byte of a request to the last of its answer */
  struct link handling;                 /* connections whose request is being handled */
  struct link again;                    /* those with more requests at hand, whose turn will come */
  struct loop_timer *again_timer;
  struct http_exchange *spare; /* the last one used is the first to be used again */
  int spare_n;
  int connections;   /* open or being closed */
  int open, refused; /* open ones; among them those that are told that they are too many */
  struct metric *causes[HTTP_CAUSE_MAX_], *open_gauge, *bytes_gauge;
  struct mutex lock; /* protects: ended */
  struct cond done;
  bool ended;
};
struct http_conn;
void http_server_conn_gone(struct http_server *s);
void http_server_conn_closing(struct http_conn *c);
void http_server_again(struct http_conn *c); /* its stash has its turn later */
void http_count(struct http_server *s, enum http_cause cause);

/* An answer that the server gives by itself. */
struct http_refusal {
  struct str body;
  struct http_header retry;
  char seconds[12];
  struct http_reply reply;
};
void http_refusal_init(struct http_refusal *r, const struct http_server *s, int status, const char *why,
                       int retry_after /* with 429 and 503 */);
void http_refusal_done(struct http_refusal *r);

/* One request on its way: returned to its connection for reuse, or freed when that has gone. */
struct http_exchange {
  struct http_request request; /* first: handlers hold a pointer to it */
  struct http_shell *shell;    /* referenced while the handler has it */
  struct http_conn *conn;      /* loop thread only; NULL: the client has gone */
  struct http_exchange *next_spare;
  struct http_limit_entry *token; /* held; loop thread only */
  size_t counted;                 /* bytes, in shell->buffered */
  struct http_message message;
  struct buf out; /* the answer, made on the replying thread */
  bool head, http10, keep_alive, close;
  char peer[HTTP_PEER_TEXT];
};

struct http_conn {
  struct stream stream; /* first */
  struct http_server *server;
  struct due due;   /* of its state */
  struct due whole; /* of its request */
  struct link again;
  struct http_limit_entry *address; /* held */
  size_t counted;                   /* bytes, in shell->buffered */
  enum conn_state state;
  struct http_parse parse;
  struct http_exchange *exchange; /* being filled, handled or written */
  struct buf stash, gather;
  size_t dropped;    /* bytes thrown away while lingering */
  bool running;      /* inside conn_run: a reply given now is picked up there */
  bool with_handler; /* the exchange is the handler's until its answer is delivered here */
  bool last;         /* close after what is being written */
  bool linger;       /* and wait for the client to read it */
  bool eof;          /* the client sends no more */
  bool continued;    /* 100 Continue was sent for this request */
  bool refused;      /* one too many */
  char peer[HTTP_PEER_TEXT];
};

/* http_conn.c */
struct http_conn *http_conn_make(struct http_server *s); /* not connected yet */
void http_conn_refuse(struct http_conn *c, enum http_cause cause, int status, const char *why);
void http_conn_close(struct http_conn *c);
void http_conn_expired(struct http_conn *c); /* the deadline of its state has passed */
void http_conn_overdue(struct http_conn *c); /* that of its request */
void http_conn_again(struct http_conn *c);
void http_exchange_deliver(void *exchange);
void http_exchange_free(struct http_exchange *x);

/* http_admit.c */
void http_accept(struct http_server *s); /* take a waiting connection in, or refuse it */
/* A request is complete: may it be handled? Else it has been answered. `more`: others are behind it. */
bool http_admit(struct http_conn *c, bool more);
