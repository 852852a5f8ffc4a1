/* One HTTP call to an address in the allowed networks. */
#include "sample.h"
#include "base/mem.h"
#include "base/thread.h"
#include "net/http_client.h"
#include "net/loop.h"
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
  URL_MAX = 2048,
  BODY_MAX = 1024 * 1024,
  HEADERS_MAX = 32,
  RESULT_BODY_MAX = 32768,
  RESULT_MAX = 8 * RESULT_BODY_MAX
};
static const usec_t TIMEOUT_DEFAULT = 30 * USEC_PER_SEC;

struct caller {
  struct loop *loop;
  struct http_client *client;
  struct network_list *allowed;
};

int caller_new(struct slice networks, struct caller **ret, struct err *e) {
  struct caller *c = mem_zalloc(sizeof *c);
  struct http_client_options o;
  http_client_options_default(&o);
  int r = network_list_parse(networks, &c->allowed, e);
  if (r == 0)
    r = loop_new("sample-http", &c->loop, e);
  if (r == 0)
    r = loop_start(c->loop, e);
  if (r == 0)
    r = http_client_new(c->loop, &o, &c->client, e);
  if (r < 0)
    caller_free(&c);
  else
    *ret = c;
  return r;
}

void caller_free(struct caller **cp) {
  struct caller *c = *cp;
  if (!c)
    return;
  if (c->client)
    http_client_free(&c->client);
  if (c->loop)
    loop_stop(&c->loop);
  network_list_free(&c->allowed);
  mem_freep(cp);
}

/* ---------------------------------------------------------------- the call */

struct ask {
  char *text; /* holds what the slices of `call` point to */
  struct slice base;
  int64_t status; /* expected; 0: any 2xx */
  struct http_header headers[HEADERS_MAX];
  struct http_call call;
};

static int read_headers(const json_t *doc, struct ask *a, struct err *e) {
  const json_t *map = json_object_get(doc, "headers");
  const char *name;
  json_t *value;
  if (!map || json_is_null(map))
    return 0;
  if (!json_is_object(map) || json_object_size(map) > HEADERS_MAX)
    return err_field(e, ERR_INVALID, "/headers", "expected an object of at most %d texts", HEADERS_MAX);
  json_object_foreach ((json_t *)(uintptr_t)map, name, value) {
    if (!json_is_string(value))
      return err_field(e, ERR_INVALID, "/headers", "expected texts");
    a->headers[a->call.header_count++] =
        (struct http_header){slice_of(name), slice_n(json_string_value(value), json_string_length(value))};
  }
  a->call.headers = a->headers;
  return 0;
}

/* "http://host:port/path?query" into base and path. */
static int split_url(struct slice url, struct ask *a, struct err *e) {
  const char *host = memmem(url.p, url.n, "://", 3);
  if (!host || memchr(url.p, '#', url.n))
    return err_field(e, ERR_INVALID, "/url", "expected http://host/path or https://host/path, without #");
  for (size_t i = 0; i < url.n; i++)
    if (url.p[i] <= ' ' || url.p[i] > '~')
      return err_field(e, ERR_INVALID, "/url", "expected visible ASCII: encode the rest");
  size_t at = (size_t)(host - url.p) + 3;
  while (at < url.n && url.p[at] != '/' && url.p[at] != '?')
    at++;
  a->base = slice_n(url.p, at);
  struct str s;
  str_init(&s, URL_MAX + 2);
  if (at == url.n || url.p[at] == '?')
    str_addc(&s, '/');
  str_add(&s, slice_n(url.p + at, url.n - at));
  a->call.path = str_slice(&s);
  a->text = s.p;
  return 0;
}

static int read_method(const json_t *doc, struct ask *a, struct err *e) {
  static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", NULL};
  int method = 0;
  int r = json_get_enum(doc, "method", methods, &method, e);
  a->call.method = methods[method];
  return r;
}

static int read_ask(const json_t *doc, struct ask *a, struct err *e) {
  static const char *const keys[] = {"method", "url", "headers", "body", "timeout", "status", NULL};
  struct slice url = {0};
  a->call.timeout = TIMEOUT_DEFAULT;
  int r = json_check_keys(doc, keys, e);
  if (r >= 0)
    r = read_method(doc, a, e);
  if (r >= 0)
    r = json_get_slice(doc, "body", BODY_MAX, &a->call.body, e);
  if (r >= 0)
    r = json_get_duration(doc, "timeout", USEC_PER_MS, USEC_PER_DAY, &a->call.timeout, e);
  if (r >= 0)
    r = json_get_i64(doc, "status", 100, 599, &a->status, e);
  if (r >= 0)
    r = read_headers(doc, a, e);
  if (r >= 0 && (r = json_get_slice(doc, "url", URL_MAX, &url, e)) == 0)
    r = err_field(e, ERR_MISSING, "/url", "expected the address to call");
  return r < 0 ? r : split_url(url, a, e);
}

/* ---------------------------------------------------------------- the answer */

/* Shared by the handler, which may leave when it is cancelled, and the client. */
struct reply {
  atomic_int refs;
  int fd; /* readable when done */
  enum http_call_outcome outcome;
  int status;
  struct str body;
  bool cut;
};

static void reply_unref(struct reply *r) {
  if (atomic_fetch_sub(&r->refs, 1) != 1)
    return;
  str_done(&r->body);
  if (r->fd >= 0)
    (void)close(r->fd); /* an eventfd */
  mem_free(r);
}

static void on_done(const struct http_result *res, void *arg) {
  struct reply *r = arg;
  uint64_t one = 1;
  r->outcome = res->outcome;
  r->status = res->status;
  r->cut = res->outcome == HTTP_CALL_ANSWERED && res->body.n > RESULT_BODY_MAX;
  if (res->outcome == HTTP_CALL_ANSWERED)
    str_add(&r->body, slice_n(res->body.p, r->cut ? RESULT_BODY_MAX : res->body.n));
  else
    str_addz(&r->body, res->why);
  ssize_t n = write(r->fd, &one, sizeof one);
  (void)n; /* an eventfd takes its first count */
  reply_unref(r);
}

static void say(struct kelou_run *r, const struct ask *a, const struct reply *p) {
  char message[64];
  if (p->outcome != HTTP_CALL_ANSWERED) {
    kelou_fail(r, "UNREACHABLE", p->body.p ? p->body.p : "", NULL);
    return;
  }
  if (a->status ? p->status != a->status : p->status < 200 || p->status > 299) {
    (void)snprintf(message, sizeof message, "the answer's status is %d", p->status);
    kelou_fail(r, "HTTP_STATUS", message, p->body.p);
    return;
  }
  auto_str s;
  str_init(&s, RESULT_MAX);
  str_addf(&s, "{\"status\":%d,\"body\":\"", p->status);
  str_add_json(&s, str_slice(&p->body));
  str_addf(&s, "\",\"body_cut\":%s}", p->cut ? "true" : "false");
  (void)kelou_succeed(r, s.p); /* it is JSON */
}

static void perform(struct kelou_run *r, struct caller *c, struct ask *a) {
  struct reply *p = mem_zalloc(sizeof *p);
  atomic_init(&p->refs, 2);
  str_init(&p->body, RESULT_BODY_MAX + 1);
  p->fd = eventfd(0, EFD_CLOEXEC);
  if (p->fd < 0) {
    atomic_store(&p->refs, 1);
    reply_unref(p);
    kelou_fail(r, "NOT_STARTED", strerror(errno), NULL);
    return;
  }
  a->call.done = on_done;
  a->call.arg = p;
  http_client_call(c->client, &a->call);
  struct pollfd f[2] = {{.fd = p->fd, .events = POLLIN}, {.fd = kelou_cancel_fd(r), .events = POLLIN}};
  while (!(f[0].revents & POLLIN) && !kelou_cancelled(r))
    (void)poll(f, 2, f[1].fd < 0 ? 50 : -1); /* the call ends by its own time-out */
  if (f[0].revents & POLLIN)
    say(r, a, p);
  else
    kelou_stopped(r);
  reply_unref(p);
}

void do_http(struct kelou_run *r, void *caller) {
  struct caller *c = caller;
  struct err e = {0};
  struct ask a = {0};
  struct target *target = NULL;
  auto_json *doc = payload_object(r);
  if (!doc)
    return;
  int code = read_ask(doc, &a, &e);
  if (code >= 0)
    code = target_parse(a.base, c->allowed, &target, &e);
  a.call.target = target;
  if (code >= 0)
    perform(r, c, &a);
  else if (code == ERR_ADDRESS)
    kelou_fail(r, "NOT_ALLOWED", e.text, NULL);
  else if (code == ERR_UNREACHABLE)
    kelou_fail(r, "UNREACHABLE", e.text, NULL);
  else
    bad_payload(r, &e);
  target_unref(&target);
  mem_free(a.text);
}
