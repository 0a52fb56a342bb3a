"""A camera of the network: an RTSP server that encodes a live H.264 stream, run by Debian's Python.

    /usr/bin/python3 rtsp_server.py PORT USER PASSWORD      without arguments: says if it could

640x480 at 25 frames a second, all of one colour: red, then blue, by turns of TURN_S, by the wall
clock. Needs python3-gi, gir1.2-gst-rtsp-server-1.0 and gstreamer1.0-plugins-{base,good,ugly}.
"""

import sys
import time

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

RED, BLUE = 0xFFFF0000, 0xFF0000FF
TURN_S = 2
PIPELINE = (
    "( videotestsrc name=scene is-live=true pattern=solid-color "
    "! video/x-raw,width=640,height=480,framerate=25/1,format=I420 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=25 "
    "! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


def colour() -> int:
    return RED if int(time.time() / TURN_S) % 2 == 0 else BLUE


def paint(_factory: object, media: GstRtspServer.RTSPMedia) -> None:
    """Before each frame leaves the source, the colour of the moment is set."""
    scene = media.get_element().get_by_name("scene")

    def change_colour(_pad: object, _info: object) -> Gst.PadProbeReturn:
        scene.set_property("foreground-color", colour())
        return Gst.PadProbeReturn.OK

    scene.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, change_colour)


def main(port: str, user: str, password: str) -> None:
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE)
    factory.set_shared(True)
    factory.connect("media-configure", paint)
    role = GstRtspServer.RTSPToken()
    role.set_string("media.factory.role", "viewer")
    auth = GstRtspServer.RTSPAuth()
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), role)
    server.set_auth(auth)
    factory.add_role_from_structure(
        Gst.Structure.new_from_string(
            "viewer,media.factory.access=true,media.factory.construct=true"
        )
    )
    server.get_mount_points().add_factory("/cam", factory)
    server.attach(None)
    print("listening", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    Gst.init(None)
    if len(sys.argv) > 1:
        main(*sys.argv[1:])
    sys.exit(not all(map(Gst.ElementFactory.find, ("videotestsrc", "x264enc", "rtph264pay"))))
