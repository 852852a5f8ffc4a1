#pragma once
/* The zones of this machine for the commands that work without a server. */
#include "core/zone_set.h"

#define CLI_ZONEINFO_DEFAULT "/usr/share/zoneinfo"

/* A set over the files below `dir`, which must live as long as the set. Free with zone_set_free. */
struct zone_set *cli_zones_new(const char *dir);
