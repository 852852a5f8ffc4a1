#pragma once
/* Private to net: what the client needs of a target. */
#include "net/target.h"
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/socket.h>

struct target {
  atomic_int refs;
  bool https;
  int port;
  struct sockaddr_storage address; /* the only one ever connected to */
  uint64_t key_hash;
  char *url;       /* as given, without a trailing '/' */
  char *host;      /* without brackets: TLS name and SNI */
  char *authority; /* Host header; also, with https and address, the identity of a pool */
  char *base_path; /* "" or "/base" */
};

/* Same host, port, address and scheme: connections may be shared. */
bool target_same_peer(const struct target *a, const struct target *b);

/* Is this address allowed? 0, or ERR_ADDRESS with the reason. `host` is for the message. */
int network_check(const struct network_list *l, const struct sockaddr *a, const char *host, struct err *e);
