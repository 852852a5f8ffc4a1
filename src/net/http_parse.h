#pragma once
/* Private to net: collects one message at a time from bytes in any split, with limits. Both directions. */
#include "net/buf.h"
#include "net/http_scan.h"
#include "net/http_server.h"
#include <llhttp.h>

#define HTTP_HEADERS_MAX 100 /* fields in one message, unless set otherwise: 431 */

struct span {
  uint32_t off, n;
};

/* What has been collected; reusable. Offsets point into `text` until http_message_seal makes slices of them. */
struct http_message {
  struct buf text;
  struct span url, body;
  struct span *spans; /* name, value, name, value, … */
  size_t span_n, span_cap;
  struct http_header *headers;
  size_t header_n, header_cap;
};
void http_message_clear(struct http_message *m);
void http_message_done(struct http_message *m);
void http_message_seal(struct http_message *m);
struct slice http_message_slice(const struct http_message *m, struct span s);

enum http_parsed { HTTP_MORE, HTTP_DONE, HTTP_BAD };

struct http_parse {
  llhttp_t parser;
  struct http_message *message; /* where the next bytes go; may change between messages */
  size_t max_header_bytes, max_body_bytes, max_headers;
  size_t header_bytes;   /* a response's head, and trailers */
  struct http_scan scan; /* a request's head */
  size_t raw_body_bytes; /* a request's body with its framing */
  unsigned seen;         /* fields that may be there once only, a bit for each */
  bool head;             /* a response to HEAD is expected */
  bool in_name;          /* in the middle of a header name */
  bool headers_done;
  bool expects; /* request: the client waits for 100 Continue */
  bool keep_alive;
  bool started;    /* at least one byte of this message was fed */
  int status;      /* when bad: the status to refuse a request with */
  const char *why; /* when bad: short reason */
};

/* `type` is HTTP_REQUEST or HTTP_RESPONSE. */
void http_parse_init(struct http_parse *p, llhttp_type_t type, size_t max_header_bytes,
                     size_t max_body_bytes);
/* Be ready for another message in p->message (which must be clear). */
void http_parse_next(struct http_parse *p);
/* Takes bytes up to the end of one message. DONE: the message is sealed and complete. */
enum http_parsed http_parse_feed(struct http_parse *p, const char *bytes, size_t n, size_t *ret_used);
/* The other side has closed: DONE when that completes a response. */
enum http_parsed http_parse_end(struct http_parse *p);
