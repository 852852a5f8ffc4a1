#pragma once
/* What makes YAML dangerous or surprising, and no document of ours needs. Internal to base: conf_yaml.c and yaml_doc.c. */
#include <yaml.h>

/* Why the event is refused, a static text; NULL when it is fine. */
const char *yaml_refused(const yaml_event_t *ev);
