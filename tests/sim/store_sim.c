/* The contract over the simulated store: else the simulator lies. */
#include "contract.h"
#include "sim_db.h"

struct sim_source {
  struct store_source source;
  struct sim_db *db;
};

static usec_t wall(void *arg) {
  (void)arg;
  return clock_system.wall(&clock_system);
}

static int session(struct store_source *s, enum store_role role, struct store **ret, struct err *e) {
  (void)role, (void)e;
  return sim_db_session(((struct sim_source *)s)->db, ret);
}

static void close_source(struct store_source *s) {
  sim_db_free(&((struct sim_source *)s)->db);
  mem_free(s);
}

static const struct store_source_ops ops = {"sim", session, close_source};

static struct store_source *open_sim(void) {
  struct sim_source *s = mem_zalloc(sizeof *s);
  s->source.ops = &ops;
  s->db = sim_db_new(8, wall, NULL);
  return &s->source;
}

int main(void) { return contract_run(open_sim, "simulated"); }
