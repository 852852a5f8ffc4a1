#include "sim_plan.h"
#include "base/mem.h"
#include "core/inbox.h"
#include "report/forward.h"
#include <stdio.h>

/* People who create, change, pause, resume, delete, trigger and cancel, at random, through the database as src/task does. */

struct sim_people sim_people;

struct sim_task *sim_people_task(int64_t id) {
  for (size_t i = 0; i < sim_people.count; i++)
    if (sim_people.tasks[i].id == id)
      return &sim_people.tasks[i];
  return NULL;
}

const struct sim_plan *sim_plan_of(int64_t task_id, int32_t version) {
  const struct sim_task *t = sim_people_task(task_id);
  return t && version >= 1 && (size_t)version <= t->count ? &t->plans[version - 1] : NULL;
}

bool sim_ignores_overlap(const struct run_key *key) {
  for (size_t i = 0; i < sim_people.ignoring_count; i++)
    if (run_key_eq(&sim_people.ignoring[i], key))
      return true;
  return false;
}

const struct sim_group sim_groups[SIM_GROUPS] = {
    {"g", {0}}, {"g1", {.max_concurrent = 2}}, {"g2", {.max_concurrent = 4, .rate = .5, .burst = 2}}};
const struct live_bound sim_namespace_bound = {.max_concurrent = 8};

const struct sim_group *sim_group_of(const struct run_key *key) {
  const struct db_run *r = sim_db_run(sim_world->db, key);
  const struct sim_plan *p = r ? sim_plan_of(key->task_id, r->row.version) : NULL;
  return &sim_groups[p ? p->group : 0];
}

/* ------------------------------------------------------------------ instants, by counting */
static bool cron_fits(const struct sim_plan *p, usec_t at) {
  int64_t s = at / USEC_PER_SEC;
  return (p->seconds >> (s % 60) & 1) && (p->minutes >> (s / 60 % 60) & 1);
}

usec_t sim_plan_next(const struct sim_plan *p, usec_t after) {
  usec_t at = USEC_NEVER;
  if (p->start_at && after < p->start_at - 1)
    after = p->start_at - 1;
  if (p->kind == SCHEDULE_ONE_TIME) {
    at = p->anchor > after ? p->anchor : USEC_NEVER;
  } else if (p->kind == SCHEDULE_FIXED_RATE) {
    at = p->anchor;
    if (at <= after)
      at += (after - at) / p->every * p->every;
    while (at <= after)
      at += p->every;
  } else if (p->kind == SCHEDULE_CRON) {
    at = after / USEC_PER_SEC * USEC_PER_SEC + USEC_PER_SEC;
    while (!cron_fits(p, at))
      at += USEC_PER_SEC;
  }
  return p->end_at && at > p->end_at ? USEC_NEVER : at;
}

usec_t sim_plan_due(const struct sim_plan *p, int64_t task_id, usec_t nominal) {
  usec_t room = p->jitter;
  if (!room)
    return nominal;
  if (p->kind == SCHEDULE_CRON) {
    usec_t next = nominal + USEC_PER_SEC;
    while (!cron_fits(p, next) && next - nominal < room)
      next += USEC_PER_SEC;
    room = next - nominal < room ? next - nominal : room;
  }
  uint64_t h = hash_u64(hash_u64((uint64_t)task_id) ^ (uint64_t)nominal);
  return nominal + (usec_t)(((unsigned __int128)h * (uint64_t)room) >> 64);
}

/* ------------------------------------------------------------------ what they want */
static usec_t whole(usec_t t, usec_t unit) { return t / unit * unit; }

static usec_t less(usec_t a, usec_t b) { return a < b ? a : b; }

/* Less than the shortest time between two instants. */
static usec_t want_jitter(const struct sim_plan *p) {
  usec_t shortest = p->kind == SCHEDULE_CRON ? USEC_PER_MIN : p->every;
  int64_t last = -1, first = -1;
  for (int i = 0; p->kind == SCHEDULE_CRON && i < 60; i++)
    if (p->seconds >> i & 1) {
      first = first < 0 ? i : first;
      if (last >= 0)
        shortest = less(shortest, (i - last) * USEC_PER_SEC);
      last = i;
    }
  if (p->kind == SCHEDULE_CRON)
    shortest = less(shortest, (first + 60 - last) * USEC_PER_SEC);
  return whole(between(100 * USEC_PER_MS, less(shortest, SIM_JITTER_MAX) - 100 * USEC_PER_MS), USEC_PER_MS);
}

static bool jitters(const struct sim_plan *p) {
  return p->kind == SCHEDULE_CRON || p->kind == SCHEDULE_FIXED_RATE;
}

static void want_limits(struct sim_plan *p, usec_t now) {
  bool repeats = jitters(p) || p->kind == SCHEDULE_FIXED_DELAY;
  if (repeats && chance(.15))
    p->start_at = now + between(0, USEC_PER_MIN);
  if (repeats && chance(.15))
    p->end_at = now + USEC_PER_MIN + between(USEC_PER_MIN, 20 * USEC_PER_MIN);
  if (repeats && chance(.2))
    p->max_runs = between(1, 30);
  if (jitters(p) && chance(.3))
    p->jitter = want_jitter(p);
}

static void want_schedule(struct sim_plan *p) {
  usec_t now = sim_db_now(NULL);
  static const enum schedule_kind kinds[] = {SCHEDULE_CRON,       SCHEDULE_CRON,        SCHEDULE_FIXED_RATE,
                                             SCHEDULE_FIXED_RATE, SCHEDULE_FIXED_DELAY, SCHEDULE_FIXED_DELAY,
                                             SCHEDULE_ONE_TIME,   SCHEDULE_MANUAL};
  p->kind = kinds[rng_below(RNG, 8)];
  switch (p->kind) {
  case SCHEDULE_CRON:
    p->minutes = UINT64_MAX;
    for (uint64_t n = 1 + rng_below(RNG, 3); n; n--)
      p->seconds |= 1ull << (5 * rng_below(RNG, 12));
    if (chance(.3))
      p->minutes = (1ull << rng_below(RNG, 60)) | (1ull << rng_below(RNG, 60)) | (1ull << rng_below(RNG, 60));
    break;
  case SCHEDULE_FIXED_RATE:
    p->every = whole(between(4 * USEC_PER_SEC, 40 * USEC_PER_SEC), 250 * USEC_PER_MS);
    p->anchor = chance(.5) ? whole(now, USEC_PER_MIN) : 0;
    break;
  case SCHEDULE_FIXED_DELAY: p->every = whole(between(USEC_PER_SEC, 20 * USEC_PER_SEC), USEC_PER_MS); break;
  case SCHEDULE_ONE_TIME:
    p->anchor = whole(chance(.2) ? now - between(0, 2 * USEC_PER_MIN) : now + between(0, 3 * USEC_PER_MIN),
                      USEC_PER_SEC);
    break;
  case SCHEDULE_MANUAL:
  case SCHEDULE_KIND_MAX_: break;
  }
  want_limits(p, now);
}

static struct sim_plan want(void) {
  struct sim_plan p = {0};
  want_schedule(&p);
  p.misfire = (enum misfire_policy)rng_below(RNG, MISFIRE_MAX_);
  p.threshold = between(15, 30) * USEC_PER_SEC;
  p.window = chance(.5) ? USEC_PER_HOUR : between(30, 120) * USEC_PER_SEC;
  p.catchup_max = between(1, 20);
  p.catchup_rate = chance(.5) ? 1 : 5;
  p.overlap = (enum overlap_policy)rng_below(RNG, sim_world->o.limits ? OVERLAP_MAX_ : OVERLAP_REPLACE);
  if (sim_world->o.limits) {
    bool several = p.overlap == OVERLAP_ALLOW || p.overlap == OVERLAP_QUEUE_ALL;
    p.max_concurrent = several && chance(.5) ? between(1, 4) : 0;
    p.group = (int)rng_below(RNG, SIM_GROUPS);
    p.priority = (int)rng_below(RNG, 10);
  }
  p.max_attempts = (int32_t)between(1, 4);
  p.timeout = between(20, 100) * USEC_PER_SEC;
  p.heartbeat = chance(.3) ? between(6, 12) * USEC_PER_SEC : 0;
  return p;
}

static void add_bits(struct str *s, uint64_t bits) {
  if (bits == UINT64_MAX) {
    str_addc(s, '*');
    return;
  }
  bool first = true;
  for (int i = 0; i < 60; i++)
    if (bits >> i & 1) {
      str_addf(s, "%s%d", first ? "" : ",", i);
      first = false;
    }
}

static void add_schedule(struct str *s, const struct sim_plan *p) {
  char text[TIME_TEXT_MAX];
  str_addf(s, "{\"kind\":\"%s\"", schedule_kind_names[p->kind]);
  if (p->kind == SCHEDULE_CRON) {
    str_addz(s, ",\"expression\":\"");
    add_bits(s, p->seconds);
    str_addc(s, ' ');
    add_bits(s, p->minutes);
    str_addz(s, " * * * ?\"");
  }
  if (p->every)
    str_addf(s, ",\"every\":\"%s\"", duration_format(p->every, text));
  if (p->start_at)
    str_addf(s, ",\"start_at\":\"%s\"", time_format(p->start_at, text));
  if (p->end_at)
    str_addf(s, ",\"end_at\":\"%s\"", time_format(p->end_at, text));
  if (p->max_runs)
    str_addf(s, ",\"max_runs\":%lld", (long long)p->max_runs);
  if (p->jitter)
    str_addf(s, ",\"jitter\":\"%s\"", duration_format(p->jitter, text));
  str_addc(s, '}');
}

static void add_duration(struct str *s, const char *key, usec_t d) {
  char text[TIME_TEXT_MAX];
  str_addf(s, ",\"%s\":\"%s\"", key, duration_format(d, text));
}

static char *definition(const struct sim_plan *p) {
  struct str s;
  str_init(&s, 16384);
  str_addz(&s, "{\"schedule\":");
  add_schedule(&s, p);
  str_addf(&s,
           ",\"executor_group\":\"%s\",\"handler\":\"h\",\"misfire_policy\":\"%s\",\"overlap_policy\":\"%s\"",
           sim_groups[p->group].name, misfire_policy_names[p->misfire], overlap_policy_names[p->overlap]);
  if (p->max_concurrent)
    str_addf(&s, ",\"max_concurrent\":%lld", (long long)p->max_concurrent);
  if (sim_world->o.limits)
    str_addf(&s, ",\"priority\":%d", p->priority);
  add_duration(&s, "misfire_threshold", p->threshold);
  add_duration(&s, "catchup_window", p->window);
  str_addf(&s, ",\"catchup_max_runs\":%lld,\"catchup_rate\":%g", (long long)p->catchup_max, p->catchup_rate);
  str_addf(&s, ",\"retry\":{\"max_attempts\":%d,\"initial_interval\":\"1s\",\"max_interval\":\"8s\"}",
           p->max_attempts);
  add_duration(&s, "dispatch_timeout", 6 * USEC_PER_SEC);
  add_duration(&s, "attempt_timeout", 15 * USEC_PER_SEC);
  add_duration(&s, "timeout", p->timeout);
  add_duration(&s, "cancel_timeout", 5 * USEC_PER_SEC);
  if (p->heartbeat)
    add_duration(&s, "heartbeat_timeout", p->heartbeat);
  str_addc(&s, '}');
  return str_take(&s);
}

/* ------------------------------------------------------------------ what they do */
static void tell(int32_t shard) {
  for (int i = 0; i < sim_world->o.nodes; i++)
    if (chance(.7))
      sim_node_changed(sim_world->nodes[i], shard);
}

static void note_version(struct sim_task *t, const struct sim_plan *p, const struct task_version_row *v) {
  mem_reserve(t->plans, t->count, t->cap);
  t->plans[t->count] = *p;
  t->plans[t->count++].anchor = v->anchor;
  tell(t->shard);
}

static struct task_def def_of(const struct sim_plan *p, const char *name, const char *text) {
  return (struct task_def){.ns = SLICE("default"),
                           .name = slice_of(name),
                           .definition = slice_of(text),
                           .group = slice_of(sim_groups[p->group].name),
                           .handler = SLICE("h"),
                           .kind = p->kind,
                           .anchor = p->anchor,
                           .state = TASK_ENABLED};
}

static void create_task(void) {
  struct sim_plan p = want();
  auto_free char *text = definition(&p);
  auto_arena mem = {0};
  char name[32];
  (void)snprintf(name, sizeof name, "t%zu", sim_people.count);
  struct task_def def = def_of(&p, name, text);
  struct st_task_put_ret ret;
  struct err e = {0};
  if (store_task_put(sim_people.db, &(struct st_task_put){&def, 1, SLICE("p"), NULL}, &ret, &mem, &e) < 0)
    return;
  mem_reserve(sim_people.tasks, sim_people.count, sim_people.cap);
  struct sim_task *t = &sim_people.tasks[sim_people.count++];
  *t = (struct sim_task){.id = ret.rows[0].task_id, .shard = ret.rows[0].shard};
  note_version(t, &p, &ret.rows[0]);
  sim_trace("task %lld created: %s", (long long)t->id, text);
}

static int change(struct sim_task *t, struct st_task_change *in, const struct sim_plan *p) {
  auto_arena mem = {0};
  struct st_task_change_ret ret;
  struct err e = {0};
  in->task_id = t->id;
  int rc = store_task_change(sim_people.db, in, &ret, &mem, &e);
  if (rc == 0) {
    note_version(t, p, &ret.row);
    sim_trace("task %lld version %d is %s from %lld", (long long)t->id, ret.row.version,
              task_state_names[ret.row.state], (long long)ret.row.effective_at);
  }
  return rc;
}

/* What has been fired may be due again, by the version that this makes. */
static struct sim_plan with_other_jitter(const struct sim_plan *was) {
  struct sim_plan p = *was;
  p.jitter = chance(.2) ? 0 : want_jitter(was);
  return p;
}

static struct sim_plan with_other_policies(const struct sim_plan *was) {
  struct sim_plan p = *was, q = want();
  p.misfire = q.misfire;
  p.overlap = q.overlap;
  p.max_concurrent = q.max_concurrent;
  p.group = q.group;
  p.priority = q.priority;
  p.max_attempts = q.max_attempts;
  p.timeout = q.timeout;
  return p;
}

static void redefine(struct sim_task *t, struct sim_plan p) {
  auto_free char *text = definition(&p);
  char name[32];
  (void)snprintf(name, sizeof name, "t%zu", (size_t)(t - sim_people.tasks));
  struct task_def def = def_of(&p, name, text);
  enum task_state now = sim_db_task(sim_world->db, t->id)->state;
  def.state = now == TASK_COMPLETED ? TASK_ENABLED : now;
  if (change(t, &(struct st_task_change){.def = &def, .state = def.state}, &p) == 0)
    sim_trace("task %lld: %s", (long long)t->id, text);
}

static void edit(struct sim_task *t) {
  const struct sim_plan *was = &t->plans[t->count - 1];
  if (chance(.4))
    redefine(t, want());
  else if (jitters(was) && chance(.5))
    redefine(t, with_other_jitter(was));
  else
    redefine(t, with_other_policies(was));
}

static usec_t paused_since(const struct db_task *d) {
  size_t i = d->count;
  while (i > 1 && d->versions[i - 2].v.state == TASK_PAUSED)
    i--;
  return d->versions[i - 1].v.effective_at;
}

static void resume(struct sim_task *t) {
  const struct db_task *d = sim_db_task(sim_world->db, t->id);
  if (d->state == TASK_PAUSED && jitters(&t->plans[t->count - 1]) && chance(.3))
    redefine(t, with_other_jitter(&t->plans[t->count - 1]));
  struct sim_plan p = t->plans[t->count - 1];
  if (chance(.5) || d->state != TASK_PAUSED) {
    (void)change(t, &(struct st_task_change){.state = TASK_ENABLED}, &p);
    return;
  }
  struct inbox_item item = {
      .kind = INBOX_CATCHUP,
      .request = {.key = {.task_id = t->id}, .from = paused_since(d), .version = (int32_t)t->count + 1}};
  item.request.to = sim_db_now(NULL) + between(-20 * USEC_PER_MS, 20 * USEC_PER_MS);
  if (item.request.to < item.request.from)
    item.request.to = item.request.from;
  auto_free char *body = inbox_body(&item);
  struct inbox_row row = {.shard = t->shard, .kind = INBOX_CATCHUP, .body = slice_of(body)};
  if (change(t, &(struct st_task_change){.state = TASK_ENABLED, .inbox = &row}, &p) != 0)
    return;
  mem_reserve(sim_people.catch_ups, sim_people.catch_up_count, sim_people.catch_up_cap);
  sim_people.catch_ups[sim_people.catch_up_count++] = (struct sim_catch_up){
      t->id, (int32_t)t->count, item.request.from, d->versions[d->count - 1].v.effective_at};
  sim_trace("task %lld: with catch-up of (%lld, %lld]", (long long)t->id, (long long)item.request.from,
            (long long)item.request.to);
}

static void delete_task(struct sim_task *t, bool even_with_open_runs) {
  struct inbox_item item = {.kind = INBOX_CANCEL, .request = {.key = {.task_id = t->id}}};
  auto_free char *body = inbox_body(&item);
  struct inbox_row row = {.shard = t->shard, .kind = INBOX_CANCEL, .body = slice_of(body)};
  struct sim_plan p = t->plans[t->count - 1];
  struct st_task_change in = {.state = TASK_DELETED, .even_with_open_runs = even_with_open_runs};
  in.inbox = even_with_open_runs ? &row : NULL;
  t->deleted = change(t, &in, &p) == 0;
}

static void trigger(struct sim_task *t) {
  struct run_key key = {t->shard, sim_db_now(NULL), t->id, (int32_t)(rng_below(RNG, 1u << 30) | 1u << 30)};
  struct inbox_item item = {.kind = INBOX_TRIGGER,
                            .request = {.key = key, .ignore_overlap = chance(.3), .origin = ORIGIN_API}};
  auto_free char *body = inbox_body(&item);
  (void)sim_db_inbox_add(sim_world->db, t->shard, INBOX_TRIGGER, slice_of(body));
  mem_reserve(sim_people.triggers, sim_people.trigger_count, sim_people.trigger_cap);
  sim_people.triggers[sim_people.trigger_count++] = key;
  if (item.request.ignore_overlap) {
    mem_reserve(sim_people.ignoring, sim_people.ignoring_count, sim_people.ignoring_cap);
    sim_people.ignoring[sim_people.ignoring_count++] = key;
  }
  tell(t->shard);
}

static void cancel_answered(void *arg, const enum run_result *results, size_t n) {
  (void)results, (void)n; /* it may be asked in vain, and again another time */
  mem_free(arg);
}

/* Cancel one of the open runs, at any node. */
static void cancel_run(struct sim_task *t) {
  for (struct db_run *r = sim_world->db->shards[t->shard].open; r; r = r->next) {
    if (r->key.task_id != t->id)
      continue;
    struct sim_node *n = sim_world->nodes[rng_below(RNG, (uint64_t)sim_world->o.nodes)];
    if (!n->up || n->proc->dying || n->proc->paused_until > sim_now)
      return;
    struct live_event *ev = mem_alloc(sizeof *ev);
    *ev = (struct live_event){.kind = EV_CANCEL, .key = r->key, .progress = -1};
    sim_proc = n->proc;
    if (forward_post(n->forward, ev, 1, cancel_answered, ev, NULL) < 0)
      mem_free(ev);
    sim_proc = NULL;
    return;
  }
}

static void pause_task(struct sim_task *t) {
  struct sim_plan p = t->plans[t->count - 1];
  (void)change(t, &(struct st_task_change){.state = TASK_PAUSED}, &p);
}

static void act(void *arg) {
  (void)arg;
  if (sim_now >= sim_world->faults_end)
    return;
  sim_at(sim_now + sim_exponential(6 * USEC_PER_SEC), NULL, act, NULL);
  if (sim_world->db->tx) /* they would wait for the lock */
    return;
  size_t alive = 0;
  for (size_t i = 0; i < sim_people.count; i++)
    alive += !sim_people.tasks[i].deleted;
  if (alive < (size_t)sim_world->o.tasks) {
    create_task();
    return;
  }
  struct sim_task *t = &sim_people.tasks[rng_below(RNG, sim_people.count)];
  if (t->deleted)
    return;
  uint64_t what = rng_below(RNG, 100);
  if (what < 20)
    edit(t);
  else if (what < 35)
    pause_task(t);
  else if (what < 55)
    resume(t);
  else if (what < 60)
    delete_task(t, chance(.7));
  else if (what < 85)
    trigger(t);
  else
    cancel_run(t);
}

/* The end: nothing new is due after it. */
static void pause_all(void *arg) {
  (void)arg;
  if (sim_world->db->tx) {
    sim_at(sim_now + USEC_PER_MS, NULL, pause_all, NULL);
    return;
  }
  for (size_t i = 0; i < sim_people.count; i++) {
    struct sim_task *t = &sim_people.tasks[i];
    struct sim_plan p = t->plans[t->count - 1];
    if (!t->deleted)
      (void)change(t, &(struct st_task_change){.state = TASK_PAUSED}, &p);
  }
}

void sim_people_new(void) {
  sim_people = (struct sim_people){0};
  (void)sim_db_session(sim_world->db, &sim_people.db);
  for (int i = 0; i < sim_world->o.tasks; i++)
    create_task();
  if (sim_world->o.after)
    sim_after_new(sim_people.db);
  sim_at(sim_now + USEC_PER_SEC, NULL, act, NULL);
  sim_at(sim_world->faults_end + 30 * USEC_PER_SEC, NULL, pause_all, NULL);
}

void sim_people_free(void) {
  for (size_t i = 0; i < sim_people.count; i++)
    mem_free(sim_people.tasks[i].plans);
  store_close(&sim_people.db);
  mem_free(sim_people.tasks);
  mem_free(sim_people.catch_ups);
  mem_free(sim_people.ignoring);
  mem_free(sim_people.triggers);
  sim_people = (struct sim_people){0};
}
