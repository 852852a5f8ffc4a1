#pragma once
/* The few cryptographic tools the house needs (OpenSSL 3 inside). All thread-safe. */
#include "base/err.h"
#include "base/str.h"
#include "base/time.h"
#include <stdint.h>

void crypto_random(void *ret, size_t n);
void crypto_sha256(struct slice data, uint8_t ret[32]);
void crypto_hmac_sha256(struct slice key, struct slice data, uint8_t ret[32]);
bool crypto_equal(const void *a, const void *b, size_t n); /* constant time */
/* A new secret token: `prefix` (≤ 20 bytes) + 43 characters of base64url (256 bits). ret_text of at least 64 bytes. */
void crypto_token_new(const char *prefix, char *ret_text);

/* Seal small secrets (at most 4 KiB) for the database with a 32-byte key (AES-256-GCM, random nonce, base64 text). Free with mem_free. */
char *crypto_seal(const uint8_t key[32], struct slice secret);
/* Appends to *ret (initialised by the caller). ERR_MALFORMED, or ERR_UNAUTHENTICATED: another key, or changed. */
int crypto_unseal(const uint8_t key[32], struct slice sealed, struct str *ret, struct err *e);
/* Read a 32-byte (raw) key file, which only its owner may be able to read; made with mode 0600, atomically, when absent and `create`. */
int crypto_key_file(const char *path, bool create, uint8_t ret[32], struct err *e);

/* X-Kelou-Signature (semantics.md §6): "t=<unix seconds>,v1=<hex HMAC-SHA256(secret, t + '.' + body)>". */
#define SIGNATURE_TEXT_MAX 96
void signature_make(struct slice secret, usec_t now, struct slice body, char ret_text[SIGNATURE_TEXT_MAX]);
/* Checks against any of `n` secrets (rotation) and the replay window; several v1= are allowed.
 * ERR_UNAUTHENTICATED with the reason (missing, malformed, too old, wrong). */
int signature_check(struct slice header, const struct slice *secrets, size_t n, usec_t now, usec_t window,
                    struct slice body, struct err *e);
