-- The tables of storage.md. Instants are microseconds UTC, 0 = not set; enums are the numbers of core/words.def.
-- A table whose natural key is its primary key is WITHOUT ROWID: one B-tree, kept in the order of the key.

CREATE TABLE meta (
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE node (
  id TEXT PRIMARY KEY,
  incarnation INTEGER NOT NULL,
  lease_until INTEGER NOT NULL,
  renewals INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  address TEXT NOT NULL,
  version TEXT NOT NULL,
  tzdata TEXT NOT NULL,
  share INTEGER NOT NULL, -- core/shares.h
  clock_offset INTEGER NOT NULL DEFAULT 0,
  drained INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

-- The fence of FIRE. Every due instant up to the pair (fired_at, fired_task) has been decided, none after it.
CREATE TABLE shard (
  id INTEGER PRIMARY KEY,
  owner TEXT NOT NULL,
  incarnation INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  fired_at INTEGER NOT NULL,
  fired_task INTEGER NOT NULL,
  tasks_version INTEGER NOT NULL,
  inbox_last INTEGER NOT NULL
);
-- The fence of every other write of run state.
CREATE TABLE shard_finish (
  id INTEGER PRIMARY KEY,
  epoch INTEGER NOT NULL
);

CREATE TABLE namespace (
  name TEXT PRIMARY KEY,
  retention_age INTEGER, -- µs; NULL = the setting, 0 = for ever
  retention_runs INTEGER, -- NULL = the setting, 0 = any number
  max_concurrent INTEGER NOT NULL DEFAULT 0 -- 0 = any number
) WITHOUT ROWID;
INSERT INTO namespace (name) VALUES ('default');

CREATE TABLE calendar (
  ns TEXT NOT NULL,
  name TEXT NOT NULL,
  version INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  updated_by TEXT NOT NULL,
  definition TEXT NOT NULL,
  PRIMARY KEY (ns, name)
) WITHOUT ROWID;

-- What the trigger loads and what lists filter by; the rest of the current version stands in its task_version row.
CREATE TABLE task (
  shard INTEGER NOT NULL,
  id INTEGER NOT NULL,
  version INTEGER NOT NULL,
  change_no INTEGER NOT NULL,
  effective_at INTEGER NOT NULL,
  anchor INTEGER NOT NULL,
  state INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  has_payload INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  ns TEXT NOT NULL,
  name TEXT NOT NULL,
  grp TEXT NOT NULL,
  handler TEXT NOT NULL,
  created_by TEXT NOT NULL,
  definition TEXT NOT NULL,
  managed_by TEXT NOT NULL DEFAULT '', -- the source whose `apply` made it; '': made by hand, or by an apply without a source
  -- A definition that names a calendar has that calendar in it. It is canonical: keys in order, no spaces, quotes within texts escaped;
  -- read as text, since a trusted schema has no JSON functions.
  calendar TEXT GENERATED ALWAYS AS (CASE WHEN instr(definition, '"calendar":{') > 0 AND state <> 3
    THEN substr(definition, instr(definition, '"schedule":{"calendar":"') + 24,
      instr(substr(definition, instr(definition, '"schedule":{"calendar":"') + 24), '"') - 1) END) VIRTUAL,
  calendar_version INTEGER GENERATED ALWAYS AS (CASE WHEN instr(definition, '"calendar":{') > 0 AND state < 2
    THEN CAST(substr(definition, instr(definition, '"calendar":{')
      + instr(substr(definition, instr(definition, '"calendar":{')), '"version":') + 9) AS INTEGER) END) VIRTUAL,
  PRIMARY KEY (shard, id),
  FOREIGN KEY (ns, calendar) REFERENCES calendar (ns, name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX task_name ON task (ns, name) WHERE state <> 3; -- a DELETED task's name is free
CREATE INDEX task_group ON task (ns, grp, id) WHERE state <> 3;
CREATE INDEX task_ns ON task (ns, id);
CREATE INDEX task_calendar ON task (ns, calendar, calendar_version) WHERE calendar IS NOT NULL;
CREATE INDEX task_managed ON task (managed_by, id) WHERE managed_by <> '';

-- Immutable, but that a version's state goes from ENABLED to COMPLETED.
CREATE TABLE task_version (
  shard INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  version INTEGER NOT NULL,
  change_no INTEGER NOT NULL,
  effective_at INTEGER NOT NULL,
  anchor INTEGER NOT NULL,
  state INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  made_at INTEGER NOT NULL,
  made_by TEXT NOT NULL,
  name TEXT NOT NULL,
  grp TEXT NOT NULL,
  handler TEXT NOT NULL,
  schedule_text TEXT NOT NULL,
  note TEXT,
  definition TEXT NOT NULL,
  description TEXT,
  payload TEXT,
  PRIMARY KEY (shard, task_id, version)
) WITHOUT ROWID;
CREATE INDEX task_version_change ON task_version (shard, change_no);
CREATE INDEX task_version_edited ON task_version (shard, effective_at) WHERE version > 1;

-- FIXED_DELAY and max_runs only.
CREATE TABLE progress (
  shard INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  base_at INTEGER NOT NULL,
  fired INTEGER NOT NULL,
  PRIMARY KEY (shard, task_id)
) WITHOUT ROWID;

-- Open runs only. No further index: take-over is a range scan of the key.
CREATE TABLE run (
  shard INTEGER NOT NULL,
  scheduled_at INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  part INTEGER NOT NULL,
  version INTEGER NOT NULL,
  state INTEGER NOT NULL,
  reason INTEGER NOT NULL,
  origin INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  fired_at INTEGER NOT NULL,
  not_before INTEGER NOT NULL,
  attempt_at INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  missed_first INTEGER NOT NULL,
  missed_count INTEGER NOT NULL,
  progress REAL, -- NULL = unknown
  executor TEXT,
  pin TEXT,
  origin_run TEXT,
  error_type TEXT,
  error_message TEXT,
  payload TEXT,
  incarnation INTEGER, -- of the executor that has it
  PRIMARY KEY (shard, scheduled_at, task_id, part)
) WITHOUT ROWID;

-- Ended runs: written once, never changed.
CREATE TABLE run_history (
  scheduled_at INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  part INTEGER NOT NULL,
  shard INTEGER NOT NULL,
  version INTEGER NOT NULL,
  state INTEGER NOT NULL,
  reason INTEGER NOT NULL,
  origin INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  fired_at INTEGER NOT NULL,
  attempt_at INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  missed_first INTEGER NOT NULL,
  missed_count INTEGER NOT NULL,
  progress REAL,
  executor TEXT,
  pin TEXT,
  origin_run TEXT,
  error_type TEXT,
  error_message TEXT,
  error_detail TEXT,
  result TEXT,
  payload TEXT,
  PRIMARY KEY (scheduled_at, task_id, part)
) WITHOUT ROWID;
CREATE INDEX run_history_task ON run_history (task_id, scheduled_at);
CREATE INDEX run_history_folded ON run_history (task_id, scheduled_at) WHERE missed_count > 1; -- few

-- Retention: what has been taken out of run_history and is not dropped yet; the columns of run_history in their order.
CREATE TABLE run_old (
  scheduled_at INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  part INTEGER NOT NULL,
  shard INTEGER NOT NULL,
  version INTEGER NOT NULL,
  state INTEGER NOT NULL,
  reason INTEGER NOT NULL,
  origin INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  fired_at INTEGER NOT NULL,
  attempt_at INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  missed_first INTEGER NOT NULL,
  missed_count INTEGER NOT NULL,
  progress REAL,
  executor TEXT,
  pin TEXT,
  origin_run TEXT,
  error_type TEXT,
  error_message TEXT,
  error_detail TEXT,
  result TEXT,
  payload TEXT,
  PRIMARY KEY (scheduled_at, task_id, part)
) WITHOUT ROWID;
CREATE TABLE history_batch (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  no INTEGER NOT NULL,
  archived INTEGER NOT NULL
);
INSERT INTO history_batch VALUES (1, 0, 0);
-- The runs that are no more, by task.
CREATE TABLE task_stat (
  task_id INTEGER PRIMARY KEY,
  success INTEGER NOT NULL,
  fail INTEGER NOT NULL,
  cancelled INTEGER NOT NULL,
  skipped INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  durations INTEGER NOT NULL, -- how many of them started
  duration_sum INTEGER NOT NULL,
  duration_max INTEGER NOT NULL,
  last_scheduled_at INTEGER NOT NULL, -- these four of all but SKIPPED; 0, -1 = none
  last_started_at INTEGER NOT NULL,
  last_finished_at INTEGER NOT NULL,
  last_state INTEGER NOT NULL
);

-- Only of runs with more than one attempt, or an error.
CREATE TABLE attempt (
  task_id INTEGER NOT NULL,
  scheduled_at INTEGER NOT NULL,
  part INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  state INTEGER NOT NULL,
  reason INTEGER NOT NULL,
  dispatched_at INTEGER NOT NULL,
  started_at INTEGER NOT NULL,
  finished_at INTEGER NOT NULL,
  executor TEXT,
  error_type TEXT,
  error_message TEXT,
  PRIMARY KEY (task_id, scheduled_at, part, attempt)
) WITHOUT ROWID;

-- After-tasks (docs/adr/0017). Raised by each edit of who depends on whom, and by each turn that makes runs of ends.
CREATE TABLE dependency_turn (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  no INTEGER NOT NULL
);
INSERT INTO dependency_turn VALUES (1, 1);
-- kept: ends of the parent that the child's next run will stand for (mode ALL), the newest of them is the run at end_at
CREATE TABLE dependency (
  child_id INTEGER NOT NULL,
  parent_id INTEGER NOT NULL,
  since INTEGER NOT NULL,
  child_shard INTEGER NOT NULL,
  parent_shard INTEGER NOT NULL,
  place INTEGER NOT NULL,
  mode INTEGER NOT NULL,
  ends INTEGER NOT NULL,
  kept INTEGER NOT NULL,
  end_scheduled_at INTEGER NOT NULL,
  end_part INTEGER NOT NULL,
  end_state INTEGER NOT NULL,
  end_at INTEGER NOT NULL,
  PRIMARY KEY (child_id, parent_id)
) WITHOUT ROWID;
CREATE INDEX dependency_parent ON dependency (parent_id, child_id);
-- Ends of runs of parents, written by FINISH; served: children up to this id have been.
CREATE TABLE dependency_event (
  no INTEGER PRIMARY KEY AUTOINCREMENT,
  turn INTEGER NOT NULL,
  served INTEGER NOT NULL,
  shard INTEGER NOT NULL,
  scheduled_at INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  part INTEGER NOT NULL,
  state INTEGER NOT NULL,
  finished_at INTEGER NOT NULL
);

-- What runs have logged, a row a line; and how far the log of each attempt goes.
CREATE TABLE run_log (
  scheduled_at INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  part INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  level INTEGER NOT NULL,
  at INTEGER NOT NULL,
  taken_at INTEGER NOT NULL,
  cut INTEGER NOT NULL,
  text TEXT NOT NULL,
  PRIMARY KEY (scheduled_at, task_id, part, attempt, seq)
) WITHOUT ROWID;
CREATE TABLE run_log_head (
  scheduled_at INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  part INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  lines INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  is_full INTEGER NOT NULL, -- lines were dropped: the run has reached its bound
  PRIMARY KEY (scheduled_at, task_id, part, attempt)
) WITHOUT ROWID;

-- Runs that ended in FAIL: written by their FINISH, gone with the run; what became of each is changed once or twice at most.
CREATE TABLE dead_letter (
  scheduled_at INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  part INTEGER NOT NULL,
  shard INTEGER NOT NULL,
  state INTEGER NOT NULL, -- 0 OPEN, 1 REPLAYED, 2 DISCARDED
  reason INTEGER NOT NULL,
  handled_at INTEGER NOT NULL,
  ns TEXT NOT NULL,
  grp TEXT NOT NULL, -- as the task's were when it failed
  handler TEXT NOT NULL,
  error_type TEXT,
  handled_by TEXT,
  replay_run TEXT,
  note TEXT,
  PRIMARY KEY (scheduled_at, task_id, part)
) WITHOUT ROWID;
CREATE INDEX dead_letter_task ON dead_letter (task_id, scheduled_at, part);
CREATE INDEX dead_letter_ns ON dead_letter (ns, scheduled_at, task_id, part);
CREATE INDEX dead_letter_open ON dead_letter (scheduled_at, task_id, part) WHERE state = 0;

CREATE TABLE inbox (
  shard INTEGER NOT NULL,
  no INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  body TEXT NOT NULL,
  at INTEGER NOT NULL, -- appended
  PRIMARY KEY (shard, no)
) WITHOUT ROWID;

CREATE TABLE executor_group (
  id INTEGER PRIMARY KEY,
  ns TEXT NOT NULL,
  name TEXT NOT NULL,
  channel INTEGER NOT NULL,
  routing INTEGER NOT NULL,
  max_connections INTEGER NOT NULL,
  max_concurrent INTEGER NOT NULL, -- 0 = any number
  rate_milli INTEGER NOT NULL, -- begun in 1,000 s; 0 = any number
  rate_burst INTEGER NOT NULL, -- 0 = as many as in a second
  secret_sealed TEXT,
  secret_previous_sealed TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  version INTEGER NOT NULL,
  UNIQUE (ns, name)
);

CREATE TABLE executor (
  ns TEXT NOT NULL,
  grp TEXT NOT NULL,
  id TEXT NOT NULL,
  url TEXT NOT NULL,
  handlers TEXT,
  version TEXT,
  labels TEXT,
  incarnation INTEGER NOT NULL,
  slots INTEGER NOT NULL,
  running INTEGER NOT NULL,
  weight INTEGER NOT NULL,
  state INTEGER NOT NULL,
  registered_at INTEGER NOT NULL,
  beat_at INTEGER NOT NULL,
  PRIMARY KEY (ns, grp, id)
) WITHOUT ROWID;

CREATE TABLE token (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  hash BLOB NOT NULL UNIQUE,
  name TEXT NOT NULL,
  ns TEXT,
  grp TEXT,
  role INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL,
  created_by TEXT
);

CREATE TABLE idempotency (
  route TEXT NOT NULL,
  key TEXT NOT NULL,
  body_hash BLOB NOT NULL,
  answer TEXT NOT NULL,
  expires_at INTEGER NOT NULL,
  PRIMARY KEY (route, key)
) WITHOUT ROWID;
CREATE INDEX idempotency_expiry ON idempotency (expires_at);

-- channels (kind 0) and rules (kind 1)
CREATE TABLE alert_def (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind INTEGER NOT NULL,
  ns TEXT NOT NULL,
  name TEXT NOT NULL,
  definition TEXT NOT NULL,
  url_sealed TEXT,
  secret_sealed TEXT,
  secret_previous_sealed TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  version INTEGER NOT NULL,
  UNIQUE (kind, ns, name)
);
-- Runs that ended in FAIL and whose alerts are not made yet; written by FINISH, only while there is a rule.
CREATE TABLE alert_event (
  no INTEGER PRIMARY KEY AUTOINCREMENT,
  shard INTEGER NOT NULL,
  scheduled_at INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  part INTEGER NOT NULL
);
CREATE TABLE alert (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  rule_id INTEGER NOT NULL,
  channel_id INTEGER NOT NULL,
  task_id INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  state INTEGER NOT NULL,
  summary INTEGER NOT NULL,
  closed INTEGER NOT NULL,
  count INTEGER NOT NULL,
  attempts INTEGER NOT NULL,
  tries INTEGER NOT NULL,
  status INTEGER NOT NULL,
  first_at INTEGER NOT NULL,
  last_at INTEGER NOT NULL,
  window_until INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  next_at INTEGER NOT NULL,
  give_up_at INTEGER NOT NULL,
  sent_at INTEGER NOT NULL,
  ns TEXT NOT NULL,
  rule TEXT NOT NULL,
  channel TEXT NOT NULL,
  task_name TEXT NOT NULL,
  error TEXT,
  details TEXT NOT NULL,
  UNIQUE (rule_id, channel_id, task_id, seq)
);
CREATE INDEX alert_due ON alert (next_at) WHERE state = 0;
CREATE INDEX alert_ended ON alert (created_at) WHERE state <> 0;
CREATE TABLE alert_attempt (
  alert_id INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  at INTEGER NOT NULL,
  took INTEGER NOT NULL,
  status INTEGER NOT NULL,
  error TEXT,
  PRIMARY KEY (alert_id, attempt)
) WITHOUT ROWID;
