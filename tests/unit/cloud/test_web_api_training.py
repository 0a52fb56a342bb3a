"""The JSON of the API about trainings across devices."""

from __future__ import annotations

from flask.testing import FlaskClient

from cloud_app.views import TrainingView
from cloud_app.web import board
from ddnn.protocol.train_messages import TrainPlace
from tests.site_builder import FakeSite, make_training
from tests.unit.cloud.web_client import get


def test_the_trainings_of_a_site_are_listed(live: FakeSite, client: FlaskClient) -> None:
    assert get(client, "/api/v1/training") == []
    live.trainings = [
        TrainingView("home", "central", 0.5, make_training()),
        TrainingView("shop", "central", 2.0, make_training(batches=7)),
    ]
    (home,) = get(client, "/api/v1/training?site=home")
    assert (home["site"], home["node"], home["age_s"]) == ("home", "central", 0.5)
    assert (home["state"]["batches"], home["state"]["end"]) == (120, 400)
    assert home["state"]["places"][1] == {
        "node": "trainer1",
        "start": 2,
        "stop": 7,
        "batch_s": 0.1,
        "idle_share": 0.5,
    }
    assert [of["site"] for of in get(client, "/api/v1/training")] == ["home", "shop"]
    assert get(client, "/api/v1/state?site=home")["trainings"] == [home]


def test_a_state_contains_a_bounded_number_of_places(live: FakeSite, client: FlaskClient) -> None:
    places = [TrainPlace(f"trainer{i}", i, i + 1) for i in range(1000)]
    live.trainings = [
        TrainingView("home", f"central{i}", 0.5, make_training(places=places)) for i in range(9)
    ]
    trainings = get(client, "/api/v1/state")["trainings"]
    assert len(trainings) == board.MAX_TRAININGS
    assert {len(of["state"]["places"]) for of in trainings} == {board.MAX_PLACES}
    assert len(get(client, "/api/v1/training")[8]["state"]["places"]) == 1000
