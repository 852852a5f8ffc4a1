#pragma once
/* Private to net: one TCP connection, plain or TLS, of the server or the client. Loop thread only.
 * Embedded as the first member of its owner; the owner's memory must stay until `closed` is called. */
#include "net/buf.h"
#include "net/loop_internal.h"
#include "net/tls.h"

struct stream;

struct stream_ops {
  void (*ready)(struct stream *s);                         /* client: connected, and TLS set up */
  void (*data)(struct stream *s, const char *p, size_t n); /* n > 0; valid during the call only */
  void (*ended)(struct stream *s,
                int error); /* 0 = the peer's orderly end; no more data will come. Once more when writing
                                                 fails after that */
  void (*drained)(struct stream *s); /* what was pending has been written */
  void (*closed)(struct stream *s);  /* free the owner */
};

struct stream {
  uv_tcp_t tcp;
  struct loop *loop;
  const struct stream_ops *ops;
  struct tls *tls; /* NULL: plain */
  bool tls_ready, closing, reading, ended, broken;
  bool wrote;              /* bytes given to stream_write may have left (the owner clears it) */
  struct buf flying, next; /* being written by libuv; waiting behind it */
  uv_write_t write;
  uv_connect_t connect;
  uv_shutdown_t shutdown;
  const char *why; /* reason of the last failure, English, static or living as long as the stream */
};

int stream_init(struct stream *s, struct loop *l, const struct stream_ops *ops);
/* Server: take a waiting connection of `listener`. Negative: nothing was taken (close the stream all the same). */
int stream_accept(struct stream *s, uv_tcp_t *listener);
/* Client: connect; `tls` (may be NULL) is taken over. `ready` or `ended` follows, unless negative. */
int stream_connect(struct stream *s, const struct sockaddr *address, struct tls *tls);
void stream_read_start(struct stream *s);
void stream_read_stop(struct stream *s);
/* Write: 0 all given to the kernel; 1 the rest is pending, `drained` will follow; negative: the connection is
 * broken (s->wrote tells whether anything left). */
int stream_write(struct stream *s, const char *p, size_t n);
bool stream_pending(const struct stream *s); /* bytes not yet given to the kernel */
void stream_end(struct stream *s);           /* half close: no more writes */
void stream_close(struct stream *s);         /* at once; idempotent */
void stream_reset(struct stream *s);         /* the same, and what the kernel still has to send is dropped */
bool stream_peer_closed(struct stream *s);   /* asks the kernel: end or error already waiting? */
/* The peer's numeric address as text, and the network that is counted as one peer: an IPv4 address, or an IPv6 /64. Returns the
 * bytes of the network: 0 when there is no peer any more. */
#define STREAM_NETWORK_BYTES 8
size_t stream_peer(struct stream *s, char *ret_text, size_t size, uint8_t ret_network[STREAM_NETWORK_BYTES]);
