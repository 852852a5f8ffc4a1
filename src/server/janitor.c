#include "server/parts.h"
#include "base/log.h"
#include "task/dead_letters.h"

/* Regular upkeep on a thread of its own, so that nothing else waits for it: vacuum and partitions, old idempotency answers. */

static const usec_t PERIOD = 5 * USEC_PER_SEC;

static void maintain(struct server *s, struct store *store) {
  auto_arena mem = {0};
  struct err e = {0};
  struct st_maintain_ret none;
  if (store_maintain(store, &(struct st_maintain){0}, &none, &mem, &e) < 0)
    log_warn("upkeep of the database failed, trying again", LF_E(&e));
  if (task_calendar_follow(s->tasks, CALENDAR_FOLLOW_MAX, &e) < 0)
    log_warn("tasks behind their calendars not found, trying again", LF_E(&e));
  if (access_bounds_read(s->access, &e) < 0)
    log_warn("bounds of namespaces not read, trying again", LF_E(&e));
  if (task_dead_letters_count(s->tasks, &e) < 0)
    log_warn("open dead letters not counted, trying again", LF_E(&e));
  if (cluster_forget(s->cluster, conf_usec(s->conf, "node.forget_after"), &e) < 0)
    log_warn("dead nodes not forgotten, trying again", LF_E(&e));
  int64_t removed = 0;
  if (access_idem_expire(s->access, &removed, &e) < 0)
    log_warn("old idempotency answers not removed, trying again", LF_E(&e));
}

static void measure_inbox(struct store *store, struct metric *oldest) {
  auto_arena mem = {0};
  struct err e = {0};
  struct st_inbox_oldest_ret ret;
  if (store_inbox_oldest(store, &(struct st_inbox_oldest){0}, &ret, &mem, &e) < 0)
    log_warn("the inbox not measured, trying again", LF_E(&e));
  else
    metric_set(oldest, ret.at && ret.now > ret.at ? (double)(ret.now - ret.at) / (double)USEC_PER_SEC : 0);
}

static void janitor_main(void *arg) {
  struct server *s = arg;
  struct store *store = NULL;
  struct err e = {0};
  if (server_session(s, STORE_API, &store, &e) < 0) {
    log_error("no session for the upkeep of the database", LF_E(&e));
    return;
  }
  usec_t maintain_at = 0, zones_at = 0, zone_poll = conf_usec(s->conf, "trigger.zone_poll");
  mutex_lock(&s->janitor_lock);
  while (!s->janitor_stop) {
    mutex_unlock(&s->janitor_lock);
    usec_t mono = clock_system.mono(&clock_system);
    if (mono >= maintain_at) {
      maintain(s, store);
      measure_inbox(store, s->inbox_oldest);
      maintain_at = mono + PERIOD;
    }
    if (mono >= zones_at) {
      task_service_refresh_zones(s->tasks); /* what follows for the instants is the trigger's affair */
      zones_at = mono + zone_poll;
    }
    mutex_lock(&s->janitor_lock);
    usec_t until = maintain_at < zones_at ? maintain_at : zones_at;
    mono = clock_system.mono(&clock_system);
    if (!s->janitor_stop && until > mono)
      (void)cond_wait(&s->janitor_wake, &s->janitor_lock, until - mono);
  }
  mutex_unlock(&s->janitor_lock);
  store_close(&store);
}

/* On a thread and a session of its own: it may be at work for minutes. */
static int start_retention(struct server *s, struct err *e) {
  struct retention_options o = {.age = conf_usec(s->conf, "retention.age"),
                                .runs = conf_int(s->conf, "retention.runs"),
                                .log_age = conf_usec(s->conf, "retention.log_age"),
                                .every = conf_usec(s->conf, "retention.every"),
                                .archive_dir = conf_str(s->conf, "archive.dir"),
                                .archive_level = (int)conf_int(s->conf, "archive.level")};
  int rc = server_session(s, STORE_API, &o.store, e);
  if (rc < 0)
    return rc;
  s->retention = retention_new(&o);
  return retention_start(s->retention, e);
}

int server_janitor_start(struct server *s, struct err *e) {
  int rc = start_retention(s, e);
  if (rc < 0)
    return rc;
  s->inbox_oldest = metric_series(
      metric_family(
          "kelou_inbox_oldest_seconds",
          "How long the oldest request, report or cancel has waited in the inbox for its shard's owner",
          METRIC_GAUGE, "", NULL),
      NULL);
  mutex_init(&s->janitor_lock);
  cond_init(&s->janitor_wake);
  s->janitor_made = true;
  return thread_start(&s->janitor, "janitor", janitor_main, s, e);
}

void server_janitor_stop(struct server *s) {
  retention_free(&s->retention);
  if (!s->janitor_made)
    return;
  mutex_lock(&s->janitor_lock);
  s->janitor_stop = true;
  cond_broadcast(&s->janitor_wake);
  mutex_unlock(&s->janitor_lock);
  if (s->janitor.running)
    thread_join(&s->janitor);
}
