#pragma once
/* Private to net: TLS over memory buffers; knows no sockets. One object for each connection, on its loop's thread. */
#include "base/err.h"
#include "net/buf.h"

struct tls_context; /* immutable after tls_context_client(); shared by connections of one loop */
struct tls;

/* A client's trust: the certificates in `ca_file`, or the system's when NULL. TLS 1.2 or newer. */
int tls_context_client(const char *ca_file, struct tls_context **ret, struct err *e);
void tls_context_free(struct tls_context **c);

/* `host` is checked against the certificate (as an IP address if it is one) and sent as SNI (if it is not). */
struct tls *tls_new_client(struct tls_context *c, const char *host);
void tls_free(struct tls **t);

/* Bytes from the peer. Negative when they cannot be taken in. */
int tls_feed(struct tls *t, const char *p, size_t n);
/* Go on with the handshake: 1 done, 0 needs more bytes, negative: failed, see tls_why. */
int tls_handshake(struct tls *t);
/* Decrypted bytes: count, 0 = no more now, -EPIPE = the peer closed properly, other negative: failed. */
int tls_read(struct tls *t, char *p, size_t n);
int tls_write(struct tls *t, const char *p, size_t n); /* 0 or negative */
void tls_shutdown(struct tls *t);                      /* queue a close_notify */
void tls_drain(struct tls *t, struct buf *out);        /* append what must go to the peer */
const char *tls_why(const struct tls *t);              /* short English reason of the last failure */
