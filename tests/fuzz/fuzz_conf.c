/* The configuration: a YAML file and, behind a NUL byte, one override. The effective settings must load again as the same. */
#include "base/conf.h"
#include "base/mem.h"
#include "fuzz.h"
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static const char *const levels[] = {"debug", "info", "warn", NULL};
static const struct conf_item items[] = {
    {"http.port", CONF_INT, "8080", 1, 65535, NULL, 0, "Port"},
    {"http.address", CONF_STRING, "127.0.0.1", 0, 0, NULL, 0, "Address"},
    {"http.tls.cert", CONF_STRING, "", 0, 200, NULL, 0, "Certificate"},
    {"http.max_body", CONF_BYTES, "1MiB", 1024, INT64_C(1) << 30, NULL, CONF_RELOADABLE, "Largest body"},
    {"log.level", CONF_ENUM, "info", 0, 0, levels, CONF_RELOADABLE, "Least level"},
    {"cluster.lease", CONF_DURATION, "10s", USEC_PER_SEC, USEC_PER_HOUR, NULL, 0, "Lease"},
    {"cluster.peers", CONF_LIST, "", 0, 3, NULL, CONF_RELOADABLE, "Other nodes"},
    {"cluster.wait", CONF_DURATION, "0s", 0, 0, NULL, 0, "Any length"},
    {"metrics", CONF_BOOL, "true", 0, 0, NULL, CONF_RELOADABLE, "Serve metrics"},
    {"cluster.token", CONF_STRING, "", 0, 100, NULL, CONF_SECRET, "Shared secret"},
};
enum { N_ITEMS = sizeof items / sizeof *items };

static int load(struct slice yaml, const char *set, struct conf **ret, struct conf_errors *errors) {
  char path[32];
  const char *sets[] = {set, NULL};
  int fd = memfd_create("conf", MFD_CLOEXEC);
  assert(fd >= 0 && write(fd, yaml.p ? yaml.p : "", yaml.n) == (ssize_t)yaml.n);
  (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  struct conf_sources s = {.items = items, .n_items = N_ITEMS, .path = path, .sets = set ? sets : NULL};
  int r = conf_load(&s, ret, errors);
  (void)close(fd);
  return r;
}

static void check_again(const struct conf *c) {
  const struct conf_item *differ[N_ITEMS];
  struct conf_errors errors = {0};
  struct conf *again = NULL;
  auto_str text;
  str_init(&text, 1024 * 1024);
  conf_print(c, &text);
  assert(!str_failed(&text) && load(str_slice(&text), NULL, &again, &errors) == 0);
  size_t n = conf_diff(c, again, differ, N_ITEMS);
  assert(n <= 1 && (n == 0 || differ[0]->flags & CONF_SECRET));
  conf_unref(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct slice set, yaml = slice_cut(fuzz_slice(data, size), 0, &set);
  auto_free char *set_text = set.p ? mem_slicedup(set) : NULL;
  struct conf_errors errors = {0};
  struct conf *c = NULL;
  int r = load(yaml, set_text, &c, &errors);
  if (r < 0) {
    assert(errors.n && errors.n <= CONF_ERRORS_MAX && errors.list[0].code == r);
    for (size_t i = 0; i < errors.n; i++)
      fuzz_check_error(errors.list[i].code, &errors.list[i]);
    return 0;
  }
  assert(conf_int(c, "http.port") >= 1 && conf_int(c, "http.port") <= 65535);
  check_again(c);
  conf_unref(&c);
  return 0;
}
