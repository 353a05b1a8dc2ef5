"""The UI as a user sees it: Chromium, a real Airflow, real runs."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import KEY, ROWS, OpenPage, UiDeployment

# The first test waits for the deployment, which takes a minute or, on a busy machine, several.
pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

Screenshot = Callable[[Any, str], None]
PATIENCE = 90_000  # ms; a busy machine starts a task in half a minute
FIRST_SHOWN = 48


@pytest.fixture(autouse=True)
def patience() -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=PATIENCE)


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as playwright_expect

    return playwright_expect(locator)


def rows_tab(ui: UiDeployment) -> str:
    return ui.run_tab("ui_rows", ui.rows_run)


# A mapped run and a batch, while they go on


def test_pictures_arrive_in_the_tab_of_a_mapped_run(
    ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot
) -> None:
    run_id = ui.api.trigger_dag("ui_mapped")
    page = open_page(ui.run_tab("ui_mapped", run_id))

    expect(page.locator(".flux-notice, article.flux-tile").first).to_be_visible()
    expect(page.locator(".flux-waiting").first).to_be_visible()
    elapsed = page.locator(".flux-elapsed").first.inner_text()
    expect(page.locator(".flux-image.flux-is-shown").first).to_be_visible()
    screenshot(page, "tab-running")
    expect(page.locator(".flux-headline")).to_contain_text("6 of 6 done")
    expect(page.locator(".flux-live")).to_have_text("Ended")
    expect(page.locator(".flux-tile[data-status=succeeded] img")).to_have_count(5)

    assert re.fullmatch(r"\d+ s", elapsed)
    failed = page.locator(".flux-tile[data-status=failed]")
    expect(failed).to_contain_text("NSFW")
    screenshot(page, "tab-failed")


def test_the_tab_of_a_mapped_task_instance_shows_its_own_picture(ui: UiDeployment, open_page: OpenPage) -> None:
    page = open_page(ui.task_tab("ui_rows", ui.rows_run, "make_picture", 3))

    expect(page.locator("article.flux-tile")).to_have_count(1)
    expect(page.locator(".flux-prompt")).to_contain_text("no. 4")


def test_pictures_that_went_in_are_shown_before_and_after(
    ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot
) -> None:
    run_id = ui.api.trigger_dag("flux_restyle_photos")
    page = open_page(ui.run_tab("flux_restyle_photos", run_id))
    expect(page.locator(".flux-tile[data-status=succeeded] .flux-inset img.flux-is-shown")).to_have_count(6)
    screenshot(page, "tab-before-after")

    page.locator(".flux-face").first.click()
    dialog = page.get_by_role("dialog")
    slider = dialog.get_by_role("slider", name="Show more of the picture before")
    expect(dialog.locator(".flux-slider-before img.flux-is-shown")).to_be_visible()
    name = dialog.get_attribute("aria-label")
    slider.press("ArrowLeft")
    expect(slider).to_have_value("49")
    expect(slider).to_have_attribute("aria-valuetext", "49 % before, 51 % after")
    assert dialog.get_attribute("aria-label") == name
    screenshot(page, "details-slider")

    dialog.get_by_role("button", name="Side by side").click()
    expect(dialog.get_by_text("After", exact=True)).to_be_visible()
    expect(dialog.locator(".flux-half img.flux-is-shown")).to_have_count(2)
    expect(dialog.locator(".flux-list")).to_contain_text("/photos/")
    screenshot(page, "details-before-after")


def test_the_progress_of_a_batch_is_seen_while_it_runs_and_all_its_rows_afterwards(
    ui: UiDeployment, open_page: OpenPage
) -> None:
    run_id = ui.start_batch(rows=240, steps=8, pause=4.0)
    page = open_page(ui.run_tab("ui_batch", run_id))
    figures = page.locator(".flux-figures")

    expect(page.locator(".flux-bar .flux-is-running")).to_be_attached()
    expect(figures).to_contain_text("In flight")
    expect(figures).to_contain_text("Time left")
    expect(figures).to_contain_text("Spent")
    expect(page.locator(".flux-image.flux-is-shown").first).to_be_visible()
    first = _rows_done(page)
    page.wait_for_function(f"Number(document.querySelector('.flux-bar').ariaValueNow) > {first}", timeout=PATIENCE)

    expect(page.locator(".flux-batch")).to_contain_text("240 of 240 rows done")
    expect(page.get_by_role("button", name="Failed")).to_contain_text("11")
    _scroll_to_the_end(page)
    expect(page.locator("article.flux-tile")).to_have_count(240)
    page.get_by_role("button", name=re.compile("^Failed")).click()
    expect(page.locator("article.flux-tile")).to_have_count(11)


def test_a_real_batch_shows_its_progress_and_then_its_manifest(
    ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot
) -> None:
    accepted = ui.emulator.accepted
    run_id = ui.api.trigger_dag("ui_real_batch", {"folder": str(ui.folder / "progress")})
    page = open_page(ui.run_tab("ui_real_batch", run_id))
    figures = page.locator(".flux-figures")

    expect(figures).to_contain_text("In flight")
    page.wait_for_function("Number(document.querySelector('.flux-bar').ariaValueNow) >= 12", timeout=PATIENCE)
    expect(figures).to_contain_text("Time left")
    expect(figures).to_contain_text("Spent$0.")
    _wait_for_first_pictures(page)
    screenshot(page, "batch-running")
    shown = page.locator(".flux-image").evaluate_all("images => images.map(image => new URL(image.src).pathname)")
    assert set(shown) == {"/flux/picture"}
    assert 12 <= _rows_done(page) < 30

    expect(page.locator(".flux-live")).to_have_text("Ended")
    expect(page.locator(".flux-batch")).to_contain_text("30 of 30 rows done")
    expect(page.get_by_role("button", name="Succeeded")).to_contain_text("29")
    expect(page.locator("article.flux-tile")).to_have_count(30)
    totals = ui.api.xcom("ui_real_batch", run_id, "make_catalogue", "flux_batch")
    expect(figures).to_contain_text(f"Spent${totals['spent_usd']}")
    page.reload()
    _wait_for_first_pictures(page)
    screenshot(page, "batch-done")
    manifest = Path(ui.api.xcom("ui_real_batch", run_id, "make_catalogue").removeprefix("file://"))
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    tiles = page.locator("article.flux-tile").evaluate_all("tiles => tiles.map(tile => tile.dataset.id)")
    assert tiles == [row["prediction_id"] for row in rows]
    assert ui.emulator.accepted - accepted == 30
    page.get_by_role("button", name=re.compile("^Failed")).click()
    expect(page.locator("article.flux-tile")).to_have_count(1)
    expect(page.locator("article.flux-tile")).to_contain_text("NSFW")


def test_the_button_pictures_of_a_batch_leads_to_what_it_made_and_kept(ui: UiDeployment, open_page: OpenPage) -> None:
    for _ in range(2):
        run_id = ui.api.trigger_dag("ui_real_batch", {"folder": str(ui.folder / "catalogue")})
        ui.api.wait_for_run("ui_real_batch", run_id)
    page = open_page(ui.task_tab("ui_real_batch", run_id, "make_catalogue").replace("/plugin/flux-task", "/details"))

    button = page.get_by_role("link", name="Pictures")
    expect(button).to_be_visible()
    page.goto(button.evaluate("link => link.href"))

    expect(page.locator(".flux-batch")).to_contain_text("30 of 30 rows done")
    expect(page.get_by_role("button", name=re.compile("^Kept"))).to_contain_text("29")


# A person decides


def test_pictures_are_seen_and_approved_before_they_are_published(
    ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot
) -> None:
    dag_id = "flux_approve_before_publish"
    published = ui.folder / "published"
    conf = {"output_path": str(ui.folder / "posters"), "published_path": str(published)}
    run_id = ui.api.trigger_dag(dag_id, conf)
    # Airflow below 3.3 calls it deferred.
    ui.api.wait_for_task_state(dag_id, run_id, "approve", "awaiting_input", "deferred")
    page = open_page(ui.task_tab(dag_id, run_id, "approve").replace("/plugin/flux-task", "/required_actions"))

    posters = page.get_by_alt_text(re.compile("Poster"))
    expect(posters).to_have_count(2)
    for number in range(2):
        expect(posters.nth(number)).to_have_js_property("complete", value=True)
    assert all(posters.evaluate_all("images => images.map(image => image.naturalWidth > 0)"))
    assert not published.exists()
    page.set_viewport_size({"width": 1280, "height": 1300})
    screenshot(page, "approval")
    page.get_by_role("button", name="Approve").click()

    assert ui.api.wait_for_run(dag_id, run_id)["state"] == "success"
    assert len(list(published.iterdir())) == 2


def _wait_for_first_pictures(page: Any) -> None:
    for number in range(4):
        expect(page.locator("article.flux-tile").nth(number).locator(".flux-is-shown")).to_be_visible()


def _rows_done(page: Any) -> int:
    return int(page.locator(".flux-bar").get_attribute("aria-valuenow"))


def _scroll_to_the_end(page: Any) -> None:
    shown = -1
    while page.locator("article.flux-tile").count() != shown:
        shown = page.locator("article.flux-tile").count()
        page.locator("article.flux-tile").last.scroll_into_view_if_needed()
        time.sleep(1)


# 300 pictures


def test_three_hundred_pictures_cost_few_requests(
    ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot, capsys: pytest.CaptureFixture[str]
) -> None:
    page = open_page("about:blank")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    began = time.monotonic()
    page.goto(rows_tab(ui))
    page.locator(".flux-headline").wait_for(timeout=PATIENCE)
    to_the_tab = time.monotonic() - began
    page.locator(".flux-image.flux-is-shown").first.wait_for(timeout=PATIENCE)
    to_first_picture = time.monotonic() - began
    expect(page.locator(".flux-headline")).to_contain_text(f"{ROWS} of {ROWS} done")
    screenshot(page, "tab-done")

    data = [url for url in asked if re.search(r"/flux/(state|batches|predictions)\?", url)]
    pictures = [url for url in asked if "/flux/picture?" in url]
    figures = (
        f"{ROWS} predictions: {len(data)} requests for data, {len(pictures)} for thumbnails at first; "
        f"tab after {to_the_tab:.1f} s, first picture after {to_first_picture:.1f} s"
    )
    with capsys.disabled():
        sys.stdout.write(f"\n{figures}\n")
    assert len(data) == 2 + 4
    assert 0 < len(pictures) <= FIRST_SHOWN
    assert all("small=true" in url for url in pictures)
    assert page.locator("article.flux-tile").count() == FIRST_SHOWN

    _scroll_to_the_end(page)
    assert page.locator("article.flux-tile").count() == ROWS


def test_a_run_that_has_ended_is_not_asked_for_again(ui: UiDeployment, open_page: OpenPage) -> None:
    page = open_page(rows_tab(ui))
    expect(page.locator(".flux-live")).to_have_text("Ended")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    time.sleep(6)

    assert [url for url in asked if "/flux/" in url and "/flux/picture" not in url] == []


def test_status_and_model_narrow_the_grid(ui: UiDeployment, open_page: OpenPage) -> None:
    page = open_page(rows_tab(ui))
    expect(page.locator(".flux-headline")).to_contain_text(f"{ROWS} of {ROWS} done")

    page.get_by_role("button", name=re.compile("^Failed")).click()
    expect(page.locator("article.flux-tile")).to_have_count(13)
    expect(page.locator(".flux-advice").first).to_be_visible()
    page.get_by_label("Model").select_option(label="flux-dev")
    assert page.locator("article.flux-tile").count() < 13
    assert set(page.locator("article.flux-tile").evaluate_all("tiles => tiles.map(tile => tile.dataset.status)")) == {
        "failed"
    }


def test_all_of_a_prediction_is_read_and_left_with_the_keyboard(
    ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot
) -> None:
    page = open_page(rows_tab(ui))
    first = page.locator("button.flux-face").first
    expect(first).to_be_visible()
    first.focus()
    page.keyboard.press("Enter")
    details = page.locator("dialog")
    expect(details).to_be_visible()
    expect(details).to_contain_text("p0000zx81kq4tw9v")
    expect(details).to_contain_text("file://")
    page.keyboard.press("ArrowRight")
    expect(details).to_contain_text("p0001zx81kq4tw9v")
    expect(details.locator(".flux-image.flux-is-shown")).to_be_visible()
    screenshot(page, "details")
    details.get_by_role("button", name="Copy prediction").click()
    assert page.evaluate("navigator.clipboard.readText()") == "p0001zx81kq4tw9v"
    page.keyboard.press("Escape")
    expect(details).to_have_count(0)

    assert first.evaluate("element => element === document.activeElement")


def test_a_prediction_tells_which_ways_were_tried_before_and_what_it_cost_at_most(
    ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot
) -> None:
    first = "black-forest-labs/flux-2-pro"
    ui.emulator.add_fault("503_model_not_found", on="create", model=first, times=None)
    run_id = ui.api.trigger_dag("flux_with_fallbacks")
    assert ui.api.wait_for_run("flux_with_fallbacks", run_id)["state"] == "success"

    page = open_page(ui.task_tab("flux_with_fallbacks", run_id, "make_picture"))

    tile = page.locator("article.flux-tile")
    expect(tile).to_contain_text("at most $0.04")
    expect(tile).to_contain_text("after 1 other way")
    page.locator("button.flux-face").click()
    details = page.locator("dialog")
    expect(details).to_contain_text(f"Tried before{first} at custom: unavailable")
    expect(details).to_contain_text("at most $0.04 (the list price at Replicate")
    expect(details.locator(".flux-image.flux-is-shown")).to_be_visible()
    screenshot(page, "details-fallback")


def test_every_picture_has_words_for_those_who_do_not_see_it(ui: UiDeployment, open_page: OpenPage) -> None:
    page = open_page(rows_tab(ui))
    expect(page.locator(".flux-image").first).to_be_visible()

    texts = page.locator(".flux-image").evaluate_all("images => images.map(image => image.alt)")
    names = page.locator(".flux-app button").evaluate_all(
        "buttons => buttons.map(button => button.ariaLabel || button.innerText.trim())"
    )

    assert all("catalogue photo" in text for text in texts)
    assert all(names)


# The page in the navigation


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_counts_what_the_runs_made(
    ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot, theme: str
) -> None:
    page = open_page(f"{ui.airflow.url}/plugin/flux", theme=theme)
    tiles = page.locator(".flux-tiles")

    expect(page.locator(".flux-live")).to_have_count(0)
    expect(tiles).to_contain_text("Predictions")
    expect(page.locator(".flux-chart canvas")).to_have_count(4)
    expect(page.locator(".flux-table").first).to_contain_text("flux-schnell")
    time.sleep(1)  # the charts are drawn after their library has come
    screenshot(page, "page" if theme == "light" else "page-dark")
    page.get_by_role("link", name=ui.rows_run).click()
    expect(page.locator(".flux-headline")).to_contain_text(f"{ROWS} of {ROWS} done")


def test_a_viewer_sees_the_page_and_the_tab(ui: UiDeployment, open_page: OpenPage) -> None:
    page = open_page(f"{ui.airflow.url}/plugin/flux", user="viewer")
    expect(page.locator(".flux-table").last).to_contain_text(ui.rows_run)

    page.goto(rows_tab(ui))
    expect(page.locator(".flux-image.flux-is-shown").first).to_be_visible()


# What an XCom may hold


def test_a_prompt_and_an_error_are_text_and_never_markup(ui: UiDeployment, open_page: OpenPage) -> None:
    run_id = ui.api.trigger_dag("ui_rows")
    ui.api.wait_for_run("ui_rows", run_id)
    attack = "<img src=x onerror='document.title=\"owned\"'><script>document.title='owned'</script>"
    one = {"id": attack, "status": "failed", "prompt": attack, "error": attack, "model": attack}
    other = {"id": "b", "status": "succeeded", "prompt": attack, "outputs": ["javascript:document.title='owned'"]}
    path = f"/dags/ui_rows/dagRuns/{run_id}/taskInstances/make_picture/xcomEntries"
    for map_index, value in enumerate((one, other)):
        ui.api.request("POST", path, json={"key": "flux_result", "value": value, "map_index": map_index})

    page = open_page(ui.run_tab("ui_rows", run_id))
    expect(page.locator("article.flux-tile")).to_have_count(2)
    page.locator("button.flux-face").first.click()
    expect(page.locator("dialog")).to_contain_text("<script>")

    assert "owned" not in page.title()
    assert page.locator(".flux-app script, .flux-app img[src=x]").count() == 0


def test_a_picture_that_the_gateway_has_deleted_is_said_to_be_gone(
    ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot
) -> None:
    run_id = ui.api.trigger_dag("ui_rows")
    ui.api.wait_for_run("ui_rows", run_id)
    value = {
        "id": "expired",
        "status": "succeeded",
        "prompt": "a picture of yesterday",
        "outputs": [f"{ui.emulator.url}/no-such-file.webp"],
        "expires_at": "2026-01-01T10:00:00+00:00",
    }
    path = f"/dags/ui_rows/dagRuns/{run_id}/taskInstances/make_picture/xcomEntries"
    ui.api.request("POST", path, json={"key": "flux_result", "value": value, "map_index": 0})

    page = open_page(ui.run_tab("ui_rows", run_id))

    expect(page.locator("article.flux-tile")).to_contain_text("The gateway has deleted this picture. It was kept until")
    expect(page.locator("article.flux-tile")).to_contain_text("a picture of yesterday")


def test_the_key_never_reaches_the_browser(ui: UiDeployment, open_page: OpenPage) -> None:
    page = open_page("about:blank")
    bodies: list[str] = []
    page.on("response", lambda response: bodies.append(response.url + str(response.all_headers())))
    page.goto(f"{ui.airflow.url}/plugin/flux")
    expect(page.locator(".flux-tiles")).to_be_visible()

    assert bodies
    assert all(KEY not in body for body in bodies)
    assert KEY not in page.content()


# Why it is empty


def test_a_run_without_predictions_says_why_it_is_empty(
    ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot
) -> None:
    run_id = ui.api.trigger_dag("ui_plain")
    ui.api.wait_for_run("ui_plain", run_id)

    page = open_page(ui.run_tab("ui_plain", run_id))
    expect(page.locator(".flux-notice")).to_contain_text("ended (success) without asking for a picture")
    screenshot(page, "tab-empty")
    page = open_page(ui.task_tab("ui_plain", run_id, "nothing_to_see"))
    expect(page.locator(".flux-notice")).to_contain_text("This task is a EmptyOperator")


# Themes and sizes


def test_the_tab_follows_the_dark_theme(ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot) -> None:
    page = open_page(rows_tab(ui), theme="dark")
    expect(page.locator(".flux-headline")).to_contain_text(f"{ROWS} of {ROWS} done")
    expect(page.locator(".flux-image.flux-is-shown").first).to_be_visible()

    screenshot(page, "tab-dark")
    ink = page.locator("article.flux-tile").first.evaluate("tile => getComputedStyle(tile).color")
    ground = page.locator("article.flux-tile").first.evaluate("tile => getComputedStyle(tile).backgroundColor")
    assert _lightness(page, ink) > 200
    assert _lightness(page, ground) < 80


def _lightness(page: Any, colour: str) -> float:
    """Return how light a CSS colour is, 0 to 255, as the browser draws it."""
    program = """colour => {
        const canvas = document.createElement("canvas").getContext("2d");
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [red, green, blue] = canvas.getImageData(0, 0, 1, 1).data;
        return (red + green + blue) / 3;
    }"""
    return float(page.evaluate(program, colour))


@pytest.mark.parametrize("address", ["tab", "page"])
def test_a_narrow_window_needs_no_sideways_scrolling(
    ui: UiDeployment, open_page: OpenPage, screenshot: Screenshot, address: str
) -> None:
    page = open_page(rows_tab(ui) if address == "tab" else f"{ui.airflow.url}/plugin/flux", width=600)
    expect(page.locator("article.flux-tile, .flux-chart").first).to_be_visible()
    time.sleep(2)
    screenshot(page, f"{address}-narrow")

    cut_off = page.locator(".flux-app").evaluate(
        "app => [...app.querySelectorAll('*')].filter(element => !element.closest('.flux-scroll')"
        " && element.getBoundingClientRect().right > innerWidth).map(element => element.className)"
    )
    assert cut_off == []
