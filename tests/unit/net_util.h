#pragma once
/* For the tests of net: blocking sockets with a bound on every wait, and a stub peer on a thread. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/mem.h"
#include "base/thread.h"

#define WAIT_MAX_MS 20000

static inline int dial(int port) {
  struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct timeval tv = {.tv_sec = WAIT_MAX_MS / 1000};
  assert_true(fd >= 0);
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv), 0);
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv), 0);
  assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
  return fd;
}

/* Send everything; false when the peer does not take it any more. */
static inline bool put_bytes(int fd, const char *p, size_t n) {
  while (n) {
    ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
    if (w <= 0)
      return false;
    p += w;
    n -= (size_t)w;
  }
  return true;
}
static inline bool put(int fd, const char *text) { return put_bytes(fd, text, strlen(text)); }

/* Everything until the peer closes. The caller frees. */
static inline char *get_all(int fd, size_t *ret_n) {
  size_t n = 0, cap = 1 << 16;
  char *p = mem_alloc(cap + 1);
  for (;;) {
    ssize_t r = recv(fd, p + n, cap - n, 0);
    if (r < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
      fail_msg("the peer neither answered nor closed");
    if (r <= 0)
      break;
    n += (size_t)r;
    if (n == cap)
      p = mem_grow(p, (cap *= 2) + 1, 1);
  }
  p[n] = 0;
  if (ret_n)
    *ret_n = n;
  return p;
}

/* One answer with a Content-Length (or without a body when `head`), into buf. Returns its status. */
static inline int get_answer(int fd, char *buf, size_t size, bool head) {
  size_t n = 0;
  char *end = NULL;
  while (!end) {
    assert_true(n + 1 < size);
    ssize_t r = recv(fd, buf + n, 1, 0); /* one by one: what follows belongs to the next answer */
    if (r <= 0)
      return -1;
    buf[++n] = 0;
    end = strstr(buf, "\r\n\r\n");
  }
  const char *length = strstr(buf, "Content-Length: ");
  size_t want = length && !head ? strtoul(length + 16, NULL, 10) : 0;
  assert_true(n + want + 1 < size);
  for (size_t got = 0; got < want;) {
    ssize_t r = recv(fd, buf + n, want - got, 0);
    if (r <= 0)
      return -1;
    got += (size_t)r;
    n += (size_t)r;
  }
  buf[n] = 0;
  return (int)strtol(buf + 9, NULL, 10);
}

static inline int listen_any(int *ret_port) {
  struct sockaddr_in a = {.sin_family = AF_INET};
  socklen_t n = sizeof a;
  a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
  assert_int_equal(listen(fd, 64), 0);
  assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
  *ret_port = ntohs(a.sin_port);
  return fd;
}

/* --- a peer that serves one connection after the other, as the test's script says --- */

struct peer {
  int fd, port;
  struct thread thread;
  atomic_int accepted, stop;
  void (*serve)(struct peer *p, int fd, int nth);
  void *tls; /* the test's own */
};

static inline void peer_run(void *arg) {
  struct peer *p = arg;
  for (;;) {
    int fd = accept(p->fd, NULL, NULL);
    if (atomic_load(&p->stop)) {
      (void)close(fd);
      return;
    }
    struct timeval tv = {.tv_sec = WAIT_MAX_MS / 1000};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    p->serve(p, fd, atomic_fetch_add(&p->accepted, 1));
    (void)close(fd);
  }
}

static inline void peer_start(struct peer *p, void (*serve)(struct peer *, int, int)) {
  struct err e;
  *p = (struct peer){.serve = serve};
  p->fd = listen_any(&p->port);
  assert_int_equal(thread_start(&p->thread, "peer", peer_run, p, &e), 0);
}

static inline void peer_stop(struct peer *p) {
  atomic_store(&p->stop, 1);
  (void)close(dial(p->port));
  thread_join(&p->thread);
  (void)close(p->fd);
}

/* Read one request (head and body); false at the end of the connection. */
static inline bool get_request(int fd, char *buf, size_t size) {
  size_t n = 0, want = 0;
  while (n + 1 < size) {
    ssize_t r = recv(fd, buf + n, want ? want : 1, 0);
    if (r <= 0)
      return false;
    n += (size_t)r;
    buf[n] = 0;
    if (want && (want -= (size_t)r) == 0)
      return true;
    if (!want && n >= 4 && memcmp(buf + n - 4, "\r\n\r\n", 4) == 0) {
      const char *length = strstr(buf, "Content-Length: ");
      want = length ? strtoul(length + 16, NULL, 10) : 0;
      if (!want)
        return true;
    }
  }
  return false;
}
