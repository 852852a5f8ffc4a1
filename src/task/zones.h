#pragma once
/* The driver of core/zone_set.h that reads the system's zone files. For every thread that keeps a zone set of its own. */
#include "core/zone_set.h"

/* `dir` ("/usr/share/zoneinfo") is borrowed and must outlive the set. */
struct zone_set *zones_open(const char *dir);
