#include "base/parse.h"
#include <inttypes.h>
#include <stdio.h>

#define NEAREST_MAX_BYTES 64

/* Digits without a sign or leading zeros into *ret; false: not a number, or beyond uint64. */
static bool digits(struct slice text, uint64_t *ret) {
  if (!text.n || (text.n > 1 && text.p[0] == '0'))
    return false;
  uint64_t v = 0;
  for (size_t i = 0; i < text.n; i++) {
    unsigned d = (unsigned char)text.p[i] - (unsigned)'0';
    if (d > 9 || __builtin_mul_overflow(v, UINT64_C(10), &v) || __builtin_add_overflow(v, (uint64_t)d, &v))
      return false;
  }
  *ret = v;
  return true;
}

static bool whole(struct slice text, int64_t *ret) {
  bool minus = text.n && text.p[0] == '-';
  uint64_t v;
  if (!digits(minus ? slice_n(text.p + 1, text.n - 1) : text, &v) || (minus && v == 0))
    return false;
  if (v > (uint64_t)INT64_MAX + (minus ? 1 : 0))
    return false;
  *ret = minus ? (int64_t)(0 - v) : (int64_t)v;
  return true;
}

int parse_i64(struct slice text, int64_t min, int64_t max, int64_t *ret, struct err *e) {
  int64_t v;
  if (!whole(text, &v) || v < min || v > max)
    return err_set(e, ERR_INVALID, "expected a whole number from %" PRId64 " to %" PRId64, min, max);
  *ret = v;
  return 0;
}

int parse_bool(struct slice text, bool *ret, struct err *e) {
  if (slice_eqz(text, "true"))
    *ret = true;
  else if (slice_eqz(text, "false"))
    *ret = false;
  else
    return err_set(e, ERR_INVALID, "expected true or false");
  return 0;
}

static const struct {
  const char *suffix;
  int shift;
} byte_units[] = {{"KiB", 10}, {"MiB", 20}, {"GiB", 30}, {"", 0}};

static bool bytes(struct slice text, int64_t *ret) {
  for (size_t i = 0; i < sizeof byte_units / sizeof *byte_units; i++) {
    size_t n = strlen(byte_units[i].suffix);
    if (text.n < n || memcmp(text.p + text.n - n, byte_units[i].suffix, n) != 0)
      continue;
    uint64_t v;
    if (!digits(slice_n(text.p, text.n - n), &v) || v > (uint64_t)INT64_MAX >> byte_units[i].shift)
      return false;
    *ret = (int64_t)(v << byte_units[i].shift);
    return true;
  }
  return false;
}

static const char *bytes_text(int64_t v, char *buf, size_t size) {
  for (size_t i = sizeof byte_units / sizeof *byte_units - 1; i-- > 0;)
    if (v && v % (INT64_C(1) << byte_units[i].shift) == 0) {
      (void)snprintf(buf, size, "%" PRId64 "%s", v >> byte_units[i].shift, byte_units[i].suffix);
      return buf;
    }
  (void)snprintf(buf, size, "%" PRId64, v);
  return buf;
}

int parse_bytes(struct slice text, int64_t min, int64_t max, int64_t *ret, struct err *e) {
  int64_t v = 0;
  if (text.n && bytes(text, &v) && v >= min && v <= max) {
    *ret = v;
    return 0;
  }
  char low[32], high[32];
  return err_set(e, ERR_INVALID, "expected a size such as 512, 64KiB or 10MiB, from %s to %s",
                 bytes_text(min, low, sizeof low), bytes_text(max, high, sizeof high));
}

int parse_enum(struct slice text, const char *const *names, int *ret, struct err *e) {
  for (int i = 0; names[i]; i++)
    if (slice_eqz(text, names[i])) {
      *ret = i;
      return 0;
    }
  if (!e)
    return ERR_INVALID;
  char list[ERR_TEXT_MAX - 32];
  size_t n = 0;
  list[0] = 0;
  for (int i = 0; names[i] && n < sizeof list; i++)
    n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", names[i]);
  return err_set(e, ERR_INVALID, "expected one of: %s", list);
}

static size_t least(size_t a, size_t b) { return a < b ? a : b; }

/* Edits (insert, delete, replace, swap of neighbours) between two short texts. */
static size_t distance(struct slice a, struct slice b) {
  size_t row[3][NEAREST_MAX_BYTES + 1];
  for (size_t j = 0; j <= b.n; j++)
    row[0][j] = j;
  for (size_t i = 1; i <= a.n; i++) {
    size_t *now = row[i % 3], *before = row[(i - 1) % 3], *two = row[(i + 1) % 3];
    now[0] = i;
    for (size_t j = 1; j <= b.n; j++) {
      size_t differs = a.p[i - 1] != b.p[j - 1];
      now[j] = least(least(now[j - 1], before[j]) + 1, before[j - 1] + differs);
      if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
        now[j] = least(now[j], two[j - 2] + 1);
    }
  }
  return row[a.n % 3][b.n];
}

const char *parse_nearest(struct slice text, const char *const *names) {
  const char *best = NULL;
  if (text.n > NEAREST_MAX_BYTES)
    return NULL;
  size_t limit = text.n / 3 + 2; /* farther is a guess, not a correction */
  for (; *names; names++) {
    struct slice name = slice_of(*names);
    if (name.n > NEAREST_MAX_BYTES)
      continue;
    size_t d = distance(text, name);
    if (d < limit && d < name.n) {
      limit = d;
      best = *names;
    }
  }
  return best;
}

void hex_encode(const uint8_t *p, size_t n, char *ret_text) {
  static const char alphabet[] = "0123456789abcdef";
  for (size_t i = 0; i < n; i++) {
    ret_text[2 * i] = alphabet[p[i] >> 4];
    ret_text[2 * i + 1] = alphabet[p[i] & 15];
  }
  ret_text[2 * n] = 0;
}

/* The value of a digit of hex or base32hex (which extends it to 'v'); 255: none. */
static unsigned digit_value(char c) {
  if (c >= '0' && c <= '9')
    return (unsigned)(c - '0');
  if (c >= 'a' && c <= 'v')
    return (unsigned)(c - 'a') + 10;
  return 255;
}

int hex_decode(struct slice text, uint8_t *ret, size_t n, struct err *e) {
  bool good = text.n == 2 * n;
  for (size_t i = 0; good && i < text.n; i++)
    good = digit_value(text.p[i]) < 16;
  if (!good)
    return err_set(e, ERR_INVALID, "expected %zu lower-case hexadecimal digits", 2 * n);
  for (size_t i = 0; i < n; i++)
    ret[i] = (uint8_t)(digit_value(text.p[2 * i]) << 4 | digit_value(text.p[2 * i + 1]));
  return 0;
}

void base32hex_encode(const uint8_t *p, size_t n, char *ret_text) {
  static const char alphabet[] = "0123456789abcdefghijklmnopqrstuv";
  uint32_t hold = 0;
  int bits = 0;
  for (size_t i = 0; i < n; i++) {
    hold = (hold << 8 | p[i]) & 0xfff;
    bits += 8;
    for (; bits >= 5; bits -= 5)
      *ret_text++ = alphabet[hold >> (bits - 5) & 31];
  }
  if (bits)
    *ret_text++ = alphabet[hold << (5 - bits) & 31];
  *ret_text = 0;
}

int base32hex_decode(struct slice text, uint8_t *ret, size_t n, struct err *e) {
  size_t want = n / 5 * 8 + (n % 5 * 8 + 4) / 5;
  bool good = text.n == want;
  for (size_t i = 0; good && i < text.n; i++)
    good = digit_value(text.p[i]) < 32;
  /* the last digit holds bits beyond the bytes: they must be zero, or two texts would mean one value */
  unsigned spare = (unsigned)(want * 5 - n * 8);
  if (good && want && (digit_value(text.p[want - 1]) & ((1u << spare) - 1)))
    good = false;
  if (!good)
    return err_set(e, ERR_INVALID, "expected %zu characters of 0-9 and a-v", want);
  uint32_t hold = 0;
  int bits = 0;
  for (size_t i = 0; i < text.n; i++) {
    hold = (hold << 5 | digit_value(text.p[i])) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      *ret++ = (uint8_t)(hold >> bits);
    }
  }
  return 0;
}

static uint32_t code_point(const unsigned char *u, size_t step) {
  if (step == 1)
    return u[0];
  uint32_t c = u[0] & (0x7fu >> step);
  for (size_t i = 1; i < step; i++)
    c = c << 6 | (u[i] & 0x3fu);
  return c;
}

/* What can hide in a name or change how its neighbours look: spaces, controls, format characters,
 * non-characters and private use. */
static bool hidden(uint32_t c) {
  static const uint32_t ranges[][2] = {
      {0x0080, 0x00a0}, {0x00ad, 0x00ad}, {0x034f, 0x034f}, {0x061c, 0x061c},   {0x115f, 0x1160},
      {0x1680, 0x1680}, {0x180b, 0x180f}, {0x2000, 0x200f}, {0x2028, 0x202f},   {0x205f, 0x206f},
      {0x3000, 0x3000}, {0x3164, 0x3164}, {0xe000, 0xf8ff}, {0xfdd0, 0xfdef},   {0xfe00, 0xfe0f},
      {0xfeff, 0xfeff}, {0xffa0, 0xffa0}, {0xfff0, 0xffff}, {0xe0000, 0x10ffff}};
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
    if (c >= ranges[i][0] && c <= ranges[i][1])
      return true;
  return (c & 0xfffe) == 0xfffe;
}

static bool name_char(uint32_t c) {
  if (c >= 0x80)
    return !hidden(c);
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c && strchr("_.:- ", (int)c));
}

int parse_name(struct slice text, size_t max_bytes, struct err *e) {
  if (!text.n || text.n > max_bytes)
    return err_set(e, ERR_INVALID, "expected a name of 1 to %zu bytes", max_bytes);
  if (text.p[0] == ' ' || text.p[text.n - 1] == ' ')
    return err_set(e, ERR_INVALID, "a name neither begins nor ends with a space");
  for (size_t i = 0; i < text.n;) {
    size_t step = slice_utf8_step(slice_n(text.p + i, text.n - i));
    if (!step || !name_char(code_point((const unsigned char *)text.p + i, step))) {
      (void)err_set(e, ERR_INVALID, "expected letters, digits, spaces and the characters _ . : -");
      if (e)
        e->column = (int)i + 1;
      return ERR_INVALID;
    }
    i += step;
  }
  return 0;
}
