#include "server/man.h"
#include "base/conf.h"
#include "base/parse.h"
#include "server/settings.h"
#include <ctype.h>
#include <errno.h>

/* A character beyond ASCII by its number: troff itself reads bytes. */
static void add_character(struct str *out, struct slice c) {
  static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
  unsigned point = (unsigned char)c.p[0] & masks[c.n];
  for (size_t i = 1; i < c.n; i++)
    point = point << 6 | ((unsigned char)c.p[i] & 0x3f);
  str_addf(out, "\\[u%04X]", point);
}

/* Text between macros: a line of it must not begin with a control character. */
static void text(struct str *out, const char *s) {
  bool begin = true;
  struct slice left = slice_of(s);
  while (left.n) {
    size_t step = slice_utf8_step(left);
    if (begin && (*left.p == '.' || *left.p == '\''))
      str_addz(out, "\\&");
    if (step > 1)
      add_character(out, slice_n(left.p, step));
    else if (*left.p == '\\')
      str_addz(out, "\\e");
    else if (*left.p == '-')
      str_addz(out, "\\-");
    else
      str_addc(out, *left.p);
    begin = *left.p == '\n';
    left = slice_n(left.p + (step ? step : 1), left.n - (step ? step : 1));
  }
}

static void head(struct str *out, const char *name, const char *section, const char *version,
                 const char *what) {
  str_addf(
      out,
      ".\\\" made from src/server/settings.def: do not edit\n.TH \"%s\" \"%s\" \"\" \"Kelou %s\" \"Kelou\"\n",
      name, section, version);
  str_addf(out, ".SH NAME\n%s \\- %s\n", name, what);
}

static const char *const type_names[CONF_TYPE_MAX_] = {
    [CONF_STRING] = "text",       [CONF_INT] = "whole number", [CONF_BOOL] = "true or false",
    [CONF_DURATION] = "duration", [CONF_BYTES] = "bytes",      [CONF_ENUM] = "one of",
    [CONF_LIST] = "list",
};

static void setting(struct str *out, const struct conf_item *i) {
  str_addz(out, ".TP\n.B ");
  text(out, i->name);
  str_addz(out, "\n");
  text(out, i->help);
  str_addz(out, ".\n.br\n");
  str_addf(out, "%c%s", toupper((unsigned char)type_names[i->type][0]), type_names[i->type] + 1);
  for (size_t k = 0; i->names && i->names[k]; k++) {
    str_addz(out, k ? ", " : " ");
    text(out, i->names[k]);
  }
  if (i->text && *i->text) {
    str_addz(out, "; default ");
    text(out, i->text);
  }
  str_addz(out, i->flags & CONF_RELOADABLE ? "; read again at SIGHUP.\n" : ".\n");
}

static void settings_page(struct str *out, const char *version) {
  struct slice section = {0};
  head(out, "kelou.yaml", "5", version, "settings of keloud");
  str_addz(
      out,
      ".SH DESCRIPTION\n"
      "A YAML file of sections, given to\n.BR keloud (8)\nwith \\-\\-config:\n.PP\n.nf\n.RS\n"
      "node:\n  state_dir: /var/lib/kelou\nstore:\n  url: postgres://kelou@db:5432/kelou\n.RE\n.fi\n.PP\n"
      "A later source wins: default, file, environment (http.listen is KELOU_HTTP_LISTEN), \\-\\-set "
      "name=value.\nDurations are written 1500ms, 30s, 5m, 2h, 7d; bytes 512, 64KiB, 10MiB.\n");
  for (size_t i = 0; i < settings_count; i++) {
    struct slice rest, now = slice_cut(slice_of(settings[i].name), '.', &rest);
    if (!slice_eq(now, section)) {
      str_addz(out, ".SH SECTION ");
      for (size_t k = 0; k < now.n; k++)
        str_addc(out, (char)toupper((unsigned char)now.p[k]));
      str_addc(out, '\n');
      section = now;
    }
    setting(out, &settings[i]);
  }
  str_addz(out, ".SH SEE ALSO\n.BR keloud (8),\n.BR kelou (1)\n");
}

static void daemon_page(struct str *out, const char *version) {
  static const struct {
    const char *option, *what;
  } options[] = {
      {"--config FILE", "read this YAML file, see kelou.yaml(5)"},
      {"--set name=value", "a setting; may be repeated, and wins over file and environment"},
      {"--check-config", "check the settings and end: code 0 when they are good, else 2"},
      {"--print-config", "print the settings in force as YAML, with secrets masked"},
      {"--doc-config", "print a table of all settings in Markdown"},
      {"--doctor",
       "look for what is wrong without starting: settings, database and its schema, clocks, time zone data, "
       "files, "
       "limits, disk, port; each finding says what to do; code 1 when something must be put right"},
      {"--lang en|zh", "language of the doctor; else KELOU_LANG, then the locale"},
      {"--doc-man 5|8", "print a manual page"},
      {"--version", "print the version"},
      {"--help", "print a summary"},
  };
  head(out, "keloud", "8", version, "scheduling centre");
  str_addz(out,
           ".SH SYNOPSIS\n.B keloud\n[\\-\\-config FILE] [\\-\\-set name=value]...\n"
           ".SH DESCRIPTION\nkeloud decides when work is due, hands each due run to an executor over HTTP, "
           "and keeps the "
           "truth about every run in a database. It serves a REST API, which\n.BR kelou (1)\nuses, and "
           "metrics for "
           "Prometheus at /metrics. At the first start on an empty database the first token is written to "
           "admin.token in node.state_dir.\n.SH OPTIONS\n");
  for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
    str_addz(out, ".TP\n.B ");
    text(out, options[i].option);
    str_addc(out, '\n');
    text(out, options[i].what);
    str_addz(out, ".\n");
  }
  str_addz(out, ".SH SIGNALS\n.TP\n.B SIGTERM, SIGINT\nstop: nothing new is taken, what is in progress gets "
                "node.drain_grace.\n.TP\n.B SIGHUP\nread the settings again; those that need a restart are "
                "named in the "
                "log.\n.SH FILES\n.TP\n.B node.state_dir/admin.token\nthe first token; delete it when you "
                "have made others.\n"
                ".TP\n.B node.state_dir/secret.key\nseals the secrets in the database: keep it with your "
                "backups, but not in "
                "them.\n.TP\n.B node.state_dir/node.id\nthe name of this node.\n.TP\n.B "
                "node.state_dir/http.port\nthe port that "
                "is listened on.\n.SH EXIT STATUS\n0 after a good end, 1 failure, 2 usage or settings.\n"
                ".SH SEE ALSO\n.BR kelou (1),\n.BR kelou.yaml (5)\n");
}

int man_page(const char *section, const char *version, struct str *out) {
  if (strcmp(section, "5") == 0)
    settings_page(out, version);
  else if (strcmp(section, "8") == 0)
    daemon_page(out, version);
  else
    return -EINVAL;
  return 0;
}
