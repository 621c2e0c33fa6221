# Shared by the other setup scripts, which read it with `.`.

# Print each argument as a line.
say() { printf '%s\n' "$@" >&2; }

fail() {
    say "$@"
    exit 1
}

# Install Debian packages, as root; without root or apt-get say what to install and fail.
# The package lists are fetched only if the installation fails with those that the machine has.
install_packages() {
    command -v apt-get >/dev/null ||
        fail "this host lacks: $*" "remedy: install them with its package manager (the names are Debian's) and try again"
    [ "$(id -u)" = 0 ] ||
        fail "this host lacks: $*" "remedy: as root, apt-get install $*"
    say "installing $* with apt-get"
    apt_get install "$@" 2>/dev/null || { apt_get update && apt_get install "$@"; } ||
        fail "apt-get can't install: $*" "see its message above"
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 "$@" >/dev/null
}
