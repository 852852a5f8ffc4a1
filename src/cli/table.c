#include "cli/table.h"
#include "base/mem.h"
#include "cli/words.h"

struct range {
  uint32_t first, last;
};

/* Characters that take two columns: the wide and full-width ones of East Asian scripts, and pictures. */
static const struct range wide[] = {
    {0x1100, 0x115f},   {0x2329, 0x232a},   {0x2e80, 0x303e},   {0x3041, 0x33ff},   {0x3400, 0x4dbf},
    {0x4e00, 0x9fff},   {0xa000, 0xa4cf},   {0xa960, 0xa97c},   {0xac00, 0xd7a3},   {0xf900, 0xfaff},
    {0xfe30, 0xfe6f},   {0xff01, 0xff60},   {0xffe0, 0xffe6},   {0x16fe0, 0x18cff}, {0x1b000, 0x1b2ff},
    {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff}, {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd},
};
/* Characters that take none. */
static const struct range none[] = {
    {0x0300, 0x036f}, {0x0483, 0x0489},   {0x0591, 0x05bd}, {0x064b, 0x065f}, {0x0e31, 0x0e31},
    {0x0e34, 0x0e3a}, {0x0e47, 0x0e4e},   {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x200b, 0x200d},
    {0x20d0, 0x20ff}, {0x302a, 0x302d},   {0x3099, 0x309a}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f},
    {0xfeff, 0xfeff}, {0xe0100, 0xe01ef},
};
/* Characters that steer: controls, direction marks, line and paragraph separators. */
static const struct range steering[] = {
    {0x00, 0x1f}, {0x7f, 0x9f}, {0x200e, 0x200f}, {0x2028, 0x202e}, {0x2066, 0x2069}, {0xfff9, 0xfffb},
};
#define IN(c, list) in_ranges(c, list, sizeof(list) / sizeof *(list))

static bool in_ranges(uint32_t c, const struct range *list, size_t n) {
  for (size_t i = 0; i < n && list[i].first <= c; i++)
    if (c <= list[i].last)
      return true;
  return false;
}

/* The character of a well-formed sequence of `n` bytes. */
static uint32_t decode(const char *p, size_t n) {
  static const uint8_t first_bits[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
  uint32_t c = (uint8_t)p[0] & first_bits[n];
  for (size_t i = 1; i < n; i++)
    c = c << 6 | ((uint8_t)p[i] & 0x3f);
  return c;
}

size_t text_width(struct slice text) {
  size_t columns = 0;
  while (text.n) {
    size_t n = slice_utf8_step(text);
    uint32_t c = n ? decode(text.p, n) : 0xfffd;
    columns += IN(c, none) ? 0 : IN(c, wide) ? 2 : 1;
    n = n ? n : 1;
    text = slice_n(text.p + n, text.n - n);
  }
  return columns;
}

void text_clean(struct str *out, struct slice text) {
  while (text.n) {
    size_t n = slice_utf8_step(text);
    uint32_t c = n ? decode(text.p, n) : 0xfffd;
    if (c == '\n')
      str_addz(out, "\\n");
    else if (c == '\t')
      str_addz(out, "\\t");
    else if (IN(c, steering))
      str_addf(out, "\\u%04x", c);
    else if (!n)
      str_addz(out, "\xef\xbf\xbd");
    else
      str_add(out, slice_n(text.p, n));
    n = n ? n : 1;
    text = slice_n(text.p + n, text.n - n);
  }
}

void table_init(struct table *t, size_t columns, bool header, bool colour) {
  *t = (struct table){.columns = columns, .header = header, .colour = colour};
  str_init(&t->text, TABLE_TEXT_MAX);
}

void table_done(struct table *t) {
  str_done(&t->text);
  mem_free(t->ends);
  t->ends = NULL;
}

void table_cell(struct table *t, struct slice text) {
  mem_reserve(t->ends, t->n, t->cap);
  if (text.n)
    text_clean(&t->text, text);
  else
    str_addc(&t->text, '-');
  t->ends[t->n++] = t->text.n;
}

static struct slice cell(const struct table *t, size_t i) {
  size_t begin = i ? t->ends[i - 1] : 0;
  return slice_n(t->text.p + begin, t->ends[i] - begin);
}

static void print_cell(const struct table *t, size_t i, size_t width, struct str *out) {
  struct slice text = cell(t, i);
  bool label = t->header ? i < t->columns : i % t->columns == 0;
  const char *sgr = t->colour && !label ? words_colour(text) : NULL;
  if (sgr)
    str_addf(out, "\033[%sm", sgr);
  str_add(out, text);
  if (sgr)
    str_addz(out, "\033[0m");
  for (size_t w = text_width(text); w < width; w++)
    str_addc(out, ' ');
}

void table_print(const struct table *t, struct str *out) {
  if (str_failed(&t->text)) { /* the caller sees it in its own text */
    out->failed = true;
    return;
  }
  size_t rows = t->n / t->columns, width[TABLE_COLUMNS_MAX] = {0};
  for (size_t i = 0; i < rows * t->columns; i++) {
    size_t w = text_width(cell(t, i)), c = i % t->columns;
    width[c] = w > width[c] ? w : width[c];
  }
  for (size_t i = 0; i < rows * t->columns; i++) {
    bool last = i % t->columns == t->columns - 1;
    print_cell(t, i, last ? 0 : width[i % t->columns] + 2, out);
    if (last)
      str_addc(out, '\n');
  }
}
