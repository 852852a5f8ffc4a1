/* A YAML document of people; what was read is good JSON. */
#include "base/mem.h"
#include "base/yaml_doc.h"
#include "fuzz.h"

#define BYTES_MAX ((size_t)64 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto_json *doc = NULL, *again = NULL;
  struct err e = {0};
  int r = yaml_doc_read(fuzz_slice(data, size), BYTES_MAX, &doc, &e);
  if (r < 0) {
    fuzz_check_error(r, &e);
    return 0;
  }
  auto_free char *text = json_text(doc);
  assert(json_read(slice_of(text), 8 * BYTES_MAX, &again, &e) == 0);
  auto_free char *canonical = json_canonical(doc), *once_more = json_canonical(again);
  assert(strcmp(canonical, once_more) == 0);
  return 0;
}
