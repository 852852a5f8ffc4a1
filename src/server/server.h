#pragma once
/* One node of the centre, wired together: used by keloud's main and by the bench. */
#include "base/conf.h"
#include "base/err.h"
#include "base/str.h"

struct server;
struct dispatch_channel;
struct dispatcher;
struct server_options {
  struct conf *conf; /* a reference is taken */
  const char *version;
  /* For the bench: another channel than HTTP. NULL: HTTP. */
  struct dispatch_channel (*channel)(void *arg, struct dispatcher *d);
  void *channel_arg;
};
/* Opens and migrates the database, joins the cluster, starts all threads and listens. */
int server_start(const struct server_options *o, struct server **ret, struct err *e);
int server_port(const struct server *s);
/* All owned shards are loaded and firing; else `why` (may be NULL) says what is missing. */
bool server_ready(struct server *s, struct str *why);
/* Graceful: stop accepting, stop firing, write what is in progress, leave the cluster. Frees. */
void server_stop(struct server **s);
