#include "core/rendezvous.h"
#include <math.h>

/* −w / ln u for u in (0, 1): the least of n exponential times with the rates w₁…wₙ is the i-th with the probability wᵢ / Σw. */
double rendezvous_rank(uint64_t hash, double weight) {
  double u = ((double)(hash >> 12) + 0.5) * 0x1p-52; /* exact: neither 0 nor 1 */
  return -weight / log(u);
}
