"""Numbers without opinions: ids, bits, sections, clock offsets. numpy only."""
