#pragma once
/* HTTP/1.1 server (RFC 9110, 9112) on a loop: keep-alive, limits, absolute deadlines, graceful drain.
 * What two readers could read differently is refused with 400: a second Content-Length or Host, Content-Length with
 * Transfer-Encoding, "+5", bare line feeds, folded fields, … Compressed bodies are 415. CONNECT is 501, offers to upgrade are ignored.
 * One request at a time per connection: pipelined bytes wait until the reply is written.
 * The handler runs on the loop thread and must not block; it may reply at once or later from any thread. */
#include "base/err.h"
#include "base/str.h"
#include "base/time.h"

struct loop;
struct http_server;

struct http_header {
  struct slice name, value; /* name as sent; compare without case */
};

struct http_request {
  struct slice method; /* "GET" */
  struct slice path;   /* percent-decoding not applied; without query */
  struct slice query;  /* without '?' */
  struct slice body;   /* whole; at most max_body_bytes */
  const struct http_header *headers;
  size_t header_count;
  const char *peer; /* numeric address of the client */
  uint64_t id;      /* unique in this process: the request id */
  void *user;       /* the handler's own */
};
/* Everything in the request stays valid until its reply has been given. */
struct slice http_request_header(const struct http_request *r, const char *name); /* {0} when absent */

struct http_server_options {
  const char *address;     /* numeric, e.g. "127.0.0.1" or "::1" */
  int port;                /* 0 = any free port: http_server_port tells */
  size_t max_header_bytes; /* 16 KiB: 431 */
  size_t max_body_bytes;   /* 2 MiB: 413 */
  int max_connections;     /* 10,000: one that has been idle for a second makes room, else 503 and close */
  usec_t header_timeout;   /* 10 s from the first byte of a request: 408 */
  usec_t body_timeout;     /* 30 s from the end of the header: 408 */
  usec_t write_timeout;    /* 30 s: closed */
  usec_t idle_timeout;     /* 75 s between requests: closed */
  /* 0 = no such limit, the default. */
  usec_t request_timeout; /* from the first byte of a request to the last of its answer: 408, 504 or reset */
  int max_connections_per_address; /* IPv6: per /64. 429 and close */
  int max_requests_per_token;      /* in progress with one Authorization: 429 */
  int64_t
      rate_per_address;   /* requests and connections a second, twice that at once: 429, or closed unheard */
  int64_t rate_per_token; /* requests a second with one Authorization, twice that at once: 429 */
  size_t max_buffered_bytes; /* of all requests and answers together: 503, or reset */
  size_t max_headers;        /* 100 fields: 431 */
  void (*handle)(struct http_request *r, void *arg);
  /* Answer for what the parser itself refuses (may be NULL: a plain text): write a body for `status`. */
  void (*refusal)(int status, const char *why, struct str *body, const char **ret_content_type);
  void *arg;
};
void http_server_options_default(struct http_server_options *o);

/* Any thread. The loop must be running. */
int http_server_start(struct loop *l, const struct http_server_options *o, struct http_server **ret,
                      struct err *e);
int http_server_port(const struct http_server *s);
/* Stop accepting, finish what is in flight (at most `grace`), close idle connections, free. Any thread but the loop's. */
void http_server_drain(struct http_server **s, usec_t grace);

struct http_reply {
  int status;
  const char *content_type;          /* NULL: no body type */
  const struct http_header *headers; /* extra ones */
  size_t header_count;
  struct slice body; /* copied */
  bool close;        /* close the connection afterwards */
};
/* Give the answer and release the request; exactly once for each request, from any thread. If the client has
 * gone meanwhile the answer is dropped silently, also when the server itself has been drained and its loop stopped.
 * One write per response. HEAD answers carry no body. A header whose name or value has a control character is
 * left out: it could break the answer in two. Date, Content-Length and Connection are made here. */
void http_request_reply(struct http_request *r, const struct http_reply *reply);

/* Helpers for handlers. */
/* Percent-decode one path segment or query value ('+' = space when `form`). -EINVAL on a bad escape or NUL. */
int http_decode(struct slice s, bool form, struct str *out);
/* Next name=value of a query string (still encoded): false at the end. */
bool http_query_next(struct slice *rest, struct slice *ret_name, struct slice *ret_value);
