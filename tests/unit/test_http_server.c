/* The HTTP server over real sockets: framing attacks, sizes, order, drain. */
#include "http_util.h"

static struct thread worker;

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
      cmocka_unit_test_setup_teardown(drain, setup, teardown),
      cmocka_unit_test_setup_teardown(bad_addresses, setup, teardown),
      cmocka_unit_test(helpers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
