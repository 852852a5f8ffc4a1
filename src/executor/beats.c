/* Heartbeats: gathered and written in one statement; and the expiry of those that stay away. */
#include "base/log.h"
#include "executor/internal.h"

enum { EXPIRY_SHARE = 10 }; /* looked for so many times in each lost_after */

void pending_add(struct registry *r, struct member *m) {
  if (m->beat_pending)
    return;
  m->beat_pending = true;
  mem_reserve(r->pending, r->pending_count, r->pending_cap);
  r->pending[r->pending_count++] = m;
}

void pending_remove(struct registry *r, struct member *m) {
  for (size_t n = 0; m->beat_pending && n < r->pending_count; n++)
    if (r->pending[n] == m) {
      r->pending[n] = r->pending[--r->pending_count];
      m->beat_pending = false;
    }
}

/* Take what is waiting as rows of their own: the members may go while the store works. */
static size_t take_pending(struct registry *r, struct arena *mem, struct executor_row **ret) {
  mutex_lock(&r->lock);
  size_t count = r->pending_count;
  struct executor_row *rows = arena_array(mem, count, sizeof *rows);
  for (size_t n = 0; n < count; n++) {
    struct member *m = r->pending[n];
    const struct instance *i = &m->inst->i;
    rows[n] = (struct executor_row){.ns = slice_of(i->ns),
                                    .group = slice_of(i->group),
                                    .id = arena_slice(mem, slice_of(i->id)),
                                    .incarnation = i->incarnation,
                                    .running = m->beat_running};
    m->beat_pending = false;
  }
  r->pending_count = 0;
  mutex_unlock(&r->lock);
  *ret = rows;
  return count;
}

/* The present member of a row, if it is still that incarnation. With the lock. */
static struct member *member_of(struct registry *r, const struct executor_row *row) {
  struct group *g = group_find(r, row->ns, row->group);
  struct member *m = g ? member_find(g, row->id) : NULL;
  return m && m->inst->i.incarnation == row->incarnation ? m : NULL;
}

/* The store failed: they wait for the next flush, and nobody is called lost for what the database could not take in. */
static void put_back(struct registry *r, const struct executor_row *rows, size_t count) {
  mutex_lock(&r->lock);
  for (size_t n = 0; n < count; n++) {
    struct member *m = member_of(r, &rows[n]);
    if (m)
      pending_add(r, m);
  }
  r->expire_after = registry_mono(r) + r->o.lost_after;
  mutex_unlock(&r->lock);
}

int beats_flush(struct registry *r, struct err *e) {
  auto_arena mem = {0};
  struct executor_row *rows;
  struct st_executor_beat in = {.count = take_pending(r, &mem, &rows)};
  struct st_executor_beat_ret out;
  in.rows = rows;
  if (!in.count)
    return 0;
  usec_t as_of = registry_mono(r);
  int code = store_executor_beat(r->o.store, &in, &out, &mem, e);
  if (code < 0) {
    put_back(r, rows, in.count);
    return code;
  }
  struct events v = {0};
  mutex_lock(&r->lock);
  for (size_t n = 0; n < in.count; n++) {
    struct member *m = member_of(r, &rows[n]);
    if (m && m->changed_at < as_of)
      member_set_state(m, out.known[n] ? out.states[n] : EXECUTOR_OFFLINE, &v);
  }
  mutex_unlock(&r->lock);
  events_deliver(r, &v);
  return 0;
}

/* Mark those that stayed away as lost, and tell. Not before all had a chance to beat to a working database: after a start or an
 * outage of the database everybody's last beat is old. */
int beats_expire(struct registry *r, struct err *e) {
  usec_t now = registry_mono(r);
  mutex_lock(&r->lock);
  bool early = now < r->expire_after;
  mutex_unlock(&r->lock);
  if (early)
    return 0;
  struct st_executor_expire in = {.timeout = r->o.lost_after, .forget = r->o.forget_after};
  struct st_executor_expire_ret out;
  auto_arena mem = {0};
  int code = store_executor_expire(r->o.store, &in, &out, &mem, e);
  if (code < 0)
    return code;
  struct events v = {0};
  mutex_lock(&r->lock);
  for (size_t n = 0; n < out.count; n++) {
    struct member *m = member_of(r, &out.lost[n]);
    if (m)
      member_set_state(m, EXECUTOR_LOST, &v);
  }
  mutex_unlock(&r->lock);
  for (size_t n = 0; n < out.count; n++)
    log_warn("executor lost: no heartbeat; its runs go to others", LF_L("namespace", out.lost[n].ns),
             LF_L("group", out.lost[n].group), LF_L("executor", out.lost[n].id),
             LF_I("incarnation", out.lost[n].incarnation));
  events_deliver(r, &v);
  return 0;
}

/* Wait for the end or the time. True: the registry stops. */
static bool pause_beats(struct registry *r) {
  usec_t until = registry_mono(r) + r->o.beat_flush;
  mutex_lock(&r->lock);
  for (usec_t left = r->o.beat_flush; !r->stopping && left > 0; left = until - registry_mono(r))
    if (!cond_wait(&r->wake, &r->lock, left))
      break;
  bool stop = r->stopping;
  mutex_unlock(&r->lock);
  return stop;
}

void beats_run(void *registry) {
  struct registry *r = registry;
  bool failing = false, stop = false;
  while (!stop) {
    stop = pause_beats(r);
    struct err e = {0};
    int code = beats_flush(r, &e);
    usec_t now = registry_mono(r);
    if (code == 0 && !stop && now - r->expired_at >= r->o.lost_after / EXPIRY_SHARE) {
      r->expired_at = now;
      code = beats_expire(r, &e);
    }
    if (code < 0 && !failing)
      log_warn("heartbeats cannot be written; nobody is called lost meanwhile", LF_E(&e));
    failing = code < 0;
  }
}
