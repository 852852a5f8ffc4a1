#include "run/retention.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metric.h"
#include "base/thread.h"
#include "run/archive.h"

#define STEP_ROWS        1000  /* of one statement */
#define STEP_ROWS_SINGLE 250   /* where everybody waits for a write (SQLite) */
#define BATCH_ROWS       50000 /* taken in steps before they are archived and dropped */
#define SCAN_FACTOR      5     /* rows looked at for a step's row */
#define BUSY_TRIES       100
#define BUSY_PAUSE       (100 * USEC_PER_MS)
#define PAUSE_FACTOR     2 /* pauses are so many times as long as the steps between them */
#define PAUSE_LEAST      USEC_PER_MS
#define SWEEP_AGAIN      USEC_PER_DAY /* look at everything again: backfills into days long since swept */
#define LOG_LINES_FACTOR 4            /* lines of logs that go in a step, for each of its rows */
#define STOPPED          2

struct space { /* a namespace */
  char *name;
  usec_t age;
  int64_t runs;
  usec_t swept; /* what was due before this has been looked at */
  usec_t counted_until;
  int64_t counted; /* ended runs that were due before counted_until */
  bool done;       /* of this pass */
};
struct retention {
  struct retention_options o;
  struct thread thread;
  struct mutex lock; /* guards stop */
  struct cond wake;
  bool stop;
  int32_t step;
  struct space *spaces; /* all namespaces, by name */
  size_t space_count, space_cap;
  usec_t full_sweep_at;
  int64_t in_batch; /* taken in this pass and not dropped yet */
  struct metric *taken, *archived, *passes, *failed;
};

struct retention *retention_new(const struct retention_options *o) {
  struct retention *r = mem_zalloc(sizeof *r);
  r->o = *o;
  r->step = o->store->ops->caps & STORE_CAP_SINGLE_NODE ? STEP_ROWS_SINGLE : STEP_ROWS;
  mutex_init(&r->lock);
  cond_init(&r->wake);
  struct metric_family *runs =
      metric_family("kelou_retention_runs_total", "Ended runs taken out of the history, and archived.",
                    METRIC_COUNTER, "what", NULL);
  struct metric_family *passes = metric_family("kelou_retention_passes_total", "Passes of the retention.",
                                               METRIC_COUNTER, "result", NULL);
  r->taken = metric_series(runs, "taken", NULL);
  r->archived = metric_series(runs, "archived", NULL);
  r->passes = metric_series(passes, "done", NULL);
  r->failed = metric_series(passes, "failed", NULL);
  return r;
}

static usec_t mono(void) { return clock_system.mono(&clock_system); }

/* STOPPED, or 0 after that time. */
static int pause_for(struct retention *r, usec_t time) {
  usec_t until = mono() + time;
  mutex_lock(&r->lock);
  for (usec_t left = time; !r->stop && left > 0; left = until - mono())
    (void)cond_wait(&r->wake, &r->lock, left);
  bool stop = r->stop;
  mutex_unlock(&r->lock);
  return stop ? STOPPED : 0;
}

/* Longer than the step took: others come first. */
static int breathe(struct retention *r, usec_t since) {
  usec_t took = PAUSE_FACTOR * (mono() - since);
  return pause_for(r, took > PAUSE_LEAST ? took : PAUSE_LEAST);
}

/* ---------------------------------------------------------------- a batch: archive, drop */
static int write_batch(struct retention *r, struct archive_writer *w, int64_t *ret_count, struct err *e) {
  auto_arena mem = {0};
  struct run_key after = {0};
  bool begun = false;
  for (;;) {
    struct st_history_read_ret got = {0};
    usec_t t0 = mono();
    arena_clear(&mem);
    struct st_history_read in = {.after = begun ? &after : NULL, .limit = STEP_ROWS};
    int code = store_history_read(r->o.store, &in, &got, &mem, e);
    for (size_t i = 0; code == 0 && i < got.count; i++)
      code = archive_add(w, &got.rows[i], e);
    if (code != 0 || got.count == 0)
      return code;
    after = got.rows[got.count - 1].r.run.key;
    begun = true;
    *ret_count += (int64_t)got.count;
    code = breathe(r, t0);
    if (code != 0)
      return code;
  }
}

/* The file first, then the mark: after the mark the file may be moved away, before it nothing is dropped. */
static int archive_batch(struct retention *r, int64_t no, struct err *e) {
  auto_arena mem = {0};
  struct archive_writer *w = NULL;
  int64_t count = 0;
  int code = archive_has(r->o.archive_dir, no, e);
  if (code == 0) {
    code = archive_begin(r->o.archive_dir, r->o.archive_level, no, &w, e);
    if (code == 0)
      code = write_batch(r, w, &count, e);
    if (code != 0)
      archive_abandon(&w);
    else
      code = archive_end(&w, e);
    if (code != 0)
      return code;
    metric_add(r->archived, count);
  }
  if (code < 0)
    return code;
  if (failpoint("retention.before_mark"))
    return err_set(e, -EIO, "a failpoint");
  struct st_history_archived_ret none;
  return store_history_archived(r->o.store, &(struct st_history_archived){.no = no}, &none, &mem, e);
}

static int drop_batch(struct retention *r, struct err *e) {
  struct st_history_drop_ret d = {.more = true};
  while (d.more) {
    auto_arena mem = {0};
    usec_t t0 = mono();
    int code = store_history_drop(r->o.store, &(struct st_history_drop){.limit = r->step}, &d, &mem, e);
    if (code == 0 && failpoint("retention.in_drop"))
      code = err_set(e, -EIO, "a failpoint");
    if (code == 0)
      code = breathe(r, t0);
    if (code != 0)
      return code;
  }
  r->in_batch = 0;
  return 0;
}

/* Whatever is taken goes all the way. */
static int finish_batch(struct retention *r, usec_t *ret_now, struct err *e) {
  auto_arena mem = {0};
  struct st_history_batch_ret b = {0};
  int code = store_history_batch(r->o.store, &(struct st_history_batch){0}, &b, &mem, e);
  if (code != 0)
    return code;
  *ret_now = b.now;
  if (!b.any)
    return 0;
  if (r->o.archive_dir && *r->o.archive_dir && !b.archived && b.last)
    code = archive_batch(r, b.no, e);
  return code == 0 ? drop_batch(r, e) : code;
}

/* ---------------------------------------------------------------- the rules */
static struct space *space_of(struct retention *r, struct slice name) {
  for (size_t i = 0; i < r->space_count; i++)
    if (slice_eqz(name, r->spaces[i].name))
      return &r->spaces[i];
  mem_reserve(r->spaces, r->space_count, r->space_cap);
  struct space *s = &r->spaces[r->space_count++];
  *s = (struct space){.name = mem_slicedup(name)};
  return s;
}

static int read_rules(struct retention *r, struct err *e) {
  auto_arena mem = {0};
  struct st_namespace_list_ret all;
  int code = store_namespace_list(r->o.store, &(struct st_namespace_list){0}, &all, &mem, e);
  if (code < 0)
    return code;
  for (size_t i = 0; i < all.count; i++) {
    struct space *s = space_of(r, all.rows[i].name);
    s->age = all.rows[i].retention_age < 0 ? r->o.age : all.rows[i].retention_age;
    s->runs = all.rows[i].retention_runs < 0 ? r->o.runs : all.rows[i].retention_runs;
    s->done = false;
  }
  return 0;
}

/* The greatest age; 0 = some namespace keeps its runs for ever. */
static usec_t greatest_age(const struct retention *r) {
  usec_t most = r->space_count ? 1 : 0;
  for (size_t i = 0; i < r->space_count && most; i++)
    most = !r->spaces[i].age ? 0 : r->spaces[i].age > most ? r->spaces[i].age : most;
  return most;
}

static void forget_counts(struct retention *r) {
  for (size_t i = 0; i < r->space_count; i++)
    r->spaces[i].counted_until = r->spaces[i].counted = 0;
}

static int take_days(struct retention *r, usec_t before, struct err *e) {
  for (int tries = 0; tries < BUSY_TRIES;) {
    auto_arena mem = {0};
    struct st_history_take_day_ret t = {0};
    usec_t now;
    int code = store_history_take_day(r->o.store, &(struct st_history_take_day){before}, &t, &mem, e);
    if (code == ERR_BUSY) {
      tries++;
      code = pause_for(r, BUSY_PAUSE);
      if (code != 0)
        return code;
      continue;
    }
    if (code != 0 || !t.taken)
      return code;
    forget_counts(r);
    code = finish_batch(r, &now, e);
    if (code != 0)
      return code;
    log_info("a day of old runs dropped", LF_T("day", t.day));
  }
  return 0; /* at the next pass */
}

struct sweep {
  struct slice *ns;
  size_t ns_count;
  usec_t from, before;
  int64_t limit; /* rows in all */
  bool strays;
};

static int sweep(struct retention *r, const struct sweep *s, int64_t *ret_taken, struct err *e) {
  struct run_key after = {
      .scheduled_at = s->from ? s->from : INT64_MIN, .task_id = INT64_MIN, .part = INT32_MIN};
  struct st_history_take_ret t = {.more = true};
  usec_t now;
  while (t.more && *ret_taken < s->limit) {
    auto_arena mem = {0};
    usec_t t0 = mono();
    int64_t left = s->limit - *ret_taken;
    struct st_history_take in = {.ns = s->ns,
                                 .ns_count = s->ns_count,
                                 .after = &after,
                                 .before = s->before,
                                 .scan = r->step * SCAN_FACTOR,
                                 .limit = left < r->step ? (int32_t)left : r->step,
                                 .strays = s->strays};
    int code = store_history_take(r->o.store, &in, &t, &mem, e);
    if (code != 0)
      return code;
    after = t.last;
    *ret_taken += t.taken;
    r->in_batch += t.taken;
    metric_add(r->taken, t.taken);
    code = breathe(r, t0);
    if (code == 0 && r->in_batch >= BATCH_ROWS)
      code = finish_batch(r, &now, e);
    if (code != 0)
      return code;
  }
  return r->in_batch ? finish_batch(r, &now, e) : 0;
}

/* All namespaces of one age together. */
static int sweep_age(struct retention *r, size_t first, usec_t now, bool by_days, struct err *e) {
  usec_t age = r->spaces[first].age;
  auto_arena mem = {0};
  struct sweep s = {.before = now - age, .limit = INT64_MAX, .from = INT64_MAX};
  s.ns = arena_array(&mem, r->space_count, sizeof *s.ns);
  for (size_t i = first; i < r->space_count; i++)
    if (r->spaces[i].age == age) {
      s.ns[s.ns_count++] = slice_of(r->spaces[i].name);
      s.from = r->spaces[i].swept < s.from ? r->spaces[i].swept : s.from;
      r->spaces[i].done = true;
    }
  if (s.ns_count == r->space_count)
    s.ns_count = 0, s.from = 0; /* all: nothing is in the way before */
  int64_t taken = 0;
  int code = 0;
  if (r->o.store->ops->caps & STORE_CAP_DAYS) {
    struct sweep strays = s;
    strays.strays = true;
    code = sweep(r, &strays, &taken, e);
  }
  if (code == 0 && !by_days)
    code = sweep(r, &s, &taken, e);
  for (size_t i = first; i < r->space_count; i++)
    if (r->spaces[i].age == age) {
      if (code == 0)
        r->spaces[i].swept = s.before;
      if (taken)
        r->spaces[i].counted_until = r->spaces[i].counted = 0;
    }
  return code;
}

/* ---------------------------------------------------------------- too many */
static int count_range(struct retention *r, struct slice ns, usec_t since, usec_t until,
                       struct st_history_count_ret *ret, struct err *e) {
  auto_arena mem = {0};
  usec_t t0 = mono();
  struct st_history_count in = {.ns = ns, .since = since, .until = until};
  int code = store_history_count(r->o.store, &in, ret, &mem, e);
  return code == 0 ? breathe(r, t0) : code;
}

/* Days that are over are counted once, the rest each time. */
static int count_runs(struct retention *r, struct space *s, usec_t now, int64_t *ret, struct err *e) {
  usec_t closed = (now / USEC_PER_DAY - 1) * USEC_PER_DAY;
  struct st_history_count_ret c = {0};
  while (s->counted_until < closed) {
    int code = count_range(r, SLICE(""), s->counted_until, closed, &c, e);
    if (code != 0)
      return code;
    usec_t end = c.oldest ? (c.oldest / USEC_PER_DAY + 1) * USEC_PER_DAY : closed;
    if (c.oldest && (code = count_range(r, slice_of(s->name), c.oldest, end, &c, e)) != 0)
      return code;
    s->counted += c.count;
    s->counted_until = end;
  }
  int code = count_range(r, slice_of(s->name), s->counted_until, INT64_MAX, &c, e);
  if (code == 0)
    *ret = s->counted + c.count;
  return code;
}

static int keep_count(struct retention *r, struct space *s, usec_t now, struct err *e) {
  int64_t have = 0, taken = 0;
  struct slice name = slice_of(s->name);
  int code = count_runs(r, s, now, &have, e);
  if (code != 0 || have <= s->runs)
    return code;
  struct sweep one = {
      .ns = &name, .ns_count = 1, .before = INT64_MAX, .limit = have - s->runs, .strays = true};
  if (r->o.store->ops->caps & STORE_CAP_DAYS) /* outside whole days are the oldest, or those far ahead */
    one.before = now, code = sweep(r, &one, &taken, e);
  one.strays = false;
  one.before = INT64_MAX;
  if (code == 0)
    code = sweep(r, &one, &taken, e);
  s->counted = s->counted > taken ? s->counted - taken : 0;
  return code;
}

/* ---------------------------------------------------------------- logs */
/* Those that are old enough, and on whose days no runs are left. */
static int drop_logs(struct retention *r, usec_t now, struct err *e) {
  struct st_run_log_expire_ret d = {.more = true};
  int64_t lines = 0, days = 0;
  int code = 0;
  while (code == 0 && d.more) {
    auto_arena mem = {0};
    usec_t t0 = mono();
    struct st_run_log_expire in = {.before = r->o.log_age ? now - r->o.log_age : INT64_MIN,
                                   .limit = r->step * LOG_LINES_FACTOR};
    d.removed = 0;
    code = store_run_log_expire(r->o.store, &in, &d, &mem, e);
    lines += d.removed > 0 ? d.removed : 0;
    days += d.removed < 0;
    if (code == 0)
      code = breathe(r, t0);
  }
  if (lines || days)
    log_info("old run logs dropped", LF_I("lines", lines), LF_I("days", days));
  return code;
}

/* What is over is written no more: indexes for readers cost nobody a fire. */
static int settle_days(struct retention *r, struct err *e) {
  struct st_history_settle_ret s = {.more = true};
  while (s.more) {
    auto_arena mem = {0};
    usec_t t0 = mono();
    int code = store_history_settle(r->o.store, &(struct st_history_settle){0}, &s, &mem, e);
    if (code == 0)
      code = breathe(r, t0);
    if (code != 0)
      return code;
  }
  return 0;
}

/* ---------------------------------------------------------------- a pass */
/* What came into the past since the last full look is looked for again. */
static void forget_marks(struct retention *r) {
  if (mono() < r->full_sweep_at)
    return;
  r->full_sweep_at = mono() + SWEEP_AGAIN;
  forget_counts(r);
  for (size_t i = 0; i < r->space_count; i++)
    r->spaces[i].swept = 0;
}

static int drop_old(struct retention *r, usec_t now, struct err *e) {
  usec_t most = greatest_age(r);
  bool days = r->o.store->ops->caps & STORE_CAP_DAYS;
  int code = most && days ? take_days(r, now - most, e) : 0;
  for (size_t i = 0; code == 0 && i < r->space_count; i++)
    if (r->spaces[i].age && !r->spaces[i].done)
      code = sweep_age(r, i, now, days && r->spaces[i].age == most, e);
  return code;
}

static int drop_many(struct retention *r, usec_t now, struct err *e) {
  int code = 0;
  for (size_t i = 0; code == 0 && i < r->space_count; i++)
    if (r->spaces[i].runs)
      code = keep_count(r, &r->spaces[i], now, e);
  return code;
}

static int pass(struct retention *r, struct err *e) {
  usec_t now = 0;
  int code = finish_batch(r, &now, e); /* of an earlier pass, or an earlier life */
  if (code == 0)
    code = read_rules(r, e);
  if (code != 0)
    return code;
  forget_marks(r);
  code = drop_old(r, now, e);
  if (code == 0)
    code = drop_many(r, now, e);
  if (code == 0)
    code = drop_logs(r, now, e);
  return code == 0 ? settle_days(r, e) : code;
}

int retention_pass(struct retention *r, struct err *e) {
  double before = metric_value(r->taken);
  usec_t t0 = mono();
  int code = pass(r, e);
  if (code == STOPPED)
    return 0;
  metric_add(code < 0 ? r->failed : r->passes, 1);
  int64_t taken = (int64_t)(metric_value(r->taken) - before);
  if (taken)
    log_info("old runs dropped", LF_I("runs", taken), LF_D("took", mono() - t0));
  return code;
}

static void retention_main(void *arg) {
  struct retention *r = arg;
  do {
    struct err e = {0};
    if (retention_pass(r, &e) < 0)
      log_warn("old runs not dropped, trying again", LF_E(&e));
  } while (pause_for(r, r->o.every) == 0);
}

int retention_start(struct retention *r, struct err *e) {
  return thread_start(&r->thread, "retention", retention_main, r, e);
}

void retention_free(struct retention **p) {
  struct retention *r = *p;
  if (!r)
    return;
  mutex_lock(&r->lock);
  r->stop = true;
  cond_broadcast(&r->wake);
  mutex_unlock(&r->lock);
  if (r->thread.running)
    thread_join(&r->thread);
  store_close(&r->o.store);
  for (size_t i = 0; i < r->space_count; i++)
    mem_free(r->spaces[i].name);
  mem_free(r->spaces);
  cond_done(&r->wake);
  mutex_done(&r->lock);
  mem_freep(p);
}
