#include "base/rng.h"

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

/* The output function of SplitMix64. */
static uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

uint64_t hash_u64(uint64_t x) { return mix(x + GOLDEN); }

void rng_seed(struct rng *r, uint64_t seed) {
  for (int i = 0; i < 4; i++) {
    seed += GOLDEN;
    r->s[i] = mix(seed);
  }
}

static uint64_t rotate(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

uint64_t rng_next(struct rng *r) {
  uint64_t result = rotate(r->s[1] * 5, 7) * 9;
  uint64_t t = r->s[1] << 17;
  r->s[2] ^= r->s[0];
  r->s[3] ^= r->s[1];
  r->s[1] ^= r->s[2];
  r->s[0] ^= r->s[3];
  r->s[2] ^= t;
  r->s[3] = rotate(r->s[3], 45);
  return result;
}

uint64_t rng_below(struct rng *r, uint64_t n) {
  /* Reject what lies below 2^64 mod n, so that every remainder is equally likely. */
  uint64_t least = (0 - n) % n;
  uint64_t x;
  do
    x = rng_next(r);
  while (x < least);
  return x % n;
}

double rng_unit(struct rng *r) { return (double)(rng_next(r) >> 11) * 0x1p-53; }
