/* Microseconds a row of the operations that matter, on one session: bench_store URL [tasks]. Prints; asserts nothing. */
#include "store/store.h"
#include "base/parse.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define BATCH   1000
#define BATCHES 200

static struct store *s;
static struct arena mem;
static struct err e;
#define CALL(op, ret, ...) must(store_##op(s, &(struct st_##op){__VA_ARGS__}, (ret), &mem, &e), #op)

static void must(int r, const char *op) {
  if (r >= 0)
    return;
  fprintf(stderr, "%s: %s %s\n", op, err_name(r), e.text);
  exit(1);
}

static usec_t cpu(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * USEC_PER_SEC + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

struct span {
  usec_t wall, cpu;
};
static struct span begin(void) { return (struct span){clock_system.mono(&clock_system), cpu()}; }
static void end(struct span b, const char *what, int64_t rows) {
  double wall = (double)(clock_system.mono(&clock_system) - b.wall), used = (double)(cpu() - b.cpu);
  printf("%-34s %9lld rows %8.0f ms  %6.2f µs a row, own CPU %6.2f\n", what, (long long)rows, wall / 1000,
         wall / (double)rows, used / (double)rows);
  fflush(stdout);
}

static int64_t put_tasks(int64_t count) {
  struct st_task_put_ret put = {};
  struct task_def defs[BATCH];
  char names[BATCH][48];
  struct span b = begin();
  for (int64_t done = 0; done < count; done += BATCH) {
    for (int i = 0; i < BATCH; i++) {
      snprintf(names[i], sizeof names[i], "task-%lld-%d", (long long)clock_system.wall(&clock_system), i);
      defs[i] = (struct task_def){
          .ns = SLICE("default"),
          .name = slice_of(names[i]),
          .group = SLICE("workers"),
          .handler = SLICE("echo"),
          .schedule_text = SLICE("0 0 12 * * ?"),
          .payload = SLICE("{\"order\":123456}"),
          .definition =
              SLICE("{\"executor\":{\"group\":\"workers\",\"handler\":\"echo\"},\"schedule\":{\"expression\":"
                    "\"0 0 12 * * ?\",\"kind\":\"CRON\",\"timezone\":\"Europe/Berlin\"}}")};
    }
    arena_clear(&mem);
    CALL(task_put, &put, .defs = defs, .count = BATCH, .by = SLICE("bench"));
  }
  end(b, "task_put, 1,000 a call", count);
  return put.rows[0].task_id;
}

static void load_tasks(int32_t shards) {
  int64_t rows = 0, bytes = 0;
  struct span b = begin();
  for (int32_t shard = 0; shard < shards; shard++) {
    struct st_task_load_ret ret;
    int64_t after = 0;
    do {
      arena_clear(&mem);
      CALL(task_load, &ret, .shard = shard, .after = after, .limit = 5000);
      for (size_t i = 0; i < ret.count; i++)
        bytes += (int64_t)(sizeof ret.rows[i] + ret.rows[i].name.n + ret.rows[i].definition.n);
      rows += (int64_t)ret.count;
      after = ret.count ? ret.rows[ret.count - 1].task_id : 0;
    } while (ret.count == 5000);
  }
  end(b, "task_load, 5,000 a page", rows);
  printf("%34s %9.0f B a task handed over\n", "", (double)bytes / (double)(rows ? rows : 1));
}

/* Whole lives of runs of `tasks` tasks in turn: batches of one FIRE over all shards and one run_apply. */
static void lives(int32_t shards, int64_t first_task, int64_t tasks) {
  struct st_shard_list_ret list;
  struct run_row *rows = mem_array(BATCH, sizeof *rows);
  struct run_finish *ends = mem_array(BATCH, sizeof *ends);
  struct fire_shard *fires = mem_array((size_t)shards, sizeof *fires);
  struct fence_row *fences = mem_array((size_t)shards, sizeof *fences);
  struct st_fire_ret fired;
  struct st_run_apply_ret applied;
  struct span total[2] = {};
  int64_t task = first_task;
  for (int n = 0; n < BATCHES; n++) {
    arena_clear(&mem);
    CALL(shard_list, &list);
    usec_t at = clock_system.wall(&clock_system);
    for (int32_t i = 0; i < shards; i++) {
      const struct shard_row *r = &list.shards[i];
      fires[i] = (struct fire_shard){i, r->epoch, r->tasks_version, r->fired_at, r->fired_task, at, n};
      fences[i] = (struct fence_row){i, r->epoch};
    }
    for (int i = 0; i < BATCH; i++, task = task + 1 < first_task + tasks ? task + 1 : first_task) {
      rows[i] = (struct run_row){.key = {shard_of_task(task, shards), at, task, i},
                                 .version = 1,
                                 .fired_at = at,
                                 .attempt = 1,
                                 .progress = -1};
      ends[i] = (struct run_finish){.key = rows[i].key,
                                    .seen_attempt = 1,
                                    .state = RUN_SUCCESS,
                                    .attempt_at = at,
                                    .started_at = at,
                                    .finished_at = at,
                                    .executor = SLICE("executor-1")};
    }
    struct span b = begin();
    CALL(fire, &fired, .shards = fires, .shard_count = (size_t)shards, .open = rows, .open_count = BATCH,
         .ahead = USEC_PER_SEC);
    struct span m = begin();
    CALL(run_apply, &applied, .fences = fences, .fence_count = (size_t)shards, .finishes = ends,
         .finish_count = BATCH);
    struct span f = begin();
    total[0].wall += m.wall - b.wall, total[0].cpu += m.cpu - b.cpu;
    total[1].wall += f.wall - m.wall, total[1].cpu += f.cpu - m.cpu;
    for (int i = 0; i < BATCH; i++)
      if (!applied.finished[i])
        must(ERR_INTERNAL, "a run was not finished");
  }
  static const char *const names[2] = {"FIRE, 1,000 a transaction", "FINISH, 1,000 a transaction"};
  for (int i = 0; i < 2; i++) {
    struct span now = begin();
    end((struct span){now.wall - total[i].wall, now.cpu - total[i].cpu}, names[i], (int64_t)BATCH * BATCHES);
  }
  mem_free(rows), mem_free(ends), mem_free(fires), mem_free(fences);
}

int main(int argc, char **argv) {
  struct store_source *source;
  struct st_meta_ret meta;
  int64_t tasks = 10000;
  if (argc < 2 || (argc > 2 && parse_i64(slice_of(argv[2]), BATCH, 100000000, &tasks, &e) < 0)) {
    fprintf(stderr, "usage: bench_store URL [tasks] %s\n", e.text);
    return 2;
  }
  must(store_source_open(&(struct store_options){.url = argv[1], .shard_count = 32, .clock = &clock_system},
                         &source, &e),
       "open");
  must(store_session(source, STORE_FIRE, &s, &e), "session");
  CALL(meta, &meta);
  int64_t last = put_tasks(tasks);
  load_tasks(meta.shard_count);
  lives(meta.shard_count, last + BATCH - tasks, tasks);
  load_tasks(meta.shard_count);
  store_close(&s);
  store_source_close(&source);
  return 0;
}
