#include "net/stream.h"
#include <sys/socket.h>

static void on_closed(uv_handle_t *h) {
  struct stream *s = h->data;
  buf_done(&s->flying);
  buf_done(&s->next);
  tls_free(&s->tls);
  s->ops->closed(s);
}

int stream_init(struct stream *s, struct loop *l, const struct stream_ops *ops) {
  s->loop = l;
  s->ops = ops;
  int r = uv_tcp_init(loop_uv(l), &s->tcp);
  s->tcp.data = s;
  return r;
}

int stream_accept(struct stream *s, uv_tcp_t *listener) {
  int r = uv_accept((uv_stream_t *)listener, (uv_stream_t *)&s->tcp);
  if (r < 0)
    return r;
  (void)uv_tcp_nodelay(&s->tcp, 1); /* slower, but not wrong, without */
  return 0;
}

void stream_close(struct stream *s) {
  if (s->closing)
    return;
  s->closing = true;
  uv_close((uv_handle_t *)&s->tcp, on_closed);
}

void stream_reset(struct stream *s) {
  if (s->closing)
    return;
  s->closing = true;
  if (uv_tcp_close_reset(&s->tcp, on_closed) < 0)
    uv_close((uv_handle_t *)&s->tcp, on_closed);
}

static void end(struct stream *s, int error, const char *why) {
  /* after an orderly end, by which the peer only says that it sends no more, a write may still fail */
  if (s->closing || s->broken || (s->ended && !error))
    return;
  s->ended = true;
  s->broken = error != 0;
  s->why = why;
  stream_read_stop(s);
  s->ops->ended(s, error);
}

static void on_written(uv_write_t *w, int status);

/* Start writing what waits in `next`. */
static int fly(struct stream *s) {
  struct buf t = s->flying;
  s->flying = s->next;
  s->next = t;
  s->next.n = 0;
  s->wrote |= !s->tls || s->tls_ready; /* how much of it leaves before a failure is never known */
  uv_buf_t b = {.base = s->flying.p, .len = s->flying.n};
  s->write.data = s;
  int r = uv_write(&s->write, (uv_stream_t *)&s->tcp, &b, 1, on_written);
  if (r < 0)
    s->flying.n = 0;
  return r;
}

static void on_written(uv_write_t *w, int status) {
  struct stream *s = w->data;
  buf_done(&s->flying); /* seldom needed, and there may be thousands of connections */
  if (s->closing)
    return;
  if (status == 0 && s->next.n)
    status = fly(s);
  if (status < 0) {
    end(s, status, uv_strerror(status));
    return;
  }
  if (!stream_pending(s) && (!s->tls || s->tls_ready))
    s->ops->drained(s);
}

/* Raw bytes to the socket: at once if nothing is in front of them, the rest by libuv. */
static int send_raw(struct stream *s, const char *p, size_t n) {
  size_t done = 0;
  if (!stream_pending(s)) {
    uv_buf_t b = {.base = (char *)(uintptr_t)p, .len = n}; /* libuv only reads it */
    int r = uv_try_write((uv_stream_t *)&s->tcp, &b, 1);
    if (r < 0 && r != UV_EAGAIN)
      return r;
    done = r > 0 ? (size_t)r : 0;
    if (done && (!s->tls || s->tls_ready))
      s->wrote = true;
    if (done == n)
      return 0;
  }
  buf_add(&s->next, p + done, n - done);
  if (s->flying.n)
    return 1;
  int r = fly(s);
  return r < 0 ? r : 1;
}

static int flush_tls(struct stream *s) {
  struct buf out = {0};
  tls_drain(s->tls, &out);
  int r = out.n ? send_raw(s, out.p, out.n) : 0;
  buf_done(&out);
  return r;
}

int stream_write(struct stream *s, const char *p, size_t n) {
  int r;
  if (s->closing || s->broken) { /* after an orderly end the peer may still read */
    s->why = "closed by the peer";
    return -EPIPE;
  }
  if (!s->tls) {
    r = send_raw(s, p, n);
  } else {
    r = tls_write(s->tls, p, n);
    if (r == 0)
      r = flush_tls(s);
    else
      s->why = tls_why(s->tls);
  }
  if (r < 0 && !s->tls)
    s->why = uv_strerror(r);
  return r;
}

bool stream_pending(const struct stream *s) { return s->flying.n || s->next.n; }

static void read_plain(struct stream *s) {
  char *p = mem_alloc(LOOP_READ_BYTES); /* the loop's buffer may still hold the ciphertext of our caller */
  while (!s->closing && !s->ended) {
    int r = tls_read(s->tls, p, LOOP_READ_BYTES);
    if (r > 0)
      s->ops->data(s, p, (size_t)r);
    else if (r == -EPIPE)
      end(s, 0, "closed by the peer");
    else if (r < 0)
      end(s, r, tls_why(s->tls));
    if (r <= 0)
      break;
  }
  mem_free(p);
  if (!s->closing && !s->ended && flush_tls(s) < 0)
    end(s, -EPIPE, "write failed");
}

static void go_on_tls(struct stream *s) {
  if (!s->tls_ready) {
    int r = tls_handshake(s->tls);
    int w = flush_tls(s); /* also the alert that tells the peer why */
    if (r < 0 || w < 0) {
      end(s, r < 0 ? r : w, r < 0 ? tls_why(s->tls) : uv_strerror(w));
      return;
    }
    if (r == 0)
      return;
    s->tls_ready = true;
    s->ops->ready(s);
  }
  if (!s->closing && !s->ended)
    read_plain(s);
}

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *b) {
  (void)suggested;
  struct stream *s = h->data;
  b->base = loop_read_buffer(s->loop);
  b->len = LOOP_READ_BYTES;
}

static void on_read(uv_stream_t *u, ssize_t n, const uv_buf_t *b) {
  struct stream *s = u->data;
  if (n == 0)
    return;
  if (n < 0) {
    if (n != UV_EOF)
      end(s, (int)n, uv_strerror((int)n));
    else if (s->tls) /* without its close_notify: what came may have been cut by anybody */
      end(s, -ECONNRESET, "closed without the end of TLS");
    else
      end(s, 0, "closed by the peer");
    return;
  }
  if (!s->tls) {
    s->ops->data(s, b->base, (size_t)n);
    return;
  }
  if (tls_feed(s->tls, b->base, (size_t)n) < 0)
    end(s, -ENOMEM, "TLS failed");
  else
    go_on_tls(s);
}

void stream_read_start(struct stream *s) {
  if (s->reading || s->closing || s->ended)
    return;
  s->reading = uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read) == 0;
}

void stream_read_stop(struct stream *s) {
  if (!s->reading)
    return;
  s->reading = false;
  (void)uv_read_stop((uv_stream_t *)&s->tcp); /* always 0 */
}

static void on_connected(uv_connect_t *c, int status) {
  struct stream *s = c->data;
  if (s->closing)
    return;
  if (status < 0) {
    end(s, status, uv_strerror(status));
    return;
  }
  (void)uv_tcp_nodelay(&s->tcp, 1); /* slower, but not wrong, without */
  stream_read_start(s);
  if (s->tls)
    go_on_tls(s);
  else
    s->ops->ready(s);
}

int stream_connect(struct stream *s, const struct sockaddr *address, struct tls *tls) {
  s->tls = tls;
  s->connect.data = s;
  return uv_tcp_connect(&s->connect, &s->tcp, address, on_connected);
}

static void on_shutdown(uv_shutdown_t *r, int status) {
  (void)r;
  (void)status; /* the read side reports a broken connection */
}

void stream_end(struct stream *s) {
  if (s->closing)
    return;
  if (s->tls && s->tls_ready) {
    tls_shutdown(s->tls);
    (void)flush_tls(s); /* a courtesy */
  }
  (void)uv_shutdown(&s->shutdown, (uv_stream_t *)&s->tcp,
                    on_shutdown); /* fails only when not connected any more */
}

bool stream_peer_closed(struct stream *s) {
  uv_os_fd_t fd;
  char c;
  if (uv_fileno((uv_handle_t *)&s->tcp, &fd) < 0)
    return true;
  ssize_t n = recv(fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
  return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

size_t stream_peer(struct stream *s, char *ret_text, size_t size, uint8_t ret_network[STREAM_NETWORK_BYTES]) {
  static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  struct sockaddr_storage a;
  int n = sizeof a;
  ret_text[0] = 0;
  if (uv_tcp_getpeername(&s->tcp, (struct sockaddr *)&a, &n) < 0)
    return 0;
  if (a.ss_family == AF_INET) {
    (void)uv_ip4_name((struct sockaddr_in *)&a, ret_text, size);
    memcpy(ret_network, &((struct sockaddr_in *)&a)->sin_addr, 4);
    return 4;
  }
  const uint8_t *address = ((struct sockaddr_in6 *)&a)->sin6_addr.s6_addr;
  bool v4 = memcmp(address, mapped, sizeof mapped) == 0;
  (void)uv_ip6_name((struct sockaddr_in6 *)&a, ret_text, size);
  memcpy(ret_network, v4 ? address + sizeof mapped : address, v4 ? 4 : STREAM_NETWORK_BYTES);
  return v4 ? 4 : STREAM_NETWORK_BYTES;
}
