/* A backfill on request: runs of the instants of a past range, beside the schedule's own (their part tells them apart). */
#include "core/backfill.h"
#include "core/shard_collect.h"

void collect_backfill(struct collect *c, const struct fire_request *r, struct sched_task *t) {
  const struct sched_version *v = t ? &t->first : NULL;
  while (v && v->next)
    v = v->next;
  if (!v || !v->spec || v->state == TASK_DELETED || !backfill_possible(v->spec))
    return; /* not any more: only the inbox row goes */
  usec_t release = c->now, at = backfill_next(v->spec, v->anchor, r->from - 1);
  for (int64_t n = 0; at <= r->to && n < r->limit; n++, at = backfill_next(v->spec, v->anchor, at)) {
    struct fire_item *i = collect_add(c, t, v, at);
    i->key.part = r->key.part;
    i->origin = ORIGIN_BACKFILL;
    i->state = RUN_PENDING;
    i->reason = REASON_SCHEDULED;
    i->not_before = release;
    i->request = r;
    release += r->interval;
    c->walked++;
  }
}
