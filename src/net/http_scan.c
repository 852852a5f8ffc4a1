#include "net/http_scan.h"

static const char PROTOCOL[] = "HTTP/";
enum { PROTOCOL_BYTES = sizeof PROTOCOL - 1, SPACES = 2 };

static const char *line_end(struct http_scan *s) {
  if (!s->line_bytes) { /* before the request line empty ones are passed over (RFC 9112 §2.2) */
    s->done = s->first;
    return NULL;
  }
  if (!s->first && (s->spaces != SPACES || s->protocol != PROTOCOL_BYTES))
    return "not a request line of HTTP";
  s->first = true;
  s->line_bytes = 0;
  return NULL;
}

static const char *request_line_byte(struct http_scan *s, char c) {
  if (c == ' ') {
    if (!s->line_bytes || s->last == ' ' || s->spaces == SPACES)
      return "a space too many in the request line";
    s->spaces++;
  } else if (s->spaces == SPACES && s->protocol < PROTOCOL_BYTES) {
    if (c != PROTOCOL[s->protocol++])
      return "not a request line of HTTP";
  }
  return NULL;
}

static const char *byte(struct http_scan *s, char c) {
  const char *why = NULL;
  if (s->cr) {
    s->cr = false;
    return c == '\n' ? line_end(s) : "a CR without its LF";
  }
  if (c == '\n')
    return "an LF without its CR";
  if (c == '\r') {
    s->cr = true;
    return NULL;
  }
  if (!s->first)
    why = request_line_byte(s, c);
  else if (!s->line_bytes && (c == ' ' || c == '\t'))
    why = "a field on more than one line";
  else if (!s->line_bytes && c == ':')
    why = "a field without a name";
  s->line_bytes++;
  s->last = c;
  return why;
}

const char *http_scan(struct http_scan *s, const char *p, size_t n, size_t *ret_used) {
  const char *why = NULL;
  size_t i = 0;
  while (i < n && !s->done && !why)
    why = byte(s, p[i++]);
  s->bytes += i;
  *ret_used = i;
  return why;
}
