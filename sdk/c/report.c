/* The texts of reports (docs/executors.md). */
#include "internal.h"
#include <inttypes.h>

#define CUT_NOTICE " \xe2\x80\xa6[cut]"

char *report_text(const char *z, size_t max) {
  struct slice s = slice_of(z);
  auto_str out;
  str_init(&out, max + 64);
  size_t room = max - sizeof CUT_NOTICE;
  str_add_json(&out, slice_n(s.p, s.n > max ? max : s.n));
  if (s.n <= max && !str_failed(&out) && out.n <= max)
    return str_take(&out);
  /* too long in the end: character by character, as far as there is room */
  str_clear(&out);
  for (size_t i = 0; i < s.n && out.n + 6 <= room;) {
    size_t step = slice_utf8_step(slice_n(s.p + i, s.n - i));
    str_add_json(&out, slice_n(s.p + i, step ? step : 1));
    i += step ? step : 1;
  }
  str_addz(&out, CUT_NOTICE);
  return str_take(&out);
}

static void add_time(struct str *out, const char *name, usec_t t) {
  char text[TIME_TEXT_MAX];
  str_addf(out, ",\"%s\":\"%s\"", name, time_format(t, text));
}

static void add_head(struct str *out, const struct kelou_run *r, const char *state) {
  str_addf(out, "{\"run_id\":\"%s\",\"attempt\":%d,\"fence\":%" PRId64 ",", r->id, r->attempt, r->fence);
  if (state)
    str_addf(out, "\"state\":\"%s\",", state);
  str_addz(out, "\"executor\":\"");
  str_addz(out, r->executor->id_json);
  str_addc(out, '"');
  if (state && r->started_at)
    add_time(out, "started_at", r->started_at);
}

static void add_error(struct str *out, const char *type, const char *message, const char *detail) {
  str_addz(out, ",\"error\":{\"type\":\"");
  str_addz(out, type);
  str_addz(out, "\",\"message\":\"");
  str_addz(out, message);
  str_addc(out, '"');
  if (detail) {
    str_addz(out, ",\"detail\":\"");
    str_addz(out, detail);
    str_addc(out, '"');
  }
  str_addc(out, '}');
}

void report_final(struct str *out, const struct kelou_run *r, const char *state, usec_t finished_at) {
  add_head(out, r, state);
  add_time(out, "finished_at", finished_at);
  if (r->outcome == OUTCOME_SUCCESS && r->result) {
    str_addz(out, ",\"result\":");
    str_addz(out, r->result);
  }
  if (r->outcome == OUTCOME_FAIL)
    add_error(out, r->error_type, r->error_message, r->error_detail);
  str_addc(out, '}');
}

void report_progress(struct str *out, const struct kelou_run *r) {
  int millionths = atomic_load(&r->progress);
  add_head(out, r, "RUNNING");
  if (millionths >= 0)
    str_addf(out, ",\"progress\":%d.%06d", millionths / 1000000, millionths % 1000000);
  str_addc(out, '}');
}

void report_lines(struct str *out, const struct kelou_run *r) {
  add_head(out, r, NULL);
  str_addc(out, '}');
}

void report_refused(struct str *out, const struct kelou_run *r, int status) {
  char message[96];
  (void)snprintf(message, sizeof message,
                 "the centre refused what the executor had to report, with status %d", status); /* fits */
  add_head(out, r, "FAIL");
  add_error(out, "REPORT_REFUSED", message, NULL);
  str_addc(out, '}');
}
