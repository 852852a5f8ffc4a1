/* Runs of a past range, on request. */
#include "core/backfill.h"
#include "base/log.h"
#include "base/parse.h"
#include "task/internal.h"
#include <stdio.h>

enum { MAX_DEFAULT = 1000 };
#define PART_MARK 0x40000000 /* parts that the API makes have it */
#define RATE_MIN  0.01
#define RATE_MAX  1000.0

static int64_t max_of(const struct task_service *s) {
  return s->o.backfill_max ? s->o.backfill_max : MAX_DEFAULT;
}

/* Count, by the task's schedule as it is now. */
static int count(struct task_service *s, const struct task_call *c, const struct task_row *t,
                 struct backfill_made *m) {
  struct task_spec *spec = NULL;
  int r = task_spec_of(s, t->v.definition, &spec, c->e);
  if (r < 0)
    return r;
  if (!backfill_possible(spec)) {
    r = err_set(c->e, ERR_CONFLICT, "a %s schedule has no instants that a range could be filled with",
                schedule_kind_names[spec->kind]);
  } else {
    m->count = backfill_count(spec, t->v.anchor, m->from, m->to, max_of(s) + 1, &m->first, &m->last);
    m->rate = m->rate > 0 ? m->rate : spec->catchup_rate;
  }
  task_spec_unref(&spec);
  return r;
}

static int check(struct task_service *s, const struct task_call *c, const struct task_backfill *b) {
  if (b->from <= 0)
    return err_field(c->e, ERR_INVALID, "/from", "expected an instant after 1970-01-01T00:00:00Z");
  if (b->to < b->from)
    return err_field(c->e, ERR_INVALID, "/to", "the range ends before it begins");
  if (b->to > task_now(s))
    return err_field(c->e, ERR_INVALID, "/to", "expected an instant that has passed");
  if (b->rate != 0 && !(b->rate >= RATE_MIN && b->rate <= RATE_MAX))
    return err_field(c->e, ERR_INVALID, "/rate", "expected a number from %g to %g", RATE_MIN, RATE_MAX);
  return 0;
}

static int32_t new_part(struct task_service *s) {
  mutex_lock(&s->lock);
  uint32_t bits = (uint32_t)rng_next(&s->rng) & (PART_MARK - 1);
  mutex_unlock(&s->lock);
  return (int32_t)(PART_MARK | bits);
}

static int read_id(struct slice id, struct backfill_made *m, struct err *e) {
  struct slice rest = {0}, part = slice_cut(id, '-', &rest), from = slice_cut(rest, '-', &rest);
  int64_t n;
  if (parse_i64(part, PART_MARK, INT32_MAX, &n, NULL) < 0 ||
      parse_i64(from, 1, INT64_MAX, &m->from, NULL) < 0 || !rest.p ||
      parse_i64(rest, m->from, INT64_MAX, &m->to, NULL) < 0 || id.n >= sizeof m->id)
    return err_set(e, ERR_NOT_FOUND, "there is no backfill \"%.*s\"", SLICE_FMT(id));
  m->part = (int32_t)n;
  return text_copy(m->id, sizeof m->id, id);
}

/* 0; 1: a repeat, and m is the first one. */
static int ask(struct task_service *s, const struct task_call *c, const struct task_row *t,
               struct slice payload, struct backfill_made *m) {
  m->part = new_part(s);
  (void)snprintf(m->id, sizeof m->id, "%d-%lld-%lld", m->part, (long long)m->from, (long long)m->to);
  const struct inbox_item item = {.kind = INBOX_BACKFILL,
                                  .by = c->by,
                                  .request = {.key = {.task_id = t->v.task_id, .part = m->part},
                                              .from = m->from,
                                              .to = m->to,
                                              .limit = max_of(s),
                                              .interval = (usec_t)((double)USEC_PER_SEC / m->rate),
                                              .payload = payload}};
  auto_free char *body = inbox_body(&item);
  struct st_inbox_add in = {.shard = t->v.shard,
                            .kind = INBOX_BACKFILL,
                            .body = slice_of(body),
                            .ref = slice_of(m->id),
                            .idem = c->idem};
  struct st_inbox_add_ret out;
  int r = store_inbox_add(s->o.store, &in, &out, c->mem, c->e);
  if (r == 1) {
    int bad = read_id(out.ref, m, c->e);
    return bad < 0 ? bad : 1;
  }
  if (r < 0)
    return r;
  task_tell(s, t->v.shard);
  log_info("backfill asked for", LF_I("task_id", t->v.task_id), LF_S("backfill", m->id),
           LF_I("instants", m->count), LF_L("by", c->by));
  return 0;
}

int task_backfill(struct task_service *s, const struct task_call *c, struct slice ref,
                  const struct task_backfill *b, struct backfill_made *ret) {
  struct task_row t;
  struct backfill_made m = {.from = b->from, .to = b->to, .rate = b->rate};
  if (b->payload.n > TASK_PAYLOAD_MAX)
    return err_field(c->e, ERR_TOO_LARGE, "/payload", "expected at most %d bytes of compact JSON",
                     TASK_PAYLOAD_MAX);
  int r = check(s, c, b);
  if (r < 0 || (r = task_get(s, c, ref, 0, &t)) < 0 || (r = count(s, c, &t, &m)) < 0)
    return r;
  m.task_id = t.v.task_id;
  if (m.count > max_of(s))
    return err_field(c->e, ERR_LIMIT, "/to", "more than %lld instants lie in this range: take a shorter one",
                     (long long)max_of(s));
  if (!b->dry_run && m.count && (r = ask(s, c, &t, b->payload, &m)) < 0)
    return r;
  *ret = m;
  return r;
}

int task_backfill_read(struct task_service *s, const struct task_call *c, struct slice ref, struct slice id,
                       struct backfill_made *ret) {
  struct task_row t;
  struct backfill_made m = {0};
  int r = task_get(s, c, ref, 0, &t);
  if (r < 0 || (r = read_id(id, &m, c->e)) < 0)
    return r;
  m.task_id = t.v.task_id;
  *ret = m;
  return 0;
}
