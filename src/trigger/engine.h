#pragma once
/* The trigger engine: for each owned shard, decide what is due (core/shard) and FIRE it. One thread, one STORE_FIRE session; a second,
 * small thread listens for changes where the store can tell (wait_change). Thread-safe from outside. */
#include "core/shard.h"
#include "core/spec_cache.h"
#include "core/zone_set.h"
#include "run/run.h"
#include "store/store.h"

struct engine;
struct engine_options {
  struct store *fire;          /* STORE_FIRE session; owned by the engine from engine_new on */
  struct store *listen;        /* STORE_LISTEN session or NULL: no NOTIFY; owned */
  struct store *api;           /* pooled; borrowed: tasks fetched on demand, COMPLETED written */
  struct run_service *runs;    /* borrowed */
  struct zone_set *zones;      /* used on the trigger thread only; owned by the engine from engine_new on */
  usec_t (*now)(void *arg);    /* database time */
  bool (*may_fire)(void *arg); /* the lease still holds */
  void (*fenced)(void *arg, int32_t shard, int64_t epoch); /* a FIRE was fenced off */
  void (*nodes_changed)(void *arg); /* the database told so (st_wait_change_ret). May be NULL */
  void *arg;
  int32_t shard_count;
  struct shard_limits limits;
  usec_t poll;      /* look for changes at least so often: 250 ms */
  usec_t zone_poll; /* look for changed tzdata so often: 30 s */
  usec_t ahead;     /* a watermark may be ahead of the database's clock by so much: 50 ms */
  size_t fire_rows; /* rows of one FIRE over all shards: 5,000 */
};
void engine_options_default(struct engine_options *o);
int engine_new(const struct engine_options *o, struct engine **ret, struct err *e);
int engine_start(struct engine *g, struct err *e);
void engine_stop(struct engine *g); /* after the FIRE in progress */
void engine_free(struct engine **g);

/* Hints and orders; never block. */
void engine_own(struct engine *g, const struct shard_row *s); /* claimed with this epoch */
void engine_disown(struct engine *g, int32_t shard, int64_t epoch);
/* After the FIRE in progress the shard fires no more, and the run service hands it over (run_hand_over). To be repeated until that says so: while
 * the shard is being read nothing happens. */
void engine_hand_over(struct engine *g, int32_t shard, int64_t epoch);
void engine_changed(struct engine *g, int32_t shard); /* a task or the inbox of the shard changed; -1: any */
void engine_delay_ended(struct engine *g, const struct progress_row *p); /* FIXED_DELAY: durable end */
void engine_parents_ended(struct engine *g); /* runs of tasks on which others depend */

/* All shards given so far by engine_own, if any, are loaded and firing. */
bool engine_ready(struct engine *g);
/* The database has refused every FIRE for a second. */
bool engine_failing(const struct engine *g);
