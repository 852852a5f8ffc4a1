#include "base/metric_group.h"
#include "base/mem.h"
#include <assert.h>
#include <pthread.h>
#include <uthash.h>

enum { BOUND_DEFAULT = 200, HOOKS_MAX = 8 };

struct known {
  int number;
  UT_hash_handle hh;
  char name[];
};
/* One registry in a process, as that of the metrics. */
static struct {
  pthread_mutex_t lock; /* guards the rest; held while hooks are called */
  int bound, count;
  struct known *by_name;
  const char *names[METRIC_GROUPS_MAX + 1]; /* by number; of [0] none */
  struct {
    void (*made)(void *arg, int number, const char *name);
    void *arg;
  } hooks[HOOKS_MAX];
} groups = {.lock = PTHREAD_MUTEX_INITIALIZER, .bound = BOUND_DEFAULT};

void metric_groups_bound(int bound) {
  assert(bound >= 0 && bound <= METRIC_GROUPS_MAX);
  pthread_mutex_lock(&groups.lock);
  groups.bound = bound;
  pthread_mutex_unlock(&groups.lock);
}

static struct known *add(struct slice name) {
  struct known *k = mem_zalloc(sizeof *k + name.n + 1);
  memcpy(k->name, name.p, name.n);
  k->number = ++groups.count;
  groups.names[k->number] = k->name;
  HASH_ADD_KEYPTR(hh, groups.by_name, k->name, name.n, k);
  for (int i = 0; i < HOOKS_MAX; i++)
    if (groups.hooks[i].made)
      groups.hooks[i].made(groups.hooks[i].arg, k->number, k->name);
  return k;
}

int metric_group(struct slice ns, struct slice group) {
  auto_str name;
  struct known *k = NULL;
  str_init(&name, ns.n + group.n + 2);
  str_add(&name, ns);
  str_addc(&name, '/');
  str_add(&name, group);
  pthread_mutex_lock(&groups.lock);
  HASH_FIND(hh, groups.by_name, name.p, name.n, k);
  if (!k && groups.count < groups.bound)
    k = add(str_slice(&name));
  int number = k ? k->number : METRIC_GROUP_OTHER;
  pthread_mutex_unlock(&groups.lock);
  return number;
}

void metric_groups_hook(void (*made)(void *arg, int number, const char *name), void *arg) {
  pthread_mutex_lock(&groups.lock);
  int free_at = 0;
  while (free_at < HOOKS_MAX && groups.hooks[free_at].made)
    free_at++;
  assert(free_at < HOOKS_MAX);
  groups.hooks[free_at].made = made;
  groups.hooks[free_at].arg = arg;
  made(arg, METRIC_GROUP_OTHER, "_other");
  for (int i = 1; i <= groups.count; i++)
    made(arg, i, groups.names[i]);
  pthread_mutex_unlock(&groups.lock);
}

void metric_groups_unhook(void *arg) {
  pthread_mutex_lock(&groups.lock);
  for (int i = 0; i < HOOKS_MAX; i++)
    if (groups.hooks[i].made && groups.hooks[i].arg == arg)
      groups.hooks[i].made = NULL;
  pthread_mutex_unlock(&groups.lock);
}
