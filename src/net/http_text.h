#pragma once
/* Private to net: pieces of HTTP text. */
#include "net/buf.h"
#include "net/http_server.h"

const char *http_reason(int status); /* "OK"; "Status" when unknown */
bool slice_nocase(struct slice a, struct slice b);
void buf_add_number(struct buf *b, uint64_t v);
/* "Name: value\r\n". A header that could break the message apart (control characters) is left out. */
void buf_add_header(struct buf *b, struct slice name, struct slice value);
/* "Date: …\r\n" of now; the text is cached by each thread for the second. */
void buf_add_date(struct buf *b);

struct http_reply_how {
  bool head;       /* an answer to HEAD: no body */
  bool close;      /* the connection ends with this answer */
  bool keep_alive; /* say so: the client speaks HTTP/1.0 */
};
/* The whole answer, ready for one write. */
void http_reply_text(struct buf *out, const struct http_reply *r, struct http_reply_how how);
