#pragma once
/* The rows that the operations of store.h take and give, but those of run state (core/rows.h). Plain data; slices are borrowed. */
#include "base/str.h"
#include "base/time.h"
#include "core/model.h"
#include "core/rows.h"
#include "core/shares.h"

struct node_row {
  struct slice id, address, version, tzdata;
  int64_t incarnation, renewals;
  usec_t lease_until, started_at;
  usec_t clock_offset; /* database clock minus the node's wall clock, as it said with its last renewal */
  enum share share;
  bool drained;
};
struct shard_row {
  int32_t id;
  struct slice owner; /* node id, empty when released */
  int64_t incarnation, epoch;
  usec_t fired_at; /* watermark: every (due, task) up to this pair has been decided */
  int64_t fired_task;
  int64_t tasks_version; /* number of the last change of a task of this shard; also its feed */
};
/* One version of a task as the trigger needs it. */
struct task_version_row {
  int64_t task_id;
  int32_t version, shard;
  int64_t change_no; /* the shard's tasks_version that this version made */
  usec_t
      effective_at; /* instants t > effective_at are this version's, until the next version's effective_at */
  usec_t anchor;    /* FIXED_RATE anchor, ONE_TIME run_at; else the creation's instant */
  enum task_state state;
  bool has_payload;
  struct slice name, definition;
};
/* A task as people see it: the current version and who made it. */
struct task_row {
  struct task_version_row v;
  struct slice ns, description, payload, group, handler, schedule_text, created_by, updated_by, note,
      managed_by; /* the source whose apply made it; empty: nobody's */
  enum schedule_kind kind;
  usec_t created_at, updated_at; /* updated_at: when this version was made */
};
struct inbox_row {
  int32_t shard;
  int64_t no;
  int32_t kind;      /* enum inbox_kind (core/inbox.h) */
  struct slice body; /* JSON */
  usec_t at;         /* when it was appended; the stores' own, not read back */
};
struct group_row {
  int64_t id;
  struct slice ns, name;
  enum channel channel;
  enum routing routing;
  int32_t max_connections; /* per executor */
  int32_t max_concurrent;  /* runs between dispatch and end; 0 = any number */
  int64_t rate_milli;      /* runs begun in 1,000 s; 0 = any number */
  int32_t rate_burst;      /* begun at once after a rest; 0 = as many as in a second */
  struct slice secret_sealed, secret_previous_sealed; /* crypto_seal texts */
  usec_t created_at, updated_at;
  int32_t version;
};
struct executor_row {
  struct slice ns, group, id, url, handlers /* JSON array */, version, labels /* JSON object */;
  int64_t incarnation; /* raised by each register */
  int32_t slots, running, weight;
  enum executor_state state;
  usec_t registered_at, beat_at;
};
struct namespace_row {
  struct slice name;
  int64_t retention_age;  /* µs; 0 = for ever, -1 = as the setting says */
  int64_t retention_runs; /* 0 = any number, -1 = as the setting says */
  int32_t max_concurrent; /* runs between dispatch and end; 0 = any number */
};
struct token_row {
  int64_t id;
  struct slice name, ns, group; /* empty: all */
  enum token_role role;
  uint8_t hash[32];
  usec_t created_at, expires_at; /* 0 = never */
  struct slice created_by;
};
/* Idempotency-Key of a creating request. NULL pointer = none given. */
struct idem {
  struct slice route, key;
  uint8_t body_hash[32];
  usec_t keep; /* how long the answer is remembered */
};
/* A run as people see it. */
struct run_list_row {
  struct run_row run;
  struct slice task_name, ns;
};
