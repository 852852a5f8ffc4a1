#include "core/schedule.h"
#include "base/mem.h"
#include "base/rng.h"
#include "core/calendar.h"

struct schedule {
  enum schedule_kind kind;
  struct dst_rule dst;
  struct zone *zone;
  usec_t every, start_at, end_at, jitter;
  struct cron cron;          /* CRON only */
  struct calendar *calendar; /* owned; NULL: none */
};

const char *const calendar_note_names[] = {"none", "excluded", "extra_day", NULL};

static int check_every(const struct schedule_input *in, struct err *e) {
  if (in->kind != SCHEDULE_FIXED_RATE && in->kind != SCHEDULE_FIXED_DELAY)
    return 0;
  if (in->every < SCHEDULE_EVERY_MIN || in->every > SCHEDULE_EVERY_MAX)
    return err_field(e, ERR_INVALID, "/every", "expected a duration from 1ms to 3660d");
  return 0;
}

static int check_jitter(const struct schedule *s, struct err *e) {
  if (s->jitter < 0 || s->jitter > SCHEDULE_JITTER_MAX)
    return err_field(e, ERR_INVALID, "/jitter", "expected a duration from 0s to 7d");
  if (!s->jitter)
    return 0;
  usec_t shortest = USEC_NEVER;
  if (s->kind == SCHEDULE_FIXED_RATE || s->kind == SCHEDULE_FIXED_DELAY)
    shortest = s->every;
  if (s->kind == SCHEDULE_CRON) {
    int64_t seconds = cron_shortest(&s->cron);
    shortest = seconds == CRON_NEVER ? USEC_NEVER : seconds * USEC_PER_SEC;
  }
  if (s->jitter < shortest)
    return 0;
  char text[TIME_TEXT_MAX];
  return err_field(e, ERR_INVALID, "/jitter", "expected less than the shortest interval of the schedule, %s",
                   duration_format(shortest, text));
}

static int check_instants(const struct schedule *s, struct err *e) {
  if (s->end_at < s->start_at)
    return err_field(e, ERR_INVALID, "/end_at", "expected an instant not before start_at");
  if (s->kind == SCHEDULE_CRON && schedule_next(s, 0, s->start_at - 1) == USEC_NEVER)
    return err_field(e, ERR_NEVER_FIRES, "/expression",
                     "this never fires between start_at and end_at in this time zone");
  return 0;
}

int schedule_new(const struct schedule_input *in, struct schedule **ret, struct err *e) {
  struct schedule tmp = {.kind = in->kind,
                         .dst = in->dst,
                         .every = in->every,
                         .start_at = in->start_at,
                         .end_at = in->end_at == USEC_NONE ? USEC_NEVER : in->end_at,
                         .jitter = in->jitter};
  int r = check_every(in, e);
  if (r < 0)
    return r;
  if (in->kind == SCHEDULE_CRON) {
    r = cron_parse(in->expr, in->dialect, &tmp.cron, e);
    if (r < 0) {
      (void)err_at(e, "/expression"); /* its code is r */
      return r;
    }
  }
  if (in->zone)
    tmp.zone = zone_ref(in->zone);
  else
    (void)zone_builtin(SLICE("UTC"), &tmp.zone, NULL); /* always there */
  r = check_jitter(&tmp, e);
  if (r == 0)
    r = check_instants(&tmp, e);
  if (r < 0) {
    zone_unref(&tmp.zone);
    return r;
  }
  struct schedule *s = mem_alloc(sizeof *s);
  *s = tmp;
  *ret = s;
  return 0;
}

void schedule_free(struct schedule **s) {
  if (*s) {
    zone_unref(&(*s)->zone);
    calendar_free(&(*s)->calendar);
  }
  mem_freep(s);
}

enum schedule_kind schedule_kind(const struct schedule *s) { return s->kind; }
const struct zone *schedule_zone(const struct schedule *s) { return s->zone; }
usec_t schedule_jitter_max(const struct schedule *s) { return s->jitter; }

static usec_t next_cron(const struct schedule *s, usec_t after) {
  int64_t from =
      after / USEC_PER_SEC + (after % USEC_PER_SEC >= 0); /* the first whole second later than `after` */
  int64_t t = dst_next(&s->cron, s->zone, s->dst, from);
  return t == CRON_NEVER ? USEC_NEVER : t * USEC_PER_SEC;
}

static usec_t next_rate(const struct schedule *s, usec_t anchor, usec_t after) {
  if (after < anchor)
    return anchor;
  usec_t past, next;
  if (__builtin_sub_overflow(after, anchor, &past) || __builtin_add_overflow(past / s->every, 1, &past) ||
      __builtin_mul_overflow(past, s->every, &past) || __builtin_add_overflow(anchor, past, &next))
    return USEC_NEVER;
  return next;
}

usec_t schedule_next(const struct schedule *s, usec_t anchor, usec_t after) {
  usec_t t = USEC_NEVER;
  if (after < s->start_at - 1)
    after = s->start_at - 1;
  if (after >= s->end_at)
    return USEC_NEVER;
  if (s->kind == SCHEDULE_CRON)
    t = next_cron(s, after);
  else if (s->kind == SCHEDULE_FIXED_RATE)
    t = next_rate(s, anchor, after);
  else if (s->kind == SCHEDULE_ONE_TIME && anchor > after)
    t = anchor;
  return t > s->end_at ? USEC_NEVER : t;
}

bool schedule_has(const struct schedule *s, usec_t anchor, usec_t at) {
  return schedule_next(s, anchor, at - 1) == at;
}

usec_t schedule_previous(const struct schedule *s, usec_t anchor, usec_t before) {
  usec_t t = USEC_NEVER, from = before, hi = before;
  for (usec_t step = USEC_PER_MIN; t >= before; step *= 8) { /* any instant before it */
    if (from <= 0)
      return 0;
    from = from > step ? from - step : 0;
    t = schedule_next(s, anchor, from - 1);
  }
  while (schedule_next(s, anchor, t) < before) { /* the last one lies in (t, hi) */
    usec_t middle = t + (hi - t) / 2, next = schedule_next(s, anchor, middle);
    if (next < before)
      t = next;
    else
      hi = middle + 1;
  }
  return t;
}

unsigned schedule_mismatch(const struct schedule *s, int64_t local_sec) {
  return s->kind == SCHEDULE_CRON ? cron_mismatch(&s->cron, local_sec) : 0;
}

void schedule_mismatch_words(const struct schedule *s, int64_t local_sec, enum cron_lang lang,
                             struct str *out) {
  if (s->kind == SCHEDULE_CRON)
    cron_mismatch_words(&s->cron, local_sec, lang, out);
}

void schedule_set_calendar(struct schedule *s, const struct calendar *c) {
  calendar_free(&s->calendar);
  s->calendar = calendar_copy(c);
  s->cron.extra = calendar_extra_days(s->calendar, &s->cron.extra_count);
}

/* Rounded down, also before 1970. */
static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

static int64_t local_day(const struct schedule *s, usec_t nominal) {
  int64_t sec = floor_div(nominal, USEC_PER_SEC);
  return floor_div(sec + zone_offset_at(s->zone, nominal), USEC_PER_DAY / USEC_PER_SEC);
}

bool schedule_excluded(const struct schedule *s, usec_t nominal) {
  return s->calendar && calendar_excludes(s->calendar, local_day(s, nominal), NULL);
}

usec_t schedule_next_included(const struct schedule *s, usec_t anchor, usec_t after) {
  int64_t last;
  usec_t t = schedule_next(s, anchor, after);
  while (t != USEC_NEVER && s->calendar && calendar_excludes(s->calendar, local_day(s, t), &last)) {
    struct zone_local midnight;
    zone_local(s->zone, (last + 1) * (USEC_PER_DAY / USEC_PER_SEC), &midnight);
    usec_t before = midnight.utc_sec * USEC_PER_SEC - 1;
    t = schedule_next(s, anchor,
                      before > t ? before : t); /* a midnight that comes twice: instant by instant */
  }
  return t;
}

usec_t schedule_jitter(const struct schedule *s, int64_t task_id, usec_t nominal) {
  usec_t room = s->jitter;
  if (!room)
    return 0;
  if (s->kind == SCHEDULE_CRON) { /* at a change of offset two instants can be nearer than anywhere else */
    usec_t next = next_cron(s, nominal);
    room = next - nominal < room ? next - nominal : room;
  }
  uint64_t hash = hash_u64(hash_u64((uint64_t)task_id) ^ (uint64_t)nominal);
  return (usec_t)(((unsigned __int128)hash * (uint64_t)room) >> 64);
}

int schedule_local_instant(const struct zone *z, struct slice text, usec_t *ret, enum dst_note *ret_note,
                           struct err *e) {
  /* a local time is an RFC 3339 instant without its offset: let the one reader check it, as if it were UTC */
  char as_utc[TIME_TEXT_MAX];
  usec_t local;
  if (text.n + 2 > sizeof as_utc || !text.n)
    return err_set(e, ERR_INVALID, "expected a local time such as 2026-03-29T02:30:00");
  memcpy(as_utc, text.p, text.n);
  memcpy(as_utc + text.n, "Z", 2);
  if (time_parse_rfc3339(slice_n(as_utc, text.n + 1), &local, NULL) < 0)
    return err_set(e, ERR_INVALID, "expected a local time such as 2026-03-29T02:30:00");
  struct zone_local l;
  zone_local(z, local / USEC_PER_SEC, &l);
  if (l.utc_sec < 0)
    return err_set(e, ERR_INVALID, "expected an instant in the years 1970 to 9999");
  *ret = l.utc_sec * USEC_PER_SEC + local % USEC_PER_SEC;
  *ret_note = l.kind == ZONE_GAP ? DST_GAP_SHIFTED : l.kind == ZONE_OVERLAP ? DST_FIRST_COPY : DST_NONE;
  return 0;
}

void schedule_explain(const struct schedule *s, usec_t nominal, struct schedule_note *ret) {
  int64_t sec = nominal / USEC_PER_SEC;
  ret->offset = zone_offset_at(s->zone, nominal);
  ret->note = dst_note_at(s->kind == SCHEDULE_CRON ? &s->cron : NULL, s->zone, s->dst, sec);
  ret->calendar = schedule_excluded(s, nominal) ? CALENDAR_EXCLUDED : CALENDAR_NOTHING;
  if (s->kind == SCHEDULE_CRON && s->calendar && calendar_is_extra(s->calendar, local_day(s, nominal)))
    ret->calendar = CALENDAR_EXTRA_DAY;
}

void schedule_describe(const struct schedule *s, enum cron_lang lang, struct str *out) {
  bool zh = lang == CRON_ZH;
  char every[TIME_TEXT_MAX];
  switch (s->kind) {
  case SCHEDULE_CRON:
    cron_explain(&s->cron, lang, out);
    str_addf(out, zh ? "（%s）" : ", %s", zone_name(s->zone));
    break;
  case SCHEDULE_FIXED_RATE:
    str_addf(out, zh ? "每隔 %s" : "every %s", duration_format(s->every, every));
    break;
  case SCHEDULE_FIXED_DELAY:
    str_addf(out, zh ? "上次执行结束后 %s" : "%s after the previous run ended",
             duration_format(s->every, every));
    break;
  case SCHEDULE_ONE_TIME: str_addz(out, zh ? "执行一次" : "once"); break;
  case SCHEDULE_MANUAL: str_addz(out, zh ? "仅手动触发" : "only when triggered by hand"); break;
  case SCHEDULE_KIND_MAX_: break;
  }
}
