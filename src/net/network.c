/* Lists of networks, and the addresses that are never called: the SSRF guard's table. */
#include "base/mem.h"
#include "base/parse.h"
#include "net/target_internal.h"
#include <arpa/inet.h>

#define NETWORKS_MAX 256

struct network {
  bool v6;
  uint8_t prefix; /* bits */
  uint8_t address[16];
};

struct network_list {
  struct network *v;
  size_t n, cap;
  bool public;
  const char *setting; /* borrowed; NULL: none */
};

struct network_text {
  const char *cidr, *what;
};

/* Never called, whatever the list says. */
static const struct network_text refused[] = {
    {"0.0.0.0/8", "unspecified"},
    {"169.254.0.0/16", "link-local, where cloud metadata lives"},
    {"224.0.0.0/4", "multicast"},
    {"240.0.0.0/4", "reserved"},
    {"100.100.100.200/32", "a cloud metadata address"},
    {"168.63.129.16/32", "a cloud metadata address"},
    {"192.0.0.192/32", "a cloud metadata address"},
    {"::/128", "unspecified"},
    {"fd00:ec2::254/128", "a cloud metadata address"},
    {"fd20:ce::254/128", "a cloud metadata address"},
    {"fe80::/10", "link-local"},
    {"fec0::/10", "site-local"},
    {"ff00::/8", "multicast"},
    {"2002::/16", "a tunnel to IPv4"},
    {"2001::/32", "a tunnel to IPv4"},
    {"64:ff9b:1::/48", "a tunnel to IPv4"},
};

static const struct network_text loopback[] = {{"127.0.0.0/8", ""}, {"::1/128", ""}};
static const struct network_text private_use[] = {
    {"10.0.0.0/8", ""}, {"172.16.0.0/12", ""}, {"192.168.0.0/16", ""}, {"fc00::/7", ""}};
/* With loopback and private use: what is not "public". */
static const struct network_text special[] = {
    {"100.64.0.0/10", ""}, {"192.0.0.0/24", ""},    {"192.0.2.0/24", ""},
    {"198.18.0.0/15", ""}, {"198.51.100.0/24", ""}, {"203.0.113.0/24", ""},
    {"100::/64", ""},      {"2001:db8::/32", ""},   {"::/96", ""},
};
#define COUNT(a) (sizeof(a) / sizeof *(a))

static int cidr_parse(struct slice text, struct network *ret, struct err *e) {
  struct slice bits, host = slice_cut(slice_trim(text), '/', &bits);
  char z[INET6_ADDRSTRLEN];
  struct network n = {0};
  if (text_copy(z, sizeof z, host) < 0)
    return err_set(e, ERR_INVALID, "\"%.*s\" is not a network such as 10.0.0.0/8", SLICE_FMT(text));
  n.v6 = memchr(z, ':', host.n) != NULL;
  if (inet_pton(n.v6 ? AF_INET6 : AF_INET, z, n.address) != 1)
    return err_set(e, ERR_INVALID, "\"%.*s\" is not a network such as 10.0.0.0/8", SLICE_FMT(text));
  int64_t prefix = n.v6 ? 128 : 32;
  if (bits.p) {
    int r = parse_i64(bits, 0, prefix, &prefix, e);
    if (r < 0)
      return r;
  }
  n.prefix = (uint8_t)prefix;
  *ret = n;
  return 0;
}

static bool inside(const struct network *n, bool v6, const uint8_t *address) {
  if (n->v6 != v6)
    return false;
  size_t bytes = n->prefix / 8, bits = n->prefix % 8;
  if (memcmp(n->address, address, bytes) != 0)
    return false;
  uint8_t mask = (uint8_t)(0xff << (8 - bits));
  return bits == 0 || ((n->address[bytes] ^ address[bytes]) & mask) == 0;
}

static const char *find(const struct network_text *table, size_t n, bool v6, const uint8_t *address) {
  for (size_t i = 0; i < n; i++) {
    struct network net;
    if (cidr_parse(slice_of(table[i].cidr), &net, NULL) == 0 && inside(&net, v6, address))
      return table[i].what;
  }
  return NULL;
}

static void add(struct network_list *l, const struct network *n) {
  mem_reserve(l->v, l->n, l->cap);
  l->v[l->n++] = *n;
}

static void add_table(struct network_list *l, const struct network_text *table, size_t n) {
  for (size_t i = 0; i < n; i++) {
    struct network net;
    if (cidr_parse(slice_of(table[i].cidr), &net, NULL) == 0)
      add(l, &net);
  }
}

static int add_word(struct network_list *l, struct slice word, struct err *e) {
  struct network net;
  if (slice_eqz(word, "loopback")) {
    add_table(l, loopback, COUNT(loopback));
  } else if (slice_eqz(word, "private")) {
    add_table(l, private_use, COUNT(private_use));
  } else if (slice_eqz(word, "public")) {
    l->public = true;
  } else {
    int r = cidr_parse(word, &net, e);
    if (r < 0)
      return r;
    add(l, &net);
  }
  return 0;
}

int network_list_parse(struct slice text, struct network_list **ret, struct err *e) {
  struct network_list *l = mem_zalloc(sizeof *l);
  while (text.n) {
    struct slice rest, word = slice_trim(slice_cut(text, ',', &rest));
    int r = 0;
    if (l->n >= NETWORKS_MAX)
      r = err_set(e, ERR_TOO_LARGE, "more than %d networks", NETWORKS_MAX);
    else if (word.n)
      r = add_word(l, word, e);
    if (r < 0) {
      network_list_free(&l);
      return r;
    }
    text = rest;
  }
  *ret = l;
  return 0;
}

void network_list_named(struct network_list *l, const char *setting) { l->setting = setting; }

void network_list_free(struct network_list **l) {
  if (!*l)
    return;
  mem_free((*l)->v);
  mem_free(*l);
  *l = NULL;
}

static bool allowed(const struct network_list *l, bool v6, const uint8_t *address) {
  if (!l)
    return true;
  for (size_t i = 0; i < l->n; i++)
    if (inside(&l->v[i], v6, address))
      return true;
  return l->public && !find(loopback, COUNT(loopback), v6, address) &&
         !find(private_use, COUNT(private_use), v6, address) && !find(special, COUNT(special), v6, address);
}

static int refuse(struct err *e, const char *host, const char *address, const char *why, const char *what) {
  if (strcmp(host, address) == 0)
    return err_set(e, ERR_ADDRESS, "%s is %s %s", host, why, what);
  return err_set(e, ERR_ADDRESS, "%s (%s) is %s %s", host, address, why, what);
}

int network_check(const struct network_list *l, const struct sockaddr *a, const char *host, struct err *e) {
  static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  static const uint8_t nat64[12] = {0, 0x64, 0xff, 0x9b};
  bool v6 = a->sa_family == AF_INET6;
  const uint8_t *address = v6 ? ((const struct sockaddr_in6 *)(const void *)a)->sin6_addr.s6_addr
                              : (const uint8_t *)&((const struct sockaddr_in *)(const void *)a)->sin_addr;
  /* "::7f00:1": an old notation of IPv4 inside; but not "::" and "::1" */
  static const uint8_t zeros[15];
  bool compatible =
      v6 && memcmp(address, zeros, 12) == 0 && (memcmp(address, zeros, sizeof zeros) != 0 || address[15] > 1);
  if (v6 && (compatible || memcmp(address, mapped, sizeof mapped) == 0 ||
             memcmp(address, nat64, sizeof nat64) == 0)) {
    v6 = false; /* what really is called is the IPv4 address inside */
    address += 12;
  }
  char text[INET6_ADDRSTRLEN];
  (void)inet_ntop(v6 ? AF_INET6 : AF_INET, address, text, sizeof text);
  const char *what = find(refused, COUNT(refused), v6, address);
  if (what)
    return refuse(e, host, text, "never called: it is", what);
  if (!allowed(l, v6, address))
    return l->setting ? refuse(e, host, text, "outside the networks of", l->setting)
                      : refuse(e, host, text, "outside the allowed", "networks");
  return 0;
}
