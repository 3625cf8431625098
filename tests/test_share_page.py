"""The share's pages as HTML: what a browser without JavaScript gets, whatever the names are."""

import html.parser
import os
import re
import time
import urllib.parse
from dataclasses import dataclass, field

import hostile
import pytest

from prefork.http.representation import answer
from prefork.share.jail import Jail
from prefork.share.listing import read_listing
from prefork.share.names import parts_of
from prefork.share.page import PAGE_ROWS, Look, error_page, page, view_page
from prefork.share.query import Query
from prefork.share.render import ERROR_POLICY

LOOK = Look("Shared")
VOID = {"meta", "link", "input", "img", "br"}


@dataclass
class Element:
    """A tag with what is in it."""

    tag: str
    values: dict
    inside: list = field(default_factory=list)

    def all(self, tag=None, **values):
        """Return what is below it and has these attributes; class_ for class."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in values.items()}
        for one in self.inside:
            if isinstance(one, Element):
                if tag in (None, one.tag) and wanted.items() <= one.values.items():
                    yield one
                yield from one.all(tag, **values)

    def one(self, tag=None, **values):
        (found,) = self.all(tag, **values)
        return found

    @property
    def text(self):
        return "".join(one if isinstance(one, str) else one.text for one in self.inside)


class Parser(html.parser.HTMLParser):
    """Strict: each tag is closed in its turn."""

    def __init__(self):
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {attrs}"
        element = Element(tag, dict(attrs))
        self.open[-1].inside.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].inside.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].inside.append(data)


def parse(data):
    parser = Parser()
    parser.feed(data.decode())
    parser.close()
    (root,) = parser.open
    return root


def whole(made):
    return b"".join(made.pieces(0, 1 << 60))


def listed(root, parts=()):
    jail = Jail(str(root))
    return read_listing(jail, jail.open(parts))


def show(root, query="", parts=(), look=LOOK):
    return parse(whole(page(listed(root, parts), Query.read(f"/?{query}"), look)))


def names(document):
    return [row.one("th").text for row in document.one("tbody", id="rows").all("tr")]


def links(document, text):
    return [link.values["href"] for link in document.all("a") if link.text == text]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return hostile.build(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "root"
    (root / "sub" / "below").mkdir(parents=True)
    for name, size in (("a.png", 10), ("b.mp4", 2_500_000), ("c.txt", 30), ("d.png", 40)):
        with (root / name).open("wb") as file:
            file.truncate(size)
        os.utime(root / name, (1_750_000_000, 1_750_000_000))
    return root


# -- a folder's page -------------------------------------------------------------


def test_a_page_has_its_landmarks_and_a_table_with_headers(folder):
    document = show(folder)
    assert document.one("html").values["lang"] == "en"
    assert document.one("title").text == "Shared"
    assert document.one("h1").text == "Shared"
    for landmark in ("header", "main", "footer"):
        assert document.one(landmark)
    assert document.one("form").values["role"] == "search"
    heads = list(document.one("thead").all("th"))
    assert [head.text for head in heads] == ["Name", "Type", "Size", "Changed", "Download"]
    assert all(head.values["scope"] == "col" for head in heads)
    assert document.one("p", class_="sum").text == "1 folder, 4 files, 2.5 MB"


def test_a_row_tells_exactly_and_in_peoples_words(folder):
    (row,) = show(folder, "filter=b.mp4").one("tbody", id="rows").all("tr")
    size = row.one("data")
    assert (size.text, size.values) == (
        "2.5 MB",
        {"value": "2500000", "title": "2,500,000 bytes"},
    )
    assert row.one("time").values["datetime"] == "2025-06-15T15:06:40.000Z"
    local = time.strftime("%Y-%m-%d %H:%M", time.localtime(1_750_000_000))
    assert row.one("time").text == local
    assert row.one("td", class_="type").text == "MP4"
    get = row.one("a", class_="get")
    assert get.values["href"] == "b.mp4?download"
    assert get.values["aria-label"] == "Download b.mp4"


def test_what_a_browser_shows_in_a_page_leads_to_one(folder):
    document = show(folder, "sort=size&order=desc")
    assert links(document, "a.png") == ["a.png?view&sort=size&order=desc"]
    assert links(document, "c.txt") == ["c.txt"]
    assert links(document, "sub") == ["sub/"]


def test_headers_sort_by_links_the_same_again_turns_the_order(folder):
    heads = {head.text: head for head in show(folder, "filter=.&page=2").all("th", scope="col")}
    hrefs = {name: head.one("a").values["href"] for name, head in heads.items() if name[0] != "D"}
    assert hrefs == {
        "Name": "?sort=name&order=desc&filter=.",
        "Type": "?sort=type&filter=.",
        "Size": "?sort=size&order=desc&filter=.",
        "Changed": "?sort=mtime&order=desc&filter=.",
    }
    assert heads["Name"].values["aria-sort"] == "ascending"
    assert heads["Size"].values["aria-sort"] == "none"
    heads = {head.text: head for head in show(folder, "sort=size&order=desc").all("th")}
    assert heads["Size"].one("a").values["href"] == "?sort=size"
    assert heads["Size"].values["aria-sort"] == "descending"


def test_the_filters_form_keeps_the_order(folder):
    form = show(folder, "sort=size&order=desc&filter=A").one("form")
    fields = {one.values["name"]: one.values["value"] for one in form.all("input")}
    assert fields == {"filter": "A", "sort": "size", "order": "desc"}
    assert form.values["method"] == "get"


def test_a_filter_that_finds_nothing_says_so(folder):
    document = show(folder, "filter=zzz&sort=size")
    assert names(document) == []
    assert document.one("p", id="none").text == "No name here has “zzz” in it.Show all"
    assert set(links(document, "Show all")) == {"?sort=size"}
    assert "hidden" in show(folder).one("p", id="none").values


def test_an_empty_folder_says_so(folder):
    document = show(folder, parts=("sub", "below"))
    assert "This folder is empty." in document.one("main").text
    assert links(document, "Parent folder") == ["../"]
    assert list(document.all("form")) == []


def test_the_way_up_is_relative(folder):
    trail = show(folder, parts=("sub", "below")).one("nav", aria_label="Breadcrumbs")
    assert [(a.text, a.values["href"]) for a in trail.all("a")] == [
        ("Shared", "../../"),
        ("sub", "../"),
    ]
    assert trail.one("span").text == "below"
    assert links(show(folder), "Parent folder") == []


def test_archives_are_offered_where_there_are_any(folder):
    assert links(show(folder), "Download ZIP") == ["?zip"]
    document = show(folder, look=Look("Shared", archives=False))
    assert links(document, "Download ZIP") == links(document, "TAR") == []
    assert [a for a in document.all("a") if a.values["href"].endswith("?zip")] == []


def test_pages_of_a_large_folder_hold_all_of_it(tmp_path):
    count = 2 * PAGE_ROWS + 5
    for number in range(count):
        (tmp_path / f"{number}.txt").touch()
    seen, link = [], "?"
    for _ in range(3):
        document = show(tmp_path, link[1:])
        seen += names(document)
        link = (links(document, "Next") or [""])[0]
    assert seen == [f"{number}.txt" for number in range(count)]
    assert link == ""
    assert document.one("span", class_="where").text == "rows 2,001 – 2,005 of 2,005"  # noqa: RUF001 # a span
    assert links(document, "First") == ["?"]
    assert links(document, "Previous") == ["?page=2"]
    assert names(show(tmp_path, "page=99")) == seen[2 * PAGE_ROWS :]
    assert links(show(tmp_path), "Last") == ["?page=3"]


def test_pieces_are_small_also_those_of_a_long_readme(tmp_path):
    (tmp_path / "README").write_text("<" * 100_000)
    for number in range(PAGE_ROWS):
        (tmp_path / f"{number:<>250}").touch()
    made = page(listed(tmp_path), Query(), LOOK)
    pieces = list(made.pieces(0, 1 << 60))
    assert max(map(len, pieces)) <= 256 * 1024
    assert len(pieces) > 20
    assert parse(b"".join(pieces)).one("pre").text == "<" * 65536


# -- README ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("README.md", b"# Title\n<b>bold</b>\n", "# Title\n<b>bold</b>\n"),
        ("readme.txt", "\ufeffübrig".encode(), "übrig"),
        ("README", b"latin-1 \xe9", "latin-1 \ufffd"),
        ("README.txt", "Ü\r\nb".encode("utf-16"), "Ü\r\nb"),
        ("README.txt", b"\xfe\xff" + "日本".encode("utf-16-be"), "日本"),
        ("README.md", b"</pre><script>alert(1)</script>", "</pre><script>alert(1)</script>"),
    ],
)
def test_a_readme_is_shown_as_text(folder, name, content, text):
    (folder / name).write_bytes(content)
    section = show(folder).one("section")
    assert section.one("h2").text.strip() == name
    # A parser of HTML drops a line end that stands first; html.parser does not.
    assert section.one("pre").text.removeprefix("\n") == text


@pytest.mark.parametrize("content", [b"", b" \n", b"binary\0"])
def test_what_is_no_text_is_no_readme(folder, content):
    (folder / "README").write_bytes(content)
    assert list(show(folder).all("section")) == []


def test_a_long_readme_is_cut_and_says_so(folder):
    (folder / "README").write_text("x" * 70_000)
    section = show(folder).one("section")
    assert len(section.one("pre").text.strip()) == 65_536
    assert links(section, "Open the whole file") == ["README"]


def test_a_readme_is_not_cut_within_a_character(folder):
    (folder / "README").write_text("x" + "é" * 40_000)
    assert show(folder).one("section").one("pre").text == "x" + "é" * 32_767


def test_a_readme_that_leads_out_or_is_a_folder_is_not_read(folder, tmp_path):
    (tmp_path / "outside").write_text("secret")
    (folder / "README.md").symlink_to("../outside")
    (folder / "README").mkdir()
    assert list(show(folder).all("section")) == []


# -- hostile names ---------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "order=desc", "sort=type", "filter=<", 'filter="'])
def test_hostile_names_add_nothing_to_the_page(tree, query):
    document = show(tree.root, urllib.parse.quote(query, safe="=&"))
    plain = {one.tag for one in show(tree.root, parts=("folder",)).all()}
    assert {one.tag for one in document.all()} <= plain | {"section", "h2", "pre", "nav"}
    handlers = [v for one in document.all() for v in one.values if re.match(r"on|style", v)]
    assert handlers == []
    for link in document.all("a"):
        href = link.values["href"]
        assert re.match(r"($|\?|\.\.?/|#|[^:/?#]+(/|\?|$))", href), href


def test_every_hostile_name_is_linked_by_what_leads_to_it(tree):
    listing = listed(tree.root)
    rows = show(tree.root).one("tbody", id="rows").all("tr")
    for row in rows:
        name = listing.names[int(row.values["data-n"])]
        href = row.one("th").one("a").values["href"]
        path = urllib.parse.urljoin("http://host/", href).removeprefix("http://host")
        assert parts_of(path) == (name,)


def test_a_hostile_folders_own_name_is_text(tree):
    document = show(tree.root, parts=("<b>bold",))
    assert document.one("h1").text == document.one("title").text == "<b>bold"
    document = show(tree.root, parts=("new\nline",))
    assert document.one("h1").text == "new␊line"


# -- headers ---------------------------------------------------------------------


def test_the_policy_names_this_pages_nonce_and_each_page_has_another(folder):
    listing = listed(folder)
    nonces = set()
    for _ in range(2):
        made = page(listing, Query(), LOOK)
        policy = dict(made.headers)["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'nonce-")
        assert "unsafe" not in policy
        document = parse(whole(made))
        (nonce,) = {one.values["nonce"] for one in document.all() if "nonce" in one.values}
        assert policy.count(f"'nonce-{nonce}'") == 2
        assert all("nonce" in one.values for one in document.all("script"))
        nonces.add(nonce)
    assert len(nonces) == 2


def test_a_page_that_has_not_changed_is_not_sent_again(folder):
    def tag(query="", look=LOOK):
        return page(listed(folder), Query.read(f"/?{query}"), look).etag

    assert tag().startswith('W/"')
    assert tag() == tag("page=0&sort=none") == tag("page=7")
    others = [tag("sort=size"), tag("order=desc"), tag("filter=a"), tag("", Look("Other"))]
    (folder / "c.txt").touch()
    assert len({*others, tag()}) == 5
    made = page(listed(folder), Query(), LOOK)
    again = answer(made, "GET", {"if-none-match": made.etag or ""}, 0.0)
    assert (again.status, again.pieces) == (304, None)
    assert answer(made, "HEAD", {}, 0.0).pieces is None


# -- a file's page ---------------------------------------------------------------


def view(root, name, query="view", parts=()):
    return view_page(listed(root, parts), name, Query.read(f"/x?{query}"), LOOK)


def test_a_files_page_leads_to_its_neighbours_in_the_folders_order(folder):
    document = parse(whole(view(folder, "b.mp4")))
    assert document.one("video").values["src"] == "b.mp4"
    assert document.one("a", rel="prev").values["href"] == "a.png?view"
    assert document.one("a", rel="next").values["href"] == "d.png?view"
    assert "2 of 3" in document.one("figcaption").text
    assert document.one("a", id="back").values["href"] == "./"
    document = parse(whole(view(folder, "a.png", "view&sort=size&order=desc&filter=g")))
    assert document.one("a", rel="prev").values["href"] == (
        "d.png?view&sort=size&order=desc&filter=g"
    )
    assert list(document.all("a", rel="next")) == []
    assert document.one("a", id="back").values["href"] == "./?sort=size&order=desc&filter=g"


def test_a_file_that_no_browser_shows_has_a_page_too(folder):
    document = parse(whole(view(folder, "c.txt")))
    assert links(document, "Open the file itself") == ["c.txt"]
    assert links(document, "Download") == ["c.txt?download"]


def test_a_file_that_the_filter_leaves_out_stands_alone(folder):
    document = parse(whole(view(folder, "a.png", "view&filter=zzz")))
    assert document.one("img").values["src"] == "a.png"
    assert list(document.all("nav", class_="turn")) == []


@pytest.mark.parametrize("name", ["sub", "missing.png"])
def test_what_is_no_file_of_the_folder_has_no_page(folder, name):
    with pytest.raises(KeyError):
        view(folder, name)


def test_a_hostile_files_page_has_only_its_name(tree):
    name = "<img src=x onerror=alert(2)>.html"
    document = parse(whole(view(tree.root, name)))
    assert document.one("h1").text == name
    assert list(document.all("img")) == []


def test_a_files_page_has_a_length_and_a_policy(folder):
    made = view(folder, "a.png")
    assert made.size == len(whole(made))
    assert "media-src 'self'" in dict(made.headers)["Content-Security-Policy"]


# -- errors ----------------------------------------------------------------------


def test_an_errors_page_is_text_without_scripts():
    document = parse(error_page(404, "Not <Found>", "& gone", home="/"))
    assert document.one("h1").text == "Not <Found>"
    assert "& gone" in document.one("main").text
    assert links(document, "Go to the start") == ["/"]
    assert list(document.all("script")) == []
    assert links(parse(error_page(421, "x", "y", home="")), "Go to the start") == []
    assert "script-src" not in ERROR_POLICY[1]
