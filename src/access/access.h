#pragma once
/* Who may do what: tokens, roles, namespaces, and the first admin token of an empty database. Owns token, namespace and
 * idempotency. Thread-safe; calls block on the database unless the answer is cached. Logs what was made and removed, never a token. */
#include "core/model.h"
#include "store/store.h"

#define ACCESS_TOKEN_PREFIX   "klt_"
#define ACCESS_NAME_MAX       128 /* bytes of a token's, namespace's or group's name */
#define ACCESS_TOKEN_TEXT_MAX 64
#define ACCESS_NS_DEFAULT     "default"

struct access;
struct access_options {
  struct store *store; /* pooled; borrowed */
  const struct clock *clock;
  const char *state_dir; /* holds admin.token */
  usec_t
      cache_ttl; /* how long a positive answer is trusted: 2 s (so long a deleted token may live on other nodes) */
  int cache_max; /* entries: 1,024 */
  /* The namespace lets so many runs be under way at once; 0 = any number. One after the other. May be NULL. */
  void (*on_bound)(void *arg, struct slice ns, int32_t max_concurrent);
  void *arg;
};
void access_options_default(struct access_options *o); /* cache_ttl, cache_max, clock */
struct access *access_new(const struct access_options *o);
void access_free(struct access **a);
/* At start, after migration. On a database without tokens: makes the namespace "default" and the first admin token, which is in
 * <state_dir>/admin.token (0600) before it is valid; any crash in between is repaired by the next start. Logs where it is. */
int access_bootstrap(struct access *a, struct err *e);

struct access_identity { /* plain data, copied */
  int64_t token_id;
  enum token_role role;
  char name[ACCESS_NAME_MAX + 1], ns[ACCESS_NAME_MAX + 1], group[ACCESS_NAME_MAX + 1]; /* "" = all */
};
/* `authorization`: the value of the header ("Bearer klt_…"). ERR_UNAUTHENTICATED with a reason that names no secret. */
int access_check(struct access *a, struct slice authorization, struct access_identity *ret, struct err *e);
/* The same from memory alone, for threads that must not block: false when the store would have to be asked. */
bool access_check_cached(struct access *a, struct slice authorization, struct access_identity *ret);
/* ERR_FORBIDDEN unless the role is `want` or above (VIEWER < OPERATOR < ADMIN; EXECUTOR only where `want` is EXECUTOR, which ADMIN
 * and OPERATOR may use as well). */
int access_need_role(const struct access_identity *i, enum token_role want, struct err *e);
/* ERR_FORBIDDEN unless the token may touch this namespace / this group. Pure. */
int access_need_ns(const struct access_identity *i, struct slice ns, struct err *e);
int access_need_group(const struct access_identity *i, struct slice ns, struct slice group, struct err *e);

struct access_token_new {
  struct slice name, ns, group; /* EXECUTOR: ns and group required; others: ns optional, no group */
  enum token_role role;
  usec_t expires_at; /* 0 = never */
};
/* The token's text is returned here once and never again. */
int access_token_create(struct access *a, const struct access_token_new *t, struct slice by,
                        char ret_text[ACCESS_TOKEN_TEXT_MAX], struct token_row *ret,
                        struct err *e); /* ret's texts are those of `t` and `by` */
int access_token_list(struct access *a, int64_t after, int32_t limit, struct st_token_list_ret *ret,
                      struct arena *mem, struct err *e);
int access_token_delete(struct access *a, int64_t id, struct slice by, struct err *e); /* ERR_NOT_FOUND */

int access_namespace_create(struct access *a, struct slice name, struct slice by,
                            struct err *e); /* 1: it existed */
/* ERR_NOT_FOUND. */
int access_namespace_get(struct access *a, struct slice name, struct namespace_row *ret, struct arena *mem,
                         struct err *e);
/* Read what they are bound to, and tell it: other nodes may have changed it. */
int access_bounds_read(struct access *a, struct err *e);
int access_namespace_set(struct access *a, const struct namespace_row *row, struct slice by, struct err *e);
int access_namespace_list(struct access *a, struct st_namespace_list_ret *ret, struct arena *mem,
                          struct err *e);
/* 0, or ERR_NOT_FOUND with field "/namespace". Known ones are cached. */
int access_namespace_need(struct access *a, struct slice name, struct err *e);

/* Remove idempotency answers whose time is up, in small steps; returns the count. For the maintenance thread. */
int access_idem_expire(struct access *a, int64_t *ret_removed, struct err *e);
