#include "trigger/internal.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "core/depend.h"
#include "core/inbox.h"

/* After-tasks (docs/adr/0017): ends of parents become requests to the owners of their children. A turn is all or nothing, and one at a
 * time in the whole database. Its own thread, on the pooled sessions; any node may do it for any task. */

enum { EVENTS = 64, FIRES = 100 }; /* of one turn */
static const size_t TOLD_MAX =
    (size_t)16 * 1024 * 1024; /* bytes of payloads and results of one turn with several fires */
static const usec_t RETRY_FIRST = 20 * USEC_PER_MS, RETRY_MOST = USEC_PER_SEC;

struct turn {
  struct engine *g;
  struct arena *mem;
  struct st_dependency_read_ret in;
  struct depend_out out;
  struct run_row *runs; /* of parents, read so far; state RUN_STATE_MAX_: there no more */
  size_t run_count, run_cap;
  struct payload_row *payloads; /* by fire */
  size_t told;                  /* bytes of them and of the runs' results */
};

/* ---------------------------------------------------------------- what the children are told */

static const struct run_row *find_run(const struct turn *t, const struct run_key *key) {
  for (size_t i = 0; i < t->run_count; i++)
    if (run_key_eq(&t->runs[i].key, key))
      return &t->runs[i];
  return NULL;
}

static struct slice keep(struct turn *t, struct slice text) {
  return text.p ? arena_slice(t->mem, text) : text;
}

/* What a child is told of it: its payload, which may be large, is not kept for the turn. */
static int read_run(struct turn *t, const struct run_key *key, struct err *e) {
  auto_arena mem = {0};
  struct st_run_get_ret got;
  if (find_run(t, key))
    return 0;
  int r = store_run_get(t->g->o.api, &(struct st_run_get){*key}, &got, &mem, e);
  if (r == ERR_NOT_FOUND) {
    got.run = (struct run_row){.state = RUN_STATE_MAX_};
    r = 0;
  }
  if (r < 0)
    return r;
  mem_reserve(t->runs, t->run_count, t->run_cap);
  t->runs[t->run_count++] = (struct run_row){.key = *key,
                                             .state = got.run.state,
                                             .reason = got.run.reason,
                                             .result = keep(t, got.run.result),
                                             .error_type = keep(t, got.run.error_type),
                                             .error_message = keep(t, got.run.error_message)};
  t->told += got.run.result.n + got.run.error_message.n;
  return 0;
}

static int read_payloads(struct turn *t, struct err *e) {
  size_t n = t->out.fire_count;
  struct st_payload_get_ret got;
  int64_t *ids = arena_array(t->mem, n, sizeof *ids);
  int32_t *versions = arena_array(t->mem, n, sizeof *versions);
  for (size_t i = 0; i < n; i++) {
    ids[i] = t->out.fires[i].key.task_id;
    versions[i] = t->out.fires[i].version;
  }
  if (!n)
    return 0;
  int r = store_payload_get(t->g->o.api, &(struct st_payload_get){ids, versions, n}, &got, t->mem, e);
  if (r >= 0)
    t->payloads = got.rows;
  return r;
}

/* How many fires have room in one turn: at least one. Those are read. */
static int read_all(struct turn *t, size_t *ret_fit, struct err *e) {
  int r = read_payloads(t, e);
  size_t i = 0;
  for (; r >= 0 && i < t->out.fire_count; i++) {
    t->told += t->payloads[i].payload.n;
    for (size_t k = 0; r >= 0 && k < t->out.fires[i].count; k++)
      r = read_run(t, &t->out.fires[i].parents[k].key, e);
    if (i && t->told > TOLD_MAX)
      break;
  }
  *ret_fit = i;
  return r;
}

static struct inbox_row request_of(struct turn *t, size_t i) {
  const struct depend_fire *f = &t->out.fires[i];
  const struct run_row **runs = arena_array(t->mem, f->count, sizeof *runs);
  char last[RUN_ID_LEN + 1];
  for (size_t k = 0; k < f->count; k++) {
    const struct run_row *run = find_run(t, &f->parents[k].key);
    runs[k] = run && run->state != RUN_STATE_MAX_ ? run : NULL;
  }
  run_id_format(&f->last, last);
  auto_free char *payload = depend_payload(t->payloads[i].payload, f->parents, runs, f->count);
  struct inbox_item item = {.kind = INBOX_TRIGGER,
                            .request = {.key = f->key,
                                        .origin = ORIGIN_DEPENDENCY,
                                        .payload = slice_of(payload),
                                        .origin_run = slice_of(last)}};
  auto_free char *body = inbox_body(&item);
  return (struct inbox_row){
      .shard = f->key.shard, .kind = INBOX_TRIGGER, .body = arena_slice(t->mem, slice_of(body))};
}

/* ---------------------------------------------------------------- a turn */

static int apply(struct turn *t, struct err *e) {
  const struct depend_out *o = &t->out;
  struct st_dependency_apply_ret none;
  int64_t *done = arena_array(t->mem, o->done, sizeof *done);
  struct inbox_row *inbox = arena_array(t->mem, o->fire_count, sizeof *inbox);
  struct depend_edge *kept = arena_array(t->mem, t->in.edge_count, sizeof *kept);
  struct st_dependency_apply in = {.turn = t->in.turn,
                                   .done = done,
                                   .done_count = o->done,
                                   .kept = kept,
                                   .inbox = inbox,
                                   .inbox_count = o->fire_count};
  for (size_t i = 0; i < o->done; i++)
    done[i] = t->in.events[i].no;
  if (o->done < t->in.event_count && o->after) {
    in.partly = t->in.events[o->done].no;
    in.after = o->after;
  }
  for (size_t i = 0; i < t->in.edge_count; i++)
    if (o->changed[i])
      kept[in.kept_count++] = t->in.edges[i];
  for (size_t i = 0; i < o->fire_count; i++)
    inbox[i] = request_of(t, i);
  (void)failpoint("depend.before_apply");
  int r = store_dependency_apply(t->g->o.api, &in, &none, t->mem, e);
  (void)failpoint("depend.after_apply");
  return r;
}

static void note_age(struct engine *g, const struct st_dependency_read_ret *in) {
  usec_t age = in->event_count ? g->o.now(g->o.arg) - in->events[0].finished_at : 0;
  metric_set(g->after_age, age > 0 ? (double)age / USEC_PER_SEC : 0);
}

/* 1: there may be more; 0: nothing to do. `most`: fires of a turn; fewer next time when these are too large together. */
static int turn(struct engine *g, size_t *most, struct err *e) {
  auto_arena mem = {0};
  struct turn t = {.g = g, .mem = &mem};
  size_t fit = 0;
  int r = store_dependency_read(g->o.api, &(struct st_dependency_read){EVENTS}, &t.in, &mem, e);
  if (r >= 0)
    note_age(g, &t.in);
  if (r < 0 || !t.in.event_count)
    return r;
  depend_decide(t.in.events, t.in.event_count, t.in.edges, t.in.edge_count, *most, &mem, &t.out);
  r = read_all(&t, &fit, e);
  bool fits = fit == t.out.fire_count;
  if (r >= 0)
    *most = !fits ? fit : *most * 2 > FIRES ? FIRES : *most * 2;
  if (r >= 0 && fits)
    r = apply(&t, e);
  mem_free(t.runs);
  if (r >= 0 && !fits)
    return 1;
  if (r == ERR_CONFLICT)
    return 1; /* somebody was first: read again */
  for (size_t i = 0; r >= 0 && i < t.out.fire_count; i++)
    engine_changed(g, t.out.fires[i].key.shard);
  return r < 0 ? r : 1;
}

static void wait(struct engine *g, usec_t length) {
  mutex_lock(&g->after_lock);
  if (!g->parents_ended && !atomic_load(&g->stopping))
    (void)cond_wait(&g->after_wake, &g->after_lock, length);
  g->parents_ended = false;
  mutex_unlock(&g->after_lock);
}

void engine_parents_ended(struct engine *g) {
  mutex_lock(&g->after_lock);
  g->parents_ended = true;
  cond_signal(&g->after_wake);
  mutex_unlock(&g->after_lock);
}

void engine_after_main(void *arg) {
  struct engine *g = arg;
  usec_t pause = RETRY_FIRST;
  size_t most = FIRES;
  while (!atomic_load(&g->stopping)) {
    struct err e = {0};
    int r = turn(g, &most, &e);
    if (r == 0)
      wait(g, g->o.poll);
    if (r >= 0) {
      pause = RETRY_FIRST;
      continue;
    }
    log_warn("ends of parents not taken in, trying again", LF_D("after", pause), LF_E(&e));
    engine_pause(g, pause);
    pause = pause * 2 > RETRY_MOST ? RETRY_MOST : pause * 2;
  }
}
