/* kelou task history: who changed what and when. */
#include "cli/changes.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/table.h"

static void add_text(struct str *out, const json_t *item, const char *key, const char *before) {
  const char *text = json_string_value(json_object_get(item, key));
  if (!text || !*text)
    return;
  str_addz(out, before);
  text_clean(out, slice_of(text));
}

static void add_version(struct str *out, const json_t *item) {
  str_addf(out, "version %lld", (long long)json_integer_value(json_object_get(item, "version")));
  add_text(out, item, "updated_at", "  ");
  add_text(out, item, "updated_by", "  ");
  add_text(out, item, "state", "  ");
  add_text(out, item, "note", "  # ");
  str_addc(out, '\n');
  changes_add_differences(out, json_object_get(item, "differences"));
}

int history_run(const struct invocation *given) {
  struct client *c = NULL;
  auto_request r = {0};
  auto_json *found = NULL;
  int code = request_build(given, &r);
  if (code == 0)
    code = client_open(given, &c);
  if (code == 0)
    code = call_pages(c, given, &r, &found);
  client_close(&c);
  if (code)
    return code;
  if (given->output != OUT_TABLE && given->output != OUT_WIDE)
    return output_show(given, found);
  auto_str out;
  str_init(&out, ANSWER_MAX);
  const json_t *items = json_object_get(found, "items");
  for (size_t i = 0; i < json_array_size(items); i++)
    add_version(&out, json_array_get(items, i));
  return print_out(&out);
}
