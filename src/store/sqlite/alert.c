/* Events of failed runs, the alerts that they become, and the log of their deliveries. */
#include "store/sqlite/sqlite.h"

_Static_assert(ALERT_PENDING == 0 && ALERT_DELIVERED == 1 && RUN_FAIL == 3, "numbers used in SQL");

int sqlite_alert_events(struct store *s, const struct st_alert_events *in, struct st_alert_events_ret *ret,
                        struct arena *mem, struct err *e) {
  struct st_alert_events_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_ALERT_EVENTS, e, "i", in->limit);
  while (r >= 0 && (r = db_step(tx.db, SQL_ALERT_EVENTS, e)) > 0) {
    struct alert_event *v = sqlite_push(mem, out.rows, out.count, cap);
    db_get(tx.db, SQL_ALERT_EVENTS, mem, "lb" RUN_TYPES "ssss", &v->no, &v->there, RUN_INTO(&v->run),
           &v->task_name, &v->ns, &v->group, &v->handler);
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

/* ------------------------------------------------------------------ alerts */
static void get_alert(struct sqlite_tx *tx, enum sql id, struct alert_row *a) {
  db_get(tx->db, id, tx->mem, "lllliibbliiilllllllssssss", &a->id, &a->key.rule_id, &a->key.channel_id,
         &a->key.task_id, &a->seq, &a->state, &a->summary, &a->closed, &a->count, &a->attempts, &a->tries,
         &a->status, &a->first_at, &a->last_at, &a->window_until, &a->created_at, &a->next_at, &a->give_up_at,
         &a->sent_at, &a->ns, &a->rule, &a->channel, &a->task_name, &a->error, &a->details);
}

int sqlite_alert_latest(struct store *s, const struct st_alert_latest *in, struct st_alert_latest_ret *ret,
                        struct arena *mem, struct err *e) {
  struct alert_row *rows = arena_array(mem, in->count + 1, sizeof *rows);
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  for (size_t i = 0; r >= 0 && i < in->count; i++) {
    const struct alert_key *k = &in->keys[i];
    r = db_first(tx.db, SQL_ALERT_LATEST, e, "lll", k->rule_id, k->channel_id, k->task_id);
    if (r > 0)
      get_alert(&tx, SQL_ALERT_LATEST, &rows[i]);
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  ret->rows = rows;
  return 0;
}

static int moved(struct err *e, const char *what, int64_t id) {
  return err_set(e, ERR_CONFLICT, "the %s %lld has been taken by somebody else", what, (long long)id);
}

static int insert_alert(struct sqlite_tx *tx, const struct alert_row *a) {
  int r =
      db_run(tx->db, SQL_ALERT_NEW, tx->e, "llliillllllltttts", a->key.rule_id, a->key.channel_id,
             a->key.task_id, a->seq, (int)a->summary, a->count, a->first_at, a->last_at, a->window_until,
             a->created_at, a->next_at, a->give_up_at, a->ns, a->rule, a->channel, a->task_name, a->details);
  return r < 0 && db_is_duplicate(tx->db) ? moved(tx->e, "alert of task", a->key.task_id) : r;
}

static int apply_alerts(struct sqlite_tx *tx, const struct st_alert_apply *in) {
  int r = 0;
  for (size_t i = 0; r >= 0 && i < in->event_count; i++) {
    r = db_run(tx->db, SQL_ALERT_EVENT_DELETE, tx->e, "l", in->events[i]);
    r = r == 0 ? moved(tx->e, "event", in->events[i]) : r;
  }
  for (size_t i = 0; r >= 0 && i < in->bump_count; i++) {
    const struct alert_bump *b = &in->bumps[i];
    r = db_run(tx->db, SQL_ALERT_BUMP, tx->e, "lllls", b->id, b->seen_count, b->count, b->last_at,
               b->details);
    r = r == 0 ? moved(tx->e, "alert", b->id) : r;
  }
  for (size_t i = 0; r >= 0 && i < in->alert_count; i++)
    r = insert_alert(tx, &in->alerts[i]);
  return r < 0 ? r : 0;
}

int sqlite_alert_apply(struct store *s, const struct st_alert_apply *in, struct st_alert_apply_ret *ret,
                       struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  return r < 0 ? r : sqlite_write_end(&tx, apply_alerts(&tx, in));
}

/* ------------------------------------------------------------------ deliveries */
/* Nothing is due most of the time: that is found out without the writer connection. */
static int look(struct store *s, struct st_alert_claim_ret *out, struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_ALERT_PENDING, e, "l", tx.now);
  if (r > 0)
    db_get(tx.db, SQL_ALERT_PENDING, NULL, "ll", &out->pending, &out->oldest_at);
  out->now = tx.now;
  return sqlite_read_end(&tx, r < 0 ? r : 0);
}

int sqlite_alert_claim(struct store *s, const struct st_alert_claim *in, struct st_alert_claim_ret *ret,
                       struct arena *mem, struct err *e) {
  struct st_alert_claim_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = look(s, &out, mem, e);
  if (r == 0 && out.oldest_at && in->limit > 0) {
    r = sqlite_write(&tx, s, mem, e);
    if (r < 0)
      return r;
    r = db_query(tx.db, SQL_ALERT_CLAIM, e, "lli", tx.now, tx.now + in->lease, in->limit);
    while (r >= 0 && (r = db_step(tx.db, SQL_ALERT_CLAIM, e)) > 0)
      get_alert(&tx, SQL_ALERT_CLAIM, sqlite_push(mem, out.rows, out.count, cap));
    r = sqlite_write_end(&tx, r);
  }
  if (r == 0)
    *ret = out;
  return r;
}

int sqlite_alert_result(struct store *s, const struct st_alert_result *in, struct st_alert_result_ret *ret,
                        struct arena *mem, struct err *e) {
  const struct alert_attempt_row *a = &in->attempt;
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  r = db_run(tx.db, SQL_ALERT_ATTEMPT_NEW, e, "lillis", in->id, a->attempt, a->at, a->took, a->status,
             a->error);
  if (r >= 0)
    r = db_run(tx.db, SQL_ALERT_RESULT, e, "liilisl", in->id, a->attempt, in->state, tx.now + in->next_in,
               a->status, a->error, tx.now);
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}

int sqlite_alert_list(struct store *s, const struct st_alert_list *in, struct st_alert_list_ret *ret,
                      struct arena *mem, struct err *e) {
  struct st_alert_list_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_ALERT_LIST, e, "lssslii", in->before ? in->before : INT64_MAX,
               sqlite_filter(in->ns), sqlite_filter(in->rule), sqlite_filter(in->channel), in->task_id,
               in->state, in->limit);
  while (r >= 0 && (r = db_step(tx.db, SQL_ALERT_LIST, e)) > 0)
    get_alert(&tx, SQL_ALERT_LIST, sqlite_push(mem, out.rows, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

static int not_there(struct err *e, int64_t id) {
  return err_set(e, ERR_NOT_FOUND, "there is no alert %lld", (long long)id);
}

int sqlite_alert_get(struct store *s, const struct st_alert_get *in, struct st_alert_get_ret *ret,
                     struct arena *mem, struct err *e) {
  struct st_alert_get_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_ALERT_GET, e, "l", in->id);
  if (r > 0)
    get_alert(&tx, SQL_ALERT_GET, &out.alert);
  r = r == 0 ? not_there(e, in->id) : r;
  if (r > 0)
    r = db_query(tx.db, SQL_ALERT_ATTEMPTS, e, "l", in->id);
  while (r >= 0 && (r = db_step(tx.db, SQL_ALERT_ATTEMPTS, e)) > 0) {
    struct alert_attempt_row *a = sqlite_push(mem, out.attempts, out.attempt_count, cap);
    db_get(tx.db, SQL_ALERT_ATTEMPTS, mem, "illis", &a->attempt, &a->at, &a->took, &a->status, &a->error);
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_alert_send(struct store *s, const struct st_alert_send *in, struct st_alert_send_ret *ret,
                      struct arena *mem, struct err *e) {
  struct alert_row row = {};
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_ALERT_SEND, e, "lll", in->id, tx.now, tx.now + in->give_up_in);
  if (r > 0)
    get_alert(&tx, SQL_ALERT_SEND, &row);
  r = sqlite_write_end(&tx, r == 0 ? not_there(e, in->id) : r < 0 ? r : 0);
  if (r == 0)
    ret->alert = row;
  return r;
}

int sqlite_alert_expire(struct store *s, const struct st_alert_expire *in, struct st_alert_expire_ret *ret,
                        struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_run(tx.db, SQL_ALERT_EXPIRE_ATTEMPTS, e, "li", tx.now - in->age, in->limit);
  if (r >= 0)
    r = db_run(tx.db, SQL_ALERT_EXPIRE, e, "li", tx.now - in->age, in->limit);
  r = sqlite_write_end(&tx, r);
  if (r < 0)
    return r;
  ret->removed = r;
  return 0;
}
