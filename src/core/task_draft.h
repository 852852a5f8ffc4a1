#pragma once
/* Private to core/task_*.c: a task document taken apart, before it is checked as a whole. */
#include "core/task_fields.h"
#include "core/task_spec.h"

struct task_draft {
  struct task_spec s;                                 /* numbers and enums only */
  struct slice name, description, ns, group, handler; /* borrowed from the document */
  struct slice routing_key, executor;
  const json_t *executor_labels; /* NULL: any executor */
  struct slice expression, timezone, run_at, calendar;
  const json_t *parents; /* array of names, borrowed; NULL: it depends on no task */
  enum cron_dialect dialect;
  struct dst_rule dst;
  usec_t jitter, anchor;
  enum dst_note run_at_note;
};

/* Fill with the defaults. */
void task_draft_defaults(struct task_draft *d);
/* Read one section of a document; with `canonical` (an object, may be NULL) each value that is there is added to it in its one
 * normal form. Fields that do not belong to d->s.kind are refused; required ones asked for. Unknown ones: see task_doc_known. */
int task_section_read(enum task_section section, const json_t *object, struct task_draft *d,
                      json_t *canonical, struct err *e);
/* Which fields go into the stored definition (all but those that differ from task to task). */
bool task_field_defines(const struct task_field *f);
/* Refuse keys that are not fields of the section. Server-made fields at top level are accepted only in a whole document as the
 * server prints it (`id`, `version` and `state` are all there), and ignored. */
int task_doc_known(enum task_section section, const json_t *object, struct err *e);
