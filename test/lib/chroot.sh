# shellcheck shell=sh
# New systems of Debian or Ubuntu in directories, for test/majors and test/packaging. Sourced by scripts of root. unmount_all
# belongs into their trap. MIRROR and UBUNTU_MIRROR name other mirrors.
mirror=${MIRROR:-http://deb.debian.org/debian}
ubuntu_mirror=${UBUNTU_MIRROR:-http://archive.ubuntu.com/ubuntu}
mounted=

unmount_all() {
	for path in $mounted; do umount "$path"; done
	mounted=
}

# Ubuntu has a mirror of its own; debootstrap has one script for all of its releases, and may not know the newest by name.
is_ubuntu() { case $1 in jammy | noble) ;; *) return 1 ;; esac; }

bootstrap() {
	include=ca-certificates,git,make,sudo
	if is_ubuntu "$1"; then
		debootstrap --variant=minbase --components=main,universe --include=$include "$1" "$2" "$ubuntu_mirror" /usr/share/debootstrap/scripts/gutsy
	else
		debootstrap --variant=minbase --include=$include "$1" "$2" "$mirror"
	fi
}

# The updates that such a system gets.
more_sources() {
	case $1 in
	sid) ;;
	*) if is_ubuntu "$1"; then
		echo "deb $ubuntu_mirror $1-updates main universe"
		echo "deb $ubuntu_mirror $1-security main universe"
	else
		echo "deb http://deb.debian.org/debian-security $1-security main"
	fi ;;
	esac
}

# make_root RELEASE ROOT LOG: a minimal system that can install packages as this one does, and starts no services.
make_root() {
	bootstrap "$1" "$2" >"$3" 2>&1 || return 1
	more_sources "$1" >>"$2/etc/apt/sources.list"
	cp /etc/resolv.conf "$2/etc/resolv.conf"
	# a proxy, say; what is a package's here would be one's there, which then asks whether to keep it
	for file in /etc/apt/apt.conf.d/*; do
		[ ! -e "$file" ] || dpkg -S "$file" >/dev/null 2>&1 || cp "$file" "$2/etc/apt/apt.conf.d/"
	done
	cp -r /usr/local/share/ca-certificates "$2/usr/local/share/" 2>/dev/null && chroot "$2" env -u TMPDIR update-ca-certificates >>"$3" 2>&1
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
