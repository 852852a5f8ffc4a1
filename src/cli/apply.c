/* kelou apply, kelou diff: documents from files, a transaction for each file. All files are checked by the centre before the first is
 * written, and what is written is what was checked: each document carries the version that the check has seen. */
#include "base/mem.h"
#include "cli/changes.h"
#include "cli/client.h"
#include "cli/files.h"
#include "cli/output.h"
#include "cli/words.h"
#include <inttypes.h>
#include <stdio.h>

#define APPLY_PATH   "/api/v1/apply"
#define REMOVALS_MAX 1000 /* of one transaction */

struct applying {
  const struct invocation *given;
  struct client *client;
  struct doc_files files;
  json_t **plans;   /* of each file: the items of its check */
  json_t *removals; /* array */
  json_t *seen;     /* "task ns/name" → where it stands */
  json_t *items;    /* the answer: all of them */
  bool dry_run;
  size_t written; /* files */
};

/* ------------------------------------------------------------------ calls */

static json_t *new_body(const struct applying *a, bool dry_run) {
  const char *const *v = a->given->values;
  json_t *body = json_object();
  if (v[OPT_source])
    (void)json_object_set_new(body, "source",
                              json_string(v[OPT_source])); /* these fail only without memory */
  if (v[OPT_remark])
    (void)json_object_set_new(body, "note", json_string(v[OPT_remark]));
  (void)json_object_set_new(body, "adopt", json_boolean(v[OPT_adopt] != NULL));
  (void)json_object_set_new(body, "cancel", json_boolean(v[OPT_cancel] != NULL));
  (void)json_object_set_new(body, "dry_run", json_boolean(dry_run));
  return body;
}

/* "/tasks/3/schedule" of `f` → where that document stands; NULL: it is none of a document. *ret_rest: "/schedule". */
static const char *place_of(const struct doc_file *f, const char *pointer, const char **ret_rest) {
  static const char *const lists[] = {"/tasks/", "/groups/"};
  for (int i = 0; f && i < 2; i++) {
    size_t n = strlen(lists[i]), number = 0, count = i ? f->group_count : f->task_count;
    if (strncmp(pointer, lists[i], n) != 0)
      continue;
    const char *p = pointer + n;
    for (; *p >= '0' && *p <= '9' && number <= count; p++)
      number = number * 10 + (size_t)(*p - '0');
    if (number >= count)
      return NULL;
    *ret_rest = p;
    return i ? f->group_places[number] : f->task_places[number];
  }
  return NULL;
}

static int say_problem(const struct applying *a, const struct doc_file *f, const struct answer *answer) {
  const char *rest = "", *pointer = problem_pointer(answer), *place = place_of(f, pointer, &rest);
  if (!place && !f)
    return problem_say(a->client, a->given->verb, answer);
  auto_str text;
  str_init(&text, 16 * 1024);
  if (place)
    str_addf(&text, "%s%s", place, rest);
  else
    str_addf(&text, "%s: %s", f->path, pointer);
  while (text.n && (text.p[text.n - 1] == ' ' || text.p[text.n - 1] == ':'))
    text.p[--text.n] = 0;
  int64_t column = problem_column(answer);
  if (column)
    str_addf(&text, ":%" PRId64, column);
  str_addf(&text, ": %s", problem_detail(answer));
  words_complain(SAY_plain, text.p, NULL);
  return problem_exit(answer);
}

/* `body` is taken. *ret: the items of the answer. */
static int call(const struct applying *a, const struct doc_file *f, json_t *body, json_t **ret) {
  auto_request r = {0};
  auto_answer answer = {0};
  request_get(APPLY_PATH, &r);
  r.method = "POST";
  r.body = body;
  int code = client_call(a->client, &r, call_timeout(a->given), &answer);
  if (code)
    return code;
  if (answer.status >= 400)
    return say_problem(a, f, &answer);
  *ret = json_incref(json_object_get(answer.body, "items"));
  return 0;
}

/* ------------------------------------------------------------------ checking */

/* Each name once in all files. The centre sees one file at a time. */
static int note_items(struct applying *a, const struct doc_file *f, const json_t *items) {
  size_t groups = f->group_count;
  int code = 0;
  for (size_t i = 0; i < json_array_size(items); i++) {
    json_t *item = json_array_get(items, i);
    const char *kind = NULL, *ns = NULL, *name = NULL;
    const char *place = i < groups ? f->group_places[i] : f->task_places[i - groups];
    auto_str key, where;
    str_init(&key, 1024);
    str_init(&where, 16 * 1024);
    (void)json_object_set_new(item, "file", json_string(f->path)); /* fails only without memory */
    if (json_unpack(item, "{ssssss}", "kind", &kind, "namespace", &ns, "name", &name) < 0)
      continue;
    str_addf(&key, "%s %s/%s", kind, ns, name);
    const char *first = json_string_value(json_object_get(a->seen, key.p));
    str_addf(&where, "%s%s%s %s/%s", place, place[strlen(place) - 1] == ' ' ? "" : ": ", kind, ns, name);
    if (first) {
      words_complain(SAY_stands_twice, where.p, first);
      code = err_exit(ERR_CONFLICT);
    }
    (void)json_object_set_new(a->seen, key.p, json_string(f->path)); /* the same */
  }
  return code;
}

static int check_file(struct applying *a, size_t i) {
  const struct doc_file *f = &a->files.v[i];
  if (!f->task_count && !f->group_count) {
    a->plans[i] = json_array();
    return 0;
  }
  json_t *body = new_body(a, true);
  (void)json_object_set(body, "tasks", f->tasks); /* count references only */
  (void)json_object_set(body, "groups", f->groups);
  int code = call(a, f, body, &a->plans[i]);
  return code ? code : note_items(a, f, a->plans[i]);
}

/* What the source has made and no file names. */
static int find_removals(struct applying *a) {
  struct invocation all = *a->given;
  auto_request r = {0};
  auto_json *found = NULL;
  json_t *task;
  size_t i;
  all.values[OPT_all] = "";
  request_get("/api/v1/tasks?managed_by=", &r);
  request_encode(&r.target, slice_of(a->given->values[OPT_source]));
  int code = call_pages(a->client, &all, &r, &found);
  if (code)
    return code;
  json_array_foreach (json_object_get(found, "items"), i, task) {
    const char *ns = NULL, *name = NULL;
    json_t *version = NULL;
    auto_str key;
    str_init(&key, 1024);
    if (json_unpack(task, "{sssssO}", "namespace", &ns, "name", &name, "version", &version) < 0)
      continue;
    str_addf(&key, "task %s/%s", ns, name);
    if (json_object_get(a->seen, key.p))
      json_decref(version);
    else
      (void)json_array_append_new(a->removals, json_pack("{ssssso}", "namespace", ns, "name", name, "version",
                                                         version)); /* fails only without memory */
  }
  return 0;
}

static json_t *part_of(const json_t *list, size_t from, size_t count) {
  json_t *part = json_array();
  for (size_t i = from; i < from + count && i < json_array_size(list); i++)
    (void)json_array_append(part, json_array_get(list, i)); /* fails only without memory */
  return part;
}

static int remove_all(struct applying *a, bool dry_run) {
  for (size_t i = 0; i < json_array_size(a->removals); i += REMOVALS_MAX) {
    auto_json *items = NULL;
    json_t *body = new_body(a, dry_run);
    (void)json_object_set_new(body, "remove",
                              part_of(a->removals, i, REMOVALS_MAX)); /* both fail only without memory */
    int code = call(a, NULL, body, &items);
    if (code)
      return code;
    (void)json_array_extend(a->items, items);
  }
  return 0;
}

static int check_all(struct applying *a) {
  int code = 0;
  for (size_t i = 0; i < a->files.n; i++) {
    int one = check_file(a, i);
    code = code ? code : one;
    if (one == err_exit(ERR_UNREACHABLE) || one == err_exit(ERR_TIMEOUT) ||
        one == err_exit(ERR_UNAUTHENTICATED))
      break; /* the others would say the same */
  }
  if (code == 0 && a->given->values[OPT_prune])
    code = find_removals(a);
  return code;
}

/* ------------------------------------------------------------------ writing */

static void set_versions(json_t *docs, const json_t *plan, size_t first) {
  for (size_t i = 0; i < json_array_size(docs); i++)
    (void)json_object_set(json_array_get(docs, i), "version",
                          json_object_get(json_array_get(plan, first + i), "from_version"));
}

static int write_file(struct applying *a, size_t i) {
  const struct doc_file *f = &a->files.v[i];
  auto_json *items = NULL;
  if (!changes_pending(a->plans[i])) {
    (void)json_array_extend(a->items, a->plans[i]);
    return 0;
  }
  set_versions(f->groups, a->plans[i], 0);
  set_versions(f->tasks, a->plans[i], f->group_count);
  json_t *body = new_body(a, false);
  (void)json_object_set(body, "tasks", f->tasks); /* count references only */
  (void)json_object_set(body, "groups", f->groups);
  int code = call(a, f, body, &items);
  if (code)
    return code;
  for (size_t k = 0; k < json_array_size(items); k++)
    (void)json_object_set_new(json_array_get(items, k), "file", json_string(f->path));
  (void)json_array_extend(a->items, items);
  a->written++;
  return 0;
}

static int write_all(struct applying *a) {
  int code = 0;
  size_t wanted = 0;
  for (size_t i = 0; i < a->files.n; i++)
    wanted += changes_pending(a->plans[i]) > 0;
  for (size_t i = 0; code == 0 && i < a->files.n; i++)
    code = write_file(a, i);
  if (code == 0)
    code = remove_all(a, false);
  if (code) {
    char done[24], of[24];
    (void)snprintf(done, sizeof done, "%zu", a->written);
    (void)snprintf(of, sizeof of, "%zu", wanted);
    words_complain(a->written ? SAY_partly_written : SAY_nothing_written, done, of);
  }
  return code;
}

static int plan_only(struct applying *a) {
  for (size_t i = 0; i < a->files.n; i++)
    (void)json_array_extend(a->items, a->plans[i]); /* fails only without memory */
  return remove_all(a, true);
}

/* ------------------------------------------------------------------ showing */

static int show(const struct applying *a) {
  const struct invocation *g = a->given;
  if (g->output != OUT_TABLE && g->output != OUT_WIDE) {
    auto_json *answer = json_pack("{sO sb}", "items", a->items, "dry_run", a->dry_run);
    return output_show(g, answer);
  }
  auto_str out, counts;
  str_init(&out, ANSWER_MAX);
  str_init(&counts, 1024);
  changes_add(&out, a->items,
              &(struct changes_look){.details = a->dry_run || g->output == OUT_WIDE,
                                     .all = g->output == OUT_WIDE,
                                     .colour = output_colour()});
  changes_count(&counts, a->items);
  int code = print_out(&out);
  words_complain(a->dry_run ? SAY_would_be : SAY_plain, counts.p, NULL);
  return code;
}

static int run(struct applying *a) {
  const struct invocation *g = a->given;
  if (!g->values[OPT_files]) {
    words_complain(SAY_need_option, "-f", NULL);
    return EXIT_USAGE;
  }
  if (g->values[OPT_prune] && !g->values[OPT_source]) {
    words_complain(SAY_prune_needs_source, NULL, NULL);
    return EXIT_USAGE;
  }
  int code = files_read(g->values[OPT_files], g->values[OPT_namespace], &a->files);
  if (code == 0)
    code = client_open(g, &a->client);
  if (code)
    return code;
  a->plans = mem_array(a->files.n + 1, sizeof *a->plans);
  code = check_all(a);
  if (code) {
    words_complain(SAY_nothing_written, NULL, NULL);
    return code;
  }
  code = a->dry_run ? plan_only(a) : write_all(a);
  /* what was written before a failure is shown, too */
  int shown = code == 0 || json_array_size(a->items) ? show(a) : 0;
  return code ? code : shown;
}

static int run_and_free(struct applying *a) {
  a->removals = json_array();
  a->items = json_array();
  a->seen = json_object();
  int code = run(a);
  for (size_t i = 0; a->plans && i < a->files.n; i++)
    json_decref(a->plans[i]);
  mem_free(a->plans);
  json_decref(a->removals);
  json_decref(a->seen);
  files_done(&a->files);
  client_close(&a->client);
  return code;
}

int apply_run(const struct invocation *given) {
  struct applying a = {.given = given, .dry_run = given->values[OPT_dry_run] != NULL};
  int code = run_and_free(&a);
  json_decref(a.items);
  return code;
}

int diff_run(const struct invocation *given) {
  struct applying a = {.given = given, .dry_run = true};
  int code = run_and_free(&a);
  if (code == 0 && changes_pending(a.items))
    code = EXIT_DIFFERS;
  json_decref(a.items);
  return code;
}
