/* Versions: what each changed, and back to one. */
#include "task/internal.h"
#include <stdio.h>

enum { HISTORY_MAX = 200 }; /* of one page: payloads are read, too */

static void set_new(json_t *o, const char *key, json_t *v) {
  (void)json_object_set_new(o, key, v); /* fails only without memory */
}

static void set_time(json_t *o, const char *key, usec_t t) {
  char buf[TIME_TEXT_MAX];
  set_new(o, key, json_string(time_format(t, buf)));
}

static void set_text(json_t *o, const char *key, struct slice s) {
  if (s.n)
    set_new(o, key, json_stringn(s.p, s.n));
}

/* The document with its state: what a version is made of. */
static int whole(const struct task_row *t, struct arena *mem, json_t **ret, struct err *e) {
  int r = task_source_of(t, mem, ret, e);
  if (r == 0)
    set_new(*ret, "state", json_string(task_state_names[t->v.state]));
  return r;
}

/* `former`: the version before it, NULL for the first. */
static int entry(const struct task_row *t, const struct task_row *former, struct arena *mem, json_t *items,
                 struct err *e) {
  auto_json *old = NULL, *new = NULL, *differences = json_array();
  int r = whole(t, mem, &new, e);
  if (r == 0 && former)
    r = whole(former, mem, &old, e);
  if (r < 0)
    return r;
  if (former)
    task_differences(differences, old, new);
  json_t *o = json_object();
  set_new(o, "version", json_integer(t->v.version));
  set_new(o, "state", json_string(task_state_names[t->v.state]));
  set_time(o, "effective_at", t->v.effective_at);
  set_time(o, "updated_at", t->updated_at);
  set_text(o, "updated_by", t->updated_by);
  set_text(o, "note", t->note);
  set_new(o, "differences", json_incref(differences));
  (void)json_array_append_new(items, o); /* fails only without memory */
  return 0;
}

int task_history(struct task_service *s, const struct task_call *c, struct slice ref,
                 const struct st_task_versions *page, int32_t *ret_before, json_t **ret_items) {
  struct st_task_versions more = *page;
  struct st_task_versions_ret found;
  if (page->limit < 1)
    return err_field(c->e, ERR_INVALID, "/limit", "expected at least 1");
  if (more.limit > HISTORY_MAX)
    more.limit = HISTORY_MAX;
  more.limit++; /* the one before the last, to compare with */
  int r = task_versions(s, c, ref, &more, &found);
  if (r < 0)
    return r;
  size_t n = found.count < (size_t)more.limit ? found.count : found.count - 1;
  auto_json *items = json_array();
  for (size_t i = 0; r >= 0 && i < n; i++)
    r = entry(&found.versions[i], i + 1 < found.count ? &found.versions[i + 1] : NULL, c->mem, items, c->e);
  if (r < 0)
    return r;
  *ret_before = n < found.count ? found.versions[n - 1].v.version : 0;
  *ret_items = json_incref(items);
  return 0;
}

int task_rollback(struct task_service *s, const struct task_call *c, struct slice ref, int32_t version,
                  struct task_row *ret) {
  struct task_row now, old;
  auto_json *current = NULL, *wanted = NULL;
  int r = task_get(s, c, ref, 0, &now);
  if (r < 0)
    return r;
  if (c->if_version && c->if_version != now.v.version)
    return err_set(c->e, ERR_STALE, "the task has version %d, not %d", now.v.version, c->if_version);
  r = task_get(s, c, ref, version, &old);
  if (r == ERR_NOT_FOUND)
    return err_field(c->e, r, "/version", "there is no version %d; the task has %d", version, now.v.version);
  if (r < 0 || (r = task_source_of(&now, c->mem, &current, c->e)) < 0 ||
      (r = task_source_of(&old, c->mem, &wanted, c->e)) < 0)
    return r;
  if (json_equal(current, wanted)) {
    *ret = now;
    return 1;
  }
  char note[40];
  struct task_call with_note = *c;
  (void)snprintf(note, sizeof note, "rolled back to version %d", version);
  if (!with_note.note.n)
    with_note.note = slice_of(note);
  return task_replace(s, &with_note, ref, wanted, ret);
}
