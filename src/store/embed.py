#!/usr/bin/env python3
"""Put numbered SQL scripts into a C table: embed.py OUTPUT TABLE SCRIPT...  (NNNN_name.sql, in the order of the numbers)."""
import os
import re
import sys


def c_string(text):
    lines = [line.replace("\\", "\\\\").replace('"', '\\"') for line in text.split("\n")]
    return "\n".join('    "%s\\n"' % line for line in lines if line)


def main():
    output, table, scripts = sys.argv[1], sys.argv[2], sorted(sys.argv[3:], key=os.path.basename)
    rows = []
    for number, path in enumerate(scripts, 1):
        name = os.path.basename(path)
        match = re.fullmatch(r"(\d{4})_([a-z0-9_]+)\.sql", name)
        if not match or int(match.group(1)) != number:
            sys.exit("%s: scripts are named NNNN_name.sql and numbered from 0001 without a gap" % name)
        with open(path, encoding="utf-8") as script:
            rows.append('  {%d, "%s",\n%s},\n' % (number, name, c_string(script.read())))
    with open(output, "w", encoding="utf-8") as c:
        c.write('#include "store/migrate.h"\n\n')
        c.write("const struct migration %s[] = {\n%s  {0, NULL, NULL}};\n" % (table, "".join(rows)))


main()
