"""Uses the pages of a running `virt-walkerd page` in a browser, and attacks its server. Prints TAP. scripts/ci/check-live-page runs this program.

usage: check-live-page.py WATCH_ADDRESS CONTROL_ADDRESS NODE [PICTURES]
"""

import http.client
import json
import os
import socket
import sys
import threading
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from browser import Browser  # noqa: E402
from checks import check, finish, same  # noqa: E402

watch, control, node = sys.argv[1:4]
pictures = sys.argv[4] if len(sys.argv) > 4 else None
host = urllib.parse.urlsplit(watch).netloc
address = (host.split(":")[0], int(host.split(":")[1]))


def request(method, url, headers=None, body=None, wanted_host=None):
    """The status and the text of an answer."""
    connection = http.client.HTTPConnection(*address, timeout=60)
    path = urllib.parse.urlsplit(url).path
    try:
        connection.putrequest(method, path, skip_host=True)
        for one in ([host] if wanted_host is None else wanted_host):
            connection.putheader("Host", one)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


OWN = {"Origin": "http://" + host, "X-Virt-Walker": "control"}


def hide(byte):
    with open(node, "wb", buffering=0) as file:
        file.write(bytes([byte]))


def found():
    with open(node, "rb", buffering=0) as file:
        return file.read(1)[0]


def steps():
    return int(browser.evaluate("document.getElementById('place').textContent").split()[-1])


def shows(text):
    browser.wait("document.getElementById('step').innerText.includes(%s)" % json.dumps(text))


def watching():
    browser.size(1280, 1000)
    browser.open(watch)
    same(0, browser.evaluate("document.querySelectorAll('.live').length"))
    hide(0x57)
    shows("byte 0x57 'W' is hidden")
    shows("hidden byte 0x57 'W'")
    shows("write length: 1 bytes")
    shows("MMIO to HIDE and SEEK register detected, len: 1")


def stays():
    before = steps()
    browser.click("#start")
    hide(0x58)
    browser.wait("document.getElementById('place').textContent !== 'Step 1 of %d'" % before)
    assert browser.evaluate("document.getElementById('place').textContent").startswith("Step 1 of ")
    browser.click("#end")
    shows("hidden byte 0x58 'X'")


def several():
    results = []
    epoch = json.loads(request("GET", watch + "changes/0/0")[1])
    number = len(epoch["content"]["machines"][0]["steps"])

    def follow():
        results.append(request("GET", watch + "changes/%d/%d" % (epoch["epoch"], number)))

    threads = [threading.Thread(target=follow) for _ in range(10)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    same([], results)
    hide(0x59)
    for thread in threads:
        thread.join()
    same([200] * 10, [status for status, _ in results])
    same(1, len({text for _, text in results}))


def buttons():
    browser.open(control)
    hide(0x41)
    shows("byte 0x41 'A' is hidden")
    for label, text in [("Guest loads", "guest ldr w0,[0x40000000]\n  run retired"),
                        ("Seek", "guest ldrb w0,[0x0b000001]\n  run retired pc +4 x0 0x41"),
                        ("Make the page old", "host age 0x40000000\n  result 0"),
                        ("Dirty log on", "host dirty-log on\n  result 0"), ("Dirty log off", "host dirty-log off\n  result 0"),
                        ("Guest stores an instruction", "x0=0xf900013f\n  run retired"),
                        ("Guest executes", "guest fetch 0x40000000\n  run retired"), ("Hide 0x04", "x0=0x4\n  run retired"),
                        ("Hide 'A'", "x0=0x41\n  run retired"), ("Drop the page", "0x1000\n  result 0"),
                        ("Hide 'A'", "x0=0x41\n  run retired"), ("Boot anew", "the machine was booted anew")]:
        browser.evaluate("[...document.querySelectorAll('.live button')].find((b) => b.textContent === %s).click()"
                         % json.dumps(label))
        browser.wait("document.querySelector('.answer').textContent.includes(%s)" % json.dumps(text))
    same(0, found())
    if pictures:
        browser.picture(os.path.join(pictures, "live.png"))


def line():
    browser.evaluate("document.getElementById('line').focus()")
    browser.call("Input.insertText", {"text": "guest strb w0,[0x0b000000] x0=0x5a"})
    browser.press("Enter")
    shows("byte 0x5a 'Z' is hidden")
    same(0x5A, found())
    browser.evaluate("document.getElementById('line').value = 'host madvise dontneed 4K'")
    browser.click(".line button")
    browser.wait("document.querySelector('.answer').textContent.includes('expected')")
    same(0x5A, found())
    # A space in the field is no key of the page.
    browser.evaluate("(() => { const l = document.getElementById('line'); l.value = ''; l.focus(); })()")
    browser.press(" ", "Space")
    same(" ", browser.evaluate("document.getElementById('line').value"))
    same("Play", browser.evaluate("document.getElementById('play').textContent"))


def names():
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    for node_ in nodes:
        if not node_.get("ignored") and node_.get("role", {}).get("value") in ["button", "textbox", "slider", "link"]:
            assert node_.get("name", {}).get("value", "").strip(), node_
    browser.size(320, 640)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 320
    browser.size(1280, 1000)


def no_errors():
    seen = [json.dumps(event["params"])[:300] for event in browser.take_events(
        "Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")]
    same([], seen)


def refused(status, *arguments, **keywords):
    before = found()
    got, text = request(*arguments, **keywords)
    same(status, got)
    assert text.strip(), "no reason"
    same(before, found())


LINE = b"guest strb w0,[0x0b000000] x0=0x21\n"


def other_hosts():
    for name in ["evil.example", "evil.example:%d" % address[1], "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:%d" % address[1],
                 "127.0.0.1:%d.evil.example" % address[1], ""]:
        refused(403, "GET", watch, wanted_host=[name])
    refused(403, "GET", watch, wanted_host=[host, "evil.example"])
    refused(403, "POST", control + "control", OWN, LINE, wanted_host=["evil.example:%d" % address[1]])
    same(200, request("GET", watch, wanted_host=["localhost:%d" % address[1]])[0])


def other_sites():
    for headers in [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "https://" + host},
                    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}]:
        refused(403, "GET", watch, headers)
        refused(403, "POST", control + "control", {**OWN, **headers}, LINE)
    refused(403, "POST", control + "control", {"X-Virt-Walker": "control"}, LINE)
    refused(403, "POST", control + "control", {"Origin": "http://" + host}, LINE)
    refused(403, "POST", control + "control", {}, LINE)


def secrets():
    refused(403, "POST", watch + "control", OWN, LINE)
    wrong = control[:-2] + ("0" if control[-2] != "0" else "1") + "/"
    refused(404, "POST", wrong + "control", OWN, LINE)
    for path in ["http://x/", "http://x//", "http://x/changes/0/0", control[:-2], wrong, "http://x/../etc/passwd"]:
        refused(404, "GET", path)
    refused(403, "POST", watch + "control", OWN, b"reset\n")
    refused(403, "POST", control + "control", {"Origin": "http://" + host}, b"reset\n")
    refused(405, "PUT", control + "control", OWN, LINE)
    refused(405, "POST", control, OWN, LINE)
    refused(404, "GET", watch + "changes/a/b")
    same(200, request("POST", control + "control", OWN, LINE)[0])
    same(0x21, found())


def sizes():
    refused(413, "POST", control + "control", OWN, b"#" * 20000 + b"\n" + LINE)
    for raw in [b"GET / HTTP/1.1\r\nHost: " + b"x" * 200000 + b"\r\n\r\n", b"\x00\xff" * 1000, b"GET\r\n\r\n",
                b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]:
        with socket.create_connection(address, 60) as client:
            try:
                client.sendall(raw)
                answer = client.recv(100)
            except ConnectionError:
                continue
            assert b" 200 " not in answer, (raw[:20], answer)
    same(200, request("GET", watch)[0])


def connections():
    clients = [socket.create_connection(address, 60) for _ in range(200)]
    time.sleep(0.5)
    closed = 0
    for client in clients:
        client.settimeout(0.01)
        try:
            closed += client.recv(1) == b""
        except ConnectionError:
            closed += 1
        except socket.timeout:
            pass
    assert closed >= 136, closed
    for client in clients:
        client.close()
    time.sleep(0.5)
    same(200, request("GET", watch)[0])


def slow():
    path = urllib.parse.urlsplit(watch).path
    clients = []
    for _ in range(20):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.connect(address)
        client.sendall((("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n" % (path, host)) * 50).encode())
        clients.append(client)
    for _ in range(20):
        hide(0x42)
        same(0x42, found())
        same(200, request("GET", watch)[0])
    browser.open(watch)
    hide(0x43)
    shows("byte 0x43 'C' is hidden")
    for client in clients:
        client.close()


with Browser() as browser:
    check("a page for watching has no buttons, and shows each access", watching)
    check("a page at another step stays there", stays)
    check("ten watchers wait for the same step", several)
    check("each button of a page for controlling", buttons)
    check("a line for control, and its error", line)
    check("names of controls, and the width of a phone", names)
    check("no error on the console", no_errors)
    check("another Host is refused", other_hosts)
    check("requests of other sites are refused", other_sites)
    check("only the secret address controls", secrets)
    check("large and malformed requests", sizes)
    check("200 connections", connections)
    check("watchers that do not read harm nobody", slow)
finish()
