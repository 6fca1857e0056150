#!/bin/bash
# Ignition on an OSTree root, and live images whose root is an OSTree sysroot in a squashfs.

check() { return 255; }

depends() { echo systemd ostree ignition; }

installkernel() { hostonly='' instmods loop squashfs isofs cdrom sr_mod sd_mod; }

install() {
    inst_multiple cp ls mkdir mount rm umount readlink systemd-tmpfiles
    inst_simple "$moddir/sysroot-paths" /usr/lib/strata/sysroot-paths
    for script in live-writable live-bind-etc ignition-var ignition-network; do
        inst_script "$moddir/$script" "/usr/lib/strata/$script"
    done
    inst_script "$moddir/is-live-image" /usr/bin/is-live-image
    inst_script "$moddir/live-generator" "$systemdutildir/system-generators/strata-live-generator"
    # dracut's dbus module looks for its user in /etc, which an OSTree tree has in /usr/etc.
    for file in passwd group; do
        grep -q '^messagebus:' "$initdir/etc/$file" ||
            grep '^messagebus:' "$dracutsysrootdir/usr/etc/$file" >>"$initdir/etc/$file"
    done
    # Ignition labels what it writes by calling setfiles; this system has no SELinux.
    inst_script "$moddir/setfiles" /usr/sbin/setfiles
    for unit in strata-live-{writable,bind-etc} strata-ignition-{var,user,network}; do
        inst_simple "$moddir/$unit.service" "$systemdsystemunitdir/$unit.service"
    done
    for unit in strata-ignition-{var,user,network}; do
        mkdir -p "$initdir/$systemdsystemunitdir/ignition-complete.target.requires"
        ln_r "$systemdsystemunitdir/$unit.service" \
            "$systemdsystemunitdir/ignition-complete.target.requires/$unit.service"
    done
}
