#include "net/crypto.h"
#include "base/mem.h"
#include <assert.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_BYTES     32
#define NONCE_BYTES   12
#define TAG_BYTES     16
#define TOKEN_BYTES   32
#define SECRET_MAX    4096 /* "small secrets" */
#define SEAL_VERSION  1    /* first byte of what is sealed; also bound into the tag */
#define SEAL_OVERHEAD (1 + NONCE_BYTES + TAG_BYTES)

void crypto_random(void *ret, size_t n) {
  int ok = n <= INT_MAX ? RAND_bytes(ret, (int)n) : 0;
  if (ok != 1)
    abort(); /* without random numbers nothing that we promise holds */
}

void crypto_sha256(struct slice data, uint8_t ret[32]) { (void)SHA256((const uint8_t *)data.p, data.n, ret); }

void crypto_hmac_sha256(struct slice key, struct slice data, uint8_t ret[32]) {
  unsigned length;
  static const uint8_t none[1];
  const void *k = key.n ? (const void *)key.p : none; /* NULL would mean "the key of last time" */
  assert(key.n <= INT_MAX);
  if (!HMAC(EVP_sha256(), k, (int)key.n, (const uint8_t *)data.p, data.n, ret, &length))
    abort(); /* out of memory */
}

bool crypto_equal(const void *a, const void *b, size_t n) { return CRYPTO_memcmp(a, b, n) == 0; }

void crypto_token_new(const char *prefix, char *ret_text) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  uint8_t raw[TOKEN_BYTES + 1] = {0}; /* one more: 43 digits are 258 bits */
  size_t n = strlen(prefix);
  assert(n <= 20);
  crypto_random(raw, TOKEN_BYTES);
  memcpy(ret_text, prefix, n);
  for (size_t i = 0; i < 43; i++) {
    size_t bit = i * 6, byte = bit / 8;
    unsigned two = (unsigned)raw[byte] << 8 | raw[byte + 1];
    ret_text[n++] = digits[two >> (10 - bit % 8) & 63];
  }
  ret_text[n] = 0;
  OPENSSL_cleanse(raw, sizeof raw);
}

/* raw = version, nonce, tag, ciphertext. */
static bool gcm(bool seal, const uint8_t key[32], uint8_t *raw, size_t n, uint8_t *plain) {
  EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
  uint8_t *nonce = raw + 1, *tag = nonce + NONCE_BYTES, *text = tag + TAG_BYTES;
  int len, enc = seal;
  bool ok = c && EVP_CipherInit_ex(c, EVP_aes_256_gcm(), NULL, key, nonce, enc) == 1 &&
            EVP_CipherUpdate(c, NULL, &len, raw, 1) == 1 && /* the version is authenticated too */
            EVP_CipherUpdate(c, seal ? text : plain, &len, seal ? plain : text, (int)n) == 1;
  if (ok && !seal)
    ok = EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, TAG_BYTES, tag) == 1;
  uint8_t rest[16];
  ok = ok && EVP_CipherFinal_ex(c, rest, &len) == 1;
  if (ok && seal)
    ok = EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, TAG_BYTES, tag) == 1;
  EVP_CIPHER_CTX_free(c);
  return ok;
}

char *crypto_seal(const uint8_t key[32], struct slice secret) {
  uint8_t plain[SECRET_MAX + 1], raw[SECRET_MAX + SEAL_OVERHEAD];
  assert(secret.n <= SECRET_MAX);
  if (secret.n)
    memcpy(plain, secret.p, secret.n);
  raw[0] = SEAL_VERSION;
  crypto_random(raw + 1, NONCE_BYTES);
  if (!gcm(true, key, raw, secret.n, plain))
    abort(); /* out of memory */
  OPENSSL_cleanse(plain, sizeof plain);
  size_t n = secret.n + SEAL_OVERHEAD;
  char *text = mem_alloc(4 * ((n + 2) / 3) + 1);
  (void)EVP_EncodeBlock((uint8_t *)text, raw, (int)n);
  return text;
}

#define RAW_MAX (SECRET_MAX + SEAL_OVERHEAD + 3) /* base64 comes in threes */

/* Bytes of base64 text, or negative. EVP_DecodeBlock counts the padding as bytes, skips spaces and does not look
 * at unused bits: only the one text that encoding gives is accepted. */
static int base64_read(struct slice text, uint8_t ret[RAW_MAX]) {
  uint8_t again[RAW_MAX / 3 * 4 + 5];
  if (text.n % 4 || text.n / 4 * 3 > RAW_MAX)
    return -EINVAL;
  int n = EVP_DecodeBlock(ret, (const uint8_t *)text.p, (int)text.n);
  for (size_t i = text.n; n > 0 && i > 0 && i + 2 > text.n && text.p[i - 1] == '='; i--)
    n--;
  if (n <= 0 || EVP_EncodeBlock(again, ret, n) != (int)text.n || memcmp(again, text.p, text.n) != 0)
    return -EINVAL;
  return n;
}

int crypto_unseal(const uint8_t key[32], struct slice sealed, struct str *ret, struct err *e) {
  uint8_t raw[RAW_MAX], plain[SECRET_MAX + 3];
  int n = base64_read(sealed, raw);
  if (n < SEAL_OVERHEAD || n > SECRET_MAX + SEAL_OVERHEAD || raw[0] != SEAL_VERSION)
    return err_set(e, ERR_MALFORMED, "the sealed secret cannot be read");
  size_t length = (size_t)n - SEAL_OVERHEAD;
  bool ok = gcm(false, key, raw, length, plain);
  if (ok)
    str_add(ret, slice_n((char *)plain, length));
  OPENSSL_cleanse(plain, sizeof plain);
  if (!ok)
    return err_set(e, ERR_UNAUTHENTICATED, "the secret was sealed with another key, or has been changed");
  return 0;
}

/* --- key file ------------------------------------------------------------------------------------------- */

static int key_read(const char *path, uint8_t ret[32], struct err *e) {
  uint8_t key[KEY_BYTES + 1];
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return err_set(e, -errno, "cannot open the key file %s: %s", path, strerror(errno));
  int r = fstat(fd, &st) < 0 ? -errno : 0;
  ssize_t n = r == 0 ? read(fd, key, sizeof key) : -1;
  (void)close(fd); /* only read from */
  if (n < 0)
    return err_set(e, -EIO, "cannot read the key file %s", path);
  if (!S_ISREG(st.st_mode) || (st.st_mode & 077))
    return err_set(e, ERR_FORBIDDEN,
                   "the key file %s must be a file that only its owner can read (mode 0600)", path);
  if (n != KEY_BYTES)
    return err_set(e, ERR_MALFORMED, "the key file %s must have exactly %d bytes", path, KEY_BYTES);
  memcpy(ret, key, KEY_BYTES);
  OPENSSL_cleanse(key, sizeof key);
  return 0;
}

static int write_all(int fd, const uint8_t *p, size_t n) {
  while (n) {
    ssize_t w = write(fd, p, n);
    if (w < 0 && errno == EINTR)
      continue;
    if (w < 0)
      return -errno;
    p += w;
    n -= (size_t)w;
  }
  return fsync(fd) < 0 ? -errno : 0;
}

/* Make the new name itself durable: what gets sealed with a lost key is lost too. */
static int sync_folder(const char *path) {
  char folder[PATH_MAX];
  const char *slash = strrchr(path, '/');
  if (text_copy(folder, sizeof folder, slash ? slice_n(path, (size_t)(slash - path) + 1) : SLICE(".")) < 0)
    return -ENAMETOOLONG;
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0)
    return -errno;
  int r = fsync(fd) < 0 ? -errno : 0;
  (void)close(fd); /* nothing written through it */
  return r;
}

/* Under another name first, then linked into place: nobody ever sees half a key, nobody's key is replaced. */
static int key_make(const char *path, struct err *e) {
  uint8_t key[KEY_BYTES];
  char temporary[PATH_MAX];
  int n = snprintf(temporary, sizeof temporary, "%s.%d.new", path, (int)getpid());
  if (n < 0 || (size_t)n >= sizeof temporary)
    return err_set(e, -ENAMETOOLONG, "the path of the key file is too long");
  (void)unlink(temporary); /* of a process that died half-way */
  int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0)
    return err_set(e, -errno, "cannot make the key file %s: %s", path, strerror(errno));
  crypto_random(key, sizeof key);
  int r = write_all(fd, key, sizeof key);
  OPENSSL_cleanse(key, sizeof key);
  if (close(fd) < 0 && r == 0)
    r = -errno;
  if (r == 0 && link(temporary, path) < 0 && errno != EEXIST)
    r = -errno;
  (void)unlink(temporary); /* a second name at worst */
  if (r == 0)
    r = sync_folder(path);
  return r < 0 ? err_set(e, r, "cannot make the key file %s: %s", path, strerror(-r)) : 0;
}

int crypto_key_file(const char *path, bool create, uint8_t ret[32], struct err *e) {
  if (create && access(path, F_OK) < 0 && errno == ENOENT) {
    int r = key_make(path, e);
    if (r < 0)
      return r;
  }
  return key_read(path, ret, e);
}
