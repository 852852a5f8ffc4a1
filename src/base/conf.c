#include "base/conf.h"
#include "base/conf_internal.h"
#include "base/mem.h"
#include "base/parse.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static void value_clear(struct conf_value *v) {
  mem_free(v->text);
  for (char **at = v->list; at && *at; at++)
    mem_free(*at);
  mem_free(v->list);
  *v = (struct conf_value){0};
}

struct conf *conf_ref(struct conf *c) {
  atomic_fetch_add(&c->refs, 1);
  return c;
}

void conf_unref(struct conf **c) {
  struct conf *it = *c;
  *c = NULL;
  if (!it || atomic_fetch_sub(&it->refs, 1) > 1)
    return;
  for (size_t i = 0; i < it->n; i++)
    value_clear(&it->values[i]);
  mem_free(it->values);
  mem_free(it);
}

int conf_find(const struct conf *c, struct slice name) {
  for (size_t i = 0; i < c->n; i++)
    if (slice_eqz(name, c->items[i].name))
      return (int)i;
  return -1;
}

void conf_complain(struct conf_errors *errors, const char *where, const char *field, const struct err *e) {
  if (errors->n == CONF_ERRORS_MAX) {
    errors->more = true;
    return;
  }
  (void)err_field(&errors->list[errors->n++], e->code, field, "%s: %s", where, e->text);
}

const char **conf_names(const struct conf *c) {
  const char **names = mem_array(c->n + 1, sizeof *names);
  for (size_t i = 0; i < c->n; i++)
    names[i] = c->items[i].name;
  return names;
}

void conf_env_name(const char *name, char *buf) {
  size_t n = sizeof CONF_ENV_PREFIX - 1;
  memcpy(buf, CONF_ENV_PREFIX, n);
  for (; *name && n < CONF_NAME_MAX + sizeof CONF_ENV_PREFIX - 1; name++)
    buf[n++] = *name == '.' ? '_' : *name >= 'a' && *name <= 'z' ? (char)(*name - 32) : *name;
  buf[n] = 0;
}

/* Settings are one line each: a line break or a control character is always a slip. */
static bool is_text(struct slice s) {
  for (size_t i = 0; i < s.n; i++)
    if (((unsigned char)s.p[i] < 0x20 && s.p[i] != '\t') || s.p[i] == 0x7f)
      return false;
  return slice_utf8_valid(s);
}

static int check_string(const struct conf_item *item, struct slice text, struct err *e) {
  int64_t max = item->min || item->max ? item->max : CONF_TEXT_MAX;
  if (!is_text(text) || (int64_t)text.n < item->min || (int64_t)text.n > max)
    return err_set(e, ERR_INVALID, "expected a text of %" PRId64 " to %" PRId64 " bytes on one line",
                   item->min, max);
  return 0;
}

/* Check one text against its item; what is a number comes out as one. */
static int check(const struct conf_item *item, struct slice text, int64_t *ret, struct err *e) {
  bool any = item->min == 0 && item->max == 0;
  int64_t max = any ? INT64_MAX : item->max;
  bool yes;
  int which, r;
  switch (item->type) {
  case CONF_INT: return parse_i64(text, any ? INT64_MIN : item->min, max, ret, e);
  case CONF_DURATION: return duration_parse(text, item->min, max, ret, e);
  case CONF_BYTES: return parse_bytes(text, item->min, max, ret, e);
  case CONF_BOOL:
    r = parse_bool(text, &yes, e);
    if (r == 0)
      *ret = yes;
    return r;
  case CONF_ENUM:
    r = parse_enum(text, item->names, &which, e);
    if (r == 0)
      *ret = which;
    return r;
  case CONF_STRING:
  case CONF_LIST:
  case CONF_TYPE_MAX_: break;
  }
  return check_string(item, text, e);
}

static int check_list(const struct conf_item *item, const struct slice *parts, size_t n, struct err *e) {
  int64_t max = item->min || item->max ? item->max : CONF_LIST_MAX;
  if ((int64_t)n < item->min || (int64_t)n > max)
    return err_set(e, ERR_INVALID, "expected a list of %" PRId64 " to %" PRId64 " entries", item->min, max);
  for (size_t i = 0; i < n; i++)
    if (!parts[i].n || parts[i].n > CONF_TEXT_MAX || !is_text(parts[i]))
      return err_set(e, ERR_INVALID, "entry %zu: expected a text of 1 to %d bytes on one line", i + 1,
                     CONF_TEXT_MAX);
  return 0;
}

int conf_put(struct conf *c, int index, enum conf_source from, const struct slice *parts, size_t n,
             struct err *e) {
  const struct conf_item *item = &c->items[index];
  struct conf_value new = {.from = from};
  bool list = item->type == CONF_LIST;
  int r = list ? check_list(item, parts, n, e) : check(item, parts[0], &new.number, e);
  if (r < 0)
    return r;
  if (list) {
    new.list = mem_array(n + 1, sizeof *new.list);
    for (size_t i = 0; i < n; i++)
      new.list[i] = mem_slicedup(parts[i]);
  } else {
    new.text = mem_slicedup(parts[0]);
  }
  value_clear(&c->values[index]);
  c->values[index] = new;
  return 0;
}

int conf_put_text(struct conf *c, int index, enum conf_source from, struct slice text, struct err *e) {
  if (c->items[index].type != CONF_LIST)
    return conf_put(c, index, from, &text, 1, e);
  struct slice parts[CONF_LIST_MAX + 1]; /* one too many is what check_list refuses */
  size_t n = 0;
  while (text.n && n < sizeof parts / sizeof *parts)
    parts[n++] = slice_trim(slice_cut(text, ',', &text));
  return conf_put(c, index, from, parts, n, e);
}

static int unknown(const char *what, const char *near, struct err *e) {
  if (near)
    return err_set(e, ERR_UNKNOWN_FIELD, "this %s is not known; did you mean %s?", what, near);
  return err_set(e, ERR_UNKNOWN_FIELD, "this %s is not known", what);
}

static void take_defaults(const struct conf_load *l) {
  for (size_t i = 0; i < l->conf->n; i++) {
    const struct conf_item *item = &l->conf->items[i];
    struct err e = {0};
    if (item->text && conf_put_text(l->conf, (int)i, CONF_FROM_DEFAULT, slice_of(item->text), &e) < 0)
      conf_complain(l->errors, "default", item->name, &e);
  }
}

static bool listed(const char *const *list, struct slice name) {
  for (; list && *list; list++)
    if (slice_eqz(name, *list))
      return true;
  return false;
}

static void take_variable(const struct conf_load *l, char (*names)[CONF_NAME_MAX + 8], struct slice name,
                          struct slice text) {
  struct err e = {0};
  char where[ERR_FIELD_MAX];
  (void)snprintf(where, sizeof where, "%.*s", SLICE_FMT(name));
  for (size_t i = 0; i < l->conf->n; i++)
    if (slice_eqz(name, names[i])) {
      if (conf_put_text(l->conf, (int)i, CONF_FROM_ENV, text, &e) < 0)
        conf_complain(l->errors, where, l->conf->items[i].name, &e);
      return;
    }
  auto_free const char **pointers = mem_array(l->conf->n + 1, sizeof *pointers);
  for (size_t i = 0; i < l->conf->n; i++)
    pointers[i] = names[i];
  (void)unknown("environment variable", parse_nearest(name, pointers), &e);
  conf_complain(l->errors, where, "", &e);
}

static void take_environment(const struct conf_load *l, const char *const *env, const char *const *ignore) {
  auto_free char(*names)[CONF_NAME_MAX + 8] = mem_array(l->conf->n, sizeof *names);
  for (size_t i = 0; i < l->conf->n; i++)
    conf_env_name(l->conf->items[i].name, names[i]);
  for (; env && *env; env++) {
    struct slice text, name = slice_cut(slice_of(*env), '=', &text);
    size_t prefix = sizeof CONF_ENV_PREFIX - 1;
    if (name.n >= prefix && memcmp(name.p, CONF_ENV_PREFIX, prefix) == 0 && !listed(ignore, name))
      take_variable(l, names, name, text);
  }
}

static void take_sets(const struct conf_load *l, const char *const *sets) {
  for (; sets && *sets; sets++) {
    struct slice text, name = slice_cut(slice_of(*sets), '=', &text);
    struct err e = {0};
    char field[ERR_FIELD_MAX];
    (void)snprintf(field, sizeof field, "%.*s", SLICE_FMT(name));
    int index = conf_find(l->conf, name);
    if (index < 0) {
      auto_free const char **names = conf_names(l->conf);
      (void)unknown("setting", parse_nearest(name, names), &e);
    } else if (!text.p) {
      (void)err_set(&e, ERR_INVALID, "expected name=value");
    } else {
      (void)conf_put_text(l->conf, index, CONF_FROM_SET, text, &e);
    }
    if (e.code)
      conf_complain(l->errors, "override", field, &e);
  }
}

static void want_all(const struct conf_load *l) {
  for (size_t i = 0; i < l->conf->n; i++) {
    struct err e = {0};
    char env[CONF_NAME_MAX + 8];
    const struct conf_item *item = &l->conf->items[i];
    if (item->text || l->conf->values[i].from != CONF_FROM_NOTHING)
      continue;
    conf_env_name(item->name, env);
    (void)err_set(&e, ERR_MISSING, "must be set, in the file or with %s", env);
    conf_complain(l->errors, "configuration", item->name, &e);
  }
}

int conf_load(const struct conf_sources *sources, struct conf **ret, struct conf_errors *errors) {
  *errors = (struct conf_errors){0};
  struct conf *c = mem_zalloc(sizeof *c);
  c->refs = 1;
  c->items = sources->items;
  c->n = sources->n_items;
  c->values = mem_array(c->n, sizeof *c->values);
  struct conf_load l = {c, errors};
  take_defaults(&l);
  if (sources->path)
    conf_yaml(&l, sources->path);
  take_environment(&l, sources->env, sources->env_ignore);
  take_sets(&l, sources->sets);
  if (!errors->n) /* what is missing may be what was misspelt */
    want_all(&l);
  if (errors->n) {
    conf_unref(&c);
    return errors->list[0].code;
  }
  *ret = c;
  return 0;
}

static const struct conf_value *get(const struct conf *c, const char *name, enum conf_type type) {
  int index = conf_find(c, slice_of(name));
  if (index < 0 || c->items[index].type != type) {
    (void)fprintf(stderr, "kelou: no setting %s of this type\n", name);
    abort();
  }
  return &c->values[index];
}

const char *conf_str(const struct conf *c, const char *name) { return get(c, name, CONF_STRING)->text; }
int64_t conf_int(const struct conf *c, const char *name) { return get(c, name, CONF_INT)->number; }
bool conf_bool(const struct conf *c, const char *name) { return get(c, name, CONF_BOOL)->number != 0; }
usec_t conf_usec(const struct conf *c, const char *name) { return get(c, name, CONF_DURATION)->number; }
int64_t conf_bytes(const struct conf *c, const char *name) { return get(c, name, CONF_BYTES)->number; }
int conf_enum(const struct conf *c, const char *name) { return (int)get(c, name, CONF_ENUM)->number; }
const char *const *conf_list(const struct conf *c, const char *name) {
  return (const char *const *)get(c, name, CONF_LIST)->list;
}

static bool same(const struct conf_item *item, const struct conf_value *a, const struct conf_value *b) {
  if (item->type == CONF_STRING)
    return strcmp(a->text, b->text) == 0;
  if (item->type != CONF_LIST)
    return a->number == b->number; /* "60s" and "1m" are the same setting */
  size_t i = 0;
  while (a->list[i] && b->list[i] && strcmp(a->list[i], b->list[i]) == 0)
    i++;
  return !a->list[i] && !b->list[i];
}

size_t conf_diff(const struct conf *a, const struct conf *b, const struct conf_item **ret, size_t max) {
  size_t n = 0;
  for (size_t i = 0; i < a->n; i++) {
    if (same(&a->items[i], &a->values[i], &b->values[i]))
      continue;
    if (n < max)
      ret[n] = &a->items[i];
    n++;
  }
  return n;
}
