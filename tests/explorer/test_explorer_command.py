"""The command: prints where it serves, ends at once, and says what is wrong in one line."""

import os
import signal
import subprocess
import sys
import urllib.request

PROGRAM = "import saddlescope.cli.explore; from saddlescope.cli import main; main()"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(*arguments):
    return [sys.executable, "-c", PROGRAM, "explore", *arguments]


def test_it_serves_until_interrupted_and_leaves_nothing(tmp_path):
    environment = ENVIRONMENT | {"TMPDIR": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # A shell lets what runs in the background ignore Ctrl-C, and who is begun there too.
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command("--port", "0", "--workers", "1"), env=environment, **pipes) as process:
        address = process.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=30) as page:
            assert b"saddlescope" in page.read()
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()
        assert process.stderr.read() == ""
    assert not list(tmp_path.glob("saddlescope-explorer-*"))


def test_wrong_use_is_one_line():
    arguments = command("--host", "203.0.113.7")  # an address of no machine
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    message = "saddlescope: host, port: got ('203.0.113.7', 5006), expected an address of this machine"
    assert done.returncode == 2 and done.stderr.startswith(message) and done.stderr.count("\n") == 1
