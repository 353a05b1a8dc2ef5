from __future__ import annotations

import base64
import builtins
import io

import pytest
from PIL import Image

from airflow_provider_flux.emulator.drawing import PillowMissing, Sketch, draw, picture_size, require_pillow, small
from airflow_provider_flux.emulator.served_models import MODELS

KINDS = {"webp": "WEBP", "jpg": "JPEG", "png": "PNG"}


def opened(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return picture


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_writes_every_format_it_offers(client, name):
    model = MODELS[name]
    for asked in [None, *model.schema["properties"]["output_format"]["enum"]]:
        given = {} if asked is None else {"output_format": asked}
        output = client.finished(model.name, **given)["output"]
        address = output if isinstance(output, str) else output[0]
        answer = client.bare(address)
        ending = address.rpartition(".")[2]
        assert ending == (asked or model.default_format)
        assert opened(answer.content).format == KINDS[ending]
        assert answer.headers["Content-Type"] == f"image/{'jpeg' if ending == 'jpg' else ending}"


@pytest.mark.parametrize(
    ("model", "given", "size"),
    [
        ("flux-schnell", {}, (1024, 1024)),
        ("flux-dev", {"aspect_ratio": "16:9"}, (1344, 768)),
        ("flux-dev", {"aspect_ratio": "16:9", "megapixels": "0.25"}, (672, 384)),
        ("flux-pro", {"aspect_ratio": "custom", "width": 500, "height": 1440}, (512, 1440)),
        ("flux-pro", {"aspect_ratio": "3:2", "width": 500, "height": 500}, (1216, 832)),
        ("flux-2-pro", {"resolution": "4 MP"}, (2048, 2048)),
        ("flux-2-pro", {"resolution": "0.5 MP"}, (720, 720)),
        ("flux-2-flex", {"aspect_ratio": "custom", "width": 2048, "height": 300}, (2048, 304)),
        ("flux-1.1-pro-ultra", {}, (2048, 2048)),
        ("flux-kontext-pro", {}, (1024, 1024)),
        ("flux-2-dev", {"aspect_ratio": "custom"}, (1024, 1024)),
        ("flux-2-dev", {"aspect_ratio": "nonsense", "resolution": "match_input_image"}, (1024, 1024)),
    ],
)
def test_sizes_follow_the_input(model, given, size):
    assert picture_size(model, given) == size


def test_computed_ratios_keep_the_asked_proportions():
    width, height = picture_size("flux-kontext-max", {"aspect_ratio": "2:1"})
    assert width / height == pytest.approx(2, rel=0.05)
    width, height = picture_size("flux-2-pro", {"aspect_ratio": "16:9", "resolution": "4 MP"})
    assert max(width, height) <= 2048
    assert small((1344, 768)) == (96, 55)


def test_match_input_image_takes_the_proportions_of_an_inline_picture(run):
    client = run(small_pictures=False)
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20)).save(buffer, "PNG")
    inline = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    width, height = opened(client.bare(client.finished("flux-kontext-pro", input_image=inline)["output"]).content).size
    assert width / height == pytest.approx(2, rel=0.05)
    broken = client.finished("flux-kontext-pro", input_image="data:image/png;base64,AAAA")
    assert (broken["status"], broken["error"]) == ("failed", "cannot identify image file")


def test_the_drawn_picture_has_the_full_size_and_the_prompt_changes_it(run):
    client = run(small_pictures=False)
    one = client.bare(client.finished("flux-dev", aspect_ratio="9:16", seed=5)["output"][0]).content
    assert opened(one).size == (768, 1344)
    other = client.bare(client.finished("flux-dev", aspect_ratio="9:16", seed=5, prompt="a car")["output"][0]).content
    assert one != other


def test_the_same_seed_and_prompt_draw_the_same_picture():
    sketch = Sketch("flux-dev", "a boat", {}, 7, "png")
    assert draw(sketch) == draw(sketch)
    assert draw(sketch) != draw(Sketch("flux-dev", "a boat", {}, 8, "png"))


@pytest.mark.parametrize("prompt", ["", "x" * 5000, "word " * 2000, "日本語 العربية 🚀", "\x00\n\t"])
def test_any_prompt_can_be_drawn(prompt):
    assert opened(draw(Sketch("flux-dev", prompt, {"megapixels": "0.25"}, 1, "webp"))).size == (512, 512)


def test_the_bytes_can_be_of_another_format_than_asked(client):
    client.emulator.add_outcome("other_format")
    address = client.finished("flux-1.1-pro", output_format="webp")["output"]
    assert address.endswith(".jpg")
    assert opened(client.bare(address).content).format == "JPEG"


def test_a_moderated_picture_can_be_black(client):
    client.emulator.add_outcome("black_image")
    picture = opened(client.bare(client.finished(output_format="png")["output"][0]).content)
    assert picture.getextrema() == ((0, 0), (0, 0), (0, 0))


def test_a_file_is_drawn_once_for_many_downloads(client):
    address = client.finished()["output"][0]
    assert client.bare(address).content == client.bare(address).content
    assert client.emulator.counters.files == 2


def test_without_pillow_the_message_names_the_extra(client, monkeypatch):
    real = builtins.__import__

    def without_pillow(name, *args, **kwargs):
        if name.partition(".")[0] == "PIL":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    address = client.finished()["output"][0]
    monkeypatch.setattr(builtins, "__import__", without_pillow)
    with pytest.raises(PillowMissing, match=r"airflow-provider-flux\[emulator\]"):
        require_pillow()
    answer = client.bare(address)
    assert answer.status_code == 500
    assert "pip install 'airflow-provider-flux[emulator]'" in answer.text
