"""The page at / in a real Chromium, asked as a person asks it.

Playwright drives the browser that the system has, and downloads none:

    python -m pip install --target .venv/browser playwright==1.65.2
    PYTHONPATH=.venv/browser python -m pytest -m slow tests/serving/test_page_in_chromium.py
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from urllib.parse import urlsplit

import pytest

from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime import Session
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, QUESTIONS
from tests.serving.conftest import BUNDLE

pytestmark = pytest.mark.slow
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: see this file's head")
expect = playwright.expect
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MARKUP = '<img src="x" onerror="window.harmed = 1">'
HARMFUL = {
    "id": f'"{MARKUP}', "title": f"zz {MARKUP}", "text": f"zz {MARKUP}<script>window.harmed = 1</script> {'x' * 400}",
}
MINUS = "\u2212"
PHONE = {"width": 320, "height": 640}
TOKEN = "a-token-of-some-length"
LONG_MS = 60_000
OBSERVER = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
window.told = [];
document.addEventListener("DOMContentLoaded", () => {
  const answer = document.getElementById("answer");
  new MutationObserver(() => window.told.push(answer.textContent)).observe(answer, { childList: true });
});
"""
CONTRASTS = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => channels(color).slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
  const ground = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return channels(color)[3] === 0 && element.parentElement ? ground(element.parentElement) : color;
  };
  const texts = [...document.querySelectorAll("body *")].filter((element) => element.checkVisibility()
    && [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim()));
  return texts.map((element) => {
    const [low, high] = [getComputedStyle(element).color, ground(element)].map(luminance).sort((a, b) => a - b);
    return [element.textContent, (high + 0.05) / (low + 0.05)];
  });
}"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    build_store(BUNDLE, write_rows(folder / "corpus.jsonl", [*CORPUS, HARMFUL]), folder / "store")
    return folder / "store"


@contextmanager
def served(store, *options) -> Iterator[str]:
    """The address of a server that the command has started."""
    run = "from glimmer_export.exporter.cli import main; main()"
    command = [sys.executable, "-c", run, "serve", BUNDLE, "--store", store, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "1000"}) as server:
        try:
            yield re.search(r"http://\S+", server.stdout.readline())[0]
        finally:
            server.terminate()
            assert server.wait(60) == 0


@pytest.fixture(scope="module")
def address(store) -> Iterator[str]:
    with served(store) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium is installed")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=CHROMIUM, args=sandbox)
        yield opened
        opened.close()


@contextmanager
def visited(browser, address, **options):
    """The page, ready; in the end it must have asked its own server alone, and have done nothing that is forbidden."""
    context = browser.new_context(**options)
    context.set_default_timeout(LONG_MS)
    context.add_init_script(OBSERVER)
    page, hosts, faults = context.new_page(), set(), []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda told: faults.append(told.text) if told.type in {"error", "warning"} else None)
    page.on("dialog", lambda dialog: faults.append(dialog.message))
    page.goto(address)
    expect(page.get_by_role("status")).to_have_text("Ready", timeout=LONG_MS)
    yield page
    assert page.evaluate("window.violations") == []
    # that a request of the page's own was refused, is what a test has asked for
    assert [fault for fault in faults if not fault.startswith("Failed to load resource")] == []
    assert hosts == {urlsplit(address).netloc}
    context.close()


@pytest.fixture
def page(browser, address):
    with visited(browser, address) as opened:
        yield opened


def ask(page, question: str) -> None:
    page.get_by_role("textbox", name="Question").fill(question)
    page.get_by_role("button", name="Ask").click()
    expect(page.locator("#told")).to_have_attribute("aria-busy", "false", timeout=LONG_MS)


def test_the_answer_comes_with_its_passages_scores_and_times(page, store):
    with Session.open(BUNDLE, store, threads=1) as session:
        wanted = session.answer(QUESTIONS[3])
    ask(page, QUESTIONS[3])
    expect(page.locator("#answer")).to_have_text(wanted.answer)
    expect(page.locator("#sure")).to_contain_text(f"{wanted.log_probability:.3f}".replace("-", MINUS))
    best_first = sorted(wanted.passages, key=lambda passage: -passage.score)
    items = page.get_by_role("listitem")
    expect(items).to_have_count(len(best_first))
    for item, passage in zip(items.all(), best_first, strict=True):
        expect(item.locator(".title")).to_have_text(passage.passage.title)
        expect(item.locator(".mark")).to_have_text("read" if passage.read else "")
        expect(item.locator(".text")).to_be_visible(visible=passage.read)
        assert item.locator(".value").all_inner_texts() == [
            f"{value:.2f}".replace("-", MINUS) for value in (passage.score, passage.retrieval_score)
        ]
    widths = [box.bounding_box()["width"] for box in page.locator("li .bar:not(.retrieval)").all()]
    track = page.locator("li .track").first.bounding_box()["width"]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] == pytest.approx(track, abs=1)
    assert 0 < widths[-1] < track / 10
    stages = [text.replace(" ", "_") for text in page.locator(".times dt").all_inner_texts()]
    assert set(wanted.milliseconds) < set(stages)


def test_the_answer_grows_as_it_is_made(page):
    ask(page, QUESTIONS[3])
    told = [text for text in page.evaluate("window.told") if text]
    assert len(set(told)) > 1, "all of it came at once"
    assert all(later.startswith(earlier) for earlier, later in pairwise(told))


def test_markup_in_a_passage_is_a_text(page):
    ask(page, "zz w1")
    item = page.get_by_role("listitem").filter(has_text="onerror")
    expect(item.locator(".title")).to_have_text(HARMFUL["title"])
    expect(item.locator(".faint")).to_contain_text(HARMFUL["id"])
    assert item.locator(".text").text_content() == HARMFUL["text"]
    assert page.locator("main img, main script").count() == 0
    assert page.evaluate("window.harmed") is None


def test_had_the_page_foreign_markup_it_would_do_nothing(browser, address):
    page = browser.new_page()

    def spoil(route):
        answer = route.fetch()
        route.fulfill(response=answer, body=f"{answer.text()}{MARKUP}<script>window.harmed = 1</script>")

    page.route(f"{address}/", spoil)
    page.goto(address)
    expect(page.locator("img")).to_have_count(1)
    assert page.evaluate("window.harmed") is None
    with pytest.raises(playwright.Error, match="TrustedHTML"):
        page.evaluate(f"document.body.innerHTML = {MARKUP!r}")
    with pytest.raises(playwright.Error, match="Failed to fetch"):
        page.evaluate("fetch('http://127.0.0.2:9/')")
    page.close()


def test_light_and_dark_are_legible(browser, address):
    grounds = []
    for scheme in ("light", "dark"):
        with visited(browser, address, color_scheme=scheme) as page:
            ask(page, QUESTIONS[3])
            page.get_by_text("Options").click()
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            contrasts = page.evaluate(CONTRASTS)
            assert len(contrasts) > 20
            assert [found for found in contrasts if found[1] < 4.5] == []  # WCAG 2, level AA
    assert grounds == ["rgb(255, 255, 255)", "rgb(20, 24, 31)"]


def test_on_a_phone_nothing_is_wider_than_the_screen(browser, address):
    with visited(browser, address, viewport=PHONE, is_mobile=True, has_touch=True) as page:
        page.get_by_text("Options").tap()
        ask(page, "zz w1")
        for summary in page.locator("li summary").all():
            if summary.locator("..").get_attribute("open") is None:
                summary.tap()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        for control in (page.get_by_role("textbox", name="Question"), page.get_by_role("button", name="Ask")):
            assert control.bounding_box()["height"] >= 44  # a finger's


def test_the_keyboard_is_enough(page):
    expect(page.get_by_role("textbox", name="Question")).to_be_focused()
    page.keyboard.type(QUESTIONS[3])
    page.keyboard.press("Enter")
    expect(page.get_by_role("listitem").first).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Ask")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Passages to retrieve")).to_be_focused()


def test_options_are_heeded(page):
    page.get_by_text("Options").click()
    page.get_by_label("Passages to retrieve").fill("3")
    page.get_by_label("Passages to read of these").fill("1")
    ask(page, QUESTIONS[3])
    expect(page.get_by_role("listitem")).to_have_count(3)
    expect(page.locator("li.read")).to_have_count(1)
    page.get_by_label("Passages of your own, one a line").fill("w1 w2\n\nw3\n")
    ask(page, QUESTIONS[3])
    expect(page.get_by_role("listitem")).to_have_count(2)
    page.get_by_label("Least log-probability").fill("0")
    ask(page, QUESTIONS[3])
    expect(page.locator("#answer")).to_have_text("No answer: the model is less sure than you asked for.")


def test_an_error_is_said_in_place_of_the_answer(page):
    ask(page, QUESTIONS[3])
    ask(page, "w1 " * 400)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("400 QuestionError")
    expect(alert).to_contain_text(re.compile("Request [0-9a-f]{32}"))
    expect(page.locator("#result")).to_be_hidden()
    page.context.set_offline(True)
    ask(page, QUESTIONS[3])
    expect(alert).to_have_text("UnreachableThe server cannot be reached.")
    page.context.set_offline(False)
    ask(page, QUESTIONS[3])
    expect(alert).to_be_hidden()
    expect(page.get_by_role("listitem").first).to_be_visible()


def test_a_token_is_asked_for_and_kept_in_memory_alone(browser, store, tmp_path):
    (tmp_path / "token").write_text(TOKEN, "utf-8")
    with served(store, "--token-file", tmp_path / "token") as address, visited(browser, address) as page:
        ask(page, QUESTIONS[3])
        expect(page.get_by_role("alert")).to_contain_text("401 Unauthorized")
        token = page.get_by_label("Token")
        expect(token).to_be_focused()
        token.fill(TOKEN)
        ask(page, QUESTIONS[3])
        expect(page.get_by_role("alert")).to_be_hidden()
        expect(page.get_by_role("listitem").first).to_be_visible()
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
        assert TOKEN not in page.url
        page.reload()
        assert page.get_by_label("Token").input_value() == ""
