"""The page in a real browser: what is drawn are the API's numbers, and every setting can be reached."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from written_log import write_log

import saddlescope as ss
from saddlescope.plots.style import COLOURS

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright; pip install 'saddlescope[dev]'")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the path")
LONG = 30_000
"""Milliseconds to wait at most: shared machines are slow at times."""
WELL = "landscape=double_well&lr=0.1&rho=0.3&steps=40&starts=1.5,1"


@pytest.fixture(scope="module")
def browser():
    sync_api.expect.set_options(timeout=LONG)
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Where screenshots are kept: SADDLESCOPE_SHOTS, or pytest's own folder."""
    folder = Path(os.environ.get("SADDLESCOPE_SHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def visit(browser, address):
    """Open pages that fail the test on any error of theirs, and that ask no other machine."""
    contexts, troubles = [], []

    def open_page(path="", **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(LONG)
        page = context.new_page()
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda message: message.type == "error" and troubles.append(message.text))
        page.on("request", lambda r: r.url.startswith((address, "data:", "blob:")) or troubles.append(r.url))
        page.goto(address + path)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    # A refusal, say of cases where there is no saddle, is an answer with a status of its own.
    assert [t for t in troubles if "422" not in t and "504" not in t] == []


def drawn(page, chart, selector):
    """Return the points of a drawn line in the coordinates of its axes, shape (k, 2)."""
    svg = page.locator(f"#{chart} svg")
    text = svg.locator(selector).first.get_attribute("d")
    x, y, area = (json.loads(svg.get_attribute(f"data-{name}")) for name in ("x", "y", "area"))
    pixels = np.array([[float(v) for v in pair] for pair in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", text)])
    u = (pixels[:, 0] - area["left"]) / area["width"]
    v = (pixels[:, 1] - area["top"]) / area["height"]
    return np.stack([x[0] + u * (x[1] - x[0]), y[1] - v * (y[1] - y[0])], axis=1)


def pixel(page, chart):
    """Return the size of a pixel in the coordinates of the axes."""
    svg = page.locator(f"#{chart} svg")
    x, y, area = (json.loads(svg.get_attribute(f"data-{name}")) for name in ("x", "y", "area"))
    return np.array([(x[1] - x[0]) / area["width"], (y[1] - y[0]) / area["height"]])


def simulated(**changes):
    numbers = {"lr": 0.1, "rho": 0.3} | changes
    landscape = ss.landscapes.get("double_well")
    gd = ss.simulate(landscape, ss.GradientMap(lr=numbers["lr"]), [[1.5, 1.0]], 40, record_every=1)
    sam = ss.simulate(landscape, ss.SAMMap(**numbers), [[1.5, 1.0]], 40, record_every=1)
    return gd.points[0].numpy(), sam.points[0].numpy()


def test_drawn_paths_are_the_api_s_before_and_after_a_slider_moves(visit, shots):
    page = visit(f"?{WELL}")
    page.wait_for_selector("#shares table")
    page.wait_for_selector("#found table")
    for chart, points in zip(("gd", "optimizer"), simulated(), strict=True):
        assert np.all(np.abs(drawn(page, chart, "[data-path='0']") - points) <= 0.02 * pixel(page, chart))
    page.screenshot(path=shots / "well.png", full_page=True)
    slider = page.get_by_role("slider", name="radius ρ")
    slider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    value = float(page.locator("#field-rho").input_value())
    assert 0.35 < value < 0.4  # 20 of 1000 steps of a cubic scale up to 10
    sync_api.expect(page.locator("#snippet")).to_contain_text(f"rho={value})")
    page.wait_for_url(f"**rho={page.locator('#field-rho').input_value()}**")
    _, after = simulated(rho=value)
    assert np.all(np.abs(drawn(page, "optimizer", "[data-path='0']") - after) <= 0.02 * pixel(page, "optimizer"))
    sync_api.expect(page.locator("#points .verdict.trap")).to_have_count(1)


def test_a_typed_formula_is_drawn_and_a_wrong_one_explained(visit, shots):
    page = visit(f"?{WELL}")
    box = page.get_by_label("formula of x and y")
    box.fill("x^2 - y^2")
    problem = page.locator("#field-loss-problem")
    sync_api.expect(problem).to_contain_text("use ** for powers")
    assert box.get_attribute("aria-invalid") == "true" and "loss" not in page.url
    box.fill("x**2 - y**2")
    sync_api.expect(page.locator("#snippet")).to_contain_text("from_expression('x**2 - y**2'")
    sync_api.expect(problem).to_be_hidden()
    run = ss.simulate(
        ss.landscapes.from_expression("x**2 - y**2", [(-4, 4), (-4, 4)]), ss.GradientMap(lr=0.1), [[1.5, 1.0]], 3,
        record_every=1,
    )  # fmt: skip
    path = drawn(page, "gd", "[data-path='0']")
    assert np.all(np.abs(path[:4] - run.points[0].numpy()) <= 0.02 * pixel(page, "gd"))
    page.screenshot(path=shots / "formula.png")
    page.get_by_label("formula of x and y").fill("__import__('os').system('id')")
    sync_api.expect(problem).to_contain_text("expression, column")


def test_a_click_and_the_keyboard_drop_starts(visit):
    page = visit(f"?{WELL}")
    svg = page.locator("#optimizer svg")
    area = json.loads(svg.get_attribute("data-area"))
    svg.click(position={"x": area["left"] + area["width"] / 4, "y": area["top"] + area["height"] / 4})
    sync_api.expect(page.locator("#ends tbody tr")).to_have_count(2)
    starts = page.locator("#field-starts").input_value().split(";")
    clicked = np.array([float(v) for v in starts[1].split(",")])
    assert np.all(np.abs(clicked - [-1.0, 1.0]) <= pixel(page, "optimizer"))  # the box is 4 wide
    page.locator("#gd svg").focus()
    for key in ("ArrowUp", "ArrowUp", "ArrowLeft", "Enter"):
        page.keyboard.press(key)
    sync_api.expect(page.locator("#ends tbody tr")).to_have_count(3)
    assert page.locator("#field-starts").input_value().endswith(";-0.08,0.16")
    page.get_by_role("button", name="Keep only last").click()
    sync_api.expect(page.locator("#ends tbody tr")).to_have_count(1)
    page.wait_for_url("**starts=-0.08%2C0.16**")


def test_wheel_drag_and_keys_move_the_view_and_the_address_keeps_it(visit):
    page = visit(f"?{WELL}&resolution=64")
    svg = page.locator("#optimizer svg")

    def sides():
        return np.array([json.loads(svg.get_attribute(f"data-{name}")) for name in ("x", "y")])

    def until(wanted, within=0.0):
        expected = json.dumps(np.asarray(wanted).tolist())
        page.wait_for_function(
            """([wanted, within]) => ["x", "y"].every((name, k) => JSON.parse(document.querySelector("#optimizer svg")
                .dataset[name]).every((v, i) => Math.abs(v - wanted[k][i]) <= within))""",
            arg=[json.loads(expected), within],
        )

    box = sides()
    svg.scroll_into_view_if_needed()
    page.wait_for_timeout(500)  # the page was scrolled just now: the wheel is still the page's
    at, area = svg.bounding_box(), json.loads(svg.get_attribute("data-area"))
    x, y = at["x"] + area["left"] + area["width"] / 4, at["y"] + area["top"] + area["height"] / 4
    page.mouse.move(x, y)
    page.mouse.wheel(0, -50)
    page.mouse.wheel(0, -50)  # before the first is drawn
    fixed = box[:, 0] + np.array([0.25, 0.75]) * (box[:, 1] - box[:, 0])
    until(fixed[:, None] + (box - fixed[:, None]) / 1.25, 2e-3)
    near = sides()
    page.mouse.down()
    page.mouse.move(x + area["width"] / 8, y, steps=3)
    page.mouse.up()
    until(near - [[(near[0, 1] - near[0, 0]) / 8], [0.0]], 2e-3)
    assert page.locator("#field-starts").input_value() == "1.5,1"  # dragging is no click
    moved = sides()
    page.wait_for_url("**bounds=**")
    shared = visit("?" + page.url.partition("?")[2])
    assert shared.locator("#optimizer svg").get_attribute("data-x") == svg.get_attribute("data-x")
    _, points = simulated()
    assert np.all(np.abs(drawn(page, "optimizer", "[data-path='0']") - points) <= 0.02 * pixel(page, "optimizer"))
    sync_api.expect(page.locator("#map svg")).to_have_attribute("data-x", svg.get_attribute("data-x"))
    svg.focus()
    page.keyboard.press("-")
    middle = moved.mean(1, keepdims=True)
    until(middle + (moved - middle) * 1.25, 2e-3)
    page.keyboard.press("0")
    until(box)
    page.get_by_role("button", name="Zoom in: Basins of attraction").click()
    until(box / 1.25, 2e-3)
    page.get_by_role("button", name="Reset view: Basins of attraction").click()
    until(box)


def test_a_shared_address_opens_the_same_page_long_computations_too(visit, shots):
    page = visit(
        "?landscape=quadratic_saddle&optimizer=usam&lr=0.01&rho=0.6&starts=-3,-0.01&resolution=64"
        "&rho_from=0.35&rho_to=0.95&values=4&replicas=100&longest=2000&show=all"
    )
    page.wait_for_selector("#branches [data-branch=saddle]", state="attached")
    page.wait_for_selector("#times [data-bar]", state="attached")
    # The saddle repels up to rho* = 1/2 and attracts beyond: the line changes there, between 0.35 and 0.55.
    assert np.allclose(drawn(page, "branches", "[data-stable=false]")[:, 0], [0.35, 0.5], atol=2e-4)
    assert np.allclose(drawn(page, "branches", "[data-stable=true]")[:, 0], [0.5, 0.55, 0.75, 0.95], atol=2e-4)
    svg = page.locator("#branches svg")
    line = svg.locator("[data-rho]")
    x, area = (json.loads(svg.get_attribute(f"data-{name}")) for name in ("x", "area"))
    at = float(re.match(r"M([\d.]+)", line.get_attribute("d"))[1])
    assert (
        line.get_attribute("data-rho") == "0.6" and abs(x[0] + (at - area["left"]) / area["width"] * 0.6 - 0.6) < 1e-9
    )
    again = visit("?" + page.url.partition("?")[2])
    assert again.locator("#snippet").inner_text() == page.locator("#snippet").inner_text()
    page.screenshot(path=shots / "everything.png", full_page=True)


def test_cancel_stops_a_long_map_and_the_page_goes_on(visit):
    page = visit("?landscape=ackley&resolution=384&lr=0.0001&steps=20")
    section = page.locator("#basins")
    section.get_by_role("button", name="Cancel").click()
    sync_api.expect(section.get_by_role("status")).to_have_text("cancelled")
    sync_api.expect(section.get_by_role("button", name="Compute")).to_be_visible()
    page.locator("#field-rho").fill("0.25")
    page.locator("#field-rho").press("Enter")
    sync_api.expect(page.locator("#snippet")).to_contain_text("rho=0.25")


def test_a_hostile_address_opens_the_default_page_and_says_what_was_left_out(visit):
    page = visit("?rho=<script>alert(1)</script>&loss=x.__class__&colour=red")
    notes = page.locator("#notes")
    sync_api.expect(notes).to_contain_text("rho: got '<script>alert(1)</script>'")
    sync_api.expect(notes).to_contain_text("colour: no such setting")
    assert page.locator("#field-rho").input_value() == "0.5" and notes.locator("script").count() == 0
    page = visit("?" + "a" * 12_000)
    sync_api.expect(page.locator("#notes")).to_contain_text("expected at most 8000")


def test_pictures_are_saved_as_svg_and_png(visit, tmp_path):
    page = visit(f"?{WELL}")
    for kind, start in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save Trajectories of gradient descent as {kind}").click()
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        assert path.name == f"saddlescope-gd.{kind.lower()}" and path.read_bytes().startswith(start)
        if kind == "SVG":  # its own colours, no style of the page
            text = path.read_text()
            assert "rgb(0, 114, 178)" in text and "var(" not in re.sub(r'stroke="var[^"]*"', "", text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(visit, shots, scheme):
    page = visit(f"?{WELL}", viewport={"width": 400, "height": 800}, color_scheme=scheme)
    page.wait_for_selector("#shares table")
    page.screenshot(path=shots / f"phone-{scheme}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert contrast(page, "body") > 7 and contrast(page, "#trajectories .hint") > 4.5


def contrast(page, selector):
    """Return the contrast ratio of text to the ground behind it, by the web's accessibility guidelines."""
    colours = page.evaluate(
        """selector => {
            const element = document.querySelector(selector);
            let ground = element;
            while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
            return [getComputedStyle(element).color, getComputedStyle(ground).backgroundColor];
        }""",
        selector,
    )

    def luminance(text):
        parts = np.array([int(v) for v in re.findall(r"\d+", text)[:3]]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    light, dark = sorted(map(luminance, colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_two_visitors_at_once_see_their_own(visit):
    first, second = visit(f"?{WELL}"), visit(f"?{WELL}")
    for page, rho in ((first, "0.15"), (second, "0.45"), (first, "0.2")):
        page.locator("#field-rho").fill(rho)
        page.locator("#field-rho").press("Enter")
    for page, rho in ((first, 0.2), (second, 0.45)):
        sync_api.expect(page.locator("#snippet")).to_contain_text(f"rho={rho})")
        _, points = simulated(rho=rho)
        assert np.all(np.abs(drawn(page, "optimizer", "[data-path='0']") - points) <= 0.02 * pixel(page, "optimizer"))


def test_the_training_page_follows_a_log_that_grows(visit, shots, log_file):
    log_file.unlink(missing_ok=True)
    write_log(log_file, range(1, 101))
    page = visit("training")
    sync_api.expect(page.locator("#verdict")).to_have_text("trapped at step 100")
    loss = drawn(page, "loss", "[data-loss]")
    steps = np.arange(1, 101)
    assert np.all(np.abs(loss - np.stack([steps, 1 / steps], 1)) <= 0.02 * pixel(page, "loss"))
    assert page.locator("#trap [data-trap-number]").get_attribute("data-trap-number") == "1"
    page.screenshot(path=shots / "training.png", full_page=True)
    write_log(log_file, range(101, 201))
    sync_api.expect(page.locator("#verdict")).to_have_text("trapped at step 200")
    assert page.locator("#trap [data-trap-number]").get_attribute("data-trap-number") == "2"


def test_the_colours_are_those_of_the_figures():
    style = (Path(ss.__file__).parent / "explorer" / "static" / "style.css").read_text()
    for name, key in (("--gd", "GD"), ("--sam", "SAM"), ("--usam", "unnormalized SAM"), ("--yellow", "script")):
        assert re.search(rf"{name}: (#\w+);", style)[1].upper() == COLOURS[key]
