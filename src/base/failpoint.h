#pragma once
/* Named places where a test build can crash, fail or wait. Compiled to nothing unless -Dfailpoints=true.
 * KELOU_FAILPOINTS="fire.before_commit=crash:3,report.after_commit=sleep:1:200ms,db.finish=error:2"
 * (name=action:nth[:argument]; nth = 0: every time). */
#include <stdbool.h>
#ifdef KELOU_FAILPOINTS
/* true: the caller shall fail here. May _exit(137) or sleep by itself. Thread-safe. */
bool failpoint(const char *name);
#else
static inline bool failpoint(const char *name) {
  (void)name;
  return false;
}
#endif
