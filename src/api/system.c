/* The node itself: alive, ready, metrics, the API's description; and reports, which are handed over. */
#include "api/internal.h"
#include "base/metric.h"

#define METRICS_MAX ((size_t)32 * 1024 * 1024)

static int health(struct call *c) {
  json_t *doc = json_object();
  put(doc, "status", json_string("ok"));
  return call_json(c, 200, doc);
}

int on_healthz(struct call *c) { return health(c); }

int on_readyz(struct call *c) {
  auto_str why;
  str_init(&why, ERR_TEXT_MAX - 1);
  if (c->api->o.ready && !c->api->o.ready(c->api->o.arg, &why))
    return err_field(&c->e, ERR_UNAVAILABLE, "!", "%s", why.n ? why.p : "not ready yet");
  return health(c);
}

int on_metrics(struct call *c) {
  struct str out;
  str_init(&out, METRICS_MAX);
  if (c->api->o.metrics)
    c->api->o.metrics(c->api->o.arg, &out);
  else
    metric_render(&out);
  c->text_n = out.n;
  c->text = str_take(&out);
  if (!c->text)
    return err_set(&c->e, ERR_INTERNAL, "the metrics are longer than %zu bytes", METRICS_MAX);
  c->content_type = "text/plain; version=0.0.4; charset=utf-8";
  return call_empty(c, 200);
}

int on_openapi(struct call *c) {
  c->text = mem_strdup(c->api->openapi);
  c->text_n = strlen(c->text);
  c->content_type = "application/json";
  return call_empty(c, 200);
}

int on_reports(struct call *c) {
  if (!c->api->o.report)
    return err_field(&c->e, ERR_UNAVAILABLE, "!", "this node takes no reports");
  int r = c->api->o.report(c->api->o.arg, c->req, &c->who, &c->e);
  c->taken = r >= 0;
  return r < 0 ? r : 0;
}

int on_claims(struct call *c) {
  if (!c->api->o.claim)
    return err_field(&c->e, ERR_UNAVAILABLE, "!", "this node takes no claims");
  int r = c->api->o.claim(c->api->o.arg, c->req, &c->who, &c->e);
  c->taken = r >= 0;
  return r < 0 ? r : 0;
}

int on_peer(struct call *c) {
  if (!c->api->o.peer)
    return err_field(&c->e, ERR_UNAVAILABLE, "!", "this node has no other nodes");
  int r = c->api->o.peer(c->api->o.arg, c->req, &c->e);
  c->taken = r >= 0;
  return r < 0 ? r : 0;
}

int on_doctor(struct call *c) {
  const char *level = api_levels[0];
  if (!c->api->o.doctor)
    return err_field(&c->e, ERR_UNAVAILABLE, "!", "this node has no doctor");
  json_t *findings = c->api->o.doctor(c->api->o.arg, c->query[Q_lang].i == 1, &level);
  json_t *doc = json_object();
  put(doc, "level", json_string(level));
  put(doc, "version", json_string(c->api->o.version));
  put_time(doc, "time", c->api->o.clock->wall(c->api->o.clock));
  put(doc, "findings", findings);
  return call_json(c, 200, doc);
}
