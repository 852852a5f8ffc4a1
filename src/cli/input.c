#include "cli/input.h"
#include "base/yaml_doc.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int read_all(int fd, const char *name, size_t max_bytes, struct str *out, struct err *e) {
  char buf[64 * 1024];
  for (;;) {
    ssize_t n = read(fd, buf, sizeof buf);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return err_set(e, -errno, "%s: %s", name, strerror(errno));
    if (n == 0)
      return 0;
    if (out->n + (size_t)n > max_bytes)
      return err_set(e, ERR_TOO_LARGE, "%s: expected at most %zu bytes", name, max_bytes);
    str_add(out, slice_n(buf, (size_t)n));
  }
}

static bool is_stdin(const char *path) { return strcmp(path, "-") == 0; }

int input_bytes(const char *path, size_t max_bytes, struct str *out, struct err *e) {
  if (is_stdin(path))
    return read_all(STDIN_FILENO, "standard input", max_bytes, out, e);
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY); /* pipes are welcome */
  if (fd < 0)
    return err_set(e, -errno, "%s: %s", path, strerror(errno));
  int r = read_all(fd, path, max_bytes, out, e);
  (void)close(fd); /* it was only read */
  return r;
}

static bool is_yaml(const char *path) {
  const char *dot = strrchr(path, '.');
  return dot && (strcmp(dot, ".yaml") == 0 || strcmp(dot, ".yml") == 0);
}

int input_document(const char *path, json_t **ret, struct err *e) {
  auto_str text;
  str_init(&text, INPUT_MAX + 1);
  int r = input_bytes(path, INPUT_MAX, &text, e);
  if (r < 0)
    return r;
  struct err why = {0};
  r = (is_yaml(path) ? yaml_doc_read : json_read)(str_slice(&text), INPUT_MAX, ret, &why);
  return r < 0 ? err_set(e, r, "%.160s: %s", is_stdin(path) ? "standard input" : path, why.text) : 0;
}

int input_value(const char *text, json_t **ret, struct err *e) {
  return text[0] == '@' ? input_document(text + 1, ret, e) : json_read(slice_of(text), INPUT_MAX, ret, e);
}
