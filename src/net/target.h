#pragma once
/* Where calls go: a checked base URL, resolved once and connected to that very address (no DNS rebinding),
 * inside allowed networks only (SSRF guard). semantics.md §8. */
#include "base/err.h"
#include "base/str.h"

struct target; /* immutable, reference-counted, thread-safe */

struct network_list; /* CIDR list, immutable after parsing */
/* Comma-separated CIDRs, or the words "loopback", "private" (RFC 1918 + ULA), "public". */
int network_list_parse(struct slice text, struct network_list **ret, struct err *e);
/* Errors name this setting as where the list is from; borrowed, for as long as the list. Before it is shared. */
void network_list_named(struct network_list *l, const char *setting);
void network_list_free(struct network_list **l);

/* `allowed` NULL: any address that is not always refused. Of a name's allowed addresses the first IPv4 one is taken, else
 * the first IPv6 one.
 * "http://10.0.0.7:8080/base": http or https, no user info, query or fragment; port 1–65535. Link-local, multicast, unspecified
 * and metadata addresses (169.254.169.254, fd00:ec2::254, …) are always refused, also as IPv4-mapped IPv6 and in odd notations.
 * Blocks for name resolution: not on the loop thread. Errors name what is wrong (ERR_INVALID, ERR_ADDRESS, ERR_UNREACHABLE). */
int target_parse(struct slice url, const struct network_list *allowed, struct target **ret, struct err *e);
struct target *target_ref(struct target *t);
void target_unref(struct target **t);
const char *target_url(const struct target *t);
