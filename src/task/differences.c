/* What differs between two documents. */
#include "task/internal.h"

#define POINTER_MAX 1024

/* Reference tokens of RFC 6901. */
static void add_token(struct str *path, const char *key) {
  str_addc(path, '/');
  for (; *key; key++)
    if (*key == '~')
      str_addz(path, "~0");
    else if (*key == '/')
      str_addz(path, "~1");
    else
      str_addc(path, *key);
}

static json_t *shared(const json_t *j) {
  return json_incref((json_t *)(uintptr_t)j);
} /* jansson counts; nothing is written */

static void add_one(json_t *list, const struct str *path, const json_t *from, const json_t *to) {
  json_t *o = json_object();
  (void)json_object_set_new(o, "field",
                            json_string(path->p ? path->p : "")); /* these fail only without memory */
  if (from)
    (void)json_object_set_new(o, "from", shared(from));
  if (to)
    (void)json_object_set_new(o, "to", shared(to));
  (void)json_array_append_new(list, o);
}

static void compare(json_t *list, struct str *path, const json_t *from, const json_t *to);

/* A member of either side. A path beyond its maximum is not gone further into. */
static void compare_member(json_t *list, struct str *path, const char *key, const json_t *from,
                           const json_t *to) {
  auto_str inner;
  str_init(&inner, POINTER_MAX);
  str_add(&inner, str_slice(path));
  add_token(&inner, key);
  if (str_failed(&inner))
    add_one(list, path, from, to);
  else
    compare(list, &inner, from, to);
}

/* Both are as deep as json_read allows at most. */
static void compare(json_t *list, struct str *path, const json_t *from, const json_t *to) {
  if (from && to && json_equal(from, to))
    return;
  bool into = (json_is_object(from) || !from) && (json_is_object(to) || !to) &&
              json_object_size(from) + json_object_size(to) > 0;
  if (!into) {
    add_one(list, path, from, to);
    return;
  }
  const char *key;
  json_t *value;
  json_object_foreach ((json_t *)(uintptr_t)from, key, value)
    compare_member(list, path, key, value, json_object_get(to, key));
  json_object_foreach ((json_t *)(uintptr_t)to, key, value)
    if (!json_object_get(from, key))
      compare_member(list, path, key, NULL, value);
}

void task_differences(json_t *list, const json_t *from, const json_t *to) {
  auto_str path;
  str_init(&path, POINTER_MAX);
  compare(list, &path, from, to);
}
