#include "sim_plan.h"
#include "report/forward.h"
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

/* The transport and what is at its ends: a node's dispatcher as src/dispatch decides (the same executor again when the answer was lost, the
 * slot kept with the attempt), and executors with a memory that dies with them, which report until they are answered. */

enum { SLOTS = 6 };
static const usec_t ACK_TIMEOUT = 2 * USEC_PER_SEC, AGAIN_FIRST = 100 * USEC_PER_MS,
                    AGAIN_MOST = 2 * USEC_PER_SEC, LOOK_AGAIN = 500 * USEC_PER_MS;

struct sim_slot {
  struct sim_node *node;
  struct sim_proc *proc;
  int executor;
  struct sim_slot *prev, *next;
};
struct sim_delivery { /* exactly one event is under way in its name */
  struct sim_node *node;
  struct sim_proc *proc;
  struct run_job *job; /* NULL: dropped, free it with its event */
  int executor;        /* chosen; -1: none yet */
  bool was_lost, told;
  usec_t pause;
  enum run_event answer;
  struct sim_delivery *prev, *next;
};
struct message {             /* a request to an executor */
  struct sim_delivery *from; /* NULL: nobody waits for the answer */
  usec_t give_up;
  struct run_key key;
  int32_t attempt, executor;
  int64_t fence;
  bool cancel;
  struct task_spec *spec;
};
struct work { /* what an executor knows of a run */
  struct db_run_id id;
  struct run_key key;
  int32_t attempt;
  int64_t fence;
  bool running, stop;
  enum run_event outcome;
  usec_t started_at;
  UT_hash_handle hh;
};
struct report {
  struct sim_executor *from;
  int life;
  struct run_key key;
  int32_t attempt;
  enum run_event kind;
  usec_t pause;
  int refs;  /* events and nodes that have it */
  bool over; /* answered, or its executor is dead */
  struct report *prev, *next;
};
struct sim_executor {
  int index, life;
  char id[8];
  bool up, listed; /* listed: the nodes think that it is there */
  size_t running;
  struct work *works;
  struct report *reports;
};
static struct sim_slot_count { int used[SIM_EXECUTORS_MAX]; } slots[SIM_NODES_MAX];

/* ------------------------------------------------------------------ reports */
static void report_send(void *arg);

static void report_unref(struct report *r) {
  if (--r->refs == 0 && r->over)
    mem_free(r);
}

static void report_over(struct report *r) {
  if (r->over)
    return;
  r->over = true;
  DL_DELETE(r->from->reports, r);
}

static void report_later(struct report *r, usec_t after) {
  r->refs++;
  sim_at(sim_now + after, NULL, report_send, r);
}

static void report_acked(void *arg) {
  report_over(arg);
  report_unref(arg);
}

struct arrival { /* a report at a node: borrowed from it until it has answered */
  struct report *report;
  struct live_event ev;
};

/* The node's answer goes back to the executor; without one it tries again. */
static void report_answered(void *arg, const enum run_result *results, size_t n) {
  struct arrival *a = arg;
  struct report *r = a->report;
  mem_free(a);
  (void)n;
  bool out = sim_proc && !sim_proc->dying; /* a dying node answers nobody */
  if (out)
    sim_trace("%s answers %d to %s of %s attempt %d", sim_proc->name, results[0], run_event_names[r->kind],
              sim_key(&r->key), r->attempt);
  if (out && results[0] != RUN_RESULT_NOT_OWNER) {
    struct live_event ev = {.kind = r->kind, .key = r->key, .attempt = r->attempt};
    if (results[0] != RUN_RESULT_TAKEN) /* that is judged when it leaves the inbox */
      sim_check_acked(&ev, results[0]);
    if (!r->over && !(sim_faulty() && chance(sim_world->f.loss))) {
      r->refs++;
      sim_at(sim_now + between(200, 2000), NULL, report_acked, r);
    }
  }
  report_unref(r);
}

static struct sim_node *owner_of(int32_t shard) {
  struct slice owner = sim_world->db->shards[shard].row.owner;
  for (int i = 0; i < sim_world->o.nodes; i++)
    if (slice_eqz(owner, sim_world->nodes[i]->id))
      return sim_world->nodes[i];
  return NULL;
}

static void report_arrives(void *arg) {
  struct report *r = arg;
  struct sim_node *n = sim_proc ? sim_proc->node : NULL;
  if (!n || !n->up || sim_proc->dying) {
    report_unref(r);
    return;
  }
  struct arrival *a = mem_alloc(sizeof *a);
  a->report = r;
  a->ev = (struct live_event){.kind = r->kind,
                              .key = r->key,
                              .attempt = sim_world->o.removed[GUARD_REPORT_ATTEMPT] ? 0 : r->attempt,
                              .executor = slice_of(r->from->id),
                              .ns = SLICE("default"),
                              .group = slice_of(sim_group_of(&r->key)->name),
                              .started_at = 0,
                              .progress = r->kind == EV_BEAT ? .5 : -1};
  if (r->kind == EV_DONE_FAIL) {
    a->ev.error_type = SLICE("boom");
    a->ev.error_message = SLICE("it failed");
  }
  if (sim_world->o.removed[GUARD_ACK_AFTER_COMMIT]) {
    enum run_result recorded = RUN_RESULT_RECORDED;
    (void)run_post(n->runs, &a->ev, 1, NULL, NULL, NULL);
    report_answered(a, &recorded, 1);
    return;
  }
  if (forward_post(n->forward, &a->ev, 1, report_answered, a, NULL) < 0) { /* busy: comes again */
    report_unref(r);
    mem_free(a);
  }
}

static void report_send(void *arg) {
  struct report *r = arg;
  if (!r->over) {
    sim_world->reports++;
    struct sim_node *n = owner_of(r->key.shard);
    if (!n || chance(.5)) /* the executor does not know better; the receiver passes it on */
      n = sim_world->nodes[rng_below(RNG, (uint64_t)sim_world->o.nodes)];
    bool twice = sim_faulty() && chance(sim_world->f.duplicate);
    for (int i = 0; i < 1 + twice; i++)
      if (n->proc && !(sim_faulty() && chance(sim_world->f.loss))) {
        r->refs++;
        sim_at(sim_now + between(200, twice ? 3 * USEC_PER_SEC : 3000), n->proc, report_arrives, r);
      }
    if (r->kind != EV_BEAT) { /* beats are not repeated */
      r->pause =
          r->pause ? (r->pause * 2 > 5 * USEC_PER_SEC ? 5 * USEC_PER_SEC : r->pause * 2) : 300 * USEC_PER_MS;
      report_later(r, r->pause);
    } else {
      report_over(r);
    }
  }
  report_unref(r);
}

static void report_new(struct sim_executor *x, const struct work *w, enum run_event kind) {
  struct report *r = mem_zalloc(sizeof *r);
  r->from = x;
  r->key = w->key;
  r->attempt = w->attempt;
  r->kind = kind;
  DL_APPEND(x->reports, r);
  report_later(r, between(50, 500));
}

/* ------------------------------------------------------------------ executors */
struct ending {
  struct sim_executor *x;
  int life;
  struct db_run_id id;
  int32_t attempt;
  bool beat;
};

static void work_event(void *arg) {
  struct ending *e = arg;
  struct sim_executor *x = e->x;
  struct work *w = NULL;
  if (x->up && x->life == e->life)
    HASH_FIND(hh, x->works, &e->id, sizeof e->id, w);
  if (!w || w->attempt != e->attempt || !w->running) {
    mem_free(e);
    return;
  }
  if (e->beat) {
    report_new(x, w, EV_BEAT);
    sim_at(sim_now + between(USEC_PER_SEC, 4 * USEC_PER_SEC), NULL, work_event, e);
    return;
  }
  w->running = false;
  x->running--;
  if (w->stop)
    w->outcome = EV_DONE_CANCELLED;
  sim_note(w->key.task_id, w->outcome);
  report_new(x, w, w->outcome);
  mem_free(e);
}

static void work_later(struct sim_executor *x, const struct work *w, usec_t after, bool beat) {
  struct ending *e = mem_zalloc(sizeof *e);
  *e = (struct ending){x, x->life, w->id, w->attempt, beat};
  sim_at(sim_now + after, NULL, work_event, e);
}

static usec_t work_length(void) {
  if (sim_faulty() && chance(sim_world->f.slow_run))
    return between(10 * USEC_PER_SEC, 90 * USEC_PER_SEC);
  return chance(.5) ? between(USEC_PER_MS, 200 * USEC_PER_MS) : between(200 * USEC_PER_MS, 6 * USEC_PER_SEC);
}

static void start_work(struct sim_executor *x, struct work *w, const struct message *m) {
  w->attempt = m->attempt;
  w->fence = m->fence;
  w->running = true;
  w->stop = false;
  w->started_at = sim_now;
  bool faulty = sim_faulty();
  w->outcome = faulty && chance(sim_world->f.fail) ? EV_DONE_FAIL : EV_DONE_OK;
  x->running++;
  sim_world->starts++;
  sim_note(m->key.task_id ^ m->key.scheduled_at, m->attempt);
  if (m->spec->heartbeat_timeout)
    work_later(x, w, USEC_PER_SEC, true);
  if (!faulty || !chance(sim_world->f.silent))
    work_later(x, w, work_length(), false);
}

static struct work *work_of(struct sim_executor *x, const struct run_key *key) {
  struct db_run_id id = db_run_id(key);
  struct work *w;
  HASH_FIND(hh, x->works, &id, sizeof id, w);
  return w;
}

static struct work *work_new(struct sim_executor *x, const struct run_key *key) {
  struct work *w = mem_zalloc(sizeof *w);
  w->id = db_run_id(key);
  w->key = *key;
  HASH_ADD(hh, x->works, id, sizeof w->id, w);
  return w;
}

/* Full, or out of sorts; else EV_ACCEPT. */
static enum run_event declines(const struct sim_executor *x) {
  bool faulty = sim_faulty();
  if (x->running >= SLOTS || (faulty && chance(sim_world->f.busy)))
    return EV_BUSY;
  return faulty && chance(sim_world->f.refuse) ? EV_REFUSE : EV_ACCEPT;
}

/* What the executor answers. */
static enum run_event take_request(struct sim_executor *x, const struct message *m) {
  struct work *w = work_of(x, &m->key);
  if (w && (m->attempt < w->attempt || (m->attempt == w->attempt && m->fence < w->fence)))
    return EV_REFUSE; /* 409 */
  if (w && m->attempt == w->attempt) {
    w->fence = m->fence;
    return EV_ACCEPT; /* here already */
  }
  enum run_event declined = declines(x);
  if (declined != EV_ACCEPT)
    return declined;
  if (w && w->running)
    x->running--; /* the older attempt is stopped for the newer one */
  if (!w)
    w = work_new(x, &m->key);
  start_work(x, w, m);
  if (chance(.85) || !m->from)
    return EV_ACCEPT;
  w->running = false; /* 200: done at once */
  x->running--;
  return w->outcome;
}

static void take_cancel(struct sim_executor *x, const struct message *m) {
  struct work *w = work_of(x, &m->key);
  if (!w || w->attempt != m->attempt || !w->running || chance(.3))
    return; /* some handlers do not listen */
  w->stop = true;
  work_later(x, w, between(USEC_PER_MS, USEC_PER_SEC), false);
}

void sim_executors_new(void) {
  memset(slots, 0, sizeof slots);
  for (int i = 0; i < sim_world->o.executors; i++) {
    struct sim_executor *x = sim_world->executors[i] = mem_zalloc(sizeof *x);
    x->index = i;
    (void)snprintf(x->id, sizeof x->id, "x%d", i % 100);
    x->up = x->listed = true;
  }
}

static void forget(struct sim_executor *x) {
  struct work *w, *next;
  HASH_ITER (hh, x->works, w, next) {
    HASH_DEL(x->works, w);
    mem_free(w);
  }
  x->running = 0;
  while (x->reports) {
    struct report *r = x->reports;
    report_over(r);
    if (r->refs == 0)
      mem_free(r);
  }
}

/* Nothing is taken or told any more. */
void sim_executors_stop(void) {
  for (int i = 0; i < sim_world->o.executors; i++) {
    sim_world->executors[i]->up = false;
    forget(sim_world->executors[i]);
  }
}

void sim_executors_free(void) {
  for (int i = 0; i < sim_world->o.executors; i++) {
    mem_free(sim_world->executors[i]);
    sim_world->executors[i] = NULL;
  }
}

/* The registry noticed that the instance is gone; a node that stands still does not. */
static void tell_lost(void *arg) {
  struct sim_executor *x = arg;
  x->listed = x->up;
  for (int i = 0; i < sim_world->o.nodes; i++) {
    struct sim_node *n = sim_world->nodes[i];
    if (!n->up || n->proc->dying || n->proc->paused_until > sim_now)
      continue;
    sim_proc = n->proc;
    for (int g = 0; g < (sim_world->o.limits ? SIM_GROUPS : 1); g++)
      (void)run_executor_lost(n->runs, SLICE("default"), slice_of(sim_groups[g].name), slice_of(x->id), 0);
    sim_proc = NULL;
  }
}

static void come_back(void *arg) {
  struct sim_executor *x = arg;
  x->up = x->listed = !sim_world->over;
}

void sim_executor_crash(struct sim_executor *x) {
  if (!x->up)
    return;
  sim_trace("executor %s dies", x->id);
  x->up = false;
  x->life++;
  forget(x);
  if (chance(.8))
    sim_at(sim_now + between(USEC_PER_SEC, 15 * USEC_PER_SEC), NULL, tell_lost, x);
  sim_at(sim_now + between(USEC_PER_SEC, 60 * USEC_PER_SEC), NULL, come_back, x);
}

/* ------------------------------------------------------------------ deliveries */
static void delivery_step(void *arg);

static void delivery_free(struct sim_delivery *d) {
  if (d->job) {
    DL_DELETE(d->node->deliveries, d);
    run_job_free(&d->job);
  }
  mem_free(d);
}

static void delivery_later(struct sim_delivery *d, usec_t at) { sim_at(at, d->proc, delivery_step, d); }

static void post(struct sim_delivery *d, enum run_event kind) {
  struct live_event ev = {.kind = kind, .key = d->job->key, .attempt = d->job->attempt, .progress = -1};
  if (d->executor >= 0)
    ev.executor = slice_of(sim_world->executors[d->executor]->id);
  if (kind == EV_DONE_FAIL)
    ev.error_type = SLICE("boom");
  (void)run_post(d->node->runs, &ev, 1, NULL, NULL, NULL);
}

static void arrives(void *arg);

static void send_message(struct sim_delivery *d, usec_t give_up, bool lost, bool copy) {
  struct message *m = mem_zalloc(sizeof *m);
  *m = (struct message){.from = copy ? NULL : d,
                        .give_up = give_up,
                        .key = d->job->key,
                        .attempt = d->job->attempt,
                        .executor = d->executor,
                        .fence = d->job->fence,
                        .spec = task_spec_ref(d->job->spec)};
  usec_t at = sim_now + (copy ? between(1000, 8 * USEC_PER_SEC) : between(200, 2000));
  if (lost) { /* nobody hears of it; the sender waits in vain */
    d->answer = EV_ACK_LOST;
    delivery_later(d, give_up);
    task_spec_unref(&m->spec);
    mem_free(m);
    return;
  }
  sim_at(at, NULL, arrives, m);
}

static void arrives(void *arg) {
  struct message *m = arg;
  struct sim_executor *x = sim_world->executors[m->executor];
  bool faulty = sim_faulty();
  if (m->cancel) {
    if (x->up)
      take_cancel(x, m);
  } else if (!x->up) {
    if (m->from) {
      m->from->answer = chance(.7) ? EV_UNREACHABLE : EV_ACK_LOST;
      delivery_later(m->from, m->from->answer == EV_UNREACHABLE ? sim_now + 500 : m->give_up);
    }
  } else {
    enum run_event answer = take_request(x, m);
    if (m->from && faulty && chance(sim_world->f.loss)) {
      m->from->answer = EV_ACK_LOST;
      delivery_later(m->from, m->give_up);
    } else if (m->from) {
      m->from->answer = answer;
      delivery_later(m->from, sim_now + between(200, 2000));
    }
  }
  task_spec_unref(&m->spec);
  mem_free(m);
}

/* Where it may be already; where it was before; else the least busy of those that are listed. */
static int choose(struct sim_delivery *d) {
  if (d->was_lost && d->executor >= 0)
    return d->executor;
  int best = -1;
  for (int i = 0; i < sim_world->o.executors; i++) {
    struct sim_executor *x = sim_world->executors[i];
    if (x->listed && slots[d->node->index].used[i] < SLOTS && i != d->executor && (best < 0 || chance(.5)))
      best = i;
    if (best == i && d->job->previous && strcmp(d->job->previous, x->id) == 0 && sim_world->o.executors > 1)
      best = -1; /* had the attempt before: another one first */
  }
  return best;
}

static void try_send(struct sim_delivery *d) {
  if (!run_wanted(d->node->runs, d->job)) {
    delivery_free(d);
    return;
  }
  int x = choose(d);
  if (x < 0) {
    if (!d->told)
      post(d, EV_NO_EXECUTOR);
    d->told = true;
    d->executor = -1;
    delivery_later(d, sim_now + LOOK_AGAIN);
    return;
  }
  struct sim_slot *s = mem_zalloc(sizeof *s);
  *s = (struct sim_slot){d->node, d->proc, x, NULL, NULL};
  if (!run_sending(d->node->runs, d->job,
                   &(struct live_place){slice_of(sim_world->executors[x]->id), 0, s})) {
    mem_free(s);
    delivery_free(d);
    return;
  }
  DL_APPEND(d->node->slots, s);
  slots[d->node->index].used[x]++;
  d->node->slots_out++;
  d->executor = x;
  sim_check_sending(d->job);
  bool faulty = sim_faulty();
  if (faulty && chance(sim_world->f.duplicate))
    send_message(d, 0, false, true);
  send_message(d, sim_now + ACK_TIMEOUT, faulty && chance(sim_world->f.loss), false);
}

static void give_slot_back(struct sim_delivery *d) {
  void *slot = run_take_slot(d->node->runs, d->job);
  if (slot)
    sim_release(d->node, slot);
}

static usec_t next_pause(struct sim_delivery *d) {
  d->pause = d->pause ? (d->pause * 2 > AGAIN_MOST ? AGAIN_MOST : d->pause * 2) : AGAIN_FIRST;
  return d->pause;
}

static void take_answer(struct sim_delivery *d, enum run_event answer) {
  post(d, answer);
  d->was_lost = d->was_lost || answer == EV_ACK_LOST;
  if (answer != EV_ACK_LOST && answer != EV_UNREACHABLE && answer != EV_BUSY) {
    delivery_free(d);
    return;
  }
  give_slot_back(d); /* taken again with the next delivery */
  delivery_later(d, sim_now + next_pause(d));
}

static void delivery_step(void *arg) {
  struct sim_delivery *d = arg;
  if (!d->job) {
    mem_free(d);
    return;
  }
  enum run_event answer = d->answer;
  d->answer = EV_MAX_;
  if (answer == EV_MAX_)
    try_send(d);
  else
    take_answer(d, answer);
}

void sim_deliver(struct sim_node *n, struct run_job *jobs) {
  for (struct run_job *next; jobs; jobs = next) {
    next = jobs->next;
    jobs->next = NULL;
    struct sim_delivery *d = mem_zalloc(sizeof *d);
    d->node = n;
    d->proc = n->proc;
    d->job = jobs;
    d->executor = -1;
    d->answer = EV_MAX_;
    DL_APPEND(n->deliveries, d);
    delivery_later(d, sim_now + between(50, 500));
  }
}

void sim_cancel(struct sim_node *n, const struct live_cancel *c, int64_t fence) {
  (void)n;
  for (int i = 0; i < sim_world->o.executors; i++) {
    if (strcmp(sim_world->executors[i]->id, c->executor) != 0 || (sim_faulty() && chance(sim_world->f.loss)))
      continue;
    struct message *m = mem_zalloc(sizeof *m);
    *m =
        (struct message){.key = c->key, .attempt = c->attempt, .executor = i, .fence = fence, .cancel = true};
    m->spec = task_spec_ref(c->spec);
    sim_at(sim_now + between(200, 5000), NULL, arrives, m);
  }
}

void sim_release(struct sim_node *n, void *slot) {
  struct sim_slot *s = slot;
  DL_DELETE(n->slots, s);
  slots[n->index].used[s->executor]--;
  n->slots_out--;
  mem_free(s);
}

/* What the dead node's memory held, and nobody gave back. */
void sim_slots_drop(struct sim_node *n) {
  while (n->slots)
    sim_release(n, n->slots);
}

void sim_deliveries_drop(struct sim_node *n) {
  while (n->deliveries) {
    struct sim_delivery *d = n->deliveries;
    DL_DELETE(n->deliveries, d);
    run_job_free(&d->job); /* the rest goes with its event */
  }
}
