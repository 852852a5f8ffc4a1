#pragma once
/* One I/O loop on a thread of its own (libuv inside; no libuv type leaves net/).
 * Everything marked "loop thread" must be called there; loop_post is the way in from elsewhere. */
#include "base/err.h"
#include "base/time.h"
#include <stdbool.h>

struct loop;
struct loop_timer;

int loop_new(const char *thread_name, struct loop **ret, struct err *e);
int loop_start(struct loop *l, struct err *e); /* runs until loop_stop */
/* Ask the loop to end (from any thread), wait for its thread, free it. Servers and clients on it
 * must have been stopped before (http_server_drain, http_client_free). */
void loop_stop(struct loop **l);
/* Run fn(arg) on the loop thread soon, in order of posting. Any thread; never blocks, coalesces wake-ups. */
void loop_post(struct loop *l, void (*fn)(void *), void *arg);
bool loop_is_current(const struct loop *l); /* are we on its thread? */
usec_t loop_now(const struct loop *l);      /* monotonic, cached per turn; loop thread */

/* Timers (loop thread). Rounded up to a millisecond. Re-arming replaces. */
struct loop_timer *loop_timer_new(struct loop *l, void (*fn)(void *), void *arg);
void loop_timer_set(struct loop_timer *t, usec_t after, usec_t repeat /* 0 = once */);
void loop_timer_clear(struct loop_timer *t);
void loop_timer_free(struct loop_timer **t);
