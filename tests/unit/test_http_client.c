/* The HTTP client against a scripted peer: what is reused, what counts as sent, what ends when. */
#include "net_util.h"
#include "net/http_client.h"
#include "net/loop.h"
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/resource.h>

/* --- calls ------------------------------------------------------------------------------------------------ */

struct outcome {
  struct mutex lock;
  struct cond changed;
  int n; /* ended calls */
  int by[4];
  int status;
  char body[256], why[256], header[64];
};

static struct loop *loop;
static struct http_client *client;
static struct http_client_options options;
static struct outcome out;

static void on_done(const struct http_result *r, void *arg) {
  struct outcome *o = arg;
  assert_true(loop_is_current(loop));
  mutex_lock(&o->lock);
  o->n++;
  o->by[r->outcome]++;
  o->status = r->status;
  (void)text_copy(o->body, sizeof o->body, r->body);
  (void)text_copy(o->why, sizeof o->why, slice_of(r->why ? r->why : ""));
  for (size_t i = 0; i < r->header_count; i++)
    if (slice_eqz_nocase(r->headers[i].name, "x-answer"))
      (void)text_copy(o->header, sizeof o->header, r->headers[i].value);
  assert_true(r->elapsed >= 0);
  cond_broadcast(&o->changed);
  mutex_unlock(&o->lock);
}

static void outcome_init(struct outcome *o) {
  memset(o, 0, sizeof *o);
  mutex_init(&o->lock);
  cond_init(&o->changed);
}

static void outcome_done(struct outcome *o) {
  mutex_done(&o->lock);
  cond_done(&o->changed);
}

static void wait_for(struct outcome *o, int n) {
  mutex_lock(&o->lock);
  while (o->n < n)
    assert_true(cond_wait(&o->changed, &o->lock, WAIT_MAX_MS * USEC_PER_MS));
  mutex_unlock(&o->lock);
}

static struct target *target_of(const char *scheme, int port) {
  char url[64];
  struct err e;
  struct target *t;
  (void)snprintf(url, sizeof url, "%s://127.0.0.1:%d/base", scheme, port);
  assert_int_equal(target_parse(slice_of(url), NULL, &t, &e), 0);
  return t;
}

static void call(struct target *t, const char *method, const char *body, usec_t timeout, struct outcome *o) {
  struct http_header h[] = {{SLICE("X-Ask"), SLICE("1")},
                            {SLICE("Host"), SLICE("evil")},
                            {SLICE("Content-Length"), SLICE("99")},
                            {SLICE("X-Bad"), SLICE("a\r\nX-Evil: 1")}};
  struct http_call c = {.target = t,
                        .method = method,
                        .path = SLICE("/p?q=1"),
                        .headers = h,
                        .header_count = 4,
                        .body = slice_of(body),
                        .timeout = timeout,
                        .done = on_done,
                        .arg = o};
  http_client_call(client, &c);
}

/* One call on a fresh outcome. */
static enum http_call_outcome call_one(struct target *t, const char *method, usec_t timeout) {
  int before = out.n;
  memset(out.by, 0, sizeof out.by);
  call(t, method, "hello", timeout, &out);
  wait_for(&out, before + 1);
  for (int i = 0; i < 4; i++)
    if (out.by[i])
      return (enum http_call_outcome)i;
  return (enum http_call_outcome) - 1;
}

static void client_make(void) {
  struct err e;
  if (http_client_new(loop, &options, &client, &e) < 0)
    fail_msg("%s", e.text);
}

static int setup(void **state) {
  (void)state;
  struct err e;
  outcome_init(&out);
  assert_int_equal(loop_new("test", &loop, &e), 0);
  assert_int_equal(loop_start(loop, &e), 0);
  http_client_options_default(&options);
  client_make();
  return 0;
}

static int teardown(void **state) {
  (void)state;
  http_client_free(&client);
  loop_stop(&loop);
  outcome_done(&out);
  return 0;
}

#define LONG  (15 * USEC_PER_SEC)
#define SHORT (100 * USEC_PER_MS)

/* --- answers ---------------------------------------------------------------------------------------------- */

static void serve_echo(struct peer *p, int fd, int nth) {
  char request[8192], reply[9000];
  (void)p;
  (void)nth;
  while (get_request(fd, request, sizeof request)) {
    size_t n = strlen(request);
    (void)snprintf(reply, sizeof reply, "HTTP/1.1 200 OK\r\nX-Answer: yes\r\nContent-Length: %zu\r\n\r\n%s",
                   n, request);
    if (!put(fd, reply))
      return;
  }
}

static void request_and_reuse(void **state) {
  (void)state;
  struct peer p;
  peer_start(&p, serve_echo);
  struct target *t = target_of("http", p.port);
  char expected[256];
  (void)snprintf(
      expected, sizeof expected,
      "POST /base/p?q=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nX-Ask: 1\r\nContent-Length: 5\r\n\r\nhello",
      p.port);
  for (int i = 0; i < 50; i++) {
    assert_int_equal(call_one(t, "POST", LONG), HTTP_CALL_ANSWERED);
    assert_int_equal(out.status, 200);
    assert_string_equal(out.body, expected);
    assert_string_equal(out.header, "yes");
  }
  assert_int_equal(atomic_load(&p.accepted), 1); /* one connection for all */
  target_unref(&t);
  http_client_free(&client); /* before the peer, which waits on that connection */
  peer_stop(&p);
}

/* The nth connection gives the nth answer, byte by byte, and closes. */
static const char *const answers[] = {
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: t\r\n\r\n",
    "HTTP/1.1 202 Accepted\r\n\r\nuntil the end",
    "HTTP/1.0 200 OK\r\n\r\nold",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nX: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: "
    "2\r\n\r\nok",
    "HTTP/1.1 204 No Content\r\nContent-Length: 7\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\ny",
    "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
};
static const struct {
  int status;
  const char *body;
} expected_answers[] = {
    {200, "abcde"}, {202, "until the end"}, {200, "old"}, {200, "ok"}, {204, ""}, {200, "x"}, {200, "x"},
    {302, ""}};
#define ANSWERS (sizeof answers / sizeof *answers)

static void serve_table(struct peer *p, int fd, int nth) {
  char request[8192];
  (void)p;
  int one = 1;
  (void)setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one);
  if (!get_request(fd, request, sizeof request))
    return;
  const char *text = answers[(size_t)nth / 2 % ANSWERS];
  if (nth % 2 == 0) {
    (void)put(fd, text);
  } else {
    for (; *text; text++)
      if (!put_bytes(fd, text, 1))
        return;
  }
}

static void every_kind_of_answer(void **state) {
  (void)state;
  struct peer p;
  peer_start(&p, serve_table);
  struct target *t = target_of("http", p.port);
  for (size_t i = 0; i < ANSWERS * 2; i++) {
    /* a client of its own each time: no connection is left of the last round */
    http_client_free(&client);
    client_make();
    assert_int_equal(call_one(t, "POST", LONG), HTTP_CALL_ANSWERED);
    assert_int_equal(out.status, expected_answers[i / 2].status);
    assert_string_equal(out.body, expected_answers[i / 2].body);
  }
  target_unref(&t);
  peer_stop(&p);
}

static void serve_head(struct peer *p, int fd, int nth) {
  char request[8192];
  (void)p;
  (void)nth;
  while (get_request(fd, request, sizeof request))
    if (!put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"))
      return;
}

static void head(void **state) {
  (void)state;
  struct peer p;
  peer_start(&p, serve_head);
  struct target *t = target_of("http", p.port);
  for (int i = 0; i < 3; i++)
    assert_int_equal(call_one(t, "HEAD", LONG), HTTP_CALL_ANSWERED);
  assert_int_equal(atomic_load(&p.accepted), 1);
  target_unref(&t);
  http_client_free(&client);
  peer_stop(&p);
}

/* --- outcomes that decide about at-most-once ---------------------------------------------------------------- */

static void refused_port_is_not_sent(void **state) {
  (void)state;
  int port, fd = listen_any(&port);
  (void)close(fd);
  struct target *t = target_of("http", port);
  assert_int_equal(call_one(t, "POST", LONG), HTTP_CALL_NOT_SENT);
  assert_string_equal(out.why, "connection refused");
  for (int i = 0; i < 100; i++)
    call(t, "POST", "x", LONG, &out);
  wait_for(&out, 101);
  assert_int_equal(out.by[HTTP_CALL_NOT_SENT], 101);
  struct http_call bad = {
      .target = t, .method = "GET", .path = SLICE("/a b"), .timeout = LONG, .done = on_done, .arg = &out};
  http_client_call(client, &bad);
  wait_for(&out, 102);
  assert_int_equal(out.by[HTTP_CALL_NOT_SENT], 102);
  call(t, "POST", "x", 0, &out); /* no time at all */
  wait_for(&out, 103);
  assert_int_equal(out.by[HTTP_CALL_NOT_SENT], 103);
  target_unref(&t);
}

/* What the peer does with a request decides: nth connection, nth misbehaviour. */
static void serve_badly(struct peer *p, int fd, int nth) {
  char request[8192];
  static const char *const broken[] = {
      "",
      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
      "HTTP/1.1 200 OK\r\nConte",
      "SSH-2.0-OpenSSH\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
      "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxy",
      "HTTP/1.1 100 Continue\r\n\r\n"};
  (void)p;
  if (!get_request(fd, request, sizeof request))
    return;
  (void)put(fd, broken[(size_t)nth % (sizeof broken / sizeof *broken)]);
}

static void written_without_a_whole_answer_is_lost(void **state) {
  (void)state;
  struct peer p;
  peer_start(&p, serve_badly);
  struct target *t = target_of("http", p.port);
  for (int i = 0; i < 16; i++) {
    assert_int_equal(call_one(t, "POST", LONG), HTTP_CALL_LOST);
    assert_true(out.why[0]);
    if (i % 8 == 4)
      assert_string_equal(out.why, "the answer is too large");
  }
  target_unref(&t);
  peer_stop(&p);
}

/* Answers, then closes the idle connection; the next call must not be lost by that. */
static void serve_once(struct peer *p, int fd, int nth) {
  char request[8192];
  (void)p;
  (void)nth;
  if (get_request(fd, request, sizeof request))
    (void)put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
}

static void stale_connections(void **state) {
  (void)state;
  struct peer p;
  peer_start(&p, serve_once);
  struct target *t = target_of("http", p.port);
  for (int i = 0; i < 20; i++) {
    assert_int_equal(call_one(t, "POST", LONG), HTTP_CALL_ANSWERED);
    /* The peer serves one after the other: once it has taken this connection, the client's has been closed. */
    int next = dial(p.port);
    (void)shutdown(next, SHUT_WR);
    char c;
    assert_int_equal(recv(next, &c, 1, 0), 0);
    (void)close(next);
  }
  target_unref(&t);
  peer_stop(&p);
}

static void serve_silence(struct peer *p, int fd, int nth) {
  char request[8192];
  (void)p;
  (void)nth;
  while (get_request(fd, request, sizeof request)) /* reads until the client gives up, answers nothing */
    continue;
}

static void time_out(void **state) {
  (void)state;
  struct peer p;
  peer_start(&p, serve_silence);
  struct target *t = target_of("http", p.port);
  assert_int_equal(call_one(t, "POST", SHORT), HTTP_CALL_LOST);
  assert_string_equal(out.why, "the time is up");
  target_unref(&t);
  peer_stop(&p);
}

/* One connection only: the others wait, in order, and those beyond the limit are refused at once. */
static void full_queue(void **state) {
  (void)state;
  struct peer p;
  http_client_free(&client);
  options.max_connections_per_target = 1;
  options.max_waiting_per_target = 3;
  client_make();
  peer_start(&p, serve_silence);
  struct target *t = target_of("http", p.port);
  for (int i = 0; i < 10; i++)
    call(t, "POST", "x", i == 0 ? 10 * SHORT : SHORT, &out);
  wait_for(&out, 10);
  assert_int_equal(out.by[HTTP_CALL_REFUSED], 6);
  assert_int_equal(out.by[HTTP_CALL_LOST], 1);     /* was on the connection */
  assert_int_equal(out.by[HTTP_CALL_NOT_SENT], 3); /* never had one */
  target_unref(&t);
  peer_stop(&p);
}

static void one_dead_target_slows_nobody(void **state) {
  (void)state;
  struct peer dead, alive;
  struct outcome slow;
  outcome_init(&slow);
  peer_start(&dead, serve_silence);
  peer_start(&alive, serve_echo);
  struct target *a = target_of("http", dead.port), *b = target_of("http", alive.port);
  for (int i = 0; i < 500; i++)
    call(a, "POST", "x", 60 * USEC_PER_SEC, &slow);
  for (int i = 0; i < 200; i++)
    assert_int_equal(call_one(b, "POST", LONG), HTTP_CALL_ANSWERED);
  assert_int_equal(slow.n, 0); /* all of them still wait */
  http_client_free(&client);
  assert_int_equal(slow.n, 500); /* each ended exactly once before the client was gone */
  assert_int_equal(slow.by[HTTP_CALL_ANSWERED], 0);
  assert_true(slow.by[HTTP_CALL_LOST] <= 16);
  target_unref(&a);
  target_unref(&b);
  peer_stop(&dead);
  peer_stop(&alive);
  outcome_done(&slow);
}

static atomic_int asked, may_answer;
static void serve_when_told(struct peer *p, int fd, int nth) {
  (void)nth;
  for (char request[8192]; get_request(fd, request, sizeof request);) {
    atomic_fetch_add(&asked, 1);
    while (!atomic_load(&may_answer) && !atomic_load(&p->stop))
      (void)poll(NULL, 0, 1);
    (void)put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
  }
}

/* A further connection that fails at once (no descriptor left) while another one works: the call waits for that one. */
static void no_descriptor_left(void **state) {
  (void)state;
  struct peer p;
  struct rlimit before, none = {0};
  peer_start(&p, serve_when_told);
  struct target *t = target_of("http", p.port);
  call(t, "POST", "first", LONG, &out);
  for (int i = 0; i < WAIT_MAX_MS && !atomic_load(&asked); i++)
    (void)poll(NULL, 0, 1);
  assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
  none.rlim_max = before.rlim_max;
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
  call(t, "POST", "more", LONG, &out);
  call(t, "POST", "given up", 0, &out); /* ends at once: the loop has seen the one before it */
  wait_for(&out, 1);
  assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
  atomic_store(&may_answer, 1);
  wait_for(&out, 3);
  assert_int_equal(out.by[HTTP_CALL_ANSWERED], 2);
  target_unref(&t);
  http_client_free(&client);
  peer_stop(&p);
}

static void many_calls_many_connections(void **state) {
  (void)state;
  struct peer p[4];
  struct target *t[4];
  http_client_free(&client);
  options.max_connections_per_target = 1; /* the peers serve one connection at a time */
  options.max_waiting_per_target = 5000;
  client_make();
  for (int i = 0; i < 4; i++) {
    peer_start(&p[i], serve_echo);
    t[i] = target_of("http", p[i].port);
  }
  for (int i = 0; i < 4000; i++)
    call(t[i % 4], "POST", "payload", LONG, &out);
  wait_for(&out, 4000);
  assert_int_equal(out.by[HTTP_CALL_ANSWERED], 4000);
  http_client_free(&client);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(atomic_load(&p[i].accepted), 1);
    peer_stop(&p[i]);
    target_unref(&t[i]);
  }
}

/* --- TLS ------------------------------------------------------------------------------------------------- */

static char ca_path[64];

/* A self-made certificate for 127.0.0.1, its own CA; written for the client to trust. */
static SSL_CTX *tls_server(const char *names) {
  EVP_PKEY *key = EVP_EC_gen("P-256");
  X509 *x = X509_new();
  assert_non_null(key);
  assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(x), 7), 1);
  assert_int_equal(X509_set_version(x, X509_VERSION_3), 1);
  assert_non_null(X509_gmtime_adj(X509_getm_notBefore(x), -3600));
  assert_non_null(X509_gmtime_adj(X509_getm_notAfter(x), 3600));
  assert_int_equal(X509_set_pubkey(x, key), 1);
  X509_NAME *name = X509_get_subject_name(x);
  assert_int_equal(
      X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"test", -1, -1, 0), 1);
  assert_int_equal(X509_set_issuer_name(x, name), 1);
  X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
  assert_int_equal(X509_add_ext(x, san, -1), 1);
  X509_EXTENSION_free(san);
  assert_true(X509_sign(x, key, EVP_sha256()) > 0);
  (void)snprintf(ca_path, sizeof ca_path, "/tmp/kelou-test-ca-XXXXXX");
  int fd = mkstemp(ca_path);
  FILE *f = fdopen(fd, "w");
  assert_int_equal(PEM_write_X509(f, x), 1);
  assert_int_equal(fclose(f), 0);
  SSL_CTX *c = SSL_CTX_new(TLS_server_method());
  assert_int_equal(SSL_CTX_use_certificate(c, x), 1);
  assert_int_equal(SSL_CTX_use_PrivateKey(c, key), 1);
  X509_free(x);
  EVP_PKEY_free(key);
  return c;
}

/* Answers requests of 5 bytes of body with `big` bytes; the nth connection may end without a close_notify. */
static void serve_tls(struct peer *p, int fd, int nth) {
  SSL *ssl = SSL_new(p->tls);
  static char buf[400000];
  assert_int_equal(SSL_set_fd(ssl, fd), 1);
  if (SSL_accept(ssl) == 1) {
    size_t n = 0;
    int r;
    while ((r = SSL_read(ssl, buf + n, 1)) == 1) {
      buf[++n] = 0;
      if (n < 9 || memcmp(buf + n - 9, "\r\n\r\nhello", 9) != 0)
        continue;
      n = 0;
      if (nth == 1) { /* a body that ends with the connection, cut by somebody in between */
        (void)SSL_write(ssl, "HTTP/1.1 200 OK\r\n\r\ncut", 22);
        break;
      }
      int head_n = snprintf(buf, sizeof buf, "HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n");
      memset(buf + head_n, 't', 300000);
      if (SSL_write(ssl, buf, head_n + 300000) <= 0)
        break;
    }
  }
  SSL_free(ssl);
}

static void tls_round_trip(void **state) {
  (void)state;
  struct peer p;
  SSL_CTX *ctx = tls_server("IP:127.0.0.1");
  http_client_free(&client);
  options.ca_file = ca_path;
  client_make();
  peer_start(&p, serve_tls);
  p.tls = ctx;
  struct target *t = target_of("https", p.port);
  for (int i = 0; i < 5; i++) {
    assert_int_equal(call_one(t, "POST", LONG), HTTP_CALL_ANSWERED);
    assert_int_equal(out.body[0], 't');
  }
  assert_int_equal(atomic_load(&p.accepted), 1);
  http_client_free(&client);
  client_make();
  assert_int_equal(call_one(t, "POST", LONG), HTTP_CALL_LOST); /* no close_notify: not a whole answer */
  http_client_free(&client);
  options.ca_file = NULL; /* the system's: does not know ours */
  client_make();
  assert_int_equal(call_one(t, "POST", LONG), HTTP_CALL_NOT_SENT);
  assert_non_null(strstr(out.why, "self"));
  target_unref(&t);
  http_client_free(&client);
  peer_stop(&p);
  SSL_CTX_free(ctx);
  assert_int_equal(unlink(ca_path), 0);
}

static void tls_checks_the_name(void **state) {
  (void)state;
  struct peer p;
  struct err e;
  SSL_CTX *ctx = tls_server("DNS:localhost,IP:127.0.0.2");
  http_client_free(&client);
  options.ca_file = ca_path;
  client_make();
  peer_start(&p, serve_tls);
  p.tls = ctx;
  struct target *t = target_of("https", p.port), *named;
  assert_int_equal(call_one(t, "POST", LONG), HTTP_CALL_NOT_SENT);
  assert_non_null(strstr(out.why, "mismatch"));
  char url[64];
  (void)snprintf(url, sizeof url, "https://localhost:%d", p.port);
  assert_int_equal(target_parse(slice_of(url), NULL, &named, &e), 0);
  atomic_store(&p.accepted, 5); /* past the connection that misbehaves */
  assert_int_equal(call_one(named, "POST", LONG), HTTP_CALL_ANSWERED);
  target_unref(&t);
  target_unref(&named);
  http_client_free(&client);
  peer_stop(&p);
  SSL_CTX_free(ctx);
  assert_int_equal(unlink(ca_path), 0);
  options.ca_file = "/nonexistent/ca.pem";
  assert_true(http_client_new(loop, &options, &client, &e) < 0);
  assert_null(client);
}

/* A plain peer where TLS is expected, and one that accepts but never shakes hands. */
static void tls_that_never_comes(void **state) {
  (void)state;
  struct peer p;
  http_client_free(&client);
  options.connect_timeout = SHORT;
  client_make();
  peer_start(&p, serve_silence);
  struct target *t = target_of("https", p.port);
  assert_int_equal(call_one(t, "POST", LONG), HTTP_CALL_NOT_SENT);
  assert_string_equal(out.why, "connecting took too long");
  target_unref(&t);
  http_client_free(&client);
  peer_stop(&p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(request_and_reuse, setup, teardown),
      cmocka_unit_test_setup_teardown(every_kind_of_answer, setup, teardown),
      cmocka_unit_test_setup_teardown(head, setup, teardown),
      cmocka_unit_test_setup_teardown(refused_port_is_not_sent, setup, teardown),
      cmocka_unit_test_setup_teardown(written_without_a_whole_answer_is_lost, setup, teardown),
      cmocka_unit_test_setup_teardown(stale_connections, setup, teardown),
      cmocka_unit_test_setup_teardown(time_out, setup, teardown),
      cmocka_unit_test_setup_teardown(full_queue, setup, teardown),
      cmocka_unit_test_setup_teardown(one_dead_target_slows_nobody, setup, teardown),
      cmocka_unit_test_setup_teardown(no_descriptor_left, setup, teardown),
      cmocka_unit_test_setup_teardown(many_calls_many_connections, setup, teardown),
      cmocka_unit_test_setup_teardown(tls_round_trip, setup, teardown),
      cmocka_unit_test_setup_teardown(tls_checks_the_name, setup, teardown),
      cmocka_unit_test_setup_teardown(tls_that_never_comes, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
