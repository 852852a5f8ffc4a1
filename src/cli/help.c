/* kelou help, --help, and docs/cli.md: all from commands.def. */
#include "cli/commands.h"
#include "cli/table.h"
#include "cli/words.h"
#include <stdio.h>
#include <string.h>

/* What stands in the two columns of a list. */
static void add_pair(struct str *out, const char *left, const char *right, size_t width) {
  str_addz(out, "  ");
  str_addz(out, left);
  for (size_t w = text_width(slice_of(left)); w < width + 2; w++)
    str_addc(out, ' ');
  str_addz(out, right);
  str_addc(out, '\n');
}

static void add_title(struct str *out, enum message m) {
  str_addc(out, '\n');
  words_add(out, m, NULL, NULL);
  str_addz(out, words_lang() == LANG_ZH ? "：\n" : ":\n");
}

static void option_left(const struct opt *o, struct str *out) {
  if (o->letter)
    str_addf(out, "-%c, ", o->letter);
  str_addf(out, "--%s", o->name);
  if (o->value)
    str_addf(out, " %s", o->value);
}

static void add_options(struct str *out, option_set set) {
  size_t width = 0;
  for (int pass = 0; pass < 2; pass++)
    for (int i = 0; i < OPT_MAX_; i++) {
      auto_str left;
      str_init(&left, 256);
      option_left(&command_opts[i], &left);
      if (!(set >> i & 1))
        continue;
      if (pass == 0)
        width = left.n > width ? left.n : width;
      else
        add_pair(out, left.p, words_pick(command_opts[i].en, command_opts[i].zh), width);
    }
}

static void add_exit_codes(struct str *out) {
  str_addc(out, '\n');
  words_add(out, SAY_exit_codes, NULL, NULL);
  str_addc(out, '\n');
}

static void add_arguments(struct str *out, const struct verb *v) {
  char buf[ARGUMENT_NAME_MAX];
  for (size_t i = 0; i < ARGUMENTS_MAX && command_argument(v, i, buf); i++)
    str_addf(out, " %s", buf);
}

static void add_all(struct str *out) {
  auto_str usage;
  str_init(&usage, 256);
  words_add(&usage, SAY_usage_all, NULL, NULL);
  words_add(out, SAY_usage, usage.p, NULL);
  str_addc(out, '\n');
  add_title(out, SAY_nouns);
  for (size_t i = 0; i < NOUN_MAX_; i++)
    add_pair(out, command_nouns[i].name, words_pick(command_nouns[i].en, command_nouns[i].zh), 10);
  add_title(out, SAY_global_options);
  add_options(out, GLOBAL_OPTIONS);
  add_exit_codes(out);
  words_add(out, SAY_see_help, NULL, NULL);
  str_addc(out, '\n');
}

static void add_noun(struct str *out, const struct noun *n) {
  str_addf(out, "kelou %s: ", n->name);
  str_addz(out, words_pick(n->en, n->zh));
  str_addc(out, '\n');
  add_title(out, SAY_verbs);
  size_t width = 0;
  for (int pass = 0; pass < 2; pass++)
    for (size_t i = 0; i < command_verb_count; i++) {
      const struct verb *v = &command_verbs[i];
      if (&command_nouns[v->noun] != n)
        continue;
      auto_str left;
      str_init(&left, 256);
      str_addz(&left, v->name);
      add_arguments(&left, v);
      if (pass == 0)
        width = left.n > width ? left.n : width;
      else
        add_pair(out, left.p ? left.p : "", words_pick(v->en, v->zh), width);
    }
  str_addc(out, '\n');
  words_add(out, SAY_see_help, NULL, NULL);
  str_addc(out, '\n');
}

static void add_command(struct str *out, const struct verb *v) {
  str_addf(out, "kelou %s%s%s", command_nouns[v->noun].name, *v->name ? " " : "", v->name);
}

static const struct example {
  int noun;
  const char *verb, *call, *document;
} examples[] = {
#define EXAMPLE(noun, verb, call, document) {NOUN_##noun, verb, call, document},
#include "cli/examples.def"
};

static const struct example *example_of(const struct verb *v) {
  for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
    if (examples[i].noun == v->noun && strcmp(examples[i].verb, v->name) == 0)
      return &examples[i];
  return NULL;
}

/* The command, and its document with `indent` before each line. */
static void add_example(struct str *out, const struct verb *v, const char *indent) {
  const struct example *x = example_of(v);
  str_addf(out, "%s$ ", indent);
  add_command(out, v);
  str_addf(out, " %s\n", x->call);
  for (const char *line = x->document; *line;) {
    int n = (int)strcspn(line, "\n");
    str_addf(out, "%s%.*s\n", indent, n, line);
    line += n + 1;
  }
}

static void add_verb(struct str *out, const struct verb *v) {
  auto_str usage;
  str_init(&usage, 512);
  add_command(&usage, v);
  add_arguments(&usage, v);
  words_add(out, SAY_usage, usage.p, NULL);
  str_addf(out, "\n\n%s\n", words_pick(v->en, v->zh));
  if (v->options & ~GLOBAL_OPTIONS) {
    add_title(out, SAY_options);
    add_options(out, v->options & ~GLOBAL_OPTIONS);
  }
  if (example_of(v)) {
    add_title(out, SAY_example);
    add_example(out, v, "  ");
  }
  add_title(out, SAY_global_options);
  add_options(out, GLOBAL_OPTIONS);
  add_exit_codes(out);
}

void help_add(struct str *out, const struct noun *n, const struct verb *v) {
  if (v)
    add_verb(out, v);
  else if (n)
    add_noun(out, n);
  else
    add_all(out);
}

int help_show(const struct noun *n, const struct verb *v) {
  auto_str out;
  str_init(&out, HELP_MAX);
  help_add(&out, n, v);
  return print_out(&out);
}

/* The verb that is asked for, one word or two; NULL: there is none of that name. */
static const struct verb *asked_verb(const struct noun *n, int argc, char **argv) {
  char two[64];
  if (argc != 4)
    return verb_find(n, argc > 2 ? argv[2] : "");
  (void)snprintf(two, sizeof two, "%s %s", argv[2], argv[3]); /* a cut one is none */
  return verb_find(n, two);
}

static int wrong(enum message m, const char *what) {
  words_complain(m, what, NULL);
  return EXIT_USAGE;
}

int help_tool(int argc, char **argv, const struct invocation *given) {
  if (argc < 2)
    return help_show(NULL, NULL);
  const struct noun *n = noun_find(argv[1]);
  if (!n)
    return wrong(SAY_no_noun, argv[1]);
  const struct verb *v = asked_verb(n, argc, argv);
  if (argc > 2 && !v && !(argc == 3 && verb_begins(n, argv[2])))
    return wrong(SAY_no_verb, argv[1]);
  if (argc > 4)
    return wrong(SAY_too_many, argv[4]);
  if (n->tool && n->tool != help_tool && n->tool != version_tool)
    return n->tool(2, (char *[]){argv[1], (char[]){"--help"}, NULL}, given);
  return help_show(n->tool ? NULL : n, v);
}

/* ------------------------------------------------------------------ docs/cli.md */

static void add_markdown_options(struct str *out, option_set set) {
  for (int i = 0; i < OPT_MAX_; i++) {
    if (!(set >> i & 1))
      continue;
    auto_str left;
    str_init(&left, 256);
    option_left(&command_opts[i], &left);
    str_addz(out, "| `");
    for (size_t c = 0; c < left.n; c++)
      str_addf(out, left.p[c] == '|' ? "\\%c" : "%c", left.p[c]);
    str_addf(out, "` | %s |\n", command_opts[i].en);
  }
}

static void add_markdown_verb(struct str *out, const struct verb *v) {
  str_addz(out, "\n### ");
  add_command(out, v);
  add_arguments(out, v);
  str_addf(out, "\n\n%c%s.", v->en[0] >= 'a' && v->en[0] <= 'z' ? v->en[0] - 'a' + 'A' : v->en[0], v->en + 1);
  if (v->path[0])
    str_addf(out, " %s `%s`.", v->method, v->path);
  if (v->shape->columns[0] && v->path[0])
    str_addf(out, " Columns: %s", v->shape->columns);
  if (v->shape->wide[0])
    str_addf(out, "; wide: %s", v->shape->wide);
  str_addz(out, v->shape->columns[0] && v->path[0] ? ".\n" : "\n");
  if (v->options & ~GLOBAL_OPTIONS) {
    str_addz(out, "\n| option | what |\n|---|---|\n");
    add_markdown_options(out, v->options & ~GLOBAL_OPTIONS);
  }
  if (example_of(v)) {
    str_addz(out, "\n```\n");
    add_example(out, v, "");
    str_addz(out, "```\n");
  }
}

void help_markdown(struct str *out) {
  str_addz(out, "\n### Options of every command\n\n| option | what |\n|---|---|\n");
  add_markdown_options(out, GLOBAL_OPTIONS);
  for (size_t n = 0; n < NOUN_MAX_; n++) {
    if (command_nouns[n].tool)
      continue;
    str_addf(out, "\n## %s\n\n%c%s.\n", command_nouns[n].name, command_nouns[n].en[0] - 'a' + 'A',
             command_nouns[n].en + 1);
    for (size_t i = 0; i < command_verb_count; i++)
      if (command_verbs[i].noun == (int)n)
        add_markdown_verb(out, &command_verbs[i]);
  }
}
