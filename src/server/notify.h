#pragma once
/* What the service manager wants to know (sd_notify(3)), when it has started us: "READY=1", "STOPPING=1", "RELOADING=1". Nothing
 * happens where nobody asked, and a failure changes nothing. */
void notify_manager(const char *state);
