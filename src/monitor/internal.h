#pragma once
/* Private to src/monitor. */
#include "base/metric.h"
#include "base/thread.h"
#include "monitor/alerts.h"
#include "net/http_client.h"

struct sending;
struct alerts {
  struct alerts_options o;
  struct http_client *client;
  struct thread thread;
  struct mutex lock; /* guards stop, done */
  struct cond wake;
  bool stop;
  struct sending *done; /* answers that are not written yet */
  /* the notifier's own */
  int flying;
  bool store_down; /* said once */
  usec_t expire_at;
  struct metric_family *sent;
  struct metric *pending, *oldest;
};

/* ---- match.c: pure */
struct rule_filter {
  bool enabled;
  struct slice ns, name;
  int64_t id;
  json_t *doc; /* owned */
  const json_t *tasks, *groups, *channels;
  uint32_t reasons; /* bits of run_reason; 0 = any */
  usec_t window;
};
/* ERR_… and the field when the definition is not good. */
int rule_read(const struct alert_def_row *def, struct rule_filter *ret, struct err *e);
void rule_done(struct rule_filter *r);
bool rule_wants(const struct rule_filter *r, const struct alert_event *v);

enum alert_step { ALERT_ALONE, ALERT_ADD, ALERT_SUMMARY };
/* What one more failure of a key means, whose latest alert is `latest` (id 0: none): an alert at once, one more in the summary that
 * is being gathered, or a summary that is due when the window of the latest one ends. */
enum alert_step alert_step(const struct alert_row *latest, usec_t now);
/* The details of an event, and the message that goes out for an alert. Free with mem_free. */
char *alert_details(const struct alert_event *v);
char *alert_message(const struct alert_row *row);

/* ---- absorb.c: up to a batch of events become alerts. 0: there were none; 1: done, look again. */
int alerts_absorb(struct alerts *a, struct err *e);

/* ---- send.c */
struct sending {
  struct alerts *alerts;
  struct sending *next;
  void (*finish)(struct sending *s); /* on the loop thread, once */
  int64_t id;
  int32_t attempt, tries;
  usec_t at, give_up_at; /* at: database time */
  usec_t took, retry_after;
  int status;
  bool delivered;
  char channel[260]; /* namespace/name */
  char error[256];
};
/* Send a body to a channel; s->finish is called, perhaps at once on this thread when there is nothing to be sent to. */
void alert_send(struct sending *s, const struct alert_def_row *channel, struct slice body);

/* ---- notifier.c: the series of a channel, so that increase() sees its first attempt. */
void alerts_count_from_zero(struct alerts *a, struct slice ns, struct slice name);

/* ---- defs.c */
int channel_url(struct alerts *a, const struct alert_def_row *def, struct arena *mem, struct slice *ret,
                struct err *e);
/* Split an URL into the origin that target_parse checks and the path with its query. */
int url_split(struct slice url, struct slice *ret_origin, struct slice *ret_path, struct err *e);
