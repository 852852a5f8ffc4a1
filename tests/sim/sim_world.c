#include "sim.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

/* One episode: a cluster begins, lives with faults, is left in peace, and is judged. */

struct sim_world *sim_world;

usec_t sim_exponential(usec_t mean) {
  double u = rng_unit(RNG);
  usec_t t = (usec_t)(-log(1 - u) * (double)mean);
  return t < 1 ? 1 : t > 20 * mean ? 20 * mean : t;
}

bool sim_faulty(void) { return !sim_world->o.calm && sim_now < sim_world->faults_end; }

usec_t sim_db_now(void *arg) {
  (void)arg;
  return sim_world->begin + sim_now;
}

const char *sim_key(const struct run_key *k) {
  static char text[4][96];
  static int next;
  char *t = text[next++ % 4];
  (void)snprintf(t, sizeof text[0], "run %d/%lld/%lld/%d", k->shard, (long long)k->scheduled_at,
                 (long long)k->task_id, k->part);
  return t;
}

void sim_note(int64_t a, int64_t b) {
  sim_world->digest =
      hash_u64(sim_world->digest ^ hash_u64((uint64_t)a ^ (uint64_t)sim_now) ^ (uint64_t)b * 7);
}

void sim_trace(const char *fmt, ...) {
  if (!sim_world->o.verbose || sim_world->over)
    return;
  va_list ap;
  va_start(ap, fmt);
  (void)fprintf(stderr, "%12.6f ", (double)sim_now / 1e6);
  (void)vfprintf(stderr, fmt, ap);
  (void)fputc('\n', stderr);
  va_end(ap);
}

void sim_wrong(enum sim_wrong kind, const char *fmt, ...) {
  struct sim_world *w = sim_world;
  char text[448];
  va_list ap;
  va_start(ap, fmt);
  (void)vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  w->violations++;
  w->lost += kind == WRONG_LOST;
  w->doubled += kind == WRONG_DOUBLED;
  w->stuck += kind == WRONG_STUCK;
  if (!w->first[0])
    (void)snprintf(w->first, sizeof w->first, "at %.6f s: %s", (double)sim_now / 1e6, text);
  sim_trace("WRONG: %s", text);
  sim_stop(); /* what follows is only cleared away */
}

/* ------------------------------------------------------------------ what befalls it */
static const usec_t CLOCKS_DIFFER = 500 * USEC_PER_MS;

static void mean_faults(struct sim_faults *f) {
  double bad = rng_unit(RNG) * 2; /* some worlds are worse than others */
  double calls = bad * (sim_world->o.rough ? sim_world->o.rough : 1);
  *f = (struct sim_faults){.abort = .004 * calls,
                           .lost_done = .004 * calls,
                           .lost_not_done = .003 * calls,
                           .late_fire = .002 * calls,
                           .late_change = .002 * calls,
                           .slow = .003 * calls,
                           .freeze_before = .0002 * calls,
                           .freeze_after = .0002 * calls,
                           .crash_in_call = .0002 * calls,
                           .crash_every = 150 * USEC_PER_SEC,
                           .pause_every = 200 * USEC_PER_SEC,
                           .executor_crash_every = 90 * USEC_PER_SEC,
                           .outage_every = 400 * USEC_PER_SEC,
                           .step_every = 60 * USEC_PER_SEC,
                           .stall_every = 900 * USEC_PER_SEC,
                           .leave_every = 120 * USEC_PER_SEC,
                           .drain_every = 120 * USEC_PER_SEC,
                           .loss = .03 * bad,
                           .duplicate = .02 * bad,
                           .busy = .05 * bad,
                           .refuse = .005 * bad,
                           .silent = .01 * bad,
                           .fail = .08 * bad,
                           .slow_run = .02 * bad};
}

static struct sim_node *any_node(void) {
  return sim_world->nodes[rng_below(RNG, (uint64_t)sim_world->o.nodes)];
}

static void start_node(void *arg) {
  if (!sim_world->over)
    sim_node_start(arg);
}

static void restart(struct sim_node *n) {
  sim_at(sim_now + (chance(.8) ? between(10 * USEC_PER_MS, 5 * USEC_PER_SEC) : between(0, USEC_PER_MIN)),
         NULL, start_node, n);
}

static void crash_node(void *arg) {
  (void)arg;
  struct sim_node *n = any_node();
  if (n->proc && n->proc->paused_until <= sim_now) {
    sim_node_crash(n);
    restart(n);
  }
}

static void pause_node(void *arg) {
  (void)arg;
  struct sim_node *n = any_node();
  if (!n->proc)
    return;
  usec_t length =
      chance(.5) ? between(USEC_PER_MS, 4 * USEC_PER_SEC) : between(4 * USEC_PER_SEC, 25 * USEC_PER_SEC);
  sim_trace("%s stands still for %lld ms", n->id, (long long)(length / 1000));
  sim_world->pauses++;
  sim_pause(n->proc, length);
}

static void crash_executor(void *arg) {
  (void)arg;
  sim_executor_crash(sim_world->executors[rng_below(RNG, (uint64_t)sim_world->o.executors)]);
}

static void outage(void *arg) {
  (void)arg;
  sim_world->outage_until =
      sim_now + (chance(.7) ? between(USEC_PER_MS, 3 * USEC_PER_SEC) : between(0, 20 * USEC_PER_SEC));
  usec_t back =
      chance(.5) ? between(0, CLOCKS_DIFFER) : 0; /* another server goes on, whose clock is behind */
  sim_world->begin -= back;
  sim_trace("the database is away, and its clock goes back by %lld us", (long long)back);
}

static void step_clock(void *arg) {
  (void)arg;
  struct sim_node *n = any_node();
  if (n->proc)
    n->proc->wall_offset += between(-USEC_PER_HOUR, USEC_PER_HOUR); /* must not matter */
}

static void leave_node(void *arg) { /* it comes back: watch */
  (void)arg;
  struct sim_node *n = any_node();
  if (n->proc && n->proc->paused_until <= sim_now)
    sim_node_leave(n);
}

static void set_drained(int node, bool drained) {
  auto_arena mem = {0};
  struct store *s;
  struct st_node_drain_ret none;
  (void)sim_db_session(sim_world->db, &s);
  int rc = store_node_drain(s, &(struct st_node_drain){slice_of(sim_world->nodes[node]->id), drained}, &none,
                            &mem, NULL);
  if (rc == 0)
    sim_trace("%s is %s", sim_world->nodes[node]->id, drained ? "drained" : "resumed");
  store_close(&s);
}

static void drain_node(void *arg) {
  (void)arg;
  if (sim_world->o.nodes > 1)
    set_drained((int)rng_below(RNG, (uint64_t)sim_world->o.nodes), chance(.5));
}

static usec_t dark_until;

static void stall(void *arg) { /* the whole house is dark: instants are missed */
  (void)arg;
  usec_t dark = between(20 * USEC_PER_SEC, 4 * USEC_PER_MIN);
  dark_until = sim_now + dark;
  sim_trace("all nodes are down for %lld s", (long long)(dark / USEC_PER_SEC));
  for (int i = 0; i < sim_world->o.nodes; i++) {
    sim_node_crash(sim_world->nodes[i]);
    sim_at(sim_now + dark, NULL, start_node, sim_world->nodes[i]);
  }
}

/* Nodes that are down come back, however they went. */
static void watch(void *arg) {
  (void)arg;
  if (sim_world->over)
    return;
  for (int i = 0; i < sim_world->o.nodes && sim_now > dark_until; i++)
    if (!sim_world->nodes[i]->proc)
      restart(sim_world->nodes[i]);
  sim_at(sim_now + 20 * USEC_PER_SEC, NULL, watch, NULL);
}

struct trouble {
  usec_t every;
  void (*strike)(void *arg);
};
static struct trouble troubles[8];

static void trouble(void *arg) {
  struct trouble *t = arg;
  if (!sim_faulty() || sim_world->over)
    return;
  t->strike(NULL);
  sim_at(sim_now + sim_exponential(t->every), NULL, trouble, t);
}

static void begin_troubles(void) {
  const struct sim_faults *f = &sim_world->f;
  const struct trouble all[] = {
      {f->crash_every, crash_node}, {f->pause_every, pause_node}, {f->executor_crash_every, crash_executor},
      {f->outage_every, outage},    {f->step_every, step_clock},  {f->stall_every, stall},
      {f->leave_every, leave_node}, {f->drain_every, drain_node}};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
    troubles[i] = all[i];
    if (troubles[i].every)
      sim_at(sim_now + sim_exponential(troubles[i].every), NULL, trouble, &troubles[i]);
  }
}

static bool half_a_fire(void *arg) {
  (void)arg;
  return sim_faulty() && chance(.003);
}

/* ------------------------------------------------------------------ an episode */
static void begin(const struct sim_options *o) {
  struct sim_world *w = sim_world;
  w->o = *o;
  rng_seed(&w->rng, o->seed);
  sim_co_reset();
  dark_until = 0;
  w->begin = 1772900000 * USEC_PER_SEC;
  w->faults_end = o->length;
  w->end = o->length + 6 * USEC_PER_MIN;
  mean_faults(&w->f);
  w->db = sim_db_new(o->shards, sim_db_now, NULL);
  memcpy(w->db->removed, o->removed, sizeof w->db->removed);
  w->db->hooks =
      (struct db_hooks){sim_check_run_changed, sim_check_committed, half_a_fire, NULL, sim_check_inbox_gone};
  sim_executors_new();
  for (int i = 0; i < o->nodes; i++) {
    struct sim_node *n = w->nodes[i] = mem_zalloc(sizeof *n);
    n->index = i;
    (void)snprintf(n->id, sizeof n->id, "n%d", i % 100);
    sim_node_start(n);
  }
  sim_people_new();
  begin_troubles();
  sim_at(20 * USEC_PER_SEC, NULL, watch, NULL);
}

static void come_back(void) {
  for (int i = 0; i < sim_world->o.nodes; i++) {
    set_drained(i, false);
    if (!sim_world->nodes[i]->proc)
      sim_node_start(sim_world->nodes[i]);
  }
}

static void clear_away(void) {
  struct sim_world *w = sim_world;
  w->over = true;
  for (int i = 0; i < w->o.nodes; i++)
    sim_node_crash(w->nodes[i]);
  sim_executors_stop();
  sim_co_flush(); /* what is under way comes to nothing */
  sim_executors_free();
  for (int i = 0; i < w->o.nodes; i++)
    mem_free(w->nodes[i]);
  sim_people_free();
  sim_check_free();
  w->digest = hash_u64(w->digest ^ w->db->digest);
  sim_db_free(&w->db);
  sim_co_done();
}

int sim_episode(const struct sim_options *o, struct sim_world *ret) {
  struct sim_world w = {0};
  sim_world = &w;
  begin(o);
  sim_run_until(w.faults_end);
  if (!sim_stopped())
    come_back();
  sim_run_until(w.end);
  if (!sim_stopped())
    sim_check_end();
  clear_away();
  sim_world = NULL;
  *ret = w;
  return w.violations ? 1 : 0;
}
