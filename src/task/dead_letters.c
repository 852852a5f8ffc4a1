#include "task/dead_letters.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/metric.h"
#include "base/parse.h"
#include "task/internal.h"

enum { MAX_DEFAULT = 1000, PAGE = 50 }; /* PAGE: letters read at once, each with a payload of up to 1 MiB */
#define PART_MARK 0x40000000            /* parts that the API makes have it */
#define RATE_MIN  0.01
#define RATE_MAX  1000.0

/* ------------------------------------------------------------------ metrics */
static struct metric *handled(enum dead_letter_state state) {
  return metric_series(metric_family("kelou_dead_letters_total", "Dead letters made, replayed, discarded",
                                     METRIC_COUNTER, "state", NULL),
                       dead_letter_state_names[state], NULL);
}

static struct metric *open_ones(void) {
  return metric_series(metric_family("kelou_dead_letters_open", "OPEN dead letters", METRIC_GAUGE, "", NULL),
                       NULL);
}

void task_dead_letters_init(void) {
  (void)handled(DEAD_LETTER_REPLAYED);
  (void)handled(DEAD_LETTER_DISCARDED);
  (void)open_ones();
}

int task_dead_letters_count(struct task_service *s, struct err *e) {
  auto_arena mem = {0};
  struct st_dead_letter_count_ret ret;
  int r = store_dead_letter_count(s->o.store, &(struct st_dead_letter_count){DEAD_LETTER_COUNT_MAX}, &ret,
                                  &mem, e);
  if (r >= 0)
    metric_set(open_ones(), (double)ret.open);
  return r < 0 ? r : 0;
}

/* ------------------------------------------------------------------ looking */
int task_dead_letter_list(struct task_service *s, const struct task_call *c,
                          const struct st_dead_letter_list *in, struct st_dead_letter_list_ret *ret) {
  struct st_dead_letter_list narrowed = *in;
  if (c->only_ns.n && in->filter.ns.n && !slice_eq(in->filter.ns, c->only_ns)) {
    *ret = (struct st_dead_letter_list_ret){0};
    return 0;
  }
  if (c->only_ns.n)
    narrowed.filter.ns = c->only_ns;
  return store_dead_letter_list(s->o.store, &narrowed, ret, c->mem, c->e);
}

int task_dead_letter_get(struct task_service *s, const struct task_call *c, const struct run_key *key,
                         struct dead_letter_row *ret) {
  struct st_dead_letter_get_ret got;
  int r = store_dead_letter_get(s->o.store, &(struct st_dead_letter_get){*key}, &got, c->mem, c->e);
  if (r >= 0 && c->only_ns.n && !slice_eq(got.row.ns, c->only_ns))
    r = err_set(c->e, ERR_NOT_FOUND, "there is no such dead letter");
  if (r >= 0)
    *ret = got.row;
  return r < 0 ? r : 0;
}

/* ------------------------------------------------------------------ one */
/* Why it cannot be replayed or discarded now. */
static int not_open(struct task_service *s, const struct task_call *c, const struct run_key *key) {
  struct dead_letter_row row;
  int r = task_dead_letter_get(s, c, key, &row);
  if (r < 0)
    return r;
  if (row.state == DEAD_LETTER_REPLAYED)
    return err_set(c->e, ERR_CONFLICT, "the dead letter is REPLAYED: the run %.*s stands in its place",
                   SLICE_FMT(row.replay_run));
  return err_set(c->e, ERR_CONFLICT, "the dead letter is %s", dead_letter_state_names[row.state]);
}

int task_dead_letter_replay(struct task_service *s, const struct task_call *c, const struct run_key *key,
                            const struct dead_letter_replay *a, struct run_key *ret_key) {
  struct dead_letter_row row;
  char dead[RUN_ID_LEN + 1];
  int r = task_dead_letter_get(s, c, key, &row);
  if (r < 0)
    return r;
  run_id_format(&row.run.key, dead);
  struct task_trigger t = {.payload = a->payload.p ? a->payload : row.run.payload,
                           .pin = a->pin,
                           .ignore_overlap = a->ignore_overlap,
                           .origin = ORIGIN_RETRY,
                           .retry_of = slice_of(dead),
                           .open_letter = true};
  r = task_trigger(s, c, slice_of(arena_printf(c->mem, "%lld", (long long)row.run.key.task_id)), &t, ret_key);
  if (r == ERR_NOT_FOUND)
    return err_set(c->e, ERR_CONFLICT, "the task is deleted: its dead letters can only be discarded");
  return r == ERR_CONFLICT ? not_open(s, c, key) : r;
}

int task_dead_letter_discard(struct task_service *s, const struct task_call *c, const struct run_key *key) {
  struct dead_letter_row row;
  int r = task_dead_letter_get(s, c, key, &row);
  if (r < 0)
    return r;
  const struct dead_letter_deed deed = {.key = row.run.key};
  struct st_dead_letter_handle in = {.want = DEAD_LETTER_ALL_OPEN,
                                     .state = DEAD_LETTER_DISCARDED,
                                     .deeds = &deed,
                                     .count = 1,
                                     .by = c->by,
                                     .note = c->note,
                                     .idem = c->idem};
  struct st_dead_letter_handle_ret out;
  r = store_dead_letter_handle(s->o.store, &in, &out, c->mem, c->e);
  if (r == ERR_CONFLICT)
    return not_open(s, c, key);
  if (r == 0) {
    metric_add(handled(DEAD_LETTER_DISCARDED), 1);
    log_info("dead letter discarded", LF_I("task_id", row.run.key.task_id),
             LF_T("scheduled_at", row.run.key.scheduled_at), LF_L("by", c->by));
  }
  return r;
}

int task_dead_letter_retry(struct task_service *s, const struct task_call *c,
                           const struct dead_letter_deed *deed, bool must_be_open, struct slice *ret_run) {
  struct st_dead_letter_handle in = {.want = must_be_open ? DEAD_LETTER_ALL_OPEN : DEAD_LETTER_RETRY,
                                     .state = DEAD_LETTER_REPLAYED,
                                     .deeds = deed,
                                     .count = 1,
                                     .by = c->by,
                                     .ref = deed->replay_run,
                                     .idem = c->idem};
  struct st_dead_letter_handle_ret out;
  int r = store_dead_letter_handle(s->o.store, &in, &out, c->mem, c->e);
  if (r >= 0)
    *ret_run = out.ref;
  if (r == 0)
    metric_add(handled(DEAD_LETTER_REPLAYED), out.count);
  return r;
}

/* ------------------------------------------------------------------ many */
struct batch { /* what one call handles */
  struct dead_letter_deed *deeds;
  size_t count, cap, bytes;
  bool more;
};

static int64_t max_of(const struct task_service *s) {
  return s->o.dead_letter_max ? s->o.dead_letter_max : MAX_DEFAULT;
}

static bool names_nothing(const struct dead_letter_filter *f) {
  return !f->ns.n && !f->group.n && !f->handler.n && !f->error_type.n && !f->task_id && f->reason < 0 &&
         !f->since && !f->until;
}

static int check(const struct task_service *s, const struct task_call *c, const struct dead_letter_many *m) {
  if (names_nothing(&m->filter))
    return err_set(c->e, ERR_MISSING,
                   "expected one of namespace, task, group, handler, reason, error_type, since, until");
  if (m->limit < 0 || m->limit > max_of(s))
    return err_field(c->e, ERR_LIMIT, "/limit", "expected at most %lld", (long long)max_of(s));
  if (m->rate != 0 && !(m->rate >= RATE_MIN && m->rate <= RATE_MAX))
    return err_field(c->e, ERR_INVALID, "/rate", "expected a number from %g to %g", RATE_MIN, RATE_MAX);
  return 0;
}

static int32_t first_part(struct task_service *s) {
  mutex_lock(&s->lock);
  uint32_t bits = (uint32_t)rng_next(&s->rng) & (PART_MARK - 1);
  mutex_unlock(&s->lock);
  return (int32_t)bits;
}

struct making { /* of the new runs */
  bool replay;
  usec_t now, interval;
  int32_t part; /* they follow each other, so that no two of a call are the same run */
};

static void add_deed(const struct task_call *c, struct batch *b, const struct run_row *run,
                     const struct making *k) {
  if (b->count == b->cap) {
    struct dead_letter_deed *more = arena_array(c->mem, b->cap ? 2 * b->cap : PAGE, sizeof *more);
    if (b->count)
      memcpy(more, b->deeds, b->count * sizeof *more);
    b->deeds = more;
    b->cap = b->cap ? 2 * b->cap : PAGE;
  }
  struct dead_letter_deed *d = &b->deeds[b->count++];
  *d = (struct dead_letter_deed){.key = run->key};
  if (!k->replay)
    return;
  char dead[RUN_ID_LEN + 1], made[RUN_ID_LEN + 1];
  run_id_format(&run->key, dead);
  const struct inbox_item item = {
      .kind = INBOX_TRIGGER,
      .by = c->by,
      .request = {.key = {run->key.shard, k->now, run->key.task_id,
                          (int32_t)(PART_MARK | ((k->part + (int32_t)b->count) & (PART_MARK - 1)))},
                  .not_before = k->now + (usec_t)(b->count - 1) * k->interval,
                  .origin = ORIGIN_REPLAY,
                  .payload = run->payload,
                  .origin_run = slice_n(dead, RUN_ID_LEN)}};
  run_id_format(&item.request.key, made);
  auto_free char *body = inbox_body(&item);
  d->replay_run = arena_slice(c->mem, slice_n(made, RUN_ID_LEN));
  d->inbox = (struct inbox_row){
      .shard = run->key.shard, .kind = INBOX_TRIGGER, .body = arena_slice(c->mem, slice_of(body))};
  b->bytes += d->inbox.body.n;
}

/* The oldest ones, page by page. */
static int gather(struct task_service *s, const struct task_call *c, const struct dead_letter_many *m,
                  const struct making *k, struct batch *b) {
  size_t most = (size_t)(m->limit ? m->limit : max_of(s));
  struct run_key from;
  struct st_dead_letter_list in = {
      .filter = m->filter, .oldest_first = true, .of_tasks = k->replay, .limit = PAGE};
  in.filter.state = DEAD_LETTER_OPEN;
  for (;;) {
    auto_arena page = {0};
    struct task_call pc = *c;
    struct st_dead_letter_list_ret found;
    pc.mem = &page;
    int r = task_dead_letter_list(s, &pc, &in, &found);
    if (r < 0)
      return r;
    for (size_t i = 0; i < found.count; i++) {
      b->more = b->count == most || b->bytes >= DEAD_LETTER_BYTES_MAX;
      if (b->more)
        return 0;
      add_deed(c, b, &found.rows[i].run, k);
    }
    if (found.count < PAGE)
      return 0;
    from = found.rows[found.count - 1].run.key;
    in.from = &from;
  }
}

static void tell_shards(struct task_service *s, const struct batch *b) {
  for (size_t i = 0; i < b->count; i++) { /* one hint a shard */
    size_t k = 0;
    while (b->deeds[k].key.shard != b->deeds[i].key.shard)
      k++;
    if (k == i)
      task_tell(s, b->deeds[i].key.shard);
  }
}

/* The rest of the answer is kept with the Idempotency-Key: more, the rate in 1,000 s, the last release. */
static struct slice ref_of(const struct task_call *c, const struct dead_letter_done *d) {
  return slice_of(arena_printf(c->mem, "%d %lld %lld", d->more ? 1 : 0, (long long)(d->rate * 1000 + .5),
                               (long long)d->last_at));
}

static void read_ref(struct slice ref, struct dead_letter_done *d) {
  int64_t more = 0, milli = 0;
  struct slice rest = {0}, first = slice_cut(ref, ' ', &rest), second = slice_cut(rest, ' ', &rest);
  (void)parse_i64(first, 0, 1, &more, NULL); /* as ref_of wrote it */
  (void)parse_i64(second, 0, INT64_MAX, &milli, NULL);
  (void)parse_i64(rest, 0, INT64_MAX, &d->last_at, NULL);
  d->more = more != 0;
  d->rate = (double)milli / 1000;
}

static int handle_many(struct task_service *s, const struct task_call *c, const struct dead_letter_many *m,
                       enum dead_letter_state state, struct dead_letter_done *ret) {
  struct making k = {.replay = state == DEAD_LETTER_REPLAYED, .now = task_now(s), .part = first_part(s)};
  struct dead_letter_done done = {0};
  struct batch b = {0};
  int r = check(s, c, m);
  if (r < 0)
    return r;
  if (k.replay) {
    done.rate = m->rate > 0 ? m->rate : DEAD_LETTER_RATE;
    k.interval = (usec_t)((double)USEC_PER_SEC / done.rate);
  }
  if ((r = gather(s, c, m, &k, &b)) < 0)
    return r;
  done.more = b.more;
  done.count = (int64_t)b.count;
  if (k.replay && b.count)
    done.last_at = k.now + (usec_t)(b.count - 1) * k.interval;
  *ret = done;
  if (m->dry_run)
    return 0;
  struct st_dead_letter_handle in = {.want = DEAD_LETTER_EACH_OPEN,
                                     .state = state,
                                     .deeds = b.deeds,
                                     .count = b.count,
                                     .by = c->by,
                                     .note = c->note,
                                     .ref = ref_of(c, &done),
                                     .idem = c->idem};
  struct st_dead_letter_handle_ret out;
  (void)failpoint("dead_letters.before_commit");
  r = store_dead_letter_handle(s->o.store, &in, &out, c->mem, c->e);
  (void)failpoint("dead_letters.after_commit");
  if (r < 0)
    return r;
  read_ref(out.ref, ret);
  ret->count = out.count;
  if (r == 1)
    return 1;
  tell_shards(s, &b);
  metric_add(handled(state), out.count);
  log_info("dead letters handled", LF_S("state", dead_letter_state_names[state]), LF_I("count", out.count),
           LF_L("by", c->by));
  return 0;
}

int task_dead_letters_replay(struct task_service *s, const struct task_call *c,
                             const struct dead_letter_many *m, struct dead_letter_done *ret) {
  return handle_many(s, c, m, DEAD_LETTER_REPLAYED, ret);
}

int task_dead_letters_discard(struct task_service *s, const struct task_call *c,
                              const struct dead_letter_many *m, struct dead_letter_done *ret) {
  return handle_many(s, c, m, DEAD_LETTER_DISCARDED, ret);
}
