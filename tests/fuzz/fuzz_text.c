/* The small texts: numbers, sizes, durations, instants, ids. The first byte chooses; what is read must print back as what it was. */
#include "base/parse.h"
#include "core/explain.h"
#include "core/model.h"
#include "core/schedule.h"
#include "fuzz.h"

#define YEAR_10000 (INT64_C(253402300800) * USEC_PER_SEC)

static void check_time(struct slice s) {
  usec_t t, again;
  struct err e = {0};
  int r = time_parse_rfc3339(s, &t, &e);
  if (r < 0) {
    fuzz_check_error(r, &e);
    return;
  }
  char text[TIME_TEXT_MAX];
  if (t >= 0 && t < YEAR_10000 - USEC_PER_DAY) { /* an offset may lead to where there are no texts */
    assert(time_parse_rfc3339(slice_of(time_format(t, text)), &again, NULL) == 0 && again == t);
    assert(time_parse_rfc3339(slice_of(time_format_offset(t, 3600, text)), &again, NULL) == 0 && again == t);
  }
}

/* An instant as explain takes it, in a zone with gaps and repetitions. */
static void check_span(struct slice s) {
  struct zone *z = fuzz_posix_zone(SLICE("Fuzz/Rule"), SLICE("CET-1CEST,M3.5.0,M10.5.0/3"), INT64_MIN);
  struct explain_span span;
  struct err e = {0};
  int r = explain_span_parse(s, USEC_PER_MIN, z, &span, &e);
  if (r < 0)
    fuzz_check_error(r, &e);
  else
    assert(span.from >= 0 && span.from <= span.at && span.at <= span.to &&
           (!span.twin || span.twin > span.at));
  zone_unref(&z);
}

static void check_duration(struct slice s) {
  usec_t d, again;
  struct err e = {0};
  int r = duration_parse(s, INT64_MIN, INT64_MAX, &d, &e);
  if (r < 0) {
    fuzz_check_error(r, &e);
    return;
  }
  char text[TIME_TEXT_MAX];
  assert(duration_parse(slice_of(duration_format(d, text)), INT64_MIN, INT64_MAX, &again, NULL) == 0);
  assert(again == d);
}

static void check_run_id(struct slice s) {
  struct run_key k, again;
  struct err e = {0};
  int r = run_id_parse(s, &k, &e);
  if (r < 0) {
    fuzz_check_error(r, &e);
    return;
  }
  char text[RUN_ID_LEN + 1];
  run_id_format(&k, text);
  assert(slice_eqz_nocase(s, text));
  assert(run_id_parse(slice_of(text), &again, NULL) == 0 && run_key_eq(&k, &again));
}

static void check_number(struct slice s) {
  int64_t v;
  struct err e = {0};
  int r = parse_i64(s, INT64_MIN, INT64_MAX, &v, &e);
  if (r < 0)
    fuzz_check_error(r, &e);
  auto_str text;
  str_init(&text, 64);
  if (r == 0) {
    str_addi(&text, v);
    assert(slice_eq(s, str_slice(&text)));
  }
  r = parse_bytes(s, 0, INT64_MAX, &v, &e);
  if (r < 0)
    fuzz_check_error(r, &e);
}

static void check_local(struct slice s) {
  struct zone *z = fuzz_posix_zone(SLICE("Fuzz/Rule"), SLICE("CET-1CEST,M3.5.0,M10.5.0/3"), INT64_MIN);
  usec_t at;
  enum dst_note note;
  struct err e = {0};
  int r = schedule_local_instant(z, s, &at, &note, &e);
  if (r < 0)
    fuzz_check_error(r, &e);
  zone_unref(&z);
}

static void check_words(struct slice s) {
  struct err e = {0};
  int v, r = parse_enum(s, run_state_names, &v, &e);
  if (r < 0)
    fuzz_check_error(r, &e);
  else
    assert(slice_eqz(s, run_state_names[v]));
  (void)parse_nearest(s, run_reason_names);
  (void)parse_name(s, 128, &e);
  struct slice head = slice_utf8_head(s, s.n / 2);
  assert(head.n <= s.n / 2 && (!slice_utf8_valid(s) || slice_utf8_valid(head)));
  uint8_t raw[8] = {0};
  char text[17];
  if (hex_decode(s, raw, sizeof raw, &e) == 0) {
    hex_encode(raw, sizeof raw, text);
    assert(slice_eqz_nocase(s, text));
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static void (*const checks[])(struct slice) = {check_time,  check_duration, check_run_id, check_number,
                                                 check_local, check_words,    check_span};
  if (size)
    checks[data[0] % (sizeof checks / sizeof *checks)](fuzz_slice(data + 1, size - 1));
  return 0;
}
