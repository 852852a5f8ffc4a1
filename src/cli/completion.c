/* Completion for three shells, all from commands.def: what may come next after the words so far, which options, and which command
 * lists the things that an argument may be. Each script is a table of these and a small machine that walks along the words. */
#include "cli/commands.h"
#include <stdio.h>

#define MACHINE_MAX (256 * 1024)

/* ------------------------------------------------------------------ the table */

/* The words that may follow `path`: nouns after "", verbs after a noun, second words after a first one. Space in between. */
static void next_of(struct str *out, const struct noun *n, const char *half) {
  size_t length = strlen(half);
  const char *last = "";
  size_t last_length = 0;
  for (size_t i = 0; n && i < command_verb_count; i++) {
    const struct verb *v = &command_verbs[i];
    if (&command_nouns[v->noun] != n || !*v->name)
      continue;
    if (length && (strncmp(v->name, half, length) != 0 || v->name[length] != ' '))
      continue;
    const char *word = v->name + (length ? length + 1 : 0);
    size_t word_length = strcspn(word, " ");
    if (word_length == last_length && strncmp(word, last, word_length) == 0)
      continue; /* the verbs of one first word stand together */
    str_addz(out, out->n ? " " : "");
    str_add(out, slice_n(word, word_length));
    last = word;
    last_length = word_length;
  }
  for (size_t i = 0; !n && i < NOUN_MAX_; i++)
    str_addf(out, "%s%s", i ? " " : "", command_nouns[i].name);
}

static void options_of(struct str *out, option_set set) {
  for (int i = 0; i < OPT_MAX_; i++) {
    if (!(set >> i & 1))
      continue;
    str_addf(out, "%s--%s", out->n ? " " : "", command_opts[i].name);
    if (command_opts[i].letter)
      str_addf(out, " -%c", command_opts[i].letter);
  }
}

/* The command whose `-o name` gives what the first argument may be: "task list". Nothing when there is none. */
static void lister_of(struct str *out, const struct verb *v) {
  static const char *const places[][2] = {{"{task}", "task list"},
                                          {"{group}", "group list"},
                                          {"{executor}", "executor list"},
                                          {"{node}", "node list"},
                                          {"{channel}", "alert channel list"},
                                          {"{rule}", "alert rule list"},
                                          {"{alert}", "alert list"},
                                          {"{run}", "run list"},
                                          {"{token}", "token list"}};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++)
    if (strstr(v->path, places[i][0]))
      str_addz(out, places[i][1]);
}

/* Calls back with each path of words and what holds there. */
struct row {
  const char *path, *next, *options, *lister;
};

static void emit(struct str *out, void (*row)(struct str *out, const struct row *r), const char *path,
                 const struct noun *n, const char *half, const struct verb *v) {
  auto_str next, options, lister;
  str_init(&next, MACHINE_MAX);
  str_init(&options, MACHINE_MAX);
  str_init(&lister, 256);
  if (!v || !*v->name)
    next_of(&next, n, half);
  if (v)
    options_of(&options, v->options & ~GLOBAL_OPTIONS);
  if (v)
    lister_of(&lister, v);
  row(out, &(struct row){path, next.p ? next.p : "", options.p ? options.p : "", lister.p ? lister.p : ""});
}

static void each_row(struct str *out, void (*row)(struct str *out, const struct row *r)) {
  char path[128], half[64] = "";
  emit(out, row, "", NULL, "", NULL);
  for (size_t n = 0; n < NOUN_MAX_; n++)
    if (!command_nouns[n].tool)
      emit(out, row, command_nouns[n].name, &command_nouns[n], "", verb_find(&command_nouns[n], ""));
  for (size_t i = 0; i < command_verb_count; i++) {
    const struct verb *v = &command_verbs[i];
    const struct noun *n = &command_nouns[v->noun];
    const char *space = strchr(v->name, ' ');
    if (space && strncmp(half, v->name, (size_t)(space - v->name) + 1) != 0) {
      (void)text_copy(half, sizeof half - 1,
                      slice_n(v->name, (size_t)(space - v->name))); /* our own table: short */
      (void)snprintf(path, sizeof path, "%s %s", n->name, half);
      emit(out, row, path, n, half, NULL);
      (void)text_copy(half + strlen(half), 2, SLICE(" "));
    }
    if (!*v->name)
      continue;
    (void)snprintf(path, sizeof path, "%s %s", n->name, v->name);
    emit(out, row, path, n, v->name, v);
  }
}

/* Options whose value is asked for, in three kinds: files, folders of a list, anything. */
static void valued_options(struct str *out, bool files) {
  for (int i = 0; i < OPT_MAX_; i++) {
    const struct opt *o = &command_opts[i];
    if (!o->value || (files && !strstr(o->value, "FILE") && !strstr(o->value, "DIR")))
      continue;
    str_addf(out, "%s--%s", out->n ? " " : "", o->name);
    if (o->letter)
      str_addf(out, " -%c", o->letter);
  }
}

/* ------------------------------------------------------------------ bash and zsh: one machine in the common language of both */

static void shell_row(struct str *out, const struct row *r) {
  str_addf(out, "    '%s') next='%s' options='%s' lister='%s' ;;\n", r->path, r->next, r->options, r->lister);
}

static void add_lists(struct str *out, const char *quote) {
  auto_str valued, files, global;
  str_init(&valued, MACHINE_MAX);
  str_init(&files, MACHINE_MAX);
  str_init(&global, MACHINE_MAX);
  valued_options(&valued, false);
  valued_options(&files, true);
  options_of(&global, GLOBAL_OPTIONS);
  str_addf(out, "  local valued=%s %s %s\n", quote, valued.p, quote);
  str_addf(out, "  local files=%s %s %s\n", quote, files.p, quote);
  str_addf(out, "  local global=%s%s%s\n", quote, global.p, quote);
}

/* In: the words before the one that is completed, and that one. Out: REPLY_WORDS, or REPLY_FILES=1. */
static const char machine[] =
    "# After these words: which words may follow, which options there are, and which command lists the "
    "arguments.\n"
    "_kelou_at() {\n"
    "  next='' options='' lister=''\n"
    "  case \"$1\" in\n"
    "%TABLE%"
    "  esac\n"
    "}\n"
    "\n"
    "_kelou_words() {\n"
    "  local current=\"$1\" word='' path='' skip='' value_of='' next='' options='' lister='' arguments=0\n"
    "%LISTS%"
    "  REPLY_WORDS='' REPLY_FILES=''\n"
    "  shift\n"
    "  _kelou_at ''\n"
    "  for word in \"$@\"; do\n"
    "    if [[ -n $skip ]]; then skip=''; value_of=''; continue; fi\n"
    "    case \"$word\" in\n"
    "      --*=*) ;;\n"
    "      -*) case \"$valued\" in *\" $word \"*) skip=1; value_of=\"$word\" ;; esac ;;\n"
    "      *) case \" $next \" in\n"
    "           *\" $word \"*) path=\"${path:+$path }$word\"; _kelou_at \"$path\" ;;\n"
    "           *) arguments=$((arguments + 1)) ;;\n"
    "         esac ;;\n"
    "    esac\n"
    "  done\n"
    "  if [[ -n $value_of ]]; then\n"
    "    case \"$value_of\" in\n"
    "      -o|--output) REPLY_WORDS='table wide json yaml name' ;;\n"
    "      --lang) REPLY_WORDS='en zh' ;;\n"
    "      *) case \"$files\" in *\" $value_of \"*) REPLY_FILES=1 ;; esac ;;\n"
    "    esac\n"
    "  elif [[ $current == -* ]]; then\n"
    "    REPLY_WORDS=\"$options $global\"\n"
    "  elif [[ -n $next ]]; then\n"
    "    REPLY_WORDS=\"$next\"\n"
    "  elif [[ -n $lister && $arguments == 0 ]]; then\n"
    "    REPLY_WORDS=$(_kelou_list \"$lister\")\n"
    "  fi\n"
    "}\n"
    "\n";

static const char bash_rest[] =
    "# What there is on the centre that the environment names; nothing when it does not answer.\n"
    "_kelou_list() {\n"
    "  # shellcheck disable=SC2086 # a command of several words\n"
    "  command kelou --timeout 2s -o name $1 2>/dev/null\n"
    "}\n"
    "\n"
    "_kelou() {\n"
    "  local current=\"${COMP_WORDS[COMP_CWORD]}\" before=() i REPLY_WORDS REPLY_FILES\n"
    "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "    # bash splits --option=value in three\n"
    "    if [[ ${COMP_WORDS[i]} == '=' ]]; then continue; fi\n"
    "    before+=(\"${COMP_WORDS[i]}\")\n"
    "  done\n"
    "  if [[ $current == '=' ]]; then current=''; fi\n"
    "  _kelou_words \"$current\" ${before[@]+\"${before[@]}\"}\n"
    "  if [[ -n $REPLY_FILES ]]; then\n"
    "    compopt -o filenames 2>/dev/null\n"
    "    mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
    "  else\n"
    "    mapfile -t COMPREPLY < <(compgen -W \"$REPLY_WORDS\" -- \"$current\")\n"
    "  fi\n"
    "}\n"
    "complete -F _kelou kelou\n";

static const char zsh_rest[] =
    "_kelou_list() { command kelou --timeout 2s -o name ${=1} 2>/dev/null }\n"
    "\n"
    "_kelou() {\n"
    "  local REPLY_WORDS REPLY_FILES\n"
    "  _kelou_words \"$words[CURRENT]\" \"${(@)words[2,CURRENT-1]}\"\n"
    "  if [[ -n $REPLY_FILES ]]; then _files; else compadd -- ${=REPLY_WORDS}; fi\n"
    "}\n"
    "if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _kelou \"$@\"; elif (( $+functions[compdef] )); "
    "then compdef _kelou kelou; fi\n";

static void add_machine(struct str *out, void (*row)(struct str *out, const struct row *r)) {
  const char *table = strstr(machine, "%TABLE%"), *lists = strstr(machine, "%LISTS%");
  str_add(out, slice_n(machine, (size_t)(table - machine)));
  each_row(out, row);
  table += strlen("%TABLE%");
  str_add(out, slice_n(table, (size_t)(lists - table)));
  add_lists(out, "'");
  str_addz(out, lists + strlen("%LISTS%"));
}

/* ------------------------------------------------------------------ fish */

static void fish_row(struct str *out, const struct row *r) {
  str_addf(out,
           "    case '%s'\n      set -g __kelou_next %s\n      set -g __kelou_options %s\n      set -g "
           "__kelou_lister %s\n",
           r->path, r->next, r->options, r->lister);
}

static const char fish_rest[] =
    "function __kelou_complete\n"
    "  set -l path ''\n"
    "  set -l skip ''\n"
    "  set -l arguments 0\n"
    "  __kelou_at ''\n"
    "  for word in (commandline -opc)[2..-1]\n"
    "    if test -n \"$skip\"\n"
    "      set skip ''\n"
    "      continue\n"
    "    end\n"
    "    switch $word\n"
    "      case '--*=*'\n"
    "      case '-*'\n"
    "        contains -- $word $__kelou_valued; and set skip $word\n"
    "      case '*'\n"
    "        if contains -- $word $__kelou_next\n"
    "          set path (string trim \"$path $word\")\n"
    "          __kelou_at $path\n"
    "        else\n"
    "          set arguments (math $arguments + 1)\n"
    "        end\n"
    "    end\n"
    "  end\n"
    "  if test -n \"$skip\"\n"
    "    switch $skip\n"
    "      case -o --output\n"
    "        printf '%s\\n' table wide json yaml name\n"
    "      case --lang\n"
    "        printf '%s\\n' en zh\n"
    "      case '*'\n"
    "        contains -- $skip $__kelou_files; and __fish_complete_path (commandline -ct)\n"
    "    end\n"
    "  else if string match -q -- '-*' (commandline -ct)\n"
    "    printf '%s\\n' $__kelou_options $__kelou_global\n"
    "  else if test (count $__kelou_next) -gt 0\n"
    "    printf '%s\\n' $__kelou_next\n"
    "  else if test (count $__kelou_lister) -gt 0 -a $arguments -eq 0\n"
    "    command kelou --timeout 2s -o name $__kelou_lister 2>/dev/null\n"
    "  end\n"
    "end\n"
    "complete -c kelou -f -a '(__kelou_complete)'\n";

static void add_fish(struct str *out) {
  auto_str valued, files, global;
  str_init(&valued, MACHINE_MAX);
  str_init(&files, MACHINE_MAX);
  str_init(&global, MACHINE_MAX);
  valued_options(&valued, false);
  valued_options(&files, true);
  options_of(&global, GLOBAL_OPTIONS);
  str_addz(out, "# completion of kelou for fish: made by kelou completion fish\n");
  str_addf(out, "set -g __kelou_valued %s\nset -g __kelou_files %s\nset -g __kelou_global %s\n", valued.p,
           files.p, global.p);
  str_addz(out,
           "function __kelou_at\n  set -g __kelou_next\n  set -g __kelou_options\n  set -g __kelou_lister\n"
           "  switch \"$argv[1]\"\n");
  each_row(out, fish_row);
  str_addz(out, "  end\nend\n\n");
  str_addz(out, fish_rest);
}

/* ------------------------------------------------------------------ all of it */

void completion_add(struct str *out, const char *shell) {
  if (strcmp(shell, "fish") == 0) {
    add_fish(out);
    return;
  }
  bool zsh = strcmp(shell, "zsh") == 0;
  if (zsh)
    str_addz(out, "#compdef kelou\n");
  str_addf(out, "# completion of kelou for %s: made by kelou completion %s\n", shell, shell);
  add_machine(out, shell_row);
  str_addz(out, zsh ? zsh_rest : bash_rest);
}

int completion_run(const struct invocation *given) {
  auto_str out;
  str_init(&out, MACHINE_MAX);
  completion_add(&out, given->verb->name);
  return print_out(&out);
}
