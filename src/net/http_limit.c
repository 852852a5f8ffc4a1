#include "net/http_limit.h"
#include "base/mem.h"
#include "net/crypto.h"

#define BUCKETS     1024
#define NS_PER_USEC INT64_C(1000)
#define NS_PER_SEC  (USEC_PER_SEC * NS_PER_USEC)

/* --- the key: SipHash-1-3 of the owner, so that nobody can look for owners with the same one ------------------- */

static uint64_t turn(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

static void sip_round(uint64_t v[4]) {
  v[0] += v[1];
  v[2] += v[3];
  v[1] = turn(v[1], 13) ^ v[0];
  v[3] = turn(v[3], 16) ^ v[2];
  v[0] = turn(v[0], 32);
  v[2] += v[1];
  v[0] += v[3];
  v[1] = turn(v[1], 17) ^ v[2];
  v[3] = turn(v[3], 21) ^ v[0];
  v[2] = turn(v[2], 32);
}

static uint64_t sip(const uint64_t seed[2], struct slice s) {
  uint64_t v[4] = {seed[0] ^ UINT64_C(0x736f6d6570736575), seed[1] ^ UINT64_C(0x646f72616e646f6d),
                   seed[0] ^ UINT64_C(0x6c7967656e657261), seed[1] ^ UINT64_C(0x7465646279746573)};
  for (size_t i = 0; i <= s.n; i += 8) { /* the last word is never full: it also carries the length */
    uint64_t word = 0;
    size_t n = s.n - i < 8 ? s.n - i : 8;
    if (n)
      memcpy(&word, s.p + i, n);
    if (n < 8)
      word |= (uint64_t)s.n << 56;
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
  }
  v[2] ^= 0xff;
  for (int i = 0; i < 3; i++)
    sip_round(v);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* --- the table ------------------------------------------------------------------------------------------------- */

void http_limiter_init(struct http_limiter *l, int64_t rate, int max_held) {
  *l = (struct http_limiter){.bucket_n = BUCKETS, .max_held = max_held};
  l->step_ns = rate > 0 ? NS_PER_SEC / rate : 0;
  l->buckets = mem_array(l->bucket_n, sizeof *l->buckets);
  list_init(&l->unused);
  crypto_random(l->seed, sizeof l->seed);
}

void http_limiter_done(struct http_limiter *l) {
  for (size_t i = 0; i < l->bucket_n; i++)
    for (struct http_limit_entry *e = l->buckets[i], *next; e; e = next) {
      next = e->next;
      mem_free(e);
    }
  mem_free(l->buckets);
  l->buckets = NULL;
  l->bucket_n = l->n = 0;
}

static struct http_limit_entry **place(struct http_limiter *l, uint64_t key) {
  return &l->buckets[key & (l->bucket_n - 1)];
}

static void grow(struct http_limiter *l) {
  struct http_limit_entry **old = l->buckets;
  size_t n = l->bucket_n;
  l->bucket_n *= 2;
  l->buckets = mem_array(l->bucket_n, sizeof *l->buckets);
  for (size_t i = 0; i < n; i++)
    for (struct http_limit_entry *e = old[i], *next; e; e = next) {
      struct http_limit_entry **to = place(l, e->key);
      next = e->next;
      e->next = *to;
      *to = e;
    }
  mem_free(old);
}

static void forget(struct http_limiter *l, struct http_limit_entry *e) {
  struct http_limit_entry **at = place(l, e->key);
  while (*at != e)
    at = &(*at)->next;
  *at = e->next;
  link_out(&e->unused);
  l->n--;
  mem_free(e);
}

static struct http_limit_entry *oldest_unused(struct http_limiter *l) {
  struct link *first = list_first(&l->unused);
  return first ? link_entry(first, struct http_limit_entry, unused) : NULL;
}

struct http_limit_entry *http_limiter_hold(struct http_limiter *l, struct slice owner, usec_t now) {
  uint64_t key = sip(l->seed, owner);
  struct http_limit_entry *e = *place(l, key);
  while (e && e->key != key)
    e = e->next;
  if (!e) {
    struct http_limit_entry *old = oldest_unused(l);
    if (old && l->n >= HTTP_LIMIT_ENTRIES)
      forget(l, old);
    if (++l->n > l->bucket_n)
      grow(l);
    e = mem_zalloc(sizeof *e);
    e->key = key;
    e->due_ns = now * NS_PER_USEC;
    e->next = *place(l, key);
    *place(l, key) = e;
  }
  link_out(&e->unused);
  e->held++;
  return e;
}

void http_limiter_release(struct http_limiter *l, struct http_limit_entry *e) {
  if (--e->held == 0)
    list_push(&l->unused, &e->unused);
}

bool http_limiter_full(const struct http_limiter *l, const struct http_limit_entry *e) {
  return l->max_held && e->held > l->max_held;
}

int http_limiter_take(const struct http_limiter *l, struct http_limit_entry *e, usec_t now) {
  int64_t now_ns = now * NS_PER_USEC, ahead = e->due_ns - now_ns;
  if (!l->step_ns)
    return 0;
  ahead = (ahead > 0 ? ahead : 0) + l->step_ns;
  if (ahead > HTTP_LIMIT_BURST * NS_PER_SEC && ahead > l->step_ns)
    return (int)((ahead - HTTP_LIMIT_BURST * NS_PER_SEC + NS_PER_SEC - 1) / NS_PER_SEC);
  e->due_ns = now_ns + ahead;
  return 0;
}

void http_limiter_tidy(struct http_limiter *l, usec_t now) {
  struct http_limit_entry *e;
  while ((e = oldest_unused(l)) && e->due_ns <= now * NS_PER_USEC)
    forget(l, e);
}
