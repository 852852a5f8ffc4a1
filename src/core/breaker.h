#pragma once
/* The circuit breaker of one executor: what its answers to deliveries mean for the next ones (semantics.md §5). Pure; the caller's lock
 * guards it. All zeros = closed, nothing has happened. */
#include "core/model.h"

struct breaker_limits {
  int32_t failures; /* one after the other that open it: 5 */
  usec_t open_first,
      open_most; /* no deliveries for so long: 2 s, twice as long each time that the probe fails, up to 1 min */
  usec_t suspect; /* after one failure or refusal it is asked after all others for so long: 5 s */
};
struct breaker {
  enum breaker_state state;
  int32_t failures; /* since the last answer */
  usec_t open_for;  /* how long it is open this time */
  usec_t
      until; /* monotonic. CLOSED: suspect; OPEN: no delivery; HALF_OPEN: the probe's answer is waited for */
};
enum breaker_event {
  BREAKER_ANSWERED, /* any answer that shows it works: accepted, done, busy */
  BREAKER_REFUSED,  /* it works and will not have this run */
  BREAKER_FAILED,   /* not reached, no acknowledgement, or out of order (5xx) */
};
enum breaker_advice { /* in the order of preference */
                      BREAKER_NO,
                      BREAKER_RATHER_NOT, /* suspect: when there is no other */
                      BREAKER_YES,
};

/* What came of a delivery. Answers of deliveries that began before it opened count as well. */
void breaker_step(struct breaker *b, const struct breaker_limits *l, enum breaker_event ev, usec_t now);
/* May a delivery go there now? After its time an open one lets a single delivery through, the probe. */
enum breaker_advice breaker_ask(const struct breaker *b, usec_t now);
/* The advice was taken: a delivery goes there. A probe of which nothing is heard is followed by another after `open_for`. */
void breaker_chosen(struct breaker *b, usec_t now);
/* Nothing to remember: a good answer would change nothing. */
static inline bool breaker_is_calm(const struct breaker *b) {
  return b->state == BREAKER_CLOSED && !b->failures && !b->until;
}
