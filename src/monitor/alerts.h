#pragma once
/* Alerts: who wants to know of failed runs (rules), how they are told (channels, so far signed webhooks), and the notifier that
 * turns the events which FINISH has left into alerts and sends them until they are delivered or given up. At least once, with a
 * stable id. Owns alert_def, alert_event (but for their making), alert and alert_attempt. Thread-safe; calls block on the database. */
#include "base/json.h"
#include "base/mem.h"
#include "store/store.h"

struct alerts;
struct loop;
struct network_list;

#define ALERT_SECRET_MAX      64
#define ALERT_URL_MAX         1024
#define ALERT_DESCRIPTION_MAX 1024
#define ALERT_CHANNELS_MAX    8   /* of a rule */
#define ALERT_NAMES_MAX       100 /* tasks or groups of a rule */
#define ALERT_RULES_MAX       100 /* of a namespace */
#define ALERT_WINDOW_MAX      (7 * USEC_PER_DAY)
#define ALERT_WINDOW_DEFAULT  "5m"

extern const char *const alert_channel_kinds[]; /* "WEBHOOK", NULL */
extern const char *const alert_event_names[];   /* "RUN_FAILED", NULL */

struct alerts_options {
  struct store *store; /* pooled; borrowed, as is all but the numbers */
  struct loop *loop;
  const struct network_list *allowed; /* where webhooks may be */
  const struct clock *clock;
  usec_t (*now)(void *arg); /* estimate of database time; thread-safe */
  void *now_arg;
  uint8_t key[32];                /* seals URLs and secrets */
  const char *ca_file;            /* NULL = the system's */
  usec_t poll;                    /* 1 s: look for events and for what is due */
  usec_t timeout;                 /* 10 s: one webhook */
  usec_t retry_first, retry_most; /* 5 s, 10 min: pauses between tries, doubling */
  usec_t retry_for;               /* 24 h after which an alert is given up */
  usec_t keep;                    /* 30 days: ended alerts and their log */
  int in_flight;                  /* 16 webhooks at a time */
};
void alerts_options_default(struct alerts_options *o); /* the numbers and the clock */
int alerts_new(const struct alerts_options *o, struct alerts **ret, struct err *e);
int alerts_start(struct alerts *a, struct err *e);
/* What is being sent ends; what came of it is written. */
void alerts_stop(struct alerts *a);
void alerts_free(struct alerts **a);

/* ---- channels. Rows come without sealed texts; texts in `mem`. */
struct alert_channel {
  struct alert_def_row def; /* definition: {"kind", "enabled", "description"} */
  struct slice url;
  struct slice origin; /* scheme, host and port: what those may see who must not use it */
};
struct alert_channel_new {
  struct slice ns, name;
  const json_t *definition;
  struct slice url; /* p == NULL: as it is (change only) */
};
/* Create (if_version 0; the secret is given here once and never again) or change that version. ERR_ADDRESS "/url": its address
 * is not allowed. */
int alerts_channel_put(struct alerts *a, const struct alert_channel_new *c, int32_t if_version,
                       char ret_secret[ALERT_SECRET_MAX], struct alert_channel *ret, struct arena *mem,
                       struct err *e);
/* A new secret; the one before is signed with as well until the next rotation or retirement. */
int alerts_channel_rotate(struct alerts *a, struct slice ns, struct slice name,
                          char ret_secret[ALERT_SECRET_MAX], struct alert_channel *ret, struct arena *mem,
                          struct err *e);
int alerts_channel_retire(struct alerts *a, struct slice ns, struct slice name, struct alert_channel *ret,
                          struct arena *mem, struct err *e);
int alerts_channel_get(struct alerts *a, struct slice ns, struct slice name, struct alert_channel *ret,
                       struct arena *mem, struct err *e);
int alerts_channel_list(struct alerts *a, struct slice ns, struct alert_channel **ret, size_t *ret_count,
                        struct arena *mem, struct err *e);
/* ERR_CONFLICT while a rule names it. */
int alerts_channel_delete(struct alerts *a, struct slice ns, struct slice name, struct err *e);
/* Send a test alert now and wait for the answer; it is in no log. */
struct alert_test {
  bool delivered;
  int status; /* of the answer; 0 = none */
  usec_t took;
  struct slice error; /* in `mem`; n == 0: none */
};
int alerts_channel_test(struct alerts *a, struct slice ns, struct slice name, struct alert_test *ret,
                        struct arena *mem, struct err *e);

/* ---- rules: {"enabled", "description", "event", "tasks", "groups", "reasons", "channels", "window"}; what is left out is any, or
 * its default. Errors name the field. */
int alerts_rule_put(struct alerts *a, struct slice ns, struct slice name, const json_t *definition,
                    int32_t if_version, struct alert_def_row *ret, struct arena *mem, struct err *e);
int alerts_rule_get(struct alerts *a, struct slice ns, struct slice name, struct alert_def_row *ret,
                    struct arena *mem, struct err *e);
int alerts_rule_list(struct alerts *a, struct slice ns, struct st_alert_def_list_ret *ret, struct arena *mem,
                     struct err *e);
int alerts_rule_delete(struct alerts *a, struct slice ns, struct slice name, struct err *e);

/* ---- the log */
int alerts_list(struct alerts *a, const struct st_alert_list *in, struct st_alert_list_ret *ret,
                struct arena *mem, struct err *e);
int alerts_get(struct alerts *a, int64_t id, struct st_alert_get_ret *ret, struct arena *mem, struct err *e);
/* Send it again, whatever became of it. */
int alerts_redeliver(struct alerts *a, int64_t id, struct alert_row *ret, struct arena *mem, struct err *e);
