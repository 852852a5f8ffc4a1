#include "internal.h"
#include "base/queue.h"

struct slots {
  void (*work)(struct kelou_run *r);
  struct queue *queue;
  struct thread *threads;
  int max_threads, n_threads, max_waiting; /* n_threads: the submitting thread's */
  atomic_int load, running;                /* load: submitted and not ended */
};

static void run(void *arg) {
  struct slots *p = arg;
  void *item;
  int n;
  while ((n = queue_take(p->queue, &item, 1, USEC_NEVER)) >= 0) {
    if (n == 0)
      continue;
    struct kelou_run *r = item;
    atomic_fetch_add(&p->running, 1);
    p->work(r);
    run_unref(&r);
    atomic_fetch_sub(&p->running, 1);
    atomic_fetch_sub(&p->load, 1);
  }
}

static int grow(struct slots *p, struct err *e) {
  int r = thread_start(&p->threads[p->n_threads], "kelou-slot", run, p, e);
  if (r == 0)
    p->n_threads++;
  return r;
}

int slots_new(int threads, int waiting, void (*work)(struct kelou_run *r), struct slots **ret,
              struct err *e) {
  struct slots *p = mem_zalloc(sizeof *p);
  p->work = work;
  p->max_threads = threads;
  p->max_waiting = waiting;
  p->threads = mem_array((size_t)threads, sizeof *p->threads);
  p->queue = queue_new((size_t)threads + (size_t)waiting);
  int r = grow(p, e); /* one at least, so that no accepted run can be without */
  if (r < 0)
    slots_free(&p);
  else
    *ret = p;
  return r;
}

bool slots_full(struct slots *p) { return atomic_load(&p->load) >= p->max_threads + p->max_waiting; }

void slots_submit(struct slots *p, struct kelou_run *r) {
  int load = atomic_fetch_add(&p->load, 1) + 1;
  if (load > p->n_threads && p->n_threads < p->max_threads)
    (void)grow(p, NULL);                  /* without it the run waits for one of the others */
  (void)queue_push(p->queue, run_ref(r)); /* there is room: load never exceeds it */
}

void slots_count(struct slots *p, struct slots_counts *ret) {
  int running = atomic_load(&p->running), load = atomic_load(&p->load);
  *ret = (struct slots_counts){running, load > running ? load - running : 0};
}

void slots_free(struct slots **pp) {
  struct slots *p = *pp;
  if (!p)
    return;
  queue_close(p->queue);
  for (int i = 0; i < p->n_threads; i++)
    thread_join(&p->threads[i]);
  queue_free(&p->queue);
  mem_free(p->threads);
  mem_freep(pp);
}
