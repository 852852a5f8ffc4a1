/* The contract over PostgreSQL: the database of KELOU_TEST_PG_URL, which the test tool has made for the purpose. */
#include "contract.h"
#include "store/source.h"
#include <stdio.h>
#include <stdlib.h>

#define SKIPPED 77 /* meson's exit code for it */

static struct store_source *open_postgres(void) {
  struct store_source *source = NULL;
  struct store_options options = {.url = getenv("KELOU_TEST_PG_URL"),
                                  .shard_count = 8,
                                  .statement_timeout = 30 * USEC_PER_SEC,
                                  .idle_tx_timeout = 2 * USEC_PER_SEC,
                                  .clock = &clock_system};
  return pg_source_open(&options, &source, &fx.e) < 0 ? NULL : source;
}

int main(void) {
  if (!getenv("KELOU_TEST_PG_URL")) {
    puts("skipped: KELOU_TEST_PG_URL is not set");
    return SKIPPED;
  }
  return contract_run(open_postgres, "postgres");
}
