/* Prints docs/api.md (or with --openapi the OpenAPI document); with --check FILE says whether the file is up to date. */
#include "api/api.h"
#include "base/mem.h"
#include <stdio.h>

enum { TEXT_LIMIT = 4 * 1024 * 1024 };

/* 0: equal; 1: not. */
static int check(const char *path, struct slice want) {
  FILE *f = fopen(path, "rb");
  if (!f) {
    perror(path);
    return 1;
  }
  auto_free char *got = mem_alloc(TEXT_LIMIT);
  size_t n = fread(got, 1, TEXT_LIMIT, f);
  (void)fclose(f); /* it was only read */
  if (slice_eq(slice_n(got, n), want))
    return 0;
  size_t line = 1;
  for (size_t i = 0; i < n && i < want.n && got[i] == want.p[i]; i++)
    line += got[i] == '\n';
  (void)fprintf(stderr, "%s: line %zu is not what the tables say: write it anew with kelou-api-doc\n", path,
                line);
  return 1;
}

int main(int argc, char **argv) {
  auto_str out;
  str_init(&out, TEXT_LIMIT);
  bool openapi = argc == 2 && slice_eqz(slice_of(argv[1]), "--openapi");
  bool checks = argc == 3 && slice_eqz(slice_of(argv[1]), "--check");
  if (argc > 1 && !openapi && !checks) {
    (void)fputs("usage: kelou-api-doc [--openapi | --check FILE]\n", stderr);
    return 2;
  }
  if (openapi) {
    auto_json *doc = api_openapi("0");
    auto_free char *text = json_text(doc);
    str_addz(&out, text);
    str_addc(&out, '\n');
  } else {
    api_markdown(&out);
  }
  if (str_failed(&out))
    return 1;
  if (checks)
    return check(argv[2], str_slice(&out));
  return fwrite(out.p, 1, out.n, stdout) == out.n && fflush(stdout) == 0 ? 0 : 1;
}
