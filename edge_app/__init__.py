"""The edge node: gathers, fuses, decides, answers. `python -m edge_app --help`"""
