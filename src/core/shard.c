#include "core/shard_task.h"
#include "base/mem.h"
#include "core/schedule.h"

struct shard *shard_new(int32_t id, const struct shard_limits *limits) {
  struct shard *s = mem_zalloc(sizeof *s);
  s->id = id;
  s->limits = *limits;
  s->queue = calq_new();
  return s;
}

static void drop_tasks(struct shard *s) {
  struct calq_entry e;
  while (calq_peek(s->queue, &e)) { /* dead tasks live on in the queue only */
    struct sched_task *t = e.item;
    calq_pop(s->queue);
    if (--t->queued == 0 && t->dead)
      sched_task_free(t);
  }
  struct sched_task *t, *next;
  HASH_ITER (hh, s->tasks, t, next) {
    HASH_DEL(s->tasks, t);
    sched_task_free(t);
  }
  struct sched_orphan *o, *onext;
  HASH_ITER (hh, s->orphans, o, onext) {
    HASH_DEL(s->orphans, o);
    mem_free(o);
  }
  s->touched_count = s->completed_count = s->waiting_count = 0;
}

void shard_free(struct shard **s) {
  if (!*s)
    return;
  drop_tasks(*s);
  calq_free(&(*s)->queue);
  mem_free((*s)->touched);
  mem_free((*s)->completed);
  mem_free((*s)->waiting);
  mem_free(*s);
  *s = NULL;
}

void shard_reset(struct shard *s, int64_t epoch, int64_t tasks_version, usec_t fired_at, int64_t fired_task) {
  drop_tasks(s);
  s->epoch = epoch;
  s->tasks_version = tasks_version;
  s->at = fired_at;
  s->at_task = fired_task;
}

struct sched_task *sched_find(struct shard *s, int64_t task_id) {
  struct sched_task *t;
  HASH_FIND(hh, s->tasks, &task_id, sizeof task_id, t);
  return t;
}

static struct sched_orphan *find_orphan(struct shard *s, int64_t task_id) {
  struct sched_orphan *o;
  HASH_FIND(hh, s->orphans, &task_id, sizeof task_id, o);
  return o;
}

static struct sched_orphan *orphan_of(struct shard *s, int64_t task_id) {
  struct sched_orphan *o = find_orphan(s, task_id);
  if (!o) {
    o = mem_zalloc(sizeof *o);
    o->task_id = task_id;
    HASH_ADD(hh, s->orphans, task_id, sizeof o->task_id, o);
  }
  return o;
}

static void set_progress(struct sched_task *t, usec_t base_at, int64_t fired, bool open) {
  struct sched_extra *x = sched_extra(t);
  x->open = x->open || open;
  if (x->open)
    x->base_at = 0; /* the end that is still to be told counts, whatever the row says by now */
  else if (base_at > x->base_at)
    x->base_at = base_at;
  if (fired > x->fired) /* both only grow: what is known already is not older */
    x->fired = x->fired_pending = fired;
}

static struct sched_task *new_task(struct shard *s, int64_t task_id) {
  struct sched_task *t = mem_zalloc(sizeof *t);
  t->id = task_id;
  t->due = USEC_NEVER;
  HASH_ADD(hh, s->tasks, id, sizeof t->id, t);
  struct sched_orphan *o = find_orphan(s, task_id);
  if (o) {
    set_progress(t, o->base_at, o->fired, o->open);
    HASH_DEL(s->orphans, o);
    mem_free(o);
  }
  return t;
}

static struct sched_task *put_version(struct shard *s, const struct shard_version *v) {
  struct sched_task *t = sched_find(s, v->task_id);
  if (!t)
    t = new_task(s, v->task_id);
  sched_insert(t, v);
  if (t->first.next) {
    mem_reserve(s->waiting, s->waiting_count, s->waiting_cap);
    s->waiting[s->waiting_count++] = t->id;
  }
  return t;
}

void shard_put(struct shard *s, const struct shard_version *v) { (void)put_version(s, v); }

void shard_put_progress(struct shard *s, int64_t task_id, usec_t base_at, int64_t fired, bool open) {
  struct sched_task *t = sched_find(s, task_id);
  if (t) {
    set_progress(t, base_at, fired, open);
    return;
  }
  struct sched_orphan *o =
      orphan_of(s, task_id); /* COMPLETED or PAUSED for long: not loaded until a change brings it back */
  o->base_at = base_at > o->base_at ? base_at : o->base_at;
  o->fired = fired > o->fired ? fired : o->fired;
  o->open = o->open || open;
}

void sched_queue(struct shard *s, struct sched_task *t) {
  if (t->due == USEC_NEVER)
    return;
  calq_push(s->queue, (struct calq_entry){t->due, t->id, t});
  t->queued++;
}

/* Compute and queue the next instant unless the armed one stays. */
void sched_arm(struct shard *s, struct sched_task *t, bool from_first) {
  usec_t before = t->queued ? t->due : USEC_NEVER;
  sched_next(t, s->at, s->at_task, from_first);
  if (t->due != before)
    sched_queue(s, t);
}

void shard_loaded(struct shard *s) {
  struct sched_task *t, *next;
  HASH_ITER (hh, s->tasks, t, next) {
    sched_trim(t, s->at);
    sched_arm(s, t, true);
    sched_note_complete(s, t);
  }
}

size_t shard_take_completed(struct shard *s, int64_t *ret_ids, int32_t *ret_versions, size_t max) {
  size_t n = 0;
  while (n < max && s->completed_count) {
    s->completed_count--;
    ret_ids[n] = s->completed[s->completed_count].task_id;
    ret_versions[n++] = s->completed[s->completed_count].version;
  }
  return n;
}

void sched_note_complete(struct shard *s, struct sched_task *t) {
  if (!sched_is_complete(t))
    return;
  mem_reserve(s->completed, s->completed_count, s->completed_cap);
  s->completed[s->completed_count++] = (struct sched_done){t->id, sched_last(t)->version};
}

/* A deleted task is forgotten once the watermark has passed its deletion. */
static bool drop_if_deleted(struct shard *s, struct sched_task *t) {
  if (t->first.next || t->first.state != TASK_DELETED)
    return false;
  HASH_DEL(s->tasks, t);
  t->dead = true;
  t->due = USEC_NEVER;
  if (t->queued == 0)
    sched_task_free(t);
  return true;
}

void sched_settle_versions(struct shard *s) {
  size_t kept = 0;
  for (size_t i = 0; i < s->waiting_count; i++) {
    struct sched_task *t = sched_find(s, s->waiting[i]);
    if (!t)
      continue;
    sched_trim(t, s->at);
    if (t->first.next)
      s->waiting[kept++] = t->id;
    else if (!drop_if_deleted(s, t))
      sched_note_complete(s, t);
  }
  s->waiting_count = kept;
}

void shard_change(struct shard *s, const struct shard_version *v, int64_t change_no) {
  struct sched_task *t = put_version(s, v);
  sched_arm(s, t, true);
  if (change_no > s->tasks_version)
    s->tasks_version = change_no;
  if (!drop_if_deleted(s, t))
    sched_note_complete(s, t);
}

/* It begins at `at` or later, or what was left to it is later than `at` by its own jitter. */
usec_t shard_needs_since(const struct shard_version *v, usec_t at) {
  usec_t room = v->spec && v->spec->schedule ? schedule_jitter_max(v->spec->schedule) : 0;
  usec_t since = at - room - 2; /* at - 1 rules still: the pair (at, task) may be to come */
  return v->version > 1 && v->effective_at > since ? since : USEC_NEVER;
}

void shard_delay_ended(struct shard *s, int64_t task_id, usec_t end) {
  struct sched_task *t = sched_find(s, task_id);
  if (!t) {
    struct sched_orphan *o = orphan_of(s, task_id);
    o->open = false;
    o->base_at = end > o->base_at ? end : o->base_at;
    return;
  }
  struct sched_extra *x = sched_extra(t);
  if (end <= x->base_at) /* loaded with the tasks: its successor may have been fired already */
    return;
  x->open = x->open_pending = false;
  x->base_at = end;
  sched_arm(s, t, true);
  sched_note_complete(s, t);
}

usec_t shard_next_due(struct shard *s) {
  struct calq_entry e;
  while (calq_peek(s->queue, &e))
    if (!sched_pop_stale(s, &e))
      return e.due;
  return USEC_NEVER;
}

bool sched_pop_stale(struct shard *s, const struct calq_entry *e) {
  struct sched_task *t = e->item;
  if (e->due == t->due && !t->dead)
    return false;
  calq_pop(s->queue); /* the task was armed anew since */
  if (--t->queued == 0 && t->dead)
    sched_task_free(t);
  return true;
}

void shard_watermark(const struct shard *s, usec_t *ret_at, int64_t *ret_task) {
  *ret_at = s->at;
  *ret_task = s->at_task;
}

int32_t shard_id(const struct shard *s) { return s->id; }
int64_t shard_tasks_version(const struct shard *s) { return s->tasks_version; }
int64_t shard_epoch(const struct shard *s) { return s->epoch; }
size_t shard_task_count(const struct shard *s) { return HASH_COUNT(s->tasks); }

const struct shard_version *shard_find(struct shard *s, int64_t task_id) {
  struct sched_task *t = sched_find(s, task_id);
  if (!t)
    return NULL;
  const struct sched_version *v = sched_last(t);
  s->found = (struct shard_version){t->id,           v->version, (enum task_state)v->state,
                                    v->effective_at, v->anchor,  v->spec};
  return &s->found;
}
