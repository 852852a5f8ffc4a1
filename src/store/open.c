#include "store/source.h"

static const struct {
  const char *scheme; /* what the URL begins with */
  int (*open)(const struct store_options *o, struct store_source **ret, struct err *e);
} backends[] = {
    {"sqlite:", sqlite_source_open},
    {"postgres://", pg_source_open},
    {"postgresql://", pg_source_open},
};

int store_source_open(const struct store_options *o, struct store_source **ret, struct err *e) {
  for (size_t i = 0; i < sizeof backends / sizeof backends[0]; i++)
    if (strncmp(o->url, backends[i].scheme, strlen(backends[i].scheme)) == 0)
      return backends[i].open(o, ret, e);
  return err_set(e, ERR_INVALID,
                 "expected a database URL that begins with sqlite:, postgres:// or postgresql://");
}
