#include "internal.h"
#include <utlist.h>

struct kelou_run *attempts_find(struct attempts *t, const char *id) {
  struct kelou_run *r;
  HASH_FIND_STR(t->by_id, id, r);
  return r;
}

enum admission attempts_look(struct attempts *t, const char *id, int attempt, int64_t fence,
                             struct kelou_run **ret_known) {
  struct kelou_run *r = attempts_find(t, id);
  *ret_known = r;
  if (!r)
    return ADMIT_NEW;
  if (fence < r->fence || attempt < r->attempt)
    return ADMIT_STALE;
  if (attempt > r->attempt)
    return ADMIT_NEW;
  r->fence = fence;
  return ADMIT_REPEATED;
}

static void forget(struct attempts *t, struct kelou_run *r) {
  HASH_DEL(t->by_id, r);
  if (r->phase == PHASE_ENDED) {
    DL_DELETE(t->ended, r);
    t->ended_n--;
    t->bytes -= r->report_n;
  }
  r->known = false;
  run_unref(&r);
}

void attempts_add(struct attempts *t, struct kelou_run *r) {
  struct kelou_run *earlier = attempts_find(t, r->id);
  if (earlier)
    forget(t, earlier);
  HASH_ADD_STR(t->by_id, id, r);
  r->known = true;
  (void)run_ref(r); /* the table's */
}

void attempts_forget(struct attempts *t, struct kelou_run *r) {
  if (r->known)
    forget(t, r);
}

void attempts_expire(struct attempts *t, usec_t now) {
  while (t->ended && !atomic_load(&t->ended->unacknowledged) &&
         (t->ended_n > t->max_ended || t->bytes > t->max_bytes || now - t->ended->ended_at > t->max_age))
    forget(t, t->ended);
}

void attempts_ended(struct attempts *t, struct kelou_run *r, usec_t now) {
  r->phase = PHASE_ENDED;
  r->ended_at = now;
  if (!r->known)
    return;
  DL_APPEND(t->ended, r);
  t->ended_n++;
  t->bytes += r->report_n;
  attempts_expire(t, now);
}

void attempts_clear(struct attempts *t) {
  struct kelou_run *r, *next;
  HASH_ITER (hh, t->by_id, r, next) {
    forget(t, r);
  }
}
