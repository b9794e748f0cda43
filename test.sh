#!/usr/bin/env bash
# Installs what the tests need and is missing (Debian packages; into the user's cache axe-core and tsdav by npm, and some servers out of their packages),
# then runs them all with the race detector.
#
#   ./test.sh                                      everything
#   ./test.sh ./authstore/...                      some packages
#   ./test.sh -run TestDovecot ./internal/testlab  one test; whatever stands here goes to go test
#
# Tests start the servers themselves, on loopback ports and in folders of their own; installing starts none.
set -euo pipefail
cd "$(dirname "$0")"

# file (stars may stand in it) or program = Debian package
needs=(
  /etc/ssl/certs/ca-certificates.crt=ca-certificates # for Go's downloads
  gcc=gcc                                            # for the race detector
  /usr/bin/python3=python3
  /usr/include/stdlib.h=libc6-dev
  /usr/lib/dovecot/managesieve=dovecot-managesieved
  /usr/lib/dovecot/pop3=dovecot-pop3d
  /usr/lib/dovecot/submission=dovecot-submissiond
  /usr/lib/php/*/dom.so=php-xml
  /usr/lib/php/*/mbstring.so=php-mbstring
  /usr/lib/php/*/pdo_pgsql.so=php-pgsql
  /usr/lib/php/*/pdo_sqlite.so=php-sqlite3
  /usr/lib/postgresql/*/bin/initdb=postgresql
  /usr/lib/python3*/dist-packages/caldav/davclient.py=python3-caldav
  /usr/lib/python3*/dist-packages/httplib2/__init__.py=python3-httplib2
  cadaver=cadaver
  calcurse=calcurse
  calcurse-caldav=calcurse
  chromium=chromium
  curl=curl
  dnsmasq=dnsmasq-base
  dovecot=dovecot-imapd
  fetchmail=fetchmail
  getmail=getmail6
  khal=khal
  litmus=litmus
  mbsync=isync
  msmtp=msmtp
  neomutt=neomutt
  nginx=nginx
  node=nodejs
  npm=npm
  openssl=openssl
  php=php-cli
  postfix=postfix
  radicale=radicale
  redis-server=redis-server
  script=bsdutils
  setpriv=util-linux
  sieve-connect=sieve-connect
  sievec=dovecot-sieve
  slapadd=slapd
  slapd=slapd
  sqlite3=sqlite3
  strace=strace
  swaks=swaks
  systemd-analyze=systemd
  unshare=util-linux
  vdirsyncer=vdirsyncer
  xandikos=xandikos
  xmllint=libxml2-utils
)

die() { printf 'test.sh: %s\n' "$*" >&2; exit 1; }

case ${1-} in -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit ;; esac

missing() { # prints the packages of what is not there
  local need
  for need in "${needs[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${need%%=*}" >/dev/null || compgen -G "${need%%=*}" >/dev/null || echo "${need#*=}"
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

# tsdav is a client library, with two more packages below it. The lock file holds the hash of each.
fetch_tsdav() {
  local from=internal/testlab/tsdav dir=${XDG_CACHE_HOME:-$HOME/.cache}/postern-test/tsdav tmp
  cmp -s "$from/package-lock.json" "$dir/package-lock.json" && return
  echo "test.sh: fetches tsdav"
  tmp=$(mktemp -d)
  cp "$from"/package*.json "$tmp"
  (cd "$tmp" && npm ci --silent --ignore-scripts --no-audit --no-fund >/dev/null) || { rm -r "$tmp"; die "could not fetch tsdav with npm, or it is not what it was"; }
  rm -rf "$dir"
  mkdir -p "${dir%/*}"
  mv "$tmp" "$dir"
}

# Some servers are unpacked into the user's cache and not installed: Cyrus's packages would remove Dovecot's, DAViCal's would bring Apache, and the
# newest Debian has no sabre/dav, which then stays out. apt-get checks the signatures. A newer version replaces the one that is there.
unpack() { # unpack NAME PACKAGE...; the first one's version counts; keep_NAME FROM TO picks what is kept
  local name=$1 dir=${XDG_CACHE_HOME:-$HOME/.cache}/postern-test/$1 first=$2 version tmp deb
  shift
  candidate() { apt-cache policy "$first" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9].*\)/\1/p' || true; }
  download() { (cd "$tmp" && apt-get -qq download "$@" >"$tmp/log" 2>&1); }
  version=$(candidate)
  [ -e "$dir/version" ] && { [ -z "$version" ] || [ "$(cat "$dir/version")" = "$version" ]; } && return
  command -v apt-get >/dev/null || die "no apt-get here to fetch $* with"
  echo "test.sh: unpacks $*"
  tmp=$(mktemp -d)
  if ! download "$@"; then
    become_root && "${as_root[@]}" apt-get -qq update
    version=$(candidate)
    [ -z "$version" ] || download "$@" || { cat "$tmp/log" >&2; rm -r "$tmp"; die "could not download $*"; }
  fi
  mkdir "$tmp/kept"
  if [ -n "$version" ]; then
    for deb in "$tmp"/*.deb; do dpkg-deb -x "$deb" "$tmp/root"; done
    "keep_$name" "$tmp/root" "$tmp/kept"
    for deb in "$tmp"/*.deb; do dpkg-deb -f "$deb" Depends; done >"$tmp/kept/depends"
  fi
  echo "$version" >"$tmp/kept/version"
  rm -rf "$dir"
  mkdir -p "${dir%/*}"
  mv "$tmp/kept" "$dir"
  rm -r "$tmp"
}

keep_cyrus() {
  mkdir "$2/bin" "$2/lib"
  cp "$1"/usr/lib/cyrus/bin/{httpd,lmtpd,master} "$2/bin"
  cp -L "$1"/usr/lib/*/libcyrus*.so.0 "$2/lib"
}
keep_davical() { cp -r "$1/usr/share/davical" "$1/usr/share/awl" "$2"; }
keep_sabre() { cp -r "$1/usr/share/php/Sabre" "$2"; }

# What the unpacked Cyrus links and is not there. ClamAV and Zephyr are for programs that are not among the unpacked.
cyrus_libraries() {
  local dir=${XDG_CACHE_HOME:-$HOME/.cache}/postern-test/cyrus
  lacking() { LD_LIBRARY_PATH=$dir/lib ldd "$dir"/bin/* "$dir"/lib/* 2>&1 | sed -n '/not found/p' | sort -u; }
  [ -n "$(lacking)" ] || return 0
  mapfile -t packages < <(tr , '\n' <"$dir/depends" | sed -n 's/^ *\(lib[^ ]*\).*/\1/p' | grep -v -e clamav -e zephyr | sort -u)
  install "${packages[@]}"
  [ -z "$(lacking)" ] || die "the unpacked Cyrus lacks libraries: $(lacking)"
}

command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || die "no go in PATH; get Go 1.26 from https://go.dev/dl"
mapfile -t packages < <(missing)
[ ${#packages[@]} = 0 ] || install "${packages[@]}"
fetch_axe
fetch_tsdav
unpack cyrus cyrus-common cyrus-caldav
cyrus_libraries
unpack davical davical libawl-php
unpack sabre php-sabre-dav php-sabre-vobject

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
