/* Runs a fuzz target over files and folders without libFuzzer, so that any compiler and any sanitizer can: each input, each of its
 * heads, and copies with one byte changed. Prints how many inputs that were. */
#include "base/mem.h"
#include "base/str.h"
#include "fuzz.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define FILE_BYTES_MAX ((size_t)1024 * 1024)
#define VARIED_BYTES   2048 /* longer inputs are taken as they are, and in a few heads */
#define HEADS          128

static size_t inputs;

/* Memory of exactly this size, so that a sanitizer sees the first byte too far. */
static void one(const char *p, size_t n) {
  uint8_t *copy = mem_alloc(n);
  if (n)
    memcpy(copy, p, n);
  (void)LLVMFuzzerTestOneInput(copy, n);
  mem_free(copy);
  inputs++;
}

static void vary(char *p, size_t n) {
  static const char changes[] = {0, '\n', '"', '9', '-', '*', (char)0x7f, (char)0xff};
  one(p, n);
  size_t step = n / HEADS + 1;
  for (size_t i = 0; i < n; i += step)
    one(p, i);
  for (size_t i = 0; n <= VARIED_BYTES && i < n; i += step) {
    char was = p[i];
    p[i] = changes[i % sizeof changes];
    one(p, n);
    p[i] = was;
  }
}

static void replay_file(const char *path) {
  FILE *f = fopen(path, "rb");
  if (!f) {
    perror(path);
    exit(1);
  }
  char *p = mem_alloc(FILE_BYTES_MAX);
  size_t n = fread(p, 1, FILE_BYTES_MAX, f);
  (void)fclose(f);
  vary(p, n);
  mem_free(p);
}

static void replay(const char *path) {
  struct stat st;
  struct dirent **list;
  if (stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
    replay_file(path);
    return;
  }
  int n = scandir(path, &list, NULL, alphasort);
  if (n < 0) {
    perror(path);
    exit(1);
  }
  for (int i = 0; i < n; i++) {
    char *below = NULL;
    if (list[i]->d_name[0] != '.' && asprintf(&below, "%s/%s", path, list[i]->d_name) > 0)
      replay_file(below);
    free(below);
    free(list[i]);
  }
  free(list);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++)
    replay(argv[i]);
  printf("%zu inputs\n", inputs);
  return inputs ? 0 : 1;
}
