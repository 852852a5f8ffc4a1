/* Channels and rules of alerts. */
#include "store/sqlite/sqlite.h"

_Static_assert(ALERT_DEF_RULE == 1, "number used in SQL");

static void get_def(struct sqlite_tx *tx, enum sql id, struct alert_def_row *d) {
  db_get(tx->db, id, tx->mem, "lisssssslli", &d->id, &d->kind, &d->ns, &d->name, &d->definition,
         &d->url_sealed, &d->secret_sealed, &d->secret_previous_sealed, &d->created_at, &d->updated_at,
         &d->version);
}

static const char *kind_word(enum alert_def_kind kind) {
  return kind == ALERT_DEF_CHANNEL ? "alert channel" : "alert rule";
}

static int find_def(struct sqlite_tx *tx, enum alert_def_kind kind, struct slice ns, struct slice name,
                    struct alert_def_row *ret) {
  int r = db_first(tx->db, SQL_ALERT_DEF_GET, tx->e, "itt", kind, ns, name);
  if (r > 0)
    get_def(tx, SQL_ALERT_DEF_GET, ret);
  else if (r == 0)
    r = err_set(tx->e, ERR_NOT_FOUND, "there is no %s %.*s", kind_word(kind), SLICE_FMT(name));
  return r < 0 ? r : 0;
}

static int write_def(struct sqlite_tx *tx, const struct st_alert_def_put *in) {
  const struct alert_def_row *d = &in->def;
  if (in->expected_version)
    return db_run(tx->db, SQL_ALERT_DEF_CHANGE, tx->e, "ittssssli", d->kind, d->ns, d->name, d->definition,
                  d->url_sealed, d->secret_sealed, d->secret_previous_sealed, tx->now, in->expected_version);
  int r = db_run(tx->db, SQL_ALERT_DEF_NEW, tx->e, "ittssssl", d->kind, d->ns, d->name, d->definition,
                 d->url_sealed, d->secret_sealed, d->secret_previous_sealed, tx->now);
  if (r < 0 && db_is_duplicate(tx->db))
    return err_field(tx->e, ERR_CONFLICT, "/name", "the %s %.*s exists", kind_word(d->kind),
                     SLICE_FMT(d->name));
  return r;
}

int sqlite_alert_def_put(struct store *s, const struct st_alert_def_put *in, struct st_alert_def_put_ret *ret,
                         struct arena *mem, struct err *e) {
  struct alert_def_row now = {};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  int changed = write_def(&tx, in);
  r = changed < 0 ? changed : find_def(&tx, in->def.kind, in->def.ns, in->def.name, &now);
  if (r == 0 && changed == 0)
    r = err_set(e, ERR_STALE, "the %s is at version %d, not %d", kind_word(in->def.kind), (int)now.version,
                (int)in->expected_version);
  r = sqlite_write_end(&tx, r);
  if (r == 0)
    ret->def = now;
  return r;
}

int sqlite_alert_def_get(struct store *s, const struct st_alert_def_get *in, struct st_alert_def_get_ret *ret,
                         struct arena *mem, struct err *e) {
  struct alert_def_row found;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = sqlite_read_end(&tx, find_def(&tx, in->kind, in->ns, in->name, &found));
  if (r == 0)
    ret->def = found;
  return r;
}

int sqlite_alert_def_list(struct store *s, const struct st_alert_def_list *in,
                          struct st_alert_def_list_ret *ret, struct arena *mem, struct err *e) {
  struct st_alert_def_list_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_ALERT_DEF_LIST, e, "is", in->kind, sqlite_filter(in->ns));
  while (r >= 0 && (r = db_step(tx.db, SQL_ALERT_DEF_LIST, e)) > 0)
    get_def(&tx, SQL_ALERT_DEF_LIST, sqlite_push(mem, out.rows, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_alert_def_delete(struct store *s, const struct st_alert_def_delete *in,
                            struct st_alert_def_delete_ret *ret, struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  r = db_run(tx.db, SQL_ALERT_DEF_DELETE, e, "itt", in->kind, in->ns, in->name);
  if (r == 0)
    r = err_set(e, ERR_NOT_FOUND, "there is no %s %.*s", kind_word(in->kind), SLICE_FMT(in->name));
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}
