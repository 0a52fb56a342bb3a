"""Deletes what was stored too long ago; see Store.prune."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select

from cloud_app.store.schema import ANSWERS, EVENTS


def delete_expired(link: Connection, until_s: float, at_most: int) -> int:
    """Delete answers and events from before `until_s`, of the oldest `at_most` of each.

    Returns how many.
    """
    oldest = (
        select(ANSWERS.c.id, ANSWERS.c.stored_at_s).order_by(ANSWERS.c.id).limit(at_most).subquery()
    )
    expired = select(oldest.c.id).where(oldest.c.stored_at_s < until_s)
    answers = link.execute(delete(ANSWERS).where(ANSWERS.c.id.in_(expired)))
    later = EVENTS.alias()
    of_node = (later.c.site == EVENTS.c.site, later.c.node == EVENTS.c.node)
    # A scalar and not EXISTS, for which a planner may read all events.
    newest = select(func.max(later.c.id)).where(*of_node).scalar_subquery()
    past = (
        select(EVENTS.c.id)
        .where(EVENTS.c.at_s < until_s, EVENTS.c.id < newest)
        .order_by(EVENTS.c.at_s)
        .limit(at_most)
    )
    events = link.execute(delete(EVENTS).where(EVENTS.c.id.in_(past)))
    return answers.rowcount + events.rowcount
