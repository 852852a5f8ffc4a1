#pragma once
/* Calendars. Part of store.h, which is the contract of all operations; owner src/task.
 *
 * Which calendar a task uses, and which version of it, is read from its definition (core/task_spec.h): a task that is not DELETED holds
 * its calendar, which cannot be deleted then, and a task whose calendar is not there is refused (ERR_CONFLICT). */
#include "store/rows.h"

struct calendar_row {
  struct slice ns, name, definition, updated_by;
  int32_t version;
  int64_t tasks; /* that use it */
  usec_t created_at, updated_at;
};
/* expected_version 0: create (ERR_CONFLICT when it exists); else change that version (ERR_STALE). ns, name, definition and updated_by
 * of `calendar` are looked at. */
struct st_calendar_put {
  struct calendar_row calendar;
  int32_t expected_version;
};
struct st_calendar_put_ret {
  struct calendar_row calendar;
};
struct st_calendar_get {
  struct slice ns, name;
};
struct st_calendar_get_ret {
  struct calendar_row calendar;
};
/* By namespace and name. */
struct st_calendar_list {
  struct slice ns; /* empty = all */
};
struct st_calendar_list_ret {
  struct calendar_row *rows;
  size_t count;
};
/* ERR_CONFLICT while a task uses it. */
struct st_calendar_delete {
  struct slice ns, name;
};
struct st_calendar_delete_ret {
  char unused;
};
/* Some tasks, ENABLED or PAUSED, whose definition has an earlier version of their calendar than there is. */
struct st_calendar_behind {
  int32_t limit;
};
struct st_calendar_behind_ret {
  int64_t *task_ids;
  size_t count;
};
