#include "run/service.h"
#include "base/mem.h"

void run_job_free(struct run_job **j) {
  if (!*j)
    return;
  task_spec_unref(&(*j)->spec);
  mem_free((*j)->pin);
  mem_free((*j)->payload);
  mem_free((*j)->previous);
  mem_free((*j)->holder);
  mem_free(*j);
  *j = NULL;
}

static char *dup_or_null(const char *z) { return z ? mem_strdup(z) : NULL; }

struct run_job *run_jobs_of(struct run_service *s, const struct live_out *out, const int64_t *epochs) {
  struct run_job *head = NULL, **tail = &head;
  for (size_t i = 0; i < out->dispatches_count; i++) {
    const struct live_dispatch *d = &out->dispatches[i];
    if (s->epochs[d->key.shard] != epochs[d->key.shard]) /* dropped since: its texts are gone */
      continue;
    if (!live_wanted(s->live, &d->key, d->attempt)) /* ended in the same turn */
      continue;
    struct run_job *j = mem_zalloc(sizeof *j);
    j->key = d->key;
    j->version = d->version;
    j->attempt = d->attempt;
    j->spec = task_spec_ref(d->spec);
    j->fence = s->epochs[d->key.shard];
    j->fired_at = d->fired_at;
    j->deadline = d->deadline;
    j->pin = dup_or_null(d->pin);
    j->payload = dup_or_null(d->payload);
    j->previous = dup_or_null(d->previous);
    j->holder = dup_or_null(d->holder);
    j->holder_incarnation = d->holder_incarnation;
    *tail = j;
    tail = &j->next;
  }
  return head;
}
