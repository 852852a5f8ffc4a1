#include "core/breaker.h"

static void open_for(struct breaker *b, usec_t length, usec_t now) {
  b->state = BREAKER_OPEN;
  b->open_for = length;
  b->until = now + length;
}

static void failed(struct breaker *b, const struct breaker_limits *l, usec_t now) {
  b->failures += b->failures < INT32_MAX;
  switch (b->state) {
  case BREAKER_CLOSED:
    if (b->failures >= l->failures)
      open_for(b, l->open_first < l->open_most ? l->open_first : l->open_most, now);
    else
      b->until = now + l->suspect;
    break;
  case BREAKER_HALF_OPEN:
    open_for(b, b->open_for < l->open_most / 2 ? 2 * b->open_for : l->open_most, now);
    break;
  case BREAKER_OPEN: /* it began before */
  case BREAKER_STATE_MAX_: break;
  }
}

void breaker_step(struct breaker *b, const struct breaker_limits *l, enum breaker_event ev, usec_t now) {
  if (ev == BREAKER_FAILED) {
    failed(b, l, now);
    return;
  }
  *b = (struct breaker){.state = BREAKER_CLOSED, .until = ev == BREAKER_REFUSED ? now + l->suspect : 0};
}

enum breaker_advice breaker_ask(const struct breaker *b, usec_t now) {
  if (b->until <= now)
    return BREAKER_YES;
  return b->state == BREAKER_CLOSED ? BREAKER_RATHER_NOT : BREAKER_NO;
}

void breaker_chosen(struct breaker *b, usec_t now) {
  if (b->state == BREAKER_CLOSED)
    return;
  b->state = BREAKER_HALF_OPEN;
  b->until = now + b->open_for;
}
