#include "access/internal.h"
#include "access/token_file.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/crypto.h"

/* The order that leaves no unusable state behind: (1) the token stands in admin.token.new, durably; (2) its hash goes into the
 * database, if that is still without any token; (3) the file gets its final name.
 * A crash after 1: the next start uses the same token. After 2: the next start sees that the pending token is valid, and does 3. */

static int is_empty(struct access *a, bool *ret, struct err *e) {
  struct st_token_list in = {.limit = 1};
  struct st_token_list_ret out;
  auto_arena mem = {0};
  int r = store_token_list(a->o.store, &in, &out, &mem, e);
  if (r >= 0)
    *ret = out.count == 0;
  return r < 0 ? r : 0;
}

static int publish(const struct token_file *f, struct err *e) {
  bool kept = false;
  int r = token_file_publish(f, &kept, e);
  if (r == 0 && kept)
    log_warn("the first admin token has been written, the one of another database is kept",
             LF_S("file", f->final), LF_S("former", f->former));
  else if (r == 0)
    log_info("the first admin token has been written", LF_S("file", f->final));
  return r;
}

/* A database with tokens: finish what an earlier start began, or clear up after it. */
static int settle(struct access *a, const struct token_file *f, struct err *e) {
  char text[ACCESS_TOKEN_TEXT_MAX];
  int r = token_file_read(f, text, sizeof text, e);
  if (r == -ENOENT) {
    token_file_discard(f); /* a torn one */
    return 0;
  }
  if (r < 0)
    return r;
  struct st_token_find in;
  struct st_token_find_ret out;
  auto_arena mem = {0};
  crypto_sha256(slice_of(text), in.hash);
  r = store_token_find(a->o.store, &in, &out, &mem, e);
  if (r == ERR_NOT_FOUND) {
    token_file_discard(f); /* another node was first */
    return 0;
  }
  return r < 0 ? r : publish(f, e);
}

static int first_token(struct access *a, const struct token_file *f, struct err *e) {
  char text[ACCESS_TOKEN_TEXT_MAX];
  int r = token_file_read(f, text, sizeof text, e);
  if (r == -ENOENT) {
    crypto_token_new(ACCESS_TOKEN_PREFIX, text);
    r = token_file_write(f, text, e);
  }
  if (r < 0)
    return r;
  struct st_token_put in = {.only_if_none = true,
                            .token = {.name = SLICE("bootstrap"),
                                      .role = ROLE_ADMIN,
                                      .created_by = SLICE("bootstrap"),
                                      .created_at = a->o.clock->wall(a->o.clock)}};
  struct st_token_put_ret out;
  auto_arena mem = {0};
  crypto_sha256(slice_of(text), in.token.hash);
  r = store_token_put(a->o.store, &in, &out, &mem, e);
  if (r == 0)
    return publish(f, e);
  return r < 0 ? r : settle(a, f, e); /* 1: somebody else's is valid */
}

int access_bootstrap(struct access *a, struct err *e) {
  struct token_file *f = mem_alloc(sizeof *f);
  bool empty = false;
  int r = token_file_init(f, a->o.state_dir, e);
  if (r == 0)
    r = access_namespace_create(a, SLICE(ACCESS_NS_DEFAULT), SLICE("bootstrap"), e);
  if (r >= 0)
    r = is_empty(a, &empty, e);
  if (r >= 0)
    r = empty ? first_token(a, f, e) : settle(a, f, e);
  mem_free(f);
  return r < 0 ? r : 0;
}
