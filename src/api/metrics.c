/* What the API counts. */
#include "api/internal.h"
#include "base/metric.h"

enum { CLASSES = 6 }; /* by the first digit of the status */
static const char *const class_names[CLASSES] = {"", "1xx", "2xx", "3xx", "4xx", "5xx"};
static const double buckets[] = {.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 0};

struct route_metrics {
  struct route_series {
    struct metric *count[CLASSES], *took;
  } * routes; /* one more for paths and methods that are none */
  struct metric *missing, *token, *role;
};

static void series(struct route_series *s, const char *route, const char *method) {
  struct metric_family *count =
      metric_family("kelou_http_requests_total", "Requests answered by the API, by the class of their status",
                    METRIC_COUNTER, "route,method,code", NULL);
  struct metric_family *took =
      metric_family("kelou_http_request_duration_seconds", "From the whole request to its answer",
                    METRIC_HISTOGRAM, "route,method", buckets);
  for (int i = 2; i < CLASSES; i++)
    s->count[i] = metric_series(count, route, method, class_names[i], NULL);
  s->count[0] = s->count[1] = s->count[5]; /* never seen */
  s->took = metric_series(took, route, method, NULL);
}

struct route_metrics *route_metrics_new(void) {
  struct route_metrics *m = mem_zalloc(sizeof *m);
  m->routes = mem_array(api_route_count + 1, sizeof *m->routes);
  for (size_t i = 0; i < api_route_count; i++)
    series(&m->routes[i], api_routes[i].path, api_routes[i].method);
  series(&m->routes[api_route_count], "none", "none");
  struct metric_family *f = metric_family("kelou_auth_failures_total", "Requests refused for their token",
                                          METRIC_COUNTER, "reason", NULL);
  m->missing = metric_series(f, "missing", NULL);
  m->token = metric_series(f, "token", NULL);
  m->role = metric_series(f, "role", NULL);
  return m;
}

void route_metrics_free(struct route_metrics **m) {
  if (*m)
    mem_free((*m)->routes);
  mem_free(*m);
  *m = NULL;
}

void route_metrics_count(struct api *a, const struct route *r, int status, usec_t took) {
  struct route_series *s = &a->metrics->routes[r ? (size_t)(r - api_routes) : api_route_count];
  int class = status / 100 >= 0 && status / 100 < CLASSES ? status / 100 : 5;
  metric_add(s->count[class], 1);
  metric_observe_usec(s->took, took);
}

void auth_failed(struct api *a, int code, bool given) {
  metric_add(code == ERR_FORBIDDEN ? a->metrics->role : given ? a->metrics->token : a->metrics->missing, 1);
}
