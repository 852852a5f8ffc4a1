/* kelou cron next|explain: schedules without a server. */
#include "base/mem.h"
#include "base/parse.h"
#include "cli/calendars.h"
#include "cli/cron_lines.h"
#include "cli/commands.h"
#include "cli/cron_zones.h"
#include "cli/words.h"
#include "core/calendar.h"
#include "core/schedule.h"
#include <getopt.h>
#include <unistd.h>

#define TABLE_COUNT_DEFAULT 10
#define TEXT_MAX            (4 * 1024 * 1024)

static const char usage[] =
    "usage: kelou cron next EXPR [--tz ZONE] [--from RFC3339] [-n COUNT] [--dialect AUTO|QUARTZ|UNIX]\n"
    "                       [--dst-gap AUTO|SKIP|ONCE_AFTER|SHIFT] [--dst-overlap AUTO|FIRST|LAST|BOTH] [-o "
    "table|json]\n"
    "                       [--calendar FILE]    a calendar (JSON, .yaml, .ics): what it excludes and adds "
    "is marked\n"
    "       kelou cron next          questions as JSON lines on standard input:\n"
    "                       {\"expr\",\"tz\",\"from_ms\",\"n\",\"dialect\",\"dst_gap\",\"dst_overlap\"}\n"
    "       kelou cron explain EXPR [--tz ZONE] [--dialect AUTO|QUARTZ|UNIX] [--lang en|zh]\n"
    "       all: [--zoneinfo DIR]    where the time zones are, default " CLI_ZONEINFO_DEFAULT "\n";

struct options {
  const char *expr, *zoneinfo, *calendar;
  struct slice tz;
  usec_t from;
  int64_t n;
  int dialect, gap, overlap, json, lang;
};

enum { OPT_TZ = 256, OPT_FROM, OPT_DIALECT, OPT_GAP, OPT_OVERLAP, OPT_LANG, OPT_ZONEINFO, OPT_CALENDAR };
static const struct option long_options[] = {
    {"tz", required_argument, NULL, OPT_TZ},
    {"from", required_argument, NULL, OPT_FROM},
    {"dialect", required_argument, NULL, OPT_DIALECT},
    {"dst-gap", required_argument, NULL, OPT_GAP},
    {"dst-overlap", required_argument, NULL, OPT_OVERLAP},
    {"lang", required_argument, NULL, OPT_LANG},
    {"zoneinfo", required_argument, NULL, OPT_ZONEINFO},
    {"calendar", required_argument, NULL, OPT_CALENDAR},
    {"output", required_argument, NULL, 'o'},
    {"count", required_argument, NULL, 'n'},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};
static const char *const form_names[] = {"table", "json", NULL};

static int complain(const char *what, const struct err *e) {
  if (e->column)
    (void)fprintf(stderr, "kelou: %s, column %d: %s\n", what, e->column, e->text);
  else
    (void)fprintf(stderr, "kelou: %s: %s\n", what, e->text);
  return err_exit(e->code);
}

static int one_option(int opt, struct options *o, const char **ret_name, struct err *e) {
  struct slice arg = slice_of(optarg);
  switch (opt) {
  case OPT_TZ: o->tz = arg; return 0;
  case OPT_ZONEINFO: o->zoneinfo = optarg; return 0;
  case OPT_CALENDAR: o->calendar = optarg; return 0;
  case OPT_FROM: *ret_name = "--from"; return time_parse_rfc3339(arg, &o->from, e);
  case OPT_DIALECT: *ret_name = "--dialect"; return parse_enum(arg, cron_dialect_names, &o->dialect, e);
  case OPT_GAP: *ret_name = "--dst-gap"; return parse_enum(arg, dst_gap_names, &o->gap, e);
  case OPT_OVERLAP: *ret_name = "--dst-overlap"; return parse_enum(arg, dst_overlap_names, &o->overlap, e);
  case OPT_LANG: *ret_name = "--lang"; return parse_enum(arg, cron_lang_names, &o->lang, e);
  case 'o': *ret_name = "-o"; return parse_enum(arg, form_names, &o->json, e);
  case 'n': *ret_name = "-n"; return parse_i64(arg, 1, CRON_COUNT_MAX, &o->n, e);
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
    if (opt == '?') { /* getopt's own text would name "next", not "kelou" */
      (void)fprintf(stderr, "kelou: unknown option or missing value: %s; see kelou cron --help\n",
                    argv[optind - 1]);
      return EXIT_USAGE + 1;
    }
    if (one_option(opt, o, &name, &e) < 0)
      return complain(name, &e) + 1;
  }
  o->expr = optind < argc ? argv[optind++] : NULL;
  if (optind == argc)
    return 0;
  (void)fprintf(stderr, "kelou: unexpected argument %s; quote the expression: it is one argument\n",
                argv[optind]);
  return EXIT_USAGE + 1;
}

static void put_table(struct str *out, usec_t t, const struct schedule_note *note) {
  char utc[TIME_TEXT_MAX], local[TIME_TEXT_MAX];
  str_addf(out, "%-20s  %-25s  %s%s%s\n", time_format(t, utc), time_format_offset(t, note->offset, local),
           note->note == DST_NONE ? "" : dst_note_names[note->note],
           note->note != DST_NONE && note->calendar != CALENDAR_NOTHING ? "  " : "",
           note->calendar == CALENDAR_NOTHING ? "" : calendar_note_names[note->calendar]);
}

static void put_json(struct str *out, usec_t t, const struct schedule_note *note, bool first) {
  char utc[TIME_TEXT_MAX], local[TIME_TEXT_MAX];
  str_addf(out, "%s{\"at\":\"%s\",\"local\":\"%s\",\"offset_seconds\":%d,\"dst\":\"%s\"", first ? "" : ",",
           time_format(t, utc), time_format_offset(t, note->offset, local), note->offset,
           dst_note_names[note->note]);
  if (note->calendar != CALENDAR_NOTHING)
    str_addf(out, ",\"calendar\":\"%s\"", calendar_note_names[note->calendar]);
  str_addc(out, '}');
}

static void list_next(const struct schedule *s, const struct options *o, struct str *out) {
  str_addz(out, o->json ? "{\"next\":[" : "UTC                   LOCAL                      DST\n");
  usec_t t = o->from;
  for (int64_t i = 0; i < o->n; i++) {
    t = schedule_next(s, 0, t);
    if (t == USEC_NEVER)
      break;
    struct schedule_note note;
    schedule_explain(s, t, &note);
    if (o->json)
      put_json(out, t, &note, i == 0);
    else
      put_table(out, t, &note);
  }
  str_addz(out, o->json ? "]}\n" : "");
}

static void describe(const struct schedule *s, const struct options *o, struct str *out) {
  schedule_describe(s, (enum cron_lang)o->lang, out);
  str_addc(out, '\n');
}

/* A file's calendar for the schedule, when there is one. */
static int add_calendar(struct schedule *s, const char *path, struct err *e) {
  const struct ical_ask ask = calendar_ask_default();
  auto_json *doc = NULL;
  auto_calendar *calendar = NULL;
  int r = calendar_file(path, false, &ask, &doc, e);
  if (r < 0 || (r = calendar_read(doc, &calendar, e)) < 0)
    return r;
  schedule_set_calendar(s, calendar);
  return 0;
}

static int with_schedule(struct zone_set *zones, const struct options *o,
                         void (*show)(const struct schedule *, const struct options *, struct str *)) {
  struct err e = {0};
  struct schedule_input in = {.kind = SCHEDULE_CRON,
                              .expr = slice_of(o->expr),
                              .dialect = (enum cron_dialect)o->dialect,
                              .dst = {(enum dst_gap)o->gap, (enum dst_overlap)o->overlap}};
  if (zone_set_get(zones, o->tz, &in.zone, &e) < 0)
    return complain("--tz", &e);
  struct schedule *s = NULL;
  if (schedule_new(&in, &s, &e) < 0)
    return complain("expression", &e);
  if (o->calendar && add_calendar(s, o->calendar, &e) < 0) {
    schedule_free(&s);
    return complain("--calendar", &e);
  }
  auto_str out;
  str_init(&out, TEXT_MAX);
  show(s, o, &out);
  schedule_free(&s);
  bool written = fwrite(out.p, 1, out.n, stdout) == out.n && fflush(stdout) == 0;
  if (!written)
    (void)fputs("kelou: standard output cannot be written\n", stderr);
  return written ? 0 : 1;
}

int cron_tool(int argc, char **argv, const struct invocation *given) {
  const char *verb = argc > 1 ? argv[1] : "";
  bool next = strcmp(verb, "next") == 0, explain = strcmp(verb, "explain") == 0;
  bool help = strcmp(verb, "--help") == 0 || strcmp(verb, "-h") == 0;
  if (!next && !explain) {
    (void)fputs(usage, help ? stdout : stderr);
    return help ? 0 : EXIT_USAGE;
  }
  struct options o = {.zoneinfo = CLI_ZONEINFO_DEFAULT,
                      .tz = SLICE("UTC"),
                      .n = TABLE_COUNT_DEFAULT,
                      .json = given->output == OUT_JSON,
                      .lang = words_lang() == LANG_ZH ? CRON_ZH : CRON_EN};
  o.from = clock_system.wall(&clock_system);
  int done = read_options(argc - 1, argv + 1, &o);
  if (done)
    return done - 1;
  if (explain && !o.expr) {
    (void)fputs(usage, stderr);
    return EXIT_USAGE;
  }
  struct zone_set *zones = cli_zones_new(o.zoneinfo);
  int r = o.expr ? with_schedule(zones, &o, next ? list_next : describe)
                 : cron_lines(zones, STDIN_FILENO, STDOUT_FILENO);
  zone_set_free(&zones);
  return r;
}
