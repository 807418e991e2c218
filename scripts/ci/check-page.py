"""Uses each control of pages of `virt-walkerd replay --page` in a browser. Prints TAP. scripts/ci/check-page runs this program.

usage: check-page.py DIRECTORY [PICTURES]
"""

import json
import os
import random
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from browser import Browser  # noqa: E402
from checks import check, finish, same  # noqa: E402

directory = os.path.abspath(sys.argv[1])
pictures = sys.argv[2] if len(sys.argv) > 2 else None


def url(name, step=""):
    return "file://" + os.path.join(directory, name) + step


def place():
    return browser.evaluate("document.getElementById('place').textContent")


def shows(text):
    same(text, place())


def title():
    return browser.evaluate("document.querySelector('.instruction').textContent")


def picture(name):
    if pictures:
        browser.picture(os.path.join(pictures, name + ".png"))


# The ratio of contrast of each text with its background (WCAG 2.1, 1.4.3). Texts in `.only-read` are for screen readers.
CONTRAST = """(() => {
  const parse = (color) => { const m = color.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const bad = [];
  let count = 0;
  for (const element of document.querySelectorAll('body *')) {
    if (![...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())) continue;
    if (element.closest('script, .only-read, noscript, .skip') || element.disabled || !element.getClientRects().length) continue;
    let at = element;
    while (at && parse(getComputedStyle(at).backgroundColor)[3] === 0) at = at.parentElement;
    const back = light(parse(getComputedStyle(at || document.body).backgroundColor));
    const front = light(parse(getComputedStyle(element).color));
    const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05);
    count += 1;
    if (ratio < 4.5) bad.push([element.className || element.tagName, element.textContent.slice(0, 20), ratio.toFixed(2)]);
  }
  return [count, bad.slice(0, 5)];
})()"""


def contrast():
    count, bad = browser.evaluate(CONTRAST)
    assert count > 50, count
    same([], bad)


def no_errors():
    seen = []
    for event in browser.take_events("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
        seen.append(json.dumps(event["params"])[:300])
    same([], seen)


def no_requests():
    urls = [event["params"]["request"]["url"] for event in browser.take_events("Network.requestWillBeSent")]
    same([], [u for u in urls if not u.startswith("file://" + directory + "/") and u != "about:blank"])
    assert urls, "no request was seen, not even that of the page"


def one_machine():
    browser.size(1280, 1000)
    browser.scheme("light")
    browser.open(url("one.html"))
    shows("Step 1 of 16")


def buttons():
    browser.click("#forward")
    shows("Step 2 of 16")
    same("guest strb w0,[0x0b000000] x0=0x41", title())
    browser.click("#back")
    shows("Step 1 of 16")
    browser.click("#end")
    shows("Step 16 of 16")
    same(True, browser.evaluate("document.getElementById('forward').disabled"))
    browser.click("#start")
    shows("Step 1 of 16")
    same(True, browser.evaluate("document.getElementById('back').disabled"))


def keys():
    browser.evaluate("document.activeElement.blur()")
    for key, step in [("ArrowRight", 2), ("ArrowRight", 3), ("ArrowLeft", 2), ("End", 16), ("Home", 1),
                      ("PageDown", 11), ("PageUp", 1)]:
        browser.press(key)
        shows("Step %d of 16" % step)


def slider():
    browser.evaluate("document.getElementById('slider').focus()")
    for key, step in [("ArrowRight", 2), ("End", 16), ("Home", 1), ("ArrowRight", 2)]:
        browser.press(key)
        shows("Step %d of 16" % step)
    same("Step 2 of 16: guest strb w0,[0x0b000000] x0=0x41",
         browser.evaluate("document.getElementById('slider').getAttribute('aria-valuetext')"))


def play():
    browser.evaluate("document.activeElement.blur()")
    browser.press("Home")
    browser.press(" ", "Space")
    same("Pause", browser.evaluate("document.getElementById('play').textContent"))
    browser.wait("document.getElementById('place').textContent === 'Step 3 of 16'")
    browser.press(" ", "Space")
    same("Play", browser.evaluate("document.getElementById('play').textContent"))
    stopped = place()
    time.sleep(2)
    shows(stopped)
    browser.click("#play")
    same("true", browser.evaluate("document.getElementById('play').getAttribute('aria-pressed')"))
    browser.click("#back")
    same("Play", browser.evaluate("document.getElementById('play').textContent"))


def play_ends():
    browser.press("End")
    browser.press("ArrowLeft")
    browser.click("#play")
    browser.wait("document.getElementById('place').textContent === 'Step 16 of 16'")
    same("Play", browser.evaluate("document.getElementById('play').textContent"))


def links():
    browser.open(url("one.html", "#step-5"))
    shows("Step 5 of 16")
    same("#step-5", browser.evaluate("document.getElementById('link').getAttribute('href')"))
    # A late event would bring a page that has gone on back to the step of the address.
    browser.evaluate("addEventListener('hashchange', (event) => { window.late = event.newURL; })")
    browser.click("#forward")
    browser.wait("location.hash === '#step-6'")
    time.sleep(0.5)
    same(None, browser.evaluate("window.late"))
    browser.evaluate("location.hash = '#step-12'")
    browser.wait("document.getElementById('place').textContent === 'Step 12 of 16'")
    browser.click("#near a[href='#step-13']")
    browser.wait("document.getElementById('place').textContent === 'Step 13 of 16'")
    browser.open(url("one.html", "#step-9999"))
    shows("Step 16 of 16")
    browser.open(url("one.html", "#step-x"))
    shows("Step 1 of 16")


def content():
    browser.open(url("one.html", "#step-5"))
    text = browser.evaluate("document.getElementById('step').innerText")
    for part in ["guest fetch 0x40000000", "instruction abort, permission fault, level 3", "IFSC", "HPFAR_EL2",
                 "kvm_handle_guest_abort", "user_mem_abort", "kvm_pgtable_stage2_relax_perms", "stage2_attr_walker",
                 "level 1", "0x100005000", "EL1 and EL0 may execute", "hidden byte 0x40 '@'",
                 "0x40000000, level 3, all CPUs", "The host’s kernel"]:
        assert part in text, "'%s' is not in the page" % part
    same(["software", "XN", "Contiguous", "DBM"], browser.evaluate(
        "[...document.querySelectorAll('tr.byte th')].map((e) => e.textContent)"))
    # Only XN[1] changes in the entry: before and after.
    same(2, browser.evaluate("document.querySelectorAll('.strip .field.byte b').length"))


def themes():
    colour = "getComputedStyle(document.body).backgroundColor"
    light = browser.evaluate(colour)
    contrast()
    for name in ["light", "dark"]:
        browser.click("#theme")
        same("Theme: " + name, browser.evaluate("document.getElementById('theme').textContent"))
    dark = browser.evaluate(colour)
    assert dark != light
    contrast()
    picture("dark")
    browser.click("#theme")
    same(light, browser.evaluate(colour))
    browser.scheme("dark")
    same(dark, browser.evaluate(colour))
    contrast()
    browser.scheme("light")


def phone():
    for name in ["one.html#step-5", "two.html#1,2-6", "explain.html#3-6"]:
        for theme in ["light", "dark"]:
            browser.scheme(theme)
            browser.size(320, 640)
            browser.open(url(name))
            width = browser.evaluate("document.documentElement.scrollWidth")
            assert width <= 320, "%s is %d wide" % (name, width)
            same([], browser.evaluate("""[...document.querySelectorAll('button, select, #slider')].filter((e) => e.getClientRects().length
              && (e.getBoundingClientRect().right > 320 || e.getBoundingClientRect().left < 0)).map((e) => e.id)"""))
        browser.scheme("light")
        picture("phone-" + name.split(".")[0])
    browser.size(1280, 1000)


def names():
    for name in ["one.html#step-5", "two.html", "explain.html"]:
        browser.open(url(name))
        nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
        roles = {}
        for node in nodes:
            if node.get("ignored"):
                continue
            role = node.get("role", {}).get("value")
            label = node.get("name", {}).get("value", "").strip()
            roles.setdefault(role, []).append(label)
        for role in ["button", "slider", "link", "combobox", "table", "region", "image", "navigation", "columnheader"]:
            same([], [label for label in roles.get(role, []) if not label])
        for role, least in [("button", 6), ("slider", 1), ("link", 5), ("main", 1), ("navigation", 1), ("banner", 1),
                            ("heading", 6), ("table", 2), ("columnheader", 8), ("rowheader", 1), ("status", 1)]:
            assert len(roles.get(role, [])) >= least, "%s: %d %s" % (name, len(roles.get(role, [])), role)


def tab_order():
    browser.open(url("one.html", "#step-5"))
    reached = []
    for _ in range(25):
        browser.press("Tab")
        reached.append(browser.evaluate("document.activeElement.id || document.activeElement.tagName"))
        same(True, browser.evaluate("document.activeElement === document.body || document.activeElement.matches(':focus-visible')"))
    for control in ["theme", "start", "back", "play", "forward", "end", "slider", "link"]:
        assert control in reached, "%s is not in %s" % (control, reached)
    browser.evaluate("document.getElementById('forward').focus()")
    browser.press("Enter")
    shows("Step 6 of 16")
    browser.press(" ", "Space")
    shows("Step 7 of 16")


def status():
    same("polite", browser.evaluate("document.getElementById('status').getAttribute('aria-live') || 'polite'"))
    browser.click("#start")
    same("Step 1 of 16: guest str w0,[0x40000000] x0=0xf900013f", browser.evaluate("document.getElementById('status').textContent"))


def two_machines():
    browser.open(url("two.html"))
    same(2, browser.evaluate("document.querySelectorAll('.pane').length"))
    same(["fetch.txt, Linux 6.1", "fetch.txt, Linux 7.3"],
         browser.evaluate("[...document.querySelectorAll('.pane h2')].map((e) => e.textContent)"))
    picture("two")
    browser.click("#difference")
    shows("Step 4 of 5")
    same(2, browser.evaluate("document.querySelectorAll('.differs').length"))
    picture("difference")
    browser.evaluate("document.activeElement.blur()")
    browser.press("Home")
    browser.press("d", "KeyD")
    shows("Step 4 of 5")
    browser.wait("location.hash === '#1,2-4'")


def choice():
    browser.evaluate("(() => { const s = document.getElementById('second'); s.value = '-1'; s.dispatchEvent(new Event('change')); })()")
    same(1, browser.evaluate("document.querySelectorAll('.pane').length"))
    same("#1-4", browser.evaluate("document.getElementById('link').getAttribute('href')"))
    browser.open(url("two.html", "#2-3"))
    same(["fetch.txt, Linux 7.3"], browser.evaluate("[...document.querySelectorAll('.pane h2')].map((e) => e.textContent)"))
    shows("Step 3 of 5")


def prints():
    browser.open(url("one.html", "#step-5"))
    path = os.path.join(directory, "step.pdf")
    browser.print_to(path)
    text = subprocess.run(["pdftotext", "-layout", path, "-"], check=True, capture_output=True, text=True).stdout
    for part in ["Step 5 of 16", "guest fetch 0x40000000", "kvm_handle_guest_abort", "hidden byte 0x40",
                 "table at 0x100004000"]:
        assert part in text, "'%s' is not in the print:\n%s" % (part, text)
    for part in ["Forward", "Theme"]:
        assert part not in text, "'%s' is in the print" % part


def many_steps():
    browser.open(url("many.html"))
    shows("Step 1 of 10000")
    begin = time.monotonic()
    numbers = random.Random(1)
    for _ in range(200):
        step = numbers.randrange(10000)
        browser.evaluate("""(() => { const s = document.getElementById('slider'); s.value = '%d'; s.dispatchEvent(new Event('input')); })()""" % (step + 1))
        shows("Step %d of 10000" % (step + 1))
        if step:
            expected = "guest strb w0,[0x0b000000]" if step % 2 else "guest ldrb w0,[0x0b000001]"
            assert title().startswith(expected), "step %d: %s" % (step + 1, title())
            byte = (step - 1) // 2 % 256
            assert "hidden byte 0x%02x" % byte in browser.evaluate("document.getElementById('step').innerText"), step
    print("# 200 jumps in 10,000 steps took %.1f s, and the file has %d KiB"
          % (time.monotonic() - begin, os.path.getsize(os.path.join(directory, "many.html")) >> 10))
    assert browser.evaluate("document.querySelectorAll('*').length") < 5000


def hostile():
    browser.open(url("hostile.html"))
    same(0, browser.evaluate("document.querySelectorAll('img, script[src], iframe, body b').length"))
    same(None, browser.evaluate("window.broken"))
    names = ["<img src=x onerror=broken=1><b>.txt", "</script><script>broken=1.txt"]
    same(", ".join(names), browser.evaluate("document.title"))
    same(names, browser.evaluate("[...document.querySelectorAll('.pane h2')].map((e) => e.textContent)"))


with Browser() as browser:
    check("a page of one scenario opens", one_machine)
    picture("one")
    check("buttons", buttons)
    check("keys", keys)
    check("slider", slider)
    check("play and pause", play)
    check("play ends at the last step", play_ends)
    check("links to steps", links)
    check("the parts of a step", content)
    check("light and dark, and the contrast of texts", themes)
    check("two machines side by side", two_machines)
    check("one machine of two", choice)
    check("names and roles for a screen reader", names)
    check("all controls by keyboard alone", tab_order)
    check("the step is told to a screen reader", status)
    check("no horizontal scrolling at 320 pixels", phone)
    check("a print has the step, and no controls", prints)
    check("10,000 steps", many_steps)
    check("names of files are text", hostile)
    check("no error on the console", no_errors)
    check("no request to a network", no_requests)
finish()
