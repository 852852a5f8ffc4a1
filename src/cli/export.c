/* kelou export: what is, as documents. */
#include "cli/client.h"
#include "cli/documents.h"

/* A group without what the server made. */
static json_t *group_wanted(const json_t *group) {
  static const char *const made[] = {"id", "version", "created_at", "updated_at", "secret", NULL};
  json_t *doc = json_copy((json_t *)(uintptr_t)group);
  for (int i = 0; made[i]; i++)
    (void)json_object_del(doc, made[i]); /* absent is fine */
  return doc;
}

static bool used_by(const json_t *tasks, const json_t *group) {
  for (size_t i = 0; i < json_array_size(tasks); i++) {
    const json_t *t = json_array_get(tasks, i);
    if (json_equal(json_object_get(t, "executor_group"), json_object_get(group, "name")) &&
        strcmp(document_namespace(t), document_namespace(group)) == 0)
      return true;
  }
  return false;
}

/* All groups, or of a selection of tasks those which do their work. */
static int read_groups(struct client *c, const struct invocation *g, const json_t *tasks, json_t *groups) {
  auto_request r = {0};
  auto_json *found = NULL;
  json_t *group;
  size_t i;
  request_get("/api/v1/executor-groups", &r);
  if (g->values[OPT_namespace]) {
    str_addz(&r.target, "?namespace=");
    request_encode(&r.target, slice_of(g->values[OPT_namespace]));
  }
  int code = call_once(c, g, &r, &found);
  if (code)
    return code;
  bool some =
      g->values[OPT_in_group] || g->values[OPT_handler] || g->values[OPT_prefix] || g->values[OPT_of_source];
  json_array_foreach (json_object_get(found, "items"), i, group) {
    if (!some || used_by(tasks, group))
      (void)json_array_append_new(groups, group_wanted(group)); /* fails only without memory */
  }
  return 0;
}

int export_run(const struct invocation *given) {
  struct invocation all = *given;
  struct client *c = NULL;
  auto_request r = {0};
  auto_json *found = NULL, *groups = json_array();
  all.values[OPT_all] = "";
  int code = request_build(given, &r);
  if (code == 0)
    code = client_open(given, &c);
  if (code == 0)
    code = call_pages(c, &all, &r, &found);
  json_t *tasks = json_object_get(found, "items");
  if (code == 0)
    code = read_groups(c, given, tasks, groups);
  if (code == 0)
    code = documents_write(given, &(struct documents){.groups = groups, .tasks = tasks, .replace = true});
  client_close(&c);
  return code;
}
