#pragma once
/* Between the parts of base/conf: the snapshot and how a source puts a value into it. */
#include "base/conf.h"
#include <stdatomic.h>

enum conf_source {
  CONF_FROM_NOTHING,
  CONF_FROM_DEFAULT,
  CONF_FROM_FILE,
  CONF_FROM_ENV,
  CONF_FROM_SET,
  CONF_FROM_MAX_
};

struct conf_value {
  char *text;  /* as given; NULL for lists */
  char **list; /* NULL-terminated; only lists */
  int64_t number;
  enum conf_source from;
};

struct conf {
  atomic_int refs;
  const struct conf_item *items;
  size_t n;
  struct conf_value *values; /* as items */
};

/* Where a source is and how it complains. */
struct conf_load {
  struct conf *conf;
  struct conf_errors *errors;
};

/* Index of a setting, or -1. */
int conf_find(const struct conf *c, struct slice name);
/* Check and store one value: `n` texts for a list, else one. */
int conf_put(struct conf *c, int index, enum conf_source from, const struct slice *parts, size_t n,
             struct err *e);
/* The same from one text, with commas between the entries of a list. */
int conf_put_text(struct conf *c, int index, enum conf_source from, struct slice text, struct err *e);
/* Collect an error; `where` stands in front of the text. */
void conf_complain(struct conf_errors *errors, const char *where, const char *field, const struct err *e);
/* Texts of the whole table for parse_nearest: NULL-terminated, free with mem_free. */
const char **conf_names(const struct conf *c);
/* "KELOU_HTTP_PORT" of "http.port". */
void conf_env_name(const char *name, char *buf /* CONF_NAME_MAX + 8 */);
#define CONF_ENV_PREFIX "KELOU_"
/* base/conf_yaml.c: the values of a file into the conf; errors are collected. */
void conf_yaml(const struct conf_load *l, const char *path);
