/* Executor groups and their secrets. */
#include "base/log.h"
#include "base/parse.h"
#include "executor/internal.h"
#include "net/crypto.h"

enum { GROUP_NAME_MAX = 128, CHANGE_TRIES = 5 };
#define SECRET_PREFIX "kls_"

static int check_name(struct slice text, const char *field, struct err *e) {
  int r = parse_name(text, GROUP_NAME_MAX, e);
  if (r < 0 && e)
    (void)err_at(e, field);
  return r;
}

static int check_bounds(const struct group_bounds *b, struct err *e) {
  if (b->max_concurrent < 0 || b->max_concurrent > GROUP_CONCURRENT_MAX)
    return err_field(e, ERR_INVALID, "/max_concurrent", "expected a whole number from 0 to %d",
                     GROUP_CONCURRENT_MAX);
  if (b->rate_milli < 0 || b->rate_milli > (int64_t)GROUP_RATE_MAX * 1000)
    return err_field(e, ERR_INVALID, "/rate_limit", "expected 0.001 to %d, or 0", GROUP_RATE_MAX);
  if (b->rate_burst < 0 || b->rate_burst > GROUP_BURST_MAX)
    return err_field(e, ERR_INVALID, "/rate_burst", "expected a whole number from 0 to %d", GROUP_BURST_MAX);
  return 0;
}

static int check_group(const struct group_new *g, struct err *e) {
  int r = check_name(g->name, "/name", e);
  if (r < 0 || (r = check_name(g->ns, "/namespace", e)) < 0)
    return r;
  if (g->max_connections < 1 || g->max_connections > GROUP_MAX_CONNECTIONS)
    return err_field(e, ERR_INVALID, "/max_connections", "expected a whole number from 1 to %d",
                     GROUP_MAX_CONNECTIONS);
  return check_bounds(&g->bounds, e);
}

/* What leaves this folder has no secrets in it. */
static struct group_row public_row(const struct group_row *row) {
  struct group_row out = *row;
  out.secret_sealed = out.secret_previous_sealed = (struct slice){0};
  return out;
}

static struct group_row new_row(const struct group_new *g) {
  return (struct group_row){.ns = g->ns,
                            .name = g->name,
                            .channel = g->channel,
                            .routing = g->routing,
                            .max_connections = g->max_connections,
                            .max_concurrent = g->bounds.max_concurrent,
                            .rate_milli = g->bounds.rate_milli,
                            .rate_burst = g->bounds.rate_burst};
}

/* Write a row and take what came back into the table. */
static int write_row(struct registry *r, const struct st_group_put *in, struct group_row *ret,
                     struct arena *mem, struct err *e) {
  struct st_group_put_ret out;
  int code = store_group_put(r->o.store, in, &out, mem, e);
  if (code < 0 || (code = group_apply(r, &out.group, (struct as_of){registry_mono(r), true}, e)) < 0)
    return code;
  *ret = public_row(&out.group);
  return 0;
}

static void new_secret(struct registry *r, char text[REGISTRY_SECRET_MAX], struct arena *mem,
                       struct slice *ret_sealed) {
  crypto_token_new(SECRET_PREFIX, text);
  auto_free char *sealed = crypto_seal(r->o.key, slice_of(text));
  *ret_sealed = arena_slice(mem, slice_of(sealed));
}

int registry_group_create(struct registry *r, const struct group_new *g, char ret_secret[REGISTRY_SECRET_MAX],
                          struct group_row *ret, struct arena *mem, struct err *e) {
  int code = check_group(g, e);
  if (code < 0)
    return code;
  char text[REGISTRY_SECRET_MAX];
  struct st_group_put in = {.group = new_row(g)};
  new_secret(r, text, mem, &in.group.secret_sealed);
  code = write_row(r, &in, ret, mem, e);
  if (code == 0) {
    memcpy(ret_secret, text, sizeof text);
    log_info("executor group created", LF_L("namespace", g->ns), LF_L("group", g->name));
  }
  explicit_bzero(text, sizeof text);
  return code;
}

static int get_row(struct registry *r, struct slice ns, struct slice name, struct group_row *ret,
                   struct arena *mem, struct err *e) {
  struct st_group_get in = {.ns = ns, .name = name};
  struct st_group_get_ret out;
  int code = store_group_get(r->o.store, &in, &out, mem, e);
  if (code == ERR_NOT_FOUND)
    return err_field(e, code, "/group", "there is no executor group \"%.*s\" in the namespace \"%.*s\"",
                     SLICE_FMT(name), SLICE_FMT(ns));
  if (code >= 0)
    *ret = out.group;
  return code < 0 ? code : 0;
}

/* Read the row, have it changed, write it if nobody else did in between (then again, within bounds). */
static int change_row(struct registry *r, struct group_row *row, int32_t if_version,
                      void (*change)(struct group_row *row, const void *arg), const void *arg,
                      struct arena *mem, struct err *e) {
  int code = ERR_STALE;
  struct slice ns = row->ns, name = row->name;
  for (int n = 0; n < CHANGE_TRIES && code == ERR_STALE; n++) {
    code = get_row(r, ns, name, row, mem, e);
    if (code < 0)
      return code;
    if (if_version && row->version != if_version)
      return err_set(e, ERR_STALE, "the group has version %d, not %d", row->version, if_version);
    change(row, arg);
    struct st_group_put in = {.group = *row, .expected_version = row->version};
    code = write_row(r, &in, row, mem, e);
  }
  return code;
}

static void set_options(struct group_row *row, const void *arg) {
  const struct group_new *g = arg;
  row->routing = g->routing;
  row->max_connections = g->max_connections;
  row->max_concurrent = g->bounds.max_concurrent;
  row->rate_milli = g->bounds.rate_milli;
  row->rate_burst = g->bounds.rate_burst;
}

int registry_group_change(struct registry *r, const struct group_new *g, int32_t if_version,
                          struct group_row *ret, struct arena *mem, struct err *e) {
  struct group_row row = {.ns = g->ns, .name = g->name};
  int code = check_group(g, e);
  if (code < 0 || (code = change_row(r, &row, if_version, set_options, g, mem, e)) < 0)
    return code;
  log_info("executor group changed", LF_L("namespace", g->ns), LF_L("group", g->name));
  *ret = row;
  return 0;
}

int registry_group_plan(struct registry *r, const struct group_new *g, struct group_plan *ret,
                        struct arena *mem, struct err *e) {
  struct group_plan p = {.put = {.group = new_row(g)}};
  struct group_row old;
  int code = check_group(g, e);
  if (code < 0)
    return code;
  code = get_row(r, g->ns, g->name, &old, mem, e);
  if (code == ERR_NOT_FOUND) {
    new_secret(r, p.secret, mem, &p.put.group.secret_sealed);
    *ret = p;
    return 0;
  }
  if (code < 0)
    return code;
  if (old.channel != g->channel)
    return err_field(e, ERR_INVALID, "/channel", "the channel of a group cannot be changed; it is %s",
                     channel_names[old.channel]);
  p.there = true;
  p.was = public_row(&old);
  p.put = (struct st_group_put){.group = old, .expected_version = old.version};
  set_options(&p.put.group, g);
  *ret = p;
  return 0;
}

int registry_group_written(struct registry *r, const struct group_row *row, struct err *e) {
  log_info("executor group applied", LF_L("namespace", row->ns), LF_L("group", row->name),
           LF_I("version", row->version));
  return group_apply(r, row, (struct as_of){registry_mono(r), true}, e);
}

static void set_secret(struct group_row *row, const void *arg) {
  row->secret_previous_sealed = row->secret_sealed;
  row->secret_sealed = *(const struct slice *)arg;
}

int registry_group_rotate(struct registry *r, struct slice ns, struct slice name,
                          char ret_secret[REGISTRY_SECRET_MAX], struct group_row *ret, struct arena *mem,
                          struct err *e) {
  char text[REGISTRY_SECRET_MAX];
  struct slice sealed;
  struct group_row row = {.ns = ns, .name = name};
  new_secret(r, text, mem, &sealed);
  int code = change_row(r, &row, 0, set_secret, &sealed, mem, e);
  if (code == 0) {
    memcpy(ret_secret, text, sizeof text);
    *ret = row;
    log_info("executor group secret rotated", LF_L("namespace", ns), LF_L("group", name));
  }
  explicit_bzero(text, sizeof text);
  return code;
}

static void end_former(struct group_row *row, const void *arg) {
  (void)arg;
  row->secret_previous_sealed = (struct slice){0};
}

int registry_group_retire(struct registry *r, struct slice ns, struct slice name, struct err *e) {
  auto_arena mem = {0};
  struct group_row row = {.ns = ns, .name = name};
  int code = change_row(r, &row, 0, end_former, NULL, &mem, e);
  if (code == 0)
    log_info("former executor group secret retired", LF_L("namespace", ns), LF_L("group", name));
  return code;
}

int registry_group_get(struct registry *r, struct slice ns, struct slice name, struct group_row *ret,
                       struct arena *mem, struct err *e) {
  struct group_row row;
  int code = get_row(r, ns, name, &row, mem, e);
  if (code == 0)
    *ret = public_row(&row);
  return code;
}

int registry_group_list(struct registry *r, struct slice ns, struct st_group_list_ret *ret, struct arena *mem,
                        struct err *e) {
  struct st_group_list in = {.ns = ns};
  struct st_group_list_ret out;
  int code = store_group_list(r->o.store, &in, &out, mem, e);
  if (code < 0)
    return code;
  for (size_t n = 0; n < out.count; n++)
    out.rows[n] = public_row(&out.rows[n]);
  *ret = out;
  return 0;
}

int registry_group_delete(struct registry *r, struct slice ns, struct slice name, struct err *e) {
  struct st_group_delete in = {.ns = ns, .name = name};
  struct st_group_delete_ret out;
  auto_arena mem = {0};
  int code = store_group_delete(r->o.store, &in, &out, &mem, e);
  if (code < 0)
    return code;
  struct events v = {0};
  mutex_lock(&r->lock);
  struct group *g = group_find(r, ns, name);
  if (g) {
    group_gone(r, g, &v);
    g->changed_at = registry_mono(r);
  }
  mutex_unlock(&r->lock);
  events_deliver(r, &v);
  log_info("executor group deleted", LF_L("namespace", ns), LF_L("group", name));
  return 0;
}
