/* Zone rules: a footer's TZ string; the first byte chooses the file's last transition. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const int64_t last[] = {INT64_MIN, 0, -1, INT64_C(1700000000), INT64_C(253402300799), INT64_MAX};
  if (!size)
    return 0;
  struct slice rule = fuzz_slice(data + 1, size - 1);
  struct zone *z = fuzz_posix_zone(SLICE("Fuzz/Rule"), rule, last[data[0] % (sizeof last / sizeof *last)]);
  if (!z)
    return 0;
  fuzz_check_zone_all(z);
  zone_unref(&z);
  struct err e = {0};
  if (zone_builtin(rule, &z, &e) > 0)
    zone_unref(&z);
  return 0;
}
