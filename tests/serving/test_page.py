"""The page at /, as far as it can be seen without a browser; test_page_in_chromium.py has the rest."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from glimmer_export.runtime import serving as package
from glimmer_export.runtime.serving import create_app
from tests.serving.conftest import serving

STATIC = Path(package.__file__).with_name("static")
FILES = sorted(path.name for path in STATIC.iterdir())
VOID = {"meta", "link", "input", "br"}
SVG_NAMESPACE = "http://www.w3.org/2000/svg"


def path_of(name: str) -> str:
    return "/" if name == "index.html" else f"/{name}"


class Markup(HTMLParser):
    """Every element with its attributes; raises AssertionError where tags do not close each other."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.scripts = ""
        self.feed(text)
        self.close()
        assert self.inside == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), f"an attribute of <{tag}> stands twice"
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.inside.append(tag)

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag

    def handle_data(self, data):
        if self.inside and self.inside[-1] in {"script", "style"}:
            self.scripts += data

    def values(self, *names: str) -> list[str]:
        return [value for _, given in self.elements for name, value in given.items() if name in names]


@pytest.fixture(scope="module")
def markup() -> Markup:
    return Markup((STATIC / "index.html").read_text("utf-8"))


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_served_as_it_is_and_may_load_nothing_from_elsewhere(client, name):
    response = client.get(path_of(name))
    assert response.status_code == 200
    assert response.content == (STATIC / name).read_bytes()
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert response.headers["content-type"].split(";")[0] == kinds[Path(name).suffix]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert {value for name, value in policy.items() if name.endswith("-src")} == {"'none'", "'self'"}


def test_the_page_is_well_formed_and_each_field_has_its_label(markup):
    ids = markup.values("id")
    assert len(ids) == len(set(ids))
    fields = {given["id"] for tag, given in markup.elements if tag in {"input", "textarea"}}
    assert fields
    assert fields == set(markup.values("for"))
    assert set(markup.values("aria-describedby", "aria-labelledby")) <= set(ids)
    html = next(given for tag, given in markup.elements if tag == "html")
    assert html["lang"] == "en"


def test_what_the_page_names_is_served_and_nothing_stands_inline(client, markup):
    named = markup.values("src", "href")
    assert set(named) < set(FILES)
    assert markup.scripts.strip() == ""
    assert not [name for _, given in markup.elements for name in given if name == "style" or name.startswith("on")]


def test_a_script_imports_what_is_served_and_finds_what_it_looks_for(markup):
    for path in STATIC.glob("*.js"):
        text = path.read_text("utf-8")
        assert set(re.findall(r'from "\./(.+?)"', text)) <= set(FILES)
        assert set(re.findall(r'\bat\("(\w+)"\)', text)) <= set(markup.values("id"))


@pytest.mark.parametrize("name", FILES)
def test_no_file_names_another_host_or_makes_markup_of_a_text(name):
    text = (STATIC / name).read_text("utf-8").replace(SVG_NAMESPACE, "")
    assert not re.search(r"(?i)\b(https?|wss?|ftp):|['\"(]//|@import|url\(", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function|setHTML", text)
    assert not re.search(r"localStorage|sessionStorage|indexedDB|cookie", text)


def test_a_browser_that_has_a_file_is_not_sent_it_again(client):
    first = client.get("/page.js")
    assert first.headers["cache-control"] == "no-cache"
    etag = first.headers["etag"]
    for known in (etag, f'"another", W/{etag}', "*"):
        again = client.get("/page.js", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert client.get("/page.js", headers={"If-None-Match": '"another"'}).status_code == 200
    head = client.head("/page.js")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)


def test_the_page_comes_without_the_token_that_its_questions_need(session):
    with serving(session) as (_, service):
        client = TestClient(create_app(service, b"a token of some length"), base_url="http://localhost")
        assert [client.get(path_of(name)).status_code for name in FILES] == [200] * len(FILES)
        asked = client.post("/v1/answer", json={"question": "w1"})
        assert (asked.status_code, asked.json()["error"]["type"]) == (401, "Unauthorized")
