"""Stale writes, seen by the database itself: each session of a node says whose it is (the setting kelou.node in its URL), and triggers note every
write of run state to a shard that another node, or nobody, owned when it was written."""

TABLE = """
CREATE TABLE stale_write (at timestamptz NOT NULL DEFAULT clock_timestamp(), what text, shard int4, epoch int8, node text, owner text);
CREATE FUNCTION note_stale_rows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO stale_write (what, shard, epoch, node, owner)
    SELECT TG_OP || ' ' || TG_TABLE_NAME, s.id, s.epoch, current_setting('kelou.node', true), s.owner
    FROM (SELECT DISTINCT shard FROM touched) t JOIN shard s ON s.id = t.shard
    WHERE s.owner IS DISTINCT FROM current_setting('kelou.node', true) AND current_setting('kelou.node', true) <> '';
  RETURN NULL; END $$;
CREATE FUNCTION note_stale_mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO stale_write (what, shard, epoch, node, owner)
    VALUES ('watermark', NEW.id, NEW.epoch, current_setting('kelou.node', true), OLD.owner);
  RETURN NULL; END $$;
CREATE TRIGGER stale_mark AFTER UPDATE ON shard FOR EACH ROW
  WHEN ((NEW.fired_at, NEW.fired_task) IS DISTINCT FROM (OLD.fired_at, OLD.fired_task)
        AND OLD.owner IS DISTINCT FROM current_setting('kelou.node', true) AND current_setting('kelou.node', true) <> '')
  EXECUTE FUNCTION note_stale_mark();
"""
STATEMENT = ("CREATE TRIGGER stale_{name} AFTER {event} ON {table} REFERENCING {which} TABLE AS touched FOR EACH STATEMENT "
             "EXECUTE FUNCTION note_stale_rows();\n")
WATCHED = (("run", "INSERT", "NEW"), ("run", "UPDATE", "NEW"), ("run", "DELETE", "OLD"), ("run_history", "INSERT", "NEW"))


def install(cluster):
    """Once the tables are there."""
    cluster.sql(TABLE + "".join(STATEMENT.format(name=f"{t}_{e.lower()}", event=e, table=t, which=w) for t, e, w in WATCHED))


def stale_writes(cluster):
    """What was noted: (what, shard, epoch, node, owner, how often)."""
    return cluster.sql("SELECT what, shard, epoch, node, owner, count(*) FROM stale_write GROUP BY 1, 2, 3, 4, 5 ORDER BY min(at)")
