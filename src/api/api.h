#pragma once
/* The REST API under /api/v1 and /healthz, /readyz, /metrics: routes.def says who may do what, fields.def what goes in and out.
 * Everything that may block runs on worker threads; a full queue answers 503 with Retry-After. Logs refusals of its own (5xx) only. */
#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"

struct access;
struct access_identity;
struct alerts;
struct api;
struct cluster;
struct http_request;
struct logs;
struct registry;
struct run_key;
struct run_service;
struct task_service;

struct api_options {
  struct task_service *tasks; /* all seven borrowed; thread-safe */
  struct cluster *cluster;    /* NULL: no nodes */
  struct access *access;
  struct registry *registry;
  struct run_service *runs;
  struct logs *logs;
  struct alerts *alerts;
  const struct clock *clock;
  const char *version;     /* of the program, for the OpenAPI document; a literal */
  int workers;             /* threads: 4 */
  size_t queue_max;        /* requests that wait for a worker: 1,024 */
  size_t max_body_bytes;   /* 2 MiB */
  usec_t idempotency_keep; /* 24 h */
  usec_t retention_age;    /* of namespaces that do not say, for explanations; 0: for ever */
  bool metrics_public;     /* true: /metrics needs no token; false: VIEWER */
  /* Is the node ready to serve? Else `why` says why not. On a worker; may block briefly. NULL: always. */
  bool (*ready)(void *arg, struct str *why);
  /* The text of /metrics. On a worker. NULL: metric_render. */
  void (*metrics)(void *arg, struct str *out);
  /* POST /api/v1/reports after authentication (the role EXECUTOR or above; the namespace and group of each run are its own duty).
   * On the loop thread or on a worker; must not block. 0: taken, it replies by itself, now or later. Negative: refused with `e`,
   * the API replies with the problem. */
  int (*report)(void *arg, struct http_request *r, const struct access_identity *who, struct err *e);
  /* POST /api/v1/claims, in the same way. */
  int (*claim)(void *arg, struct http_request *r, const struct access_identity *who, struct err *e);
  /* POST /api/v1/peer, from another node, which it has to know by its signature. As `report`. */
  int (*peer)(void *arg, struct http_request *r, struct err *e);
  /* Cancel a run, wherever its owner is: report/forward.h. On a worker; blocks. */
  int (*cancel)(void *arg, const struct run_key *key, struct err *e);
  /* What is wrong with this installation: a new list of findings and the worst level. On a worker; blocks. NULL: 503. */
  json_t *(*doctor)(void *arg, bool zh, const char **ret_level);
  void *arg;
};
void api_options_default(struct api_options *o); /* everything but the services */
/* Starts the workers. */
int api_new(const struct api_options *o, struct api **ret, struct err *e);
/* After the HTTP server has drained: answers what still waits, joins the workers. */
void api_free(struct api **a);

/* http_server_options.handle with `arg` = the struct api; .refusal */
void api_handle(struct http_request *r, void *arg);
void api_refusal(int status, const char *why, struct str *body, const char **ret_content_type);

/* The OpenAPI 3.1 document (a new reference) and docs/api.md. Pure. */
json_t *api_openapi(const char *version);
void api_markdown(struct str *out);
