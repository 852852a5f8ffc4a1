#include "sim_db.h"
#include <stdio.h>
#include <stdlib.h>

/* The database: tasks, their versions and changes, progress. */

struct db_task *sim_db_task(struct sim_db *db, int64_t task_id) {
  struct db_task *t;
  HASH_FIND(hh, db->tasks, &task_id, sizeof task_id, t);
  return t;
}

static struct db_version *current(struct db_task *t) { return &t->versions[t->count - 1]; }

static char *name_key(struct slice ns, struct slice name) {
  struct str s;
  str_init(&s, SIZE_MAX - 1);
  str_addf(&s, "%zu ", ns.n);
  str_add(&s, ns);
  str_add(&s, name);
  return str_take(&s);
}

static struct db_name *find_name(struct sim_db *db, struct slice ns, struct slice name) {
  auto_free char *key = name_key(ns, name);
  struct db_name *n;
  HASH_FIND_STR(db->names, key, n);
  return n;
}

int64_t db_task_named(struct sim_db *db, struct slice ns, struct slice name) {
  const struct db_name *n = find_name(db, ns, name);
  return n ? n->task_id : 0;
}

static void add_name(struct sim_db *db, struct slice ns, struct slice name, int64_t id) {
  struct db_name *n = mem_zalloc(sizeof *n);
  n->name = name_key(ns, name);
  n->task_id = id;
  HASH_ADD_KEYPTR(hh, db->names, n->name, strlen(n->name), n);
}

static void drop_name(struct sim_db *db, struct slice ns, struct slice name) {
  struct db_name *n = find_name(db, ns, name);
  HASH_DEL(db->names, n);
  mem_free(n->name);
  mem_free(n);
}

/* The texts of a definition, kept. */
static void take_def(struct sim_db *db, struct db_version *v, const struct task_def *d) {
  v->v.name = db_text(db, d->name);
  v->v.definition = db_text(db, d->definition);
  v->v.has_payload = d->payload.p != NULL;
  v->row.description = db_text(db, d->description);
  v->row.payload = db_text(db, d->payload);
  v->row.group = db_text(db, d->group);
  v->row.handler = db_text(db, d->handler);
  v->row.schedule_text = db_text(db, d->schedule_text);
  v->row.kind = d->kind;
}

static struct db_version *add_version(struct sim_db *db, struct db_task *t, const struct db_version *v) {
  struct db_shard *sh = &db->shards[t->shard];
  mem_reserve(t->versions, t->count, t->cap);
  t->versions[t->count++] = *v;
  mem_reserve(sh->changes, sh->change_count, sh->change_cap);
  sh->changes[sh->change_count++] = (struct db_change){v->v.change_no, t->id, v->v.version};
  t->state = v->v.state;
  db_written(db, t->id, v->v.effective_at);
  return &t->versions[t->count - 1];
}

static usec_t effective_from(struct sim_db *db, int32_t shard, usec_t former) {
  usec_t at = db->now(db->now_arg), fired = db->shards[shard].row.fired_at;
  if (at < fired && !db->removed[GUARD_EFFECTIVE_AT])
    at = fired;
  if (db->removed[GUARD_EFFECTIVE_AT])
    at -= 2 * USEC_PER_SEC; /* as if taken from the clock of whoever asked */
  return at > former ? at : former;
}

static struct task_version_row create(struct sim_db *db, const struct task_def *d, struct slice by,
                                      bool *raised) {
  struct db_task *t = mem_zalloc(sizeof *t);
  t->id = ++db->last_task;
  t->shard = shard_of_task(t->id, db->shard_count);
  t->created_at = db->now(db->now_arg);
  t->created_by = db_text(db, by);
  HASH_ADD(hh, db->tasks, id, sizeof t->id, t);
  add_name(db, d->ns, d->name, t->id);
  struct shard_row *sh = &db->shards[t->shard].row;
  if (!raised[t->shard])
    sh->tasks_version++;
  raised[t->shard] = true;
  struct db_version v = {.v = {.task_id = t->id,
                               .version = 1,
                               .shard = t->shard,
                               .change_no = sh->tasks_version,
                               .effective_at = effective_from(db, t->shard, 0),
                               .state = d->state}};
  v.v.anchor = d->anchor ? d->anchor : v.v.effective_at;
  take_def(db, &v, d);
  v.row.ns = db_text(db, d->ns);
  v.row.updated_by = t->created_by;
  v.row.updated_at = t->created_at;
  return add_version(db, t, &v)->v;
}

static int check_names(struct sim_db *db, const struct st_task_put *in, struct err *e) {
  for (size_t i = 0; i < in->count; i++) {
    bool used = find_name(db, in->defs[i].ns, in->defs[i].name) != NULL;
    for (size_t k = 0; k < i && in->count < 100; k++) /* large calls of the tests have distinct names */
      used =
          used || (slice_eq(in->defs[k].ns, in->defs[i].ns) && slice_eq(in->defs[k].name, in->defs[i].name));
    if (!used)
      continue;
    char field[32] = "/name";
    if (in->count > 1)
      (void)snprintf(field, sizeof field, "/%zu/name", i);
    return err_field(e, ERR_CONFLICT, field, "this name is in use");
  }
  return 0;
}

static int put_edges(struct sim_db *db, const struct st_task_put *in, struct arena *mem, struct err *e) {
  struct edge_edit *edits = arena_array(mem, in->count + 1, sizeof *edits);
  int64_t *ids = arena_array(mem, in->count + 1, sizeof *ids);
  for (size_t i = 0; i < in->count; i++)
    ids[i] = db->last_task + 1 + (int64_t)i;
  return db_edit_edges(db, edits, edge_edits_of(in->defs, ids, in->count, "", edits), in, mem, e);
}

int db_task_put(struct store *s, const struct st_task_put *in, struct st_task_put_ret *ret, struct arena *mem,
                struct err *e) {
  struct sim_db *db = db_of(s);
  struct db_idem *was;
  int rc = db_idem_find(db, in->idem, &was, e);
  if (rc < 0)
    return rc;
  struct task_version_row *rows = arena_array(mem, in->count, sizeof *rows);
  if (was) {
    rows[0] = sim_db_task(db, was->no)->versions[0].v;
    *ret = (struct st_task_put_ret){rows, 1};
    return 1;
  }
  if ((rc = check_names(db, in, e)) < 0 || (rc = put_edges(db, in, mem, e)) < 0)
    return rc;
  bool *raised = arena_array(mem, (size_t)db->shard_count, sizeof *raised);
  for (size_t i = 0; i < in->count; i++)
    rows[i] = create(db, &in->defs[i], in->by, raised);
  if (in->count == 1)
    db_idem_add(db, in->idem, rows[0].task_id, (struct slice){0});
  *ret = (struct st_task_put_ret){rows, in->count};
  return 0;
}

static bool has_open_runs(struct sim_db *db, const struct db_task *t) {
  for (struct db_run *r = db->shards[t->shard].open; r; r = r->next)
    if (r->key.task_id == t->id)
      return true;
  return false;
}

static int may_change(struct sim_db *db, struct db_task *t, const struct st_task_change *in, struct err *e) {
  if (!t || t->state == TASK_DELETED)
    return err_set(e, ERR_NOT_FOUND, "no such task");
  if (in->expected_version && in->expected_version != current(t)->v.version)
    return err_set(e, ERR_STALE, "the task has another version");
  if (in->state == TASK_DELETED && !in->even_with_open_runs && has_open_runs(db, t))
    return err_set(e, ERR_CONFLICT, "the task has open runs");
  const struct db_version *cur = current(t);
  if (in->def && !slice_eq(in->def->name, cur->v.name) && find_name(db, cur->row.ns, in->def->name))
    return err_field(e, ERR_CONFLICT, "/name", "this name is in use");
  return 0;
}

int db_task_change(struct store *s, const struct st_task_change *in, struct st_task_change_ret *ret,
                   struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  struct db_task *t = sim_db_task(db, in->task_id);
  int rc = may_change(db, t, in, e);
  if (rc < 0)
    return rc;
  struct db_version v = *current(t);
  struct edge_edit edit;
  if (!in->def && in->state == t->state) {
    ret->row = v.v;
    return 1;
  }
  if (edge_edit_of(in, v.row.ns, v.v.name, db_has_parents(db, t->id), &edit) &&
      (rc = db_edit_edges(db, &edit, 1, NULL, mem, e)) < 0)
    return rc;
  if (in->def && !slice_eq(in->def->name, v.v.name)) {
    drop_name(db, v.row.ns, v.v.name);
    add_name(db, v.row.ns, in->def->name, t->id);
  }
  if (in->def)
    take_def(db, &v, in->def);
  if (in->def && in->def->anchor)
    v.v.anchor = in->def->anchor;
  v.v.version++;
  v.v.change_no = ++db->shards[t->shard].row.tasks_version;
  v.v.effective_at = effective_from(db, t->shard, v.v.effective_at);
  v.v.state = in->state;
  v.row.updated_by = db_text(db, in->by);
  v.row.note = db_text(db, in->note);
  v.row.updated_at = db->now(db->now_arg);
  ret->row = add_version(db, t, &v)->v;
  if (in->state == TASK_DELETED)
    drop_name(db, v.row.ns, v.v.name);
  if (in->inbox)
    (void)db_inbox_append(db, t->shard, in->inbox->kind, in->inbox->body);
  return 0;
}

static struct task_row row_of(const struct db_task *t, const struct db_version *v) {
  struct task_row r = v->row;
  r.v = v->v;
  if (v == &t->versions[t->count - 1])
    r.v.state = t->state;
  r.created_by = t->created_by;
  r.created_at = t->created_at;
  return r;
}

int db_task_get(struct store *s, const struct st_task_get *in, struct st_task_get_ret *ret, struct arena *mem,
                struct err *e) {
  struct sim_db *db = db_of(s);
  (void)mem;
  int64_t id = in->task_id;
  if (!id) {
    struct db_name *n = find_name(db, in->ns, in->name);
    id = n ? n->task_id : 0;
  }
  struct db_task *t = sim_db_task(db, id);
  if (!t || t->state == TASK_DELETED || in->version < 0 || (size_t)in->version > t->count)
    return err_set(e, ERR_NOT_FOUND, "no such task");
  ret->task = row_of(t, in->version ? &t->versions[in->version - 1] : current(t));
  return 0;
}

int db_task_versions(struct store *s, const struct st_task_versions *in, struct st_task_versions_ret *ret,
                     struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  struct db_task *t = sim_db_task(db, in->task_id);
  (void)e;
  size_t n = 0, top = t && t->state != TASK_DELETED ? t->count : 0;
  struct task_row *rows = arena_array(mem, top, sizeof *rows);
  for (size_t i = top; i-- > 0 && n < (size_t)in->limit;)
    if (!in->before || t->versions[i].v.version < in->before)
      rows[n++] = row_of(t, &t->versions[i]);
  *ret = (struct st_task_versions_ret){rows, n};
  return 0;
}

/* The version that rules `at`, counted from 1. */
static size_t ruling(const struct db_task *t, usec_t at) {
  size_t n = 1;
  for (size_t i = 1; i < t->count; i++)
    if (t->versions[i].v.effective_at < at)
      n = i + 1;
  return n;
}

int db_task_timeline(struct store *s, const struct st_task_timeline *in, struct st_task_timeline_ret *ret,
                     struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  const struct db_task *t = sim_db_task(db, in->task_id);
  (void)e;
  size_t n = 0, count = t ? t->count : 0;
  struct task_row *rows = arena_array(mem, count, sizeof *rows);
  size_t first = t ? ruling(t, in->from) : 0, last = t ? ruling(t, in->to) : 0, pause = 0;
  if (last >= first + (size_t)in->limit)
    last = first + (size_t)in->limit - 1;
  if (t && t->versions[first - 1].v.state == TASK_PAUSED)
    for (pause = first; pause > 1 && t->versions[pause - 2].v.state == TASK_PAUSED;)
      pause--;
  for (size_t no = 1; no <= count; no++)
    if (no == pause || (no + (size_t)in->margin >= first && no <= last + (size_t)in->margin))
      rows[n++] = row_of(t, &t->versions[no - 1]);
  *ret = (struct st_task_timeline_ret){rows, n};
  return 0;
}

/* ------------------------------------------------------------------ for the trigger */
static int by_task(const void *a, const void *b) {
  const struct task_version_row *x = a, *y = b;
  if (x->task_id != y->task_id)
    return x->task_id < y->task_id ? -1 : 1;
  return x->version - y->version;
}

static int by_change(const void *a, const void *b) {
  const struct task_version_row *x = a, *y = b;
  return x->change_no != y->change_no ? (x->change_no < y->change_no ? -1 : 1) : by_task(a, b);
}

struct rows {
  struct task_version_row *p;
  size_t n, cap;
};
static void rows_add(struct rows *r, const struct task_version_row *v) {
  mem_reserve(r->p, r->n, r->cap);
  r->p[r->n++] = *v;
}

/* Sorted and cut, into the caller's memory. */
static struct task_version_row *rows_take(struct rows *r, int (*order)(const void *, const void *),
                                          size_t limit, size_t *ret_count, struct arena *mem) {
  if (r->n)
    qsort(r->p, r->n, sizeof *r->p, order);
  *ret_count = r->n < limit ? r->n : limit;
  struct task_version_row *out = arena_array(mem, *ret_count, sizeof *out);
  if (*ret_count)
    memcpy(out, r->p, *ret_count * sizeof *out);
  mem_free(r->p);
  return out;
}

int db_task_load(struct store *s, const struct st_task_load *in, struct st_task_load_ret *ret,
                 struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  struct db_task *t, *next;
  struct rows all = {0};
  (void)e;
  HASH_ITER (hh, db->tasks, t, next) {
    struct task_version_row v = current(t)->v;
    v.state = t->state;
    if (t->shard == in->shard && t->id > in->after &&
        (v.state == TASK_ENABLED || v.effective_at > in->changed_after))
      rows_add(&all, &v);
  }
  ret->rows = rows_take(&all, by_task, (size_t)in->limit, &ret->count, mem);
  return 0;
}

int db_task_load_older(struct store *s, const struct st_task_load_older *in,
                       struct st_task_load_older_ret *ret, struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  struct db_task *t, *next;
  struct rows all = {0};
  (void)e;
  HASH_ITER (hh, db->tasks, t, next) {
    if (t->shard != in->shard)
      continue;
    for (size_t i = 0; i + 1 < t->count; i++)
      if (t->versions[i + 1].v.effective_at > in->changed_after)
        rows_add(&all, &t->versions[i].v);
  }
  ret->rows = rows_take(&all, by_task, SIZE_MAX, &ret->count, mem);
  return 0;
}

int db_task_changes(struct store *s, const struct st_task_changes *in, struct st_task_changes_ret *ret,
                    struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  const struct db_shard *sh = &db->shards[in->shard];
  struct rows all = {0};
  (void)e;
  size_t from = sh->change_count;
  while (from && sh->changes[from - 1].change_no > in->after)
    from--;
  for (size_t i = from; i < sh->change_count; i++) {
    const struct db_change *c = &sh->changes[i];
    if (all.n >= (size_t)in->limit && c->change_no != all.p[all.n - 1].change_no)
      break;
    rows_add(&all, &sim_db_task(db, c->task_id)->versions[c->version - 1].v);
  }
  /* a number that would be cut by the limit waits, unless it is the first */
  if (all.n > (size_t)in->limit && all.p[0].change_no != all.p[all.n - 1].change_no) {
    int64_t last = all.p[all.n - 1].change_no;
    while (all.p[all.n - 1].change_no == last)
      all.n--;
  }
  ret->last = all.n ? all.p[all.n - 1].change_no : in->after;
  ret->rows = rows_take(&all, by_change, SIZE_MAX, &ret->count, mem);
  return 0;
}

int db_task_complete(struct store *s, const struct st_task_complete *in, struct st_task_complete_ret *ret,
                     struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)ret, (void)mem, (void)e;
  for (size_t i = 0; i < in->count; i++) {
    struct db_task *t = sim_db_task(db, in->task_ids[i]);
    if (t && t->state == TASK_ENABLED && current(t)->v.version == in->versions[i])
      t->state = TASK_COMPLETED;
  }
  return 0;
}

int db_payload_get(struct store *s, const struct st_payload_get *in, struct st_payload_get_ret *ret,
                   struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  (void)e;
  ret->rows = arena_array(mem, in->count, sizeof *ret->rows);
  for (size_t i = 0; i < in->count; i++) {
    struct db_task *t = sim_db_task(db, in->task_ids[i]);
    if (!t || in->versions[i] < 1 || (size_t)in->versions[i] > t->count)
      continue;
    const struct db_version *v = &t->versions[in->versions[i] - 1];
    ret->rows[i] =
        (struct payload_row){true, v->row.ns, v->v.name, v->row.payload, v->v.definition, v->v.anchor};
  }
  return 0;
}

int db_progress_load(struct store *s, const struct st_progress_load *in, struct st_progress_load_ret *ret,
                     struct arena *mem, struct err *e) {
  struct sim_db *db = db_of(s);
  struct db_progress *p, *next;
  (void)e;
  ret->rows = arena_array(mem, HASH_COUNT(db->progress), sizeof *ret->rows);
  ret->count = 0;
  HASH_ITER (hh, db->progress, p, next) {
    if (p->row.shard == in->shard)
      ret->rows[ret->count++] = p->row;
  }
  return 0;
}
