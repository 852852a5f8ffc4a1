/* After-tasks: who depends on whom, the ends of parents, the turns that make runs of them. */
#include "store/sqlite/sqlite.h"
#include <stdlib.h>

_Static_assert(TASK_ENABLED == 0 && TASK_DELETED == 3, "numbers in sql.def");

/* ------------------------------------------------------------------ who is a parent */
static int by_number(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

int sqlite_parents_read(struct sqlite_tx *tx) {
  struct sqlite_source *src = tx->session->source;
  if (src->parents_known)
    return 0;
  src->parent_count = 0;
  int r = db_query(tx->db, SQL_DEPEND_PARENTS, tx->e, "");
  while (r >= 0 && (r = db_step(tx->db, SQL_DEPEND_PARENTS, tx->e)) > 0) {
    mem_reserve(src->parents, src->parent_count, src->parent_cap);
    db_get(tx->db, SQL_DEPEND_PARENTS, NULL, "l", &src->parents[src->parent_count++]);
  }
  src->parents_known = r >= 0;
  return r;
}

bool sqlite_is_parent(const struct sqlite_tx *tx, int64_t task_id) {
  const struct sqlite_source *src = tx->session->source;
  return src->parent_count &&
         bsearch(&task_id, src->parents, src->parent_count, sizeof *src->parents, by_number);
}

/* ------------------------------------------------------------------ edits */
static struct slice id_list(struct arena *mem, const int64_t *ids, size_t count) {
  auto_str s;
  str_init(&s, SIZE_MAX - 1);
  str_addc(&s, '[');
  for (size_t i = 0; i < count; i++)
    str_addf(&s, "%s%lld", i ? "," : "", (long long)ids[i]);
  str_addc(&s, ']');
  return arena_slice(mem, str_slice(&s));
}

/* Its parents by name, in the order of its list. */
static int find_parents(struct sqlite_tx *tx, const struct edge_edit *d, int64_t *ret) {
  for (size_t k = 0; k < d->depends->count; k++) {
    struct slice name = d->depends->tasks[k];
    int r = db_first(tx->db, SQL_TASK_BY_NAME, tx->e, "ss", d->ns, name);
    if (r < 0)
      return r;
    if (r == 0)
      return edge_edit_at(d, (int32_t)k,
                          err_set(tx->e, ERR_INVALID, "there is no task \"%.*s\" in the namespace %.*s",
                                  SLICE_FMT(name), SLICE_FMT(d->ns)),
                          tx->e);
    db_get(tx->db, SQL_TASK_BY_NAME, NULL, "l", &ret[k]);
  }
  return 0;
}

static int write_edges(struct sqlite_tx *tx, const struct edge_edit *d, const int64_t *parents,
                       int64_t since) {
  size_t n = d->depends ? d->depends->count : 0;
  int r = db_run(tx->db, SQL_DEPEND_GONE, tx->e, "ls", d->task_id, id_list(tx->mem, parents, n));
  for (size_t k = 0; r >= 0 && k < n; k++)
    r = db_run(tx->db, SQL_DEPEND_PUT, tx->e, "llliiiii", d->task_id, parents[k], since,
               sqlite_shard_of(tx, d->task_id), sqlite_shard_of(tx, parents[k]), (int)k, d->depends->mode,
               d->depends->ends);
  return r < 0 ? r : 0;
}

static int blame(const struct edge_edit *edits, int64_t *const *parents, size_t count,
                 const struct depend_link *l, struct err *e) {
  for (size_t i = 0; i < count; i++) {
    if (edits[i].task_id != l->child)
      continue;
    for (size_t k = 0; edits[i].depends && k < edits[i].depends->count; k++)
      if (parents[i][k] == l->parent)
        return edge_edit_at(&edits[i], (int32_t)k, ERR_INVALID, e);
    return edge_edit_at(&edits[i], -1, ERR_INVALID, e);
  }
  return ERR_INVALID;
}

static int check_graph(struct sqlite_tx *tx, const struct edge_edit *edits, int64_t *const *parents,
                       size_t count) {
  int64_t *changed = arena_array(tx->mem, count, sizeof *changed);
  struct depend_link *links = NULL, bad;
  size_t n = 0, cap = 0;
  for (size_t i = 0; i < count; i++)
    changed[i] = edits[i].task_id;
  int r = db_query(tx->db, SQL_DEPEND_LINKS, tx->e, "s", id_list(tx->mem, changed, count));
  while (r >= 0 && (r = db_step(tx->db, SQL_DEPEND_LINKS, tx->e)) > 0) {
    struct depend_link *l = sqlite_push(tx->mem, links, n, cap);
    db_get(tx->db, SQL_DEPEND_LINKS, tx->mem, "llss", &l->child, &l->parent, &l->child_name, &l->parent_name);
  }
  if (r >= 0 && (r = depend_check(links, n, changed, count, &bad, tx->e)) < 0)
    r = blame(edits, parents, count, &bad, tx->e);
  return r;
}

static int check_children(struct sqlite_tx *tx, const struct edge_edit *d, const int64_t *parents) {
  for (size_t k = 0; d->depends && k < d->depends->count; k++) {
    int64_t children = 0;
    int r = db_first(tx->db, SQL_DEPEND_CHILDREN, tx->e, "l", parents[k]);
    if (r < 0)
      return r;
    db_get(tx->db, SQL_DEPEND_CHILDREN, NULL, "l", &children);
    if (children > DEPEND_CHILDREN_MAX)
      return edge_edit_at(
          d, (int32_t)k,
          err_set(tx->e, ERR_INVALID, "at most %d tasks may depend on one", DEPEND_CHILDREN_MAX), tx->e);
  }
  return 0;
}

static int check_going(struct sqlite_tx *tx, const struct edge_edit *d) {
  struct slice child;
  int r = d->goes ? db_first(tx->db, SQL_DEPEND_GOING, tx->e, "l", d->task_id) : 0;
  if (r <= 0)
    return r;
  db_get(tx->db, SQL_DEPEND_GOING, tx->mem, "s", &child);
  return edge_edit_refused(d, child, tx->e);
}

int sqlite_edit_edges(struct sqlite_tx *tx, const struct edge_edit *edits, size_t count) {
  int64_t since = 0, **parents = arena_array(tx->mem, count + 1, sizeof *parents);
  if (!count)
    return 0;
  tx->session->source->parents_known = false;
  int r = db_first(tx->db, SQL_DEPEND_RAISE, tx->e, "");
  if (r > 0)
    db_get(tx->db, SQL_DEPEND_RAISE, NULL, "l", &since);
  for (size_t i = 0; r >= 0 && i < count; i++) {
    parents[i] = arena_array(tx->mem, DEPEND_PARENTS_MAX, sizeof **parents);
    r = edits[i].depends ? find_parents(tx, &edits[i], parents[i]) : 0;
    if (r >= 0)
      r = write_edges(tx, &edits[i], parents[i], since);
  }
  if (r >= 0)
    r = check_graph(tx, edits, parents, count);
  for (size_t i = 0; r >= 0 && i < count; i++)
    if ((r = check_children(tx, &edits[i], parents[i])) == 0)
      r = check_going(tx, &edits[i]);
  return r < 0 ? r : 0;
}

/* ------------------------------------------------------------------ a turn */
static int read_edges(struct sqlite_tx *tx, struct st_dependency_read_ret *out) {
  int64_t *parents = arena_array(tx->mem, out->event_count, sizeof *parents);
  size_t cap = 0;
  for (size_t i = 0; i < out->event_count; i++)
    parents[i] = out->events[i].key.task_id;
  int r = db_query(tx->db, SQL_DEPEND_EDGES, tx->e, "s", id_list(tx->mem, parents, out->event_count));
  while (r >= 0 && (r = db_step(tx->db, SQL_DEPEND_EDGES, tx->e)) > 0) {
    struct depend_edge *d = sqlite_push(tx->mem, out->edges, out->edge_count, cap);
    db_get(tx->db, SQL_DEPEND_EDGES, tx->mem, "llliiililililibs", &d->child, &d->parent, &d->since,
           &d->child_shard, &d->mode, &d->ends, &d->kept, &d->key.shard, &d->key.scheduled_at, &d->key.part,
           &d->key.task_id, &d->state, &d->finished_at, &d->version, &d->enabled, &d->parent_name);
  }
  return r;
}

int sqlite_dependency_read(struct store *s, const struct st_dependency_read *in,
                           struct st_dependency_read_ret *ret, struct arena *mem, struct err *e) {
  struct st_dependency_read_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  if ((r = db_first(tx.db, SQL_DEPEND_TURN, e, "")) > 0)
    db_get(tx.db, SQL_DEPEND_TURN, NULL, "l", &out.turn);
  if (r >= 0)
    r = db_query(tx.db, SQL_DEPEND_EVENTS, e, "i", in->limit);
  while (r >= 0 && (r = db_step(tx.db, SQL_DEPEND_EVENTS, e)) > 0) {
    struct depend_event *v = sqlite_push(mem, out.events, out.event_count, cap);
    db_get(tx.db, SQL_DEPEND_EVENTS, NULL, "lllilliil", &v->no, &v->turn, &v->after, &v->key.shard,
           &v->key.scheduled_at, &v->key.task_id, &v->key.part, &v->state, &v->finished_at);
  }
  if (r >= 0 && out.event_count)
    r = read_edges(&tx, &out);
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

static int apply_turn(struct sqlite_tx *tx, const struct st_dependency_apply *in) {
  int r = db_run(tx->db, SQL_DEPEND_TAKE, tx->e, "l", in->turn);
  if (r == 0)
    return err_set(tx->e, ERR_CONFLICT, "another turn, or an edit of who depends on whom, came first");
  for (size_t i = 0; r >= 0 && i < in->done_count; i++)
    r = db_run(tx->db, SQL_DEPEND_DONE, tx->e, "l", in->done[i]);
  if (r >= 0 && in->partly)
    r = db_run(tx->db, SQL_DEPEND_PARTLY, tx->e, "ll", in->partly, in->after);
  for (size_t i = 0; r >= 0 && i < in->kept_count; i++) {
    const struct depend_edge *d = &in->kept[i];
    r = db_run(tx->db, SQL_DEPEND_KEEP, tx->e, "lllliil", d->child, d->parent, d->kept, d->key.scheduled_at,
               d->key.part, d->state, d->finished_at);
  }
  for (size_t i = 0; r >= 0 && i < in->inbox_count; i++) {
    int64_t no;
    r = sqlite_inbox_append(tx, &in->inbox[i], &no);
  }
  return r < 0 ? r : 0;
}

int sqlite_dependency_apply(struct store *s, const struct st_dependency_apply *in,
                            struct st_dependency_apply_ret *ret, struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  return r < 0 ? r : sqlite_write_end(&tx, apply_turn(&tx, in));
}
