#pragma once
/* What is wrong with this installation, and what to do: `keloud --doctor` without a server, GET /api/v1/doctor with one. */
#include "base/conf.h"
#include "base/json.h"

struct server;
enum doctor_level { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL, DOCTOR_LEVEL_MAX_ };
extern const char *const doctor_level_names[]; /* "OK", "WARN", "FAIL", NULL */
struct doctor {
  bool zh;
  json_t *items; /* owned: {"check", "level", "code", "message", "advice"} */
  enum doctor_level worst;
};
void doctor_done(struct doctor *d);
/* Without a server. `conf` NULL: it could not be read, `errors` says why. */
void doctor_look(struct doctor *d, const struct conf *conf, const struct conf_errors *errors);
/* From inside: blocks for some seconds at most. */
void doctor_ask(struct doctor *d, struct server *s);
/* As lines of text. */
void doctor_text(const struct doctor *d, struct str *out);
