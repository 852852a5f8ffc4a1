/* The task service's part of an explanation (core/explain.h): which versions ruled, and what was asked for. */
#include "core/explain.h"
#include "base/parse.h"
#include "task/internal.h"

enum { MARGIN = 3, RULING_MAX = 20, INBOX_MAX = 1000 };

static int timeline(struct task_service *s, const struct task_call *c, const struct st_task_timeline *in,
                    struct st_task_timeline_ret *ret) {
  return store_task_timeline(s->o.store, in, ret, c->mem, c->e);
}

int task_explain_find(struct task_service *s, const struct task_call *c, struct slice ref,
                      struct task_row *ret) {
  struct st_task_timeline in = {.from = INT64_MAX, .to = INT64_MAX, .limit = 1};
  struct st_task_timeline_ret found;
  struct task_row t;
  if (parse_i64(ref, 1, INT64_MAX, &in.task_id, NULL) < 0) {
    int r = task_get(s, c, ref, 0, &t);
    if (r < 0)
      return r;
    in.task_id = t.v.task_id;
  }
  int r = timeline(s, c, &in, &found);
  if (r < 0)
    return r;
  t = found.count ? found.versions[found.count - 1] : (struct task_row){0};
  if (!found.count || (c->only_ns.n && !slice_eq(t.ns, c->only_ns)))
    return err_set(c->e, ERR_NOT_FOUND, "there is no task \"%.*s\"", SLICE_FMT(ref));
  *ret = t;
  return 0;
}

int task_explain_span(struct task_service *s, const struct task_row *t, const struct task_explain_at *at,
                      struct explain_span *ret, struct err *e) {
  struct task_spec *spec = NULL;
  struct zone *utc = NULL;
  (void)zone_builtin(SLICE("UTC"), &utc, NULL); /* always there */
  bool known = task_spec_of(s, t->v.definition, &spec, NULL) == 0;
  int r = explain_span_parse(at->at, at->within, known ? schedule_zone(spec->schedule) : utc, ret, e);
  task_spec_unref(&spec);
  zone_unref(&utc);
  return r;
}

static void version_of(struct task_service *s, const struct task_row *t, struct explain_version *ret) {
  *ret = (struct explain_version){.version = t->v.version,
                                  .state = t->v.state,
                                  .effective_at = t->v.effective_at,
                                  .anchor = t->v.anchor,
                                  .by = t->updated_by,
                                  .note = t->note};
  if (task_spec_of(s, t->v.definition, &ret->spec, NULL) < 0)
    ret->spec = NULL; /* its zone has vanished: the answer says so */
}

/* Was a catch-up asked for that the shard's owner has not taken up yet? */
static int catch_up_of(struct task_service *s, const struct task_call *c, const struct task_row *t,
                       struct explain_facts *f) {
  struct st_inbox_read in = {.shards = &t->v.shard, .shard_count = 1, .limit = INBOX_MAX};
  struct st_inbox_read_ret found;
  int r = store_inbox_read(s->o.store, &in, &found, c->mem, c->e);
  for (size_t i = 0; r >= 0 && i < found.count; i++) {
    const struct inbox_row *row = &found.rows[i];
    struct inbox_text text = {row->shard, row->kind, row->no, row->body};
    struct inbox_item item;
    if (row->kind == INBOX_CATCHUP && inbox_parse(&text, c->mem, &item, NULL) == 0 &&
        item.request.key.task_id == t->v.task_id) {
      f->catch_up_from = item.request.from;
      f->catch_up_to = item.request.to;
    }
  }
  return r;
}

int task_explain_facts(struct task_service *s, const struct task_call *c, const struct task_row *newest,
                       struct explain_span *span, struct explain_facts *f) {
  struct explain_version *v = arena_array(c->mem, 1, sizeof *v);
  version_of(s, newest, v);
  f->newest = v;
  f->task_id = newest->v.task_id;
  usec_t jitter = v->spec ? schedule_jitter_max(v->spec->schedule) : 0;
  struct st_task_timeline in = {.task_id = f->task_id,
                                .from = span->from,
                                .to = span->to + jitter,
                                .margin = MARGIN,
                                .limit = RULING_MAX};
  struct st_task_timeline_ret found;
  int r = timeline(s, c, &in, &found);
  if (r < 0)
    return r;
  struct explain_version *versions = arena_array(c->mem, found.count, sizeof *versions);
  bool paused = false;
  for (size_t i = 0; i < found.count; i++) {
    version_of(s, &found.versions[i], &versions[i]);
    paused = paused || versions[i].state == TASK_PAUSED;
  }
  f->versions = versions;
  f->version_count = found.count;
  f->now = task_now(s);
  const struct explain_version *last = &versions[found.count - 1];
  if (last->version < newest->v.version && last->effective_at < span->to)
    span->to = last->effective_at; /* more changes in it than are looked at: its first part */
  return paused ? catch_up_of(s, c, newest, f) : 0;
}

void task_explain_done(struct explain_facts *f) {
  for (size_t i = 0; i < f->version_count; i++) {
    struct task_spec *spec = f->versions[i].spec;
    task_spec_unref(&spec);
  }
  struct task_spec *spec = f->newest ? f->newest->spec : NULL;
  task_spec_unref(&spec);
  f->version_count = 0;
  f->newest = NULL;
}
