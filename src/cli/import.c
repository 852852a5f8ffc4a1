/* kelou import: what is common to all sources, and the commands. */
#include "cli/import.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/parse.h"
#include "cli/cron_zones.h"
#include "cli/documents.h"
#include "cli/input.h"
#include "core/task_spec.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXT_MAX     4096
#define NAME_CUT     110 /* bytes of a name that is made; a number may follow */
#define UNIT_MAX     ((size_t)1024 * 1024)
#define CRONTAB_MAX  ((size_t)4 * 1024 * 1024)
#define HANDLER_WANT "command"

void import_init(struct import *im) {
  im->tasks = json_array();
  im->remarks = json_object();
  im->lost = json_array();
}

void import_done(struct import *im) {
  json_decref(im->tasks);
  json_decref(im->remarks);
  json_decref(im->lost);
  if (im->zones)
    zone_set_free(&im->zones);
}

/* ------------------------------------------------------------------ what is lost */

static const char *name_of(const json_t *task) { return json_string_value(json_object_get(task, "name")); }

static void add_remark(struct import *im, const json_t *task, const char *text) {
  auto_str key;
  str_init(&key, TEXT_MAX);
  str_addf(&key, "%s/%s", document_namespace(task), name_of(task));
  json_t *list = json_object_get(im->remarks, key.p);
  if (!list) {
    list = json_array();
    (void)json_object_set_new(im->remarks, key.p, list); /* these fail only without memory */
  }
  (void)json_array_append_new(list, json_string(text));
}

void import_lose(struct import *im, const char *place, const json_t *task, enum message m, const char *one,
                 const char *two) {
  auto_str text, whole;
  str_init(&text, TEXT_MAX);
  str_init(&whole, 2 * TEXT_MAX);
  words_add(&text, m, one, two);
  str_addf(&whole, "%s: %s", place, text.p ? text.p : "");
  words_complain(SAY_plain, whole.p, NULL);
  (void)json_array_append_new(im->lost, json_string(whole.p)); /* fails only without memory */
  if (task)
    add_remark(im, task, text.p ? text.p : "");
}

/* ------------------------------------------------------------------ tasks */

static bool is_used(const struct import *im, const char *name) {
  size_t i;
  json_t *task;
  json_array_foreach (im->tasks, i, task)
    if (strcmp(name_of(task), name) == 0)
      return true;
  return false;
}

static bool fits_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("_.:-", c) ||
         (unsigned char)c >= 0x80;
}

static json_t *make_name(const struct import *im, struct slice wanted) {
  char name[NAME_CUT + 16] = "";
  wanted = slice_utf8_head(wanted, NAME_CUT);
  size_t n = wanted.n;
  for (size_t i = 0; i < n; i++)
    name[i] = wanted.p[i] && fits_name(wanted.p[i]) ? wanted.p[i] : '-';
  if (parse_name(slice_n(name, n), NAME_CUT, NULL) < 0)
    n = (size_t)snprintf(name, sizeof name, "task");
  for (int k = 2; is_used(im, name); k++)
    (void)snprintf(name + n, sizeof name - n, "-%d", k); /* there is room for any int */
  return json_string(name);
}

json_t *import_task(struct import *im, const struct import_source *source, json_t *schedule,
                    json_t *payload) {
  json_t *task = json_object();
  (void)json_object_set_new(task, "name", make_name(im, source->name)); /* these fail only without memory */
  if (source->description.n && slice_utf8_valid(source->description))
    (void)json_object_set_new(task, "description",
                              json_stringn(source->description.p, source->description.n));
  if (im->ns)
    (void)json_object_set_new(task, "namespace", json_string(im->ns));
  (void)json_object_set_new(task, "schedule", schedule);
  (void)json_object_set_new(task, "executor_group", json_string(im->group));
  (void)json_object_set_new(task, "handler", json_string(im->handler));
  (void)json_object_set_new(task, "payload", payload);
  return task;
}

static int check(const struct import *im, const json_t *task, struct err *e) {
  struct task_input in;
  int r = task_input_parse(task, im->zones, 0, &in, e);
  if (r >= 0)
    task_input_done(&in);
  return r < 0 ? r : 0;
}

static void refused(struct import *im, const char *place, const struct err *e) {
  auto_str why;
  str_init(&why, TEXT_MAX);
  if (strncmp(e->field, "/schedule", 9) != 0) /* of a schedule the text says enough */
    str_addf(&why, "%s: ", e->field);
  str_addz(&why, e->text);
  import_lose(im, place, NULL, SAY_import_refused, why.p, NULL);
}

void import_add(struct import *im, const char *place, json_t *task) {
  struct err e = {0};
  int r = check(im, task, &e);
  if (r < 0 && strcmp(e.field, "/schedule/jitter") == 0) {
    import_lose(im, place, task, SAY_import_jitter, e.text, NULL);
    (void)json_object_del(json_object_get(task, "schedule"), "jitter"); /* it is there */
    r = check(im, task, &e);
  }
  if (r == 0)
    (void)json_array_append(im->tasks, task); /* fails only without memory */
  else
    refused(im, place, &e);
  json_decref(task);
}

/* ------------------------------------------------------------------ the zone of this machine */

/* TZ, the file that /etc/localtime leads to, /etc/timezone. Free with mem_free; NULL: it has none with a name. */
static char *machine_zone(void) {
  static const char mark[] = "zoneinfo/";
  char link[1024];
  const char *tz = getenv("TZ");
  if (tz && *tz)
    return mem_strdup(tz + (*tz == ':'));
  ssize_t n = readlink("/etc/localtime", link, sizeof link - 1);
  link[n > 0 ? n : 0] = 0;
  const char *found = strstr(link, mark);
  if (found)
    return mem_strdup(found + sizeof mark - 1);
  auto_str text;
  str_init(&text, 256);
  if (file_read("/etc/timezone", 200, &text, NULL) < 0)
    return NULL;
  while (text.n && (text.p[text.n - 1] == '\n' || text.p[text.n - 1] == ' '))
    text.n--;
  return text.n ? mem_slicedup(str_slice(&text)) : NULL;
}

static char *zone_of(struct import *im, const struct invocation *g, const char *place) {
  char *zone = g->values[OPT_zone] ? mem_strdup(g->values[OPT_zone]) : machine_zone();
  if (zone)
    return zone;
  import_lose(im, place, NULL, SAY_import_no_zone, NULL, NULL);
  return mem_strdup("UTC");
}

/* ------------------------------------------------------------------ the commands */

static int finish(struct import *im, const struct invocation *g) {
  auto_json *none = json_array();
  char done[24], lost[24];
  int code =
      documents_write(g, &(struct documents){.groups = none, .tasks = im->tasks, .remarks = im->remarks});
  if (code)
    return code;
  (void)snprintf(done, sizeof done, "%zu", json_array_size(im->tasks));
  (void)snprintf(lost, sizeof lost, "%zu", json_array_size(im->lost));
  words_complain(SAY_import_done, done, lost);
  return json_array_size(im->lost) ? EXIT_DIFFERS : 0;
}

static int with_import(const struct invocation *g,
                       int (*read)(struct import *im, const struct invocation *g)) {
  struct import im = {.ns = g->values[OPT_namespace],
                      .group = g->values[OPT_to_group],
                      .handler = g->values[OPT_to_handler] ? g->values[OPT_to_handler] : HANDLER_WANT};
  if (!im.group) {
    words_complain(SAY_need_option, "--group", NULL);
    return EXIT_USAGE;
  }
  import_init(&im);
  im.zones = cli_zones_new(CLI_ZONEINFO_DEFAULT);
  auto_free char *zone = zone_of(&im, g, g->args[0]);
  im.zone = zone;
  int code = read(&im, g);
  if (code == 0)
    code = finish(&im, g);
  import_done(&im);
  return code;
}

static int say(const struct err *e) {
  words_complain(SAY_plain, e->text, NULL);
  return err_exit(e->code);
}

/* System crontabs by their place: /etc/crontab, …/cron.d/x */
static bool is_system(const char *path) {
  const char *slash = strrchr(path, '/');
  if (strcmp(path, "/etc/crontab") == 0)
    return true;
  return slash && slash - path >= 6 && strncmp(slash - 6, "cron.d", 6) == 0 &&
         (slash - path == 6 || slash[-7] == '/');
}

static int read_crontab(struct import *im, const struct invocation *g) {
  struct err e = {0};
  auto_str text;
  str_init(&text, CRONTAB_MAX + 1);
  if (input_bytes(g->args[0], CRONTAB_MAX, &text, &e) < 0)
    return say(&e);
  import_crontab(im, g->args[0], str_slice(&text), g->values[OPT_system] || is_system(g->args[0]));
  return 0;
}

int import_crontab_run(const struct invocation *given) { return with_import(given, read_crontab); }

static const char *const unit_folders[] = {"/etc/systemd/system", "/run/systemd/system",
                                           "/usr/lib/systemd/system", "/lib/systemd/system"};
#define UNIT_FOLDERS (sizeof unit_folders / sizeof *unit_folders)

static int read_unit(const char *folder, const char *name, json_t **ret, struct err *e) {
  auto_str text;
  str_init(&text, UNIT_MAX + 1);
  int r = file_read_below(folder, name, UNIT_MAX, &text, e);
  if (r == 0)
    *ret = unit_read(str_slice(&text));
  return r;
}

/* The service stands beside its timer, or where systemd looks. */
static json_t *find_service(const char *folder, const char *name) {
  json_t *found = NULL;
  if (read_unit(folder, name, &found, NULL) == 0)
    return found;
  for (size_t i = 0; i < UNIT_FOLDERS; i++)
    if (read_unit(unit_folders[i], name, &found, NULL) == 0)
      return found;
  return NULL;
}

static int read_timer(struct import *im, const char *folder, const char *name) {
  struct err e = {0};
  struct stat st;
  auto_json *timer = NULL, *service = NULL;
  auto_str path, unit;
  str_init(&path, TEXT_MAX);
  str_init(&unit, TEXT_MAX);
  if (read_unit(folder, name, &timer, &e) < 0)
    return say(&e);
  timer_service(name, timer, &unit);
  service = find_service(folder, unit.p ? unit.p : "");
  str_addf(&path, "%s/%s.d", folder, name);
  bool dropins = path.p && stat(path.p, &st) == 0;
  if (dropins)
    import_lose(im, path.p, NULL, SAY_import_dropins, NULL, NULL);
  if (path.p)
    path.p[path.n - 2] = 0;
  import_timer(im, path.p ? path.p : name, name, timer, service);
  return 0;
}

static bool is_timer(const char *name) {
  size_t n = strlen(name);
  return n > 6 && strcmp(name + n - 6, ".timer") == 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int read_folder(struct import *im, const char *folder) {
  struct err e = {0};
  DIR *d = opendir(folder);
  char **names = NULL;
  size_t n = 0, cap = 0;
  int code = 0;
  if (!d) {
    (void)err_set(&e, -errno, "%s: %s", folder, strerror(errno));
    return say(&e);
  }
  for (struct dirent *x; (x = readdir(d));)
    if (x->d_name[0] != '.' && is_timer(x->d_name)) {
      mem_reserve(names, n, cap);
      names[n++] = mem_strdup(x->d_name);
    }
  (void)closedir(d); /* it was only read */
  if (n)
    qsort(names, n, sizeof *names, by_name);
  for (size_t i = 0; i < n; i++) {
    code = code ? code : read_timer(im, folder, names[i]);
    mem_free(names[i]);
  }
  mem_free(names);
  if (!n) {
    words_complain(SAY_no_documents, folder, NULL);
    code = EXIT_USAGE;
  }
  return code;
}

/* A folder, a file, or a unit where systemd looks. */
static int read_systemd(struct import *im, const struct invocation *g) {
  struct stat st;
  const char *path = g->args[0], *slash = strrchr(path, '/');
  auto_str name;
  str_init(&name, TEXT_MAX);
  if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
    return read_folder(im, path);
  if (slash || stat(path, &st) == 0) {
    auto_free char *folder = slash ? mem_slicedup(slice_n(path, (size_t)(slash - path))) : mem_strdup(".");
    return read_timer(im, *folder ? folder : "/", slash ? slash + 1 : path);
  }
  str_addf(&name, "%s%s", path, is_timer(path) ? "" : ".timer");
  for (size_t i = 0; i < UNIT_FOLDERS; i++) {
    json_t *found = NULL;
    if (read_unit(unit_folders[i], name.p, &found, NULL) < 0)
      continue;
    json_decref(found);
    return read_timer(im, unit_folders[i], name.p);
  }
  words_complain(SAY_import_no_unit, path, NULL);
  return err_exit(ERR_NOT_FOUND);
}

int import_systemd_run(const struct invocation *given) { return with_import(given, read_systemd); }
