"""Which Debian packages the sample's repositories are made of; apt adds what they depend on.

`BASEOS` is what the bootc and CoreOS layers may install, `NODE` what only the node layer may,
`EXTENSIONS` what is in none of them and may be installed on a node.
netavark is named so that podman's container-network-stack is it and not the CNI plugins, and crun
so that no container runtime is runc: both belong to the node layer here.
"""

from __future__ import annotations

BASEOS_REPOSITORY = "sample-12-baseos"
NODE_REPOSITORY = "sample-12-node-4.19"
EXTENSIONS_REPOSITORY = "sample-12-extensions"

BASEOS = (
    # what everything stands on
    *("base-files base-passwd bash coreutils dash debianutils diffutils findutils grep".split()),
    *("gzip hostname init-system-helpers libc-bin login mawk ncurses-base passwd sed".split()),
    *("sysvinit-utils tar util-linux mount".split()),
    # kernel, boot, deployments
    *("linux-image-cloud-amd64 kmod udev systemd systemd-sysv systemd-resolved dbus".split()),
    *("ostree ostree-boot dracut dracut-network ignition cpio curl zstd xz-utils".split()),
    *("bubblewrap libpam-systemd libpam-modules libpam-runtime".split()),
    # packages, containers, network
    *("rpm podman skopeo crun conmon netavark".split()),
    *("network-manager iproute2 iputils-ping iptables nftables".split()),
    *("openssh-server openssh-client".split()),
    # for administrators and scripts
    *("ca-certificates e2fsprogs procps tzdata python3 jq less sudo vim-tiny".split()),
)

NODE = (
    "containerd",
    "runc",
    "containernetworking-plugins",
    "kubernetes-client",
    "openvswitch-switch",
)

EXTENSIONS = ("usbguard", "sysstat", "strace", "linux-libc-dev")
