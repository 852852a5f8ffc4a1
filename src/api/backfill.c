/* /api/v1/tasks/{task}/backfill: asked of the task service; how far it is, its runs tell. */
#include "api/internal.h"

#define REF      call_task_ref(c, c->param[0])
#define PAGE     1000
#define PAGE_MAX 1000 /* pages of one look: a range may hold runs of the schedule's own, too */

int on_tasks_backfill(struct call *c) {
  struct task_backfill b = {.from = IN(c, backfill, from)->i,
                            .to = IN(c, backfill, to)->i,
                            .rate = IN(c, backfill, rate)->d,
                            .payload = IN(c, backfill, payload)->s,
                            .dry_run = IN(c, backfill, dry_run)->b};
  struct backfill_made m;
  struct task_call tc = call_task(c);
  int r = task_backfill(c->api->o.tasks, &tc, REF, &b, &m);
  if (r < 0)
    return r;
  if (r == 1)
    call_header(c, "Idempotent-Replayed", "true");
  json_t *o = json_object();
  put_text(o, "id", slice_of(m.id));
  put_id(o, "task_id", m.task_id);
  put(o, "instants", json_integer(m.count));
  put_time(o, "first", m.first);
  put_time(o, "last", m.last);
  put(o, "rate", json_real(m.rate));
  return call_json(c, m.id[0] ? 202 : 200, o);
}

/* Its runs, page by page; each is counted, and with `cancel` the open ones are cancelled. */
static int look(struct call *c, const struct backfill_made *m, bool cancel, int64_t counts[RUN_STATE_MAX_]) {
  struct st_run_list in = {
      .task_id = m->task_id, .reason = -1, .since = m->from, .until = m->to + 1, .limit = PAGE};
  struct run_key before;
  for (int page = 0; page < PAGE_MAX; page++) {
    auto_arena mem = {0};
    struct st_run_list_ret found;
    int r = run_list(c->api->o.runs, &in, &found, &mem, &c->e);
    if (r < 0)
      return r;
    for (size_t i = 0; i < found.count; i++) {
      const struct run_row *run = &found.rows[i].run;
      if (run->key.part != m->part || run->origin != ORIGIN_BACKFILL)
        continue;
      counts[run->state]++;
      r = cancel && !run_state_ended(run->state) ? call_cancel(c, &run->key) : 0;
      if (r < 0 && r != ERR_CONFLICT) /* it had ended meanwhile */
        return r;
    }
    if (found.count < PAGE)
      break;
    before = found.rows[found.count - 1].run.key;
    in.before = &before;
  }
  return 0;
}

static int show(struct call *c, struct slice id, bool cancel) {
  struct backfill_made m;
  struct task_call tc = call_task(c);
  int64_t counts[RUN_STATE_MAX_] = {0}, all = 0;
  int r = task_backfill_read(c->api->o.tasks, &tc, REF, id, &m);
  if (r < 0 || (cancel && (r = look(c, &m, true, counts)) < 0))
    return r;
  memset(counts, 0, sizeof counts);
  if ((r = look(c, &m, false, counts)) < 0)
    return r;
  for (int i = 0; i < RUN_STATE_MAX_; i++)
    all += counts[i];
  if (cancel && !all)
    return err_set(&c->e, ERR_CONFLICT, "this backfill has no runs (yet): they appear within moments");
  json_t *o = json_object();
  put_text(o, "id", slice_of(m.id));
  put_id(o, "task_id", m.task_id);
  put_time(o, "from", m.from);
  put_time(o, "to", m.to);
  put(o, "runs", json_integer(all));
  static const char *const names[RUN_STATE_MAX_] = {"pending", "running",   "success",
                                                    "fail",    "cancelled", "skipped"};
  for (int i = 0; i < RUN_STATE_MAX_; i++)
    put(o, names[i], json_integer(counts[i]));
  return call_json(c, 200, o);
}

int on_tasks_backfill_get(struct call *c) {
  if (!c->query[Q_backfill].there)
    return err_field(&c->e, ERR_MISSING, "?id", "expected the id of a backfill");
  return show(c, c->query[Q_backfill].s, false);
}

int on_tasks_backfill_cancel(struct call *c) { return show(c, IN(c, backfill_ref, id)->s, true); }
