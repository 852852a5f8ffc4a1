#include "net/target.h"
#include "base/mem.h"
#include "base/parse.h"
#include "net/target_internal.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <netdb.h>

#define TARGET_URL_MAX 2048
#define HOST_MAX       253

struct parts {
  bool https, bracketed;
  int port;
  struct slice host, path;
};

static bool take_prefix(struct slice *s, const char *z) {
  size_t n = strlen(z);
  if (s->n < n || !slice_eqz_nocase(slice_n(s->p, n), z))
    return false;
  *s = slice_n(s->p + n, s->n - n);
  return true;
}

static int check_characters(struct slice url, struct err *e) {
  if (!url.n || url.n > TARGET_URL_MAX)
    return err_set(e, ERR_INVALID, "the URL must have 1 to %d bytes", TARGET_URL_MAX);
  for (size_t i = 0; i < url.n; i++) {
    unsigned char c = (unsigned char)url.p[i];
    if (c <= ' ' || c >= 127 || strchr("\"<>\\^`{|}", c))
      return err_set(e, ERR_INVALID, "the URL has a character that is not allowed at byte %zu", i + 1);
    if (c == '?' || c == '#')
      return err_set(e, ERR_INVALID, "the URL must have no %s", c == '?' ? "query" : "fragment");
  }
  return 0;
}

/* Letters, digits, '-' and '_' between single dots. */
static int check_name(struct slice host, struct err *e) {
  bool dot = true;
  for (size_t i = 0; i < host.n; i++) {
    char c = host.p[i];
    if (c == '.' ? dot : !isalnum((unsigned char)c) && c != '-' && c != '_')
      return err_set(e, ERR_INVALID, "\"%.*s\" is not a host name", SLICE_FMT(host));
    dot = c == '.';
  }
  if (!host.n || dot || host.n > HOST_MAX)
    return err_set(e, ERR_INVALID, "the host name is missing, ends with a dot or is too long");
  return 0;
}

static int split_port(struct slice text, struct parts *p, struct err *e) {
  int64_t port;
  if (!text.p)
    return 0;
  int r = parse_i64(text, 1, 65535, &port, NULL);
  if (r < 0)
    return err_set(e, ERR_INVALID, "the port \"%.*s\" must be 1 to 65535", SLICE_FMT(text));
  p->port = (int)port;
  return 0;
}

static int split_authority(struct slice authority, struct parts *p, struct err *e) {
  struct slice port = {0};
  if (memchr(authority.p, '@', authority.n))
    return err_set(e, ERR_INVALID, "the URL must have no user info");
  if (authority.n && authority.p[0] == '[') {
    p->bracketed = true;
    p->host = slice_cut(slice_n(authority.p + 1, authority.n - 1), ']', &port);
    if (!port.p || (port.n && port.p[0] != ':'))
      return err_set(e, ERR_INVALID, "an IPv6 address must be in brackets, as in http://[::1]:8080");
    port = port.n ? slice_n(port.p + 1, port.n - 1) : (struct slice){0};
  } else {
    p->host = slice_cut(authority, ':', &port);
    int r = check_name(p->host, e);
    if (r < 0)
      return r;
  }
  return split_port(port, p, e);
}

static int split(struct slice url, struct parts *ret, struct err *e) {
  struct parts p = {0};
  int r = check_characters(url, e);
  if (r < 0)
    return r;
  p.https = take_prefix(&url, "https://");
  if (!p.https && !take_prefix(&url, "http://"))
    return err_set(e, ERR_INVALID, "the URL must begin with http:// or https://");
  p.port = p.https ? 443 : 80;
  const char *slash = memchr(url.p, '/', url.n);
  size_t n = slash ? (size_t)(slash - url.p) : url.n;
  p.path = slice_n(url.p + n, url.n - n);
  while (p.path.n && p.path.p[p.path.n - 1] == '/')
    p.path.n--;
  r = split_authority(slice_n(url.p, n), &p, e);
  if (r < 0)
    return r;
  *ret = p;
  return 0;
}

/* A host whose last label is a number is an IPv4 address to one reader or another ("0x7f.1", "2130706433",
 * "0177.0.0.1"); only the canonical notation is accepted. */
static bool looks_numeric(const char *host) {
  const char *last = strrchr(host, '.');
  last = last ? last + 1 : host;
  if (last[0] == '0' && (last[1] == 'x' || last[1] == 'X'))
    return true;
  return *last && strspn(last, "0123456789") == strlen(last);
}

/* 1 = it is an address, now in *ret; 0 = a name. */
static int numeric(const struct parts *p, const char *host, struct sockaddr_storage *ret, struct err *e) {
  char text[INET6_ADDRSTRLEN];
  struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;
  *ret = (struct sockaddr_storage){0};
  if (p->bracketed) {
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1)
      return err_set(e, ERR_INVALID, "\"%s\" is not an IPv6 address", host);
    v6->sin6_family = AF_INET6;
    return 1;
  }
  if (!looks_numeric(host))
    return 0;
  if (inet_pton(AF_INET, host, &v4->sin_addr) != 1 || !inet_ntop(AF_INET, &v4->sin_addr, text, sizeof text) ||
      strcmp(text, host) != 0)
    return err_set(e, ERR_INVALID, "\"%s\" is not an address in the usual notation, such as 10.0.0.7", host);
  v4->sin_family = AF_INET;
  return 1;
}

/* The first allowed address, IPv4 before IPv6: many a service on a name with both listens on IPv4 only,
 * and only one address is ever tried. */
static int choose(const struct addrinfo *list, const struct network_list *allowed, const char *host,
                  struct sockaddr_storage *ret, struct err *e) {
  static const int families[] = {AF_INET, AF_INET6};
  int refusal = err_set(e, ERR_UNREACHABLE, "%s has no address", host);
  for (size_t f = 0; f < 2; f++)
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
      if (a->ai_family != families[f] || a->ai_addrlen > sizeof *ret)
        continue;
      int r = network_check(allowed, a->ai_addr, host, e);
      if (r == 0) {
        *ret = (struct sockaddr_storage){0};
        memcpy(ret, a->ai_addr, a->ai_addrlen);
        return 0;
      }
      refusal = r;
    }
  return refusal;
}

static int resolve(const struct parts *p, const char *host, const struct network_list *allowed,
                   struct sockaddr_storage *ret, struct err *e) {
  int r = numeric(p, host, ret, e);
  if (r < 0)
    return r;
  if (r > 0) {
    r = network_check(allowed, (const struct sockaddr *)ret, host, e);
  } else {
    struct addrinfo *list, hints = {.ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP};
    int g = getaddrinfo(host, NULL, &hints, &list);
    if (g != 0)
      return err_set(e, ERR_UNREACHABLE, "cannot resolve %s: %s", host, gai_strerror(g));
    r = choose(list, allowed, host, ret, e);
    freeaddrinfo(list);
  }
  if (r < 0)
    return r;
  if (ret->ss_family == AF_INET)
    ((struct sockaddr_in *)ret)->sin_port = htons((uint16_t)p->port);
  else
    ((struct sockaddr_in6 *)ret)->sin6_port = htons((uint16_t)p->port);
  return 0;
}

static char *authority_text(const struct parts *p, const char *host) {
  struct str s;
  str_init(&s, TARGET_URL_MAX);
  str_addf(&s, p->bracketed ? "[%s]" : "%s", host);
  if (p->port != (p->https ? 443 : 80))
    str_addf(&s, ":%d", p->port);
  return str_take(&s);
}

static char *url_text(const struct target *t) {
  struct str s;
  str_init(&s, 2 * TARGET_URL_MAX);
  str_addf(&s, "%s://%s%s", t->https ? "https" : "http", t->authority, t->base_path);
  return str_take(&s);
}

int target_parse(struct slice url, const struct network_list *allowed, struct target **ret, struct err *e) {
  struct parts p = {0};
  struct sockaddr_storage address;
  int r = split(url, &p, e);
  if (r < 0)
    return r;
  char *host = mem_slicedup(p.host);
  r = resolve(&p, host, allowed, &address, e);
  if (r < 0) {
    mem_free(host);
    return r;
  }
  struct target *t = mem_zalloc(sizeof *t);
  t->refs = 1;
  t->https = p.https;
  t->port = p.port;
  t->address = address;
  t->host = host;
  t->authority = authority_text(&p, host);
  t->base_path = mem_slicedup(p.path);
  t->url = url_text(t);
  t->key_hash =
      slice_hash(slice_of(t->authority)) ^ slice_hash(slice_n((const char *)&t->address, sizeof t->address));
  *ret = t;
  return 0;
}

bool target_same_peer(const struct target *a, const struct target *b) {
  return a == b ||
         (a->key_hash == b->key_hash && a->https == b->https && strcmp(a->authority, b->authority) == 0 &&
          memcmp(&a->address, &b->address, sizeof a->address) == 0);
}

struct target *target_ref(struct target *t) {
  atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
  return t;
}

void target_unref(struct target **tp) {
  struct target *t = *tp;
  *tp = NULL;
  if (!t || atomic_fetch_sub_explicit(&t->refs, 1, memory_order_acq_rel) != 1)
    return;
  mem_free(t->url);
  mem_free(t->host);
  mem_free(t->authority);
  mem_free(t->base_path);
  mem_free(t);
}

const char *target_url(const struct target *t) { return t->url; }
