#pragma once
/* What people and services ask a shard's owner to do, as rows of the inbox table (storage.md "Between nodes"): the kinds and
 * their JSON bodies, printed and parsed. Pure. Written by src/task and src/report, read in order by src/trigger (by the shard's owner
 * only), deleted by the FIRE that obeyed them (st_fire.inbox_done), or, an EVENT, by the change of the run (st_run_apply.inbox_done). */
#include "base/json.h"
#include "base/mem.h"
#include "core/model.h"
#include "core/event_doc.h"
#include "core/shard.h"

enum inbox_kind { /* numbers are stored: append only */
                  INBOX_TRIGGER =
                      1, /* make one run now: {task_id, scheduled_at, part, origin, payload?, pin?, retry_of?, ignore_overlap?, not_before?, by?} */
                  INBOX_CATCHUP =
                      2, /* give the instants of (from, to] to the misfire policy: {task_id, from, to, by?} */
                  INBOX_BACKFILL =
                      4, /* runs of the instants in [from, to]: {task_id, from, to, part, limit, interval, payload?, by?} */
                  INBOX_CANCEL = 3, /* cancel all open runs of a task that was deleted: {task_id, by?} */
                  INBOX_EVENT =
                      5, /* a report, or the cancel of one run, that did not reach the owner otherwise (core/event_doc.h) */
};

#define INBOX_BODY_MAX ((size_t)2 * 1024 * 1024) /* a payload of 1 MiB, escaped, and the rest */
#define INBOX_TEXT_MAX 1024

struct inbox_item {
  enum inbox_kind kind;
  struct fire_request request; /* TRIGGER, CATCHUP and BACKFILL; CANCEL: only key.task_id and key.shard */
  struct slice by;             /* who asked; empty = unknown */
  struct live_event event;     /* EVENT alone */
};

/* The body as compact JSON text (free with mem_free). `item->request.payload` must be valid JSON text or have p == NULL.
 * Instants are µs numbers. */
char *inbox_body(const struct inbox_item *item);
struct inbox_text { /* the columns of a row (core does not know the store) */
  int32_t shard, kind;
  int64_t no;
  struct slice body;
};
/* Read a row: texts live in `mem`. ERR_MALFORMED, ERR_INVALID: the row can never be obeyed (log it and delete it). */
int inbox_parse(const struct inbox_text *row, struct arena *mem, struct inbox_item *ret, struct err *e);
