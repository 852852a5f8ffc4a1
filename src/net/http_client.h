#pragma once
/* HTTP/1.1 client on a loop: a keep-alive pool for each target, bounded connections and bounded waiting calls
 * for each target, so that one slow or dead target never slows another. https targets use TLS with
 * certificate and name checks. No redirects, ever. */
#include "base/err.h"
#include "base/str.h"
#include "base/time.h"
#include "net/http_server.h"
#include "net/target.h"

struct loop;
struct http_client;

struct http_client_options {
  int max_connections_per_target; /* 16 */
  int max_waiting_per_target;     /* 1,024 calls wait for a connection; beyond: HTTP_CALL_REFUSED at once */
  size_t max_response_bytes;      /* 1 MiB + 64 KiB */
  usec_t connect_timeout;         /* 3 s */
  usec_t idle_timeout;            /* 60 s, then an idle connection is closed */
  const char *ca_file;            /* NULL = the system's */
};
void http_client_options_default(struct http_client_options *o);

enum http_call_outcome {
  HTTP_CALL_ANSWERED, /* a whole response */
  HTTP_CALL_NOT_SENT, /* no connection, or the time was up before a byte of the request was written: surely not received */
  HTTP_CALL_REFUSED, /* the queue for this target is full */
  HTTP_CALL_LOST,    /* written (even in part), no whole answer: may have been received */
};

struct http_result {
  enum http_call_outcome outcome;
  int status;                        /* when answered */
  const struct http_header *headers; /* valid during the callback, as is body */
  size_t header_count;
  struct slice body;
  const char *why; /* short English reason when not answered */
  usec_t elapsed;
};

struct http_call {
  const struct target *target; /* referenced for the duration of the call */
  const char *method;          /* literal */
  struct slice path; /* begins with '/', visible ASCII; appended to the target's base path; copied */
  const struct http_header *headers; /* copied; Host, Content-Length, Connection are made here */
  size_t header_count;
  struct slice body;                                    /* copied */
  usec_t timeout;                                       /* from now to the whole answer */
  void (*done)(const struct http_result *r, void *arg); /* exactly once, on the loop thread */
  void *arg;
};

int http_client_new(struct loop *l, const struct http_client_options *o, struct http_client **ret,
                    struct err *e);
/* Any thread but the loop's. Calls in flight end with NOT_SENT or LOST before this returns, and so do (NOT_SENT) calls
 * that a `done` makes meanwhile; nobody else may make calls any more. */
void http_client_free(struct http_client **c);
/* Any thread, never blocks; `done` is never called from inside. When connecting fails and no other connection to the
 * target works, all calls that wait for one end with NOT_SENT. A stale keep-alive connection (closed by the peer before any byte of the answer) is retried once on a fresh
 * one by the pool only when nothing of this request was written; otherwise the outcome is LOST: the caller decides. */
void http_client_call(struct http_client *c, const struct http_call *call);
