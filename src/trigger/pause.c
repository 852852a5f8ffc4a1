#include "trigger/internal.h"
#include "base/log.h"
#include "base/mem.h"

/* A catch-up on request is about the version that resumed the task and what passed in the pause before it. By the time it is looked at the
 * shard may have forgotten these versions, or never have loaded them: they are read from the database. */

enum { PAGE = 100, VERSIONS_MAX = 10000 };

struct pause {
  const struct fire_request *r;
  struct shard_version *versions; /* newest first, from the resumed one back */
  size_t count, cap;
  int32_t first; /* the version that began the pause */
  usec_t since;  /* all that ruled after it must be known */
};

/* True: this is as far back as is needed. */
static bool take_one(struct engine *g, struct pause *p, const struct task_version_row *row) {
  mem_reserve(p->versions, p->count, p->cap);
  struct shard_version *v = &p->versions[p->count++];
  engine_take_version(g, row, v);
  usec_t since = shard_needs_since(v, p->r->from);
  p->since = since < p->since ? since : p->since;
  if (row->state == TASK_PAUSED && row->version == p->first - 1)
    p->first = row->version;
  return row->version == 1 || row->effective_at <= p->since;
}

static int read_versions(struct engine *g, struct pause *p, struct err *e) {
  struct st_task_versions in = {.task_id = p->r->key.task_id, .before = p->first + 1, .limit = PAGE};
  while (p->count < VERSIONS_MAX) {
    auto_arena mem = {0};
    struct st_task_versions_ret ret;
    int rc = store_task_versions(g->o.api, &in, &ret, &mem, e);
    if (rc < 0)
      return rc;
    for (size_t i = 0; i < ret.count; i++)
      if (take_one(g, p, &ret.versions[i].v))
        return 0;
    if (ret.count < PAGE)
      return 0;
    in.before = ret.versions[ret.count - 1].v.version;
  }
  return err_set(e, ERR_TOO_LARGE, "more than %d versions since the pause began", VERSIONS_MAX);
}

bool engine_begin_catch_up(struct engine *g, struct owned_shard *w, const struct fire_request *r) {
  struct pause p = {.r = r, .first = r->version, .since = USEC_NEVER};
  struct err e = {0};
  int rc = read_versions(g, &p, &e);
  if (rc < 0)
    log_warn("versions of a pause not read", LF_I("task", r->key.task_id), LF_E(&e));
  for (size_t i = 0; i < p.count; i++) { /* half of them would be worse than none */
    if (rc < 0)
      task_spec_unref(&p.versions[i].spec);
    else
      shard_put(w->shard, &p.versions[i]);
  }
  mem_free(p.versions);
  bool deleted = r->version && !p.count; /* just now: it waits until the shard knows, and comes to nothing */
  if (deleted || (rc < 0 && rc != ERR_TOO_LARGE))
    return false;
  shard_begin_catch_up(w->shard, r, rc < 0 ? 0 : p.first);
  return true;
}
