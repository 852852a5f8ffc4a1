#pragma once
/* The settings of keloud (settings.def) as base/conf.h wants them. */
#include "base/conf.h"

extern const struct conf_item settings[];
extern const size_t settings_count;
/* KELOU_* variables that are no settings. */
extern const char *const settings_env_ignore[];
