"""The page at ``/`` in a real Chromium with a real server: the four steps, a correction, both languages, errors.

Skipped where playwright or Chromium is absent; ``.ci/with-services make slow`` installs Chromium where it can.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.parse import urlsplit
from zipfile import ZipFile

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.pipeline.conftest import PATIENT, write_pictures
from tests.server.conftest import SMALL_LIMITS, LiveClient, create_test_database, run_server

from gliomark.messages import (
    LANGUAGES,
    MESSAGES,
    describe_level,
    format_percent,
    from_message_record,
    message,
    render_message,
    to_message_record,
)
from gliomark.server.browser_page import PAGE_FOLDER, read_interface_texts
from gliomark.server.run import ServerConfig, open_database

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright_api.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None,
        reason="no Chromium; on Debian: apt-get install chromium, or .ci/with-services make slow",
    ),
]
TIMEOUT_MS = 120_000
WEBGL_IN_SOFTWARE = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
OUTLINE_RGB = (255, 213, 74)
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class OpenedPage:
    """A page of the browser with every request that it made and every error in its console."""

    page: Any
    requests: list[Any]
    errors: list[str]

    def find(self, selector: str) -> Any:
        return self.page.locator(selector)

    def sign_in(self, token: str) -> None:
        self.find("#token-field").fill(token)
        self.find("#sign-in-form button").click()

    def read_error(self) -> str:
        expect(self.find("#error-banner")).to_be_visible()
        return str(self.find("#error-text").inner_text())

    def drag(self, *points: tuple[float, float]) -> None:
        """Drag the left button over the axial plane; points: (column, row) in pixels of the images."""
        mouse, (left, top, scale) = self.page.mouse, self.measure_axial_plane()
        positions = [(left + (column + 0.5) * scale, top + (row + 0.5) * scale) for column, row in points]
        mouse.move(*positions[0])
        mouse.down()
        for position in positions[1:]:
            mouse.move(*position, steps=6)
        mouse.up()

    def draw_with_finger(self, *points: tuple[float, float]) -> None:
        """Move one finger over the axial plane; points as in ``drag``."""
        touches, (left, top, scale) = self.page.context.new_cdp_session(self.page), self.measure_axial_plane()
        for index, (column, row) in enumerate(points):
            point = {"x": left + (column + 0.5) * scale, "y": top + (row + 0.5) * scale}
            kind = "touchMove" if index else "touchStart"
            touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
            self.page.wait_for_timeout(100)  # NiiVue takes a touch for a stroke after a moment
        touches.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    def measure_axial_plane(self) -> tuple[float, float, float]:
        """Left and top of the axial images on the screen, and screen pixels per image pixel."""
        box = self.find("#image-canvas").bounding_box()
        width = 0.66 * box["width"]
        scale = min(width, box["height"]) / 240
        return box["x"] + (width - 240 * scale) / 2, box["y"] + (box["height"] - 240 * scale) / 2, scale

    def count_outline_pixels(self) -> int:
        shown = Image.open(BytesIO(self.find("#image-canvas").screenshot())).convert("RGB")
        difference = np.abs(np.asarray(shown).astype(int) - OUTLINE_RGB).max(axis=2)
        return int((difference < 20).sum())


@pytest.fixture(scope="module")
def page_server(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Iterator[LiveClient]:
    """A server that wants a token, which its client has."""
    data, database = tmp_path_factory.mktemp("page"), create_test_database()
    token = open_database(data, database).add_token("Dr. 王", "reader")
    config = ServerConfig(
        data,
        database_url=database,
        model_files={"tiny": str(tiny_weights)},
        request_limits=SMALL_LIMITS,
    )
    with run_server(config) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        assert client.server.worker_pool.wait_for_models(300)
        yield client


@pytest.fixture(scope="module")
def token(page_server: LiveClient) -> str:
    return page_server.headers["Authorization"].removeprefix("Bearer ")


@pytest.fixture(scope="module")
def open_page(page_server: LiveClient) -> Iterator[Callable[..., OpenedPage]]:
    """Function that opens the page in a tab of its own, in English; options: of the browser's context."""
    contexts = []
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *WEBGL_IN_SOFTWARE]
        )

        def create_page(**options: Any) -> OpenedPage:
            defaults = {"viewport": {"width": 1366, "height": 768}, "locale": "en-GB"}
            context = browser.new_context(**defaults | options)
            contexts.append(context)
            opened = OpenedPage(context.new_page(), [], [])
            opened.page.set_default_timeout(TIMEOUT_MS)
            opened.page.on("request", lambda request: opened.requests.append(request))
            opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
            opened.page.on("console", lambda line: line.type == "error" and opened.errors.append(line.text))
            opened.page.goto(str(page_server.base_url))
            return opened

        expect.set_options(timeout=TIMEOUT_MS)
        yield create_page
        for context in contexts:
            context.close()
        browser.close()


@pytest.fixture(scope="module")
def predicted_page(
    open_page: Callable[..., OpenedPage], token: str, drawn_images: dict[str, Any], tmp_path_factory: Any
) -> OpenedPage:
    """The first three steps: sign in, upload a folder with a mask, predict."""
    folder = write_pictures(tmp_path_factory.mktemp("patients") / PATIENT, drawn_images)
    opened = open_page()
    opened.sign_in(token)
    expect(opened.find("#workspace")).to_be_visible()
    opened.find("#folder-field").set_input_files(folder)
    expect(opened.find("#prediction-form")).to_be_visible()
    expect(opened.find("#predict-button")).to_be_disabled()
    opened.find("#age-field").fill("50")
    opened.page.get_by_role("radio", name="female").click()
    opened.find("#predict-button").click()
    expect(opened.find("#result")).to_be_visible()
    return opened


def get_shown_job(server: LiveClient) -> dict[str, Any]:
    """Return the newest prediction of the patient."""
    (job, *_) = server.get("/api/predictions", params={"patient_id": PATIENT}).json()
    return dict(job)


def read_stack(server: LiveClient, path: str, study: dict[str, Any]) -> NDArray[np.uint8]:
    content = server.get(path).raise_for_status().content
    return np.asarray(Image.open(BytesIO(content))).reshape(study["shape"])


def read_mask(server: LiveClient, path: str, study: dict[str, Any]) -> Mask:
    return read_stack(server, path, study) > 0


# ---- the four steps -----------------------------------------------------------------------------------


def test_the_answer_and_its_reasons_are_those_of_the_server(
    predicted_page: OpenedPage, page_server: LiveClient
) -> None:
    result = get_shown_job(page_server)["result"]
    assert predicted_page.find("#patient-heading").inner_text() == PATIENT
    assert predicted_page.find("#result-inputs").inner_text() == (
        "Based on: 50 years · female · enhancing focus: not stated · the model's outline"
    )
    cards = predicted_page.find("article.marker").all()
    assert len(cards) == len(result["markers"]) > 1
    for card, marker in zip(cards, result["markers"], strict=True):
        shown = card.inner_text().replace("\u00a0", " ")
        assert describe_level(marker["level"], marker["borderline"], "en") in shown
        assert format_percent(marker["probability"]) in shown and marker["performance"] in shown
        assert all(warning in shown for warning in marker["warnings"])
        assert [link.inner_text() for link in card.locator("button.link").all()] == marker["slices_used"]
    card.locator("button.link").last.click()
    assert marker["slices_used"][-1] in predicted_page.find("#slice-label").inner_text()


def test_the_outline_can_be_hidden(predicted_page: OpenedPage) -> None:
    shown = predicted_page.count_outline_pixels()
    predicted_page.find("#outline-button").click()
    hidden = predicted_page.count_outline_pixels()
    predicted_page.find("#outline-button").click()
    assert shown > 100 and hidden == 0 and predicted_page.count_outline_pixels() == shown


def test_a_correction_by_brush_is_predicted_with_and_withdrawn(
    predicted_page: OpenedPage, page_server: LiveClient
) -> None:
    page, job = predicted_page.page, get_shown_job(page_server)
    study = page_server.get(f"/api/studies/{job['study_id']}").json()
    before = read_mask(page_server, f"/api/predictions/{job['id']}/mask.png", study)
    predicted_page.find("#image-canvas").focus()
    page.keyboard.press("Home")
    page.keyboard.press("PageDown")
    page.keyboard.press("b")
    predicted_page.drag((90, 120), (120, 150), (150, 150))
    page.keyboard.press("e")
    predicted_page.drag((150, 150), (160, 150))
    again = predicted_page.find("#predict-outline-button")
    for keys, is_offered in (("Control+z", True), ("Control+z", False), ("Control+Shift+z", True)):
        page.keyboard.press(keys)
        assert again.is_visible() is is_offered, keys
    page.keyboard.press("Control+y")
    page.keyboard.press("e")  # puts the eraser away
    again.click()
    expect(predicted_page.find("#result-inputs")).to_contain_text("your outline")
    after = read_mask(page_server, f"/api/studies/{study['id']}/mask.png", study)
    assert np.flatnonzero((before != after).any(axis=(1, 2))).tolist() == [5]
    row, column = np.nonzero(after[5] & ~before[5])
    assert (abs(row.min() - 116), abs(row.max() - 154)) <= (2, 2), "a brush of 9 mm along the stroke"
    assert abs(column.min() - 86) <= 2 and column.max() < 148, "its end is erased"
    assert after[5, 150, 130] and after[5, 135, 105] and not after[5, 120, 120]
    assert get_shown_job(page_server)["request"]["outline"] == "corrected"
    assert get_shown_job(page_server)["result"]["lesion"]["rule"] == "reader's outline"
    predicted_page.find("#revert-button").click()
    expect(predicted_page.find("#result-inputs")).to_contain_text("the model's outline")
    assert page_server.get(f"/api/studies/{study['id']}").json()["corrected"] is False


def test_the_mask_in_the_folder_is_used_when_asked_for(predicted_page: OpenedPage) -> None:
    predicted_page.find("#supplied-mask-button").click()
    expect(predicted_page.find("#predict-outline-button")).to_be_visible()
    predicted_page.find("#undo-button").click()
    predicted_page.find("#revert-button").click()
    expect(predicted_page.find("#supplied-mask-button")).to_be_visible()


def test_pathology_and_the_report_follow_the_answer(
    predicted_page: OpenedPage, page_server: LiveClient
) -> None:
    card = predicted_page.find("article.marker").first
    card.locator("summary").click()
    card.locator("select").select_option("mutant")
    card.locator(".pathology input").fill("R132H")
    card.locator(".pathology button").click()
    expect(card.locator(".pathology li")).to_contain_text("mutant")
    (shown_id,) = {request.url.split("/")[-2] for request in predicted_page.requests if request.url.endswith("truth")
                   and request.method == "POST"}  # fmt: skip
    (recorded,) = page_server.get(f"/api/predictions/{shown_id}/truth").json()
    assert (recorded["value"], recorded["note"]) == ("mutant", "R132H")
    with predicted_page.page.expect_download() as download:
        predicted_page.find("#pdf-button").click()
    assert download.value.suggested_filename == f"{PATIENT}-report.pdf"
    assert Path(download.value.path()).read_bytes().startswith(b"%PDF-")


def test_grad_cam_is_shown_on_demand(predicted_page: OpenedPage, page_server: LiveClient) -> None:
    job = get_shown_job(page_server)
    study = page_server.get(f"/api/studies/{job['study_id']}").json()
    maps = {
        marker["marker"]: read_stack(
            page_server, f"/api/predictions/{job['id']}/heat/{marker['marker']}.png", study
        )
        for marker in job["result"]["markers"]
    }
    name = max(maps, key=lambda marker: int(maps[marker].max()))
    brightest = int(maps[name].max(axis=(1, 2)).argmax())
    canvas = predicted_page.find("#image-canvas")
    card = predicted_page.find(f'article.marker[data-marker="{name}"]')
    card.get_by_role("button", name=study["slice_names"][brightest], exact=True).click()
    before = canvas.screenshot()
    card.get_by_role("button", name="Show Grad-CAM").click()
    expect(card.get_by_role("button", name="Hide Grad-CAM")).to_be_visible()
    assert maps[name].max() > 60 and canvas.screenshot() != before
    card.get_by_role("button", name="Hide Grad-CAM").click()
    expect(card.get_by_role("button", name="Show Grad-CAM")).to_be_visible()
    assert canvas.screenshot() == before


def test_the_language_is_switched_and_kept(predicted_page: OpenedPage, page_server: LiveClient) -> None:
    predicted_page.find("#language-button").click()
    marker = get_shown_job(page_server)["result"]["markers"][0]
    level = describe_level(marker["level"], marker["borderline"], "zh")
    expect(predicted_page.find("article.marker .level").first).to_have_text(level)
    texts = [predicted_page.find(part).inner_text() for part in (".bar", "#viewer", ".input-panel")]
    words = set(re.findall(r"[A-Za-z]{2,}", " ".join(texts)))
    assert words <= {"gliomark", "English", "FLAIR", "IDH", "mask"}, "the rest is in Chinese"
    predicted_page.page.reload()
    predicted_page.find("#study-list button").first.click()
    expect(predicted_page.find("article.marker .level").first).to_have_text(level)
    predicted_page.find("#language-button").click()
    expect(predicted_page.find("#predict-button")).to_have_text("Predict")


# ---- errors -------------------------------------------------------------------------------------------


def test_a_wrong_token_is_refused_in_both_languages(open_page: Callable[..., OpenedPage]) -> None:
    opened = open_page(locale="zh-CN")
    opened.sign_in("wrong")
    assert opened.read_error() == render_message(message("token-unknown"), "zh")
    opened.find("#language-button").click()
    assert opened.read_error() == message("token-unknown")
    expect(opened.find("#token-field")).to_be_visible()


def create_zip(files: dict[str, bytes]) -> bytes:
    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def signed_in_page(open_page: Callable[..., OpenedPage], token: str) -> OpenedPage:
    opened = open_page()
    opened.sign_in(token)
    expect(opened.find("#workspace")).to_be_visible()
    return opened


def create_refused_uploads(picture_folder: Path) -> dict[str, bytes]:
    """Zip files by the code of the message with which they are refused."""
    images = {
        file.relative_to(picture_folder).as_posix(): file.read_bytes()
        for file in picture_folder.rglob("*.png")
    }
    two = {f"{patient}/{name}": content for patient in ("P1", "P2") for name, content in images.items()}
    return {
        "body-too-large": bytes(SMALL_LIMITS.max_upload_bytes + 1),
        "picture-damaged": create_zip({f"P1/{name}": content[:200] for name, content in images.items()}),
        "upload-patients": create_zip(two),
    }  # fmt: skip


@pytest.mark.parametrize("code", ["body-too-large", "picture-damaged", "upload-patients"])
def test_a_refused_upload_is_explained_in_one_sentence(
    signed_in_page: OpenedPage, page_server: LiveClient, picture_folder: Path, code: str
) -> None:
    content = create_refused_uploads(picture_folder)[code]
    refused = page_server.post("/api/studies", files=[("files", ("P1.zip", content))]).json()
    assert refused["code"] == code
    drop = """async (content) => {
        const transfer = new DataTransfer();
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        transfer.items.add(new File([bytes], "P1.zip"));
        document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
    }"""
    signed_in_page.page.evaluate(drop, base64.b64encode(content).decode())
    assert signed_in_page.read_error() == refused["detail"]
    expect(signed_in_page.find("#retry-button")).to_be_hidden()
    signed_in_page.find("#language-button").click()
    sentence = from_message_record({"text": refused["detail"], **refused})
    assert signed_in_page.read_error() == render_message(sentence, "zh")
    signed_in_page.find("#language-button").click()
    signed_in_page.find("#dismiss-button").click()


def test_an_interrupted_connection_can_be_resumed(predicted_page: OpenedPage) -> None:
    context, address = predicted_page.page.context, urlsplit(predicted_page.page.url).netloc
    context.set_offline(True)
    predicted_page.find("#predict-button").click()
    assert predicted_page.read_error() == (
        f"The server at {address} does not respond. Check that it is running and reachable over the network."
    )
    context.set_offline(False)
    requests = len(predicted_page.requests)
    predicted_page.find("#retry-button").click()
    expect(predicted_page.find("#error-banner")).to_be_hidden()
    expect(predicted_page.find("#predicting-task")).to_be_hidden()
    expect(predicted_page.find("#result")).to_be_visible()
    assert "POST" in {request.method for request in predicted_page.requests[requests:]}


# ---- tablets, texts, security -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1024, 768), (820, 1180)])
def test_a_tablet_has_large_controls_and_nothing_beside_the_screen(
    open_page: Callable[..., OpenedPage], token: str, predicted_page: OpenedPage, size: tuple[int, int]
) -> None:
    viewport = dict(zip(("width", "height"), size, strict=True))
    opened = open_page(viewport=viewport, has_touch=True, is_mobile=True)
    opened.sign_in(token)
    opened.find("#study-list button").first.tap()
    expect(opened.find("#result")).to_be_visible()
    opened.find("#brush-button").tap()
    if size[0] > size[1]:
        opened.draw_with_finger((60, 60), (90, 80))
        expect(opened.find("#predict-outline-button")).to_be_visible()
    heights = "buttons => buttons.map(button => button.offsetHeight).filter(Boolean)"
    assert min(opened.find("button:not(.link)").evaluate_all(heights)) >= 40
    overflow = opened.page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
    assert overflow <= 0
    names = "buttons => buttons.map(button => (button.ariaLabel || button.textContent).trim())"
    assert all(opened.find("button").evaluate_all(names)), "every button has a name"
    opened.page.context.close()


def create_sample(template: str, number: float) -> dict[str, Any]:
    """Create parameters for a text: numbers where it formats numbers, otherwise messages and texts."""
    fields = [(name, spec) for _, name, spec, _ in Formatter().parse(template) if name]
    return {
        name: number if spec else message("level-mutant") if index % 2 else f"<b>{name}</b> {{x}}"
        for index, (name, spec) in enumerate(fields)
    }


def test_every_message_is_rendered_as_in_python(signed_in_page: OpenedPage) -> None:
    numbers = (0.0, 0.125, 0.5, 1.45, 2.5, 12.345678, 99.95, 0.00001234, 1234567.0, -3.5, -2.5)
    samples = [
        message(code, **create_sample(MESSAGES[code][0], number))
        for index, code in enumerate(MESSAGES)
        for number in (
            numbers if any("{" in text and ":" in text for text in MESSAGES[code]) else numbers[:1]
        )
    ]
    script = """async (records) => {
        const { render, setLanguage } = await import("/page/texts.js");
        const render_all = (language) => { setLanguage(language); return records.map(render); };
        const rendered = { zh: render_all("zh"), en: render_all("en") };
        return rendered;
    }"""
    rendered = signed_in_page.page.evaluate(script, [to_message_record(sample) for sample in samples])
    for language in LANGUAGES:
        expected = [render_message(sample, language) for sample in samples]
        different = [pair for pair in zip(expected, rendered[language], strict=True) if pair[0] != pair[1]]
        assert different == []
    assert len(samples) > 800


def test_masks_survive_the_pages_own_png(signed_in_page: OpenedPage) -> None:
    random = np.random.default_rng(0)
    steps = np.arange(64, dtype=np.uint8)
    for values in (
        random.integers(0, 2, (60, 64), dtype=np.uint8) * np.uint8(255),
        np.tile(steps, (60, 1)),
        np.add.outer(steps[:60], steps).astype(np.uint8),
        np.asarray(random.normal(128, 20, (60, 64)).cumsum(axis=1) / 9, np.uint8),
    ):
        buffer = BytesIO()
        Image.fromarray(values).save(buffer, "PNG", optimize=True)
        script = """async ([content, width, height]) => {
            const { decodePng, encodePng } = await import("/page/png.js");
            const pixels = await decodePng(Uint8Array.from(content).buffer);
            const again = new Uint8Array(await (await encodePng(pixels, width, height)).arrayBuffer());
            return [[...pixels], [...again]];
        }"""
        pixels, again = signed_in_page.page.evaluate(script, [list(buffer.getvalue()), 64, 60])
        assert np.array_equal(np.reshape(pixels, values.shape), values)
        assert np.array_equal(np.asarray(Image.open(BytesIO(bytes(again)))), values)


def test_the_pages_sentences_are_those_of_client_and_messages() -> None:
    """A sentence in a file of the page is an English text of the client; messages are named by their code."""
    files = [path.read_text("utf-8") for path in PAGE_FOLDER.iterdir() if path.suffix in (".js", ".html")]
    text = re.sub(r"/\*.*?\*/|<!--.*?-->", "", "\n".join(files), flags=re.DOTALL)
    text = re.sub(r"//.*", "", text)
    named = {source for _, source in re.findall(r'data-(text|title|label)="([^"]+)"', text)}
    literals = re.findall(r'"((?:[^"\\\n]|\\.)*)"', text)
    sentences = {
        source for source in literals if re.match(r"[A-Z{].*\w \S", source) and re.search("[a-z]{2}", source)
    }
    assert len(named) > 20 and len(sentences) > 40
    assert (named | sentences) - set(read_interface_texts()) == set()
    codes = set(re.findall(r'"(page-[a-z-]+)"', text))
    assert codes == {code for code in MESSAGES if code.startswith("page-")}


def test_the_token_is_in_no_address_and_nothing_leaves_the_server(
    predicted_page: OpenedPage, page_server: LiveClient, token: str
) -> None:
    urls = [request.url for request in predicted_page.requests if not request.url.startswith("data:")]
    assert {urlsplit(url).netloc for url in urls if not url.startswith("blob:")} == {
        page_server.base_url.netloc.decode()
    }
    assert len(urls) > 20 and not any(token in url for url in urls)
    storage = predicted_page.page.evaluate("[JSON.stringify(localStorage), document.cookie]")
    assert token not in "".join(storage)


def test_the_browser_reports_no_violation_of_the_policy(
    predicted_page: OpenedPage, signed_in_page: OpenedPage
) -> None:
    errors = predicted_page.errors + signed_in_page.errors
    refused = "Failed to load resource"  # responses such as 401, and the interrupted connection
    assert [error for error in errors if refused not in error] == []


def test_a_server_that_is_gone_is_named(signed_in_page: OpenedPage, page_server: LiveClient) -> None:
    """The last test: it stops the server."""
    page_server.web.should_exit = True
    address = urlsplit(signed_in_page.page.url).netloc
    signed_in_page.find("#study-list button").first.click()
    sentence = (
        f"The server at {address} does not respond. Check that it is running and reachable over the network."
    )
    expect(signed_in_page.find("#error-text")).to_have_text(sentence)
    expect(signed_in_page.find("#retry-button")).to_be_visible()
