#pragma once
/* What keloud does without starting, each on standard output; they return the exit code. */
#include "base/conf.h"

int tool_man(const char *section, const char *version);
/* `conf` NULL: it could not be read, `errors` says why. `lang` NULL: as the environment says. */
int tool_doctor(const struct conf *conf, const struct conf_errors *errors, const char *lang);
