#!/bin/sh
# Runs device_app for arm64 on another processor, emulated by QEMU, in its own Debian.
set -eu

usage() {
    cat <<'END'
Usage: device_app/arm64.sh ROOT [--share=DIR]... [COMMAND [ARGUMENT]...]

Runs COMMAND in ROOT, an arm64 Debian in which device_app/install.sh has been run: Python is
/opt/ddnn/bin/python there. ROOT is made if it is not there, and device_app installed again if the
sources have changed. Without COMMAND that is all.

  --share=DIR   DIR of this machine is visible in ROOT under the same path

It needs Debian's qemu-user-static and debootstrap, and no root: it runs in a user namespace. COMMAND
has the process id of this script, and the mounts end with it. The network is this machine's.
Nothing outside ROOT is written; `rm -rf ROOT` removes all.

  DDNN_SUITE    Debian release [bookworm]
  DDNN_MIRROR   mirror to install from [the one this machine's apt uses for that release]

Example:
  device_app/arm64.sh ~/.cache/ddnn/arm64 --share="$PWD/bundle" /opt/ddnn/bin/python \
      -m device_app --node cam1 --bundle "$PWD/bundle" --source dataset:scenes --state /tmp
END
}

fail() { echo "arm64.sh: $1" >&2; exit 1; }

case ${1:-} in
    "") usage >&2; exit 2 ;;
    --help | -h) usage; exit 0 ;;
esac
self=$(readlink -f "$0")
if [ "${DDNN_INSIDE:-}" != "$$" ]; then  # start again in namespaces, as the same process
    for tool in unshare debootstrap qemu-aarch64-static; do
        command -v "$tool" >/dev/null || fail "no $tool (apt install debootstrap qemu-user-static)"
    done
    DDNN_INSIDE=$$ exec unshare --user --map-root-user --mount "$self" "$@"
fi
unset DDNN_INSIDE

repository=$(dirname "$(dirname "$self")")
suite=${DDNN_SUITE:-bookworm}
mkdir -p "$1"
root=$(readlink -f "$1")
shift

# Debian's packages, unpacked and not configured: enough for Python. The system has a NumPy, as a
# Raspberry Pi has one by picamera2, which is not in Debian.
debian() {
    # shellcheck disable=SC2016
    known=$(apt-get indextargets --format '$(REPO_URI)' "Codename: $suite" | head -n 1)
    mirror=${DDNN_MIRROR:-$known}
    [ -n "$mirror" ] || fail "apt knows no mirror of $suite: set DDNN_MIRROR"
    debootstrap --download-only --arch=arm64 --variant=minbase \
        --include=python3,python3-venv,python3-numpy "$suite" "$root" "$mirror"
    for directory in bin lib sbin; do
        mkdir -p "$root/usr/$directory"
        ln -sfn "usr/$directory" "$root/$directory"
    done
    for package in "$root"/var/cache/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" |
            tar -x --no-same-owner --keep-directory-symlink -C "$root"
    done
    cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
    cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
    mkdir -p "$root/etc/ssl/certs"
    touch "$root/etc/resolv.conf"
    touch "$root/.unpacked"
}
[ -e "$root/.unpacked" ] || debian >&2

unset PYTHONPATH PYTHONHOME
export HOME=/root PATH=/usr/bin:/usr/sbin TMPDIR=/tmp LC_ALL=C.UTF-8

# The parts of this machine that are visible in ROOT. The kernel must start arm64 programs by QEMU:
# where systemd runs, Debian's package has registered that; from Linux 6.7 on a namespace can register
# it for itself.
for directory in dev proc sys; do
    mount --rbind "/$directory" "$root/$directory"
done
mount --bind "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
authorities=/etc/ssl/certs/ca-certificates.crt
touch "$root$authorities"
[ ! -e "$authorities" ] || mount --bind "$authorities" "$root$authorities"
if ! chroot "$root" /usr/bin/true 2>/dev/null; then
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc ||
        fail "this kernel starts no arm64 programs; as root: systemctl restart systemd-binfmt"
    cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
    chroot "$root" /usr/bin/true || fail "QEMU does not run in $root"
fi

# A Raspberry Pi 4, in /proc/cpuinfo, too: QEMU 7.2 leaves the real processor's file there, and LiteRT
# (2.3), which reads an ARM processor's features from it, crashes.
export QEMU_CPU="${QEMU_CPU:-cortex-a72}"
for core in $(seq 0 $(($(nproc --all) - 1))); do
    printf '%s: %s\n' processor "$core" Features "fp asimd evtstrm crc32 cpuid" \
        "CPU implementer" 0x41 "CPU architecture" 8 "CPU variant" 0x0 "CPU part" 0xd08 \
        "CPU revision" 3
    echo
done >"$root/.cpuinfo"
mount --bind "$root/.cpuinfo" "$root/proc/cpuinfo"

changed() {
    [ ! -e "$root/.installed" ] || find "$repository/pyproject.toml" "$repository/ddnn" \
        "$repository/device_app" -newer "$root/.installed" -type f ! -name '*.pyc' | grep -q .
}
if changed; then
    mkdir -p "$root/mnt/ddnn"
    mount --bind "$repository" "$root/mnt/ddnn"
    touch "$root/.installing"
    PIP_CERT=$authorities chroot "$root" /mnt/ddnn/device_app/install.sh >&2
    umount "$root/mnt/ddnn"
    mv "$root/.installing" "$root/.installed"
fi

while :; do
    case ${1:-} in --share=*) ;; *) break ;; esac
    shared=$(readlink -f "${1#--share=}")
    [ -d "$shared" ] || fail "$1: no such directory"
    mkdir -p "$root$shared"
    mount --rbind "$shared" "$root$shared"
    shift
done
[ $# -gt 0 ] || exit 0
exec chroot "$root" "$@"
