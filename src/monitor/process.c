#include "monitor/process.h"
#include "base/file.h"
#include "base/metric.h"
#include "base/parse.h"
#include "base/time.h"
#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

enum { STAT_MAX = 4096 };
/* Fields of /proc/self/stat after the name in brackets (proc(5) counts from 1, these begin with the third). */
enum {
  FIELD_UTIME = 14 - 3,
  FIELD_STIME = 15 - 3,
  FIELD_THREADS = 20 - 3,
  FIELD_START = 22 - 3,
  FIELD_VSIZE = 23 - 3,
  FIELD_RSS = 24 - 3
};

static struct { struct metric *cpu, *rss, *vsize, *fds, *max_fds, *start, *threads; } process;

static struct metric *one(const char *name, const char *help, enum metric_kind kind) {
  return metric_series(metric_family(name, help, kind, "", NULL), NULL);
}

/* The n-th of the words after ") "; 0 when there is none. */
static int64_t field(struct slice text, int n) {
  int64_t v = 0;
  struct slice word = {0}, rest = text;
  for (int i = 0; i <= n; i++)
    word = slice_cut(rest, ' ', &rest);
  return parse_i64(word, INT64_MIN, INT64_MAX, &v, NULL) < 0 ? 0 : v;
}

static double boot_time(void) {
  auto_str text;
  str_init(&text, (size_t)1 << 20);
  int64_t at = 0;
  if (file_read("/proc/stat", (size_t)1 << 20, &text, NULL) < 0)
    return 0;
  const char *line = strstr(text.p, "\nbtime ");
  struct slice rest;
  return line && parse_i64(slice_cut(slice_of(line + 7), '\n', &rest), 0, INT64_MAX, &at, NULL) == 0
             ? (double)at
             : 0;
}

static void read_stat(void) {
  auto_str text;
  str_init(&text, STAT_MAX);
  if (file_read("/proc/self/stat", STAT_MAX, &text, NULL) < 0)
    return;
  const char *end = strrchr(text.p, ')');
  if (!end || !end[1])
    return;
  struct slice words = slice_of(end + 2);
  double ticks = (double)sysconf(_SC_CLK_TCK), page = (double)sysconf(_SC_PAGESIZE);
  metric_set(process.cpu, (double)(field(words, FIELD_UTIME) + field(words, FIELD_STIME)) / ticks);
  metric_set(process.threads, (double)field(words, FIELD_THREADS));
  metric_set(process.vsize, (double)field(words, FIELD_VSIZE));
  metric_set(process.rss, (double)field(words, FIELD_RSS) * page);
  if (metric_value(process.start) == 0)
    metric_set(process.start, boot_time() + (double)field(words, FIELD_START) / ticks);
}

static void count_files(void) {
  struct rlimit l;
  DIR *d = opendir("/proc/self/fd");
  int64_t n = -1; /* the folder itself is open, too */
  if (getrlimit(RLIMIT_NOFILE, &l) == 0)
    metric_set(process.max_fds, l.rlim_cur == RLIM_INFINITY ? -1 : (double)l.rlim_cur);
  if (!d)
    return;
  for (const struct dirent *e; (e = readdir(d)) != NULL;)
    n += e->d_name[0] != '.';
  closedir(d);
  metric_set(process.fds, (double)n);
}

static void collect(void *arg) {
  (void)arg;
  read_stat();
  count_files();
}

void monitor_process(const char *version) {
  metric_set(metric_series(metric_family("kelou_build_info", "1; its labels say what runs", METRIC_GAUGE,
                                         "version", NULL),
                           version, NULL),
             1);
  process.cpu = one("process_cpu_seconds_total", "User and system time", METRIC_COUNTER);
  process.rss = one("process_resident_memory_bytes", "Resident memory", METRIC_GAUGE);
  process.vsize = one("process_virtual_memory_bytes", "Virtual memory", METRIC_GAUGE);
  process.fds = one("process_open_fds", "Open file descriptors", METRIC_GAUGE);
  process.max_fds = one("process_max_fds", "File descriptors that may be open", METRIC_GAUGE);
  process.start = one("process_start_time_seconds", "Start, in seconds since the epoch", METRIC_GAUGE);
  process.threads = one("process_threads", "Threads", METRIC_GAUGE);
  metric_collector(collect, NULL);
}
