#include "core/calendar.h"
#include "base/mem.h"
#include "core/cron.h"
#include <stdlib.h>

#define ENTRY_TEXT_MAX 21 /* "2026-10-01/2026-10-07" */

struct range {
  int32_t first, last;
};
struct calendar {
  struct range *excluded; /* ascending, apart from each other by a day at least */
  size_t excluded_count;
  int32_t *extra; /* ascending */
  size_t extra_count;
};

/* ------------------------------------------------------------------ days */

static bool number(struct slice text, size_t at, size_t n, int *ret) {
  int v = 0;
  for (size_t i = at; i < at + n; i++) {
    if (text.p[i] < '0' || text.p[i] > '9')
      return false;
    v = v * 10 + (text.p[i] - '0');
  }
  *ret = v;
  return true;
}

int calendar_day_parse(struct slice text, int32_t *ret, struct err *e) {
  int year, month, day;
  if (text.n != 10 || text.p[4] != '-' || text.p[7] != '-' || !number(text, 0, 4, &year) ||
      !number(text, 5, 2, &month) || !number(text, 8, 2, &day))
    return err_set(e, ERR_INVALID, "expected a date such as 2026-10-01");
  if (month < 1 || month > 12 || day < 1 || day > month_length(year, month))
    return err_set(e, ERR_INVALID, "there is no such date");
  if (year < CRON_FIRST_YEAR || year > CRON_LAST_YEAR)
    return err_set(e, ERR_INVALID, "expected a year from %d to %d", CRON_FIRST_YEAR, CRON_LAST_YEAR);
  *ret = (int32_t)days_from_civil(year, month, day);
  return 0;
}

char *calendar_day_format(int64_t day, char ret_text[CALENDAR_DAY_TEXT]) {
  int64_t year;
  int month, in_month;
  civil_from_days(day, &year, &month, &in_month);
  auto_str text;
  str_init(&text, CALENDAR_DAY_TEXT);
  str_addf(&text, "%04d-%02d-%02d", (int)(year % 10000), month, in_month);
  (void)text_copy(ret_text, CALENDAR_DAY_TEXT, str_slice(&text)); /* it fits */
  return ret_text;
}

/* ------------------------------------------------------------------ reading */

static int entry_parse(const json_t *j, struct range *ret, struct err *e) {
  struct slice text = slice_n(json_string_value(j), json_string_length(j)), rest;
  if (!json_is_string(j) || text.n > ENTRY_TEXT_MAX)
    return err_set(e, ERR_INVALID, "expected a date such as 2026-10-01, or a range 2026-10-01/2026-10-07");
  struct range out;
  int r = calendar_day_parse(slice_cut(text, '/', &rest), &out.first, e);
  out.last = out.first;
  if (r == 0 && rest.p)
    r = calendar_day_parse(rest, &out.last, e);
  if (r < 0)
    return r;
  if (out.last < out.first)
    return err_set(e, ERR_INVALID, "the range ends before it begins");
  *ret = out;
  return 0;
}

static int at_entry(struct err *e, const char *list, size_t i, int code) {
  auto_str field;
  str_init(&field, ERR_FIELD_MAX);
  str_addf(&field, "/%s/%zu", list, i);
  if (e)
    (void)err_at(e, field.p);
  return code;
}

/* The entries of a list as they stand there; *ret is the caller's also on failure. */
static int list_read(const json_t *doc, const char *key, struct range **ret, size_t *ret_count,
                     struct err *e) {
  const json_t *list = json_object_get(doc, key);
  auto_str field;
  str_init(&field, ERR_FIELD_MAX);
  str_addf(&field, "/%s", key);
  if (!list || json_is_null(list))
    return 0;
  size_t n = json_array_size(list);
  if (!json_is_array(list) || n > CALENDAR_ENTRIES_MAX)
    return err_field(e, ERR_INVALID, field.p, "expected a list of at most %d dates or ranges",
                     CALENDAR_ENTRIES_MAX);
  *ret = mem_zalloc((n + 1) * sizeof **ret);
  for (size_t i = 0; i < n; i++) {
    int r = entry_parse(json_array_get(list, i), &(*ret)[i], e);
    if (r < 0)
      return at_entry(e, key, i, r);
  }
  *ret_count = n;
  return 0;
}

static int range_cmp(const void *a, const void *b) {
  const struct range *x = a, *y = b;
  return x->first != y->first ? (x->first > y->first) - (x->first < y->first)
                              : (x->last > y->last) - (x->last < y->last);
}

/* Sorted, and those that overlap or touch as one. */
static size_t merge(struct range *r, size_t n) {
  size_t kept = 0;
  if (n) /* NULL is not sorted */
    qsort(r, n, sizeof *r, range_cmp);
  for (size_t i = 0; i < n; i++) {
    if (kept && r[i].first <= r[kept - 1].last + 1)
      r[kept - 1].last = r[i].last > r[kept - 1].last ? r[i].last : r[kept - 1].last;
    else
      r[kept++] = r[i];
  }
  return kept;
}

/* Each extra day on its own; refused are those that are excluded, and too many. */
static int expand(struct calendar *c, const struct range *extra, size_t n, struct err *e) {
  size_t cap = 0;
  char text[CALENDAR_DAY_TEXT];
  for (size_t i = 0; i < n; i++)
    for (int32_t day = extra[i].first; day <= extra[i].last; day++) {
      if (c->extra_count == CALENDAR_ENTRIES_MAX)
        return err_field(e, ERR_INVALID, "/extra_days", "expected at most %d days", CALENDAR_ENTRIES_MAX);
      if (calendar_excludes(c, day, NULL))
        return err_field(e, ERR_INVALID, "/extra_days",
                         "%s is excluded as well: a day can be one of the two only",
                         calendar_day_format(day, text));
      mem_reserve(c->extra, c->extra_count, cap);
      c->extra[c->extra_count++] = day;
    }
  return 0;
}

int calendar_read(const json_t *doc, struct calendar **ret, struct err *e) {
  auto_calendar *c = mem_zalloc(sizeof *c);
  struct range *extra = NULL;
  size_t n = 0;
  int r = json_want_object(doc, "", e);
  if (r == 0 && (r = list_read(doc, "excluded", &c->excluded, &c->excluded_count, e)) == 0 &&
      (r = list_read(doc, "extra_days", &extra, &n, e)) == 0) {
    c->excluded_count = merge(c->excluded, c->excluded_count);
    r = expand(c, extra, merge(extra, n), e);
  }
  mem_free(extra);
  if (r < 0)
    return r;
  *ret = c;
  c = NULL;
  return 0;
}

struct calendar *calendar_copy(const struct calendar *c) {
  struct calendar *out = mem_zalloc(sizeof *out);
  *out = *c;
  out->excluded = mem_zalloc((c->excluded_count + 1) * sizeof *out->excluded);
  out->extra = mem_zalloc((c->extra_count + 1) * sizeof *out->extra);
  if (c->excluded_count)
    memcpy(out->excluded, c->excluded, c->excluded_count * sizeof *out->excluded);
  if (c->extra_count)
    memcpy(out->extra, c->extra, c->extra_count * sizeof *out->extra);
  return out;
}

void calendar_free(struct calendar **c) {
  if (!*c)
    return;
  mem_free((*c)->excluded);
  mem_free((*c)->extra);
  mem_freep(c);
}

/* ------------------------------------------------------------------ asking */

static void add_entry(json_t *list, int32_t first, int32_t last) {
  char day[CALENDAR_DAY_TEXT];
  auto_str text;
  str_init(&text, 2 * CALENDAR_DAY_TEXT);
  str_addz(&text, calendar_day_format(first, day));
  if (last > first)
    str_addf(&text, "/%s", calendar_day_format(last, day));
  (void)json_array_append_new(list, json_string(text.p)); /* fails only without memory */
}

json_t *calendar_json(const struct calendar *c) {
  json_t *doc = json_object(), *excluded = json_array(), *extra = json_array();
  for (size_t i = 0; i < c->excluded_count; i++)
    add_entry(excluded, c->excluded[i].first, c->excluded[i].last);
  for (size_t i = 0, n; i < c->extra_count; i = n) {
    for (n = i + 1; n < c->extra_count && c->extra[n] == c->extra[n - 1] + 1; n++)
      continue;
    add_entry(extra, c->extra[i], c->extra[n - 1]);
  }
  (void)json_object_set_new(doc, "excluded", excluded); /* fail only without memory */
  (void)json_object_set_new(doc, "extra_days", extra);
  return doc;
}

bool calendar_excludes(const struct calendar *c, int64_t day, int64_t *ret_last) {
  size_t lo = 0, hi = c->excluded_count; /* the first range that does not end before the day */
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (c->excluded[mid].last < day)
      lo = mid + 1;
    else
      hi = mid;
  }
  if (lo == c->excluded_count || c->excluded[lo].first > day)
    return false;
  if (ret_last)
    *ret_last = c->excluded[lo].last;
  return true;
}

static int day_cmp(const void *a, const void *b) {
  const int32_t *x = a, *y = b;
  return (*x > *y) - (*x < *y);
}

bool calendar_is_extra(const struct calendar *c, int64_t day) {
  int32_t key = (int32_t)day;
  return day == key && c->extra_count && bsearch(&key, c->extra, c->extra_count, sizeof key, day_cmp);
}

const int32_t *calendar_extra_days(const struct calendar *c, size_t *ret_count) {
  *ret_count = c->extra_count;
  return c->extra;
}
