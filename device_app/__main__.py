"""python -m device_app"""

from ddnn.adapters.command import app_command
from device_app.app import DeviceSettings, run

DESCRIPTION = """Run a device: a camera and its section of the network.

\b
Examples:
  python -m device_app --node cam1 --bundle ./bundle --source dataset:scenes
  python -m device_app --node cam2 --bundle ./bundle --source video:street.mp4 \\
      --broker-host 192.168.1.10
"""

if __name__ == "__main__":
    app_command(DeviceSettings, run, name="device_app", description=DESCRIPTION)()
