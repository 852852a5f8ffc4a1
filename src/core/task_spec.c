/* A task document as a whole: taken apart, checked, and built into a spec. Printing and patching: task_doc.c. */
#include "core/task_spec.h"
#include "base/mem.h"
#include "core/calendar.h"
#include "core/overlap.h"
#include "core/task_draft.h"
#include "core/zone_set.h"

/* Bring an error of a nested part below `prefix`. */
static int below(struct err *e, const char *prefix, int code) {
  if (e && code < 0)
    (void)err_at(e, prefix);
  return code;
}

/* ------------------------------------------------------------------ reading */

/* The object `key`; a missing one gives NULL when it may be missing. */
static int part(const json_t *doc, const char *key, bool required, const json_t **ret, struct err *e) {
  char field[32] = "/";
  (void)text_copy(field + 1, sizeof field - 1, slice_of(key));
  const json_t *j = json_object_get(doc, key);
  *ret = NULL;
  if (!j || json_is_null(j))
    return required ? err_field(e, ERR_MISSING, field, "this field is required") : 0;
  *ret = j;
  return json_want_object(j, field, e);
}

/* One section into the draft and, in normal form, into `out` below its name. */
static int read_part(enum task_section section, const json_t *doc, struct task_draft *d, json_t *out,
                     struct err *e) {
  static const char *const prefixes[] = {
      [SECTION_SCHEDULE] = "/schedule", [SECTION_DEPENDS] = "/depends_on", [SECTION_RETRY] = "/retry"};
  const char *prefix = prefixes[section], *key = prefix + 1;
  const json_t *j;
  int r = part(doc, key, section == SECTION_SCHEDULE, &j, e);
  if (r < 0 || !j)
    return r;
  if ((r = task_doc_known(section, j, e)) < 0)
    return below(e, prefix, r);
  if (section == SECTION_SCHEDULE) { /* all other fields depend on the kind */
    int kind = SCHEDULE_KIND_MAX_;
    r = json_get_enum(j, "kind", schedule_kind_names, &kind, e);
    if (r == 0)
      r = err_field(e, ERR_MISSING, "/kind", "this field is required");
    if (r < 0)
      return below(e, prefix, r);
    d->s.kind = (enum schedule_kind)kind;
  }
  json_t *normal = json_object();
  r = task_section_read(section, j, d, normal, e);
  if (r == 0 && json_object_size(normal))
    (void)json_object_set(out, key, normal); /* fails only without memory */
  json_decref(normal);
  return below(e, prefix, r);
}

/* The routing decides which of its fields have a meaning. Where it is left to the group, a routing_key may wait for its day. */
static int check_routing(const struct task_draft *d, struct err *e) {
  enum routing routing = d->s.routing;
  if (d->executor.n && routing != ROUTING_PINNED && routing != ROUTING_MAX_)
    return err_field(e, ERR_INVALID, "/executor", "belongs to the routing PINNED, it is %s",
                     routing_names[routing]);
  if (!d->executor.n && routing == ROUTING_PINNED)
    return err_field(e, ERR_MISSING, "/executor", "the routing PINNED needs this field");
  bool pinned = d->executor.n || routing == ROUTING_PINNED;
  if (d->routing_key.n && (pinned || (routing != ROUTING_CONSISTENT_HASH && routing != ROUTING_MAX_)))
    return err_field(e, ERR_INVALID, "/routing_key", "belongs to the routing CONSISTENT_HASH, it is %s",
                     routing_names[pinned ? ROUTING_PINNED : routing]);
  return 0;
}

/* The checks that need more than one field. */
static int check_together(const struct task_draft *d, struct err *e) {
  const struct retry_policy *p = &d->s.retry;
  char buf[TIME_TEXT_MAX];
  if (p->max_interval < p->initial_interval)
    return err_field(e, ERR_INVALID, "/retry/max_interval", "expected at least the initial_interval, %s",
                     duration_format(p->initial_interval, buf));
  if (d->s.max_concurrent > 1 && overlap_max(d->s.overlap_policy, d->s.max_concurrent) == 1)
    return err_field(e, ERR_INVALID, "/max_concurrent",
                     "more than 1 needs the overlap_policy ALLOW or QUEUE_ALL, it is %s",
                     overlap_policy_names[d->s.overlap_policy]);
  if (d->s.end_at < d->s.start_at)
    return err_field(e, ERR_INVALID, "/schedule/end_at", "expected an instant after start_at");
  return check_routing(d, e);
}

static int read_all(const json_t *doc, struct task_draft *d, json_t *out, struct err *e) {
  task_draft_defaults(d);
  int r = json_want_object(doc, "", e);
  if (r < 0 || (r = task_doc_known(SECTION_TASK, doc, e)) < 0)
    return r;
  if ((r = read_part(SECTION_SCHEDULE, doc, d, out, e)) < 0 ||
      (r = read_part(SECTION_DEPENDS, doc, d, out, e)) < 0 ||
      (r = read_part(SECTION_RETRY, doc, d, out, e)) < 0 ||
      (r = task_section_read(SECTION_TASK, doc, d, out, e)) < 0)
    return r;
  return check_together(d, e);
}

/* ------------------------------------------------------------------ building */

static bool has_offset(struct slice t) {
  for (size_t i = 10; i < t.n; i++)
    if (t.p[i] == 'Z' || t.p[i] == 'z' || t.p[i] == '+' || t.p[i] == '-')
      return true;
  return t.n < 11; /* no time of day: RFC 3339's parser says what is missing */
}

static int read_run_at(struct task_draft *d, const struct zone *z, struct err *e) {
  usec_t t = 0;
  enum dst_note note = DST_NONE;
  int r = has_offset(d->run_at) ? time_parse_rfc3339(d->run_at, &t, e)
                                : schedule_local_instant(z, d->run_at, &t, &note, e);
  if (r < 0)
    return below(e, "/schedule/run_at", r);
  if (t <= 0)
    return err_field(e, ERR_INVALID, "/schedule/run_at", "expected an instant after 1970-01-01T00:00:00Z");
  d->anchor = t;
  d->run_at_note = note;
  return 0;
}

static int build_schedule(struct task_draft *d, struct zone_set *zones, struct schedule **ret,
                          struct err *e) {
  const struct zone *zone;
  int r = zone_set_get(zones, d->timezone, &zone, e);
  if (r < 0) {
    if (e)
      e->field[0] = 0;
    return below(e, "/schedule/timezone", r);
  }
  if (d->s.kind == SCHEDULE_ONE_TIME && d->run_at.n && (r = read_run_at(d, zone, e)) < 0)
    return r;
  struct schedule_input in = {.kind = d->s.kind,
                              .expr = d->expression,
                              .dialect = d->dialect,
                              .zone = zone,
                              .dst = d->dst,
                              .every = d->s.every,
                              .start_at = d->s.start_at,
                              .end_at = d->s.end_at,
                              .jitter = d->jitter};
  return below(e, "/schedule", schedule_new(&in, ret, e));
}

static char *text_or_null(struct slice s) { return s.n ? mem_slicedup(s) : NULL; }

static void copy_parents(const json_t *list, struct depend_def *ret) {
  size_t n = json_array_size(list);
  struct slice *tasks = n ? mem_array(n, sizeof *tasks) : NULL;
  for (size_t i = 0; i < n; i++) {
    const json_t *name = json_array_get(list, i);
    struct slice text = slice_n(json_string_value(name), json_string_length(name));
    tasks[i] = slice_n(mem_slicedup(text), text.n);
  }
  ret->tasks = tasks;
  ret->count = n;
}

static void free_parents(struct depend_def *d) {
  for (size_t i = 0; i < d->count; i++)
    mem_free((void *)(uintptr_t)d->tasks[i].p);
  mem_free((void *)(uintptr_t)d->tasks);
}

static int build_spec(struct task_draft *d, struct zone_set *zones, struct task_spec **ret, struct err *e) {
  struct schedule *schedule;
  int r = build_schedule(d, zones, &schedule, e);
  if (r < 0)
    return r;
  struct task_spec *s = mem_alloc(sizeof *s);
  *s = d->s;
  s->schedule = schedule;
  s->ns = mem_slicedup(d->ns);
  s->group = mem_slicedup(d->group);
  s->handler = mem_slicedup(d->handler);
  s->calendar = text_or_null(d->calendar);
  s->executor = text_or_null(d->executor);
  s->routing_key = text_or_null(d->routing_key);
  s->executor_labels = d->executor_labels ? json_canonical(d->executor_labels) : NULL;
  copy_parents(d->parents, &s->depends);
  *ret = s;
  return 0;
}

void task_spec_free(struct task_spec **s) {
  if (!*s)
    return;
  schedule_free(&(*s)->schedule);
  mem_free((*s)->ns);
  mem_free((*s)->group);
  mem_free((*s)->handler);
  mem_free((*s)->calendar);
  mem_free((*s)->executor);
  mem_free((*s)->routing_key);
  mem_free((*s)->executor_labels);
  free_parents(&(*s)->depends);
  mem_freep(s);
}

void task_input_done(struct task_input *in) {
  mem_freep(&in->name);
  mem_freep(&in->description);
  mem_freep(&in->definition);
  mem_freep(&in->payload);
  task_spec_unref(&in->spec);
}

/* ------------------------------------------------------------------ from outside */

/* Has it still an instant to come? `misfire_named`: the caller has said what shall become of one that has passed. */
static int check_future(const struct task_draft *d, const struct task_spec *s, usec_t now, bool misfire_named,
                        struct err *e) {
  switch (d->s.kind) {
  case SCHEDULE_ONE_TIME:
    if (d->anchor > now || misfire_named)
      return 0;
    return err_field(e, ERR_IN_THE_PAST, "/schedule/run_at",
                     "this instant has passed; name a misfire_policy to have it treated as missed");
  case SCHEDULE_CRON:
    if (schedule_next(s->schedule, 0, now) == USEC_NEVER)
      return err_field(e, ERR_NEVER_FIRES, d->s.end_at <= now ? "/schedule/end_at" : "/schedule/expression",
                       "no instant is left: all have passed");
    return 0;
  case SCHEDULE_FIXED_RATE:
    if (schedule_next(s->schedule, d->anchor ? d->anchor : now, now) == USEC_NEVER)
      return err_field(e, ERR_NEVER_FIRES, "/schedule/end_at", "no instant is left before it");
    return 0;
  case SCHEDULE_FIXED_DELAY:
    return d->s.end_at > now
               ? 0
               : err_field(e, ERR_NEVER_FIRES, "/schedule/end_at", "expected an instant to come");
  case SCHEDULE_MANUAL:
  case SCHEDULE_KIND_MAX_: break;
  }
  return 0;
}

/* The runs of a task that depends on others get their results into the payload. */
static int check_room(const json_t *payload, struct err *e) {
  if (!json_is_object(payload))
    return err_field(e, ERR_INVALID, "/payload",
                     "with depends_on expected an object: `parents` is added to it");
  if (json_object_get(payload, "parents"))
    return err_field(e, ERR_INVALID, "/payload/parents",
                     "with depends_on this is where the parents' results go");
  return 0;
}

static int read_payload(const json_t *doc, bool depends, char **ret, struct err *e) {
  const json_t *j = json_object_get(doc, "payload");
  size_t max = depends ? DEPEND_PAYLOAD_MAX : TASK_PAYLOAD_MAX;
  if (!j || json_is_null(j))
    return 0;
  int r = depends ? check_room(j, e) : 0;
  if (r < 0)
    return r;
  char *text = json_text(j);
  if (strlen(text) > max) {
    mem_free(text);
    return err_field(e, ERR_TOO_LARGE, "/payload", "expected at most %zu bytes of compact JSON", max);
  }
  *ret = text;
  return 0;
}

int task_input_parse(const json_t *doc, struct zone_set *zones, usec_t now, struct task_input *ret,
                     struct err *e) {
  struct task_draft d;
  auto_json *normal = json_object();
  struct task_input in = {0};
  int r = read_all(doc, &d, normal, e);
  if (r < 0 || (r = read_payload(doc, d.parents != NULL, &in.payload, e)) < 0)
    return r;
  r = build_spec(&d, zones, &in.spec, e);
  const json_t *misfire = json_object_get(doc, "misfire_policy");
  if (r == 0 && now)
    r = check_future(&d, in.spec, now, misfire && !json_is_null(misfire), e);
  if (r < 0) {
    task_input_done(&in);
    return r;
  }
  (void)json_object_set_new(normal, "namespace",
                            json_stringn(d.ns.p, d.ns.n)); /* the default may change, the tenant not */
  in.definition = json_canonical(normal);
  in.name = mem_slicedup(d.name);
  in.description = d.description.n ? mem_slicedup(d.description) : NULL;
  in.anchor = d.anchor;
  *ret = in;
  return 0;
}

/* ------------------------------------------------------------------ the calendar in a definition: {"version", and its two lists} */

int task_definition_bind(struct slice definition, int32_t version, const struct calendar *c, char **ret,
                         struct err *e) {
  auto_json *j = NULL;
  int r = json_read(definition, TASK_DEFINITION_MAX, &j, e);
  if (r < 0 || (r = json_want_object(j, "", e)) < 0)
    return r;
  json_t *calendar = calendar_json(c);
  (void)json_object_set_new(calendar, "version", json_integer(version)); /* fail only without memory */
  (void)json_object_set_new(j, "calendar", calendar);
  auto_free char *text = json_canonical(j);
  if (strlen(text) > TASK_DEFINITION_MAX)
    return err_field(e, ERR_TOO_LARGE, "/schedule/calendar",
                     "with this calendar the definition has more than %zu bytes", TASK_DEFINITION_MAX);
  *ret = text;
  text = NULL;
  return 0;
}

int task_input_bind(struct task_input *in, int32_t version, const struct calendar *c, struct err *e) {
  char *text;
  int r = task_definition_bind(slice_of(in->definition), version, c, &text, e);
  if (r < 0)
    return r;
  mem_free(in->definition);
  in->definition = text;
  in->spec->calendar_version = version;
  schedule_set_calendar(in->spec->schedule, c);
  return 0;
}

static int read_calendar(const json_t *j, struct calendar **ret, int32_t *ret_version, struct err *e) {
  int64_t version = 0;
  int r = json_want_object(j, "/calendar", e);
  if (r < 0)
    return r;
  if ((r = json_get_i64(j, "version", 1, INT32_MAX, &version, e)) < 0 || (r = calendar_read(j, ret, e)) < 0)
    return below(e, "/calendar", r);
  *ret_version = (int32_t)version;
  return 0;
}

int task_spec_parse(struct slice definition, struct zone_set *zones, struct task_spec **ret, struct err *e) {
  auto_json *j = NULL;
  int r = json_read(definition, TASK_DEFINITION_MAX, &j, e);
  if (r < 0 || (r = json_want_object(j, "", e)) < 0)
    return r;
  /* the two fields that must stand in a document and are not part of a definition */
  json_t *schedule = json_object_get(j, "schedule");
  (void)json_object_set_new(j, "name", json_string("-"));
  if (json_is_object(schedule) &&
      strcmp(json_string_value(json_object_get(schedule, "kind")) ?: "", "ONE_TIME") == 0)
    (void)json_object_set_new(schedule, "run_at",
                              json_string("1970-01-02T00:00:00Z")); /* the task's anchor has it */
  auto_json *bound = json_incref(json_object_get(j, "calendar"));
  (void)json_object_del(j, "calendar"); /* absent is fine */
  auto_calendar *calendar = NULL;
  int32_t version = 0;
  struct task_draft d;
  struct task_spec *spec;
  if ((bound && (r = read_calendar(bound, &calendar, &version, e)) < 0) ||
      (r = read_all(j, &d, NULL, e)) < 0 || (r = build_spec(&d, zones, &spec, e)) < 0)
    return r;
  if (calendar)
    schedule_set_calendar(spec->schedule, calendar);
  spec->calendar_version = version;
  *ret = spec;
  return 0;
}

int task_schedule_parse(const json_t *schedule, struct zone_set *zones, struct task_schedule *ret,
                        struct err *e) {
  struct task_draft d;
  auto_json *doc = json_object(), *normal = json_object();
  task_draft_defaults(&d);
  if (schedule)
    (void)json_object_set(doc, "schedule", (json_t *)(uintptr_t)schedule); /* fails only without memory */
  int r = read_part(SECTION_SCHEDULE, doc, &d, normal, e);
  if (r == 0)
    r = check_together(&d, e);
  struct schedule *built;
  if (r == 0)
    r = build_schedule(&d, zones, &built, e);
  if (r == 0)
    *ret = (struct task_schedule){built, d.anchor, d.run_at_note, d.calendar};
  return r;
}
