/* Finding, creating and triggering tasks. Changes: change.c; what people see: view.c. */
#include "base/log.h"
#include "base/parse.h"
#include "task/internal.h"
#include <stdio.h>

enum { SPEC_CACHE_MAX = 10000, SCHEDULE_TEXT_MAX = 512 };

struct task_service *task_service_new(const struct task_service_options *o) {
  struct task_service *s = mem_zalloc(sizeof *s);
  s->o = *o;
  mutex_init(&s->lock);
  s->zones = zones_open(o->zone_dir);
  s->specs = spec_cache_new(s->zones, SPEC_CACHE_MAX);
  rng_seed(&s->rng, o->seed);
  task_dead_letters_init();
  return s;
}

void task_service_free(struct task_service **s) {
  if (!*s)
    return;
  spec_cache_free(&(*s)->specs);
  zone_set_free(&(*s)->zones);
  mutex_done(&(*s)->lock);
  mem_freep(s);
}

void task_service_on_change(struct task_service *s, void (*changed)(void *arg, int32_t shard), void *arg) {
  s->changed = changed;
  s->changed_arg = arg;
}

void task_service_refresh_zones(struct task_service *s) {
  mutex_lock(&s->lock);
  if (zone_set_refresh(s->zones))
    spec_cache_clear(s->specs);
  mutex_unlock(&s->lock);
}

usec_t task_now(const struct task_service *s) { return s->o.now(s->o.now_arg); }

void task_tell(const struct task_service *s, int32_t shard) {
  if (s->changed)
    s->changed(s->changed_arg, shard);
}

int task_spec_of(struct task_service *s, struct slice definition, struct task_spec **ret, struct err *e) {
  mutex_lock(&s->lock);
  int r = spec_cache_get(s->specs, definition, ret, e);
  mutex_unlock(&s->lock);
  return r;
}

/* ------------------------------------------------------------------ finding */

/* "123", "namespace/name" or "name". */
static void read_ref(struct slice ref, struct st_task_get *in) {
  if (parse_i64(ref, 1, INT64_MAX, &in->task_id, NULL) == 0)
    return;
  struct slice rest, head = slice_cut(ref, '/', &rest);
  in->ns = rest.p ? head : SLICE("default");
  in->name = rest.p ? rest : head;
}

int task_get(struct task_service *s, const struct task_call *c, struct slice ref, int32_t version,
             struct task_row *ret) {
  struct st_task_get in = {.version = version};
  struct st_task_get_ret out;
  read_ref(ref, &in);
  int r = store_task_get(s->o.store, &in, &out, c->mem, c->e);
  if (r == ERR_NOT_FOUND || (r >= 0 && c->only_ns.n && !slice_eq(out.task.ns, c->only_ns)))
    return err_set(c->e, ERR_NOT_FOUND, "there is no task \"%.*s\"", SLICE_FMT(ref));
  if (r < 0)
    return r;
  *ret = out.task;
  return 0;
}

int task_list(struct task_service *s, const struct task_call *c, const struct st_task_list *filter,
              struct st_task_list_ret *ret) {
  struct st_task_list in = *filter;
  if (in.limit < 1 || in.limit > TASK_LIST_MAX)
    return err_field(c->e, ERR_INVALID, "/limit", "expected a whole number from 1 to %d", TASK_LIST_MAX);
  if (c->only_ns.n && in.ns.n && !slice_eq(in.ns, c->only_ns)) {
    *ret = (struct st_task_list_ret){0}; /* what is there does not exist for this caller */
    return 0;
  }
  if (c->only_ns.n)
    in.ns = c->only_ns;
  return store_task_list(s->o.store, &in, ret, c->mem, c->e);
}

int task_versions(struct task_service *s, const struct task_call *c, struct slice ref,
                  const struct st_task_versions *page, struct st_task_versions_ret *ret) {
  struct st_task_versions in = *page;
  struct task_row t;
  if (in.limit < 1 || in.limit > TASK_LIST_MAX)
    return err_field(c->e, ERR_INVALID, "/limit", "expected a whole number from 1 to %d", TASK_LIST_MAX);
  int r = task_get(s, c, ref, 0, &t);
  if (r < 0)
    return r;
  in.task_id = t.v.task_id;
  return store_task_versions(s->o.store, &in, ret, c->mem, c->e);
}

/* ------------------------------------------------------------------ creating */

static struct slice describe(const struct task_spec *spec, struct arena *mem) {
  auto_str text;
  str_init(&text, SCHEDULE_TEXT_MAX);
  if (spec->depends.count)
    depend_describe(&spec->depends, &text);
  else
    schedule_describe(spec->schedule, CRON_EN, &text);
  return str_failed(&text) ? SLICE("") : arena_slice(mem, str_slice(&text));
}

static const struct depend_def *depends_of(const struct depend_def *d, struct arena *mem) {
  if (!d->count)
    return NULL;
  struct depend_def *copy = arena_alloc(mem, sizeof *copy);
  struct slice *tasks = arena_array(mem, d->count, sizeof *tasks);
  for (size_t i = 0; i < d->count; i++)
    tasks[i] = arena_slice(mem, d->tasks[i]);
  *copy = *d;
  copy->tasks = tasks;
  return copy;
}

void task_def_of(const struct task_input *in, struct arena *mem, struct task_def *ret) {
  const struct task_spec *spec = in->spec;
  *ret = (struct task_def){.ns = arena_slice(mem, slice_of(spec->ns)),
                           .name = arena_slice(mem, slice_of(in->name)),
                           .definition = arena_slice(mem, slice_of(in->definition)),
                           .group = arena_slice(mem, slice_of(spec->group)),
                           .handler = arena_slice(mem, slice_of(spec->handler)),
                           .schedule_text = describe(spec, mem),
                           .kind = spec->kind,
                           .anchor = in->anchor,
                           .state = TASK_ENABLED,
                           .depends = depends_of(&spec->depends, mem)};
  if (in->description)
    ret->description = arena_slice(mem, slice_of(in->description));
  if (in->payload)
    ret->payload = arena_slice(mem, slice_of(in->payload));
}

int task_read_new(struct task_service *s, const struct task_call *c, const json_t *doc,
                  struct task_def *ret) {
  auto_json *copy = NULL;
  if (c->only_ns.n && json_is_object(doc) && !json_object_get(doc, "namespace")) {
    copy = json_copy((json_t *)(uintptr_t)doc);
    (void)json_object_set_new(copy, "namespace",
                              json_stringn(c->only_ns.p, c->only_ns.n)); /* fails only without memory */
  }
  struct task_input in;
  usec_t now = task_now(s);
  mutex_lock(&s->lock);
  int r = task_input_parse(copy ? copy : doc, s->zones, now, &in, c->e);
  mutex_unlock(&s->lock);
  if (r < 0)
    return r;
  if (c->only_ns.n && !slice_eqz(c->only_ns, in.spec->ns))
    r = err_field(c->e, ERR_FORBIDDEN, "/namespace", "this token is bound to the namespace \"%.*s\"",
                  SLICE_FMT(c->only_ns));
  else if ((r = task_calendar_bind(s, &in, c->e)) == 0)
    task_def_of(&in, c->mem, ret);
  task_input_done(&in);
  return r;
}

int task_create(struct task_service *s, const struct task_call *c, const json_t *doc, struct task_row *ret) {
  struct task_def def;
  int r = task_read_new(s, c, doc, &def);
  if (r < 0)
    return r;
  struct st_task_put in = {.defs = &def, .count = 1, .by = c->by, .idem = c->idem};
  struct st_task_put_ret out;
  int made = store_task_put(s->o.store, &in, &out, c->mem, c->e);
  if (made < 0)
    return made;
  const struct task_version_row *v = &out.rows[0];
  if (made == 0) {
    task_tell(s, v->shard);
    log_info("task created", LF_I("task_id", v->task_id), LF_L("namespace", def.ns), LF_L("task", def.name),
             LF_L("by", c->by));
  }
  struct st_task_get get = {.task_id = v->task_id};
  struct st_task_get_ret got;
  r = store_task_get(s->o.store, &get, &got, c->mem, c->e);
  if (r == ERR_NOT_FOUND) /* deleted in between: it was created all the same */
    return err_set(c->e, ERR_NOT_FOUND, "the task %lld was created and has been deleted since",
                   (long long)v->task_id);
  if (r < 0)
    return r;
  *ret = got.task;
  return made;
}

int task_create_many(struct task_service *s, const struct task_call *c, const json_t *docs,
                     struct task_version_row **ret_rows) {
  size_t n = json_array_size(docs);
  if (!json_is_array(docs) || n < 1 || n > TASK_CREATE_MAX)
    return err_set(c->e, ERR_INVALID, "expected an array of 1 to %d tasks", TASK_CREATE_MAX);
  struct task_def *defs = arena_array(c->mem, n, sizeof *defs);
  for (size_t i = 0; i < n; i++) {
    int r = task_read_new(s, c, json_array_get(docs, i), &defs[i]);
    if (r < 0) {
      char field[24];
      (void)snprintf(field, sizeof field, "/%zu", i);
      if (c->e)
        (void)err_at(c->e, field);
      return r;
    }
  }
  struct st_task_put in = {.defs = defs, .count = n, .by = c->by};
  struct st_task_put_ret out;
  int r = store_task_put(s->o.store, &in, &out, c->mem, c->e);
  if (r < 0)
    return r;
  for (size_t i = 0; i < out.count; i++) { /* one hint a shard */
    size_t k = 0;
    while (out.rows[k].shard != out.rows[i].shard)
      k++;
    if (k == i)
      task_tell(s, out.rows[i].shard);
  }
  log_info("tasks created", LF_I("count", out.count), LF_L("by", c->by));
  *ret_rows = out.rows;
  return 0;
}

/* ------------------------------------------------------------------ triggering */

/* The key of a run made by the API: now, and a random part that no schedule uses. */
static struct run_key new_key(struct task_service *s, const struct task_row *t) {
  mutex_lock(&s->lock);
  uint32_t bits = (uint32_t)rng_next(&s->rng) & 0x3fffffff;
  mutex_unlock(&s->lock);
  return (struct run_key){t->v.shard, task_now(s), t->v.task_id, (int32_t)(0x40000000 | bits)};
}

/* The inbox row, with a retry's dead letter in the same transaction. 1: a repeat; *ret_run: the run's id. */
static int ask(struct task_service *s, const struct task_call *c, const struct inbox_item *item,
               const struct task_trigger *t, struct slice run_id, struct slice *ret_run) {
  struct err ignored;
  auto_free char *body = inbox_body(item);
  struct inbox_row row = {.shard = item->request.key.shard, .kind = item->kind, .body = slice_of(body)};
  struct dead_letter_deed deed = {.inbox = row, .replay_run = run_id};
  if (t->retry_of.n && run_id_parse(t->retry_of, &deed.key, &ignored) >= 0)
    return task_dead_letter_retry(s, c, &deed, t->open_letter, ret_run);
  struct st_inbox_add in = {
      .shard = row.shard, .kind = row.kind, .body = row.body, .ref = run_id, .idem = c->idem};
  struct st_inbox_add_ret out;
  int r = store_inbox_add(s->o.store, &in, &out, c->mem, c->e);
  if (r >= 0)
    *ret_run = out.ref;
  return r;
}

int task_trigger(struct task_service *s, const struct task_call *c, struct slice ref,
                 const struct task_trigger *t, struct run_key *ret_key) {
  struct task_row task;
  if (t->payload.n > TASK_PAYLOAD_MAX)
    return err_field(c->e, ERR_TOO_LARGE, "/payload", "expected at most %d bytes of compact JSON",
                     TASK_PAYLOAD_MAX);
  int r = task_get(s, c, ref, 0, &task);
  if (r < 0)
    return r;
  struct inbox_item item = {.kind = INBOX_TRIGGER,
                            .by = c->by,
                            .request = {.key = new_key(s, &task),
                                        .ignore_overlap = t->ignore_overlap,
                                        .origin = t->origin,
                                        .payload = t->payload,
                                        .pin = t->pin,
                                        .origin_run = t->retry_of}};
  char run_id[RUN_ID_LEN + 1];
  struct slice made;
  run_id_format(&item.request.key, run_id);
  r = ask(s, c, &item, t, slice_of(run_id), &made);
  if (r < 0)
    return r;
  if (r == 1) { /* the first answer again */
    int bad = run_id_parse(made, ret_key, c->e);
    return bad < 0 ? bad : 1;
  }
  task_tell(s, task.v.shard);
  log_info("task triggered", LF_I("task_id", task.v.task_id), LF_S("run_id", run_id), LF_L("by", c->by));
  *ret_key = item.request.key;
  return 0;
}
