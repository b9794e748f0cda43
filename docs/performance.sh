#!/usr/bin/env bash
# Measures Postern beside nginx, Dovecot's proxy and HAProxy, on this machine, and writes docs/performance.json and the tables of
# docs/performance.md.
#
#   docs/performance.sh              three rounds, about half an hour
#   docs/performance.sh --rounds 5   more of them
#   docs/performance.sh --only noop  the rows whose names have that in them (a regular expression), one round; writes nothing into docs/
#   docs/performance.sh --quick      a few operations each, to see that everything works; writes nothing into docs/
#
# It installs what is missing (Debian packages, without starting their services) and starts each server with a configuration of its
# own, on loopback, in a temporary folder. All stand between the same client and the same backends, which answer from memory ("postern
# bench backend"); within a round they take turns at each row. Nothing else should run on the machine meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'performance.sh: %s\n' "$*" >&2; exit 1; }

rounds=3 quick= only=
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=${2:?}; shift 2 ;;
    --quick) quick=1 rounds=1; shift ;;
    --only) only=${2:?} rounds=1; shift 2 ;;
    *) die "unknown argument $1" ;;
  esac
done
[[ $rounds =~ ^[1-9][0-9]?$ ]] || die "--rounds is a number from 1 to 99"
[ "$(id -u)" = 0 ] || die "run it as root: the memory and descriptors of processes that change their user can be read by root only"

# ---- what it needs

module=/usr/lib/nginx/modules/ngx_mail_module.so
PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin
command -v go >/dev/null || die "no go in PATH; get Go 1.26 from https://go.dev/dl"

install_missing() {
  local packages=()
  command -v nginx >/dev/null && [ -e $module ] || packages+=(nginx-light libnginx-mod-mail)
  [ -e /usr/lib/dovecot/imap-login ] || packages+=(dovecot-core dovecot-imapd)
  command -v haproxy >/dev/null || packages+=(haproxy)
  command -v openssl >/dev/null || packages+=(openssl)
  [ ${#packages[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "no apt-get here; install by other means: ${packages[*]}"
  echo "performance.sh: installs ${packages[*]}"
  local policy=/usr/sbin/policy-rc.d # tells Debian's packages to start no services
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod 755 $policy; made_policy=$policy; }
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -y update >/dev/null
  apt-get -qq -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${packages[@]}" >/dev/null </dev/null
}

# ---- ends everything that was started

dir=$(mktemp -d /tmp/postern-performance-XXXXXX)
chmod 755 "$dir"
declare -A started # pids by name
made_policy=
finish() {
  [ ${#started[@]} = 0 ] || kill "${started[@]}" 2>/dev/null || true
  wait
  [ -z "$made_policy" ] || rm -f "$made_policy"
  rm -rf "$dir"
}
trap finish EXIT
trap 'exit 1' INT TERM

install_missing

descriptors=$(ulimit -Hn)
[ "$descriptors" != unlimited ] || descriptors=1048576
[ "$descriptors" -ge 20000 ] || die "9,000 sessions at a proxy take more than 18,000 descriptors; the limit here is $descriptors (ulimit -Hn)"
ulimit -n $((descriptors < 65536 ? descriptors : 65536))

# ---- the servers

accounts=12 # one account may have a fiftieth of all sessions: 1,000
declare -A port=(
  [backend.imap]=24001 [backend.dav]=24002 [backend.auth]=24003 [ops]=24004 [backend.submission]=24005
  [postern.imap]=24011 [postern.imaps]=24012 [postern.davs]=24013 [postern.submission]=24014 [postern.submissions]=24015
  [nginx.imap]=24021 [nginx.imaps]=24022 [nginx.davs]=24023 [nginx.submission]=24024 [nginx.submissions]=24025
  [dovecot.imap]=24031 [dovecot.imaps]=24032
  [haproxy.imap]=24041 [haproxy.imaps]=24042 [haproxy.davs]=24043 [haproxy.submission]=24044 [haproxy.submissions]=24045
)
declare -A pids    # by server: what counts as its cost
declare -A prefix=([postern]='/dav/cal/{id}' [nginx]='/{address}' [haproxy]='/{address}') # of DAV paths

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

start() { # start NAME PORT COMMAND...
  local name=$1 at=$2 _
  shift 2
  ! listening "$at" || die "somebody listens on port $at already"
  "$@" >"$dir/$name.log" 2>&1 </dev/null &
  started[$name]=$!
  for _ in {1..200}; do
    listening "$at" && return
    kill -0 $! 2>/dev/null || break
    sleep 0.05
  done
  cat "$dir/$name.log" >&2
  die "$name does not listen on port $at"
}

make_certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost \
    -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>/dev/null
  cat "$dir/cert.pem" "$dir/key.pem" >"$dir/both.pem"
}

configure_postern() {
  head -c 15 /dev/urandom | base64 >"$dir/master.password"
  chmod 400 "$dir/master.password"
  cat >"$dir/postern.toml" <<END
tls.certificate = [{ cert = "$dir/cert.pem", key = "$dir/key.pem" }]
store = { database = "$dir/postern.db", key_file = "$dir/root.key" }
operations.address = "127.0.0.1:${port[ops]}"
listener = [
  { protocol = "imap", address = "127.0.0.1:${port[postern.imap]}", tls = "none" },
  { protocol = "imap", address = "127.0.0.1:${port[postern.imaps]}" },
  { protocol = "dav", address = "127.0.0.1:${port[postern.davs]}" },
  { protocol = "submission", address = "127.0.0.1:${port[postern.submission]}", tls = "none" },
  { protocol = "submission", address = "127.0.0.1:${port[postern.submissions]}" },
]
[[backend]]
name = "mail"
protocol = "imap"
address = "127.0.0.1:${port[backend.imap]}"
tls = "none"
credential = "master"
user = "postern"
password_file = "$dir/master.password"
[[backend]]
name = "outgoing"
protocol = "submission"
address = "127.0.0.1:${port[backend.submission]}"
tls = "none"
credential = "xclient" # as nginx's xclient on
[[backend]]
name = "calendars"
protocol = "dav"
address = "127.0.0.1:${port[backend.dav]}"
tls = "none"
credential = "header"
END
  local n address secret id
  postern() { "$dir/postern" "$@" -c "$dir/postern.toml"; }
  postern init >/dev/null
  umask 077
  for ((n = 1; n <= accounts; n++)); do
    address=user$n@example.test
    id=$(postern account add $address --json | sed -n 's/.*"public_id": "\(.*\)".*/\1/p')
    secret=$(postern password create $address --label bench --for everything --json | sed -n 's/.*"secret": "\(.*\)".*/\1/p')
    echo "$address $secret $id" >>"$dir/credentials"
    echo "$address:{PLAIN}$secret" >>"$dir/dovecot.users"
  done
  umask 022
}

# nginx: a worker for each core; TLS 1.3 with tickets; the log of logins and requests on, as the others' is.
configure_nginx() {
  mkdir "$dir/nginx"
  cat >"$dir/nginx.conf" <<END
load_module $module;
daemon off;
user nobody nogroup;
worker_processes auto;
worker_rlimit_nofile $(ulimit -n);
pid $dir/nginx.pid;
error_log $dir/nginx.errors info; # what the mail module has for a log of logins
events { worker_connections 20000; }
mail {
  auth_http 127.0.0.1:${port[backend.auth]}/mail;
  imap_capabilities IMAP4rev1 SASL-IR LITERAL+ ID IDLE ENABLE UIDPLUS MOVE;
  imap_auth plain login;
  smtp_auth plain login;
  smtp_capabilities PIPELINING "SIZE 104857600" 8BITMIME ENHANCEDSTATUSCODES;
  xclient on; # its default; proxy_smtp_auth, which hands the client's password on, costs the same
  smtp_client_buffer 64k; # messages go through it: with its default, 4k, 4 MiB cost 1.6 times as much CPU
  ssl_certificate $dir/cert.pem;
  ssl_certificate_key $dir/key.pem;
  ssl_protocols TLSv1.3;
  server { listen 127.0.0.1:${port[nginx.imap]} backlog=4096; protocol imap; }
  server { listen 127.0.0.1:${port[nginx.imaps]} ssl backlog=4096; protocol imap; }
  server { listen 127.0.0.1:${port[nginx.submission]} backlog=4096; protocol smtp; }
  server { listen 127.0.0.1:${port[nginx.submissions]} ssl backlog=4096; protocol smtp; }
}
http {
  access_log $dir/nginx.access;
  client_body_temp_path $dir/nginx/body;
  proxy_temp_path $dir/nginx/proxy;
  fastcgi_temp_path $dir/nginx/fastcgi;
  uwsgi_temp_path $dir/nginx/uwsgi;
  scgi_temp_path $dir/nginx/scgi;
  client_max_body_size 30m;
  keepalive_requests 1000000;
  ssl_certificate $dir/cert.pem;
  ssl_certificate_key $dir/key.pem;
  ssl_protocols TLSv1.3;
  upstream dav { server 127.0.0.1:${port[backend.dav]}; keepalive 64; }
  upstream auth { server 127.0.0.1:${port[backend.auth]}; keepalive 64; }
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  server {
    listen 127.0.0.1:${port[nginx.davs]} ssl http2 backlog=4096;
    location / {
      auth_request /auth;
      proxy_pass http://dav;
      proxy_set_header Connection "";
      proxy_set_header Authorization "";
      proxy_set_header X-Remote-User \$remote_user;
    }
    location = /auth {
      internal;
      proxy_pass http://auth/http;
      proxy_pass_request_body off;
      proxy_set_header Connection "";
      proxy_set_header Content-Length "";
    }
  }
}
END
}

# Dovecot: the login proxy in its high-performance mode, two processes for all clients.
configure_dovecot() {
  chgrp dovecot "$dir/dovecot.users"
  chmod 640 "$dir/dovecot.users"
  cat >"$dir/dovecot.conf" <<END
base_dir = $dir/dovecot
state_dir = $dir/dovecot-state
log_path = $dir/dovecot.info
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <$dir/cert.pem
ssl_key = <$dir/key.pem
ssl_min_protocol = TLSv1.3
disable_plaintext_auth = no
auth_mechanisms = plain login
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%u $dir/dovecot.users
  default_fields = proxy=y host=127.0.0.1 port=${port[backend.imap]}
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent
}
default_client_limit = 20000
default_vsz_limit = 4G
service imap-login {
  service_count = 0
  process_min_avail = 2
  process_limit = 2
  client_limit = 10000
  inet_listener imap {
    port = ${port[dovecot.imap]}
  }
  inet_listener imaps {
    port = ${port[dovecot.imaps]}
    ssl = yes
  }
}
END
}

configure_haproxy() {
  cat >"$dir/haproxy.cfg" <<END
global
  nbthread 2
  maxconn 9600
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  timeout connect 5s
  timeout client 30m
  timeout server 30m
listen imap
  bind 127.0.0.1:${port[haproxy.imap]}
  server mail 127.0.0.1:${port[backend.imap]}
listen imaps
  bind 127.0.0.1:${port[haproxy.imaps]} ssl crt $dir/both.pem
  server mail 127.0.0.1:${port[backend.imap]}
listen submission
  bind 127.0.0.1:${port[haproxy.submission]}
  server outgoing 127.0.0.1:${port[backend.submission]}
listen submissions
  bind 127.0.0.1:${port[haproxy.submissions]} ssl crt $dir/both.pem
  server outgoing 127.0.0.1:${port[backend.submission]}
listen davs
  mode http
  http-reuse always
  bind 127.0.0.1:${port[haproxy.davs]} ssl crt $dir/both.pem alpn h2,http/1.1
  server dav 127.0.0.1:${port[backend.dav]}
END
}

serve() { # serve SERVER: starts it, and notes what counts as its cost
  local at=${port[$1.imap]}
  case $1 in
    postern) start postern "$at" "$dir/postern" serve -c "$dir/postern.toml" ;;
    nginx) start nginx "$at" nginx -e "$dir/nginx.errors" -c "$dir/nginx.conf" ;;
    dovecot) start dovecot "$at" dovecot -F -c "$dir/dovecot.conf" ;;
    haproxy) start haproxy "$at" haproxy -db -f "$dir/haproxy.cfg" ;;
  esac
  pids[$1]=${started[$1]}
  [ "$1" != nginx ] || pids[nginx]+=,${started[backend.auth]} # it can't check a password without
}

restart() {
  kill "${started[$1]}"
  wait "${started[$1]}" || true
  unset "started[$1]"
  serve "$1"
}

version=$(git describe --always --dirty 2>/dev/null || echo unknown)
go build -o "$dir/postern" .
make_certificate
configure_postern
configure_nginx
configure_dovecot
configure_haproxy
start backend.imap "${port[backend.imap]}" "$dir/postern" bench backend imap "127.0.0.1:${port[backend.imap]}"
start backend.submission "${port[backend.submission]}" "$dir/postern" bench backend submission "127.0.0.1:${port[backend.submission]}" --quick-ack
start backend.dav "${port[backend.dav]}" "$dir/postern" bench backend dav "127.0.0.1:${port[backend.dav]}"
start backend.auth "${port[backend.auth]}" "$dir/postern" bench backend auth "127.0.0.1:${port[backend.auth]}" \
  --credentials "$dir/credentials" --mail "127.0.0.1:${port[backend.imap]}" --smtp "127.0.0.1:${port[backend.submission]}"
for server in postern nginx dovecot haproxy; do serve $server; done

# ---- the rows

failures=0
measure() { # measure ROW KIND "SERVER..." SUBCOMMAND ARGUMENTS... ; @ in an argument is the server's prefix of DAV paths
  local row=$1 kind=$2 servers=($3) sub=$4 i server result
  [[ $row =~ $only ]] || return 0
  shift 4
  for ((i = 0; i < ${#servers[@]}; i++)); do
    server=${servers[(i + round) % ${#servers[@]}]} # nobody is always the first
    [[ $row != idle* ]] || restart "$server" # what it has kept of earlier work would be taken for memory that a session needs not
    local options=(--credentials "$dir/credentials" --pid "${pids[$server]}" --json)
    [[ $kind = imap || $kind = submission ]] || options+=(--tls implicit --ca "$dir/cert.pem")
    if result=$("$dir/postern" bench "$sub" "127.0.0.1:${port[$server.$kind]}" "${options[@]}" "${@//@/${prefix[$server]-}}" 2>"$dir/error"); then
      printf '{"row": "%s", "server": "%s", "round": %d, "result": %s}\n' "$row" "$server" "$round" "$result" >>"$dir/runs"
      printf '%5ds  round %d  %-18s %-8s %s\n' $SECONDS "$round" "$row" "$server" "$(brief "$result")"
    else
      printf '%5ds  round %d  %-18s %-8s FAILED: %s\n' $SECONDS "$round" "$row" "$server" "$(<"$dir/error")"
      failures=$((failures + 1))
    fi
    sleep 0.5 # for what has ended to be cleared away
  done
}

brief() { grep -oE '"(per_second|p50_ms|p99_ms|cpu_us|cpu_s_per_gb|kib_per_session|attempt_cpu_us|failed)":[0-9.]+' <<<"$1" | tr -d '"' | tr '\n' ' '; }

n() { echo $(($1 / (quick ? 20 : 1))); } # so many operations, or few

storm=6s settle=15s # by then each server has given back what it gives back
[ -z "$quick" ] || storm=3s settle=1s # Dovecot takes two seconds to answer
all="postern nginx dovecot haproxy" authenticating="postern nginx dovecot" web="postern nginx haproxy"
for ((round = 1; round <= rounds; round++)); do
  measure login-plain imap "$all" login --sources 16 --count "$(n 20000)"
  measure login-tls imaps "$all" login --sources 16 --count "$(n 6000)" --quick-ack
  measure login-tls-resumed imaps "$all" login --sources 16 --count "$(n 6000)" --quick-ack --resume
  measure login-tls-ordinary imaps "$all" login --count "$(n 200)" --concurrency 1
  measure noop-plain imap "$all" noop --concurrency 32 --count "$(n 200000)"
  measure noop-tls imaps "$all" noop --concurrency 32 --count "$(n 200000)"
  measure fetch-64k-tls imaps "$all" fetch --message 1 --count "$(n 20000)" --quick-ack --duration 8s
  measure fetch-25m-plain imap "$all" fetch --message 3 --count "$(n 200)" --duration 8s
  measure fetch-25m-tls imaps "$all" fetch --message 3 --count "$(n 200)" --duration 8s
  measure idle-plain imap "$all" idle --quick-ack --sources 16 --count "$(n 9000)" --settle "$settle"
  measure idle-tls imaps "$all" idle --quick-ack --sources 16 --count "$(n 9000)" --duration 2m --settle "$settle"
  measure storm imap "$authenticating" storm --attackers "$(n 3000)" --attack-sources "$(n 3000)" --duration "$storm"
  measure storm-office imap "$authenticating" storm --attackers 24 --duration "$storm"
  measure send-16k-plain submission "$web" send --sources 16 --count "$(n 20000)" --quick-ack
  measure send-16k-tls submissions "$web" send --sources 16 --count "$(n 6000)" --quick-ack
  measure send-16k-20 submissions "$web" send --sources 16 --count "$(n 40000)" --quick-ack --messages 20
  measure send-4m-plain submission "$web" send --sources 16 --count "$(n 1000)" --quick-ack --size 4MiB --concurrency 4
  measure send-4m-tls submissions "$web" send --sources 16 --count "$(n 400)" --quick-ack --size 4MiB --concurrency 4
  for _ in 1 2 3; do # a second each, and one rival's differ by a fifth from one to the next
    measure propfind davs "$web" dav --path @/work/ --count "$(n 20000)"
    measure propfind-new davs "$web" dav --path @/work/ --count "$(n 5000)" --reconnect --sources 16
    measure propfind-h2 davs "$web" dav --path @/work/ --count "$(n 20000)" --http 2
  done
  measure idle-dav davs "$web" dav --path @/work/ --idle --sources 16 --count "$(n 2000)" --duration 1m --settle "$settle"
  measure get-1m davs "$web" dav --path @/work/1048576.ics --method GET --count "$(n 2000)"
done
[ $failures = 0 ] || die "$failures runs failed; nothing was written"
[ -z "$quick$only" ] || { echo "every run succeeded; nothing was written"; exit; }

# ---- the output

string() { printf '"%s"' "${1//[\"\\]/}"; }
{
  printf '{\n"date": %s,\n"machine": %s,\n"kernel": %s,\n"postern": %s,\n"go": %s,\n"nginx": %s,\n"dovecot": %s,\n"haproxy": %s,\n"runs": [\n' \
    "$(string "$(date -u +%F)")" \
    "$(string "$(nproc) cores, $(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)")" \
    "$(string "$(uname -r)")" \
    "$(string "$version")" \
    "$(string "$(go env GOVERSION)")" \
    "$(string "$(nginx -v 2>&1 | sed 's/.*nginx.//')")" \
    "$(string "$(dovecot --version | cut -d' ' -f1)")" \
    "$(string "$(haproxy -v | sed -n '1s/HAProxy version \([^ ]*\).*/\1/p')")"
  sed '$!s/$/,/' "$dir/runs"
  printf ']\n}\n'
} >docs/performance.json
go test ./internal/acceptance -run '^TestPerformancePage$' -count=1 -update
echo "wrote docs/performance.json and the tables of docs/performance.md"
