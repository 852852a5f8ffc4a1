#include "cluster/peer.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metric.h"
#include "base/parse.h"
#include "base/thread.h"
#include "net/crypto.h"
#include "net/http_client.h"
#include <stdio.h>

#define LABEL        "kelou peer link 1" /* what the link's secret is derived with */
#define SIGNATURE    "X-Kelou-Signature"
#define ENVELOPE_MAX 1024
enum { NONCE_BYTES = 12, NONCE_TEXT = 2 * NONCE_BYTES + 1 };
static const usec_t WINDOW = 30 * USEC_PER_SEC; /* database time is the same everywhere */
static const usec_t SILENCE = USEC_PER_SEC;     /* who did not answer is not asked for so long */
static const usec_t TELL_AGAIN = USEC_PER_MIN;

static const char *const kind_words[] = {
#define X(id, word) word,
    PEER_KINDS(X)
#undef X
        NULL};
static const char *const outcome_words[] = {"answered", "silent", "refused"};

struct peers {
  struct peers_options o;
  uint8_t secret[32];
  struct http_client *client;
  struct thread thread;
  struct peer_handler handlers[PEER_KIND_MAX_];
  _Atomic usec_t silent_until[DIRECTORY_NODES_MAX + 1]; /* monotonic; by number */
  _Atomic usec_t told_at;                               /* monotonic: of a refusal, in the log */
  struct metric *asked[PEER_REFUSED + 1], *refused;
};
struct asking { /* one request under way */
  struct peers *p;
  int number;
  char id[DIRECTORY_ID_MAX + 1], nonce[NONCE_TEXT];
  void (*done)(void *arg, const struct peer_answer *a);
  void *arg;
};
struct peer_request {
  struct peers *p;
  struct http_request *http;
  json_t *doc;
  char nonce[NONCE_TEXT];
};

static usec_t mono(void) { return clock_system.mono(&clock_system); }

static struct slice secret_of(const struct peers *p) {
  return slice_n((const char *)p->secret, sizeof p->secret);
}

/* Once a minute is enough. */
static bool may_tell(struct peers *p) {
  usec_t now = mono(), told = atomic_load(&p->told_at);
  return (!told || now - told > TELL_AGAIN) && atomic_compare_exchange_strong(&p->told_at, &told, now);
}

/* ---------------------------------------------------------------- life */

void peers_options_default(struct peers_options *o) {
  *o = (struct peers_options){.timeout = 500 * USEC_PER_MS, .connections = 16, .waiting = 1024};
}

static struct metric *asked_metric(int outcome) {
  return metric_series(metric_family("kelou_peer_requests_total",
                                     "What was asked of other nodes, by what came of it", METRIC_COUNTER,
                                     "result", NULL),
                       outcome_words[outcome], NULL);
}

static struct metric *refused_metric(void) {
  return metric_series(
      metric_family("kelou_peer_refusals_total",
                    "Requests of other nodes that were refused: their secret.key is another one, or "
                    "their address for this node leads elsewhere",
                    METRIC_COUNTER, "", NULL),
      NULL);
}

void peers_metrics(void) {
  for (int i = 0; i <= PEER_REFUSED; i++)
    (void)asked_metric(i);
  (void)refused_metric();
}

int peers_new(const struct peers_options *o, struct peers **ret, struct err *e) {
  struct peers *p = mem_zalloc(sizeof *p);
  p->o = *o;
  crypto_hmac_sha256(slice_n((const char *)o->key, sizeof o->key), SLICE(LABEL), p->secret);
  struct http_client_options ho;
  http_client_options_default(&ho);
  ho.max_connections_per_target = o->connections;
  ho.max_waiting_per_target = o->waiting;
  ho.connect_timeout = o->timeout;
  ho.ca_file = o->ca_file;
  int rc = http_client_new(o->loop, &ho, &p->client, e);
  if (rc < 0) {
    mem_free(p);
    return rc;
  }
  for (int i = 0; i <= PEER_REFUSED; i++)
    p->asked[i] = asked_metric(i);
  p->refused = refused_metric();
  *ret = p;
  return 0;
}

static void pinged(void *arg, const struct peer_answer *a) { (void)arg, (void)a; }

static void resolve_main(void *arg) {
  struct peers *p = arg;
  int number;
  while ((number = directory_resolve(p->o.directory)))
    (void)peers_ask(p, &(struct peer_ask){number, PEER_PING, SLICE("{}"), pinged, NULL});
}

int peers_start(struct peers *p, struct err *e) {
  return thread_start(&p->thread, "peers", resolve_main, p, e);
}

void peers_stop(struct peers *p) {
  directory_close(p->o.directory);
  if (p->thread.running)
    thread_join(&p->thread);
  if (p->client)
    http_client_free(&p->client);
}

void peers_free(struct peers **pp) {
  struct peers *p = *pp;
  if (!p)
    return;
  peers_stop(p);
  mem_free(p);
  *pp = NULL;
}

/* ---------------------------------------------------------------- asking */

/* What a node said, if it is that node, and about this request. */
static int read_answer(const struct asking *a, const struct http_result *r, json_t **ret, struct err *e) {
  struct slice signature = {0}, secret = secret_of(a->p), text = {0};
  for (size_t i = 0; i < r->header_count; i++)
    if (slice_eqz_nocase(r->headers[i].name, SIGNATURE))
      signature = r->headers[i].value;
  int rc = signature_check(signature, &secret, 1, a->p->o.now(a->p->o.arg), WINDOW, r->body, e);
  if (rc >= 0)
    rc = json_read(r->body, r->body.n, ret, e);
  if (rc >= 0 && (json_get_slice(*ret, "from", DIRECTORY_ID_MAX, &text, e) <= 0 || !slice_eqz(text, a->id)))
    rc = err_set(e, ERR_UNAUTHENTICATED, "the answer is another node's");
  if (rc >= 0 && (json_get_slice(*ret, "nonce", NONCE_TEXT, &text, e) <= 0 || !slice_eqz(text, a->nonce)))
    rc = err_set(e, ERR_UNAUTHENTICATED, "the answer is to another question");
  return rc;
}

static void tell_refused(struct asking *a, const char *why) {
  if (may_tell(a->p))
    log_error("another node and this one do not understand each other: is secret.key the same on both?",
              LF_S("peer", a->id), LF_S("why", why));
}

static void answered(const struct http_result *r, void *arg) {
  struct asking *a = arg;
  struct peer_answer answer = {.outcome = PEER_SILENT, .why = r->why ? r->why : "no answer"};
  auto_json *doc = NULL;
  struct err e = {0};
  if (r->outcome == HTTP_CALL_ANSWERED && r->status == 200) {
    if (read_answer(a, r, &doc, &e) < 0)
      answer = (struct peer_answer){.outcome = PEER_REFUSED, .why = e.text};
    else
      answer = (struct peer_answer){.outcome = PEER_ANSWERED, .body = json_object_get(doc, "body")};
  } else if (r->outcome == HTTP_CALL_ANSWERED) {
    (void)err_set(&e, ERR_INTERNAL, "it answers with the status %d", r->status);
    bool refused = r->status == 401 || r->status == 403 || r->status == 404;
    answer = (struct peer_answer){.outcome = refused ? PEER_REFUSED : PEER_SILENT, .why = e.text};
  }
  metric_add(a->p->asked[answer.outcome], 1);
  if (answer.outcome == PEER_REFUSED)
    tell_refused(a, answer.why);
  if (answer.outcome != PEER_ANSWERED)
    atomic_store(&a->p->silent_until[a->number], mono() + SILENCE);
  if (r->outcome == HTTP_CALL_NOT_SENT)
    directory_unreached(a->p->o.directory, a->number);
  a->done(a->arg, &answer);
  mem_free(a);
}

static bool ask_anyway(struct peers *p, const struct peer_ask *ask) {
  struct asking *a = mem_zalloc(sizeof *a);
  struct target *t = directory_target(p->o.directory, ask->number, a->id, NULL);
  if (!t || ask->body.n > PEER_BODY_MAX) {
    target_unref(&t);
    mem_free(a);
    return false;
  }
  uint8_t random[NONCE_BYTES];
  char signature[SIGNATURE_TEXT_MAX];
  a->p = p;
  a->number = ask->number;
  a->done = ask->done;
  a->arg = ask->arg;
  crypto_random(random, sizeof random);
  hex_encode(random, sizeof random, a->nonce);
  auto_str body;
  str_init(&body, PEER_BODY_MAX + ENVELOPE_MAX);
  str_addf(&body, "{\"from\":\"%s\",\"to\":\"%s\",\"nonce\":\"%s\",\"kind\":\"%s\",\"body\":", p->o.node_id,
           a->id, a->nonce, kind_words[ask->kind]); /* ids are names: nothing to be escaped */
  str_add(&body, ask->body);
  str_addc(&body, '}');
  signature_make(secret_of(p), p->o.now(p->o.arg), str_slice(&body), signature);
  struct http_header headers[] = {{SLICE("Content-Type"), SLICE("application/json")},
                                  {SLICE(SIGNATURE), slice_of(signature)}};
  http_client_call(p->client, &(struct http_call){.target = t,
                                                  .method = "POST",
                                                  .path = SLICE(PEER_PATH),
                                                  .headers = headers,
                                                  .header_count = 2,
                                                  .body = str_slice(&body),
                                                  .timeout = p->o.timeout,
                                                  .done = answered,
                                                  .arg = a});
  target_unref(&t);
  return true;
}

bool peers_ask(struct peers *p, const struct peer_ask *ask) {
  return atomic_load(&p->silent_until[ask->number]) <= mono() && ask_anyway(p, ask);
}

/* ---------------------------------------------------------------- being asked */

void peers_handle(struct peers *p, enum peer_kind kind, const struct peer_handler *h) {
  p->handlers[kind] = *h;
}

static void request_free(struct peer_request *r) {
  json_decref(r->doc);
  mem_free(r);
}

void peer_reply(struct peer_request *r, struct slice body) {
  auto_str out;
  char signature[SIGNATURE_TEXT_MAX];
  str_init(&out, body.n + ENVELOPE_MAX);
  str_addf(&out, "{\"from\":\"%s\",\"nonce\":\"%s\",\"body\":%.*s}", r->p->o.node_id, r->nonce,
           SLICE_FMT(body));
  signature_make(secret_of(r->p), r->p->o.now(r->p->o.arg), str_slice(&out), signature);
  struct http_header header = {SLICE(SIGNATURE), slice_of(signature)};
  http_request_reply(r->http, &(struct http_reply){.status = 200,
                                                   .content_type = "application/json",
                                                   .headers = &header,
                                                   .header_count = 1,
                                                   .body = str_slice(&out)});
  request_free(r);
}

/* Who asks, and what. */
static int read_nonce(struct peer_request *r, struct err *e) {
  struct slice nonce = {0};
  int rc = json_get_slice(r->doc, "nonce", NONCE_TEXT - 1, &nonce, e);
  if (rc == 0)
    return err_field(e, ERR_MISSING, "/nonce", "expected a text that is not used again");
  for (size_t i = 0; rc > 0 && i < nonce.n; i++)
    if (!strchr("0123456789abcdef", nonce.p[i]))
      return err_field(e, ERR_INVALID, "/nonce", "expected hexadecimal digits");
  if (rc > 0)
    (void)text_copy(r->nonce, sizeof r->nonce, nonce); /* as long */
  return rc;
}

static int read_request(struct peers *p, struct peer_request *r, int *ret_kind, struct err *e) {
  static const char *const keys[] = {"from", "to", "nonce", "kind", "body", NULL};
  struct slice from = {0}, to = {0};
  int rc = json_read(r->http->body, r->http->body.n, &r->doc, e);
  if (rc >= 0)
    rc = json_want_object(r->doc, "", e);
  if (rc >= 0)
    rc = json_check_keys(r->doc, keys, e);
  if (rc >= 0 && (rc = json_get_slice(r->doc, "from", DIRECTORY_ID_MAX, &from, e)) == 0)
    rc = err_field(e, ERR_MISSING, "/from", "expected the name of the node that asks");
  if (rc >= 0)
    rc = json_get_slice(r->doc, "to", DIRECTORY_ID_MAX, &to, e);
  if (rc >= 0 && !slice_eqz(to, p->o.node_id))
    rc = err_field(e, ERR_NOT_FOUND, "/to", "this node is %s", p->o.node_id);
  if (rc >= 0)
    rc = read_nonce(r, e);
  if (rc >= 0 && (rc = json_get_enum(r->doc, "kind", kind_words, ret_kind, e)) == 0)
    rc = err_field(e, ERR_MISSING, "/kind", "expected what is asked");
  return rc;
}

static int refuse(struct peers *p, struct http_request *r, int rc, struct err *e) {
  metric_add(p->refused, 1);
  if (may_tell(p))
    log_error(
        "a request between nodes is refused: another node's secret.key is not this one's, or its clock, or "
        "somebody else calls",
        LF_S("peer", r->peer), LF_E(e));
  return rc;
}

int peers_http(struct peers *p, struct http_request *http, struct err *e) {
  struct slice secret = secret_of(p);
  struct err local = {0};
  e = e ? e : &local;
  int kind = 0, rc = signature_check(http_request_header(http, SIGNATURE), &secret, 1, p->o.now(p->o.arg),
                                     WINDOW, http->body, e);
  if (rc < 0)
    return refuse(p, http, rc, e);
  struct peer_request *r = mem_zalloc(sizeof *r);
  r->p = p;
  r->http = http;
  rc = read_request(p, r, &kind, e);
  if (rc < 0) {
    request_free(r);
    return refuse(p, http, rc, e);
  }
  const struct peer_handler *h = &p->handlers[kind];
  if (kind == PEER_PING) {
    peer_reply(r, SLICE("{}"));
    return 0;
  }
  rc = h->asked ? h->asked(h->arg, r, json_object_get(r->doc, "body"), e)
                : err_set(e, ERR_UNAVAILABLE, "this node does not answer that");
  if (rc < 0)
    request_free(r);
  return rc;
}

/* ---------------------------------------------------------------- looking at all of them */

struct looking { /* of the caller alone: it waits for all answers, which come in the time-out */
  struct mutex lock;
  struct cond wake;
  int left;
};
struct look {
  struct looking *all;
  char id[DIRECTORY_ID_MAX + 1], why[256];
  enum peer_outcome outcome;
};

static void looked(void *arg, const struct peer_answer *a) {
  struct look *l = arg;
  mutex_lock(&l->all->lock);
  l->outcome = a->outcome;
  (void)text_copy(l->why, sizeof l->why, slice_of(a->why ? a->why : "")); /* a part of it will do */
  l->all->left--;
  cond_signal(&l->all->wake);
  mutex_unlock(&l->all->lock);
}

void peers_look(struct peers *p, void (*tell)(void *arg, const struct peer_state *s), void *arg) {
  int numbers[DIRECTORY_NODES_MAX];
  size_t n = directory_nodes(p->o.directory, numbers, DIRECTORY_NODES_MAX);
  struct look *looks = mem_array(n, sizeof *looks);
  struct looking all = {.left = (int)n};
  mutex_init(&all.lock);
  cond_init(&all.wake);
  for (size_t i = 0; i < n; i++) {
    struct look *l = &looks[i];
    l->all = &all;
    struct target *t = directory_target(p->o.directory, numbers[i], l->id, l->why);
    bool there = t != NULL;
    target_unref(&t);
    if (!there || !ask_anyway(p, &(struct peer_ask){numbers[i], PEER_PING, SLICE("{}"), looked, l})) {
      char why[sizeof l->why];
      memcpy(why, l->why, sizeof why);
      looked(l, &(struct peer_answer){.outcome = PEER_SILENT, .why = why});
    }
  }
  mutex_lock(&all.lock);
  while (all.left > 0) /* each call ends by itself */
    (void)cond_wait(&all.wake, &all.lock, USEC_NEVER);
  mutex_unlock(&all.lock);
  for (size_t i = 0; i < n; i++)
    if (looks[i].id[0])
      tell(arg, &(struct peer_state){looks[i].id, looks[i].outcome, looks[i].why});
  mutex_done(&all.lock);
  cond_done(&all.wake);
  mem_free(looks);
}
