#include "base/json.h"
#include "cli/commands.h"
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  struct invocation given;
  json_use_mem();
  if (argc > 1 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0))
    return version_tool(argc - 1, argv + 1, NULL);
  int code = command_read(argc, argv, &given);
  if (code >= 0)
    return code;
  if (given.help)
    return help_show(given.noun && given.noun->tool ? NULL : given.noun, given.verb);
  if (!given.noun) {
    auto_str help;
    str_init(&help, HELP_MAX);
    help_add(&help, NULL, NULL);
    (void)fputs(help.p, stderr); /* there is nowhere else to say it */
    return EXIT_USAGE;
  }
  return given.noun->tool ? given.noun->tool(given.rest_argc, given.rest_argv, &given)
                          : given.verb->run(&given);
}
