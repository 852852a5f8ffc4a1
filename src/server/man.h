#pragma once
/* Manual pages from the table of settings: "5" kelou.yaml(5), "8" keloud(8). */
#include "base/str.h"

/* roff; -EINVAL: there is no such section. */
int man_page(const char *section, const char *version, struct str *out);
