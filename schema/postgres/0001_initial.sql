-- Instants are bigint, microseconds UTC; 0 of the program ("not set") is NULL here. Enums are the numbers of core/words.def.

CREATE TABLE meta (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  shard_count int4 NOT NULL,
  created_at int8 NOT NULL
);

-- nodes and shards
CREATE SEQUENCE node_incarnation;
CREATE TABLE node (
  id text PRIMARY KEY,
  incarnation int8 NOT NULL,
  renewals int8 NOT NULL,
  lease_until int8 NOT NULL,
  started_at int8 NOT NULL,
  address text NOT NULL,
  version text NOT NULL,
  tzdata text NOT NULL,
  share int4 NOT NULL, -- core/shares.h
  clock_offset int8 NOT NULL DEFAULT 0,
  drained bool NOT NULL DEFAULT false
) WITH (fillfactor = 10);

-- The fence of FIRE: watermark and epoch; tasks_version is the feed of task changes.
CREATE TABLE shard (
  id int4 PRIMARY KEY,
  owner text,
  incarnation int8 NOT NULL DEFAULT 0,
  epoch int8 NOT NULL DEFAULT 0,
  fired_at int8 NOT NULL,
  fired_task int8 NOT NULL DEFAULT 0,
  tasks_version int8 NOT NULL DEFAULT 0
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- The fence of every other write of run state, so that FIRE never waits for FINISH.
CREATE TABLE shard_finish (
  id int4 PRIMARY KEY,
  epoch int8 NOT NULL DEFAULT 0
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- Bounds that several nodes share (docs/adr/0030): what each node has of each; grp '' = of the namespace. One exchange at a time.
CREATE TABLE bound_turn (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  settled boolean NOT NULL,
  published boolean NOT NULL
) WITH (fillfactor = 10);
INSERT INTO bound_turn (settled, published) VALUES (false, false);
CREATE TABLE bound_node (
  node text PRIMARY KEY,
  incarnation int8 NOT NULL,
  adopted int8 NOT NULL -- the sum of the epochs of the shards whose runs it has taken over
) WITH (fillfactor = 10);
CREATE TABLE bound_part (
  ns text NOT NULL,
  grp text NOT NULL,
  node text NOT NULL,
  incarnation int8 NOT NULL,
  part int8 NOT NULL,
  want int8 NOT NULL,
  PRIMARY KEY (ns, grp, node, incarnation)
) WITH (fillfactor = 10);

-- tasks: the current version, and every version for ever (immutable, but that its state goes from ENABLED to COMPLETED)
CREATE SEQUENCE task_id INCREMENT BY 32; -- a session takes 32 numbers at a time
CREATE TABLE calendar (
  version int4 NOT NULL,
  created_at int8 NOT NULL,
  updated_at int8 NOT NULL,
  ns text NOT NULL,
  name text NOT NULL,
  updated_by text NOT NULL,
  definition text NOT NULL,
  PRIMARY KEY (ns, name)
);

CREATE TABLE task (
  id int8 NOT NULL,
  change_no int8 NOT NULL,
  effective_at int8 NOT NULL,
  anchor int8 NOT NULL,
  created_at int8 NOT NULL,
  updated_at int8 NOT NULL,
  version int4 NOT NULL,
  shard int4 NOT NULL,
  state int2 NOT NULL,
  kind int2 NOT NULL,
  ns text NOT NULL,
  name text NOT NULL,
  description text,
  definition text NOT NULL,
  payload text,
  group_name text NOT NULL,
  handler text NOT NULL,
  schedule_text text NOT NULL,
  created_by text NOT NULL,
  updated_by text NOT NULL,
  note text,
  managed_by text NOT NULL DEFAULT '', -- the source whose `apply` made it; '': made by hand, or by an apply without a source
  -- a definition that names a calendar has the calendar in it; the first condition spares all others the reading
  calendar text GENERATED ALWAYS AS (CASE WHEN strpos(definition, '"calendar":{') > 0 AND state <> 3
    THEN definition::jsonb #>> '{schedule,calendar}' END) STORED,
  calendar_version int4 GENERATED ALWAYS AS (CASE WHEN strpos(definition, '"calendar":{') > 0 AND state < 2
    THEN (definition::jsonb #>> '{calendar,version}')::int4 END) STORED,
  PRIMARY KEY (shard, id),
  FOREIGN KEY (ns, calendar) REFERENCES calendar (ns, name)
) WITH (fillfactor = 90);
CREATE INDEX task_calendar ON task (ns, calendar, calendar_version) WHERE calendar IS NOT NULL;
CREATE UNIQUE INDEX task_name ON task (ns, name) WHERE state <> 3; -- not the deleted ones
CREATE INDEX task_group ON task (ns, group_name, id) WHERE state <> 3;
CREATE INDEX task_ns ON task (ns, id);
CREATE INDEX task_handler ON task (handler, id);
CREATE INDEX task_state ON task (state, kind, id);
CREATE INDEX task_managed ON task (managed_by, id) WHERE managed_by <> '';
CREATE INDEX task_prefix ON task (name COLLATE "C");
-- For ?name_contains=, where the server has the extension; without it such a list reads all tasks.
DO $$ BEGIN
  CREATE EXTENSION IF NOT EXISTS pg_trgm;
  CREATE INDEX task_contains ON task USING gin (name gin_trgm_ops);
EXCEPTION WHEN OTHERS THEN NULL;
END $$;

CREATE TABLE task_version (
  task_id int8 NOT NULL,
  change_no int8 NOT NULL,
  effective_at int8 NOT NULL,
  anchor int8 NOT NULL,
  updated_at int8 NOT NULL,
  version int4 NOT NULL,
  shard int4 NOT NULL,
  state int2 NOT NULL,
  kind int2 NOT NULL,
  ns text NOT NULL,
  name text NOT NULL,
  description text,
  definition text NOT NULL,
  payload text,
  group_name text NOT NULL,
  handler text NOT NULL,
  schedule_text text NOT NULL,
  updated_by text NOT NULL,
  note text,
  PRIMARY KEY (task_id, version)
);
CREATE INDEX task_version_change ON task_version (shard, change_no, task_id);
CREATE INDEX task_version_edited ON task_version (shard, effective_at) WHERE version > 1;

-- FIXED_DELAY and max_runs only; -1 = never set (FIRE and FINISH write different columns at the same time)
CREATE TABLE progress (
  task_id int8 NOT NULL,
  base_at int8 NOT NULL,
  fired int8 NOT NULL,
  shard int4 NOT NULL,
  PRIMARY KEY (shard, task_id)
) WITH (fillfactor = 50);

-- runs: open ones; no index on the state, or their updates would not be HOT (fillfactor 70: a third of them, 40: all)
CREATE TABLE run (
  scheduled_at int8 NOT NULL,
  task_id int8 NOT NULL,
  fired_at int8 NOT NULL,
  not_before int8,
  attempt_at int8,
  started_at int8,
  missed_first int8,
  missed_count int8,
  progress float8,
  shard int4 NOT NULL,
  part int4 NOT NULL,
  version int4 NOT NULL,
  attempt int4 NOT NULL,
  state int2 NOT NULL,
  reason int2 NOT NULL,
  origin int2 NOT NULL,
  executor text,
  pin text,
  payload text,
  origin_run text,
  error_type text,
  error_message text,
  incarnation int8, -- of the executor that has it
  PRIMARY KEY (shard, scheduled_at, task_id, part)
) WITH (fillfactor = 40, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

-- ended runs: written once, never changed; partitions by day of scheduled_at are made ahead by upkeep
CREATE TABLE run_history (
  scheduled_at int8 NOT NULL,
  task_id int8 NOT NULL,
  fired_at int8 NOT NULL,
  finished_at int8,
  attempt_at int8,
  started_at int8,
  missed_first int8,
  missed_count int8,
  progress float8,
  shard int4 NOT NULL,
  part int4 NOT NULL,
  version int4 NOT NULL,
  attempt int4 NOT NULL,
  state int2 NOT NULL,
  reason int2 NOT NULL,
  origin int2 NOT NULL,
  executor text,
  pin text,
  payload text,
  origin_run text,
  result text,
  error_type text,
  error_message text,
  error_detail text,
  PRIMARY KEY (scheduled_at, task_id, part)
) PARTITION BY RANGE (scheduled_at);
CREATE INDEX run_history_task ON run_history (task_id, scheduled_at);
-- Costs a life that ends in SUCCESS nothing. (executor, scheduled_at) is indexed when a day is over, see history_settle.
CREATE INDEX run_history_rest ON run_history (state, reason, scheduled_at, task_id, part) WHERE state <> 2;
CREATE INDEX run_history_folded ON run_history (task_id, scheduled_at) WHERE missed_count > 1; -- few
CREATE TABLE run_history_default PARTITION OF run_history DEFAULT;
CREATE INDEX run_history_default_executor ON run_history_default (executor, scheduled_at, task_id, part);

-- Retention: what has been taken out of run_history and is not dropped yet, rows of its own and at most one former partition, which
-- inherits from it; it has all columns of run_history. One row says which batch that is, and up to which task the former partition's
-- runs have been added to task_stat.
CREATE TABLE run_old (LIKE run_history INCLUDING DEFAULTS, PRIMARY KEY (scheduled_at, task_id, part));
CREATE INDEX run_old_task ON run_old (task_id, scheduled_at);
CREATE TABLE history_batch (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  no int8 NOT NULL,
  archived boolean NOT NULL,
  folded int8 NOT NULL
);
INSERT INTO history_batch (no, archived, folded) VALUES (0, false, 0);
-- The runs that are no more, by task.
CREATE TABLE task_stat (
  task_id int8 PRIMARY KEY,
  success int8 NOT NULL,
  fail int8 NOT NULL,
  cancelled int8 NOT NULL,
  skipped int8 NOT NULL,
  attempts int8 NOT NULL,
  durations int8 NOT NULL, -- how many of them started
  duration_sum int8 NOT NULL,
  duration_max int8 NOT NULL,
  last_scheduled_at int8 NOT NULL, -- these four of all but SKIPPED; 0, -1 = none
  last_started_at int8 NOT NULL,
  last_finished_at int8 NOT NULL,
  last_state int2 NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE attempt (
  scheduled_at int8 NOT NULL,
  task_id int8 NOT NULL,
  part int4 NOT NULL,
  attempt int4 NOT NULL,
  dispatched_at int8,
  started_at int8,
  finished_at int8,
  state int2 NOT NULL,
  reason int2 NOT NULL,
  executor text,
  error_type text,
  error_message text,
  PRIMARY KEY (scheduled_at, task_id, part, attempt)
);

-- After-tasks (docs/adr/0017). Raised by each edit of who depends on whom, and by each turn that makes runs of ends.
CREATE TABLE dependency_turn (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  no int8 NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
INSERT INTO dependency_turn (no) VALUES (1);
-- kept: ends of the parent that the child's next run will stand for (mode ALL), the newest of them is the run at end_at
CREATE TABLE dependency (
  child_id int8 NOT NULL,
  parent_id int8 NOT NULL,
  since int8 NOT NULL,
  kept int8 NOT NULL DEFAULT 0,
  end_scheduled_at int8,
  end_at int8,
  child_shard int4 NOT NULL,
  parent_shard int4 NOT NULL,
  end_part int4,
  place int2 NOT NULL,
  mode int2 NOT NULL,
  ends int2 NOT NULL,
  end_state int2,
  PRIMARY KEY (child_id, parent_id)
) WITH (fillfactor = 50);
CREATE INDEX dependency_parent ON dependency (parent_id, child_id);
-- Ends of runs of parents, written by FINISH; served: children up to this id have been.
CREATE TABLE dependency_event (
  no int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  turn int8 NOT NULL,
  served int8 NOT NULL DEFAULT 0,
  scheduled_at int8 NOT NULL,
  task_id int8 NOT NULL,
  finished_at int8 NOT NULL,
  shard int4 NOT NULL,
  part int4 NOT NULL,
  state int2 NOT NULL
);
-- Runs that ended in FAIL: written by their FINISH, gone with the run; what became of each is changed once or twice at most.
CREATE TABLE dead_letter (
  scheduled_at int8 NOT NULL,
  task_id int8 NOT NULL,
  handled_at int8,
  shard int4 NOT NULL,
  part int4 NOT NULL,
  state int2 NOT NULL DEFAULT 0, -- 0 OPEN, 1 REPLAYED, 2 DISCARDED
  reason int2 NOT NULL,
  ns text NOT NULL,
  group_name text NOT NULL, -- as the task's were when it failed
  handler text NOT NULL,
  error_type text,
  handled_by text,
  replay_run text,
  note text,
  PRIMARY KEY (scheduled_at, task_id, part)
);
CREATE INDEX dead_letter_task ON dead_letter (task_id, scheduled_at, part);
CREATE INDEX dead_letter_ns ON dead_letter (ns, scheduled_at, task_id, part);
CREATE INDEX dead_letter_open ON dead_letter (scheduled_at, task_id, part) WHERE state = 0;

-- What runs have logged, a row a line; partitions by day as run_history's. And how far the log of each attempt goes.
CREATE TABLE run_log (
  scheduled_at int8 NOT NULL,
  task_id int8 NOT NULL,
  at int8,
  taken_at int8 NOT NULL,
  part int4 NOT NULL,
  attempt int4 NOT NULL,
  seq int4 NOT NULL,
  cut int4 NOT NULL,
  level int2 NOT NULL,
  text text NOT NULL,
  PRIMARY KEY (scheduled_at, task_id, part, attempt, seq)
) PARTITION BY RANGE (scheduled_at);
CREATE TABLE run_log_default PARTITION OF run_log DEFAULT;
CREATE TABLE run_log_head (
  scheduled_at int8 NOT NULL,
  task_id int8 NOT NULL,
  lines int8 NOT NULL,
  bytes int8 NOT NULL,
  part int4 NOT NULL,
  attempt int4 NOT NULL,
  last_seq int4 NOT NULL,
  is_full boolean NOT NULL, -- lines were dropped: the run has reached its bound
  PRIMARY KEY (scheduled_at, task_id, part, attempt)
) WITH (fillfactor = 50);

CREATE SEQUENCE inbox_no;
CREATE TABLE inbox (
  shard int4 NOT NULL,
  no int8 NOT NULL DEFAULT nextval('inbox_no'),
  kind int4 NOT NULL,
  body text NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp(), -- appended
  PRIMARY KEY (shard, no)
);

CREATE TABLE idempotency (
  route text NOT NULL,
  key text NOT NULL,
  body_hash bytea NOT NULL,
  no int8 NOT NULL,      -- task id or inbox number of the first answer
  ref text NOT NULL,
  expires_at int8 NOT NULL,
  PRIMARY KEY (route, key)
);
CREATE INDEX idempotency_expires ON idempotency (expires_at);

-- executors
CREATE TABLE namespace (
  name text PRIMARY KEY,
  retention_age int8, -- µs; NULL = the setting, 0 = for ever
  retention_runs int8, -- NULL = the setting, 0 = any number
  max_concurrent int4 NOT NULL DEFAULT 0 -- 0 = any number
);
INSERT INTO namespace (name) VALUES ('default');

CREATE TABLE executor_group (
  id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  ns text NOT NULL,
  name text NOT NULL,
  channel int2 NOT NULL,
  routing int2 NOT NULL,
  max_connections int4 NOT NULL,
  max_concurrent int4 NOT NULL, -- 0 = any number
  rate_milli int8 NOT NULL, -- begun in 1,000 s; 0 = any number
  rate_burst int4 NOT NULL, -- 0 = as many as in a second
  secret_sealed text,
  secret_previous_sealed text,
  created_at int8 NOT NULL,
  updated_at int8 NOT NULL,
  version int4 NOT NULL,
  UNIQUE (ns, name)
);

CREATE TABLE executor (
  ns text NOT NULL,
  group_name text NOT NULL,
  id text NOT NULL,
  url text NOT NULL,
  handlers text NOT NULL,
  version text NOT NULL,
  labels text NOT NULL,
  incarnation int8 NOT NULL,
  registered_at int8 NOT NULL,
  beat_at int8 NOT NULL,
  slots int4 NOT NULL,
  running int4 NOT NULL,
  weight int4 NOT NULL,
  state int2 NOT NULL,
  PRIMARY KEY (ns, group_name, id)
) WITH (fillfactor = 50);

-- access
CREATE TABLE token (
  id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL,
  ns text NOT NULL,
  group_name text NOT NULL,
  role int2 NOT NULL,
  hash bytea NOT NULL UNIQUE,
  created_at int8 NOT NULL,
  expires_at int8,
  created_by text NOT NULL
);

-- alerts: channels (kind 0) and rules (kind 1)
CREATE TABLE alert_def (
  id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind int2 NOT NULL,
  ns text NOT NULL,
  name text NOT NULL,
  definition text NOT NULL,
  url_sealed text,
  secret_sealed text,
  secret_previous_sealed text,
  created_at int8 NOT NULL,
  updated_at int8 NOT NULL,
  version int4 NOT NULL,
  UNIQUE (kind, ns, name)
);

-- runs that ended in FAIL and whose alerts are not made yet; written by FINISH, only while there is a rule
CREATE TABLE alert_event (
  no int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  scheduled_at int8 NOT NULL,
  task_id int8 NOT NULL,
  shard int4 NOT NULL,
  part int4 NOT NULL
);

CREATE TABLE alert (
  id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  rule_id int8 NOT NULL,
  channel_id int8 NOT NULL,
  task_id int8 NOT NULL,
  count int8 NOT NULL,
  first_at int8 NOT NULL,
  last_at int8 NOT NULL,
  window_until int8 NOT NULL,
  created_at int8 NOT NULL,
  next_at int8 NOT NULL,
  give_up_at int8 NOT NULL,
  sent_at int8,
  seq int4 NOT NULL,
  attempts int4 NOT NULL DEFAULT 0,
  tries int4 NOT NULL DEFAULT 0,
  status int4 NOT NULL DEFAULT 0,
  state int2 NOT NULL DEFAULT 0,
  summary bool NOT NULL,
  closed bool NOT NULL DEFAULT false,
  ns text NOT NULL,
  rule text NOT NULL,
  channel text NOT NULL,
  task_name text NOT NULL,
  error text,
  details text NOT NULL,
  UNIQUE (rule_id, channel_id, task_id, seq)
);
CREATE INDEX alert_due ON alert (next_at) WHERE state = 0;
CREATE INDEX alert_ended ON alert (created_at) WHERE state <> 0;

CREATE TABLE alert_attempt (
  alert_id int8 NOT NULL,
  attempt int4 NOT NULL,
  at int8 NOT NULL,
  took int8 NOT NULL,
  status int4 NOT NULL,
  error text,
  PRIMARY KEY (alert_id, attempt)
);

-- What one call carries, an array of rows each; the fields that are absent are NULL.
CREATE TYPE fire_shard_in AS (shard int4, epoch int8, tasks_version int8, seen_at int8, seen_task int8, new_at int8, new_task int8);
CREATE TYPE run_update_in AS (shard int4, scheduled_at int8, task_id int8, part int4, seen_attempt int4, seen_state int2, ord int4,
  state int2, reason int2, attempt int4, not_before int8, attempt_at int8, started_at int8, executor text, error_type text,
  error_message text, progress float8, incarnation int8);
CREATE TYPE run_finish_in AS (shard int4, scheduled_at int8, task_id int8, part int4, seen_attempt int4, ord int4, state int2,
  reason int2, attempt_at int8, started_at int8, finished_at int8, executor text, result text, error_type text,
  error_message text, error_detail text);
CREATE TYPE attempt_in AS (shard int4, scheduled_at int8, task_id int8, part int4, attempt int4, dispatched_at int8,
  started_at int8, finished_at int8, state int2, reason int2, executor text, error_type text, error_message text);
CREATE TYPE task_in AS (ord int4, id int8, shard int4, anchor int8, state int2, kind int2, ns text, name text, description text,
  definition text, payload text, group_name text, handler text, schedule_text text);
