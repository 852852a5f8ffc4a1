#include "server/parts.h"
#include "base/log.h"
#include <sys/resource.h>

enum { BESIDE = 256 }; /* connections that are told that they are too many, and those being closed */

/* Every connection is a file descriptor. Rather no start than a node that has none left for its database. */
int server_raise_files(struct server *s, struct err *e) {
  struct rlimit l;
  int64_t clients = conf_int(s->conf, "http.max_connections");
  rlim_t need = (rlim_t)(clients + BESIDE + conf_int(s->conf, "node.reserved_files"));
  if (getrlimit(RLIMIT_NOFILE, &l) < 0)
    return err_set(e, -errno, "the limit of file descriptors cannot be read: %s", strerror(errno));
  if (l.rlim_max != RLIM_INFINITY && l.rlim_max < need)
    return err_field(
        e, ERR_INVALID, "http.max_connections",
        "%lld connections need %llu file descriptors with node.reserved_files, but this process may have at "
        "most %llu: lower http.max_connections, or raise the hard limit (ulimit -Hn, LimitNOFILE= of "
        "systemd)",
        (long long)clients, (unsigned long long)need, (unsigned long long)l.rlim_max);
  if (l.rlim_cur == l.rlim_max)
    return 0;
  l.rlim_cur = l.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &l) < 0)
    return err_set(e, -errno, "the limit of file descriptors cannot be raised to %llu: %s",
                   (unsigned long long)l.rlim_max, strerror(errno));
  log_debug("limit of file descriptors raised", LF_I("files", (int64_t)l.rlim_max));
  return 0;
}
