/* From the stored lines to what readers see: holes in the numbers are rows of their own. */
#include "report/logs_internal.h"

struct page {
  const struct logs_ask *ask;
  const struct st_run_log_list_ret *got;
  struct logs_page *out;
  size_t at;            /* in got->lines */
  int32_t attempt, seq; /* the place that has been reached */
};

/* False: no room. */
static bool add(struct page *p, enum log_row_kind kind, int32_t from, int32_t to,
                const struct log_line *line) {
  struct logs_page *out = p->out;
  if (out->count >= (size_t)p->ask->limit) {
    out->more = true;
    return false;
  }
  out->rows[out->count++] =
      (struct log_row){.kind = kind, .attempt = p->attempt, .from = from, .to = to, .line = line};
  out->attempt = p->attempt;
  out->seq = p->seq = to;
  return true;
}

/* May this line be shown although the one before it is missing? */
static bool settled(const struct page *p, const struct log_line *l) {
  return p->ask->ended || p->got->now - l->taken_at >= LOGS_PATIENCE;
}

/* The lines of one attempt that were read. False: the page ends here. */
static bool add_lines(struct page *p) {
  const struct st_run_log_list_ret *got = p->got;
  for (; p->at < got->count && got->lines[p->at].attempt == p->attempt; p->at++) {
    const struct log_line *l = &got->lines[p->at];
    if (l->seq > p->seq + 1 && (!settled(p, l) || !add(p, LOG_ROW_GAP, p->seq + 1, l->seq - 1, NULL)))
      return false;
    if (!add(p, LOG_ROW_LINE, l->seq, l->seq, l))
      return false;
  }
  return true;
}

void logs_arrange(const struct logs_ask *ask, const struct st_run_log_list_ret *got, struct logs_page *ret,
                  struct arena *mem) {
  struct page p = {.ask = ask, .got = got, .out = ret, .attempt = ask->after_attempt, .seq = ask->after_seq};
  bool all = got->count < (size_t)ask->limit; /* the lines behind these were read, too */
  *ret = (struct logs_page){.rows = arena_array(mem, (size_t)ask->limit, sizeof *ret->rows),
                            .attempt = ask->after_attempt,
                            .seq = ask->after_seq};
  for (size_t i = 0; i < got->head_count; i++) {
    const struct log_head *h = &got->heads[i];
    if (h->attempt < ask->after_attempt || (ask->attempt && h->attempt != ask->attempt))
      continue;
    if (h->attempt != p.attempt) {
      p.attempt = h->attempt;
      p.seq = 0;
    }
    if (!add_lines(&p))
      return;
    if (p.at == got->count && !all) {
      ret->more = true;
      return;
    }
    if (h->full && h->last_seq > p.seq && !add(&p, LOG_ROW_CUT, p.seq + 1, h->last_seq, NULL))
      return;
  }
}

int logs_list(struct store *store, const struct logs_ask *ask, struct logs_page *ret, struct arena *mem,
              struct err *e) {
  struct st_run_log_list_ret got;
  struct st_run_log_list in = {.key = ask->key,
                               .attempt = ask->attempt,
                               .after_attempt = ask->after_attempt,
                               .after_seq = ask->after_seq,
                               .limit = ask->limit};
  int rc = store_run_log_list(store, &in, &got, mem, e);
  if (rc >= 0)
    logs_arrange(ask, &got, ret, mem);
  return rc;
}
