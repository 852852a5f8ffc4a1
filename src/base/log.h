#pragma once
/* Structured log: a fixed message and key=value fields, to stderr or a file, logfmt or JSON.
 * Thread-safe, one write(2) a line. base, core, store and net never log above debug. Never pass a secret. */
#include "base/time.h"
#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_LEVEL_MAX_ };
enum log_format { LOG_LOGFMT, LOG_JSON, LOG_FORMAT_MAX_ };

struct log_field {
  const char *key; /* NULL ends the list */
  enum { LOGF_INT, LOGF_STR, LOGF_SLICE, LOGF_USEC, LOGF_TIME } kind;
  int64_t i;
  struct slice s;
};
#define LF_I(k, v)                                                                                           \
  { .key = (k), .kind = LOGF_INT, .i = (int64_t)(v) }
#define LF_S(k, v)                                                                                           \
  { .key = (k), .kind = LOGF_STR, .s = slice_of(v) }
#define LF_L(k, v)                                                                                           \
  { .key = (k), .kind = LOGF_SLICE, .s = (v) }
#define LF_D(k, v)                                                                                           \
  { .key = (k), .kind = LOGF_USEC, .i = (v) } /* a length, printed as a duration */
#define LF_T(k, v)                                                                                           \
  { .key = (k), .kind = LOGF_TIME, .i = (v) } /* an instant, printed as RFC 3339 */
#define LF_E(err) LF_S("error", (err)->text)

struct log_options {
  enum log_level level;
  enum log_format format;
  const char *path; /* NULL = stderr */
  const struct clock *clock;
};
int log_open(const struct log_options *o, struct err *e);
void log_level_set(enum log_level level);
bool log_enabled(enum log_level level);
/* The node's id, in front of every line of the process from now on; NULL: none. The text is kept, not copied. */
void log_node(const char *node_id);
void log_emit(enum log_level level, const char *message, const struct log_field *fields);

#define log_at(level, msg, ...)                                                                              \
  do {                                                                                                       \
    if (log_enabled(level))                                                                                  \
      log_emit((level), (msg), (const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){0}});                   \
  } while (0)
#define log_debug(msg, ...) log_at(LOG_DEBUG, msg __VA_OPT__(, ) __VA_ARGS__)
#define log_info(msg, ...)  log_at(LOG_INFO, msg __VA_OPT__(, ) __VA_ARGS__)
#define log_warn(msg, ...)  log_at(LOG_WARN, msg __VA_OPT__(, ) __VA_ARGS__)
#define log_error(msg, ...) log_at(LOG_ERROR, msg __VA_OPT__(, ) __VA_ARGS__)
