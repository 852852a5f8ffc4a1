#include "core/zone_internal.h"
#include "base/mem.h"
#include "base/rng.h"

#define FIXED_OFFSET_MAX (18 * 3600)

struct zone *zone_new(struct slice name, int32_t first_offset) {
  struct zone *z = mem_zalloc(sizeof *z);
  atomic_init(&z->refs, 1);
  (void)text_copy(z->name, sizeof z->name, name); /* longer names never get here */
  z->offset = mem_array(1, sizeof *z->offset);
  z->offset[0] = first_offset;
  z->period_end = INT64_MAX;
  return z;
}

void zone_add(struct zone *z, int64_t at, int32_t offset) {
  if (offset == z->offset[z->n])
    return;
  if (z->n >= z->cap) {
    z->cap = z->cap ? z->cap * 2 : 64;
    z->at = mem_grow(z->at, z->cap, sizeof *z->at);
    z->offset = mem_grow(z->offset, (size_t)z->cap + 1, sizeof *z->offset);
  }
  z->at[z->n++] = at;
  z->offset[z->n] = offset;
}

void zone_seal(struct zone *z) {
  if (z->n) { /* give back what doubling took too much */
    z->at = mem_grow(z->at, z->n, sizeof *z->at);
    z->offset = mem_grow(z->offset, (size_t)z->n + 1, sizeof *z->offset);
    z->cap = z->n;
  }
  uint64_t h = hash_u64((uint64_t)z->offset[0] ^ (uint64_t)z->period_end);
  for (uint32_t i = 0; i < z->n; i++)
    h = hash_u64(h ^ hash_u64((uint64_t)z->at[i]) ^ (uint64_t)z->offset[i + 1]);
  z->digest = h;
}

static int two_digits(const char *p) {
  unsigned a = (unsigned char)p[0] - (unsigned)'0', b = (unsigned char)p[1] - (unsigned)'0';
  return a > 9 || b > 9 ? -1 : (int)(a * 10 + b);
}

int zone_builtin(struct slice name, struct zone **ret, struct err *e) {
  int32_t offset = 0;
  if (name.n && (name.p[0] == '+' || name.p[0] == '-')) {
    int hours = name.n == 6 ? two_digits(name.p + 1) : -1;
    int minutes = name.n == 6 && name.p[3] == ':' ? two_digits(name.p + 4) : -1;
    offset = hours * 3600 + minutes * 60;
    if (hours < 0 || minutes < 0 || minutes > 59 || offset > FIXED_OFFSET_MAX)
      return err_set(e, ERR_UNKNOWN_ZONE,
                     "a fixed offset is written +08:00, at most 18:00; or give a zone such as Asia/Shanghai");
    if (name.p[0] == '-')
      offset = -offset;
  } else if (!slice_eqz(name, "UTC")) {
    return 0;
  }
  struct zone *z = zone_new(name, offset);
  zone_seal(z);
  *ret = z;
  return 1;
}

struct zone *zone_ref(const struct zone *z) {
  struct zone *mine = (struct zone *)(uintptr_t)z; /* the count is no part of what readers see as constant */
  atomic_fetch_add_explicit(&mine->refs, 1, memory_order_relaxed);
  return mine;
}

void zone_unref(struct zone **z) {
  struct zone *old = *z;
  *z = NULL;
  if (!old || atomic_fetch_sub_explicit(&old->refs, 1, memory_order_acq_rel) != 1)
    return;
  mem_free(old->at);
  mem_free(old->offset);
  mem_free(old);
}

const char *zone_name(const struct zone *z) { return z->name; }
uint64_t zone_digest(const struct zone *z) { return z->digest; }

static int64_t add_sat(int64_t a, int64_t b) {
  int64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? (b < 0 ? INT64_MIN : INT64_MAX) : sum;
}

/* How many changes are at or before `sec`: the index of its span. Branch-free, for it is on the way of every
 * fire. */
static uint32_t span_index(const struct zone *z, int64_t sec) {
  const int64_t *base = z->at;
  uint32_t n = z->n;
  if (!n)
    return 0;
  while (n > 1) {
    uint32_t half = n / 2;
    base += base[half - 1] <= sec ? half : 0;
    n -= half;
  }
  return (uint32_t)(base - z->at) + (*base <= sec);
}

void zone_span_at(const struct zone *z, int64_t utc_sec, struct zone_span *ret) {
  int64_t shift = 0;
  if (utc_sec >= z->period_end) {
    shift = ((utc_sec - z->period_end) / ZONE_PERIOD_SEC + 1) * ZONE_PERIOD_SEC;
    utc_sec -= shift;
  }
  uint32_t i = span_index(z, utc_sec);
  ret->since = i ? add_sat(z->at[i - 1], shift) : INT64_MIN;
  ret->until = i < z->n ? add_sat(z->at[i], shift) : INT64_MAX;
  ret->offset = z->offset[i];
  ret->before = i ? z->offset[i - 1] : z->offset[0];
  ret->after = i < z->n ? z->offset[i + 1] : z->offset[i];
}

static int64_t floor_sec(usec_t t) { return t / USEC_PER_SEC - (t % USEC_PER_SEC < 0); }

int32_t zone_offset_at(const struct zone *z, usec_t utc) {
  struct zone_span s;
  zone_span_at(z, floor_sec(utc), &s);
  return s.offset;
}

usec_t zone_next_change(const struct zone *z, usec_t after) {
  struct zone_span s;
  zone_span_at(z, floor_sec(after), &s);
  return s.until >= USEC_NEVER / USEC_PER_SEC ? USEC_NEVER : s.until * USEC_PER_SEC;
}

/* Walks the spans that an instant with this local time can lie in; they are few, for offsets are bounded. */
void zone_local(const struct zone *z, int64_t local_sec, struct zone_local *ret) {
  struct zone_local r = {.kind = ZONE_GAP};
  struct zone_span s;
  int64_t last = add_sat(local_sec, ZONE_OFFSET_MAX);
  bool found = false, at_end = false;
  for (zone_span_at(z, add_sat(local_sec, -ZONE_OFFSET_MAX), &s); !at_end; zone_span_at(z, s.until, &s)) {
    int64_t utc = add_sat(local_sec, -s.offset);
    if (s.since != INT64_MIN && utc < s.since && local_sec - s.before >= s.since &&
        !found) { /* in the gap before this span */
      r = (struct zone_local){ZONE_GAP, local_sec - s.before, local_sec - s.before, s.since, s.before,
                              s.offset};
    } else if (utc >= s.since && utc < s.until) {
      if (found)
        r = (struct zone_local){ZONE_OVERLAP, r.utc_sec, utc, s.since, s.before, s.offset};
      else
        r = (struct zone_local){.kind = ZONE_UNIQUE, .utc_sec = utc, .utc_later = utc};
      found = true;
    }
    at_end = s.until > last || s.until == INT64_MAX;
  }
  *ret = r;
}
