/* URL checks: the first line is a list of allowed networks, the second a URL. Names are resolved by a table, never by asking anyone:
 * they stand for what an attacker's name server may say. */
#include "fuzz.h"
#include "net/target_internal.h"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdlib.h>

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **ret);
void __wrap_freeaddrinfo(struct addrinfo *list);

/* The length of the name chooses what it resolves to. */
static const char *const answers[] = {
    "10.0.0.7", "127.0.0.1",     "169.254.169.254", "0.0.0.0", "::1",       "::ffff:169.254.169.254",
    "fe80::1",  "fd00:ec2::254", "2001:db8::1",     "::",      "224.0.0.1", "64:ff9b::a9fe:a9fe"};

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **ret) {
  (void)service;
  (void)hints;
  const char *text = answers[strlen(host) % (sizeof answers / sizeof *answers)];
  struct {
    struct addrinfo info;
    struct sockaddr_storage address;
  } *a = calloc(1, sizeof *a);
  struct sockaddr_in *v4 = (struct sockaddr_in *)&a->address;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&a->address;
  if (inet_pton(AF_INET, text, &v4->sin_addr) == 1)
    a->info = (struct addrinfo){.ai_family = v4->sin_family = AF_INET, .ai_addrlen = sizeof *v4};
  else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1)
    a->info = (struct addrinfo){.ai_family = v6->sin6_family = AF_INET6, .ai_addrlen = sizeof *v6};
  a->info.ai_addr = (struct sockaddr *)&a->address;
  *ret = &a->info;
  return 0;
}

void __wrap_freeaddrinfo(struct addrinfo *list) { free(list); }

/* What may never be connected to, whoever allowed it; asked in our own words. */
static bool poisonous(const struct sockaddr_storage *a) {
  uint32_t v4 = 0;
  if (a->ss_family == AF_INET6) {
    const struct in6_addr *six = &((const struct sockaddr_in6 *)a)->sin6_addr;
    if (IN6_IS_ADDR_UNSPECIFIED(six) || IN6_IS_ADDR_LINKLOCAL(six) || IN6_IS_ADDR_MULTICAST(six))
      return true;
    if (!IN6_IS_ADDR_V4MAPPED(six))
      return false;
    memcpy(&v4, &six->s6_addr[12], 4);
  } else {
    v4 = ((const struct sockaddr_in *)a)->sin_addr.s_addr;
  }
  v4 = ntohl(v4);
  return v4 >> 24 == 0 || v4 >> 16 == 0xa9fe || v4 >> 28 >= 0xe;
}

static void check_target(struct slice url, const struct network_list *allowed) {
  struct target *t = NULL, *again = NULL;
  struct err e = {0};
  int r = target_parse(url, allowed, &t, &e);
  if (r < 0) {
    fuzz_check_error(r, &e);
    return;
  }
  assert(!poisonous(&t->address) && t->port >= 1 && t->port <= 65535);
  assert(network_check(allowed, (const struct sockaddr *)&t->address, t->host, &e) == 0);
  for (const char *p = t->authority; *p; p++)
    assert(*p > ' ' && *p < 127 && !strchr("/@?#\\", *p));
  assert(strpbrk(t->base_path, " \r\n?#") == NULL);
  assert(target_parse(slice_of(target_url(t)), allowed, &again, &e) == 0);
  assert(target_same_peer(t, again) && strcmp(target_url(t), target_url(again)) == 0);
  target_unref(&again);
  target_unref(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct slice url, list = slice_cut(fuzz_slice(data, size), '\n', &url);
  struct network_list *allowed = NULL;
  struct err e = {0};
  int r = network_list_parse(list, &allowed, &e);
  if (r < 0)
    fuzz_check_error(r, &e);
  check_target(url, NULL);
  if (allowed)
    check_target(url, allowed);
  network_list_free(&allowed);
  return 0;
}
