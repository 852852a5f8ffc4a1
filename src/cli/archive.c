/* kelou archive list|cat|find: the runs that retention has put into files, without a server. */
#include "base/gzip.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/parse.h"
#include "cli/commands.h"
#include "core/model.h"
#include <dirent.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define FILES_MAX  1000000
#define EXIT_NONE  3
#define EXIT_BAD   1
#define DAY_DIGITS 8
#define SUFFIX     ".jsonl.gz"

static const char usage[] =
    "usage: kelou archive list DIR|FILE...  [-o table|json]      the files: batch, days, runs, bytes\n"
    "       kelou archive cat  DIR|FILE...                       every run, one a line (JSON)\n"
    "       kelou archive find DIR|FILE...  [--run ID] [--task ID|NAME|NAMESPACE/NAME] [--namespace NAME]\n"
    "                       [--state STATE,...] [--executor ID] [--since RFC3339] [--until RFC3339] [-n "
    "COUNT]\n"
    "                       the runs that fit, oldest first; code 3 when there is none\n";

struct options {
  const char *run, *task, *ns, *executor;
  uint32_t states;
  usec_t since, until;
  int64_t count; /* 0 = all */
  int json;
};
struct file {
  char *path;
  int64_t batch, runs; /* -1: its name does not say */
  char first[DAY_DIGITS + 1], last[DAY_DIGITS + 1];
  int64_t bytes;
};
struct files {
  struct file *list;
  size_t n, cap;
};

enum { OPT_RUN = 256, OPT_TASK, OPT_NAMESPACE, OPT_STATE, OPT_EXECUTOR, OPT_SINCE, OPT_UNTIL };
static const struct option long_options[] = {
    {"run", required_argument, NULL, OPT_RUN},
    {"task", required_argument, NULL, OPT_TASK},
    {"namespace", required_argument, NULL, OPT_NAMESPACE},
    {"state", required_argument, NULL, OPT_STATE},
    {"executor", required_argument, NULL, OPT_EXECUTOR},
    {"since", required_argument, NULL, OPT_SINCE},
    {"until", required_argument, NULL, OPT_UNTIL},
    {"output", required_argument, NULL, 'o'},
    {"count", required_argument, NULL, 'n'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};
static const char *const form_names[] = {"table", "json", NULL};

static int complain(const char *what, const struct err *e) {
  (void)fprintf(stderr, what ? "kelou: %s: %s\n" : "kelou: %s%s\n", what ? what : "", e->text);
  return err_exit(e->code);
}

/* ------------------------------------------------------------------ options */
static int read_states(struct slice text, uint32_t *ret, struct err *e) {
  do {
    struct slice rest, one = slice_cut(text, ',', &rest);
    int i;
    int r = parse_enum(one, run_state_names, &i, e);
    if (r < 0)
      return r;
    *ret |= 1u << i;
    text = rest;
  } while (text.p);
  return 0;
}

static int one_option(int opt, struct options *o, const char **ret_name, struct err *e) {
  struct slice arg = slice_of(optarg);
  struct run_key key;
  switch (opt) {
  case OPT_RUN:
    o->run = optarg;
    *ret_name = "--run";
    return run_id_parse(arg, &key, e);
  case OPT_TASK: o->task = optarg; return 0;
  case OPT_NAMESPACE: o->ns = optarg; return 0;
  case OPT_EXECUTOR: o->executor = optarg; return 0;
  case OPT_STATE: *ret_name = "--state"; return read_states(arg, &o->states, e);
  case OPT_SINCE: *ret_name = "--since"; return time_parse_rfc3339(arg, &o->since, e);
  case OPT_UNTIL: *ret_name = "--until"; return time_parse_rfc3339(arg, &o->until, e);
  case 'o': *ret_name = "-o"; return parse_enum(arg, form_names, &o->json, e);
  case 'n': *ret_name = "-n"; return parse_i64(arg, 1, INT64_MAX, &o->count, e);
  default: return 0;
  }
}

/* 0, or the exit code + 1 when there is nothing more to do. */
static int read_options(int argc, char **argv, struct options *o) {
  int opt;
  optind = 1;
  opterr = 0;
  while ((opt = getopt_long(argc, argv, "n:o:h", long_options, NULL)) != -1) {
    struct err e = {0};
    const char *name = "usage";
    if (opt == 'h') {
      (void)fputs(usage, stdout);
      return 1;
    }
    if (opt == '?') { /* getopt's own text would name "find", not "kelou" */
      (void)fprintf(stderr, "kelou: unknown option or missing value: %s; see kelou archive --help\n",
                    argv[optind - 1]);
      return EXIT_USAGE + 1;
    }
    if (one_option(opt, o, &name, &e) < 0)
      return complain(name, &e) + 1;
  }
  if (optind < argc)
    return 0;
  (void)fputs("kelou: no folder or file; see kelou archive --help\n", stderr);
  return EXIT_USAGE + 1;
}

/* ------------------------------------------------------------------ files */
/* runs-<batch>-<first>-<last>-<count>.jsonl.gz */
static void read_name(struct file *f) {
  const char *slash = strrchr(f->path, '/');
  f->batch = f->runs = -1;
  /* NOLINTNEXTLINE(cert-err34-c): the widths keep the numbers in range */
  if (sscanf(slash ? slash + 1 : f->path, "runs-%10" SCNd64 "-%8[0-9]-%8[0-9]-%18" SCNd64, &f->batch,
             f->first, f->last, &f->runs) != 4)
    f->batch = f->runs = -1, f->first[0] = f->last[0] = '\0';
}

static void add_file(struct files *all, const char *path, int64_t bytes) {
  mem_reserve(all->list, all->n, all->cap);
  struct file *f = &all->list[all->n++];
  *f = (struct file){.path = mem_strdup(path), .bytes = bytes};
  read_name(f);
}

static bool ends_with(const char *text, const char *end) {
  size_t n = strlen(text), m = strlen(end);
  return n >= m && strcmp(text + n - m, end) == 0;
}

static int add_path(struct files *all, const char *path, struct err *e) {
  struct stat st;
  auto_arena mem = {0};
  if (stat(path, &st) < 0)
    return err_set(e, errno == ENOENT ? ERR_NOT_FOUND : -errno, "%s: %s", path, strerror(errno));
  if (!S_ISDIR(st.st_mode)) {
    add_file(all, path, st.st_size);
    return 0;
  }
  DIR *d = opendir(path);
  if (!d)
    return err_set(e, -errno, "%s: %s", path, strerror(errno));
  for (const struct dirent *f; all->n < FILES_MAX && (f = readdir(d)) != NULL;) {
    const char *one = arena_printf(&mem, "%s/%s", path, f->d_name);
    if (strncmp(f->d_name, "runs-", 5) == 0 && ends_with(f->d_name, SUFFIX) && stat(one, &st) == 0)
      add_file(all, one, st.st_size);
  }
  (void)closedir(d); /* read-only: nothing can be lost */
  return 0;
}

static int by_batch(const void *a, const void *b) {
  const struct file *x = a, *y = b;
  return x->batch != y->batch ? (x->batch > y->batch) - (x->batch < y->batch) : strcmp(x->path, y->path);
}

static void files_done(struct files *all) {
  for (size_t i = 0; i < all->n; i++)
    mem_free(all->list[i].path);
  mem_free(all->list);
}

/* ------------------------------------------------------------------ list */
static const char *dashed(const char *day, char buf[DAY_DIGITS + 3]) {
  if (strlen(day) != DAY_DIGITS)
    return "-";
  (void)snprintf(buf, DAY_DIGITS + 3, "%.4s-%.2s-%.2s", day, day + 4, day + 6);
  return buf;
}

static int list_files(const struct files *all, const struct options *o) {
  char a[DAY_DIGITS + 3], b[DAY_DIGITS + 3];
  if (!o->json)
    (void)printf("%-10s  %-10s  %-10s  %12s  %14s  %s\n", "BATCH", "FIRST", "LAST", "RUNS", "BYTES", "FILE");
  for (size_t i = 0; i < all->n; i++) {
    const struct file *f = &all->list[i];
    const char *first = dashed(f->first, a), *last = dashed(f->last, b);
    if (!o->json) {
      (void)printf("%-10" PRId64 "  %-10s  %-10s  %12" PRId64 "  %14" PRId64 "  %s\n", f->batch, first, last,
                   f->runs, f->bytes, f->path);
      continue;
    }
    auto_json *j = json_pack("{s:I, s:s, s:s, s:I, s:I, s:s%}", "batch", (json_int_t)f->batch, "first", first,
                             "last", last, "runs", (json_int_t)f->runs, "bytes", (json_int_t)f->bytes, "file",
                             f->path, strlen(f->path));
    auto_free char *text = j ? json_text(j) : mem_strdup("{}"); /* a path that is not UTF-8 */
    (void)printf("%s\n", text);
  }
  return 0;
}

/* ------------------------------------------------------------------ cat, find */
static bool text_is(const json_t *run, const char *key, const char *want) {
  const char *text = json_string_value(json_object_get(run, key));
  return !want || (text && strcmp(text, want) == 0);
}

static bool task_is(const json_t *run, const char *want) {
  const char *slash = want ? strchr(want, '/') : NULL;
  const char *ns = json_string_value(json_object_get(run, "namespace"));
  if (!want || text_is(run, "task_id", want))
    return true;
  if (!slash)
    return text_is(run, "task_name", want);
  return ns && slice_eqz(slice_n(want, (size_t)(slash - want)), ns) && text_is(run, "task_name", slash + 1);
}

static bool fits(const json_t *run, const struct options *o) {
  const char *state = json_string_value(json_object_get(run, "state"));
  usec_t at = 0;
  int i;
  if (!text_is(run, "id", o->run) || !text_is(run, "namespace", o->ns) ||
      !text_is(run, "executor", o->executor) || !task_is(run, o->task))
    return false;
  if (o->states && (parse_enum(slice_of(state), run_state_names, &i, NULL) < 0 || !(o->states >> i & 1)))
    return false;
  if ((o->since || o->until) && json_get_time(run, "scheduled_at", &at, NULL) <= 0)
    return false;
  return (!o->since || at >= o->since) && (!o->until || at < o->until);
}

/* Whether a file may hold a run of this time: its name tells the days. */
static bool may_fit(const struct file *f, const struct options *o) {
  char day[TIME_TEXT_MAX], text[DAY_DIGITS + 1];
  for (int which = 0; f->first[0] && which < 2; which++) {
    usec_t t = which ? o->until : o->since;
    if (!t)
      continue;
    (void)time_format(t, day);
    (void)snprintf(text, sizeof text, "%.4s%.2s%.2s", day, day + 5, day + 8);
    if (which ? strcmp(f->first, text) > 0 : strcmp(f->last, text) < 0)
      return false;
  }
  return true;
}

/* 1: enough has been found. */
static int show_file(const struct file *f, const struct options *o, bool all, int64_t *found, struct err *e) {
  struct gzip_reader *gz = NULL;
  struct slice line;
  int r = gzip_open(f->path, &gz, e);
  if (r < 0)
    return r;
  while ((r = gzip_line(gz, &line, e)) > 0) {
    auto_json *run = NULL;
    if (!all && (r = json_read(line, GZIP_LINE_MAX, &run, e)) < 0)
      break;
    if (!all && !fits(run, o))
      continue;
    (void)fwrite(line.p, 1, line.n, stdout);
    (void)putchar('\n'); /* looked at once, at the end */
    if (++*found == o->count)
      break;
  }
  gzip_close(&gz);
  return r;
}

static int show_files(const struct files *all, const struct options *o, bool cat) {
  int64_t found = 0;
  int code = 0;
  for (size_t i = 0; i < all->n && (!o->count || found < o->count); i++) {
    struct err e = {0};
    if (!cat && !may_fit(&all->list[i], o))
      continue;
    if (show_file(&all->list[i], o, cat, &found, &e) < 0) {
      (void)complain(NULL, &e);
      code = EXIT_BAD; /* the other files are shown nevertheless */
    }
  }
  return code ? code : !cat && !found ? EXIT_NONE : 0;
}

static int read_paths(struct files *all, char *const *paths, int n) {
  struct err e = {0};
  for (int i = 0; i < n; i++)
    if (add_path(all, paths[i], &e) < 0)
      return complain(NULL, &e);
  if (all->n)
    qsort(all->list, all->n, sizeof *all->list, by_batch);
  return 0;
}

int archive_tool(int argc, char **argv, const struct invocation *given) {
  const char *verb = argc > 1 ? argv[1] : "";
  bool list = strcmp(verb, "list") == 0, cat = strcmp(verb, "cat") == 0, find = strcmp(verb, "find") == 0;
  bool help = strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0;
  if (!list && !cat && !find) {
    (void)fputs(usage, help ? stdout : stderr);
    return help ? 0 : EXIT_USAGE;
  }
  struct options o = {.json = given->output == OUT_JSON};
  int code = read_options(argc - 1, argv + 1, &o);
  if (code)
    return code - 1;
  struct files all = {0};
  code = read_paths(&all, argv + 1 + optind, argc - 1 - optind);
  if (code == 0)
    code = list ? list_files(&all, &o) : show_files(&all, &o, cat);
  files_done(&all);
  if (fflush(stdout) == 0 && !ferror(stdout))
    return code;
  (void)fputs("kelou: standard output cannot be written\n", stderr);
  return EXIT_BAD;
}
