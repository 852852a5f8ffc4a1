#pragma once
/* A report, a claim, or the cancel of one run, as a JSON document: how one node tells it to another, over the peer link and in the inbox. Pure.
 * {run_id, event, attempt, executor?, incarnation?, namespace?, group?, started_at?, finished_at?, result?, error_type?, error_message?,
 * error_detail?, progress?}; instants are µs numbers, all texts as they came. */
#include "base/json.h"
#include "base/mem.h"
#include "core/live.h"

/* Only what has a word may be told to another node: RUNNING, SUCCESS, FAIL, CANCELLED (reports), CANCEL and CLAIM. */
bool event_may_travel(const struct live_event *ev);
/* Append it. `token` and `fence` stay at home. */
void event_print(const struct live_event *ev, struct str *out);
/* Texts in `mem`. ERR_INVALID, ERR_MISSING: errors name the field. */
int event_parse(const json_t *doc, struct arena *mem, struct live_event *ret, struct err *e);
