/* Crontabs, as cronie reads them. */
#include "base/mem.h"
#include "cli/import.h"
#include <stdio.h>

#define LINE_TEXT_MAX (64 * 1024)
#define MINUTES_MAX   (7 * 24 * 60)

struct crontab {
  struct import *im;
  const char *path;
  bool user;
  size_t line;
  json_t *environment; /* what the commands see from here on */
  char *zone;          /* CRON_TZ; NULL: the machine's */
  int64_t delay;       /* RANDOM_DELAY, minutes */
  struct str comment;  /* of the lines just above */
};

static void place_of(const struct crontab *c, struct str *out) {
  str_init(out, LINE_TEXT_MAX);
  str_addf(out, "%s:%zu", c->path, c->line);
}

static bool is_blank(char c) { return c == ' ' || c == '\t'; }

/* The next word; blanks before and after it are taken off. */
static struct slice word(struct slice *rest) {
  struct slice s = slice_trim(*rest);
  size_t n = 0;
  while (n < s.n && !is_blank(s.p[n]))
    n++;
  *rest = slice_trim(slice_n(s.p + n, s.n - n));
  return slice_n(s.p, n);
}

/* ------------------------------------------------------------------ settings */

static struct slice unquoted(struct slice s) {
  s = slice_trim(s);
  bool quoted = s.n >= 2 && (s.p[0] == '"' || s.p[0] == '\'') && s.p[s.n - 1] == s.p[0];
  return quoted ? slice_n(s.p + 1, s.n - 2) : s;
}

static bool is_name(struct slice s) {
  for (size_t i = 0; i < s.n; i++) {
    char c = s.p[i];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
    if (!letter && !(i && c >= '0' && c <= '9'))
      return false;
  }
  return s.n > 0;
}

static void set_delay(struct crontab *c, struct slice value) {
  int64_t n = 0;
  for (size_t i = 0; i < value.n && n <= MINUTES_MAX; i++)
    n = value.p[i] >= '0' && value.p[i] <= '9' ? n * 10 + (value.p[i] - '0') : MINUTES_MAX + 1;
  c->delay = n <= MINUTES_MAX ? n : 0;
}

static void setting(struct crontab *c, struct slice name, struct slice value) {
  auto_str place;
  place_of(c, &place);
  auto_free char *key = mem_slicedup(name), *text = mem_slicedup(value);
  if (strcmp(key, "CRON_TZ") == 0) {
    mem_free(c->zone);
    c->zone = *text ? mem_strdup(text) : NULL;
  } else if (strcmp(key, "RANDOM_DELAY") == 0) {
    set_delay(c, value);
  } else if (strncmp(key, "MAIL", 4) == 0 || strncmp(key, "CONTENT_", 8) == 0) {
    if (value.n)
      import_lose(c->im, place.p, NULL, SAY_import_mail, key, NULL);
  } else if (slice_utf8_valid(value)) {
    (void)json_object_set_new(c->environment, key, json_string(text)); /* fails only without memory */
  }
}

/* NAME = value. */
static bool is_setting(struct slice line, struct slice *ret_name, struct slice *ret_value) {
  struct slice rest, name = unquoted(slice_cut(line, '=', &rest));
  *ret_name = name;
  *ret_value = unquoted(rest);
  return rest.p && is_name(name);
}

/* ------------------------------------------------------------------ commands */

/* Up to the first % the command, after it its standard input; each further % is a line feed, \% a %. */
static void split_command(struct slice s, struct str *command, struct str *input, bool *ret_input) {
  struct str *out = command;
  for (size_t i = 0; i < s.n; i++) {
    if (s.p[i] == '\\' && i + 1 < s.n && s.p[i + 1] == '%') {
      str_addc(out, '%');
      i++;
    } else if (s.p[i] != '%') {
      str_addc(out, s.p[i]);
    } else if (out == command) {
      out = input;
      *ret_input = true;
    } else {
      str_addc(out, '\n');
    }
  }
}

/* A task is called as the program that it runs: the first word with a path, else the first word. */
static struct slice name_of(struct slice command) {
  struct slice rest = command, first = {0};
  while (rest.n) {
    struct slice w = word(&rest);
    if (slice_eqz(w, "cd")) { /* where it is done, not what */
      (void)word(&rest);
      continue;
    }
    first = first.n ? first : w;
    const char *slash = memrchr(w.p, '/', w.n);
    bool path = slash && slash + 1 < w.p + w.n && !strchr("-<>&|\"'$;", w.p[0]) &&
                !(w.n > 5 && strncmp(w.p, "/dev/", 5) == 0) && !memchr(w.p, '=', w.n) &&
                !memchr(w.p, '>', w.n);
    if (path)
      return slice_n(slash + 1, (size_t)(w.p + w.n - slash - 1));
  }
  return first;
}

static json_t *payload_of(const struct crontab *c, struct slice command, struct slice user) {
  auto_str text, input;
  bool has_input = false;
  str_init(&text, LINE_TEXT_MAX);
  str_init(&input, LINE_TEXT_MAX);
  split_command(command, &text, &input, &has_input);
  json_t *payload = json_object();
  (void)json_object_set_new(payload, "command", json_string(text.p)); /* these fail only without memory */
  if (has_input)
    (void)json_object_set_new(payload, "stdin", json_string(input.p ? input.p : ""));
  if (user.n)
    (void)json_object_set_new(payload, "user", json_stringn(user.p, user.n));
  if (json_object_size(c->environment))
    (void)json_object_set_new(payload, "environment", json_copy(c->environment));
  return payload;
}

static json_t *schedule_of(const struct crontab *c, struct slice expression) {
  char jitter[TIME_TEXT_MAX];
  json_t *schedule = json_object();
  (void)json_object_set_new(schedule, "kind", json_string("CRON")); /* these fail only without memory */
  (void)json_object_set_new(schedule, "expression", json_stringn(expression.p, expression.n));
  (void)json_object_set_new(schedule, "timezone", json_string(c->zone ? c->zone : c->im->zone));
  if (c->delay)
    (void)json_object_set_new(schedule, "jitter",
                              json_string(duration_format(c->delay * USEC_PER_MIN, jitter)));
  return schedule;
}

/* What cron does: starts it each time, whether or not the one before runs; never makes up for what it missed; waits for no end. */
static void as_cron_does(json_t *task) {
  static const char *const fields[][2] = {{"misfire_policy", "SKIP"},
                                          {"overlap_policy", "ALLOW"},
                                          {"attempt_timeout", "24h"},
                                          {"on_lost", "FAIL"}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    (void)json_object_set_new(task, fields[i][0], json_string(fields[i][1])); /* fails only without memory */
}

static void job(struct crontab *c, struct slice line) {
  auto_str place, expression;
  struct slice rest = line, user = {0};
  place_of(c, &place);
  str_init(&expression, LINE_TEXT_MAX);
  if (rest.n > 1 && rest.p[0] == '-') /* "do not log this": nothing of the schedule */
    rest = slice_n(rest.p + 1, rest.n - 1);
  int fields = rest.n && rest.p[0] == '@' ? 1 : 5;
  for (int i = 0; i < fields && rest.n; i++) {
    str_addz(&expression, i ? " " : "");
    str_add(&expression, word(&rest));
  }
  if (slice_eqz_nocase(str_slice(&expression), "@reboot")) {
    import_lose(c->im, place.p, NULL, SAY_import_reboot, NULL, NULL);
    return;
  }
  if (c->user)
    user = word(&rest);
  if (!rest.n || !slice_utf8_valid(line)) {
    import_lose(c->im, place.p, NULL, rest.n ? SAY_import_not_utf8 : SAY_import_no_command, NULL, NULL);
    return;
  }
  const struct import_source source = {name_of(rest), str_slice(&c->comment)};
  json_t *task =
      import_task(c->im, &source, schedule_of(c, str_slice(&expression)), payload_of(c, rest, user));
  as_cron_does(task);
  import_add(c->im, place.p, task);
}

/* ------------------------------------------------------------------ lines */

/* What stands above a job is its description, but for lines that were put out of use. */
static void comment(struct crontab *c, struct slice text) {
  text = slice_trim(slice_n(text.p + 1, text.n - 1));
  bool off = text.n && (strchr("0123456789*@#", text.p[0]) || memchr(text.p, '=', text.n));
  if (!text.n || off || c->comment.n + text.n > 900)
    return;
  str_addz(&c->comment, c->comment.n ? " " : "");
  str_add(&c->comment, text);
}

void import_crontab(struct import *im, const char *path, struct slice text, bool user) {
  struct crontab c = {.im = im, .path = path, .user = user, .environment = json_object()};
  str_init(&c.comment, 1024);
  for (struct slice rest = text; rest.n;) {
    struct slice name, value, line = slice_cut(rest, '\n', &rest);
    c.line++;
    if (line.n && line.p[line.n - 1] == '\r')
      line.n--;
    line = slice_trim(line);
    if (line.n && line.p[0] == '#') {
      comment(&c, line);
      continue;
    }
    if (line.n && is_setting(line, &name, &value))
      setting(&c, name, value);
    else if (line.n)
      job(&c, line);
    str_clear(&c.comment);
  }
  str_done(&c.comment);
  json_decref(c.environment);
  mem_free(c.zone);
}
