/* docs/api.md, from the same tables. Pure. */
#include "api/internal.h"
#include "core/task_fields.h"
#include <inttypes.h>
#include <stdio.h>

static const char *const type_names[] = {
    [VALUE_TEXT] = "text",     [VALUE_NAME] = "name",       [VALUE_ENUM] = "word",
    [VALUE_ENUMS] = "words",   [VALUE_INT] = "integer",     [VALUE_NUMBER] = "number",
    [VALUE_BOOL] = "boolean",  [VALUE_INSTANT] = "instant", [VALUE_DURATION] = "duration",
    [VALUE_JSON] = "any JSON", [VALUE_MAP] = "object",      [VALUE_NAMES] = "list of names",
    [VALUE_REF] = "object",    [VALUE_LIST] = "list"};

/* Inside a table cell. */
static void cell(struct str *out, const char *z) {
  for (; *z; z++) {
    if (*z == '|')
      str_addc(out, '\\');
    str_addc(out, *z);
  }
}

static void words(struct str *out, const char *const *names) {
  for (int i = 0; names[i]; i++)
    str_addf(out, "%s%s", i ? ", " : "", names[i]);
}

static void bytes(struct str *out, int64_t n) {
  if (n >= 1024 * 1024 && n % (1024 * 1024) == 0)
    str_addf(out, "%" PRId64 " MiB", n / (1024 * 1024));
  else if (n >= 1024 && n % 1024 == 0)
    str_addf(out, "%" PRId64 " KiB", n / 1024);
  else
    str_addf(out, "%" PRId64 " bytes", n);
}

static void byte_range(struct str *out, int64_t min, int64_t max) {
  if (min == max)
    str_addf(out, "%" PRId64 " bytes", max);
  else {
    if (min > 0)
      str_addf(out, "%" PRId64 " to ", min);
    else
      str_addz(out, "≤ ");
    bytes(out, max);
  }
}

static void number_range(struct str *out, int64_t min, int64_t max) {
  if (max == INT64_MAX)
    str_addf(out, "≥ %" PRId64, min);
  else
    str_addf(out, "%" PRId64 " to %" PRId64, min, max);
}

static const char *title_of(enum schema_id s) {
  return s == SCHEMA_SCHEDULE_ ? "Schedule" : api_schemas[s].title;
}

static void limits(struct str *out, const struct field *f) {
  switch (f->type) {
  case VALUE_TEXT:
  case VALUE_NAME:
  case VALUE_JSON:
  case VALUE_MAP: byte_range(out, f->min, f->max); break;
  case VALUE_ENUM:
  case VALUE_ENUMS: words(out, f->names); break;
  case VALUE_INT:
  case VALUE_NUMBER: number_range(out, f->min, f->max); break;
  case VALUE_NAMES: str_addf(out, "%" PRId64 " to %" PRId64 ", each ≤ 128 bytes", f->min, f->max); break;
  case VALUE_REF: str_addf(out, "%s", title_of(f->to)); break;
  case VALUE_LIST: str_addf(out, "%" PRId64 " to %" PRId64 " × %s", f->min, f->max, title_of(f->to)); break;
  case VALUE_BOOL:
  case VALUE_INSTANT:
  case VALUE_DURATION: break;
  }
}

static const char *changes(const struct field *f) {
  if (f->flags & FIELD_OUT)
    return f->flags & FIELD_SECRET ? "shown once" : "by the server";
  return f->flags & FIELD_CAN ? "yes" : "";
}

static void row(struct str *out, const struct field *f) {
  str_addf(out, "| `%s` | %s | ", f->name, type_names[f->type]);
  limits(out, f);
  str_addf(out, " | %s | %s | ", f->flags & FIELD_REQ ? "required" : f->value ? f->value : "", changes(f));
  cell(out, f->doc);
  str_addz(out, " |\n");
}

static const char table_head[] =
    "| field | type | limit | default | changes | what |\n|---|---|---|---|---|---|\n";

static void schema(struct str *out, enum schema_id s) {
  int first, end;
  schema_range(s, &first, &end);
  if (first == end)
    return;
  str_addf(out, "\n### %s\n\n%s.\n\n%s", api_schemas[s].title, api_schemas[s].doc, table_head);
  for (int i = first; i < end; i++)
    row(out, &api_fields[i]);
}

/* ------------------------------------------------------------------ the task */

static void duration(struct str *out, double d) {
  char text[TIME_TEXT_MAX];
  str_addz(out, duration_format((usec_t)d, text));
}

static void task_limits(struct str *out, const struct task_field *f) {
  switch (f->type) {
  case FIELD_NAME:
  case FIELD_TEXT:
  case FIELD_LABELS:
  case FIELD_JSON: byte_range(out, (int64_t)f->min, (int64_t)f->max); break;
  case FIELD_ENUM: words(out, f->names); break;
  case FIELD_DURATION:
    duration(out, f->min);
    str_addz(out, " to ");
    duration(out, f->max);
    break;
  case FIELD_INT32:
  case FIELD_INT64: number_range(out, (int64_t)f->min, (int64_t)f->max); break;
  case FIELD_REAL: str_addf(out, "%g to %g", f->min, f->max); break;
  case FIELD_BOOL: str_addz(out, "true, false"); break;
  case FIELD_REASONS: str_addz(out, "ERROR, TIMEOUT, LOST, REJECTED, NO_EXECUTOR"); break;
  case FIELD_INSTANT: str_addz(out, "after 1970"); break;
  case FIELD_NAMES: number_range(out, (int64_t)f->min, (int64_t)f->max); break;
  case FIELD_OBJECT: str_addz(out, task_object_title(f)); break;
  }
}

static void task_default(struct str *out, const struct task_field *f) {
  auto_json *j = task_field_default(f);
  if (!j)
    return;
  if (json_is_string(j)) {
    str_addz(out, json_string_value(j));
  } else if (json_is_array(j)) {
    str_addz(out, "all");
  } else {
    auto_free char *text = json_text(j);
    str_addz(out, text);
  }
}

/* Which kinds of schedule a field belongs to, when not to all. */
static void task_kinds(struct str *out, const struct task_field *f) {
  if (f->allowed == (1u << SCHEDULE_KIND_MAX_) - 1)
    return;
  str_addz(out, " (");
  bool some = false;
  for (int i = 0; i < SCHEDULE_KIND_MAX_; i++)
    if (f->allowed & 1u << i) {
      str_addf(out, "%s%s", some ? ", " : "", schedule_kind_names[i]);
      some = true;
    }
  str_addc(out, ')');
}

static void task_section(struct str *out, enum task_section section) {
  str_addz(out, table_head);
  for (size_t i = 0; i < task_field_count; i++) {
    const struct task_field *f = &task_fields[i];
    if (f->section != section)
      continue;
    str_addf(out, "| `%s` | %s | ", f->name, task_field_type_names[f->type]);
    task_limits(out, f);
    str_addz(out, " | ");
    if (f->required)
      str_addz(out, "required");
    else
      task_default(out, f);
    str_addf(out, " | %s | ", strcmp(f->name, "namespace") == 0 ? "no" : "yes");
    cell(out, f->doc);
    task_kinds(out, f);
    str_addz(out, " |\n");
  }
}

static void task(struct str *out) {
  str_addz(out, "\n### Task, TaskInput, TaskPatch\n\n"
                "A whole document creates or replaces; a patch (RFC 7396) changes some fields, `null` "
                "removes one. What the server made is "
                "ignored in a document that is sent back as it was given.\n\n");
  task_section(out, SECTION_TASK);
  for (size_t i = 0; i < task_server_field_count; i++)
    str_addf(out, "| `%s` | | | | by the server | %s |\n", task_server_fields[i].name,
             task_server_fields[i].doc);
  str_addz(out, "\n### Schedule\n\nThe object `schedule` of a task. A field in brackets' kinds only.\n\n");
  task_section(out, SECTION_SCHEDULE);
  str_addz(out, "\n### DependsOn\n\nThe object `depends_on` of a task.\n\n");
  task_section(out, SECTION_DEPENDS);
  str_addz(out, "\n### RetryPolicy\n\nThe object `retry` of a task.\n\n");
  task_section(out, SECTION_RETRY);
}

/* ------------------------------------------------------------------ routes, errors */

static void route(struct str *out, const struct route *r) {
  if (r->role == ROUTE_PEER)
    return; /* nobody's but the nodes' */
  str_addf(out, "| %s `%s` | %s | ", r->method, r->path,
           r->role == ROUTE_PUBLIC ? "–" : token_role_names[r->role]);
  bool some = false;
  for (int i = 0; i < Q_MAX_; i++)
    if (r->query & UINT64_C(1) << i) {
      str_addf(out, "%s%s", some ? ", " : "", api_fields[i].name);
      some = true;
    }
  str_addf(out, " | %s%s | %d%s%s%s | %s", api_schemas[r->body].title,
           r->flags & ROUTE_BODY_OPT ? " (optional)" : "", r->status, r->answer == SCHEMA_none ? "" : " ",
           api_schemas[r->answer].title, r->flags & ROUTE_LIST ? " list" : "", r->summary);
  if (r->flags & ROUTE_IDEM)
    str_addz(out, ". Takes Idempotency-Key");
  if (r->flags & ROUTE_MATCH)
    str_addf(out, ". %s If-Match", r->flags & ROUTE_MATCH_NEED ? "Needs" : "Takes");
  if (r->flags & ROUTE_NONE_MATCH)
    str_addz(out, ". Takes If-None-Match");
  str_addz(out, " |\n");
}

static const char intro[] =
    "# The REST API\n\n"
    "Generated from `src/api/routes.def`, `src/api/fields.def`, `src/core/task_fields.def` and "
    "`src/base/errors.def`; the same as "
    "OpenAPI 3.1 at `/api/v1/openapi.json`.\n\n"
    "- Every request but the public ones carries `Authorization: Bearer <token>`. Roles: VIEWER < OPERATOR < "
    "ADMIN; EXECUTOR is for "
    "executors (ADMIN and OPERATOR may call those routes too). A token may be bound to a namespace; what is "
    "elsewhere does not exist for it.\n"
    "- Bodies are JSON in UTF-8 (`Content-Type: application/json`), at most 2 MiB. Unknown fields and "
    "unknown query parameters are refused. "
    "Outside of payloads `null` is the same as leaving the field out.\n"
    "- Instants are RFC 3339; answers are in UTC. Durations: `250us`, `1500ms`, `30s`, `5m`, `2h`, `7d`, or "
    "a sum such as `1h30m`. Ids are texts. "
    "Names: letters (any script), digits, `_.:-` and spaces inside; no control or invisible characters.\n"
    "- In a path a task or a group is named by `namespace/name` (percent-encoded: `ns%2Fname`) or by a name "
    "in the token's namespace, "
    "else in `default`; a task also by its id (names made of digits only need the long form).\n"
    "- Lists answer `{\"items\": [...], \"next_cursor\": ...}`; the cursor, `null` on the last page, leads "
    "on with the same filters.\n"
    "- `ETag` is the version. `If-Match` with another version: 412; left out where it is needed: 428. "
    "`If-None-Match`: 304.\n"
    "- `Idempotency-Key` is remembered for 24 h for one path and token: a repeat gets the first answer and "
    "`Idempotent-Replayed: true`; "
    "with another body 422. Where it is not taken it is refused.\n"
    "- Every answer has `X-Request-Id`; 429 and 503 have `Retry-After`; 405 has `Allow`.\n"
    "- A refused request answers `application/problem+json` (Problem below) and changes nothing.\n";

void api_markdown(struct str *out) {
  str_addz(out, intro);
  str_addz(out, "\n## Calls\n\n| call | role | query | body | answer | what |\n|---|---|---|---|---|---|\n");
  for (size_t i = 0; i < api_route_count; i++)
    route(out, &api_routes[i]);
  str_addz(out, "\n### Query parameters\n\n| parameter | type | limit | default | changes | what "
                "|\n|---|---|---|---|---|---|\n");
  for (int i = 0; i < Q_MAX_; i++)
    row(out, &api_fields[i]);
  str_addz(out, "\n## Documents\n");
  task(out);
  for (int s = 0; s < SCHEMA_MAX_; s++)
    schema(out, (enum schema_id)s);
  str_addz(out, "\n## Error codes\n\nThe exit code is that of `kelou`.\n\n| code | status | exit code | "
                "title |\n|---|---|---|---|\n");
#define ERR(name, number, text, http, exit_code, title)                                                      \
  str_addf(out, "| `%s` | %d | %d | %s |\n", text, http, exit_code, title);
#include "base/errors.def"
#undef ERR
}
