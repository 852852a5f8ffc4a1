-- The source whose `apply` made a task; '' = made by hand, or by an apply without a source.
ALTER TABLE task ADD COLUMN managed_by TEXT NOT NULL DEFAULT '';
CREATE INDEX task_managed ON task (managed_by, id) WHERE managed_by <> '';
