#pragma once
/* What changed, for people: answers of /apply and of a task's history. */
#include "base/json.h"
#include "base/str.h"

/* "    /priority: 5 → 9", a line for each of a list of differences. */
void changes_add_differences(struct str *out, const json_t *differences);
struct changes_look {
  bool details, all, colour; /* the differences; what is unchanged, too */
};
/* "~ task default/a (version 1 → 2)", a line for each item of an answer of /apply. */
void changes_add(struct str *out, const json_t *items, const struct changes_look *look);
/* "1 created, 0 changed, …", counted over the items. */
void changes_count(struct str *out, const json_t *items);
/* How many of the items are not "unchanged". */
size_t changes_pending(const json_t *items);
