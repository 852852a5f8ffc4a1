/* fields.def and routes.def as data, and the way from a request line to its row. */
#include "api/internal.h"
#include "base/parse.h"
#include "core/task_fields.h"

/* DELETED tasks are not shown */
const char *const task_state_shown[] = {"ENABLED", "PAUSED", "COMPLETED", NULL};
const char *const api_languages[] = {"en", "zh", NULL};
const char *const api_levels[] = {"OK", "WARN", "FAIL", NULL};
const char *const report_state_names[] = {"RUNNING", "SUCCESS", "FAIL", "CANCELLED", NULL};
const char *const report_status_names[] = {"recorded", "late", "forbidden", "retry", NULL};
const char *const claim_status_names[] = {"granted", "refused", "forbidden", "retry", NULL};
const char *const claim_why_names[] = {"late", "claimed", NULL};

#define REQ         FIELD_REQ
#define CAN         FIELD_CAN
#define SECRET      FIELD_SECRET
#define OUT         FIELD_OUT
#define TO(x)       ((int)SCHEMA_##x)
#define TO_SCHEDULE ((int)SCHEMA_SCHEDULE_)
/* `of` is a table of names, a schema's number, or NULL */
#define OF_NAMES(of) _Generic((of), int : NULL, void * : NULL, default : (of))
#define OF_TO(of)    _Generic((of), int : (of), default : 0)

const struct field api_fields[FIELD_MAX_] = {
#define QUERY(id, name, type, min, max, of, value, doc)                                                      \
  [Q_##id] = {SCHEMA_QUERY_, name, VALUE_##type, min, max, OF_NAMES(of), OF_TO(of), 0, value, doc},
#include "api/fields.def"
#define FIELD(schema, name, type, min, max, of, flags, value, doc)                                           \
  [F_##schema##_##                                                                                           \
      name] = {SCHEMA_##schema, #name, VALUE_##type, min, max, OF_NAMES(of), OF_TO(of), flags, value, doc},
#include "api/fields.def"
};

const struct schema api_schemas[SCHEMA_MAX_] = {
#define SCHEMA(id, title, doc) [SCHEMA_##id] = {title, doc},
#include "api/fields.def"
};

void schema_range(enum schema_id s, int *ret_first, int *ret_end) {
  int first = 0;
  while (first < FIELD_MAX_ && api_fields[first].schema != s)
    first++;
  int end = first;
  while (end < FIELD_MAX_ && api_fields[end].schema == s)
    end++;
  *ret_first = first;
  *ret_end = end;
}

int schema_first(enum schema_id s) {
  int first, end;
  schema_range(s, &first, &end);
  return first;
}

#define ROLE_PUBLIC ROUTE_PUBLIC
#define ROLE_PEER   ROUTE_PEER
#define LOOP        ROUTE_LOOP
#define LIST        ROUTE_LIST
#define IDEM        ROUTE_IDEM
#define MATCH       ROUTE_MATCH
#define MATCH_NEED  ROUTE_MATCH_NEED
#define NONE_MATCH  ROUTE_NONE_MATCH
#define BODY_OPT    ROUTE_BODY_OPT
#define MERGE       ROUTE_MERGE
#define METRICS     ROUTE_METRICS
#define Q(name)     (UINT64_C(1) << Q_##name)
#define ROUTE(method, path, handler, role, flags, query, body, status, answer, summary)                      \
  {#method, path,          #handler, on_##handler,    ROLE_##role, flags,                                    \
   query,   SCHEMA_##body, status,   SCHEMA_##answer, summary},
const struct route api_routes[] = {
#include "api/routes.def"
};
const size_t api_route_count = sizeof api_routes / sizeof *api_routes;

/* Does the path fit the pattern? Parameters are whole segments, not empty. */
static bool path_fits(const char *pattern, struct slice path, struct slice *ret_param) {
  const char *q = path.p, *end = path.p + path.n;
  for (size_t n = 0; *pattern; pattern++) {
    if (*pattern != '{') {
      if (q == end || *q++ != *pattern)
        return false;
      continue;
    }
    const char *slash = memchr(q, '/', (size_t)(end - q)), *stop = slash ? slash : end;
    if (stop == q || n == API_PARAMS_MAX)
      return false;
    ret_param[n++] = slice_n(q, (size_t)(stop - q));
    q = stop;
    pattern = strchr(pattern, '}');
  }
  return q == end;
}

static void allow_add(char *allow, size_t size, const char *method) {
  size_t n = strlen(allow);
  if (!strstr(allow, method) && n + strlen(method) + 3 < size) {
    (void)text_copy(allow + n, size - n, slice_of(n ? ", " : "")); /* the sizes were checked */
    n = strlen(allow);
    (void)text_copy(allow + n, size - n, slice_of(method));
  }
}

int route_find(struct slice method, struct slice path, struct route_match *ret, struct err *e) {
  *ret = (struct route_match){0};
  if (!path.n || path.p[0] != '/')
    return err_set(e, ERR_NOT_FOUND, "there is nothing at this path");
  bool head = slice_eqz(method, "HEAD");
  for (size_t i = 0; i < api_route_count; i++) {
    const struct route *r = &api_routes[i];
    struct slice param[API_PARAMS_MAX] = {0};
    if (!path_fits(r->path, path, param))
      continue;
    if (slice_eqz(method, r->method) || (head && strcmp(r->method, "GET") == 0)) {
      ret->route = r;
      memcpy(ret->param, param, sizeof param);
      return 0;
    }
    allow_add(ret->allow, sizeof ret->allow, r->method);
    if (strcmp(r->method, "GET") == 0)
      allow_add(ret->allow, sizeof ret->allow, "HEAD");
  }
  if (!ret->allow[0])
    return err_set(e, ERR_NOT_FOUND, "there is nothing at this path");
  return err_set(e, ERR_METHOD, "expected one of %s", ret->allow);
}

const char *task_object_title(const struct task_field *f) {
  static const char *const titles[][2] = {
      {"schedule", "Schedule"}, {"depends_on", "DependsOn"}, {"retry", "RetryPolicy"}};
  size_t i = 0;
  while (i + 1 < sizeof titles / sizeof *titles && strcmp(titles[i][0], f->name) != 0)
    i++;
  return titles[i][1];
}
