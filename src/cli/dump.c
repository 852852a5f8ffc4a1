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

/* Whether a text may stand without quotes: letters, digits and a few marks, beginning with a letter, and no word that some YAML
 * reader takes for something else. */
static bool yaml_plain(struct slice s) {
  static const char *const words[] = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};
  bool letter = s.n && ((s.p[0] >= 'A' && s.p[0] <= 'Z') || (s.p[0] >= 'a' && s.p[0] <= 'z'));
  for (size_t i = 0; letter && i < s.n; i++) {
    char c = s.p[i];
    letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
             c == '-' || c == '.' || c == '/';
  }
  for (size_t i = 0; letter && i < sizeof words / sizeof *words; i++)
    letter = !slice_eqz_nocase(s, words[i]);
  return letter;
}

/* JSON's quotes are YAML's; what JSON leaves as it is but YAML does not print is escaped. */
static void yaml_text(struct str *out, struct slice s) {
  if (yaml_plain(s)) {
    str_add(out, s);
    return;
  }
  auto_str quoted;
  str_init(&quoted, s.n * 6 + 16);
  str_add_json(&quoted, s);
  struct slice rest = str_slice(&quoted);
  str_addc(out, '"');
  while (rest.n) {
    size_t n = slice_utf8_step(rest);
    bool c1 = n == 2 && (unsigned char)rest.p[0] == 0xc2 && (unsigned char)rest.p[1] < 0xa0;
    if (rest.p[0] == 0x7f)
      str_addz(out, "\\x7f");
    else if (c1)
      str_addf(out, "\\x%02x", (unsigned char)rest.p[1]);
    else
      str_add(out, slice_n(rest.p, n ? n : 1));
    n = n ? n : 1;
    rest = slice_n(rest.p + n, rest.n - n);
  }
  str_addc(out, '"');
}

/* A value after "key:" or "-": a scalar on the same line, or a block. `first` is where the block's first line begins. */
static void add_yaml(struct str *out, const json_t *j, int depth, bool inline_first);

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
    add_scalar(out, j);
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
