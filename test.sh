#!/usr/bin/env bash
# Installs what the tests need and is missing (Debian packages; axe-core by npm and Cyrus out of its packages into the user's cache), then runs them all with the race detector.
#
#   ./test.sh                                      everything
#   ./test.sh ./authstore/...                      some packages
#   ./test.sh -run TestDovecot ./internal/testlab  one test; whatever stands here goes to go test
#
# Tests start the servers themselves, on loopback ports and in folders of their own; installing starts none.
set -euo pipefail
cd "$(dirname "$0")"

# file or program = Debian package
needs=(
  /etc/ssl/certs/ca-certificates.crt=ca-certificates # for Go's downloads
  gcc=gcc                                            # for the race detector
  /usr/bin/python3=python3
  /usr/include/stdlib.h=libc6-dev
  /usr/lib/dovecot/managesieve=dovecot-managesieved
  /usr/lib/dovecot/pop3=dovecot-pop3d
  /usr/lib/dovecot/submission=dovecot-submissiond
  chromium=chromium
  curl=curl
  dnsmasq=dnsmasq-base
  dovecot=dovecot-imapd
  fetchmail=fetchmail
  getmail=getmail6
  mbsync=isync
  msmtp=msmtp
  neomutt=neomutt
  nginx=nginx
  npm=npm
  openssl=openssl
  postfix=postfix
  radicale=radicale
  redis-server=redis-server
  script=bsdutils
  sieve-connect=sieve-connect
  sievec=dovecot-sieve
  sqlite3=sqlite3
  strace=strace
  swaks=swaks
  systemd-analyze=systemd
  unshare=util-linux
  vdirsyncer=vdirsyncer
  xandikos=xandikos
)

die() { printf 'test.sh: %s\n' "$*" >&2; exit 1; }

case ${1-} in -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;; esac

missing() { # prints the packages of what is not there
  local need
  for need in "${needs[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${need%%=*}" >/dev/null || [ -e "${need%%=*}" ] || echo "${need#*=}"
  done
}

as_root=()
become_root() { # sets as_root
  [ "$(id -u)" != 0 ] || return 0
  as_root=(sudo)
  [ -t 0 ] || as_root=(sudo -n)
  command -v sudo >/dev/null && "${as_root[@]}" true
}

install() { # install PACKAGE...
  command -v apt-get >/dev/null || die "no apt-get here; install by other means: $*"
  become_root || die "can't become root to install what is missing; do it yourself: apt-get install $*"
  echo "test.sh: installs $*"
  "${as_root[@]}" bash -s -- "$@" <<'ROOT' || true # what counts is looked at below: apt-get also fails over somebody else's half-configured package
    policy=/usr/sbin/policy-rc.d # tells Debian's packages to start no daemons
    if [ ! -e $policy ]; then
      trap 'rm -f $policy' EXIT
      printf '#!/bin/sh\nexit 101\n' >$policy
      chmod 755 $policy
    fi
    export DEBIAN_FRONTEND=noninteractive
    # without a configuration of its own the packaged Postfix never starts, not at the next boot either
    [[ " $* " != *" postfix "* ]] || echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
    get() { apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold "$@" </dev/null; }
    add() { get install --no-install-recommends --no-remove "$@" >/dev/null; }
    add "$@" 2>/dev/null || { get update && add "$@"; }
ROOT
  local still; still=$(missing)
  [ -z "$still" ] || die "could not install ${still//$'\n'/ }"
}

# axe-core looks at pages as those do who can't see or use a mouse. Its licence, the MPL, keeps it out of this repository.
axe=4.14.1 # internal/testlab/axe.go names it too
axe_sum=29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c
fetch_axe() {
  local dir=${XDG_CACHE_HOME:-$HOME/.cache}/postern-test tmp
  local file=$dir/axe-core-$axe.min.js
  is_axe() { [ -e "$1" ] && echo "$axe_sum  $1" | sha256sum --check --status; }
  is_axe "$file" && return
  echo "test.sh: fetches axe-core $axe"
  mkdir -p "$dir"
  tmp=$(mktemp -d)
  (cd "$tmp" && npm pack --silent "axe-core@$axe" >/dev/null && tar -xzf "axe-core-$axe.tgz" package/axe.min.js) || true # looked at below
  is_axe "$tmp/package/axe.min.js" || { rm -r "$tmp"; die "could not fetch axe-core $axe with npm, or it is not what it was"; }
  mv "$tmp/package/axe.min.js" "$file"
  rm -r "$tmp"
}

# Cyrus's packages would remove Dovecot's, so only the libraries that they need are installed; of the packages themselves some programs are unpacked.
# apt-get checks their signatures. A newer version replaces the one that is there.
fetch_cyrus() {
  local dir=${XDG_CACHE_HOME:-$HOME/.cache}/postern-test/cyrus version tmp
  links() { LD_LIBRARY_PATH=$1/lib ldd "$1"/bin/* 2>&1; }
  works() { [ -x "$1/bin/httpd" ] && [[ $(links "$1") != *"not found"* ]]; }
  candidate() { apt-cache policy cyrus-caldav 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]\)/\1/p' || true; }
  version=$(candidate)
  works "$dir" && { [ -z "$version" ] || [ "$(cat "$dir/version")" = "$version" ]; } && return
  command -v apt-get >/dev/null || die "no apt-get here to fetch Cyrus with"
  echo "test.sh: fetches Cyrus"
  tmp=$(mktemp -d)
  download() { (cd "$tmp" && apt-get -qq download cyrus-common cyrus-caldav 2>&1); }
  download >"$tmp/log" || { become_root && "${as_root[@]}" apt-get -qq update && download >"$tmp/log"; } || { cat "$tmp/log"; rm -r "$tmp"; die "could not download cyrus-common and cyrus-caldav"; }
  for deb in "$tmp"/*.deb; do dpkg-deb -x "$deb" "$tmp/root"; done
  mkdir -p "$tmp/cyrus/bin" "$tmp/cyrus/lib"
  cp "$tmp"/root/usr/lib/cyrus/bin/{httpd,lmtpd,master} "$tmp/cyrus/bin"
  cp -L "$tmp"/root/usr/lib/*/libcyrus*.so.0 "$tmp/cyrus/lib"
  candidate >"$tmp/cyrus/version"
  if ! works "$tmp/cyrus"; then # ClamAV and Zephyr are for programs that are not among these
    mapfile -t packages < <(for deb in "$tmp"/*.deb; do dpkg-deb -f "$deb" Depends; done | tr , '\n' | sed -n 's/^ *\(lib[^ ]*\).*/\1/p' | grep -v -e clamav -e zephyr | sort -u)
    install "${packages[@]}"
  fi
  works "$tmp/cyrus" || die "Cyrus lacks libraries: $(links "$tmp/cyrus" | grep 'not found' | sort -u)"
  rm -rf "$dir"
  mkdir -p "${dir%/*}"
  mv "$tmp/cyrus" "$dir"
  rm -r "$tmp"
}

command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || die "no go in PATH; get Go 1.26 from https://go.dev/dl"
mapfile -t packages < <(missing)
[ ${#packages[@]} = 0 ] || install "${packages[@]}"
fetch_axe
fetch_cyrus

# A package among the arguments stands for itself, otherwise all are meant.
what=(./...)
for arg; do case $arg in ./* | . | postern | postern/*) what=() ;; esac; done

# The race detector looks at our code and at what it calls, but not into SQLite, which is C translated to Go, and Argon2: the tests would take twice as
# long. internal/testlab/postern.go names them too.
raceless=()
for package in modernc.org/sqlite/lib modernc.org/libc/... golang.org/x/crypto/argon2 golang.org/x/crypto/blake2b; do
  raceless+=("-gcflags=$package=-race=false")
done

export CGO_ENABLED=1     # for the race detector
export POSTERN_TEST=full # a test that misses a program fails instead of being skipped
exec go test -race "${raceless[@]}" -shuffle=on -timeout 30m "$@" "${what[@]}"
