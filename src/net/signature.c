#include "base/mem.h"
#include "base/parse.h"
#include "net/crypto.h"
#include <stdio.h>

#define VERSIONS_MAX 8 /* v1= values looked at */

static void sign(struct slice secret, int64_t seconds, struct slice body, uint8_t ret[32]) {
  /* t + "." + body in one piece: bodies are bounded by the server's limit */
  char head[32];
  int n = snprintf(head, sizeof head, "%lld.", (long long)seconds);
  char *text = mem_alloc((size_t)n + body.n);
  memcpy(text, head, (size_t)n);
  if (body.n)
    memcpy(text + n, body.p, body.n);
  crypto_hmac_sha256(secret, slice_n(text, (size_t)n + body.n), ret);
  mem_free(text);
}

void signature_make(struct slice secret, usec_t now, struct slice body, char ret_text[SIGNATURE_TEXT_MAX]) {
  uint8_t mac[32];
  char hex[65];
  int64_t seconds = now / USEC_PER_SEC;
  sign(secret, seconds, body, mac);
  hex_encode(mac, sizeof mac, hex);
  (void)snprintf(ret_text, SIGNATURE_TEXT_MAX, "t=%lld,v1=%s", (long long)seconds,
                 hex); /* 2 + 20 + 4 + 64 fit */
}

struct signature {
  int64_t seconds;
  uint8_t macs[VERSIONS_MAX][32];
  size_t n;
};

static int read_header(struct slice header, struct signature *ret, struct err *e) {
  struct signature s = {.seconds = -1};
  while (header.n) {
    struct slice rest, value, pair = slice_trim(slice_cut(header, ',', &rest)),
                              name = slice_cut(pair, '=', &value);
    header = rest;
    int r = 0;
    if (slice_eqz(name, "t"))
      r = s.seconds < 0 ? parse_i64(value, 0, INT64_MAX / USEC_PER_SEC, &s.seconds, NULL) : -EINVAL;
    else if (slice_eqz(name, "v1") && s.n < VERSIONS_MAX)
      r = hex_decode(value, s.macs[s.n++], 32, NULL);
    if (r < 0)
      return err_set(e, ERR_UNAUTHENTICATED, "the signature is malformed");
  }
  if (s.seconds < 0 || s.n == 0)
    return err_set(e, ERR_UNAUTHENTICATED, "the signature is malformed: expected t=<unix seconds>,v1=<hex>");
  *ret = s;
  return 0;
}

int signature_check(struct slice header, const struct slice *secrets, size_t n, usec_t now, usec_t window,
                    struct slice body, struct err *e) {
  struct signature s;
  if (!header.n)
    return err_set(e, ERR_UNAUTHENTICATED, "the signature is missing");
  int r = read_header(header, &s, e);
  if (r < 0)
    return r;
  usec_t age = now - s.seconds * USEC_PER_SEC;
  if (age > window)
    return err_set(e, ERR_UNAUTHENTICATED, "the signature is too old");
  if (age < -window)
    return err_set(e, ERR_UNAUTHENTICATED, "the signature is from the future: compare the clocks");
  bool good = false;
  for (size_t i = 0; i < n; i++) {
    uint8_t mac[32];
    sign(secrets[i], s.seconds, body, mac);
    for (size_t k = 0; k < s.n; k++)
      good |= crypto_equal(mac, s.macs[k], sizeof mac);
  }
  return good ? 0 : err_set(e, ERR_UNAUTHENTICATED, "the signature is wrong");
}
