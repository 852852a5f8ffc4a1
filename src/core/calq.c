#include "core/calq.h"
#include "base/mem.h"

enum { BUCKETS = 512 };
static const usec_t BUCKET_WIDTH = 200 * USEC_PER_MS;

struct vec {
  struct calq_entry *p;
  size_t n, cap;
};

struct calq {
  struct vec heap;            /* due < edge */
  struct vec bucket[BUCKETS]; /* bucket i holds [base + i*W, base + (i+1)*W) */
  struct vec far;             /* due >= base + BUCKETS*W, unordered */
  usec_t base;                /* start of bucket 0 */
  int next;                   /* first bucket not yet moved to the heap: edge = base + next*W */
  size_t in_buckets;
};

static bool before(const struct calq_entry *a, const struct calq_entry *b) {
  return a->due != b->due ? a->due < b->due : a->id < b->id;
}

static void vec_add(struct vec *v, struct calq_entry e) {
  mem_reserve(v->p, v->n, v->cap);
  v->p[v->n++] = e;
}

static void sift_up(struct vec *h, size_t i) {
  struct calq_entry e = h->p[i];
  while (i > 0 && before(&e, &h->p[(i - 1) / 4])) {
    h->p[i] = h->p[(i - 1) / 4];
    i = (i - 1) / 4;
  }
  h->p[i] = e;
}

static void sift_down(struct vec *h, size_t i) {
  struct calq_entry e = h->p[i];
  for (;;) {
    size_t child = 4 * i + 1, least = i;
    const struct calq_entry *min = &e;
    for (size_t c = child; c < child + 4 && c < h->n; c++)
      if (before(&h->p[c], min)) {
        min = &h->p[c];
        least = c;
      }
    if (least == i)
      break;
    h->p[i] = h->p[least];
    i = least;
  }
  h->p[i] = e;
}

struct calq *calq_new(void) {
  return mem_zalloc(sizeof(struct calq));
}

void calq_free(struct calq **q) {
  if (!*q)
    return;
  for (int i = 0; i < BUCKETS; i++)
    mem_free((*q)->bucket[i].p);
  mem_free((*q)->heap.p);
  mem_free((*q)->far.p);
  mem_free(*q);
  *q = NULL;
}

static usec_t edge_of(const struct calq *q) { return q->base + q->next * BUCKET_WIDTH; }

void calq_push(struct calq *q, struct calq_entry e) {
  if (e.due < edge_of(q)) {
    vec_add(&q->heap, e);
    sift_up(&q->heap, q->heap.n - 1);
    return;
  }
  usec_t i = (e.due - q->base) / BUCKET_WIDTH;
  if (i >= BUCKETS) {
    vec_add(&q->far, e);
    return;
  }
  vec_add(&q->bucket[i], e);
  q->in_buckets++;
}

/* All buckets are used up: start again where the far entries begin. */
static void rebase(struct calq *q) {
  usec_t least = USEC_NEVER;
  for (size_t i = 0; i < q->far.n; i++)
    if (q->far.p[i].due < least)
      least = q->far.p[i].due;
  q->base = least - least % BUCKET_WIDTH;
  q->next = 0;
  struct vec old = q->far;
  q->far = (struct vec){0};
  for (size_t i = 0; i < old.n; i++)
    calq_push(q, old.p[i]);
  mem_free(old.p);
}

/* Move the next filled bucket into the (empty) heap. */
static void open_bucket(struct calq *q) {
  if (q->in_buckets == 0)
    rebase(q);
  while (q->bucket[q->next].n == 0)
    q->next++;
  struct vec spare = q->heap;
  q->heap = q->bucket[q->next];
  q->in_buckets -= q->heap.n;
  spare.n = 0;
  if (spare.cap > 4096) { /* a herd's vector is not kept for ever */
    mem_free(spare.p);
    spare = (struct vec){0};
  }
  q->bucket[q->next++] = spare;
  for (size_t i = q->heap.n / 4 + 1; i-- > 0;)
    if (i < q->heap.n)
      sift_down(&q->heap, i);
}

bool calq_peek(struct calq *q, struct calq_entry *ret) {
  if (q->heap.n == 0) {
    if (q->in_buckets == 0 && q->far.n == 0)
      return false;
    open_bucket(q);
  }
  *ret = q->heap.p[0];
  return true;
}

void calq_pop(struct calq *q) {
  struct vec *h = &q->heap;
  h->p[0] = h->p[--h->n];
  if (h->n > 1)
    sift_down(h, 0);
}

size_t calq_size(const struct calq *q) { return q->heap.n + q->in_buckets + q->far.n; }
