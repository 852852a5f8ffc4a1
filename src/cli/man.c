/* kelou(1), from commands.def. */
#include "cli/commands.h"
#include <ctype.h>

/* A character beyond ASCII by its number: troff itself reads bytes. */
static void add_character(struct str *out, struct slice c) {
  static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
  unsigned point = (unsigned char)c.p[0] & masks[c.n];
  for (size_t i = 1; i < c.n; i++)
    point = point << 6 | ((unsigned char)c.p[i] & 0x3f);
  str_addf(out, "\\[u%04X]", point);
}

static void text(struct str *out, const char *s) {
  bool begin = true;
  struct slice left = slice_of(s);
  while (left.n) {
    size_t step = slice_utf8_step(left);
    if (begin && (*left.p == '.' || *left.p == '\''))
      str_addz(out, "\\&");
    if (step > 1)
      add_character(out, slice_n(left.p, step));
    else if (*left.p == '\\')
      str_addz(out, "\\e");
    else if (*left.p == '-')
      str_addz(out, "\\-");
    else
      str_addc(out, *left.p);
    begin = *left.p == '\n';
    left = slice_n(left.p + (step ? step : 1), left.n - (step ? step : 1));
  }
}

static void sentence(struct str *out, const char *s) {
  str_addc(out, (char)toupper((unsigned char)*s));
  text(out, s + 1);
  str_addz(out, ".\n");
}

static void options(struct str *out, option_set set) {
  for (int i = 0; i < OPT_MAX_; i++) {
    const struct opt *o = &command_opts[i];
    if (!(set >> i & 1))
      continue;
    str_addz(out, ".TP\n.BR ");
    if (o->letter)
      str_addf(out, "\\-%c \", \" ", o->letter);
    str_addz(out, "\\-\\-");
    text(out, o->name);
    if (o->value) {
      str_addz(out, " \" ");
      text(out, o->value);
      str_addc(out, '"');
    }
    str_addc(out, '\n');
    sentence(out, o->en);
  }
}

static void verb(struct str *out, const struct verb *v) {
  char buf[ARGUMENT_NAME_MAX];
  str_addz(out, ".SS \"kelou ");
  text(out, command_nouns[v->noun].name);
  str_addz(out, *v->name ? " " : "");
  text(out, v->name);
  for (size_t i = 0; i < ARGUMENTS_MAX && command_argument(v, i, buf); i++) {
    str_addc(out, ' ');
    text(out, buf);
  }
  str_addz(out, "\"\n");
  sentence(out, v->en);
  options(out, v->options & ~GLOBAL_OPTIONS);
}

static void noun(struct str *out, size_t n) {
  str_addz(out, ".SH ");
  for (const char *c = command_nouns[n].name; *c; c++)
    str_addc(out, (char)toupper((unsigned char)*c));
  str_addc(out, '\n');
  sentence(out, command_nouns[n].en);
  if (command_nouns[n].tool) {
    str_addf(out, "See\n.B kelou %s \\-\\-help\n", command_nouns[n].name);
    return;
  }
  for (size_t i = 0; i < command_verb_count; i++)
    if (command_verbs[i].noun == (int)n)
      verb(out, &command_verbs[i]);
}

static void environment(struct str *out) {
  static const char *const rows[][2] = {
      {"KELOU_SERVER", "the centre, when \\-\\-server is not given"},
      {"KELOU_TOKEN, KELOU_TOKEN_FILE", "the token, or the file that holds it"},
      {"KELOU_CA_FILE", "certificates to trust for https"},
      {"KELOU_LANG", "en or zh, before LC_ALL, LC_MESSAGES and LANG"},
      {"NO_COLOR", "no colours"},
  };
  str_addz(out, ".SH ENVIRONMENT\n");
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
    str_addf(out, ".TP\n.B %s\n%s.\n", rows[i][0], rows[i][1]);
}

void help_man(struct str *out) {
  str_addz(out, ".\\\" made from src/cli/commands.def: do not edit\n.TH kelou 1 \"\" \"Kelou " KELOU_VERSION
                "\" \"Kelou\"\n"
                ".SH NAME\nkelou \\- client of the scheduling centre keloud\n"
                ".SH SYNOPSIS\n.B kelou\n[OPTIONS] NOUN VERB [ARGUMENTS] [OPTIONS]\n"
                ".SH DESCRIPTION\nkelou makes tasks, looks at their runs and runs the centre. Data goes to "
                "standard output, all "
                "else to standard error; the language of messages is English or Chinese.\n"
                ".SH OPTIONS OF EVERY COMMAND\n");
  options(out, GLOBAL_OPTIONS);
  for (size_t n = 0; n < NOUN_MAX_; n++)
    noun(out, n);
  environment(out);
  str_addz(out, ".SH EXIT STATUS\n0 ok, 1 failure, 2 usage, 3 not found, 4 not allowed, 5 conflict, 6 the "
                "awaited run failed, 7 "
                "timeout, 8 unreachable, 9 there are differences.\n.SH SEE ALSO\n.BR keloud (8),\n.BR "
                "kelou.yaml (5)\n");
}
