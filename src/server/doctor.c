#include "server/doctor.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/parse.h"
#include "server/parts.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MIB              ((int64_t)1 << 20)
#define EXECUTORS_ASKED  64
#define EXECUTOR_TIMEOUT (3 * USEC_PER_SEC)
#define TASKS_PAGE       100
#define TASKS_PAGES      50 /* so many tasks are looked at, for a bounded time */
#define TASKS_NAMED      5
#define STORE_SLOW       (200 * USEC_PER_MS)
#define CLOCK_OFF        (500 * USEC_PER_MS)
#define INBOX_LATE       (30 * USEC_PER_SEC)
#define ALERT_LATE       (5 * USEC_PER_MIN)
#define ZONES_OLD_YEARS  2
static const int64_t DISK_LOW = 1024 * MIB, DISK_FULL = 100 * MIB;

const char *const doctor_level_names[] = {"OK", "WARN", "FAIL", NULL};
enum finding {
#define FINDING(code, level, check, en, zh, do_en, do_zh) FOUND_##code,
#include "server/doctor.def"
};
static const struct {
  const char *code, *check, *text[2], *advice[2];
  enum doctor_level level;
} findings[] = {
#define FINDING(code, level, check, en, zh, do_en, do_zh)                                                    \
  {#code, #check, {en, zh}, {do_en, do_zh}, DOCTOR_##level},
#include "server/doctor.def"
};

static void fill(struct str *out, const char *text, const char *const fills[3]) {
  for (const char *p = text; *p; p++)
    if (p[0] == '{' && p[1] >= '1' && p[1] <= '3' && p[2] == '}') {
      const char *with = fills[p[1] - '1'];
      str_addz(out, with ? with : "");
      p += 2;
    } else {
      str_addc(out, *p);
    }
}

static json_t *text_of(const char *text, const char *const fills[3]) {
  auto_str out;
  str_init(&out, 8192);
  fill(&out, text, fills);
  json_t *j = json_string(str_failed(&out) || !out.p ? text : out.p);
  return j ? j : json_string(text); /* something filled in is not UTF-8 */
}

/* Up to three texts to be filled in. */
static void found(struct doctor *d, enum finding f, const char *one, const char *two, const char *three) {
  const char *const fills[3] = {one, two, three};
  json_t *o = json_object();
  (void)json_object_set_new(o, "check", json_string(findings[f].check)); /* these fail only without memory */
  (void)json_object_set_new(o, "level", json_string(doctor_level_names[findings[f].level]));
  (void)json_object_set_new(o, "code", json_string(findings[f].code));
  (void)json_object_set_new(o, "message", text_of(findings[f].text[d->zh], fills));
  if (*findings[f].advice[0])
    (void)json_object_set_new(o, "advice", text_of(findings[f].advice[d->zh], fills));
  if (!d->items)
    d->items = json_array();
  (void)json_array_append_new(d->items, o);
  if (findings[f].level > d->worst)
    d->worst = findings[f].level;
}

void doctor_done(struct doctor *d) {
  json_decref(d->items);
  d->items = NULL;
}

void doctor_text(const struct doctor *d, struct str *out) {
  for (size_t i = 0; i < json_array_size(d->items); i++) {
    const json_t *o = json_array_get(d->items, i);
    const char *advice = json_string_value(json_object_get(o, "advice"));
    str_addf(out, "%-4s  %s: %s\n", json_string_value(json_object_get(o, "level")),
             json_string_value(json_object_get(o, "check")),
             json_string_value(json_object_get(o, "message")));
    if (advice)
      str_addf(out, "      → %s\n", advice);
  }
}

static const char *number(char *buf, size_t size, int64_t v) {
  (void)snprintf(buf, size, "%lld", (long long)v); /* 20 digits fit */
  return buf;
}

/* ------------------------------------------------------------------ files, limits, time zones */

static void look_at_file(struct doctor *d, const char *dir, const char *name, bool *ret_good) {
  auto_arena mem = {0};
  const char *path = name ? arena_printf(&mem, "%s/%s", dir, name) : dir;
  struct stat st;
  char mode[8];
  if (stat(path, &st) < 0 || !(st.st_mode & 077))
    return;
  *ret_good = false;
  (void)snprintf(mode, sizeof mode, "%04o", st.st_mode & 07777);
  found(d, name ? FOUND_file_open : FOUND_folder_open, path, mode, NULL);
}

static void look_at_folder(struct doctor *d, const char *dir) {
  static const char *const secrets[] = {NULL, "secret.key", "admin.token", "admin.token.old"};
  bool good = true;
  if (access(dir, F_OK) < 0) {
    found(d, FOUND_folder_absent, dir, NULL, NULL);
    return;
  }
  if (access(dir, W_OK | X_OK) < 0) {
    found(d, FOUND_folder_unwritable, dir, strerror(errno), NULL);
    return;
  }
  for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++)
    look_at_file(d, dir, secrets[i], &good);
  if (good)
    found(d, FOUND_folder_good, dir, NULL, NULL);
}

static void look_at_disk(struct doctor *d, const char *path) {
  struct statvfs v;
  char text[32];
  if (statvfs(path, &v) < 0)
    return; /* what is not there is said elsewhere */
  int64_t left = (int64_t)((uint64_t)v.f_bavail * v.f_frsize);
  (void)snprintf(text, sizeof text, "%lld MiB", (long long)(left / MIB));
  found(d,
        left < DISK_FULL  ? FOUND_disk_full
        : left < DISK_LOW ? FOUND_disk_low
                          : FOUND_disk_good,
        text, path, NULL);
}

/* The folder of an embedded database, when it is not the state folder. */
static void look_at_disks(struct doctor *d, const struct conf *conf) {
  auto_arena mem = {0};
  const char *dir = conf_str(conf, "node.state_dir"), *url = conf_str(conf, "store.url");
  look_at_disk(d, dir);
  if (strncmp(url, "sqlite:", 7) != 0)
    return;
  const char *path = url + 7, *slash = strrchr(path, '/');
  struct slice folder = slash ? slice_n(path, (size_t)(slash - path)) : SLICE(".");
  if (!slice_eqz(folder, dir))
    look_at_disk(d, arena_slice(&mem, folder).p);
}

static void look_at_limits(struct doctor *d, const struct conf *conf) {
  struct rlimit l;
  char have[24], need[24];
  int64_t connections = conf_int(conf, "http.max_connections");
  int64_t needed = connections + conf_int(conf, "node.reserved_files");
  if (getrlimit(RLIMIT_NOFILE, &l) < 0)
    return;
  bool enough = l.rlim_max == RLIM_INFINITY || l.rlim_max >= (rlim_t)needed;
  int64_t most = l.rlim_max > (rlim_t)INT64_MAX ? INT64_MAX : (int64_t)l.rlim_max;
  found(d, enough ? FOUND_files_enough : FOUND_files_few, number(have, sizeof have, most),
        number(need, sizeof need, enough ? connections : needed), NULL);
}

static void look_at_zones(struct doctor *d, const struct conf *conf) {
  auto_arena mem = {0};
  const char *dir = conf_str(conf, "trigger.zone_dir"), *version = server_tzdata(conf, &mem);
  int64_t year = 0;
  char now[TIME_TEXT_MAX];
  (void)time_format(clock_system.wall(&clock_system), now);
  now[4] = '\0';
  int64_t this_year = 0;
  (void)parse_i64(slice_of(now), 0, 9999, &this_year, NULL); /* four digits */
  if (access(arena_printf(&mem, "%s/Europe/Berlin", dir), R_OK) < 0)
    found(d, FOUND_zones_absent, dir, NULL, NULL);
  else if (strlen(version) >= 4 && parse_i64(slice_n(version, 4), 1970, 9999, &year, NULL) == 0 &&
           year + ZONES_OLD_YEARS < this_year)
    found(d, FOUND_zones_old, version, dir, NULL);
  else
    found(d, FOUND_zones_good, version, dir, NULL);
}

static void look_at_listen(struct doctor *d, const struct conf *conf) {
  const char *listen = conf_str(conf, "http.listen");
  if (strncmp(listen, "127.", 4) != 0 && strncmp(listen, "[::1]", 5) != 0)
    found(d, FOUND_listen_open, listen, NULL, NULL);
}

/* ------------------------------------------------------------------ without a server */

static int try_bind(const char *address, int port) {
  struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  bool is_v4 = inet_pton(AF_INET, address, &v4.sin_addr) == 1;
  if (!is_v4 && inet_pton(AF_INET6, address, &v6.sin6_addr) != 1)
    return EINVAL;
  int fd = socket(is_v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, code = 0;
  if (fd < 0)
    return errno;
  if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0 ||
      bind(fd, is_v4 ? (struct sockaddr *)&v4 : (struct sockaddr *)&v6, is_v4 ? sizeof v4 : sizeof v6) < 0 ||
      listen(fd, 1) < 0)
    code = errno;
  close(fd);
  return code;
}

static void look_at_port(struct doctor *d, const struct conf *conf) {
  const char *text = conf_str(conf, "http.listen");
  char address[64];
  int port;
  struct err e = {0};
  if (server_split_address(text, address, &port, &e) < 0) {
    found(d, FOUND_settings_bad, e.field, e.text, NULL);
    return;
  }
  int code = try_bind(address, port);
  found(d, code ? FOUND_port_taken : FOUND_port_bindable, text, strerror(code), NULL);
}

static void clock_offset(struct doctor *d, usec_t offset) {
  char text[TIME_TEXT_MAX];
  usec_t size = offset < 0 ? -offset : offset;
  found(d, size > CLOCK_OFF ? FOUND_clock_off : FOUND_clock_good, duration_format(size, text), NULL, NULL);
}

static void look_at_store(struct doctor *d, const struct conf *conf, bool *ret_in_use) {
  struct store_options o = {.url = conf_str(conf, "store.url"), .clock = &clock_system};
  struct store_probe p = {0};
  struct err e = {0};
  char took[TIME_TEXT_MAX], schema[24], known[24];
  int r = store_source_probe(&o, &p, &e);
  if (r < 0) {
    found(d, r == ERR_NOT_FOUND ? FOUND_store_absent : FOUND_store_down, e.text, NULL, NULL);
    return;
  }
  (void)number(schema, sizeof schema, p.schema);
  (void)number(known, sizeof known, p.known);
  found(d, p.took > STORE_SLOW ? FOUND_store_slow : FOUND_store_good, p.server, duration_format(p.took, took),
        schema);
  if (p.schema != p.known)
    found(d, p.schema < p.known ? FOUND_schema_older : FOUND_schema_newer, schema, known, NULL);
  if (p.in_use)
    found(d, FOUND_store_in_use, NULL, NULL, NULL);
  *ret_in_use = p.in_use;
  clock_offset(d, p.now + p.took / 2 - clock_system.wall(&clock_system));
}

void doctor_look(struct doctor *d, const struct conf *conf, const struct conf_errors *errors) {
  bool in_use = false;
  for (size_t i = 0; !conf && i < errors->n; i++)
    found(d, FOUND_settings_bad, errors->list[i].field, errors->list[i].text, NULL);
  if (!conf)
    return;
  found(d, FOUND_settings_good, NULL, NULL, NULL);
  look_at_listen(d, conf);
  look_at_store(d, conf, &in_use);
  look_at_zones(d, conf);
  look_at_folder(d, conf_str(conf, "node.state_dir"));
  look_at_limits(d, conf);
  look_at_disks(d, conf);
  if (!in_use)
    look_at_port(d, conf);
}

/* ------------------------------------------------------------------ with one */

static void ask_store(struct doctor *d, struct server *s) {
  auto_arena mem = {0};
  struct st_meta_ret meta;
  struct err e = {0};
  char took[TIME_TEXT_MAX], schema[24];
  usec_t began = clock_system.mono(&clock_system);
  if (store_meta(s->api_store, &(struct st_meta){0}, &meta, &mem, &e) < 0) {
    found(d, FOUND_store_down, e.text, NULL, NULL);
    return;
  }
  usec_t length = clock_system.mono(&clock_system) - began;
  found(d, length > STORE_SLOW ? FOUND_store_slow : FOUND_store_good, arena_slice(&mem, meta.server).p,
        duration_format(length, took), number(schema, sizeof schema, meta.schema_version));
  struct cluster_state st;
  cluster_state(s->cluster, &st);
  usec_t offset = cluster_offset(s->cluster);
  if (st.skewed)
    found(d, FOUND_clock_past, duration_format(offset < 0 ? -offset : offset, took), NULL, NULL);
  else
    clock_offset(d, offset);
}

static void look_at_node(struct doctor *d, const struct node_row *n, usec_t now) {
  auto_arena mem = {0};
  char since[TIME_TEXT_MAX];
  if (n->lease_until <= now)
    found(d, FOUND_node_dead, arena_slice(&mem, n->id).p, time_format(n->lease_until, since), NULL);
  else if (n->drained)
    found(d, FOUND_node_drained, arena_slice(&mem, n->id).p, NULL, NULL);
}

static void ask_nodes(struct doctor *d, struct server *s) {
  auto_arena mem = {0};
  struct cluster_nodes all;
  struct cluster_state st;
  char count[24];
  if (cluster_nodes(s->cluster, &all, &mem, NULL) < 0)
    return; /* said already */
  cluster_state(s->cluster, &st);
  for (size_t i = 0; i < all.nodes.count; i++)
    look_at_node(d, &all.nodes.nodes[i], all.nodes.now);
  if (st.zones > 1)
    found(d, FOUND_nodes_zones, number(count, sizeof count, (int64_t)st.zones), NULL, NULL);
  if (st.unowned)
    found(d, FOUND_shards_unowned, number(count, sizeof count, (int64_t)st.unowned), NULL, NULL);
  else
    found(d, FOUND_nodes_good, number(count, sizeof count, (int64_t)st.alive), NULL, NULL);
}

/* Calls under way to executors: whoever is last to let go frees it. */
struct asking {
  struct mutex lock;
  struct cond wake;
  int left;
  struct one {
    struct asking *all;
    char *id, *url;
    char why[128];
    bool reached;
  } * list;
};

static void executor_answered(const struct http_result *r, void *arg) {
  struct one *x = arg;
  struct asking *all = x->all;
  mutex_lock(&all->lock);
  x->reached = r->outcome == HTTP_CALL_ANSWERED || r->outcome == HTTP_CALL_LOST; /* somebody is there */
  (void)text_copy(x->why, sizeof x->why, slice_of(r->why ? r->why : ""));        /* a part of it will do */
  all->left--;
  cond_signal(&all->wake);
  mutex_unlock(&all->lock);
}

static void call_executor(struct server *s, struct one *x) {
  struct target *t = NULL;
  struct err e = {0};
  if (target_parse(slice_of(x->url), s->networks, &t, &e) < 0) {
    executor_answered(&(struct http_result){.outcome = HTTP_CALL_NOT_SENT, .why = e.text}, x);
    return;
  }
  struct http_call call = {.target = t,
                           .method = "GET",
                           .path = SLICE("/"),
                           .timeout = EXECUTOR_TIMEOUT,
                           .done = executor_answered,
                           .arg = x};
  http_client_call(s->client, &call);
  target_unref(&t);
}

/* Up to EXECUTORS_ASKED of those that are online; returns how many could not be reached. */
static int call_executors(struct doctor *d, struct server *s, const struct st_executor_list_ret *rows,
                          struct arena *mem) {
  struct asking all = {.list = arena_array(mem, EXECUTORS_ASKED, sizeof(struct one))};
  int n = 0, failed = 0;
  for (size_t i = 0; i < rows->count && n < EXECUTORS_ASKED; i++)
    if (rows->rows[i].state == EXECUTOR_ONLINE)
      all.list[n++] = (struct one){
          .all = &all,
          .id = arena_printf(mem, "%.*s/%.*s", SLICE_FMT(rows->rows[i].group), SLICE_FMT(rows->rows[i].id)),
          .url = arena_printf(mem, "%.*s", SLICE_FMT(rows->rows[i].url))};
  mutex_init(&all.lock);
  cond_init(&all.wake);
  all.left = n;
  for (int i = 0; i < n; i++)
    call_executor(s, &all.list[i]);
  mutex_lock(&all.lock);
  while (all.left > 0) /* each call ends by itself */
    (void)cond_wait(&all.wake, &all.lock, USEC_NEVER);
  mutex_unlock(&all.lock);
  mutex_done(&all.lock);
  cond_done(&all.wake);
  for (int i = 0; i < n; i++)
    if (!all.list[i].reached) {
      found(d, FOUND_executor_unreachable, all.list[i].id, all.list[i].url, all.list[i].why);
      failed++;
    }
  return failed;
}

/* Is nobody there who could take this task's runs? */
static bool is_unserved(const struct st_executor_list_ret *rows, const struct task_row *task) {
  for (size_t i = 0; i < rows->count; i++)
    if (rows->rows[i].state == EXECUTOR_ONLINE && slice_eq(rows->rows[i].group, task->group) &&
        slice_eq(rows->rows[i].ns, task->ns))
      return false;
  return true;
}

/* Tasks that nobody can do now, by name. */
static void ask_tasks(struct doctor *d, struct server *s, const struct st_executor_list_ret *rows) {
  struct st_task_list in = {.state = TASK_ENABLED, .kind = -1, .limit = TASKS_PAGE};
  auto_str names;
  int named = 0;
  bool more = true;
  str_init(&names, ERR_TEXT_MAX * TASKS_NAMED);
  for (int page = 0; more && page < TASKS_PAGES; page++) {
    auto_arena mem = {0};
    struct st_task_list_ret out;
    if (store_task_list(s->api_store, &in, &out, &mem, NULL) < 0)
      return; /* the database is said to be down already */
    for (size_t i = 0; i < out.count && named <= TASKS_NAMED; i++)
      if (is_unserved(rows, &out.tasks[i]) && named++ < TASKS_NAMED)
        str_addf(&names, "%s%.*s/%.*s", named > 1 ? ", " : "", SLICE_FMT(out.tasks[i].ns),
                 SLICE_FMT(out.tasks[i].v.name));
    more = out.count == TASKS_PAGE && named <= TASKS_NAMED;
    in.after = out.count ? out.tasks[out.count - 1].v.task_id : 0;
  }
  if (named)
    found(d, FOUND_tasks_unserved, names.p, named > TASKS_NAMED ? ", …" : "", NULL);
}

static void ask_executors(struct doctor *d, struct server *s) {
  auto_arena mem = {0};
  struct st_executor_list_ret rows;
  struct err e = {0};
  char buf[TIME_TEXT_MAX];
  int64_t online = 0;
  if (registry_list(s->registry, &(struct st_executor_list){0}, &rows, &mem, &e) < 0)
    return; /* the database is said to be down already */
  for (size_t i = 0; i < rows.count; i++) {
    const struct executor_row *x = &rows.rows[i];
    online += x->state == EXECUTOR_ONLINE;
    if (x->state == EXECUTOR_LOST)
      found(d, FOUND_executor_lost, arena_slice(&mem, x->id).p, arena_slice(&mem, x->group).p,
            time_format(x->beat_at, buf));
  }
  int failed = online && s->client ? call_executors(d, s, &rows, &mem) : 0;
  if (!online)
    found(d, FOUND_executors_none, NULL, NULL, NULL);
  else if (!failed)
    found(d, FOUND_executors_good, number(buf, sizeof buf, online), NULL, NULL);
  ask_tasks(d, s, &rows);
}

static void ask_alerts(struct doctor *d, struct server *s) {
  auto_arena mem = {0};
  struct st_alert_claim_ret look;
  char pending[24], since[TIME_TEXT_MAX];
  if (store_alert_claim(s->api_store, &(struct st_alert_claim){0}, &look, &mem, NULL) < 0)
    return; /* as above */
  (void)number(pending, sizeof pending, look.pending);
  if (look.oldest_at && look.now - look.oldest_at > ALERT_LATE)
    found(d, FOUND_alerts_late, pending, time_format(look.oldest_at, since), NULL);
  else
    found(d, FOUND_alerts_good, pending, NULL, NULL);
}

/* ------------------------------------------------------------------ other nodes */

struct look_at_peers {
  struct doctor *d;
  int64_t good;
};

static void tell_peer(void *arg, const struct peer_state *p) {
  struct look_at_peers *l = arg;
  if (p->outcome == PEER_ANSWERED)
    l->good++;
  else
    found(l->d, p->outcome == PEER_REFUSED ? FOUND_peer_refused : FOUND_peer_silent, p->id, p->why, NULL);
}

static void ask_peers(struct doctor *d, struct server *s) {
  struct look_at_peers l = {.d = d};
  char count[24];
  const char *trouble = server_address_trouble(s), *address = conf_str(s->conf, "node.address");
  if (!s->peers)
    return;
  if (trouble)
    found(d, FOUND_address_nowhere, *address ? address : conf_str(s->conf, "http.listen"), trouble, NULL);
  peers_look(s->peers, tell_peer, &l);
  if (l.good)
    found(d, FOUND_peers_good, number(count, sizeof count, l.good), NULL, NULL);
}

static void ask_inbox(struct doctor *d, struct server *s) {
  auto_arena mem = {0};
  struct st_inbox_oldest_ret ret;
  char since[TIME_TEXT_MAX];
  if (store_inbox_oldest(s->api_store, &(struct st_inbox_oldest){0}, &ret, &mem, NULL) < 0)
    return; /* the database is said to be down already */
  bool late = ret.at && ret.now - ret.at > INBOX_LATE;
  found(d, late ? FOUND_inbox_late : FOUND_inbox_good, late ? time_format(ret.at, since) : NULL, NULL, NULL);
}

void doctor_ask(struct doctor *d, struct server *s) {
  auto_str why;
  char owned[24];
  str_init(&why, ERR_TEXT_MAX);
  if (server_ready(s, &why))
    found(d, FOUND_node_running, s->node_id, s->version,
          number(owned, sizeof owned, (int64_t)cluster_owned(s->cluster)));
  else
    found(d, FOUND_node_not_ready, why.p, NULL, NULL);
  look_at_listen(d, s->conf);
  ask_store(d, s);
  ask_nodes(d, s);
  look_at_zones(d, s->conf);
  look_at_folder(d, s->state_dir);
  look_at_limits(d, s->conf);
  look_at_disks(d, s->conf);
  ask_peers(d, s);
  ask_inbox(d, s);
  ask_executors(d, s);
  ask_alerts(d, s);
}
