#pragma once
/* The HTTP channel: POST {executor}/kelou/v1/run and /kelou/v1/cancel, signed (semantics.md §6). */
#include "dispatch/dispatcher.h"

struct http_client;
struct http_channel;
struct http_channel_options {
  struct http_client *client; /* borrowed */
  struct registry *registry;  /* for the groups' secrets; borrowed */
  const struct clock *clock;  /* its wall time stands in the signatures */
  int cancel_tries;           /* 3 */
  usec_t cancel_timeout;      /* 5 s each */
};
void http_channel_options_default(struct http_channel_options *o);
struct http_channel *http_channel_new(const struct http_channel_options *o, struct dispatcher *d);
void http_channel_free(struct http_channel **c); /* after the client is freed */
struct dispatch_channel http_channel_ops(struct http_channel *c);
