# shellcheck shell=sh disable=SC2154
# Shell functions of the tests, the demo and the figures. Sourced from a script whose $top is the source tree.

# PostgreSQL does not run as root: as root, the server's side steps down to postgres; else it runs as it is.
as_server() {
	if [ "$(id -u)" -eq 0 ]; then
		runuser -u postgres -- "$@"
	else
		"$@"
	fi
}

# A new directory of the server's user, away from the source tree (which that user may not be able to read).
new_directory() {
	as_server mktemp -d "${TMPDIR:-/tmp}/garbagetruck.XXXXXX"
}

# Copy the sources to $1, without the history and without what a build in the source tree has left there.
copy_sources() {
	as_server mkdir -p "$1"
	tar -C "$top" -c --exclude=./.git --exclude='*.o' --exclude='*.so' --exclude='*.bc' --exclude=node_modules . |
		as_server tar -C "$1" -x --no-same-owner
}
