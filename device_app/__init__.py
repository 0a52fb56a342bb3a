"""The device node: a camera and its section. `python -m device_app --help`"""
