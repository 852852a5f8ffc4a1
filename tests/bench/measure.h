#pragma once
/* CPU and memory from /proc: this process, and a database server with all its children. */
struct usage {
  double self_us, database_us, rss_mb;
};
void measure(int database_pid, struct usage *ret); /* 0: no database server of its own */
