/* One webhook: where it goes, how it is signed, what its answer means. */
#include "base/parse.h"
#include "monitor/internal.h"
#include "net/crypto.h"
#include <stdio.h>

enum { SIGNATURES_TEXT = 2 * SIGNATURE_TEXT_MAX };
static const usec_t RETRY_AFTER_MOST = USEC_PER_DAY;

static void end(struct sending *s, const char *why) {
  (void)text_copy(s->error, sizeof s->error, slice_utf8_head(slice_of(why), sizeof s->error - 1));
  s->finish(s);
}

static usec_t retry_after(const struct http_result *r) {
  for (size_t i = 0; i < r->header_count; i++) {
    int64_t seconds;
    if (slice_eqz_nocase(r->headers[i].name, "retry-after") &&
        parse_i64(slice_trim(r->headers[i].value), 0, RETRY_AFTER_MOST / USEC_PER_SEC, &seconds, NULL) >= 0)
      return seconds * USEC_PER_SEC;
  }
  return 0;
}

/* 2xx is delivered; all else is tried again. Of the answer's body nothing is kept: it may be anything. */
static void answered(const struct http_result *r, void *arg) {
  struct sending *s = arg;
  char why[64];
  s->took = r->elapsed;
  if (r->outcome != HTTP_CALL_ANSWERED) {
    end(s, r->why ? r->why : "no answer");
    return;
  }
  s->status = r->status;
  s->delivered = r->status >= 200 && r->status < 300;
  s->retry_after = r->status == 429 || r->status == 503 ? retry_after(r) : 0;
  (void)snprintf(why, sizeof why, "the receiver answered %d", r->status);
  end(s, s->delivered ? "" : why);
}

/* A v1= for each valid secret, so that receivers on both sides of a rotation accept. */
static int sign(struct alerts *a, const struct alert_def_row *c, struct slice body, char ret[SIGNATURES_TEXT],
                struct err *e) {
  const struct slice sealed[2] = {c->secret_sealed, c->secret_previous_sealed};
  usec_t now = a->o.clock->wall(a->o.clock);
  size_t n = 0;
  for (int i = 0; i < 2; i++) {
    char one[SIGNATURE_TEXT_MAX];
    auto_str secret;
    str_init(&secret, ALERT_SECRET_MAX);
    if (!sealed[i].n)
      continue;
    int r = crypto_unseal(a->o.key, sealed[i], &secret, e);
    if (r < 0)
      return r;
    signature_make(str_slice(&secret), now, body, one);
    explicit_bzero(secret.p, secret.n);
    struct slice rest, head = slice_cut(slice_of(one), ',', &rest); /* the same t= in both */
    n += (size_t)snprintf(ret + n, SIGNATURES_TEXT - n, n ? ",%.*s" : "%.*s",
                          n ? (int)rest.n : (int)strlen(one), n ? rest.p : one); /* two fit */
    (void)head;
  }
  return 0;
}

void alert_send(struct sending *s, const struct alert_def_row *c, struct slice body) {
  struct alerts *a = s->alerts;
  auto_arena mem = {0};
  struct err e = {0};
  char signature[SIGNATURES_TEXT] = "", id[24];
  struct slice url = {0}, origin = {0}, path = {0};
  struct target *t = NULL;
  int r = channel_url(a, c, &mem, &url, &e);
  if (r >= 0)
    r = url_split(url, &origin, &path, &e);
  if (r >= 0)
    r = target_parse(origin, a->o.allowed, &t, &e);
  if (r >= 0)
    r = sign(a, c, body, signature, &e);
  if (r < 0) {
    target_unref(&t);
    end(s, e.text);
    return;
  }
  (void)snprintf(id, sizeof id, "%lld", (long long)s->id); /* 20 digits fit */
  const struct http_header headers[] = {{SLICE("Content-Type"), SLICE("application/json")},
                                        {SLICE("User-Agent"), SLICE("kelou")},
                                        {SLICE("X-Kelou-Alert-Id"), slice_of(id)},
                                        {SLICE("X-Kelou-Signature"), slice_of(signature)}};
  struct http_call call = {.target = t,
                           .method = "POST",
                           .path = path,
                           .headers = headers,
                           .header_count = sizeof headers / sizeof *headers,
                           .body = body,
                           .timeout = a->o.timeout,
                           .done = answered,
                           .arg = s};
  http_client_call(a->client, &call);
  target_unref(&t);
}
