#include "store/source.h"

int store_source_probe(const struct store_options *o, struct store_probe *ret, struct err *e) {
  struct store_probe out = {0};
  usec_t began = clock_system.mono(&clock_system);
  int r;
  if (strncmp(o->url, "sqlite:", 7) == 0)
    r = sqlite_source_probe(o, &out, e);
  else if (strncmp(o->url, "postgres://", 11) == 0 || strncmp(o->url, "postgresql://", 13) == 0)
    r = pg_source_probe(o, &out, e);
  else
    r = err_set(e, ERR_INVALID,
                "expected a database URL that begins with sqlite:, postgres:// or postgresql://");
  if (r < 0)
    return r;
  out.took = clock_system.mono(&clock_system) - began;
  *ret = out;
  return 0;
}
