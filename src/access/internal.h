#pragma once
/* Private to src/access. */
#include "access/access.h"
#include "base/thread.h"
#include <uthash.h>

#define ACCESS_TOKEN_CHARS (sizeof ACCESS_TOKEN_PREFIX - 1 + 43) /* 256 bits as base64url */

struct cached { /* a positive answer about a token */
  uint8_t hash[32];
  struct access_identity who;
  usec_t until; /* monotonic */
  UT_hash_handle hh;
};
struct known_ns {
  UT_hash_handle hh;
  char name[];
};
struct moment { /* of a question to the store */
  usec_t asked, until;
  uint64_t generation;
};

struct access {
  struct access_options o;
  struct mutex
      bounds;        /* held over a change or a look and what it tells: an older look must not come second */
  struct mutex lock; /* protects what follows */
  uint64_t generation; /* raised by each deletion: an answer on its way from before is not cached */
  struct cached *cache;
  struct known_ns *namespaces;
};
