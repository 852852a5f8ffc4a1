#include "server/settings.h"

static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const log_formats[] = {"logfmt", "json", NULL};

const struct conf_item settings[] = {
#define SET(name, type, text, min, max, names, flags, help) {name, type, text, min, max, names, flags, help},
#include "server/settings.def"
#undef SET
};
const size_t settings_count = sizeof settings / sizeof settings[0];
const char *const settings_env_ignore[] = {
    "KELOU_FAILPOINTS",  "KELOU_SERVER",  "KELOU_TOKEN", "KELOU_TOKEN_FILE", "KELOU_CONFIG",
    "KELOU_TEST_PG_URL", "KELOU_CA_FILE", "KELOU_LANG",  "KELOU_BUILD",      NULL};
