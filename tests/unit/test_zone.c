#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "zoneinfo.h"
#include "base/mem.h"
#include "base/rng.h"
#include <stdlib.h>
#include <time.h>

#define FIELDS 6

static struct zone_set *zones;

static const struct zone *get(const char *name) {
  struct err e = {0};
  const struct zone *z = NULL;
  assert_int_equal(zone_set_get(zones, slice_of(name), &z, &e), 0);
  return z;
}

static int64_t at(const char *text) {
  usec_t t;
  struct err e = {0};
  assert_int_equal(time_parse_rfc3339(slice_of(text), &t, &e), 0);
  return t / USEC_PER_SEC;
}

/* A TZif file, version 2, with nothing but a footer, or with the changes given. */
struct change {
  int64_t at;
  uint8_t type;
};
static void put32(struct str *s, uint32_t v) {
  for (int shift = 24; shift >= 0; shift -= 8)
    str_addc(s, (char)(v >> shift & 0xff));
}
static void header(struct str *s, char version, const uint32_t counts[FIELDS]) {
  str_add(s, SLICE("TZif"));
  str_addc(s, version);
  for (int i = 0; i < 15; i++)
    str_addc(s, 0);
  for (int i = 0; i < FIELDS; i++)
    put32(s, counts[i]);
}
static void file(struct str *s, const struct change *changes, uint32_t n, const int32_t *offsets,
                 uint32_t types, const char *footer) {
  str_init(s, 4096);
  header(s, '3', (uint32_t[FIELDS]){0, 0, 0, 0, 1, 1});
  for (int i = 0; i < 7; i++)
    str_addc(s, 0);
  header(s, '3', (uint32_t[FIELDS]){0, 0, 0, n, types, 1});
  for (uint32_t i = 0; i < n; i++) {
    put32(s, (uint32_t)((uint64_t)changes[i].at >> 32));
    put32(s, (uint32_t)changes[i].at);
  }
  for (uint32_t i = 0; i < n; i++)
    str_addc(s, (char)changes[i].type);
  for (uint32_t i = 0; i < types; i++) {
    put32(s, (uint32_t)offsets[i]);
    str_addc(s, 0);
    str_addc(s, 0);
  }
  str_addc(s, 0);
  str_addf(s, "\n%s\n", footer);
}

static struct zone *from_footer(const char *footer) {
  auto_str bytes;
  int32_t zero = 0;
  file(&bytes, NULL, 0, &zero, 1, footer);
  struct zone *z = NULL;
  struct err e = {0};
  return zone_parse(SLICE("T"), str_slice(&bytes), &z, &e) == 0 ? z : NULL;
}

static int offset_of(const char *footer, const char *instant) {
  struct zone *z = from_footer(footer);
  assert_non_null(z);
  int r = zone_offset_at(z, at(instant) * USEC_PER_SEC);
  zone_unref(&z);
  return r;
}

static void test_builtin(void **state) {
  (void)state;
  struct zone_span s;
  zone_span_at(get("UTC"), 0, &s);
  assert_int_equal(s.offset, 0);
  assert_true(s.since == INT64_MIN && s.until == INT64_MAX);
  assert_int_equal(zone_offset_at(get("+08:00"), 0), 8 * 3600);
  assert_int_equal(zone_offset_at(get("-03:30"), 0), -12600);
  assert_true(zone_next_change(get("+08:00"), 0) == USEC_NEVER);
  assert_string_equal(zone_name(get("-03:30")), "-03:30");
}

static void test_names(void **state) {
  (void)state;
  static const char *const bad[] = {"",
                                    "..",
                                    "../passwd",
                                    "/etc/passwd",
                                    "America/../UTC",
                                    "America",
                                    "America/",
                                    "localtime",
                                    "posixrules",
                                    "tzdata.zi",
                                    "+25:00",
                                    "+8",
                                    "+08:60",
                                    "Nowhere/Else",
                                    "america/new_york",
                                    "UTC ",
                                    "Zulu\n",
                                    "+18:01",
                                    "Europe//London\t",
                                    "right/UTC",
                                    "A/veryveryveryveryveryveryveryveryveryveryveryveryveryverylongname"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    struct err e = {0};
    const struct zone *z = NULL;
    assert_int_equal(zone_set_get(zones, slice_of(bad[i]), &z, &e), ERR_UNKNOWN_ZONE);
    assert_int_equal(e.code, ERR_UNKNOWN_ZONE);
    assert_null(z);
  }
  struct err e = {0};
  const struct zone *z;
  (void)zone_set_get(zones, SLICE("America/NewYork"), &z, &e);
  assert_non_null(strstr(e.text, "America/New_York"));
  assert_ptr_equal(get("Europe/London"), get("Europe/London")); /* kept */
}

static void test_known(void **state) {
  (void)state;
  const struct zone *ny = get("America/New_York");
  assert_int_equal(zone_offset_at(ny, at("2026-03-08T06:59:59Z") * USEC_PER_SEC), -5 * 3600);
  assert_int_equal(zone_offset_at(ny, at("2026-03-08T07:00:00Z") * USEC_PER_SEC), -4 * 3600);
  assert_true(zone_next_change(ny, at("2026-03-08T06:59:59Z") * USEC_PER_SEC) ==
              at("2026-03-08T07:00:00Z") * USEC_PER_SEC);
  assert_true(zone_next_change(ny, at("2026-03-08T07:00:00Z") * USEC_PER_SEC) ==
              at("2026-11-01T06:00:00Z") * USEC_PER_SEC);
  /* the footer rule far ahead, and beyond the table's period of 400 years */
  assert_int_equal(zone_offset_at(ny, at("2199-07-01T00:00:00Z") * USEC_PER_SEC), -4 * 3600);
  assert_int_equal(zone_offset_at(ny, at("2826-03-08T07:00:00Z") * USEC_PER_SEC), -4 * 3600);
  assert_int_equal(zone_offset_at(ny, at("2826-03-08T06:59:59Z") * USEC_PER_SEC), -5 * 3600);
  assert_true(zone_next_change(ny, at("9000-01-01T00:00:00Z") * USEC_PER_SEC) ==
              (at("2200-03-09T07:00:00Z") + (int64_t)17 * 146097 * 86400) * USEC_PER_SEC);
  assert_int_equal(zone_offset_at(get("Asia/Shanghai"), at("2026-01-01T00:00:00Z") * USEC_PER_SEC), 8 * 3600);
  assert_int_equal(zone_offset_at(get("Asia/Shanghai"), at("1990-07-01T00:00:00Z") * USEC_PER_SEC), 9 * 3600);
  assert_int_equal(zone_offset_at(get("Australia/Lord_Howe"), at("2026-01-01T00:00:00Z") * USEC_PER_SEC),
                   11 * 3600);
  assert_int_equal(zone_offset_at(get("Australia/Lord_Howe"), at("2026-07-01T00:00:00Z") * USEC_PER_SEC),
                   10 * 3600 + 1800);
  assert_int_equal(zone_offset_at(get("Europe/Dublin"), at("2026-07-01T00:00:00Z") * USEC_PER_SEC),
                   3600); /* "standard time" */
  assert_int_equal(zone_offset_at(get("Europe/Dublin"), at("2026-01-01T00:00:00Z") * USEC_PER_SEC), 0);
  assert_int_equal(zone_offset_at(get("Antarctica/Troll"), at("2026-07-01T00:00:00Z") * USEC_PER_SEC), 7200);
}

/* The C library's own reading of the same files, at random instants of the years 1970 to 2199. */
static void test_against_libc(void **state) {
  (void)state;
  static const char *const names[] = {
      "America/New_York",  "Europe/London",   "Europe/Dublin", "Australia/Lord_Howe", "Africa/Casablanca",
      "America/Sao_Paulo", "Pacific/Apia",    "Asia/Gaza",     "America/Nuuk",        "Antarctica/Troll",
      "Asia/Kathmandu",    "America/Caracas", "Asia/Tehran",   "Pacific/Kwajalein"};
  struct rng r;
  rng_seed(&r, 7);
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const struct zone *z = get(names[i]);
    assert_int_equal(setenv("TZ", names[i], 1), 0);
    tzset();
    for (int k = 0; k < 3000; k++) {
      time_t t = (time_t)rng_below(&r, (uint64_t)84006 * 86400);
      struct tm tm;
      assert_non_null(localtime_r(&t, &tm));
      assert_int_equal(zone_offset_at(z, (usec_t)t * USEC_PER_SEC), tm.tm_gmtoff);
    }
  }
}

static void test_footers(void **state) {
  (void)state;
  assert_int_equal(offset_of("EST5EDT,M3.2.0,M11.1.0", "2026-03-08T07:00:00Z"), -4 * 3600);
  assert_int_equal(offset_of("EST5EDT,M3.2.0,M11.1.0", "2026-03-08T06:59:59Z"), -5 * 3600);
  assert_int_equal(offset_of("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "2026-03-29T00:59:59Z"),
                   -2 * 3600); /* Nuuk: Saturday 23:00 */
  assert_int_equal(offset_of("<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "2026-03-29T01:00:00Z"), -3600);
  assert_int_equal(offset_of("IST-2IDT,M3.4.4/26,M10.5.0", "2026-03-27T00:00:00Z"),
                   3 * 3600); /* Jerusalem: Thursday + 26 h */
  assert_int_equal(offset_of("IST-2IDT,M3.4.4/26,M10.5.0", "2026-03-26T23:59:59Z"), 2 * 3600);
  assert_int_equal(offset_of("XXX3EDT4,0/0,J365/23", "2026-12-31T23:59:59Z"),
                   -4 * 3600); /* RFC 9636: all year */
  assert_int_equal(offset_of("XXX3EDT4,0/0,J365/23", "2027-01-01T03:00:00Z"), -4 * 3600);
  assert_int_equal(offset_of("IST-1GMT0,M10.5.0,M3.5.0/1", "2026-07-01T00:00:00Z"),
                   3600); /* negative saving */
  assert_int_equal(offset_of("IST-1GMT0,M10.5.0,M3.5.0/1", "2026-12-01T00:00:00Z"), 0);
  assert_int_equal(offset_of("AAA-1BBB,J60/0,J300/0", "2028-02-29T22:59:59Z"),
                   3600); /* J60 is 1 March, leap year or not */
  assert_int_equal(offset_of("AAA-1BBB,J60/0,J300/0", "2028-02-29T23:00:00Z"), 7200);
  assert_int_equal(offset_of("AAA-1BBB,59/0,J300/0", "2028-02-28T23:00:00Z"),
                   7200); /* day 59 is 29 February then */
  assert_int_equal(offset_of("<+0330>-3:30", "2026-01-01T00:00:00Z"), 12600);
  static const char *const bad[] = {"EST",
                                    "EST5EDT",
                                    "EST5EDT,M3.2.0",
                                    "EST5EDT,M13.2.0,M11.1.0",
                                    "EST5EDT,M3.6.0,M11.1.0",
                                    "EST5EDT,M3.2.7,M11.1.0",
                                    "EST5EDT,M3.2.0/168,M11.1.0",
                                    "E5",
                                    "<E5",
                                    "EST25",
                                    "EST5EDT,J0,J5",
                                    "EST5EDT,366,J5",
                                    "EST5EDT,M3.2.0,M11.1.0x",
                                    "5"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    assert_null(from_footer(bad[i]));
}

static void test_local(void **state) {
  (void)state;
  const struct zone *ny = get("America/New_York");
  struct zone_local l;
  zone_local(ny, at("2026-03-08T02:30:00Z"), &l);
  assert_int_equal(l.kind, ZONE_GAP);
  assert_true(l.change == at("2026-03-08T07:00:00Z") && l.utc_sec == at("2026-03-08T07:30:00Z"));
  assert_int_equal(l.after - l.before, 3600);
  zone_local(ny, at("2026-03-08T03:00:00Z"), &l);
  assert_int_equal(l.kind, ZONE_UNIQUE);
  assert_true(l.utc_sec == at("2026-03-08T07:00:00Z"));
  zone_local(ny, at("2026-03-08T02:00:00Z"), &l);
  assert_int_equal(l.kind, ZONE_GAP);
  zone_local(ny, at("2026-11-01T01:00:00Z"), &l);
  assert_int_equal(l.kind, ZONE_OVERLAP);
  assert_true(l.utc_sec == at("2026-11-01T05:00:00Z") && l.utc_later == at("2026-11-01T06:00:00Z"));
  zone_local(ny, at("2026-11-01T02:00:00Z"), &l);
  assert_int_equal(l.kind, ZONE_UNIQUE);
  zone_local(get("Pacific/Apia"), at("2011-12-30T12:00:00Z"), &l); /* the day that was not */
  assert_int_equal(l.kind, ZONE_GAP);
  assert_int_equal(l.after - l.before, 86400);
  zone_local(get("UTC"), INT64_MAX, &l); /* saturates, no overflow */
  zone_local(ny, INT64_MIN, &l);
  zone_local(ny, INT64_MAX, &l);
}

static void test_digest(void **state) {
  (void)state;
  struct zone *a = from_footer("EST5EDT,M3.2.0,M11.1.0"), *b = from_footer("EST5EDT,M3.2.0,M11.1.0");
  struct zone *c = from_footer("EST5EDT,M3.2.0,M11.2.0");
  assert_true(zone_digest(a) == zone_digest(b) && zone_digest(a) != zone_digest(c));
  struct zone *again = zone_ref(a);
  zone_unref(&a);
  assert_int_equal(zone_offset_at(again, 0), -5 * 3600);
  zone_unref(&again);
  zone_unref(&b);
  zone_unref(&c);
  zone_unref(&c);
}

static void check_damaged(struct slice bytes) {
  char *copy = mem_slicedup(bytes); /* exact size: a sanitizer sees one byte too many */
  struct zone *z = NULL;
  struct err e = {0};
  if (zone_parse(SLICE("T"), slice_n(copy, bytes.n), &z, &e) == 0) {
    struct zone_local l;
    for (int64_t t = -4000000000; t < 20000000000; t += 777777777) {
      (void)zone_offset_at(z, t * USEC_PER_SEC);
      zone_local(z, t, &l);
    }
  } else {
    assert_true(e.code == ERR_MALFORMED && e.text[0]);
  }
  zone_unref(&z);
  mem_free(copy);
}

static void test_damage(void **state) {
  (void)state;
  auto_str bytes;
  struct err e = {0};
  str_init(&bytes, ZONE_FILE_MAX);
  assert_int_equal(test_read_zone(NULL, "America/New_York", &bytes, &e), 0);
  for (size_t n = 0; n < bytes.n; n += n < 200 ? 1 : 13)
    check_damaged(slice_n(bytes.p, n));
  struct rng r;
  rng_seed(&r, 3);
  for (int k = 0; k < 3000; k++) {
    char *damaged = mem_slicedup(str_slice(&bytes));
    for (uint64_t i = 0; i <= rng_below(&r, 4); i++)
      damaged[rng_below(&r, k % 2 ? bytes.n : 100)] = (char)rng_next(&r);
    check_damaged(slice_n(damaged, bytes.n));
    mem_free(damaged);
  }
  struct change unordered[] = {{100, 0}, {100, 1}};
  int32_t offsets[] = {0, 3600};
  struct zone *z = NULL;
  auto_str made;
  file(&made, unordered, 2, offsets, 2, "");
  assert_int_equal(zone_parse(SLICE("T"), str_slice(&made), &z, &e), ERR_MALFORMED);
}

/* A set that is told of new data reads it again; who kept a zone keeps it. */
struct moving {
  uint64_t stamp;
  const char *footer;
};
static int read_moving(void *arg, const char *name, struct str *out, struct err *e) {
  struct moving *m = arg;
  if (strcmp(name, "T/Z") != 0 || !m->footer)
    return err_set(e, -ENOENT, "none");
  int32_t zero = 0;
  auto_str bytes;
  file(&bytes, NULL, 0, &zero, 1, m->footer);
  str_add(out, str_slice(&bytes));
  return 0;
}
static uint64_t moving_stamp(void *arg) { return ((struct moving *)arg)->stamp; }

static void test_refresh(void **state) {
  (void)state;
  struct moving m = {1, "AAA-1"};
  const struct zone_source source = {read_moving, moving_stamp, &m};
  struct zone_set *s = zone_set_new(&source);
  const struct zone *z;
  struct err e = {0};
  assert_int_equal(zone_set_get(s, SLICE("T/Z"), &z, &e), 0);
  struct zone *kept = zone_ref(z);
  m.footer = "AAA-2";
  assert_false(zone_set_refresh(s));
  assert_int_equal(zone_set_get(s, SLICE("T/Z"), &z, &e), 0);
  assert_int_equal(zone_offset_at(z, 0), 3600);
  m.stamp = 2;
  assert_true(zone_set_refresh(s));
  assert_int_equal(zone_set_get(s, SLICE("T/Z"), &z, &e), 0);
  assert_int_equal(zone_offset_at(z, 0), 7200);
  assert_int_equal(zone_offset_at(kept, 0), 3600);
  assert_true(zone_digest(z) != zone_digest(kept));
  m = (struct moving){3, NULL};
  assert_true(zone_set_refresh(s));
  assert_int_equal(zone_set_get(s, SLICE("T/Z"), &z, &e), ERR_UNKNOWN_ZONE); /* never silent UTC */
  zone_unref(&kept);
  zone_set_free(&s);
  zone_set_free(&s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_builtin),      cmocka_unit_test(test_names),   cmocka_unit_test(test_known),
      cmocka_unit_test(test_against_libc), cmocka_unit_test(test_footers), cmocka_unit_test(test_local),
      cmocka_unit_test(test_digest),       cmocka_unit_test(test_damage),  cmocka_unit_test(test_refresh),
  };
  zones = test_zones();
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  zone_set_free(&zones);
  return failed;
}
