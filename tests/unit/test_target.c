/* The guard against server-side request forgery: what is a URL, and which addresses may be called. */
#include "net_util.h"
#include "net/target.h"
#include "net/target_internal.h"

static int try(const char *url, const char *networks, char *ret_text, size_t size) {
  struct network_list *list = NULL;
  struct target *t = NULL;
  struct err e = {0};
  assert_int_equal(network_list_parse(slice_of(networks), &list, &e), 0);
  int r = target_parse(slice_of(url), list, &t, &e);
  if (r < 0) {
    assert_null(t);
    assert_true(e.text[0]);
    (void)text_copy(ret_text, size, slice_of(e.text));
  } else {
    (void)text_copy(ret_text, size, slice_of(target_url(t)));
  }
  target_unref(&t);
  network_list_free(&list);
  return r;
}

static void good(void **state) {
  (void)state;
  static const struct {
    const char *url, *networks, *text;
  } cases[] = {
      {"http://127.0.0.1:8080/base/", "loopback", "http://127.0.0.1:8080/base"},
      {"http://127.0.0.1", "loopback", "http://127.0.0.1"},
      {"HTTP://127.0.0.1:80", "loopback", "http://127.0.0.1"},
      {"https://10.1.2.3:443/a/b", "private", "https://10.1.2.3/a/b"},
      {"http://[::1]:9000", "loopback", "http://[::1]:9000"},
      {"http://[fd12::1]", "private", "http://[fd12::1]"},
      {"http://[::ffff:10.0.0.1]:1", "10.0.0.0/24", "http://[::ffff:10.0.0.1]:1"},
      {"http://8.8.8.8", "public", "http://8.8.8.8"},
      {"http://[2606:4700::1111]", "public", "http://[2606:4700::1111]"},
      {"http://192.168.7.9:65535", "10.0.0.0/8, 192.168.7.8/31", "http://192.168.7.9:65535"},
      {"http://localhost:1", "loopback", "http://localhost:1"},
      {"http://203.0.113.9", "203.0.113.9", "http://203.0.113.9"},
      {"http://[2001:db8:1::5]", "2001:db8::/33", "http://[2001:db8:1::5]"},
  };
  char text[512];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (try(cases[i].url, cases[i].networks, text, sizeof text) < 0 || strcmp(text, cases[i].text) != 0)
      fail_msg("%s in %s: %s", cases[i].url, cases[i].networks, text);
  }
}

static void bad(void **state) {
  (void)state;
  static const struct {
    int code;
    const char *url, *networks;
  } cases[] = {
      {ERR_INVALID, "", "loopback"},
      {ERR_INVALID, "127.0.0.1", "loopback"},
      {ERR_INVALID, "ftp://127.0.0.1", "loopback"},
      {ERR_INVALID, "file:///etc/passwd", "loopback"},
      {ERR_INVALID, "http://", "loopback"},
      {ERR_INVALID, "http:///x", "loopback"},
      {ERR_INVALID, "http://a:b@127.0.0.1", "loopback"},
      {ERR_INVALID, "http://127.0.0.1@8.8.8.8", "loopback"},
      {ERR_INVALID, "http://127.0.0.1?x", "loopback"},
      {ERR_INVALID, "http://127.0.0.1#x", "loopback"},
      {ERR_INVALID, "http://127.0.0.1/a b", "loopback"},
      {ERR_INVALID, "http://127.0.0.1/a\r\nX: y", "loopback"},
      {ERR_INVALID, "http://127.0.0.1\\@x", "loopback"},
      {ERR_INVALID, "http://127.0.0.1:", "loopback"},
      {ERR_INVALID, "http://127.0.0.1:0", "loopback"},
      {ERR_INVALID, "http://127.0.0.1:65536", "loopback"},
      {ERR_INVALID, "http://127.0.0.1:+80", "loopback"},
      {ERR_INVALID, "http://127.0.0.1:080", "loopback"},
      {ERR_INVALID, "http://127.0.0.1:8:9", "loopback"},
      {ERR_INVALID, "http://127.1", "loopback"},
      {ERR_INVALID, "http://2130706433", "loopback"},
      {ERR_INVALID, "http://0x7f000001", "loopback"},
      {ERR_INVALID, "http://0x7f.0.0.1", "loopback"},
      {ERR_INVALID, "http://127.0.0.0x1", "loopback"},
      {ERR_INVALID, "http://0177.0.0.1", "loopback"},
      {ERR_INVALID, "http://127.0.0.01", "loopback"},
      {ERR_INVALID, "http://127.0.0.1.", "loopback"},
      {ERR_INVALID, "http://256.0.0.1", "loopback"},
      {ERR_INVALID, "http://1.2.3.4.5", "public"},
      {ERR_INVALID, "http://a..b", "public"},
      {ERR_INVALID, "http://.a", "public"},
      {ERR_INVALID, "http://a%2eb", "public"},
      {ERR_INVALID, "http://\xe2\x91\xa0", "public"},
      {ERR_INVALID, "http://[::1", "loopback"},
      {ERR_INVALID, "http://[::1]8080", "loopback"},
      {ERR_INVALID, "http://[127.0.0.1]", "loopback"},
      {ERR_INVALID, "http://[fe80::1%25eth0]", "private"},
      {ERR_INVALID, "http://::1", "loopback"},
      {ERR_ADDRESS, "http://127.0.0.1", "private"},
      {ERR_ADDRESS, "http://127.0.0.1", "public"},
      {ERR_ADDRESS, "http://127.0.0.1", ""},
      {ERR_ADDRESS, "http://localhost", "public"},
      {ERR_ADDRESS, "http://10.0.0.1", "public"},
      {ERR_ADDRESS, "http://100.64.0.1", "public"},
      {ERR_ADDRESS, "http://198.19.0.1", "public"},
      {ERR_ADDRESS, "http://[fd00::1]", "public"},
      {ERR_ADDRESS, "http://[::127.0.0.1]", "public"},
      {ERR_ADDRESS, "http://8.8.8.8", "private,loopback"},
      {ERR_ADDRESS, "http://[::ffff:127.0.0.1]", "public"},
      {ERR_ADDRESS, "http://[::ffff:7f00:1]", "private"},
      {ERR_ADDRESS, "http://[64:ff9b::a9fe:a9fe]", "public"},
      {ERR_ADDRESS, "http://[2002:7f00:1::]", "public"},
      /* never, whatever is allowed */
      {ERR_ADDRESS, "http://169.254.169.254/latest", "0.0.0.0/0,::/0"},
      {ERR_ADDRESS, "http://[::ffff:169.254.169.254]", "0.0.0.0/0,::/0"},
      {ERR_ADDRESS, "http://[::ffff:a9fe:a9fe]", "0.0.0.0/0,::/0"},
      {ERR_ADDRESS, "http://[fd00:ec2::254]", "private,::/0"},
      {ERR_ADDRESS, "http://[::169.254.169.254]", "::/0"},
      {ERR_ADDRESS, "http://[64:ff9b:1::a9fe:a9fe]", "::/0"},
      {ERR_ADDRESS, "http://100.100.100.200", "0.0.0.0/0"},
      {ERR_ADDRESS, "http://[fe80::1]", "::/0"},
      {ERR_ADDRESS, "http://[ff02::1]", "::/0"},
      {ERR_ADDRESS, "http://[::]", "::/0"},
      {ERR_ADDRESS, "http://0.0.0.0", "0.0.0.0/0"},
      {ERR_ADDRESS, "http://224.0.0.1", "0.0.0.0/0"},
      {ERR_ADDRESS, "http://255.255.255.255", "0.0.0.0/0"},
      {ERR_UNREACHABLE, "http://does-not-exist.invalid", "public"},
  };
  char text[512];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    int r = try(cases[i].url, cases[i].networks, text, sizeof text);
    if (r != cases[i].code)
      fail_msg("%s in %s: expected %d, got %d: %s", cases[i].url, cases[i].networks, cases[i].code, r, text);
  }
}

static void lists(void **state) {
  (void)state;
  static const char *const wrong[] = {"10.0.0.0/33", "10.0.0/8",    "::/129", "x",
                                      "10.0.0.0/",   "10.0.0.0/-1", "publik"};
  struct network_list *list = NULL;
  struct err e;
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    assert_true(network_list_parse(slice_of(wrong[i]), &list, &e) < 0);
    assert_null(list);
  }
  network_list_free(&list);
}

static void pools_are_shared_by_peer(void **state) {
  (void)state;
  struct target *a, *b, *c;
  struct err e;
  assert_int_equal(target_parse(SLICE("http://127.0.0.1:1/a"), NULL, &a, &e), 0);
  assert_int_equal(target_parse(SLICE("http://127.0.0.1:1/b"), NULL, &b, &e), 0);
  assert_int_equal(target_parse(SLICE("http://127.0.0.1:2/a"), NULL, &c, &e), 0);
  assert_true(target_same_peer(a, b));
  assert_int_equal(a->key_hash, b->key_hash);
  assert_false(target_same_peer(a, c));
  struct target *again = target_ref(a);
  target_unref(&a);
  assert_string_equal(target_url(again), "http://127.0.0.1:1/a");
  target_unref(&again);
  target_unref(&b);
  target_unref(&c);
  target_unref(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(good), cmocka_unit_test(bad), cmocka_unit_test(lists),
                                     cmocka_unit_test(pools_are_shared_by_peer)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
