#pragma once
/* Documents from what other schedulers run by. What could not be translated is said, with the place and the reason, and stands as a
 * comment above the task that it concerns. */
#include "base/json.h"
#include "base/str.h"
#include "base/time.h"
#include "cli/words.h"

struct zone_set;
struct import {
  const char *ns, *group, *handler; /* ns: NULL = default */
  const char *zone;                 /* of the machine where it ran */
  struct zone_set *zones;
  json_t *tasks;   /* array of documents */
  json_t *remarks; /* "namespace/name" → array of texts */
  json_t *lost;    /* array of texts: "place: reason" */
};
void import_init(struct import *im);
void import_done(struct import *im);

/* Say at `place` what is lost; `task` (may be NULL) is the document that it concerns. */
void import_lose(struct import *im, const char *place, const json_t *task, enum message m, const char *one,
                 const char *two);
/* A document with its name (made fit, and unique among the tasks), namespace, group, handler and schedule; `schedule` and `payload`
 * are taken. Not among the tasks yet. */
struct import_source {
  struct slice name, description;
};
json_t *import_task(struct import *im, const struct import_source *source, json_t *schedule, json_t *payload);
/* Take the document in if the centre would; else say what is wrong with it. It is taken. A jitter that does not fit goes alone. */
void import_add(struct import *im, const char *place, json_t *task);

/* A crontab. `user`: a user stands before each command. */
void import_crontab(struct import *im, const char *path, struct slice text, bool user);

/* A unit file as {"Section": {"Key": ["value", …]}}; an empty value empties its list. A new reference. */
json_t *unit_read(struct slice text);
/* A timer and its service (NULL: not found); `name` is that of the timer's file. */
void import_timer(struct import *im, const char *path, const char *name, const json_t *timer,
                  const json_t *service);
/* The unit that a timer starts. Appended. */
void timer_service(const char *name, const json_t *timer, struct str *out);

/* A systemd calendar event ("Mon..Fri 09:00 Europe/Berlin") as a QUARTZ expression, appended to `expression`, and its time zone
 * (n = 0: none). ERR_INVALID: says why not. */
int calendar_translate(struct slice text, struct str *expression, struct slice *ret_zone, struct err *e);
/* "1h 30min", "90" (seconds); infinity: USEC_NEVER. */
int timespan_parse(struct slice text, usec_t *ret, struct err *e);
