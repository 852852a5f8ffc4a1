#include "measure.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct stat_line {
  int ppid;
  double cpu_us, gone_us; /* its own, and of children that have ended */
  long rss_pages;
};

static int read_stat(const char *pid, struct stat_line *ret) {
  char path[64], text[1024];
  (void)snprintf(path, sizeof path, "/proc/%s/stat", pid);
  FILE *f = fopen(path, "r");
  if (!f)
    return -1;
  size_t n = fread(text, 1, sizeof text - 1, f);
  fclose(f);
  text[n] = 0;
  char *p = strrchr(text, ')'); /* the name may hold anything */
  unsigned long utime, stime;
  long cutime, cstime;
  if (!p ||
      sscanf(p + 2, "%*c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %ld %ld %*d %*d %*d %*d %*u %*u %ld",
             &ret->ppid, &utime, &stime, &cutime, &cstime, &ret->rss_pages) < 6)
    return -1;
  double tick = 1e6 / (double)sysconf(_SC_CLK_TCK);
  ret->cpu_us = (double)(utime + stime) * tick;
  ret->gone_us = (double)(cutime + cstime) * tick;
  return 0;
}

void measure(int database_pid, struct usage *ret) {
  struct stat_line s;
  *ret = (struct usage){0};
  if (read_stat("self", &s) == 0) {
    ret->self_us = s.cpu_us;
    ret->rss_mb = (double)s.rss_pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
  }
  DIR *d = database_pid ? opendir("/proc") : NULL;
  for (struct dirent *e; d && (e = readdir(d));) {
    long pid = strtol(e->d_name, NULL, 10);
    if (pid <= 0 || read_stat(e->d_name, &s) < 0)
      continue;
    if (pid == database_pid)
      ret->database_us += s.cpu_us + s.gone_us;
    else if (s.ppid == database_pid)
      ret->database_us += s.cpu_us;
  }
  if (d)
    closedir(d);
}
