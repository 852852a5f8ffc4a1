/* Any JSON document, and the field readers over it. What was read must print and read as the same. */
#include "base/json.h"
#include "base/mem.h"
#include "fuzz.h"

#define BYTES_MAX ((size_t)64 * 1024)

static void check_fields(const json_t *doc) {
  static const char *const names[] = {"ONE", "TWO", NULL}, *const known[] = {"a", "b", "c", NULL};
  struct err e = {0};
  int64_t i;
  bool b;
  double d;
  struct slice s;
  usec_t t;
  int v;
  if (json_want_object(doc, "/x", &e) < 0)
    return;
  (void)json_check_keys(doc, known, &e);
  for (size_t k = 0; known[k]; k++) {
    (void)json_get_i64(doc, known[k], -5, 1000, &i, &e);
    (void)json_get_bool(doc, known[k], &b, &e);
    (void)json_get_double(doc, known[k], 0, 1, &d, &e);
    if (json_get_slice(doc, known[k], 8, &s, &e) > 0)
      assert(s.n <= 8 && slice_utf8_valid(s) && (!s.n || !memchr(s.p, 0, s.n)));
    (void)json_get_enum(doc, known[k], names, &v, &e);
    (void)json_get_time(doc, known[k], &t, &e);
    int r = json_get_duration(doc, known[k], 0, USEC_PER_DAY, &t, &e);
    if (r < 0)
      fuzz_check_error(r, &e);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto_json *doc = NULL, *again = NULL;
  struct err e = {0};
  int r = json_read(fuzz_slice(data, size), BYTES_MAX, &doc, &e);
  if (r < 0) {
    fuzz_check_error(r, &e);
    return 0;
  }
  auto_free char *text = json_text(doc), *canonical = json_canonical(doc);
  assert(slice_utf8_valid(slice_of(text)));
  assert(json_read(slice_of(text), 8 * BYTES_MAX, &again, &e) == 0);
  auto_free char *once_more = json_canonical(again);
  assert(strcmp(canonical, once_more) == 0);
  check_fields(doc);
  return 0;
}
