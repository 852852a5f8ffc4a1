#include "cli/documents.h"
#include "base/mem.h"
#include "cli/output.h"
#include "cli/words.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX ((size_t)256 * 1024 * 1024)
#define PATH_LEN 4096

const char *document_namespace(const json_t *doc) {
  const char *ns = json_string_value(json_object_get(doc, "namespace"));
  return ns ? ns : "default";
}

static const char *name_of(const json_t *doc) {
  const char *name = json_string_value(json_object_get(doc, "name"));
  return name ? name : "";
}

static int by_name(const void *a, const void *b) {
  const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
  int c = strcmp(document_namespace(x), document_namespace(y));
  return c ? c : strcmp(name_of(x), name_of(y));
}

static json_t *sorted(const json_t *list) {
  size_t n = json_array_size(list);
  json_t **v = mem_array(n + 1, sizeof *v), *out = json_array();
  for (size_t i = 0; i < n; i++)
    v[i] = json_array_get(list, i);
  if (n)
    qsort(v, n, sizeof *v, by_name);
  for (size_t i = 0; i < n; i++)
    (void)json_array_append(out, v[i]); /* fails only without memory */
  mem_free(v);
  return out;
}

/* A comment is one line each. */
static void add_remarks(struct str *out, const struct documents *d, const json_t *task) {
  auto_str key;
  str_init(&key, PATH_LEN);
  str_addf(&key, "%s/%s", document_namespace(task), name_of(task));
  const json_t *texts = json_object_get(d->remarks, key.p ? key.p : "");
  for (size_t i = 0; i < json_array_size(texts); i++) {
    str_addz(out, "# ");
    for (const char *p = json_string_value(json_array_get(texts, i)); *p; p++)
      str_addc(out, (unsigned char)*p < ' ' ? ' ' : *p);
    str_addc(out, '\n');
  }
}

static json_t *group_document(const json_t *group) { return json_pack("{s[O]}", "groups", group); }

/* ------------------------------------------------------------------ files */

static int cannot(const char *path) {
  struct err e = {0};
  int code = errno;
  (void)err_set(&e, -code, "%s: %s", path, strerror(code));
  words_complain(SAY_plain, e.text, NULL);
  return 1;
}

/* Every folder on the way to the file. */
static int make_folders(char *path) {
  for (char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
    *p = 0;
    int r = mkdir(path, 0777);
    bool there = r < 0 && errno == EEXIST;
    *p = '/';
    if (r < 0 && !there)
      return cannot(path);
  }
  return 0;
}

static int write_text(const char *path, struct slice text, bool replace) {
  int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (replace ? O_TRUNC : O_EXCL), 0666);
  if (fd < 0 && errno == EEXIST) {
    words_complain(SAY_file_exists, path, NULL);
    return err_exit(ERR_CONFLICT);
  }
  if (fd < 0)
    return cannot(path);
  while (text.n) {
    ssize_t n = write(fd, text.p, text.n);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      int code = cannot(path);
      (void)close(fd); /* it has failed already */
      return code;
    }
    text = slice_n(text.p + n, text.n - (size_t)n);
  }
  return close(fd) < 0 ? cannot(path) : 0;
}

static int write_file(const struct invocation *g, const struct documents *d, const json_t *doc, bool group) {
  bool json = g->output == OUT_JSON;
  auto_str path, text;
  str_init(&path, PATH_LEN);
  str_init(&text, TEXT_MAX);
  str_addf(&path, "%s/%s/%s/%s.%s", g->values[OPT_to_dir], document_namespace(doc),
           group ? "groups" : "tasks", name_of(doc), json ? "json" : "yaml");
  auto_json *whole = group ? group_document(doc) : json_incref((json_t *)(uintptr_t)doc);
  if (!json && !group)
    add_remarks(&text, d, doc);
  (json ? dump_json : dump_yaml)(&text, whole);
  if (str_failed(&path) || str_failed(&text)) {
    words_complain(SAY_too_many_bytes, NULL, NULL);
    return EXIT_USAGE;
  }
  int code = make_folders(path.p);
  return code ? code : write_text(path.p, str_slice(&text), d->replace);
}

static int write_files(const struct invocation *g, const struct documents *d, const json_t *groups,
                       const json_t *tasks) {
  int code = 0;
  for (size_t i = 0; code == 0 && i < json_array_size(groups); i++)
    code = write_file(g, d, json_array_get(groups, i), true);
  for (size_t i = 0; code == 0 && i < json_array_size(tasks); i++)
    code = write_file(g, d, json_array_get(tasks, i), false);
  return code;
}

/* ------------------------------------------------------------------ standard output */

static void add_yaml(struct str *out, const struct documents *d, const json_t *groups, const json_t *tasks) {
  if (json_array_size(groups)) {
    auto_json *all = json_pack("{sO}", "groups", groups);
    str_addz(out, "---\n");
    dump_yaml(out, all);
  }
  for (size_t i = 0; i < json_array_size(tasks); i++) {
    str_addz(out, "---\n");
    add_remarks(out, d, json_array_get(tasks, i));
    dump_yaml(out, json_array_get(tasks, i));
  }
}

static void add_names(struct str *out, const json_t *tasks) {
  for (size_t i = 0; i < json_array_size(tasks); i++)
    str_addf(out, "%s/%s\n", document_namespace(json_array_get(tasks, i)), name_of(json_array_get(tasks, i)));
}

int documents_write(const struct invocation *g, const struct documents *d) {
  auto_json *groups = sorted(d->groups), *tasks = sorted(d->tasks);
  if (g->output_given && (g->output == OUT_TABLE || g->output == OUT_WIDE)) {
    words_complain(SAY_no_output, output_names[g->output], NULL);
    return EXIT_USAGE;
  }
  if (g->values[OPT_to_dir])
    return write_files(g, d, groups, tasks);
  auto_str out;
  str_init(&out, TEXT_MAX);
  if (g->output == OUT_JSON) {
    auto_json *all = json_pack("{sO sO}", "groups", groups, "tasks", tasks);
    dump_json(&out, all);
  } else if (g->output == OUT_NAME) {
    add_names(&out, tasks);
  } else {
    add_yaml(&out, d, groups, tasks);
  }
  return print_out(&out);
}
