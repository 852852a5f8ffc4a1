#include "cli/output.h"
#include "base/mem.h"
#include "cli/table.h"
#include "cli/words.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define OUTPUT_MAX    ((size_t)256 * 1024 * 1024)
#define PATH_TEXT_MAX 256
#define DEPTH_MAX     8 /* of objects inside objects that the table of one document takes apart */

static json_t *writable(const json_t *j) {
  return (json_t *)(uintptr_t)j;
} /* jansson wants it; nothing is written */

/* "a.b" inside objects; NULL: there is none. */
static const json_t *at_path(const json_t *j, struct slice path) {
  while (path.n && j) {
    struct slice rest, head = slice_cut(path, '.', &rest);
    j = json_object_getn(j, head.p, head.n);
    path = rest;
  }
  return j;
}

/* A value as the text of one cell. */
static void add_value(struct str *out, const json_t *j) {
  if (!j || json_is_null(j))
    return;
  if (json_is_string(j)) {
    str_add(out, slice_n(json_string_value(j), json_string_length(j)));
    return;
  }
  size_t i;
  json_t *item;
  bool texts = json_is_array(j);
  json_array_foreach (j, i, item)
    texts = texts && json_is_string(item);
  if (!texts) {
    auto_free char *text = json_text(j);
    str_addz(out, text);
    return;
  }
  json_array_foreach (j, i, item) {
    str_addz(out, i ? "," : "");
    str_addz(out, json_string_value(item));
  }
}

static void add_cell(struct table *t, const json_t *value) {
  auto_str text;
  str_init(&text, OUTPUT_MAX);
  add_value(&text, value);
  table_cell(t, str_slice(&text));
}

/* The names in two lists of columns. Returns how many. */
static size_t split_columns(const char *columns, const char *more, struct slice *ret) {
  size_t n = 0;
  for (const char *list = columns; list; list = list == columns ? more : NULL) {
    struct slice rest = slice_of(list);
    while (rest.n && n < TABLE_COLUMNS_MAX)
      ret[n++] = slice_cut(rest, ' ', &rest);
  }
  return n;
}

void output_table(struct str *out, const json_t *rows, const char *columns, const char *more, bool colour) {
  struct slice names[TABLE_COLUMNS_MAX];
  size_t n = split_columns(columns, more, names), i;
  json_t *row;
  auto_table t;
  table_init(&t, n, true, colour);
  for (size_t c = 0; c < n; c++) {
    auto_str label;
    str_init(&label, PATH_TEXT_MAX);
    const char *dot = memrchr(names[c].p, '.', names[c].n);
    size_t skip = dot ? (size_t)(dot + 1 - names[c].p) : 0;
    words_label(&label, slice_n(names[c].p + skip, names[c].n - skip));
    table_cell(&t, str_slice(&label));
  }
  json_array_foreach (rows, i, row) {
    for (size_t c = 0; c < n; c++)
      add_cell(&t, at_path(row, names[c]));
  }
  table_print(&t, out);
}

/* ------------------------------------------------------------------ one document */

static bool is_object_list(const json_t *j) { return json_is_object(json_array_get(j, 0)); }

static bool is_nothing(const json_t *j) {
  return json_is_null(j) || (json_is_array(j) && !json_array_size(j)) ||
         (json_is_object(j) && !json_object_size(j));
}

/* Fields and values under each other; what is inside objects and lists of objects gets "a.b" and "a.1.b". */
static void add_fields(struct table *t, const json_t *object, const char *prefix, int depth) {
  const char *key;
  json_t *value, *item;
  size_t i;
  json_object_foreach (writable(object), key, value) {
    auto_str label;
    str_init(&label, PATH_TEXT_MAX);
    str_addz(&label, prefix);
    words_label(&label, slice_of(key));
    bool take_apart = depth < DEPTH_MAX && !words_opaque(slice_of(key)) && !str_failed(&label);
    if (take_apart && json_is_object(value)) {
      str_addc(&label, '.');
      add_fields(t, value, label.p ? label.p : "", depth + 1);
    } else if (take_apart && is_object_list(value)) {
      json_array_foreach (value, i, item) {
        auto_str numbered;
        str_init(&numbered, PATH_TEXT_MAX);
        str_addf(&numbered, "%s.%zu.", label.p, i + 1);
        add_fields(t, item, numbered.p ? numbered.p : "", depth + 1);
      }
    } else if (!is_nothing(value)) {
      table_cell(t, str_slice(&label));
      add_cell(t, value);
    }
  }
}

/* ------------------------------------------------------------------ all forms */

static void add_name(struct str *out, const json_t *item, const char *names) {
  struct slice rest = slice_of(names);
  const char *between = "";
  while (rest.n) {
    auto_str text;
    str_init(&text, OUTPUT_MAX);
    add_value(&text, at_path(item, slice_cut(rest, '/', &rest)));
    str_addz(out, between);
    text_clean(out, str_slice(&text));
    between = "/";
  }
  str_addc(out, '\n');
}

static void add_names(struct str *out, const json_t *answer, const json_t *items, const char *names) {
  size_t i;
  json_t *item;
  if (!items)
    add_name(out, answer, names);
  json_array_foreach (items, i, item)
    add_name(out, item, names);
}

static void add_people(const struct invocation *g, const json_t *answer, const json_t *items, bool colour,
                       struct str *out) {
  const struct shape *s = g->verb->shape;
  auto_json *row = g->verb->flags & ROW ? json_array() : NULL;
  if (row)
    (void)json_array_append(row, writable(answer)); /* fails only without memory */
  if (items || row) {
    output_table(out, row ? row : items, s->columns, g->output == OUT_WIDE ? s->wide : NULL, colour);
    return;
  }
  auto_table t;
  table_init(&t, 2, false, colour);
  add_fields(&t, answer, "", 0);
  table_print(&t, out);
}

void output_add(const struct invocation *given, const json_t *answer, bool colour, struct str *out) {
  const json_t *items = json_object_get(answer, "items");
  switch (given->output) {
  case OUT_JSON: dump_json(out, answer); break;
  case OUT_YAML: dump_yaml(out, answer); break;
  case OUT_NAME: add_names(out, answer, items, given->verb->shape->names); break;
  case OUT_TABLE:
  case OUT_WIDE:
  case OUT_MERMAID:
  case OUT_MAX_: add_people(given, answer, items, colour, out); break;
  }
}

bool output_colour(void) {
  const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
  return isatty(STDOUT_FILENO) && !(no && *no) && !(term && strcmp(term, "dumb") == 0);
}

int print_out(const struct str *out) {
  if (str_failed(out)) {
    char text[32];
    (void)snprintf(text, sizeof text, "%zu", out->max);
    words_complain(SAY_too_long, text, NULL);
    return 1;
  }
  if (fwrite(out->p ? out->p : "", 1, out->n, stdout) == out->n && fflush(stdout) == 0)
    return 0;
  words_complain(SAY_stdout_failed, NULL, NULL);
  return 1;
}

int output_show(const struct invocation *given, const json_t *answer) {
  if (!answer)
    return 0;
  auto_str out;
  str_init(&out, OUTPUT_MAX);
  output_add(given, answer, output_colour(), &out);
  const char *remark = json_string_value(json_object_get(answer, "remark"));
  if (remark && json_object_get(answer, "items") && (given->output == OUT_TABLE || given->output == OUT_WIDE))
    words_complain(SAY_plain, remark, NULL);
  return print_out(&out);
}
