/* The OpenAPI 3.1 document, from routes.def, fields.def and core/task_fields.def. Pure. */
#include "api/internal.h"
#include "base/parse.h"
#include "core/task_fields.h"
#include <stdio.h>

static json_t *text(const char *z) { return json_string(z); }

static json_t *ref(const char *kind, const char *name) {
  char path[160];
  (void)snprintf(path, sizeof path, "#/components/%s/%s", kind, name);
  json_t *o = json_object();
  put(o, "$ref", text(path));
  return o;
}

static json_t *ref_schema(enum schema_id s) {
  if (s == SCHEMA_SCHEDULE_)
    return ref("schemas", "Schedule");
  return s == SCHEMA_any || s == SCHEMA_none ? json_object() : ref("schemas", api_schemas[s].title);
}

static json_t *type_of(const char *type) {
  json_t *o = json_object();
  put(o, "type", text(type));
  return o;
}

static json_t *format_of(const char *format) {
  json_t *o = type_of("string");
  put(o, "format", text(format));
  return o;
}

static json_t *names_list(const char *const *names) {
  json_t *list = json_array();
  for (int i = 0; names[i]; i++)
    (void)json_array_append_new(list, text(names[i])); /* fails only without memory */
  return list;
}

static json_t *enum_of(const char *const *names) {
  json_t *o = type_of("string");
  put(o, "enum", names_list(names));
  return o;
}

static void bounds(json_t *o, const char *min_key, const char *max_key, int64_t min, int64_t max) {
  if (min > 0)
    put(o, min_key, json_integer(min));
  if (max > 0 && max != INT64_MAX)
    put(o, max_key, json_integer(max));
}

/* ------------------------------------------------------------------ fields of fields.def */

static json_t *array_of(const struct field *f, json_t *items) {
  json_t *o = type_of("array");
  put(o, "items", items);
  bounds(o, "minItems", "maxItems", f->min, f->max);
  return o;
}

static json_t *number_of(const struct field *f, const char *type) {
  json_t *o = type_of(type);
  put(o, "minimum", json_integer(f->min));
  if (f->max != INT64_MAX)
    put(o, "maximum", json_integer(f->max));
  return o;
}

static json_t *duration_schema(void) { return ref("schemas", "Duration"); }

static json_t *field_schema(const struct field *f) {
  json_t *o;
  switch (f->type) {
  case VALUE_TEXT:
  case VALUE_NAME:
    o = type_of("string");
    bounds(o, "minLength", "maxLength", f->min, f->max);
    return o;
  case VALUE_ENUM: return enum_of(f->names);
  case VALUE_ENUMS: return array_of(f, enum_of(f->names));
  case VALUE_INT: return number_of(f, "integer");
  case VALUE_NUMBER: return number_of(f, "number");
  case VALUE_BOOL: return type_of("boolean");
  case VALUE_INSTANT: return format_of("date-time");
  case VALUE_DURATION: return duration_schema();
  case VALUE_JSON: return json_object();
  case VALUE_MAP: return type_of("object");
  case VALUE_NAMES: return array_of(f, type_of("string"));
  case VALUE_REF: return ref_schema(f->to);
  case VALUE_LIST: return array_of(f, ref_schema(f->to));
  }
  return json_object();
}

static json_int_t int_default(const struct field *f) {
  int64_t v = 0;
  (void)parse_i64(slice_of(f->value), INT64_MIN, INT64_MAX, &v, NULL); /* our own table */
  return v;
}

static json_t *default_of(const struct field *f) {
  if (!f->value)
    return NULL;
  if (f->type == VALUE_INT)
    return json_integer(int_default(f));
  if (f->type == VALUE_BOOL)
    return json_boolean(strcmp(f->value, "true") == 0);
  return text(f->value);
}

static json_t *object_schema(enum schema_id s) {
  int first, end;
  schema_range(s, &first, &end);
  json_t *o = type_of("object"), *props = json_object(), *required = json_array();
  put(o, "description", text(api_schemas[s].doc));
  for (int i = first; i < end; i++) {
    const struct field *f = &api_fields[i];
    json_t *p = field_schema(f);
    put(p, "description", text(f->doc));
    put(p, "default", default_of(f));
    if (f->flags & FIELD_OUT)
      put(p, "readOnly", json_true());
    put(props, f->name, p);
    if (f->flags & FIELD_REQ)
      (void)json_array_append_new(required, text(f->name)); /* fails only without memory */
  }
  put(o, "properties", props);
  if (json_array_size(required))
    put(o, "required", json_incref(required));
  json_decref(required);
  put(o, "additionalProperties", json_boolean(first < end && (api_fields[first].flags & FIELD_OUT)));
  return o;
}

/* ------------------------------------------------------------------ the task, from core's table */

/* The default of a list of reasons is all that may be in it. */
static json_t *reasons_of(uint32_t mask) {
  json_t *o = type_of("string"), *list = json_array();
  for (int i = 0; run_reason_names[i]; i++)
    if (mask >> i & 1)
      (void)json_array_append_new(list, json_string(run_reason_names[i])); /* fails only without memory */
  put(o, "enum", list);
  return o;
}

static json_t *task_field_schema(const struct task_field *f) {
  json_t *o;
  switch (f->type) {
  case FIELD_NAME:
  case FIELD_TEXT:
    o = type_of("string");
    bounds(o, "minLength", "maxLength", (int64_t)f->min, (int64_t)f->max);
    return o;
  case FIELD_ENUM: return enum_of(f->names);
  case FIELD_DURATION: return duration_schema();
  case FIELD_INSTANT: return format_of("date-time");
  case FIELD_INT32:
  case FIELD_INT64:
    o = type_of("integer");
    put(o, "minimum", json_integer((int64_t)f->min));
    put(o, "maximum", json_integer((int64_t)f->max));
    return o;
  case FIELD_REAL:
    o = type_of("number");
    put(o, "minimum", json_real(f->min));
    put(o, "maximum", json_real(f->max));
    return o;
  case FIELD_BOOL: return type_of("boolean");
  case FIELD_REASONS:
    o = type_of("array");
    put(o, "items", reasons_of((uint32_t)f->value));
    put(o, "uniqueItems", json_true());
    return o;
  case FIELD_LABELS:
    o = type_of("object");
    put(o, "additionalProperties", json_pack("{s[sss]}", "type", "string", "integer", "boolean"));
    return o;
  case FIELD_NAMES:
    o = type_of("array");
    put(o, "items", type_of("string"));
    bounds(o, "minItems", "maxItems", (int64_t)f->min, (int64_t)f->max);
    put(o, "uniqueItems", json_true());
    return o;
  case FIELD_OBJECT: return ref("schemas", task_object_title(f));
  case FIELD_JSON: break;
  }
  return json_object();
}

static json_t *section_schema(enum task_section section, const char *doc, bool patch) {
  json_t *o = type_of("object"), *props = json_object(), *required = json_array();
  put(o, "description", text(doc));
  for (size_t i = 0; i < task_field_count; i++) {
    const struct task_field *f = &task_fields[i];
    if (f->section != section)
      continue;
    json_t *p = task_field_schema(f);
    put(p, "description", text(f->doc));
    put(p, "default", patch ? NULL : task_field_default(f));
    put(props, f->name, p);
    if (!patch && f->required == (1u << SCHEDULE_KIND_MAX_) - 1)
      (void)json_array_append_new(required, text(f->name)); /* fails only without memory */
  }
  put(o, "properties", props);
  if (json_array_size(required))
    put(o, "required", json_incref(required));
  json_decref(required);
  put(o, "additionalProperties", json_false());
  return o;
}

static json_t *task_schema(void) {
  json_t *o = section_schema(SECTION_TASK, api_schemas[SCHEMA_task].doc, false);
  json_t *props = json_object_get(o, "properties");
  for (size_t i = 0; i < task_server_field_count; i++) {
    bool number = strcmp(task_server_fields[i].name, "version") == 0 ||
                  strcmp(task_server_fields[i].name, "shard") == 0;
    bool instant = strlen(task_server_fields[i].name) > 3 &&
                   strcmp(task_server_fields[i].name + strlen(task_server_fields[i].name) - 3, "_at") == 0;
    json_t *p = number ? type_of("integer") : instant ? format_of("date-time") : type_of("string");
    put(p, "description", text(task_server_fields[i].doc));
    put(p, "readOnly", json_true());
    put(props, task_server_fields[i].name, p);
  }
  put(o, "additionalProperties", json_true());
  return o;
}

static json_t *wanted_schema(void) {
  json_t *o = section_schema(SECTION_TASK, api_schemas[SCHEMA_task_wanted].doc, false),
         *more = object_schema(SCHEMA_task_wanted);
  (void)json_object_update_missing(json_object_get(o, "properties"),
                                   json_object_get(more, "properties")); /* fails only without memory */
  json_decref(more);
  for (size_t i = 0; i < task_server_field_count;
       i++) /* ignored: a document as it was given may be sent back */
    (void)json_object_update_missing_new(json_object_get(o, "properties"),
                                         json_pack("{s{}}", task_server_fields[i].name));
  return o;
}

static json_t *schemas(void) {
  json_t *all = json_object(), *duration = type_of("string");
  put(duration, "description",
      text("A number and a unit, or a sum of such: 250us, 1500ms, 30s, 5m, 2h, 7d, 1h30m"));
  put(duration, "pattern", text("^([0-9]+(\\.[0-9]+)?(us|ms|s|m|h|d))+$"));
  put(all, "Duration", duration);
  put(all, "Schedule", section_schema(SECTION_SCHEDULE, "When a task is due", false));
  put(all, "DependsOn", section_schema(SECTION_DEPENDS, "After which tasks a task runs", false));
  put(all, "RetryPolicy", section_schema(SECTION_RETRY, "When an attempt failed", false));
  for (int s = 0; s < SCHEMA_MAX_; s++) {
    json_t *o;
    if (s == SCHEMA_none || s == SCHEMA_any)
      continue;
    if (s == SCHEMA_task)
      o = task_schema();
    else if (s == SCHEMA_task_input || s == SCHEMA_task_patch)
      o = section_schema(SECTION_TASK, api_schemas[s].doc, s == SCHEMA_task_patch);
    else if (s == SCHEMA_task_wanted)
      o = wanted_schema();
    else if (s == SCHEMA_text)
      o = type_of("string");
    else
      o = object_schema((enum schema_id)s);
    put(all, api_schemas[s].title, o);
  }
  return all;
}

/* ------------------------------------------------------------------ routes */

static json_t *content(const char *type, json_t *schema) {
  json_t *o = json_object(), *media = json_object();
  put(media, "schema", schema);
  put(o, type, media);
  return o;
}

static json_t *answer_body(const struct route *r) {
  json_t *schema = ref_schema(r->answer);
  if (r->answer == SCHEMA_text)
    return content("text/plain", schema);
  if (!(r->flags & ROUTE_LIST))
    return content("application/json", schema);
  json_t *o = type_of("object"), *props = json_object(), *items = type_of("array"), *cursor = json_object(),
         *types = json_array();
  put(items, "items", schema);
  put(props, "items", items);
  (void)json_array_append_new(types, text("string")); /* both fail only without memory */
  (void)json_array_append_new(types, text("null"));
  put(cursor, "type", types);
  put(cursor, "description", text("Leads to the next page; null: this is the last one"));
  put(props, "next_cursor", cursor);
  put(o, "properties", props);
  return content("application/json", o);
}

static json_t *response(const char *doc, json_t *body) {
  json_t *o = json_object();
  put(o, "description", text(doc));
  put(o, "content", body);
  return o;
}

static void problems(const struct route *r, json_t *all) {
  bool body = r->body != SCHEMA_none, param = strchr(r->path, '{') != NULL, token = r->role != ROUTE_PUBLIC,
       writes = strcmp(r->method, "GET") != 0;
  const struct {
    const char *status;
    bool there;
  } list[] = {{"400", true},
              {"401", token},
              {"403", token},
              {"404", param || body},
              {"409", writes && token},
              {"412", r->flags & ROUTE_MATCH || r->body == SCHEMA_beat || r->body == SCHEMA_apply},
              {"413", body},
              {"415", body},
              {"422", r->flags & ROUTE_IDEM},
              {"428", r->flags & ROUTE_MATCH_NEED},
              {"500", true},
              {"503", true}};
  for (size_t i = 0; i < sizeof list / sizeof *list; i++)
    if (list[i].there)
      put(all, list[i].status, ref("responses", "Problem"));
}

static json_t *responses(const struct route *r) {
  json_t *all = json_object();
  char status[8];
  (void)snprintf(status, sizeof status, "%d", r->status);
  put(all, status,
      response(r->status == 204   ? "Done"
               : r->status == 202 ? "Asked for"
                                  : "The answer",
               r->status == 204 ? NULL : answer_body(r)));
  if (r->flags & ROUTE_NONE_MATCH)
    put(all, "304", response("Unchanged: If-None-Match names the current version", NULL));
  if (r->handle == on_runs_cancel)
    put(all, "202", response("Its executor was told to stop", answer_body(r)));
  if (r->handle == on_namespaces_create)
    put(all, "200", response("It was there", answer_body(r)));
  problems(r, all);
  return all;
}

static json_t *parameter(const char *in, const char *name, bool required, json_t *schema, const char *doc) {
  json_t *o = json_object();
  put(o, "name", text(name));
  put(o, "in", text(in));
  put(o, "required", json_boolean(required));
  put(o, "schema", schema);
  put(o, "description", text(doc));
  return o;
}

static const char *path_doc(const char *name) {
  static const char *const docs[][2] = {
      {"task",
       "Id, namespace/name (percent-encoded: ns%2Fname), or a name in the token's namespace or default"},
      {"run", "Run id"},
      {"group", "namespace/name (percent-encoded), or a name in the token's namespace or default"},
      {"executor", "namespace/group/id (percent-encoded), an id in the token's or the query's group, or an "
                   "id that only one group has"},
      {"token", "Id of the token"}};
  for (size_t i = 0; i < sizeof docs / sizeof *docs; i++)
    if (strcmp(docs[i][0], name) == 0)
      return docs[i][1];
  return "";
}

static void path_parameters(const struct route *r, json_t *list) {
  for (const char *p = strchr(r->path, '{'); p; p = strchr(p + 1, '{')) {
    char name[32];
    (void)text_copy(name, sizeof name, slice_n(p + 1, strcspn(p + 1, "}"))); /* our own names fit */
    (void)json_array_append_new(list, parameter("path", name, true, type_of("string"), path_doc(name)));
  }
}

static json_t *parameters(const struct route *r) {
  json_t *list = json_array();
  path_parameters(r, list);
  for (int i = 0; i < Q_MAX_; i++) {
    if (!(r->query & UINT64_C(1) << i))
      continue;
    json_t *schema = field_schema(&api_fields[i]), *p;
    put(schema, "default", default_of(&api_fields[i]));
    p = parameter("query", api_fields[i].name, false, schema, api_fields[i].doc);
    if (api_fields[i].type == VALUE_ENUMS)
      put(p, "explode", json_false());
    (void)json_array_append_new(list, p); /* these fail only without memory */
  }
  if (r->flags & ROUTE_MATCH)
    (void)json_array_append_new(
        list, parameter("header", "If-Match", r->flags & ROUTE_MATCH_NEED, type_of("string"),
                        "ETag of the version to be changed, or *; another version: 412"));
  if (r->flags & ROUTE_NONE_MATCH)
    (void)json_array_append_new(list, parameter("header", "If-None-Match", false, type_of("string"),
                                                "304 when this is still the version"));
  if (r->flags & ROUTE_IDEM)
    (void)json_array_append_new(list,
                                parameter("header", "Idempotency-Key", false, type_of("string"),
                                          "1 to 255 visible ASCII characters, remembered for 24 h: a repeat "
                                          "with the same body gets the first answer, with another body 422"));
  return list;
}

static json_t *operation(const struct route *r) {
  json_t *o = json_object(), *tags = json_array(), *list = parameters(r);
  put(o, "operationId", text(r->name));
  put(o, "summary", text(r->summary));
  (void)json_array_append_new(tags,
                              json_stringn(r->name, strcspn(r->name, "_"))); /* fails only without memory */
  put(o, "tags", tags);
  if (json_array_size(list))
    put(o, "parameters", json_incref(list));
  json_decref(list);
  if (r->body != SCHEMA_none) {
    json_t *b = content("application/json", ref_schema(r->body)), *body = json_object();
    if (r->flags & ROUTE_MERGE)
      (void)json_object_update_missing_new(b, content("application/merge-patch+json", ref_schema(r->body)));
    put(body, "required", json_boolean(!(r->flags & ROUTE_BODY_OPT)));
    put(body, "content", b);
    put(o, "requestBody", body);
  }
  put(o, "responses", responses(r));
  if (r->role == ROUTE_PUBLIC)
    put(o, "security", json_array());
  else
    put(o, "x-role", text(token_role_names[r->role]));
  return o;
}

static json_t *paths(void) {
  json_t *all = json_object();
  for (size_t i = 0; i < api_route_count; i++) {
    const struct route *r = &api_routes[i];
    if (r->role == ROUTE_PEER)
      continue; /* nobody's but the nodes' */
    json_t *path = json_object_get(all, r->path);
    if (!path) {
      path = json_object();
      put(all, r->path, path);
    }
    char method[8] = "";
    for (size_t k = 0; r->method[k] && k < sizeof method - 1; k++)
      method[k] = (char)(r->method[k] | 0x20);
    put(path, method, operation(r));
  }
  return all;
}

json_t *api_openapi(const char *version) {
  json_t *doc = json_object(), *info = json_object(), *components = json_object(), *list = json_array(),
         *bearer = json_object();
  put(doc, "openapi", text("3.1.0"));
  put(info, "title", text("Kelou"));
  put(info, "description",
      text("Tasks, runs and executors of a scheduling centre. Times are RFC 3339 in UTC, ids are texts."));
  put(info, "version", text(version));
  put(doc, "info", info);
  put(doc, "paths", paths());
  put(components, "schemas", schemas());
  json_t *all = json_object(), *schemes = json_object();
  put(all, "Problem",
      response("A problem document (RFC 9457)",
               content("application/problem+json", ref_schema(SCHEMA_problem))));
  put(components, "responses", all);
  json_t *scheme = type_of("http");
  put(scheme, "scheme", text("bearer"));
  put(schemes, "token", scheme);
  put(components, "securitySchemes", schemes);
  put(doc, "components", components);
  put(bearer, "token", json_array());
  (void)json_array_append_new(list, bearer); /* fails only without memory */
  put(doc, "security", list);
  return doc;
}
