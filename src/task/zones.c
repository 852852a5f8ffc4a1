#include "task/zones.h"
#include "base/file.h"
#include <limits.h>
#include <stdio.h>

static int read_zone(void *arg, const char *name, struct str *out, struct err *e) {
  return file_read_below(arg, name, ZONE_FILE_MAX, out, e);
}

/* Every update of tzdata replaces tzdata.zi; where a folder has none, its own stamp must do. */
static uint64_t stamp(void *arg) {
  char path[PATH_MAX];
  int n = snprintf(path, sizeof path, "%s/tzdata.zi", (const char *)arg);
  uint64_t found = n > 0 && (size_t)n < sizeof path ? file_stamp(path) : 0;
  return found ? found : file_stamp(arg);
}

struct zone_set *zones_open(const char *dir) {
  const struct zone_source source = {read_zone, stamp, (void *)(uintptr_t)dir};
  return zone_set_new(&source);
}
