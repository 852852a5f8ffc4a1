/* Namespaces, tokens, remembered answers. */
#include "store/sqlite/sqlite.h"

int sqlite_namespace_put(struct store *s, const struct st_namespace_put *in, struct st_namespace_put_ret *ret,
                         struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  r = db_run(tx.db, SQL_NAMESPACE_PUT, e, "t", in->name);
  return sqlite_write_end(&tx, r < 0 ? r : r == 0);
}

int sqlite_namespace_list(struct store *s, const struct st_namespace_list *in,
                          struct st_namespace_list_ret *ret, struct arena *mem, struct err *e) {
  struct st_namespace_list_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  (void)in;
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_NAMESPACE_LIST, e, "");
  while (r >= 0 && (r = db_step(tx.db, SQL_NAMESPACE_LIST, e)) > 0) {
    struct namespace_row *row = sqlite_push(mem, out.rows, out.count, cap);
    db_get(tx.db, SQL_NAMESPACE_LIST, mem, "slli", &row->name, &row->retention_age, &row->retention_runs,
           &row->max_concurrent);
  }
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  out.names = arena_array(mem, out.count + 1, sizeof *out.names);
  for (size_t i = 0; i < out.count; i++)
    out.names[i] = out.rows[i].name;
  *ret = out;
  return 0;
}

int sqlite_namespace_set(struct store *s, const struct st_namespace_set *in, struct st_namespace_set_ret *ret,
                         struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  r = db_run(tx.db, SQL_NAMESPACE_SET, e, "tlli", in->row.name, in->row.retention_age, in->row.retention_runs,
             in->row.max_concurrent);
  if (r == 0)
    r = err_set(e, ERR_NOT_FOUND, "there is no namespace \"%.*s\"", SLICE_FMT(in->row.name));
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}

/* ------------------------------------------------------------------ tokens */
static void get_token(struct sqlite_tx *tx, enum sql id, struct token_row *t) {
  db_get(tx->db, id, tx->mem, "lsssihlls", &t->id, &t->name, &t->ns, &t->group, &t->role, t->hash,
         &t->created_at, &t->expires_at, &t->created_by);
}

static int insert_token(struct sqlite_tx *tx, const struct token_row *t, int64_t *ret_id) {
  int r = db_first(tx->db, SQL_TOKEN_NEW, tx->e, "htssills", t->hash, t->name, t->ns, t->group, t->role,
                   tx->now, t->expires_at, t->created_by);
  if (r > 0)
    db_get(tx->db, SQL_TOKEN_NEW, NULL, "l", ret_id);
  else if (r < 0 && db_is_duplicate(tx->db))
    r = err_set(tx->e, ERR_CONFLICT, "the token exists");
  return r < 0 ? r : 0;
}

int sqlite_token_put(struct store *s, const struct st_token_put *in, struct st_token_put_ret *ret,
                     struct arena *mem, struct err *e) {
  int64_t id = 0;
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  if (in->only_if_none)
    r = db_first(tx.db, SQL_TOKEN_ANY, e, "");
  if (r == 0)
    r = insert_token(&tx, &in->token, &id);
  r = sqlite_write_end(&tx, r);
  if (r == 0)
    ret->id = id;
  return r;
}

int sqlite_token_find(struct store *s, const struct st_token_find *in, struct st_token_find_ret *ret,
                      struct arena *mem, struct err *e) {
  struct token_row t = {};
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_first(tx.db, SQL_TOKEN_FIND, e, "hl", in->hash, tx.now);
  if (r > 0)
    get_token(&tx, SQL_TOKEN_FIND, &t);
  else if (r == 0)
    r = err_set(e, ERR_NOT_FOUND, "the token is unknown or has expired");
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  ret->token = t;
  return 0;
}

int sqlite_token_list(struct store *s, const struct st_token_list *in, struct st_token_list_ret *ret,
                      struct arena *mem, struct err *e) {
  struct st_token_list_ret out = {};
  size_t cap = 0;
  struct sqlite_tx tx;
  int r = sqlite_read(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = db_query(tx.db, SQL_TOKEN_LIST, e, "li", in->after, in->limit);
  while (r >= 0 && (r = db_step(tx.db, SQL_TOKEN_LIST, e)) > 0)
    get_token(&tx, SQL_TOKEN_LIST, sqlite_push(mem, out.rows, out.count, cap));
  if (sqlite_read_end(&tx, r) < 0)
    return r;
  *ret = out;
  return 0;
}

int sqlite_token_delete(struct store *s, const struct st_token_delete *in, struct st_token_delete_ret *ret,
                        struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  (void)ret;
  if (r < 0)
    return r;
  r = db_run(tx.db, SQL_TOKEN_DELETE, e, "l", in->id);
  if (r == 0)
    r = err_set(e, ERR_NOT_FOUND, "there is no token %lld", (long long)in->id);
  return sqlite_write_end(&tx, r < 0 ? r : 0);
}

/* ------------------------------------------------------------------ remembered answers */
int sqlite_idem_find(struct sqlite_tx *tx, const struct idem *idem, struct slice *ret_answer) {
  uint8_t hash[32] = {};
  struct slice answer;
  if (!idem)
    return 0;
  int r = db_first(tx->db, SQL_IDEM_GET, tx->e, "ttl", idem->route, idem->key, tx->now);
  if (r <= 0)
    return r;
  db_get(tx->db, SQL_IDEM_GET, tx->mem, "hs", hash, &answer);
  if (memcmp(hash, idem->body_hash, sizeof hash) != 0)
    return err_set(tx->e, ERR_IDEMPOTENCY, "the Idempotency-Key %.*s was used for another body",
                   SLICE_FMT(idem->key));
  *ret_answer = answer;
  return 1;
}

int sqlite_idem_keep(struct sqlite_tx *tx, const struct idem *idem, struct slice answer) {
  if (!idem)
    return 0;
  int r = db_run(tx->db, SQL_IDEM_PUT, tx->e, "tthtl", idem->route, idem->key, idem->body_hash, answer,
                 tx->now + idem->keep);
  return r < 0 ? r : 0;
}

int sqlite_idem_expire(struct store *s, const struct st_idem_expire *in, struct st_idem_expire_ret *ret,
                       struct arena *mem, struct err *e) {
  struct sqlite_tx tx;
  int r = sqlite_write(&tx, s, mem, e);
  if (r < 0)
    return r;
  r = sqlite_write_end(&tx, db_run(tx.db, SQL_IDEM_EXPIRE, e, "li", tx.now, in->limit));
  if (r < 0)
    return r;
  ret->removed = r;
  return 0;
}
