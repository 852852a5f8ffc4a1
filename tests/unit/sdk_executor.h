#pragma once
/* For the tests of the C SDK: the executor that talks to the centre of sdk_centre.h. Include it behind the table `handlers`. */
#include "sdk_centre.h"
#include "net/crypto.h"

static const char secret[] = "s3cret";
static char url[64];
static const char *const secrets[] = {"old", secret};
static struct target *target;

static void options_for(struct kelou_options *o) {
  kelou_options_init(o);
  (void)snprintf(url, sizeof url, "http://127.0.0.1:%d", http_server_port(c.server));
  o->server = url;
  o->token = "t0ken";
  o->id = "an id/\xc3\xbc";
  o->secrets = secrets;
  o->secret_count = 2;
  o->handlers = handlers;
  o->handler_count = sizeof handlers / sizeof *handlers;
}

static struct kelou_executor *start(const struct kelou_options *o) {
  struct kelou_executor *e = NULL;
  char why[256] = "", base[64];
  struct err err;
  if (kelou_start(o, &e, why, sizeof why) != 0)
    fail_msg("%s", why);
  assert_int_equal(kelou_wait_registered(e, WAIT_MAX_MS * USEC_PER_MS), 0);
  (void)snprintf(base, sizeof base, "http://127.0.0.1:%d", kelou_port(e));
  assert_int_equal(target_parse(slice_of(base), NULL, &target, &err), 0);
  atomic_store(&started, 0);
  atomic_store(&gate, 0);
  return e;
}

static void stop(struct kelou_executor **e) {
  target_unref(&target);
  kelou_stop(e);
  assert_null(*e);
}

struct got {
  int status;
  bool done;
  char body[1024];
};

static void on_got(const struct http_result *r, void *arg) {
  struct got *g = arg;
  mutex_lock(&c.lock);
  g->status = r->outcome == HTTP_CALL_ANSWERED ? r->status : -1;
  (void)text_copy(g->body, sizeof g->body, r->body);
  g->done = true;
  if (g->status > 0 && g->status < 600)
    c.answers[g->status]++;
  cond_broadcast(&c.changed);
  mutex_unlock(&c.lock);
}

static void post(const char *path, const char *body, struct got *g) {
  char signature[SIGNATURE_TEXT_MAX];
  signature_make(slice_of(secret), clock_system.wall(&clock_system), slice_of(body), signature);
  struct http_header header = {SLICE("X-Kelou-Signature"), slice_of(signature)};
  struct http_call call = {.target = target,
                           .method = "POST",
                           .path = slice_of(path),
                           .headers = &header,
                           .header_count = 1,
                           .body = slice_of(body),
                           .timeout = 10 * USEC_PER_SEC,
                           .done = on_got,
                           .arg = g};
  http_client_call(c.client, &call);
}

static inline int send_run(const char *id, const char *handler, const char *payload) {
  struct got g = {0};
  char body[1024];
  (void)snprintf(body, sizeof body,
                 "{\"run_id\":\"%s\",\"attempt\":1,\"fence\":1,\"handler\":\"%s\",\"payload\":%s}", id,
                 handler, payload);
  post("/kelou/v1/run", body, &g);
  await(g.done);
  return g.status;
}

static inline int cancel(const char *id) {
  struct got g = {0};
  char body[128];
  (void)snprintf(body, sizeof body, "{\"run_id\":\"%s\",\"attempt\":1,\"fence\":1}", id);
  post("/kelou/v1/cancel", body, &g);
  await(g.done);
  return g.status;
}
