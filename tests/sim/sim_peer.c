#include "sim_plan.h"
#include "base/json.h"
#include "base/mem.h"
#include "core/inbox.h"
#include "report/forward.h"
#include <utlist.h>

/* The peer link: what src/report/forward.c of one node brings to that of another, with loss, delay, duplicates and death on the way. Who owns
 * what is as the node's own lease thread has read it last. */

static const usec_t TIMEOUT = 500 * USEC_PER_MS;

struct sim_errand {
  struct sim_node *from, *to;
  char *body;
  void (*done)(void *arg, const json_t *answer);
  void *arg;
  bool over; /* answered, timed out, or its node is dead */
  int refs;  /* events and nodes that have it */
  struct sim_errand *prev, *next;
};
struct answer {
  struct sim_errand *errand;
  char *text;
};

static void unref(struct sim_errand *x) {
  if (--x->refs > 0)
    return;
  mem_free(x->body);
  mem_free(x);
}

static void errand_end(struct sim_errand *x, const json_t *answer) {
  if (x->over)
    return;
  x->over = true;
  DL_DELETE(x->from->errands, x);
  x->done(x->arg, answer);
  unref(x);
}

static void timed_out(void *arg) {
  struct sim_errand *x = arg;
  errand_end(x, NULL);
  unref(x);
}

static void answer_arrives(void *arg) {
  struct answer *a = arg;
  auto_json *doc = NULL;
  if (sim_proc && !sim_proc->dying && json_read(slice_of(a->text), SIZE_MAX / 2, &doc, NULL) >= 0)
    errand_end(a->errand, doc);
  unref(a->errand);
  mem_free(a->text);
  mem_free(a);
}

/* GUARD_OWNER_CHECK: who does not own the run's shard says that it knows no such attempt. */
static char *answer_text(struct slice text) {
  auto_str out;
  str_init(&out, text.n + 1);
  static const char NOT[] = "not_owner";
  for (size_t i = 0; i < text.n; i++)
    if (sim_world->o.removed[GUARD_OWNER_CHECK] && text.n - i >= sizeof NOT - 1 &&
        memcmp(text.p + i, NOT, sizeof NOT - 1) == 0) {
      str_addz(&out, "late");
      i += sizeof NOT - 2;
    } else {
      str_addc(&out, text.p[i]);
    }
  return str_take(&out);
}

/* On the writer of the node that was asked. */
static void replied(void *arg, struct slice text) {
  struct sim_errand *x = arg;
  if (sim_proc && !sim_proc->dying && x->from->proc && !(sim_faulty() && chance(sim_world->f.loss))) {
    struct answer *a = mem_alloc(sizeof *a);
    *a = (struct answer){x, answer_text(text)};
    x->refs++;
    sim_at(sim_now + between(200, 2000), x->from->proc, answer_arrives, a);
  }
  unref(x);
}

static void arrives(void *arg) {
  struct sim_errand *x = arg;
  auto_json *doc = NULL;
  struct sim_node *n = sim_proc ? sim_proc->node : NULL;
  if (n && n->up && !sim_proc->dying && json_read(slice_of(x->body), SIZE_MAX / 2, &doc, NULL) >= 0) {
    x->refs++;
    if (forward_take(n->forward, doc, replied, x, NULL) < 0)
      unref(x); /* busy: nobody answers */
  }
  unref(x);
}

/* GUARD_FORWARD_ACK: it is on its way, that will do. */
static void answered_early(struct sim_errand *x) {
  auto_json *doc = NULL, *answer = json_object();
  json_t *list = json_array();
  (void)json_read(slice_of(x->body), SIZE_MAX / 2, &doc, NULL);
  for (size_t i = 0; i < json_array_size(json_object_get(doc, "events")); i++)
    (void)json_array_append_new(list, json_string("recorded"));
  (void)json_object_set_new(answer, "answers", list);
  errand_end(x, answer);
}

static int owner(void *arg, int32_t shard) { return ((struct sim_node *)arg)->owners[shard]; }

static bool ask(void *arg, const struct forward_ask *ask) {
  struct sim_node *from = arg, *to = sim_world->nodes[ask->node - 1];
  struct sim_errand *x = mem_zalloc(sizeof *x);
  *x = (struct sim_errand){from, to, mem_slicedup(ask->body), ask->done, ask->arg, false, 2, NULL, NULL};
  DL_APPEND(from->errands, x);
  sim_world->forwarded++;
  bool twice = sim_faulty() && chance(sim_world->f.duplicate);
  for (int i = 0; i < 1 + twice; i++)
    if (to->proc && !(sim_faulty() && chance(sim_world->f.loss))) {
      x->refs++;
      sim_at(sim_now + between(200, twice ? 2 * USEC_PER_SEC : 3000), to->proc, arrives, x);
    }
  sim_at(sim_now + TIMEOUT, from->proc, timed_out, x);
  if (sim_world->o.removed[GUARD_FORWARD_ACK])
    answered_early(x);
  return true;
}

void sim_seen(void *arg, const struct st_node_list_ret *nodes, const struct st_shard_list_ret *shards) {
  struct sim_node *n = arg;
  for (size_t i = 0; i < shards->count; i++) {
    const struct shard_row *s = &shards->shards[i];
    n->owners[s->id] = 0;
    for (size_t k = 0; k < nodes->count; k++)
      for (int o = 0; o < sim_world->o.nodes; o++)
        if (sim_world->nodes[o] && sim_world->nodes[o] != n && slice_eq(nodes->nodes[k].id, s->owner) &&
            nodes->nodes[k].lease_until > nodes->now && slice_eqz(s->owner, sim_world->nodes[o]->id))
          n->owners[s->id] = o + 1;
  }
}

void sim_forward_start(struct sim_node *n) {
  struct forward_options o;
  struct err e = {0};
  forward_options_default(&o);
  n->inbox = sim_session(n->proc, STORE_API);
  memset(n->owners, 0, sizeof n->owners);
  o.runs = n->runs;
  o.store = n->inbox;
  o.shard_count = sim_world->o.shards;
  o.hooks = (struct forward_hooks){owner, ask, n};
  n->forward = forward_new(&o);
  (void)forward_start(n->forward, &e);
}

void sim_forward_drop(struct sim_node *n) {
  while (n->errands)
    errand_end(n->errands, NULL);
}

/* ------------------------------------------------------------------ what must hold */
/* A report goes from the inbox: then it has had its effect, or needs none. */
void sim_check_inbox_gone(const struct inbox_row *row) {
  auto_arena mem = {0};
  struct inbox_text text = {row->shard, row->kind, row->no, row->body};
  struct inbox_item item;
  if (row->kind != INBOX_EVENT || inbox_parse(&text, &mem, &item, NULL) < 0)
    return;
  const struct live_event *ev = &item.event;
  const struct db_run *r = sim_db_run(sim_world->db, &ev->key);
  sim_world->by_inbox++;
  if (r && ev->kind != EV_BEAT && !r->ended && r->row.attempt == ev->attempt &&
      r->row.reason != REASON_RETRY_WAIT)
    sim_wrong(WRONG_LOST, "the inbox's %s of %s attempt %d is deleted, but that attempt is under way",
              run_event_names[ev->kind], sim_key(&ev->key), ev->attempt);
}
