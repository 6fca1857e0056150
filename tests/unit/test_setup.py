"""`make setup` brings the registry's program, and starts no registry on the developer's host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

SCRIPTS = Path(__file__).parents[2] / "scripts"
UNIT, POLICY = "etc/systemd/system/docker-registry.service", "usr/sbin/policy-rc.d"
# What the package's own scripts do on an install, as far as it matters here: a unit that is not
# masked is enabled and started, and so is an init script that no policy forbids.
_APT_GET = """\
#!/bin/bash
echo "apt-get $*" >>"$ROOT/log"
[ "$1" = install ] || exit 0
if [[ " $* " == *" docker-registry "* ]]; then
    unit=$ROOT/etc/systemd/system/docker-registry.service policy=$ROOT/usr/sbin/policy-rc.d
    [ "$(readlink "$unit")" = /dev/null ] || touch "$ROOT/unit-started"
    "$policy" docker-registry start || [ $? = 101 ] || touch "$ROOT/script-started"
    "$policy" dbus start || touch "$ROOT/dbus-forbidden"
fi
exit "${APT_STATUS:-0}"
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host: fake apt-get, dpkg-query and id, and the folder that stands for /."""
    commands = {
        "apt-get": _APT_GET,
        "dpkg-query": '#!/bin/bash\nprintf "ii  %s\\n" $INSTALLED\n',
        "id": "#!/bin/bash\necho 0\n",
    }
    (tmp_path / "bin").mkdir()
    for name, text in commands.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def install(
    root: Path, *, installed: str = "", status: int = 0
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPTS / "apt-install"],
        env={
            "PATH": f"{root}/bin:{os.environ['PATH']}",
            "ROOT": str(root),
            "INSTALLED": installed,
            "APT_STATUS": str(status),
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_fresh_host_gets_the_program_and_no_service(root: Path) -> None:
    done = install(root)
    assert done.returncode == 0, done.stderr
    assert "docker-registry" in (root / "log").read_text()
    for name in ("unit-started", "script-started", "dbus-forbidden", POLICY):
        assert not (root / name).exists(), name
    assert (root / UNIT).readlink() == Path("/dev/null")
    assert "setup: masked docker-registry.service" in done.stdout


def test_a_failed_install_leaves_no_policy_behind(root: Path) -> None:
    assert install(root, status=100).returncode == 100
    assert not (root / POLICY).exists()


def test_a_registry_that_was_there_before_is_not_touched(root: Path) -> None:
    done = install(root, installed="docker-registry dnf")
    assert done.returncode == 0, done.stderr
    assert not (root / UNIT).is_symlink()
    assert not (root / POLICY).exists()
    assert "masked" not in done.stdout


def test_what_the_host_says_of_services_stays(root: Path) -> None:
    for name in (UNIT, POLICY):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("#!/bin/sh\nexit 101\n")
        (root / name).chmod(0o755)
    assert install(root).returncode == 0
    assert (root / UNIT).read_text() == (root / POLICY).read_text() == "#!/bin/sh\nexit 101\n"
