#pragma once
/* Namespaces, tokens, remembered answers: the operations on them. Part of store.h, which is the contract of all operations; owner
 * src/access. */
#include "store/rows.h"

struct st_namespace_put {
  struct slice name;
}; /* existing: returns 1 */
struct st_namespace_put_ret {
  char unused;
};
struct st_namespace_list {
  char unused;
};
struct st_namespace_list_ret {
  struct slice *names;
  struct namespace_row *rows; /* the same ones */
  size_t count;
};
/* How long and how many ended runs a namespace keeps. ERR_NOT_FOUND. */
struct st_namespace_set {
  struct namespace_row row;
};
struct st_namespace_set_ret {
  char unused;
};
/* only_if_none: bootstrap, written only while no token exists (under the migration lock); else returns 1. */
struct st_token_put {
  struct token_row token;
  bool only_if_none;
};
struct st_token_put_ret {
  int64_t id;
};
struct st_token_find {
  uint8_t hash[32];
}; /* ERR_NOT_FOUND also when expired */
struct st_token_find_ret {
  struct token_row token;
};
struct st_token_list {
  int64_t after;
  int32_t limit;
};
struct st_token_list_ret {
  struct token_row *rows;
  size_t count;
};
struct st_token_delete {
  int64_t id;
};
struct st_token_delete_ret {
  char unused;
};
struct st_idem_expire {
  int32_t limit;
};
struct st_idem_expire_ret {
  int64_t removed;
};
