# shellcheck shell=sh disable=SC2154
# New systems of Debian or Ubuntu in directories, for test/majors and test/packaging. Sourced by scripts of root; $mirror is
# theirs. unmount_all belongs into their trap.
mounted=

unmount_all() {
	for path in $mounted; do umount "$path"; done
	mounted=
}

# make_root RELEASE ROOT LOG: a minimal system that can install packages as this one does, and starts no services.
make_root() {
	debootstrap --variant=minbase --include=ca-certificates,git,make,sudo "$1" "$2" "$mirror" >"$3" 2>&1 || return 1
	[ "$1" = noble ] || [ "$1" = sid ] || echo "deb http://deb.debian.org/debian-security $1-security main" >>"$2/etc/apt/sources.list"
	cp /etc/resolv.conf "$2/etc/resolv.conf"
	cp -r /etc/apt/apt.conf.d/. "$2/etc/apt/apt.conf.d/" 2>/dev/null
	cp -r /usr/local/share/ca-certificates "$2/usr/local/share/" 2>/dev/null && chroot "$2" update-ca-certificates >>"$3" 2>&1
	printf '#!/bin/sh\nexit 101\n' >"$2/usr/sbin/policy-rc.d"
	chmod 755 "$2/usr/sbin/policy-rc.d"
	chroot "$2" useradd -m -s /bin/bash user
	echo 'user ALL=(ALL) NOPASSWD: ALL' >"$2/etc/sudoers.d/user"
}

mount_root() {
	for path in proc sys dev dev/shm dev/pts; do
		mkdir -p "$1/$path"
		mountpoint -q "$1/$path" || { mount --bind "/$path" "$1/$path" && mounted="$1/$path $mounted"; }
	done
}
