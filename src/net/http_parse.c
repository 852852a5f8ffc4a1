#include "net/http_parse.h"
#include "net/http_text.h"
#include <ctype.h>

#define HOST_MAX    262   /* a name and a port */
#define KEEP_BYTES  16384 /* a text buffer above this size is given back between messages */
#define AHEAD_BYTES 16384 /* reserved at once for an announced body; the rest only as it comes */

void http_message_clear(struct http_message *m) {
  buf_clear(&m->text, KEEP_BYTES);
  m->url = m->body = (struct span){0};
  m->span_n = m->header_n = 0;
}

void http_message_done(struct http_message *m) {
  buf_done(&m->text);
  mem_free(m->spans);
  mem_free(m->headers);
}

struct slice http_message_slice(const struct http_message *m, struct span s) {
  return s.n ? slice_n(m->text.p + s.off, s.n) : (struct slice){0};
}

void http_message_seal(struct http_message *m) {
  m->header_n = m->span_n / 2;
  if (m->header_cap < m->header_n) {
    m->header_cap = m->span_cap / 2;
    m->headers = mem_grow(m->headers, m->header_cap, sizeof *m->headers);
  }
  for (size_t i = 0; i < m->header_n; i++) {
    struct slice value = http_message_slice(m, m->spans[2 * i + 1]);
    while (value.n && (value.p[value.n - 1] == ' ' || value.p[value.n - 1] == '\t'))
      value.n--;
    if (!value.p) /* there, but empty: not the same as absent */
      value.p = "";
    m->headers[i] = (struct http_header){http_message_slice(m, m->spans[2 * i]), value};
  }
}

static int refuse(struct http_parse *p, int status, const char *why) {
  p->status = status;
  p->why = why;
  return HPE_USER;
}

/* Append to the text and to the span that ends there. */
static void extend(struct http_message *m, struct span *s, const char *at, size_t n) {
  if (!s->n)
    s->off = (uint32_t)m->text.n;
  buf_add(&m->text, at, n);
  s->n += (uint32_t)n;
}

static int count_header(struct http_parse *p, size_t n) {
  p->header_bytes += n;
  return p->header_bytes > p->max_header_bytes ? refuse(p, 431, "the header is too large") : 0;
}

static int on_url(llhttp_t *l, const char *at, size_t n) {
  struct http_parse *p = l->data;
  int r = count_header(p, n);
  if (r == 0)
    extend(p->message, &p->message->url, at, n);
  return r;
}

static int on_name(llhttp_t *l, const char *at, size_t n) {
  struct http_parse *p = l->data;
  struct http_message *m = p->message;
  int r = count_header(p, n + (p->in_name ? 0 : 4)); /* ": " and the line's end count too */
  if (r || p->headers_done)                          /* trailers are counted, and dropped */
    return r;
  if (!p->in_name) {
    if (m->span_n >= 2 * p->max_headers)
      return refuse(p, 431, "too many header fields");
    mem_reserve(m->spans, m->span_n + 1, m->span_cap);
    m->spans[m->span_n] = m->spans[m->span_n + 1] = (struct span){0};
    m->span_n += 2;
    p->in_name = true;
  }
  extend(m, &m->spans[m->span_n - 2], at, n);
  return 0;
}

static int on_name_complete(llhttp_t *l) {
  struct http_parse *p = l->data;
  p->in_name = false;
  return 0;
}

static int on_value(llhttp_t *l, const char *at, size_t n) {
  struct http_parse *p = l->data;
  int r = count_header(p, n);
  if (r == 0 && !p->headers_done)
    extend(p->message, &p->message->spans[p->message->span_n - 1], at, n);
  return r;
}

/* --- the few fields that steer a request ----------------------------------------------------------------- */

enum once {
  HOST,
  EXPECT,
  AUTHORIZATION,
  CONTENT_TYPE,
  CONTENT_ENCODING,
  TRANSFER_ENCODING,
  IDEMPOTENCY_KEY,
  ONCE_MAX_
};

/* A second one would let two readers see two requests. */
static const struct {
  const char *name, *twice;
} once[ONCE_MAX_] = {
    [HOST] = {"host", "more than one Host"},
    [EXPECT] = {"expect", "more than one Expect"},
    [AUTHORIZATION] = {"authorization", "more than one Authorization"},
    [CONTENT_TYPE] = {"content-type", "more than one Content-Type"},
    [CONTENT_ENCODING] = {"content-encoding", "more than one Content-Encoding"},
    [TRANSFER_ENCODING] = {"transfer-encoding", "more than one Transfer-Encoding"},
    [IDEMPOTENCY_KEY] = {"idempotency-key", "more than one Idempotency-Key"},
};

/* A name or an address, perhaps with a port. */
static bool host_good(struct slice host) {
  for (size_t i = 0; i < host.n; i++)
    if (!isalnum((unsigned char)host.p[i]) && !strchr("-._:[]", host.p[i]))
      return false;
  return host.n && host.n <= HOST_MAX;
}

static int field_value(struct http_parse *p, enum once which, struct slice value) {
  bool modern = p->parser.http_minor >= 1;
  switch (which) {
  case HOST: return host_good(value) ? 0 : refuse(p, 400, "the Host is not valid");
  case EXPECT:
    p->expects = modern;
    return slice_nocase(value, SLICE("100-continue")) ? 0 : refuse(p, 417, "the expectation is not known");
  case CONTENT_ENCODING: /* not unpacked: a small body could become a huge one */
    return slice_nocase(value, SLICE("identity"))
               ? 0
               : refuse(p, 415, "bodies must not be compressed or encoded");
  case TRANSFER_ENCODING:
    if (!modern)
      return refuse(p, 400, "Transfer-Encoding in HTTP/1.0");
    return slice_nocase(value, SLICE("chunked")) ? 0 : refuse(p, 400, "the Transfer-Encoding is not chunked");
  case AUTHORIZATION:
  case CONTENT_TYPE:
  case IDEMPOTENCY_KEY:
  case ONCE_MAX_: break;
  }
  return 0;
}

static int look_at_fields(struct http_parse *p) {
  struct http_message *m = p->message;
  for (size_t i = 0; i + 1 < m->span_n; i += 2) {
    struct slice name = http_message_slice(m, m->spans[i]);
    int which = 0;
    while (which < ONCE_MAX_ && !slice_eqz_nocase(name, once[which].name))
      which++;
    if (which == ONCE_MAX_)
      continue;
    if (p->seen & 1U << which)
      return refuse(p, 400, once[which].twice);
    p->seen |= 1U << which;
    int r = field_value(p, (enum once)which, slice_trim(http_message_slice(m, m->spans[i + 1])));
    if (r)
      return r;
  }
  if (p->parser.http_minor >= 1 && !(p->seen & 1U << HOST))
    return refuse(p, 400, "no Host");
  return 0;
}

static int request_headers(struct http_parse *p) {
  llhttp_t *l = &p->parser;
  if (l->http_major != 1)
    return refuse(p, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
  if (l->method == HTTP_CONNECT)
    return refuse(p, 501, "CONNECT is not supported");
  l->upgrade = 0; /* an offer that we do not take up (RFC 9110 §7.8) */
  return look_at_fields(p);
}

static int response_headers(struct http_parse *p) {
  if (p->parser.status_code == 101)
    return refuse(p, 502, "the other side wants to change the protocol");
  if (p->parser.status_code < 100 || p->parser.status_code > 599)
    return refuse(p, 502, "not a valid HTTP answer");
  int status = p->parser.status_code;
  return p->head || status < 200 || status == 204 || status == 304; /* never a body, whatever is announced */
}

static int on_headers(llhttp_t *l) {
  struct http_parse *p = l->data;
  struct http_message *m = p->message;
  p->headers_done = true;
  int r = l->type == HTTP_REQUEST ? request_headers(p) : response_headers(p);
  if (r == HPE_USER)
    return -1;
  bool announced = r == 0 && l->flags & F_CONTENT_LENGTH;
  if (announced && l->content_length > p->max_body_bytes) {
    (void)refuse(p, 413, "the body is too large");
    return -1;
  }
  if (announced)
    (void)buf_room(&m->text, l->content_length < AHEAD_BYTES ? (size_t)l->content_length : AHEAD_BYTES);
  return r;
}

static int on_body(llhttp_t *l, const char *at, size_t n) {
  struct http_parse *p = l->data;
  if (n > p->max_body_bytes - p->message->body.n)
    return refuse(p, 413, "the body is too large");
  extend(p->message, &p->message->body, at, n);
  return 0;
}

static int on_message(llhttp_t *l) {
  struct http_parse *p = l->data;
  if (l->type == HTTP_RESPONSE && l->status_code < 200) { /* an interim answer: the real one follows */
    http_message_clear(p->message);
    http_parse_next(p);
    return 0;
  }
  p->keep_alive = llhttp_should_keep_alive(l);
  return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_url,
    .on_header_field = on_name,
    .on_header_field_complete = on_name_complete,
    .on_header_value = on_value,
    .on_headers_complete = on_headers,
    .on_body = on_body,
    .on_message_complete = on_message,
};

void http_parse_init(struct http_parse *p, llhttp_type_t type, size_t max_header_bytes,
                     size_t max_body_bytes) {
  *p = (struct http_parse){.max_header_bytes = max_header_bytes,
                           .max_body_bytes = max_body_bytes,
                           .max_headers = HTTP_HEADERS_MAX};
  llhttp_init(&p->parser, type, &settings);
  p->parser.data = p;
}

void http_parse_next(struct http_parse *p) {
  p->header_bytes = p->raw_body_bytes = 0;
  p->scan = (struct http_scan){0};
  p->seen = 0;
  p->in_name = p->headers_done = p->expects = p->started = false;
  p->why = NULL;
}

static enum http_parsed bad(struct http_parse *p, llhttp_errno_t code) {
  if (p->why)
    return HTTP_BAD;
  p->status = code == HPE_INVALID_VERSION ? 505 : 400;
  p->why = p->parser.reason && p->parser.reason[0] ? p->parser.reason : "not HTTP";
  return HTTP_BAD;
}

static enum http_parsed reject(struct http_parse *p, int status, const char *why) {
  (void)refuse(p, status, why);
  return HTTP_BAD;
}

/* A request's head, before the parser sees it. */
static enum http_parsed scan_head(struct http_parse *p, const char *bytes, size_t n, size_t *ret_head) {
  const char *why = http_scan(&p->scan, bytes, n, ret_head);
  if (p->scan.bytes > p->max_header_bytes)
    return reject(p, 431, "the header is too large");
  return why ? reject(p, 400, why) : HTTP_MORE;
}

/* Chunk sizes, extensions and trailers are dropped, but must not go on for ever. */
static bool too_much_frame(struct http_parse *p, size_t more) {
  p->raw_body_bytes += more;
  return p->raw_body_bytes - p->message->body.n > p->max_header_bytes + p->max_body_bytes;
}

enum http_parsed http_parse_feed(struct http_parse *p, const char *bytes, size_t n, size_t *ret_used) {
  size_t head = 0;
  p->started = true;
  if (p->parser.type == HTTP_REQUEST && !p->scan.done && scan_head(p, bytes, n, &head) == HTTP_BAD)
    return HTTP_BAD;
  llhttp_errno_t code = llhttp_execute(&p->parser, bytes, n);
  if (code != HPE_OK && code != HPE_PAUSED)
    return bad(p, code);
  size_t used = code == HPE_OK ? n : (size_t)(llhttp_get_error_pos(&p->parser) - bytes);
  if (p->parser.type == HTTP_REQUEST && p->scan.done && too_much_frame(p, used - head))
    return reject(p, 400, "the chunks are more frame than body");
  *ret_used = used;
  if (code == HPE_OK)
    return HTTP_MORE;
  llhttp_resume(&p->parser);
  http_message_seal(p->message);
  return HTTP_DONE;
}

enum http_parsed http_parse_end(struct http_parse *p) {
  if (!p->headers_done)
    return HTTP_BAD;
  llhttp_errno_t code = llhttp_finish(&p->parser);
  if (code != HPE_PAUSED)
    return bad(p, code);
  http_message_seal(p->message);
  return HTTP_DONE;
}
