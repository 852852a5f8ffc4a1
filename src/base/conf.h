#pragma once
/* Configuration: a table of settings given by the caller, filled from (later wins) the defaults, one YAML
 * file, KELOU_* environment variables and explicit "name=value" overrides. All errors are collected before
 * giving up. The result is immutable and reference-counted: a job keeps the snapshot it started with.
 * Thread-safe.
 *
 * Names are dotted ("http.port"); in YAML they are nested sections, in the environment KELOU_HTTP_PORT. */
#include "base/err.h"
#include "base/str.h"
#include "base/time.h"

enum conf_type {
  CONF_STRING,   /* min, max: length in bytes (0, 0: up to CONF_TEXT_MAX) */
  CONF_INT,      /* min, max inclusive (0, 0: any) */
  CONF_BOOL,     /* true | false */
  CONF_DURATION, /* min, max in µs (0, 0: any) */
  CONF_BYTES,    /* "64KiB"; min, max in bytes (0, 0: any) */
  CONF_ENUM,     /* one of `names` */
  CONF_LIST,     /* a YAML sequence, elsewhere with commas; min, max: count (0, 0: up to CONF_LIST_MAX) */
  CONF_TYPE_MAX_
};

enum { CONF_SECRET = 1, CONF_RELOADABLE = 2 }; /* flags */

#define CONF_NAME_MAX   64
#define CONF_DEPTH_MAX  3 /* parts of a name */
#define CONF_TEXT_MAX   4096
#define CONF_LIST_MAX   256
#define CONF_FILE_MAX   ((size_t)256 * 1024)
#define CONF_ERRORS_MAX 20

struct conf_item {
  const char *name; /* lower-case letters, digits and _, at most CONF_DEPTH_MAX parts with dots between */
  enum conf_type type;
  const char *text;         /* default as it would stand in the environment; NULL: must be set */
  int64_t min, max;         /* see conf_type */
  const char *const *names; /* CONF_ENUM: NULL-terminated */
  unsigned flags;
  const char *help; /* one sentence */
};

struct conf_sources {
  const struct conf_item *items; /* must outlive the conf */
  size_t n_items;
  const char *path;              /* YAML file, NULL: none */
  const char *const *env;        /* usually `environ`, NULL: none */
  const char *const *env_ignore; /* KELOU_* variables that are not settings, NULL-terminated; may be NULL */
  const char *const *sets;       /* "name=value", NULL-terminated; may be NULL */
};

/* Each: field = name of the setting, text begins with where it stands ("kelou.yaml:3:7: …"); never has a
 * value in it. */
struct conf_errors {
  size_t n;
  bool more; /* there were further ones */
  struct err list[CONF_ERRORS_MAX];
};

struct conf;
/* 0 and a conf with one reference, or the code of the first error. `errors` must not be NULL.
 * Reads the file (blocking). */
int conf_load(const struct conf_sources *sources, struct conf **ret, struct conf_errors *errors);
struct conf *conf_ref(struct conf *c);
void conf_unref(struct conf **c);

/* The name must be in the table with this type: anything else is a bug and ends the process.
 * What they return lives as long as the conf. */
const char *conf_str(const struct conf *c, const char *name);
int64_t conf_int(const struct conf *c, const char *name);
bool conf_bool(const struct conf *c, const char *name);
usec_t conf_usec(const struct conf *c, const char *name);
int64_t conf_bytes(const struct conf *c, const char *name);
int conf_enum(const struct conf *c, const char *name);
const char *const *conf_list(const struct conf *c, const char *name); /* NULL-terminated */

/* Up to `max` settings that differ between two snapshots of one table; returns how many differ. */
size_t conf_diff(const struct conf *a, const struct conf *b, const struct conf_item **ret, size_t max);
/* The effective settings as YAML, secrets masked, with a remark where a value is not the default. */
void conf_print(const struct conf *c, struct str *out);
/* A Markdown table of all settings. */
void conf_doc(const struct conf_item *items, size_t n, struct str *out);
