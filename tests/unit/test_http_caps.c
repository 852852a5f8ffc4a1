/* The bounds of the HTTP server over real sockets: deadlines, places, rates, memory. */
#include "http_util.h"

static void deadlines(void **state) {
  (void)state;
  struct http_server_options o;
  http_server_options_default(&o);
  o.header_timeout = o.body_timeout = o.write_timeout = 200 * USEC_PER_MS;
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
  fd = dial(http_server_port(server)); /* asks, but does not read: closed when the write takes too long */
  for (int i = 0; i < 8; i++)
    (void)put(fd, "GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
  struct pollfd gone = {.fd = fd, .events = 0};
  assert_int_equal(poll(&gone, 1, WAIT_MAX_MS), 1); /* POLLHUP or POLLERR */
  (void)close(fd);
}

static void idle(void **state) {
  (void)state;
  struct http_server_options o;
  size_t n;
  http_server_options_default(&o);
  o.idle_timeout = 200 * USEC_PER_MS;
  restart(&o);
  int fd = dial(http_server_port(server)); /* from the start: closed without a word */
  char *all = get_all(fd, &n);
  assert_int_equal(n, 0);
  mem_free(all);
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
  int fds[8], refused = 0, served = 0;
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
    served += strncmp(all, "HTTP/1.1 200 ", 13) == 0;
    mem_free(all);
    (void)close(fds[i]);
  }
  assert_in_range(refused, 5, 7);
  assert_in_range(served, 1, 3); /* whichever the server has read first */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(deadlines, setup, teardown),
      cmocka_unit_test_setup_teardown(idle, setup, teardown),
      cmocka_unit_test_setup_teardown(too_many_connections, setup, teardown),
      cmocka_unit_test_setup_teardown(room_for_a_new_one, setup, teardown),
      cmocka_unit_test_setup_teardown(one_address_has_a_cap, setup, teardown),
      cmocka_unit_test_setup_teardown(rates, setup, teardown),
      cmocka_unit_test_setup_teardown(requests_in_progress, setup, teardown),
      cmocka_unit_test_setup_teardown(whole_request, setup, teardown),
      cmocka_unit_test_setup_teardown(memory, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
