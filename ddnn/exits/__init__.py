"""DDNN: early exits and sensor fusion over devices, edge and cloud (ICDCS 2017)."""
