"""The share's pages in a browser: with JavaScript, without, by keyboard, large, hostile."""

import base64
import itertools
import os
import re
import tempfile
import wave
from pathlib import Path

import hostile
import pytest
from browser_kit import DESKTOP, PHONE, Visit, browser, sync_api
from harness import Prefork

expect = sync_api.expect

MANY = 100_000
SOME = 3000  # more than are all in the document
LARGE = "entry-77777.txt"
FILM = Path(__file__).parent / "apps" / "film.mp4"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def fill(folder: Path, entries: int) -> None:
    folder.mkdir()
    fd = os.open(folder, os.O_RDONLY)
    for number in range(entries - 1):
        os.mknod(f"entry-{number}.txt", 0o644, dir_fd=fd)
    os.close(fd)
    (folder / "a folder").mkdir()
    (folder / "a folder" / "inside.txt").touch()


def fill_album(folder: Path) -> None:
    (folder / "sub folder").mkdir(parents=True)
    (folder / "README.md").write_text("# An *album* <b>of sorts</b>")
    for number in (1, 2, 10):
        (folder / f"image {number}.png").write_bytes(PIXEL)
    (folder / "no image.png").write_text("but text")
    (folder / "notes.txt").write_text("notes")
    os.utime(folder / "notes.txt", (1_750_000_000, 1_750_000_000))
    with wave.open(str(folder / "sound.wav"), "wb") as sound:
        sound.setparams((1, 1, 8000, 40_000_000, "NONE", ""))
    os.truncate(folder / "sound.wav", 40_000_044)  # 83 minutes of nothing, and no place on disk
    # `ffmpeg -f lavfi -i color=c=teal:s=64x48:r=5:d=20 -c:v libvpx-vp9 -b:v 1k -g 10`, and before
    # its index, which stands at the end, 20 MB that no browser reads to get there.
    data = FILM.read_bytes()
    index = data.index(b"moov") - 4
    with (folder / "film.mp4").open("wb") as film:
        film.write(data[:index] + (20_000_000).to_bytes(4, "big") + b"free")
        film.seek(index + 20_000_000)
        film.write(data[index:])


@pytest.fixture(scope="module")
def root():
    # Not pytest's: it keeps what three runs have left. In memory a large folder takes a tenth.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="prefork-test-", dir=memory) as place:
        root = Path(place) / "Shared"
        root.mkdir()
        fill(root / "many", MANY)
        os.truncate(root / "many" / LARGE, 123_456_789)
        fill(root / "some", SOME)
        fill_album(root / "album")
        (root / "empty").mkdir()
        (root / "hostile").mkdir()
        hostile.build(root / "hostile")
        (root / "words").mkdir()
        for nth, name in enumerate(("c", "a", "ΣΑΣ.txt", "Straße.txt", "50% .* [b].txt")):
            (root / "words" / name).touch()
            os.utime(root / "words" / name, ns=(0, 10**18 + nth))
        yield root


@pytest.fixture(scope="module")
def url(root):
    config = root.parent / "share.toml"
    config.write_text(f"""
        [server.share]
        bind = ["127.0.0.1:0"]
        handler = "prefork.share:ShareRequestHandler"
        workers = 1
        [server.share.handler_options]
        directory = "{root}"
    """)
    with Prefork(config) as daemon:
        yield daemon.url


@pytest.fixture(scope="module")
def chromium():
    with browser() as opened:
        yield opened


@pytest.fixture
def visit(chromium):
    """Return what opens a window; at the end none may have had a fault."""
    visits = []

    def open_one(**options):
        visits.append(Visit(chromium, **options))
        return visits[-1]

    yield open_one
    for one in visits:
        one.context.close()
    assert [fault for one in visits for fault in one.faults] == []


def rows(page):
    return page.locator("#rows tr")


def names(page):
    return page.locator("#rows bdi").all_inner_texts()


def wait_for_all(page):
    """Wait until all entries of a large folder are there."""
    expect(page.locator(".pager")).to_be_hidden()


# -- a hundred thousand entries --------------------------------------------------


def test_the_first_rows_are_there_before_the_rest_is_asked_for(visit, url):
    one = visit(java_script_enabled=False)
    one.page.goto(f"{url}/many/")
    assert rows(one.page).count() == 1000
    expect(rows(one.page).first).to_be_in_viewport()
    assert names(one.page)[:2] == ["a folder", "entry-0.txt"]
    expect(one.page.locator(".where")).to_have_text("rows 1 – 1,000 of 100,000")  # noqa: RUF001 # a span
    assert one.asked == [f"{url}/many/"]


def test_scrolling_to_the_end_shows_the_last_entry(visit, url):
    page = visit().page
    page.goto(f"{url}/many/")
    wait_for_all(page)
    assert rows(page).count() < 200
    for _ in range(3):  # each time a bit of the end comes into the document
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
    last = page.get_by_text(f"entry-{MANY - 2}.txt", exact=True)
    expect(last).to_be_in_viewport()
    assert rows(page).count() < 200
    page.evaluate("scrollTo(0, 0)")
    expect(page.get_by_text("entry-0.txt", exact=True)).to_be_in_viewport()


def test_a_filter_narrows_all_entries_at_once_and_escape_brings_them_back(visit, url):
    one = visit()
    page = one.page
    page.goto(f"{url}/many/")
    wait_for_all(page)
    asked = len(one.asked)
    page.keyboard.press("/")
    page.keyboard.type("Y-7777")
    expect(page.get_by_role("status")).to_have_text(f"11 of {MANY:,}")
    assert names(page) == ["entry-7777.txt", *(f"entry-7777{n}.txt" for n in range(10))]
    assert page.url == f"{url}/many/?filter=Y-7777"
    page.keyboard.press("Escape")
    expect(page.get_by_text("entry-0.txt", exact=True)).to_be_in_viewport()
    assert page.url == f"{url}/many/"
    page.keyboard.type("no such name")
    expect(page.locator("#none")).to_contain_text("No name here has “no such name” in it.")
    page.get_by_text("Show all", exact=True).click()
    expect(page.get_by_text("entry-0.txt", exact=True)).to_be_in_viewport()
    assert len(one.asked) == asked  # nothing of this needs the server


def test_sorting_asks_for_no_page_and_is_kept_in_the_url(visit, url):
    one = visit()
    page = one.page
    page.goto(f"{url}/many/")
    wait_for_all(page)
    page.get_by_text("Size", exact=True).click()
    assert names(page)[:2] == ["a folder", LARGE]
    assert len(one.documents) == 1
    head = page.get_by_role("columnheader", name="Size")
    expect(head).to_have_attribute("aria-sort", "descending")
    assert page.url == f"{url}/many/?sort=size&order=desc"
    page.reload()  # and now the server has sorted
    assert names(page)[:2] == ["a folder", LARGE]


def test_a_page_in_the_middle_stays_where_it_is_when_all_entries_come(visit, url):
    page = visit().page
    page.goto(f"{url}/some/?page=2")
    wait_for_all(page)
    expect(page.get_by_text("entry-999.txt", exact=True)).to_be_in_viewport()


def test_on_the_way_back_a_page_is_where_it_was(visit, url):
    page = visit().page
    page.goto(f"{url}/some/")
    wait_for_all(page)
    page.evaluate("scrollTo(0, 100_000)")
    entry = page.get_by_text("entry-2385.txt", exact=True)
    expect(entry).to_be_in_viewport()
    page.goto(f"{url}/empty/")
    page.go_back()
    expect(entry).to_be_in_viewport()


def test_paper_has_rows_and_not_the_room_of_those_that_are_not_there(visit, url):
    page = visit().page
    page.goto(f"{url}/some/")
    wait_for_all(page)
    assert len(re.findall(rb"/Type\s*/Page\b", page.pdf())) < 10
    page.emulate_media(media="print")
    said = page.locator("#entries").evaluate("table => getComputedStyle(table, '::after').content")
    assert re.fullmatch(r'"Rows 1 to \d\d of 3,000"', said)


def test_a_folder_that_never_rests_is_read_three_times_and_left_to_the_server(visit, url):
    one = visit()
    page = one.page
    tags = itertools.count()

    def changed(route):
        entry = {"name": "a", "href": "a", "type": "file", "size": 1, "mtime": 1}
        route.fulfill(json={"etag": f'"{next(tags)}"', "total": 2000, "entries": [entry] * 1000})

    page.route("**/some/?json*", changed)
    page.goto(f"{url}/some/")
    expect(page.locator(".find button")).to_be_visible()
    assert next(tags) == 6  # two of each: the second does not fit the first
    page.get_by_text("Next", exact=True).click()
    page.wait_for_url(f"{url}/some/?page=2")


def test_keys_go_through_many_entries(visit, url):
    page = visit().page
    page.goto(f"{url}/many/")
    wait_for_all(page)
    page.keyboard.press("ArrowDown")
    expect(page.get_by_role("link", name="a folder", exact=True)).to_be_focused()
    page.keyboard.press("End")
    last = page.get_by_role("link", name=f"entry-{MANY - 2}.txt", exact=True)
    expect(last).to_be_focused()
    expect(last).to_be_in_viewport()
    page.keyboard.press("ArrowUp")
    expect(page.get_by_role("link", name=f"entry-{MANY - 3}.txt", exact=True)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/many/a%20folder/")
    page.keyboard.press("Backspace")
    page.wait_for_url(f"{url}/many/")


# -- a folder of people ----------------------------------------------------------


def test_the_filter_and_the_keyboard_open_a_folder(visit, url):
    page = visit().page
    page.goto(f"{url}/album/")
    page.keyboard.press("/")
    page.keyboard.type("sub")
    expect(rows(page)).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="sub folder", exact=True)).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(f"{url}/album/sub%20folder/")
    page.go_back()
    assert names(page) == ["sub folder"]
    expect(page.get_by_role("searchbox")).to_have_value("sub")


def test_keys_go_down_the_rows_also_of_files_of_the_same_second(visit, url):
    page = visit().page
    page.goto(f"{url}/words/?sort=mtime")
    assert names(page)[:2] == ["c", "a"]
    for name in ("c", "a"):
        page.keyboard.press("ArrowDown")
        expect(page.get_by_role("link", name=name, exact=True)).to_be_focused()


@pytest.mark.parametrize("script", [True, False], ids=["with JavaScript", "without"])
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("ΣΑΣ", "ΣΑΣ.txt"),
        ("σας", "ΣΑΣ.txt"),
        ("STRASSE", "Straße.txt"),
        ("%", "50% .* [b].txt"),
        (".* [B]", "50% .* [b].txt"),
    ],
)
def test_a_filter_finds_the_same_with_javascript_and_without(visit, url, text, name, script):
    page = visit(java_script_enabled=script).page
    page.goto(f"{url}/words/")
    page.get_by_role("searchbox").fill(text)
    page.keyboard.press("Enter")
    expect(rows(page)).to_have_count(1)
    assert names(page) == [name]


def test_a_path_of_two_slashes_is_no_other_host(visit, url):
    page = visit().page
    page.goto(f"{url}//words/")
    page.get_by_role("searchbox").fill("a")
    expect(rows(page)).to_have_count(2)
    page.keyboard.press("Escape")
    expect(rows(page)).to_have_count(5)
    assert page.url == f"{url}//words/"


def test_times_are_those_of_the_reader(visit, url):
    options = {"timezone_id": "Asia/Tokyo", "locale": "en-GB"}
    page = visit(**options).page
    page.goto(f"{url}/album/?filter=notes")
    time = page.locator("#rows time")
    expect(time).to_have_text("16 Jun 2025, 00:06")
    expect(time).to_have_attribute("datetime", re.compile("2025-06-15T15:06:40"))
    time.hover()
    expect(time).to_have_attribute("title", re.compile(" · Monday, 16 June 2025"))


def test_readme_is_text(visit, url):
    page = visit().page
    page.goto(f"{url}/album/")
    expect(page.locator(".readme pre")).to_have_text("# An *album* <b>of sorts</b>")


def test_what_is_viewed_leads_to_the_next(visit, url):
    page = visit().page
    page.goto(f"{url}/album/")
    page.get_by_role("link", name="image 1.png", exact=True).click()
    page.wait_for_url(f"{url}/album/image%201.png?view")
    assert page.locator("#shown").evaluate("image => image.naturalWidth") == 1
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"{url}/album/image%202.png?view")
    page.get_by_role("link", name="Next: image 10.png").click()
    page.wait_for_url(f"{url}/album/image%2010.png?view")
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(f"{url}/album/image%202.png?view")
    page.keyboard.press("Escape")
    page.wait_for_url(f"{url}/album/")


def test_the_order_of_the_folder_is_that_of_its_files_pages(visit, url):
    page = visit().page
    page.goto(f"{url}/album/")
    page.get_by_role("link", name="Name").click()
    page.get_by_role("link", name="image 10.png", exact=True).click()
    page.wait_for_url(f"{url}/album/image%2010.png?view&sort=name&order=desc")
    page.keyboard.press("ArrowRight")
    page.wait_for_url(f"{url}/album/image%202.png?view&sort=name&order=desc")
    page.keyboard.press("Escape")
    page.wait_for_url(f"{url}/album/?sort=name&order=desc")


def test_what_cannot_be_shown_is_offered_to_be_saved(visit, url):
    page = visit().page
    page.goto(f"{url}/album/no%20image.png?view")
    expect(page.locator("#fault")).to_be_visible()
    expect(page.locator("#shown")).to_be_hidden()


@pytest.mark.parametrize(("name", "to_s"), [("sound.wav", 4500), ("film.mp4", 17)])
def test_players_seek_by_ranges(visit, url, name, to_s):
    page = visit().page
    answers = []
    page.on("response", lambda answer: answers.append(answer) if name in answer.url else None)
    page.goto(f"{url}/album/{name}?view")
    reached = page.locator("#shown").evaluate(
        """(player, to_s) => new Promise((resolve, reject) => {
            const seek = () => {
                player.addEventListener("seeked", () => resolve(player.currentTime));
                player.currentTime = to_s;
            };
            player.addEventListener("error", () => reject(player.error.message));
            if (player.readyState) seek(); else player.addEventListener("loadedmetadata", seek);
        })""",
        to_s,
    )
    assert reached == to_s
    parts = [answer for answer in answers if answer.status == 206]
    begins = [int(re.match(r"bytes=(\d+)-", a.request.headers["range"])[1]) for a in parts]
    assert max(begins) > 10_000_000  # it did not read what lies before


# -- hostile names ---------------------------------------------------------------


@pytest.mark.parametrize("script", [True, False], ids=["with JavaScript", "without"])
def test_hostile_names_are_text(visit, url, script):
    one = visit(java_script_enabled=script)
    page = one.page
    page.goto(f"{url}/hostile/root/")
    assert {"<script>alert(1)", "\"><svg onload=alert(3)>'", "{{7*7}}.txt"} <= set(names(page))
    assert "new␊line.txt" in names(page)
    assert "right to left \ufffdtxt.exe" in names(page)
    assert page.locator("script").count() == 1
    assert page.locator("#rows :is(img, script, b)").count() == 0
    page.goto(f"{url}/hostile/root/?filter=%22%3E%3Csvg%20onload%3Dalert(3)%3E")
    assert names(page) == ["\"><svg onload=alert(3)>'"]
    page.goto(f"{url}/hostile/root/?filter=%3Cscript%3Ealert(9)%3C/script%3E")
    expect(page.locator("#none")).to_contain_text("<script>alert(9)</script>")
    # "javascript:" is no scheme here, and a "//" no host.
    links = page.locator("a").evaluate_all("links => links.map((link) => link.href)")
    assert [link for link in links if not link.startswith(f"{url}/")] == []


def test_every_hostile_file_can_be_opened_by_its_link(visit, url):
    page = visit().page
    page.goto(f"{url}/hostile/root/")
    wrong = page.evaluate("""async () => {
        const wrong = [];
        for (const link of document.querySelectorAll("#rows .get, #rows .dir .name a")) {
            const answer = await fetch(link.href.replace("?zip", ""), { method: "HEAD" });
            if (!answer.ok) wrong.push(`${answer.status} ${link.href}`);
        }
        return wrong;
    }""")
    # Only of a file that nobody may read, and where the tests are not root's.
    assert [line for line in wrong if "closed" not in line] == []


# -- without JavaScript ----------------------------------------------------------


def test_all_is_there_without_javascript(visit, url):
    page = visit(java_script_enabled=False).page
    page.goto(f"{url}/some/")
    page.get_by_text("Size", exact=True).click()
    page.wait_for_url(f"{url}/some/?sort=size&order=desc")
    assert names(page)[:2] == ["a folder", "entry-0.txt"]
    page.get_by_role("searchbox").fill("Y-1")
    page.locator(".find button").click()
    page.wait_for_url(f"{url}/some/?filter=Y-1&sort=size&order=desc")
    expect(page.get_by_role("status")).to_contain_text("1,111 of 3,000")
    assert names(page)[0] == "entry-1.txt"
    page.get_by_text("Next", exact=True).click()
    page.wait_for_url(f"{url}/some/?sort=size&order=desc&filter=Y-1&page=2")
    assert rows(page).count() == 111
    page.locator(".count a").click()
    page.wait_for_url(f"{url}/some/?sort=size&order=desc")


def test_a_missing_file_has_a_page_of_its_own(visit, url):
    one = visit()
    one.missing.add(f"{url}/album/no%20such%20file")
    one.page.goto(f"{url}/album/no%20such%20file")
    expect(one.page.get_by_role("heading")).to_have_text("Not Found")
    one.page.get_by_role("link", name="Go to the start").click()
    one.page.wait_for_url(f"{url}/")


# -- for everybody ---------------------------------------------------------------

PAGES = (
    "/album/",
    "/some/?filter=Y-1&page=2",
    "/empty/",
    "/album/film.mp4?view",
    "/missing",
)


@pytest.mark.parametrize("path", PAGES)
def test_axe_finds_nothing(visit, url, path):
    package = pytest.importorskip("axe_playwright_python")
    one = visit()
    one.missing.add(f"{url}/missing")
    page = one.page
    page.goto(url + path)
    page.evaluate(Path(package.__file__).with_name("axe.min.js").read_text())
    for scheme, size in itertools.product(("light", "dark"), (DESKTOP, PHONE)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        found = page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
        told = [(fault["help"], node["html"]) for fault in found for node in fault["nodes"]]
        assert told == [], (scheme, size)
        width = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert width <= 0, f"it is wider than its window of {size}"
