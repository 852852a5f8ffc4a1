/* Tokens, roles, bindings, the cache of answers, namespaces, and the first admin token at every point of a crash. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include "access/access.h"
#include "access/token_file.h"
#include "base/file.h"
#include "net/crypto.h"
#include "store_util.h"
#include <sys/stat.h>

static struct test_store t;
static struct access *a;
static struct err e;

static int setup(void **state) {
  (void)state;
  struct access_options o;
  test_ahead = 0;
  e = (struct err){0};
  test_store_open(&t);
  access_options_default(&o);
  o.store = t.store;
  o.clock = &test_clock;
  o.state_dir = t.dir;
  a = access_new(&o);
  return 0;
}

static int teardown(void **state) {
  (void)state;
  access_free(&a);
  test_store_close(&t);
  return 0;
}

static struct slice header(const char *token) {
  static char buf[128];
  (void)snprintf(buf, sizeof buf, "Bearer %s", token);
  return slice_of(buf);
}

static void path_of(const char *name, char ret[128]) { (void)snprintf(ret, 128, "%s/%s", t.dir, name); }

/* The token in the file, "" when there is none; the mode must be 0600. */
static void read_token(char ret[ACCESS_TOKEN_TEXT_MAX]) {
  char path[128];
  struct stat st;
  auto_str text;
  str_init(&text, 200);
  path_of("admin.token", path);
  ret[0] = 0;
  if (stat(path, &st) < 0)
    return;
  assert_int_equal(st.st_mode & 0777, 0600);
  OK(file_read(path, 200, &text, &e));
  assert_int_equal(text.p[text.n - 1], '\n');
  assert_int_equal(text_copy(ret, ACCESS_TOKEN_TEXT_MAX, slice_n(text.p, text.n - 1)), 0);
}

static void expect_admin(void) {
  char token[ACCESS_TOKEN_TEXT_MAX], path[128];
  struct access_identity who;
  read_token(token);
  OK(access_check(a, header(token), &who, &e));
  assert_int_equal(who.role, ROLE_ADMIN);
  path_of("admin.token.new", path);
  assert_int_equal(access(path, F_OK), -1);
}

static void test_bootstrap(void **state) {
  (void)state;
  char first[ACCESS_TOKEN_TEXT_MAX], second[ACCESS_TOKEN_TEXT_MAX];
  OK(access_bootstrap(a, &e));
  expect_admin();
  read_token(first);
  OK(access_bootstrap(a, &e)); /* a later start changes nothing */
  read_token(second);
  assert_string_equal(first, second);
  OK(access_namespace_need(a, SLICE("default"), &e));
}

/* The file of another database is kept, closed to others, before it is overwritten. */
static void test_bootstrap_former(void **state) {
  (void)state;
  char final[128], former[128];
  struct stat st;
  auto_str text;
  str_init(&text, 200);
  path_of("admin.token", final);
  path_of("admin.token.old", former);
  FILE *f = fopen(final, "w");
  assert_non_null(f);
  assert_true(fputs("klt_former\n", f) >= 0);
  assert_int_equal(fclose(f), 0);
  assert_int_equal(chmod(final, 0644), 0);
  OK(access_bootstrap(a, &e));
  expect_admin();
  assert_int_equal(stat(former, &st), 0);
  assert_int_equal(st.st_mode & 0777, 0600);
  OK(file_read(former, 200, &text, &e));
  assert_true(slice_eqz(str_slice(&text), "klt_former\n"));
}

/* Crash after the file, before the database. */
static void test_bootstrap_pending(void **state) {
  (void)state;
  struct token_file f;
  char token[ACCESS_TOKEN_TEXT_MAX], got[ACCESS_TOKEN_TEXT_MAX];
  crypto_token_new(ACCESS_TOKEN_PREFIX, token);
  OK(token_file_init(&f, t.dir, &e));
  OK(token_file_write(&f, token, &e));
  OK(access_bootstrap(a, &e));
  expect_admin();
  read_token(got);
  assert_string_equal(token, got);
}

/* Crash after the database, before the final name; then a pending file that another node's token made void; then a torn one. */
static void test_bootstrap_late(void **state) {
  (void)state;
  char pending[128], final[128];
  OK(access_bootstrap(a, &e));
  path_of("admin.token.new", pending);
  path_of("admin.token", final);
  assert_int_equal(rename(final, pending), 0);
  OK(access_bootstrap(a, &e));
  expect_admin();

  struct token_file f;
  char token[ACCESS_TOKEN_TEXT_MAX];
  crypto_token_new(ACCESS_TOKEN_PREFIX, token);
  OK(token_file_init(&f, t.dir, &e));
  OK(token_file_write(&f, token, &e));
  OK(access_bootstrap(a, &e));
  expect_admin();

  FILE *torn = fopen(pending, "w");
  assert_non_null(torn);
  assert_true(fputs("klt_abc", torn) >= 0);
  assert_int_equal(fclose(torn), 0);
  OK(access_bootstrap(a, &e));
  expect_admin();
}

static void make(const struct access_token_new *n, char text[ACCESS_TOKEN_TEXT_MAX], int64_t *ret_id) {
  struct token_row row;
  OK(access_token_create(a, n, SLICE("test"), text, &row, &e));
  *ret_id = row.id;
}

static void test_tokens(void **state) {
  (void)state;
  char text[ACCESS_TOKEN_TEXT_MAX];
  int64_t id;
  struct access_identity who;
  OK(access_bootstrap(a, &e));
  OK(access_namespace_create(a, SLICE("team"), SLICE("test"), &e));
  assert_int_equal(access_namespace_create(a, SLICE("team"), SLICE("test"), &e), 1);
  make(&(struct access_token_new){SLICE("x"), SLICE("team"), SLICE("g"), ROLE_EXECUTOR, 0}, text, &id);
  OK(access_check(a, header(text), &who, &e));
  assert_int_equal(who.token_id, id);
  assert_string_equal(who.ns, "team");
  assert_string_equal(who.group, "g");
  assert_int_equal(access_need_group(&who, SLICE("team"), SLICE("g"), &e), 0);
  assert_int_equal(access_need_group(&who, SLICE("team"), SLICE("h"), &e), ERR_FORBIDDEN);
  assert_int_equal(access_need_ns(&who, SLICE("default"), &e), ERR_FORBIDDEN);
  OK(access_token_delete(a, id, SLICE("test"), &e));
  assert_int_equal(access_check(a, header(text), &who, &e), ERR_UNAUTHENTICATED);
  assert_int_equal(access_token_delete(a, id, SLICE("test"), &e), ERR_NOT_FOUND);

  auto_arena mem = {0};
  struct st_token_list_ret all;
  OK(access_token_list(a, 0, 10, &all, &mem, &e));
  assert_int_equal(all.count, 1); /* the first admin's */
}

static void test_token_refusals(void **state) {
  (void)state;
  char text[ACCESS_TOKEN_TEXT_MAX];
  struct token_row row;
  OK(access_bootstrap(a, &e));
  static const struct {
    struct access_token_new n;
    int code;
    const char *field;
  } cases[] = {
      {{{"", 0}, {0}, {0}, ROLE_ADMIN, 0}, ERR_INVALID, "/name"},
      {{{"x", 1}, {"a/b", 3}, {0}, ROLE_ADMIN, 0}, ERR_INVALID, "/namespace"},
      {{{"x", 1}, {"nowhere", 7}, {0}, ROLE_ADMIN, 0}, ERR_NOT_FOUND, "/namespace"},
      {{{"x", 1}, {0}, {0}, ROLE_EXECUTOR, 0}, ERR_MISSING, "/namespace"},
      {{{"x", 1}, {"default", 7}, {0}, ROLE_EXECUTOR, 0}, ERR_MISSING, "/group"},
      {{{"x", 1}, {"default", 7}, {"g", 1}, ROLE_VIEWER, 0}, ERR_INVALID, "/group"},
      {{{"x", 1}, {0}, {0}, ROLE_VIEWER, 1}, ERR_IN_THE_PAST, "/expires_at"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    assert_int_equal(access_token_create(a, &cases[i].n, SLICE("test"), text, &row, &e), cases[i].code);
    assert_string_equal(e.field, cases[i].field);
  }
  static const char *const headers[] = {"",
                                        "Bearer",
                                        "Basic abc",
                                        "Bearer ",
                                        "Bearer klt_short",
                                        "Bearer xyz_0123456789012345678901234567890123456789012",
                                        "Bearer klt_0123456789012345678901234567890123456789012"};
  struct access_identity who;
  for (size_t i = 0; i < sizeof headers / sizeof *headers; i++)
    assert_int_equal(access_check(a, slice_of(headers[i]), &who, &e), ERR_UNAUTHENTICATED);
}

static void test_roles(void **state) {
  (void)state;
  static const bool may[4][4] = {/* has VIEWER, OPERATOR, ADMIN, EXECUTOR; wants the same */
                                 {true, false, false, false},
                                 {true, true, false, true},
                                 {true, true, true, true},
                                 {false, false, false, true}};
  for (int has = 0; has < 4; has++)
    for (int want = 0; want < 4; want++) {
      struct access_identity who = {.role = (enum token_role)has};
      assert_int_equal(access_need_role(&who, (enum token_role)want, &e), may[has][want] ? 0 : ERR_FORBIDDEN);
    }
}

/* A positive answer is trusted for 2 s, and never beyond the token's end. */
static void test_cache(void **state) {
  (void)state;
  char text[ACCESS_TOKEN_TEXT_MAX];
  int64_t id;
  struct access_identity who;
  OK(access_bootstrap(a, &e));
  make(&(struct access_token_new){.name = SLICE("x"), .role = ROLE_VIEWER}, text, &id);
  OK(access_check(a, header(text), &who, &e));
  struct st_token_delete in = {.id = id}; /* another node deletes it */
  struct st_token_delete_ret out;
  auto_arena mem = {0};
  OK(store_token_delete(t.store, &in, &out, &mem, &e));
  OK(access_check(a, header(text), &who, &e));
  test_ahead += 2 * USEC_PER_SEC;
  assert_int_equal(access_check(a, header(text), &who, &e), ERR_UNAUTHENTICATED);

  usec_t end = test_wall(NULL) + USEC_PER_SEC;
  make(&(struct access_token_new){.name = SLICE("y"), .role = ROLE_VIEWER, .expires_at = end}, text, &id);
  OK(access_check(a, header(text), &who, &e));
  test_ahead += USEC_PER_SEC;
  assert_int_equal(access_check(a, header(text), &who, &e), ERR_UNAUTHENTICATED);
}

static void test_idem_expire(void **state) {
  (void)state;
  int64_t n = -1;
  OK(access_idem_expire(a, &n, &e));
  assert_int_equal(n, 0);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {T(test_bootstrap),
                                     T(test_bootstrap_former),
                                     T(test_bootstrap_pending),
                                     T(test_bootstrap_late),
                                     T(test_tokens),
                                     T(test_token_refusals),
                                     T(test_roles),
                                     T(test_cache),
                                     T(test_idem_expire)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
