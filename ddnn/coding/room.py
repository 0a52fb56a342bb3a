"""The entry of coded shards in the table of rooms; see ddnn.rooms."""

from __future__ import annotations

from ddnn.coding.combiner import CodingCombiner
from ddnn.coding.detail import INPUT, OUTPUT, read_detail
from ddnn.coding.plan import format_summary, summarize
from ddnn.core.blocks import join
from ddnn.core.plan import Plan
from ddnn.core.section import is_close
from ddnn.errors import ConfigError, NotDecodableError
from ddnn.machines.room import Golden, Room


def check_golden(plan: Plan, golden: Golden) -> None:
    """Raise ConfigError where the code does not decode the shards' golden outputs to the layer's.

    Head, shards and tail would then not compute the undivided section.
    """
    detail = read_detail(plan)
    code = detail.make_code()
    try:
        shards = [golden[f"{piece}/out/{OUTPUT}"] for piece in range(code.n)]
        if golden[f"head/out/{INPUT}"].shape[1:] != plan.inputs[INPUT].shape:
            raise NotDecodableError("the shapes of its arrays differ from the plan's")
        for sample, layer_output in enumerate(golden[f"tail/in/{OUTPUT}"]):
            results = {piece: shard[sample] for piece, shard in enumerate(shards)}
            decoded = join(code.decode(results), detail.units)
            if not is_close(decoded, layer_output):
                raise NotDecodableError("the decoded output differs from the layer's")
    except (NotDecodableError, KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"plan {plan.id}: its code does not fit its shards ({error}); "
            "plan again with `ddnn plan`"
        ) from None


ROOM = Room(CodingCombiner, check_golden, summarize, format_summary)
