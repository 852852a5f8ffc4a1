"""CPU, memory and metrics of running processes; what the machine is."""
import os
import platform
import re
import subprocess

import requests

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE")


def stat_of(pid):
    """(parent, CPU µs of its own, CPU µs of ended children, RSS bytes); None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            n = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(n[1]), (int(n[11]) + int(n[12])) * TICK_US, (int(n[13]) + int(n[14])) * TICK_US, int(n[21]) * PAGE


def cpu_us(pid):
    got = stat_of(pid)
    return got[1] if got else 0.0


def tree_cpu_us(pid):
    """A server process with its children, ended ones included."""
    got = stat_of(pid)
    total = got[1] + got[2] if got else 0.0
    for name in filter(str.isdigit, os.listdir("/proc")):
        child = stat_of(name)
        if child and child[0] == pid:
            total += child[1]
    return total


def rss_mb(pid):
    got = stat_of(pid)
    return got[3] / 1e6 if got else 0.0


def metrics(base_url):
    """{'name{labels}': value}"""
    text = requests.get(base_url + "/metrics", timeout=20).text
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line and line[0] != "#"}


def total(found, name):
    """The sum of all series of a family."""
    return sum(value for key, value in found.items() if key == name or key.startswith(name + "{"))


def quantile(before, after, name, q):
    """A quantile (ms) of what a histogram counted in between, straight within its bucket."""
    counts = []
    for key, value in after.items():
        got = re.fullmatch(re.escape(name) + r'_bucket\{.*?le="([^"]+)".*\}', key)
        if got:
            counts.append((float(got.group(1).replace("+Inf", "inf")), value - before.get(key, 0)))
    counts.sort()
    want, low, seen = (counts[-1][1] if counts else 0) * q, 0.0, 0.0
    for limit, count in counts:
        if count >= want and count > seen:
            return 1000 * (low + (min(limit, 60) - low) * (want - seen) / (count - seen))
        low, seen = limit, count
    return 0.0


def machine():
    """One line: kernel, processors, memory, load."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
        model = re.search(r"model name\s*: (.*)", f.read())
    with open("/proc/meminfo", encoding="utf-8", errors="replace") as f:
        memory = int(re.search(r"MemTotal:\s*(\d+)", f.read()).group(1)) / 1e6
    return (f"{os.cpu_count()} × {model.group(1) if model else platform.machine()}, {memory:.0f} GB, Linux {platform.release()}, "
            f"load {os.getloadavg()[0]:.1f}")


def postgres_version(binary_folder):
    return subprocess.run([f"{binary_folder}/postgres", "--version"], capture_output=True, text=True, check=True).stdout.strip()
