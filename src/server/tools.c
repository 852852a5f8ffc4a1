#include "server/tools.h"
#include "server/doctor.h"
#include "server/man.h"
#include <stdio.h>
#include <stdlib.h>

#define TEXT_MAX ((size_t)1 << 20)

static int print(const struct str *out) {
  return str_failed(out) || fputs(out->p ? out->p : "", stdout) < 0 || fflush(stdout) != 0;
}

int tool_man(const char *section, const char *version) {
  auto_str out;
  str_init(&out, TEXT_MAX);
  if (man_page(section, version, &out) >= 0)
    return print(&out);
  fprintf(stderr, "keloud: there is no page of section %s; expected 5 or 8\n", section);
  return 2;
}

static bool wants_chinese(const char *lang) {
  const char *const places[] = {lang, getenv("KELOU_LANG"), getenv("LC_ALL"), getenv("LC_MESSAGES"),
                                getenv("LANG")};
  for (size_t i = 0; i < sizeof places / sizeof *places; i++)
    if (places[i] && *places[i])
      return strncmp(places[i], "zh", 2) == 0;
  return false;
}

int tool_doctor(const struct conf *conf, const struct conf_errors *errors, const char *lang) {
  struct doctor d = {.zh = wants_chinese(lang)};
  auto_str out;
  str_init(&out, TEXT_MAX);
  doctor_look(&d, conf, errors);
  doctor_text(&d, &out);
  bool good = d.worst < DOCTOR_FAIL;
  doctor_done(&d);
  int rc = print(&out);
  return rc || !good;
}
