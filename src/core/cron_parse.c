#include "core/cron.h"

enum field { F_SECOND, F_MINUTE, F_HOUR, F_DAY, F_MONTH, F_WEEKDAY, F_YEAR, F_MAX_ };

static const char *const month_names[] = {"JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL",
                                          "AUG", "SEP", "OCT", "NOV", "DEC", NULL};
static const char *const weekday_names[] = {"SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", NULL};

struct field_def {
  const char *name;
  const char *expected;
  int min, max;
  int max_step;
  const char *const *names;
  int first_name; /* the number of names[0] */
};
static const struct field_def quartz_fields[] = {
    {"second", "expected 0 to 59", 0, 59, 59, NULL, 0},
    {"minute", "expected 0 to 59", 0, 59, 59, NULL, 0},
    {"hour", "expected 0 to 23", 0, 23, 23, NULL, 0},
    {"day-of-month", "expected 1 to 31", 1, 31, 31, NULL, 0},
    {"month", "expected 1 to 12 or JAN to DEC", 1, 12, 12, month_names, 1},
    {"day-of-week", "expected 1 to 7 (Sunday = 1) or SUN to SAT", 1, 7, 7, weekday_names, 1},
    {"year", "expected 1970 to 2199", CRON_FIRST_YEAR, CRON_LAST_YEAR, CRON_LAST_YEAR - CRON_FIRST_YEAR, NULL,
     0},
};
static const struct field_def unix_weekday = {
    "day-of-week", "expected 0 to 7 (Sunday = 0 or 7) or SUN to SAT", 0, 7, 7, weekday_names, 0};

static const struct macro {
  const char *name, *text; /* in UNIX */
} macros[] = {
    {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"}, {"@monthly", "0 0 1 * *"}, {"@weekly", "0 0 * * 0"},
    {"@daily", "0 0 * * *"},  {"@midnight", "0 0 * * *"}, {"@hourly", "0 * * * *"},
};

/* The numbers of one field: bit = number, in the year field number - 1970. */
struct set {
  uint64_t w[4];
};

struct parser {
  const char *text;    /* the whole expression: columns count from here */
  const char *p, *end; /* what is left of the field */
  const struct field_def *def;
  enum cron_dialect dialect;
  enum field field;
  struct cron *c;
  struct err *e;
};

#define QUOTED_MAX 24

static int fail(const struct parser *q, const char *at, const char *what) {
  size_t left = (size_t)(q->end - at);
  struct slice got = slice_n(at, left > QUOTED_MAX ? QUOTED_MAX : left);
  int r = got.n ? err_set(q->e, ERR_INVALID, "%s: %s, not \"%.*s\"", q->def->name, what, SLICE_FMT(got))
                : err_set(q->e, ERR_INVALID, "%s: %s, but nothing follows", q->def->name, what);
  if (q->e)
    q->e->column = (int)(at - q->text) + 1;
  return r;
}

static char upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 32) : c; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_letter(char c) { return upper(c) >= 'A' && upper(c) <= 'Z'; }
static bool at_item_end(const struct parser *q) { return q->p >= q->end || *q->p == ','; }

static bool next_is(struct parser *q, char c) {
  if (q->p >= q->end || upper(*q->p) != c)
    return false;
  q->p++;
  return true;
}

/* Digits, saturating: any length is read, too large is told by the caller. -1 and nothing read when there are
 * none. */
static int digits(struct parser *q) {
  int v = -1;
  for (; q->p < q->end && is_digit(*q->p); q->p++)
    v = v > 99999 ? v : (v < 0 ? 0 : v) * 10 + (*q->p - '0');
  return v;
}

static int name_value(struct parser *q) {
  if (q->end - q->p < 3)
    return -1;
  for (int i = 0; q->def->names && q->def->names[i]; i++) {
    const char *name = q->def->names[i];
    if (upper(q->p[0]) == name[0] && upper(q->p[1]) == name[1] && upper(q->p[2]) == name[2]) {
      q->p += 3;
      return i + q->def->first_name;
    }
  }
  return -1;
}

static int value(struct parser *q, int *ret) {
  const char *from = q->p;
  int v = q->p < q->end && is_letter(*q->p) ? name_value(q) : digits(q);
  if (v < q->def->min || v > q->def->max)
    return fail(q, from, q->def->expected);
  *ret = v;
  return 0;
}

static void put(const struct parser *q, struct set *set, int v) {
  unsigned bit = (unsigned)(q->field == F_YEAR ? v - CRON_FIRST_YEAR : v);
  set->w[bit / 64] |= (uint64_t)1 << (bit % 64);
}

static int step(struct parser *q, bool single, int *ret) {
  const char *slash = q->p;
  if (!next_is(q, '/'))
    return 0;
  if (single && q->dialect == CRON_UNIX)
    return fail(q, slash, "in UNIX a step follows * or a range, as in 5-59/15");
  const char *from = q->p;
  int v = digits(q);
  if (v == 0)
    return fail(q, from, "a step must be at least 1");
  if (v < 0)
    return fail(q, from, "expected a step");
  if (v > q->def->max_step)
    return fail(q, from, "the step is larger than the field");
  *ret = v;
  return 1;
}

/* A letter of QUARTZ where none may stand: tell what was probably meant. */
static int misplaced(const struct parser *q, char c) {
  if (q->dialect == CRON_UNIX)
    return fail(q, q->p, "L, W, # and ? belong to the QUARTZ dialect (6 or 7 fields)");
  bool day_field = q->field == F_DAY || q->field == F_WEEKDAY;
  if (c == '?')
    return fail(q, q->p, day_field ? "? stands alone" : "? is for the day fields only");
  if (c == 'W' && q->field == F_DAY)
    return fail(q, q->p, "W follows one day, as in 15W or LW");
  if (c == '#' && q->field == F_WEEKDAY)
    return fail(q, q->p, "# follows one weekday, as in FRI#2");
  return fail(q, q->p,
              c == 'L' && day_field ? "L stands first in day-of-month and behind one weekday in day-of-week"
                                    : q->def->expected);
}

/* What may stand behind a member of a list: nothing but a comma. */
static int check_item_end(const struct parser *q) {
  if (at_item_end(q))
    return 0;
  char c = upper(*q->p);
  return c == '?' || c == 'W' || c == '#' || c == 'L'
             ? misplaced(q, c)
             : fail(q, q->p, "expected a comma or the end of the field");
}

/* `v` was read and the range, if any, begins behind it. */
static int range(struct parser *q, struct set *set, int v) {
  const struct field_def *d = q->def;
  int last = v, by = 1;
  bool is_range = next_is(q, '-');
  const char *from = q->p;
  if (is_range) {
    int r = value(q, &last);
    if (r < 0)
      return r;
  }
  int r = step(q, !is_range, &by);
  if (r < 0)
    return r;
  if (r && !is_range)
    last = d->max;
  if (last < v) {
    if (q->dialect == CRON_UNIX || q->field == F_YEAR)
      return fail(q, from, "a range must ascend");
    last += d->max - d->min + 1; /* 22-3 goes on over the end */
  }
  for (int n = v; n <= last; n += by)
    put(q, set, (n - d->min) % (d->max - d->min + 1) + d->min);
  return check_item_end(q);
}

/* L, L-n, LW, L-nW; the L was read. */
static int last_day(struct parser *q) {
  int back = 0;
  if (next_is(q, '-')) {
    const char *from = q->p;
    back = digits(q);
    if (back < 0 || back > 30)
      return fail(q, from, "expected 0 to 30 days before the last");
  }
  if (next_is(q, 'W'))
    q->c->last_workdays |= (uint32_t)1 << back;
  else
    q->c->last_days |= (uint32_t)1 << back;
  return check_item_end(q);
}

/* n#k; the # was read. */
static int nth(struct parser *q, int weekday_bit) {
  const char *from = q->p;
  int k = digits(q);
  if (k < 1 || k > 5)
    return fail(q, from, "expected 1 to 5 behind #");
  q->c->nth[k - 1] |= (uint8_t)(1 << weekday_bit);
  return check_item_end(q);
}

/* A star, maybe with a step; the star was read. */
static int star(struct parser *q, struct set *set) {
  int by = 1, r = step(q, false, &by);
  if (r < 0)
    return r;
  for (int n = q->def->min; n <= q->def->max; n += by)
    put(q, set, n);
  return check_item_end(q);
}

/* Behind the value of a QUARTZ day field: nW, nL, n#k. 0 = none of these follows. */
static int special(struct parser *q, int v) {
  int r = 0;
  if (q->field == F_DAY && next_is(q, 'W')) {
    q->c->workdays |= (uint32_t)1 << v;
    r = check_item_end(q);
  } else if (q->field == F_WEEKDAY && next_is(q, 'L')) {
    q->c->last_weekdays |= (uint8_t)(1 << (v - 1));
    r = check_item_end(q);
  } else if (q->field == F_WEEKDAY && next_is(q, '#')) {
    r = nth(q, v - 1);
  } else {
    return 0;
  }
  return r < 0 ? r : 1;
}

/* L at the begin of a member of a QUARTZ day field; it was read. */
static int leading_l(struct parser *q, struct set *set) {
  if (q->field == F_DAY)
    return last_day(q);
  put(q, set, 7); /* alone it is the week's last day */
  return check_item_end(q);
}

/* A letter or sign with which no member begins? WED begins like a misplaced W. */
static int check_item_begin(const struct parser *q) {
  struct parser look = *q;
  char c = q->p < q->end ? upper(*q->p) : 0;
  if (c == '/')
    return fail(q, q->p, "a step follows * or a number, as in */5");
  if ((c == '?' || c == 'W' || c == '#' || c == 'L') && name_value(&look) < 0)
    return misplaced(q, c);
  return 0;
}

static int item(struct parser *q, struct set *set) {
  bool quartz_day = q->dialect == CRON_QUARTZ && (q->field == F_DAY || q->field == F_WEEKDAY);
  if (next_is(q, '*'))
    return star(q, set);
  if (quartz_day && next_is(q, 'L'))
    return leading_l(q, set);
  int v, r = check_item_begin(q);
  if (r == 0)
    r = value(q, &v);
  if (r == 0 && quartz_day)
    r = special(q, v);
  if (r != 0)
    return r < 0 ? r : 0;
  return range(q, set, v);
}

static int list(struct parser *q, struct set *ret) {
  struct set set = {0};
  do {
    int r = item(q, &set);
    if (r < 0)
      return r;
  } while (next_is(q, ','));
  *ret = set;
  return 0;
}

/* 1…7 with Sunday = 1, or 0…7 with Sunday = 0 or 7, to bits with Sunday = 0. */
static uint8_t weekday_bits(const struct parser *q, uint64_t set) {
  return (uint8_t)(q->dialect == CRON_QUARTZ ? set >> 1 & 0x7f : (set | set >> 7) & 0x7f);
}

static void store(struct parser *q, const struct set *set) {
  struct cron *c = q->c;
  switch (q->field) {
  case F_SECOND: c->seconds = set->w[0]; break;
  case F_MINUTE: c->minutes = set->w[0]; break;
  case F_HOUR: c->hours = (uint32_t)set->w[0]; break;
  case F_DAY: c->days = (uint32_t)set->w[0]; break;
  case F_MONTH: c->months = (uint16_t)set->w[0]; break;
  case F_WEEKDAY: c->weekdays = weekday_bits(q, set->w[0]); break;
  case F_YEAR: memcpy(c->years, set->w, sizeof c->years); break;
  case F_MAX_: break;
  }
}

struct fields {
  struct slice f[F_MAX_]; /* n = 0: not given */
  int n;
  struct slice extra; /* the first one too many */
};

static bool is_space(char c) { return c == ' ' || c == '\t'; }

static struct fields split(struct slice text, int max) {
  struct fields r = {0};
  for (size_t i = 0; i < text.n;) {
    size_t from = i;
    while (i < text.n && !is_space(text.p[i]))
      i++;
    if (i > from && r.n < max)
      r.f[r.n] = slice_n(text.p + from, i - from);
    if (i > from && r.n++ == max)
      r.extra = slice_n(text.p + from, i - from);
    while (i < text.n && is_space(text.p[i]))
      i++;
  }
  return r;
}

static int fail_column(struct err *e, int code, size_t offset, const char *text) {
  (void)err_set(e, code, "%s", text);
  if (e)
    e->column = (int)offset + 1;
  return code;
}

/* Which dialect, and are there as many fields as it has? */
static int check_count(struct slice text, const struct fields *f, enum cron_dialect *dialect, struct err *e) {
  if (*dialect == CRON_AUTO)
    *dialect = f->n <= 5 ? CRON_UNIX : CRON_QUARTZ;
  bool quartz = *dialect == CRON_QUARTZ;
  if (f->n < (quartz ? 6 : 5))
    return fail_column(
        e, ERR_INVALID, text.n,
        quartz ? "expected 6 or 7 fields (QUARTZ): second minute hour day-of-month month day-of-week [year]"
               : "expected 5 fields (UNIX): minute hour day-of-month month day-of-week; or 6 or 7 (QUARTZ)");
  if (f->n > (quartz ? 7 : 5)) {
    struct slice extra = quartz ? f->extra : f->f[5];
    return fail_column(e, ERR_INVALID, (size_t)(extra.p - text.p),
                       quartz ? "QUARTZ has at most 7 fields" : "UNIX has 5 fields: expected the end here");
  }
  return 0;
}

static bool is_question(struct slice f) { return slice_eqz(f, "?"); }

/* QUARTZ: exactly one of the two day fields says nothing. */
static int check_question(struct slice text, const struct fields *f, struct err *e) {
  struct slice day = f->f[F_DAY], weekday = f->f[F_WEEKDAY];
  if (is_question(day) && is_question(weekday))
    return fail_column(e, ERR_INVALID, (size_t)(weekday.p - text.p),
                       "? stands in one of the day fields only: the other says which days (* = every day)");
  if (!is_question(day) && !is_question(weekday))
    return fail_column(
        e, ERR_INVALID, (size_t)(weekday.p - text.p),
        "one of day-of-month and day-of-week must be ? in QUARTZ (write ? in the one that says nothing)");
  return 0;
}

static int one_field(struct parser *q, struct slice f) {
  struct set set = {{~(uint64_t)0, ~(uint64_t)0, ~(uint64_t)0, ~(uint64_t)0}};
  q->p = f.p;
  q->end = f.p + f.n;
  bool question = q->dialect == CRON_QUARTZ && (q->field == F_DAY || q->field == F_WEEKDAY) && is_question(f);
  if (!question) {
    int r = list(q, &set);
    if (r < 0)
      return r;
    if (q->p < q->end)
      return check_item_end(q);
  }
  bool nothing = question || slice_eqz(f, "*");
  if (q->field == F_DAY)
    q->c->every_day = nothing;
  if (q->field == F_WEEKDAY)
    q->c->every_weekday = nothing;
  store(q, &set);
  return 0;
}

static int all_fields(struct slice text, const struct fields *f, enum cron_dialect dialect, struct cron *c,
                      struct err *e) {
  struct parser q = {.text = text.p, .dialect = dialect, .c = c, .e = e};
  int first = dialect == CRON_QUARTZ ? F_SECOND : F_MINUTE;
  c->dialect = (uint8_t)dialect;
  c->seconds = 1; /* UNIX: at second 0 of every year */
  memset(c->years, 0xff, sizeof c->years);
  for (int i = 0; i < f->n; i++) {
    q.field = (enum field)(i + first);
    q.def = dialect == CRON_UNIX && q.field == F_WEEKDAY ? &unix_weekday : &quartz_fields[q.field];
    int r = one_field(&q, f->f[i]);
    if (r < 0)
      return r;
  }
  c->years[3] &= ((uint64_t)1 << (CRON_LAST_YEAR - CRON_FIRST_YEAR + 1 - 192)) - 1;
  if (dialect == CRON_UNIX && f->n == 5)
    c->either_day = f->f[2].p[0] != '*' && f->f[4].p[0] != '*';
  return 0;
}

static int parse_text(struct slice text, enum cron_dialect dialect, struct cron *ret, struct err *e) {
  struct fields f = split(text, F_MAX_);
  int r = check_count(text, &f, &dialect, e);
  if (r == 0 && dialect == CRON_QUARTZ)
    r = check_question(text, &f, e);
  if (r < 0)
    return r;
  struct cron c = {0};
  r = all_fields(text, &f, dialect, &c, e);
  if (r < 0)
    return r;
  if (cron_next(&c, 0) == CRON_NEVER)
    return fail_column(e, ERR_NEVER_FIRES, (size_t)(f.f[dialect == CRON_QUARTZ ? F_DAY : 2].p - text.p),
                       "this never fires: no month of the years given has such a day");
  *ret = c;
  return 0;
}

int cron_parse(struct slice text, enum cron_dialect dialect, struct cron *ret, struct err *e) {
  if (text.n > CRON_TEXT_MAX)
    return err_set(e, ERR_TOO_LARGE, "a cron expression has at most %d bytes", CRON_TEXT_MAX);
  size_t lead = 0;
  while (lead < text.n && is_space(text.p[lead]))
    lead++;
  if (lead == text.n)
    return fail_column(e, ERR_INVALID, 0,
                       "expected a cron expression such as \"0 30 2 ? * MON-FRI\" or \"30 2 * * 1-5\"");
  if (text.p[lead] != '@')
    return parse_text(text, dialect, ret, e);
  struct slice name = slice_trim(slice_n(text.p + lead, text.n - lead));
  for (size_t i = 0; i < sizeof macros / sizeof macros[0]; i++)
    if (slice_eqz_nocase(name, macros[i].name))
      return parse_text(slice_of(macros[i].text), CRON_UNIX, ret, e);
  return fail_column(e, ERR_INVALID, lead,
                     slice_eqz_nocase(name, "@reboot")
                         ? "@reboot names no instant; expected @yearly, @monthly, @weekly, @daily or @hourly"
                         : "expected @yearly, @annually, @monthly, @weekly, @daily, @midnight or @hourly");
}
