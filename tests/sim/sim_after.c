#include "sim_plan.h"

/* After-tasks: tasks that depend on what people do. Nobody touches these themselves, so that each end that counts has led to exactly what
 * it must, whatever happened to the nodes in between. */

enum { CHILDREN = 4, PARENTS = 4 };
static const struct {
  enum depend_mode mode;
  enum depend_ends ends;
  const char *parents[2];
} children[CHILDREN] = {{DEPEND_ANY, ENDS_ANY, {"t0", "t1"}},
                        {DEPEND_ANY, ENDS_SUCCESS, {"after0", NULL}},
                        {DEPEND_ALL, ENDS_ANY, {"t0", "t2"}},
                        {DEPEND_ALL, ENDS_SUCCESS, {"after0", "t3"}}};
static int64_t ids[CHILDREN];
static const char *const names[CHILDREN] = {"after0", "after1", "after2", "after3"};

void sim_after_new(struct store *db) {
  memset(ids, 0, sizeof ids);
  for (int i = 0; i < CHILDREN && sim_people.count >= PARENTS; i++) {
    auto_arena mem = {0};
    struct err e = {0};
    struct st_task_put_ret ret;
    struct slice parents[2] = {slice_of(children[i].parents[0]), slice_of(children[i].parents[1])};
    const struct depend_def depends = {children[i].mode, children[i].ends, parents, parents[1].n ? 2 : 1};
    const struct task_def def = {
        .ns = SLICE("default"),
        .name = slice_of(names[i]),
        .definition = SLICE("{\"schedule\":{\"kind\":\"MANUAL\"},\"executor_group\":\"g\",\"handler\":\"h\","
                            "\"overlap_policy\":\"ALLOW\",\"dispatch_timeout\":\"6s\",\"attempt_timeout\":"
                            "\"15s\",\"timeout\":\"60s\",\"cancel_timeout\":\"5s\"}"),
        .group = SLICE("g"),
        .handler = SLICE("h"),
        .kind = SCHEDULE_MANUAL,
        .state = TASK_ENABLED,
        .depends = &depends};
    if (store_task_put(db, &(struct st_task_put){&def, 1, SLICE("p"), NULL}, &ret, &mem, &e) < 0)
      sim_wrong(WRONG_OTHER, "no task after others: %s %s", e.field, e.text);
    else
      ids[i] = ret.rows[0].task_id;
  }
}

static bool counts(enum depend_ends ends, enum run_state state) {
  return ends == ENDS_ANY ? state != RUN_SKIPPED : state == (ends == ENDS_SUCCESS ? RUN_SUCCESS : RUN_FAIL);
}

static int parent_of(int i, int64_t task) {
  for (int k = 0; k < 2 && children[i].parents[k]; k++)
    if (db_task_named(sim_world->db, SLICE("default"), slice_of(children[i].parents[k])) == task)
      return k;
  return -1;
}

/* The run that this end must have led to. */
static void expect(int i, const struct depend_event *v) {
  struct run_key key = {shard_of_task(ids[i], sim_world->o.shards), v->finished_at, ids[i],
                        (int32_t)(0x20000000 | v->no)};
  const struct db_run *r = sim_db_run(sim_world->db, &key);
  char id[RUN_ID_LEN + 1];
  run_id_format(&v->key, id);
  if (!r)
    sim_wrong(WRONG_LOST, "the end of %s led to no run of %s", sim_key(&v->key), names[i]);
  else if (r->row.origin != ORIGIN_DEPENDENCY || !slice_eqz(r->row.origin_run, id))
    sim_wrong(WRONG_OTHER, "%s is not what the end of its parent led to", sim_key(&r->key));
}

/* Every end there was, once more by counting: each run that must be there is, and there are no others. */
static void check_child(int i) {
  const struct sim_db *db = sim_world->db;
  int64_t collected[2] = {0}, expected = 0, found = 0;
  bool both = children[i].parents[1] != NULL;
  for (size_t n = 0; n < db->end_count; n++) {
    int k = parent_of(i, db->ends[n].key.task_id);
    if (k < 0 || !counts(children[i].ends, db->ends[n].state))
      continue;
    collected[k]++;
    if (children[i].mode == DEPEND_ALL && both && (!collected[0] || !collected[1]))
      continue;
    collected[0] = collected[1] = 0;
    expected++;
    expect(i, &db->ends[n]);
  }
  for (const struct db_run *r = db->runs; r; r = r->hh.next)
    found += r->key.task_id == ids[i];
  if (found != expected)
    sim_wrong(found < expected ? WRONG_LOST : WRONG_DOUBLED, "%lld runs of %s, expected %lld",
              (long long)found, names[i], (long long)expected);
}

void sim_after_check(void) {
  sim_world->ends = (int64_t)sim_world->db->end_count;
  if (sim_world->db->event_count)
    sim_wrong(WRONG_STUCK, "%zu ends of parents have not been taken in", sim_world->db->event_count);
  for (int i = 0; i < CHILDREN; i++)
    if (ids[i])
      check_child(i);
}
