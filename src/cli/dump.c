/* JSON and YAML for people and programs. */
#include "base/mem.h"
#include "cli/output.h"
#include <stdio.h>

static void indent(struct str *out, int depth) {
  for (int i = 0; i < depth; i++)
    str_addz(out, "  ");
}

static void add_scalar(struct str *out, const json_t *j) {
  auto_free char *text = json_text(j);
  str_addz(out, text);
}

static json_t *writable(const json_t *j) {
  return (json_t *)(uintptr_t)j;
} /* jansson's iterators want it; they do not write */

/* Scalars, and lists and objects with nothing in them. */
static bool is_flat(const json_t *j) {
  return json_is_array(j) ? json_array_size(j) == 0 : !json_is_object(j) || json_object_size(j) == 0;
}

static void add_json(struct str *out, const json_t *j, int depth) {
  if (is_flat(j)) {
    add_scalar(out, j);
    return;
  }
  bool list = json_is_array(j);
  const char *key, *before = "\n";
  size_t i;
  json_t *value;
  str_addc(out, list ? '[' : '{');
  if (list) {
    json_array_foreach (j, i, value) {
      str_addz(out, before);
      before = ",\n";
      indent(out, depth + 1);
      add_json(out, value, depth + 1);
    }
  } else {
    json_object_foreach (writable(j), key, value) {
      str_addz(out, before);
      before = ",\n";
      indent(out, depth + 1);
      str_addc(out, '"');
      str_add_json(out, slice_of(key));
      str_addz(out, "\": ");
      add_json(out, value, depth + 1);
    }
  }
  str_addc(out, '\n');
  indent(out, depth);
  str_addc(out, list ? ']' : '}');
}

void dump_json(struct str *out, const json_t *j) {
  add_json(out, j, 0);
  str_addc(out, '\n');
}

static bool is_letter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

/* Whether a text may stand without quotes: letters, digits and a few marks, beginning with a letter, and no
 * word that some YAML reader takes for something else. */
static bool yaml_plain(struct slice s) {
  static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};
  bool plain = s.n && is_letter(s.p[0]);
  for (size_t i = 0; plain && i < s.n; i++)
    plain = is_letter(s.p[i]) || (s.p[i] && strchr("0123456789_-./", s.p[i]));
  for (size_t i = 0; plain && i < sizeof words / sizeof *words; i++)
    plain = !slice_eqz_nocase(s, words[i]);
  return plain;
}

/* JSON's quotes and escapes are YAML's too. */
static void yaml_text(struct str *out, struct slice s) {
  if (yaml_plain(s)) {
    str_add(out, s);
    return;
  }
  str_addc(out, '"');
  str_add_json(out, s);
  str_addc(out, '"');
}

/* A number without a point in it would be read as a text: 1e300. */
static void yaml_scalar(struct str *out, const json_t *j) {
  auto_free char *text = json_text(j);
  const char *e = json_is_real(j) && !strchr(text, '.') ? strchr(text, 'e') : NULL;
  if (e)
    str_addf(out, "%.*s.0%s", (int)(e - text), text, e);
  else
    str_addz(out, text);
}

/* `inline_first`: the first line of the block goes on where "- " stands. */
static void add_yaml(struct str *out, const json_t *j, int depth, bool inline_first);

/* A value after "key:" or "-": a scalar on the same line, or a block. */
static void yaml_after(struct str *out, const json_t *j, int depth, bool after_dash) {
  if (is_flat(j)) {
    str_addc(out, ' ');
    add_yaml(out, j, depth, false);
    str_addc(out, '\n');
  } else if (after_dash) {
    str_addc(out, ' ');
    add_yaml(out, j, depth, true);
  } else {
    str_addc(out, '\n');
    add_yaml(out, j, depth, false);
  }
}

static void add_yaml(struct str *out, const json_t *j, int depth, bool inline_first) {
  const char *key;
  size_t i;
  json_t *value;
  if (json_is_string(j)) {
    yaml_text(out, slice_n(json_string_value(j), json_string_length(j)));
  } else if (is_flat(j)) {
    yaml_scalar(out, j);
  } else if (json_is_array(j)) {
    json_array_foreach (j, i, value) {
      indent(out, inline_first && i == 0 ? 0 : depth);
      str_addc(out, '-');
      yaml_after(out, value, depth + 1, true);
    }
  } else {
    json_object_foreach (writable(j), key, value) {
      indent(out, inline_first ? 0 : depth);
      inline_first = false;
      yaml_text(out, slice_of(key));
      str_addc(out, ':');
      yaml_after(out, value, depth + 1, false);
    }
  }
}

void dump_yaml(struct str *out, const json_t *j) {
  add_yaml(out, j, 0, false);
  if (is_flat(j))
    str_addc(out, '\n');
}
