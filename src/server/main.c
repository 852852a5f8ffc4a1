/* keloud: the daemon. Exit codes: 0 ok, 1 failure, 2 usage or configuration. */
#include "base/json.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/backup.h"
#include "server/server.h"
#include "server/notify.h"
#include "server/settings.h"
#include "server/tools.h"
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SETS_MAX = 256 };

struct arguments {
  const char *config, *man, *lang;
  bool doctor;
  const char *sets[SETS_MAX + 1];
  size_t set_count;
  bool check, print, doc, after_restore;
  const char *backup, *restore;
};

static void usage(FILE *to) {
  fputs("usage: keloud [--config FILE] [--set name=value]...\n"
        "       keloud --doctor [--lang en|zh]          look for what is wrong without starting; code 1 when "
        "something is\n"
        "       keloud --doc-man 5|8                    print a manual page: kelou.yaml(5), keloud(8)\n"
        "       keloud --check-config [--config FILE]   check the settings and end\n"
        "       keloud --print-config [--config FILE]   print the effective settings and end\n"
        "       keloud --doc-config                     print a table of all settings (Markdown)\n"
        "       keloud --backup DIR [--config FILE]     copy the SQLite database and its key, also while a "
        "node runs\n"
        "       keloud --restore DIR [--config FILE]    put such a copy back; no node may run\n"
        "       keloud --after-restore [--config FILE]  after pg_restore or a copied file: raise all epochs; "
        "no node may run\n"
        "       keloud --version\n"
        "Every setting is also an environment variable: http.listen is KELOU_HTTP_LISTEN.\n",
        to);
}

/* -1: go on; else the exit code. */
static int read_arguments(int argc, char **argv, struct arguments *a) {
  static const struct option options[] = {
      {"doctor", no_argument, NULL, 'X'},        {"lang", required_argument, NULL, 'L'},
      {"doc-man", required_argument, NULL, 'M'}, {"config", required_argument, NULL, 'c'},
      {"set", required_argument, NULL, 's'},     {"check-config", no_argument, NULL, 'C'},
      {"print-config", no_argument, NULL, 'P'},  {"doc-config", no_argument, NULL, 'D'},
      {"version", no_argument, NULL, 'V'},       {"backup", required_argument, NULL, 'B'},
      {"restore", required_argument, NULL, 'R'}, {"after-restore", no_argument, NULL, 'A'},
      {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0}};
  for (int o; (o = getopt_long(argc, argv, "c:s:h", options, NULL)) != -1;)
    switch (o) {
    case 'c': a->config = optarg; break;
    case 'X': a->doctor = true; break;
    case 'L': a->lang = optarg; break;
    case 'M': a->man = optarg; break;
    case 's':
      if (a->set_count == SETS_MAX) {
        fprintf(stderr, "keloud: more than %d --set\n", SETS_MAX);
        return 2;
      }
      a->sets[a->set_count++] = optarg;
      break;
    case 'C': a->check = true; break;
    case 'P': a->print = true; break;
    case 'D': a->doc = true; break;
    case 'B': a->backup = optarg; break;
    case 'R': a->restore = optarg; break;
    case 'A': a->after_restore = true; break;
    case 'V': puts("keloud " KELOU_VERSION); return 0;
    case 'h': usage(stdout); return 0;
    default: usage(stderr); return 2;
    }
  if (optind < argc) {
    fprintf(stderr, "keloud: unexpected argument: %s\n", argv[optind]);
    return 2;
  }
  return -1;
}

static int print_text(void (*fill)(const struct conf *, struct str *), const struct conf *c) {
  auto_str out;
  str_init(&out, (size_t)1 << 20);
  fill(c, &out);
  fputs(out.p ? out.p : "", stdout);
  return str_failed(&out) || fflush(stdout) != 0;
}

static void doc(const struct conf *c, struct str *out) {
  (void)c;
  conf_doc(settings, settings_count, out);
}

static int load_quiet(const struct arguments *a, struct conf **ret, struct conf_errors *errors) {
  struct conf_sources sources = {.items = settings,
                                 .n_items = settings_count,
                                 .path = a->config,
                                 .env = (const char *const *)environ,
                                 .env_ignore = settings_env_ignore,
                                 .sets = a->sets};
  return conf_load(&sources, ret, errors);
}

static int load(const struct arguments *a, struct conf **ret) {
  struct conf_errors errors = {0};
  if (load_quiet(a, ret, &errors) >= 0)
    return 0;
  for (size_t i = 0; i < errors.n; i++)
    fprintf(stderr, "keloud: %s: %s\n", errors.list[i].field, errors.list[i].text);
  if (errors.more)
    fputs("keloud: … and more\n", stderr);
  return 2;
}

static int doctor(const struct arguments *a) {
  struct conf_errors errors = {0};
  struct conf *conf = NULL;
  (void)load_quiet(a, &conf, &errors); /* what is wrong is a finding */
  int rc = tool_doctor(conf, &errors, a->lang);
  conf_unref(&conf);
  return rc;
}

/* SIGHUP: read the settings again and take over what may change while running. */
static void reload(const struct arguments *a, const struct conf *now) {
  struct conf *fresh = NULL;
  if (load(a, &fresh)) {
    log_error("the settings are not good, the old ones stay");
    return;
  }
  const struct conf_item *changed[8];
  size_t n = conf_diff(now, fresh, changed, 8);
  for (size_t i = 0; i < n && i < 8; i++)
    if (!(changed[i]->flags & CONF_RELOADABLE))
      log_warn("a changed setting needs a restart", LF_S("setting", changed[i]->name));
  log_level_set((enum log_level)conf_enum(fresh, "log.level"));
  log_info("settings read again");
  conf_unref(&fresh);
}

/* Signals are taken by this thread alone (thread_start blocks them in all others). */
static int serve(const struct arguments *a, struct conf *conf) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, NULL);
  signal(SIGPIPE, SIG_IGN);
  struct err e = {0};
  struct server *s = NULL;
  if (server_start(&(struct server_options){.conf = conf, .version = KELOU_VERSION}, &s, &e) < 0) {
    log_error("cannot start", LF_S("field", e.field), LF_E(&e));
    return 1;
  }
  int sig = 0;
  notify_manager("READY=1");
  while (sigwait(&set, &sig) == 0 && sig == SIGHUP) {
    notify_manager("RELOADING=1");
    reload(a, conf);
    notify_manager("READY=1");
  }
  notify_manager("STOPPING=1");
  log_info("stopping", LF_S("signal", sig == SIGTERM ? "SIGTERM" : "SIGINT"));
  server_stop(&s);
  log_info("stopped");
  return 0;
}

/* -1: none of these was asked for; else the exit code. */
static int backup_or_restore(const struct arguments *a, const struct conf *conf) {
  struct err e = {0};
  int r;
  if (a->backup)
    r = server_backup(conf, a->backup, &e);
  else if (a->restore)
    r = server_restore(conf, a->restore, &e);
  else if (a->after_restore)
    r = server_after_restore(conf, &e);
  else
    return -1;
  if (r < 0)
    fprintf(stderr, "keloud: %s\n", e.text);
  return r < 0 || fflush(stdout) != 0;
}

int main(int argc, char **argv) {
  struct arguments a = {0};
  json_use_mem();
  int rc = read_arguments(argc, argv, &a);
  if (rc >= 0)
    return rc;
  if (a.doc)
    return print_text(doc, NULL);
  if (a.man)
    return tool_man(a.man, KELOU_VERSION);
  if (a.doctor)
    return doctor(&a);
  struct conf *conf = NULL;
  rc = load(&a, &conf);
  if (rc)
    return rc;
  if (a.print) {
    rc = print_text(conf_print, conf);
  } else if (a.check) {
    puts("the settings are good");
  } else if ((rc = backup_or_restore(&a, conf)) >= 0) {
    conf_unref(&conf);
    return rc;
  } else {
    struct err e = {0};
    const char *file = conf_str(conf, "log.file");
    struct log_options lo = {.level = (enum log_level)conf_enum(conf, "log.level"),
                             .format = (enum log_format)conf_enum(conf, "log.format"),
                             .path = *file ? file : NULL,
                             .clock = &clock_system};
    if (log_open(&lo, &e) < 0) {
      fprintf(stderr, "keloud: log.file: %s\n", e.text);
      rc = 2;
    } else {
      rc = serve(&a, conf);
    }
  }
  conf_unref(&conf);
  return rc;
}
