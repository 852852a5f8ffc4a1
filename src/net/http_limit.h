#pragma once
/* Private to net: who asks how much. One table for addresses, one for tokens; an entry counts what its owner holds (connections,
 * requests in progress) and how often he asks. Entries that nobody holds are kept until their rate has recovered, at most
 * HTTP_LIMIT_ENTRIES of them. One thread. */
#include "base/str.h"
#include "base/time.h"
#include "net/list.h"
#include <stdint.h>

#define HTTP_LIMIT_ENTRIES 65536
#define HTTP_LIMIT_BURST   2 /* seconds' worth of the rate may come at once */

struct http_limit_entry {
  struct http_limit_entry *next; /* in its bucket */
  struct link unused;            /* while held == 0 */
  uint64_t key;
  int64_t due_ns; /* when the rate will have recovered */
  int held;
};

struct http_limiter {
  struct http_limit_entry **buckets;
  size_t bucket_n, n;
  struct link unused; /* first: longest so */
  uint64_t seed[2];   /* nobody outside can tell which owners share a bucket */
  int64_t step_ns;    /* between two of an even rate; 0: any rate */
  int max_held;       /* 0: any number */
};

/* `rate` a second, 0 = any. */
void http_limiter_init(struct http_limiter *l, int64_t rate, int max_held);
void http_limiter_done(struct http_limiter *l);
/* The entry of an owner, held once more. Never NULL; let go with http_limiter_release. */
struct http_limit_entry *http_limiter_hold(struct http_limiter *l, struct slice owner, usec_t now);
void http_limiter_release(struct http_limiter *l, struct http_limit_entry *e);
/* Does he hold more than he may (the last hold counts)? */
bool http_limiter_full(const struct http_limiter *l, const struct http_limit_entry *e);
/* One more, if the rate allows it: 0; else the seconds (at least 1) after which it will. */
int http_limiter_take(const struct http_limiter *l, struct http_limit_entry *e, usec_t now);
/* Forget those that nobody holds and that have recovered. Call now and then. */
void http_limiter_tidy(struct http_limiter *l, usec_t now);
