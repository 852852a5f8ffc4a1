/* References in paths: "name" or "namespace/name", and what the token may see. */
#include "api/internal.h"
#include "base/parse.h"

static struct slice home(const struct call *c) {
  return slice_of(c->who.ns[0] ? c->who.ns : ACCESS_NS_DEFAULT);
}

int call_named(struct call *c, struct slice ref, struct slice *ret_ns, struct slice *ret_name) {
  struct slice rest, head = slice_cut(ref, '/', &rest);
  *ret_ns = rest.p ? head : home(c);
  *ret_name = rest.p ? rest : head;
  if (access_need_ns(&c->who, *ret_ns, NULL) < 0) /* what is elsewhere does not exist for this token */
    return err_set(&c->e, ERR_NOT_FOUND, "there is no \"%.*s\"", SLICE_FMT(ref));
  return 0;
}

static bool digits(struct slice s) {
  for (size_t i = 0; i < s.n; i++)
    if (s.p[i] < '0' || s.p[i] > '9')
      return false;
  return s.n > 0;
}

struct slice call_task_ref(struct call *c, struct slice ref) {
  if (!c->who.ns[0] || digits(ref) || memchr(ref.p, '/', ref.n))
    return ref;
  return slice_of(arena_printf(&c->mem, "%s/%.*s", c->who.ns, SLICE_FMT(ref)));
}

struct task_call call_task(struct call *c) {
  return (struct task_call){.by = slice_of(c->who.name),
                            .only_ns = slice_of(c->who.ns),
                            .idem = c->idem.key.n ? &c->idem : NULL,
                            .if_version = c->if_version,
                            .note = c->query[Q_note].s,
                            .mem = &c->mem,
                            .e = &c->e};
}

int call_task_id(struct call *c, const struct value *ref, const char *field, int64_t *ret) {
  struct task_row t;
  struct task_call tc = call_task(c);
  if (!ref->s.n || parse_i64(ref->s, 1, INT64_MAX, ret, NULL) == 0)
    return 0;
  int r = task_get(c->api->o.tasks, &tc, call_task_ref(c, ref->s), 0, &t);
  if (r < 0)
    return r == ERR_NOT_FOUND ? err_field(&c->e, r, field, "there is no such task") : r;
  *ret = t.v.task_id;
  return 0;
}

int call_task_filter(struct call *c, int64_t *ret) {
  return call_task_id(c, &c->query[Q_task], "?task", ret);
}

int call_ns_filter(struct call *c, const struct value *ns, struct slice *ret) {
  *ret = ns->s.n ? ns->s : slice_of(c->who.ns);
  return ret->n ? access_need_ns(&c->who, *ret, &c->e) : 0;
}
