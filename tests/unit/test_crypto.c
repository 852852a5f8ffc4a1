#include "net_util.h"
#include "base/parse.h"
#include "net/crypto.h"
#include <limits.h>
#include <sys/stat.h>

static void expect_hex(const uint8_t mac[32], const char *hex) {
  char text[65];
  hex_encode(mac, 32, text);
  assert_string_equal(text, hex);
}

/* FIPS 180-2 and RFC 4231 vectors. */
static void vectors(void **state) {
  (void)state;
  uint8_t out[32];
  crypto_sha256(SLICE("abc"), out);
  expect_hex(out, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  crypto_sha256((struct slice){0}, out);
  expect_hex(out, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  crypto_hmac_sha256(SLICE("Jefe"), SLICE("what do ya want for nothing?"), out);
  expect_hex(out, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  char key[131];
  memset(key, 0xaa, sizeof key);
  crypto_hmac_sha256(slice_n(key, sizeof key),
                     SLICE("Test Using Larger Than Block-Size Key - Hash Key First"), out);
  expect_hex(out, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
  crypto_hmac_sha256((struct slice){0}, (struct slice){0}, out);
  expect_hex(out, "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
  assert_true(crypto_equal("abc", "abc", 3));
  assert_false(crypto_equal("abc", "abd", 3));
}

static void tokens(void **state) {
  (void)state;
  char a[64], b[64];
  crypto_token_new("kelou_", a);
  crypto_token_new("kelou_", b);
  assert_int_equal(strlen(a), 6 + 43);
  assert_memory_equal(a, "kelou_", 6);
  assert_string_not_equal(a, b);
  assert_int_equal(strspn(a + 6, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"), 43);
}

static void seal_and_unseal(void **state) {
  (void)state;
  uint8_t key[32] = {1}, other[32] = {2};
  char secret[4096];
  struct err e;
  memset(secret, 's', sizeof secret);
  for (size_t n = 0; n <= sizeof secret; n = n < 40 ? n + 1 : n * 2 + 1) {
    auto_free char *sealed = crypto_seal(key, slice_n(secret, n));
    auto_free char *again = crypto_seal(key, slice_n(secret, n));
    assert_string_not_equal(sealed, again); /* a fresh nonce each time */
    auto_str out;
    str_init(&out, 8192);
    assert_int_equal(crypto_unseal(key, slice_of(sealed), &out, &e), 0);
    assert_true(slice_eq(str_slice(&out), slice_n(secret, n)));
    str_clear(&out);
    assert_int_equal(crypto_unseal(other, slice_of(sealed), &out, &e), ERR_UNAUTHENTICATED);
    size_t length = strlen(sealed);
    for (size_t i = 0; i < length; i += length / 20 + 1) { /* no byte may be changed */
      char kept = sealed[i];
      sealed[i] = kept == 'A' ? 'B' : 'A';
      assert_true(crypto_unseal(key, slice_of(sealed), &out, &e) < 0);
      sealed[i] = kept;
    }
    assert_true(crypto_unseal(key, slice_n(sealed, length - 4), &out, &e) < 0);
    assert_int_equal(out.n, 0);
  }
  static const char *const junk[] = {"", "AQ==", "====", "not base64!!", "AAAA"};
  auto_str out;
  str_init(&out, 100);
  for (size_t i = 0; i < sizeof junk / sizeof *junk; i++)
    assert_int_equal(crypto_unseal(key, slice_of(junk[i]), &out, &e), ERR_MALFORMED);
}

static void key_files(void **state) {
  (void)state;
  char folder[] = "/tmp/kelou-test-XXXXXX", path[PATH_MAX];
  uint8_t a[32] = {0}, b[32] = {0};
  struct err e;
  struct stat st;
  assert_non_null(mkdtemp(folder));
  (void)snprintf(path, sizeof path, "%s/key", folder);
  assert_int_equal(crypto_key_file(path, false, a, &e), -ENOENT);
  assert_int_equal(crypto_key_file(path, true, a, &e), 0);
  assert_int_equal(stat(path, &st), 0);
  assert_int_equal(st.st_mode & 0777, 0600);
  assert_int_equal(crypto_key_file(path, true, b, &e), 0);
  assert_memory_equal(a, b, 32);
  assert_int_equal(chmod(path, 0640), 0);
  assert_int_equal(crypto_key_file(path, true, b, &e), ERR_FORBIDDEN);
  assert_int_equal(chmod(path, 0600), 0);
  assert_int_equal(truncate(path, 31), 0);
  assert_int_equal(crypto_key_file(path, true, b, &e), ERR_MALFORMED);
  assert_int_equal(truncate(path, 33), 0);
  assert_int_equal(crypto_key_file(path, true, b, &e), ERR_MALFORMED);
  assert_int_equal(unlink(path), 0);
  assert_int_equal(rmdir(folder), 0);
  assert_true(crypto_key_file(path, true, b, &e) < 0);
}

static int check(const char *header, const struct slice *secrets, size_t n, usec_t now) {
  struct err e = {0};
  int r = signature_check(slice_of(header), secrets, n, now, 300 * USEC_PER_SEC, SLICE("{\"a\":1}"), &e);
  assert_true(r == 0 || e.text[0]);
  return r;
}

static void signatures(void **state) {
  (void)state;
  /* computed apart: printf '%s' '1700000000.{"a":1}' | openssl dgst -sha256 -hmac topsecret */
  static const char known[] =
      "t=1700000000,v1=6a939b0c71853d606167625a15168ee9188c6a511c773ef4f42d307f3849e50f";
  static const struct slice secrets[] = {{"old", 3}, {"topsecret", 9}};
  const usec_t at = 1700000000 * USEC_PER_SEC;
  char text[SIGNATURE_TEXT_MAX], two[256];
  signature_make(secrets[1], at + 999999, SLICE("{\"a\":1}"), text);
  assert_string_equal(text, known);
  assert_int_equal(check(text, secrets, 2, at), 0);
  assert_int_equal(check(text, secrets + 1, 1, at + 300 * USEC_PER_SEC), 0);
  assert_int_equal(check(text, secrets, 2, at - 300 * USEC_PER_SEC), 0);
  assert_int_equal(check(text, secrets, 1, at), ERR_UNAUTHENTICATED);
  assert_int_equal(check(text, secrets, 0, at), ERR_UNAUTHENTICATED);
  assert_int_equal(check(text, secrets, 2, at + 300 * USEC_PER_SEC + 1), ERR_UNAUTHENTICATED);
  assert_int_equal(check(text, secrets, 2, at - 300 * USEC_PER_SEC - 1), ERR_UNAUTHENTICATED);
  (void)snprintf(two, sizeof two, "t=1700000000, v1=%064d, v2=future, v1=%s", 0, text + 16);
  assert_int_equal(check(two, secrets, 2, at), 0);
  text[20] = text[20] == '0' ? '1' : '0';
  assert_int_equal(check(text, secrets, 2, at), ERR_UNAUTHENTICATED);
  static const char *const junk[] = {"",
                                     "t=",
                                     "v1=00",
                                     "t=1700000000",
                                     "t=1700000000,v1=",
                                     "t=+1700000000,v1=00",
                                     "t=1700000000,t=1700000000,v1=00",
                                     "t=99999999999999999999,v1=00",
                                     ",,,",
                                     "x"};
  for (size_t i = 0; i < sizeof junk / sizeof *junk; i++)
    assert_int_equal(check(junk[i], secrets, 2, at), ERR_UNAUTHENTICATED);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(vectors), cmocka_unit_test(tokens),
                                     cmocka_unit_test(seal_and_unseal), cmocka_unit_test(key_files),
                                     cmocka_unit_test(signatures)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
