#include "cli/commands.h"

#define OPTION(id, name, letter, kind, place, key, value, en, zh)                                            \
  {name, letter, KIND_##kind, PLACE_##place, key, value, en, zh},
const struct opt command_opts[OPT_MAX_] = {
#include "cli/commands.def"
};

#define SHAPE(id, names, columns, wide) {names, columns, wide},
const struct shape command_shapes[SHAPE_MAX_] = {
#include "cli/commands.def"
};

#define NOUN(id, name, tool, en, zh) {name, tool, en, zh},
const struct noun command_nouns[NOUN_MAX_] = {
#include "cli/commands.def"
};

#define VERB(noun, name, method, path, arg, options, flags, shape, run, en, zh)                              \
  {NOUN_##noun, name, #method, path, arg, GLOBAL_OPTIONS | (options), flags, &command_shapes[SHAPE_##shape], \
   run,         en,   zh},
const struct verb command_verbs[] = {
#include "cli/commands.def"
};
const size_t command_verb_count = sizeof command_verbs / sizeof *command_verbs;

const char *const output_names[] = {"table", "wide", "json", "yaml", "name", "mermaid", NULL};

const struct noun *noun_find(const char *name) {
  for (size_t i = 0; i < NOUN_MAX_; i++)
    if (strcmp(command_nouns[i].name, name) == 0)
      return &command_nouns[i];
  return NULL;
}

const struct verb *verb_find(const struct noun *n, const char *name) {
  for (size_t i = 0; i < command_verb_count; i++)
    if (&command_nouns[command_verbs[i].noun] == n && strcmp(command_verbs[i].name, name) == 0)
      return &command_verbs[i];
  return NULL;
}

bool verb_begins(const struct noun *n, const char *word) {
  size_t length = strlen(word);
  for (size_t i = 0; i < command_verb_count; i++)
    if (&command_nouns[command_verbs[i].noun] == n && strncmp(command_verbs[i].name, word, length) == 0 &&
        command_verbs[i].name[length] == ' ')
      return true;
  return false;
}
