#include "run/service.h"
#include "base/log.h"
#include "base/mem.h"

/* What other rooms call: take-over, fires, events, questions. */

/* Hand over what the open runs brought out. Called with the lock held; gives it back. */
static void unlock_and_deliver(struct run_service *s) {
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
  unlock_and_deliver(s);
  if (wake)
    run_wake_writer(s);
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

static int adopt_page(struct run_service *s, struct store *store, const struct st_run_load_ret *page,
                      struct spec_cache *specs, struct arena *mem, struct err *e) {
  int64_t *ids = arena_array(mem, page->count, sizeof *ids);
  int32_t *versions = arena_array(mem, page->count, sizeof *versions);
  struct task_spec **spec = arena_array(mem, page->count, sizeof(struct task_spec *));
  for (size_t i = 0; i < page->count; i++) {
    ids[i] = page->rows[i].key.task_id;
    versions[i] = page->rows[i].version;
  }
  struct st_payload_get_ret defs;
  int rc = store_payload_get(store, &(struct st_payload_get){ids, versions, page->count}, &defs, mem, e);
  for (size_t i = 0; rc >= 0 && i < page->count; i++)
    rc = spec_of(specs, &defs.rows[i], &spec[i], e);
  if (rc >= 0) {
    usec_t now = s->o.now(s->o.now_arg);
    mutex_lock(&s->lock);
    for (size_t i = 0; i < page->count; i++)
      (void)live_open(s->live, &page->rows[i], spec[i], true, now, &s->opened);
    unlock_and_deliver(s);
  }
  for (size_t i = 0; i < page->count; i++)
    task_spec_unref(&spec[i]);
  return rc;
}

int run_adopt(struct run_service *s, struct store *store, int32_t shard, int64_t epoch,
              struct spec_cache *specs, struct err *e) {
  mutex_lock(&s->lock);
  s->epochs[shard] = epoch;
  s->adopting[shard] = true;
  mutex_unlock(&s->lock);
  auto_arena mem = {0};
  struct run_key after;
  struct st_run_load in = {.shard = shard, .limit = ADOPT_PAGE};
  struct st_run_load_ret page;
  size_t total = 0;
  do {
    int rc = store_run_load(store, &in, &page, &mem, e);
    if (rc >= 0 && page.count)
      rc = adopt_page(s, store, &page, specs, &mem, e);
    if (rc < 0)
      return rc;
    if (page.count) {
      after = page.rows[page.count - 1].key;
      in.after = &after;
    }
    total += page.count;
    arena_clear(&mem);
  } while (page.count == ADOPT_PAGE);
  mutex_lock(&s->lock);
  s->adopting[shard] = false;
  mutex_unlock(&s->lock);
  run_wake_writer(s);
  if (total)
    log_info("open runs taken over", LF_I("shard", shard), LF_I("runs", total));
  return 0;
}

void run_disown(struct run_service *s, int32_t shard) {
  mutex_lock(&s->lock);
  s->epochs[shard] = 0;
  live_drop_shard(s->live, shard, &s->opened);
  unlock_and_deliver(s);
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
  bool wanted = s->epochs[j->key.shard] == j->fence && live_wanted(s->live, &j->key, j->attempt);
  mutex_unlock(&s->lock);
  return wanted;
}

bool run_sending(struct run_service *s, const struct run_job *j, struct slice executor, void *slot) {
  mutex_lock(&s->lock);
  bool ok = s->epochs[j->key.shard] == j->fence && live_sending(s->live, &j->key, j->attempt, executor, slot);
  mutex_unlock(&s->lock);
  return ok;
}

void *run_take_slot(struct run_service *s, const struct run_job *j) {
  mutex_lock(&s->lock);
  void *slot = live_take_slot(s->live, &j->key, j->attempt);
  mutex_unlock(&s->lock);
  return slot;
}

void run_adopt_slot(struct run_service *s, const struct run_key *key, void *slot) {
  mutex_lock(&s->lock);
  live_adopt_slot(s->live, key, slot);
  mutex_unlock(&s->lock);
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

int run_post(struct run_service *s, const struct live_event *events, size_t n,
             void (*done)(void *arg, const enum run_result *results, size_t n), void *arg, struct err *e) {
  if (n == 0 || queue_size(s->queue) + n > s->o.queue_max)
    return err_set(e, ERR_BUSY, "the run writer has %zu events waiting, no more are taken",
                   queue_size(s->queue));
  struct run_ticket *t = NULL;
  if (done) {
    t = mem_zalloc(sizeof *t + n * sizeof t->results[0]);
    t->done = done;
    t->arg = arg;
    t->count = t->left = n;
  }
  for (size_t i = 0; i < n; i++) {
    struct run_msg *m = msg_new(&events[i]);
    m->token = (struct run_token){t, i, events[i].key.shard};
    m->ev.token = t ? &m->token : NULL;
    if (events[i].key.shard >= s->o.shard_count || queue_push(s->queue, m) < 0) {
      run_answer(&m->token, RUN_RESULT_NOT_OWNER); /* asked again later, it is recorded then */
      mem_free(m);
    }
  }
  return 0;
}

int run_executor_lost(struct run_service *s, struct slice ns, struct slice group, struct slice executor) {
  struct live_event ev = {
      .kind = EV_EXECUTOR_LOST, .executor = executor, .ns = ns, .group = group, .progress = -1};
  struct run_msg *m = msg_new(&ev);
  m->kind = RUN_MSG_EXECUTOR_LOST;
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

/* ---------------------------------------------------------------- cancel and wait */

struct cancel_wait {
  struct mutex m;
  struct cond c;
  bool done;
  enum run_result result;
};

static void cancel_done(void *arg, const enum run_result *results, size_t n) {
  struct cancel_wait *w = arg;
  (void)n;
  mutex_lock(&w->m);
  w->result = results[0];
  w->done = true;
  cond_signal(&w->c);
  mutex_unlock(&w->m);
}

int run_cancel(struct run_service *s, const struct run_key *key, struct err *e) {
  struct cancel_wait w = {0};
  mutex_init(&w.m);
  cond_init(&w.c);
  struct live_event ev = {.kind = EV_CANCEL, .key = *key, .progress = -1};
  int rc = run_post(s, &ev, 1, cancel_done, &w, e);
  if (rc >= 0) {
    mutex_lock(&w.m);
    while (!w.done) /* the writer answers every event, also when it stops */
      (void)cond_wait(&w.c, &w.m, USEC_NEVER);
    mutex_unlock(&w.m);
    if (w.result == RUN_RESULT_NOT_OWNER)
      rc = err_set(e, ERR_UNAVAILABLE, "this node does not own the run's shard now, try again");
    else if (w.result != RUN_RESULT_RECORDED)
      rc = err_set(e, ERR_CONFLICT, "the run has ended already");
  }
  cond_done(&w.c);
  mutex_done(&w.m);
  return rc;
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

void run_counts(struct run_service *s, int64_t ret[3]) {
  mutex_lock(&s->lock);
  const struct live *l = s->live;
  ret[0] = (int64_t)(live_count_phase(l, PHASE_SCHEDULED) + live_count_phase(l, PHASE_QUEUED) +
                     live_count_phase(l, PHASE_RETRY_WAIT));
  ret[1] = (int64_t)live_count_phase(l, PHASE_DISPATCHING);
  ret[2] = (int64_t)(live_count_phase(l, PHASE_ACCEPTED) + live_count_phase(l, PHASE_PROGRESS) +
                     live_count_phase(l, PHASE_CANCELLING));
  mutex_unlock(&s->lock);
}
