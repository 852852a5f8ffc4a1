#include "access/access.h"
#include "access/internal.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/parse.h"
#include "net/crypto.h"

enum { IDEM_EXPIRE_STEP = 1000 };

void access_options_default(struct access_options *o) {
  *o = (struct access_options){.clock = &clock_system, .cache_ttl = 2 * USEC_PER_SEC, .cache_max = 1024};
}

struct access *access_new(const struct access_options *o) {
  struct access *a = mem_zalloc(sizeof *a);
  a->o = *o;
  mutex_init(&a->lock);
  mutex_init(&a->bounds);
  return a;
}

static void forget_all(struct access *a) {
  struct cached *x, *next;
  HASH_ITER (hh, a->cache, x, next) {
    HASH_DEL(a->cache, x);
    mem_free(x);
  }
}

static void forget_namespaces(struct access *a) {
  struct known_ns *x, *next;
  HASH_ITER (hh, a->namespaces, x, next) {
    HASH_DEL(a->namespaces, x);
    mem_free(x);
  }
}

void access_free(struct access **a) {
  if (!*a)
    return;
  forget_all(*a);
  forget_namespaces(*a);
  mutex_done(&(*a)->lock);
  mutex_done(&(*a)->bounds);
  mem_freep(a);
}

/* ------------------------------------------------------------------ checking */

/* "Bearer <token>", the scheme in any case (RFC 9110 §11.1). */
static int bearer(struct slice header, struct slice *ret, struct err *e) {
  if (!header.n)
    return err_set(e, ERR_UNAUTHENTICATED, "expected the header Authorization: Bearer <token>");
  struct slice rest, scheme = slice_cut(slice_trim(header), ' ', &rest);
  rest = slice_trim(rest);
  if (!slice_eqz_nocase(scheme, "bearer") || !rest.n)
    return err_set(e, ERR_UNAUTHENTICATED, "expected the authorization scheme Bearer and a token");
  if (rest.n != ACCESS_TOKEN_CHARS ||
      memcmp(rest.p, ACCESS_TOKEN_PREFIX, sizeof ACCESS_TOKEN_PREFIX - 1) != 0)
    return err_set(e, ERR_UNAUTHENTICATED, "this is not a token of this centre");
  *ret = rest;
  return 0;
}

static bool cached(struct access *a, const uint8_t hash[32], struct access_identity *ret) {
  usec_t now = a->o.clock->mono(a->o.clock);
  struct cached *x;
  bool good = false;
  mutex_lock(&a->lock);
  HASH_FIND(hh, a->cache, hash, 32, x);
  if (x && now < x->until) {
    *ret = x->who;
    good = true;
  }
  mutex_unlock(&a->lock);
  return good;
}

/* `generation`: as read before the store was asked. A token that was deleted since is not remembered. */
static void remember(struct access *a, const uint8_t hash[32], const struct access_identity *who,
                     struct moment m) {
  struct cached *x;
  mutex_lock(&a->lock);
  if (m.generation == a->generation && m.until > m.asked) {
    HASH_FIND(hh, a->cache, hash, 32, x);
    if (!x) {
      if ((int)HASH_COUNT(a->cache) >= a->o.cache_max)
        forget_all(a); /* rare and cheap: they come back with one look-up each */
      x = mem_zalloc(sizeof *x);
      memcpy(x->hash, hash, 32);
      HASH_ADD(hh, a->cache, hash, 32, x);
    }
    x->who = *who;
    x->until = m.until;
  }
  mutex_unlock(&a->lock);
}

static int identity(const struct token_row *t, struct access_identity *ret, struct err *e) {
  struct access_identity i = {.token_id = t->id, .role = t->role};
  if (text_copy(i.name, sizeof i.name, t->name) < 0 || text_copy(i.ns, sizeof i.ns, t->ns) < 0 ||
      text_copy(i.group, sizeof i.group, t->group) < 0) /* a cut namespace would be another one */
    return err_set(e, ERR_INTERNAL, "token %lld has a name that is too long", (long long)t->id);
  *ret = i;
  return 0;
}

int access_check(struct access *a, struct slice authorization, struct access_identity *ret, struct err *e) {
  struct slice token;
  int r = bearer(authorization, &token, e);
  if (r < 0)
    return r;
  struct st_token_find in;
  crypto_sha256(token, in.hash);
  if (cached(a, in.hash, ret))
    return 0;
  struct moment m = {.asked = a->o.clock->mono(a->o.clock)};
  mutex_lock(&a->lock);
  m.generation = a->generation;
  mutex_unlock(&a->lock);
  auto_arena mem = {0};
  struct st_token_find_ret found;
  r = store_token_find(a->o.store, &in, &found, &mem, e);
  if (r == ERR_NOT_FOUND)
    return err_set(e, ERR_UNAUTHENTICATED, "the token is not known or has expired");
  struct access_identity who;
  if (r < 0 || (r = identity(&found.token, &who, e)) < 0)
    return r;
  m.until = m.asked + a->o.cache_ttl;
  if (found.token
          .expires_at) { /* never trusted beyond its end; the wall clock is near enough to the database's for this */
    usec_t left = found.token.expires_at - a->o.clock->wall(a->o.clock);
    if (left < a->o.cache_ttl)
      m.until = m.asked + left;
  }
  remember(a, in.hash, &who, m);
  *ret = who;
  return 0;
}

bool access_check_cached(struct access *a, struct slice authorization, struct access_identity *ret) {
  struct slice token;
  uint8_t hash[32];
  if (bearer(authorization, &token, NULL) < 0)
    return false;
  crypto_sha256(token, hash);
  return cached(a, hash, ret);
}

int access_need_role(const struct access_identity *i, enum token_role want, struct err *e) {
  bool good = want == ROLE_EXECUTOR
                  ? i->role == ROLE_EXECUTOR || i->role == ROLE_OPERATOR || i->role == ROLE_ADMIN
                  : i->role != ROLE_EXECUTOR && i->role >= want;
  if (good)
    return 0;
  return err_set(e, ERR_FORBIDDEN, "this needs the role %s; the token has %s", token_role_names[want],
                 token_role_names[i->role]);
}

int access_need_ns(const struct access_identity *i, struct slice ns, struct err *e) {
  if (!i->ns[0] || slice_eqz(ns, i->ns))
    return 0;
  return err_field(e, ERR_FORBIDDEN, "/namespace", "this token is bound to the namespace \"%s\"", i->ns);
}

int access_need_group(const struct access_identity *i, struct slice ns, struct slice group, struct err *e) {
  int r = access_need_ns(i, ns, e);
  if (r < 0 || !i->group[0] || slice_eqz(group, i->group))
    return r;
  return err_field(e, ERR_FORBIDDEN, "/group", "this token is bound to the executor group \"%s\"", i->group);
}

/* ------------------------------------------------------------------ tokens */

static int check_name(struct slice text, const char *field, struct err *e) {
  int r = parse_name(text, ACCESS_NAME_MAX, e);
  if (r < 0 && e)
    (void)err_at(e, field);
  return r;
}

static int check_new(const struct access_token_new *t, struct err *e) {
  int r = check_name(t->name, "/name", e);
  if (r < 0 || (t->ns.n && (r = check_name(t->ns, "/namespace", e)) < 0) ||
      (t->group.n && (r = check_name(t->group, "/group", e)) < 0))
    return r;
  if (t->role == ROLE_EXECUTOR && !t->ns.n)
    return err_field(e, ERR_MISSING, "/namespace", "an EXECUTOR token is bound to one namespace and group");
  if (t->role == ROLE_EXECUTOR && !t->group.n)
    return err_field(e, ERR_MISSING, "/group", "an EXECUTOR token is bound to one namespace and group");
  if (t->role != ROLE_EXECUTOR && t->group.n)
    return err_field(e, ERR_INVALID, "/group", "only an EXECUTOR token is bound to a group");
  if (t->expires_at < 0)
    return err_field(e, ERR_INVALID, "/expires_at", "expected an instant after 1970");
  return 0;
}

int access_token_create(struct access *a, const struct access_token_new *t, struct slice by,
                        char ret_text[ACCESS_TOKEN_TEXT_MAX], struct token_row *ret, struct err *e) {
  int r = check_new(t, e);
  if (r < 0)
    return r;
  if (t->expires_at && t->expires_at <= a->o.clock->wall(a->o.clock))
    return err_field(e, ERR_IN_THE_PAST, "/expires_at", "expected an instant to come");
  if (t->ns.n && (r = access_namespace_need(a, t->ns, e)) < 0)
    return r;
  char text[ACCESS_TOKEN_TEXT_MAX];
  crypto_token_new(ACCESS_TOKEN_PREFIX, text);
  struct st_token_put in = {.token = {.name = t->name,
                                      .ns = t->ns,
                                      .group = t->group,
                                      .role = t->role,
                                      .expires_at = t->expires_at,
                                      .created_by = by,
                                      .created_at = a->o.clock->wall(a->o.clock)}};
  crypto_sha256(slice_of(text), in.token.hash);
  struct st_token_put_ret out;
  auto_arena mem = {0};
  r = store_token_put(a->o.store, &in, &out, &mem, e);
  if (r < 0)
    return r;
  log_info("token created", LF_I("token_id", out.id), LF_L("name", t->name),
           LF_S("role", token_role_names[t->role]), LF_L("namespace", t->ns), LF_L("group", t->group),
           LF_L("by", by));
  in.token.id = out.id;
  memcpy(ret_text, text, sizeof text);
  *ret = in.token;
  return 0;
}

int access_token_list(struct access *a, int64_t after, int32_t limit, struct st_token_list_ret *ret,
                      struct arena *mem, struct err *e) {
  struct st_token_list in = {.after = after, .limit = limit};
  return store_token_list(a->o.store, &in, ret, mem, e);
}

int access_token_delete(struct access *a, int64_t id, struct slice by, struct err *e) {
  struct st_token_delete in = {.id = id};
  struct st_token_delete_ret out;
  auto_arena mem = {0};
  int r = store_token_delete(a->o.store, &in, &out, &mem, e);
  if (r < 0)
    return r;
  mutex_lock(&a->lock);
  a->generation++;
  forget_all(a);
  mutex_unlock(&a->lock);
  log_info("token deleted", LF_I("token_id", id), LF_L("by", by));
  return 0;
}

/* ------------------------------------------------------------------ namespaces, idempotency */

static bool ns_known(struct access *a, struct slice name) {
  struct known_ns *x;
  mutex_lock(&a->lock);
  HASH_FIND(hh, a->namespaces, name.p, name.n, x);
  mutex_unlock(&a->lock);
  return x != NULL; /* never removed before the end */
}

/* With the lock held. */
static void ns_add(struct access *a, struct slice name) {
  struct known_ns *x;
  HASH_FIND(hh, a->namespaces, name.p, name.n, x);
  if (x)
    return;
  x = mem_zalloc(sizeof *x + name.n + 1);
  memcpy(x->name, name.p, name.n);
  HASH_ADD_KEYPTR(hh, a->namespaces, x->name, name.n, x);
}

int access_namespace_create(struct access *a, struct slice name, struct slice by, struct err *e) {
  int r = check_name(name, "/name", e);
  if (r < 0)
    return r;
  struct st_namespace_put in = {.name = name};
  struct st_namespace_put_ret out;
  auto_arena mem = {0};
  r = store_namespace_put(a->o.store, &in, &out, &mem, e);
  if (r == 0)
    log_info("namespace created", LF_L("namespace", name), LF_L("by", by));
  return r;
}

int access_namespace_get(struct access *a, struct slice name, struct namespace_row *ret, struct arena *mem,
                         struct err *e) {
  struct st_namespace_list_ret all;
  int r = store_namespace_list(a->o.store, &(struct st_namespace_list){0}, &all, mem, e);
  if (r < 0)
    return r;
  for (size_t i = 0; i < all.count; i++)
    if (slice_eq(all.rows[i].name, name)) {
      *ret = all.rows[i];
      return 0;
    }
  return err_set(e, ERR_NOT_FOUND, "there is no namespace \"%.*s\"", SLICE_FMT(name));
}

int access_namespace_set(struct access *a, const struct namespace_row *row, struct slice by, struct err *e) {
  struct st_namespace_set_ret out;
  auto_arena mem = {0};
  mutex_lock(&a->bounds);
  int r = store_namespace_set(a->o.store, &(struct st_namespace_set){*row}, &out, &mem, e);
  if (r >= 0 && a->o.on_bound)
    a->o.on_bound(a->o.arg, row->name, row->max_concurrent);
  mutex_unlock(&a->bounds);
  if (r >= 0)
    log_info("namespace changed", LF_L("namespace", row->name), LF_I("retention_age", row->retention_age),
             LF_I("retention_runs", row->retention_runs), LF_I("max_concurrent", row->max_concurrent),
             LF_L("by", by));
  return r;
}

int access_bounds_read(struct access *a, struct err *e) {
  struct st_namespace_list_ret all;
  auto_arena mem = {0};
  if (!a->o.on_bound)
    return 0;
  mutex_lock(&a->bounds);
  int r = store_namespace_list(a->o.store, &(struct st_namespace_list){0}, &all, &mem, e);
  for (size_t i = 0; r >= 0 && i < all.count; i++)
    a->o.on_bound(a->o.arg, all.rows[i].name, all.rows[i].max_concurrent);
  mutex_unlock(&a->bounds);
  return r < 0 ? r : 0;
}

int access_namespace_list(struct access *a, struct st_namespace_list_ret *ret, struct arena *mem,
                          struct err *e) {
  struct st_namespace_list in = {0};
  return store_namespace_list(a->o.store, &in, ret, mem, e);
}

int access_namespace_need(struct access *a, struct slice name, struct err *e) {
  if (name.n && ns_known(a, name))
    return 0;
  auto_arena mem = {0};
  struct st_namespace_list_ret all;
  int r = access_namespace_list(a, &all, &mem, e);
  if (r < 0)
    return r;
  mutex_lock(&a->lock); /* namespaces are never removed: what is known stays true */
  for (size_t i = 0; i < all.count; i++)
    ns_add(a, all.names[i]);
  mutex_unlock(&a->lock);
  if (name.n && ns_known(a, name))
    return 0;
  return err_field(e, ERR_NOT_FOUND, "/namespace", "there is no namespace \"%.*s\"", SLICE_FMT(name));
}

int access_idem_expire(struct access *a, int64_t *ret_removed, struct err *e) {
  struct st_idem_expire in = {.limit = IDEM_EXPIRE_STEP};
  struct st_idem_expire_ret out;
  auto_arena mem = {0};
  int r = store_idem_expire(a->o.store, &in, &out, &mem, e);
  if (r >= 0)
    *ret_removed = out.removed;
  return r < 0 ? r : 0;
}
