#pragma once
/* Private to src/task. */
#include "base/rng.h"
#include "base/thread.h"
#include "core/schedule.h"
#include "core/spec_cache.h"
#include "core/task_fields.h"
#include "task/task.h"
#include "task/zones.h"

struct task_service {
  struct task_service_options o;
  void (*changed)(void *arg, int32_t shard);
  void *changed_arg;
  struct mutex lock; /* protects what follows; held over reading of zone files, never over a store call */
  struct zone_set *zones;
  struct spec_cache *specs;
  struct rng rng;
};

/* A retry of an ended run (dead_letters.c): its inbox row, and its dead letter is REPLAYED; 1 and the first run's id: a repeat. */
int task_dead_letter_retry(struct task_service *s, const struct task_call *c,
                           const struct dead_letter_deed *deed, bool must_be_open, struct slice *ret_run);
void task_dead_letters_init(void); /* its metrics */
usec_t task_now(const struct task_service *s);
void task_tell(const struct task_service *s, int32_t shard);
/* What the store keeps of a parsed document; texts copied. */
void task_def_of(const struct task_input *in, struct arena *mem, struct task_def *ret);
/* Parse one new task; a token that is bound to a namespace need not name it. */
int task_read_new(struct task_service *s, const struct task_call *c, const json_t *doc, struct task_def *ret);
/* Parse what shall replace a task. *ret_same: it says the same about when. Whoever changes something else shall not be told that the
 * instants have passed: that is asked only of a new schedule. */
int task_parse_replacement(struct task_service *s, const json_t *doc, const struct task_row *t,
                           struct task_input *ret, bool *ret_same, struct err *e);
/* The calendar that a parsed document names, put into its definition; without one nothing is done. Errors name "/schedule/calendar". */
int task_calendar_bind(struct task_service *s, struct task_input *in, struct err *e);
int task_calendar_find(struct task_service *s, struct slice ns, struct slice name, struct calendar **ret,
                       int32_t *ret_version, struct err *e);
/* The task's definition with its calendar as it is now. 1: it has that already. */
int task_calendar_definition(struct task_service *s, const struct task_row *t, struct arena *mem,
                             struct slice *ret, struct err *e);
/* A new version with that definition; 1: nothing to do. */
int task_follow(struct task_service *s, const struct task_call *c, struct slice ref);
/* The document as its author wrote it, without defaults. */
int task_source_of(const struct task_row *t, struct arena *mem, json_t **ret, struct err *e);
/* The stored definition as a spec (a reference). Takes the lock. */
int task_spec_of(struct task_service *s, struct slice definition, struct task_spec **ret, struct err *e);
