#include "fuzz.h"

#define INSTANT_MAX  (INT64_MAX / USEC_PER_SEC) /* no instant in µs is beyond */
#define CHANGES_SEEN 64

static const struct {
  const char *name, *rule;
} rules[] = {{"Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"},
             {"America/New_York", "EST5EDT,M3.2.0,M11.1.0"},
             {"Asia/Shanghai", "CST-8"},
             {"Odd/Julian", "AAA3BBB,J60/-30,300/100"}};

static void add_block(struct str *out, char version) {
  static const char counts[24] = {[15] = 0, [19] = 1, [23] = 4}; /* one type, four bytes of names */
  static const char type[6] = {0};
  str_addz(out, "TZif");
  str_addc(out, version);
  for (int i = 0; i < 15; i++)
    str_addc(out, 0);
  str_add(out, slice_n(counts, sizeof counts));
  str_add(out, slice_n(type, sizeof type));
  str_add(out, slice_n("UTC", 4));
}

/* A TZif file that says no more than its rule. */
static int read_zone(void *arg, const char *name, struct str *out, struct err *e) {
  (void)arg;
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
    if (strcmp(rules[i].name, name) == 0) {
      add_block(out, '2');
      add_block(out, '2');
      str_addf(out, "\n%s\n", rules[i].rule);
      return 0;
    }
  return err_set(e, -ENOENT, "there is no %s", name);
}

static uint64_t zone_stamp(void *arg) {
  (void)arg;
  return 1;
}

const struct zone_source fuzz_zone_source = {read_zone, zone_stamp, NULL};

static bool local_is(const struct zone *z, int64_t utc, int64_t local) {
  struct zone_span s;
  zone_span_at(z, utc, &s);
  return utc + s.offset == local;
}

static void check_local(const struct zone *z, int64_t local) {
  struct zone_local l;
  zone_local(z, local, &l);
  assert(l.utc_sec <= l.utc_later);
  if (l.kind != ZONE_GAP)
    assert(local_is(z, l.utc_sec, local) && local_is(z, l.utc_later, local));
  if (l.kind != ZONE_UNIQUE)
    assert(l.before != l.after);
}

void fuzz_check_zone(const struct zone *z, int64_t sec) {
  struct zone_span s;
  if (sec < -INSTANT_MAX || sec > INSTANT_MAX)
    return;
  zone_span_at(z, sec, &s);
  assert(s.since <= sec && (sec < s.until || s.until == INT64_MAX));
  assert(s.offset > -ZONE_OFFSET_MAX && s.offset < ZONE_OFFSET_MAX);
  assert(zone_offset_at(z, sec * USEC_PER_SEC) == s.offset);
  usec_t change = zone_next_change(z, sec * USEC_PER_SEC);
  assert(change > sec * USEC_PER_SEC);
  assert(change == USEC_NEVER || change == s.until * USEC_PER_SEC);
  check_local(z, sec);
  check_local(z, sec + s.offset);
  struct zone_local l; /* the instant itself is one that its local time has */
  zone_local(z, sec + s.offset, &l);
  assert(l.kind != ZONE_GAP);
}

void fuzz_check_zone_all(const struct zone *z) {
  static const int64_t ends[] = {
      0,         -INSTANT_MAX, INSTANT_MAX, INT64_C(1800000000), INT64_C(253402300799), -INT64_C(62135596800),
      INT32_MIN, INT32_MAX};
  for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
    fuzz_check_zone(z, ends[i]);
  for (uint32_t i = 0; i < z->n && i < CHANGES_SEEN; i++)
    for (int64_t d = -1; d <= 1; d++)
      if (z->at[i] > -INSTANT_MAX && z->at[i] < INSTANT_MAX) {
        fuzz_check_zone(z, z->at[i] + d);
        fuzz_check_zone(z, z->at[i] + z->offset[i] + d);
      }
  if (z->period_end != INT64_MAX)
    for (int64_t d = -1; d <= 1; d++)
      fuzz_check_zone(z, z->period_end + d);
}
