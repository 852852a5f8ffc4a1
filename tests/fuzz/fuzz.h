#pragma once
/* What the fuzz targets share. A target is one function that takes any bytes; it ends the process (assert, sanitizer) when
 * something is wrong. libFuzzer calls it millions of times; fuzz_replay.c calls it with the kept inputs in the ordinary tests.
 * assert is on in every build. */
#include "base/err.h"
#include "core/zone_internal.h"
#include "core/zone_set.h"
#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline struct slice fuzz_slice(const uint8_t *data, size_t size) {
  return slice_n((const char *)data, size);
}

/* An error is whole: its code is what was returned, its texts are terminated UTF-8. */
static inline void fuzz_check_error(int returned, const struct err *e) {
  assert(returned < 0 && e->code == returned);
  assert(e->text[0] && memchr(e->text, 0, sizeof e->text) && memchr(e->field, 0, sizeof e->field));
  assert(slice_utf8_valid(slice_of(e->text)) && slice_utf8_valid(slice_of(e->field)));
}

/* A zone by its POSIX rule; NULL when that is none. */
static inline struct zone *fuzz_posix_zone(struct slice name, struct slice rule, int64_t last) {
  struct zone *z = zone_new(name, 0);
  if (zone_posix_extend(z, rule, last) < 0)
    zone_unref(&z);
  else
    zone_seal(z);
  return z;
}

/* A few zones that do not depend on the machine, for a zone_set. */
extern const struct zone_source fuzz_zone_source;

/* Ask everything about a zone around an instant; the answers must agree with each other. */
void fuzz_check_zone(const struct zone *z, int64_t sec);
/* The same around all its first changes and at the ends of time. */
void fuzz_check_zone_all(const struct zone *z);
