/* Two nodes in one process: the directory, the peer link between them, and the events that they tell each other as documents. */
#include "net_util.h"
#include "cluster/peer.h"
#include "core/event_doc.h"
#include "core/inbox.h"
#include "net/http_server.h"
#include "net/loop.h"

static struct loop *loop;
static usec_t db_time = INT64_C(1760000000) * USEC_PER_SEC;
static struct node {
  struct directory *directory;
  struct peers *peers;
  struct http_server *http;
  char address[32];
  usec_t now; /* its estimate of database time */
  int asked;
} nodes[2];

static usec_t now(void *arg) { return ((struct node *)arg)->now; }

static void handle(struct http_request *r, void *arg) {
  struct err e = {0};
  if (peers_http(((struct node *)arg)->peers, r, &e) < 0)
    http_request_reply(r, &(struct http_reply){.status = err_http(e.code)});
}

/* Says what was asked, the other way round. */
static int echo(void *arg, struct peer_request *r, const json_t *body, struct err *e) {
  struct node *n = arg;
  n->asked++;
  if (!json_object_get(body, "say"))
    return err_field(e, ERR_MISSING, "/body/say", "expected something");
  auto_free char *text = json_text(body);
  peer_reply(r, slice_of(text));
  return 0;
}

static void node_start(int i, uint8_t key) {
  struct node *n = &nodes[i];
  struct err e = {0};
  struct peers_options o;
  peers_options_default(&o);
  n->now = db_time;
  n->asked = 0;
  n->directory = directory_new(i ? "b" : "a", 4);
  o.loop = loop;
  o.directory = n->directory;
  o.node_id = i ? "b" : "a";
  memset(o.key, key, sizeof o.key);
  o.now = now;
  o.arg = n;
  o.timeout = 5 * USEC_PER_SEC; /* nothing here waits for it */
  assert_int_equal(peers_new(&o, &n->peers, &e), 0);
  peers_handle(n->peers, PEER_EVENTS, &(struct peer_handler){echo, n});
  struct http_server_options ho;
  http_server_options_default(&ho);
  ho.address = "127.0.0.1";
  ho.handle = handle;
  ho.arg = n;
  assert_int_equal(http_server_start(loop, &ho, &n->http, &e), 0);
  (void)snprintf(n->address, sizeof n->address, "127.0.0.1:%d", http_server_port(n->http));
}

static void nodes_stop(void) {
  for (int i = 0; i < 2; i++) {
    http_server_drain(&nodes[i].http, USEC_PER_SEC);
    peers_free(&nodes[i].peers);
    directory_free(&nodes[i].directory);
  }
}

/* Node `i` reads: b owns shard 1 and is at this address; c owns shard 2 and is dead; nobody owns shard 3. */
static void see(int i, const char *address) {
  struct node_row rows[] = {{.id = SLICE("a"), .address = slice_of(nodes[0].address), .lease_until = 10},
                            {.id = SLICE("b"), .address = slice_of(address), .lease_until = 10},
                            {.id = SLICE("c"), .address = SLICE("127.0.0.1:1"), .lease_until = 4}};
  struct shard_row shards[] = {{.id = 0, .owner = SLICE("a")},
                               {.id = 1, .owner = SLICE("b")},
                               {.id = 2, .owner = SLICE("c")},
                               {.id = 3},
                               {.id = 9, .owner = SLICE("b")}};
  directory_update(nodes[i].directory, &(struct st_node_list_ret){.nodes = rows, .count = 3, .now = 5},
                   &(struct st_shard_list_ret){.shards = shards, .count = 5});
}

static struct told {
  struct mutex m;
  struct cond c;
  bool done;
  enum peer_outcome outcome;
  char text[256];
} told;

static void on_answer(void *arg, const struct peer_answer *a) {
  (void)arg;
  mutex_lock(&told.m);
  auto_free char *text = a->body ? json_text(a->body) : NULL;
  (void)text_copy(told.text, sizeof told.text, slice_of(text ? text : a->why)); /* a part of it will do */
  told.outcome = a->outcome;
  told.done = true;
  cond_signal(&told.c);
  mutex_unlock(&told.m);
}

static bool ask(int i, int number, struct slice body) {
  told.done = false;
  if (!peers_ask(nodes[i].peers, &(struct peer_ask){number, PEER_EVENTS, body, on_answer, NULL}))
    return false;
  mutex_lock(&told.m);
  while (!told.done)
    assert_true(cond_wait(&told.c, &told.m, WAIT_MAX_MS * USEC_PER_MS));
  mutex_unlock(&told.m);
  return true;
}

/* ------------------------------------------------------------------ the directory */
static void directory_knows_owners(void **state) {
  (void)state;
  char id[DIRECTORY_ID_MAX + 1], why[256];
  int numbers[4];
  node_start(0, 1);
  node_start(1, 1);
  struct directory *d = nodes[0].directory;
  assert_int_equal(directory_owner(d, 1), 0); /* nothing read yet */
  see(0, nodes[1].address);
  int b = directory_owner(d, 1);
  assert_true(b > 0);
  assert_int_equal(directory_owner(d, 0), 0); /* ours */
  assert_int_equal(directory_owner(d, 2), 0); /* its owner is dead */
  assert_int_equal(directory_owner(d, 3), 0);
  assert_int_equal(directory_owner(d, -1), 0);
  assert_int_equal(directory_owner(d, 4), 0);
  assert_int_equal(directory_nodes(d, numbers, 4), 1);
  assert_int_equal(numbers[0], b);
  assert_null(directory_target(d, b, id, why)); /* not resolved */
  assert_string_equal(id, "b");
  assert_int_equal(directory_resolve(d), b);
  struct target *t = directory_target(d, b, id, why);
  assert_non_null(t);
  target_unref(&t);
  see(0, "0.0.0.0:80"); /* it has moved, to nowhere; the former address serves until there is a better one */
  assert_int_equal(directory_resolve(d), b);
  struct st_node_list_ret none = {.now = 5};
  directory_update(d, &none, &(struct st_shard_list_ret){0});
  assert_null(directory_target(d, b, id, why));
  assert_string_equal(id, "");
  directory_close(d);
  assert_int_equal(directory_resolve(d), 0);
  nodes_stop();
}

/* ------------------------------------------------------------------ the link */
static int known_b(void) {
  see(0, nodes[1].address);
  int b = directory_owner(nodes[0].directory, 1);
  assert_int_equal(directory_resolve(nodes[0].directory), b);
  return b;
}

static void what_is_asked_is_answered(void **state) {
  (void)state;
  node_start(0, 1);
  node_start(1, 1);
  int b = known_b();
  assert_true(ask(0, b, SLICE("{\"say\":\"\\u00e4\\n\"}")));
  assert_int_equal(told.outcome, PEER_ANSWERED);
  assert_string_equal(told.text, "{\"say\":\"\xc3\xa4\\n\"}");
  assert_int_equal(nodes[1].asked, 1);
  assert_true(ask(0, b, SLICE("{}"))); /* refused for what is in it: no answer that counts */
  assert_int_equal(told.outcome, PEER_SILENT);
  assert_false(ask(0, b, SLICE("{\"say\":1}"))); /* it was silent a moment ago */
  nodes_stop();
}

static void another_secret_counts_for_nothing(void **state) {
  (void)state;
  node_start(0, 1);
  node_start(1, 2);
  assert_true(ask(0, known_b(), SLICE("{\"say\":1}")));
  assert_int_equal(told.outcome, PEER_REFUSED);
  assert_int_equal(nodes[1].asked, 0);
  nodes_stop();
}

static void another_time_counts_for_nothing(void **state) {
  (void)state;
  node_start(0, 1);
  node_start(1, 1);
  nodes[1].now += USEC_PER_MIN;
  assert_true(ask(0, known_b(), SLICE("{\"say\":1}")));
  assert_int_equal(told.outcome, PEER_REFUSED);
  assert_int_equal(nodes[1].asked, 0);
  nodes_stop();
}

/* The address of a node leads to another one by now, of the same cluster even. */
static void another_node_counts_for_nothing(void **state) {
  (void)state;
  node_start(0, 1);
  node_start(1, 1);
  see(0, nodes[0].address);
  int b = directory_owner(nodes[0].directory, 1);
  assert_int_equal(directory_resolve(nodes[0].directory), b);
  assert_true(ask(0, b, SLICE("{\"say\":1}")));
  assert_int_equal(told.outcome, PEER_REFUSED);
  assert_int_equal(nodes[0].asked + nodes[1].asked, 0);
  nodes_stop();
}

static void nobody_there_is_silence(void **state) {
  (void)state;
  node_start(0, 1);
  node_start(1, 1);
  int b = known_b();
  http_server_drain(&nodes[1].http, 0);
  assert_true(ask(0, b, SLICE("{\"say\":1}")));
  assert_int_equal(told.outcome, PEER_SILENT);
  assert_false(peers_ask(nodes[0].peers, &(struct peer_ask){b, PEER_EVENTS, SLICE("{}"), on_answer, NULL}));
  peers_free(&nodes[1].peers);
  directory_free(&nodes[1].directory);
  http_server_drain(&nodes[0].http, 0);
  peers_free(&nodes[0].peers);
  directory_free(&nodes[0].directory);
}

/* ------------------------------------------------------------------ events as documents */
static void events_there_and_back(void **state) {
  (void)state;
  auto_arena mem = {0};
  struct inbox_item back;
  struct live_event ev = {.kind = EV_DONE_FAIL,
                          .key = {.shard = 3, .task_id = 7, .scheduled_at = 1, .part = 9},
                          .attempt = 2,
                          .executor = SLICE("x"),
                          .incarnation = INT64_MAX,
                          .ns = SLICE("default"),
                          .group = SLICE(""),
                          .started_at = 5,
                          .finished_at = INT64_MAX,
                          .error_type = SLICE("io"),
                          .error_message = SLICE("\"\\\n\xc3\xa4\x01"),
                          .progress = 1.0 / 3};
  auto_free char *body = inbox_body(&(struct inbox_item){.kind = INBOX_EVENT, .event = ev});
  struct inbox_text row = {.shard = 3, .kind = INBOX_EVENT, .no = 4, .body = slice_of(body)};
  assert_int_equal(inbox_parse(&row, &mem, &back, NULL), 0);
  const struct live_event *b = &back.event;
  assert_true(b->kind == ev.kind && b->attempt == 2 && run_key_eq(&b->key, &ev.key) && !b->token);
  assert_true(slice_eq(b->executor, ev.executor) && slice_eq(b->error_message, ev.error_message));
  assert_true(b->incarnation == ev.incarnation && b->started_at == 5 && b->finished_at == INT64_MAX);
  assert_true(b->group.p && !b->group.n && !b->result.p &&
              !b->error_detail.p); /* empty is not the same as not said */
  assert_true(b->progress <= ev.progress && b->progress >= ev.progress);
  row.shard = 2; /* somebody else's run: the owner of this shard has nothing to say about it */
  assert_int_equal(inbox_parse(&row, &mem, &back, NULL), ERR_INVALID);
  ev.kind = EV_EXECUTOR_LOST;
  assert_false(event_may_travel(&ev));
}

int main(void) {
  struct err e = {0};
  mutex_init(&told.m);
  cond_init(&told.c);
  if (loop_new("test", &loop, &e) < 0 || loop_start(loop, &e) < 0)
    return 1;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(directory_knows_owners),
      cmocka_unit_test(what_is_asked_is_answered),
      cmocka_unit_test(another_secret_counts_for_nothing),
      cmocka_unit_test(another_time_counts_for_nothing),
      cmocka_unit_test(another_node_counts_for_nothing),
      cmocka_unit_test(nobody_there_is_silence),
      cmocka_unit_test(events_there_and_back),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  loop_stop(&loop);
  return failed;
}
