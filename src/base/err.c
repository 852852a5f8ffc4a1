#include "base/err.h"
#include "base/str.h"
#include <stdarg.h>
#include <stdio.h>

struct err_row {
  int code;
  const char *name;
  int http;
  int exit_code;
  const char *title;
};

static const struct err_row rows[] = {
#define ERR(name, number, text, http, exit_code, title) {-(number), text, http, exit_code, title},
#include "base/errors.def"
#undef ERR
};

/* Every errno: the outside world failed, not the request. */
static const struct err_row io_row = {0, "io_error", 500, 1, "The system refused an operation"};
static const struct err_row ok_row = {0, "ok", 200, 0, "No error"};

static const struct err_row *find(int code) {
  if (code >= 0)
    return &ok_row;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    if (rows[i].code == code)
      return &rows[i];
  return &io_row;
}

/* Texts quote input and may be cut in the middle of a character, yet they go into JSON and logs:
 * they leave here as valid UTF-8 without control characters. */
static void clean(char *text) {
  size_t n = strlen(text);
  for (size_t i = 0; i < n;) {
    size_t step = slice_utf8_step(slice_n(text + i, n - i));
    if (!step || (unsigned char)text[i] < 0x20 || text[i] == 0x7f) {
      text[i++] = '?';
      continue;
    }
    i += step;
  }
}

static void fill(struct err *e, int code, const char *field, const char *fmt, va_list args) {
  char text[ERR_TEXT_MAX]; /* the arguments may point into *e */
  char place[ERR_FIELD_MAX];
  (void)vsnprintf(text, sizeof text, fmt, args); /* a cut text is still a text */
  (void)text_copy(place, sizeof place, slice_of(field));
  clean(text);
  clean(place);
  *e = (struct err){.code = code};
  memcpy(e->text, text, sizeof text);
  memcpy(e->field, place, sizeof place);
}

int(err_set)(struct err *e, int code, const char *fmt, ...) {
  if (!e)
    return code;
  va_list args;
  va_start(args, fmt);
  fill(e, code, "", fmt, args);
  va_end(args);
  return code;
}

int(err_field)(struct err *e, int code, const char *field, const char *fmt, ...) {
  if (!e)
    return code;
  va_list args;
  va_start(args, fmt);
  fill(e, code, field, fmt, args);
  va_end(args);
  return code;
}

int err_at(struct err *e, const char *prefix) {
  if (!e)
    return ERR_INVALID; /* the code is lost with the struct; every caller refuses input with it */
  char joined[ERR_FIELD_MAX];
  (void)snprintf(joined, sizeof joined, "%s%s", prefix, e->field);
  clean(joined);
  memcpy(e->field, joined, sizeof joined);
  return e->code;
}

const char *err_name(int code) { return find(code)->name; }
int err_http(int code) { return find(code)->http; }
int err_exit(int code) { return find(code)->exit_code; }
const char *err_title(int code) { return find(code)->title; }
