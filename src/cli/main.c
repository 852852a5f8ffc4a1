#include "cli/cron.h"
#include <string.h>

/* The nouns: one file each. */
static const struct command {
  const char *name;
  int (*run)(int argc, char **argv); /* argv[0] = the noun; returns the exit code */
  const char *help;
} commands[] = {
    {"cron", cli_cron, "next instants of a cron expression and what it means; works without a server"},
};

#define EXIT_USAGE 2

static void usage(FILE *to) {
  (void)fputs("usage: kelou NOUN VERB …\n", to);
  for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
    (void)fprintf(to, "  %-10s %s\n", commands[i].name, commands[i].help);
}

int main(int argc, char **argv) {
  const char *noun = argc > 1 ? argv[1] : "";
  if (strcmp(noun, "--help") == 0 || strcmp(noun, "-h") == 0) {
    usage(stdout);
    return 0;
  }
  for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
    if (strcmp(noun, commands[i].name) == 0)
      return commands[i].run(argc - 1, argv + 1);
  if (noun[0])
    (void)fprintf(stderr, "kelou: there is no %s here\n", noun);
  usage(stderr);
  return EXIT_USAGE;
}
