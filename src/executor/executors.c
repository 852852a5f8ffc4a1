/* What executors ask for: register, beat, drain, go. */
#include "base/json.h"
#include "base/log.h"
#include "base/parse.h"
#include "executor/internal.h"
#include <stdio.h>

enum { EXECUTOR_NAME_MAX = 128, EXECUTOR_URL_MAX = 1024 };

static int check_name(struct slice text, const char *field, struct err *e) {
  int code = parse_name(text, EXECUTOR_NAME_MAX, e);
  if (code < 0 && e)
    (void)err_at(e, field);
  return code;
}

static int check_handlers(const struct executor_new *x, struct err *e) {
  if (x->handler_count < 1 || x->handler_count > REGISTRY_HANDLERS_MAX)
    return err_field(e, ERR_INVALID, "/handlers", "expected 1 to %d handlers", REGISTRY_HANDLERS_MAX);
  for (size_t n = 0; n < x->handler_count; n++) {
    int code = slice_eqz(x->handlers[n], "*") ? 0 : parse_name(x->handlers[n], EXECUTOR_NAME_MAX, e);
    if (code < 0) {
      char field[32];
      (void)snprintf(field, sizeof field, "/handlers/%zu", n);
      if (e)
        (void)err_at(e, field);
      return code;
    }
  }
  return 0;
}

static int check_labels(struct slice labels, struct err *e) {
  auto_json *j = NULL;
  if (!labels.n)
    return 0;
  int code = json_read(labels, REGISTRY_LABELS_MAX_BYTES, &j, e);
  if (code == 0)
    code = json_want_object(j, "", e);
  if (code < 0 && e)
    (void)err_at(e, "/labels");
  return code;
}

static int check_executor(const struct executor_new *x, struct err *e) {
  int code = check_name(x->id, "/id", e);
  if (code < 0 || (code = check_handlers(x, e)) < 0 || (code = check_labels(x->labels, e)) < 0)
    return code;
  if (x->slots < 1 || x->slots > REGISTRY_SLOTS_MAX)
    return err_field(e, ERR_INVALID, "/slots", "expected a whole number from 1 to %d", REGISTRY_SLOTS_MAX);
  if (x->weight > REGISTRY_WEIGHT_MAX)
    return err_field(e, ERR_INVALID, "/weight", "expected a whole number from 0 to %d", REGISTRY_WEIGHT_MAX);
  if (x->version.n > EXECUTOR_NAME_MAX)
    return err_field(e, ERR_INVALID, "/version", "expected a text of at most %d bytes", EXECUTOR_NAME_MAX);
  if (!x->url.n || x->url.n > EXECUTOR_URL_MAX)
    return err_field(e, ERR_INVALID, "/url", "expected a URL of at most %d bytes", EXECUTOR_URL_MAX);
  return 0;
}

static struct slice handlers_text(const struct executor_new *x, struct arena *mem) {
  auto_json *list = json_array();
  for (size_t n = 0; n < x->handler_count; n++)
    (void)json_array_append_new(list, json_stringn(x->handlers[n].p, x->handlers[n].n)); /* checked UTF-8 */
  auto_free char *text = json_text(list);
  return arena_slice(mem, slice_of(text));
}

/* The group as it is in the store, taken into the table if it is not there yet. */
static int need_group(struct registry *r, struct slice ns, struct slice name, struct err *e) {
  mutex_lock(&r->lock);
  bool known = group_find(r, ns, name) != NULL;
  mutex_unlock(&r->lock);
  if (known)
    return 0;
  auto_arena mem = {0};
  struct st_group_get in = {.ns = ns, .name = name};
  struct st_group_get_ret out;
  usec_t as_of = registry_mono(r);
  int code = store_group_get(r->o.store, &in, &out, &mem, e);
  if (code == ERR_NOT_FOUND)
    return err_field(e, code, "/group", "there is no executor group \"%.*s\" in the namespace \"%.*s\"",
                     SLICE_FMT(name), SLICE_FMT(ns));
  return code < 0 ? code : group_apply(r, &out.group, (struct as_of){as_of, false}, e);
}

/* The runs of the incarnation before are told first: once the new one can be chosen, a run under this id may be the new one's. */
static void end_former(struct registry *r, const struct executor_row *row) {
  struct events v = {0};
  mutex_lock(&r->lock);
  struct group *g = group_find(r, row->ns, row->group);
  struct member *m = g ? member_find(g, row->id) : NULL;
  if (m && m->inst->i.incarnation < row->incarnation)
    member_set_state(m, EXECUTOR_LOST, &v);
  mutex_unlock(&r->lock);
  events_deliver(r, &v);
}

static void take_in(struct registry *r, const struct executor_row *row, struct target *t) {
  struct events v = {0};
  end_former(r, row);
  mutex_lock(&r->lock);
  struct group *g = group_find(r, row->ns, row->group);
  struct member *m = g ? member_find(g, row->id) : NULL;
  bool fresh = g && (!m || m->inst->i.incarnation < row->incarnation || !alive(m->state));
  if (fresh) { /* else another registration of the same id was quicker, or the group has just gone */
    m = member_put(g, inst_new(g, row, target_ref(t)), EXECUTOR_ONLINE, &v);
    m->changed_at = registry_mono(r);
    m->beat_running = row->running;
  }
  mutex_unlock(&r->lock);
  events_deliver(r, &v);
}

int registry_register(struct registry *r, const struct executor_new *x, struct executor_registered *ret,
                      struct err *e) {
  int code = check_executor(x, e);
  if (code < 0 || (code = need_group(r, x->ns, x->group, e)) < 0)
    return code;
  struct target *t = NULL;
  code = target_parse(x->url, r->o.allowed, &t, e);
  if (code < 0) {
    if (e)
      e->field[0] = 0, (void)err_at(e, "/url");
    return code;
  }
  auto_arena mem = {0};
  struct st_executor_put in = {.executor = {.ns = x->ns,
                                            .group = x->group,
                                            .id = x->id,
                                            .url = x->url,
                                            .version = x->version,
                                            .handlers = handlers_text(x, &mem),
                                            .labels = x->labels.n ? x->labels : SLICE("{}"),
                                            .slots = x->slots,
                                            .weight = x->weight,
                                            .state = EXECUTOR_ONLINE}};
  struct st_executor_put_ret out;
  code = store_executor_put(r->o.store, &in, &out, &mem, e);
  if (code >= 0) {
    in.executor.incarnation = out.incarnation;
    in.executor.weight = out.weight;
    take_in(r, &in.executor, t);
    *ret = (struct executor_registered){out.incarnation, r->o.lost_after / 3, r->o.lost_after};
    log_info("executor registered", LF_L("namespace", x->ns), LF_L("group", x->group),
             LF_L("executor", x->id), LF_L("url", x->url), LF_I("slots", x->slots),
             LF_I("incarnation", out.incarnation));
  }
  target_unref(&t);
  return code < 0 ? code : 0;
}

/* ------------------------------------------------------------------ beats */

static int unknown(struct slice id, struct err *e) {
  return err_field(e, ERR_NOT_FOUND, "/id", "the executor \"%.*s\" is not registered: register again",
                   SLICE_FMT(id));
}

/* From memory, when there is nothing to ask. 1: ask the store. */
static int beat_quick(struct registry *r, const struct executor_beat *b, enum executor_state *ret_state,
                      struct err *e) {
  int code = 1;
  mutex_lock(&r->lock);
  struct group *g = group_find(r, b->ns, b->group);
  struct member *m = g ? member_find(g, b->id) : NULL;
  if (m && b->incarnation && b->incarnation < m->inst->i.incarnation) {
    code = ERR_STALE;
  } else if (m && (m->state == EXECUTOR_ONLINE || m->state == EXECUTOR_DRAINING) &&
             (!b->incarnation || b->incarnation == m->inst->i.incarnation)) {
    m->beat_running = b->running;
    pending_add(r, m);
    *ret_state = m->state;
    code = 0;
  }
  mutex_unlock(&r->lock);
  if (code == ERR_STALE)
    return err_field(e, code, "/incarnation", "a later executor has registered as \"%.*s\"",
                     SLICE_FMT(b->id));
  return code;
}

int registry_beat(struct registry *r, const struct executor_beat *b, enum executor_state *ret_state,
                  struct err *e) {
  if (b->running < 0)
    return err_field(e, ERR_INVALID, "/running", "expected a whole number from 0");
  int code = beat_quick(r, b, ret_state, e);
  if (code <= 0)
    return code;
  auto_arena mem = {0};
  struct executor_row row = {.ns = b->ns, .group = b->group, .id = b->id, .running = b->running};
  struct st_executor_beat in = {.rows = &row, .count = 1};
  struct st_executor_beat_ret out;
  code = store_executor_beat(r->o.store, &in, &out, &mem, e);
  if (code < 0)
    return code;
  if (!out.known[0])
    return unknown(b->id, e);
  struct events v = {0};
  mutex_lock(&r->lock);
  struct group *g = group_find(r, b->ns, b->group);
  struct member *m = g ? member_find(g, b->id) : NULL;
  if (m && (!b->incarnation || m->inst->i.incarnation == b->incarnation)) {
    member_set_state(m, out.states[0], &v);
    m->changed_at = registry_mono(r);
  } else {
    r->refresh_now = true; /* another node registered it a moment ago */
    cond_broadcast(&r->wake);
  }
  mutex_unlock(&r->lock);
  events_deliver(r, &v);
  *ret_state = out.states[0];
  return 0;
}

/* ------------------------------------------------------------------ states, lists */

int registry_set_state(struct registry *r, struct slice ns, struct slice group, struct slice id,
                       enum executor_state st, struct err *e) {
  if (st == EXECUTOR_LOST || st >= EXECUTOR_STATE_MAX_)
    return err_field(e, ERR_INVALID, "/state", "expected ONLINE, DRAINING or OFFLINE");
  struct st_executor_set in = {.ns = ns, .group = group, .id = id, .state = st, .weight = -1};
  struct st_executor_set_ret out;
  auto_arena mem = {0};
  int code = store_executor_set(r->o.store, &in, &out, &mem, e);
  if (code == ERR_NOT_FOUND)
    return unknown(id, e);
  if (code < 0)
    return code;
  struct events v = {0};
  mutex_lock(&r->lock);
  struct group *g = group_find(r, ns, group);
  struct member *m = g ? member_find(g, id) : NULL;
  if (m) {
    member_set_state(m, st, &v);
    m->changed_at = registry_mono(r);
    if (st == EXECUTOR_OFFLINE)
      pending_remove(r, m);
  }
  mutex_unlock(&r->lock);
  events_deliver(r, &v);
  log_info("executor state changed", LF_L("namespace", ns), LF_L("group", group), LF_L("executor", id),
           LF_S("state", executor_state_names[st]));
  return 0;
}

int registry_set_weight(struct registry *r, struct slice ns, struct slice group, struct slice id,
                        int32_t weight, struct err *e) {
  if (weight < 0 || weight > REGISTRY_WEIGHT_MAX)
    return err_field(e, ERR_INVALID, "/weight", "expected a whole number from 0 to %d", REGISTRY_WEIGHT_MAX);
  struct st_executor_set in = {
      .ns = ns, .group = group, .id = id, .state = EXECUTOR_STATE_MAX_, .weight = weight};
  struct st_executor_set_ret out;
  auto_arena mem = {0};
  int code = store_executor_set(r->o.store, &in, &out, &mem, e);
  if (code == ERR_NOT_FOUND)
    return unknown(id, e);
  if (code < 0)
    return code;
  struct events v = {0};
  mutex_lock(&r->lock);
  struct group *g = group_find(r, ns, group);
  struct member *m = g ? member_find(g, id) : NULL;
  if (m) {
    member_set_weight(m, weight);
    m->changed_at = registry_mono(r);
    event_capacity(&v, g);
  }
  mutex_unlock(&r->lock);
  events_deliver(r, &v);
  log_info("executor weight changed", LF_L("namespace", ns), LF_L("group", group), LF_L("executor", id),
           LF_I("weight", weight));
  return 0;
}

int registry_list(struct registry *r, const struct st_executor_list *which, struct st_executor_list_ret *ret,
                  struct arena *mem, struct err *e) {
  return store_executor_list(r->o.store, which, ret, mem, e);
}
