/* The contract over SQLite, in a directory of its own. */
#include "contract.h"
#include "store/source.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char dir[] = "/tmp/kelou-store-XXXXXX";

static struct store_source *open_sqlite(void) {
  char url[128];
  struct store_source *source = NULL;
  snprintf(url, sizeof url, "sqlite:%s/kelou.db", dir);
  return sqlite_source_open(&(struct store_options){.url = url, .shard_count = 8, .clock = &clock_system},
                            &source, &fx.e) < 0
             ? NULL
             : source;
}

static void remove_dir(void) {
  static const char *const names[] = {"kelou.db", "kelou.db.lock", "kelou.db-wal", "kelou.db-shm"};
  char path[128];
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    snprintf(path, sizeof path, "%s/%s", dir, names[i]);
    (void)unlink(path); /* it may not be there */
  }
  (void)rmdir(dir); /* what is left shows what went wrong */
}

int main(void) {
  if (!mkdtemp(dir))
    return 1;
  int failed = contract_run(open_sqlite, "sqlite");
  remove_dir();
  return failed;
}
