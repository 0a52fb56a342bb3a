"""python -m cloud_app"""

from cloud_app.app import CloudSettings, check, run
from ddnn.adapters.command import app_command

DESCRIPTION = """Run the cloud: the deepest section, the database and the page.

\b
Examples:
  python -m cloud_app --bundle ./bundle --broker-host 127.0.0.1 --http-port 8080
  python -m cloud_app --site-file cloud.site --bundle ./bundle
"""

if __name__ == "__main__":
    app_command(CloudSettings, run, name="cloud_app", description=DESCRIPTION, check=check)()
