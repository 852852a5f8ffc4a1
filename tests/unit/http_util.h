#pragma once
/* For the tests of the HTTP server: one server whose handler says what it got, keeps requests, or answers at length. */
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

static char *big;

static inline void answer(struct http_request *r, int status, struct slice body) {
  struct http_reply reply = {.status = status, .content_type = "text/plain", .body = body};
  http_request_reply(r, &reply);
}

static inline void hold(struct http_request *r) {
  mutex_lock(&held.lock);
  assert_true(held.n < 64);
  held.v[held.n++] = r;
  cond_broadcast(&held.changed);
  mutex_unlock(&held.lock);
}

static inline struct http_request *let_go(void) {
  mutex_lock(&held.lock);
  while (!held.n)
    assert_true(cond_wait(&held.changed, &held.lock, WAIT_MAX_MS * USEC_PER_MS));
  struct http_request *r = held.v[0];
  memmove(held.v, held.v + 1, sizeof held.v[0] * (size_t)--held.n);
  mutex_unlock(&held.lock);
  return r;
}

static inline void describe(struct http_request *r) {
  struct str s;
  str_init(&s, 1 << 20);
  str_addf(&s, "%.*s|%.*s|%.*s|", SLICE_FMT(r->method), SLICE_FMT(r->path), SLICE_FMT(r->query));
  for (size_t i = 0; i < r->header_count; i++)
    str_addf(&s, "%.*s=%.*s;", SLICE_FMT(r->headers[i].name), SLICE_FMT(r->headers[i].value));
  str_addf(&s, "|%.*s", SLICE_FMT(r->body));
  answer(r, 200, str_slice(&s));
  str_done(&s);
}

static inline void handle(struct http_request *r, void *arg) {
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

static inline void refusal(int status, const char *why, struct str *body, const char **ret_content_type) {
  str_addf(body, "{\"status\":%d,\"why\":\"%s\"}", status, why);
  *ret_content_type = "application/problem+json";
}

static inline void serve(struct http_server_options *o) {
  struct err e = {0};
  o->handle = handle;
  o->refusal = refusal;
  if (http_server_start(loop, o, &server, &e) < 0)
    fail_msg("%s", e.text);
}

static inline int setup(void **state) {
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

static inline int teardown(void **state) {
  (void)state;
  http_server_drain(&server, USEC_PER_SEC);
  loop_stop(&loop);
  mem_free(big);
  cond_done(&held.changed);
  mutex_done(&held.lock);
  return 0;
}

static inline void restart(struct http_server_options *o) {
  http_server_drain(&server, USEC_PER_SEC);
  serve(o);
}

/* Send `text`, read to the end (the server must close, or we half-close), give the first status. */
static inline int ask(const char *text, char **ret_all) {
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
