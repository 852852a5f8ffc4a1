/* /api/v1/runs */
#include "api/internal.h"
#include "base/parse.h"

/* ------------------------------------------------------------------ documents */

json_t *run_error_json(struct slice type, struct slice message, struct slice detail) {
  if (!type.n && !message.n && !detail.n)
    return NULL;
  json_t *e = json_object();
  put_text(e, "type", type);
  put_text(e, "message", message);
  put_text(e, "detail", detail);
  return e;
}

static void put_missed(json_t *o, const struct run_row *r) {
  if (r->missed_count <= 1)
    return;
  json_t *m = json_object();
  put_time(m, "first", r->missed_first);
  put_time(m, "last", r->key.scheduled_at);
  put(m, "count", json_integer(r->missed_count));
  put(o, "missed", m);
}

static void put_times(json_t *o, const struct run_row *r) {
  put_time(o, "scheduled_at", r->key.scheduled_at);
  put_time(o, "fired_at", r->fired_at);
  if (r->state == RUN_PENDING)
    put_time(o, "not_before", r->not_before);
  put_time(o, "started_at", r->started_at);
  put_time(o, "finished_at", r->finished_at);
  if (r->fired_at && r->origin != ORIGIN_BACKFILL)
    put(o, "lateness_ms", json_real((double)(r->fired_at - r->key.scheduled_at) / USEC_PER_MS));
  if (r->started_at && r->finished_at >= r->started_at)
    put(o, "duration_ms", json_real((double)(r->finished_at - r->started_at) / USEC_PER_MS));
}

json_t *run_json(const struct run_row *r, struct slice task_name, struct slice ns, bool whole) {
  char id[RUN_ID_LEN + 1];
  run_id_format(&r->key, id);
  json_t *o = json_object();
  put(o, "id", json_string(id));
  put_id(o, "task_id", r->key.task_id);
  put_text(o, "task_name", task_name);
  put_text(o, "namespace", ns);
  put(o, "task_version", json_integer(r->version));
  put(o, "state", json_string(run_state_names[r->state]));
  put(o, "reason", json_string(run_reason_names[r->reason]));
  put(o, "origin", json_string(run_origin_names[r->origin]));
  put_text(o, r->origin == ORIGIN_DEPENDENCY ? "origin_run" : "retry_of", r->origin_run);
  put_times(o, r);
  put(o, "attempt", json_integer(r->attempt));
  put_text(o, "executor", r->executor);
  if (r->executor.n && r->incarnation)
    put(o, "executor_incarnation", json_integer(r->incarnation));
  put_text(o, "pinned_to", pin_executor(r->pin));
  put_text(o, "routing_key", pin_key(r->pin));
  if (r->progress >= 0 && r->attempt > 0)
    put(o, "progress", json_real(r->progress));
  put(o, "error",
      run_error_json(r->error_type, r->error_message, whole ? r->error_detail : (struct slice){0}));
  put_missed(o, r);
  if (whole)
    put_raw(o, "result", r->result);
  return o;
}

static void put_wait(const struct call *c, json_t *o, const struct run_row *r) {
  enum run_wait w = r->reason == REASON_QUEUED ? run_waits_for(c->api->o.runs, &r->key) : WAIT_NONE;
  if (w != WAIT_NONE) /* it has started since its row was read, or another node has it */
    put(o, "waits_for", json_string(run_wait_names[w]));
}

json_t *attempt_json(const struct attempt_row *a) {
  json_t *o = json_object();
  put(o, "attempt", json_integer(a->attempt));
  put(o, "state", json_string(run_state_names[a->state]));
  put(o, "reason", json_string(run_reason_names[a->reason]));
  put_text(o, "executor", a->executor);
  put_time(o, "dispatched_at", a->dispatched_at);
  put_time(o, "started_at", a->started_at);
  put_time(o, "finished_at", a->finished_at);
  put(o, "error", run_error_json(a->error_type, a->error_message, (struct slice){0}));
  return o;
}

/* ------------------------------------------------------------------ lists */

static const char *next_page(struct call *c, const struct st_run_list *in,
                             const struct st_run_list_ret *found) {
  if (!found->count || found->count < (size_t)in->limit)
    return NULL;
  char id[RUN_ID_LEN + 1];
  run_id_format(&found->rows[found->count - 1].run.key, id);
  return cursor_make(c, id, RUN_ID_LEN);
}

int on_runs_list(struct call *c) {
  struct st_run_list in = {.state_mask = (uint32_t)c->query[Q_run_state].i,
                           .reason = c->query[Q_reason].there ? (int)c->query[Q_reason].i : -1,
                           .executor = c->query[Q_executor].s,
                           .since = c->query[Q_since].i,
                           .until = c->query[Q_until].i,
                           .limit = (int32_t)c->query[Q_limit].i};
  char id[RUN_ID_LEN];
  struct run_key before;
  int r = call_ns_filter(c, &c->query[Q_namespace], &in.ns);
  if (r < 0 || (r = cursor_read(c, id, sizeof id)) < 0)
    return r;
  if (r > 0) {
    if (run_id_parse(slice_n(id, sizeof id), &before, &c->e) < 0)
      return err_field(&c->e, ERR_INVALID, "?cursor", "expected the next_cursor of a page");
    in.before = &before;
  }
  struct st_run_list_ret found;
  if ((r = call_task_filter(c, &in.task_id)) < 0 ||
      (r = run_list(c->api->o.runs, &in, &found, &c->mem, &c->e)) < 0)
    return r;
  json_t *items = json_array();
  for (size_t i = 0; i < found.count; i++) {
    const struct run_list_row *x = &found.rows[i];
    json_t *o = run_json(&x->run, x->task_name, x->ns, false);
    put_wait(c, o, &x->run);
    (void)json_array_append_new(items, o); /* fails only without memory */
  }
  return call_list(c, items, next_page(c, &in, &found));
}

/* ------------------------------------------------------------------ one run */

static int no_run(struct call *c) { return err_set(&c->e, ERR_NOT_FOUND, "there is no such run"); }

int call_run(struct call *c, struct run_key *ret_key, struct st_run_get_ret *ret) {
  int r = run_id_parse(c->param[0], ret_key, &c->e);
  if (r < 0)
    return no_run(c);
  r = run_get(c->api->o.runs, ret_key, ret, &c->mem, &c->e);
  if (r < 0)
    return r == ERR_NOT_FOUND ? no_run(c) : r;
  return access_need_ns(&c->who, ret->ns, NULL) < 0 ? no_run(c) : 0;
}

/* Its own payload, or that of the task's version. A deleted task's is gone. */
static int put_payload(struct call *c, json_t *o, const struct run_row *r) {
  if (r->payload.p) {
    put_raw(o, "payload", r->payload);
    return 0;
  }
  struct task_row t;
  struct task_call tc = call_task(c);
  struct slice ref = slice_of(arena_printf(&c->mem, "%lld", (long long)r->key.task_id));
  int code = task_get(c->api->o.tasks, &tc, ref, r->version, &t);
  if (code == ERR_NOT_FOUND)
    c->e = (struct err){0};
  else if (code < 0)
    return code;
  else
    put_raw(o, "payload", t.payload);
  return 0;
}

/* The runs after which it stands, as its payload says. */
static void put_parents(json_t *o, const struct run_row *r) {
  static const char *const shown[] = {"task", "run_id", "state", "finished_at", "ends"};
  auto_json *payload = NULL;
  size_t i;
  json_t *from, *list = json_array();
  if (r->origin == ORIGIN_DEPENDENCY && r->payload.p)
    (void)json_read(r->payload, r->payload.n, &payload, NULL); /* then there are none */
  json_array_foreach (json_object_get(payload, "parents"), i, from) {
    json_t *to = json_object();
    for (size_t k = 0; k < sizeof shown / sizeof *shown; k++)
      put(to, shown[k], json_incref(json_object_get(from, shown[k])));
    (void)json_array_append_new(list, to); /* fails only without memory */
  }
  put(o, "parents", json_array_size(list) ? json_incref(list) : NULL);
  json_decref(list);
}

static int put_attempts(struct call *c, json_t *o, const struct run_key *key) {
  struct st_attempt_list_ret found;
  int r = run_attempts(c->api->o.runs, key, &found, &c->mem, &c->e);
  if (r < 0)
    return r;
  json_t *list = json_array();
  for (size_t i = 0; i < found.count; i++)
    (void)json_array_append_new(list, attempt_json(&found.rows[i])); /* fails only without memory */
  put(o, "attempts", list);
  return 0;
}

int run_whole_json(struct call *c, const struct run_key *key, const struct st_run_get_ret *g, json_t **ret) {
  json_t *o = run_json(&g->run, g->task_name, g->ns, true);
  put_wait(c, o, &g->run);
  put_parents(o, &g->run);
  int r = put_payload(c, o, &g->run);
  if (r < 0 || (r = put_attempts(c, o, key)) < 0)
    json_decref(o);
  else
    *ret = o;
  return r;
}

static int whole(struct call *c, int status, const struct run_key *key, const struct st_run_get_ret *g) {
  json_t *o;
  int r = run_whole_json(c, key, g, &o);
  return r < 0 ? r : call_json(c, status, o);
}

int on_runs_get(struct call *c) {
  struct run_key key;
  struct st_run_get_ret g;
  int r = call_run(c, &key, &g);
  return r < 0 ? r : whole(c, 200, &key, &g);
}

int call_cancel(struct call *c, const struct run_key *key) {
  if (!c->api->o.cancel)
    return err_field(&c->e, ERR_UNAVAILABLE, "!", "this node cancels nothing");
  return c->api->o.cancel(c->api->o.arg, key, &c->e);
}

int on_runs_cancel(struct call *c) {
  struct run_key key;
  struct st_run_get_ret g;
  int r = call_run(c, &key, &g);
  if (r < 0)
    return r;
  r = call_cancel(c, &key);
  if (r < 0)
    return r;
  r = call_run(c, &key, &g); /* as it is now */
  return r < 0 ? r : whole(c, run_state_ended(g.run.state) ? 200 : 202, &key, &g);
}

int on_runs_retry(struct call *c) {
  const struct value *pin = IN(c, retry, executor);
  struct run_key key;
  struct st_run_get_ret g;
  int r = call_run(c, &key, &g);
  if (r < 0)
    return r;
  if (!run_state_ended(g.run.state))
    return err_set(&c->e, ERR_CONFLICT, "the run is %s; only an ended one can be retried",
                   run_state_names[g.run.state]);
  struct task_trigger t = {.payload = g.run.payload,
                           .pin = pin->there             ? pin->s
                                  : pin_key(g.run.pin).n ? g.run.pin
                                                         : (struct slice){0},
                           .ignore_overlap = IN(c, retry, ignore_overlap)->b,
                           .origin = ORIGIN_RETRY,
                           .retry_of = c->param[0]};
  return call_trigger(c, slice_of(arena_printf(&c->mem, "%lld", (long long)key.task_id)), &t);
}
