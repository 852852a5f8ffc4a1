/* The API's own machinery: from the loop to a worker, checks in one order for every route, one reply. */
#include "api/internal.h"
#include "base/log.h"
#include "base/parse.h"
#include "net/crypto.h"
#include <stdio.h>

enum { WORKERS = 4, WORKERS_MAX = 64, QUEUE_MAX = 1024, LOOP_BODY_MAX = 64 * 1024 };

void api_options_default(struct api_options *o) {
  *o = (struct api_options){.clock = &clock_system,
                            .version = "0",
                            .workers = WORKERS,
                            .queue_max = QUEUE_MAX,
                            .max_body_bytes = 2 * 1024 * 1024,
                            .idempotency_keep = USEC_PER_DAY,
                            .metrics_public = true};
}

static usec_t mono(const struct api *a) { return a->o.clock->mono(a->o.clock); }

/* ------------------------------------------------------------------ one request */

static void call_init(struct call *c, struct api *a, struct http_request *r) {
  *c = (struct call){.api = a, .req = r, .began = mono(a)};
}

static void call_done(struct call *c) {
  json_decref(c->body);
  mem_free(c->text);
  arena_done(&c->mem);
}

static bool needs_token(const struct call *c) {
  return c->route->role >= 0 || ((c->route->flags & ROUTE_METRICS) && !c->api->o.metrics_public);
}

static int authenticate(struct call *c) {
  if (!needs_token(c))
    return 0;
  struct slice header = http_request_header(c->req, "Authorization");
  int r = c->known ? 0 : access_check(c->api->o.access, header, &c->who, &c->e);
  enum token_role want = c->route->role == ROUTE_PUBLIC ? ROLE_VIEWER : (enum token_role)c->route->role;
  if (r == 0)
    r = access_need_role(&c->who, want, &c->e);
  if (r == ERR_UNAUTHENTICATED || r == ERR_FORBIDDEN)
    auth_failed(c->api, r, header.n > 0);
  return r;
}

static int path_params(struct call *c, const struct route_match *m) {
  for (int i = 0; i < API_PARAMS_MAX && m->param[i].p; i++) {
    auto_str out;
    str_init(&out, API_REF_MAX + 2 * API_NAME_MAX);
    if (http_decode(m->param[i], false, &out) < 0 || str_failed(&out) || !slice_utf8_valid(str_slice(&out)))
      return err_field(&c->e, ERR_NOT_FOUND, "{path}", "a part of the path cannot be decoded or is too long");
    c->param[i] = arena_slice(&c->mem, str_slice(&out));
  }
  return 0;
}

static int find_route(struct call *c, struct route_match *m) {
  int r = route_find(c->req->method, c->req->path, m, &c->e);
  if (r == ERR_METHOD)
    call_header(c, "Allow", arena_strdup(&c->mem, m->allow));
  if (r == 0)
    c->route = m->route;
  return r;
}

/* The order is part of the contract: who you are, what you may, then what is wrong with the request. */
static int serve(struct call *c, const struct route_match *m) {
  int r = path_params(c, m);
  if (r < 0 || (r = authenticate(c)) < 0 || (r = params_query(c)) < 0 || (r = params_headers(c)) < 0 ||
      (r = params_body(c)) < 0)
    return r;
  return c->route->handle(c);
}

static void log_request(const struct call *c, int status) {
  char id[48];
  (void)snprintf(id, sizeof id, "%s-%llu", c->api->boot, (unsigned long long)c->req->id);
  log_debug("request", LF_S("request_id", id), LF_S("route", c->route ? c->route->name : "none"),
            LF_L("method", c->req->method), LF_I("status", status), LF_D("took", mono(c->api) - c->began),
            LF_S("token", c->who.name), LF_S("peer", c->req->peer));
}

/* Reply, unless somebody else does, and forget the request. Counted before: who has the answer may look at once. */
static void finish(struct call *c, int r) {
  if (!c->taken) {
    int status = r < 0 ? err_http(r) : c->status;
    route_metrics_count(c->api, c->route, status, mono(c->api) - c->began);
    log_request(c, status);
    if (r < 0)
      call_problem(c, r);
    else
      call_reply(c);
  }
  call_done(c);
}

/* ------------------------------------------------------------------ threads */

static void work(void *arg) {
  struct api *a = arg;
  void *r;
  int n;
  while ((n = queue_take(a->queue, &r, 1, USEC_NEVER)) >= 0) {
    if (n == 0)
      continue;
    struct call c;
    struct route_match m;
    call_init(&c, a, r);
    int code = find_route(&c, &m);
    finish(&c, code < 0 ? code : serve(&c, &m));
  }
}

/* Is there nothing that could block? Reports come often and wait in the run writer's queue, not in ours. */
static bool stays_on_loop(struct call *c) {
  if (!(c->route->flags & ROUTE_LOOP) || c->req->body.n > LOOP_BODY_MAX) /* a large one is read elsewhere */
    return false;
  if (c->route->role >= 0)
    c->known = access_check_cached(c->api->o.access, http_request_header(c->req, "Authorization"), &c->who);
  return c->known || c->route->role < 0;
}

void api_handle(struct http_request *r, void *arg) {
  struct api *a = arg;
  struct call c;
  struct route_match m;
  call_init(&c, a, r);
  int code = find_route(&c, &m);
  if (code < 0)
    finish(&c, code);
  else if (stays_on_loop(&c))
    finish(&c, serve(&c, &m));
  else if (queue_push(a->queue, r) < 0)
    finish(&c, err_field(&c.e, ERR_UNAVAILABLE, "!", "too many requests are waiting; try again"));
}

static int start_workers(struct api *a, struct err *e) {
  int r = 0;
  for (int i = 0; r == 0 && i < a->o.workers; i++)
    r = thread_start(&a->workers[i], "api", work, a, e);
  return r;
}

int api_new(const struct api_options *o, struct api **ret, struct err *e) {
  if (o->workers < 1 || o->workers > WORKERS_MAX)
    return err_set(e, ERR_INVALID, "expected 1 to %d API workers", WORKERS_MAX);
  struct api *a = mem_zalloc(sizeof *a);
  a->o = *o;
  uint8_t boot[4];
  crypto_random(boot, sizeof boot);
  hex_encode(boot, sizeof boot, a->boot);
  json_t *doc = api_openapi(o->version);
  a->openapi = json_text(doc);
  json_decref(doc);
  a->metrics = route_metrics_new();
  a->queue = queue_new(o->queue_max);
  a->workers = mem_array((size_t)o->workers, sizeof *a->workers);
  int r = start_workers(a, e);
  if (r < 0)
    api_free(&a);
  else
    *ret = a;
  return r;
}

void api_free(struct api **ap) {
  struct api *a = *ap;
  if (!a)
    return;
  queue_close(a->queue); /* what waits is still answered */
  for (int i = 0; i < a->o.workers; i++)
    if (a->workers[i].running)
      thread_join(&a->workers[i]);
  queue_free(&a->queue);
  mem_free(a->workers);
  route_metrics_free(&a->metrics);
  mem_free(a->openapi);
  mem_freep(ap);
}
