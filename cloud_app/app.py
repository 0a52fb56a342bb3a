"""Connects the cloud's machine with its section, the store, the page and a broker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import click
import msgspec

from cloud_app.demo import LocalDemoSite
from cloud_app.recorder import Recorder
from cloud_app.registry import Registry
from cloud_app.site import MqttSite
from cloud_app.steady_clock import SteadyClock
from cloud_app.store import Store
from cloud_app.views import BundleView
from cloud_app.web import SignIn, create_app, serve
from cloud_app.web.sign_in import check_secrets
from ddnn.adapters.joined import check_site_file, open_guard
from ddnn.adapters.litert import LiteRtSection
from ddnn.adapters.mqtt import MqttTransport
from ddnn.core.ids import is_id
from ddnn.errors import ConfigError, LinkError
from ddnn.exits.cloud_node import CloudNode, StoreNode
from ddnn.exits.hierarchy import CLOUD
from ddnn.exits.manifest import Manifest
from ddnn.exits.trial import try_sample
from ddnn.machines.composite import CompositeMachine
from ddnn.machines.observer import Observer
from ddnn.machines.rollout import RolloutNode
from ddnn.machines.versioned import Version, VersionedMachine
from ddnn.protocol.access import Role
from ddnn.protocol.machine import Connected, Event, Machine
from ddnn.protocol.messages import RoleName
from ddnn.protocol.topics import EVERYWHERE
from ddnn.runtime.bundle import Bundle, load_bundle
from ddnn.runtime.disk import measure_free_space
from ddnn.runtime.host import Resources
from ddnn.runtime.identity import Identity
from ddnn.runtime.library import BundleLibrary, find_bundle_path
from ddnn.runtime.loop import Loop
from ddnn.runtime.service import find_ddnn_version, run_until_signal
from ddnn.runtime.settings import NodeSettings, read_secret
from ddnn.runtime.state_lock import StateLock, restrict_files

log = logging.getLogger(__name__)

DAY_S = 86_400.0
SQLITE = "sqlite:///"
ROOM_BYTES = 1 << 20  # with more, the disk is not the cause where SQLite's file cannot be opened
ROOM_EVERY_S = 5.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class CloudSettings(NodeSettings, frozen=True, kw_only=True):
    """Keys of cloud_app."""

    node: Annotated[str, msgspec.Meta(description="Id of this node.")] = CLOUD
    site: Annotated[str, msgspec.Meta(description="Id of the site; all: every site.")] = "home"
    serve: Annotated[
        Literal["all", "node", "page"],
        msgspec.Meta(
            description="node: section, recorder; page: page, recorder, no section; all: both."
        ),
    ] = "all"
    share: Annotated[
        str,
        msgspec.Meta(
            description="Group of cloud nodes that divide samples (with one edge) and answers."
        ),
    ] = ""
    database: Annotated[
        str, msgspec.Meta(description="SQLAlchemy URL; by default SQLite in --state.")
    ] = ""
    keep_days: Annotated[
        float, msgspec.Meta(description="How long answers and events are kept.", ge=0.01, le=1e5)
    ] = 30.0
    http_host: Annotated[str, msgspec.Meta(description="Where the page listens.")] = "127.0.0.1"
    http_port: Annotated[
        int, msgspec.Meta(description="Port of the page; 0: any free one.", ge=0, lt=65536)
    ] = 8080
    trusted_proxy: Annotated[
        str,
        msgspec.Meta(
            description="Address of a reverse proxy (TLS) whose X-Forwarded headers are trusted."
        ),
    ] = ""
    sign_in: Annotated[
        Literal["on", "off"],
        msgspec.Meta(description="Whether the page asks for a password; off on loopback only."),
    ] = "on"
    password_file: Annotated[
        str,
        msgspec.Meta(description="File with the page's password; by default a random one is made."),
    ] = ""
    api_token_file: Annotated[
        str,
        msgspec.Meta(description="File with the token of machines that read /metrics and the API."),
    ] = ""
    report: Annotated[
        str,
        msgspec.Meta(description="HTML file of `ddnn evaluate --report`, to which the page links."),
    ] = ""
    demo_frames: Annotated[
        str, msgspec.Meta(description="Pictures of a demo's cameras, shown with the samples.")
    ] = ""
    demo_control: Annotated[
        str, msgspec.Meta(description="URL by which a demo lets the page kill and start nodes.")
    ] = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.share and not is_id(self.share):
            raise ConfigError(f"--share {self.share!r}: expected an id such as 'clouds'")
        if self.sign_in == "off" and self.http_host not in LOOPBACK:
            raise ConfigError(
                f"--sign-in off would open the page on {self.http_host} to everyone there; "
                "use --http-host 127.0.0.1, or leave the sign-in on"
            )
        if self.share and not self.database:
            raise ConfigError(
                "--share divides the answers among several processes, which must write into one "
                "--database"
            )
        if bool(self.demo_frames) != bool(self.demo_control):
            raise ConfigError("--demo-frames and --demo-control belong together")

    def _check_site(self) -> None:
        """Accept every site, also the word for all of them."""

    @property
    def needed_roles(self) -> tuple[Role, ...]:
        page: tuple[Role, ...] = () if self.serve == "node" else ("dashboard",)
        return page if self.serve == "page" else ("cloud", *page)

    @property
    def database_file(self) -> Path:
        """The database where none is named."""
        return Path(self.state) / f"{self.node}.db"

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.database_file}"

    def read_secrets(self) -> tuple[str, str]:
        """The page's password and the API's token, empty where none is given. ConfigError."""
        files = (self.password_file, self.api_token_file)
        password, token = (read_secret(file) if file else "" for file in files)
        return password, token


def load_cloud_bundle(settings: CloudSettings) -> Bundle:
    """Load the bundle, with the cloud's section where this process runs it."""
    path = find_bundle_path(Path(settings.state), settings.node, Path(settings.bundle))
    return load_bundle(path, LiteRtSection, list_sections(settings))


def list_sections(settings: CloudSettings) -> list[str]:
    """The sections that this process runs."""
    return [] if settings.serve == "page" else [CLOUD]


def check(settings: CloudSettings) -> None:
    """Raise a DdnnError where `run` could not start."""
    bundle = load_cloud_bundle(settings)
    try_sample(bundle.manifest, bundle.sections)
    settings.check_files()
    if text := check_site_file(settings):
        click.echo(text)
    check_secrets(*settings.read_secrets())
    if settings.report and not Path(settings.report).is_file():
        raise ConfigError(f"--report {settings.report}: no such file")
    if settings.database or settings.database_file.exists():
        Store(settings.database_url).close()


def open_store(settings: CloudSettings, sleep: Callable[[float], None] = time.sleep) -> Store:
    """Open the database; where it is a file on a full disk, wait until there is room.

    LinkError where another database cannot be reached.
    """
    while True:
        try:
            Path(settings.state).mkdir(parents=True, exist_ok=True)
            return Store(settings.database_url)
        except (LinkError, OSError) as error:
            free_bytes = measure_free_space(Path(settings.state)).free_bytes
            if settings.database or free_bytes >= ROOM_BYTES:
                raise
            log.error("%s: %d bytes are free; waiting for room", error, free_bytes)
        sleep(ROOM_EVERY_S)


def run(settings: CloudSettings) -> None:
    """Run the cloud until SIGINT or SIGTERM."""
    bundle = load_cloud_bundle(settings)
    lock = StateLock(Path(settings.state), settings.node)
    if settings.database.startswith(SQLITE):
        file = Path(settings.database.removeprefix(SQLITE))
        restrict_files(file.parent, file.stem)
    with ExitStack() as stack:
        store = open_store(settings)
        stack.callback(store.close)
        keep_s = settings.keep_days * DAY_S
        clock = SteadyClock(store.find_newest_s(), report=lambda text: report_step(text))

        def may_prune() -> bool:
            if clock.is_trusted() and clock.behind_from_s is not None:
                store.protect(clock.behind_from_s, clock.read() + keep_s)
                clock.behind_from_s = None
            return clock.is_trusted()

        store.clock = clock.read
        recorder = Recorder(store, keep_s, may_prune)
        stack.callback(recorder.close)
        hierarchy = bundle.manifest.hierarchy
        wanted = [*hierarchy.devices, *(group.id for group in hierarchy.edges), CLOUD]
        registry = Registry(recorder.record_event, clock.read, [*wanted, settings.node])

        def report_step(text: str) -> None:
            log.warning("%s", text)
            recorder.record_event(time.time(), settings.site, settings.node, text)

        identity = Identity(
            settings.site,
            settings.node,
            _choose_role(settings),
            bundle.id,
            find_ddnn_version(),
            lock.instance,
        )
        transport = MqttTransport.of(settings, instance=lock.instance)

        def show_bundle(bundle: str, manifest: Manifest) -> None:
            live.use_bundle(bundle, manifest)

        library = BundleLibrary.of(
            settings,
            bundle,
            LiteRtSection,
            lambda manifest: list_sections(settings),
            changed=show_bundle,
        )

        def observe(event: Event) -> None:
            registry.observe(event)
            if isinstance(event, Connected) and settings.serve != "node":
                live.resend_thresholds()

        loop = Loop(
            identity,
            CompositeMachine(
                Observer(observe, recorder.read_counts), _make_machine(settings, bundle, library)
            ),
            transport,
            Resources(bundle.sections, library.load, save=recorder.save),
            guard=open_guard(settings),
            stats_every_s=settings.stats_every_s,
        )
        live = MqttSite(
            loop,
            transport.broker,
            registry,
            recorder,
            store,
            BundleView.of(bundle.id, bundle.manifest),
            _open_demo(settings),
        )
        if settings.serve != "node":
            live.drift.start()
            stack.callback(live.drift.close)
            sign_in = _open_sign_in(settings, store)
            report = Path(settings.report) if settings.report else None
            app = create_app(store, live, sign_in=sign_in, report=report)
            server = serve(
                app, settings.http_host, settings.http_port, trusted_proxy=settings.trusted_proxy
            )
            stack.callback(server.close)
            log.info("page on http://%s:%d/", settings.http_host, server.port)
        run_until_signal(loop)


def _choose_role(settings: CloudSettings) -> RoleName:
    return "store" if settings.serve == "page" else "cloud"


def _make_machine(settings: CloudSettings, bundle: Bundle, library: BundleLibrary) -> Machine:
    served = "+" if settings.site == EVERYWHERE else settings.site
    if settings.serve == "page":
        store = StoreNode(served, settings.share)
        if settings.site == EVERYWHERE:
            return store
        page = Version(bundle.id, CompositeMachine(), ())
        rollout = RolloutNode(
            settings.site,
            settings.node,
            VersionedMachine(page, hold_s=0.0),
            lambda bundle, manifest: page._replace(bundle=bundle),
            library,
        )
        return CompositeMachine(store, rollout)
    cloud = CloudNode(
        served, settings.node, bundle.id, bundle.manifest, settings.timing, settings.share
    )
    if settings.site == EVERYWHERE:  # its sites change at different times
        return cloud
    rollout = RolloutNode(settings.site, settings.node, cloud.versions, cloud.make_version, library)
    return CompositeMachine(cloud, rollout)


def _open_demo(settings: CloudSettings) -> LocalDemoSite | None:
    if not settings.demo_frames:
        return None
    return LocalDemoSite(Path(settings.demo_frames), settings.demo_control)


def _open_sign_in(settings: CloudSettings, store: Store) -> SignIn | None:
    if settings.sign_in == "off":
        return None
    password, token = settings.read_secrets()
    sign_in, new_password = SignIn.open(store, Path(settings.state), password=password, token=token)
    if new_password:
        print(f"the page's password is {new_password} (shown this once)", flush=True)
    return sign_in
