/* New versions of tasks: edit, pause, resume, delete. Each reads the current version, decides, and writes only if that is still the
 * current one; without If-Match it tries again, within bounds. */
#include "base/log.h"
#include "task/internal.h"

enum { CHANGE_TRIES = 5, VERSIONS_PAGE = 100, VERSIONS_PAGES_MAX = 100 };
#define NOTE_MAX 1024

struct change {
  const struct task_call *c;
  const char *done;  /* the log's message */
  const json_t *doc; /* replace: the document; patch: the patch */
  bool patch, catch_up, cancel;
  enum task_state state;
  /* decide what to write about the task as it is: 0, 1 = nothing to do, or an error */
  int (*decide)(struct task_service *s, const struct change *ch, const struct task_row *t,
                struct st_task_change *ret);
};

static int check_call(const struct task_call *c, const struct task_row *t) {
  if (c->note.n > NOTE_MAX || !slice_utf8_valid(c->note))
    return err_field(c->e, ERR_INVALID, "/note", "expected a text of at most %d bytes", NOTE_MAX);
  if (c->if_version && c->if_version != t->v.version)
    return err_set(c->e, ERR_STALE, "the task has version %d, not %d", t->v.version, c->if_version);
  return 0;
}

/* The row of the version that was made. */
static int row_of(struct task_service *s, const struct task_call *c, const struct task_version_row *v,
                  struct task_row *ret) {
  struct st_task_get in = {.task_id = v->task_id, .version = v->version};
  struct st_task_get_ret out;
  int r = store_task_get(s->o.store, &in, &out, c->mem, c->e);
  if (r >= 0)
    *ret = out.task;
  return r < 0 ? r : 0;
}

static int change_once(struct task_service *s, const struct change *ch, const struct task_row *t,
                       struct st_task_change_ret *ret) {
  const struct task_call *c = ch->c;
  int r = check_call(c, t);
  if (r < 0)
    return r;
  struct st_task_change in = {.task_id = t->v.task_id,
                              .expected_version = t->v.version,
                              .state = t->v.state,
                              .by = c->by,
                              .note = c->note};
  r = ch->decide(s, ch, t, &in);
  return r ? r : store_task_change(s->o.store, &in, ret, c->mem, c->e);
}

/* 1: it was so already, and *ret is the task as it is. */
static int change(struct task_service *s, const struct change *ch, struct slice ref, struct task_row *ret) {
  const struct task_call *c = ch->c;
  struct st_task_change_ret out;
  struct task_row t;
  int r = ERR_STALE;
  for (int n = 0; r == ERR_STALE && n < CHANGE_TRIES; n++) {
    r = task_get(s, c, ref, 0, &t);
    if (r < 0)
      return r;
    r = change_once(s, ch, &t, &out);
    if (c->if_version)
      break; /* asked for that very version: stale is the answer */
  }
  if (r < 0)
    return r;
  if (r == 0) {
    task_tell(s, t.v.shard);
    log_info(ch->done, LF_I("task_id", t.v.task_id), LF_L("namespace", t.ns), LF_L("task", t.v.name),
             LF_I("version", out.row.version), LF_L("by", c->by));
  }
  if (r == 0 && ch->state != TASK_DELETED && (r = row_of(s, c, &out.row, &t)) < 0)
    return r;
  if (ret)
    *ret = t;
  return r;
}

/* ------------------------------------------------------------------ editing */

int task_source_of(const struct task_row *t, struct arena *mem, json_t **ret, struct err *e) {
  const struct task_source src = {.definition = t->v.definition,
                                  .name = arena_slice(mem, t->v.name).p,
                                  .description = arena_slice(mem, t->description).p,
                                  .payload = t->v.has_payload ? t->payload : (struct slice){0},
                                  .anchor = t->v.anchor};
  return task_source_json(&src, ret, e);
}

/* The schedule of a definition with all defaults. */
static int schedule_of(struct slice definition, json_t **ret, struct err *e) {
  const struct task_source src = {.definition = definition, .name = "-"};
  auto_json *doc = NULL;
  int r = task_document(&src, &doc, e);
  if (r == 0)
    *ret = json_incref(json_object_get(doc, "schedule"));
  return r;
}

/* Do the document and the stored task say the same about when? */
static int same_schedule(const struct task_row *t, const struct task_input *in, bool *ret, struct err *e) {
  auto_json *old = NULL, *new = NULL;
  int r = schedule_of(t->v.definition, &old, e);
  if (r < 0 || (r = schedule_of(slice_of(in->definition), &new, e)) < 0)
    return r;
  *ret = json_equal(old, new) && (!in->anchor || in->anchor == t->v.anchor);
  return 0;
}

/* With its calendar; on failure nothing is left of it. */
static int parsed(struct task_service *s, struct task_input *in, struct err *e) {
  int r = task_calendar_bind(s, in, e);
  if (r < 0)
    task_input_done(in);
  return r;
}

int task_parse_replacement(struct task_service *s, const json_t *doc, const struct task_row *t,
                           struct task_input *ret, bool *ret_same, struct err *e) {
  mutex_lock(&s->lock);
  int r = task_input_parse(doc, s->zones, 0, ret, e);
  mutex_unlock(&s->lock);
  if (r < 0)
    return r;
  r = same_schedule(t, ret, ret_same, e);
  if (r == 0 && *ret_same)
    return parsed(s, ret, e);
  task_input_done(ret);
  if (r < 0)
    return r;
  usec_t now = task_now(s);
  mutex_lock(&s->lock);
  r = task_input_parse(doc, s->zones, now, ret, e);
  mutex_unlock(&s->lock);
  return r < 0 ? r : parsed(s, ret, e);
}

static int parse_patch(struct task_service *s, const struct change *ch, const struct task_row *t,
                       struct task_input *ret, bool *ret_same) {
  auto_json *current = NULL;
  struct err *e = ch->c->e;
  int r = task_source_of(t, ch->c->mem, &current, e);
  if (r < 0)
    return r;
  usec_t now = task_now(s);
  mutex_lock(&s->lock);
  r = task_input_patch(current, ch->doc, s->zones, now, ret, e);
  mutex_unlock(&s->lock);
  if (r < 0)
    return r;
  r = same_schedule(t, ret, ret_same, e);
  if (r < 0) {
    task_input_done(ret);
    return r;
  }
  return parsed(s, ret, e);
}

static int decide_edit(struct task_service *s, const struct change *ch, const struct task_row *t,
                       struct st_task_change *ret) {
  struct task_input in;
  bool same;
  int r = ch->patch ? parse_patch(s, ch, t, &in, &same)
                    : task_parse_replacement(s, ch->doc, t, &in, &same, ch->c->e);
  if (r < 0)
    return r;
  if (!slice_eqz(t->ns, in.spec->ns)) {
    r = err_field(ch->c->e, ERR_INVALID, "/namespace",
                  "the namespace of a task cannot be changed; it is \"%.*s\"", SLICE_FMT(t->ns));
  } else {
    struct task_def *def = arena_alloc(ch->c->mem, sizeof *def);
    task_def_of(&in, ch->c->mem, def);
    def->state =
        t->v.state == TASK_COMPLETED && !same ? TASK_ENABLED : t->v.state; /* it has instants again */
    ret->def = def;
    ret->state = def->state;
  }
  task_input_done(&in);
  return r;
}

int task_replace(struct task_service *s, const struct task_call *c, struct slice ref, const json_t *doc,
                 struct task_row *ret) {
  const struct change ch = {.c = c, .done = "task changed", .doc = doc, .decide = decide_edit};
  int r = change(s, &ch, ref, ret);
  return r < 0 ? r : 0;
}

int task_patch(struct task_service *s, const struct task_call *c, struct slice ref, const json_t *patch,
               struct task_row *ret) {
  const struct change ch = {
      .c = c, .done = "task changed", .doc = patch, .patch = true, .decide = decide_edit};
  int r = change(s, &ch, ref, ret);
  return r < 0 ? r : 0;
}

static int decide_follow(struct task_service *s, const struct change *ch, const struct task_row *t,
                         struct st_task_change *ret) {
  struct task_def *def = arena_alloc(ch->c->mem, sizeof *def);
  *def = (struct task_def){.ns = t->ns,
                           .name = t->v.name,
                           .description = t->description,
                           .payload = t->v.has_payload ? t->payload : (struct slice){0},
                           .group = t->group,
                           .handler = t->handler,
                           .schedule_text = t->schedule_text,
                           .kind = t->kind,
                           .state = t->v.state};
  int r = task_calendar_definition(s, t, ch->c->mem, &def->definition, ch->c->e);
  if (r == 0)
    ret->def = def;
  return r;
}

int task_follow(struct task_service *s, const struct task_call *c, struct slice ref) {
  const struct change ch = {.c = c, .done = "task follows its calendar", .decide = decide_follow};
  return change(s, &ch, ref, NULL);
}

/* ------------------------------------------------------------------ states */

/* Since when has it been paused? Edits while paused are paused versions, too. */
static int paused_since(struct task_service *s, const struct task_call *c, const struct task_row *t,
                        usec_t *ret) {
  struct st_task_versions in = {.task_id = t->v.task_id, .before = t->v.version, .limit = VERSIONS_PAGE};
  usec_t since = t->v.effective_at;
  for (int page = 0; page < VERSIONS_PAGES_MAX; page++) {
    struct st_task_versions_ret out;
    int r = store_task_versions(s->o.store, &in, &out, c->mem, c->e);
    if (r < 0)
      return r;
    for (size_t n = 0; n < out.count; n++) {
      if (out.versions[n].v.state != TASK_PAUSED) {
        *ret = since;
        return 0;
      }
      since = out.versions[n].v.effective_at;
      in.before = out.versions[n].v.version;
    }
    if (out.count < VERSIONS_PAGE)
      break;
  }
  *ret = since;
  return 0;
}

static int decide_state(struct task_service *s, const struct change *ch, const struct task_row *t,
                        struct st_task_change *ret) {
  const struct task_call *c = ch->c;
  if (t->v.state == ch->state)
    return 1;
  if (t->v.state == TASK_COMPLETED)
    return err_set(c->e, ERR_CONFLICT, "the task is COMPLETED: no instant is left; give it a new schedule");
  ret->state = ch->state;
  if (!ch->catch_up)
    return 0;
  struct inbox_item item = {
      .kind = INBOX_CATCHUP,
      .by = c->by,
      .request = {.key = {.task_id = t->v.task_id}, .to = task_now(s), .version = t->v.version + 1}};
  int r = paused_since(s, c, t, &item.request.from);
  if (r < 0)
    return r;
  if (item.request.to < item.request.from) /* the estimate of now is a little behind */
    item.request.to = item.request.from;
  auto_free char *body = inbox_body(&item);
  struct inbox_row *row = arena_alloc(c->mem, sizeof *row);
  *row = (struct inbox_row){
      .shard = t->v.shard, .kind = INBOX_CATCHUP, .body = arena_slice(c->mem, slice_of(body))};
  ret->inbox = row;
  return 0;
}

int task_pause(struct task_service *s, const struct task_call *c, struct slice ref, struct task_row *ret) {
  const struct change ch = {.c = c, .done = "task paused", .state = TASK_PAUSED, .decide = decide_state};
  return change(s, &ch, ref, ret);
}

int task_resume(struct task_service *s, const struct task_call *c, struct slice ref, bool catch_up,
                struct task_row *ret) {
  const struct change ch = {
      .c = c, .done = "task resumed", .state = TASK_ENABLED, .catch_up = catch_up, .decide = decide_state};
  return change(s, &ch, ref, ret);
}

static int decide_delete(struct task_service *s, const struct change *ch, const struct task_row *t,
                         struct st_task_change *ret) {
  (void)s;
  ret->state = TASK_DELETED;
  ret->even_with_open_runs = ch->cancel;
  if (!ch->cancel)
    return 0;
  const struct inbox_item item = {
      .kind = INBOX_CANCEL, .by = ch->c->by, .request = {.key = {.task_id = t->v.task_id}}};
  auto_free char *body = inbox_body(&item);
  struct inbox_row *row = arena_alloc(ch->c->mem, sizeof *row);
  *row = (struct inbox_row){
      .shard = t->v.shard, .kind = INBOX_CANCEL, .body = arena_slice(ch->c->mem, slice_of(body))};
  ret->inbox = row;
  return 0;
}

int task_delete(struct task_service *s, const struct task_call *c, struct slice ref, bool cancel) {
  const struct change ch = {
      .c = c, .done = "task deleted", .state = TASK_DELETED, .cancel = cancel, .decide = decide_delete};
  int r = change(s, &ch, ref, NULL);
  return r < 0 ? r : 0;
}
