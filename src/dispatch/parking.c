#include "dispatch/internal.h"

/* Jobs that no executor can take now wait here: the higher priority first, first come first served within one. */

static char *key_of(const struct dispatcher *d, const struct waiting *w) {
  const struct task_spec *s = w->job->spec;
  struct choose_ask ask = ask_of(w);
  char only[REGISTRY_ID_MAX] = "";
  struct arena none = {0};
  if (!w->instance)
    registry_only(d->o.registry, &ask, only);
  char *key = mem_strdup(arena_printf(&none, "%s\x1f%s\x1f%s\x1f%s\x1f%s\x1f%s", s->ns, s->group, s->handler,
                                      s->executor_labels ? s->executor_labels : "", only,
                                      w->instance ? w->instance->id : ""));
  arena_done(&none);
  return key;
}

void waiting_free(struct dispatcher *d, struct waiting **w) {
  if (!*w)
    return;
  run_job_free(&(*w)->job);
  task_text_unref(&(*w)->text);
  if ((*w)->instance)
    registry_release(d->o.registry, &(*w)->instance);
  mem_free((*w)->avoid);
  mem_free(*w);
  *w = NULL;
}

static struct lane *lane_of(struct parking *p, const struct waiting *w) {
  return &p->lanes[w->job->spec->priority % DISPATCH_PRIORITIES];
}

static void push_back(struct lane *p, struct waiting *w) {
  w->next = NULL;
  if (p->tail)
    p->tail->next = w;
  else
    p->head = w;
  p->tail = w;
}

static void push_front(struct lane *p, struct waiting *w) {
  w->next = p->head;
  p->head = w;
  if (!p->tail)
    p->tail = w;
}

static struct waiting *pop(struct lane *p) {
  struct waiting *w = p->head;
  p->head = w->next;
  if (!p->head)
    p->tail = NULL;
  w->next = NULL;
  return w;
}

bool parking_full(struct dispatcher *d, const struct waiting *w) {
  if (!d->parked)
    return false;
  auto_free char *key = key_of(d, w);
  struct parking *p;
  HASH_FIND_STR(d->parked, key, p);
  return p && p->full;
}

void park(struct dispatcher *d, struct waiting *w, usec_t retry_at, bool full) {
  auto_free char *key = key_of(d, w);
  struct parking *p;
  HASH_FIND_STR(d->parked, key, p);
  if (!p) {
    p = mem_zalloc(sizeof *p);
    p->key = take(key);
    p->ns = mem_strdup(w->job->spec->ns);
    p->group = mem_strdup(w->job->spec->group);
    p->retry_at = retry_at;
    HASH_ADD_KEYPTR(hh, d->parked, p->key, strlen(p->key), p);
  }
  push_back(lane_of(p, w), w);
  p->count++;
  p->full = p->full || full;
  p->retry_at = retry_at < p->retry_at ? retry_at : p->retry_at;
  d->parked_count++;
}

static void parking_free(struct dispatcher *d, struct parking *p) {
  HASH_DEL(d->parked, p);
  mem_free(p->key);
  mem_free(p->ns);
  mem_free(p->group);
  mem_free(p);
}

/* The routing names another executor than before: it must not stand in line with those who wait for that one. */
static bool moved(const struct dispatcher *d, const struct parking *p, const struct waiting *w) {
  auto_free char *key = key_of(d, w);
  return strcmp(key, p->key) != 0;
}

/* Try those of one priority that wait in one place, each at most once, until one finds no executor. */
static void unpark(struct dispatcher *d, struct parking *p, struct lane *lane, usec_t mono) {
  struct waiting *last = lane->tail;
  for (bool more = lane->head; more && lane->head;) {
    struct waiting *w = pop(lane);
    more = w != last;
    usec_t retry_at = w->not_before;
    enum send_result r = w->not_before > mono ? SEND_LATER : try_send(d, w, mono, &retry_at);
    if (r == SEND_GONE) {
      p->count--;
      d->parked_count--;
      continue;
    }
    if (r == SEND_FULL && moved(d, p, w)) {
      p->count--;
      d->parked_count--;
      park(d, w, retry_at, true);
      continue;
    }
    p->soonest = retry_at < p->soonest ? retry_at : p->soonest;
    if (r == SEND_FULL) {
      push_front(lane, w);
      p->full = true;
      break;
    }
    push_back(lane, w);
  }
}

/* All places together, from the highest priority down: they may want the same slots. */
void unpark_ready(struct dispatcher *d, usec_t mono) {
  struct parking *p, *next, *ready = NULL;
  HASH_ITER (hh, d->parked, p, next) {
    if (p->retry_at > mono)
      continue;
    p->full = false;
    p->soonest = USEC_NEVER;
    p->next_ready = ready;
    ready = p;
  }
  for (int i = DISPATCH_PRIORITIES - 1; ready && i >= 0; i--)
    for (p = ready; p; p = p->next_ready)
      if (!p->full)
        unpark(d, p, &p->lanes[i], mono);
  for (p = ready; p; p = p->next_ready)
    p->retry_at = p->soonest;
  for (p = ready; p; p = next) {
    next = p->next_ready;
    if (!p->count)
      parking_free(d, p);
  }
  metric_set(d->parked_gauge, (double)d->parked_count);
}

void parking_hint(struct dispatcher *d, const char *ns, const char *group) {
  struct parking *p, *next;
  HASH_ITER (hh, d->parked, p, next) {
    if (strcmp(p->ns, ns) == 0 && strcmp(p->group, group) == 0)
      p->retry_at = 0;
  }
}

usec_t parking_next(struct dispatcher *d) {
  usec_t at = USEC_NEVER;
  struct parking *p, *next;
  HASH_ITER (hh, d->parked, p, next) {
    at = p->retry_at < at ? p->retry_at : at;
  }
  return at;
}

void parking_done(struct dispatcher *d) {
  struct parking *p, *next;
  HASH_ITER (hh, d->parked, p, next) {
    for (int i = 0; i < DISPATCH_PRIORITIES; i++)
      while (p->lanes[i].head) {
        struct waiting *w = pop(&p->lanes[i]);
        waiting_free(d, &w);
      }
    parking_free(d, p);
  }
}
