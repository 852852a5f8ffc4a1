#include "cli/cron_zones.h"
#include "base/file.h"
#include <limits.h>
#include <stdio.h>

static int read_zone(void *arg, const char *name, struct str *out, struct err *e) {
  return file_read_below(arg, name, ZONE_FILE_MAX, out, e);
}

/* tzdata.zi is replaced by every update; a folder made by hand may lack it. */
static uint64_t stamp(void *arg) {
  char path[PATH_MAX];
  const char *dir = arg;
  int n = snprintf(path, sizeof path, "%s/tzdata.zi", dir);
  uint64_t found = n > 0 && (size_t)n < sizeof path ? file_stamp(path) : 0;
  return found ? found : file_stamp(dir);
}

struct zone_set *cli_zones_new(const char *dir) {
  const struct zone_source source = {read_zone, stamp, (void *)(uintptr_t)dir};
  return zone_set_new(&source);
}
