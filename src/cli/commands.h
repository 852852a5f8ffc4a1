#pragma once
/* The tables of commands.def, and one command as it was given. */
#include "base/err.h"
#include "base/json.h"
#include "base/str.h"
#include <stdint.h>

enum opt_kind {
  KIND_TEXT,
  KIND_WORD,
  KIND_LIST,
  KIND_WORDS,
  KIND_INT,
  KIND_FLAG,
  KIND_JSON,
  KIND_REF,
  KIND_AGO,
  KIND_AHEAD,
  KIND_PATH
};
enum opt_place { PLACE_LOCAL, PLACE_QUERY, PLACE_BODY, PLACE_HEADER };
struct opt {
  const char *name;
  char letter; /* 0: none */
  enum opt_kind kind;
  enum opt_place place;
  const char *key, *value; /* value: NULL for flags */
  const char *en, *zh;
};
#define OPTION(id, name, letter, kind, place, key, value, en, zh) OPT_##id,
enum {
#include "cli/commands.def"
  OPT_MAX_
};
__extension__ typedef unsigned __int128 option_set; /* a bit for each option */
#define O(id) ((option_set)1 << OPT_##id)
#define GLOBAL_OPTIONS                                                                                       \
  (O(server) | O(token_file) | O(ca_file) | O(namespace) | O(output) | O(timeout) | O(lang) | O(help))
_Static_assert(OPT_MAX_ <= 128, "a set of options has 128 bits");
extern const struct opt command_opts[OPT_MAX_];

struct shape {
  const char *names, *columns, *wide;
};
#define SHAPE(id, names, columns, wide) SHAPE_##id,
enum {
#include "cli/commands.def"
  SHAPE_MAX_
};
extern const struct shape command_shapes[SHAPE_MAX_];

enum {
  PAGES = 1,
  IDEM = 2,
  MATCH = 4,
  MATCH_NEED = 8,
  BODY_NEED = 16,
  NS_QUERY = 32,
  NS_BODY = 64,
  SCHEDULE = 128,
  ROW = 256
};

struct invocation;
struct noun {
  const char *name;
  int (*tool)(int argc, char **argv, const struct invocation *given); /* argv[0] = the noun */
  const char *en, *zh;
};
#define NOUN(id, name, tool, en, zh) NOUN_##id,
enum {
#include "cli/commands.def"
  NOUN_MAX_
};
extern const struct noun command_nouns[NOUN_MAX_];

struct verb {
  int noun;
  const char *name, *method, *path, *arg;
  option_set options; /* with the global ones */
  unsigned flags;
  const struct shape *shape;
  int (*run)(const struct invocation *given); /* returns the exit code */
  const char *en, *zh;
};
extern const struct verb command_verbs[];
extern const size_t command_verb_count;

enum output { OUT_TABLE, OUT_WIDE, OUT_JSON, OUT_YAML, OUT_NAME, OUT_MERMAID, OUT_MAX_ };
extern const char *const output_names[]; /* "table", … NULL */

#define ARGUMENTS_MAX     2
#define ARGUMENT_NAME_MAX 32
#define EXIT_USAGE        2
#define EXIT_RUN          6
#define EXIT_DIFFERS      9 /* diff: there is a difference; import: not all could be translated */

/* One command. Everything points into argv and the environment. */
struct invocation {
  const struct noun *noun; /* NULL: nothing was asked for */
  const struct verb *verb; /* NULL: a tool, or only help is wanted */
  const char *args[ARGUMENTS_MAX];
  const char *values[OPT_MAX_]; /* NULL: not given; "" for a flag */
  enum output output;
  bool output_given, help;
  int64_t timeout; /* µs; 0 = not given */
  int rest_argc;   /* a tool's own */
  char **rest_argv;
};
/* Read a command line. -1: good; else the exit code, and why has been said. `ret` is filled in as far as it was read. */
int command_read(int argc, char **argv, struct invocation *ret);

/* What an argument is called in help and messages: "TASK", "NAME"; NULL: the verb takes no more. `buf` of ARGUMENT_NAME_MAX bytes. */
const char *command_argument(const struct verb *v, size_t index, char *buf);

#define HELP_MAX (256 * 1024)
/* Help: of everything, of a noun, of a verb (both may be NULL). */
void help_add(struct str *out, const struct noun *n, const struct verb *v);
int help_show(const struct noun *n, const struct verb *v); /* on standard output; returns the exit code */
/* Every command as Markdown: docs/cli.md. */
void help_markdown(struct str *out);
/* kelou(1), in English. */
void help_man(struct str *out);
/* What completes commands in "bash", "zsh" or "fish". */
void completion_add(struct str *out, const char *shell);
const struct noun *noun_find(const char *name);
/* The name "" is that of the one verb of a noun that needs none said: "kelou apply". */
const struct verb *verb_find(const struct noun *n, const char *name);
/* Whether some verb of the noun is this word and another one: "channel" of "channel create". */
bool verb_begins(const struct noun *n, const char *word);
/* Print `out` on standard output. Returns the exit code. */
int print_out(const struct str *out);

/* Runners and tools of commands.def. */
int cli_call(const struct invocation *given);
int wait_made(const struct invocation *given);
int wait_run(const struct invocation *given);
int node_drain(const struct invocation *given);
int logs_run(const struct invocation *given);
int fsm_show(const struct invocation *given);
int apply_run(const struct invocation *given);
int diff_run(const struct invocation *given);
int export_run(const struct invocation *given);
int history_run(const struct invocation *given);
int explain_run(const struct invocation *given);
int import_crontab_run(const struct invocation *given);
int import_systemd_run(const struct invocation *given);
int archive_tool(int argc, char **argv, const struct invocation *given);
int calendar_put_run(const struct invocation *given);
int calendar_import_run(const struct invocation *given);
int doctor_run(const struct invocation *given);
int completion_run(const struct invocation *given);
int cron_tool(int argc, char **argv, const struct invocation *given);
int version_tool(int argc, char **argv, const struct invocation *given);
int help_tool(int argc, char **argv, const struct invocation *given);
