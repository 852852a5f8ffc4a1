/* Calendars: what people do with them, and how tasks follow them. A task's definition has its calendar in it (core/task_spec.h), so
 * that a change of a calendar is a new version of each task that uses it. */
#include "base/log.h"
#include "base/parse.h"
#include "core/calendar.h"
#include "task/internal.h"
#include <stdio.h>

enum { PUT_TRIES = 5 };

/* ------------------------------------------------------------------ reading */

static int unpack(const struct calendar_row *row, struct calendar **ret, struct err *e) {
  auto_json *doc = NULL;
  int r = json_read(row->definition, CALENDAR_DOCUMENT_MAX, &doc, e);
  return r < 0 ? r : calendar_read(doc, ret, e);
}

int task_calendar_find(struct task_service *s, struct slice ns, struct slice name, struct calendar **ret,
                       int32_t *ret_version, struct err *e) {
  auto_arena mem = {0};
  struct st_calendar_get in = {.ns = ns, .name = name};
  struct st_calendar_get_ret out;
  int r = store_calendar_get(s->o.store, &in, &out, &mem, e);
  if (r == ERR_NOT_FOUND)
    return err_field(e, ERR_INVALID, "/schedule/calendar",
                     "there is no calendar \"%.*s\" in the namespace %.*s", SLICE_FMT(name), SLICE_FMT(ns));
  if (r < 0 || (r = unpack(&out.calendar, ret, e)) < 0)
    return r;
  *ret_version = out.calendar.version;
  return 0;
}

int task_calendar_bind(struct task_service *s, struct task_input *in, struct err *e) {
  auto_calendar *c = NULL;
  int32_t version;
  if (!in->spec->calendar)
    return 0;
  int r = task_calendar_find(s, slice_of(in->spec->ns), slice_of(in->spec->calendar), &c, &version, e);
  return r < 0 ? r : task_input_bind(in, version, c, e);
}

/* The stored text of a document: its lists in their normal form, and what is said of it. */
static int pack(const json_t *doc, char **ret, struct err *e) {
  auto_calendar *c = NULL;
  struct slice description = {0};
  int r = calendar_read(doc, &c, e);
  if (r < 0 || (r = json_get_slice(doc, "description", TASK_DESCRIPTION_MAX, &description, e)) < 0)
    return r;
  auto_json *packed = calendar_json(c);
  if (description.n)
    (void)json_object_set_new(packed, "description",
                              json_stringn(description.p, description.n)); /* fails only without memory */
  *ret = json_canonical(packed);
  return 0;
}

int task_calendar_json(const struct calendar_row *row, json_t **ret, struct err *e) {
  return json_read(row->definition, CALENDAR_DOCUMENT_MAX, ret, e);
}

int task_calendar_get(struct task_service *s, const struct task_call *c, const struct calendar_ref *ref,
                      struct calendar_row *ret) {
  struct st_calendar_get in = {.ns = ref->ns, .name = ref->name};
  struct st_calendar_get_ret out;
  int r = store_calendar_get(s->o.store, &in, &out, c->mem, c->e);
  if (r >= 0)
    *ret = out.calendar;
  return r;
}

int task_calendar_list(struct task_service *s, const struct task_call *c, struct slice ns,
                       struct st_calendar_list_ret *ret) {
  struct st_calendar_list in = {.ns = c->only_ns.n ? c->only_ns : ns};
  return store_calendar_list(s->o.store, &in, ret, c->mem, c->e);
}

/* ------------------------------------------------------------------ changing */

/* One try. 0: written; 1: it is so already. */
static int put_once(struct task_service *s, const struct task_call *c, const struct calendar_put *p,
                    struct slice text, struct calendar_row *ret) {
  struct calendar_row was = {0};
  struct st_calendar_get get = {.ns = p->ref.ns, .name = p->ref.name};
  struct st_calendar_get_ret got;
  int r = store_calendar_get(s->o.store, &get, &got, c->mem, c->e);
  if (r < 0 && r != ERR_NOT_FOUND)
    return r;
  if (r >= 0)
    was = got.calendar;
  if (was.version && p->create)
    return err_field(c->e, ERR_CONFLICT, "/name", "the calendar %.*s exists", SLICE_FMT(p->ref.name));
  if (c->if_version && c->if_version != was.version)
    return err_set(c->e, ERR_STALE,
                   was.version ? "the calendar has version %d, not %d" : "there is no such calendar",
                   was.version, c->if_version);
  if (was.version && slice_eq(was.definition, text)) {
    *ret = was;
    return 1;
  }
  struct st_calendar_put in = {
      .calendar = {.ns = p->ref.ns, .name = p->ref.name, .definition = text, .updated_by = c->by},
      .expected_version = was.version};
  struct st_calendar_put_ret out;
  r = store_calendar_put(s->o.store, &in, &out, c->mem, c->e);
  if (r >= 0)
    *ret = out.calendar;
  return r;
}

int task_calendar_put(struct task_service *s, const struct task_call *c, const struct calendar_put *p,
                      struct calendar_row *ret) {
  auto_free char *text = NULL;
  int r = parse_name(p->ref.name, TASK_NAME_MAX, c->e);
  if (r < 0) {
    (void)err_at(c->e, "/name");
    return r;
  }
  if ((r = pack(p->doc, &text, c->e)) < 0)
    return r;
  r = ERR_STALE;
  for (int n = 0; (r == ERR_STALE || r == ERR_CONFLICT) && n < PUT_TRIES; n++) {
    r = put_once(s, c, p, slice_of(text), ret);
    if (c->if_version || p->create)
      break; /* asked for just that */
  }
  if (r < 0 || r == 1)
    return r;
  log_info(ret->version == 1 ? "calendar created" : "calendar changed", LF_L("namespace", ret->ns),
           LF_L("calendar", ret->name), LF_I("version", ret->version), LF_I("tasks", ret->tasks),
           LF_L("by", c->by));
  if (ret->tasks && task_calendar_follow(s, CALENDAR_FOLLOW_MAX, NULL) < 0)
    log_warn("tasks do not follow their calendar yet, trying again", LF_L("calendar", ret->name));
  return 0;
}

int task_calendar_delete(struct task_service *s, const struct task_call *c, const struct calendar_ref *ref) {
  struct st_calendar_delete in = {.ns = ref->ns, .name = ref->name};
  struct st_calendar_delete_ret none;
  struct calendar_row now;
  int r = c->if_version ? task_calendar_get(s, c, ref, &now) : 0;
  if (r < 0)
    return r;
  if (c->if_version && now.version != c->if_version)
    return err_set(c->e, ERR_STALE, "the calendar has version %d, not %d", now.version, c->if_version);
  r = store_calendar_delete(s->o.store, &in, &none, c->mem, c->e);
  if (r == 0)
    log_info("calendar deleted", LF_L("namespace", ref->ns), LF_L("calendar", ref->name), LF_L("by", c->by));
  return r;
}

/* ------------------------------------------------------------------ following */

int task_calendar_definition(struct task_service *s, const struct task_row *t, struct arena *mem,
                             struct slice *ret, struct err *e) {
  struct task_spec *spec = NULL;
  auto_calendar *c = NULL;
  auto_free char *text = NULL;
  int32_t version = 0;
  int r = task_spec_of(s, t->v.definition, &spec, e);
  if (r < 0)
    return r;
  if (!spec->calendar) {
    r = 1; /* it was changed meanwhile */
  } else if ((r = task_calendar_find(s, t->ns, slice_of(spec->calendar), &c, &version, e)) == 0) {
    r = spec->calendar_version == version ? 1 : task_definition_bind(t->v.definition, version, c, &text, e);
    if (r == 0)
      *ret = arena_slice(mem, slice_of(text));
  }
  task_spec_unref(&spec);
  return r;
}

int task_calendar_follow(struct task_service *s, int32_t limit, struct err *e) {
  auto_arena mem = {0};
  struct st_calendar_behind in = {.limit = limit};
  struct st_calendar_behind_ret found;
  int followed = 0;
  int r = store_calendar_behind(s->o.store, &in, &found, &mem, e);
  if (r < 0)
    return r;
  for (size_t i = 0; i < found.count; i++) {
    auto_arena one = {0};
    char id[24];
    struct err why = {0};
    (void)snprintf(id, sizeof id, "%lld", (long long)found.task_ids[i]);
    const struct task_call c = {
        .by = SLICE("kelou"), .note = SLICE("its calendar has changed"), .mem = &one, .e = &why};
    r = task_follow(s, &c, slice_of(id));
    followed += r == 0;
    if (r < 0 && r != ERR_NOT_FOUND)
      log_warn("a task does not follow its calendar, trying again", LF_S("task_id", id), LF_E(&why));
  }
  return followed;
}
