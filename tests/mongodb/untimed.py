"""A proxy in front of a server that does not say what time it is.

    untimed.py PORT

Prints the port it listens on.
"""

import sys

from between import serve


def change(reply):
    for name in ("localTime", "operationTime", "$clusterTime"):
        reply.pop(name, None)


serve(int(sys.argv[1]), lambda content: b"localTime" in content, change)
