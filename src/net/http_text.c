#include "net/http_text.h"
#include "base/time.h"
#include <stdio.h>
#include <strings.h>

static const char *const reasons[600] = {
    [100] = "Continue",
    [200] = "OK",
    [201] = "Created",
    [202] = "Accepted",
    [204] = "No Content",
    [206] = "Partial Content",
    [301] = "Moved Permanently",
    [302] = "Found",
    [303] = "See Other",
    [304] = "Not Modified",
    [307] = "Temporary Redirect",
    [308] = "Permanent Redirect",
    [400] = "Bad Request",
    [401] = "Unauthorized",
    [403] = "Forbidden",
    [404] = "Not Found",
    [405] = "Method Not Allowed",
    [406] = "Not Acceptable",
    [408] = "Request Timeout",
    [409] = "Conflict",
    [410] = "Gone",
    [411] = "Length Required",
    [412] = "Precondition Failed",
    [413] = "Content Too Large",
    [414] = "URI Too Long",
    [415] = "Unsupported Media Type",
    [417] = "Expectation Failed",
    [422] = "Unprocessable Content",
    [428] = "Precondition Required",
    [429] = "Too Many Requests",
    [431] = "Request Header Fields Too Large",
    [500] = "Internal Server Error",
    [501] = "Not Implemented",
    [502] = "Bad Gateway",
    [503] = "Service Unavailable",
    [504] = "Gateway Timeout",
    [505] = "HTTP Version Not Supported",
};

const char *http_reason(int status) {
  const char *text = status >= 0 && status < 600 ? reasons[status] : NULL;
  return text ? text : "Status";
}

bool slice_nocase(struct slice a, struct slice b) { return a.n == b.n && strncasecmp(a.p, b.p, a.n) == 0; }

void buf_add_number(struct buf *b, uint64_t v) {
  char text[20];
  size_t i = sizeof text;
  do {
    text[--i] = (char)('0' + v % 10);
    v /= 10;
  } while (v);
  buf_add(b, text + i, sizeof text - i);
}

static bool clean(struct slice s) {
  for (size_t i = 0; i < s.n; i++)
    if (((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 127)
      return false;
  return true;
}

void buf_add_header(struct buf *b, struct slice name, struct slice value) {
  if (!name.n || !clean(name) || !clean(value))
    return;
  buf_add(b, name.p, name.n);
  buf_lit(b, ": ");
  buf_add(b, value.p, value.n);
  buf_lit(b, "\r\n");
}

/* "Sun, 06 Nov 1994 08:49:37 GMT", RFC 9110 §5.6.7 */
static int date_text(int64_t seconds, char *ret_text, size_t size) {
  static const char week[] = "SunMonTueWedThuFriSat", months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
  int64_t days = seconds / 86400, year;
  int month, day, rest = (int)(seconds % 86400);
  civil_from_days(days, &year, &month, &day);
  return snprintf(ret_text, size, "Date: %.3s, %02d %.3s %04d %02d:%02d:%02d GMT\r\n",
                  week + 3 * weekday_from_days(days), day, months + 3 * (month - 1), (int)year, rest / 3600,
                  rest / 60 % 60, rest % 60);
}

void buf_add_date(struct buf *b) {
  static _Thread_local char text[64];
  static _Thread_local int length;
  static _Thread_local int64_t second = -1;
  int64_t now = clock_system.wall(&clock_system) / USEC_PER_SEC;
  if (now != second) {
    length = date_text(now, text, sizeof text);
    second = now;
  }
  buf_add(b, text, (size_t)length);
}

void http_reply_text(struct buf *out, const struct http_reply *r, struct http_reply_how how) {
  const char *reason = http_reason(r->status);
  bool bodiless = r->status == 204 || r->status == 304;
  (void)buf_room(out, 256 + (how.head ? 0 : r->body.n)); /* one allocation in the common case */
  buf_lit(out, "HTTP/1.1 ");
  buf_add_number(out, (uint64_t)r->status);
  buf_lit(out, " ");
  buf_add(out, reason, strlen(reason));
  buf_lit(out, "\r\n");
  buf_add_date(out);
  if (r->content_type)
    buf_add_header(out, SLICE("Content-Type"), slice_of(r->content_type));
  for (size_t i = 0; i < r->header_count; i++)
    buf_add_header(out, r->headers[i].name, r->headers[i].value);
  if (!bodiless) {
    buf_lit(out, "Content-Length: ");
    buf_add_number(out, r->body.n);
    buf_lit(out, "\r\n");
  }
  if (how.close)
    buf_lit(out, "Connection: close\r\n");
  else if (how.keep_alive)
    buf_lit(out, "Connection: keep-alive\r\n");
  buf_lit(out, "\r\n");
  if (!how.head && !bodiless)
    buf_add(out, r->body.p, r->body.n);
}

struct slice http_request_header(const struct http_request *r, const char *name) {
  for (size_t i = 0; i < r->header_count; i++)
    if (slice_eqz_nocase(r->headers[i].name, name))
      return r->headers[i].value;
  return (struct slice){0};
}

static int hex_value(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  c |= 0x20;
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int http_decode(struct slice s, bool form, struct str *out) {
  for (size_t i = 0; i < s.n; i++) {
    char c = s.p[i];
    if (c == '%') {
      int high = s.n - i > 2 ? hex_value(s.p[i + 1]) : -1;
      int low = s.n - i > 2 ? hex_value(s.p[i + 2]) : -1;
      if (high < 0 || low < 0)
        return -EINVAL;
      c = (char)(high << 4 | low);
      i += 2;
    } else if (c == '+' && form) {
      c = ' ';
    }
    if (c == 0)
      return -EINVAL;
    str_addc(out, c);
  }
  return 0;
}

bool http_query_next(struct slice *rest, struct slice *ret_name, struct slice *ret_value) {
  while (rest->n) {
    struct slice tail, pair = slice_cut(*rest, '&', &tail);
    *rest = tail;
    if (!pair.n)
      continue;
    *ret_name = slice_cut(pair, '=', ret_value);
    return true;
  }
  return false;
}
