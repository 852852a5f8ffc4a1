#include "inproc.h"
#include "base/mem.h"

static void send(void *arg, struct delivery *v) {
  struct inproc *x = arg;
  if (x->now) {
    usec_t late = x->now(x->now_arg) - v->job->key.scheduled_at;
    mutex_lock(&x->lock);
    if (x->count < x->max) {
      mem_reserve(x->lateness_us, x->count, x->cap);
      x->lateness_us[x->count++] = late > INT32_MAX ? INT32_MAX : (int32_t)late;
    }
    mutex_unlock(&x->lock);
  }
  struct dispatch_answer a = {.outcome = DISPATCH_DONE, .event = {.kind = EV_DONE_OK, .progress = -1}};
  dispatch_answer(x->dispatcher, v, &a);
}

static void cancel(void *arg, struct instance *i, const struct live_cancel *c, int64_t fence) {
  (void)arg, (void)i, (void)c, (void)fence; /* nothing runs on */
}

struct dispatch_channel inproc_channel(void *arg, struct dispatcher *d) {
  ((struct inproc *)arg)->dispatcher = d;
  return (struct dispatch_channel){"inproc", send, cancel, arg};
}
