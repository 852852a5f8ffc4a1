/* One connection of the server: bytes → requests → handler → answers, one request at a time. */
#include "base/mem.h"
#include "net/http_internal.h"

#define KEEP_BYTES 16384 /* of a buffer that is used again; smaller ones never count as much */

static void run(struct http_conn *c, const char *p, size_t n);

/* --- what is held, in bytes ------------------------------------------------------------------------------ */

static void count(struct http_shell *shell, size_t *counted, size_t bytes) {
  if (bytes == *counted)
    return;
  atomic_fetch_add_explicit(&shell->buffered, bytes - *counted, memory_order_relaxed); /* less wraps around */
  *counted = bytes;
}

static void exchange_count(struct http_exchange *x) {
  count(x->shell, &x->counted, x->message.text.cap + x->out.cap);
}

static void conn_count(struct http_conn *c) {
  count(c->server->shell, &c->counted,
        c->stash.cap + c->gather.cap + c->stream.flying.cap + c->stream.next.cap);
}

static bool too_much(const struct http_server *s) {
  return s->o.max_buffered_bytes &&
         atomic_load_explicit(&s->shell->buffered, memory_order_relaxed) > s->o.max_buffered_bytes;
}

/* --- life ------------------------------------------------------------------------------------------------ */

void http_exchange_free(struct http_exchange *x) {
  http_message_done(&x->message);
  buf_done(&x->out);
  exchange_count(x);
  mem_free(x);
}

/* Back to the server: a connection that waits holds no buffers. */
static void exchange_park(struct http_conn *c) {
  struct http_server *s = c->server;
  struct http_exchange *x = take(c->exchange);
  x->conn = NULL;
  if (s->spare_n >= HTTP_SPARE_MAX) {
    http_exchange_free(x);
    return;
  }
  http_message_clear(&x->message);
  buf_clear(&x->out, KEEP_BYTES);
  exchange_count(x);
  x->next_spare = s->spare;
  s->spare = x;
  s->spare_n++;
}

static void state_set(struct http_conn *c, enum conn_state state) {
  struct http_server *s = c->server;
  bool waits = state == CONN_IDLE || state == CONN_LINGER;
  if (waits)
    due_clear(&c->whole);
  else if (c->state == CONN_IDLE && s->o.request_timeout)
    due_set(&s->whole, &c->whole, loop_now(s->loop));
  c->state = state;
  if (state == CONN_HANDLING) {
    link_out(&c->due.link);
    list_push(&s->handling, &c->due.link);
  } else {
    due_set(&s->due[state], &c->due, loop_now(s->loop));
  }
}

static void hand_over(struct http_conn *c) {
  c->exchange->conn = NULL; /* the handler's now; the answer will be dropped */
  c->exchange = NULL;
  c->with_handler = false;
}

static void let_go(struct http_conn *c) {
  due_clear(&c->due);
  due_clear(&c->whole);
  link_out(&c->again);
  if (c->with_handler)
    hand_over(c);
  else if (c->exchange)
    exchange_park(c);
  http_server_conn_closing(c);
}

void http_conn_close(struct http_conn *c) {
  if (c->stream.closing)
    return;
  let_go(c);
  stream_close(&c->stream);
}

/* What the kernel still has to send is dropped, too. */
static void conn_reset(struct http_conn *c, enum http_cause cause) {
  if (c->stream.closing)
    return;
  http_count(c->server, cause);
  let_go(c);
  stream_reset(&c->stream);
}

static void on_closed(struct stream *st) {
  struct http_conn *c = (struct http_conn *)st;
  struct http_server *s = c->server;
  buf_done(&c->stash);
  buf_done(&c->gather);
  count(s->shell, &c->counted, 0);
  mem_free(c);
  http_server_conn_gone(s);
}

/* --- requests ------------------------------------------------------------------------------------------- */

static void exchange_ready(struct http_conn *c) {
  struct http_server *s = c->server;
  if (c->exchange)
    return;
  struct http_exchange *x = s->spare;
  if (x) {
    s->spare = x->next_spare;
    s->spare_n--;
  } else {
    x = mem_zalloc(sizeof *x);
    x->shell = s->shell;
    x->request.peer = x->peer;
  }
  memcpy(x->peer, c->peer, sizeof x->peer);
  x->conn = c;
  c->exchange = x;
  c->parse.message = &x->message;
}

static bool starts_nocase(struct slice s, struct slice with) {
  return s.n >= with.n && slice_nocase(slice_n(s.p, with.n), with);
}

/* "http://host/path" → "/path" (RFC 9112 §3.2.2); false: not a form we serve. */
static bool origin_form(struct slice *url, bool options) {
  if (url->n && url->p[0] == '/')
    return true;
  if (slice_eqz(*url, "*"))
    return options;
  size_t scheme = starts_nocase(*url, SLICE("http://")) ? 7 : starts_nocase(*url, SLICE("https://")) ? 8 : 0;
  const char *end = url->p + url->n, *host = url->p + scheme, *path = host;
  while (path < end && *path != '/' && *path != '?')
    path++;
  if (!scheme || path == host || (path < end && *path == '?') || memchr(host, '@', (size_t)(path - host)))
    return false;
  *url = path < end ? slice_n(path, (size_t)(end - path)) : SLICE("/");
  return true;
}

static bool request_fill(struct http_conn *c) {
  static atomic_uint_fast64_t last_id;
  struct http_exchange *x = c->exchange;
  struct http_message *m = &x->message;
  struct http_request *r = &x->request;
  struct slice url = http_message_slice(m, m->url), query;
  if (memchr(url.p, '#', url.n) || !origin_form(&url, c->parse.parser.method == HTTP_OPTIONS))
    return false;
  r->method = slice_of(llhttp_method_name(c->parse.parser.method));
  r->path = slice_cut(url, '?', &query);
  r->query = query;
  r->body = http_message_slice(m, m->body);
  r->headers = m->headers;
  r->header_count = m->header_n;
  r->id = atomic_fetch_add_explicit(&last_id, 1, memory_order_relaxed) + 1;
  r->user = NULL;
  x->head = c->parse.parser.method == HTTP_HEAD;
  x->http10 = c->parse.parser.http_minor == 0;
  x->keep_alive = c->parse.keep_alive;
  x->close = false;
  x->out.n = 0;
  return true;
}

/* --- answers -------------------------------------------------------------------------------------------- */

/* The answer is out: be ready for the next request, or end. */
static void answered(struct http_conn *c) {
  if (c->last) {
    if (c->linger) {
      stream_end(&c->stream);
      state_set(c, CONN_LINGER);
      stream_read_start(&c->stream);
      if (c->eof)
        http_conn_close(c);
    } else {
      http_conn_close(c);
    }
    return;
  }
  if (c->exchange)
    exchange_park(c);
  http_parse_next(&c->parse);
  c->continued = false;
  state_set(c, CONN_IDLE);
}

/* Write; false: not all of it yet, or the connection has broken. */
static bool send_bytes(struct http_conn *c, const struct buf *b) {
  int r = stream_write(&c->stream, b->p, b->n);
  if (r < 0) {
    http_conn_close(c);
    return false;
  }
  if (c->exchange) /* sent or copied: its request is over */
    exchange_park(c);
  if (r == 0)
    return true;
  state_set(c, CONN_WRITING);
  conn_count(c);
  if (c->counted > KEEP_BYTES && too_much(c->server))
    conn_reset(c, HTTP_CAUSE_memory);
  return false;
}

static void refuse(struct http_conn *c, enum http_cause cause, int status, const char *why) {
  struct http_refusal r;
  http_count(c->server, cause);
  http_refusal_init(&r, c->server, status, why, 1);
  http_reply_text(&c->gather, &r.reply, (struct http_reply_how){.close = true});
  http_refusal_done(&r);
  c->last = c->linger = true;
  if (send_bytes(c, &c->gather))
    answered(c);
  buf_clear(&c->gather, 0);
}

void http_conn_refuse(struct http_conn *c, enum http_cause cause, int status, const char *why) {
  refuse(c, cause, status, why);
}

/* `more`: bytes of a further request are here already. Closing with unread bytes would make the kernel send a
 * reset, which may take the answer away from the client: hence linger. */
static void reply_flags(struct http_conn *c, bool more) {
  c->last = c->exchange->close || atomic_load_explicit(&c->server->shell->draining, memory_order_relaxed) ||
            (c->eof && !more);
  c->linger = c->last && more;
}

/* Bytes that arrived meanwhile, after an answer that was not given inside run(). */
static void run_stash(struct http_conn *c) {
  if (c->stream.closing || c->state != CONN_IDLE || link_in(&c->again))
    return;
  if (c->stash.n) {
    struct buf b = c->stash;
    c->stash = (struct buf){0};
    run(c, b.p, b.n);
    buf_done(&b);
  }
  if (c->stream.closing || link_in(&c->again))
    return;
  if (c->eof && c->state < CONN_HANDLING)
    http_conn_close(c);
  else if (!c->eof)
    stream_read_start(&c->stream);
}

void http_exchange_deliver(void *exchange) {
  struct http_exchange *x = exchange;
  struct http_shell *shell = x->shell;
  struct http_conn *c = x->conn;
  if (x->token)
    http_limiter_release(&shell->token, take(x->token));
  if (!c) {
    http_exchange_free(x);
  } else {
    c->with_handler = false;
    if (!c->running) {
      reply_flags(c, c->stash.n > 0);
      if (send_bytes(c, &x->out)) {
        answered(c);
        run_stash(c);
      }
      conn_count(c);
    }
  }
  http_shell_unref(shell);
}

void http_request_reply(struct http_request *r, const struct http_reply *reply) {
  struct http_exchange *x = (struct http_exchange *)r;
  struct http_shell *shell = x->shell;
  x->close = reply->close || !x->keep_alive || atomic_load_explicit(&shell->draining, memory_order_relaxed);
  http_reply_text(&x->out, reply,
                  (struct http_reply_how){.head = x->head, .close = x->close, .keep_alive = x->http10});
  exchange_count(x);
  if (loop_is_current(shell->loop)) {
    http_exchange_deliver(x);
    return;
  }
  mutex_lock(&shell->lock);
  bool closed = shell->closed;
  if (!closed) /* under the lock: the loop may be gone once `closed` is set */
    loop_post(shell->loop, http_exchange_deliver, x);
  mutex_unlock(&shell->lock);
  if (closed) {
    http_exchange_free(x); /* what its token holds went with the server */
    http_shell_unref(shell);
  }
}

/* --- the way through ------------------------------------------------------------------------------------ */

static void stash(struct http_conn *c, const char *p, size_t n) {
  buf_add(&c->stash, p, n);
  if (c->stash.n > HTTP_STASH_BYTES)
    stream_read_stop(&c->stream);
}

/* A request is complete: to the handler. True: the answer has been given at once. */
static bool handle(struct http_conn *c, bool more) {
  struct http_server *s = c->server;
  state_set(c, CONN_HANDLING);
  c->with_handler = true;
  atomic_fetch_add_explicit(&s->shell->refs, 1, memory_order_relaxed);
  if (http_admit(c, more))
    s->o.handle(&c->exchange->request, s->o.arg);
  return !c->with_handler && !c->stream.closing;
}

static void flush_gathered(struct http_conn *c) {
  if (c->stream.closing || !c->gather.n)
    return;
  if (stream_write(&c->stream, c->gather.p, c->gather.n) < 0)
    http_conn_close(c);
  buf_clear(&c->gather, 0);
}

/* More of the message is needed: which deadline holds now, and does the client wait for a word from us? */
static void waiting(struct http_conn *c) {
  struct buf *text = &c->exchange->message.text;
  exchange_count(c->exchange);
  if (text->cap > KEEP_BYTES && too_much(c->server)) {
    refuse(c, HTTP_CAUSE_memory, 503, "too much is being received at once; try again");
    return;
  }
  if (!c->parse.headers_done) {
    if (c->state == CONN_IDLE && c->parse.started)
      state_set(c, CONN_HEADER);
    return;
  }
  if (c->state != CONN_BODY)
    state_set(c, CONN_BODY);
  if (c->parse.expects && !c->continued && !c->exchange->message.body.n) {
    c->continued = true;
    flush_gathered(c);
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (stream_write(&c->stream, go_on, sizeof go_on - 1) < 0)
      http_conn_close(c);
  }
}

/* Answer on its way; gather it with others when more requests are already here, unless it is `flush`'s turn. True: go on with
 * them. */
static bool reply_inside(struct http_conn *c, bool more, bool flush) {
  reply_flags(c, more);
  struct buf *b = &c->exchange->out;
  if (c->gather.n || (more && !c->last)) {
    buf_add(&c->gather, b->p, b->n);
    b = &c->gather;
  }
  if (more && !c->last && !flush && b->n < HTTP_GATHER_BYTES) {
    answered(c);
    return true;
  }
  bool sent = send_bytes(c, b);
  buf_clear(&c->gather, 0);
  if (!sent)
    return false;
  answered(c);
  return more && c->state == CONN_IDLE;
}

static enum http_cause bad_cause(int status) {
  return status == 413 || status == 431 ? HTTP_CAUSE_size : HTTP_CAUSE_malformed;
}

/* One request after the other. Gives back how many of the bytes are for later. */
static size_t run_requests(struct http_conn *c, const char *p, size_t n) {
  for (int turn = 1; n && !c->stream.closing; turn++) {
    size_t used;
    exchange_ready(c);
    enum http_parsed r = http_parse_feed(&c->parse, p, n, &used);
    if (r == HTTP_BAD) {
      refuse(c, bad_cause(c->parse.status), c->parse.status, c->parse.why);
      return 0;
    }
    p += used;
    n -= used;
    if (r == HTTP_MORE) {
      waiting(c);
      return 0;
    }
    if (!request_fill(c)) {
      refuse(c, HTTP_CAUSE_malformed, 400, "the request target is not valid");
      return 0;
    }
    bool enough = turn == HTTP_TURN_REQUESTS;
    if (!handle(c, n > 0) || !reply_inside(c, n > 0, enough))
      return n;
    if (enough) { /* the others' turn */
      http_server_again(c);
      return n;
    }
  }
  return n;
}

static void run(struct http_conn *c, const char *p, size_t n) {
  c->running = true;
  size_t later = run_requests(c, p, n);
  c->running = false;
  flush_gathered(c);
  if (later && !c->stream.closing && c->state != CONN_LINGER)
    stash(c, p + n - later, later);
  if (link_in(&c->again))
    stream_read_stop(&c->stream);
}

void http_conn_again(struct http_conn *c) {
  run_stash(c);
  conn_count(c);
}

static void on_data(struct stream *st, const char *p, size_t n) {
  struct http_conn *c = (struct http_conn *)st;
  if (c->state == CONN_LINGER) {
    c->dropped += n;
    if (c->dropped > HTTP_LINGER_BYTES)
      http_conn_close(c);
  } else if (c->state == CONN_HANDLING || c->state == CONN_WRITING || link_in(&c->again)) {
    stash(c, p, n);
  } else {
    run(c, p, n);
  }
  conn_count(c);
}

static void on_ended(struct stream *st, int error) {
  struct http_conn *c = (struct http_conn *)st;
  c->eof = true;
  /* A client may half-close after its request and still wait for the answer. */
  if (error || (c->state != CONN_HANDLING && c->state != CONN_WRITING))
    http_conn_close(c);
}

static void on_drained(struct stream *st) {
  struct http_conn *c = (struct http_conn *)st;
  if (c->state != CONN_WRITING)
    return;
  answered(c);
  run_stash(c);
  conn_count(c);
}

static void on_ready(struct stream *st) { (void)st; }

static const struct stream_ops conn_ops = {
    .ready = on_ready, .data = on_data, .ended = on_ended, .drained = on_drained, .closed = on_closed};

void http_conn_expired(struct http_conn *c) {
  switch (c->state) {
  case CONN_HEADER: refuse(c, HTTP_CAUSE_header_timeout, 408, "the header took too long"); break;
  case CONN_BODY: refuse(c, HTTP_CAUSE_body_timeout, 408, "the body took too long"); break;
  case CONN_WRITING: /* a client that does not read shall not hold the kernel's memory either */
    conn_reset(c, HTTP_CAUSE_write_timeout);
    break;
  case CONN_IDLE:
    http_count(c->server, HTTP_CAUSE_idle_timeout);
    http_conn_close(c);
    break;
  case CONN_HANDLING:
  case CONN_LINGER:
  case CONN_STATE_MAX_: http_conn_close(c); break;
  }
}

void http_conn_overdue(struct http_conn *c) {
  due_clear(&c->whole);
  switch (c->state) {
  case CONN_HEADER:
  case CONN_BODY: refuse(c, HTTP_CAUSE_request_timeout, 408, "the request took too long"); break;
  case CONN_HANDLING:
    hand_over(c);
    refuse(c, HTTP_CAUSE_request_timeout, 504, "the answer took too long; the request may still take effect");
    break;
  case CONN_WRITING: conn_reset(c, HTTP_CAUSE_request_timeout); break;
  case CONN_IDLE:
  case CONN_LINGER:
  case CONN_STATE_MAX_: break;
  }
}

struct http_conn *http_conn_make(struct http_server *s) {
  struct http_conn *c = mem_zalloc(sizeof *c);
  c->server = s;
  (void)stream_init(&c->stream, s->loop, &conn_ops); /* only fills in memory for TCP */
  http_parse_init(&c->parse, HTTP_REQUEST, s->o.max_header_bytes, s->o.max_body_bytes);
  c->parse.max_headers = s->o.max_headers;
  state_set(c, CONN_IDLE);
  return c;
}
