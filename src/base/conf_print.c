#include "base/conf_internal.h"
#include "base/mem.h"
#include <stdio.h>
#include <stdlib.h>

static const char mask[] = "\"********\"";
static const char *const from_names[CONF_FROM_MAX_] = {"nothing", "default", "file", "environment",
                                                       "override"};

struct entry {
  const struct conf_item *item;
  const struct conf_value *value;
};

static int entry_cmp(const void *a, const void *b) {
  return strcmp(((const struct entry *)a)->item->name, ((const struct entry *)b)->item->name);
}

static void add_quoted(struct str *out, const char *text) {
  str_addc(out, '"');
  str_add_json(out, slice_of(text)); /* JSON escapes are YAML escapes */
  str_addc(out, '"');
}

static void add_list(struct str *out, char *const *list) {
  str_addc(out, '[');
  for (size_t i = 0; list[i]; i++) {
    if (i)
      str_addz(out, ", ");
    add_quoted(out, list[i]);
  }
  str_addc(out, ']');
}

static void add_value(struct str *out, const struct entry *at) {
  const struct conf_value *v = at->value;
  bool empty = v->list ? !v->list[0] : !v->text[0];
  if (at->item->flags & CONF_SECRET && !empty)
    str_addz(out, mask);
  else if (v->list)
    add_list(out, v->list);
  else if (at->item->type == CONF_STRING)
    add_quoted(out, v->text);
  else
    str_addz(out, v->text);
}

/* Length of the sections two names share, with the dot. */
static size_t shared(const char *a, const char *b) {
  size_t n = 0;
  for (size_t i = 0; a[i] && a[i] == b[i]; i++)
    if (a[i] == '.')
      n = i + 1;
  return n;
}

static void indent(struct str *out, const char *name, size_t end) {
  for (size_t i = 0; i < end; i++)
    if (name[i] == '.')
      str_addz(out, "  ");
}

static void add_entry(struct str *out, const struct entry *at, const char *before) {
  const char *name = at->item->name;
  size_t from = shared(name, before);
  for (const char *dot; (dot = strchr(name + from, '.')); from = (size_t)(dot - name) + 1) {
    indent(out, name, from);
    str_add(out, slice_n(name + from, (size_t)(dot - name) - from));
    str_addz(out, ":\n");
  }
  indent(out, name, from);
  str_addf(out, "%s: ", name + from);
  add_value(out, at);
  if (at->value->from != CONF_FROM_DEFAULT)
    str_addf(out, "  # %s", from_names[at->value->from]);
  str_addc(out, '\n');
}

void conf_print(const struct conf *c, struct str *out) {
  auto_free struct entry *list = mem_array(c->n, sizeof *list);
  for (size_t i = 0; i < c->n; i++)
    list[i] = (struct entry){&c->items[i], &c->values[i]};
  if (c->n)
    qsort(list, c->n, sizeof *list, entry_cmp); /* a section must not come twice */
  for (size_t i = 0; i < c->n; i++)
    add_entry(out, &list[i], i ? list[i - 1].item->name : "");
}

static void add_cell(struct str *out, const char *text) {
  for (; *text; text++) {
    if (*text == '|')
      str_addc(out, '\\');
    str_addc(out, *text);
  }
}

static void add_span(struct str *out, int64_t v, enum conf_type type) {
  char buf[TIME_TEXT_MAX];
  if (type == CONF_DURATION) {
    str_addz(out, duration_format(v, buf));
    return;
  }
  static const char *const suffixes[] = {"", "KiB", "MiB", "GiB"};
  size_t unit = 0;
  for (; type == CONF_BYTES && v && v % 1024 == 0 && unit < 3; unit++)
    v /= 1024;
  str_addi(out, v);
  str_addz(out, suffixes[unit]);
}

static void add_range(struct str *out, const struct conf_item *item) {
  if (item->type == CONF_ENUM) {
    for (size_t i = 0; item->names[i]; i++)
      str_addf(out, "%s`%s`", i ? ", " : "", item->names[i]);
    return;
  }
  if (item->type == CONF_BOOL || (item->min == 0 && item->max == 0))
    return;
  add_span(out, item->min, item->type);
  str_addz(out, " to ");
  if (item->max == INT64_MAX)
    str_addz(out, "any");
  else
    add_span(out, item->max, item->type);
  if (item->type == CONF_STRING || item->type == CONF_LIST)
    str_addz(out, item->type == CONF_STRING ? " bytes" : " entries");
}

void conf_doc(const struct conf_item *items, size_t n, struct str *out) {
  static const char *const types[CONF_TYPE_MAX_] = {"text", "number", "true, false", "duration",
                                                    "size", "choice", "list"};
  str_addz(out, "| Setting | Environment | Type | Default | Range | Reload | Meaning |\n"
                "|---|---|---|---|---|---|---|\n");
  for (size_t i = 0; i < n; i++) {
    char env[CONF_NAME_MAX + 8];
    conf_env_name(items[i].name, env);
    str_addf(out, "| `%s` | `%s` | %s | ", items[i].name, env, types[items[i].type]);
    if (!items[i].text)
      str_addz(out, "must be set");
    else if (*items[i].text) {
      str_addc(out, '`');
      add_cell(out, items[i].text);
      str_addc(out, '`');
    }
    str_addz(out, " | ");
    add_range(out, &items[i]);
    str_addz(out, items[i].flags & CONF_RELOADABLE ? " | yes | " : " | no | ");
    add_cell(out, items[i].help);
    str_addz(out, items[i].flags & CONF_SECRET ? "; a secret, never printed |\n" : " |\n");
  }
}
