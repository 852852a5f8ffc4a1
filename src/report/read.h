#pragma once
/* Private to src/report: what reports and claims have in common. */
#include "base/json.h"
#include "run/run.h"

/* run_id, attempt and fence of one entry of a list. */
int report_read_key(const json_t *doc, struct live_event *ev, struct err *e);
