/* Calendars. Which tasks use them the schema knows (generated columns, a foreign key). */
#include "store/sqlite/sqlite.h"

static void get_calendar(struct sqlite_tx *tx, enum sql id, struct calendar_row *c) {
  db_get(tx->db, id, tx->mem, "ssssilll", &c->ns, &c->name, &c->definition, &c->updated_by, &c->version,
         &c->created_at, &c->updated_at, &c->tasks);
}

static int find_calendar(struct sqlite_tx *tx, struct slice ns, struct slice name, struct calendar_row *ret) {
  int r = db_first(tx->db, SQL_CALENDAR_GET, tx->e, "tt", ns, name);
  if (r > 0)
    get_calendar(tx, SQL_CALENDAR_GET, ret);
  else if (r == 0)
    r = err_set(tx->e, ERR_NOT_FOUND, "there is no calendar %.*s", SLICE_FMT(name));
  return r < 0 ? r : 0;
}

static int write_calendar(struct sqlite_tx *tx, const struct st_calendar_put *in) {
  const struct calendar_row *c = &in->calendar;
  if (in->expected_version)
    return db_run(tx->db, SQL_CALENDAR_CHANGE, tx->e, "ttttli", c->ns, c->name, c->definition, c->updated_by,
                  tx->now, in->expected_version);
  int r =
      db_run(tx->db, SQL_CALENDAR_NEW, tx->e, "ttttl", c->ns, c->name, c->definition, c->updated_by, tx->now);
  if (r < 0 && db_is_duplicate(tx->db))
    return err_field(tx->e, ERR_CONFLICT, "/name", "the calendar %.*s exists", SLICE_FMT(c->name));
  return r;
}

int sqlite_calendar_put(struct store *s, const struct st_calendar_put *in, struct st_calendar_put_ret *ret,
                        struct arena *mem, struct err *e) {
  struct calendar_row now = {};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  int changed = write_calendar(&tx, in);
  r = changed < 0 ? changed : find_calendar(&tx, in->calendar.ns, in->calendar.name, &now);
  if (r == 0 && changed == 0)
    r = err_set(e, ERR_STALE, "the calendar is at version %d, not %d", (int)now.version,
                (int)in->expected_version);
  r = sqlite_write_end(&tx, r);
  if (r == 0)
    ret->calendar = now;
  return r;
}

int sqlite_calendar_get(struct store *s, const struct st_calendar_get *in, struct st_calendar_get_ret *ret,
                        struct arena *mem, struct err *e) {
  struct calendar_row found;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = sqlite_read_end(&tx, find_calendar(&tx, in->ns, in->name, &found));
  if (r == 0)
    ret->calendar = found;
  return r;
}

int sqlite_calendar_list(struct store *s, const struct st_calendar_list *in, struct st_calendar_list_ret *ret,
                         struct arena *mem, struct err *e) {
  struct st_calendar_list_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_CALENDAR_LIST, e, "s", sqlite_filter(in->ns));
  while (r >= 0 && (r = db_step(tx.db, SQL_CALENDAR_LIST, e)) > 0)
    get_calendar(&tx, SQL_CALENDAR_LIST, sqlite_push(mem, out.rows, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_calendar_delete(struct store *s, const struct st_calendar_delete *in,
                           struct st_calendar_delete_ret *ret, struct arena *mem, struct err *e) {
  struct calendar_row found;
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  r = find_calendar(&tx, in->ns, in->name, &found);
  if (r == 0 && found.tasks)
    r = err_set(e, ERR_CONFLICT, "%lld tasks use the calendar %.*s", (long long)found.tasks,
                SLICE_FMT(in->name));
  if (r == 0)
    r = db_run(tx.db, SQL_CALENDAR_DELETE, e, "tt", in->ns, in->name);
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}

int sqlite_calendar_behind(struct store *s, const struct st_calendar_behind *in,
                           struct st_calendar_behind_ret *ret, struct arena *mem, struct err *e) {
  struct st_calendar_behind_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_CALENDAR_BEHIND, e, "i", in->limit);
  while (r >= 0 && (r = db_step(tx.db, SQL_CALENDAR_BEHIND, e)) > 0)
    db_get(tx.db, SQL_CALENDAR_BEHIND, mem, "l", sqlite_push(mem, out.task_ids, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}
