#include "cli/files.h"
#include "base/mem.h"
#include "base/yaml_doc.h"
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/words.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define PLACE_MAX 8192

struct reading {
  const char *ns;
  struct doc_file *file;
  size_t documents, number; /* in the file, and the one that is read */
};

void files_done(struct doc_files *f) {
  for (size_t i = 0; i < f->n; i++) {
    struct doc_file *d = &f->v[i];
    for (size_t k = 0; k < d->task_count; k++)
      mem_free(d->task_places[k]);
    for (size_t k = 0; k < d->group_count; k++)
      mem_free(d->group_places[k]);
    mem_free(d->task_places);
    mem_free(d->group_places);
    json_decref(d->tasks);
    json_decref(d->groups);
    mem_free(d->path);
  }
  mem_free(f->v);
  *f = (struct doc_files){0};
}

static int say(const struct err *e) {
  words_complain(SAY_plain, e->text, NULL);
  return err_exit(e->code);
}

/* ------------------------------------------------------------------ one document */

static void add_place(const struct reading *r, const char *pointer, struct str *out) {
  str_addf(out, "%s: ", r->file->path);
  if (r->documents > 1)
    str_addf(out, "document %zu: ", r->number);
  str_addz(out, pointer);
}

static int refuse(const struct reading *r, enum message m, const char *pointer) {
  auto_str place;
  str_init(&place, PLACE_MAX);
  add_place(r, pointer, &place);
  size_t n = place.n; /* without the colon after it */
  while (n && (place.p[n - 1] == ' ' || place.p[n - 1] == ':'))
    place.p[--n] = 0;
  words_complain(m, place.p, NULL);
  return EXIT_USAGE;
}

static void keep(const struct reading *r, bool group, const char *pointer, json_t *doc) {
  struct doc_file *f = r->file;
  char ***places = group ? &f->group_places : &f->task_places;
  size_t *n = group ? &f->group_count : &f->task_count;
  auto_str place;
  str_init(&place, PLACE_MAX);
  add_place(r, pointer, &place);
  *places = mem_grow(*places, *n + 1, sizeof **places);
  (*places)[(*n)++] = mem_strdup(place.p ? place.p : "");
  (void)json_array_append(group ? f->groups : f->tasks, doc); /* fails only without memory */
}

static void set_namespace(json_t *doc, const json_t *outer, const char *ns) {
  if (json_object_get(doc, "namespace"))
    return;
  if (outer)
    (void)json_object_set(doc, "namespace", (json_t *)(uintptr_t)outer); /* counts the reference only */
  else if (ns)
    (void)json_object_set_new(doc, "namespace", json_string(ns)); /* what is not UTF-8 the server misses */
}

static int read_list(const struct reading *r, const json_t *outer, const char *key) {
  json_t *list = json_object_get(outer, key), *doc;
  char pointer[64];
  size_t i;
  if (!list || json_is_null(list))
    return 0;
  (void)snprintf(pointer, sizeof pointer, "/%s", key);
  if (!json_is_array(list))
    return refuse(r, SAY_want_list, pointer);
  json_array_foreach (list, i, doc) {
    (void)snprintf(pointer, sizeof pointer, "/%s/%zu", key, i);
    if (!json_is_object(doc))
      return refuse(r, SAY_want_object, pointer);
    set_namespace(doc, json_object_get(outer, "namespace"), r->ns);
    keep(r, strcmp(key, "groups") == 0, pointer, doc);
  }
  return 0;
}

static int read_collection(const struct reading *r, json_t *doc) {
  static const char *const known[] = {"namespace", "groups", "tasks", NULL};
  struct err e = {0};
  auto_str place;
  str_init(&place, PLACE_MAX);
  if (json_check_keys(doc, known, &e) < 0) {
    add_place(r, e.field, &place);
    str_addf(&place, ": %s", e.text);
    words_complain(SAY_plain, place.p, NULL);
    return err_exit(e.code);
  }
  int code = read_list(r, doc, "groups");
  return code ? code : read_list(r, doc, "tasks");
}

static int read_document(const struct reading *r, json_t *doc) {
  if (json_is_null(doc)) /* nothing between two marks */
    return 0;
  r->file->documents++;
  if (json_object_get(doc, "schedule")) {
    set_namespace(doc, NULL, r->ns);
    keep(r, false, "", doc);
    return 0;
  }
  if (json_object_get(doc, "tasks") || json_object_get(doc, "groups"))
    return read_collection(r, doc);
  return refuse(r, SAY_not_a_document, "");
}

/* ------------------------------------------------------------------ one file */

static bool has_suffix(const char *path, const char *suffix) {
  size_t n = strlen(path), m = strlen(suffix);
  return n > m && strcmp(path + n - m, suffix) == 0;
}

/* JSON by its name, or on standard input by its first character. */
static bool is_json(const char *path, struct slice text) {
  while (text.n && (text.p[0] == '\n' || text.p[0] == '\r' || text.p[0] == ' ' || text.p[0] == '\t'))
    text = slice_n(text.p + 1, text.n - 1);
  bool looks_so = text.n && (text.p[0] == '{' || text.p[0] == '[');
  return strcmp(path, "-") == 0 ? looks_so : !has_suffix(path, ".yaml") && !has_suffix(path, ".yml");
}

/* The documents of a file as an array: those of YAML, the elements of a JSON list, or the one. */
static int parse(const char *path, json_t **ret, struct err *e) {
  auto_str text;
  str_init(&text, INPUT_MAX + 1);
  struct err why = {0};
  int r = input_bytes(path, INPUT_MAX, &text, e);
  if (r < 0)
    return r;
  json_t *found = NULL;
  bool json = is_json(path, str_slice(&text));
  r = (json ? json_read : yaml_doc_read_all)(str_slice(&text), INPUT_MAX, &found, &why);
  if (r < 0)
    return err_set(e, r, "%.160s: %s", strcmp(path, "-") == 0 ? "standard input" : path, why.text);
  *ret = json && !json_is_array(found) ? json_pack("[o]", found) : found;
  return 0;
}

static int read_file(const char *path, const char *ns, struct doc_files *all) {
  struct err e = {0};
  auto_json *docs = NULL;
  json_t *doc;
  size_t i;
  if (parse(path, &docs, &e) < 0)
    return say(&e);
  mem_reserve(all->v, all->n, all->cap);
  struct doc_file *f = &all->v[all->n++];
  *f = (struct doc_file){.path = mem_strdup(strcmp(path, "-") == 0 ? "standard input" : path),
                         .tasks = json_array(),
                         .groups = json_array()};
  struct reading r = {ns, f, json_array_size(docs), 0};
  int code = 0;
  json_array_foreach (docs, i, doc) {
    r.number = i + 1;
    int one = read_document(&r, doc);
    code = code ? code : one;
  }
  return code;
}

/* ------------------------------------------------------------------ folders */

struct paths {
  char **v;
  size_t n, cap;
};

static void paths_done(struct paths *p) {
  for (size_t i = 0; i < p->n; i++)
    mem_free(p->v[i]);
  mem_free(p->v);
}

static void add_path(struct paths *p, const char *path) {
  mem_reserve(p->v, p->n, p->cap);
  p->v[p->n++] = mem_strdup(path);
}

static int by_path(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static bool is_document(const char *name) {
  return has_suffix(name, ".yaml") || has_suffix(name, ".yml") || has_suffix(name, ".json");
}

static int walk(const char *folder, int depth, struct paths *files);

/* Hidden ones are left out; a link to a folder is not followed, one to a file is. */
static int look_at(const char *folder, const char *name, int depth, struct paths *files) {
  struct stat link, real;
  auto_str path;
  str_init(&path, PLACE_MAX);
  size_t n = strlen(folder);
  str_addf(&path, "%s%s%s", folder, n && folder[n - 1] == '/' ? "" : "/", name);
  if (name[0] == '.' || str_failed(&path) || lstat(path.p, &link) < 0 || stat(path.p, &real) < 0)
    return 0;
  if (S_ISDIR(link.st_mode))
    return walk(path.p, depth + 1, files);
  if (!S_ISDIR(real.st_mode) && is_document(name) && files->n <= FILES_MAX)
    add_path(files, path.p);
  return 0;
}

static int walk(const char *folder, int depth, struct paths *files) {
  char number[16];
  (void)snprintf(number, sizeof number, "%d", FILES_DEPTH_MAX);
  if (depth > FILES_DEPTH_MAX) {
    words_complain(SAY_too_deep, folder, number);
    return EXIT_USAGE;
  }
  struct err e = {0};
  DIR *d = opendir(folder);
  if (!d) {
    (void)err_set(&e, -errno, "%s: %s", folder, strerror(errno));
    return say(&e);
  }
  int code = 0;
  for (struct dirent *x; code == 0 && (x = readdir(d));)
    code = look_at(folder, x->d_name, depth, files);
  (void)closedir(d); /* it was only read */
  return code;
}

static int read_folder(const char *folder, const char *ns, struct doc_files *ret) {
  struct paths files = {0};
  char number[16];
  (void)snprintf(number, sizeof number, "%d", FILES_MAX);
  int code = walk(folder, 0, &files);
  if (code == 0 && files.n > FILES_MAX) {
    words_complain(SAY_too_many_files, folder, number);
    code = EXIT_USAGE;
  }
  if (files.n)
    qsort(files.v, files.n, sizeof *files.v, by_path);
  int bad = 0;
  for (size_t i = 0; i < files.n && code == 0; i++) {
    int one = read_file(files.v[i], ns, ret);
    bad = bad ? bad : one;
  }
  paths_done(&files);
  return code ? code : bad;
}

int files_read(const char *path, const char *ns, struct doc_files *ret) {
  struct stat st;
  *ret = (struct doc_files){0};
  bool folder = strcmp(path, "-") != 0 && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
  int code = folder ? read_folder(path, ns, ret) : read_file(path, ns, ret);
  size_t documents = 0;
  for (size_t i = 0; i < ret->n; i++)
    documents += ret->v[i].documents;
  if (code == 0 && !documents) { /* rather than to take it for "there shall be nothing" */
    words_complain(SAY_no_documents, path, NULL);
    code = EXIT_USAGE;
  }
  return code;
}
