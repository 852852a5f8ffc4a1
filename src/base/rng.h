#pragma once
/* Random numbers that can be replayed: SplitMix64 seeding xoshiro256** (Blackman & Vigna, public domain).
 * Not for secrets (net/crypto.h has those). Not thread-safe: one per thread or per simulation. */
#include <stdint.h>

struct rng {
  uint64_t s[4];
};
void rng_seed(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n); /* 0 … n-1, n > 0 */
double rng_unit(struct rng *r);                /* [0,1) */
uint64_t hash_u64(uint64_t x);                 /* SplitMix64 finaliser: the stable hash of ids */
