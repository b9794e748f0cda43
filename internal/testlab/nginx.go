package testlab

import (
	"fmt"
	"path/filepath"
	"testing"
)

const nginxConfig = `daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s;
	proxy_temp_path %[1]s;
	fastcgi_temp_path %[1]s;
	uwsgi_temp_path %[1]s;
	scgi_temp_path %[1]s;
	server {
%[2]s
	}
}
`

// Nginx starts an nginx with the given lines in its block "server". One of them must have it listen on port, and there it must answer HTTP without TLS.
func Nginx(t testing.TB, port int, lines string) *Server {
	t.Helper()
	Need(t, "nginx")
	dir := Dir(t)
	config := write(t, fmt.Sprintf(nginxConfig, dir, lines), dir, "nginx.conf")
	return serve(t, "nginx", dir, launch{
		argv:  []string{find("nginx"), "-p", dir, "-c", config, "-e", filepath.Join(dir, "early.log")},
		ready: func() error { return answers("http://" + local(port)) },
	})
}
