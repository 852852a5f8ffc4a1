/* What operations on tasks mean for who depends on whom: the same for every back end. */
#include "store/source.h"
#include <stdio.h>

size_t edge_edits_of(const struct task_def *defs, const int64_t *ids, size_t count, const char *list,
                     struct edge_edit *ret) {
  size_t n = 0;
  for (size_t i = 0; i < count; i++) {
    if (!defs[i].depends)
      continue;
    struct edge_edit *d = &ret[n++];
    *d = (struct edge_edit){.task_id = ids[i], .ns = defs[i].ns, .depends = defs[i].depends};
    if (*list || count > 1)
      (void)snprintf(d->at, sizeof d->at, "%s/%zu", list, i);
  }
  return n;
}

bool edge_edit_of(const struct st_task_change *in, struct slice ns, struct slice name, bool had,
                  struct edge_edit *ret) {
  bool renamed = in->def && !slice_eq(in->def->name, name), deleted = in->state == TASK_DELETED;
  const struct depend_def *depends = in->def && !deleted ? in->def->depends : NULL;
  if (!renamed && !deleted && !(in->def && (had || depends)))
    return false;
  *ret = (struct edge_edit){.task_id = in->task_id,
                            .ns = ns,
                            .depends = depends,
                            .goes = renamed || deleted,
                            .renamed = renamed && !deleted};
  return true;
}

int edge_edit_refused(const struct edge_edit *d, struct slice child, struct err *e) {
  (void)err_set(e, ERR_CONFLICT, "the task %.*s depends on it", SLICE_FMT(child));
  if (e)
    (void)snprintf(e->field, sizeof e->field, "%s%s", d->at, d->renamed ? "/name" : "");
  return ERR_CONFLICT;
}

int edge_edit_at(const struct edge_edit *d, int32_t place, int code, struct err *e) {
  if (e && place < 0)
    (void)snprintf(e->field, sizeof e->field, "%s/depends_on", d->at);
  else if (e)
    (void)snprintf(e->field, sizeof e->field, "%s/depends_on/tasks/%d", d->at, (int)place);
  return code;
}
