#include "cli/changes.h"
#include "base/mem.h"
#include "cli/table.h"
#include "cli/words.h"
#include <stdio.h>

#define VALUE_SHOWN_MAX 160 /* bytes of a value; longer ones end in … */

static const char *text_of(const json_t *o, const char *key) {
  const char *text = json_string_value(json_object_get(o, key));
  return text ? text : "";
}

static void add_value(struct str *out, const json_t *j) {
  auto_free char *text = json_text(j);
  struct slice s = slice_of(text), head = slice_utf8_head(s, VALUE_SHOWN_MAX);
  text_clean(out, head);
  str_addz(out, head.n < s.n ? "…" : "");
}

void changes_add_differences(struct str *out, const json_t *differences) {
  for (size_t i = 0; i < json_array_size(differences); i++) {
    const json_t *d = json_array_get(differences, i), *from = json_object_get(d, "from"),
                 *to = json_object_get(d, "to");
    str_addz(out, "    ");
    text_clean(out, slice_of(text_of(d, "field")));
    str_addz(out, ": ");
    if (from)
      add_value(out, from);
    else
      str_addc(out, '-');
    str_addz(out, " → ");
    if (to)
      add_value(out, to);
    else
      str_addc(out, '-');
    str_addc(out, '\n');
  }
}

struct action {
  const char *name, *mark, *sgr;
  enum message count;
};
static const struct action actions[] = {{"created", "+", "32", SAY_n_created},
                                        {"changed", "~", "33", SAY_n_changed},
                                        {"unchanged", "=", NULL, SAY_n_unchanged},
                                        {"deleted", "-", "31", SAY_n_deleted}};
enum { UNCHANGED = 2, DELETED = 3, ACTIONS = 4 };

static int action_of(const json_t *item) {
  const char *name = text_of(item, "action");
  for (int i = 0; i < ACTIONS; i++)
    if (strcmp(actions[i].name, name) == 0)
      return i;
  return UNCHANGED;
}

static void add_versions(struct str *out, const json_t *item) {
  int64_t from = json_integer_value(json_object_get(item, "from_version")),
          to = json_integer_value(json_object_get(item, "version"));
  if (action_of(item) == DELETED)
    to = from;
  if (from && to && from != to)
    str_addf(out, " (version %lld → %lld)", (long long)from, (long long)to);
  else if (from || to)
    str_addf(out, " (version %lld)", (long long)(to ? to : from));
}

static void add_item(struct str *out, const json_t *item, const struct changes_look *look) {
  const struct action *a = &actions[action_of(item)];
  bool colour = look->colour && a->sgr;
  if (colour)
    str_addf(out, "\033[%sm", a->sgr);
  str_addf(out, "%s %s ", a->mark, text_of(item, "kind"));
  text_clean(out, slice_of(text_of(item, "namespace")));
  str_addc(out, '/');
  text_clean(out, slice_of(text_of(item, "name")));
  if (colour)
    str_addz(out, "\033[0m");
  add_versions(out, item);
  str_addc(out, '\n');
  if (look->details)
    changes_add_differences(out, json_object_get(item, "differences"));
  if (*text_of(item, "secret"))
    str_addf(out, "    secret: %s\n", text_of(item, "secret"));
}

void changes_add(struct str *out, const json_t *items, const struct changes_look *look) {
  for (size_t i = 0; i < json_array_size(items); i++) {
    const json_t *item = json_array_get(items, i);
    if (look->all || action_of(item) != UNCHANGED)
      add_item(out, item, look);
  }
}

void changes_count(struct str *out, const json_t *items) {
  size_t count[ACTIONS] = {0};
  for (size_t i = 0; i < json_array_size(items); i++)
    count[action_of(json_array_get(items, i))]++;
  for (int i = 0; i < ACTIONS; i++) {
    char number[24];
    (void)snprintf(number, sizeof number, "%zu", count[i]);
    if (i)
      words_add(out, SAY_between, NULL, NULL);
    words_add(out, actions[i].count, number, NULL);
  }
}

size_t changes_pending(const json_t *items) {
  size_t n = 0;
  for (size_t i = 0; i < json_array_size(items); i++)
    n += action_of(json_array_get(items, i)) != UNCHANGED;
  return n;
}
