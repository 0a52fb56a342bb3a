"""Labels that a person gives, and the pictures and processes of a demo."""

from __future__ import annotations

import io

import numpy as np
import pytest
from flask.testing import FlaskClient
from PIL import Image

from cloud_app.store import Store
from cloud_app.web import demo_routes
from ddnn.errors import LinkError
from tests.site_builder import FakeDemo, FakeSite
from tests.unit.cloud.web_client import Make, get, post


def test_a_persons_label_counts_and_can_be_taken_back(
    store: Store, client: FlaskClient, make: Make
) -> None:
    store.save([("home", make(1, truth=None))])
    record = post(client, "/api/v1/labels", {"site": "home", "sample": 1, "label": 2}).json
    assert record["labelled"] == 2
    summary = get(client, "/api/v1/summary")["summary"]
    assert (summary["labelled"], summary["known"], summary["accuracy"]) == (1, 1, 0.0)
    post(client, "/api/v1/labels", {"site": "home", "sample": 1, "label": None})
    assert get(client, "/api/v1/summary")["summary"]["known"] == 0


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({"site": "home", "sample": 5, "label": 1}, 404, "no sample 5"),
        ({"site": "home", "sample": 1, "label": 3}, 400, "0 to 2"),
        ({"site": "home", "sample": 1, "label": -1}, 400, ">= 0"),
        ({"site": "home", "sample": 2**53 + 1, "label": 1}, 400, "<="),
        ({"site": "home", "sample": 1}, 400, "label"),
        ({"site": "home", "sample": 1, "label": 1, "by": "root"}, 400, "unknown field"),
        ({"site": "HOME", "sample": 1, "label": 1}, 400, "regex"),
        ([], 400, "Expected `object`"),
        (5, 400, "Expected `object`"),
    ],
)
def test_invalid_labels_are_refused(
    store: Store, client: FlaskClient, make: Make, body: object, code: int, says: str
) -> None:
    store.save([("home", make(1))])
    token = get(client, "/api/v1/state")["csrf"]
    response = client.post("/api/v1/labels", json=body, headers={"X-CSRF-Token": token})
    assert response.status_code == code
    assert says in response.json["error"]


def test_a_demo_shows_the_views_side_by_side(live: FakeSite, client: FlaskClient) -> None:
    live.demo = FakeDemo()
    response = client.get("/api/v1/demo/views/300.png")
    assert (response.mimetype, response.headers["Cache-Control"]) == ("image/png", "no-store")
    image = np.asarray(Image.open(io.BytesIO(response.data)))
    assert image.shape == (4, 3 * 5 + 2 * demo_routes.GAP_PIXELS, 4)
    assert (image[:, :5, :3] == 300 % 256).all()
    assert image[0, 5, 3] == 0  # the gap
    assert get(client, "/api/v1/state")["demo"] == {"nodes": {"edge": True, "cam1": True}}


def test_large_views_are_scaled_down() -> None:
    png = demo_routes.draw_side_by_side(np.zeros((6, 1080, 1920, 3), np.uint8))
    width, height = Image.open(io.BytesIO(png)).size
    assert width * height <= demo_routes.MAX_PIXELS
    assert width / height == pytest.approx(6 * 1920 / 1080, rel=0.01)


def test_in_a_demo_nodes_are_killed_and_started(live: FakeSite, client: FlaskClient) -> None:
    live.demo = FakeDemo()
    killed = post(client, "/api/v1/demo/nodes/cam1/kill")
    assert (killed.status_code, killed.json) == (200, {"nodes": {"edge": True, "cam1": False}})
    assert post(client, "/api/v1/demo/nodes/cam1/kill").status_code == 409  # it says why
    assert post(client, "/api/v1/demo/nodes/cam1/start").json["nodes"]["cam1"] is True
    assert post(client, "/api/v1/demo/nodes/cam9/kill").status_code == 404


def test_without_a_demo_pictures_and_kills_are_refused(client: FlaskClient) -> None:
    assert "no image leaves its device" in get(client, "/api/v1/demo/views/3.png", 404)["error"]
    assert post(client, "/api/v1/demo/nodes/cam1/kill").status_code == 404


def test_the_page_works_after_its_demo_has_ended(live: FakeSite, client: FlaskClient) -> None:
    class EndedDemo(FakeDemo):
        def read_processes(self) -> dict[str, bool]:
            raise LinkError("the demo does not answer; was it ended?")

    live.demo = EndedDemo()
    assert get(client, "/api/v1/state")["demo"] == {"nodes": {}}
    assert post(client, "/api/v1/demo/nodes/cam1/kill").status_code == 503
