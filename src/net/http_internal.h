#pragma once
/* Private to net: the server's insides, shared by http_server.c (life cycle) and http_conn.c (one connection). */
#include "base/thread.h"
#include "net/http_parse.h"
#include "net/http_text.h"
#include "net/list.h"
#include "net/stream.h"

#define HTTP_LINGER       (1 * USEC_PER_SEC) /* how long a refused client may take to read why */
#define HTTP_LINGER_BYTES (1024 * 1024)      /* and how much it may send meanwhile */
#define HTTP_STASH_BYTES  65536              /* pipelined bytes kept while a request is being handled */
#define HTTP_GATHER_BYTES 65536              /* answers to pipelined requests gathered into one write */
#define HTTP_REFUSED_MAX  256                /* connections beyond the limit that still get their 503 */
#define HTTP_PEER_TEXT    48

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
  struct link handling;                 /* connections whose request is being handled */
  int connections;                      /* open or being closed */
  struct mutex lock;                    /* protects: ended */
  struct cond done;
  bool ended;
};
void http_server_conn_gone(struct http_server *s);

struct http_conn;

/* One request on its way: returned to its connection for reuse, or freed when that has gone. */
struct http_exchange {
  struct http_request request; /* first: handlers hold a pointer to it */
  struct http_shell *shell;    /* referenced while the handler has it */
  struct http_conn *conn;      /* loop thread only; NULL: the client has gone */
  struct http_message message;
  struct buf out; /* the answer, made on the replying thread */
  bool head, http10, keep_alive, close;
  char peer[HTTP_PEER_TEXT];
};

struct http_conn {
  struct stream stream; /* first */
  struct http_server *server;
  struct due due;
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
};

void http_conn_new(struct http_server *s, bool refuse);
void http_conn_close(struct http_conn *c);
/* The deadline of the connection's state has passed. */
void http_conn_expired(struct http_conn *c);
void http_exchange_deliver(void *exchange);
