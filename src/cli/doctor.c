/* kelou doctor: the centre is asked what is wrong with it; where none answers, keloud looks for itself. */
#include "base/mem.h"
#include "base/time.h"
#include "cli/client.h"
#include "cli/output.h"
#include "cli/table.h"
#include "cli/words.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLOCK_OFF (5 * USEC_PER_SEC)
#define TEXT_MAX  ((size_t)1 << 20)
extern char **environ;

/* ------------------------------------------------------------------ findings of our own */

static json_t *said(enum message m, const char *one, const char *two) {
  auto_str text;
  str_init(&text, TEXT_MAX);
  words_add(&text, m, one, two);
  return json_string(text.p ? text.p : "");
}

struct own {
  const char *check, *code, *level;
  enum message what, advice;
};

static void add_own(json_t *findings, const struct own *f, const char *one, const char *two) {
  json_t *o = json_object();
  (void)json_object_set_new(o, "check", json_string(f->check)); /* these fail only without memory */
  (void)json_object_set_new(o, "level", json_string(f->level));
  (void)json_object_set_new(o, "code", json_string(f->code));
  (void)json_object_set_new(o, "message", said(f->what, one, two));
  (void)json_object_set_new(o, "advice", said(f->advice, NULL, NULL));
  (void)json_array_append_new(findings, o);
}

/* The answer came between these two instants of our clock. */
static void check_clock(json_t *document, const char *server, usec_t before, usec_t after) {
  static const struct own off = {"clock", "client_clock_off", "WARN", SAY_doctor_clock, SAY_doctor_clock_do};
  usec_t there = 0, ahead = 0;
  char text[TIME_TEXT_MAX];
  if (json_get_time(document, "time", &there, NULL) <= 0)
    return;
  if (there < before)
    ahead = before - there;
  else if (there > after)
    ahead = there - after;
  if (ahead > CLOCK_OFF)
    add_own(json_object_get(document, "findings"), &off, server, duration_format(ahead, text));
}

static void check_version(json_t *document, const char *server) {
  static const struct own old = {"version", "client_version", "WARN", SAY_doctor_old, SAY_doctor_old_do};
  const char *there = json_string_value(json_object_get(document, "version"));
  if (!there || strcmp(there, KELOU_VERSION) == 0)
    return;
  auto_str one;
  str_init(&one, 256);
  str_addf(&one, "%s (%s)", server, there);
  add_own(json_object_get(document, "findings"), &old, one.p, KELOU_VERSION);
}

/* ------------------------------------------------------------------ what people see */

static void add_line(struct str *out, const json_t *f, bool colour) {
  const char *level = json_string_value(json_object_get(f, "level")),
             *check = json_string_value(json_object_get(f, "check")),
             *message = json_string_value(json_object_get(f, "message")),
             *advice = json_string_value(json_object_get(f, "advice"));
  const char *sgr = level && colour ? words_colour(slice_of(level)) : NULL;
  str_addf(out, sgr ? "\033[%sm%-4s\033[0m  " : "%s%-4s  ", sgr ? sgr : "", level ? level : "");
  text_clean(out, slice_of(check));
  str_addz(out, ": ");
  text_clean(out, slice_of(message));
  str_addc(out, '\n');
  if (advice) {
    str_addz(out, "      → ");
    text_clean(out, slice_of(advice));
    str_addc(out, '\n');
  }
}

static int show(const struct invocation *given, const json_t *document) {
  const json_t *findings = json_object_get(document, "findings");
  auto_str out;
  str_init(&out, TEXT_MAX);
  bool failed = false;
  for (size_t i = 0; i < json_array_size(findings); i++) {
    const json_t *f = json_array_get(findings, i);
    const char *level = json_string_value(json_object_get(f, "level"));
    failed = failed || (level && strcmp(level, "FAIL") == 0);
    add_line(&out, f, output_colour());
  }
  bool people = given->output == OUT_TABLE || given->output == OUT_WIDE;
  int code = people ? print_out(&out) : output_show(given, document);
  return code ? code : failed;
}

/* ------------------------------------------------------------------ keloud on this machine */

/* Beside our own program, as in a build or in /usr/bin, else in PATH. */
static const char *find_keloud(char buf[PATH_MAX]) {
  static const char *const places[] = {"/keloud", "/../sbin/keloud", "/../server/keloud"};
  char own[PATH_MAX];
  ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
  own[n > 0 ? n : 0] = '\0';
  char *slash = strrchr(own, '/');
  if (slash)
    *slash = '\0';
  for (size_t i = 0; slash && i < sizeof places / sizeof *places; i++) {
    int length = snprintf(buf, PATH_MAX, "%s%s", own, places[i]);
    if (length > 0 && length < PATH_MAX && access(buf, X_OK) == 0)
      return buf;
  }
  return "keloud";
}

/* Its findings go to our standard output. Returns its exit code. */
static int look_here(const struct invocation *given) {
  char path[PATH_MAX], lang[8], doctor[] = "--doctor", lang_option[] = "--lang", config_option[] = "--config";
  (void)text_copy(lang, sizeof lang, slice_of(lang_names[words_lang()])); /* two letters */
  const char *keloud = find_keloud(path);
  auto_free char *config = given->values[OPT_config] ? mem_strdup(given->values[OPT_config]) : NULL;
  auto_free char *name = mem_strdup(keloud);
  char *argv[] = {name, doctor, lang_option, lang, config ? config_option : NULL, config, NULL};
  words_complain(SAY_doctor_here, NULL, NULL);
  pid_t pid;
  int status = 0, r = posix_spawnp(&pid, keloud, NULL, NULL, argv, environ);
  if (r != 0) {
    words_complain(SAY_unreachable, keloud, strerror(r));
    return 1;
  }
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
    continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static bool is_here(const char *server) {
  static const char *const hosts[] = {"://127.", "://localhost", "://[::1]"};
  for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++)
    if (strstr(server, hosts[i]))
      return true;
  return false;
}

/* ------------------------------------------------------------------ the centre */

static bool refused(const struct answer *a) { return a->status == 401 || a->status == 403; }

/* An answer in place of the centre's, with one finding. */
static json_t *refusal(const char *server, const struct answer *a) {
  static const struct own token = {"token", "token_refused", "FAIL", SAY_doctor_token, SAY_doctor_token_do};
  json_t *document = json_object(), *findings = json_array();
  (void)json_object_set_new(document, "level", json_string(token.level)); /* fails only without memory */
  (void)json_object_set_new(document, "findings", findings);
  add_own(findings, &token, server, problem_detail(a));
  return document;
}

static int ask(struct client *c, const struct invocation *given) {
  auto_request r = {0};
  auto_answer a = {0};
  auto_json *document = NULL;
  request_get(words_lang() == LANG_ZH ? "/api/v1/doctor?lang=zh" : "/api/v1/doctor", &r);
  usec_t before = clock_system.wall(&clock_system);
  int code = client_call(c, &r, call_timeout(given), &a);
  usec_t after = clock_system.wall(&clock_system);
  if (code) { /* it has been said why */
    int here = given->values[OPT_config] || is_here(client_server(c)) ? look_here(given) : 0;
    return here ? here : code;
  }
  if (a.status >= 400 && !refused(&a))
    return problem_say(c, given->verb, &a);
  document = refused(&a) ? refusal(client_server(c), &a) : json_incref(a.body);
  check_version(document, client_server(c));
  check_clock(document, client_server(c), before, after);
  return show(given, document);
}

int doctor_run(const struct invocation *given) {
  struct client *c = NULL;
  int code = client_open(given, &c);
  if (code == 0)
    code = ask(c, given);
  client_close(&c);
  return code;
}
