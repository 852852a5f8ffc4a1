/* X-Kelou-Signature: the first line is the header, the rest the body. Without the secret nothing may pass; what was signed must. */
#include "fuzz.h"
#include "net/crypto.h"

#define NOW (INT64_C(1800000000) * USEC_PER_SEC)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const struct slice secrets[] = {SLICE("an older secret of the group"),
                                  SLICE("the secret of the group today")};
  const usec_t windows[] = {0, 5 * USEC_PER_MIN, USEC_PER_DAY};
  struct slice body, header = slice_cut(fuzz_slice(data, size), '\n', &body);
  struct err e = {0};
  for (size_t i = 0; i < sizeof windows / sizeof *windows; i++)
    fuzz_check_error(signature_check(header, secrets, 2, NOW, windows[i], body, &e), &e);
  char text[SIGNATURE_TEXT_MAX];
  signature_make(secrets[size & 1], NOW, body, text);
  assert(signature_check(slice_of(text), secrets, 2, NOW, 0, body, &e) == 0);
  assert(signature_check(slice_of(text), secrets, 2, NOW + 2 * USEC_PER_SEC, USEC_PER_SEC, body, &e) < 0);
  /* behind what the other side made up, the right one is still found, or the whole is refused as malformed */
  auto_str both;
  str_init(&both, size + 2 * SIGNATURE_TEXT_MAX);
  str_add(&both, header);
  str_addz(&both, strchr(text, ','));
  (void)signature_check(str_slice(&both), secrets, 2, NOW, USEC_PER_MIN, body, &e);
  return 0;
}
