"""Pipeline training: one network trained over unequal devices, which may be lost."""

from ddnn.pipeline.capacity import is_worth_moving, measure_capacity
from ddnn.pipeline.order import Devices, Layout, choose_layout
from ddnn.pipeline.partition import Memory, bottleneck_s, partition
from ddnn.pipeline.periods import choose_period, choose_timeout_s
from ddnn.pipeline.schedule import schedule
from ddnn.pipeline.sources import restore_consistent, restore_fresh
from ddnn.pipeline.stage import LastResult, LayerProfile, LayerState, Stage, StageFactory, States

__all__ = [
    "Devices",
    "LastResult",
    "LayerProfile",
    "LayerState",
    "Layout",
    "Memory",
    "Stage",
    "StageFactory",
    "States",
    "bottleneck_s",
    "choose_layout",
    "choose_period",
    "choose_timeout_s",
    "is_worth_moving",
    "measure_capacity",
    "partition",
    "restore_consistent",
    "restore_fresh",
    "schedule",
]
