"""python -m edge_app"""

from ddnn.adapters.command import app_command
from edge_app.app import EdgeSettings, check, run

DESCRIPTION = """Run an edge: gather the devices' scores, fuse their features, answer.

\b
Examples:
  python -m edge_app --node edge --bundle ./bundle --broker-host 127.0.0.1
  python -m edge_app --site-file edge.site --bundle ./bundle
"""

if __name__ == "__main__":
    app_command(EdgeSettings, run, name="edge_app", description=DESCRIPTION, check=check)()
