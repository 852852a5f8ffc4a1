/* Bringing the table up to what the store says: what other nodes changed, and everything at start. */
#include "base/log.h"
#include "executor/internal.h"
#include "net/crypto.h"

#define RESOLVE_AGAIN (10 * USEC_PER_SEC) /* after a name could not be resolved */

usec_t registry_mono(const struct registry *r) { return r->o.clock->mono(r->o.clock); }

/* ------------------------------------------------------------------ groups */

static int unseal(struct registry *r, struct slice sealed, char ret_text[REGISTRY_SECRET_MAX],
                  struct err *e) {
  ret_text[0] = 0;
  if (!sealed.n)
    return 0;
  auto_str text;
  str_init(&text, REGISTRY_SECRET_MAX - 1);
  int code = crypto_unseal(r->o.key, sealed, &text, e);
  if (code < 0)
    return code;
  code = text_copy(ret_text, REGISTRY_SECRET_MAX, str_slice(&text));
  explicit_bzero(text.p, text.n);
  return code;
}

static bool same_secrets(const struct group *g, const struct group_row *row) {
  return g->sealed[0] && slice_eqz(row->secret_sealed, g->sealed[0]) &&
         slice_eqz(row->secret_previous_sealed, g->sealed[1] ? g->sealed[1] : "");
}

static void take_secrets(struct group *g, const struct group_row *row, const struct registry_secrets *s) {
  const struct slice sealed[2] = {row->secret_sealed, row->secret_previous_sealed};
  for (int n = 0; n < 2; n++) {
    mem_free(g->sealed[n]);
    g->sealed[n] = mem_slicedup(sealed[n]);
  }
  g->secrets = *s;
}

int group_apply(struct registry *r, const struct group_row *row, struct as_of at, struct err *e) {
  mutex_lock(&r->lock);
  const struct group *old = group_find(r, row->ns, row->name);
  bool known = old && same_secrets(old, row);
  mutex_unlock(&r->lock);
  struct registry_secrets s = {0};
  int code = known ? 0 : unseal(r, row->secret_sealed, s.text[0], e);
  if (code == 0 && !known)
    code = unseal(r, row->secret_previous_sealed, s.text[1], e);
  if (code < 0)
    return code;
  mutex_lock(&r->lock);
  struct group *g = group_find(r, row->ns, row->name);
  bool newer = !g || at.time >= g->changed_at;
  if (!g)
    g = group_make(r, row->ns, row->name);
  g->seen = r->refresh_no;
  if (newer) {
    if (at.local)
      g->changed_at = at.time;
    g->routing = row->routing;
    g->max_connections = row->max_connections;
    group_set_bounds(r, g, &(struct group_bounds){row->max_concurrent, row->rate_milli, row->rate_burst});
    g->version = row->version;
    if (!known)
      take_secrets(g, row, &s);
  }
  mutex_unlock(&r->lock);
  if (!known)
    explicit_bzero(&s, sizeof s);
  return 0;
}

/* ------------------------------------------------------------------ executors */

enum need { NEED_NOTHING, NEED_STATE, NEED_INSTANCE, NEED_TARGET };

/* With the lock: what has to be done about a row that was read at `as_of`? */
static enum need look(struct registry *r, const struct executor_row *row, usec_t as_of,
                      struct group **ret_group) {
  struct group *g = group_find(r, row->ns, row->group);
  *ret_group = g;
  if (!g)
    return NEED_NOTHING; /* made after the groups were read: next time */
  struct member *m = member_find(g, row->id);
  if (!m)
    return NEED_INSTANCE;
  m->seen = r->refresh_no;
  if (m->changed_at >= as_of)
    return NEED_NOTHING; /* we know better */
  if (m->inst->i.incarnation != row->incarnation)
    return NEED_INSTANCE;
  bool lacks = !m->inst->i.target && alive(row->state) && as_of >= m->resolve_at;
  return lacks ? NEED_TARGET : NEED_STATE;
}

static void apply_instance(struct registry *r, const struct executor_row *row, usec_t as_of, struct inst *x,
                           struct events *v) {
  struct group *g = x->group;
  struct member *m = g->exists ? member_find(g, row->id) : NULL;
  if (!g->exists || (m && m->changed_at >= as_of)) { /* overtaken while the name was looked up */
    struct instance *i = &x->i;
    instance_unref(&i);
    return;
  }
  m = member_put(g, x, row->state, v);
  m->seen = r->refresh_no;
  m->changed_at = 0;
  if (!x->i.target && alive(row->state))
    m->resolve_at = as_of + RESOLVE_AGAIN;
}

static void apply_target(const struct executor_row *row, usec_t as_of, struct group *g, struct target *t,
                         struct events *v) {
  struct member *m = member_find(g, row->id);
  if (m && !m->inst->i.target && m->inst->i.incarnation == row->incarnation && t) {
    m->inst->i.target = target_ref(t); /* nobody has this instance yet: it could not be chosen */
    event_capacity(v, g);
  } else if (m) {
    m->resolve_at = as_of + RESOLVE_AGAIN;
  }
  target_unref(&t);
}

static struct target *resolve(struct registry *r, const struct executor_row *row) {
  struct err e = {0};
  struct target *t = NULL;
  if (target_parse(row->url, r->o.allowed, &t, &e) < 0)
    log_warn("executor not usable: its URL is refused; trying again later", LF_L("namespace", row->ns),
             LF_L("group", row->group), LF_L("executor", row->id), LF_E(&e));
  return t;
}

static void apply_state(struct group *g, const struct executor_row *row, struct events *v) {
  struct member *m = member_find(g, row->id);
  member_set_state(m, row->state, v);
  if (m->inst->weight == 0 && row->weight > 0)
    event_capacity(v, g);
  member_set_weight(m, row->weight);
}

static void apply_row(struct registry *r, const struct executor_row *row, usec_t as_of, struct events *v) {
  struct group *g;
  mutex_lock(&r->lock);
  enum need need = look(r, row, as_of, &g);
  if (need == NEED_STATE || need == NEED_TARGET)
    apply_state(g, row, v);
  mutex_unlock(&r->lock);
  if (need != NEED_INSTANCE && need != NEED_TARGET)
    return;
  struct target *t = alive(row->state) ? resolve(r, row) : NULL; /* may look up a name: without the lock */
  struct inst *x = need == NEED_INSTANCE ? inst_new(g, row, t) : NULL;
  mutex_lock(&r->lock);
  if (x)
    apply_instance(r, row, as_of, x, v);
  else
    apply_target(row, as_of, g, t, v);
  mutex_unlock(&r->lock);
}

/* With the lock: what the store did not list and was not made here since, is gone. */
static void sweep(struct registry *r, usec_t as_of, struct events *v) {
  for (struct group *g = r->groups; g; g = g->hh.next) {
    if (!g->exists)
      continue;
    struct member *m, *next;
    HASH_ITER (hh, g->members, m, next) {
      if (m->seen != r->refresh_no && m->changed_at < as_of)
        member_remove(r, g, m, v);
    }
    if (g->seen != r->refresh_no && g->changed_at < as_of)
      group_gone(r, g, v);
  }
}

int registry_refresh(struct registry *r, struct err *e) {
  auto_arena mem = {0};
  struct st_group_list group_in = {0};
  struct st_group_list_ret groups;
  struct st_executor_list list_in = {0};
  struct st_executor_list_ret list;
  mutex_lock(&r->lock);
  r->refresh_no++;
  mutex_unlock(&r->lock);
  usec_t as_of = registry_mono(r);
  int code = store_group_list(r->o.store, &group_in, &groups, &mem, e);
  if (code < 0 || (code = store_executor_list(r->o.store, &list_in, &list, &mem, e)) < 0)
    return code;
  for (size_t n = 0; n < groups.count; n++) {
    struct err why = {0};
    if (group_apply(r, &groups.rows[n], (struct as_of){as_of, false}, &why) < 0)
      log_error(
          "executor group not usable: its secret cannot be read; is this the key file it was sealed with?",
          LF_L("namespace", groups.rows[n].ns), LF_L("group", groups.rows[n].name), LF_E(&why));
  }
  struct events v = {0};
  for (size_t n = 0; n < list.count; n++)
    apply_row(r, &list.rows[n], as_of, &v);
  mutex_lock(&r->lock);
  sweep(r, as_of, &v);
  mutex_unlock(&r->lock);
  events_deliver(r, &v);
  return 0;
}
