#pragma once
/* The table of the task document's fields (task_fields.def) as data: for the parser, the printer and the generators of
 * docs/api.md and OpenAPI. Pure, constant. */
#include "base/json.h"
#include "core/depend.h"
#include "core/schedule.h"

#define TASK_NAME_MAX        128
#define TASK_DESCRIPTION_MAX 1024
#define TASK_PAYLOAD_MAX     (1024 * 1024)
#define TASK_LABELS_MAX      1024 /* bytes of compact JSON */
#define TASK_RETRY_ON_ALL                                                                                    \
  (1u << REASON_ERROR | 1u << REASON_TIMEOUT | 1u << REASON_LOST | 1u << REASON_REJECTED |                   \
   1u << REASON_NO_EXECUTOR)

enum task_section { SECTION_TASK, SECTION_SCHEDULE, SECTION_DEPENDS, SECTION_RETRY };
enum task_field_type {
  FIELD_NAME,
  FIELD_TEXT,
  FIELD_ENUM,
  FIELD_DURATION,
  FIELD_INSTANT,
  FIELD_INT32,
  FIELD_INT64,
  FIELD_REAL,
  FIELD_BOOL,
  FIELD_REASONS,
  FIELD_LABELS,
  FIELD_NAMES,
  FIELD_JSON,
  FIELD_OBJECT
};
extern const char *const task_field_type_names[]; /* "name", "text", … as the docs say */

struct task_field {
  enum task_section section;
  const char *name;
  enum task_field_type type;
  double min, max; /* bytes, µs or the number itself */
  bool has_default;
  double value;               /* the default, when a number */
  const char *text;           /* the default, when a text; else NULL */
  const char *const *names;   /* FIELD_ENUM */
  unsigned allowed, required; /* bits 1 << SCHEDULE_x */
  size_t offset;              /* in struct task_draft */
  const char *doc;
};
extern const struct task_field task_fields[];
extern const size_t task_field_count;
/* The value of a default as JSON (a new reference), NULL when there is none. */
json_t *task_field_default(const struct task_field *f);

struct task_server_field {
  const char *name, *doc;
};
extern const struct task_server_field task_server_fields[];
extern const size_t task_server_field_count;
