"""Requests that no browser of ours would send: noise, broken settings, formulas made of what is dangerous elsewhere."""

import string

from saddlescope.explorer.fields import FIELDS

PIECES = ["x", "y", "**", "(", ")", "9" * 5, "e", "exp(", "__import__('os')", "lambda:", "[", "]", "{", "}", "x.y"]
PIECES += ["0x", "1e999", "-", "+", "\\", "'", '"', "#", "\x00", "é", "𝕏", "=", "&", "%", ";", ",", ":=", "if ", "~"]
PIECES += ["eval", "sqrt(", "log(0)", "/0", "**9**9", "()", "nan", "inf", " ", "\n", "<script>", "${x}", "../"]
PATHS = ["", "training", "nothing", "api", "api/", "api/nothing", "api/state/", "API/STATE", "static", "static/", "%"]
PATHS += [
    "static/../server.py",
    "static/%2e%2e/server.py",
    "static/..%2fserver.py",
    "static/..\\server.py",
    "//etc/passwd",
]
PATHS += [
    "static/%00",
    "static/style.css%00.js",
    "static/" + "../" * 40 + "etc/passwd",
    "static/%c0%ae%c0%ae/server.py",
]
PATHS += [
    "static/style.css",
    "static/explorer.js/",
    "static/%ff%fe",
    "..",
    "%2e%2e",
    "static/" + "a" * 4000,
    "?",
    "??&&==",
]
METHODS = ["HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "G\x00T", "", "PROPFIND"]
LINES = [
    "Host: evil.example",
    "Host: ",
    "Host: localhost\r\nHost: evil",
    "Range: bytes=5-2",
    "Range: bytes=0-99999999999",
]
LINES += [
    "Range: bytes=-0",
    'If-None-Match: "x", W/"y',
    "If-Modified-Since: yesterday",
    "Content-Length: -5",
    "Content-Length: x",
]
LINES += [
    "Content-Length: 9999999999",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Expect: 100-continue",
]
LINES += [
    "Connection: Upgrade\r\nUpgrade: websocket",
    "Cookie: " + "a=b;" * 2000,
    "X: " + "y" * 20_000,
    "no colon",
    ": x",
]
LINES += ["Accept-Encoding: gzip, \x00", "X-Forwarded-For: 127.0.0.1\r\n folded", "A: b\r\n" * 300 + "C: d"]


def query(generator):
    """Return a query string, not encoded."""
    kind = generator.randrange(5)
    if kind == 0:
        return "".join(generator.choice(string.printable) for _ in range(generator.randrange(60)))
    if kind == 1:
        return "loss=" + "".join(generator.choice(PIECES) for _ in range(generator.randrange(1, 40)))
    if kind == 2:
        name = generator.choice([*FIELDS, "nothing", ""])
        return f"{name}={''.join(generator.choice(PIECES) for _ in range(generator.randrange(6)))}"
    if kind == 3:
        unit = generator.choice(["(", "-", "x**", "exp(", "x+", "1/", "sin(x)*"])
        return "loss=" + unit * generator.randrange(2100) + "x"
    return "&".join(f"{name}={generator.choice(PIECES)}{generator.random()}" for name in FIELDS)


def encoded(generator, text):
    """Return bytes that may stand in a request's first line: rightly, wrongly or not at all percent-encoded."""
    raw = text.encode("utf-8", "surrogatepass")
    kind = generator.randrange(8)
    if kind == 0:  # rubbish after percent signs
        raw = raw.replace(b"=", b"=%" + bytes(generator.choices(b"0123456789abcdefgG%\xff", k=3)))
    unsafe = b" \r\n\x00" if kind else b" \r\n"
    return b"".join(b"%%%02x" % byte if byte in unsafe or kind > 5 and byte > 126 else bytes([byte]) for byte in raw)


def request(generator):
    """Return a request as bytes and what it is of: "state", "answer", "path", "method" or "header"."""
    kind = generator.choices(["state", "answer", "path", "method", "header"], [45, 2, 28, 17, 8])[0]
    method, line, body = "GET", "", b""
    asked = encoded(generator, query(generator)) if kind != "answer" or generator.random() < 0.5 else b"steps=2"
    path = b"/api/state?" + asked
    if kind == "answer":
        # A formula is left out here: those that happen to be one are compiled, a second each.
        asked = asked if b"loss" not in asked else b"rho=%d" % generator.randrange(-9, 20)
        path = b"/api/" + generator.choice([b"trajectories", b"picture", b"points", b"training"]) + b"?steps=3&" + asked
    elif kind == "path":
        path = b"/" + encoded(generator, generator.choice(PATHS)) + generator.choice([b"", b"?" + asked])
    elif kind == "method":
        method, body = (
            generator.choice(METHODS),
            bytes(generator.choices(range(256), k=generator.choice([0, 3, 900, 3000]))),
        )
        path = generator.choice(
            [b"/", b"/api/state", b"/api/basins", b"/static/style.css", b"*", b"http://evil.example/"]
        )
    elif kind == "header":
        line = generator.choice(LINES) + "\r\n"
        path = generator.choice([b"/", b"/api/state", b"/static/style.css", b"/static/chart.js"])
    head = b"%s %s HTTP/1.1\r\n" % (method.encode("latin-1"), path)
    host = "" if line.startswith("Host") else "Host: localhost\r\n"
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return head + (host + length + line).encode("utf-8") + b"\r\n" + body, kind
