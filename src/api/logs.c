/* /api/v1/runs/{run}/logs */
#include "api/internal.h"

struct place { /* what a cursor holds */
  int32_t attempt, seq;
};

static void put_range(json_t *o, const char *key, const struct log_row *row) {
  json_t *range = json_object();
  put(range, "from", json_integer(row->from));
  put(range, "to", json_integer(row->to));
  put(o, key, range);
}

static json_t *row_json(const struct log_row *row) {
  json_t *o = json_object();
  put(o, "attempt", json_integer(row->attempt));
  if (row->kind != LOG_ROW_LINE) {
    put_range(o, row->kind == LOG_ROW_GAP ? "gap" : "cut", row);
    return o;
  }
  const struct log_line *l = row->line;
  put(o, "seq", json_integer(l->seq));
  put_time(o, "at", l->at ? l->at : l->taken_at);
  put(o, "level", json_string(run_log_level_names[l->level]));
  put(o, "text", json_stringn(l->text.p ? l->text.p : "", l->text.n));
  if (l->cut)
    put(o, "cut_bytes", json_integer(l->cut));
  return o;
}

static int read_place(struct call *c, struct logs_ask *ask) {
  struct place at;
  ask->attempt = (int32_t)c->query[Q_attempt].i;
  int r = cursor_read(c, &at, sizeof at);
  if (r == 0 && c->query[Q_after].there)
    at = (struct place){ask->attempt ? ask->attempt : 1, (int32_t)c->query[Q_after].i};
  else if (r == 0)
    at = (struct place){0, 0};
  if (r >= 0) {
    ask->after_attempt = at.attempt;
    ask->after_seq = at.seq;
  }
  return r;
}

int on_runs_logs(struct call *c) {
  struct logs_ask ask = {.limit = (int32_t)c->query[Q_limit].i};
  struct st_run_get_ret run;
  struct logs_page page;
  int r = call_run(c, &ask.key, &run);
  if (r < 0 || (r = read_place(c, &ask)) < 0)
    return r;
  ask.ended = run_state_ended(run.run.state); /* read before the lines are */
  if ((r = logs_read(c->api->o.logs, &ask, &page, &c->mem, &c->e)) < 0)
    return r;
  json_t *doc = json_object(), *items = json_array();
  for (size_t i = 0; i < page.count; i++)
    (void)json_array_append_new(items, row_json(&page.rows[i])); /* fails only without memory */
  struct place at = {page.attempt, page.seq};
  put(doc, "items", items);
  put(doc, "next_cursor", json_string(cursor_make(c, &at, sizeof at)));
  put(doc, "more", json_boolean(page.more));
  put(doc, "ended", json_boolean(ask.ended));
  put(doc, "state", json_string(run_state_names[run.run.state]));
  return call_json(c, 200, doc);
}
