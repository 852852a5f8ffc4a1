#include "run/service.h"
#include "base/log.h"
#include "base/mem.h"

/* What other rooms call: take-over, fires, events, questions. */

/* Hand over what the open runs brought out. Called with the lock held; gives it back. */
void run_unlock_and_deliver(struct run_service *s) {
  struct run_job *jobs = run_jobs_of(s, &s->opened, s->epochs);
  struct live_release *releases =
      s->opened.releases_count ? mem_array(s->opened.releases_count, sizeof *releases) : NULL;
  size_t n = s->opened.releases_count;
  if (n)
    memcpy(releases, s->opened.releases, n * sizeof *releases);
  live_out_clear(&s->opened);
  mutex_unlock(&s->lock);
  if (jobs)
    s->o.hooks.deliver(s->o.hooks.arg, jobs);
  for (size_t i = 0; i < n; i++)
    s->o.hooks.release(s->o.hooks.arg, releases[i].slot);
  mem_free(releases);
}

struct live *run_decide_begin(struct run_service *s) {
  mutex_lock(&s->lock);
  return s->live;
}

void run_decide_end(struct run_service *s) { mutex_unlock(&s->lock); }

void run_opened(struct run_service *s, const struct run_row *rows, struct task_spec *const *specs, size_t n) {
  usec_t now = s->o.now(s->o.now_arg);
  mutex_lock(&s->lock);
  usec_t before = live_next_wake(s->live);
  for (size_t i = 0; i < n; i++)
    (void)live_open(s->live, &rows[i], specs[i], false, now,
                    &s->opened); /* false: taken over already with its row */
  bool wake = live_next_wake(s->live) < before;
  run_unlock_and_deliver(s);
  if (wake)
    run_wake_writer(s);
}

/* ---------------------------------------------------------------- bounds */

/* With the lock. */
void run_hold_or_not(struct run_service *s) {
  bool hold = false;
  for (int32_t i = 0; i < s->o.shard_count; i++)
    hold = hold || s->expected[i] || s->adopting[i];
  live_hold(s->live, hold);
}

void run_expect(struct run_service *s, int32_t shard) {
  mutex_lock(&s->lock);
  s->expected[shard] = true;
  run_hold_or_not(s);
  mutex_unlock(&s->lock);
}

void run_bound(struct run_service *s, struct slice ns, struct slice group, const struct live_bound *b) {
  mutex_lock(&s->lock);
  usec_t before = live_next_wake(s->live);
  live_bound(s->live, ns, group, b);
  bool wake = live_next_wake(s->live) < before;
  mutex_unlock(&s->lock);
  if (wake)
    run_wake_writer(s);
}

enum run_wait run_waits_for(struct run_service *s, const struct run_key *key) {
  mutex_lock(&s->lock);
  enum run_wait w = live_waits_for(s->live, key);
  mutex_unlock(&s->lock);
  return w;
}

void run_count_waits(struct run_service *s, int64_t ret[WAIT_MAX_]) {
  mutex_lock(&s->lock);
  live_count_waits(s->live, ret);
  mutex_unlock(&s->lock);
}

/* ---------------------------------------------------------------- take-over */

enum { ADOPT_PAGE = 5000 };

/* A definition that cannot be read any more (its zone vanished) must not keep a run open for ever. */
static int spec_of(struct spec_cache *specs, const struct payload_row *p, struct task_spec **ret,
                   struct err *e) {
  if (p->has && spec_cache_get(specs, p->definition, ret, e) >= 0)
    return 0;
  return spec_cache_get(
      specs, SLICE("{\"executor_group\":\"-\",\"handler\":\"-\",\"schedule\":{\"kind\":\"MANUAL\"}}"), ret,
      e);
}

struct adopted { /* what a take-over has read so far */
  struct run_row *rows;
  struct task_spec **specs;
  size_t count, cap, specs_cap;
  struct arena mem; /* texts of the rows */
};

static int adopt_page(struct store *store, const struct st_run_load_ret *page, struct spec_cache *specs,
                      struct adopted *a, struct err *e) {
  auto_arena mem = {0};
  int64_t *ids = arena_array(&mem, page->count, sizeof *ids);
  int32_t *versions = arena_array(&mem, page->count, sizeof *versions);
  for (size_t i = 0; i < page->count; i++) {
    ids[i] = page->rows[i].key.task_id;
    versions[i] = page->rows[i].version;
  }
  struct st_payload_get_ret defs;
  int rc = store_payload_get(store, &(struct st_payload_get){ids, versions, page->count}, &defs, &mem, e);
  for (size_t i = 0; rc >= 0 && i < page->count; i++) {
    mem_reserve(a->rows, a->count, a->cap);
    mem_reserve(a->specs, a->count, a->specs_cap);
    rc = spec_of(specs, &defs.rows[i], &a->specs[a->count], e);
    if (rc >= 0)
      a->rows[a->count++] = page->rows[i];
  }
  return rc;
}

static int read_open_runs(struct store *store, int32_t shard, struct spec_cache *specs, struct adopted *a,
                          struct err *e) {
  struct st_run_load in = {.shard = shard, .limit = ADOPT_PAGE};
  struct st_run_load_ret page;
  struct run_key after;
  do {
    int rc = store_run_load(store, &in, &page, &a->mem, e);
    if (rc >= 0 && page.count)
      rc = adopt_page(store, &page, specs, a, e);
    if (rc < 0)
      return rc;
    if (page.count) {
      after = page.rows[page.count - 1].key;
      in.after = &after;
    }
  } while (page.count == ADOPT_PAGE);
  return 0;
}

/* Reads are not fenced: what was read while another owner had the shard may hold runs of its FIREs, which it does not know of itself yet. */
static int still_ours(struct store *store, int32_t shard, int64_t epoch, struct arena *mem, struct err *e) {
  struct st_shard_list_ret list;
  int rc = store_shard_list(store, &(struct st_shard_list){0}, &list, mem, e);
  for (size_t i = 0; rc >= 0 && i < list.count; i++)
    if (list.shards[i].id == shard && list.shards[i].epoch != epoch)
      return err_set(e, ERR_FENCED, "shard %d was taken by another owner while its runs were read",
                     (int)shard);
  return rc;
}

static bool has_key(const struct run_key *sorted, size_t n, const struct run_key *k) {
  for (size_t lo = 0; lo < n;) {
    size_t middle = lo + (n - lo) / 2;
    int c = run_key_cmp(&sorted[middle], k);
    if (c == 0)
      return true;
    if (c < 0)
      lo = middle + 1;
    else
      n = middle;
  }
  return false;
}

/* Runs that were at an executor hold its slot again; where it is gone, they are lost there. */
static void find_holders(struct run_service *s, const struct adopted *a) {
  for (size_t i = 0; s->o.hooks.adopted && i < a->count; i++) {
    const struct run_row *row = &a->rows[i];
    if (row->state != RUN_RUNNING || !row->executor.n)
      continue;
    void *slot = s->o.hooks.adopted(s->o.hooks.arg, a->specs[i], row->executor, row->incarnation);
    if (!slot) {
      struct live_event ev = {
          .kind = EV_EXECUTOR_LOST, .key = row->key, .attempt = row->attempt, .progress = -1};
      (void)run_post(s, &ev, 1, NULL, NULL,
                     NULL); /* refused when full: the attempt's time-out ends it then */
      continue;
    }
    mutex_lock(&s->lock);
    bool taken = live_adopt_slot(s->live, &row->key, row->attempt, slot);
    mutex_unlock(&s->lock);
    if (!taken) /* it ended meanwhile */
      s->o.hooks.release(s->o.hooks.arg, slot);
  }
}

int run_adopt(struct run_service *s, struct store *store, int32_t shard, int64_t epoch,
              struct spec_cache *specs, struct err *e) {
  struct adopted a = {0};
  size_t known_count = 0, total = 0;
  mutex_lock(&s->lock);
  if (s->closing[shard]) /* of an earlier epoch, and lost before it was handed over */
    run_forget_shard(s, shard);
  s->epochs[shard] = epoch;
  s->adopting[shard] = true;
  s->expected[shard] = false;
  run_hold_or_not(s);
  struct run_key *known = live_keys_of_shard(s->live, shard, &known_count);
  mutex_unlock(&s->lock);
  int rc = read_open_runs(store, shard, specs, &a, e);
  if (rc >= 0)
    rc = still_ours(store, shard, epoch, &a.mem, e);
  if (rc >= 0) {
    usec_t now = s->o.now(s->o.now_arg);
    mutex_lock(&s->lock);
    /* all at once: a queued run must not be let go before the one that it waits for is known */
    for (size_t i = 0; i < a.count; i++)
      if (!has_key(known, known_count,
                   &a.rows[i].key)) /* known before: it may have ended since its row was read */
        total += live_open(s->live, &a.rows[i], a.specs[i], true, now, &s->opened);
    s->adopting[shard] = false;
    run_hold_or_not(s);
    run_unlock_and_deliver(s);
    find_holders(s, &a);
    run_wake_writer(s);
  }
  for (size_t i = 0; i < a.count; i++)
    task_spec_unref(&a.specs[i]);
  mem_free(a.rows);
  mem_free(a.specs);
  mem_free(known);
  arena_done(&a.mem);
  if (total)
    log_info("open runs taken over", LF_I("shard", shard), LF_I("runs", total));
  return rc < 0 ? rc : 0;
}

void run_disown(struct run_service *s, int32_t shard) {
  mutex_lock(&s->lock);
  run_forget_shard(s, shard);
  run_unlock_and_deliver(s);
  run_wake_writer(s); /* there may be room for others */
}

bool run_has_scheduled(struct run_service *s, int64_t task_id) {
  mutex_lock(&s->lock);
  bool has = live_has_scheduled(s->live, task_id);
  mutex_unlock(&s->lock);
  return has;
}

/* ---------------------------------------------------------------- the dispatcher's questions */

bool run_wanted(struct run_service *s, const struct run_job *j) {
  mutex_lock(&s->lock);
  bool wanted = s->epochs[j->key.shard] == j->fence && !s->closing[j->key.shard] &&
                live_wanted(s->live, &j->key, j->attempt);
  mutex_unlock(&s->lock);
  return wanted;
}

bool run_sending(struct run_service *s, const struct run_job *j, const struct live_place *where) {
  mutex_lock(&s->lock);
  bool ok = s->epochs[j->key.shard] == j->fence && !s->closing[j->key.shard] &&
            live_sending(s->live, &j->key, j->attempt, where);
  mutex_unlock(&s->lock);
  return ok;
}

void *run_take_slot(struct run_service *s, const struct run_job *j) {
  mutex_lock(&s->lock);
  void *slot = s->epochs[j->key.shard] == j->fence ? live_take_slot(s->live, &j->key, j->attempt) : NULL;
  mutex_unlock(&s->lock);
  return slot;
}

/* ---------------------------------------------------------------- events */

static struct slice put_text(char **at, struct slice s) {
  if (!s.p)
    return s;
  memcpy(*at, s.p, s.n);
  struct slice copy = {*at, s.n};
  *at += s.n;
  return copy;
}

/* One block: the message and copies of all its texts. */
static struct run_msg *msg_new(const struct live_event *ev) {
  size_t text = ev->executor.n + ev->result.n + ev->error_type.n + ev->error_message.n + ev->error_detail.n +
                ev->ns.n + ev->group.n;
  struct run_msg *m = mem_zalloc(sizeof *m + text);
  char *at = (char *)(m + 1);
  m->ev = *ev;
  m->ev.executor = put_text(&at, ev->executor);
  m->ev.result = put_text(&at, ev->result);
  m->ev.error_type = put_text(&at, ev->error_type);
  m->ev.error_message = put_text(&at, ev->error_message);
  m->ev.error_detail = put_text(&at, ev->error_detail);
  m->ev.ns = put_text(&at, ev->ns);
  m->ev.group = put_text(&at, ev->group);
  return m;
}

struct asker { /* who waits for the answers */
  void (*done)(void *arg, const enum run_result *results, size_t n);
  void *arg;
};

static int post(struct run_service *s, const struct live_event *events, size_t n, int64_t inbox_no,
                const struct asker *a, struct err *e) {
  /* nobody can be told to come again with what a delivery brought: for those there is as much room once more */
  if (n == 0 || queue_size(s->queue) + n > (a->done ? s->o.queue_max : 2 * s->o.queue_max))
    return err_set(e, ERR_BUSY, "the run writer has %zu events waiting, no more are taken",
                   queue_size(s->queue));
  struct run_ticket *t = NULL;
  if (a->done) {
    t = mem_zalloc(sizeof *t + n * sizeof t->results[0]);
    t->done = a->done;
    t->arg = a->arg;
    t->count = n;
    t->left = n;
  }
  for (size_t i = 0; i < n; i++) {
    struct run_msg *m = msg_new(&events[i]);
    m->token = (struct run_token){t, i, events[i].key.shard};
    m->ev.token = t ? &m->token : NULL;
    m->inbox_no = inbox_no;
    if (events[i].key.shard >= s->o.shard_count || queue_push(s->queue, m) < 0) {
      run_answer(&m->token, RUN_RESULT_NOT_OWNER); /* asked again later, it is recorded then */
      mem_free(m);
    }
  }
  return 0;
}

int run_post(struct run_service *s, const struct live_event *events, size_t n,
             void (*done)(void *arg, const enum run_result *results, size_t n), void *arg, struct err *e) {
  return post(s, events, n, 0, &(struct asker){done, arg}, e);
}

int run_post_inbox(struct run_service *s, const struct live_event *ev, int64_t no,
                   void (*done)(void *arg, const enum run_result *results, size_t n), void *arg,
                   struct err *e) {
  return post(s, ev, 1, no, &(struct asker){done, arg}, e);
}

int run_executor_lost(struct run_service *s, struct slice ns, struct slice group, struct slice executor,
                      int64_t incarnation) {
  struct live_event ev = {.kind = EV_EXECUTOR_LOST,
                          .executor = executor,
                          .incarnation = incarnation,
                          .ns = ns,
                          .group = group,
                          .progress = -1};
  struct run_msg *m = msg_new(&ev);
  m->kind = RUN_MSG_EXECUTOR_LOST;
  mutex_lock(&s->lock);
  m->sends = live_sends(s->live);
  mutex_unlock(&s->lock);
  int rc = queue_push_wait(s->queue, m, USEC_PER_SEC);
  if (rc < 0)
    mem_free(m);
  return rc;
}

size_t run_cancel_task(struct run_service *s, int64_t task_id) {
  mutex_lock(&s->lock);
  size_t n = 0;
  struct run_key *keys = live_keys_of_task(s->live, task_id, &n);
  mutex_unlock(&s->lock);
  for (size_t i = 0; i < n; i++) {
    struct live_event ev = {.kind = EV_CANCEL, .key = keys[i], .progress = -1};
    (void)run_post(s, &ev, 1, NULL, NULL,
                   NULL); /* refused when full: asked again with the next look at the inbox */
  }
  mem_free(keys);
  return n;
}

/* ---------------------------------------------------------------- questions */

int run_get(struct run_service *s, const struct run_key *key, struct st_run_get_ret *ret, struct arena *mem,
            struct err *e) {
  return store_run_get(s->o.api, &(struct st_run_get){*key}, ret, mem, e);
}

int run_list(struct run_service *s, const struct st_run_list *in, struct st_run_list_ret *ret,
             struct arena *mem, struct err *e) {
  return store_run_list(s->o.api, in, ret, mem, e);
}

int run_attempts(struct run_service *s, const struct run_key *key, struct st_attempt_list_ret *ret,
                 struct arena *mem, struct err *e) {
  return store_attempt_list(s->o.api, &(struct st_attempt_list){*key}, ret, mem, e);
}

enum { STATE_PENDING, STATE_DISPATCHED, STATE_RUNNING, STATES, STATE_NONE = -1 };
#define OLDEST_LOOK 20000 /* runs looked at while the lock is held: about a millisecond */

/* The public state of an open run. */
static int state_of(enum run_phase phase) {
  switch (phase) {
  case PHASE_SCHEDULED:
  case PHASE_QUEUED:
  case PHASE_RETRY_WAIT: return STATE_PENDING;
  case PHASE_DISPATCHING: return STATE_DISPATCHED;
  case PHASE_ACCEPTED:
  case PHASE_PROGRESS:
  case PHASE_CANCELLING: return STATE_RUNNING;
  case PHASE_ENDED:
  case PHASE_MAX_: break;
  }
  return STATE_NONE;
}

void run_counts(struct run_service *s, int64_t ret[3], usec_t ret_age[3]) {
  usec_t oldest[PHASE_MAX_], now = s->o.now(s->o.now_arg);
  memset(ret, 0, STATES * sizeof *ret);
  memset(ret_age, 0, STATES * sizeof *ret_age);
  mutex_lock(&s->lock);
  live_oldest(s->live, OLDEST_LOOK, oldest);
  for (int phase = 0; phase < PHASE_MAX_; phase++) {
    int st = state_of((enum run_phase)phase);
    if (st == STATE_NONE)
      continue;
    ret[st] += (int64_t)live_count_phase(s->live, (enum run_phase)phase);
    usec_t age = oldest[phase] < now ? now - oldest[phase] : 0;
    ret_age[st] = age > ret_age[st] ? age : ret_age[st];
  }
  mutex_unlock(&s->lock);
}
