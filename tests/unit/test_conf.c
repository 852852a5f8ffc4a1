#include "base/conf.h"
#include "base/mem.h"
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const levels[] = {"debug", "info", "warn", NULL};
static const struct conf_item items[] = {
    {"http.port", CONF_INT, "8080", 1, 65535, NULL, 0, "Port of the API"},
    {"http.address", CONF_STRING, "127.0.0.1", 0, 0, NULL, 0, "Address to listen on"},
    {"http.tls.cert", CONF_STRING, "", 0, 200, NULL, 0, "Certificate file | chain"},
    {"http.tls.key", CONF_STRING, "", 0, 200, NULL, CONF_SECRET, "Key file"},
    {"http.max_body", CONF_BYTES, "1MiB", 1024, INT64_C(1) << 30, NULL, CONF_RELOADABLE,
     "Largest request body"},
    {"log.level", CONF_ENUM, "info", 0, 0, levels, CONF_RELOADABLE, "Least level"},
    {"cluster.lease", CONF_DURATION, "10s", USEC_PER_SEC, USEC_PER_HOUR, NULL, 0, "Length of a lease"},
    {"cluster.peers", CONF_LIST, "", 0, 3, NULL, CONF_RELOADABLE, "Other nodes"},
    {"cluster.offset", CONF_INT, "0", 0, 0, NULL, 0, "Any number"},
    {"cluster.wait", CONF_DURATION, "0s", 0, 0, NULL, 0, "Any length"},
    {"metrics", CONF_BOOL, "true", 0, 0, NULL, CONF_RELOADABLE, "Serve metrics"},
    {"cluster.token", CONF_STRING, "", 0, 100, NULL, CONF_SECRET, "Shared secret."},
};
#define N_ITEMS (sizeof items / sizeof *items)

static char path[] = "/tmp/kelou-test-conf-XXXXXX";

static void put_file(const char *text, size_t n) {
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  assert_int_equal(fwrite(text, 1, n, f), n);
  assert_int_equal(fclose(f), 0);
}

static int load(const char *yaml, const char *const *env, const char *const *sets, struct conf **ret,
                struct conf_errors *errors) {
  static const char *const ignore[] = {"KELOU_SERVER", "KELOU_TOKEN", NULL};
  struct conf_sources s = {
      .items = items, .n_items = N_ITEMS, .env = env, .env_ignore = ignore, .sets = sets};
  if (yaml) {
    put_file(yaml, strlen(yaml));
    s.path = path;
  }
  return conf_load(&s, ret, errors);
}

static struct conf *load_ok(const char *yaml, const char *const *env, const char *const *sets) {
  struct conf *c = NULL;
  struct conf_errors errors;
  if (load(yaml, env, sets, &c, &errors) < 0)
    fail_msg("%s: %s", errors.list[0].field, errors.list[0].text);
  return c;
}

/* Exactly one error, with this place and text behind the path. */
static void refuse(const char *yaml, int code, const char *field, const char *text) {
  struct conf *c = NULL;
  struct conf_errors errors;
  int r = load(yaml, NULL, NULL, &c, &errors);
  if (r >= 0)
    fail_msg("accepted: %s", yaml);
  assert_null(c);
  if (errors.n != 1 || !strstr(errors.list[0].text, text))
    print_error("%s\n-> %zu: %s\n", yaml, errors.n, errors.list[0].text);
  assert_int_equal(errors.n, 1);
  assert_int_equal(r, code);
  assert_string_equal(errors.list[0].field, field);
  assert_non_null(strstr(errors.list[0].text, text));
}

static void test_defaults(void **state) {
  (void)state;
  struct conf *c = load_ok(NULL, NULL, NULL);
  assert_int_equal(conf_int(c, "http.port"), 8080);
  assert_string_equal(conf_str(c, "http.address"), "127.0.0.1");
  assert_string_equal(conf_str(c, "http.tls.cert"), "");
  assert_int_equal(conf_bytes(c, "http.max_body"), 1 << 20);
  assert_int_equal(conf_enum(c, "log.level"), 1);
  assert_true(conf_usec(c, "cluster.lease") == 10 * USEC_PER_SEC);
  assert_null(conf_list(c, "cluster.peers")[0]);
  assert_true(conf_bool(c, "metrics"));
  conf_unref(&c);
  assert_null(c);
  conf_unref(&c);
}

static void test_file(void **state) {
  (void)state;
  struct conf *c =
      load_ok("# all kinds\n"
              "http:\n  port: 9090\n  address: \"::1\"\n  max_body: 64KiB\n  tls:\n    cert: '/etc/a b'\n    "
              "key: ''\n"
              "log:\ncluster:\n  lease: 1m30s\n  peers: [a:1, \"b,2\"]\n  offset: -9223372036854775808\n"
              "metrics: false\n",
              NULL, NULL);
  assert_int_equal(conf_int(c, "http.port"), 9090);
  assert_string_equal(conf_str(c, "http.address"), "::1");
  assert_string_equal(conf_str(c, "http.tls.cert"), "/etc/a b");
  assert_int_equal(conf_bytes(c, "http.max_body"), 65536);
  assert_true(conf_usec(c, "cluster.lease") == 90 * USEC_PER_SEC);
  assert_string_equal(conf_list(c, "cluster.peers")[0], "a:1");
  assert_string_equal(conf_list(c, "cluster.peers")[1], "b,2");
  assert_null(conf_list(c, "cluster.peers")[2]);
  assert_true(conf_int(c, "cluster.offset") == INT64_MIN);
  assert_false(conf_bool(c, "metrics"));
  conf_unref(&c);
}

static void test_empty_files(void **state) {
  (void)state;
  static const char *const texts[] = {"",     "# nothing\n", "---\n...\n",
                                      "{}\n", "~\n",         "http: {}\nlog: null\ncluster: ~\n"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
    struct conf *c = load_ok(texts[i], NULL, NULL);
    assert_int_equal(conf_int(c, "http.port"), 8080);
    conf_unref(&c);
  }
}

static void test_order_of_sources(void **state) {
  (void)state;
  static const char *const env[] = {"PATH=/bin",
                                    "KELOU_HTTP_PORT=2",
                                    "KELOU_HTTP_TLS_CERT=x=y",
                                    "KELOU_CLUSTER_PEERS=a, b ,c",
                                    "KELOU_TOKEN=t",
                                    "KELOU_SERVER=s",
                                    "KELOU",
                                    NULL};
  static const char *const sets[] = {"http.port=3", "log.level=warn", NULL};
  struct conf *c = load_ok("http: {port: 1, max_body: 2MiB}\nlog: {level: debug}\n", env, sets);
  assert_int_equal(conf_int(c, "http.port"), 3);
  assert_int_equal(conf_enum(c, "log.level"), 2);
  assert_int_equal(conf_bytes(c, "http.max_body"), 2 << 20);
  assert_string_equal(conf_str(c, "http.tls.cert"), "x=y");
  assert_string_equal(conf_list(c, "cluster.peers")[1], "b");
  conf_unref(&c);
  c = load_ok("http: {port: 1}\n", env, NULL);
  assert_int_equal(conf_int(c, "http.port"), 2);
  conf_unref(&c);
}

static void test_unknown_names(void **state) {
  (void)state;
  refuse("http:\n  prot: 1\n", ERR_UNKNOWN_FIELD, "http.prot",
         ":2:3: this setting is not known; did you mean http.port?");
  refuse("htpp:\n  port: 1\n", ERR_UNKNOWN_FIELD, "htpp", ":1:1: this setting is not known");
  refuse("zzz: [1, {a: [b]}]\n", ERR_UNKNOWN_FIELD, "zzz", ":1:1: this setting is not known");
  refuse("http.port: 1\n", ERR_UNKNOWN_FIELD, "http.port", "nested sections");
  refuse("\"\": 1\n", ERR_UNKNOWN_FIELD, "", "not known");
  refuse("\"http\\0x\": 1\n", ERR_UNKNOWN_FIELD, "http", "not known");
  refuse("<<: {http: 1}\n", ERR_UNKNOWN_FIELD, "<<", "not known");
}

static void test_wrong_types(void **state) {
  (void)state;
  refuse("http:\n  port: many\n", ERR_INVALID, "http.port", ":2:9: expected a whole number from 1 to 65535");
  refuse("http: {port: 65536}\n", ERR_INVALID, "http.port", "from 1 to 65535");
  refuse("http: {port: [1]}\n", ERR_INVALID, "http.port", "expected one value");
  refuse("http: {port: {a: {b: 1}}}\n", ERR_INVALID, "http.port", "expected one value");
  refuse("http: {port: }\n", ERR_INVALID, "http.port", "expected a value");
  refuse("http: {address: ~}\n", ERR_INVALID, "http.address", "expected a value");
  refuse("http: 5\n", ERR_INVALID, "http", ":1:7: expected a section");
  refuse("http: [port]\n", ERR_INVALID, "http", "expected a section");
  refuse("metrics: yes\n", ERR_INVALID, "metrics", "expected true or false");
  refuse("log: {level: loud}\n", ERR_INVALID, "log.level", "expected one of: debug, info, warn");
  refuse("cluster: {lease: 1}\n", ERR_INVALID, "cluster.lease", "from 1s to 1h");
  refuse("http: {max_body: 1KB}\n", ERR_INVALID, "http.max_body", "from 1KiB to 1GiB");
  refuse("http: {address: \"a\\nb\"}\n", ERR_INVALID, "http.address", "on one line");
  refuse("cluster: {peers: a}\n", ERR_INVALID, "cluster.peers", "expected a list such as");
  refuse("cluster: {peers: {a: b}}\n", ERR_INVALID, "cluster.peers", "expected a list such as");
  refuse("cluster: {peers: [a, [b], c]}\n", ERR_INVALID, "cluster.peers", "as an entry");
  refuse("cluster: {peers: [a, ~]}\n", ERR_INVALID, "cluster.peers", "as an entry");
  refuse("cluster: {peers: [a, \"\"]}\n", ERR_INVALID, "cluster.peers", "entry 2");
  refuse("cluster: {peers: [a, b, c, d]}\n", ERR_INVALID, "cluster.peers",
         "expected a list of 0 to 3 entries");
}

static void test_yaml_features(void **state) {
  (void)state;
  refuse("http: &h {port: 1}\n", ERR_MALFORMED, "http", "anchors and aliases");
  refuse("http: {address: &a b}\n", ERR_MALFORMED, "http.address", "anchors and aliases");
  refuse("cluster: {peers: &a [b]}\n", ERR_MALFORMED, "cluster.peers", "anchors and aliases");
  refuse("log: *x\n", ERR_MALFORMED, "log", ":1:6: anchors and aliases");
  refuse("http: {port: !!int 1}\n", ERR_MALFORMED, "http.port", "tags");
  refuse("? [a, b]\n: 1\n", ERR_MALFORMED, "", "expected the name of a setting");
  refuse("- a\n", ERR_MALFORMED, "", "expected sections");
  refuse("text\n", ERR_MALFORMED, "", "expected sections");
  refuse("http: {port: 1}\n---\nlog: {level: warn}\n", ERR_MALFORMED, "", "one YAML document");
  refuse("http: {port: 1, port: 2}\n", ERR_MALFORMED, "http.port", ":1:17: this key stands here twice");
  refuse("http: {port: 1}\nlog: {}\nhttp: {address: a}\n", ERR_MALFORMED, "http",
         ":3:1: this key stands here twice");
  refuse("http: {port: 1\n", ERR_MALFORMED, "http", "not valid YAML");
  refuse("http:\n\tport: 1\n", ERR_MALFORMED, "http", ":2:1: not valid YAML");
  refuse("http: {address: \xff}\n", ERR_MALFORMED, "", "not valid YAML");
}

static void test_file_limits(void **state) {
  (void)state;
  struct conf_sources s = {.items = items, .n_items = N_ITEMS, .path = "/nonexistent/kelou.yaml"};
  struct conf_errors errors;
  struct conf *c = NULL;
  assert_int_equal(conf_load(&s, &c, &errors), -ENOENT);
  assert_non_null(strstr(errors.list[0].text, "/nonexistent/kelou.yaml: cannot open the file"));
  s.path = "/tmp";
  assert_int_equal(conf_load(&s, &c, &errors), -EISDIR);
  char *big = mem_alloc(CONF_FILE_MAX + 2);
  memset(big, '#', CONF_FILE_MAX + 1);
  put_file(big, CONF_FILE_MAX + 1);
  s.path = path;
  assert_int_equal(conf_load(&s, &c, &errors), ERR_TOO_LARGE);
  put_file(big, CONF_FILE_MAX);
  assert_int_equal(conf_load(&s, &c, &errors), 0);
  conf_unref(&c);
  memset(big, '[', 100000); /* nesting without end is not followed */
  memcpy(big, "zzz: ", 5);
  put_file(big, 100000);
  assert_true(conf_load(&s, &c, &errors) < 0);
  assert_int_equal(errors.n, 2);
  assert_non_null(strstr(errors.list[1].text, "nested too deeply"));
  mem_free(big);
}

static void test_too_many_keys(void **state) {
  (void)state;
  auto_str text;
  str_init(&text, 100000);
  for (int i = 0; i < 300; i++)
    str_addf(&text, "key%d: 1\n", i);
  struct conf_errors errors;
  struct conf *c = NULL;
  assert_int_equal(load(text.p, NULL, NULL, &c, &errors), ERR_UNKNOWN_FIELD);
  assert_int_equal(errors.n, CONF_ERRORS_MAX);
  assert_true(errors.more);
}

static void test_all_errors_at_once(void **state) {
  (void)state;
  static const char *const env[] = {"KELOU_HTTP_PROT=1", "KELOU_LOG_LEVEL=loud", "KELOU_QUITE_ELSE=secret",
                                    NULL};
  static const char *const sets[] = {"http.port", "http.prt=5", "nothing.like.it=5", "metrics=maybe", NULL};
  struct conf *c = NULL;
  struct conf_errors errors;
  assert_int_equal(
      load("http: {port: 0, address: 1, tls: {cart: x}}\nlog: {lvel: 1}\n", env, sets, &c, &errors),
      ERR_INVALID);
  assert_int_equal(errors.n, 10);
  assert_false(errors.more);
  static const char *const texts[] = {
      ":1:14: expected a whole number",
      "did you mean http.tls.cert?",
      "did you mean log.level?",
      "KELOU_HTTP_PROT: this environment variable is not known; did you mean KELOU_HTTP_PORT?",
      "KELOU_LOG_LEVEL: expected one of",
      "KELOU_QUITE_ELSE: this environment variable is not known",
      "override: expected name=value",
      "override: this setting is not known; did you mean http.port?",
      "override: this setting is not known",
      "override: expected true or false"};
  for (size_t i = 0; i < 10; i++) {
    if (!strstr(errors.list[i].text, texts[i]))
      fail_msg("%zu: %s", i, errors.list[i].text);
    assert_null(strstr(errors.list[i].text, "secret"));
  }
  assert_string_equal(errors.list[9].field, "metrics");
}

static void test_missing(void **state) {
  (void)state;
  static const struct conf_item some[] = {
      {"db.url", CONF_STRING, NULL, 1, 100, NULL, CONF_SECRET, "Where the data is"},
      {"db.pool", CONF_INT, "many", 1, 9, NULL, 0, "A bad default"}};
  struct conf_sources s = {.items = some, .n_items = 1};
  struct conf_errors errors;
  struct conf *c = NULL;
  assert_int_equal(conf_load(&s, &c, &errors), ERR_MISSING);
  assert_string_equal(errors.list[0].field, "db.url");
  assert_non_null(strstr(errors.list[0].text, "KELOU_DB_URL"));
  s.sets = (const char *const[]){"db.url=", NULL};
  assert_int_equal(conf_load(&s, &c, &errors), ERR_INVALID);
  s.sets = (const char *const[]){"db.url=x", NULL};
  assert_int_equal(conf_load(&s, &c, &errors), 0);
  assert_string_equal(conf_str(c, "db.url"), "x");
  conf_unref(&c);
  s.n_items = 2;
  assert_int_equal(conf_load(&s, &c, &errors), ERR_INVALID);
  assert_non_null(strstr(errors.list[0].text, "default: "));
}

static void test_long_list(void **state) {
  (void)state;
  static const struct conf_item list[] = {{"l", CONF_LIST, "a", 0, 0, NULL, 0, "Free"}};
  struct conf_sources s = {.items = list, .n_items = 1, .path = path};
  struct conf_errors errors;
  struct conf *c = NULL;
  auto_str text;
  str_init(&text, 100000);
  str_addz(&text, "l: [");
  for (int i = 0; i < CONF_LIST_MAX + 50; i++)
    str_addf(&text, "v%d, ", i);
  str_addz(&text, "]");
  put_file(text.p, text.n);
  assert_int_equal(conf_load(&s, &c, &errors), ERR_INVALID);
  text.p[text.n - 1] = 0;
  char *set = text.p + 2; /* "l: […" as an override: "l=…" */
  set[0] = 'l';
  set[1] = '=';
  s.path = NULL;
  s.sets = (const char *const[]){set, NULL};
  assert_int_equal(conf_load(&s, &c, &errors), ERR_INVALID);
  s.sets = NULL;
  assert_int_equal(conf_load(&s, &c, &errors), 0);
  assert_string_equal(conf_list(c, "l")[0], "a");
  conf_unref(&c);
}

static void test_print(void **state) {
  (void)state;
  static const char *const env[] = {"KELOU_HTTP_TLS_KEY=very secret", "KELOU_HTTP_ADDRESS=a\"b\\", NULL};
  static const char *const sets[] = {"cluster.peers=a,b", NULL};
  struct conf *c = load_ok("log: {level: warn}\n", env, sets);
  auto_str out;
  str_init(&out, 10000);
  conf_print(c, &out);
  assert_string_equal(out.p, "cluster:\n"
                             "  lease: 10s\n"
                             "  offset: 0\n"
                             "  peers: [\"a\", \"b\"]  # override\n"
                             "  token: \"\"\n"
                             "  wait: 0s\n"
                             "http:\n"
                             "  address: \"a\\\"b\\\\\"  # environment\n"
                             "  max_body: 1MiB\n"
                             "  port: 8080\n"
                             "  tls:\n"
                             "    cert: \"\"\n"
                             "    key: \"********\"  # environment\n"
                             "log:\n"
                             "  level: warn  # file\n"
                             "metrics: true\n");
  struct conf *back = load_ok(out.p, NULL, NULL); /* it reads back, but for the secrets */
  const struct conf_item *differ[4];
  assert_int_equal(conf_diff(c, back, differ, 4), 1);
  assert_string_equal(differ[0]->name, "http.tls.key");
  conf_unref(&back);
  conf_unref(&c);
}

static void test_diff(void **state) {
  (void)state;
  struct conf *a = load_ok("cluster: {lease: 60s, peers: [a]}\n", NULL, NULL);
  struct conf *b = load_ok(
      "cluster: {lease: 1m, peers: [a, b]}\nmetrics: false\nhttp: {port: 1, address: x}\n", NULL, NULL);
  const struct conf_item *differ[2];
  assert_int_equal(conf_diff(a, b, differ, 2), 4);
  assert_string_equal(differ[0]->name, "http.port");
  assert_string_equal(differ[1]->name, "http.address");
  assert_int_equal(conf_diff(a, a, NULL, 0), 0);
  struct conf *again = conf_ref(a);
  conf_unref(&a);
  assert_int_equal(conf_int(again, "http.port"), 8080);
  conf_unref(&again);
  conf_unref(&b);
}

static void test_doc(void **state) {
  (void)state;
  auto_str out;
  str_init(&out, 10000);
  conf_doc(items, N_ITEMS, &out);
  assert_non_null(strstr(
      out.p, "| `http.port` | `KELOU_HTTP_PORT` | number | `8080` | 1 to 65535 | no | Port of the API |\n"));
  assert_non_null(strstr(out.p, "| `http.tls.cert` | `KELOU_HTTP_TLS_CERT` | text |  | 0 to 200 bytes | no | "
                                "Certificate file \\| chain |\n"));
  assert_non_null(strstr(out.p, "| size | `1MiB` | 1KiB to 1GiB | yes |"));
  assert_non_null(strstr(out.p, "| duration | `10s` | 1s to 1h | no |"));
  assert_non_null(strstr(out.p, "| choice | `info` | `debug`, `info`, `warn` | yes |"));
  assert_non_null(strstr(out.p, "| list |  | 0 to 3 entries | yes |"));
  assert_non_null(strstr(out.p, "Key file; a secret, never printed |\n"));
  static const struct conf_item more[] = {{"a", CONF_INT, NULL, 1, INT64_MAX, NULL, 0, "Must"}};
  str_clear(&out);
  conf_doc(more, 1, &out);
  assert_non_null(strstr(out.p, "| number | must be set | 1 to any | no | Must |\n"));
}

static int make_file(void **state) {
  (void)state;
  int fd = mkstemp(path);
  return fd < 0 ? -1 : close(fd);
}

static int drop_file(void **state) {
  (void)state;
  return unlink(path);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_defaults),      cmocka_unit_test(test_file),
      cmocka_unit_test(test_empty_files),   cmocka_unit_test(test_order_of_sources),
      cmocka_unit_test(test_unknown_names), cmocka_unit_test(test_wrong_types),
      cmocka_unit_test(test_yaml_features), cmocka_unit_test(test_file_limits),
      cmocka_unit_test(test_too_many_keys), cmocka_unit_test(test_all_errors_at_once),
      cmocka_unit_test(test_missing),       cmocka_unit_test(test_long_list),
      cmocka_unit_test(test_print),         cmocka_unit_test(test_diff),
      cmocka_unit_test(test_doc),
  };
  return cmocka_run_group_tests(tests, make_file, drop_file);
}
