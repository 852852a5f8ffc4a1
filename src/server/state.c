#include "server/parts.h"
#include "base/log.h"
#include "base/file.h"
#include "base/mem.h"
#include "base/parse.h"
#include <fcntl.h>
#include <unistd.h>

/* Small files of the state folder: written to a neighbour and renamed, so that nobody ever reads half of one. */
static int write_file(struct server *s, const char *name, const char *text, struct err *e) {
  const char *path = arena_printf(&s->mem, "%s/%s", s->state_dir, name),
             *temp = arena_printf(&s->mem, "%s.new", path);
  int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  size_t n = strlen(text);
  bool ok = fd >= 0 && write(fd, text, n) == (ssize_t)n && fsync(fd) == 0;
  int saved = errno;
  if (fd >= 0)
    close(fd);
  if (!ok || rename(temp, path) < 0)
    return err_field(e, -(ok ? errno : saved), "node.state_dir", "file %s cannot be written: %s", path,
                     strerror(ok ? errno : saved));
  return 0;
}

int server_node_id(struct server *s, struct err *e) {
  const char *set = conf_str(s->conf, "node.id");
  if (*set)
    return text_copy(s->node_id, sizeof s->node_id, slice_of(set));
  auto_str text;
  str_init(&text, 256);
  if (file_read_below(s->state_dir, "node.id", 200, &text, NULL) >= 0) {
    struct slice id = str_slice(&text);
    while (id.n && (id.p[id.n - 1] == '\n' || id.p[id.n - 1] == ' '))
      id.n--;
    if (parse_name(id, sizeof s->node_id - 1, e) < 0)
      return err_field(e, ERR_INVALID, "node.id", "%s/node.id is not a node's name: remove it or set node.id",
                       s->state_dir);
    return text_copy(s->node_id, sizeof s->node_id, id);
  }
  uint8_t random[6];
  char hex[2 * sizeof random + 1];
  crypto_random(random, sizeof random);
  hex_encode(random, sizeof random, hex);
  (void)snprintf(s->node_id, sizeof s->node_id, "node-%s", hex);
  return write_file(s, "node.id", s->node_id, e);
}

int server_write_port(struct server *s, struct err *e) {
  char text[16];
  (void)snprintf(text, sizeof text, "%d\n", server_port(s));
  return write_file(s, "http.port", text, e);
}

int server_split_address(const char *text, char ret_address[64], int *ret_port, struct err *e) {
  const char *colon = strrchr(text, ':');
  int64_t port;
  if (!colon || parse_i64(slice_of(colon + 1), 0, 65535, &port, NULL) < 0)
    return err_field(e, ERR_INVALID, "http.listen",
                     "expected address:port, for example 127.0.0.1:8390 or [::1]:8390");
  struct slice address = slice_n(text, (size_t)(colon - text));
  if (address.n >= 2 && address.p[0] == '[' && address.p[address.n - 1] == ']')
    address = slice_n(address.p + 1, address.n - 2);
  if (address.n == 0 || text_copy(ret_address, 64, address) < 0)
    return err_field(e, ERR_INVALID, "http.listen", "expected a numeric address before the port");
  *ret_port = (int)port;
  return 0;
}

/* The version line of tzdata.zi ("# version 2026a"), for the node's row; "unknown" where the system has none. */
const char *server_tzdata(const struct conf *conf, struct arena *mem) {
  auto_str text;
  str_init(&text, (size_t)1 << 20);
  if (file_read_below(conf_str(conf, "trigger.zone_dir"), "tzdata.zi", (size_t)1 << 20, &text, NULL) < 0)
    return "unknown";
  struct slice rest, line = slice_cut(str_slice(&text), '\n', &rest);
  static const char PREFIX[] = "# version ";
  if (line.n > sizeof PREFIX && memcmp(line.p, PREFIX, sizeof PREFIX - 1) == 0)
    return arena_slice(mem, slice_n(line.p + sizeof PREFIX - 1, line.n - (sizeof PREFIX - 1))).p;
  return "unknown";
}

void server_free(struct server **p) {
  struct server *s = *p;
  monitor_stop();
  if (s->engine)
    engine_free(&s->engine);
  forward_free(&s->forward);
  peers_free(&s->peers);
  directory_free(&s->directory);
  store_close(&s->inbox_store);
  run_bounds_free(&s->bounds);
  if (s->runs)
    run_service_free(&s->runs);
  if (s->dispatcher)
    dispatcher_free(&s->dispatcher);
  if (s->http_channel)
    http_channel_free(&s->http_channel);
  if (s->intake)
    intake_free(&s->intake);
  if (s->claims)
    claims_free(&s->claims);
  logs_free(&s->logs);
  if (s->tasks)
    task_service_free(&s->tasks);
  if (s->access)
    access_free(&s->access);
  if (s->registry)
    registry_free(&s->registry);
  if (s->alerts)
    alerts_free(&s->alerts);
  if (s->alert_networks)
    network_list_free(&s->alert_networks);
  if (s->networks)
    network_list_free(&s->networks);
  if (s->cluster)
    cluster_free(&s->cluster);
  store_close(&s->api_store);
  if (s->source)
    store_source_close(&s->source);
  if (s->loop)
    loop_stop(&s->loop);
  if (s->janitor_made) {
    mutex_done(&s->janitor_lock);
    cond_done(&s->janitor_wake);
  }
  conf_unref(&s->conf);
  arena_done(&s->mem);
  log_node(NULL);
  mem_free(s);
  *p = NULL;
}
