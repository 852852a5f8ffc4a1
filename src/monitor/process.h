#pragma once
/* kelou_build_info, and the process_… metrics that every client library has, read from /proc when somebody looks. */
void monitor_process(const char *version);
