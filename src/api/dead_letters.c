/* /api/v1/dead-letters */
#include "api/internal.h"
#include "task/dead_letters.h"

static json_t *letter_json(const struct dead_letter_row *d) {
  const struct run_row *r = &d->run;
  char id[RUN_ID_LEN + 1];
  run_id_format(&r->key, id);
  json_t *o = json_object();
  put(o, "id", json_string(id));
  put(o, "state", json_string(dead_letter_state_names[d->state]));
  put_id(o, "task_id", r->key.task_id);
  put_text(o, "task_name", d->task_name);
  put_text(o, "namespace", d->ns);
  put_text(o, "executor_group", d->group);
  put_text(o, "handler", d->handler);
  put(o, "reason", json_string(run_reason_names[r->reason]));
  put(o, "error", run_error_json(r->error_type, r->error_message, (struct slice){0}));
  put(o, "attempt", json_integer(r->attempt));
  put_text(o, "executor", r->executor);
  put(o, "origin", json_string(run_origin_names[r->origin]));
  put_text(o, "retry_of", r->origin_run);
  put_time(o, "scheduled_at", r->key.scheduled_at);
  put_time(o, "finished_at", r->finished_at);
  put_time(o, "handled_at", d->handled_at);
  put_text(o, "handled_by", d->handled_by);
  put_text(o, "replay_run_id", d->replay_run);
  put_text(o, "note", d->note);
  return o;
}

/* ------------------------------------------------------------------ looking */

static int cursor_key(struct call *c, struct run_key *ret) {
  char id[RUN_ID_LEN];
  int r = cursor_read(c, id, sizeof id);
  if (r > 0 && run_id_parse(slice_n(id, sizeof id), ret, NULL) < 0)
    return err_field(&c->e, ERR_INVALID, "?cursor", "expected the next_cursor of a page");
  return r;
}

int on_dead_letters_list(struct call *c) {
  const struct value *q = c->query;
  struct st_dead_letter_list in = {
      .filter = {.group = q[Q_group].s,
                 .handler = q[Q_handler].s,
                 .error_type = q[Q_error_type].s,
                 .state = q[Q_dead_letter_state].there ? (int)q[Q_dead_letter_state].i : -1,
                 .reason = q[Q_reason].there ? (int)q[Q_reason].i : -1,
                 .since = q[Q_since].i,
                 .until = q[Q_until].i},
      .limit = (int32_t)q[Q_limit].i};
  struct task_call tc = call_task(c);
  struct st_dead_letter_list_ret found;
  struct run_key from;
  int r = cursor_key(c, &from);
  if (r > 0)
    in.from = &from;
  if (r < 0 || (r = call_ns_filter(c, &q[Q_namespace], &in.filter.ns)) < 0 ||
      (r = call_task_filter(c, &in.filter.task_id)) < 0 ||
      (r = task_dead_letter_list(c->api->o.tasks, &tc, &in, &found)) < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; i < found.count; i++)
    (void)json_array_append_new(items, letter_json(&found.rows[i])); /* fails only without memory */
  const char *next = NULL;
  if (found.count && found.count == (size_t)in.limit) {
    char id[RUN_ID_LEN + 1];
    run_id_format(&found.rows[found.count - 1].run.key, id);
    next = cursor_make(c, id, RUN_ID_LEN);
  }
  return call_list(c, items, next);
}

static int find(struct call *c, struct run_key *ret_key, struct dead_letter_row *ret) {
  struct task_call tc = call_task(c);
  if (run_id_parse(c->param[0], ret_key, NULL) < 0)
    return err_set(&c->e, ERR_NOT_FOUND, "there is no such dead letter");
  return task_dead_letter_get(c->api->o.tasks, &tc, ret_key, ret);
}

/* With its whole run. */
static int answer(struct call *c, const struct run_key *key) {
  struct task_call tc = call_task(c);
  struct dead_letter_row d;
  json_t *run;
  int r = task_dead_letter_get(c->api->o.tasks, &tc, key, &d);
  if (r < 0)
    return r;
  const struct st_run_get_ret g = {.run = d.run, .task_name = d.task_name, .ns = d.ns};
  r = run_whole_json(c, &d.run.key, &g, &run);
  if (r < 0)
    return r;
  json_t *o = letter_json(&d);
  put(o, "run", run);
  return call_json(c, 200, o);
}

int on_dead_letters_get(struct call *c) {
  struct dead_letter_row d;
  struct run_key key;
  int r = find(c, &key, &d);
  return r < 0 ? r : answer(c, &key);
}

/* ------------------------------------------------------------------ one */

int on_dead_letters_replay(struct call *c) {
  const struct dead_letter_replay a = {.payload = IN(c, dead_letter_replay, payload)->s,
                                       .pin = IN(c, dead_letter_replay, executor)->s,
                                       .ignore_overlap = IN(c, dead_letter_replay, ignore_overlap)->b};
  struct task_call tc = call_task(c);
  struct dead_letter_row d;
  struct run_key key, made;
  int r = find(c, &key, &d);
  if (r < 0 || (r = task_dead_letter_replay(c->api->o.tasks, &tc, &key, &a, &made)) < 0)
    return r;
  return call_made(c, &made, c->param[0], r == 1);
}

int on_dead_letters_discard(struct call *c) {
  struct task_call tc = call_task(c);
  struct dead_letter_row d;
  struct run_key key;
  tc.note = IN(c, dead_letter_discard, note)->s;
  int r = find(c, &key, &d);
  if (r < 0 || (r = task_dead_letter_discard(c->api->o.tasks, &tc, &key)) < 0)
    return r;
  if (r == 1)
    call_header(c, "Idempotent-Replayed", "true");
  return answer(c, &key);
}

/* ------------------------------------------------------------------ many */

#define FILTER_OF(c, schema)                                                                                 \
  {                                                                                                          \
    .group = IN(c, schema, group)->s, .handler = IN(c, schema, handler)->s,                                  \
    .error_type = IN(c, schema, error_type)->s,                                                              \
    .reason = IN(c, schema, reason)->there ? (int)IN(c, schema, reason)->i : -1,                             \
    .since = IN(c, schema, since)->i, .until = IN(c, schema, until)->i                                       \
  }

/* What is not named stays empty: a filter must name something, and the token's own namespace does not count. */
static int named_ns(struct call *c, const struct value *ns, struct slice *ret) {
  return ns->s.n ? call_ns_filter(c, ns, ret) : 0;
}

static int done(struct call *c, const struct dead_letter_done *d, bool dry_run, bool repeat) {
  if (repeat)
    call_header(c, "Idempotent-Replayed", "true");
  json_t *o = json_object();
  put(o, "count", json_integer(d->count));
  put(o, "more", json_boolean(d->more));
  put(o, "dry_run", json_boolean(dry_run));
  if (d->rate > 0)
    put(o, "rate", json_real(d->rate));
  put_time(o, "last_release_at", d->last_at);
  return call_json(c, dry_run ? 200 : 202, o);
}

int on_dead_letters_replay_many(struct call *c) {
  struct dead_letter_many m = {.filter = FILTER_OF(c, dead_letters_replay),
                               .limit = IN(c, dead_letters_replay, limit)->i,
                               .rate = IN(c, dead_letters_replay, rate)->d,
                               .dry_run = IN(c, dead_letters_replay, dry_run)->b};
  struct task_call tc = call_task(c);
  struct dead_letter_done d;
  int r = named_ns(c, IN(c, dead_letters_replay, namespace), &m.filter.ns);
  if (r < 0 || (r = call_task_id(c, IN(c, dead_letters_replay, task), "/task", &m.filter.task_id)) < 0 ||
      (r = task_dead_letters_replay(c->api->o.tasks, &tc, &m, &d)) < 0)
    return r;
  return done(c, &d, m.dry_run, r == 1);
}

int on_dead_letters_discard_many(struct call *c) {
  struct dead_letter_many m = {.filter = FILTER_OF(c, dead_letters_discard),
                               .limit = IN(c, dead_letters_discard, limit)->i,
                               .dry_run = IN(c, dead_letters_discard, dry_run)->b};
  struct task_call tc = call_task(c);
  struct dead_letter_done d;
  tc.note = IN(c, dead_letters_discard, note)->s;
  int r = named_ns(c, IN(c, dead_letters_discard, namespace), &m.filter.ns);
  if (r < 0 || (r = call_task_id(c, IN(c, dead_letters_discard, task), "/task", &m.filter.task_id)) < 0 ||
      (r = task_dead_letters_discard(c->api->o.tasks, &tc, &m, &d)) < 0)
    return r;
  return done(c, &d, m.dry_run, r == 1);
}
