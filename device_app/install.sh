#!/bin/sh
# Installs device_app as a service on Raspberry Pi OS 64-bit, or any Debian from bookworm on.
# Run as root from anywhere; run again to upgrade. /etc/ddnn is never overwritten.
# --lend: also installs what a device needs to lend its computing power.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
prefix=/opt/ddnn
extras=camera,site

case "${1:-}" in
    --lend) extras=camera,coding,site ;;
    ?*) echo "usage: install.sh [--lend]" >&2; exit 2 ;;
esac

fail() { echo "install.sh: $1" >&2; exit 1; }

[ "$(getconf LONG_BIT)" -eq 64 ] ||
    fail "this system is 32-bit, and LiteRT has no build for it: install the 64-bit image"
[ "$(id -u)" -eq 0 ] || fail "run it as root: sudo $0"

# Python's venv module; and Raspberry Pi OS's camera library, where the system offers it
packages=""
python3 -c "import ensurepip" 2>/dev/null || packages="python3-venv"
if ! python3 -c "import picamera2" 2>/dev/null && apt-cache show python3-picamera2 >/dev/null 2>&1
then packages="$packages python3-picamera2"; fi
# shellcheck disable=SC2086
[ -z "$packages" ] || apt-get install -y --no-install-recommends $packages

python3 -m venv --system-site-packages "$prefix"  # picamera2 is not on PyPI
# From a copy: a build leaves files where it runs, and the next build would install those.
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
(cd "$here/.." && cp -r pyproject.toml README.md LICENSE ddnn device_app "$source")
# The system's packages, picamera2 too, were built for the system's numpy. Where that is 1.x, this
# installs numpy 1.x too, and the last OpenCV that works with it.
old="from importlib.metadata import version as v; raise SystemExit(v('numpy') >= '2')"
if python3 -c "$old" 2>/dev/null; then set -- "numpy<2" "opencv-python-headless<4.12"; else set --; fi
"$prefix/bin/python" -m pip install "${source}[$extras]" "$@"

install -d /etc/ddnn /etc/systemd/system
[ -e /etc/ddnn/device.toml ] || install -m 600 "$here/device.toml" /etc/ddnn/device.toml
install -m 644 "$here/ddnn-device.service" /etc/systemd/system/
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl try-restart ddnn-device
fi
echo "Now edit /etc/ddnn/device.toml, then: systemctl enable --now ddnn-device"
