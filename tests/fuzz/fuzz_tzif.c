/* A TZif file of any bytes. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct zone *z = NULL;
  struct err e = {0};
  int r = zone_parse(SLICE("Fuzz/Zone"), fuzz_slice(data, size), &z, &e);
  if (r < 0) {
    fuzz_check_error(r, &e);
    assert(!z);
    return 0;
  }
  fuzz_check_zone_all(z);
  zone_unref(&z);
  return 0;
}
