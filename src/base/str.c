#include "base/str.h"
#include "base/mem.h"
#include "base/rng.h"
#include <errno.h>
#include <stdio.h>

#define STR_FIRST_BYTES 64

bool slice_eq(struct slice a, struct slice b) {
  return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool slice_eqz(struct slice a, const char *z) { return slice_eq(a, slice_of(z)); }

static unsigned char lower(char c) {
  unsigned char u = (unsigned char)c;
  return u >= 'A' && u <= 'Z' ? (unsigned char)(u + 32) : u;
}

bool slice_eqz_nocase(struct slice a, const char *z) {
  struct slice b = slice_of(z);
  if (a.n != b.n)
    return false;
  for (size_t i = 0; i < a.n; i++)
    if (lower(a.p[i]) != lower(b.p[i]))
      return false;
  return true;
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

struct slice slice_trim(struct slice s) {
  while (s.n && is_blank(s.p[0])) {
    s.p++;
    s.n--;
  }
  while (s.n && is_blank(s.p[s.n - 1]))
    s.n--;
  return s;
}

struct slice slice_cut(struct slice s, char sep, struct slice *rest) {
  const char *at = s.n ? memchr(s.p, sep, s.n) : NULL;
  if (!at) {
    *rest = (struct slice){NULL, 0};
    return s;
  }
  size_t head = (size_t)(at - s.p);
  *rest = (struct slice){at + 1, s.n - head - 1};
  return (struct slice){s.p, head};
}

/* Well-formed sequences by first byte (Unicode, table 3-7): their length and the range of the second byte,
 * which keeps out overlong forms, surrogates and what is beyond U+10FFFF. */
static const struct {
  unsigned char first, last, length, low, high;
} sequences[] = {{0x00, 0x7f, 1, 0, 0},       {0xc2, 0xdf, 2, 0x80, 0xbf}, {0xe0, 0xe0, 3, 0xa0, 0xbf},
                 {0xe1, 0xec, 3, 0x80, 0xbf}, {0xed, 0xed, 3, 0x80, 0x9f}, {0xee, 0xef, 3, 0x80, 0xbf},
                 {0xf0, 0xf0, 4, 0x90, 0xbf}, {0xf1, 0xf3, 4, 0x80, 0xbf}, {0xf4, 0xf4, 4, 0x80, 0x8f}};

size_t slice_utf8_step(struct slice s) {
  if (!s.n)
    return 0;
  const unsigned char *u = (const unsigned char *)s.p;
  size_t row = 0, rows = sizeof sequences / sizeof *sequences;
  while (row < rows && u[0] > sequences[row].last)
    row++;
  if (row == rows || u[0] < sequences[row].first || s.n < sequences[row].length)
    return 0;
  size_t length = sequences[row].length;
  if (length > 1 && (u[1] < sequences[row].low || u[1] > sequences[row].high))
    return 0;
  for (size_t i = 2; i < length; i++)
    if ((u[i] & 0xc0) != 0x80)
      return 0;
  return length;
}

struct slice slice_utf8_head(struct slice s, size_t max) {
  if (s.n <= max)
    return s;
  size_t n = max;
  while (n > 0 && ((unsigned char)s.p[n] & 0xc0) == 0x80)
    n--;
  return slice_n(s.p, n);
}

bool slice_utf8_valid(struct slice s) {
  while (s.n) {
    size_t step = slice_utf8_step(s);
    if (!step)
      return false;
    s.p += step;
    s.n -= step;
  }
  return true;
}

uint64_t slice_hash(struct slice s) {
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (size_t i = 0; i < s.n; i++)
    h = (h ^ (unsigned char)s.p[i]) * UINT64_C(0x100000001b3);
  return hash_u64(h);
}

void str_init(struct str *s, size_t max_bytes) {
  *s = (struct str){.max = max_bytes};
  s->cap = max_bytes < STR_FIRST_BYTES - 1 ? max_bytes + 1 : STR_FIRST_BYTES;
  s->p = mem_alloc(s->cap);
  s->p[0] = 0;
}

void str_done(struct str *s) {
  mem_free(s->p);
  *s = (struct str){0};
}

void str_clear(struct str *s) {
  s->n = 0;
  s->failed = false;
  if (s->p)
    s->p[0] = 0;
}

/* Room for `more` bytes and the terminator; NULL after an overflow. */
static char *room(struct str *s, size_t more) {
  size_t want;
  if (s->failed || __builtin_add_overflow(s->n, more, &want) || want > s->max || want == SIZE_MAX) {
    s->failed = true;
    return NULL;
  }
  if (want + 1 > s->cap) {
    size_t cap = s->cap > SIZE_MAX / 2 ? SIZE_MAX : s->cap * 2;
    if (cap < want + 1)
      cap = want + 1;
    if (cap > s->max && s->max < SIZE_MAX)
      cap = s->max + 1;
    s->p = mem_grow(s->p, cap, 1);
    s->cap = cap;
  }
  return s->p + s->n;
}

void str_add(struct str *s, struct slice text) {
  char *to = room(s, text.n);
  if (!to)
    return;
  if (text.n)
    memcpy(to, text.p, text.n);
  s->n += text.n;
  s->p[s->n] = 0;
}

void str_addz(struct str *s, const char *z) { str_add(s, slice_of(z)); }
void str_addc(struct str *s, char c) { str_add(s, slice_n(&c, 1)); }

void str_addf(struct str *s, const char *fmt, ...) {
  char small[256];
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(small, sizeof small, fmt, args);
  va_end(args);
  if (n < 0) {
    s->failed = true;
    return;
  }
  if ((size_t)n < sizeof small) {
    str_add(s, slice_n(small, (size_t)n));
    return;
  }
  char *to = room(s, (size_t)n);
  if (!to)
    return;
  va_start(args, fmt);
  (void)vsnprintf(to, (size_t)n + 1, fmt, args); /* measured above */
  va_end(args);
  s->n += (size_t)n;
}

void str_addi(struct str *s, int64_t v) {
  char text[20];
  char *at = text + sizeof text;
  uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
  do {
    *--at = (char)('0' + u % 10);
    u /= 10;
  } while (u);
  if (v < 0)
    *--at = '-';
  str_add(s, slice_n(at, (size_t)(text + sizeof text - at)));
}

static void add_escape(struct str *s, unsigned code) {
  static const char shorts[] = "\"\"\\\\\bb\ff\nn\rr\tt";
  for (size_t i = 0; i + 1 < sizeof shorts; i += 2)
    if ((unsigned char)shorts[i] == code) {
      str_add(s, slice_n((char[]){'\\', shorts[i + 1]}, 2));
      return;
    }
  str_addf(s, "\\u%04x", code);
}

/* The code point to escape at `u` (`step` bytes long), or 0 when it can stay as it is. Beyond what the RFC
 * wants: DEL, the C1 controls and the line separators, which terminals and log readers act upon. */
static unsigned needs_escape(const unsigned char *u, size_t step) {
  if (step == 0)
    return 0xfffd;
  if (step == 1)
    return u[0] < 0x20 || u[0] == '"' || u[0] == '\\' || u[0] == 0x7f ? u[0] | 0x10000u : 0;
  if (step == 2 && u[0] == 0xc2 && u[1] < 0xa0)
    return u[1];
  if (step == 3 && u[0] == 0xe2 && u[1] == 0x80 && (u[2] == 0xa8 || u[2] == 0xa9))
    return 0x2000u | (u[2] - 0x80u);
  return 0;
}

void str_add_json(struct str *s, struct slice text) {
  size_t from = 0;
  for (size_t i = 0; i < text.n;) {
    const unsigned char *u = (const unsigned char *)text.p + i;
    size_t step = slice_utf8_step(slice_n(text.p + i, text.n - i));
    unsigned code = needs_escape(u, step);
    if (!code) {
      i += step;
      continue;
    }
    str_add(s, slice_n(text.p + from, i - from));
    add_escape(s, code & 0xffffu); /* the marker keeps U+0000 apart from "none" */
    i += step ? step : 1;
    from = i;
  }
  if (from < text.n)
    str_add(s, slice_n(text.p + from, text.n - from));
}

bool str_failed(const struct str *s) { return s->failed; }

char *str_take(struct str *s) {
  if (s->failed)
    return NULL;
  if (!s->p)
    (void)room(s, 0);
  char *p = s->p;
  if (p)
    p[s->n] = 0;
  *s = (struct str){.max = s->max};
  return p;
}

int text_copy(char *buf, size_t size, struct slice text) {
  size_t n = text.n < size ? text.n : size - 1;
  if (n)
    memcpy(buf, text.p, n);
  buf[n] = 0;
  return n < text.n ? -ENOSPC : 0;
}
