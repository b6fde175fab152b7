"""The server as a client meets it: every status, every header, and what it does with what it should not get."""

import contextlib
import json
import socket
import threading
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from written_log import write_log

from saddlescope.explorer.answers import Settings


def get(address, path, host=None):
    """Return status, headers and body."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=30)
    try:
        connection.request("GET", "/" + path, headers={"Host": host} if host else {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def last(body):
    return json.loads(body.strip().split(b"\n")[-1])


def test_the_page_and_its_files_come_from_here_alone(address):
    for path in ("", "training", "static/style.css", "static/explorer.js", "static/icon.svg"):
        status, headers, body = get(address, path)
        assert status == 200 and body
        assert (
            "default-src 'none'" in headers["Content-Security-Policy"]
            and headers["X-Content-Type-Options"] == "nosniff"
        )
        outside = body.replace(b"http://www.w3.org/", b"")
        assert b"http://" not in outside and b"https://" not in outside


def test_an_answer_says_what_was_asked_and_what_was_left_out(address):
    status, _, body = get(address, "api/trajectories?steps=4&rho=99&lr=0.002")
    reply = last(body)
    assert status == 200 and reply["query"] == "lr=0.002&steps=4"
    assert reply["notes"] == ["rho: got '99', expected a number from 0 to 10"]
    assert reply["result"]["optimizer"]["points"]["shape"] == [1, 5, 2]
    assert "ss.GradientMap(lr=0.002)" in reply["snippet"]


def test_progress_comes_as_lines_before_the_answer(address):
    status, headers, body = get(address, "api/bifurcation?landscape=quadratic_saddle&lr=0.01&rho_from=0.3&values=5")
    lines = [json.loads(line) for line in body.splitlines()]
    assert status == 200 and headers["Content-Type"] == "application/x-ndjson"
    assert [*lines[0]] == ["progress"] and "result" in lines[-1] and all("progress" in line for line in lines[:-1])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("api/nothing", 404),
        ("nothing", 404),
        ("static/../server.py", 404),
        ("static/%2e%2e/server.py", 404),
        ("static/style.css%00.js", 404),
        ("static/" + "a" * 5000 + ".js", 404),
        ("static/nothing.js", 404),
        ("api/training?log=7", 404),
        ("api/training?log=-1", 404),
        ("api/training?log=%00", 404),
        ("api/training?log=" + "9" * 5000, 404),
        ("api/phases?optimizer=vasso", 422),
        ("api/phases?loss=x**2%2By**2&lr=0.1", 422),
        ("api/state?loss=" + "x%2B" * 1900, 200),
        ("api/state?" + "a" * 12_000, 200),
    ],
)
def test_statuses(address, path, status):
    code, _, body = get(address, path)
    assert code == status and b"Traceback" not in body


def test_a_head_that_is_too_long_is_refused_and_the_next_visitor_served(address):
    with contextlib.suppress(ConnectionError):
        status, _, _ = get(address, "api/state?" + "a" * 1_000_000)
        assert 400 <= status < 500
    assert get(address, "api/state")[0] == 200


def test_other_methods_and_bodies_are_refused(address):
    for method in ("POST", "PUT", "DELETE"):
        connection = HTTPConnection(urlsplit(address).netloc, timeout=10)
        connection.request(method, "/api/state", body=b"x")
        assert connection.getresponse().status == 405
        connection.close()


def test_no_other_name_may_point_here(address):
    assert get(address, "api/state", host="evil.example")[0] == 403
    assert get(address, "static/style.css", host="evil.example:80")[0] == 403
    assert get(address, "", host=f"localhost:{urlsplit(address).port}")[0] == 200


@pytest.mark.parametrize(
    "loss",
    [
        "__import__('os').system('touch /tmp/owned')",
        "().__class__.__bases__[0]",
        "x" + "**2" * 600,
        "(" * 999 + "x" + ")" * 999,
        "exp(" * 150 + "x" + ")" * 150,
        "sqrt(x)*log(y)/0.0",
        "1/(x-x)",
        "x**-1000 + y**1000",
        "+".join(f"sin({k}*x*y)" for k in range(1, 130)),
    ],
)
def test_hostile_formulas_get_an_answer_in_time(address, loss):
    began = time.monotonic()
    for job in ("picture", "trajectories"):
        status, _, body = get(address, f"api/{job}?steps=20&loss={quote(loss[:1900], safe='')}")
        assert status in (200, 422, 504) and {"result", "error"} & last(body).keys()
    assert time.monotonic() - began < 15
    assert get(address, "api/trajectories?steps=2")[0] == 200


def test_who_leaves_in_mid_computation_frees_the_only_worker(address):
    long = "api/basins?landscape=ackley&resolution=384&lr=0.0001&seed=5"
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as line:
        line.sendall(f"GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        time.sleep(1.0)
    began = time.monotonic()
    status, _, body = get(address, "api/escape?replicas=100&longest=100")
    assert status == 200 and "result" in last(body)
    assert time.monotonic() - began < 15  # the map alone would take a minute


def test_two_visitors_at_once_get_their_own(address):
    replies = {}

    def visit(rho):
        for k in range(5):
            state = f"landscape=double_well&lr=0.05&steps={20 + k}&rho={rho}"
            replies[rho, k] = last(get(address, f"api/trajectories?{state}")[2])

    threads = [threading.Thread(target=visit, args=(rho,)) for rho in ("0.1", "0.7")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(replies) == 10
    for (rho, k), reply in replies.items():
        assert f"rho={rho}" in reply["query"]
        assert reply["result"]["optimizer"]["points"]["shape"] == [1, 21 + k, 2]
    assert replies["0.1", 0]["result"]["optimizer"] != replies["0.7", 0]["result"]["optimizer"]


def test_a_log_is_followed_and_sent_once_per_version(address, log_file):
    log_file.unlink(missing_ok=True)
    missing = last(get(address, "api/training")[2])
    assert missing == {"error": "run.jsonl cannot be read"}  # and not where it is
    write_log(log_file, range(1, 101))
    reply = last(get(address, "api/training?log=0")[2])
    log = reply["log"]
    assert log["verdict"] == "trapped" and log["advice"] == "The loss curves down." and log["every"] == 1
    assert log["signals"]["loss"][:2] == [1.0, 0.5] and log["checks"][0]["trap_number"] == 2.5
    assert log["account"] == "The monitor has taken 5.0% of the training's time."
    assert [*last(get(address, f"api/training?seen={reply['version']}")[2])] == ["version"]
    write_log(log_file, range(101, 3201))
    longer = last(get(address, f"api/training?seen={reply['version']}")[2])["log"]
    assert longer["every"] == 3 and len(longer["signals"]["loss"]) == 1067
    assert abs(longer["signals"]["loss"][0] - (1 + 1 / 2 + 1 / 3) / 3) < 1e-15
    log_file.write_text("no log\n")
    assert "expected a new file or a log" in last(get(address, "api/training")[2])["error"]


def test_settings_are_checked():
    for wrong in ({"port": 70_000}, {"quick_workers": 0}, {"waiting": 0}, {"port": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Settings(**wrong)
    assert Settings().host == "127.0.0.1" and Settings(logs=(Path("a"),)).logs == (Path("a"),)
