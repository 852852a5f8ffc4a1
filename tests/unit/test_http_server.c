/* The HTTP server over real sockets: framing attacks, limits, deadlines, order, drain. */
#include "net_util.h"
#include "net/http_server.h"
#include "net/loop.h"

#define BIG (6 * 1024 * 1024)

/* Requests that the handler keeps until a test lets them go. */
static struct {
  struct mutex lock;
  struct cond changed;
  struct http_request *v[64];
  int n;
} held;

static struct loop *loop;
static struct http_server *server;
static struct thread worker;
static char *big;

static void answer(struct http_request *r, int status, struct slice body) {
  struct http_reply reply = {.status = status, .content_type = "text/plain", .body = body};
  http_request_reply(r, &reply);
}

static void hold(struct http_request *r) {
  mutex_lock(&held.lock);
  assert_true(held.n < 64);
  held.v[held.n++] = r;
  cond_broadcast(&held.changed);
  mutex_unlock(&held.lock);
}

static struct http_request *let_go(void) {
  mutex_lock(&held.lock);
  while (!held.n)
    assert_true(cond_wait(&held.changed, &held.lock, WAIT_MAX_MS * USEC_PER_MS));
  struct http_request *r = held.v[0];
  memmove(held.v, held.v + 1, sizeof held.v[0] * (size_t)--held.n);
  mutex_unlock(&held.lock);
  return r;
}

/* Answers "/later" requests from another thread, with what they brought. */
static void work(void *arg) {
  (void)arg;
  for (;;) {
    struct http_request *r = let_go();
    if (slice_eqz(r->path, "/stop")) {
      answer(r, 200, SLICE("stopped"));
      return;
    }
    answer(r, 200, r->query);
  }
}

static void describe(struct http_request *r) {
  struct str s;
  str_init(&s, 1 << 20);
  str_addf(&s, "%.*s|%.*s|%.*s|", SLICE_FMT(r->method), SLICE_FMT(r->path), SLICE_FMT(r->query));
  for (size_t i = 0; i < r->header_count; i++)
    str_addf(&s, "%.*s=%.*s;", SLICE_FMT(r->headers[i].name), SLICE_FMT(r->headers[i].value));
  str_addf(&s, "|%.*s", SLICE_FMT(r->body));
  answer(r, 200, str_slice(&s));
  str_done(&s);
}

static void handle(struct http_request *r, void *arg) {
  (void)arg;
  assert_memory_equal(r->peer, "127.0.0.", 8);
  if (slice_eqz(r->path, "/later") || slice_eqz(r->path, "/stop") || slice_eqz(r->path, "/hold"))
    hold(r);
  else if (slice_eqz(r->path, "/big"))
    answer(r, 200, slice_n(big, BIG));
  else if (slice_eqz(r->path, "/none"))
    answer(r, 204, (struct slice){0});
  else if (slice_eqz(r->path, "/split")) {
    struct http_header h[] = {{SLICE("Location"), SLICE("/a\r\nX-Evil: 1")}, {SLICE("X-Good"), SLICE("1")}};
    struct http_reply reply = {.status = 200, .headers = h, .header_count = 2};
    http_request_reply(r, &reply);
  } else
    describe(r);
}

static void refusal(int status, const char *why, struct str *body, const char **ret_content_type) {
  str_addf(body, "{\"status\":%d,\"why\":\"%s\"}", status, why);
  *ret_content_type = "application/problem+json";
}

static void serve(struct http_server_options *o) {
  struct err e = {0};
  o->handle = handle;
  o->refusal = refusal;
  if (http_server_start(loop, o, &server, &e) < 0)
    fail_msg("%s", e.text);
}

static int setup(void **state) {
  (void)state;
  struct err e;
  struct http_server_options o;
  memset(&held, 0, sizeof held);
  mutex_init(&held.lock);
  cond_init(&held.changed);
  big = mem_alloc(BIG);
  memset(big, 'b', BIG);
  http_server_options_default(&o);
  assert_int_equal(loop_new("test", &loop, &e), 0);
  assert_int_equal(loop_start(loop, &e), 0);
  serve(&o);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  http_server_drain(&server, USEC_PER_SEC);
  loop_stop(&loop);
  mem_free(big);
  cond_done(&held.changed);
  mutex_done(&held.lock);
  return 0;
}

static void restart(struct http_server_options *o) {
  http_server_drain(&server, USEC_PER_SEC);
  serve(o);
}

/* Send `text`, read to the end (the server must close, or we half-close), give the first status. */
static int ask(const char *text, char **ret_all) {
  int fd = dial(http_server_port(server));
  (void)put(fd, text); /* refused early: the rest may not be taken */
  (void)shutdown(fd, SHUT_WR);
  char *all = get_all(fd, NULL);
  int status = strncmp(all, "HTTP/1.1 ", 9) == 0 ? (int)strtol(all + 9, NULL, 10) : -1;
  if (ret_all)
    *ret_all = all;
  else
    mem_free(all);
  (void)close(fd);
  return status;
}

static void requests(void **state) {
  (void)state;
  char *all;
  assert_int_equal(ask("GET /a/b%20c?x=1&y=2 HTTP/1.1\r\nHost: h\r\nX-Empty:\r\nX-Pad:  v \t\r\n\r\n", &all),
                   200);
  assert_non_null(strstr(all, "\r\n\r\nGET|/a/b%20c|x=1&y=2|Host=h;X-Empty=;X-Pad=v;|"));
  assert_non_null(strstr(all, "\r\nDate: "));
  mem_free(all);
  assert_int_equal(ask("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", &all), 200);
  assert_non_null(strstr(all, "|hello"));
  mem_free(all);
  assert_int_equal(
      ask("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nhel\r\n2\r\nlo\r\n0\r\n"
          "X-Trailer: t\r\n\r\n",
          &all),
      200);
  assert_non_null(strstr(all, "|hello"));
  assert_null(strstr(all, "X-Trailer"));
  mem_free(all);
  assert_int_equal(ask("GET http://h:1/abs?q HTTP/1.1\r\nHost: h\r\n\r\n", &all), 200);
  assert_non_null(strstr(all, "GET|/abs|q|"));
  mem_free(all);
  assert_int_equal(ask("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", NULL), 200);
  assert_int_equal(ask("GET /none HTTP/1.1\r\nHost: h\r\n\r\n", &all), 204);
  assert_null(strstr(all, "Content-Length"));
  mem_free(all);
  assert_int_equal(ask("GET /split HTTP/1.1\r\nHost: h\r\n\r\n", &all), 200);
  assert_null(strstr(all, "Evil"));
  assert_non_null(strstr(all, "X-Good: 1\r\n"));
  mem_free(all);
}

static void keep_alive_and_head(void **state) {
  (void)state;
  char buf[4096], again[4096];
  int fd = dial(http_server_port(server));
  assert_true(put(fd, "HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n"));
  assert_int_equal(get_answer(fd, buf, sizeof buf, true), 200);
  assert_non_null(strstr(buf, "Content-Length: 17\r\n"));
  assert_true(put(fd, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"));
  assert_int_equal(get_answer(fd, again, sizeof again, false), 200);
  assert_non_null(strstr(again, "GET|/x||Host=h;|"));
  assert_true(put(fd, "GET /x HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n"));
  assert_int_equal(get_answer(fd, buf, sizeof buf, false), 200); /* the offer is ignored */
  assert_true(put(fd, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
  char *all = get_all(fd, NULL);
  assert_non_null(strstr(all, "Connection: close\r\n"));
  mem_free(all);
  (void)close(fd);
  fd = dial(http_server_port(server));
  assert_true(put(fd, "GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
  assert_int_equal(get_answer(fd, buf, sizeof buf, false), 200);
  assert_non_null(strstr(buf, "Connection: keep-alive\r\n"));
  assert_true(put(fd, "GET /x HTTP/1.0\r\n\r\n"));
  all = get_all(fd, NULL);
  assert_non_null(strstr(all, "200 OK"));
  mem_free(all);
  (void)close(fd);
}

/* Everything that two readers could read differently is refused. */
static void framing(void **state) {
  (void)state;
  static const struct {
    int status;
    const char *text;
  } cases[] = {
      {400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\nhello"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5,5\r\n\r\nhello"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\nhello"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 5\r\n\r\nhello"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\na"},
      {400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc"},
      {400, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
      {400, "GET / HTTP/1.1\nHost: h\n\n"},
      {400, "GET / HTTP/1.1\nHost: h\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: h\r\n\n"},
      {400, "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: h\r\nX: y\r\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: h\r\nX:\r\n\tb\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n"},
      {400, "GET  / HTTP/1.1\r\nHost: h\r\n\r\n"},
      {400, "GET /  HTTP/1.1\r\nHost: h\r\n\r\n"},
      {400, " GET / HTTP/1.1\r\nHost: h\r\n\r\n"},
      {400, "GET /\r\n\r\n"},
      {400, "GET / RTSP/1.0\r\nHost: h\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n"},
      {400, "GET * HTTP/1.1\r\nHost: h\r\n\r\n"},
      {400, "GET ftp://h/x HTTP/1.1\r\nHost: h\r\n\r\n"},
      {400, "GET http:///x HTTP/1.1\r\nHost: h\r\n\r\n"},
      {400, "GET http://u@h/x HTTP/1.1\r\nHost: h\r\n\r\n"},
      {415, "POST / HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"},
      {400, "GET / HTTP/1.1\r\nHost: h\r\nX: a\x01"
            "b\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: h\r\nX y: a\r\n\r\n"},
      {400, "GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"},
      {400, "GET nothing HTTP/1.1\r\nHost: h\r\n\r\n"},
      {400, "\x16\x03\x01\x02"},
      {400, "BREW / HTTP/1.1\r\nHost: h\r\n\r\n"},
      {417, "POST / HTTP/1.1\r\nHost: h\r\nExpect: tea\r\nContent-Length: 1\r\n\r\nx"},
      {501, "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n"},
      {505, "GET / HTTP/3.7\r\nHost: h\r\n\r\n"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char *all;
    int status = ask(cases[i].text, &all);
    if (status != cases[i].status || !strstr(all, "Connection: close"))
      fail_msg("case %zu (%s): expected %d, got: %s", i, cases[i].text, cases[i].status, all);
    assert_non_null(strstr(all, "application/problem+json"));
    const char *second = strstr(all + 5, "HTTP/1.1 ");
    assert_null(second);
    mem_free(all);
  }
}

static void repeat(struct str *s, const char *text, int n) {
  for (int i = 0; i < n; i++)
    str_addz(s, text);
}

static void limits(void **state) {
  (void)state;
  auto_str s;
  char line[64];
  str_init(&s, 16 << 20);
  str_addz(&s, "GET / HTTP/1.1\r\nHost: h\r\n");
  repeat(&s, "X-A: 0123456789abcdef0123456789abcdef0123456789abcdef01\r\n", 1100); /* 64 KB */
  str_addz(&s, "\r\n");
  assert_int_equal(ask(s.p, NULL), 431);
  str_clear(&s);
  str_addz(&s, "GET / HTTP/1.1\r\nHost: h\r\nX: ");
  repeat(&s, "0123456789abcdef", 1100);
  str_addz(&s, "\r\n\r\n");
  assert_int_equal(ask(s.p, NULL), 431);
  str_clear(&s);
  str_addz(&s, "GET /");
  repeat(&s, "0123456789abcdef", 1100);
  str_addz(&s, " HTTP/1.1\r\nHost: h\r\n\r\n");
  assert_int_equal(ask(s.p, NULL), 431);
  str_clear(&s);
  str_addz(&s, "GET / HTTP/1.1\r\nHost: h\r\n");
  repeat(&s, "A: b\r\n", 100);
  str_addz(&s, "\r\n");
  assert_int_equal(ask(s.p, NULL), 431);
  (void)snprintf(line, sizeof line, "Content-Length: %d\r\n\r\n", 2 * 1024 * 1024 + 1);
  str_clear(&s);
  str_addz(&s, "POST / HTTP/1.1\r\nHost: h\r\n");
  str_addz(&s, line);
  assert_int_equal(ask(s.p, NULL), 413); /* at once: no byte of the body was sent */
  str_clear(&s);
  str_addz(&s, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 33; i++) { /* 33 × 64 KiB */
    str_addz(&s, "10000\r\n");
    repeat(&s, "0123456789abcdef", 4096);
    str_addz(&s, "\r\n");
  }
  str_addz(&s, "0\r\n\r\n");
  assert_int_equal(ask(s.p, NULL), 413);
  str_clear(&s);
  str_addz(&s, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
  repeat(&s, "1;0123456789abcdef0123456789abcdef\r\nx\r\n", 60000); /* hardly anything in much frame */
  assert_int_equal(ask(s.p, NULL), 400);
  str_clear(&s);
  str_addz(&s, "GET ");
  repeat(&s, "\r\n", 20000);
  assert_int_equal(ask(s.p + 4, NULL), 431); /* empty lines count, too */
  str_clear(&s);                             /* exactly the limit is fine */
  str_addz(&s, "POST /none HTTP/1.1\r\nHost: h\r\nContent-Length: 2097152\r\n\r\n");
  repeat(&s, "0123456789abcdef", 131072);
  assert_int_equal(ask(s.p, NULL), 204);
}

static void expect_continue(void **state) {
  (void)state;
  char buf[4096];
  int fd = dial(http_server_port(server));
  assert_true(put(fd, "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
  assert_int_equal(get_answer(fd, buf, sizeof buf, true), 100);
  assert_true(put(fd, "ok"));
  assert_int_equal(get_answer(fd, buf, sizeof buf, false), 200);
  assert_non_null(strstr(buf, "|ok"));
  assert_true(
      put(fd, "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n"));
  assert_int_equal(get_answer(fd, buf, sizeof buf, false), 413); /* instead of an invitation */
  (void)close(fd);
}

/* The same conversation in pieces of every size gives the same bytes. */
static void split_input(void **state) {
  (void)state;
  static const char text[] =
      "\r\nGET /1?a HTTP/1.1\r\nHost: h\r\nX-A: b c\r\n\r\n"
      "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nxyz"
      "POST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
      "GET /4 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
  static const char *const bodies[] = {"GET|/1|a|Host=h;X-A=b c;|", "|xyz", "|abc", "GET|/4||"};
  for (size_t piece = 1; piece < 40; piece++) {
    int fd = dial(http_server_port(server));
    int one = 1;
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one), 0);
    for (size_t i = 0; i < sizeof text - 1; i += piece) {
      size_t n = sizeof text - 1 - i < piece ? sizeof text - 1 - i : piece;
      assert_true(put_bytes(fd, text + i, n));
    }
    char *all = get_all(fd, NULL);
    const char *at = all;
    for (size_t i = 0; i < 4; i++) {
      at = strstr(at, bodies[i]);
      if (!at)
        fail_msg("piece %zu: answer %zu missing in %s", piece, i, all);
    }
    mem_free(all);
    (void)close(fd);
  }
}

/* Pipelined requests are answered in order, also when another thread does it. */
static void pipelining(void **state) {
  (void)state;
  struct err e;
  char expected[32];
  assert_int_equal(thread_start(&worker, "worker", work, NULL, &e), 0);
  for (int round = 0; round < 2; round++) {
    const char *path = round ? "later" : "now";
    auto_str s;
    str_init(&s, 1 << 20);
    for (int i = 0; i < 2000; i++)
      str_addf(&s, "GET /%s?%d HTTP/1.1\r\nHost: h\r\n\r\n", path, i);
    char *all;
    assert_int_equal(ask(s.p, &all), 200);
    const char *at = all;
    for (int i = 0; i < 2000; i++) {
      (void)snprintf(expected, sizeof expected, round ? "\r\n\r\n%d" : "|%d|", i);
      at = strstr(at, expected);
      if (!at)
        fail_msg("round %d: answer %d is missing or out of order", round, i);
    }
    mem_free(all);
  }
  assert_int_equal(ask("GET /stop HTTP/1.1\r\nHost: h\r\n\r\n", NULL), 200);
  thread_join(&worker);
}

static void client_gone_before_the_answer(void **state) {
  (void)state;
  int fd = dial(http_server_port(server));
  assert_true(put(fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n"));
  struct http_request *r = let_go();
  struct linger reset = {.l_onoff = 1};
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
  (void)close(fd);
  assert_int_equal(ask("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", NULL), 200); /* the loop has seen the reset */
  assert_true(slice_eqz(r->path, "/hold"));                               /* still valid */
  answer(r, 200, slice_n(big, BIG));
  assert_int_equal(ask("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", NULL), 200);
}

static void big_answers(void **state) {
  (void)state;
  size_t n;
  int fd = dial(http_server_port(server));
  assert_true(
      put(fd, "GET /big HTTP/1.1\r\nHost: h\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
  char *all = get_all(fd, &n);
  assert_true(n > BIG);
  assert_non_null(strstr(all + BIG, "GET|/x|"));
  mem_free(all);
  (void)close(fd);
}

static void deadlines(void **state) {
  (void)state;
  struct http_server_options o;
  http_server_options_default(&o);
  o.header_timeout = o.body_timeout = o.write_timeout = o.idle_timeout = 200 * USEC_PER_MS;
  restart(&o);
  /* a byte now and then does not help: the deadline is absolute */
  int fd = dial(http_server_port(server));
  assert_true(put(fd, "GET / HTTP/1.1\r\nX: "));
  for (int i = 0; i < 2000; i++) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, 10) > 0)
      break;
    assert_true(put(fd, "x"));
    assert_true(i < 1999);
  }
  char *all = get_all(fd, NULL);
  assert_non_null(strstr(all, "HTTP/1.1 408 "));
  mem_free(all);
  (void)close(fd);
  fd = dial(http_server_port(server));
  assert_true(put(fd, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc"));
  all = get_all(fd, NULL);
  assert_non_null(strstr(all, "HTTP/1.1 408 "));
  mem_free(all);
  (void)close(fd);
  size_t n;
  fd = dial(http_server_port(server)); /* idle from the start: closed without a word */
  all = get_all(fd, &n);
  assert_int_equal(n, 0);
  mem_free(all);
  (void)close(fd);
  fd = dial(http_server_port(server)); /* asks, but does not read: closed when the write takes too long */
  for (int i = 0; i < 8; i++)
    (void)put(fd, "GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
  struct pollfd gone = {.fd = fd, .events = 0};
  assert_int_equal(poll(&gone, 1, WAIT_MAX_MS), 1); /* POLLHUP or POLLERR */
  (void)close(fd);
}

static void too_many_connections(void **state) {
  (void)state;
  struct http_server_options o;
  char buf[4096];
  http_server_options_default(&o);
  o.max_connections = 2;
  restart(&o);
  int a = dial(http_server_port(server)), b = dial(http_server_port(server));
  assert_true(put(a, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"));
  assert_int_equal(get_answer(a, buf, sizeof buf, false), 200);
  assert_true(put(b, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"));
  assert_int_equal(get_answer(b, buf, sizeof buf, false), 200);
  assert_int_equal(ask("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", NULL), 503);
  (void)close(a);
  (void)close(b);
}

/* Every place is taken, but not in use: the oldest idle connection gives its own. */
static void room_for_a_new_one(void **state) {
  (void)state;
  struct http_server_options o;
  char c;
  http_server_options_default(&o);
  o.max_connections = 2;
  restart(&o);
  int a = dial(http_server_port(server)), b = dial(http_server_port(server)), status = 503;
  for (int i = 0; i < WAIT_MAX_MS / 10 && status == 503; i++) { /* it must have been idle for a second */
    (void)poll(NULL, 0, 10);
    status = ask("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", NULL);
  }
  assert_int_equal(status, 200);
  assert_int_equal(recv(a, &c, 1, 0), 0);
  (void)close(a);
  (void)close(b);
}

static int dial_from(const char *source, int port) {
  struct sockaddr_in from = {.sin_family = AF_INET},
                     to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(inet_pton(AF_INET, source, &from.sin_addr), 1);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  assert_int_equal(bind(fd, (struct sockaddr *)&from, sizeof from), 0);
  assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
  return fd;
}

static void one_address_has_a_cap(void **state) {
  (void)state;
  struct http_server_options o;
  char buf[4096];
  char *all;
  http_server_options_default(&o);
  o.max_connections_per_address = 2;
  restart(&o);
  int a = dial(http_server_port(server)), b = dial(http_server_port(server));
  assert_int_equal(ask("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", &all), 429);
  assert_non_null(strstr(all, "\r\nRetry-After: 1\r\n"));
  mem_free(all);
  int other = dial_from("127.0.0.2", http_server_port(server));
  assert_true(put(other, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n"));
  (void)close(a);
  int status = 429; /* its place is free once the server has seen the end */
  for (int i = 0; i < WAIT_MAX_MS / 10 && status == 429; i++) {
    (void)poll(NULL, 0, 10);
    status = ask("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", NULL);
  }
  assert_int_equal(status, 200);
  answer(let_go(), 200, SLICE("other"));
  assert_int_equal(get_answer(other, buf, sizeof buf, false), 200);
  (void)close(other);
  (void)close(b);
}

static void rates(void **state) {
  (void)state;
  struct http_server_options o;
  http_server_options_default(&o);
  o.rate_per_token = 1; /* two at once */
  restart(&o);
  static const char *const texts[] = {"GET /x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer one\r\n\r\n",
                                      "GET /x HTTP/1.1\r\nHost: h\r\nAuthorization:  bearer   one\r\n\r\n",
                                      "GET /x HTTP/1.1\r\nHost: h\r\nAuthorization: one\r\n\r\n"};
  assert_int_equal(ask(texts[0], NULL), 200);
  assert_int_equal(ask(texts[1], NULL), 200); /* the same token, written otherwise */
  char buf[4096];
  int fd = dial(http_server_port(server)), status = 0;
  for (int i = 0; i < 4 && status != 429; i++) { /* at most one more has become due meanwhile */
    assert_true(put(fd, texts[2]));
    status = get_answer(fd, buf, sizeof buf, false);
  }
  assert_int_equal(status, 429);
  assert_non_null(strstr(buf, "\r\nRetry-After: "));
  assert_true(put(
      fd, "GET /x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer two\r\n\r\n")); /* open, and free for others */
  assert_int_equal(get_answer(fd, buf, sizeof buf, false), 200);
  (void)close(fd);
  http_server_options_default(&o);
  o.rate_per_address = 20;
  restart(&o);
  fd = dial(http_server_port(server));
  status = 0;
  for (int i = 0; i < 2000 && status != 429; i++) {
    assert_true(put(fd, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"));
    status = get_answer(fd, buf, sizeof buf, false);
  }
  assert_int_equal(status, 429);
  (void)close(fd);
}

static void requests_in_progress(void **state) {
  (void)state;
  struct http_server_options o;
  char buf[4096];
  static const char text[] = "GET /hold HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer one\r\n\r\n";
  http_server_options_default(&o);
  o.max_requests_per_token = 2;
  restart(&o);
  int a = dial(http_server_port(server)), b = dial(http_server_port(server));
  assert_true(put(a, text));
  assert_true(put(b, text));
  struct http_request *first = let_go(), *second = let_go();
  assert_int_equal(ask(text, NULL), 429);
  assert_int_equal(ask("GET /x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer two\r\n\r\n", NULL), 200);
  answer(first, 200, SLICE("1"));
  assert_int_equal(get_answer(a, buf, sizeof buf, false), 200);
  assert_int_equal(ask("GET /x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer one\r\n\r\n", NULL), 200);
  answer(second, 200, SLICE("2"));
  assert_int_equal(get_answer(b, buf, sizeof buf, false), 200);
  (void)close(a);
  (void)close(b);
}

/* A handler that never answers holds its client only so long; what it says later is dropped. */
static void whole_request(void **state) {
  (void)state;
  struct http_server_options o;
  http_server_options_default(&o);
  o.request_timeout = 200 * USEC_PER_MS;
  restart(&o);
  int fd = dial(http_server_port(server));
  assert_true(put(fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n"));
  struct http_request *r = let_go();
  char *all = get_all(fd, NULL);
  assert_non_null(strstr(all, "HTTP/1.1 504 "));
  assert_null(strstr(all + 5, "HTTP/1.1 "));
  mem_free(all);
  answer(r, 200, SLICE("too late"));
  (void)close(fd);
  assert_int_equal(ask("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", NULL), 200);
  fd = dial(
      http_server_port(server)); /* a body that comes slowly enough for its own deadline, not for this one */
  assert_true(put(fd, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"));
  all = get_all(fd, NULL);
  assert_non_null(strstr(all, "HTTP/1.1 408 "));
  mem_free(all);
  (void)close(fd);
}

/* All bodies together have a limit; small requests are served all the same. */
static void memory(void **state) {
  (void)state;
  struct http_server_options o;
  int fds[8], refused = 0;
  http_server_options_default(&o);
  o.max_buffered_bytes = 4 * 1024 * 1024;
  restart(&o);
  for (int i = 0; i < 8; i++) { /* eight bodies of 2 MB, all but their last bytes */
    fds[i] = dial(http_server_port(server));
    assert_true(put(fds[i], "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n"));
    (void)put_bytes(fds[i], big, 1900000);
    assert_int_equal(ask("GET /x HTTP/1.1\r\nHost: h\r\n\r\n", NULL), 200);
  }
  for (int i = 0; i < 8; i++) {
    (void)put_bytes(fds[i], big, 100000);
    (void)shutdown(fds[i], SHUT_WR);
    char *all = get_all(fds[i], NULL);
    refused += strncmp(all, "HTTP/1.1 503 ", 13) == 0;
    if (i == 0)
      assert_memory_equal(all, "HTTP/1.1 200 ", 13);
    mem_free(all);
    (void)close(fds[i]);
  }
  assert_in_range(refused, 5, 7);
}

static void drain_thread(void *arg) {
  (void)arg;
  http_server_drain(&server, 10 * USEC_PER_SEC);
}

static void drain(void **state) {
  (void)state;
  struct http_server_options o;
  struct thread t = {0};
  struct err e;
  char buf[4096];
  int port = http_server_port(server);
  int idle = dial(port), busy = dial(port);
  assert_true(put(idle, "GET /x HTTP/1.1\r\nHost: h\r\n\r\n"));
  assert_int_equal(get_answer(idle, buf, sizeof buf, false), 200);
  assert_true(put(busy, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n"));
  struct http_request *r = let_go();
  assert_int_equal(thread_start(&t, "drain", drain_thread, NULL, &e), 0);
  assert_int_equal(recv(idle, buf, sizeof buf, 0), 0); /* idle ones are closed: the drain has begun */
  answer(r, 200, SLICE("finished"));
  char *all = get_all(busy, NULL);
  assert_non_null(strstr(all, "finished"));
  assert_non_null(strstr(all, "Connection: close"));
  mem_free(all);
  thread_join(&t);
  assert_null(server);
  (void)close(idle);
  (void)close(busy);
  /* the grace passes: the client is cut off, and an answer that comes even later is dropped */
  http_server_options_default(&o);
  o.port = port; /* free again at once */
  serve(&o);
  busy = dial(port);
  assert_true(put(busy, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n"));
  r = let_go();
  http_server_drain(&server, 20 * USEC_PER_MS);
  assert_int_equal(recv(busy, buf, sizeof buf, 0), 0);
  (void)close(busy);
  answer(r, 200, SLICE("too late"));
  serve(&o);
}

static void bad_addresses(void **state) {
  (void)state;
  struct http_server *s = NULL;
  struct http_server_options o;
  struct err e;
  http_server_options_default(&o);
  o.handle = handle;
  o.address = "localhost";
  assert_int_equal(http_server_start(loop, &o, &s, &e), ERR_INVALID);
  o.address = "127.0.0.1";
  o.port = 65536;
  assert_int_equal(http_server_start(loop, &o, &s, &e), ERR_INVALID);
  o.port = http_server_port(server);
  assert_int_equal(http_server_start(loop, &o, &s, &e), -EADDRINUSE);
  assert_null(s);
  assert_non_null(strstr(e.text, "127.0.0.1"));
}

static void helpers(void **state) {
  (void)state;
  auto_str s;
  str_init(&s, 100);
  assert_int_equal(http_decode(SLICE("a%2Fb+c%e4%BD%A0"), false, &s), 0);
  assert_string_equal(s.p, "a/b+c\xe4\xbd\xa0");
  str_clear(&s);
  assert_int_equal(http_decode(SLICE("a+b%2b"), true, &s), 0);
  assert_string_equal(s.p, "a b+");
  static const char *const bad[] = {"%", "%1", "%zz", "a%0", "%00", "%1g"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    assert_int_equal(http_decode(slice_of(bad[i]), true, &s), -EINVAL);
  struct slice rest = SLICE("a=1&&b=&c&d=x=y"), name, value;
  static const char *const names[] = {"a", "b", "c", "d"}, *const values[] = {"1", "", "", "x=y"};
  for (int i = 0; i < 4; i++) {
    assert_true(http_query_next(&rest, &name, &value));
    assert_true(slice_eqz(name, names[i]));
    assert_true(slice_eqz(value, values[i]));
  }
  assert_false(http_query_next(&rest, &name, &value));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(requests, setup, teardown),
      cmocka_unit_test_setup_teardown(keep_alive_and_head, setup, teardown),
      cmocka_unit_test_setup_teardown(framing, setup, teardown),
      cmocka_unit_test_setup_teardown(limits, setup, teardown),
      cmocka_unit_test_setup_teardown(expect_continue, setup, teardown),
      cmocka_unit_test_setup_teardown(split_input, setup, teardown),
      cmocka_unit_test_setup_teardown(pipelining, setup, teardown),
      cmocka_unit_test_setup_teardown(client_gone_before_the_answer, setup, teardown),
      cmocka_unit_test_setup_teardown(big_answers, setup, teardown),
      cmocka_unit_test_setup_teardown(deadlines, setup, teardown),
      cmocka_unit_test_setup_teardown(too_many_connections, setup, teardown),
      cmocka_unit_test_setup_teardown(room_for_a_new_one, setup, teardown),
      cmocka_unit_test_setup_teardown(one_address_has_a_cap, setup, teardown),
      cmocka_unit_test_setup_teardown(rates, setup, teardown),
      cmocka_unit_test_setup_teardown(requests_in_progress, setup, teardown),
      cmocka_unit_test_setup_teardown(whole_request, setup, teardown),
      cmocka_unit_test_setup_teardown(memory, setup, teardown),
      cmocka_unit_test_setup_teardown(drain, setup, teardown),
      cmocka_unit_test_setup_teardown(bad_addresses, setup, teardown),
      cmocka_unit_test(helpers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
