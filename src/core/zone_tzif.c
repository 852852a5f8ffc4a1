#include "core/zone_internal.h"

/* RFC 9636, section 3. All counts come from outside: nothing is touched before its length was checked. */
#define HEADER_BYTES           44
#define TYPES_MAX              256
#define LEAP_BYTES(time_bytes) ((time_bytes) + 4)

struct counts {
  uint32_t isut, isstd, leap, time, type, chars;
};

static uint32_t be32(const uint8_t *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}
static int64_t be64(const uint8_t *p) { return (int64_t)((uint64_t)be32(p) << 32 | be32(p + 4)); }

static int malformed(struct err *e, struct slice name, const char *what) {
  return err_set(e, ERR_MALFORMED, "the zone file of %.*s cannot be read: %s", SLICE_FMT(name), what);
}

static uint64_t body_bytes(const struct counts *c, unsigned time_bytes) {
  return (uint64_t)c->time * (time_bytes + 1) + (uint64_t)c->type * 6 + c->chars +
         (uint64_t)c->leap * LEAP_BYTES(time_bytes) + c->isstd + c->isut;
}

/* Read a header at the start of `bytes`; *ret_version is 1 to 4. */
static const char *read_header(struct slice bytes, struct counts *ret, int *ret_version) {
  if (bytes.n < HEADER_BYTES || memcmp(bytes.p, "TZif", 4) != 0)
    return "no TZif header";
  const uint8_t *p = (const uint8_t *)bytes.p;
  int version = p[4] == 0 ? 1 : p[4] - '0';
  if (version < 1 || version > 9)
    return "unknown version";
  struct counts c = {be32(p + 20), be32(p + 24), be32(p + 28), be32(p + 32), be32(p + 36), be32(p + 40)};
  *ret = c;
  *ret_version = version;
  return NULL;
}

static const char *check_counts(const struct counts *c, size_t bytes_left, unsigned time_bytes) {
  if (body_bytes(c, time_bytes) > bytes_left)
    return "truncated";
  if (c->type == 0 || c->type > TYPES_MAX || c->chars == 0)
    return "no types";
  if ((c->isut && c->isut != c->type) || (c->isstd && c->isstd != c->type))
    return "counts that do not fit";
  if (c->leap)
    return "it counts leap seconds (right/…), which instants here do not";
  return NULL;
}

/* Transition times, then their types, then the types: fill the table of `z`. */
static const char *read_changes(struct zone *z, const uint8_t *p, const struct counts *c, unsigned time_bytes,
                                int64_t *ret_last) {
  const uint8_t *index = p + (size_t)c->time * time_bytes;
  const uint8_t *types = index + c->time;
  for (uint32_t i = 0; i < c->type; i++) {
    int32_t offset = (int32_t)be32(types + 6 * (size_t)i);
    if (offset <= -ZONE_OFFSET_MAX || offset >= ZONE_OFFSET_MAX)
      return "an offset out of range";
  }
  z->offset[0] = (int32_t)be32(types);
  int64_t last = INT64_MIN;
  for (uint32_t i = 0; i < c->time; i++) {
    int64_t at = time_bytes == 8 ? be64(p + (size_t)i * 8) : (int64_t)(int32_t)be32(p + (size_t)i * 4);
    if (i && at <= last)
      return "transitions out of order";
    if (index[i] >= c->type)
      return "a type that is not there";
    last = at;
    zone_add(z, at, (int32_t)be32(types + 6 * (size_t)index[i]));
  }
  *ret_last = last;
  return NULL;
}

/* The footer: a TZ string between two newlines; empty = nothing is known, the last offset stays. */
static const char *read_footer(struct zone *z, struct slice rest, int64_t last) {
  if (rest.n < 2 || rest.p[0] != '\n')
    return "no footer";
  const char *end = memchr(rest.p + 1, '\n', rest.n - 1);
  if (!end)
    return "no footer";
  struct slice tz = slice_n(rest.p + 1, (size_t)(end - rest.p) - 1);
  if (tz.n && zone_posix_extend(z, tz, last) < 0)
    return "a footer rule that is none";
  return NULL;
}

static const char *read_file(struct zone *z, struct slice bytes) {
  struct counts c;
  int version;
  unsigned time_bytes = 4;
  int64_t last;
  const char *wrong = read_header(bytes, &c, &version);
  if (wrong)
    return wrong;
  if (version > 1) { /* the first block is for old readers: skip it */
    uint64_t skip = HEADER_BYTES + body_bytes(&c, 4);
    if (skip > bytes.n)
      return "truncated";
    bytes = slice_n(bytes.p + skip, bytes.n - (size_t)skip);
    wrong = read_header(bytes, &c, &version);
    if (wrong)
      return wrong;
    time_bytes = 8;
  }
  wrong = check_counts(&c, bytes.n - HEADER_BYTES, time_bytes);
  if (!wrong)
    wrong = read_changes(z, (const uint8_t *)bytes.p + HEADER_BYTES, &c, time_bytes, &last);
  if (!wrong && time_bytes == 8) {
    size_t used = HEADER_BYTES + (size_t)body_bytes(&c, 8);
    wrong = read_footer(z, slice_n(bytes.p + used, bytes.n - used), last);
  }
  return wrong;
}

int zone_parse(struct slice name, struct slice bytes, struct zone **ret, struct err *e) {
  if (name.n > ZONE_NAME_MAX)
    return err_set(e, ERR_UNKNOWN_ZONE, "a zone name has at most %d bytes", ZONE_NAME_MAX);
  if (bytes.n > ZONE_FILE_MAX)
    return err_set(e, ERR_TOO_LARGE, "the zone file of %.*s is larger than %d bytes", SLICE_FMT(name),
                   ZONE_FILE_MAX);
  struct zone *z = zone_new(name, 0);
  const char *wrong = read_file(z, bytes);
  if (wrong) {
    zone_unref(&z);
    return malformed(e, name, wrong);
  }
  zone_seal(z);
  *ret = z;
  return 0;
}
