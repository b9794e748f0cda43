package doortest

import (
	"bufio"
	"crypto/tls"
	"net"
	"strings"
	"testing"
)

// Scripted is a backend that says its lines and wants to hear the others, which begin with "C: "; of "TLS" the rest is said over TLS. A word in
// "<>" stands for any. It hangs up at the end. What it heard that it did not want is told on strange.
func Scripted(t testing.TB, cert tls.Certificate, script string) (address string, strange chan string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	strange = make(chan string, 100)
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { nc.Close() }()
				r := bufio.NewReader(nc)
				for line := range strings.Lines(script) {
					line = strings.TrimSpace(line)
					want, hears := strings.CutPrefix(line+" ", "C: ")
					want = strings.TrimSuffix(want, " ")
					switch {
					case line == "TLS":
						nc = tls.Server(nc, &tls.Config{Certificates: []tls.Certificate{cert}})
						r.Reset(nc)
					case !hears:
						if _, err := nc.Write([]byte(strings.ReplaceAll(line, "+ .", "+ ") + "\r\n")); err != nil {
							return
						}
					default:
						got, err := r.ReadString('\n')
						if err != nil {
							return
						}
						if !alike(strings.TrimSuffix(got, "\r\n"), want) {
							strange <- got
							return
						}
					}
				}
			}()
		}
	}()
	return ln.Addr().String(), strange
}

func alike(got, want string) bool {
	g, w := strings.Split(got, " "), strings.Split(want, " ")
	if len(g) != len(w) {
		return false
	}
	for i := range g {
		before, _, any := strings.Cut(w[i], "<>")
		if g[i] != w[i] && !(any && strings.HasPrefix(g[i], before)) {
			return false
		}
	}
	return true
}
