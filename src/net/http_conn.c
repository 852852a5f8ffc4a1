/* One connection of the server: bytes → requests → handler → answers, one request at a time. */
#include "base/mem.h"
#include "net/http_internal.h"

#define KEEP_BYTES 16384

static void run(struct http_conn *c, const char *p, size_t n);

static void exchange_free(struct http_exchange *x) {
  http_message_done(&x->message);
  buf_done(&x->out);
  mem_free(x);
}

static void state_set(struct http_conn *c, enum conn_state state) {
  struct http_server *s = c->server;
  c->state = state;
  if (state == CONN_HANDLING) {
    link_out(&c->due.link);
    list_push(&s->handling, &c->due.link);
  } else {
    due_set(&s->due[state], &c->due, loop_now(s->loop));
  }
}

static void let_go(struct http_conn *c) {
  due_clear(&c->due);
  if (c->with_handler)
    c->exchange->conn = NULL; /* the handler's now; the answer will be dropped */
  else if (c->exchange)
    exchange_free(c->exchange);
  c->exchange = NULL;
}

void http_conn_close(struct http_conn *c) {
  if (c->stream.closing)
    return;
  let_go(c);
  stream_close(&c->stream);
}

static void on_closed(struct stream *st) {
  struct http_conn *c = (struct http_conn *)st;
  struct http_server *s = c->server;
  buf_done(&c->stash);
  buf_done(&c->gather);
  mem_free(c);
  http_server_conn_gone(s);
}

/* --- requests ------------------------------------------------------------------------------------------- */

static void exchange_ready(struct http_conn *c) {
  if (!c->exchange) {
    struct http_exchange *x = mem_zalloc(sizeof *x);
    x->shell = c->server->shell;
    stream_peer_text(&c->stream, x->peer, sizeof x->peer);
    x->request.peer = x->peer;
    c->exchange = x;
  }
  c->exchange->conn = c;
  c->parse.message = &c->exchange->message;
}

/* "http://host/path" → "/path" (RFC 9112 §3.2.2); false: not a form we serve. */
static bool origin_form(struct slice *url) {
  if (url->n && (url->p[0] == '/' || slice_eqz(*url, "*")))
    return true;
  const char *scheme = memmem(url->p, url->n, "://", 3);
  if (!scheme)
    return false;
  const char *end = url->p + url->n, *path = scheme + 3;
  while (path < end && *path != '/' && *path != '?')
    path++;
  *url = path < end && *path == '/' ? slice_n(path, (size_t)(end - path)) : SLICE("/");
  return true;
}

static bool request_fill(struct http_conn *c) {
  static atomic_uint_fast64_t last_id;
  struct http_exchange *x = c->exchange;
  struct http_message *m = &x->message;
  struct http_request *r = &x->request;
  struct slice url = http_message_slice(m, m->url), query;
  if (memchr(url.p, '#', url.n) || !origin_form(&url))
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
  if (c->exchange) {
    http_message_clear(&c->exchange->message);
    buf_clear(&c->exchange->out, KEEP_BYTES);
  }
  http_parse_next(&c->parse);
  c->continued = false;
  state_set(c, CONN_IDLE);
}

/* Write; false: not all of it yet, or the connection has broken. */
static bool send_bytes(struct http_conn *c, const struct buf *b) {
  int r = stream_write(&c->stream, b->p, b->n);
  if (r < 0)
    http_conn_close(c);
  else if (r > 0)
    state_set(c, CONN_WRITING);
  return r == 0;
}

static void refuse(struct http_conn *c, int status, const char *why) {
  struct http_server *s = c->server;
  struct str body;
  const char *type = "text/plain; charset=utf-8";
  str_init(&body, 4096);
  if (s->o.refusal)
    s->o.refusal(status, why, &body, &type);
  else
    str_addf(&body, "%s\n", why);
  struct http_reply reply = {.status = status, .content_type = type};
  if (!str_failed(&body))
    reply.body = str_slice(&body);
  http_reply_text(&c->gather, &reply, (struct http_reply_how){.close = true});
  str_done(&body);
  c->last = c->linger = true;
  if (send_bytes(c, &c->gather))
    answered(c);
  buf_clear(&c->gather, KEEP_BYTES);
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
  if (c->stream.closing || c->state != CONN_IDLE)
    return;
  if (c->stash.n) {
    struct buf b = c->stash;
    c->stash = (struct buf){0};
    run(c, b.p, b.n);
    buf_done(&b);
  }
  if (c->stream.closing)
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
  if (!c) {
    exchange_free(x);
  } else {
    c->with_handler = false;
    if (!c->running) {
      reply_flags(c, c->stash.n > 0);
      if (send_bytes(c, &x->out)) {
        answered(c);
        run_stash(c);
      }
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
    exchange_free(x);
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
static bool handle(struct http_conn *c) {
  struct http_server *s = c->server;
  state_set(c, CONN_HANDLING);
  c->with_handler = true;
  atomic_fetch_add_explicit(&s->shell->refs, 1, memory_order_relaxed);
  s->o.handle(&c->exchange->request, s->o.arg);
  return !c->with_handler && !c->stream.closing;
}

static void flush_gathered(struct http_conn *c) {
  if (c->stream.closing || !c->gather.n)
    return;
  if (stream_write(&c->stream, c->gather.p, c->gather.n) < 0)
    http_conn_close(c);
  buf_clear(&c->gather, KEEP_BYTES);
}

/* More of the message is needed: which deadline holds now, and does the client wait for a word from us? */
static void waiting(struct http_conn *c) {
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
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (stream_write(&c->stream, text, sizeof text - 1) < 0)
      http_conn_close(c);
  }
}

/* Answer on its way; gather it with others when more requests are already here. True: go on with them. */
static bool reply_inside(struct http_conn *c, bool more) {
  reply_flags(c, more);
  struct buf *b = &c->exchange->out;
  if (c->gather.n || (more && !c->last)) {
    buf_add(&c->gather, b->p, b->n);
    b = &c->gather;
  }
  if (more && !c->last && b->n < HTTP_GATHER_BYTES) {
    answered(c);
    return true;
  }
  bool sent = send_bytes(c, b);
  buf_clear(&c->gather, KEEP_BYTES);
  if (!sent)
    return false;
  answered(c);
  return more && c->state == CONN_IDLE;
}

static void run(struct http_conn *c, const char *p, size_t n) {
  c->running = true;
  while (n && !c->stream.closing) {
    size_t used;
    exchange_ready(c);
    enum http_parsed r = http_parse_feed(&c->parse, p, n, &used);
    if (r == HTTP_BAD) {
      refuse(c, c->parse.status, c->parse.why);
      n = 0;
      break;
    }
    p += used;
    n -= used;
    if (r == HTTP_MORE) {
      waiting(c);
      break;
    }
    if (!request_fill(c)) {
      refuse(c, 400, "the request target is not valid");
      n = 0;
      break;
    }
    if (!handle(c) || !reply_inside(c, n > 0))
      break;
  }
  c->running = false;
  flush_gathered(c);
  if (n && !c->stream.closing && c->state != CONN_LINGER)
    stash(c, p, n);
}

static void on_data(struct stream *st, const char *p, size_t n) {
  struct http_conn *c = (struct http_conn *)st;
  if (c->state == CONN_LINGER) {
    c->dropped += n;
    if (c->dropped > HTTP_LINGER_BYTES)
      http_conn_close(c);
  } else if (c->state == CONN_HANDLING || c->state == CONN_WRITING) {
    stash(c, p, n);
  } else {
    run(c, p, n);
  }
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
}

static void on_ready(struct stream *st) { (void)st; }

static const struct stream_ops conn_ops = {
    .ready = on_ready, .data = on_data, .ended = on_ended, .drained = on_drained, .closed = on_closed};

void http_conn_expired(struct http_conn *c) {
  switch (c->state) {
  case CONN_HEADER: refuse(c, 408, "the header took too long"); break;
  case CONN_BODY: refuse(c, 408, "the body took too long"); break;
  case CONN_WRITING: /* a client that does not read shall not hold the kernel's memory either */
    let_go(c);
    stream_reset(&c->stream);
    break;
  case CONN_IDLE:
  case CONN_HANDLING:
  case CONN_LINGER:
  case CONN_STATE_MAX_: http_conn_close(c); break;
  }
}

void http_conn_new(struct http_server *s, bool refused) {
  struct http_conn *c = mem_zalloc(sizeof *c);
  c->server = s;
  s->connections++;
  (void)stream_init(&c->stream, s->loop, &conn_ops); /* only fills in memory for TCP */
  http_parse_init(&c->parse, HTTP_REQUEST, s->o.max_header_bytes, s->o.max_body_bytes);
  state_set(c, CONN_IDLE);
  if (stream_accept(&c->stream, &s->listener) < 0 ||
      s->connections > s->o.max_connections + HTTP_REFUSED_MAX) {
    http_conn_close(c);
    return;
  }
  if (refused)
    refuse(c, 503, "too many connections");
  else
    stream_read_start(&c->stream);
}
