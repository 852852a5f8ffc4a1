#include "sim_db.h"
#include <stdlib.h>

/* The database: who depends on whom, the ends of parents, turns. The edges of one child stand together, in the order of its list. */

struct draft { /* the edges as they would be */
  struct depend_edge *p;
  size_t n, cap;
  const struct st_task_put *put; /* tasks that this call makes, numbered on from db->last_task; NULL: none */
};

static int64_t id_of(struct sim_db *db, const struct draft *d, struct slice ns, struct slice name) {
  for (size_t i = 0; d->put && i < d->put->count; i++)
    if (slice_eq(d->put->defs[i].name, name) && slice_eq(d->put->defs[i].ns, ns))
      return db->last_task + 1 + (int64_t)i;
  return db_task_named(db, ns, name);
}

static struct slice name_of(struct sim_db *db, const struct draft *d, int64_t id) {
  const struct db_task *t = sim_db_task(db, id);
  return t ? t->versions[t->count - 1].v.name : d->put->defs[id - db->last_task - 1].name;
}

static const struct depend_edge *edge_of(const struct sim_db *db, int64_t child, int64_t parent) {
  for (size_t i = 0; i < db->edge_count; i++)
    if (db->edges[i].child == child && db->edges[i].parent == parent)
      return &db->edges[i];
  return NULL;
}

static void add_edge(struct draft *d, const struct depend_edge *e) {
  mem_reserve(d->p, d->n, d->cap);
  d->p[d->n++] = *e;
}

static int add_edges(struct sim_db *db, struct draft *d, const struct edge_edit *edit, struct err *e) {
  const struct depend_def *def = edit->depends;
  for (size_t k = 0; def && k < def->count; k++) {
    int64_t parent = id_of(db, d, edit->ns, def->tasks[k]);
    if (!parent)
      return edge_edit_at(edit, (int32_t)k, err_set(e, ERR_INVALID, "there is no such task"), e);
    const struct depend_edge *old = edge_of(db, edit->task_id, parent);
    struct depend_edge fresh = {.since = db->depend_turn + 1};
    if (old)
      fresh = *old;
    if (old && (old->mode != def->mode || old->ends != def->ends))
      fresh.kept = 0;
    fresh.child = edit->task_id;
    fresh.parent = parent;
    fresh.child_shard = shard_of_task(edit->task_id, db->shard_count);
    fresh.mode = def->mode;
    fresh.ends = def->ends;
    add_edge(d, &fresh);
  }
  return 0;
}

/* At which place of which list does the edge stand? */
static int blame(struct sim_db *db, const struct draft *d, const struct edge_edit *edits, size_t count,
                 const struct depend_link *l, struct err *e) {
  for (size_t i = 0; i < count; i++) {
    if (edits[i].task_id != l->child)
      continue;
    for (size_t k = 0; edits[i].depends && k < edits[i].depends->count; k++)
      if (id_of(db, d, edits[i].ns, edits[i].depends->tasks[k]) == l->parent)
        return edge_edit_at(&edits[i], (int32_t)k, ERR_INVALID, e);
    return edge_edit_at(&edits[i], -1, ERR_INVALID, e);
  }
  return ERR_INVALID;
}

static int check_graph(struct sim_db *db, const struct draft *d, const struct edge_edit *edits, size_t count,
                       struct arena *mem, struct err *e) {
  struct depend_link *links = arena_array(mem, d->n + 1, sizeof *links), bad;
  int64_t *changed = arena_array(mem, count, sizeof *changed);
  for (size_t i = 0; i < d->n; i++)
    links[i] = (struct depend_link){d->p[i].child, d->p[i].parent, name_of(db, d, d->p[i].child),
                                    name_of(db, d, d->p[i].parent)};
  for (size_t i = 0; i < count; i++)
    changed[i] = edits[i].task_id;
  int r = depend_check(links, d->n, changed, count, &bad, e);
  return r < 0 ? blame(db, d, edits, count, &bad, e) : 0;
}

static int check_numbers(struct sim_db *db, const struct draft *d, const struct edge_edit *edit,
                         struct err *e) {
  for (size_t k = 0; edit->depends && k < edit->depends->count; k++) {
    int64_t parent = id_of(db, d, edit->ns, edit->depends->tasks[k]), n = 0;
    for (size_t i = 0; i < d->n; i++)
      n += d->p[i].parent == parent;
    if (n > DEPEND_CHILDREN_MAX)
      return edge_edit_at(edit, (int32_t)k, err_set(e, ERR_INVALID, "too many depend on it"), e);
  }
  for (size_t i = 0; edit->goes && i < d->n; i++)
    if (d->p[i].parent == edit->task_id)
      return edge_edit_refused(edit, name_of(db, d, d->p[i].child), e);
  return 0;
}

int db_edit_edges(struct sim_db *db, const struct edge_edit *edits, size_t count,
                  const struct st_task_put *put, struct arena *mem, struct err *e) {
  struct draft d = {.put = put};
  int r = 0;
  if (!count)
    return 0;
  for (size_t i = 0; i < db->edge_count; i++) {
    bool edited = false;
    for (size_t k = 0; k < count; k++)
      edited = edited || edits[k].task_id == db->edges[i].child;
    if (!edited)
      add_edge(&d, &db->edges[i]);
  }
  for (size_t i = 0; r == 0 && i < count; i++)
    r = add_edges(db, &d, &edits[i], e);
  if (r == 0)
    r = check_graph(db, &d, edits, count, mem, e);
  for (size_t i = 0; r == 0 && i < count; i++)
    r = check_numbers(db, &d, &edits[i], e);
  if (r < 0) {
    mem_free(d.p);
    return r;
  }
  mem_free(db->edges);
  db->edges = d.p;
  db->edge_count = d.n;
  db->depend_turn++;
  return 0;
}

bool db_has_parents(const struct sim_db *db, int64_t task_id) {
  for (size_t i = 0; i < db->edge_count; i++)
    if (db->edges[i].child == task_id)
      return true;
  return false;
}

bool db_note_end(struct sim_db *db, const struct run_row *r) {
  bool parent = false;
  for (size_t i = 0; i < db->edge_count; i++)
    parent = parent || db->edges[i].parent == r->key.task_id;
  if (!parent || r->state == RUN_SKIPPED)
    return false;
  mem_reserve(db->events, db->event_count, db->event_cap);
  db->events[db->event_count++] = (struct depend_event){.no = ++db->last_event,
                                                        .turn = db->depend_turn,
                                                        .key = r->key,
                                                        .state = r->state,
                                                        .finished_at = r->finished_at};
  mem_reserve(db->ends, db->end_count, db->end_cap);
  db->ends[db->end_count++] = db->events[db->event_count - 1];
  return true;
}

/* ------------------------------------------------------------------ turns */
static int by_id(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

static void add_list(struct sim_db *db, int64_t child, struct st_dependency_read_ret *ret) {
  const struct db_task *t = sim_db_task(db, child);
  for (size_t i = 0; i < db->edge_count; i++) {
    if (db->edges[i].child != child)
      continue;
    struct depend_edge *e = &ret->edges[ret->edge_count++];
    *e = db->edges[i];
    e->enabled = t->state == TASK_ENABLED;
    e->version = t->versions[t->count - 1].v.version;
    e->parent_name = name_of(db, NULL, e->parent);
  }
}

int db_dependency_read(struct store *s, const struct st_dependency_read *in,
                       struct st_dependency_read_ret *ret, struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  size_t n = db->event_count < (size_t)in->limit ? db->event_count : (size_t)in->limit, children = 0;
  int64_t *ids = arena_array(mem, db->edge_count + 1, sizeof *ids);
  (void)e;
  *ret = (struct st_dependency_read_ret){.turn = db->depend_turn,
                                         .events = arena_array(mem, n + 1, sizeof *ret->events),
                                         .event_count = n,
                                         .edges = arena_array(mem, db->edge_count + 1, sizeof *ret->edges)};
  if (n)
    memcpy(ret->events, db->events, n * sizeof *ret->events);
  for (size_t i = 0; i < db->edge_count; i++) {
    bool concerned = false;
    for (size_t k = 0; k < n; k++)
      concerned = concerned || db->events[k].key.task_id == db->edges[i].parent;
    if (concerned)
      ids[children++] = db->edges[i].child;
  }
  qsort(ids, children, sizeof *ids, by_id);
  for (size_t i = 0; i < children; i++)
    if (i == 0 || ids[i] != ids[i - 1])
      add_list(db, ids[i], ret);
  return 0;
}

static void drop_event(struct sim_db *db, int64_t no) {
  for (size_t i = 0; i < db->event_count; i++)
    if (db->events[i].no == no) {
      memmove(&db->events[i], &db->events[i + 1], (--db->event_count - i) * sizeof *db->events);
      return;
    }
}

int db_dependency_apply(struct store *s, const struct st_dependency_apply *in,
                        struct st_dependency_apply_ret *ret, struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)ret, (void)mem;
  if (in->turn != db->depend_turn && !db->removed[GUARD_TURN])
    return err_set(e, ERR_CONFLICT, "another turn, or an edit, came first");
  db->depend_turn++;
  for (size_t i = 0; i < in->done_count; i++)
    drop_event(db, in->done[i]);
  for (size_t i = 0; i < db->event_count; i++)
    if (db->events[i].no == in->partly)
      db->events[i].after = in->after;
  for (size_t i = 0; i < in->kept_count; i++)
    for (size_t k = 0; k < db->edge_count; k++)
      if (db->edges[k].child == in->kept[i].child && db->edges[k].parent == in->kept[i].parent) {
        db->edges[k].kept = in->kept[i].kept;
        db->edges[k].key = in->kept[i].key;
        db->edges[k].state = in->kept[i].state;
        db->edges[k].finished_at = in->kept[i].finished_at;
      }
  for (size_t i = 0; i < in->inbox_count; i++)
    (void)db_inbox_append(db, in->inbox[i].shard, in->inbox[i].kind, in->inbox[i].body);
  return 0;
}
