#pragma once
/* Private to net: an intrusive doubly linked ring, and lists of things that are due in order. */
#include "base/time.h"
#include <stdbool.h>
#include <stddef.h>

struct link {
  struct link *prev, *next; /* both NULL: not in a list */
};

#define link_entry(l, type, member) ((type *)(void *)((char *)(l)-offsetof(type, member)))

static inline void list_init(struct link *head) { head->prev = head->next = head; }
static inline bool list_empty(const struct link *head) { return head->next == head; }
static inline bool link_in(const struct link *l) { return l->next != NULL; }

static inline void list_push(struct link *head, struct link *l) {
  l->prev = head->prev;
  l->next = head;
  head->prev->next = l;
  head->prev = l;
}

static inline void link_out(struct link *l) {
  if (!l->next)
    return;
  l->prev->next = l->next;
  l->next->prev = l->prev;
  l->prev = l->next = NULL;
}

/* First element or NULL. */
static inline struct link *list_first(const struct link *head) {
  return head->next == head ? NULL : head->next;
}

/* All members wait equally long, so that a list in order of arrival is in order of deadline:
 * only its head must be looked at, and moving an element costs four stores. */
struct due_list {
  struct link head;
  usec_t timeout;
};
struct due {
  struct link link;
  usec_t at;
};

static inline void due_init(struct due_list *d, usec_t timeout) {
  list_init(&d->head);
  d->timeout = timeout;
}

static inline void due_set(struct due_list *d, struct due *x, usec_t now) {
  link_out(&x->link);
  x->at = now + d->timeout;
  list_push(&d->head, &x->link);
}

static inline void due_clear(struct due *x) { link_out(&x->link); }

/* The first element whose time has come, or NULL. */
static inline struct due *due_next(const struct due_list *d, usec_t now) {
  struct link *l = list_first(&d->head);
  if (!l || link_entry(l, struct due, link)->at > now)
    return NULL;
  return link_entry(l, struct due, link);
}
