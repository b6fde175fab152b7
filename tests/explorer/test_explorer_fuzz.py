"""A running server under requests made to break it, over connections that stay open: no 500, no hang, no growth."""

import collections
import contextlib
import json
import os
import random
import socket
import threading
import time
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import urlsplit

import hostile

REQUESTS = int(os.environ.get("SADDLESCOPE_FUZZ_HTTP", "2000"))
"""1,000,000 take an hour or two."""
CONNECTIONS = 4
HANGS = 20.0
"""Seconds without an answer after which a request counts as hanging, on however busy a machine."""
MEMORY = Path("/proc/self/smaps_rollup").exists()


def resident(process):
    """Return the MiB of memory that are the process's own."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty", "Private_Clean"))) / 1024


class Fuzzer(threading.Thread):
    """One visitor who sends request after request, on one connection as long as the server keeps it."""

    def __init__(self, address, seed, count):
        super().__init__()
        parts = urlsplit(address)
        self.target, self.generator, self.count = (parts.hostname, parts.port), random.Random(seed), count
        self.statuses, self.slowest, self.failures = collections.Counter(), collections.Counter(), []

    def run(self):
        line = None
        for _ in range(self.count):
            sent, kind = hostile.request(self.generator)
            line = line or socket.create_connection(self.target, timeout=HANGS)
            began = time.monotonic()
            status, keep = self.ask(line, sent)
            self.slowest[kind] = max(self.slowest[kind], time.monotonic() - began)
            self.statuses[status] += 1
            if status in ("hangs", "traceback") or (isinstance(status, int) and status >= 500):
                self.failures.append((status, sent[:300]))
            if len(self.failures) > 3:
                break
            if not keep:
                line.close()
                line = None
        if line:
            line.close()

    def ask(self, line, sent):
        """Return the status, or "closed" or "hangs", and whether the connection can go on."""
        try:
            line.sendall(sent)
            if b"Content-Length: 9999999999" in sent or b"Transfer-Encoding" in sent:
                line.shutdown(socket.SHUT_WR)  # else the server waits for the rest, as it should
            response = HTTPResponse(line, method=sent.split(b" ", 1)[0].decode("latin-1"))
            response.begin()
            body = response.read()
            if b"Traceback" in body or b"saddlescope/explorer" in body:
                return "traceback", False
            return response.status, not response.will_close
        except TimeoutError:
            return "hangs", False
        except (HTTPException, OSError):
            return "closed", False


def test_no_request_breaks_the_server(server, address):
    # Whatever is loaded once, and the answers that are kept, are there before memory is compared.
    warm = Fuzzer(address, 1, 200)
    warm.start()
    warm.join()
    before = resident(server) if MEMORY else 0.0
    fuzzers = [Fuzzer(address, 20261124 + k, REQUESTS // CONNECTIONS) for k in range(CONNECTIONS)]
    for fuzzer in fuzzers:
        fuzzer.start()
    for fuzzer in fuzzers:
        fuzzer.join()
    after = resident(server) if MEMORY else 0.0
    statuses = sum((fuzzer.statuses for fuzzer in fuzzers), collections.Counter())
    slowest = {kind: round(max(f.slowest[kind] for f in fuzzers), 3) for kind in fuzzers[0].slowest}
    print(json.dumps({"statuses": dict(statuses), "slowest": slowest, "memory_mib": [round(before), round(after)]}))
    assert [failure for fuzzer in fuzzers for failure in fuzzer.failures] == []
    assert sum(statuses.values()) == REQUESTS // CONNECTIONS * CONNECTIONS
    assert {200, 400, 403, 404, 405} <= statuses.keys() and statuses[200] > REQUESTS / 3
    assert after < before + 64
    with contextlib.closing(socket.create_connection(fuzzers[0].target, timeout=HANGS)) as line:
        assert fuzzers[0].ask(line, b"GET /api/state HTTP/1.1\r\nHost: localhost\r\n\r\n")[0] == 200
