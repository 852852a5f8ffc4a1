#pragma once
/* Weighted rendezvous hashing: of those that are there, a key belongs to the one with the highest rank. When one comes or goes, only the
 * keys move that belong to it then, or did: 1/n of them. The same on every node and in every version. Pure. */
#include "base/rng.h"

/* The rank of `member` (both are hashes, e.g. slice_hash of a text) for a key, among members of equal weight. */
static inline uint64_t rendezvous_hash(uint64_t key, uint64_t member) {
  return hash_u64(key ^ hash_u64(member));
}
/* The rank of one of this weight (> 0), from its rendezvous_hash: members get keys in proportion to their weights. Members of equal
 * weight come in the order of their hashes. */
double rendezvous_rank(uint64_t hash, double weight);
