/* systemd's timers and the services that they start. */
#include "base/mem.h"
#include "base/parse.h"
#include "cli/import.h"
#include <stdio.h>

#define TEXT_MAX 8192
#define DAY_TEXT "24h"

/* ------------------------------------------------------------------ unit files */

static void add_value(json_t *sections, const char *section, struct slice key, struct slice value) {
  json_t *keys = json_object_get(sections, section);
  auto_free char *name = mem_slicedup(key);
  if (!keys) {
    keys = json_object();
    (void)json_object_set_new(sections, section, keys); /* these fail only without memory */
  }
  json_t *list = json_object_get(keys, name);
  if (!list || !value.n) {
    list = json_array();
    (void)json_object_set_new(keys, name, list);
  }
  if (value.n)
    (void)json_array_append_new(list, json_stringn(value.p, value.n));
}

/* The next line, those that end in \ joined with the next by a space. False: there is none. */
static bool next_line(struct slice *rest, struct str *out) {
  str_clear(out);
  bool more = true;
  if (!rest->n)
    return false;
  while (more && rest->n) {
    struct slice line = slice_cut(*rest, '\n', rest);
    if (line.n && line.p[line.n - 1] == '\r')
      line.n--;
    line = slice_trim(line);
    bool note = line.n && (line.p[0] == '#' || line.p[0] == ';');
    if (note && out->n) /* between the parts of a line */
      continue;
    more = !note && line.n && line.p[line.n - 1] == '\\';
    str_add(out, slice_n(line.p, line.n - more));
    if (more)
      str_addc(out, ' ');
  }
  return true;
}

json_t *unit_read(struct slice text) {
  json_t *sections = json_object();
  auto_str line;
  str_init(&line, 64 * 1024);
  char section[64] = "";
  while (next_line(&text, &line)) {
    struct slice s = slice_trim(str_slice(&line)), value, key;
    if (!s.n || s.p[0] == '#' || s.p[0] == ';' || !slice_utf8_valid(s))
      continue;
    if (s.p[0] == '[' && s.p[s.n - 1] == ']') {
      (void)text_copy(section, sizeof section, slice_n(s.p + 1, s.n - 2)); /* a longer one is none of ours */
      continue;
    }
    key = slice_trim(slice_cut(s, '=', &value));
    if (value.p && key.n)
      add_value(sections, section, key, slice_trim(value));
  }
  return sections;
}

static const json_t *values(const json_t *unit, const char *section, const char *key) {
  return json_object_get(json_object_get(unit, section), key);
}

/* The last one counts. NULL: there is none. */
static const char *value(const json_t *unit, const char *section, const char *key) {
  const json_t *list = values(unit, section, key);
  size_t n = json_array_size(list);
  return n ? json_string_value(json_array_get(list, n - 1)) : NULL;
}

static bool is_yes(const char *text) {
  static const char *const words[] = {"1", "yes", "y", "true", "t", "on"};
  for (size_t i = 0; text && i < sizeof words / sizeof *words; i++)
    if (slice_eqz_nocase(slice_of(text), words[i]))
      return true;
  return false;
}

void timer_service(const char *name, const json_t *timer, struct str *out) {
  const char *unit = value(timer, "Timer", "Unit");
  size_t n = strlen(name);
  bool suffix = n > 6 && strcmp(name + n - 6, ".timer") == 0;
  if (unit)
    str_addz(out, unit);
  else
    str_addf(out, "%.*s.service", (int)(suffix ? n - 6 : n), name);
}

/* ------------------------------------------------------------------ what is lost */

struct reading {
  struct import *im;
  const char *path, *name; /* of the timer: its file, and without ".timer" */
  const json_t *timer, *service;
  struct str unit; /* the service's name */
  json_t *task;    /* that is made now */
};

static void lose(const struct reading *r, enum message m, const char *one, const char *two) {
  import_lose(r->im, r->path, r->task, m, one, two);
}

static bool is_one_of(const char *key, const char *const *list) {
  for (; *list; list++)
    if (strcmp(key, *list) == 0)
      return true;
  return false;
}

/* The keys of a section that nothing was made of; those that say "no" are none. */
static void add_unknown(struct str *out, const json_t *unit, const char *section, const char *const *known) {
  const char *key;
  json_t *list;
  json_object_foreach (json_object_get(unit, section), key, list) {
    const char *last = value(unit, section, key);
    bool no = last && (slice_eqz_nocase(slice_of(last), "no") || slice_eqz_nocase(slice_of(last), "false") ||
                       strcmp(last, "0") == 0);
    if (!is_one_of(key, known) && last && !no)
      str_addf(out, "%s%s=", out->n ? ", " : "", key);
  }
}

static void lose_keys(const struct reading *r) {
  static const char *const of_timer[] = {
      "OnCalendar", "OnActiveSec", "OnBootSec",          "OnStartupSec", "OnUnitActiveSec",
      "Unit",       "AccuracySec", "RandomizedDelaySec", "Persistent",   "OnUnitInactiveSec",
      NULL};
  static const char *const of_service[] = {
      "Type",          "ExecStart",  "User", "WorkingDirectory", "Environment", "TimeoutStartSec",
      "RuntimeMaxSec", "TimeoutSec", NULL};
  static const char *const of_unit[] = {"Description", "Documentation",       "After", "Before",
                                        "Wants",       "DefaultDependencies", NULL};
  auto_str keys;
  str_init(&keys, TEXT_MAX);
  add_unknown(&keys, r->timer, "Timer", of_timer);
  add_unknown(&keys, r->service, "Service", of_service);
  add_unknown(&keys, r->service, "Unit", of_unit);
  if (keys.n)
    lose(r, SAY_import_keys, keys.p, NULL);
}

/* ------------------------------------------------------------------ what is done */

static void set_text(json_t *o, const char *key, const char *text) {
  if (text && *text)
    (void)json_object_set_new(o, key, json_string(text)); /* fails only without memory */
}

/* A=b "C=d e" 'F=g' */
static void add_environment(const char *text, json_t *environment) {
  while (*text) {
    auto_str one;
    str_init(&one, TEXT_MAX);
    char quote = 0;
    while (*text == ' ' || *text == '\t')
      text++;
    for (; *text && (quote || (*text != ' ' && *text != '\t')); text++) {
      if (quote ? *text == quote : *text == '"' || *text == '\'')
        quote = quote ? 0 : *text;
      else
        str_addc(&one, *text);
    }
    struct slice rest, name = slice_cut(str_slice(&one), '=', &rest);
    auto_free char *key = mem_slicedup(name), *word = mem_slicedup(rest);
    if (rest.p && name.n)
      set_text(environment, key, word);
  }
}

static json_t *payload_of(const struct reading *r) {
  json_t *payload = json_object(), *environment = json_object(), *line;
  const char *command = json_string_value(json_array_get(values(r->service, "Service", "ExecStart"), 0));
  size_t i;
  set_text(payload, "unit", r->unit.p);
  if (command)
    set_text(payload, "command", command + strspn(command, "-@:+! "));
  set_text(payload, "user", value(r->service, "Service", "User"));
  set_text(payload, "working_directory", value(r->service, "Service", "WorkingDirectory"));
  json_array_foreach (values(r->service, "Service", "Environment"), i, line)
    add_environment(json_string_value(line), environment);
  if (json_object_size(environment))
    (void)json_object_set(payload, "environment", environment); /* fails only without memory */
  json_decref(environment);
  return payload;
}

static bool has_specifier(const char *text) {
  for (; *text; text++)
    if (*text == '%') {
      if (text[1] != '%')
        return true;
      text++;
    }
  return false;
}

static void lose_commands(const struct reading *r) {
  const json_t *list = values(r->service, "Service", "ExecStart");
  const char *command = json_string_value(json_array_get(list, 0));
  char marks[16];
  if (!r->service || !command) {
    lose(r, r->service ? SAY_import_no_exec : SAY_import_no_service, r->unit.p, NULL);
    return;
  }
  size_t n = strspn(command, "-@:+!");
  (void)text_copy(marks, sizeof marks, slice_n(command, n)); /* what is cut is said well enough */
  if (n)
    lose(r, SAY_import_prefix, marks, NULL);
  if (json_array_size(list) > 1)
    lose(r, SAY_import_more_exec, r->unit.p, NULL);
  if (has_specifier(command))
    lose(r, SAY_import_specifier, "ExecStart=", NULL);
}

/* How long it may run: systemd's own bound, else as good as none. */
static void set_timeout(const struct reading *r) {
  const char *type = value(r->service, "Service", "Type");
  bool oneshot = type && strcmp(type, "oneshot") == 0;
  const char *text = value(r->service, "Service", oneshot ? "TimeoutStartSec" : "RuntimeMaxSec");
  char buf[TIME_TEXT_MAX];
  usec_t limit = 0;
  if (!text && oneshot)
    text = value(r->service, "Service", "TimeoutSec");
  bool given = text && timespan_parse(slice_of(text), &limit, NULL) == 0 && limit > 0 && limit != USEC_NEVER;
  set_text(r->task, "attempt_timeout", given ? duration_format(limit, buf) : DAY_TEXT);
  if (given && limit > USEC_PER_DAY)
    set_text(r->task, "timeout", duration_format(limit, buf));
}

/* A service is never started twice, and a failed one is not started again by its timer. */
static void make(struct reading *r, json_t *schedule, const char *misfire) {
  const char *delay = value(r->timer, "Timer", "RandomizedDelaySec");
  char buf[TIME_TEXT_MAX];
  usec_t jitter;
  bool spread = strcmp(json_string_value(json_object_get(schedule, "kind")), "FIXED_DELAY") != 0;
  if (spread && delay && timespan_parse(slice_of(delay), &jitter, NULL) == 0 && jitter > 0 &&
      jitter != USEC_NEVER)
    set_text(schedule, "jitter", duration_format(jitter, buf));
  const char *description = value(r->timer, "Unit", "Description");
  description = description ? description : value(r->service, "Unit", "Description");
  const struct import_source source = {slice_of(r->name), slice_of(description)};
  r->task = import_task(r->im, &source, schedule, payload_of(r));
  set_text(r->task, "misfire_policy", misfire);
  set_text(r->task, "overlap_policy", "SKIP");
  set_text(r->task, "on_lost", "FAIL");
  set_timeout(r);
  lose_commands(r);
  lose_keys(r);
  if (delay && !spread)
    lose(r, SAY_import_keys, "RandomizedDelaySec=", NULL);
  import_add(r->im, r->path, r->task);
  r->task = NULL;
}

/* ------------------------------------------------------------------ when */

static void calendars(struct reading *r) {
  const json_t *list = values(r->timer, "Timer", "OnCalendar");
  json_t *one;
  size_t i;
  json_array_foreach (list, i, one) {
    const char *text = json_string_value(one);
    struct err e = {0};
    struct slice zone;
    auto_str expression;
    str_init(&expression, TEXT_MAX);
    if (calendar_translate(slice_of(text), &expression, &zone, &e) < 0) {
      lose(r, SAY_import_calendar, text, e.text);
      continue;
    }
    json_t *schedule = json_object();
    set_text(schedule, "kind", "CRON");
    set_text(schedule, "expression", expression.p);
    set_text(schedule, "timezone", r->im->zone);
    if (zone.n)
      (void)json_object_set_new(schedule, "timezone",
                                json_stringn(zone.p, zone.n)); /* fails only without memory */
    make(r, schedule, is_yes(value(r->timer, "Timer", "Persistent")) ? "FIRE_ONCE" : "SKIP");
  }
}

static void every(struct reading *r, const char *key, const char *kind) {
  const char *text = value(r->timer, "Timer", key);
  char buf[TIME_TEXT_MAX];
  usec_t d = 0;
  if (!text)
    return;
  if (timespan_parse(slice_of(text), &d, NULL) < 0 || d <= 0 || d == USEC_NEVER) {
    lose(r, SAY_import_span, key, text);
    return;
  }
  json_t *schedule = json_object();
  set_text(schedule, "kind", kind);
  set_text(schedule, "every", duration_format(d, buf));
  make(r, schedule, "SKIP");
}

static void lose_boot(const struct reading *r) {
  static const char *const keys[] = {"OnBootSec", "OnStartupSec", "OnActiveSec"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    if (value(r->timer, "Timer", keys[i]))
      lose(r, SAY_import_boot, keys[i], NULL);
}

void import_timer(struct import *im, const char *path, const char *name, const json_t *timer,
                  const json_t *service) {
  size_t n = strlen(name), before = json_array_size(im->tasks), lost = json_array_size(im->lost);
  bool suffix = n > 6 && strcmp(name + n - 6, ".timer") == 0;
  auto_free char *stem = mem_slicedup(slice_n(name, suffix ? n - 6 : n));
  struct reading r = {.im = im, .path = path, .name = stem, .timer = timer, .service = service};
  if (strchr(stem, '@') && strchr(stem, '@')[1] == 0) {
    lose(&r, SAY_import_template, NULL, NULL);
    return;
  }
  str_init(&r.unit, TEXT_MAX);
  timer_service(name, timer, &r.unit);
  calendars(&r);
  every(&r, "OnUnitActiveSec", "FIXED_RATE");
  every(&r, "OnUnitInactiveSec", "FIXED_DELAY");
  lose_boot(&r);
  size_t made = json_array_size(im->tasks) - before;
  char count[24];
  (void)snprintf(count, sizeof count, "%zu", made);
  if (made > 1)
    lose(&r, SAY_import_several, count, NULL);
  else if (!made && json_array_size(im->lost) == lost)
    lose(&r, SAY_import_no_trigger, NULL, NULL);
  str_done(&r.unit);
}
