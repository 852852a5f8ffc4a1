/* Prints what docs/cli.md has below its mark; with --check FILE says whether the file is up to date. With --man kelou(1), with
 * --completion the completion of a shell. */
#include "base/file.h"
#include "cli/commands.h"
#include <stdio.h>

#define MARK "<!-- From here on: kelou-cli-doc, from src/cli/commands.def -->\n"

static int check(const char *path, struct slice want) {
  struct err e = {0};
  auto_str got;
  str_init(&got, HELP_MAX);
  if (file_read(path, HELP_MAX, &got, &e) < 0) {
    (void)fprintf(stderr, "%s\n", e.text);
    return 1;
  }
  const char *mark = strstr(got.p, MARK);
  if (mark && slice_eq(slice_of(mark), want))
    return 0;
  (void)fprintf(stderr,
                "%s: below the mark it is not what the tables say: write it anew with kelou-cli-doc\n", path);
  return 1;
}

int main(int argc, char **argv) {
  auto_str out;
  str_init(&out, HELP_MAX);
  if (argc == 2 && strcmp(argv[1], "--man") == 0) {
    help_man(&out);
    return print_out(&out);
  }
  if (argc == 3 && strcmp(argv[1], "--completion") == 0) {
    completion_add(&out, argv[2]);
    return print_out(&out);
  }
  str_addz(&out, MARK);
  help_markdown(&out);
  if (str_failed(&out))
    return 1;
  if (argc == 3 && strcmp(argv[1], "--check") == 0)
    return check(argv[2], str_slice(&out));
  if (argc == 1)
    return print_out(&out);
  (void)fputs("usage: kelou-cli-doc [--check FILE | --man | --completion bash|zsh|fish]\n", stderr);
  return EXIT_USAGE;
}
