#include "base/failpoint.h"
#ifdef KELOU_FAILPOINTS
#include "base/parse.h"
#include "base/time.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define FAILPOINTS_MAX 32
#define CRASH_EXIT     137 /* what a kill -9 looks like from a shell */

enum action { ACT_CRASH, ACT_ERROR, ACT_SLEEP, ACT_MAX_ };
static const char *const action_names[] = {"crash", "error", "sleep", NULL};

struct point {
  struct slice name;
  int action;
  int64_t nth; /* 0: every time */
  usec_t wait;
  atomic_int_fast64_t hits;
};

static struct point points[FAILPOINTS_MAX];
static size_t n_points;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* A misspelt failpoint would let a fault test pass without its fault. */
static void refuse(struct slice what, const struct err *e) {
  (void)fprintf(stderr, "KELOU_FAILPOINTS: \"%.*s\": %s\n", SLICE_FMT(what), e->text);
  _exit(2);
}

static int parse_point(struct slice text, struct point *p, struct err *e) {
  struct slice rest;
  p->name = slice_cut(text, '=', &rest);
  if (!p->name.n || !rest.p)
    return err_set(e, ERR_INVALID, "expected name=action:nth[:argument]");
  int r = parse_enum(slice_cut(rest, ':', &rest), action_names, &p->action, e);
  if (r < 0)
    return r;
  r = parse_i64(slice_cut(rest, ':', &rest), 0, INT64_MAX, &p->nth, e);
  if (r < 0)
    return r;
  if (p->action == ACT_SLEEP)
    return duration_parse(rest, 0, USEC_PER_HOUR, &p->wait, e);
  return rest.n ? err_set(e, ERR_INVALID, "this action takes no argument") : 0;
}

static void read_points(void) {
  struct slice rest = slice_of(getenv("KELOU_FAILPOINTS"));
  while (rest.n) {
    struct slice one = slice_cut(rest, ',', &rest);
    struct err e = {0};
    if (n_points == FAILPOINTS_MAX)
      (void)err_set(&e, ERR_LIMIT, "more than %d failpoints", FAILPOINTS_MAX);
    if (e.code || parse_point(one, &points[n_points], &e) < 0)
      refuse(one, &e);
    n_points++;
  }
}

static bool act(const struct point *p) {
  if (p->action == ACT_CRASH)
    _exit(CRASH_EXIT);
  if (p->action == ACT_SLEEP) {
    struct timespec t = {.tv_sec = p->wait / USEC_PER_SEC, .tv_nsec = p->wait % USEC_PER_SEC * 1000};
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
  }
  return p->action == ACT_ERROR;
}

bool failpoint(const char *name) {
  (void)pthread_once(&once, read_points);
  bool fail = false;
  for (size_t i = 0; i < n_points; i++) {
    if (!slice_eqz(points[i].name, name))
      continue;
    int64_t hit = atomic_fetch_add(&points[i].hits, 1) + 1;
    if (points[i].nth == 0 || points[i].nth == hit)
      fail = act(&points[i]) || fail;
  }
  return fail;
}
#endif
