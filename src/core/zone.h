#pragma once
/* A time zone: when its offset from UTC changes. Own TZif reader (RFC 9636, versions 1 to 4, 64-bit block,
 * footer rule). Immutable after it was built, so any number of threads may read one; the reference count is
 * atomic. Pure.
 *
 * Seconds here, not µs: no zone is finer. "Local second" = UTC second + offset: seconds since
 * 1970-01-01T00:00:00 on the wall clock of the zone. Changes that leave the offset alone (a new abbreviation,
 * Dublin's negative daylight saving as such) are no changes here: only the offset counts. After the last
 * entry of the file its footer rule holds for ever; without one the last offset. */
#include "base/err.h"
#include "base/str.h"
#include "base/time.h"

#define ZONE_NAME_MAX   64            /* longest name in bytes */
#define ZONE_OFFSET_MAX (26 * 3600)   /* |offset| of any zone is less (RFC 9636, section 3.2) */
#define ZONE_FILE_MAX   (1024 * 1024) /* largest TZif file in bytes */

struct zone;

/* Build from the bytes of a TZif file. Any input is safe: what is not a TZif file that this reader
 * understands (truncated, counts that do not fit, leap seconds as in right/…) is ERR_MALFORMED. */
int zone_parse(struct slice name, struct slice bytes, struct zone **ret, struct err *e);
/* "UTC" and fixed offsets "+08:00", "-03:30" need no file. 1 and *ret set; 0 when the name is none of these;
 * ERR_UNKNOWN_ZONE when it looks like an offset but is out of range (±18:00). */
int zone_builtin(struct slice name, struct zone **ret, struct err *e);

struct zone *zone_ref(const struct zone *z);
void zone_unref(struct zone **z); /* NULL is fine; the last one frees */

const char *zone_name(const struct zone *z);
/* Equal digests = the same offsets at every instant: how to see whether new tzdata changed a zone. */
uint64_t zone_digest(const struct zone *z);

/* A stretch of one offset: [since, until) in UTC seconds; INT64_MIN and INT64_MAX are open ends. */
struct zone_span {
  int64_t since, until;
  int32_t offset; /* seconds east of UTC */
  int32_t before; /* the offset before `since`; = offset when nothing is before */
  int32_t after;  /* the offset from `until` on; = offset when nothing follows */
};
void zone_span_at(const struct zone *z, int64_t utc_sec, struct zone_span *ret);
int32_t zone_offset_at(const struct zone *z, usec_t utc);
/* The first change of offset strictly after an instant; USEC_NEVER when there is none. */
usec_t zone_next_change(const struct zone *z, usec_t after);

enum zone_local_kind { ZONE_UNIQUE, ZONE_GAP, ZONE_OVERLAP };
struct zone_local {
  enum zone_local_kind kind;
  /* UNIQUE: the instant. OVERLAP: the first copy. GAP: read with the offset before the jump. */
  int64_t utc_sec;
  int64_t utc_later;     /* OVERLAP: the last copy; else = utc_sec */
  int64_t change;        /* GAP, OVERLAP: the instant of the jump */
  int32_t before, after; /* GAP, OVERLAP: the offsets around the jump; jump size = |after - before| */
};
/* What instants a local second has. Never fails. */
void zone_local(const struct zone *z, int64_t local_sec, struct zone_local *ret);
