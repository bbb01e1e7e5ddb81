"""A program that stands where `kezek` would, to see how its supervisor starts, watches and stops parts.

`STAND_IN` in the environment names what goes wrong: a command that fails, a part that dies or will not end.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class Health(BaseHTTPRequestHandler):
    """Answers every address as /healthz would."""

    def do_GET(self) -> None:
        self.send_response(503 if os.environ.get("STAND_IN") == "unhealthy" else 200)
        self.end_headers()
        self.wfile.write(b"the scheduler is silent")


def main(command: str) -> None:
    trouble = os.environ.get("STAND_IN", "")
    if trouble == f"{command} fails":
        sys.exit(f"{command}: the disk is full")
    if command == "demo load" and trouble.startswith("slurm node"):
        print(
            "loaded\nA simulated cluster learns the story by: kezek slurm node gpu0001 down --reason 'XID 79'"
        )
    if command == "demo people":
        print("operator@example.kz  a-password")
    if command == "scheduler":
        if trouble == "scheduler stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(0.6 if trouble == "scheduler dies" else 3600)
        sys.exit("scheduler: lost its database")
    if command == "web":
        HTTPServer(("127.0.0.1", int(os.environ["KEZEK_PORT"])), Health).serve_forever()


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
