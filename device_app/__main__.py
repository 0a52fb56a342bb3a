"""python -m device_app"""

import sys

from device_app.platform import describe_problem

DESCRIPTION = """Run a device: a camera and its section of the network.

\b
Examples:
  python -m device_app --node cam1 --bundle ./bundle --source dataset:scenes5
  python -m device_app --site-file cam2.site --source picamera://0
  python -m device_app --node cam3 --bundle ./bundle --source-file camera.uri \\
      --roi 0.25,0,0.5,1 --motion 0.02

--check also opens the source and takes one frame.
"""

if __name__ == "__main__":
    problem = describe_problem()  # before the imports, which fail with an unclear message
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)  # as ddnn.errors.ConfigError

    from ddnn.adapters.command import app_command
    from device_app.app import check, run
    from device_app.settings import DeviceSettings

    app_command(DeviceSettings, run, name="device_app", description=DESCRIPTION, check=check)()
