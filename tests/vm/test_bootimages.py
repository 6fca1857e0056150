"""Live images boot, and Ignition makes of them what its config says; the other boots, and all that
comes after them, are in test_machines."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bootlab import BootLab, check_live, check_set_up
from strata.bootimage.ignition import Config, File
from strata.machine.guest import Key
from strata.machine.qemu import BIOS, HOST, QemuMachine

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]

BOOT_S = 420.0
UNIT = """\
[Unit]
Description=Leave a trace
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cat /proc/sys/kernel/random/boot_id >>/var/lib/traces'
[Install]
WantedBy=multi-user.target
"""


def config(key: Key, **more: bytes) -> bytes:
    """A user with a key, a file, a unit; `merge` brings another config."""
    return Config(
        files=[File("/etc/strata-test", b"it is here\n", 0o640)],
        users=[("root", [key.public]), ("core", [key.public])],
        groups=["sudo"],
        units=[("trace.service", UNIT)],
        merge=list(more.values()),
    ).to_bytes()


def check_first_boot(machine: QemuMachine) -> None:
    """What every boot image must be after its first boot."""
    machine.wait_for_ssh(BOOT_S)
    machine.sh("systemctl is-system-running --wait", check=False, timeout_s=BOOT_S)
    assert machine.sh("systemctl --failed --no-legend --plain").stdout == ""
    check_set_up(machine)
    assert machine.sh("command -v kubectl kubelet containerd", check=False).stdout == ""


def test_a_live_iso_boots_under_bios_with_the_config_that_is_in_it(
    boot_lab: BootLab, tmp_path: Path
) -> None:
    ignition = config(boot_lab.key)
    with boot_lab.guest("live-iso", tmp_path, firmware=BIOS, ignition=ignition) as machine:
        check_first_boot(machine)
        check_live(machine)


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """A folder by HTTP on the loopback; gives the port."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_machine_boots_over_the_network_and_fetches_the_rest_of_its_config(
    boot_lab: BootLab, tmp_path: Path
) -> None:
    """PXE: kernel, initramfs and rootfs; and Ignition has the network when it needs it."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served/rest.ign").write_bytes(config(boot_lab.key))
    with served(tmp_path / "served") as port:
        pointer = base64.b64encode(b"elsewhere\n").decode()
        first = (
            '{"ignition":{"version":"3.3.0","config":{"merge":[{"source":'
            f'"http://{HOST}:{port}/rest.ign"}}]}}}},"storage":{{"files":[{{"path":"/etc/pointer",'
            f'"contents":{{"source":"data:;base64,{pointer}"}}}}]}}}}'
        )
        with boot_lab.guest("pxe", tmp_path, ignition=first.encode()) as machine:
            check_first_boot(machine)
            check_live(machine)
            assert machine.sh("cat /etc/pointer").stdout == "elsewhere\n"
