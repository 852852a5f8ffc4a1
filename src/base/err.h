#pragma once
/* Errors: a negative code says what kind, `struct err` says where and why.
 *
 * Convention of the whole house: a function that can fail returns 0 or a positive
 * value, or a negative code (a negative errno or one of enum err_code) and, when it
 * takes a `struct err *`, fills it. Outputs (`ret_…`) are untouched on failure.
 * `struct err` is plain data on the caller's stack; NULL is allowed everywhere. */
#include <errno.h>
#include <stddef.h>

/* Codes beyond errno. The stable text code (for API and CLI) is in errors.def. */
enum err_code {
#define ERR(name, number, text, http, exit_code, title) ERR_##name = -(number),
#include "base/errors.def"
#undef ERR
};

#define ERR_FIELD_MAX 96
#define ERR_TEXT_MAX  320

struct err {
  int code;                  /* negative, 0 = no error */
  int column;                /* 1-based place inside the value, 0 = none */
  char field[ERR_FIELD_MAX]; /* JSON pointer or setting name, "" = none */
  char text[ERR_TEXT_MAX];   /* what is wrong and what was expected; no trailing dot */
};

/* Fill `e` (may be NULL) and return `code`. */
int err_set(struct err *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same, naming the field (a JSON pointer such as "/schedule/expression"). */
int err_field(struct err *e, int code, const char *field, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
#ifdef __clang_analyzer__
/* For tools that look at one file only (tools/check --long): what comes back is the code. */
#define err_set(e, code, ...)          ((void)(err_set)((e), (code), __VA_ARGS__), (code))
#define err_field(e, code, field, ...) ((void)(err_field)((e), (code), (field), __VA_ARGS__), (code))
#endif
/* Put `prefix` in front of e->field: how nested parsers build a pointer. Returns e->code. */
int err_at(struct err *e, const char *prefix);

/* The stable lower-case text of a code ("invalid_field", "conflict", …); errno → "io_error". */
const char *err_name(int code);
/* HTTP status and CLI exit code that belong to a code (errors.def). */
int err_http(int code);
int err_exit(int code);
/* Short English title of a code for RFC 9457 `title`. */
const char *err_title(int code);
