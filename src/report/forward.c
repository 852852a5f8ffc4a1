#include "report/forward.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metric.h"
#include "base/queue.h"
#include "base/thread.h"
#include "core/event_doc.h"
#include "core/inbox.h"

enum { EVENTS_MAX = 1000, BOX_QUEUE = 65536, BOX_TAKE = 1000, EVENT_BYTES = 512 /* besides its texts */ };
static const size_t BOX_BYTES = (size_t)4 * 1024 * 1024; /* of one transaction */

/* by enum run_result; of another node's answer */
static const char *const answer_words[] = {"recorded", "late", "conflict", "forbidden", "not_owner", NULL};

struct posted { /* one forward_post: whoever ends its last part calls `done` */
  struct forward *f;
  const struct live_event *events;
  enum run_result *results;
  size_t count;
  void (*done)(void *arg, const enum run_result *results, size_t n);
  void *arg;
  atomic_int parts;
};
struct part { /* some of its events, all going the same way */
  struct posted *of;
  size_t *which;
  size_t count, bytes;
};
struct forward {
  struct forward_options o;
  struct queue *box; /* of struct part: for the inbox */
  struct thread thread;
  _Atomic size_t waiting;
  struct metric *to_node, *to_inbox, *refused;
};

void forward_options_default(struct forward_options *o) {
  *o = (struct forward_options){.message_bytes = (size_t)768 * 1024,
                                .waiting_bytes = (size_t)64 * 1024 * 1024};
}

struct forward *forward_new(const struct forward_options *o) {
  struct forward *f = mem_zalloc(sizeof *f);
  f->o = *o;
  f->box = queue_new(BOX_QUEUE);
  struct metric_family *m =
      metric_family("kelou_events_forwarded_total",
                    "Reports and cancels of runs whose shard another node owns, by the way "
                    "they went",
                    METRIC_COUNTER, "way", NULL);
  f->to_node = metric_series(m, "node", NULL);
  f->to_inbox = metric_series(m, "inbox", NULL);
  f->refused = metric_series(m, "refused", NULL);
  return f;
}

bool forward_far(const struct forward *f) { return f->o.hooks.owner != NULL; }

/* ---------------------------------------------------------------- parts */

static size_t bytes_of(const struct live_event *ev) {
  return EVENT_BYTES + ev->executor.n + ev->ns.n + ev->group.n + ev->result.n + ev->error_type.n +
         ev->error_message.n + ev->error_detail.n;
}

static struct part *part_new(struct posted *of, size_t most) {
  struct part *p = mem_zalloc(sizeof *p);
  p->of = of;
  p->which = mem_array(most, sizeof *p->which);
  return p;
}

static void part_add(struct part *p, size_t i) {
  p->which[p->count++] = i;
  p->bytes += bytes_of(&p->of->events[i]);
}

static void posted_unref(struct posted *x) {
  if (atomic_fetch_sub(&x->parts, 1) != 1)
    return;
  x->done(x->arg, x->results, x->count);
  mem_free(x->results);
  mem_free(x);
}

static void part_free(struct part *p) {
  struct posted *of = p->of;
  mem_free(p->which);
  mem_free(p);
  posted_unref(of);
}

/* All of it has this result. */
static void part_end(struct part *p, enum run_result result) {
  for (size_t i = 0; i < p->count; i++)
    p->of->results[p->which[i]] = result;
  part_free(p);
}

/* ---------------------------------------------------------------- the inbox */

/* The part goes to the inbox; its bytes are counted already when `counted`. */
static void to_box(struct part *p) {
  struct forward *f = p->of->f;
  size_t bytes = p->bytes, before = atomic_fetch_add(&f->waiting, bytes);
  if (before + bytes <= f->o.waiting_bytes && queue_push(f->box, p) >= 0)
    return;
  atomic_fetch_sub(&f->waiting, bytes);
  metric_add(f->refused, (int64_t)p->count);
  part_end(p, RUN_RESULT_NOT_OWNER); /* no room: all of it once more */
}

/* What has no answer yet goes on to the inbox. */
static void rest_to_box(struct part *p) {
  size_t n = 0;
  p->bytes = 0;
  for (size_t i = 0; i < p->count; i++)
    if (p->of->results[p->which[i]] == RUN_RESULT_NOT_OWNER) {
      p->bytes += bytes_of(&p->of->events[p->which[i]]);
      p->which[n++] = p->which[i];
    }
  p->count = n;
  if (n)
    to_box(p);
  else
    part_free(p);
}

static bool box_row(const struct forward *f, const struct live_event *ev, struct arena *mem,
                    struct inbox_row *ret) {
  if (ev->kind == EV_CLAIM)
    return false; /* who asks whether it may start waits for a yes, and asks again */
  if (ev->key.shard < 0 || ev->key.shard >= f->o.shard_count)
    return false; /* there is no such run */
  auto_free char *body = inbox_body(&(struct inbox_item){.kind = INBOX_EVENT, .event = *ev});
  size_t n = strlen(body);
  if (n > INBOX_BODY_MAX)
    return false; /* what nobody could read */
  *ret = (struct inbox_row){
      .shard = ev->key.shard, .kind = INBOX_EVENT, .body = arena_slice(mem, slice_n(body, n))};
  return true;
}

/* What the database refuses for what is in it must not hold up the others. */
static bool refuses_contents(int rc) {
  return rc == ERR_INVALID || rc == ERR_INTERNAL || rc == ERR_CONFLICT || rc == ERR_NOT_FOUND;
}

static void put_parts(struct forward *f, struct part **parts, int n) {
  auto_arena mem = {0};
  struct err e = {0};
  struct st_inbox_put_ret none;
  size_t most = 0, count = 0;
  for (int i = 0; i < n; i++)
    most += parts[i]->count;
  struct inbox_row *rows = arena_array(&mem, most, sizeof *rows);
  for (int i = 0; i < n; i++)
    for (size_t k = 0; k < parts[i]->count; k++) {
      struct posted *of = parts[i]->of;
      bool good = box_row(f, &of->events[parts[i]->which[k]], &mem, &rows[count]);
      of->results[parts[i]->which[k]] = good ? RUN_RESULT_TAKEN : RUN_RESULT_NOT_OWNER;
      count += good;
    }
  (void)failpoint("forward.before_inbox");
  int rc = count ? store_inbox_put(f->o.store, &(struct st_inbox_put){rows, count}, &none, &mem, &e) : 0;
  for (int i = 0; n > 1 && refuses_contents(rc) && i < n; i++)
    put_parts(f, parts + i, 1);
  if (n > 1 && refuses_contents(rc))
    return;
  if (rc < 0)
    log_warn("reports not appended to the inbox, their executors send them again", LF_I("reports", count),
             LF_E(&e));
  metric_add(rc < 0 ? f->refused : f->to_inbox, (int64_t)count);
  for (int i = 0; i < n; i++) {
    atomic_fetch_sub(&f->waiting, parts[i]->bytes);
    if (rc < 0)
      part_end(parts[i], RUN_RESULT_NOT_OWNER);
    else
      part_free(parts[i]);
  }
}

static void box_main(void *arg) {
  struct forward *f = arg;
  struct part *parts[BOX_TAKE];
  int n;
  while ((n = queue_take(f->box, (void **)parts, BOX_TAKE, USEC_NEVER)) >= 0)
    for (int from = 0, to; from < n; from = to) {
      size_t bytes = 0;
      for (to = from; to < n && (to == from || bytes + parts[to]->bytes <= BOX_BYTES); to++)
        bytes += parts[to]->bytes;
      put_parts(f, parts + from, to - from);
    }
}

int forward_start(struct forward *f, struct err *e) {
  return forward_far(f) ? thread_start(&f->thread, "forward", box_main, f, e) : 0;
}

void forward_stop(struct forward *f) {
  queue_close(f->box);
  if (f->thread.running)
    thread_join(&f->thread);
}

void forward_free(struct forward **p) {
  struct forward *f = *p;
  void *part;
  if (!f)
    return;
  forward_stop(f);
  while (queue_take(f->box, &part, 1, 0) > 0) /* it was never started */
    part_end(part, RUN_RESULT_NOT_OWNER);
  queue_free(&f->box);
  mem_free(f);
  *p = NULL;
}

/* ---------------------------------------------------------------- another node */

/* One word for each event, or nothing counts. */
static bool read_answers(const json_t *answer, struct part *p) {
  const json_t *list = json_object_get(answer, "answers");
  if (!json_is_array(list) || json_array_size(list) != p->count)
    return false;
  for (size_t i = 0; i < p->count; i++) {
    const char *word = json_string_value(json_array_get(list, i));
    int k = 0;
    while (word && answer_words[k] && strcmp(answer_words[k], word) != 0)
      k++;
    bool known = word && answer_words[k];
    p->of->results[p->which[i]] = known ? (enum run_result)k : RUN_RESULT_NOT_OWNER;
  }
  return true;
}

static void asked(void *arg, const json_t *answer) {
  struct part *p = arg;
  struct forward *f = p->of->f;
  atomic_fetch_sub(&f->waiting, p->bytes);
  for (size_t i = 0; i < p->count; i++)
    p->of->results[p->which[i]] = RUN_RESULT_NOT_OWNER;
  if (answer && read_answers(answer, p))
    for (size_t i = 0; i < p->count; i++)
      metric_add(f->to_node, p->of->results[p->which[i]] != RUN_RESULT_NOT_OWNER);
  rest_to_box(p);
}

static void ask(struct part *p, int node) {
  struct forward *f = p->of->f;
  auto_str body;
  str_init(&body, 8 * f->o.message_bytes + ((size_t)16 << 20)); /* escaped; one event is at least asked */
  str_addz(&body, "{\"events\":[");
  for (size_t i = 0; i < p->count; i++) {
    if (i)
      str_addc(&body, ',');
    event_print(&p->of->events[p->which[i]], &body);
  }
  str_addz(&body, "]}");
  size_t before = atomic_fetch_add(&f->waiting, p->bytes);
  bool room = before + p->bytes <= f->o.waiting_bytes && !str_failed(&body);
  if (room && f->o.hooks.ask(f->o.hooks.arg, &(struct forward_ask){node, str_slice(&body), asked, p}))
    return;
  atomic_fetch_sub(&f->waiting, p->bytes);
  to_box(p);
}

/* ---------------------------------------------------------------- posting */

static void here_done(void *arg, const enum run_result *results, size_t n) {
  struct part *p = arg;
  for (size_t i = 0; i < n; i++)
    p->of->results[p->which[i]] = results[i];
  rest_to_box(p);
}

static int post_here(struct part *p, struct err *e) {
  struct posted *of = p->of;
  if (p->count == of->count)
    return run_post(of->f->o.runs, of->events, of->count, here_done, p, e);
  struct live_event *mine = mem_array(p->count, sizeof *mine);
  for (size_t i = 0; i < p->count; i++)
    mine[i] = of->events[p->which[i]];
  int rc = run_post(of->f->o.runs, mine, p->count, here_done, p, e);
  mem_free(mine);
  return rc;
}

/* The rest of those that go to the owner of events[first], as far as one message has room. */
static void ask_from(struct posted *x, const int *owners, bool *gone, size_t first) {
  struct part *p = part_new(x, x->count - first < EVENTS_MAX ? x->count - first : EVENTS_MAX);
  for (size_t i = first; i < x->count && p->count < EVENTS_MAX; i++) {
    if (gone[i] || owners[i] != owners[first] ||
        (p->count && p->bytes + bytes_of(&x->events[i]) > x->f->o.message_bytes))
      continue;
    part_add(p, i);
    gone[i] = true;
  }
  atomic_fetch_add(&x->parts, 1);
  ask(p, owners[first]);
}

static int post_all(struct posted *x, const int *owners, size_t here, struct err *e) {
  bool *gone = mem_array(x->count, sizeof *gone);
  int rc = 0;
  if (here) {
    struct part *mine = part_new(x, here);
    for (size_t i = 0; i < x->count; i++)
      if (!owners[i]) {
        part_add(mine, i);
        gone[i] = true;
      }
    atomic_fetch_add(&x->parts, 1);
    rc = post_here(mine, e);
    if (rc < 0)
      part_end(mine, RUN_RESULT_NOT_OWNER);
  }
  bool some = rc >= 0 || here < x->count;
  for (size_t i = 0; some && i < x->count; i++)
    if (!gone[i])
      ask_from(x, owners, gone, i);
  mem_free(gone);
  return some ? 0 : rc;
}

int forward_post(struct forward *f, const struct live_event *events, size_t n,
                 void (*done)(void *arg, const enum run_result *results, size_t n), void *arg,
                 struct err *e) {
  if (!forward_far(f) || n == 0)
    return run_post(f->o.runs, events, n, done, arg, e);
  int *owners = mem_array(n, sizeof *owners);
  size_t here = 0;
  for (size_t i = 0; i < n; i++) {
    owners[i] = f->o.hooks.owner(f->o.hooks.arg, events[i].key.shard);
    here += !owners[i];
  }
  struct posted *x = mem_zalloc(sizeof *x);
  *x = (struct posted){f, events, mem_array(n, sizeof *x->results), n, done, arg, 1};
  int rc = post_all(x, owners, here, e);
  mem_free(owners);
  if (rc >= 0) {
    posted_unref(x);
  } else { /* nobody is told: nothing was taken */
    mem_free(x->results);
    mem_free(x);
  }
  return rc;
}

/* ---------------------------------------------------------------- what others have brought */

struct taken {
  void (*reply)(void *arg, struct slice answer);
  void *arg;
};

static void taken_done(void *arg, const enum run_result *results, size_t n) {
  struct taken *t = arg;
  auto_str out;
  str_init(&out, 64 + n * 16);
  str_addz(&out, "{\"answers\":[");
  for (size_t i = 0; i < n; i++)
    str_addf(&out, "%s\"%s\"", i ? "," : "", answer_words[results[i]]);
  str_addz(&out, "]}");
  t->reply(t->arg, str_slice(&out));
  mem_free(t);
}

static int read_events(const json_t *body, struct arena *mem, struct live_event **ret, size_t *ret_count,
                       struct err *e) {
  const json_t *list = json_object_get(body, "events");
  if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > EVENTS_MAX)
    return err_field(e, ERR_INVALID, "/body/events", "expected a list of 1 to %d events", EVENTS_MAX);
  *ret_count = json_array_size(list);
  *ret = arena_array(mem, *ret_count, sizeof **ret);
  for (size_t i = 0; i < *ret_count; i++)
    if (event_parse(json_array_get(list, i), mem, &(*ret)[i], e) < 0) {
      char at[48];
      (void)snprintf(at, sizeof at, "/body/events/%zu", i);
      return err_at(e, at);
    }
  return 0;
}

int forward_take(struct forward *f, const json_t *body, void (*reply)(void *arg, struct slice answer),
                 void *arg, struct err *e) {
  auto_arena mem = {0};
  struct live_event *events = NULL;
  size_t n = 0;
  int rc = read_events(body, &mem, &events, &n, e);
  if (rc < 0)
    return rc;
  struct taken *t = mem_alloc(sizeof *t);
  *t = (struct taken){reply, arg};
  rc = run_post(f->o.runs, events, n, taken_done, t, e); /* copies all of it */
  if (rc < 0)
    mem_free(t);
  return rc;
}

/* ---------------------------------------------------------------- cancel and wait */

static const usec_t CANCEL_WAIT = 30 * USEC_PER_SEC;

struct cancel_wait { /* of the caller and of who answers: the caller does not wait for ever */
  struct mutex m;
  struct cond c;
  struct live_event ev;
  int refs;
  bool done;
  enum run_result result;
};

/* With the lock held; gives it back. */
static void cancel_unref(struct cancel_wait *w) {
  bool last = --w->refs == 0;
  mutex_unlock(&w->m);
  if (!last)
    return;
  cond_done(&w->c);
  mutex_done(&w->m);
  mem_free(w);
}

static void cancel_done(void *arg, const enum run_result *results, size_t n) {
  struct cancel_wait *w = arg;
  (void)n;
  mutex_lock(&w->m);
  w->result = results[0];
  w->done = true;
  cond_signal(&w->c);
  cancel_unref(w);
}

static int cancel_outcome(enum run_result r, struct err *e) {
  switch (r) {
  case RUN_RESULT_RECORDED: return 0;
  case RUN_RESULT_TAKEN: return 1;
  case RUN_RESULT_NOT_OWNER:
    return err_set(e, ERR_UNAVAILABLE, "the owner of the run's shard was not reached, try again");
  case RUN_RESULT_LATE:
  case RUN_RESULT_CONFLICT:
  case RUN_RESULT_FORBIDDEN: break;
  }
  return err_set(e, ERR_CONFLICT, "the run has ended already");
}

int forward_cancel(struct forward *f, const struct run_key *key, struct err *e) {
  struct cancel_wait *w = mem_zalloc(sizeof *w);
  mutex_init(&w->m);
  cond_init(&w->c);
  w->refs = 2;
  w->ev = (struct live_event){.kind = EV_CANCEL, .key = *key, .progress = -1};
  int rc = forward_post(f, &w->ev, 1, cancel_done, w, e);
  usec_t until = clock_system.mono(&clock_system) + CANCEL_WAIT, left = CANCEL_WAIT;
  mutex_lock(&w->m);
  if (rc < 0)
    w->refs--; /* nobody will answer */
  while (rc >= 0 && !w->done && left > 0) {
    (void)cond_wait(&w->c, &w->m, left);
    left = until - clock_system.mono(&clock_system);
  }
  if (rc >= 0)
    rc = w->done ? cancel_outcome(w->result, e)
                 : err_set(e, ERR_UNAVAILABLE,
                           "the database does not answer; the cancel is carried out when it does");
  cancel_unref(w);
  return rc;
}
