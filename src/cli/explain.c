/* kelou task explain: why it did or did not run. */
#include "cli/client.h"
#include "cli/output.h"
#include "cli/table.h"
#include "cli/words.h"

enum { PART_WIDTH = 34 };

static const char *text_of(const json_t *o, const char *key) {
  return json_string_value(json_object_get(o, key));
}

static void add_clean(struct str *out, const char *text) { text_clean(out, slice_of(text ? text : "")); }

/* A line of its own: the message with what is in the answer. */
static void add_line(struct str *out, enum message m, const char *one, const char *two) {
  if (!one)
    return;
  auto_str line, clean_one, clean_two;
  str_init(&line, TABLE_TEXT_MAX);
  str_init(&clean_one, TABLE_TEXT_MAX);
  str_init(&clean_two, TABLE_TEXT_MAX);
  add_clean(&clean_one, one);
  add_clean(&clean_two, two);
  words_add(&line, m, clean_one.p ? clean_one.p : "", clean_two.p ? clean_two.p : "");
  str_addz(out, "  ");
  str_add(out, str_slice(&line));
  str_addc(out, '\n');
}

static void add_part(struct str *out, const json_t *part) {
  const char *text = text_of(part, "text"), *waited = text_of(part, "waited_for"),
             *behind = text_of(part, "behind");
  size_t width = text_width(slice_of(text));
  str_addz(out, "    ");
  add_clean(out, text);
  for (; width < PART_WIDTH; width++)
    str_addc(out, ' ');
  str_addf(out, "%12.1f ms", json_number_value(json_object_get(part, "ms")));
  if (!json_object_get(part, "to"))
    str_addz(out, " …");
  if (waited) {
    str_addz(out, "  ");
    add_clean(out, waited);
  }
  if (behind) {
    str_addc(out, ' ');
    add_clean(out, behind);
  }
  str_addc(out, '\n');
}

static void add_head(struct str *out, const json_t *item, bool colour) {
  static const char *const colours[][2] = {
      {"RAN", "32"}, {"UNDER_WAY", "36"}, {"SKIPPED", "33"}, {"UNKNOWN", "31"}};
  const char *verdict = text_of(item, "verdict"), *code = text_of(item, "code"),
             *local = text_of(item, "local"), *sgr = NULL;
  for (size_t i = 0; colour && verdict && i < sizeof colours / sizeof *colours; i++)
    if (strcmp(verdict, colours[i][0]) == 0)
      sgr = strncmp(code ? code : "", "FAIL", 4) == 0 ? "31" : colours[i][1];
  if (local) {
    add_clean(out, local);
    str_addz(out, "  ");
  }
  str_addf(out, sgr ? "\033[%sm" : "%s", sgr ? sgr : "");
  add_clean(out, code);
  str_addz(out, sgr ? "\033[0m\n" : "\n");
}

static void add_item(struct str *out, const json_t *item, bool colour) {
  const json_t *notes = json_object_get(item, "notes"), *parts = json_object_get(item, "parts"),
               *run = json_object_get(item, "run"), *last = json_object_get(item, "last");
  add_head(out, item, colour);
  add_line(out, SAY_plain, text_of(item, "text"), NULL);
  for (size_t i = 0; i < json_array_size(notes); i++)
    add_line(out, SAY_explain_note, text_of(json_array_get(notes, i), "text"), NULL);
  add_line(out, SAY_explain_run, text_of(run, "id"), text_of(run, "state"));
  for (size_t i = 0; i < json_array_size(parts); i++)
    add_part(out, json_array_get(parts, i));
  add_line(out, SAY_explain_last, text_of(item, "last_local"), text_of(last, "state"));
  add_line(out, SAY_explain_previous, text_of(item, "previous_local"), NULL);
  add_line(out, SAY_explain_next, text_of(item, "next_local"), NULL);
}

static int show(const struct invocation *given, const json_t *found) {
  if (given->output != OUT_TABLE && given->output != OUT_WIDE)
    return output_show(given, found);
  auto_str out;
  str_init(&out, TABLE_TEXT_MAX);
  const json_t *items = json_object_get(found, "items");
  for (size_t i = 0; i < json_array_size(items); i++)
    add_item(&out, json_array_get(items, i), output_colour());
  int code = print_out(&out);
  if (json_is_true(json_object_get(found, "more")))
    words_complain(SAY_explain_more, NULL, NULL);
  return code;
}

int explain_run(const struct invocation *given) {
  struct client *c = NULL;
  auto_request r = {0};
  auto_json *found = NULL;
  int code = request_build(given, &r);
  if (code)
    return code;
  if (words_lang() == LANG_ZH) /* what the centre says, too */
    str_addz(&r.target, memchr(r.target.p, '?', r.target.n) ? "&lang=zh" : "?lang=zh");
  code = client_open(given, &c);
  if (code == 0)
    code = call_once(c, given, &r, &found);
  client_close(&c);
  return code ? code : show(given, found);
}
