/* The run service's part of an explanation (core/explain.h): how far the centre has got, and the records. */
#include "run/service.h"
#include "base/mem.h"
#include "core/explain.h"
#include <stdlib.h>

enum { BEFORE = 5, OPEN_MAX = 50, FOLDED_MAX = 50 };

int run_explain_decided(struct run_service *s, int32_t shard, struct explain_facts *f, struct arena *mem,
                        struct err *e) {
  struct st_shard_list_ret list;
  int r = store_shard_list(s->o.api, &(struct st_shard_list){0}, &list, mem, e);
  for (size_t i = 0; r >= 0 && i < list.count; i++)
    if (list.shards[i].id == shard) {
      f->decided_at = list.shards[i].fired_at;
      f->decided_task = list.shards[i].fired_task;
    }
  return r;
}

/* What a row alone does not say. */
static int complete(struct run_service *s, struct explain_run *x, struct arena *mem, struct err *e) {
  struct st_attempt_list_ret found;
  x->waits_for = x->run.reason == REASON_QUEUED ? run_waits_for(s, &x->run.key) : WAIT_NONE;
  if (x->run.attempt <= 1 && !x->run.error_type.n)
    return 0;
  int r = run_attempts(s, &x->run.key, &found, mem, e);
  if (r < 0)
    return r;
  x->attempts = found.rows;
  x->attempt_count = found.count;
  return 0;
}

static int oldest_first(const void *a, const void *b) {
  return run_key_cmp(&((const struct explain_run *)a)->run.key, &((const struct explain_run *)b)->run.key);
}

struct found {
  struct explain_run *rows;
  size_t count;
};

static void add(struct found *to, const struct run_row *row) {
  for (size_t i = 0; i < to->count; i++)
    if (run_key_eq(&to->rows[i].run.key, &row->key))
      return;
  to->rows[to->count++] = (struct explain_run){.run = *row};
}

static int finish(struct run_service *s, struct found *x, struct arena *mem, struct err *e) {
  int r = 0;
  if (x->count)
    qsort(x->rows, x->count, sizeof *x->rows, oldest_first);
  for (size_t i = 0; r >= 0 && i < x->count; i++)
    r = complete(s, &x->rows[i], mem, e);
  return r;
}

/* The runs before the instants asked for, the last one first. */
static int read_before(struct run_service *s, usec_t from, struct explain_facts *f, struct arena *mem,
                       struct err *e) {
  struct st_run_list in = {.task_id = f->task_id, .reason = -1, .until = from, .limit = BEFORE};
  struct st_run_list_ret found;
  int r = from > 0 ? run_list(s, &in, &found, mem, e) : 1;
  if (r != 0)
    return r < 0 ? r : 0;
  struct run_row *rows = arena_array(mem, found.count, sizeof *rows);
  for (size_t i = 0; i < found.count; i++)
    rows[i] = found.rows[i].run;
  f->before = rows;
  f->before_count = found.count;
  return 0;
}

int run_explain_at(struct run_service *s, const struct explain_span *span, struct explain_facts *f,
                   struct arena *mem, struct err *e) {
  struct st_run_list in = {.task_id = f->task_id,
                           .reason = -1,
                           .since = span->from,
                           .until = span->to + 1,
                           .limit = RUN_EXPLAIN_MAX + 1};
  struct st_run_folded folds = {f->task_id, span->from, span->to, FOLDED_MAX};
  struct st_run_list_ret found;
  struct st_run_folded_ret folded;
  int r = run_list(s, &in, &found, mem, e);
  if (r < 0 || (r = store_run_folded(s->o.api, &folds, &folded, mem, e)) < 0)
    return r;
  if (found.count > RUN_EXPLAIN_MAX)
    return err_set(e, ERR_LIMIT, "there are more than %d runs in this time; expected a shorter one",
                   RUN_EXPLAIN_MAX);
  struct found x = {arena_array(mem, found.count + folded.count, sizeof *x.rows), 0};
  for (size_t i = 0; i < found.count; i++)
    add(&x, &found.rows[i].run);
  for (size_t i = 0; i < folded.count; i++)
    add(&x, &folded.rows[i]);
  if ((r = finish(s, &x, mem, e)) < 0)
    return r;
  f->runs = x.rows;
  f->run_count = x.count;
  return read_before(s, span->from, f, mem, e);
}

int run_explain_open(struct run_service *s, struct explain_facts *f, struct arena *mem, struct err *e) {
  static const enum run_state states[] = {RUN_RUNNING, RUN_PENDING};
  struct found x = {arena_array(mem, 2 * OPEN_MAX, sizeof *x.rows), 0};
  int r = 0;
  for (size_t k = 0; r >= 0 && k < 2; k++) {
    struct st_run_list in = {
        .task_id = f->task_id, .reason = -1, .state_mask = 1u << states[k], .limit = OPEN_MAX};
    struct st_run_list_ret found;
    r = run_list(s, &in, &found, mem, e);
    for (size_t i = 0; r >= 0 && i < found.count; i++)
      add(&x, &found.rows[i].run);
  }
  if (r < 0 || (r = finish(s, &x, mem, e)) < 0)
    return r;
  f->open = x.rows;
  f->open_count = x.count;
  return read_before(s, f->now + 1, f, mem, e);
}
