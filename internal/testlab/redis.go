package testlab

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"testing"
	"time"
)

// RedisServer is one Redis that keeps nothing on disk: after Stop and Start it is empty.
type RedisServer struct {
	*Server
	Addr     string // host:port
	User     string // empty: none needed
	Password string
}

// Redis starts a Redis that asks for no password.
func Redis(t testing.TB) *RedisServer {
	t.Helper()
	return redis(t, &RedisServer{})
}

// RedisAuth starts a Redis that knows one user, who may do with keys and channels postern:* what is not dangerous; nobody else may do anything.
func RedisAuth(t testing.TB) *RedisServer {
	t.Helper()
	r := &RedisServer{User: "postern", Password: "redis-secret"}
	return redis(t, r, "--user", "default", "off", "--user", r.User, "on", ">"+r.Password, "~postern:*", "&postern:*", "+@all", "-@dangerous")
}

func redis(t testing.TB, r *RedisServer, options ...string) *RedisServer {
	t.Helper()
	Need(t, "redis-server")
	dir, port := Dir(t), Ports(t, 1)[0]
	r.Addr = local(port)
	argv := []string{find("redis-server"), "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--save", "", "--appendonly", "no"}
	r.Server = serve(t, "redis", dir, launch{
		argv:  append(argv, options...),
		ready: func() error { return dialogue(r.Addr, "PING\r\n", "+PONG", "-NOAUTH") },
	})
	return r
}

// dialogue sends a line, if any, to a server that speaks lines, and compares the beginning of the line that comes.
func dialogue(addr, send string, want ...string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte(send)); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	for _, w := range want {
		if len(line) >= len(w) && line[:len(w)] == w {
			return nil
		}
	}
	return fmt.Errorf("%s answers %q", addr, line)
}
