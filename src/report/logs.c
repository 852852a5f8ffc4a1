#include "report/logs_internal.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metric.h"
#include "base/queue.h"
#include "base/thread.h"

enum {
  JOBS_MAX = 16384,       /* requests that wait */
  TAKE_MAX = 256,         /* requests of one turn */
  COMMIT_LINES = 2000,    /* of one transaction */
  COMMIT_LINES_ONE = 250, /* where everybody waits for a write (SQLite) */
  COMMIT_BYTES = 1024 * 1024,
  LINE_BYTES = 64 /* beside its text */
};
static const usec_t RETRY_FIRST = 50 * USEC_PER_MS, RETRY_MOST = 1 * USEC_PER_SEC;

struct job { /* what one request brings; one block with its entries and lines */
  struct arena mem;
  struct log_entry *entries;
  enum log_result *results;
  size_t count, bytes;
  void (*done)(void *arg, const enum log_result *results, size_t n);
  void *arg;
};
/* Some lines of an entry, on their way into a transaction. */
struct part {
  struct job *job;
  size_t entry;
};
struct logs {
  struct logs_options o;
  struct queue *queue; /* of struct job * */
  atomic_size_t bytes; /* in it */
  size_t commit_lines;
  struct thread thread;
  struct mutex lock; /* guards stop */
  struct cond wake;
  bool stop;
  /* the writer's: the transaction that is being put together */
  struct log_entry *entries;
  struct part *parts;
  size_t count, entries_cap, parts_cap, lines, text_bytes;
  struct metric *taken, *repeated, *dropped, *refused, *taken_bytes, *dropped_bytes;
};

void logs_options_default(struct logs_options *o) {
  *o = (struct logs_options){.max_lines = 10000,
                             .max_bytes = 4 * 1024 * 1024,
                             .queue_bytes = 16 * 1024 * 1024,
                             .retry_for = 10 * USEC_PER_SEC};
}

static void make_metrics(struct logs *l) {
  struct metric_family *lines = metric_family(
      "kelou_run_log_lines_total", "Log lines of runs by what came of them", METRIC_COUNTER, "result", NULL);
  struct metric_family *bytes =
      metric_family("kelou_run_log_bytes_total", "Bytes of new log lines by what came of them",
                    METRIC_COUNTER, "result", NULL);
  l->taken = metric_series(lines, "taken", NULL);
  l->repeated = metric_series(lines, "repeated", NULL);
  l->dropped = metric_series(lines, "dropped", NULL);
  l->refused = metric_series(lines, "refused", NULL);
  l->taken_bytes = metric_series(bytes, "taken", NULL);
  l->dropped_bytes = metric_series(bytes, "dropped", NULL);
}

struct logs *logs_new(const struct logs_options *o) {
  struct logs *l = mem_zalloc(sizeof *l);
  l->o = *o;
  l->queue = queue_new(JOBS_MAX);
  l->commit_lines = o->write->ops->caps & STORE_CAP_SINGLE_NODE ? COMMIT_LINES_ONE : COMMIT_LINES;
  mutex_init(&l->lock);
  cond_init(&l->wake);
  make_metrics(l);
  return l;
}

/* ---------------------------------------------------------------- in */

static void job_free(struct job *j) {
  struct arena mem = j->mem; /* it lies in it */
  arena_done(&mem);
}

static struct job *job_new(const struct log_entry *entries, size_t n) {
  struct arena mem = {0};
  struct job *j = arena_alloc(&mem, sizeof *j);
  j->count = n;
  j->entries = arena_array(&mem, n, sizeof *j->entries);
  j->results = arena_array(&mem, n, sizeof *j->results);
  for (size_t i = 0; i < n; i++) {
    const struct log_entry *from = &entries[i];
    struct log_line *lines = arena_array(&mem, from->count, sizeof *lines);
    for (size_t k = 0; k < from->count; k++) {
      lines[k] = from->lines[k];
      lines[k].text = arena_slice(&mem, from->lines[k].text);
      j->bytes += LINE_BYTES + from->lines[k].text.n;
    }
    j->entries[i] = *from;
    j->entries[i].lines = lines;
    if (from->ns.p)
      j->entries[i].ns = arena_slice(&mem, from->ns);
    if (from->group.p)
      j->entries[i].group = arena_slice(&mem, from->group);
  }
  j->mem = mem;
  return j;
}

int logs_post(struct logs *l, const struct log_entry *entries, size_t n,
              void (*done)(void *arg, const enum log_result *results, size_t n), void *arg, struct err *e) {
  struct job *j = job_new(entries, n);
  size_t waiting = atomic_fetch_add(&l->bytes, j->bytes), bytes = j->bytes;
  j->done = done;
  j->arg = arg;
  /* one that is larger than all of the queue is taken when nothing waits */
  if ((waiting == 0 || waiting + bytes <= l->o.queue_bytes) && queue_push(l->queue, j) == 0)
    return 0;
  atomic_fetch_sub(&l->bytes, bytes);
  job_free(j);
  return err_set(e, ERR_BUSY, "%zu bytes of run logs are waiting, no more are taken", waiting);
}

/* ---------------------------------------------------------------- one transaction */

static bool pause_for(struct logs *l, usec_t time) {
  mutex_lock(&l->lock);
  if (!l->stop)
    (void)cond_wait(&l->wake, &l->lock, time);
  bool stop = l->stop;
  mutex_unlock(&l->lock);
  return !stop;
}

static bool comes_back(int rc) {
  return rc == ERR_UNAVAILABLE || rc == ERR_UNKNOWN_OUTCOME || rc == ERR_BUSY;
}

/* What is there already is recognised: whatever became of it, it may be written again. */
static int put(struct logs *l, struct st_run_log_put_ret *ret, struct arena *mem, struct err *e) {
  struct st_run_log_put in = {
      .entries = l->entries, .count = l->count, .max_lines = l->o.max_lines, .max_bytes = l->o.max_bytes};
  usec_t until = clock_system.mono(&clock_system) + l->o.retry_for, pause = RETRY_FIRST;
  int rc = store_run_log_put(l->o.write, &in, ret, mem, e);
  while (comes_back(rc) && clock_system.mono(&clock_system) < until && pause_for(l, pause)) {
    pause = pause * 2 > RETRY_MOST ? RETRY_MOST : pause * 2;
    arena_clear(mem);
    rc = store_run_log_put(l->o.write, &in, ret, mem, e);
  }
  return rc;
}

static void count(struct logs *l, const struct log_put_result *r, size_t lines) {
  metric_add(l->taken, r->taken);
  metric_add(l->repeated, r->repeated);
  metric_add(l->dropped, r->dropped);
  metric_add(l->taken_bytes, r->taken_bytes);
  metric_add(l->dropped_bytes, r->dropped_bytes);
  if (r->answer != LOG_TAKEN)
    metric_add(l->refused, (int64_t)lines);
}

/* An entry may be spread over several transactions: the worst of them is its result. */
static void settle(struct logs *l, size_t i, enum log_result result) {
  enum log_result *to = &l->parts[i].job->results[l->parts[i].entry];
  *to = result > *to ? result : *to;
}

static void commit(struct logs *l) {
  static const enum log_result of[] = {[LOG_TAKEN] = LOG_RESULT_RECORDED,
                                       [LOG_UNKNOWN] = LOG_RESULT_UNKNOWN,
                                       [LOG_FORBIDDEN] = LOG_RESULT_FORBIDDEN};
  auto_arena mem = {0};
  struct st_run_log_put_ret ret = {0};
  struct err e = {0};
  if (!l->count)
    return;
  int rc = put(l, &ret, &mem, &e);
  if (rc < 0)
    log_warn("run logs not written, their executors send them again", LF_I("reports", l->count),
             LF_I("lines", l->lines), LF_E(&e));
  for (size_t i = 0; i < l->count; i++) {
    settle(l, i, rc < 0 ? LOG_RESULT_RETRY : of[ret.results[i].answer]);
    if (rc >= 0)
      count(l, &ret.results[i], l->entries[i].count);
  }
  l->count = l->lines = l->text_bytes = 0;
}

static size_t bytes_of(const struct log_entry *e, size_t from, size_t n) {
  size_t bytes = 0;
  for (size_t i = from; i < from + n; i++)
    bytes += e->lines[i].text.n;
  return bytes;
}

/* Into as many transactions as it takes. */
static void add_entry(struct logs *l, struct job *j, size_t i) {
  const struct log_entry *e = &j->entries[i];
  for (size_t from = 0, n; from < e->count; from += n) {
    if (l->lines >= l->commit_lines || l->text_bytes >= COMMIT_BYTES)
      commit(l);
    size_t room = l->commit_lines - l->lines;
    n = e->count - from < room ? e->count - from : room;
    while (n > 1 && l->text_bytes + bytes_of(e, from, n) > COMMIT_BYTES)
      n /= 2;
    mem_reserve(l->entries, l->count, l->entries_cap);
    mem_reserve(l->parts, l->count, l->parts_cap);
    l->entries[l->count] = *e;
    l->entries[l->count].lines = e->lines + from;
    l->entries[l->count].count = n;
    l->parts[l->count++] = (struct part){j, i};
    l->lines += n;
    l->text_bytes += bytes_of(e, from, n);
  }
}

/* ---------------------------------------------------------------- the writer */

static void turn(struct logs *l, struct job **jobs, int n) {
  for (int i = 0; i < n; i++)
    for (size_t k = 0; k < jobs[i]->count; k++)
      add_entry(l, jobs[i], k);
  commit(l);
  for (int i = 0; i < n; i++) {
    atomic_fetch_sub(&l->bytes, jobs[i]->bytes);
    jobs[i]->done(jobs[i]->arg, jobs[i]->results, jobs[i]->count);
    job_free(jobs[i]);
  }
}

static void writer_main(void *arg) {
  struct logs *l = arg;
  struct job *jobs[TAKE_MAX];
  int n;
  while ((n = queue_take(l->queue, (void **)jobs, TAKE_MAX, USEC_NEVER)) >= 0)
    if (n > 0)
      turn(l, jobs, n);
}

int logs_start(struct logs *l, struct err *e) {
  return thread_start(&l->thread, "run-logs", writer_main, l, e);
}

void logs_stop(struct logs *l) {
  queue_close(l->queue);
  mutex_lock(&l->lock);
  l->stop = true; /* a database that is away is not waited for any more */
  cond_broadcast(&l->wake);
  mutex_unlock(&l->lock);
  if (l->thread.running)
    thread_join(&l->thread);
}

void logs_free(struct logs **p) {
  struct logs *l = *p;
  if (!l)
    return;
  logs_stop(l);
  queue_free(&l->queue);
  store_close(&l->o.write);
  mem_free(l->entries);
  mem_free(l->parts);
  cond_done(&l->wake);
  mutex_done(&l->lock);
  mem_freep(p);
}

int logs_read(struct logs *l, const struct logs_ask *ask, struct logs_page *ret, struct arena *mem,
              struct err *e) {
  return logs_list(l->o.read, ask, ret, mem, e);
}
