#include "cli/commands.h"
#include "cli/words.h"

int version_tool(int argc, char **argv, const struct invocation *given) {
  (void)given; /* nothing of it matters */
  if (argc > 1) {
    words_complain(SAY_too_many, argv[1], NULL);
    return EXIT_USAGE;
  }
  auto_str out;
  str_init(&out, 64);
  str_addz(&out, "kelou " KELOU_VERSION "\n");
  return print_out(&out);
}
