#pragma once
/* kelou cron next|explain: schedules without a server. */
#include "base/str.h"
#include <stdio.h>

/* argv[0] = "cron". Returns the exit code (docs/semantics.md, "API, CLI"); data on stdout, all else on
 * stderr. */
int cli_cron(int argc, char **argv);
