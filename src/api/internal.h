#pragma once
/* Private to src/api: the tables as data, and what a handler has at hand. */
#include "access/access.h"
#include "api/api.h"
#include "base/mem.h"
#include "base/queue.h"
#include "base/thread.h"
#include "cluster/cluster.h"
#include "core/explain.h"
#include "core/model.h"
#include "executor/registry.h"
#include "monitor/alerts.h"
#include "net/http_server.h"
#include "report/logs.h"
#include "run/run.h"
#include "task/task.h"

#define API_NAME_MAX          128
#define API_REF_MAX           260 /* namespace/name */
#define API_CURSOR_MAX        160
#define API_LIMIT_MAX         1000
#define API_LIMIT_DEFAULT     100
#define API_NOTE_MAX          1024
#define API_BATCH_MAX         1000
#define API_DEAD_LETTERS_MAX  10000 /* what dead_letters.max_bulk may be */
#define API_PREVIEW_MAX       1000
#define EXPLAIN_ITEMS_MAX     100
#define API_PAYLOAD_MAX       (1024 * 1024)
#define API_RESULT_MAX        (64 * 1024)
#define API_ERROR_TYPE_MAX    256
#define API_ERROR_MESSAGE_MAX (64 * 1024)
#define API_URL_MAX           1024
#define API_HANDLERS_MAX      REGISTRY_HANDLERS_MAX
#define API_SLOTS_MAX         REGISTRY_SLOTS_MAX
#define API_LABELS_MAX        REGISTRY_LABELS_MAX_BYTES
#define API_SECRET_MAX        REGISTRY_SECRET_MAX
#define API_CONNECTIONS_MAX   GROUP_MAX_CONNECTIONS
#define API_IDEM_KEY_MAX      255
#define API_AGE_MAX           (36500 * USEC_PER_DAY)
#define API_RUNS_MAX          INT64_C(9000000000000000)
#define API_PARAMS_MAX        2 /* path parameters of a route */
#define API_HEADERS_MAX       8 /* of an answer */
#define API_ANSWER_MAX        ((size_t)64 * 1024 * 1024)

/* ------------------------------------------------------------------ tables */
enum schema_id {
#define SCHEMA(id, title, doc) SCHEMA_##id,
#include "api/fields.def"
  SCHEMA_MAX_,
  SCHEMA_QUERY_,   /* the query parameters as one more */
  SCHEMA_SCHEDULE_ /* the section of a task; no fields here */
};
enum value_type {
  VALUE_TEXT,
  VALUE_NAME,
  VALUE_ENUM,
  VALUE_ENUMS,
  VALUE_INT,
  VALUE_NUMBER,
  VALUE_BOOL,
  VALUE_INSTANT,
  VALUE_DURATION,
  VALUE_JSON,
  VALUE_MAP,
  VALUE_NAMES,
  VALUE_REF,
  VALUE_LIST
};
enum { FIELD_REQ = 1, FIELD_CAN = 2, FIELD_SECRET = 4, FIELD_OUT = 8 };
struct field {
  enum schema_id schema;
  const char *name;
  enum value_type type;
  int64_t min, max;
  const char *const *names; /* ENUM, ENUMS */
  enum schema_id to;        /* REF, LIST */
  unsigned flags;
  const char *value; /* the default, as text; NULL: none */
  const char *doc;
};
enum field_id {
#define QUERY(id, name, type, min, max, of, value, doc) Q_##id,
#include "api/fields.def"
  Q_MAX_,
  F_FIRST_ = Q_MAX_ - 1,
#define FIELD(schema, name, type, min, max, of, flags, value, doc) F_##schema##_##name,
#include "api/fields.def"
  FIELD_MAX_
};
extern const struct field api_fields[FIELD_MAX_];
struct schema {
  const char *title, *doc;
};
extern const struct schema api_schemas[SCHEMA_MAX_];
/* The fields of a schema: [first, end) in api_fields. */
struct task_field;
const char *task_object_title(const struct task_field *f); /* the schema of a FIELD_OBJECT */
void schema_range(enum schema_id s, int *ret_first, int *ret_end);
extern const char *const api_languages[], *const api_levels[];
extern const char *const task_state_shown[], *const report_state_names[], *const report_status_names[];
extern const char *const claim_status_names[], *const claim_why_names[];

struct call;
enum {
  ROUTE_PUBLIC = -1,
  ROUTE_PEER = -2
}; /* as roles. PEER: another node, which signs; not in the descriptions of the API */
enum {
  ROUTE_LOOP = 1,
  ROUTE_LIST = 2,
  ROUTE_IDEM = 4,
  ROUTE_MATCH = 8,
  ROUTE_MATCH_NEED = 16,
  ROUTE_NONE_MATCH = 32,
  ROUTE_BODY_OPT = 64,
  ROUTE_MERGE = 128,
  ROUTE_METRICS = 256
};
struct route {
  const char *method, *path, *name;
  int (*handle)(struct call *c);
  int role;
  unsigned flags;
  uint64_t query; /* bits 1 << Q_x */
  enum schema_id body;
  int status;
  enum schema_id answer;
  const char *summary;
};
extern const struct route api_routes[];
extern const size_t api_route_count;
#define ROUTE(method, path, handler, role, flags, query, body, status, answer, summary)                      \
  int on_##handler(struct call *c);
#include "api/routes.def"

/* The route of a request; the path's parameters still encoded. ERR_NOT_FOUND; ERR_METHOD: *ret_allow says what is (may be longer). */
struct route_match {
  const struct route *route;
  struct slice param[API_PARAMS_MAX];
  char allow[64];
};
int route_find(struct slice method, struct slice path, struct route_match *ret, struct err *e);

/* ------------------------------------------------------------------ a request being handled */
struct value {
  bool there;      /* given, and not null */
  bool b;          /* BOOL */
  int64_t i;       /* INT, ENUM (index), ENUMS (bits), INSTANT, DURATION; the default when not given */
  double d;        /* NUMBER */
  struct slice s;  /* TEXT, NAME; valid as long as the call */
  const json_t *j; /* from a body: the value itself */
};
#define API_FIELDS_MAX 32 /* of one schema that is read */

struct call {
  struct api *api;
  struct http_request *req;
  const struct route *route;
  struct slice param[API_PARAMS_MAX]; /* decoded */
  bool known;                         /* `who` is known already */
  struct access_identity who;         /* not for PUBLIC */
  struct arena mem;
  struct err e;
  struct value query[Q_MAX_];
  json_t *body;                    /* NULL: none */
  struct value in[API_FIELDS_MAX]; /* the body's fields, see IN */
  int32_t if_version;              /* of If-Match; 0 = none */
  struct idem idem;                /* key.n == 0: none given */
  usec_t began;
  /* the answer */
  int status;
  const char *content_type;
  struct http_header header[API_HEADERS_MAX];
  size_t header_count;
  char *text; /* owned */
  size_t text_n;
  bool taken; /* somebody else replies */
};
/* A field of this route's body, e.g. IN(c, trigger, payload). */
#define IN(c, schema, field) (&(c)->in[F_##schema##_##field - schema_first(SCHEMA_##schema)])
int schema_first(enum schema_id s);

struct api {
  struct api_options o;
  struct queue *queue; /* of struct http_request * */
  struct thread *workers;
  char *openapi; /* text */
  char boot[9];  /* in front of request ids: differs from start to start */
  struct route_metrics *metrics;
};

/* ------------------------------------------------------------------ for handlers: each returns 0 or an error that c->e describes */
/* Answer with a document, which is taken. */
int call_json(struct call *c, int status, json_t *doc);
int call_empty(struct call *c, int status);
void call_header(struct call *c, const char *name,
                 const char *value); /* both must live as long as the call */
void call_etag(struct call *c, int32_t version);
/* Is the version what the client has (If-None-Match)? Then the answer is 304, made here. */
bool call_unchanged(struct call *c, int32_t version);
/* {"items": …}: `items` is taken; `cursor` (may be NULL) leads to the next page. */
int call_list(struct call *c, json_t *items, const char *cursor);
struct task_call call_task(struct call *c);
/* Namespace and name of "ns/name" or "name" (in the token's namespace, else in the default one); checks the token's namespace. */
int call_named(struct call *c, struct slice ref, struct slice *ret_ns, struct slice *ret_name);
/* The namespace that a document names, if it does: does it exist, and may the token touch it? */
int call_need_namespace(struct call *c, const json_t *doc);
/* The run of the path, if this token may see it. */
int call_run(struct call *c, struct run_key *ret_key, struct st_run_get_ret *ret);
/* Cancel a run, wherever its owner is. 1: the owner will do so. */
int call_cancel(struct call *c, const struct run_key *key);
/* 202 with the id of the run that was asked for. */
int call_made(struct call *c, const struct run_key *key, struct slice retry_of, bool repeat);
/* Ask for a run, and call_made. */
int call_trigger(struct call *c, struct slice ref, const struct task_trigger *t);
/* A task reference for the task service, a bare name being in the token's own namespace. */
struct slice call_task_ref(struct call *c, struct slice ref);

/* The id of ?task=, 0 when not given; a number is taken as it is, so that what belongs to a deleted task can be read. */
int call_task_filter(struct call *c, int64_t *ret);
/* The same of any value; errors name `field`. */
int call_task_id(struct call *c, const struct value *ref, const char *field, int64_t *ret);
/* The namespace that a filter names, else the token's, empty: all. */
int call_ns_filter(struct call *c, const struct value *ns, struct slice *ret);

/* Cursors: up to CURSOR_DATA_MAX bytes, bound to the route and the other parameters of the request. */
#define CURSOR_DATA_MAX 64
char *cursor_make(struct call *c, const void *data, size_t n); /* in c->mem */
/* 1: read; 0: none given; ERR_INVALID "?cursor". */
int cursor_read(struct call *c, void *ret_data, size_t n);

/* params.c */
int params_query(struct call *c);
int params_headers(struct call *c);
int params_body(struct call *c);
/* Check `object` against a schema; values into `ret` (one for each field). Pure. */
int fields_read(enum schema_id s, const json_t *object, struct value *ret, struct arena *mem, struct err *e);

/* reply.c */
void problem_write(struct str *out, const struct err *e, int status, const char *request_id);
void call_reply(struct call *c);
/* Reply with the problem of c->e. `code` as returned by the handler. */
void call_problem(struct call *c, int code);

/* json building: fail only without memory, which ends the process inside jansson's caller; NULL slices leave the field out */
void put(json_t *o, const char *key, json_t *value /* taken; NULL: left out */);
void put_text(json_t *o, const char *key, struct slice s); /* left out when p == NULL or empty */
void put_id(json_t *o, const char *key, int64_t id);
void put_time(json_t *o, const char *key, usec_t t); /* left out when 0 or USEC_NEVER */
void put_duration(json_t *o, const char *key, usec_t d);
void put_raw(json_t *o, const char *key, struct slice text); /* JSON text; as a text when it is none */

/* documents of more than one file */
json_t *run_json(const struct run_row *r, struct slice task_name, struct slice ns, bool whole);
/* A run with its payload and attempts, as GET /runs/{run} shows it. */
int run_whole_json(struct call *c, const struct run_key *key, const struct st_run_get_ret *g, json_t **ret);
json_t *run_error_json(struct slice type, struct slice message,
                       struct slice detail); /* NULL: there is none */
json_t *attempt_json(const struct attempt_row *a);
/* What a document says of a group's bounds; what it does not say is left as it is. */
int group_bounds_of(const struct value *concurrent, const struct value *rate, const struct value *burst,
                    struct group_bounds *b, struct err *e);
json_t *group_json(const struct group_row *g, const char *secret);
json_t *executor_json(struct api *a, const struct executor_row *x);
json_t *token_json(const struct token_row *t, const char *text);
json_t *preview_json(const struct preview *p);

/* metrics.c */
struct route_metrics *route_metrics_new(void);
void route_metrics_free(struct route_metrics **m);
void route_metrics_count(struct api *a, const struct route *r, int status, usec_t took);
void auth_failed(struct api *a, int code, bool given);
