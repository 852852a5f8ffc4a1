/* The field table, and reading and printing of single fields by it. */
#include "base/mem.h"
#include "base/parse.h"
#include "core/task_draft.h"
#include <math.h>
#include <stdlib.h>

const char *const task_field_type_names[] = {
    "name",    "text",          "enum",     "duration", "instant",
    "integer", "integer",       "number",   "boolean",  "list of reasons",
    "labels",  "list of names", "any JSON", "object",   NULL};

#define K(kind) (1u << SCHEDULE_##kind)
#define K_ALL   ((1u << SCHEDULE_KIND_MAX_) - 1)
#define K_NONE  0u
/* A default is a number, a text or nothing; _Generic keeps the table free of casts. */
struct no_default;
#define NONE ((const struct no_default *)NULL)
#define DEFAULT_NUMBER(x)                                                                                    \
  _Generic((x), const struct no_default * : 0, char * : 0, const char * : 0, default : (x))
#define DEFAULT_TEXT(x) _Generic((x), char * : (x), const char * : (x), default : NULL)
#define DEFAULT_HAS(x)  _Generic((x), const struct no_default * : false, default : true)

#define FIELD(section, name, type, member, min, max, dflt, names, allowed, required, doc)                    \
  {SECTION_##section,                                                                                        \
   #name,                                                                                                    \
   FIELD_##type,                                                                                             \
   (double)(min),                                                                                            \
   (double)(max),                                                                                            \
   DEFAULT_HAS(dflt),                                                                                        \
   (double)DEFAULT_NUMBER(dflt),                                                                             \
   DEFAULT_TEXT(dflt),                                                                                       \
   names,                                                                                                    \
   allowed,                                                                                                  \
   required,                                                                                                 \
   offsetof(struct task_draft, member),                                                                      \
   doc},
const struct task_field task_fields[] = {
#include "core/task_fields.def"
};
const size_t task_field_count = sizeof task_fields / sizeof *task_fields;

#define SERVER_FIELD(name, doc) {#name, doc},
const struct task_server_field task_server_fields[] = {
#include "core/task_fields.def"
};
const size_t task_server_field_count = sizeof task_server_fields / sizeof *task_server_fields;

bool task_field_defines(const struct task_field *f) {
  static const char *const per_task[] = {"name", "description", "payload", "anchor", "run_at", NULL};
  for (int i = 0; per_task[i]; i++)
    if (strcmp(f->name, per_task[i]) == 0)
      return false;
  return true;
}

/* ------------------------------------------------------------------ printing one value */

static json_t *duration_json(usec_t d) {
  char buf[TIME_TEXT_MAX];
  return json_string(duration_format(d, buf));
}

static json_t *instant_json(usec_t t) {
  char buf[TIME_TEXT_MAX];
  return json_string(time_format(t, buf));
}

static json_t *reasons_json(uint32_t mask) {
  json_t *list = json_array();
  for (int i = 0; run_reason_names[i]; i++)
    if (mask & 1u << i)
      (void)json_array_append_new(list, json_string(run_reason_names[i])); /* fails only without memory */
  return list;
}

json_t *task_field_default(const struct task_field *f) {
  if (!f->has_default)
    return NULL;
  switch (f->type) {
  case FIELD_NAME:
  case FIELD_TEXT: return json_string(f->text);
  case FIELD_ENUM: return json_string(f->names[(int)f->value]);
  case FIELD_DURATION: return duration_json((usec_t)f->value);
  case FIELD_INSTANT: return instant_json((usec_t)f->value);
  case FIELD_INT32:
  case FIELD_INT64: return json_integer((json_int_t)f->value);
  case FIELD_REAL: return json_real(f->value);
  case FIELD_BOOL: return json_boolean(f->value != 0);
  case FIELD_REASONS: return reasons_json((uint32_t)f->value);
  case FIELD_LABELS:
  case FIELD_NAMES:
  case FIELD_JSON:
  case FIELD_OBJECT: break;
  }
  return NULL;
}

/* ------------------------------------------------------------------ values in the draft */

static void put(struct task_draft *d, const struct task_field *f, const void *value, size_t n) {
  memcpy((char *)d + f->offset, value, n);
}

/* Only the conversion that the type asks for: a length in µs does not fit into 32 bits. */
static void put_number(struct task_draft *d, const struct task_field *f, double v) {
  switch (f->type) {
  case FIELD_ENUM:
  case FIELD_REASONS: put(d, f, &(uint32_t){(uint32_t)v}, sizeof(uint32_t)); break;
  case FIELD_INT32: put(d, f, &(int32_t){(int32_t)v}, sizeof(int32_t)); break;
  case FIELD_DURATION:
  case FIELD_INSTANT:
  case FIELD_INT64: put(d, f, &(int64_t){(int64_t)v}, sizeof(int64_t)); break;
  case FIELD_REAL: put(d, f, &v, sizeof v); break;
  case FIELD_BOOL: put(d, f, &(bool){v != 0}, sizeof(bool)); break;
  case FIELD_NAME:
  case FIELD_TEXT:
  case FIELD_LABELS:
  case FIELD_NAMES:
  case FIELD_JSON:
  case FIELD_OBJECT: break;
  }
}

void task_draft_defaults(struct task_draft *d) {
  _Static_assert(sizeof(enum schedule_kind) == sizeof(uint32_t), "enums are stored as 32 bits");
  *d = (struct task_draft){.s.end_at = USEC_NEVER, .s.routing = ROUTING_MAX_};
  for (size_t i = 0; i < task_field_count; i++) {
    const struct task_field *f = &task_fields[i];
    struct slice text = slice_of(f->text);
    if (f->has_default && f->text)
      put(d, f, &text, sizeof text);
    else if (f->has_default)
      put_number(d, f, f->value);
  }
}

/* ------------------------------------------------------------------ reading one value */

static int at_field(struct err *e, const struct task_field *f, int code) {
  char field[ERR_FIELD_MAX] = "/";
  (void)text_copy(field + 1, sizeof field - 1, slice_of(f->name)); /* our own names fit */
  if (e)
    (void)err_at(e, field);
  return code;
}

static int read_text(const json_t *object, const struct task_field *f, struct task_draft *d, json_t **ret,
                     struct err *e) {
  struct slice s = {0};
  int r = json_get_slice(object, f->name, (size_t)f->max, &s, e);
  if (r < 0)
    return r;
  if (f->type == FIELD_NAME && (r = parse_name(s, (size_t)f->max, e)) < 0)
    return at_field(e, f, r);
  if (s.n < (size_t)f->min)
    return at_field(e, f,
                    err_set(e, ERR_INVALID, "expected a text of %d to %d bytes", (int)f->min, (int)f->max));
  put(d, f, &s, sizeof s);
  *ret = json_stringn(s.p, s.n);
  return 0;
}

static int read_enum(const json_t *object, const struct task_field *f, struct task_draft *d, json_t **ret,
                     struct err *e) {
  int v = 0;
  int r = json_get_enum(object, f->name, f->names, &v, e);
  if (r < 0)
    return r;
  put_number(d, f, v);
  *ret = json_string(f->names[v]);
  return 0;
}

static int read_time(const json_t *object, const struct task_field *f, struct task_draft *d, json_t **ret,
                     struct err *e) {
  usec_t v = 0;
  bool instant = f->type == FIELD_INSTANT;
  int r = instant ? json_get_time(object, f->name, &v, e)
                  : json_get_duration(object, f->name, (usec_t)f->min, (usec_t)f->max, &v, e);
  if (r < 0)
    return r;
  if (instant && v == USEC_NONE)
    return at_field(e, f, err_set(e, ERR_INVALID, "expected an instant after 1970-01-01T00:00:00Z"));
  put(d, f, &v, sizeof v);
  *ret = instant ? instant_json(v) : duration_json(v);
  return 0;
}

static int read_number(const json_t *object, const struct task_field *f, struct task_draft *d, json_t **ret,
                       struct err *e) {
  int64_t i = 0;
  double v = 0;
  int r = f->type == FIELD_REAL ? json_get_double(object, f->name, f->min, f->max, &v, e)
                                : json_get_i64(object, f->name, (int64_t)f->min, (int64_t)f->max, &i, e);
  if (r < 0)
    return r;
  put_number(d, f, f->type == FIELD_REAL ? v : (double)i); /* every maximum is below 2^53 */
  *ret = f->type == FIELD_REAL ? json_real(v) : json_integer(i);
  return 0;
}

static int read_bool(const json_t *object, const struct task_field *f, struct task_draft *d, json_t **ret,
                     struct err *e) {
  bool v = false;
  int r = json_get_bool(object, f->name, &v, e);
  if (r < 0)
    return r;
  put(d, f, &v, sizeof v);
  *ret = json_boolean(v);
  return 0;
}

static int read_reasons(const json_t *object, const struct task_field *f, struct task_draft *d, json_t **ret,
                        struct err *e) {
  static const char *const allowed[] = {"ERROR", "TIMEOUT", "LOST", "REJECTED", "NO_EXECUTOR", NULL};
  const json_t *list = json_object_get(object, f->name), *item;
  uint32_t mask = 0;
  size_t i;
  if (!json_is_array(list))
    return at_field(e, f, err_set(e, ERR_INVALID, "expected a list of reasons"));
  json_array_foreach (list, i, item) {
    struct slice text = {json_string_value(item), json_string_length(item)};
    int v;
    int r = parse_enum(text, allowed, &v,
                       e); /* not a text: an empty one, refused with the list of what is allowed */
    if (r >= 0)
      r = parse_enum(text, run_reason_names, &v, e);
    if (r < 0) {
      auto_str at;
      str_init(&at, ERR_FIELD_MAX);
      str_addf(&at, "/%zu", i);
      if (e)
        (void)err_at(e, at.p);
      return at_field(e, f, r);
    }
    mask |= 1u << v;
  }
  put(d, f, &mask, sizeof mask);
  *ret = reasons_json(mask);
  return 0;
}

/* An object of plain values; none at all is as if it were not there. */
static int read_labels(const json_t *object, const struct task_field *f, struct task_draft *d, json_t **ret,
                       struct err *e) {
  const json_t *labels = json_object_get(object, f->name);
  const char *key;
  json_t *value;
  if (!json_is_object(labels))
    return at_field(e, f, err_set(e, ERR_INVALID, "expected an object of labels"));
  json_object_foreach ((json_t *)(uintptr_t)labels, key, value) {
    if (*key && (json_is_string(value) || json_is_integer(value) || json_is_boolean(value)))
      continue;
    return at_field(
        e, f,
        err_set(e, ERR_INVALID, "\"%s\": expected a label with a text, a whole number, true or false", key));
  }
  auto_free char *text = json_text(labels);
  if (strlen(text) > (size_t)f->max)
    return at_field(e, f,
                    err_set(e, ERR_TOO_LARGE, "expected at most %d bytes of compact JSON", (int)f->max));
  if (!json_object_size(labels))
    return 0;
  put(d, f, &labels, sizeof labels);
  *ret = json_incref((json_t *)(uintptr_t)labels);
  return 0;
}

/* Is the name at `i` one, and not there before? */
static int check_name(const json_t *list, size_t i, struct err *e) {
  const json_t *item = json_array_get(list, i);
  if (!json_is_string(item))
    return err_set(e, ERR_INVALID, "expected a name");
  int r = parse_name(slice_n(json_string_value(item), json_string_length(item)), TASK_NAME_MAX, e);
  for (size_t k = 0; r == 0 && k < i; k++)
    if (json_equal(json_array_get(list, k), item))
      r = err_set(e, ERR_INVALID, "stands here twice");
  return r;
}

static int read_names(const json_t *object, const struct task_field *f, struct task_draft *d, json_t **ret,
                      struct err *e) {
  const json_t *list = json_object_get(object, f->name);
  size_t n = json_array_size(list);
  if (!json_is_array(list) || n < (size_t)f->min || n > (size_t)f->max)
    return at_field(e, f,
                    err_set(e, ERR_INVALID, "expected a list of %d to %d names", (int)f->min, (int)f->max));
  for (size_t i = 0; i < n; i++) {
    int r = check_name(list, i, e);
    if (r < 0) {
      auto_str at;
      str_init(&at, ERR_FIELD_MAX);
      str_addf(&at, "/%zu", i);
      if (e)
        (void)err_at(e, at.p);
      return at_field(e, f, r);
    }
  }
  put(d, f, &list, sizeof list);
  *ret = json_copy((json_t *)(uintptr_t)list);
  return 0;
}

/* A field that is there and not null. */
static int read_field(const json_t *object, const struct task_field *f, struct task_draft *d, json_t **ret,
                      struct err *e) {
  switch (f->type) {
  case FIELD_NAME:
  case FIELD_TEXT: return read_text(object, f, d, ret, e);
  case FIELD_ENUM: return read_enum(object, f, d, ret, e);
  case FIELD_DURATION:
  case FIELD_INSTANT: return read_time(object, f, d, ret, e);
  case FIELD_INT32:
  case FIELD_INT64:
  case FIELD_REAL: return read_number(object, f, d, ret, e);
  case FIELD_BOOL: return read_bool(object, f, d, ret, e);
  case FIELD_REASONS: return read_reasons(object, f, d, ret, e);
  case FIELD_LABELS: return read_labels(object, f, d, ret, e);
  case FIELD_NAMES: return read_names(object, f, d, ret, e);
  case FIELD_JSON:
  case FIELD_OBJECT: break; /* the document's reader sees to them */
  }
  return 0;
}

/* Is the field where it may be, and there where it must be? */
static int check_place(const struct task_field *f, bool there, enum schedule_kind kind, struct err *e) {
  unsigned bit = 1u << kind;
  if (there && !(f->allowed & bit))
    return at_field(
        e, f,
        err_set(e, ERR_INVALID, "this field does not belong to a %s schedule", schedule_kind_names[kind]));
  if (!there && (f->required & bit)) {
    if (f->required == K_ALL)
      return at_field(e, f, err_set(e, ERR_MISSING, "this field is required"));
    return at_field(e, f,
                    err_set(e, ERR_MISSING, "a %s schedule needs this field", schedule_kind_names[kind]));
  }
  return 0;
}

int task_section_read(enum task_section section, const json_t *object, struct task_draft *d,
                      json_t *canonical, struct err *e) {
  for (size_t i = 0; i < task_field_count; i++) {
    const struct task_field *f = &task_fields[i];
    if (f->section != section)
      continue;
    const json_t *v = json_object_get(object, f->name);
    bool there = v && !json_is_null(v);
    int r = check_place(f, there, d->s.kind, e); /* `kind` is the first of its section */
    json_t *normal = NULL;
    if (r == 0 && there)
      r = read_field(object, f, d, &normal, e);
    if (r < 0)
      return r;
    if (normal && canonical && task_field_defines(f))
      (void)json_object_set_new(canonical, f->name, normal); /* fails only without memory */
    else
      json_decref(normal);
  }
  return 0;
}

/* ------------------------------------------------------------------ unknown keys */

static bool is_field(enum task_section section, const char *key) {
  for (size_t i = 0; i < task_field_count; i++)
    if (task_fields[i].section == section && strcmp(task_fields[i].name, key) == 0)
      return true;
  return false;
}

static bool is_server_made(const char *key) {
  for (size_t i = 0; i < task_server_field_count; i++)
    if (strcmp(task_server_fields[i].name, key) == 0)
      return true;
  return false;
}

static int refuse_unknown(enum task_section section, const json_t *object, struct err *e) {
  const char *known[sizeof task_fields / sizeof *task_fields + 1];
  size_t n = 0;
  for (size_t i = 0; i < task_field_count; i++)
    if (task_fields[i].section == section)
      known[n++] = task_fields[i].name;
  known[n] = NULL;
  auto_json *rest = json_object(); /* only what is neither known nor the server's */
  const char *key;
  json_t *value;
  json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
    if (!is_field(section, key) && !(section == SECTION_TASK && is_server_made(key)))
      (void)json_object_set(rest, key, value);
  }
  return json_check_keys(rest, known, e);
}

int task_doc_known(enum task_section section, const json_t *object, struct err *e) {
  bool printed =
      json_object_get(object, "id") && json_object_get(object, "version") && json_object_get(object, "state");
  const char *key;
  json_t *value;
  json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
    if (is_field(section, key))
      continue;
    if (section != SECTION_TASK || !is_server_made(key))
      return refuse_unknown(section, object, e);
    if (printed)
      continue;
    char field[ERR_FIELD_MAX] = "/";
    (void)text_copy(field + 1, sizeof field - 1, slice_of(key));
    return err_field(
        e, ERR_INVALID, field,
        "this field is made by the server: leave it out, or send the whole document as it was given");
  }
  return 0;
}
