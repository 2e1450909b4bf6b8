# Sourced by ./quickstart and ./test: a virtual environment with Hostel in it, and Debian packages where we may.
# Set before: ROOT, the checkout; ME, the name to complain under. Everything is done only when it is not done yet.

VENV=${HOSTEL_VENV:-$ROOT/.venv}

say() {
    printf '==> %s\n' "$*"
}

warn() {
    printf '%s: %s\n' "$ME" "$*" >&2
}

die() {
    warn "$*"
    exit 1
}

# Run a command and show it; again after a pause when it fails, because mirrors and indexes do.
run_retrying() {
    printf '  $ %s\n' "$*"
    for pause in 3 10 0; do
        "$@" </dev/null && return 0
        [ "$pause" = 0 ] && return 1
        warn "that failed; trying again in $pause seconds"
        sleep "$pause"
    done
}

# How this user may install packages: prints "root", "sudo" or "no". Asks only on a terminal.
may_install() {
    command -v apt-get >/dev/null 2>&1 || { echo no; return; }
    if [ "$(id -u)" = 0 ]; then
        echo root
    elif ! command -v sudo >/dev/null 2>&1; then
        echo no
    elif [ -t 0 ] && [ -t 2 ]; then
        printf 'Install %s with sudo apt-get? [Y/n] ' "$*" >&2
        read -r answer || answer=n
        case $answer in
            '' | [Yy]*) echo sudo ;;
            *) echo no ;;
        esac
    elif sudo -n true 2>/dev/null; then
        echo sudo
    else
        echo no
    fi
}

apt_get() {
    case $1 in
        # The runlevel keeps a package from starting the server that it brings.
        root) shift; set -- env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get "$@" ;;
        sudo) shift; set -- sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get "$@" ;;
    esac
    run_retrying "$@"
}

# Install Debian packages; fails, without stopping the script, where we may not or cannot.
install_packages() {
    how=$(may_install "$@")
    [ "$how" = no ] && return 1
    say "Installing $*"
    apt_get "$how" -q -o DPkg::Lock::Timeout=300 update || warn "the package lists could not be refreshed; going on with what is there"
    apt_get "$how" -q -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "$@"
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

can_make_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

# Set PYTHON to a Python 3.11 or newer that can make virtual environments; fails when there is none.
# Of two of one version the distribution's comes first: it is built with its profile, and runs a fifth faster than what
# version managers build as they find it.
find_python() {
    PYTHON=
    PYTHON_WITHOUT_VENV=
    for candidate in ${HOSTEL_PYTHON:-} $(for version in 3.14 3.13 3.12 3.11 3; do
        echo "/usr/bin/python$version" "python$version"
    done); do
        is_new_enough "$candidate" || continue
        if can_make_venv "$candidate"; then
            PYTHON=$candidate
            return 0
        fi
        [ -n "$PYTHON_WITHOUT_VENV" ] || PYTHON_WITHOUT_VENV=$candidate
    done
    return 1
}

# The packages that would give find_python what it looks for, as far as apt knows yet.
python_packages() {
    if [ -n "$PYTHON_WITHOUT_VENV" ]; then
        "$PYTHON_WITHOUT_VENV" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'
        return
    fi
    for version in 3.13 3.12 3.11; do
        case $(apt-cache policy "python$version-venv" 2>/dev/null) in
            '' | *'Candidate: (none)'*) ;;
            *) echo "python$version python$version-venv"; return ;;
        esac
    done
    echo "python3 python3-venv"
}

need_python() {
    find_python && return
    tried=
    while packages=$(python_packages) && [ "$packages" != "$tried" ]; do
        # shellcheck disable=SC2086  # a list
        install_packages $packages || break
        find_python && return
        tried=$packages # and apt may know more now
    done
    if [ -n "$PYTHON_WITHOUT_VENV" ]; then
        die "$PYTHON_WITHOUT_VENV cannot make a virtual environment; install what it lacks: apt-get install $packages"
    fi
    found=$(python3 --version 2>/dev/null) || found="no Python"
    die "Hostel needs Python 3.11 or newer and found $found; install it (apt-get install $packages), or name one: HOSTEL_PYTHON=/path/to/python3.11 ./$ME"
}

# Make the virtual environment and install Hostel into it, with the extras in $1 (such as "[dev]").
# Done again only when the checkout moved, its dependencies changed, or the interpreter is gone.
setup_venv() {
    stamp="$ROOT $1 $(cksum <"$ROOT/pyproject.toml")"
    if [ -x "$VENV/bin/hostel" ] && "$VENV/bin/python" -c '' 2>/dev/null; then
        # What was installed with more extras serves those who ask for fewer.
        case $(cat "$VENV/hostel-setup" 2>/dev/null) in
            "$stamp") return ;;
            "$ROOT [dev] $(cksum <"$ROOT/pyproject.toml")") return ;;
        esac
    fi
    [ -w "$ROOT" ] || die "you may not write in $ROOT, where Hostel is to be set up; clone it as the user who runs this"
    need_python
    if ! { [ -d "$VENV" ] && "$VENV/bin/python" -m pip --version >/dev/null 2>&1 && grep -qsF "$ROOT " "$VENV/hostel-setup"; }; then
        say "Making a virtual environment in $VENV with $("$PYTHON" --version)"
        if [ -e "$VENV" ] && ! [ -f "$VENV/pyvenv.cfg" ] && ! rmdir "$VENV" 2>/dev/null; then
            die "$VENV is not a virtual environment; remove it, or name another place: HOSTEL_VENV=DIR"
        fi
        rm -rf "$VENV"
        "$PYTHON" -m venv "$VENV" || die "$PYTHON could not make a virtual environment in $VENV"
    fi
    say "Installing Hostel$1 into it"
    run_retrying "$VENV/bin/python" -m pip --disable-pip-version-check -q install -e "$ROOT$1" ||
        die "pip could not install Hostel; is the package index reachable? (pip reads PIP_INDEX_URL and /etc/pip.conf)"
    printf '%s\n' "$stamp" >"$VENV/hostel-setup"
}
