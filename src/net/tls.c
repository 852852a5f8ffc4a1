#include "net/tls.h"
#include <arpa/inet.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

struct tls_context {
  SSL_CTX *ctx;
};

struct tls {
  SSL *ssl;
  BIO *in, *out; /* owned by ssl */
  char why[160];
};

static int set_failure(struct err *e, const char *what) {
  char text[160];
  ERR_error_string_n(ERR_get_error(), text, sizeof text);
  ERR_clear_error();
  return err_set(e, ERR_INVALID, "%s: %s", what, text);
}

int tls_context_client(const char *ca_file, struct tls_context **ret, struct err *e) {
  SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
  if (!ctx)
    return set_failure(e, "cannot make a TLS context");
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
  SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
  int ok = SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1;
  if (ok)
    ok = ca_file ? SSL_CTX_load_verify_file(ctx, ca_file) == 1 : SSL_CTX_set_default_verify_paths(ctx) == 1;
  if (!ok) {
    SSL_CTX_free(ctx);
    return set_failure(e, ca_file ? "cannot read the CA file" : "cannot read the system's CA certificates");
  }
  struct tls_context *c = mem_zalloc(sizeof *c);
  c->ctx = ctx;
  *ret = c;
  return 0;
}

void tls_context_free(struct tls_context **c) {
  if (!*c)
    return;
  SSL_CTX_free((*c)->ctx);
  mem_free(*c);
  *c = NULL;
}

static bool name_peer(SSL *ssl, const char *host) {
  unsigned char address[16];
  if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
    return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
  SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
  return SSL_set1_host(ssl, host) == 1 && SSL_set_tlsext_host_name(ssl, host) == 1;
}

struct tls *tls_new_client(struct tls_context *c, const char *host) {
  struct tls *t = mem_zalloc(sizeof *t);
  t->ssl = SSL_new(c->ctx);
  t->in = BIO_new(BIO_s_mem());
  t->out = BIO_new(BIO_s_mem());
  /* "http/1.1" in the wire form of ALPN: a length byte in front */
  static const unsigned char alpn[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};
  if (!t->ssl || !t->in || !t->out || !name_peer(t->ssl, host) ||
      SSL_set_alpn_protos(t->ssl, alpn, sizeof alpn)) {
    /* only memory can be short here */
    BIO_free(t->in);
    BIO_free(t->out);
    SSL_free(t->ssl);
    mem_free(t);
    ERR_clear_error();
    return NULL;
  }
  SSL_set_bio(t->ssl, t->in, t->out);
  SSL_set_connect_state(t->ssl);
  return t;
}

void tls_free(struct tls **t) {
  if (!*t)
    return;
  SSL_free((*t)->ssl);
  mem_free(*t);
  *t = NULL;
}

int tls_feed(struct tls *t, const char *p, size_t n) {
  if (n > INT_MAX)
    return -EMSGSIZE;
  return BIO_write(t->in, p, (int)n) == (int)n ? 0 : -ENOMEM;
}

/* 0 when OpenSSL only waits for bytes; else negative with the reason kept. */
static int failed(struct tls *t, int r) {
  int why = SSL_get_error(t->ssl, r);
  if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE)
    return 0;
  if (why == SSL_ERROR_ZERO_RETURN)
    return -EPIPE;
  long verdict = SSL_get_verify_result(t->ssl);
  unsigned long code = ERR_get_error();
  const char *text = ERR_reason_error_string(code);
  if (verdict != X509_V_OK)
    text = X509_verify_cert_error_string(verdict);
  ERR_clear_error();
  (void)text_copy(t->why, sizeof t->why,
                  slice_of(text ? text : "TLS failed")); /* a cut reason is good enough */
  return -EPROTO;
}

int tls_handshake(struct tls *t) {
  ERR_clear_error();
  int r = SSL_do_handshake(t->ssl);
  return r == 1 ? 1 : failed(t, r);
}

int tls_read(struct tls *t, char *p, size_t n) {
  ERR_clear_error();
  int r = SSL_read(t->ssl, p, n > INT_MAX ? INT_MAX : (int)n);
  return r > 0 ? r : failed(t, r);
}

int tls_write(struct tls *t, const char *p, size_t n) {
  ERR_clear_error();
  size_t written;
  if (n == 0 || SSL_write_ex(t->ssl, p, n, &written) == 1)
    return 0;
  int r = failed(t, 0);
  return r < 0 ? r : -EAGAIN; /* a memory buffer takes everything, unless a handshake is going on */
}

void tls_shutdown(struct tls *t) {
  ERR_clear_error();
  (void)SSL_shutdown(t->ssl); /* we do not wait for the peer's answer */
  ERR_clear_error();
}

void tls_drain(struct tls *t, struct buf *out) {
  char *p;
  long n = BIO_get_mem_data(t->out, &p);
  if (n <= 0)
    return;
  buf_add(out, p, (size_t)n);
  (void)BIO_reset(t->out); /* cannot fail for a memory BIO */
}

const char *tls_why(const struct tls *t) { return t->why[0] ? t->why : "TLS failed"; }
