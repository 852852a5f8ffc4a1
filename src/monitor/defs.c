/* Channels and rules: checked, sealed, kept. */
#include "base/log.h"
#include "base/parse.h"
#include "monitor/internal.h"
#include "net/crypto.h"

enum { NAME_MAX_BYTES = 128, CHANGE_TRIES = 5 };
#define SECRET_PREFIX "kla_"

static int check_name(struct slice ns, struct slice name, struct err *e) {
  int r = parse_name(name, NAME_MAX_BYTES, e);
  if (r < 0)
    return (void)err_at(e, "/name"), r;
  r = parse_name(ns, NAME_MAX_BYTES, e);
  return r < 0 ? (void)err_at(e, "/namespace"), r : 0;
}

/* ------------------------------------------------------------------ URLs */

int url_split(struct slice url, struct slice *ret_origin, struct slice *ret_path, struct err *e) {
  size_t scheme = 0;
  if (url.n >= 8 && slice_eqz_nocase(slice_n(url.p, 8), "https://"))
    scheme = 8;
  else if (url.n >= 7 && slice_eqz_nocase(slice_n(url.p, 7), "http://"))
    scheme = 7;
  if (!scheme || url.n > ALERT_URL_MAX)
    return err_set(e, ERR_INVALID, "expected a URL of at most %d bytes that begins with https:// or http://",
                   ALERT_URL_MAX);
  for (size_t i = 0; i < url.n; i++)
    if (url.p[i] <= ' ' || url.p[i] >= 127 || url.p[i] == '#')
      return err_set(e, ERR_INVALID, "the URL has a character that is not allowed at byte %zu", i + 1);
  size_t end = scheme;
  while (end < url.n && url.p[end] != '/' && url.p[end] != '?')
    end++;
  if (end < url.n && url.p[end] == '?')
    return err_set(e, ERR_INVALID, "expected a path before the query, as in https://host/?key=…");
  *ret_origin = slice_n(url.p, end);
  *ret_path = end < url.n ? slice_n(url.p + end, url.n - end) : SLICE("/");
  return 0;
}

static int check_url(struct alerts *a, struct slice url, struct err *e) {
  struct slice origin, path;
  struct target *t = NULL;
  int r = url_split(url, &origin, &path, e);
  if (r >= 0)
    r = target_parse(origin, a->o.allowed, &t, e);
  target_unref(&t);
  if (r == ERR_UNREACHABLE) /* a name that cannot be resolved now may be good later */
    return 0;
  if (r < 0)
    (void)err_at(e, "/url");
  return r;
}

int channel_url(struct alerts *a, const struct alert_def_row *def, struct arena *mem, struct slice *ret,
                struct err *e) {
  auto_str text;
  str_init(&text, ALERT_URL_MAX + 1);
  int r = crypto_unseal(a->o.key, def->url_sealed, &text, e);
  if (r >= 0)
    *ret = arena_slice(mem, str_slice(&text));
  return r;
}

/* What leaves this folder has no sealed texts in it. */
static int view(struct alerts *a, const struct alert_def_row *row, struct alert_channel *ret,
                struct arena *mem, struct err *e) {
  struct alert_channel out = {.def = *row};
  struct slice path;
  int r = channel_url(a, row, mem, &out.url, e);
  if (r >= 0)
    r = url_split(out.url, &out.origin, &path, e);
  if (r < 0)
    return err_set(e, ERR_INTERNAL,
                   "the URL of the alert channel %.*s cannot be read: is state_dir/secret.key another one?",
                   SLICE_FMT(row->name));
  out.def.url_sealed = out.def.secret_sealed = out.def.secret_previous_sealed = (struct slice){0};
  *ret = out;
  return 0;
}

/* ------------------------------------------------------------------ channels */

static struct slice seal(struct alerts *a, struct slice text, struct arena *mem) {
  auto_free char *sealed = crypto_seal(a->o.key, text);
  return arena_slice(mem, slice_of(sealed));
}

static struct slice new_secret(struct alerts *a, char text[ALERT_SECRET_MAX], struct arena *mem) {
  crypto_token_new(SECRET_PREFIX, text);
  return seal(a, slice_of(text), mem);
}

static struct slice definition_text(const json_t *doc, struct arena *mem) {
  auto_free char *text = json_canonical(doc);
  return arena_slice(mem, slice_of(text));
}

static int get_def(struct alerts *a, enum alert_def_kind kind, struct slice ns, struct slice name,
                   struct alert_def_row *ret, struct arena *mem, struct err *e) {
  struct st_alert_def_get in = {kind, ns, name};
  struct st_alert_def_get_ret got;
  int r = store_alert_def_get(a->o.store, &in, &got, mem, e);
  if (r >= 0)
    *ret = got.def;
  return r < 0 ? r : 0;
}

static int put_channel(struct alerts *a, const struct st_alert_def_put *in, struct alert_channel *ret,
                       struct arena *mem, struct err *e) {
  struct st_alert_def_put_ret put;
  int r = store_alert_def_put(a->o.store, in, &put, mem, e);
  return r < 0 ? r : view(a, &put.def, ret, mem, e);
}

static int create_channel(struct alerts *a, const struct alert_channel_new *c,
                          char ret_secret[ALERT_SECRET_MAX], struct alert_channel *ret, struct arena *mem,
                          struct err *e) {
  char text[ALERT_SECRET_MAX];
  struct st_alert_def_put in = {.def = {.kind = ALERT_DEF_CHANNEL,
                                        .ns = c->ns,
                                        .name = c->name,
                                        .definition = definition_text(c->definition, mem),
                                        .url_sealed = seal(a, c->url, mem),
                                        .secret_sealed = new_secret(a, text, mem)}};
  int r = put_channel(a, &in, ret, mem, e);
  if (r >= 0) {
    memcpy(ret_secret, text, sizeof text);
    alerts_count_from_zero(a, c->ns, c->name);
    log_info("alert channel created", LF_L("namespace", c->ns), LF_L("channel", c->name));
  }
  explicit_bzero(text, sizeof text);
  return r;
}

int alerts_channel_put(struct alerts *a, const struct alert_channel_new *c, int32_t if_version,
                       char ret_secret[ALERT_SECRET_MAX], struct alert_channel *ret, struct arena *mem,
                       struct err *e) {
  int r = check_name(c->ns, c->name, e);
  if (r >= 0 && (c->url.p || !if_version))
    r = check_url(a, c->url, e);
  if (r < 0)
    return r;
  if (!if_version)
    return create_channel(a, c, ret_secret, ret, mem, e);
  struct st_alert_def_put in = {.expected_version = if_version};
  r = get_def(a, ALERT_DEF_CHANNEL, c->ns, c->name, &in.def, mem, e);
  if (r < 0)
    return r;
  in.def.definition = definition_text(c->definition, mem);
  if (c->url.p)
    in.def.url_sealed = seal(a, c->url, mem);
  r = put_channel(a, &in, ret, mem, e);
  if (r >= 0)
    log_info("alert channel changed", LF_L("namespace", c->ns), LF_L("channel", c->name));
  return r;
}

/* Read the row, change its secrets, write it if nobody else did in between (then again, within bounds). */
static int change_secret(struct alerts *a, struct slice ns, struct slice name, const struct slice *fresh,
                         struct alert_channel *ret, struct arena *mem, struct err *e) {
  int r = ERR_STALE;
  for (int n = 0; n < CHANGE_TRIES && r == ERR_STALE; n++) {
    struct st_alert_def_put in = {0};
    r = get_def(a, ALERT_DEF_CHANNEL, ns, name, &in.def, mem, e);
    if (r < 0)
      return r;
    in.def.secret_previous_sealed = fresh ? in.def.secret_sealed : (struct slice){0};
    if (fresh)
      in.def.secret_sealed = *fresh;
    in.expected_version = in.def.version;
    r = put_channel(a, &in, ret, mem, e);
  }
  return r;
}

int alerts_channel_rotate(struct alerts *a, struct slice ns, struct slice name,
                          char ret_secret[ALERT_SECRET_MAX], struct alert_channel *ret, struct arena *mem,
                          struct err *e) {
  char text[ALERT_SECRET_MAX];
  struct slice sealed = new_secret(a, text, mem);
  int r = change_secret(a, ns, name, &sealed, ret, mem, e);
  if (r >= 0) {
    memcpy(ret_secret, text, sizeof text);
    log_info("alert channel secret rotated", LF_L("namespace", ns), LF_L("channel", name));
  }
  explicit_bzero(text, sizeof text);
  return r;
}

int alerts_channel_retire(struct alerts *a, struct slice ns, struct slice name, struct alert_channel *ret,
                          struct arena *mem, struct err *e) {
  int r = change_secret(a, ns, name, NULL, ret, mem, e);
  if (r >= 0)
    log_info("former alert channel secret retired", LF_L("namespace", ns), LF_L("channel", name));
  return r;
}

int alerts_channel_get(struct alerts *a, struct slice ns, struct slice name, struct alert_channel *ret,
                       struct arena *mem, struct err *e) {
  struct alert_def_row row;
  int r = get_def(a, ALERT_DEF_CHANNEL, ns, name, &row, mem, e);
  return r < 0 ? r : view(a, &row, ret, mem, e);
}

int alerts_channel_list(struct alerts *a, struct slice ns, struct alert_channel **ret, size_t *ret_count,
                        struct arena *mem, struct err *e) {
  struct st_alert_def_list_ret got;
  int r = store_alert_def_list(a->o.store, &(struct st_alert_def_list){ALERT_DEF_CHANNEL, ns}, &got, mem, e);
  if (r < 0)
    return r;
  struct alert_channel *rows = arena_array(mem, got.count + 1, sizeof *rows);
  for (size_t i = 0; r >= 0 && i < got.count; i++)
    r = view(a, &got.rows[i], &rows[i], mem, e);
  if (r < 0)
    return r;
  *ret = rows;
  *ret_count = got.count;
  return 0;
}

/* The rule of this namespace that names the channel, or none. */
static int used_by(struct alerts *a, struct slice ns, struct slice name, struct slice *ret, struct arena *mem,
                   struct err *e) {
  struct st_alert_def_list_ret got;
  struct rule_filter f;
  int r = store_alert_def_list(a->o.store, &(struct st_alert_def_list){ALERT_DEF_RULE, ns}, &got, mem, e);
  for (size_t i = 0; r >= 0 && i < got.count; i++) {
    if (rule_read(&got.rows[i], &f, NULL) < 0)
      continue;
    for (size_t k = 0; k < json_array_size(f.channels); k++)
      if (slice_eqz(name, json_string_value(json_array_get(f.channels, k))))
        *ret = got.rows[i].name;
    rule_done(&f);
  }
  return r;
}

int alerts_channel_delete(struct alerts *a, struct slice ns, struct slice name, struct err *e) {
  auto_arena mem = {0};
  struct slice rule = {0};
  struct st_alert_def_delete in = {ALERT_DEF_CHANNEL, ns, name};
  struct st_alert_def_delete_ret none;
  int r = used_by(a, ns, name, &rule, &mem, e);
  if (r >= 0 && rule.p)
    return err_set(e, ERR_CONFLICT, "the alert rule %.*s uses this channel", SLICE_FMT(rule));
  if (r >= 0)
    r = store_alert_def_delete(a->o.store, &in, &none, &mem, e);
  if (r >= 0)
    log_info("alert channel deleted", LF_L("namespace", ns), LF_L("channel", name));
  return r;
}

/* ------------------------------------------------------------------ rules */

static int check_channels(struct alerts *a, const struct rule_filter *f, struct arena *mem, struct err *e) {
  struct alert_def_row row;
  for (size_t i = 0; i < json_array_size(f->channels); i++) {
    struct slice name = slice_of(json_string_value(json_array_get(f->channels, i)));
    int r = get_def(a, ALERT_DEF_CHANNEL, f->ns, name, &row, mem, e);
    if (r < 0)
      return (void)err_at(e, "/channels"), r;
  }
  return 0;
}

static int check_count(struct alerts *a, struct slice ns, struct arena *mem, struct err *e) {
  struct st_alert_def_list_ret got;
  int r = store_alert_def_list(a->o.store, &(struct st_alert_def_list){ALERT_DEF_RULE, ns}, &got, mem, e);
  if (r >= 0 && got.count >= ALERT_RULES_MAX)
    return err_set(e, ERR_LIMIT, "a namespace has at most %d alert rules", ALERT_RULES_MAX);
  return r;
}

int alerts_rule_put(struct alerts *a, struct slice ns, struct slice name, const json_t *definition,
                    int32_t if_version, struct alert_def_row *ret, struct arena *mem, struct err *e) {
  struct st_alert_def_put in = {
      .def = {.kind = ALERT_DEF_RULE, .ns = ns, .name = name, .definition = definition_text(definition, mem)},
      .expected_version = if_version};
  struct st_alert_def_put_ret put;
  struct rule_filter f = {0};
  int r = check_name(ns, name, e);
  if (r >= 0)
    r = rule_read(&in.def, &f, e);
  if (r >= 0)
    r = check_channels(a, &f, mem, e);
  if (r >= 0 && !if_version)
    r = check_count(a, ns, mem, e);
  rule_done(&f);
  if (r >= 0)
    r = store_alert_def_put(a->o.store, &in, &put, mem, e);
  if (r < 0)
    return r;
  log_info(if_version ? "alert rule changed" : "alert rule created", LF_L("namespace", ns),
           LF_L("rule", name));
  *ret = put.def;
  return 0;
}

int alerts_rule_get(struct alerts *a, struct slice ns, struct slice name, struct alert_def_row *ret,
                    struct arena *mem, struct err *e) {
  return get_def(a, ALERT_DEF_RULE, ns, name, ret, mem, e);
}

int alerts_rule_list(struct alerts *a, struct slice ns, struct st_alert_def_list_ret *ret, struct arena *mem,
                     struct err *e) {
  return store_alert_def_list(a->o.store, &(struct st_alert_def_list){ALERT_DEF_RULE, ns}, ret, mem, e);
}

int alerts_rule_delete(struct alerts *a, struct slice ns, struct slice name, struct err *e) {
  auto_arena mem = {0};
  struct st_alert_def_delete_ret none;
  int r = store_alert_def_delete(a->o.store, &(struct st_alert_def_delete){ALERT_DEF_RULE, ns, name}, &none,
                                 &mem, e);
  if (r >= 0)
    log_info("alert rule deleted", LF_L("namespace", ns), LF_L("rule", name));
  return r;
}

/* ------------------------------------------------------------------ the log */

int alerts_list(struct alerts *a, const struct st_alert_list *in, struct st_alert_list_ret *ret,
                struct arena *mem, struct err *e) {
  return store_alert_list(a->o.store, in, ret, mem, e);
}

int alerts_get(struct alerts *a, int64_t id, struct st_alert_get_ret *ret, struct arena *mem, struct err *e) {
  return store_alert_get(a->o.store, &(struct st_alert_get){id}, ret, mem, e);
}
