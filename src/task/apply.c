/* Documents that say what shall be: compared with what is, and written in one transaction. */
#include "base/log.h"
#include "base/parse.h"
#include "task/internal.h"
#include <stdio.h>

/* What became of one document. */
enum action { CREATED, CHANGED, UNCHANGED, DELETED, ACTION_MAX_ };
static const char *const action_names[] = {"created", "changed", "unchanged", "deleted"};

struct entry {
  struct slice ns, name;
  json_t *doc;      /* owned; without what the server made, version and state; NULL: a deletion */
  int32_t expected; /* -1: any */
  int state;        /* wished for; -1: none is */
  bool there;
  struct task_row was; /* when `there` */
  struct task_def def; /* CREATED; CHANGED with a new definition */
  enum action action;
  bool writes, adopts; /* a new version; another owner */
  size_t at;           /* index in the puts or changes of the store call */
  json_t *differences; /* owned */
};

struct plan {
  struct task_service *s;
  const struct task_call *c;
  const struct task_apply *a;
  struct entry *entries; /* documents, then deletions */
  size_t documents, count;
  struct st_task_apply in; /* what to write: arrays of at most `count` */
  struct task_def *puts;
  struct st_task_change *changes;
  int64_t *own;
  size_t *put_of, *change_of; /* indices of the entries */
};

static int place_set(struct err *e, const struct plan *p, size_t i) {
  char place[ERR_FIELD_MAX];
  bool removal = i >= p->documents;
  (void)snprintf(place, sizeof place, "/%s/%zu", removal ? "remove" : "tasks",
                 removal ? i - p->documents : i);
  return err_at(e, place);
}

/* ------------------------------------------------------------------ reading */

static struct slice text_of(const json_t *doc, const char *key) {
  const json_t *j = json_object_get(doc, key);
  return slice_n(json_string_value(j), json_string_length(j));
}

static struct slice home(const struct task_call *c) { return c->only_ns.n ? c->only_ns : SLICE("default"); }

/* "version" and "state" of a document are wishes; as the server prints it they may stay, too. */
static int read_wishes(const struct plan *p, const json_t *doc, struct entry *x) {
  struct err *e = p->c->e;
  bool printed =
      json_object_get(doc, "id") && json_object_get(doc, "version") && json_object_get(doc, "state");
  int64_t version = -1;
  int state = -1;
  int r = json_get_i64(doc, "version", 0, INT32_MAX, &version, e);
  if (r < 0 || (r = json_get_enum(doc, "state", task_state_names, &state, e)) < 0)
    return r;
  if (state == TASK_DELETED || (state == TASK_COMPLETED && !printed))
    return err_field(e, ERR_INVALID, "/state", "expected ENABLED or PAUSED");
  x->expected = (int32_t)version;
  x->state = state == TASK_COMPLETED ? -1 : state;
  x->doc = json_copy((json_t *)(uintptr_t)doc);
  (void)json_object_del(x->doc, "version"); /* absent is fine */
  (void)json_object_del(x->doc, "state");
  for (size_t i = 0; printed && i < task_server_field_count; i++)
    (void)json_object_del(x->doc, task_server_fields[i].name);
  if (p->c->only_ns.n && !json_object_get(doc, "namespace"))
    (void)json_object_set_new(x->doc, "namespace",
                              json_stringn(p->c->only_ns.p, p->c->only_ns.n)); /* fails only without memory */
  return 0;
}

/* A name with spaces or in no text at all is found nowhere, and refused when the document is parsed. */
static int read_document(const struct plan *p, const json_t *doc, struct entry *x) {
  int r = json_want_object(doc, "", p->c->e);
  if (r < 0 || (r = read_wishes(p, doc, x)) < 0)
    return r;
  x->name = text_of(doc, "name");
  x->ns = text_of(doc, "namespace");
  x->ns = x->ns.n ? x->ns : home(p->c);
  return 0;
}

static int read_removal(const struct plan *p, const json_t *doc, struct entry *x) {
  static const char *const known[] = {"namespace", "name", "version", NULL};
  struct err *e = p->c->e;
  int64_t version = -1;
  int r = json_want_object(doc, "", e);
  if (r < 0 || (r = json_check_keys(doc, known, e)) < 0 ||
      (r = json_get_slice(doc, "name", TASK_NAME_MAX, &x->name, e)) < 0 ||
      (r = json_get_slice(doc, "namespace", TASK_NAME_MAX, &x->ns, e)) < 0 ||
      (r = json_get_i64(doc, "version", 1, INT32_MAX, &version, e)) < 0)
    return r;
  if (!x->name.n)
    return err_field(e, ERR_MISSING, "/name", "this field is required");
  x->ns = x->ns.n ? x->ns : home(p->c);
  x->expected = (int32_t)version;
  return 0;
}

static int find(const struct plan *p, struct entry *x) {
  struct st_task_get in = {.ns = x->ns, .name = x->name};
  struct st_task_get_ret out;
  if (p->c->only_ns.n && !slice_eq(x->ns, p->c->only_ns))
    return err_field(p->c->e, ERR_FORBIDDEN, "/namespace", "this token is bound to the namespace \"%.*s\"",
                     SLICE_FMT(p->c->only_ns));
  int r = store_task_get(p->s->o.store, &in, &out, p->c->mem, NULL);
  x->there = r >= 0;
  if (x->there)
    x->was = out.task;
  return r >= 0 || r == ERR_NOT_FOUND ? 0 : err_set(p->c->e, r, "the task could not be read");
}

static int check_twice(const struct plan *p, size_t i) {
  const struct entry *x = &p->entries[i];
  for (size_t k = 0; k < i; k++)
    if (slice_eq(p->entries[k].name, x->name) && slice_eq(p->entries[k].ns, x->ns))
      return err_field(p->c->e, ERR_CONFLICT, "/name", "%.*s/%.*s stands here twice: also at number %zu",
                       SLICE_FMT(x->ns), SLICE_FMT(x->name), k + 1);
  return 0;
}

static int check_version(const struct plan *p, const struct entry *x) {
  if (x->expected < 0 || x->expected == (x->there ? x->was.v.version : 0))
    return 0;
  if (!x->there)
    return err_field(p->c->e, ERR_STALE, "/version",
                     "expected version %d of %.*s/%.*s, there is no such task", x->expected, SLICE_FMT(x->ns),
                     SLICE_FMT(x->name));
  return err_field(p->c->e, ERR_STALE, "/version", "%.*s/%.*s has version %d, not %d", SLICE_FMT(x->ns),
                   SLICE_FMT(x->name), x->was.v.version, x->expected);
}

/* ------------------------------------------------------------------ what is to be done */

static int plan_new(const struct plan *p, struct entry *x) {
  int r = task_read_new(p->s, p->c, x->doc, &x->def);
  if (r < 0)
    return r;
  if (x->state >= 0)
    x->def.state = (enum task_state)x->state;
  x->action = CREATED;
  x->writes = true;
  task_differences(x->differences, NULL, x->doc);
  if (x->def.state != TASK_ENABLED) {
    auto_json *state = json_pack("{ss}", "state", task_state_names[x->def.state]);
    task_differences(x->differences, NULL, state);
  }
  return 0;
}

static enum task_state next_state(const struct entry *x, bool same_schedule) {
  enum task_state now = x->was.v.state;
  if (now == TASK_COMPLETED && same_schedule)
    return now; /* no instant is left to be held or let go */
  if (x->state >= 0)
    return (enum task_state)x->state;
  return now == TASK_COMPLETED ? TASK_ENABLED : now;
}

/* The documents with all defaults, so that one which says what is the default anyway is no change. */
static int compare(const struct plan *p, struct entry *x, const struct task_input *in) {
  auto_free char *name = mem_slicedup(x->was.v.name), *description = mem_slicedup(x->was.description);
  const struct task_source was = {.definition = x->was.v.definition,
                                  .name = name,
                                  .description = description,
                                  .payload = x->was.v.has_payload ? x->was.payload : (struct slice){0},
                                  .anchor = x->was.v.anchor};
  const struct task_source is = {.definition = slice_of(in->definition),
                                 .name = in->name,
                                 .description = in->description,
                                 .payload = slice_of(in->payload),
                                 .anchor = in->anchor ? in->anchor : x->was.v.anchor};
  auto_json *old = NULL, *new = NULL;
  int r = task_document(&was, &old, p->c->e);
  if (r == 0 && (r = task_document(&is, &new, p->c->e)) == 0)
    task_differences(x->differences, old, new);
  return r;
}

static void add_difference(struct entry *x, const char *field, const char *from, const char *to) {
  (void)json_array_append_new(x->differences, json_pack("{ss ss* ss}", "field", field, "from", from, "to",
                                                        to)); /* fails only without memory */
}

static int plan_change(const struct plan *p, struct entry *x) {
  struct task_input in;
  bool same;
  int r = task_parse_replacement(p->s, x->doc, &x->was, &in, &same, p->c->e);
  if (r < 0)
    return r;
  r = compare(p, x, &in);
  enum task_state state = next_state(x, same);
  if (r == 0 && json_array_size(x->differences))
    task_def_of(&in, p->c->mem, &x->def);
  task_input_done(&in);
  if (state != x->was.v.state)
    add_difference(x, "/state", task_state_names[x->was.v.state], task_state_names[state]);
  x->state = (int)state;
  x->writes = json_array_size(x->differences) > 0;
  x->action = x->writes ? CHANGED : UNCHANGED;
  return r;
}

static int check_owner(const struct plan *p, struct entry *x) {
  struct slice source = p->a->source;
  if (!source.n || slice_eq(x->was.managed_by, source))
    return 0;
  x->adopts = p->a->adopt;
  if (x->was.managed_by.n && !x->adopts)
    return err_set(p->c->e, ERR_CONFLICT, "the task belongs to the source \"%.*s\"; adopt it to take it over",
                   SLICE_FMT(x->was.managed_by));
  return 0;
}

static int plan_document(const struct plan *p, size_t i, const json_t *doc) {
  struct entry *x = &p->entries[i];
  x->differences = json_array();
  int r = read_document(p, doc, x);
  if (r < 0 || (r = check_twice(p, i)) < 0 || (r = find(p, x)) < 0 || (r = check_version(p, x)) < 0)
    return r;
  if (!x->there)
    return plan_new(p, x);
  if ((r = check_owner(p, x)) < 0 || (r = plan_change(p, x)) < 0)
    return r;
  if (x->adopts) {
    auto_free char *from = x->was.managed_by.n ? mem_slicedup(x->was.managed_by) : NULL;
    auto_free char *to = mem_slicedup(p->a->source);
    add_difference(x, "/managed_by", from, to);
    x->action = CHANGED;
  }
  return 0;
}

/* What is gone already needs no deletion. */
static int plan_removal(const struct plan *p, size_t i, const json_t *doc) {
  struct entry *x = &p->entries[i];
  x->differences = json_array();
  int r = read_removal(p, doc, x);
  if (r < 0 || (r = check_twice(p, i)) < 0 || (r = find(p, x)) < 0)
    return r;
  x->action = x->there ? DELETED : UNCHANGED;
  x->writes = x->there;
  if (!x->there)
    return 0;
  if (!p->a->source.n || !slice_eq(x->was.managed_by, p->a->source))
    return err_set(p->c->e, ERR_CONFLICT, "%.*s/%.*s was not made by this source", SLICE_FMT(x->ns),
                   SLICE_FMT(x->name));
  return check_version(p, x);
}

static int plan_all(const struct plan *p) {
  for (size_t i = 0; i < p->count; i++) {
    const json_t *doc =
        i < p->documents ? json_array_get(p->a->tasks, i) : json_array_get(p->a->remove, i - p->documents);
    int r = i < p->documents ? plan_document(p, i, doc) : plan_removal(p, i, doc);
    if (r < 0) {
      (void)place_set(p->c->e, p, i);
      return r;
    }
  }
  return 0;
}

/* ------------------------------------------------------------------ writing */

static struct st_task_change change_of(const struct plan *p, const struct entry *x) {
  return (struct st_task_change){.task_id = x->was.v.task_id,
                                 .expected_version = x->was.v.version,
                                 .def = x->def.definition.p ? &x->def : NULL,
                                 .state = x->action == DELETED ? TASK_DELETED : (enum task_state)x->state,
                                 .by = p->c->by,
                                 .note = p->c->note,
                                 .even_with_open_runs = x->action == DELETED && p->a->cancel};
}

/* Its owner shall cancel what is open. */
static const struct inbox_row *cancel_row(const struct plan *p, const struct entry *x) {
  const struct inbox_item item = {
      .kind = INBOX_CANCEL, .by = p->c->by, .request = {.key = {.task_id = x->was.v.task_id}}};
  auto_free char *body = inbox_body(&item);
  struct inbox_row *row = arena_alloc(p->c->mem, sizeof *row);
  *row = (struct inbox_row){
      .shard = x->was.v.shard, .kind = INBOX_CANCEL, .body = arena_slice(p->c->mem, slice_of(body))};
  return row;
}

static void collect(struct plan *p) {
  struct st_task_apply *in = &p->in;
  for (size_t i = 0; i < p->count; i++) {
    struct entry *x = &p->entries[i];
    if (x->adopts)
      p->own[in->own_count++] = x->was.v.task_id;
    if (!x->writes)
      continue;
    if (!x->there) {
      x->at = in->put_count;
      p->put_of[in->put_count] = i;
      p->puts[in->put_count++] = x->def;
      continue;
    }
    x->at = in->change_count;
    p->change_of[in->change_count] = i;
    p->changes[in->change_count] = change_of(p, x);
    if (p->changes[in->change_count].even_with_open_runs)
      p->changes[in->change_count].inbox = cancel_row(p, x);
    in->change_count++;
  }
}

/* The store names its own lists: say which document it was. */
static void name_document(const struct plan *p) {
  struct err *e = p->c->e;
  struct slice rest = {0}, list, number;
  int64_t k;
  if (!e || e->field[0] != '/')
    return;
  auto_free char *field = mem_strdup(e->field);
  list = slice_cut(slice_of(field + 1), '/', &rest);
  number = slice_cut(rest, '/', &rest);
  bool put = slice_eqz(list, "puts"), change = slice_eqz(list, "changes");
  if (!put && !change)
    return;
  int64_t n = (int64_t)(put ? p->in.put_count : p->in.change_count);
  if (parse_i64(number, 0, n - 1, &k, NULL) < 0)
    return;
  (void)snprintf(e->field, sizeof e->field, "%s%s", rest.n ? "/" : "", rest.n ? rest.p : "");
  (void)place_set(e, p, put ? p->put_of[k] : p->change_of[k]);
}

static void tell_shards(const struct plan *p, const struct st_task_apply_ret *out) {
  for (int pass = 0; pass < 2; pass++) {
    const struct task_version_row *rows = pass ? out->changes : out->puts;
    size_t n = pass ? p->in.change_count : p->in.put_count;
    for (size_t i = 0; i < n; i++) { /* one hint a shard */
      size_t k = 0;
      while (rows[k].shard != rows[i].shard)
        k++;
      if (k == i)
        task_tell(p->s, rows[i].shard);
    }
  }
}

/* Who depends on whom only the database can tell, when it has all of it. */
static bool needs_check(const struct plan *p) {
  bool any = false;
  for (size_t i = 0; i < p->count; i++)
    any |= p->entries[i].def.depends != NULL;
  return any;
}

static int write_all(struct plan *p, struct st_task_apply_ret *out) {
  struct st_task_apply *in = &p->in;
  size_t nothing = in->put_count + in->change_count + in->own_count + in->group_count;
  if (!nothing)
    return 0;
  int r = store_task_apply(p->s->o.store, in, out, p->c->mem, p->c->e);
  if (r < 0) {
    name_document(p);
    return r;
  }
  if (in->check_only)
    return 0;
  tell_shards(p, out);
  size_t deleted = 0;
  for (size_t i = p->documents; i < p->count; i++)
    deleted += p->entries[i].writes;
  log_info("documents applied", LF_L("source", p->a->source), LF_I("created", in->put_count),
           LF_I("changed", in->change_count - deleted), LF_I("deleted", deleted),
           LF_I("groups", in->group_count), LF_L("by", p->c->by));
  return 0;
}

/* ------------------------------------------------------------------ the answer */

static void set_new(json_t *o, const char *key, json_t *v) {
  (void)json_object_set_new(o, key, v); /* fails only without memory */
}

static json_t *item(const struct plan *p, struct entry *x, const struct st_task_apply_ret *out) {
  const struct task_version_row *row = !x->writes || p->a->dry_run ? NULL
                                       : x->there                  ? &out->changes[x->at]
                                                                   : &out->puts[x->at];
  int64_t id = row ? row->task_id : x->there ? x->was.v.task_id : 0;
  char text[24];
  json_t *o = json_object();
  set_new(o, "kind", json_string("task"));
  set_new(o, "action", json_string(action_names[x->action]));
  set_new(o, "namespace", json_stringn(x->ns.p, x->ns.n));
  set_new(o, "name", json_stringn(x->name.p, x->name.n));
  (void)snprintf(text, sizeof text, "%lld", (long long)id);
  if (id)
    set_new(o, "id", json_string(text));
  set_new(o, "from_version", json_integer(x->there ? x->was.v.version : 0));
  if (!p->a->dry_run)
    set_new(o, "version", json_integer(row ? row->version : x->there ? x->was.v.version : 0));
  set_new(o, "differences", json_incref(x->differences));
  return o;
}

static void plan_init(struct plan *p) {
  struct arena *mem = p->c->mem;
  p->documents = json_array_size(p->a->tasks);
  p->count = p->documents + json_array_size(p->a->remove);
  p->entries = arena_array(mem, p->count + 1, sizeof *p->entries);
  p->puts = arena_array(mem, p->count + 1, sizeof *p->puts);
  p->changes = arena_array(mem, p->count + 1, sizeof *p->changes);
  p->own = arena_array(mem, p->count + 1, sizeof *p->own);
  p->put_of = arena_array(mem, p->count + 1, sizeof *p->put_of);
  p->change_of = arena_array(mem, p->count + 1, sizeof *p->change_of);
  p->in = (struct st_task_apply){.groups = p->a->groups,
                                 .group_count = p->a->group_count,
                                 .puts = p->puts,
                                 .changes = p->changes,
                                 .own = p->own,
                                 .by = p->c->by,
                                 .source = p->a->source,
                                 .check_only = p->a->dry_run};
}

static void plan_done(struct plan *p) {
  for (size_t i = 0; i < p->count; i++) {
    json_decref(p->entries[i].doc);
    json_decref(p->entries[i].differences);
  }
}

static int check_ask(const struct task_call *c, const struct task_apply *a) {
  const json_t *lists[2] = {a->tasks, a->remove};
  for (int i = 0; i < 2; i++)
    if (lists[i] && (!json_is_array(lists[i]) || json_array_size(lists[i]) > TASK_APPLY_MAX))
      return err_field(c->e, ERR_INVALID, i ? "/remove" : "/tasks", "expected a list of at most %d",
                       TASK_APPLY_MAX);
  if (c->note.n > TASK_DESCRIPTION_MAX || !slice_utf8_valid(c->note))
    return err_field(c->e, ERR_INVALID, "/note", "expected a text of at most %d bytes", TASK_DESCRIPTION_MAX);
  int r = a->source.n ? parse_name(a->source, TASK_SOURCE_MAX, c->e) : 0;
  if (r < 0)
    (void)err_at(c->e, "/source");
  return r;
}

int task_apply(struct task_service *s, const struct task_call *c, const struct task_apply *a,
               struct group_row **ret_groups, json_t **ret_items) {
  struct plan p = {.s = s, .c = c, .a = a};
  struct st_task_apply_ret out = {0};
  int r = check_ask(c, a);
  if (r < 0)
    return r;
  plan_init(&p);
  r = plan_all(&p);
  if (r == 0)
    collect(&p);
  if (r == 0 && (!a->dry_run || needs_check(&p)))
    r = write_all(&p, &out);
  if (r == 0) {
    *ret_items = json_array();
    for (size_t i = 0; i < p.count; i++)
      (void)json_array_append_new(*ret_items, item(&p, &p.entries[i], &out)); /* fails only without memory */
    *ret_groups = out.groups;
  }
  plan_done(&p);
  return r;
}

int task_export(const struct task_row *t, json_t **ret, struct err *e) {
  auto_arena mem = {0};
  int r = task_source_of(t, &mem, ret, e);
  if (r == 0 && t->v.state == TASK_PAUSED)
    set_new(*ret, "state", json_string(task_state_names[TASK_PAUSED]));
  return r;
}
