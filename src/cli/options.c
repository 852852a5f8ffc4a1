/* The command line, by the tables. */
#include "base/parse.h"
#include "base/time.h"
#include "cli/commands.h"
#include "cli/words.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#define TIMEOUT_MIN USEC_PER_MS
#define TIMEOUT_MAX (30 * USEC_PER_DAY)
#define GOOD        (-1)

struct reader {
  int argc, at;
  char **argv;
  struct invocation *given;
  size_t args;
  const char *half; /* the first word of a verb of two */
  bool plain;       /* after "--" */
};

static int refuse(enum message m, const char *one, const char *two) {
  words_complain(m, one, two);
  return EXIT_USAGE;
}

static option_set allowed(const struct reader *r) {
  return r->given->verb ? r->given->verb->options : GLOBAL_OPTIONS;
}

static int unknown_option(const struct reader *r, const char *text) {
  const char *names[OPT_MAX_ + 1];
  size_t n = 0;
  for (int i = 0; i < OPT_MAX_; i++)
    if (allowed(r) >> i & 1)
      names[n++] = command_opts[i].name;
  names[n] = NULL;
  struct slice head = slice_of(text + strspn(text, "-")), rest;
  const char *near = text[1] == '-' ? parse_nearest(slice_cut(head, '=', &rest), names) : NULL;
  return near ? refuse(SAY_no_option_near, text, near) : refuse(SAY_no_option, text, NULL);
}

static int bad_value(const char *name, const struct err *e) {
  (void)fprintf(stderr, "kelou: --%s: %s\n", name, e->text);
  return EXIT_USAGE;
}

static int take_lang(const char *text) {
  struct err e = {0};
  int lang = LANG_EN;
  if (parse_enum(slice_of(text), lang_names, &lang, &e) < 0)
    return bad_value("lang", &e);
  words_lang_set((enum lang)lang);
  return GOOD;
}

/* The value of an option: attached, or the next argument. */
static int take_value(struct reader *r, int index, const char *attached, const char *shown) {
  if (r->given->values[index])
    return refuse(SAY_twice, shown, NULL);
  if (command_opts[index].kind == KIND_FLAG) {
    r->given->values[index] = "";
    return attached ? refuse(SAY_no_value, shown, NULL) : GOOD;
  }
  if (!attached && r->at == r->argc)
    return refuse(SAY_need_value, shown, NULL);
  r->given->values[index] = attached ? attached : r->argv[r->at++];
  return index == OPT_lang ? take_lang(r->given->values[index]) : GOOD;
}

static int long_option(struct reader *r, const char *text) {
  const char *equals = strchr(text, '=');
  struct slice name = slice_n(text + 2, (equals ? (size_t)(equals - text) : strlen(text)) - 2);
  for (int i = 0; i < OPT_MAX_; i++)
    if ((allowed(r) >> i & 1) && slice_eqz(name, command_opts[i].name)) {
      char shown[40];
      (void)snprintf(shown, sizeof shown, "--%s", command_opts[i].name);
      return take_value(r, i, equals ? equals + 1 : NULL, shown);
    }
  return unknown_option(r, text);
}

static int short_option(struct reader *r, const char *text) {
  for (int i = 0; i < OPT_MAX_; i++)
    if ((allowed(r) >> i & 1) && command_opts[i].letter == text[1])
      return take_value(r, i, text[2] ? text + 2 : NULL, (char[]){'-', text[1], 0});
  return unknown_option(r, text);
}

static int unknown_noun(const char *text) {
  const char *names[NOUN_MAX_ + 1];
  for (size_t i = 0; i < NOUN_MAX_; i++)
    names[i] = command_nouns[i].name;
  names[NOUN_MAX_] = NULL;
  const char *near = parse_nearest(slice_of(text), names);
  return near ? refuse(SAY_no_noun_near, text, near) : refuse(SAY_no_noun, text, NULL);
}

/* One word, or the first and then the second of two. */
static int verb_word(struct reader *r, const char *text) {
  struct invocation *g = r->given;
  char name[64];
  (void)snprintf(name, sizeof name, "%s%s%s", r->half ? r->half : "", r->half ? " " : "",
                 text); /* a cut one is none */
  g->verb = verb_find(g->noun, name);
  if (g->verb)
    return GOOD;
  if (r->half || !verb_begins(g->noun, text))
    return refuse(SAY_no_verb, g->noun->name, NULL);
  r->half = text;
  return GOOD;
}

static int plain_word(struct reader *r, const char *text) {
  struct invocation *g = r->given;
  if (!g->noun) {
    g->noun = noun_find(text);
    g->verb = g->noun ? verb_find(g->noun, "") : NULL;
    return g->noun ? GOOD : unknown_noun(text);
  }
  if (!g->verb)
    return verb_word(r, text);
  char buf[ARGUMENT_NAME_MAX];
  if (r->args == ARGUMENTS_MAX || !command_argument(g->verb, r->args, buf))
    return refuse(SAY_too_many, text, NULL);
  g->args[r->args++] = text;
  return GOOD;
}

static int read_words(struct reader *r) {
  while (r->at < r->argc) {
    if (r->given->noun && r->given->noun->tool) {
      r->given->rest_argc = r->argc - r->at + 1;
      r->given->rest_argv = r->argv + r->at - 1;
      return GOOD;
    }
    const char *text = r->argv[r->at++];
    int code = GOOD;
    if (r->plain || text[0] != '-' || !text[1])
      code = plain_word(r, text);
    else if (strcmp(text, "--") == 0)
      r->plain = true;
    else
      code = text[1] == '-' ? long_option(r, text) : short_option(r, text);
    if (code != GOOD)
      return code;
  }
  if (r->given->noun && r->given->noun->tool) {
    r->given->rest_argc = 1;
    r->given->rest_argv = r->argv + r->argc - 1;
  }
  return GOOD;
}

/* The language that the environment asks for; --lang is obeyed as soon as it is read. */
static void lang_from_environment(void) {
  static const char *const names[] = {"KELOU_LANG", "LC_ALL", "LC_MESSAGES", "LANG"};
  const char *locale = NULL;
  for (size_t i = 0; i < 4 && !(locale && *locale); i++)
    locale = getenv(names[i]);
  words_lang_set(words_lang_of_locale(locale));
}

static int output_fits(const struct invocation *g, const char *output) {
  bool has_names = !g->verb || g->verb->shape->names[0] || g->verb->shape == &command_shapes[SHAPE_nothing];
  bool draws = !g->verb || g->verb->run == fsm_show;
  if ((g->output == OUT_NAME && !has_names) || (g->output == OUT_MERMAID && !draws))
    return refuse(SAY_no_output, output, NULL);
  return GOOD;
}

static int read_globals(struct invocation *g) {
  struct err e = {0};
  const char *output = g->values[OPT_output], *timeout = g->values[OPT_timeout];
  int i = OUT_TABLE;
  if (output && parse_enum(slice_of(output), output_names, &i, &e) < 0)
    return bad_value("output", &e);
  g->output = (enum output)i;
  g->output_given = output != NULL;
  g->help = g->values[OPT_help] != NULL;
  if (timeout && duration_parse(slice_of(timeout), TIMEOUT_MIN, TIMEOUT_MAX, &g->timeout, &e) < 0)
    return bad_value("timeout", &e);
  return output_fits(g, output);
}

const char *command_argument(const struct verb *v, size_t index, char *buf) {
  const char *brace = strchr(v->path, '{');
  if (brace && index == 0) {
    (void)text_copy(buf, ARGUMENT_NAME_MAX, slice_n(brace + 1, strcspn(brace + 1, "}"))); /* our own table */
    for (char *c = buf; *c; c++)
      *c = (char)toupper((unsigned char)*c);
    return buf;
  }
  if (!v->arg || index != (brace ? 1 : 0))
    return NULL;
  (void)text_copy(buf, ARGUMENT_NAME_MAX, slice_of(v->arg)); /* our own table */
  for (char *c = buf; *c; c++)
    *c = (char)toupper((unsigned char)*c);
  return buf;
}

/* Whether everything that the verb needs is there. */
static int check_complete(const struct invocation *g) {
  char buf[ARGUMENT_NAME_MAX];
  if (!g->verb)
    return refuse(SAY_need_verb, g->noun->name, NULL);
  for (size_t i = 0; i < ARGUMENTS_MAX; i++)
    if ((!g->args[i] || !*g->args[i]) && command_argument(g->verb, i, buf))
      return refuse(SAY_need_argument, buf, NULL);
  return GOOD;
}

int command_read(int argc, char **argv, struct invocation *ret) {
  struct reader r = {.argc = argc, .at = 1, .argv = argv, .given = ret};
  *ret = (struct invocation){0};
  lang_from_environment();
  int code = read_words(&r);
  if (code == GOOD)
    code = read_globals(ret);
  if (code != GOOD || ret->help || !ret->noun || ret->noun->tool)
    return code;
  return check_complete(ret);
}
