#pragma once
/* The file with the first admin token: a pending one is written before the token is valid, and gets its final name after.
 * Private to src/access. */
#include "base/err.h"
#include "base/str.h"
#include <stdbool.h>

struct token_file {
  char pending[4096], final[4096], former[4096]; /* <dir>/admin.token.new, admin.token, admin.token.old */
  const char *dir;                               /* borrowed */
};
int token_file_init(struct token_file *f, const char *dir, struct err *e);
/* The token in the pending file; -ENOENT: none (or only a torn one, which is as good as none). */
int token_file_read(const struct token_file *f, char *ret_text, size_t size, struct err *e);
/* Write the pending file, mode 0600, and make it durable. */
int token_file_write(const struct token_file *f, const char *text, struct err *e);
/* Give the pending file its final name, durably. What had that name is kept as the former one (0600). *ret_kept: there was one. */
int token_file_publish(const struct token_file *f, bool *ret_kept, struct err *e);
void token_file_discard(const struct token_file *f);
