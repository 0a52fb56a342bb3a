"""What outputs lack that are made from others."""

from __future__ import annotations

from ddnn.protocol.messages import MAX_MISSING, Shortfall, add_shortfall

A = Shortfall(["worker1", "worker3"], {"edge": 0.5})
B = Shortfall(["worker2", "worker3"], {"edge": 0.75})


def test_one_alone_is_what_was_measured() -> None:
    assert add_shortfall(A, None) == add_shortfall(None, A) == A
    assert add_shortfall(None, None) is None


def test_two_name_all_and_were_not_measured_together() -> None:
    assert add_shortfall(A, B) == Shortfall(["worker1", "worker2", "worker3"])
    assert add_shortfall(A, B) == add_shortfall(B, A)


def test_as_many_are_named_as_a_message_holds() -> None:
    many = [Shortfall([f"{who}{i:02}" for i in range(MAX_MISSING)]) for who in "ab"]
    assert add_shortfall(*many).missing == many[0].missing
